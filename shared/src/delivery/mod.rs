//! Delivery: how far a certificate is on its way from the bucket to the clients.
//!
//! [`join`] compares what is stored, what instances report, and what is served. Receipts and the
//! view from outside complete each other: a receipt knows an instance that no address shows (behind
//! a load balancer), an address shows a server for which no client reports.

mod findings;
mod grace;
mod stored;

use std::net::SocketAddr;

pub use self::stored::{Stored, StoredReceipt, left_out, read};
use crate::bucket::receipt::{self, Receipt};
use crate::bucket::version::{Current, Facts};
use crate::certificate::Certificate;
use crate::endpoint::Endpoint;
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Managed;
use crate::isolation::isolated;
use crate::observation::Observation;
use crate::renewal::planned;
use crate::report::{
    AddressReport, AddressStage, CertificateReport, EndpointIndex, EndpointReport, FailedTry, InstanceReport,
    InstanceStage, RenewalReport,
};
use crate::timestamp::Timestamp;

/// What is known of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its entry in the inventory.
    pub certificate: &'a Managed,
    /// What the bucket has of it.
    pub stored: &'a Stored,
    /// What was seen of all endpoints, its own among them.
    pub endpoints: &'a EndpointIndex<'a>,
}

/// One report per certificate, worst first. `stored` is in the order of the certificates.
///
/// A certificate at which our own code fails costs no other anything; a receipt, only that receipt.
pub fn reports(
    certificates: &[Managed],
    stored: &[Stored],
    endpoints: &[EndpointReport],
    now: Timestamp,
) -> Vec<CertificateReport> {
    let endpoints = EndpointIndex::of(endpoints);
    let mut reports = Vec::with_capacity(certificates.len());
    for (certificate, stored) in certificates.iter().zip(stored) {
        let known = Known {
            certificate,
            stored,
            endpoints: &endpoints,
        };
        reports.push(join_isolated(&known, now));
    }
    reports.sort_by(|one, other| other.status.cmp(&one.status).then_with(|| one.name.cmp(&other.name)));
    reports
}

/// The report of one certificate, whatever is stored of it.
fn join_isolated(known: &Known<'_>, now: Timestamp) -> CertificateReport {
    let join_stored = |stored: &Stored| isolated(|| join(&Known { stored, ..*known }, now));
    if let Ok(report) = join_stored(known.stored) {
        return report;
    }

    // A receipt may be the cause: each is tried without the others, which are many.
    let mut readable = known.stored.clone();
    let mut alone = Stored {
        current: readable.current.clone(),
        renewal: readable.renewal.clone(),
        receipts: Ok(Vec::new()),
        history: readable.history.clone(),
    };
    for receipt in readable.receipts.iter_mut().flatten() {
        alone.receipts = Ok(vec![receipt.clone()]);
        if let Err(panicked) = join_stored(&alone) {
            receipt.receipt = Err(panicked.to_string());
        }
    }
    join_stored(&readable).unwrap_or_else(|panicked| {
        let Managed { name, identifiers, .. } = known.certificate;
        CertificateReport::new(name, identifiers, None, vec![Finding::not_judged(&panicked)])
    })
}

/// The report of one certificate: a stage for each instance and each address, and what is wrong
/// with renewal and delivery.
pub fn join(known: &Known<'_>, now: Timestamp) -> CertificateReport {
    let Known {
        certificate, stored, ..
    } = *known;
    let addresses = addresses(known);
    let findings = findings::all(certificate, stored, &addresses, now);
    let current = stored.pointer();
    let failure = stored.failure();

    CertificateReport {
        quiet: certificate.quiet,
        history: stored.versions().to_vec(),
        instances: stored
            .readable_receipts()
            .map(|receipt| instance(receipt, &stored.current))
            .collect(),
        addresses,
        renewal: RenewalReport {
            failure: failure.map(|failure| FailedTry {
                problem: failure.problem.clone(),
                next_try: failure.next_try,
                wait_until: stored
                    .record()
                    .and_then(|record| record.all_asked_to_wait(&certificate.issuers, now)),
            }),
            planned: current.map(|current| planned(current, stored.record())),
        },
        ..CertificateReport::new(
            &certificate.name,
            &certificate.identifiers,
            current.map(|current| (&current.facts).into()),
            findings,
        )
    }
}

/// The report of a certificate that was renewed once and is no longer in the inventory.
///
/// Without any inventory this is critical: nothing is renewed then, and probably nobody meant that.
pub fn not_renewed(facts: &Facts, inventory_missing: bool, now: Timestamp) -> CertificateReport {
    let kind = Kind::NotRenewed {
        name: facts.name.clone(),
        not_after: facts.not_after,
        inventory_missing,
    };
    let severity = if inventory_missing {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let finding = Finding::new(kind, severity, now);
    CertificateReport::new(&facts.name, &facts.identifiers, Some(facts.into()), vec![finding])
}

/// How far an instance is with the current version. One that reports about an earlier version has
/// not pulled it. While the current version is unknown, its own word counts.
fn instance(receipt: &Receipt, current: &Result<Option<Current>, String>) -> InstanceReport {
    let is_about_another = match current {
        Ok(Some(current)) => current.facts.version != receipt.version,
        Ok(None) => true,
        Err(_) => false,
    };
    let stage = match receipt.stage {
        _ if is_about_another => InstanceStage::Issued,
        receipt::Stage::Failed => InstanceStage::Failed,
        receipt::Stage::Pulled => InstanceStage::Pulled,
        receipt::Stage::Installed => InstanceStage::Installed,
        receipt::Stage::Served => InstanceStage::Served,
    };

    InstanceReport {
        instance: receipt.instance.clone(),
        host: Some(receipt.host.clone()),
        version: Some(receipt.installed.as_ref().unwrap_or(&receipt.version).clone()),
        stage,
        reason: receipt.reason.clone(),
        at: Some(receipt.since),
    }
}

/// What is served at each address of each endpoint in `served_at`.
fn addresses(known: &Known<'_>) -> Vec<AddressReport> {
    let mut addresses = Vec::new();
    for endpoint in &known.certificate.served_at {
        let reports: Vec<_> = known.endpoints.of_clients(endpoint).collect();
        if reports.is_empty() {
            addresses.push(unseen(endpoint, None, "not checked yet"));
        }

        for report in reports {
            if report.observations.is_empty() {
                addresses.push(unseen(endpoint, None, problem(&report.findings)));
            }
            addresses.extend(
                report
                    .observations
                    .iter()
                    .map(|seen| address(endpoint, seen, known.stored)),
            );
        }
    }
    addresses
}

/// What one address serves: the current version, an earlier one, or one that is not ours.
fn address(endpoint: &Endpoint, seen: &Observation, stored: &Stored) -> AddressReport {
    let Some(leaf) = leaf_in_place(seen, stored) else {
        return unseen(endpoint, Some(seen.address), problem(&seen.findings));
    };

    let (stage, reason) = match &stored.current {
        Ok(Some(current)) if current.facts.fingerprint == leaf.fingerprint => (AddressStage::Served, None),
        Ok(_) => (AddressStage::Another, None),
        Err(_) => (
            AddressStage::Unseen,
            Some("it is not known what it should serve".to_owned()),
        ),
    };
    let version = stored
        .versions()
        .iter()
        .find(|version| version.facts.fingerprint == leaf.fingerprint);

    AddressReport {
        endpoint: endpoint.to_string(),
        address: Some(seen.address),
        stage,
        fingerprint: Some(leaf.fingerprint.clone()),
        version: version.map(|version| version.facts.version.clone()),
        not_after: Some(leaf.not_after),
        reason,
    }
}

/// Of the certificates that an address serves, the one that stands where the current version
/// should: that itself, or the one with the same kind of key.
fn leaf_in_place<'a>(seen: &'a Observation, stored: &Stored) -> Option<&'a Certificate> {
    let Some(current) = stored.pointer() else {
        return seen.leaf.as_ref();
    };
    let key = current.facts.key.to_string();
    seen.leaves()
        .find(|leaf| leaf.fingerprint == current.facts.fingerprint)
        .or_else(|| {
            let kind = key.split('-').next();
            seen.leaves().find(|leaf| leaf.key.split('-').next() == kind)
        })
        .or(seen.leaf.as_ref())
}

fn unseen(endpoint: &Endpoint, address: Option<SocketAddr>, reason: &str) -> AddressReport {
    AddressReport {
        endpoint: endpoint.to_string(),
        address,
        stage: AddressStage::Unseen,
        fingerprint: None,
        version: None,
        not_after: None,
        reason: Some(reason.to_owned()),
    }
}

/// Why no certificate was seen, in words.
fn problem(findings: &[Finding]) -> &str {
    findings
        .first()
        .map_or("it shows no certificate", |finding| finding.message.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::version;
    use crate::inventory::Inventory;
    use crate::renewal::{Renewal, RenewalFailure};
    use crate::report::{StoredVersion, Version};
    use crate::timestamp;
    use time::Duration;

    const NOW: Timestamp = timestamp!(2026-10-10 00:00 UTC);

    fn certificate() -> Managed {
        let text = "[[certificate]]\nidentifiers = [\"shop.test\"]\nserved_at = [\"shop.test\"]\n";
        Inventory::parse(text).certificates.remove(0)
    }

    fn current(published: Duration) -> Current {
        let mut current = Current::sample("shop.test", NOW - Duration::DAY, NOW + Duration::days(89));
        current.sequence = 2;
        current.facts.version = "new".into();
        current.facts.fingerprint = "aa".into();
        current.published_at = NOW - published;
        current
    }

    fn receipt(version: &str, stage: receipt::Stage, silent: bool) -> Receipt {
        Receipt {
            schema: Receipt::SCHEMA.into(),
            name: "shop.test".into(),
            instance: "i-1".into(),
            host: "web-1".into(),
            agent: "0".into(),
            version: version.into(),
            fingerprint: if version == "new" { "aa" } else { "bb" }.into(),
            stage,
            reason: (stage == receipt::Stage::Failed).then(|| "the test failed".into()),
            installed: None,
            sequence: None,
            not_after: None,
            since: NOW - Duration::HOUR,
            at: NOW - Duration::HOUR,
            next_by: if silent {
                NOW - Duration::MINUTE
            } else {
                NOW + Duration::DAY
            },
        }
    }

    fn stored(current: Option<Current>, receipts: Vec<Receipt>) -> Stored {
        let receipts = receipts.into_iter().map(|receipt| StoredReceipt {
            instance: receipt.instance.clone(),
            receipt: Ok(receipt),
        });
        Stored {
            current: Ok(current),
            renewal: Ok(None),
            receipts: Ok(receipts.collect()),
            history: Ok(Vec::new()),
        }
    }

    fn report(stored: &Stored, endpoints: &[EndpointReport]) -> CertificateReport {
        let certificate = certificate();
        let known = Known {
            certificate: &certificate,
            stored,
            endpoints: &EndpointIndex::of(endpoints),
        };
        join(&known, NOW)
    }

    fn seen(fingerprint: &str) -> EndpointReport {
        let json = serde_json::json!({
            "endpoint": "shop.test:443", "status": "ok",
            "observations": [{
                "address": "192.0.2.1:443", "elapsed_ms": 1, "tries": 1, "findings": [], "issuers": [],
                "leaf": {"subject": "", "issuer": "CN=x", "serial": "1", "fingerprint": fingerprint, "names": ["shop.test"],
                    "not_before": "2026-08-01T00:00:00Z", "not_after": "2026-10-30T00:00:00Z", "key": "ecdsa-p256",
                    "signature": "ecdsa-with-SHA256", "role": "leaf"}
            }],
            "findings": []
        });
        serde_json::from_value(json).unwrap()
    }

    fn codes(report: &CertificateReport) -> Vec<(&str, Severity)> {
        let findings = report.findings.iter();
        findings
            .map(|finding| (finding.kind.code().as_str(), finding.severity))
            .collect()
    }

    /// A grace that cannot be multiplied stands for whatever error we may have: only who is late is
    /// judged by it.
    #[test]
    fn where_our_own_code_panics_only_that_receipt_or_certificate_is_lost() {
        use receipt::Stage as R;
        let endless = Managed {
            name: "endless.test".into(),
            deliver_within: Duration::MAX,
            served_at: Vec::new(),
            ..certificate()
        };
        let fine = certificate();
        let late = receipt("old", R::Pulled, false);
        let expired = Receipt {
            instance: "i-2".into(),
            not_after: Some(NOW - Duration::HOUR),
            ..late.clone()
        };
        let receipts = stored(Some(current(Duration::HOUR)), vec![late, expired]);
        let no_receipt = stored(Some(current(Duration::HOUR)), Vec::new());

        let reports = reports(
            &[endless.clone(), fine, endless],
            &[receipts.clone(), receipts, no_receipt],
            &[seen("aa")],
            NOW,
        );
        let shown: Vec<_> = (reports.iter())
            .map(|report| (report.name.as_str(), codes(report), report.instances.len()))
            .collect();
        let (critical, unknown) = (Severity::Critical, Severity::Unknown);
        assert_eq!(
            shown,
            [
                (
                    "endless.test",
                    vec![("not_pulled", critical), ("receipt_unreadable", unknown)],
                    1
                ),
                ("shop.test", vec![("not_pulled", critical)], 2),
                ("endless.test", vec![("not_judged", unknown)], 0),
            ]
        );
        let lost = &reports[2].findings[0].message;
        assert!(lost.contains("neverlapse itself failed"), "{lost}");
    }

    /// All receipts were copied for each of them: ten thousand took a minute.
    #[test]
    fn one_receipt_among_many_is_lost_without_copies_of_all_others() {
        let endless = Managed {
            deliver_within: Duration::MAX,
            served_at: Vec::new(),
            ..certificate()
        };
        let late = receipt("old", receipt::Stage::Pulled, false);
        let expired = Receipt {
            not_after: Some(NOW - Duration::HOUR),
            ..late.clone()
        };
        let mut receipts = vec![expired; 10_000];
        receipts[7] = late;
        let known = Known {
            certificate: &endless,
            stored: &stored(Some(current(Duration::HOUR)), receipts),
            endpoints: &EndpointIndex::default(),
        };

        assert_eq!(join_isolated(&known, NOW).instances.len(), 9_999);
    }

    #[test]
    fn a_stage_for_each_instance_and_a_finding_for_what_is_stuck() {
        use receipt::Stage as R;
        let (early, late, too_late) = (Duration::HOUR, Duration::hours(25), Duration::hours(73));
        for (receipt, published, stage, finding) in [
            (receipt("new", R::Served, false), late, InstanceStage::Served, None),
            (
                receipt("new", R::Installed, false),
                late,
                InstanceStage::Installed,
                None,
            ),
            (receipt("old", R::Served, false), early, InstanceStage::Issued, None),
            (
                receipt("old", R::Served, false),
                too_late,
                InstanceStage::Issued,
                Some(("not_pulled", Severity::Critical)),
            ),
            (
                receipt("old", R::Served, false),
                late,
                InstanceStage::Issued,
                Some(("not_pulled", Severity::Warning)),
            ),
            (receipt("new", R::Pulled, false), early, InstanceStage::Pulled, None),
            (
                receipt("new", R::Pulled, false),
                late,
                InstanceStage::Pulled,
                Some(("not_pulled", Severity::Warning)),
            ),
            (
                receipt("new", R::Pulled, false),
                too_late,
                InstanceStage::Pulled,
                Some(("not_pulled", Severity::Critical)),
            ),
            (
                receipt("new", R::Failed, false),
                early,
                InstanceStage::Failed,
                Some(("install_failed", Severity::Warning)),
            ),
            (
                receipt("new", R::Failed, false),
                too_late,
                InstanceStage::Failed,
                Some(("install_failed", Severity::Critical)),
            ),
            // It failed with an earlier one, and has not seen this one.
            (receipt("old", R::Failed, false), early, InstanceStage::Issued, None),
            (
                receipt("new", R::Served, true),
                late,
                InstanceStage::Served,
                Some(("silent_instance", Severity::Warning)),
            ),
            (
                receipt("old", R::Served, true),
                early,
                InstanceStage::Issued,
                Some(("silent_instance", Severity::Warning)),
            ),
            (
                receipt("old", R::Served, true),
                too_late,
                InstanceStage::Issued,
                Some(("silent_instance", Severity::Critical)),
            ),
        ] {
            let stored = stored(Some(current(published)), vec![receipt.clone()]);
            let report = report(&stored, &[]);
            let found: Vec<_> = report
                .findings
                .iter()
                .map(|finding| (finding.kind.code().as_str(), finding.severity))
                .collect();
            assert_eq!(found, finding.into_iter().collect::<Vec<_>>(), "{receipt:?}");
            assert_eq!(
                (report.instances[0].stage, report.status),
                (stage, finding.map_or(Severity::Ok, |(_, severity)| severity))
            );
        }
    }

    #[test]
    fn an_address_that_serves_another_one_is_wrong_after_the_grace() {
        for (fingerprint, published, expected) in [
            ("aa", Duration::hours(25), 0),
            ("bb", Duration::hours(23), 0),
            ("bb", Duration::hours(25), 1),
        ] {
            let stored = stored(Some(current(published)), Vec::new());
            let findings = report(&stored, &[seen(fingerprint)]).findings;
            assert_eq!(findings.len(), expected);
            if let Some(finding) = findings.first() {
                assert_eq!(
                    finding.message,
                    "192.0.2.1:443 serves a different certificate for shop.test:443 (SHA-256 bb, valid until 2026-10-30 00:00 UTC) than \
                     the current version (SHA-256 aa, valid until 2027-01-07 00:00 UTC)"
                );
            }
        }
    }

    /// An order that was tried for days keeps the id of its first try: its version was late as soon
    /// as it was published.
    #[test]
    fn a_version_that_was_ordered_for_days_was_late_at_once() {
        let id = |days| version::id(NOW - Duration::days(days), 0);
        let (old, new) = (id(60), id(5));
        let warning = Severity::Warning;
        for (published, expected) in [
            (Duration::HOUR, &[][..]),
            (
                Duration::hours(25),
                &[("not_pulled", warning), ("wrong_certificate", warning)],
            ),
        ] {
            let mut current = current(published);
            current.facts.version.clone_from(&new);
            current.facts.not_before = NOW - published - Duration::HOUR;
            let kept = |version: &str, not_before| StoredVersion {
                facts: Version {
                    version: version.to_owned(),
                    not_before,
                    not_after: NOW,
                    fingerprint: if version == old { "bb" } else { "aa" }.into(),
                    issuer: "letsencrypt".into(),
                },
                current: version == new,
            };
            let stored = Stored {
                history: Ok(vec![
                    kept(&new, current.facts.not_before),
                    kept(&old, NOW - Duration::days(60)),
                ]),
                ..stored(Some(current), vec![receipt(&old, receipt::Stage::Served, false)])
            };
            assert_eq!(codes(&report(&stored, &[seen("bb")])), expected);
        }
    }

    /// The clock of whoever published was ahead once: until then, nothing was late or overdue.
    #[test]
    fn a_pointer_from_the_future_held_every_alert_up() {
        let old = receipt("old", receipt::Stage::Pulled, false);
        let mut current = current(-Duration::days(400));
        current.facts.not_before = NOW - Duration::days(2);
        let late = report(&stored(Some(current.clone()), vec![old]), &[seen("bb")]);
        let warning = Severity::Warning;
        assert_eq!(codes(&late), [("not_pulled", warning), ("wrong_certificate", warning)]);

        current.facts.not_before = NOW - Duration::days(80);
        current.facts.not_after = NOW + Duration::days(10);
        let overdue = report(&stored(Some(current), Vec::new()), &[seen("aa")]);
        assert_eq!(codes(&overdue), [("renewal_overdue", warning)]);
    }

    #[test]
    fn a_renewal_that_fails_is_a_warning_while_there_is_a_certificate() {
        let mut renewal = Renewal::new("shop.test");
        renewal.failure = Some(RenewalFailure::next(None, "the CA said no".into(), None, NOW));
        for (current, severity) in [
            (Some(current(Duration::HOUR)), Severity::Warning),
            (None, Severity::Critical),
        ] {
            let stored = Stored {
                renewal: Ok(Some(renewal.clone())),
                ..stored(current, Vec::new())
            };
            let report = report(&stored, &[]);
            assert_eq!(
                (report.findings[0].kind.code().as_str(), report.status),
                ("renewal_failed", severity)
            );
            assert!(report.findings[0].message.contains("the CA said no"));
        }
    }

    #[test]
    fn a_stage_for_each_address() {
        let dark: EndpointReport = serde_json::from_value(serde_json::json!({
            "endpoint": "shop.test:443", "status": "unknown", "observations": [], "findings": [
                {"code": "dns_failed", "severity": "unknown", "name": "x", "reason": "", "message": "x could not be looked up"}]
        }))
        .unwrap();
        let old = StoredVersion {
            facts: Version {
                version: "old".into(),
                not_before: NOW,
                not_after: NOW,
                fingerprint: "bb".into(),
                issuer: "letsencrypt".into(),
            },
            current: false,
        };
        let there = Stored {
            history: Ok(vec![old]),
            ..stored(Some(current(Duration::HOUR)), Vec::new())
        };
        let unknown = Stored {
            current: Err("no".into()),
            ..there.clone()
        };
        use AddressStage as S;
        for (stored, endpoints, stage, version, reason) in [
            (&there, vec![seen("aa")], S::Served, None, None),
            (&there, vec![seen("bb")], S::Another, Some("old"), None),
            (&there, vec![seen("cc")], S::Another, None, None),
            (&there, vec![], S::Unseen, None, Some("not checked yet")),
            (&there, vec![dark], S::Unseen, None, Some("x could not be looked up")),
            (
                &unknown,
                vec![seen("bb")],
                S::Unseen,
                Some("old"),
                Some("it is not known what it should serve"),
            ),
        ] {
            let report = report(stored, &endpoints);
            let [address] = &report.addresses[..] else {
                panic!("one, not {report:?}")
            };
            assert_eq!(
                (address.stage, address.version.as_deref(), address.reason.as_deref()),
                (stage, version, reason)
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_hides_nothing() {
        let broken = StoredReceipt {
            instance: "AROA:i-2".into(),
            receipt: Err("it is not a receipt (line 1, column 1)".into()),
        };
        let mut there = stored(
            Some(current(Duration::hours(25))),
            vec![receipt("new", receipt::Stage::Failed, false)],
        );
        there.receipts.as_mut().unwrap().push(broken);
        let report = report(&there, &[]);
        assert_eq!(report.instances.len(), 1);
        assert_eq!(
            codes(&report),
            [
                ("receipt_unreadable", Severity::Unknown),
                ("install_failed", Severity::Warning)
            ]
        );
        assert_eq!(
            report.findings[0].message,
            "the receipt of i-2 cannot be read: it is not a receipt (line 1, column 1)"
        );

        let denied = "cannot read s3://b/certificates/shop.test/current.json: AccessDenied".to_owned();
        there.current = Err(denied.clone());
        let report = self::report(&there, &[seen("aa")]);
        assert_eq!(report.status, Severity::Unknown);
        assert_eq!(report.findings[0].message, format!("its state is not known: {denied}"));
        assert_eq!(report.instances[0].stage, InstanceStage::Failed, "as it says itself");

        let without_history = Stored {
            history: Err("cannot list".into()),
            ..stored(Some(current(Duration::HOUR)), Vec::new())
        };
        assert_eq!(
            codes(&self::report(&without_history, &[])),
            [("certificate_unreadable", Severity::Warning)]
        );
    }

    #[test]
    fn one_that_has_ended_is_said_once() {
        let mut ended = current(Duration::HOUR);
        (ended.facts.not_before, ended.facts.not_after) = (NOW - Duration::days(90), NOW);
        let stored = stored(Some(ended), Vec::new());
        assert_eq!(codes(&report(&stored, &[])), [], "the endpoint says it");
        let certificate = Managed {
            served_at: Vec::new(),
            ..certificate()
        };
        let known = Known {
            certificate: &certificate,
            stored: &stored,
            endpoints: &EndpointIndex::default(),
        };
        assert_eq!(codes(&join(&known, NOW)), [("expired", Severity::Critical)]);
    }

    /// A renewer that did not run at all was "ok" until little time was left.
    #[test]
    fn a_renewer_that_never_answers_is_reported_two_days_after_it_was_due() {
        let hours = Duration::hours;
        for (left, published, fails, expected) in [
            (hours(31 * 24), hours(59 * 24), false, None),
            (hours(29 * 24), hours(61 * 24), false, None),
            (hours(28 * 24), hours(62 * 24), false, Some("renewal_overdue")),
            (hours(28 * 24), hours(62 * 24), true, Some("renewal_failed")),
            // Taken over from certbot a day ago.
            (hours(20 * 24), hours(24), false, None),
        ] {
            let mut current = current(published);
            current.facts.not_after = NOW + left;
            current.facts.not_before = NOW + left - Duration::days(90);
            let failure = RenewalFailure::next(None, "the CA says no".into(), None, NOW);
            let known = Stored {
                renewal: Ok(Some(Renewal {
                    failure: fails.then_some(failure),
                    ..Renewal::new("shop.test")
                })),
                ..stored(Some(current), Vec::new())
            };
            let report = report(&known, &[]);
            let found = report.findings.first().map(|finding| finding.kind.code().as_str());
            assert_eq!(found, expected, "{left} left, {fails}");
        }
    }

    #[test]
    fn an_instance_that_is_gone_alerts_until_its_receipt_is_gone() {
        use crate::alert::{Change, Memory, Run, Watchlist, decide};
        use crate::report::Report;
        let of = |receipts: Vec<Receipt>| {
            let mut report = Report::new(NOW, NOW, Vec::new());
            report.certificates = vec![self::report(&stored(Some(current(Duration::HOUR)), receipts), &[])];
            report
        };
        let mut gone = receipt("new", receipt::Stage::Served, true);
        gone.instance = "AROA:i-1".into();
        let mut memory = Memory::Blank;
        let mut said = |report: Report, at| {
            let watchlist = Watchlist::default();
            let run = Run {
                outcome: Ok(&report),
                watchlist: &watchlist,
                weekly: false,
            };
            let (news, state) = decide(&run, &memory, at);
            memory = Memory::Known(state);
            let notices = news.notices.into_iter();
            notices
                .map(|notice| (notice.change, notice.incident.code, notice.incident.message))
                .collect::<Vec<_>>()
        };
        let first = said(of(vec![gone.clone()]), NOW);
        assert_eq!((first[0].0, first[0].1.as_str()), (Change::Appeared, "silent_instance"));
        assert!(
            first[0].2.starts_with("i-1 (web-1) has not reported since"),
            "{first:?}"
        );
        assert_eq!(said(of(vec![gone]), NOW + Duration::DAY), []);
        let last = said(of(Vec::new()), NOW + Duration::days(2));
        assert_eq!((last[0].0, last[0].1.as_str()), (Change::Resolved, "silent_instance"));
        assert_eq!(said(of(Vec::new()), NOW + Duration::days(3)), []);
    }

    #[test]
    fn what_cannot_be_read_ends_no_alert() {
        use crate::alert::{Memory, Run, Watchlist, decide};
        use crate::report::Report;
        let behind = stored(
            Some(current(Duration::hours(25))),
            vec![receipt("old", receipt::Stage::Served, false)],
        );
        let mut memory = Memory::Blank;
        let mut codes = |stored: &Stored, at| {
            let mut report = Report::new(NOW, NOW, Vec::new());
            report.certificates = vec![self::report(stored, &[])];
            let watchlist = Watchlist::default();
            let run = Run {
                outcome: Ok(&report),
                watchlist: &watchlist,
                weekly: false,
            };
            let (news, state) = decide(&run, &memory, at);
            memory = Memory::Known(state);
            news.notices
                .into_iter()
                .map(|notice| (notice.incident.code.to_string(), notice.change.is_firing()))
                .collect::<Vec<_>>()
        };
        let say = |code: &str, open| (code.to_owned(), open);
        assert_eq!(codes(&behind, NOW), [say("not_pulled", true)]);
        let denied = Stored::unread("access denied");
        let hour = Duration::HOUR;
        assert_eq!(codes(&denied, NOW + hour), [say("certificate_unreadable", true)]);
        let done = stored(
            Some(current(Duration::hours(25))),
            vec![receipt("new", receipt::Stage::Served, false)],
        );
        assert_eq!(
            codes(&done, NOW + hour * 2),
            [say("certificate_unreadable", false), say("not_pulled", false)]
        );
    }
}
