//! What is recorded of a certificate's renewals: the last success, the last failure, and who asked
//! to wait.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Duration;

use super::renewal_info::RenewalInfo;
use crate::bucket::document::Document;
use crate::text::cut;
use crate::timestamp::Timestamp;

/// `state/renewals/{name}.json`: what the renewer last did with a certificate.
///
/// The renewer alone writes it, with an ETag as its condition. It holds no secret, unlike
/// `orders/{name}.json`: the probe, `neverlapse status` and `neverlapse plan` read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Always [`Renewal::SCHEMA`].
    pub schema: String,
    /// The certificate's name in the inventory.
    pub name: String,
    /// When a version was last published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// The CA's renewal information (RFC 9773) about the current version.
    #[serde(default, rename = "advice", skip_serializing_if = "Option::is_none")]
    pub renewal_info: Option<RenewalInfo>,
    /// What went wrong since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<RenewalFailure>,
    /// Issuers that asked not to get an order for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// What a person asked for last, and how far that is.
    #[serde(default, rename = "asked", skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestProgress>,
    /// How many versions in a row were replaced early in their life because the CA suggested it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced_early: u32,
}

/// A person's request, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestProgress {
    /// When it was made, by which whoever made it finds it here:
    /// [`Request::at`](super::request::Request::at).
    pub at: Timestamp,
    /// When this was noted.
    pub noted_at: Timestamp,
    /// How far it is.
    pub stage: RequestStage,
    /// The same in words: the step that goes on, or what came of it.
    pub text: String,
}

/// How far a person's request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStage {
    /// The renewer is at it, or goes on with the next delivery.
    UnderWay,
    /// What was asked for is done.
    Done,
    /// Nothing is due.
    NotDue,
    /// It is due, but an earlier failure asks to wait.
    Waiting,
    /// It failed, and is tried again.
    Failed,
    /// It cannot be done, and is not tried again.
    Refused,
    /// What a later version calls it.
    #[serde(untagged)]
    Unknown(String),
}

/// The last failed try, and how many failed in a row. A success removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewalFailure {
    /// How many tries have failed in a row.
    pub count: u32,
    /// When the first of them failed.
    pub since: Timestamp,
    /// When the last of them failed.
    pub at: Timestamp,
    /// What went wrong, in the words of the server that refused.
    pub problem: String,
    /// The earliest next try.
    pub next_try: Timestamp,
    /// Whether it is nothing but trouble of the issuers that people were notified of when another
    /// certificate met it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_known: bool,
}

/// An issuer that is left alone for some time, because it asked to wait (Retry-After), or because
/// what it issued is unfit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Its name in the inventory.
    pub issuer: String,
    /// It is not to get an order before this.
    pub until: Timestamp,
    /// Whether it did not ask for that, but issued a certificate that cannot be served: a person
    /// has to change something.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_unfit: bool,
}

impl Document for Renewal {
    const SCHEMA: &'static str = Self::SCHEMA;
}

impl Renewal {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.renewal/1";

    /// The record of a certificate of which nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            name: name.to_owned(),
            issued_at: None,
            renewal_info: None,
            failure: None,
            waits: Vec::new(),
            request: None,
            replaced_early: 0,
        }
    }

    /// The key of a certificate's record.
    pub fn key(name: &str) -> String {
        format!("{PREFIX}{name}.json")
    }

    /// The wait for an issuer, if it is not over.
    pub fn wait_for(&self, issuer: &str, now: Timestamp) -> Option<&Wait> {
        let wait = self.waits.iter().find(|wait| wait.issuer == issuer)?;
        goes_on(wait.until, now).then_some(wait)
    }

    /// Until when all of these issuers asked to wait: the end of the first wait, if none of them
    /// may be asked before.
    pub fn all_asked_to_wait(&self, issuers: &[String], now: Timestamp) -> Option<Timestamp> {
        let waits: Option<Vec<_>> = issuers
            .iter()
            .map(|issuer| self.wait_for(issuer, now).filter(|wait| !wait.is_unfit))
            .collect();
        waits?.into_iter().map(|wait| wait.until).min()
    }

    /// Records that an issuer is left alone, in place of what was recorded of it before. Of more
    /// issuers than anybody has, the first are forgotten.
    pub fn wait(&mut self, wait: Wait) {
        self.waits.retain(|before| before.issuer != wait.issuer);
        self.waits.push(wait);
        let surplus = self.waits.len().saturating_sub(MOST_WAITS);
        self.waits.drain(..surplus);
    }
}

impl RequestProgress {
    /// How far the request that was made `at` a time is, with a text that is cut to
    /// [`LONGEST_PROBLEM`].
    pub fn new(at: Timestamp, noted_at: Timestamp, stage: RequestStage, text: &str) -> Self {
        Self {
            at,
            noted_at,
            stage,
            text: cut(text, LONGEST_PROBLEM),
        }
    }
}

impl RenewalFailure {
    /// One more failure. The next try waits twice as long as the one before, between 15 minutes and
    /// 20 hours, and no less than the CA asks for. The problem is cut to [`LONGEST_PROBLEM`].
    pub fn next(
        before: Option<&RenewalFailure>,
        problem: String,
        retry_after: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let wait = (FIRST_WAIT * 2_i32.pow((count - 1).min(10))).min(LONGEST_WAIT);
        let next_try = now + wait;

        Self {
            count,
            since: before.map_or(now, |before| before.since),
            at: now,
            problem: cut(&problem, LONGEST_PROBLEM),
            next_try: retry_after.map_or(next_try, |after| after.max(next_try)),
            is_known: false,
        }
    }

    /// Until when the certificate is left alone, if that is not over.
    pub fn waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        goes_on(self.next_try, now).then_some(self.next_try)
    }

    /// The same, with a next try before the current certificate expires.
    pub fn before_the_end(self, not_after: Timestamp, now: Timestamp) -> Self {
        Self {
            next_try: bounded(self.next_try, not_after, now),
            ..self
        }
    }
}

/// Whether a wait that is stored in the bucket goes on.
///
/// One that ends later than any that is ever written comes from a clock that was wrong, or from
/// somebody who wants the certificate to expire. It holds nothing up.
pub fn goes_on(until: Timestamp, now: Timestamp) -> bool {
    now < until && until <= now + LONGEST_ASKED
}

/// A wait that ends while half of what is left of a certificate is still left: nothing that anybody
/// wants to wait for is worth an outage.
pub fn bounded(until: Timestamp, not_after: Timestamp, now: Timestamp) -> Timestamp {
    let left = (not_after - now).max(SHORTEST_WAIT * 2);
    until.min(now + left / 2)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Prefix of all records, with the slash.
pub const PREFIX: &str = "state/renewals/";

/// Most characters of a text that another server has a part in. A record that is longer than
/// [`Document::LONGEST`] could never be read again, and its certificate not be renewed.
pub const LONGEST_PROBLEM: usize = 10_000;
const MOST_WAITS: usize = 100;

/// The longest that a CA may have us wait. Let's Encrypt's limits are by the week, and certificates
/// must not expire because a CA names a longer time.
pub const LONGEST_ASKED: Duration = Duration::days(8);
/// Also an expired certificate is no reason to hammer a CA.
const SHORTEST_WAIT: Duration = Duration::minutes(30);
const FIRST_WAIT: Duration = Duration::minutes(15);
/// Less than from one daily request to the next: otherwise every second one would come minutes too
/// early.
const LONGEST_WAIT: Duration = Duration::hours(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-10-01 00:00 UTC);

    #[test]
    fn an_issuer_that_asked_to_wait_is_left_alone_until_then() {
        let mut renewal = Renewal::new("example.com");
        let wait = |issuer: &str, length, is_unfit| Wait {
            issuer: issuer.to_owned(),
            until: NOW + length,
            is_unfit,
        };
        renewal.wait(wait("letsencrypt", Duration::days(3), true));
        renewal.wait(wait("letsencrypt", Duration::HOUR, false));
        renewal.wait(wait("unfit", Duration::days(2), true));
        for (issuer, after, expected) in [
            ("letsencrypt", Duration::MINUTE, Some(NOW + Duration::HOUR)),
            ("letsencrypt", Duration::HOUR, None),
            ("letsencrypt", -Duration::days(9), None),
            ("zerossl", Duration::MINUTE, None),
        ] {
            let wait = renewal.wait_for(issuer, NOW + after);
            assert_eq!(wait.map(|wait| wait.until), expected, "{issuer}");
        }

        for (issuers, expected) in [
            (&["letsencrypt"][..], Some(NOW + Duration::HOUR)),
            (&["letsencrypt", "zerossl"], None),
            // It did not ask.
            (&["letsencrypt", "unfit"], None),
            (&[], None),
        ] {
            let issuers: Vec<_> = issuers.iter().map(|issuer| (*issuer).to_owned()).collect();
            assert_eq!(renewal.all_asked_to_wait(&issuers, NOW), expected, "{issuers:?}");
        }

        let written = serde_json::to_string(&renewal).unwrap();
        assert_eq!(serde_json::from_str::<Renewal>(&written).unwrap(), renewal);
        let before = r#"{"schema": "neverlapse.renewal/1", "name": "example.com"}"#;
        assert_eq!(
            serde_json::from_str::<Renewal>(before).unwrap(),
            Renewal::new("example.com")
        );
    }

    /// A CA's answer of a megabyte was recorded whole, and nobody could read the record any more.
    #[test]
    fn a_record_is_never_too_long_to_be_read() {
        for character in ["\0", "\u{7f}", "\\", "𝄞"] {
            let text = character.repeat(1 << 20);
            let mut renewal = Renewal::new("example.com");
            renewal.failure = Some(RenewalFailure::next(None, text.clone(), None, NOW));
            renewal.request = Some(RequestProgress::new(NOW, NOW, RequestStage::Failed, &text));
            for number in 0..MOST_WAITS * 2 {
                renewal.wait(Wait {
                    issuer: format!("issuer-{number}"),
                    until: NOW,
                    is_unfit: true,
                });
            }

            let written = serde_json::to_vec_pretty(&renewal).unwrap();
            assert!((written.len() as u64) < Renewal::LONGEST / 2, "{}", written.len());
            assert_eq!(renewal.waits.len(), MOST_WAITS);
            assert_eq!(renewal.waits[MOST_WAITS - 1].issuer, "issuer-199");
        }
    }

    /// A certificate of six days with ten hours left waited for twenty.
    #[test]
    fn no_wait_outlasts_the_certificate() {
        let in_hours = |hours| NOW + Duration::hours(hours);
        for (until, left, expected) in [(20, 10, 5), (20, 90 * 24, 20), (8 * 24, 48, 24)] {
            assert_eq!(bounded(in_hours(until), in_hours(left), NOW), in_hours(expected));
        }
        let expired = bounded(in_hours(20), NOW - Duration::DAY, NOW);
        assert_eq!(expired, NOW + Duration::minutes(30));
    }

    #[test]
    fn the_stage_of_a_later_version_is_kept() {
        for (text, stage) in [
            ("\"done\"", RequestStage::Done),
            ("\"begging\"", RequestStage::Unknown("begging".into())),
        ] {
            assert_eq!(serde_json::from_str::<RequestStage>(text).unwrap(), stage);
            assert_eq!(serde_json::to_string(&stage).unwrap(), text);
        }
    }

    #[test]
    fn failures_wait_ever_longer() {
        let next =
            |before: Option<&RenewalFailure>, retry_after| RenewalFailure::next(before, "x".into(), retry_after, NOW);
        let first = next(None, None);
        let second = next(Some(&first), None);
        assert_eq!(
            (first.next_try, second.next_try),
            (NOW + Duration::minutes(15), NOW + Duration::minutes(30))
        );

        let many = RenewalFailure { count: 30, ..second };
        assert_eq!(next(Some(&many), None).next_try, NOW + Duration::hours(20));

        let asked_by_the_ca = next(None, Some(NOW + Duration::days(3)));
        assert_eq!(asked_by_the_ca.next_try, NOW + Duration::days(3));
    }
}
