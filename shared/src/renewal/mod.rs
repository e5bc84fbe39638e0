//! When a certificate is due, and what is remembered of its renewals.

pub mod request;

use std::fmt;

use serde::{Deserialize, Serialize};
use time::Duration;

use crate::bucket::version::{Current, Facts};
use crate::inventory::{Certificate, KeyType};
use crate::renewal::request::{Action, Observed, Request};
use crate::timestamp::Timestamp;

/// `state/renewals/{name}.json`: what the renewer last decided and did. It holds no secret; probe, report and `plan` read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Always [`Renewal::SCHEMA`].
    pub schema: String,
    /// The certificate's name in the inventory.
    pub name: String,
    /// When a certificate was last published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// The CA's renewal information (RFC 9773) about the current version.
    #[serde(default, rename = "advice", skip_serializing_if = "Option::is_none")]
    pub renewal_info: Option<RenewalInfo>,
    /// What went wrong since then, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Issuers that asked to be left alone for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
}

/// An issuer that asked to wait (Retry-After).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Its name in the inventory.
    pub issuer: String,
    /// Not to be asked for an order before this.
    pub until: Timestamp,
}

/// The CA's renewal information (RFC 9773) about one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalInfo {
    /// The version it is about.
    pub version: String,
    /// Start of the suggested window.
    pub start: Timestamp,
    /// End of it.
    pub end: Timestamp,
    /// The moment in the window that was drawn for us; kept, so that it does not wander from run to run.
    pub renew_at: Timestamp,
    /// Where the CA explains itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation_url: Option<String>,
    /// Not to be asked again before this (Retry-After).
    pub ask_again_at: Timestamp,
}

/// The last failed try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How many tries have failed in a row.
    pub count: u32,
    /// When the first of them did.
    pub since: Timestamp,
    /// When the last one did.
    pub at: Timestamp,
    /// What went wrong, in the words of who refused.
    pub problem: String,
    /// Not to be tried before this.
    pub next_try: Timestamp,
}

/// Whether to renew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Decision {
    /// Not now.
    NotDue { next: Timestamp },
    /// Now, or as soon as an earlier failure allows.
    Due {
        #[serde(flatten)]
        reason: Reason,
        /// Set while an earlier failure asks to wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
    },
}

/// Why a certificate is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Reason {
    /// There is none yet.
    Missing,
    /// The inventory asks for other names.
    IdentifiersChanged { from: Vec<String>, to: Vec<String> },
    /// The inventory asks for another kind of key.
    KeyTypeChanged { from: KeyType, to: KeyType },
    /// The inventory no longer lists the issuer that it came from.
    IssuerChanged { from: String, to: Vec<String> },
    /// The inventory asks for another profile.
    ProfileChanged { from: Option<String>, to: Option<String> },
    /// The CA suggests it (RFC 9773).
    #[serde(rename = "advised")]
    Suggested {
        at: Timestamp,
        explanation_url: Option<String>,
    },
    /// Little of its lifetime is left.
    Expiring { not_after: Timestamp },
    /// Its issuer has revoked it.
    Revoked,
    /// A person asks.
    Asked,
}

/// Decides about one certificate, from nothing but what is given.
pub fn decide(
    certificate: &Certificate,
    current: Option<&Current>,
    renewal: Option<&Renewal>,
    request: Option<&Request>,
    now: Timestamp,
) -> Decision {
    let reason = match current {
        None => Reason::Missing,
        Some(current) => {
            let changed = changed(certificate, &current.facts);
            let asked = || request.and_then(|request| asked(current, request));
            match changed.or_else(asked).or_else(|| aged(current, renewal, now)) {
                Some(reason) => reason,
                None => {
                    let next = planned(current, renewal);
                    return Decision::NotDue { next };
                }
            }
        }
    };
    let patient = !request.is_some_and(Request::is_urgent);
    let failure = renewal.and_then(|renewal| renewal.failure.as_ref());
    let not_before = failure
        .map(|failure| failure.next_try)
        .filter(|next| patient && *next > now);
    Decision::Due { reason, not_before }
}

/// When this version will be due if nothing changes: when the CA suggests, or a third of the lifetime is left (half, of a lifetime
/// under 10 days), whichever comes first. A version that a person went back to is kept until half of that is left: the next run would
/// replace it by another one like that from which they went back.
pub fn planned(current: &Current, renewal: Option<&Renewal>) -> Timestamp {
    let facts = &current.facts;
    let lifetime = facts.not_after - facts.not_before;
    let share = if lifetime < SHORT { lifetime / 2 } else { lifetime / 3 };
    if current.rolled_back {
        return facts.not_after - share / 2;
    }
    let by_age = facts.not_after - share;
    renewal_info(facts, renewal).map_or(by_age, |info| by_age.min(info.renew_at))
}

/// What the inventory wants otherwise than it is.
fn changed(wanted: &Certificate, current: &Facts) -> Option<Reason> {
    let issuer = &current.issuer;
    if sorted(&current.identifiers) != sorted(&wanted.identifiers) {
        let (from, to) = (current.identifiers.clone(), wanted.identifiers.clone());
        return Some(Reason::IdentifiersChanged { from, to });
    }
    if current.key != wanted.key_type {
        let (from, to) = (current.key, wanted.key_type);
        return Some(Reason::KeyTypeChanged { from, to });
    }
    if !wanted.issuers.contains(&issuer.name) {
        let (from, to) = (issuer.name.clone(), wanted.issuers.clone());
        return Some(Reason::IssuerChanged { from, to });
    }
    if issuer.profile != wanted.profile {
        let (from, to) = (issuer.profile.clone(), wanted.profile.clone());
        return Some(Reason::ProfileChanged { from, to });
    }
    None
}

/// What the request asks for, unless it is about an earlier version.
fn asked(current: &Current, request: &Request) -> Option<Reason> {
    let is_revoked = |seen: &Observed| seen.revoked && seen.fingerprint == current.facts.fingerprint;
    let to_revoke = request.action == Action::Revoke && request.version.as_ref() == Some(&current.facts.version);
    if to_revoke || request.observed.iter().any(is_revoked) {
        return Some(Reason::Revoked);
    }
    (request.force && request.at > current.published_at).then_some(Reason::Asked)
}

/// What time has brought about.
fn aged(current: &Current, renewal: Option<&Renewal>, now: Timestamp) -> Option<Reason> {
    if planned(current, renewal) > now {
        return None;
    }
    let suggested = renewal_info(&current.facts, renewal).filter(|info| info.renew_at <= now);
    let suggested = suggested.map(|info| Reason::Suggested {
        at: info.renew_at,
        explanation_url: info.explanation_url.clone(),
    });
    let not_after = current.facts.not_after;
    Some(suggested.unwrap_or(Reason::Expiring { not_after }))
}

fn renewal_info<'r>(current: &Facts, renewal: Option<&'r Renewal>) -> Option<&'r RenewalInfo> {
    renewal?
        .renewal_info
        .as_ref()
        .filter(|info| info.version == current.version)
}

fn sorted(identifiers: &[String]) -> Vec<&String> {
    let mut sorted: Vec<_> = identifiers.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted
}

impl RenewalInfo {
    /// The moment to renew in a window: uniformly random (`draw` in 0..1), and kept if the window did not change. A window whose end is
    /// not after its start is no answer (RFC 9773, 4.2).
    pub fn of(
        version: &str,
        (start, end): (Timestamp, Timestamp),
        explanation_url: Option<String>,
        ask_again_at: Timestamp,
        before: Option<&RenewalInfo>,
        draw: f64,
    ) -> Option<Self> {
        if end <= start {
            return None;
        }
        let same = before.filter(|before| before.version == version && before.start == start && before.end == end);
        let renew_at = same.map_or_else(
            || start + (end - start) * draw.clamp(0.0, 1.0),
            |before| before.renew_at,
        );
        let version = version.to_owned();
        Some(Self {
            version,
            start,
            end,
            renew_at,
            explanation_url,
            ask_again_at,
        })
    }
}

impl Failure {
    /// One more failure: the next try waits twice as long as the one before, between a quarter of an hour and twenty, and no less than
    /// the CA asks for.
    pub fn next(before: Option<&Failure>, problem: String, retry_after: Option<Timestamp>, now: Timestamp) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let wait = (FIRST_WAIT * 2_i32.pow((count - 1).min(10))).min(LONGEST_WAIT);
        Self {
            count,
            since: before.map_or(now, |before| before.since),
            at: now,
            problem,
            next_try: retry_after.map_or(now + wait, |after| after.max(now + wait)),
        }
    }
}

impl Renewal {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.renewal/1";

    /// Nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            name: name.to_owned(),
            issued_at: None,
            renewal_info: None,
            failure: None,
            waits: Vec::new(),
        }
    }

    /// Until when an issuer asked to wait, if that is not over.
    pub fn asked_to_wait(&self, issuer: &str, now: Timestamp) -> Option<Timestamp> {
        let wait = self.waits.iter().find(|wait| wait.issuer == issuer);
        wait.map(|wait| wait.until).filter(|until| *until > now)
    }

    /// Keeps that an issuer asked to wait, instead of what it asked before.
    pub fn wait(&mut self, issuer: &str, until: Timestamp) {
        self.waits.retain(|wait| wait.issuer != issuer);
        let issuer = issuer.to_owned();
        self.waits.push(Wait { issuer, until });
    }

    /// Where it is kept.
    pub fn key(name: &str) -> String {
        format!("{PREFIX}{name}.json")
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue { next } => write!(f, "not due before {}", *next),
            Self::Due {
                reason,
                not_before: None,
            } => write!(f, "due: {reason}"),
            Self::Due {
                reason,
                not_before: Some(next),
            } => {
                write!(f, "due: {reason}; after a failure not before {}", *next)
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |profile: &Option<String>| profile.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Self::Missing => f.write_str("there is no certificate yet"),
            Self::IdentifiersChanged { from, to } => {
                write!(f, "identifiers changed from {} to {}", from.join(", "), to.join(", "))
            }
            Self::KeyTypeChanged { from, to } => write!(f, "key type changed from {from} to {to}"),
            Self::IssuerChanged { from, to } => write!(f, "issuer changed from {from} to {}", to.join(" or ")),
            Self::ProfileChanged { from, to } => write!(f, "profile changed from {} to {}", or_none(from), or_none(to)),
            Self::Suggested { at, explanation_url } => {
                write!(f, "the CA suggests to renew since {}", *at)?;
                explanation_url.as_ref().map_or(Ok(()), |url| write!(f, " ({url})"))
            }
            Self::Expiring { not_after } => write!(f, "it expires on {}", *not_after),
            Self::Revoked => f.write_str("it is revoked"),
            Self::Asked => f.write_str("a person asked"),
        }
    }
}

/// Where all renewals are kept, with the slash.
pub const PREFIX: &str = "state/renewals/";
const SHORT: Duration = Duration::days(10);
const FIRST_WAIT: Duration = Duration::minutes(15);
/// Less than from one daily request to the next, which would else come minutes too early, every second day.
const LONGEST_WAIT: Duration = Duration::hours(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::version::IssuedBy;
    use crate::inventory::{Inventory, KeyType};
    use crate::renewal::request::Asker;
    use crate::timestamp;

    const BORN: Timestamp = timestamp!(2026-10-01 00:00 UTC);

    fn wanted(rest: &str) -> Certificate {
        let text = format!("[[certificate]]\nidentifiers = [\"example.com\", \"*.example.com\"]\n{rest}");
        Inventory::parse(&text).certificates.remove(0)
    }

    fn current(days: i64) -> Current {
        let issuer = IssuedBy {
            name: "letsencrypt".into(),
            directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            account: "https://acme-v02.api.letsencrypt.org/acme/acct/1".into(),
            profile: None,
            staging: false,
        };
        let facts = Facts {
            name: "example.com".into(),
            version: "20261001T000000Z-00000000".into(),
            fingerprint: "ab".into(),
            serial: "1f".into(),
            not_before: BORN,
            not_after: BORN + Duration::days(days),
            identifiers: vec!["*.example.com".into(), "example.com".into()],
            key: KeyType::EcdsaP256,
            issuer,
        };
        Current {
            schema: Current::SCHEMA.into(),
            sequence: 1,
            facts,
            manifest_sha256: "cd".into(),
            published_at: BORN,
            rolled_back: false,
        }
    }

    fn request(force: bool, at: Timestamp) -> Request {
        Request {
            force,
            ..Request::new("example.com", Asker::Person, at)
        }
    }

    #[test]
    fn an_issuer_that_asked_to_wait_is_left_alone_until_then() {
        let mut renewal = Renewal::new("example.com");
        renewal.wait("letsencrypt", BORN + Duration::days(3));
        renewal.wait("letsencrypt", BORN + Duration::HOUR);
        for (issuer, after, expected) in [
            ("letsencrypt", Duration::MINUTE, Some(BORN + Duration::HOUR)),
            ("letsencrypt", Duration::HOUR, None),
            ("zerossl", Duration::MINUTE, None),
        ] {
            assert_eq!(renewal.asked_to_wait(issuer, BORN + after), expected, "{issuer}");
        }
        let written = serde_json::to_string(&renewal).unwrap();
        assert_eq!(serde_json::from_str::<Renewal>(&written).unwrap(), renewal);
        let before = r#"{"schema": "neverlapse.renewal/1", "name": "example.com"}"#;
        assert_eq!(
            serde_json::from_str::<Renewal>(before).unwrap(),
            Renewal::new("example.com")
        );
    }

    #[test]
    fn what_a_person_went_back_to_is_not_replaced_the_next_day() {
        let back = Current {
            rolled_back: true,
            ..current(90)
        };
        let past = advised(&back.facts.version, BORN, BORN + Duration::HOUR, 0.0);
        let at = |days: i64| {
            said(decide(
                &wanted(""),
                Some(&back),
                Some(&past),
                None,
                BORN + Duration::days(days),
            ))
        };
        assert_eq!(at(61), "not due before 2026-12-15T00:00:00Z");
        assert!(at(75).starts_with("due: "), "{}", at(75));
        let forced = request(true, BORN + Duration::days(61));
        let now = BORN + Duration::days(61);
        let decision = decide(&wanted(""), Some(&back), Some(&past), Some(&forced), now);
        assert_eq!(said(decision), "due: a person asked");
    }

    fn said(decision: Decision) -> String {
        decision.to_string()
    }

    #[test]
    fn by_age_a_third_is_left_or_half_of_a_short_lifetime() {
        for (days, after, expected) in [
            (
                90,
                Duration::days(60) - Duration::SECOND,
                "not due before 2026-11-30T00:00:00Z",
            ),
            (90, Duration::days(60), "due: it expires on 2026-12-30T00:00:00Z"),
            (45, Duration::days(30), "due: it expires on 2026-11-15T00:00:00Z"),
            (
                6,
                Duration::days(3) - Duration::SECOND,
                "not due before 2026-10-04T00:00:00Z",
            ),
            (6, Duration::days(3), "due: it expires on 2026-10-07T00:00:00Z"),
            (90, Duration::days(400), "due: it expires on 2026-12-30T00:00:00Z"),
        ] {
            assert_eq!(
                said(decide(&wanted(""), Some(&current(days)), None, None, BORN + after)),
                expected
            );
        }
    }

    #[test]
    fn what_the_inventory_changes_is_due_at_once_and_order_of_names_is_no_change() {
        for (rest, expected) in [
            ("", "not due before 2026-11-30T00:00:00Z"),
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
            (
                "issuers = [\"letsencrypt-staging\", \"letsencrypt\"]",
                "not due before 2026-11-30T00:00:00Z",
            ),
        ] {
            assert_eq!(
                said(decide(&wanted(rest), Some(&current(90)), None, None, BORN)),
                expected
            );
        }
        assert_eq!(
            said(decide(&wanted(""), None, None, None, BORN)),
            "due: there is no certificate yet"
        );
    }

    fn advised(version: &str, start: Timestamp, end: Timestamp, draw: f64) -> Renewal {
        Renewal {
            renewal_info: RenewalInfo::of(version, (start, end), None, BORN, None, draw),
            ..Renewal::new("example.com")
        }
    }

    #[test]
    fn the_ca_may_suggest_an_earlier_time_and_the_past_means_now() {
        let (now, version) = (BORN + Duration::days(5), &current(90).facts.version.clone());
        let day = |day: i64| BORN + Duration::days(day);
        for (renewal, expected) in [
            (
                advised(version, day(50), day(54), 0.5),
                "not due before 2026-11-22T00:00:00Z",
            ),
            (
                advised(version, day(1), day(2), 0.0),
                "due: the CA suggests to renew since 2026-10-02T00:00:00Z",
            ),
            (
                advised("another", day(1), day(2), 0.0),
                "not due before 2026-11-30T00:00:00Z",
            ),
            (
                advised(version, day(70), day(80), 0.0),
                "not due before 2026-11-30T00:00:00Z",
            ),
            (
                advised(version, day(2), day(2), 0.0),
                "not due before 2026-11-30T00:00:00Z",
            ),
        ] {
            assert_eq!(
                said(decide(&wanted(""), Some(&current(90)), Some(&renewal), None, now)),
                expected
            );
        }
    }

    #[test]
    fn the_moment_stays_while_the_window_does() {
        let window = (BORN, BORN + Duration::days(2));
        let first = RenewalInfo::of("v", window, None, BORN, None, 0.25);
        let again = RenewalInfo::of("v", window, None, BORN, first.as_ref(), 0.75).unwrap();
        assert_eq!(again.renew_at, BORN + Duration::hours(12));
        let moved = (BORN, BORN + Duration::days(4));
        let moved = RenewalInfo::of("v", moved, None, BORN, first.as_ref(), 0.75).unwrap();
        assert_eq!(moved.renew_at, BORN + Duration::days(3));
    }

    #[test]
    fn a_late_duplicate_of_a_request_does_nothing() {
        let current = current(90);
        let decide = |request: &Request| {
            said(decide(
                &wanted(""),
                Some(&current),
                None,
                Some(request),
                BORN + Duration::DAY,
            ))
        };
        assert_eq!(decide(&request(true, BORN + Duration::HOUR)), "due: a person asked");
        assert_eq!(
            decide(&request(true, BORN - Duration::SECOND)),
            "not due before 2026-11-30T00:00:00Z"
        );
        let revoke = |version: &str| Request {
            action: Action::Revoke,
            version: Some(version.into()),
            ..request(false, BORN + Duration::HOUR)
        };
        assert_eq!(decide(&revoke(&current.facts.version)), "due: it is revoked");
        assert_eq!(
            decide(&revoke("20260901T000000Z-00000000")),
            "not due before 2026-11-30T00:00:00Z"
        );
    }

    #[test]
    fn what_is_seen_revoked_counts_for_the_current_version_only() {
        let seen = |fingerprint: &str| Request {
            observed: vec![Observed {
                endpoint: "example.com:443".into(),
                address: ([192, 0, 2, 1], 443).into(),
                fingerprint: fingerprint.into(),
                not_after: BORN + Duration::days(90),
                revoked: true,
            }],
            ..request(false, BORN)
        };
        let decide = |request| said(decide(&wanted(""), Some(&current(90)), None, Some(&request), BORN));
        assert_eq!(decide(seen("ab")), "due: it is revoked");
        assert_eq!(decide(seen("other")), "not due before 2026-11-30T00:00:00Z");
    }

    #[test]
    fn failures_wait_ever_longer_and_force_does_not() {
        let first = Failure::next(None, "x".into(), None, BORN);
        let second = Failure::next(Some(&first), "x".into(), None, BORN);
        assert_eq!(
            (first.next_try, second.next_try),
            (BORN + Duration::minutes(15), BORN + Duration::minutes(30))
        );
        let many = Failure { count: 30, ..second };
        assert_eq!(
            Failure::next(Some(&many), "x".into(), None, BORN).next_try,
            BORN + Duration::hours(20)
        );
        let asked = Failure::next(None, "x".into(), Some(BORN + Duration::days(3)), BORN);
        assert_eq!(asked.next_try, BORN + Duration::days(3));
        let renewal = Renewal {
            failure: Some(asked),
            ..Renewal::new("example.com")
        };
        let decide = |request| said(decide(&wanted(""), None, Some(&renewal), request, BORN + Duration::DAY));
        assert_eq!(
            decide(None),
            "due: there is no certificate yet; after a failure not before 2026-10-04T00:00:00Z"
        );
        assert_eq!(decide(Some(&request(true, BORN))), "due: there is no certificate yet");
    }
}
