//! One message of each kind, about endpoints that do not exist: to see what arrives before
//! something is wrong.

use time::Duration;

use super::decide::{Run, decide};
use super::digest::{Digest, digest};
use super::memory::Memory;
use super::sender::{SUBJECT_LENGTH, Sender};
use super::watchlist::Watchlist;
use crate::finding::{Finding, Kind, Severity, Thresholds};
use crate::inventory::Inventory;
use crate::observation::Observation;
use crate::report::{
    CertificateReport, EndpointReport, FailedTry, InstanceReport, InstanceStage, RenewalReport, Report, Version,
};
use crate::timestamp::Timestamp;

/// What people would read about a certificate that expires and is renewed, about one that
/// neverlapse cannot renew and deliver, about a network that fails, about a run that fails, and
/// about a week in which all is well.
pub fn digests(sender: &Sender, now: Timestamp) -> Vec<Digest> {
    let day = Duration::DAY;
    let end = now - Duration::HOUR;
    let renewed = end + Duration::days(90);
    let fine = World::default();
    let outage = World {
        unreachable: 10,
        ..fine
    };
    let stuck = World { is_stuck: true, ..fine };
    let failed = Err("cannot read s3://bucket/inventory.toml: AccessDenied");

    // Each run is as it would be at its time; the last ones are now. One message of each kind is
    // enough.
    let runs = [
        (true, now - day * 4, Ok(fine.report(now - day * 4, end))),
        (false, now - day, Ok(fine.report(now - day, end))),
        (true, now, Ok(fine.report(now, end))),
        (true, now, Ok(fine.report(now, renewed))),
        (true, now, Ok(stuck.report(now, renewed))),
        (false, now, Ok(fine.report(now, renewed))),
        (true, now, Ok(outage.report(now, renewed))),
        (false, now, Ok(fine.report(now, renewed))),
        (true, now, failed),
        (false, now, Ok(fine.report(now, renewed))),
        (true, now, Ok(fine.report(now, renewed))),
    ];
    let watchlist = Watchlist::of(&Inventory::parse(
        "[[certificate]]\nidentifiers = [\"www.example.com\"]\n",
    ));

    let mut memory = Memory::Blank;
    let mut digests = Vec::new();
    for (is_shown, at, outcome) in &runs {
        let outcome = outcome.as_ref().map_err(|reason: &&str| *reason);
        let run = Run {
            outcome,
            watchlist: &watchlist,
            weekly: true,
        };
        let (news, state) = decide(&run, &memory, *at);
        memory = Memory::Known(state);
        if *is_shown {
            digests.extend(digest(&news, outcome.ok(), &watchlist, sender, *at).map(marked));
        }
    }
    digests
}

/// The digest marked as a test: nobody should take it for real.
fn marked(mut digest: Digest) -> Digest {
    for entry in digest.sections.iter_mut().flat_map(|section| &mut section.entries) {
        entry.subject = marked_subject(&entry.subject);
        entry.incident = format!("test-{}", entry.incident);
    }
    digest.subject = marked_subject(&digest.subject);
    digest.summary = format!(
        "This is a test by `neverlapse test-alert`. Nothing that it reports is real, nor are its dates.\n\n{}",
        digest.summary
    );
    digest.thread = format!("test-{}", digest.thread);
    digest
}

fn marked_subject(subject: &str) -> String {
    format!("TEST {subject}").chars().take(SUBJECT_LENGTH).collect()
}

/// What is wrong, besides the end of shop.example.com's certificate.
#[derive(Clone, Copy, Default)]
struct World {
    /// How many endpoints cannot be reached.
    unreachable: usize,
    /// A managed certificate is neither renewed nor installed everywhere.
    is_stuck: bool,
}

impl World {
    fn report(&self, now: Timestamp, end: Timestamp) -> Report {
        let mut endpoints = vec![endpoint("shop.example.com:443", Some(end), expiry(end, now))];
        for n in 1..=10 {
            let reason = "connection refused".to_owned();
            let finding = (n <= self.unreachable).then(|| Finding::network(Kind::ConnectFailed { reason }));
            endpoints.push(endpoint(&format!("node-{n}.example.com:443"), None, finding));
        }
        let mut report = Report::new(now, now, endpoints);
        report.certificates = vec![self.certificate(now)];
        report
    }

    fn certificate(&self, now: Timestamp) -> CertificateReport {
        let not_before = now - Duration::days(62);
        let not_after = now + Duration::days(28);
        let since = now - Duration::hours(26);
        let next_try = now + Duration::hours(22);
        let version = "20260923T060112Z-5f0c11d2".to_owned();
        let problem = "letsencrypt: urn:ietf:params:acme:error:rateLimited: too many certificates already issued";

        let instance = |n: u8| InstanceReport {
            instance: format!("i-0a1b2c3d4e5f6071{n}"),
            host: Some(format!("web-{n}")),
            version: Some(version.clone()),
            stage: if self.is_stuck && n == 3 {
                InstanceStage::Failed
            } else {
                InstanceStage::Served
            },
            reason: None,
            at: Some(not_before),
        };

        let renewal_failed = Kind::RenewalFailed {
            name: "www.example.com".into(),
            problem: problem.into(),
            tries: 7,
            since,
            next_try,
        };
        let install_failed = Kind::InstallFailed {
            instance: "i-0a1b2c3d4e5f60713".into(),
            host: "web-3".into(),
            version: version.clone(),
            fingerprint: "5f".repeat(32),
            not_after,
            reason: "`nginx -t` failed: cannot load certificate key \"privkey.pem\": permission denied".into(),
            since,
        };

        let instances = (1..=3).map(instance).collect();
        let findings = [renewal_failed, install_failed].map(|kind| Finding::new(kind, Severity::Warning, now));
        CertificateReport {
            name: "www.example.com".into(),
            status: if self.is_stuck { Severity::Warning } else { Severity::Ok },
            identifiers: vec!["www.example.com".into()],
            quiet: false,
            current: Some(Version {
                issuer: "letsencrypt".into(),
                version,
                fingerprint: "5f".repeat(32),
                not_before,
                not_after,
            }),
            history: Vec::new(),
            instances,
            addresses: Vec::new(),
            renewal: RenewalReport {
                failure: self.is_stuck.then(|| FailedTry {
                    problem: problem.to_owned(),
                    next_try,
                    wait_until: Some(next_try),
                }),
                planned: None,
            },
            findings: if self.is_stuck { findings.to_vec() } else { Vec::new() },
        }
    }
}

fn expiry(not_after: Timestamp, now: Timestamp) -> Option<Finding> {
    let left = not_after - now;
    let (kind, severity) = if left.is_negative() {
        (Kind::Expired { not_after }, Severity::Critical)
    } else {
        let (severity, threshold) = Thresholds::default().crossed(left, Duration::days(90))?;
        let threshold_seconds = threshold.whole_seconds();
        let soon = Kind::ExpiresSoon {
            not_after,
            threshold_seconds,
        };
        (soon, severity)
    };
    Some(Finding::new(kind, severity, now))
}

fn endpoint(name: &str, not_after: Option<Timestamp>, finding: Option<Finding>) -> EndpointReport {
    EndpointReport {
        endpoint: name.to_owned(),
        unicode: None,
        sni: None,
        quiet: false,
        status: finding.as_ref().map_or(Severity::Ok, |finding| finding.severity),
        not_after,
        seconds_left: None,
        observations: vec![Observation {
            address: ([192, 0, 2, 7], 443).into(),
            tls: None,
            leaf: None,
            issuers: Vec::new(),
            revocation: None,
            other: None,
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
    use crate::timestamp;

    #[test]
    fn there_is_one_of_each_kind() {
        let sender = Sender::of("s", "arn:aws:sns:eu-central-1:123456789012:t", "b");
        let digests = digests(&sender, timestamp!(2026-11-24 06:00 UTC));
        let subjects: Vec<_> = digests.iter().map(|digest| digest.subject.as_str()).collect();
        let expected = [
            "TEST WARNING: shop.example.com:443, 3 d 23 h left",
            "TEST CRITICAL: shop.example.com:443, expired 1 h ago",
            "TEST OK: shop.example.com:443, valid until 2027-02-22",
            "TEST WARNING: certificate www.example.com, renewal failed",
            "TEST CRITICAL: 10 of 11 endpoints cannot be reached together",
            "TEST CRITICAL: neverlapse watches nothing",
            "TEST OK: all 11 endpoints are fine; the next to expire is shop.example.com:443 in 89 d 23 h",
        ];
        assert_eq!(subjects, expected);
    }
}
