//! Which of an endpoint's addresses count, before they are probed and after.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use crate::certificate::Certificate;
use crate::finding::{Finding, Kind, Served, Severity};
use crate::observation::{Observation, Skipped};
use crate::resolve::has_route;
use crate::timestamp::Timestamp;

/// What one address answered, and the network's error if there was no connection.
pub(super) struct Probed {
    pub(super) observation: Observation,
    pub(super) connect_error: Option<io::ErrorKind>,
}

/// The addresses to probe, and those that are left out.
pub(super) fn chosen(addresses: Vec<IpAddr>) -> (Vec<IpAddr>, Vec<Skipped>) {
    // IPv6, where there is no route to it.
    let (mut chosen, unroutable): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() || has_route(*address));
    // Too many for one name: its owner must not take the time of all other endpoints.
    let surplus = chosen.split_off(chosen.len().min(ADDRESSES));

    let mut skipped: Vec<_> = unroutable
        .into_iter()
        .map(|address| Skipped {
            address,
            reason: "no IPv6 route from here".to_owned(),
            no_ipv6: true,
        })
        .collect();
    skipped.extend(surplus.into_iter().map(|address| Skipped {
        address,
        reason: format!("more than {ADDRESSES} addresses"),
        no_ipv6: false,
    }));
    (chosen, skipped)
}

/// Leaves out IPv6 that the network cannot carry, as when a host has an address but its router no
/// way out. It is left out only if another address could be reached: otherwise nothing else is
/// known of the name.
pub(super) fn reachable(probed: Vec<Probed>) -> (Vec<Observation>, Vec<Skipped>) {
    if probed.iter().all(|one| one.unreachable().is_some()) {
        let observations = probed.into_iter().map(|one| one.observation).collect();
        return (observations, Vec::new());
    }

    let mut observations = Vec::new();
    let mut skipped = Vec::new();
    for one in probed {
        match one.unreachable() {
            None => observations.push(one.observation),
            Some(error) => skipped.push(Skipped {
                address: one.observation.address.ip(),
                reason: format!("no IPv6 connection from here: {error}"),
                no_ipv6: true,
            }),
        }
    }
    (observations, skipped)
}

/// The findings of addresses that serve different certificates, to all clients or to those that
/// want the other kind of key.
pub(super) fn disagreements(observations: &[Observation], now: Timestamp) -> Vec<Finding> {
    let to_all = observations.iter().filter_map(|seen| Some((seen, seen.leaf.as_ref()?)));
    let to_some = observations
        .iter()
        .filter_map(|seen| Some((seen, &seen.other.as_ref()?.leaf)));
    let mut findings = Vec::new();
    findings.extend(disagreement(to_all, now));
    findings.extend(disagreement(to_some, now));
    findings
}

/// What differs is a warning if a server has missed a renewal, or has something wrong with it.
/// Otherwise each may well have a certificate of its own.
fn disagreement<'a>(seen: impl Iterator<Item = (&'a Observation, &'a Certificate)>, now: Timestamp) -> Option<Finding> {
    let mut served = BTreeMap::<&str, Served>::new();
    let mut severity = Severity::Ok;
    for (observation, leaf) in seen {
        let is_due = leaf.not_after - now < (leaf.not_after - leaf.not_before) / 3;
        let is_wrong = observation
            .findings
            .iter()
            .any(|finding| finding.severity > Severity::Ok);
        if is_due || is_wrong {
            severity = Severity::Warning;
        }
        served
            .entry(&leaf.fingerprint)
            .or_insert_with(|| Served {
                fingerprint: leaf.fingerprint.clone(),
                not_after: leaf.not_after,
                addresses: Vec::new(),
            })
            .addresses
            .push(observation.address);
    }

    if served.len() < 2 {
        return None;
    }
    let certificates = served.into_values().collect();
    Some(Finding::new(Kind::AddressesDisagree { certificates }, severity, now))
}

impl Probed {
    /// The error of an IPv6 address to which the network carries nothing.
    fn unreachable(&self) -> Option<io::ErrorKind> {
        self.connect_error
            .filter(|error| {
                matches!(
                    error,
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
                )
            })
            .filter(|_| self.observation.address.is_ipv6())
    }
}

/// The largest round robins have some dozens.
const ADDRESSES: usize = 100;

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use time::Duration;

    use super::*;
    use crate::certificate::Role;
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);

    fn probed(address: &str, connect_error: Option<ErrorKind>) -> Probed {
        let observation = Observation {
            address: address.parse().unwrap(),
            tls: None,
            leaf: None,
            issuers: Vec::new(),
            revocation: None,
            other: None,
            findings: Vec::new(),
            elapsed_ms: 0,
            tries: 2,
        };
        Probed {
            observation,
            connect_error,
        }
    }

    /// Behind a round robin, each server may have a certificate of its own: that was a warning for
    /// as long as they had.
    #[test]
    fn certificates_that_differ_are_a_warning_where_a_renewal_was_missed() {
        let observation = |last: u8, days_left: i64, findings: Vec<Finding>| {
            let not_after = NOW + Duration::days(days_left);
            let leaf = Certificate {
                subject: String::new(),
                issuer: "CN=x".to_owned(),
                serial: "1f".to_owned(),
                fingerprint: days_left.to_string(),
                not_before: not_after - Duration::days(90),
                not_after,
                names: vec!["shop.example".to_owned()],
                key: "ecdsa-p256".to_owned(),
                signature: "ecdsa-sha256".to_owned(),
                role: Role::Leaf,
            };
            let Probed { observation, .. } = probed(&format!("192.0.2.{last}:443"), None);
            Observation {
                leaf: Some(leaf),
                findings,
                ..observation
            }
        };
        let mismatch = Kind::NameMismatch {
            expected: "shop.example".to_owned(),
            names: Vec::new(),
        };
        let wrong = Finding::new(mismatch, Severity::Critical, NOW);
        for (observations, expected) in [
            (vec![(89, None), (89, None)], None),
            (vec![(89, None), (45, None)], Some(Severity::Ok)),
            (vec![(89, None), (31, None), (60, None)], Some(Severity::Ok)),
            (vec![(89, None), (29, None)], Some(Severity::Warning)),
            (vec![(-1, None), (89, None)], Some(Severity::Warning)),
            (vec![(89, None), (45, Some(&wrong))], Some(Severity::Warning)),
        ] {
            let seen: Vec<_> = (1..)
                .zip(&observations)
                .map(|(last, (days, finding))| observation(last, *days, finding.cloned().into_iter().collect()))
                .collect();
            let findings = disagreements(&seen, NOW);
            let severities: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
            assert_eq!(severities, expected.into_iter().collect::<Vec<_>>(), "{observations:?}");
        }
    }

    #[test]
    fn ipv6_that_the_network_cannot_carry_is_skipped_when_another_address_is_left() {
        let (v4, v6, other_v6) = ("192.0.2.7:443", "[2001:db8::7]:443", "[2001:db8::8]:443");
        let (host, network) = (Some(ErrorKind::HostUnreachable), Some(ErrorKind::NetworkUnreachable));
        let refused = Some(ErrorKind::ConnectionRefused);
        for (all, expected) in [
            (vec![probed(v4, None), probed(v6, None)], vec![]),
            (
                vec![probed(v4, None), probed(v6, network)],
                vec!["2001:db8::7 no IPv6 connection from here: network unreachable"],
            ),
            (
                vec![probed(v4, refused), probed(v6, host), probed(other_v6, network)],
                vec![
                    "2001:db8::7 no IPv6 connection from here: host unreachable",
                    "2001:db8::8 no IPv6 connection from here: network unreachable",
                ],
            ),
            (
                vec![probed(v6, host), probed(other_v6, None)],
                vec!["2001:db8::7 no IPv6 connection from here: host unreachable"],
            ),
            // It may be the server, and no other address helps to decide.
            (vec![probed(v6, host)], vec![]),
            (vec![probed(v6, host), probed(other_v6, network)], vec![]),
            // Everybody has IPv4: the server is at fault, or the way to it.
            (vec![probed(v4, host), probed(v6, None)], vec![]),
            (vec![probed(v4, None), probed(v6, refused)], vec![]),
        ] {
            let before = all.len();
            let (left, skipped) = reachable(all);
            let lines: Vec<_> = skipped
                .iter()
                .map(|skipped| format!("{} {}", skipped.address, skipped.reason))
                .collect();
            assert_eq!(lines, expected);
            assert_eq!(left.len() + skipped.len(), before);
            assert!(left.iter().all(|seen| {
                !lines
                    .iter()
                    .any(|line| line.starts_with(&seen.address.ip().to_string()))
            }));
        }
    }
}
