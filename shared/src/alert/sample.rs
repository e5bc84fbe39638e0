//! One message of each kind, about endpoints that do not exist: to see what arrives, before something is wrong.

use time::{Duration, OffsetDateTime};

use super::digest::{Digest, digest};
use super::state::{Circle, Memory, Run, next};
use super::{SUBJECT_LENGTH, Sender};
use crate::finding::{Finding, Kind, Severity};
use crate::report::{EndpointReport, Observation, Report};

/// What a certificate that lapses, is renewed, and a network that fails would have people read.
pub fn digests(sender: &Sender, now: OffsetDateTime) -> Vec<Digest> {
    let end = now - Duration::HOUR;
    let renewed = end + Duration::days(90);
    let day = Duration::DAY;
    // Each run is as it would be at its time; the last one is now.
    let runs = [
        (now - day * 4, Ok(report(now - day * 4, end, 0))),
        (now - day, Ok(report(now - day, end, 0))),
        (now, Ok(report(now, end, 0))),
        (now, Ok(report(now, renewed, 0))),
        (now, Ok(report(now, renewed, 10))),
        (now, Ok(report(now, renewed, 0))),
        (now, Err("cannot read s3://bucket/inventory.toml: AccessDenied")),
    ];
    let circle = Circle::default();
    let mut memory = Memory::Blank;
    let mut digests = Vec::new();
    for (at, outcome) in &runs {
        let outcome = outcome.as_ref().map_err(|reason: &&str| *reason);
        let run = Run {
            outcome,
            circle: &circle,
            weekly: true,
        };
        let (news, state) = next(&run, &memory, *at);
        memory = Memory::Known(state);
        digests.extend(digest(&news, outcome.ok(), &circle, sender, *at).map(marked));
    }
    digests
}

/// Nobody is to take it for real.
fn marked(mut digest: Digest) -> Digest {
    digest.subject = format!("TEST {}", digest.subject)
        .chars()
        .take(SUBJECT_LENGTH)
        .collect();
    digest.summary = format!(
        "This is a test, sent by `neverlapse test-alert`: nothing of it is true.\n\n{}",
        digest.summary
    );
    digest.thread = format!("test-{}", digest.thread);
    digest
}

fn report(now: OffsetDateTime, end: OffsetDateTime, dark: usize) -> Report {
    let mut endpoints = vec![endpoint("shop.example.com:443", Some(end), expiry(end, now))];
    for n in 1..=10 {
        let reason = "connection refused".to_owned();
        let finding = (n <= dark).then(|| Finding::network(Kind::ConnectFailed { reason }));
        endpoints.push(endpoint(&format!("node-{n}.example.com:443"), None, finding));
    }
    Report::new(now, now, endpoints)
}

fn expiry(not_after: OffsetDateTime, now: OffsetDateTime) -> Option<Finding> {
    let left = not_after - now;
    let (kind, severity) = match left {
        left if left.is_negative() => (Kind::Expired { not_after }, Severity::Critical),
        left if left < Duration::days(14) => {
            let severity = if left < Duration::days(3) {
                Severity::Critical
            } else {
                Severity::Warning
            };
            let threshold_seconds = 14 * 86_400;
            (
                Kind::ExpiresSoon {
                    not_after,
                    threshold_seconds,
                },
                severity,
            )
        }
        _ => return None,
    };
    Some(Finding::new(kind, severity, now))
}

fn endpoint(name: &str, not_after: Option<OffsetDateTime>, finding: Option<Finding>) -> EndpointReport {
    EndpointReport {
        endpoint: name.to_owned(),
        unicode: None,
        status: finding.as_ref().map_or(Severity::Ok, |finding| finding.severity),
        not_after,
        seconds_left: None,
        observations: vec![Observation {
            address: ([192, 0, 2, 7], 443).into(),
            tls: None,
            leaf: None,
            issuers: Vec::new(),
            revocation: None,
            findings: finding.into_iter().collect(),
            elapsed_ms: 1,
            tries: 1,
        }],
        skipped: Vec::new(),
        findings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn there_is_one_of_each_kind() {
        let sender = Sender::of("s", "arn:aws:sns:eu-central-1:123456789012:t", "b");
        let digests = digests(&sender, datetime!(2026-11-24 06:00 UTC));
        let subjects: Vec<_> = digests.iter().map(|digest| digest.subject.as_str()).collect();
        let expected = [
            "TEST WARNING: shop.example.com:443, 3 d 23 h left",
            "TEST CRITICAL: shop.example.com:443, 23 h left",
            "TEST CRITICAL: shop.example.com:443, expired 1 h ago",
            "TEST OK: shop.example.com:443, valid until 2027-02-22",
            "TEST CRITICAL: 10 of 11 endpoints cannot be reached together",
            "TEST OK: no longer do many endpoints fail together",
            "TEST CRITICAL: neverlapse watches nothing",
        ];
        assert_eq!(subjects, expected);
    }
}
