//! How far a certificate is on its way: what is stored, what instances report, and what is on the wire, put side by side.
//!
//! Receipts and the view from outside complete each other: a receipt knows an instance that no address shows (behind a load balancer),
//! an address knows a server that no client reports for.

use time::{Duration, OffsetDateTime};

use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Certificate;
use crate::receipt::{self, Receipt};
use crate::renewal::{Renewal, planned};
use crate::report::{CertificateReport, EndpointReport, InstanceReport, RenewalReport, Stage};
use crate::version::{Current, Facts};

/// What is known of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What is wanted.
    pub certificate: &'a Certificate,
    /// What is to be served; `None` before the first one.
    pub current: Option<&'a Current>,
    /// What the renewer did.
    pub renewal: Option<&'a Renewal>,
    /// What instances did.
    pub receipts: &'a [Receipt],
    /// What was seen of all endpoints.
    pub endpoints: &'a [EndpointReport],
}

/// One stage for each instance, and what is wrong with renewal and delivery.
pub fn join(known: &Known<'_>, now: OffsetDateTime) -> CertificateReport {
    let facts = known.current.map(|current| &current.facts);
    let mut findings: Vec<_> = renewal_failed(known, now).into_iter().collect();
    if let Some(current) = known.current {
        let late = late(now - current.published_at, known.certificate.deliver_within);
        let of_instances = known
            .receipts
            .iter()
            .filter_map(|receipt| stuck(receipt, &current.facts, late, now));
        findings.extend(of_instances);
        findings.extend(
            late.iter()
                .flat_map(|late| wrong_certificates(known, &current.facts, *late, now)),
        );
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let failure = known.renewal.and_then(|renewal| renewal.failure.as_ref());
    CertificateReport {
        name: known.certificate.name.clone(),
        status: findings
            .iter()
            .map(|finding| finding.severity)
            .max()
            .unwrap_or(Severity::Ok),
        identifiers: known.certificate.identifiers.clone(),
        issuer: facts.map(|facts| facts.issuer.name.clone()),
        version: facts.map(|facts| facts.version.clone()),
        fingerprint: facts.map(|facts| facts.fingerprint.clone()),
        not_before: facts.map(|facts| facts.not_before),
        not_after: facts.map(|facts| facts.not_after),
        history: Vec::new(),
        instances: known.receipts.iter().map(|receipt| instance(receipt, facts)).collect(),
        renewal: RenewalReport {
            problem: failure.map(|failure| failure.problem.clone()),
            next_try: failure.map(|failure| failure.next_try),
            planned: facts.map(|facts| planned(facts, known.renewal)),
        },
        findings,
    }
}

/// How much it matters that a version published so long ago is not there: nothing within its grace.
fn late(since: Duration, deliver_within: Duration) -> Option<Severity> {
    if since > deliver_within * TOO_LATE {
        Some(Severity::Critical)
    } else {
        (since > deliver_within).then_some(Severity::Warning)
    }
}

/// Where an instance is with the current version: whoever reports about an earlier one has not pulled it.
fn instance(receipt: &Receipt, current: Option<&Facts>) -> InstanceReport {
    let is_current = current.is_some_and(|current| current.version == receipt.version);
    let stage = match receipt.stage {
        _ if !is_current => Stage::Issued,
        receipt::Stage::Failed => Stage::Failed,
        receipt::Stage::Pulled => Stage::Pulled,
        receipt::Stage::Installed => Stage::Installed,
        receipt::Stage::Served => Stage::Served,
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

/// Why an instance does not have it: its client is gone, could not install it, or has not fetched it in time.
fn stuck(receipt: &Receipt, current: &Facts, late: Option<Severity>, now: OffsetDateTime) -> Option<Finding> {
    let (instance, host) = (receipt.instance.clone(), receipt.host.clone());
    let is_current = receipt.version == current.version;
    if now > receipt.next_by {
        let has_it = is_current && receipt.stage >= receipt::Stage::Installed;
        let severity = late.filter(|_| !has_it).unwrap_or(Severity::Warning);
        let (last_seen, due) = (receipt.at, receipt.next_by);
        return Some(Finding::new(
            Kind::SilentInstance {
                instance,
                host,
                last_seen,
                due,
            },
            severity,
            now,
        ));
    }
    match receipt.stage {
        receipt::Stage::Failed if is_current => {
            let kind = Kind::InstallFailed {
                instance,
                host,
                version: current.version.clone(),
                fingerprint: current.fingerprint.clone(),
                not_after: current.not_after,
                reason: receipt
                    .reason
                    .clone()
                    .unwrap_or_else(|| "it does not say why".to_owned()),
                since: receipt.since,
            };
            Some(Finding::new(kind, late.unwrap_or(Severity::Warning), now))
        }
        receipt::Stage::Installed | receipt::Stage::Served if is_current => None,
        _ => {
            let late = late?;
            let kind = Kind::NotPulled {
                instance,
                host,
                version: current.version.clone(),
                fingerprint: current.fingerprint.clone(),
                not_after: current.not_after,
                installed: receipt
                    .installed
                    .as_ref()
                    .or((!is_current).then_some(&receipt.version))
                    .cloned(),
                installed_fingerprint: (!is_current).then(|| receipt.fingerprint.clone()),
            };
            Some(Finding::new(kind, late, now))
        }
    }
}

/// Addresses that still serve another one.
fn wrong_certificates(known: &Known<'_>, current: &Facts, late: Severity, now: OffsetDateTime) -> Vec<Finding> {
    let places: Vec<_> = known.certificate.served_at.iter().map(ToString::to_string).collect();
    let endpoints = known.endpoints.iter().filter(|seen| places.contains(&seen.endpoint));
    let seen = endpoints.flat_map(|seen| seen.observations.iter().map(move |observation| (seen, observation)));
    let wrong = seen.filter_map(|(endpoint, observation)| {
        let leaf = observation
            .leaf
            .as_ref()
            .filter(|leaf| leaf.fingerprint != current.fingerprint)?;
        let kind = Kind::WrongCertificate {
            endpoint: endpoint.endpoint.clone(),
            address: observation.address,
            expected: current.fingerprint.clone(),
            expected_not_after: current.not_after,
            found: leaf.fingerprint.clone(),
            found_not_after: leaf.not_after,
        };
        Some(Finding::new(kind, late, now))
    });
    wrong.collect()
}

fn renewal_failed(known: &Known<'_>, now: OffsetDateTime) -> Option<Finding> {
    let failure = known.renewal?.failure.as_ref()?;
    let kind = Kind::RenewalFailed {
        name: known.certificate.name.clone(),
        problem: failure.problem.clone(),
        tries: failure.count,
        since: failure.since,
        next_try: failure.next_try,
    };
    let without = known.current.is_none_or(|current| current.facts.not_after <= now);
    Some(Finding::new(
        kind,
        if without { Severity::Critical } else { Severity::Warning },
        now,
    ))
}

/// So many times its grace.
const TOO_LATE: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Inventory, KeyType};
    use crate::renewal::Failure;
    use crate::version::IssuedBy;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-10-10 00:00 UTC);

    fn certificate() -> Certificate {
        let text = "[[certificate]]\nidentifiers = [\"shop.test\"]\nserved_at = [\"shop.test\"]\n";
        Inventory::parse(text).certificates.remove(0)
    }

    fn current(published: Duration) -> Current {
        let facts = Facts {
            name: "shop.test".into(),
            version: "new".into(),
            fingerprint: "aa".into(),
            serial: "1".into(),
            not_before: NOW - Duration::DAY,
            not_after: NOW + Duration::days(89),
            identifiers: vec!["shop.test".into()],
            key: KeyType::EcdsaP256,
            issuer: IssuedBy {
                name: "letsencrypt".into(),
                directory: "https://x/directory".into(),
                account: "https://x/1".into(),
                profile: None,
                staging: false,
            },
        };
        Current {
            schema: Current::SCHEMA.into(),
            sequence: 2,
            facts,
            manifest_sha256: "cd".into(),
            published_at: NOW - published,
            rolled_back: false,
        }
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
            since: NOW - Duration::HOUR,
            at: NOW - Duration::HOUR,
            next_by: if silent {
                NOW - Duration::MINUTE
            } else {
                NOW + Duration::DAY
            },
        }
    }

    #[test]
    fn a_stage_for_each_instance_and_a_finding_for_what_is_stuck() {
        use receipt::Stage as R;
        let (early, late, too_late) = (Duration::HOUR, Duration::hours(25), Duration::hours(73));
        for (receipt, published, stage, finding) in [
            (receipt("new", R::Served, false), late, Stage::Served, None),
            (receipt("new", R::Installed, false), late, Stage::Installed, None),
            (receipt("old", R::Served, false), early, Stage::Issued, None),
            (
                receipt("old", R::Served, false),
                too_late,
                Stage::Issued,
                Some(("not_pulled", Severity::Critical)),
            ),
            (
                receipt("old", R::Served, false),
                late,
                Stage::Issued,
                Some(("not_pulled", Severity::Warning)),
            ),
            (receipt("new", R::Pulled, false), early, Stage::Pulled, None),
            (
                receipt("new", R::Pulled, false),
                late,
                Stage::Pulled,
                Some(("not_pulled", Severity::Warning)),
            ),
            (
                receipt("new", R::Pulled, false),
                too_late,
                Stage::Pulled,
                Some(("not_pulled", Severity::Critical)),
            ),
            (
                receipt("new", R::Failed, false),
                early,
                Stage::Failed,
                Some(("install_failed", Severity::Warning)),
            ),
            (
                receipt("new", R::Failed, false),
                too_late,
                Stage::Failed,
                Some(("install_failed", Severity::Critical)),
            ),
            // It failed with an earlier one, and has not seen this one.
            (receipt("old", R::Failed, false), early, Stage::Issued, None),
            (
                receipt("new", R::Served, true),
                late,
                Stage::Served,
                Some(("silent_instance", Severity::Warning)),
            ),
            (
                receipt("old", R::Served, true),
                early,
                Stage::Issued,
                Some(("silent_instance", Severity::Warning)),
            ),
            (
                receipt("old", R::Served, true),
                too_late,
                Stage::Issued,
                Some(("silent_instance", Severity::Critical)),
            ),
        ] {
            let (certificate, current) = (certificate(), current(published));
            let receipts = [receipt.clone()];
            let known = Known {
                certificate: &certificate,
                current: Some(&current),
                renewal: None,
                receipts: &receipts,
                endpoints: &[],
            };
            let report = join(&known, NOW);
            let found: Vec<_> = report
                .findings
                .iter()
                .map(|finding| (finding.kind.code(), finding.severity))
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
        let seen = |fingerprint: &str| -> EndpointReport {
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
        };
        for (fingerprint, published, expected) in [
            ("aa", Duration::hours(25), 0),
            ("bb", Duration::hours(23), 0),
            ("bb", Duration::hours(25), 1),
        ] {
            let (certificate, current, endpoints) = (certificate(), current(published), [seen(fingerprint)]);
            let known = Known {
                certificate: &certificate,
                current: Some(&current),
                renewal: None,
                receipts: &[],
                endpoints: &endpoints,
            };
            let findings = join(&known, NOW).findings;
            assert_eq!(findings.len(), expected);
            if let Some(finding) = findings.first() {
                assert_eq!(
                    finding.message,
                    "192.0.2.1:443 serves another certificate for shop.test:443 (fingerprint bb, until 2026-10-30T00:00:00Z) than the \
                     current one (fingerprint aa, until 2027-01-07T00:00:00Z)"
                );
            }
        }
    }

    #[test]
    fn a_renewal_that_fails_is_a_warning_while_there_is_a_certificate() {
        let certificate = certificate();
        let current = current(Duration::HOUR);
        let mut renewal = Renewal::new("shop.test");
        renewal.failure = Some(Failure::next(None, "the CA said no".into(), None, NOW));
        for (current, severity) in [(Some(&current), Severity::Warning), (None, Severity::Critical)] {
            let known = Known {
                certificate: &certificate,
                current,
                renewal: Some(&renewal),
                receipts: &[],
                endpoints: &[],
            };
            let report = join(&known, NOW);
            assert_eq!(
                (report.findings[0].kind.code(), report.status),
                ("renewal_failed", severity)
            );
            assert!(report.findings[0].message.contains("the CA said no"));
        }
    }
}
