//! Managed certificates: how far each is on its way from the issuer to the clients.

use std::cmp::Reverse;

use super::{cut, day, joined, number, plural};
use crate::finding::{Kind, Severity};
use crate::report::{AddressReport, AddressStage, CertificateReport, InstanceReport, InstanceStage, Left, Report};
use crate::timestamp::Timestamp;

/// A card.
pub(super) struct Managed {
    pub(super) name: String,
    pub(super) status: Severity,
    pub(super) left: String,
    pub(super) identifiers: Option<String>,
    pub(super) quiet: bool,
    pub(super) stages: Vec<Step>,
    /// What is wrong, and what is being done about it.
    pub(super) lines: Vec<String>,
    pub(super) facts: String,
    /// Why instances and addresses are where they are, unless a line above says so.
    pub(super) reasons: Vec<Reason>,
    pub(super) instances: Vec<Instance>,
    pub(super) instances_words: String,
    pub(super) instances_more: usize,
    pub(super) addresses: Vec<Address>,
    pub(super) addresses_words: String,
    pub(super) addresses_more: usize,
    /// Whether instances and addresses are shown at once.
    pub(super) open: bool,
    pub(super) history: Vec<Version>,
    pub(super) history_words: String,
}

/// One of the four stages, over all instances.
pub(super) struct Step {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) words: String,
}

pub(super) struct Reason {
    pub(super) place: String,
    pub(super) words: String,
}

pub(super) struct Instance {
    pub(super) name: String,
    pub(super) host: Option<String>,
    pub(super) class: &'static str,
    pub(super) stage: InstanceStage,
    pub(super) version: String,
    pub(super) at: String,
}

pub(super) struct Address {
    pub(super) address: String,
    pub(super) endpoint: Option<String>,
    pub(super) class: &'static str,
    pub(super) stage: AddressStage,
    /// The version that it serves.
    pub(super) shown: String,
    pub(super) until: String,
}

pub(super) struct Version {
    pub(super) version: String,
    pub(super) validity: String,
    pub(super) issuer: String,
    pub(super) current: bool,
}

/// The cards, and how many are left out.
pub(super) fn all(report: &Report, now: Timestamp) -> (Vec<Managed>, usize) {
    let mut certificates: Vec<_> = report.certificates.iter().collect();
    certificates.sort_by_key(|certificate| {
        let not_after = certificate.not_after().unwrap_or(Timestamp::UNIX_EPOCH);
        (Reverse(certificate.status), not_after, certificate.name.as_str())
    });

    let more = certificates.len().saturating_sub(CARDS);
    let cards = certificates
        .into_iter()
        .take(CARDS)
        .map(|certificate| card(certificate, now))
        .collect();
    (cards, more)
}

fn card(certificate: &CertificateReport, now: Timestamp) -> Managed {
    // What is behind comes first: only some are shown.
    let mut instances: Vec<_> = certificate.instances.iter().collect();
    instances.sort_by_key(|instance| (reached(certificate, instance), instance.instance.as_str()));
    let mut addresses: Vec<_> = certificate.addresses.iter().collect();
    addresses.sort_by_key(|seen| (seen.stage, seen.endpoint.as_str(), seen.address));

    let lines = lines(certificate);
    let is_for_its_name = certificate.identifiers == [certificate.name.clone()];
    Managed {
        name: cut(&certificate.name),
        status: certificate.status,
        left: certificate.not_after().map_or_else(
            || "not issued yet".to_owned(),
            |not_after| Left(not_after - now).to_string(),
        ),
        identifiers: (!is_for_its_name).then(|| joined(&certificate.identifiers)),
        quiet: certificate.quiet,
        stages: stages(certificate),
        reasons: reasons(&instances, &addresses, &lines),
        lines,
        facts: facts(certificate),
        instances_words: plural(instances.len() as u64, "instance"),
        instances_more: instances.len().saturating_sub(INSTANCES),
        instances: (instances.into_iter().take(INSTANCES))
            .map(|instance| row(certificate, instance))
            .collect(),
        addresses_words: format!(
            "{}, as the probe saw {}",
            plural_of(addresses.len(), "address", "addresses"),
            if addresses.len() == 1 { "it" } else { "them" }
        ),
        addresses_more: addresses.len().saturating_sub(INSTANCES),
        addresses: addresses.into_iter().take(INSTANCES).map(address).collect(),
        open: certificate.status != Severity::Ok,
        history: history(certificate),
        history_words: format!("History: {}", plural(certificate.history.len() as u64, "version")),
    }
}

/// How far an instance is with the version that it should serve; with another one, it is at the
/// beginning.
fn reached(certificate: &CertificateReport, instance: &InstanceReport) -> InstanceStage {
    if instance.version.as_deref() == certificate.version() || instance.stage == InstanceStage::Failed {
        instance.stage
    } else {
        InstanceStage::Issued
    }
}

fn stages(certificate: &CertificateReport) -> Vec<Step> {
    let issued = match &certificate.current {
        Some(current) => Step {
            class: "done",
            name: "Issued",
            words: day(current.not_before),
        },
        None => Step {
            class: "stuck",
            name: "Issued",
            words: "not yet".to_owned(),
        },
    };
    // Where no client reports, the view from outside is all that there is.
    let seen_outside = if certificate.instances.is_empty() {
        served_at_addresses(certificate)
    } else {
        None
    };

    vec![
        issued,
        step("Pulled", InstanceStage::Pulled, certificate),
        step("Installed", InstanceStage::Installed, certificate),
        seen_outside.unwrap_or_else(|| step("Served", InstanceStage::Served, certificate)),
    ]
}

/// How many instances have come so far.
fn step(name: &'static str, stage: InstanceStage, certificate: &CertificateReport) -> Step {
    let instances = certificate.instances.iter();
    let all = instances.len();
    let there = instances
        .filter(|instance| reached(certificate, instance) >= stage)
        .count();

    let (class, words) = match (all, there) {
        (0, _) => ("", "no instance yet".to_owned()),
        (all, there) if there == all => ("done", format!("{there} of {all}")),
        (_, 0) => ("stuck", format!("0 of {all}")),
        _ => ("part", format!("{there} of {all}")),
    };
    Step { class, name, words }
}

/// At how many addresses the current version is served; none if no address is probed.
fn served_at_addresses(certificate: &CertificateReport) -> Option<Step> {
    let all = certificate.addresses.len();
    if all == 0 {
        return None;
    }

    let served = certificate
        .addresses
        .iter()
        .filter(|seen| seen.stage == AddressStage::Served)
        .count();
    Some(Step {
        class: match served {
            0 => "stuck",
            served if served == all => "done",
            _ => "part",
        },
        name: "Served",
        words: format!("{served} of {}", plural_of(all, "address", "addresses")),
    })
}

/// What is wrong, and the renewal's problem if no finding reports it.
fn lines(certificate: &CertificateReport) -> Vec<String> {
    let mut lines: Vec<_> = certificate
        .findings
        .iter()
        .map(|finding| format!("{} [{}]", cut(&finding.message), cut(&finding.kind.code().to_string())))
        .collect();

    let is_reported = certificate
        .findings
        .iter()
        .any(|finding| matches!(finding.kind, Kind::RenewalFailed { .. }));
    if let Some(failure) = &certificate.renewal.failure
        && !is_reported
    {
        lines.push(format!(
            "Renewal failed: {}. Next try: {}.",
            cut(&failure.problem).trim_end_matches('.'),
            failure.next_try
        ));
    }
    lines
}

/// Why instances and addresses are where they are. A text may be long: a table would cut it.
fn reasons(instances: &[&InstanceReport], addresses: &[&AddressReport], lines: &[String]) -> Vec<Reason> {
    let of_instances =
        (instances.iter().take(INSTANCES)).map(|instance| (instance.shown().to_owned(), &instance.reason));
    let of_addresses = addresses.iter().take(INSTANCES).map(|seen| {
        let address = seen.address.map(|address| address.to_string());
        (address.unwrap_or_else(|| seen.endpoint.clone()), &seen.reason)
    });

    let mut reasons = Vec::new();
    for (place, reason) in of_instances.chain(of_addresses) {
        let Some(words) = reason.as_deref().map(cut) else {
            continue;
        };
        if !lines.iter().any(|line| line.contains(&words)) {
            reasons.push(Reason {
                place: cut(&place),
                words,
            });
        }
    }
    reasons
}

fn facts(certificate: &CertificateReport) -> String {
    let issuer = certificate
        .current
        .as_ref()
        .map(|current| format!("issued by {}", cut(&current.issuer)));
    let end = certificate.not_after().map(|end| format!("valid until {end}"));
    let planned = certificate
        .renewal
        .planned
        .map(|at| format!("renewal planned for {at}"));
    let is_unwatched = certificate.addresses.is_empty() && certificate.current.is_some();
    let unwatched = is_unwatched.then(|| "no address is checked".to_owned());

    let facts: Vec<_> = [issuer, end, planned, unwatched].into_iter().flatten().collect();
    facts.join(", ")
}

fn row(certificate: &CertificateReport, instance: &InstanceReport) -> Instance {
    let stage = reached(certificate, instance);
    Instance {
        name: cut(instance.shown()),
        host: instance.host.as_deref().map(cut),
        class: match stage {
            InstanceStage::Failed | InstanceStage::Issued => "stuck",
            InstanceStage::Pulled | InstanceStage::Installed => "part",
            InstanceStage::Served => "done",
        },
        stage,
        version: instance.version.as_deref().map_or_else(|| "none".to_owned(), cut),
        at: instance.at.map_or_else(String::new, |at| at.to_string()),
    }
}

fn address(seen: &AddressReport) -> Address {
    let endpoint = cut(&seen.endpoint);
    let shown = match (&seen.version, &seen.fingerprint) {
        (Some(version), _) => cut(version),
        (None, Some(fingerprint)) => {
            let start = cut(fingerprint.get(..12).unwrap_or(fingerprint));
            format!("not from here: SHA-256 {start}…")
        }
        (None, None) => String::new(),
    };

    Address {
        address: seen
            .address
            .map_or_else(|| endpoint.clone(), |address| address.to_string()),
        endpoint: seen.address.map(|_| endpoint),
        class: match seen.stage {
            AddressStage::Served => "done",
            AddressStage::Another => "stuck",
            AddressStage::Unseen => "part",
        },
        stage: seen.stage,
        shown,
        until: seen.not_after.map_or_else(String::new, day),
    }
}

fn history(certificate: &CertificateReport) -> Vec<Version> {
    certificate
        .history
        .iter()
        .take(VERSIONS)
        .map(|stored| Version {
            version: cut(&stored.facts.version),
            validity: format!("{} – {}", day(stored.facts.not_before), day(stored.facts.not_after)),
            issuer: cut(&stored.facts.issuer),
            current: stored.current,
        })
        .collect()
}

fn plural_of(count: usize, one: &str, more: &str) -> String {
    format!("{} {}", number(count as u64), if count == 1 { one } else { more })
}

const CARDS: usize = 300;
/// Of one certificate.
const INSTANCES: usize = 100;
const VERSIONS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;
    use serde_json::json;

    #[test]
    fn what_each_address_shows() {
        let seen = |stage: &str, more: serde_json::Value| {
            let mut seen = json!({"endpoint": "a.test:443", "address": "192.0.2.1:443", "stage": stage});
            seen.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            seen
        };
        let of = |instances: serde_json::Value, addresses: Vec<serde_json::Value>| {
            let certificate = json!({"name": "a.test", "status": "ok", "identifiers": ["a.test"], "issuer": "x", "version": "new",
                "fingerprint": "aa", "not_before": "2026-10-01T00:00:00Z", "not_after": "2026-12-30T00:00:00Z", "instances": instances, "addresses": addresses});
            card(
                &serde_json::from_value(certificate).unwrap(),
                timestamp!(2026-10-10 00:00 UTC),
            )
        };
        let addresses = vec![
            seen("served", json!({"version": "new", "fingerprint": "aa"})),
            seen(
                "another",
                json!({"version": "old", "fingerprint": "bb", "not_after": "2026-10-30T00:00:00Z"}),
            ),
            seen("another", json!({"fingerprint": "cccccccccccccccc"})),
            json!({"endpoint": "b.test:443", "stage": "unseen", "reason": "no such name"}),
        ];
        let card = of(json!([]), addresses.clone());
        let rows: Vec<_> = (card.addresses.iter())
            .map(|row| {
                [
                    row.address.clone(),
                    row.stage.to_string(),
                    row.shown.clone(),
                    row.until.clone(),
                ]
            })
            .collect();
        let expected = [
            ["192.0.2.1:443", "different", "old", "2026-10-30"],
            ["192.0.2.1:443", "different", "not from here: SHA-256 cccccccccccc…", ""],
            ["b.test:443", "not seen", "", ""],
            ["192.0.2.1:443", "served", "new", ""],
        ];
        assert_eq!(rows, expected);
        assert_eq!(card.addresses_words, "4 addresses, as the probe saw them");
        assert_eq!(card.stages[3].words, "1 of 4 addresses", "where no client reports");
        let reasons: Vec<_> = card
            .reasons
            .iter()
            .map(|reason| (&*reason.place, &*reason.words))
            .collect();
        assert_eq!(reasons, [("b.test:443", "no such name")]);
        let card = of(
            json!([{"instance": "AROA:i-1", "version": "new", "stage": "served"}]),
            addresses,
        );
        assert_eq!((&*card.stages[3].words, &*card.instances[0].name), ("1 of 1", "i-1"));
    }
}
