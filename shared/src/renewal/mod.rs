//! Renewal: when a certificate is due, and why.
//!
//! [`decide`] is a pure function of the inventory's entry, the current version, what is recorded of
//! earlier renewals ([`Renewal`]), a [`request`] and the time. The renewer acts on its answer; the
//! probe and `neverlapse plan` only show it.

mod record;
mod renewal_info;
pub mod request;

use std::collections::BTreeMap;
use std::fmt;

use time::Duration;

pub use self::record::{
    LONGEST_ASKED, LONGEST_PROBLEM, PREFIX, Renewal, RenewalFailure, RequestProgress, RequestStage, Wait, bounded,
    goes_on,
};
pub use self::renewal_info::RenewalInfo;
use crate::bucket::version::{Current, Facts};
use crate::inventory::{Issuer, KeyType, Managed, Profile};
use crate::renewal::request::{Action, Request};
use crate::timestamp::Timestamp;

/// Whether to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not now.
    NotDue {
        /// When it will be due if nothing changes: see [`planned`].
        next: Timestamp,
    },
    /// Now, or as soon as an earlier failure allows.
    Due {
        /// Why.
        reason: Reason,
        /// The earliest next try, if an earlier failure asks to wait until then.
        next_try: Option<Timestamp>,
    },
}

/// Why a certificate is due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "`from` is what the current version has, `to` what the inventory asks for"
)]
pub enum Reason {
    /// There is no version yet.
    Missing,
    /// The inventory asks for other names.
    IdentifiersChanged { from: Vec<String>, to: Vec<String> },
    /// The inventory asks for another kind of key.
    KeyTypeChanged { from: KeyType, to: KeyType },
    /// The inventory no longer lists the issuer of the current version, or that is another CA now.
    IssuerChanged { from: String, to: Vec<String> },
    /// The inventory asks for another profile.
    ProfileChanged { from: Option<String>, to: Option<String> },
    /// The moment has come that was drawn from the CA's suggested window (RFC 9773).
    Suggested {
        at: Timestamp,
        explanation_url: Option<String>,
    },
    /// Little of its lifetime is left.
    Expiring { not_after: Timestamp },
    /// Its issuer has revoked it, or is about to.
    Revoked,
    /// A person requested it.
    Requested,
}

/// Decides about one certificate, from nothing but what is given. `issuers` are the inventory's, by
/// their names.
pub fn decide(
    issuers: &BTreeMap<String, Issuer>,
    certificate: &Managed,
    current: Option<&Current>,
    renewal: Option<&Renewal>,
    request: Option<&Request>,
    now: Timestamp,
) -> Decision {
    let Some(current) = current else {
        return due(Reason::Missing, renewal, request, now);
    };

    let reason = changed(issuers, certificate, &current.facts)
        .or_else(|| requested(current, request?, now))
        .or_else(|| aged(current, renewal, now));

    match reason {
        Some(reason) => due(reason, renewal, request, now),
        None => Decision::NotDue {
            next: planned(current, renewal),
        },
    }
}

/// When this version will be due if nothing changes: when the CA suggests it, or by its age
/// ([`last_share`]), whichever comes first.
///
/// After a rollback, renewal waits until half of that time is left; otherwise the next run would
/// undo the rollback.
pub fn planned(current: &Current, renewal: Option<&Renewal>) -> Timestamp {
    let facts = &current.facts;
    let last_share = last_share(facts.not_after - facts.not_before);
    if current.rolled_back {
        return facts.not_after - last_share / 2;
    }

    let by_age = facts.not_after - last_share;
    let suggested = renewal_info(facts, renewal).map(|info| info.renew_at.max(earliest(facts, renewal)));
    suggested.map_or(by_age, |suggested| by_age.min(suggested))
}

/// From when on the CA's suggestion counts. The first early replacement is at once, as after a mass
/// revocation. A CA whose window is always in the past would have a new certificate with each run,
/// so versions that replace each other early live for 2, 4, 8 … days.
fn earliest(facts: &Facts, renewal: Option<&Renewal>) -> Timestamp {
    match renewal.map_or(0, |renewal| renewal.replaced_early) {
        0 => facts.not_before,
        count => facts.not_before + Duration::days(1 << count.min(10)),
    }
}

/// Whether a version would be replaced in the first half of the time that it has by its age.
pub fn is_early(facts: &Facts, now: Timestamp) -> bool {
    let lifetime = facts.not_after - facts.not_before;
    now < facts.not_before + (lifetime - last_share(lifetime)) / 2
}

/// How much of a lifetime is left when its certificate becomes due by age: a third, half of one
/// under 10 days, two thirds of one of up to 2 days.
pub fn last_share(lifetime: Duration) -> Duration {
    if lifetime <= VERY_SHORT {
        lifetime / 3 * 2
    } else if lifetime < SHORT {
        lifetime / 2
    } else {
        lifetime / 3
    }
}

/// It is due, but an earlier failure may ask to wait. An urgent request does not wait.
fn due(reason: Reason, renewal: Option<&Renewal>, request: Option<&Request>, now: Timestamp) -> Decision {
    let is_urgent = request.is_some_and(Request::is_urgent);
    let next_try = renewal
        .and_then(|renewal| renewal.failure.as_ref()?.waits_until(now))
        .filter(|_| !is_urgent);
    Decision::Due { reason, next_try }
}

/// What the inventory asks for and the current version does not have.
fn changed(issuers: &BTreeMap<String, Issuer>, wanted: &Managed, current: &Facts) -> Option<Reason> {
    let issuer = &current.issuer;

    if sorted(&current.identifiers) != sorted(&wanted.identifiers) {
        return Some(Reason::IdentifiersChanged {
            from: current.identifiers.clone(),
            to: wanted.identifiers.clone(),
        });
    }
    if current.key != wanted.key_type {
        return Some(Reason::KeyTypeChanged {
            from: current.key,
            to: wanted.key_type,
        });
    }
    if !wanted.issuers.contains(&issuer.name) {
        return Some(Reason::IssuerChanged {
            from: issuer.name.clone(),
            to: wanted.issuers.clone(),
        });
    }
    // The same name may be another CA by now, such as production instead of staging.
    if let Some(now) = issuers.get(&issuer.name)
        && (now.directory != issuer.directory || now.staging != issuer.staging)
    {
        return Some(Reason::IssuerChanged {
            from: at(&issuer.name, &issuer.directory, issuer.staging),
            to: vec![at(&now.name, &now.directory, now.staging)],
        });
    }
    let profile = issuers
        .get(&issuer.name)
        .map_or_else(|| wanted.profile.clone(), |issuer| wanted.profile_at(issuer));
    if !Profile::is_met(profile.as_ref(), issuer.profile.as_deref()) {
        return Some(Reason::ProfileChanged {
            from: issuer.profile.clone(),
            to: profile.map(|profile| profile.name),
        });
    }
    None
}

fn at(name: &str, directory: &str, is_staging: bool) -> String {
    let staging = if is_staging { ", staging" } else { "" };
    format!("{name} ({directory}{staging})")
}

/// What the request asks for, unless it is about an earlier version.
fn requested(current: &Current, request: &Request, now: Timestamp) -> Option<Reason> {
    let is_to_revoke = request.action == Action::Revoke && request.version.as_ref() == Some(&current.facts.version);
    let mut revoked = request.observed.iter().filter(|seen| seen.revoked);
    if is_to_revoke || revoked.any(|seen| seen.fingerprint == current.facts.fingerprint) {
        return Some(Reason::Revoked);
    }

    // A late duplicate finds that what it asked for is published already.
    (request.force && request.at > current.moved_at(now)).then_some(Reason::Requested)
}

/// The reason that comes with time.
fn aged(current: &Current, renewal: Option<&Renewal>, now: Timestamp) -> Option<Reason> {
    if planned(current, renewal) > now {
        return None;
    }

    let suggested = renewal_info(&current.facts, renewal).filter(|info| info.renew_at <= now);
    Some(match suggested {
        Some(info) => Reason::Suggested {
            at: info.renew_at,
            explanation_url: info.explanation_url.clone(),
        },
        None => Reason::Expiring {
            not_after: current.facts.not_after,
        },
    })
}

/// The CA's renewal information, if it is about this version.
fn renewal_info<'r>(current: &Facts, renewal: Option<&'r Renewal>) -> Option<&'r RenewalInfo> {
    let info = renewal?.renewal_info.as_ref()?;
    (info.version == current.version).then_some(info)
}

/// The identifiers as a set: their order means nothing to a CA.
fn sorted(identifiers: &[String]) -> Vec<&String> {
    let mut sorted: Vec<_> = identifiers.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue { next } => write!(f, "not due before {next}"),
            Self::Due { reason, next_try: None } => write!(f, "due: {reason}"),
            Self::Due {
                reason,
                next_try: Some(next_try),
            } => {
                write!(f, "due: {reason}; after a failure not before {next_try}")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no certificate yet"),
            Self::IdentifiersChanged { from, to } => {
                write!(f, "identifiers changed from {} to {}", from.join(", "), to.join(", "))
            }
            Self::KeyTypeChanged { from, to } => write!(f, "key type changed from {from} to {to}"),
            Self::IssuerChanged { from, to } => write!(f, "issuer changed from {from} to {}", to.join(" or ")),
            Self::ProfileChanged { from, to } => {
                let from = from.as_deref().unwrap_or("none");
                let to = to.as_deref().unwrap_or("none");
                write!(f, "profile changed from {from} to {to}")
            }
            Self::Suggested { at, explanation_url } => {
                write!(f, "the CA suggests to renew since {at}")?;
                match explanation_url {
                    Some(url) => write!(f, " ({url})"),
                    None => Ok(()),
                }
            }
            Self::Expiring { not_after } => write!(f, "it expires on {not_after}"),
            Self::Revoked => f.write_str("it is revoked"),
            Self::Requested => f.write_str("a person asked"),
        }
    }
}

/// A third of a shorter lifetime leaves too few daily runs to try again.
const SHORT: Duration = Duration::days(10);
/// Private CAs issue for a day, and there are two requests per day: what is not due yet at the next
/// one would expire at the one after it.
const VERY_SHORT: Duration = Duration::days(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Inventory;
    use crate::renewal::request::{Observed, RequestedBy};
    use crate::timestamp;

    const BORN: Timestamp = timestamp!(2026-10-01 00:00 UTC);
    const NOT_DUE: &str = "not due before 2026-11-30 00:00 UTC";

    fn wanted(rest: &str) -> Managed {
        let text = format!("[[certificate]]\nidentifiers = [\"example.com\", \"*.example.com\"]\n{rest}");
        Inventory::parse(&text).certificates.remove(0)
    }

    fn current(days: i64) -> Current {
        let mut current = Current::sample("example.com", BORN, BORN + Duration::days(days));
        current.facts.identifiers = vec!["*.example.com".into(), "example.com".into()];
        current
    }

    fn decide(
        certificate: &Managed,
        current: Option<&Current>,
        renewal: Option<&Renewal>,
        request: Option<&Request>,
        now: Timestamp,
    ) -> Decision {
        super::decide(&BTreeMap::new(), certificate, current, renewal, request, now)
    }

    /// The URL of an issuer was changed from staging to production under the same name, and the
    /// fake certificate stayed.
    #[test]
    fn another_directory_under_the_same_name_is_another_issuer() {
        let issuer = |directory: &str, staging: bool| {
            let text = format!("[issuer.letsencrypt]\ndirectory = {directory:?}\nstaging = {staging}\n");
            Inventory::parse(&text).issuers
        };
        let own = "https://acme.test/directory";
        for (issuers, expected) in [
            (issuer(own, false), NOT_DUE),
            (
                issuer("https://other.test/directory", false),
                "due: issuer changed from letsencrypt (https://acme.test/directory) to letsencrypt (https://other.test/directory)",
            ),
            (
                issuer(own, true),
                "due: issuer changed from letsencrypt (https://acme.test/directory) to letsencrypt (https://acme.test/directory, staging)",
            ),
        ] {
            let decision = super::decide(&issuers, &wanted(""), Some(&current(90)), None, None, BORN);
            assert_eq!(decision.to_string(), expected);
        }
    }

    fn request(force: bool, at: Timestamp) -> Request {
        Request {
            force,
            ..Request::new("example.com", RequestedBy::Person, at)
        }
    }

    fn suggested(version: &str, start: Timestamp, end: Timestamp, draw: f64) -> Renewal {
        Renewal {
            renewal_info: RenewalInfo::of(version, (start, end), None, BORN, None, draw),
            ..Renewal::new("example.com")
        }
    }

    #[test]
    fn what_a_person_went_back_to_is_not_replaced_the_next_day() {
        let back = Current {
            rolled_back: true,
            ..current(90)
        };
        let past = suggested(&back.facts.version, BORN, BORN + Duration::HOUR, 0.0);
        let at = |days: i64, request: Option<&Request>| {
            let now = BORN + Duration::days(days);
            decide(&wanted(""), Some(&back), Some(&past), request, now).to_string()
        };

        assert_eq!(at(61, None), "not due before 2026-12-15 00:00 UTC");
        assert!(at(75, None).starts_with("due: "), "{}", at(75, None));

        let forced = request(true, BORN + Duration::days(61));
        assert_eq!(at(61, Some(&forced)), "due: a person asked");
    }

    /// The clock of whoever published was ahead once: until then, no `--force` was about this
    /// version.
    #[test]
    fn a_pointer_from_the_future_made_every_request_an_old_one() {
        let mut ahead = current(90);
        ahead.published_at = BORN + Duration::days(400);
        let now = BORN + Duration::days(2);
        let decision = decide(&wanted(""), Some(&ahead), None, Some(&request(true, now)), now);
        assert_eq!(decision.to_string(), "due: a person asked");
    }

    #[test]
    fn by_age_a_third_is_left_and_more_of_a_short_lifetime() {
        let second = Duration::SECOND;
        for (lifetime, age, expected) in [
            (90, Duration::days(60) - second, NOT_DUE),
            (90, Duration::days(60), "due: it expires on 2026-12-30 00:00 UTC"),
            (45, Duration::days(30), "due: it expires on 2026-11-15 00:00 UTC"),
            (6, Duration::days(3) - second, "not due before 2026-10-04 00:00 UTC"),
            (6, Duration::days(3), "due: it expires on 2026-10-07 00:00 UTC"),
            (1, Duration::hours(8) - second, "not due before 2026-10-01 08:00 UTC"),
            (1, Duration::hours(11), "due: it expires on 2026-10-02 00:00 UTC"),
            (90, Duration::days(400), "due: it expires on 2026-12-30 00:00 UTC"),
        ] {
            let decision = decide(&wanted(""), Some(&current(lifetime)), None, None, BORN + age);
            assert_eq!(decision.to_string(), expected);
        }
    }

    #[test]
    fn what_the_inventory_changes_is_due_at_once_and_order_of_names_is_no_change() {
        for (rest, expected) in [
            ("", NOT_DUE),
            (
                "key_type = \"rsa-2048\"",
                "due: key type changed from ecdsa-p256 to rsa-2048",
            ),
            (
                "profile = \"shortlived\"",
                "due: profile changed from none to shortlived",
            ),
            (
                "issuers = [\"letsencrypt-staging\"]",
                "due: issuer changed from letsencrypt to letsencrypt-staging",
            ),
            ("issuers = [\"letsencrypt-staging\", \"letsencrypt\"]", NOT_DUE),
        ] {
            let decision = decide(&wanted(rest), Some(&current(90)), None, None, BORN);
            assert_eq!(decision.to_string(), expected);
        }

        let decision = decide(&wanted(""), None, None, None, BORN);
        assert_eq!(decision.to_string(), "due: there is no certificate yet");
    }

    #[test]
    fn the_ca_may_suggest_an_earlier_time_and_the_past_means_now() {
        let current = current(90);
        let now = BORN + Duration::days(5);
        let of = |version: &str, start: i64, end: i64, draw| {
            let day = |day: i64| BORN + Duration::days(day);
            suggested(version, day(start), day(end), draw)
        };
        let version = &current.facts.version;

        for (renewal, expected) in [
            (of(version, 50, 54, 0.5), "not due before 2026-11-22 00:00 UTC"),
            (
                of(version, 1, 2, 0.0),
                "due: the CA suggests to renew since 2026-10-02 00:00 UTC",
            ),
            (of("another", 1, 2, 0.0), NOT_DUE),
            (of(version, 70, 80, 0.0), NOT_DUE),
            (of(version, 2, 2, 0.0), NOT_DUE),
        ] {
            let decision = decide(&wanted(""), Some(&current), Some(&renewal), None, now);
            assert_eq!(decision.to_string(), expected);
        }
    }

    #[test]
    fn a_late_duplicate_of_a_request_does_nothing() {
        let current = current(90);
        let version = current.facts.version.clone();
        let hour = Duration::HOUR;
        let revoke = |version: &str| Request {
            action: Action::Revoke,
            version: Some(version.into()),
            ..request(false, BORN + hour)
        };

        for (request, expected) in [
            (request(true, BORN + hour), "due: a person asked"),
            (request(true, BORN - Duration::SECOND), NOT_DUE),
            (revoke(&version), "due: it is revoked"),
            (revoke("20260901T000000Z-00000000"), NOT_DUE),
        ] {
            let decision = decide(&wanted(""), Some(&current), None, Some(&request), BORN + Duration::DAY);
            assert_eq!(decision.to_string(), expected);
        }
    }

    #[test]
    fn what_is_seen_revoked_counts_for_the_current_version_only() {
        for (fingerprint, expected) in [("ab", "due: it is revoked"), ("other", NOT_DUE)] {
            let seen = Request {
                observed: vec![Observed {
                    endpoint: "example.com:443".into(),
                    address: ([192, 0, 2, 1], 443).into(),
                    fingerprint: fingerprint.into(),
                    not_after: BORN + Duration::days(90),
                    revoked: true,
                }],
                ..request(false, BORN)
            };
            let decision = decide(&wanted(""), Some(&current(90)), None, Some(&seen), BORN);
            assert_eq!(decision.to_string(), expected);
        }
    }

    #[test]
    fn a_failure_asks_to_wait_and_force_does_not() {
        let renewal = Renewal {
            failure: Some(RenewalFailure::next(
                None,
                "x".into(),
                Some(BORN + Duration::days(3)),
                BORN,
            )),
            ..Renewal::new("example.com")
        };
        let forced = request(true, BORN);
        for (request, expected) in [
            (
                None,
                "due: there is no certificate yet; after a failure not before 2026-10-04 00:00 UTC",
            ),
            (Some(&forced), "due: there is no certificate yet"),
        ] {
            let decision = decide(&wanted(""), None, Some(&renewal), request, BORN + Duration::DAY);
            assert_eq!(decision.to_string(), expected);
        }
    }
}
