//! How far a certificate is on its way: what is stored, what instances report, and what is on the wire, put side by side.
//!
//! Receipts and the view from outside complete each other: a receipt knows an instance that no address shows (behind a load balancer),
//! an address knows a server that no client reports for.

mod stored;

use time::Duration;

pub use self::stored::{Stored, Told, left_out, read};
use crate::bucket::receipt::{self, Receipt};
use crate::bucket::version::{Current, Facts, made_at};
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Managed;
use crate::observation::Observation;
use crate::renewal::{Failure, planned};
use crate::report::{
    AddressReport, AddressStage, CertificateReport, EndpointReport, InstanceReport, RenewalReport, Stage, StoredVersion,
};
use crate::timestamp::Timestamp;

/// What is known of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What is wanted.
    pub certificate: &'a Managed,
    /// What the bucket has of it.
    pub stored: &'a Stored,
    /// What was seen of all endpoints.
    pub endpoints: &'a [EndpointReport],
}

/// One report a certificate, worst first.
pub fn reports(
    certificates: &[Managed],
    stored: &[Stored],
    endpoints: &[EndpointReport],
    now: Timestamp,
) -> Vec<CertificateReport> {
    let known = certificates.iter().zip(stored).map(|(certificate, stored)| Known {
        certificate,
        stored,
        endpoints,
    });
    let mut reports: Vec<_> = known.map(|known| join(&known, now)).collect();
    reports.sort_by(|one, other| other.status.cmp(&one.status).then_with(|| one.name.cmp(&other.name)));
    reports
}

/// One stage for each instance and for each address, and what is wrong with renewal and delivery.
pub fn join(known: &Known<'_>, now: Timestamp) -> CertificateReport {
    let Stored {
        current,
        renewal,
        receipts,
        history,
    } = known.stored;
    let (renewal, receipts) = (renewal.as_ref().ok().and_then(Option::as_ref), told(receipts));
    let history = history.as_deref().unwrap_or_default();
    let pointer = current.as_ref().ok().and_then(Option::as_ref);
    let facts = pointer.map(|current| &current.facts);
    let addresses = addresses(known, history);
    let findings = findings(known, &addresses, now);
    let failure = renewal.and_then(|renewal| renewal.failure.as_ref());
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
        history: history.to_vec(),
        instances: receipts
            .iter()
            .filter_map(|told| Some(instance(told.receipt.as_ref().ok()?, current)))
            .collect(),
        addresses,
        renewal: RenewalReport {
            problem: failure.map(|failure| failure.problem.clone()),
            next_try: failure.map(|failure| failure.next_try),
            planned: pointer.map(|current| planned(current, renewal)),
        },
        findings,
    }
}

/// One that was renewed and is not in the inventory any more, as it is in the bucket.
pub fn not_renewed(current: &Current, inventory_missing: bool, now: Timestamp) -> CertificateReport {
    let facts = &current.facts;
    let kind = Kind::NotRenewed {
        name: facts.name.clone(),
        not_after: facts.not_after,
        inventory_missing,
    };
    let status = match inventory_missing {
        true => Severity::Critical,
        false => Severity::Warning,
    };
    CertificateReport {
        name: facts.name.clone(),
        status,
        identifiers: facts.identifiers.clone(),
        issuer: Some(facts.issuer.name.clone()),
        version: Some(facts.version.clone()),
        fingerprint: Some(facts.fingerprint.clone()),
        not_before: Some(facts.not_before),
        not_after: Some(facts.not_after),
        history: Vec::new(),
        instances: Vec::new(),
        addresses: Vec::new(),
        renewal: RenewalReport::default(),
        findings: vec![Finding::new(kind, status, now)],
    }
}

fn told(receipts: &Result<Vec<Told>, String>) -> &[Told] {
    receipts.as_deref().unwrap_or_default()
}

/// Everything that is wrong, worst first.
fn findings(known: &Known<'_>, addresses: &[AddressReport], now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<_> = [unreadable(known, now), renewal_failed(known, now)]
        .into_iter()
        .flatten()
        .collect();
    let receipts = told(&known.stored.receipts);
    findings.extend(receipts.iter().filter_map(|told| senseless(told, now)));
    if let Ok(Some(current)) = &known.stored.current {
        let patience = Patience {
            current,
            history: known.stored.history.as_deref().unwrap_or_default(),
            within: known.certificate.deliver_within,
            now,
        };
        findings.extend(lapsing(known, &current.facts, now));
        let receipts: Vec<_> = receipts.iter().filter_map(|told| told.receipt.as_ref().ok()).collect();
        findings.extend(receipts.iter().filter_map(|receipt| stuck(receipt, &patience)));
        findings.extend(wrong_certificates(addresses, &patience));
        findings.extend(unseen_anywhere(known, &receipts, &patience));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// What could not be read, as one finding: without it, nobody can judge. Without the history alone, everybody can.
fn unreadable(known: &Known<'_>, now: Timestamp) -> Option<Finding> {
    let Stored {
        current,
        renewal,
        receipts,
        history,
    } = known.stored;
    let problems = [
        current.as_ref().err(),
        renewal.as_ref().err(),
        receipts.as_ref().err(),
        history.as_ref().err(),
    ];
    let severity = match problems[..3].iter().any(Option::is_some) {
        true => Severity::Unknown,
        false => Severity::Warning,
    };
    let problems: Vec<_> = problems.into_iter().flatten().map(String::as_str).collect();
    let reason = problems.join("; ");
    (!problems.is_empty()).then(|| Finding::new(Kind::CertificateUnreadable { reason }, severity, now))
}

fn senseless(told: &Told, now: Timestamp) -> Option<Finding> {
    let reason = told.receipt.as_ref().err()?.clone();
    let instance = told.instance.clone();
    Some(Finding::new(
        Kind::ReceiptUnreadable { instance, reason },
        Severity::Unknown,
        now,
    ))
}

/// The newest that there is has ended, or is about to while the renewer says nothing. Where it is served, that is found on the wire, and
/// said once; but of the shortest lifetimes too late.
fn lapsing(known: &Known<'_>, current: &Facts, now: Timestamp) -> Option<Finding> {
    let Managed {
        served_at, thresholds, ..
    } = known.certificate;
    let (not_after, lifetime) = (current.not_after, current.not_after - current.not_before);
    let threshold = thresholds.lapsing(lifetime);
    if !served_at.is_empty() && threshold <= thresholds.critical(lifetime) {
        return None;
    }
    let threshold_seconds = threshold.whole_seconds();
    let kind = match not_after - now {
        left if left <= Duration::ZERO => Kind::Expired { not_after },
        left if left < threshold && failure(known).is_none() => Kind::ExpiresSoon {
            not_after,
            threshold_seconds,
        },
        _ => return None,
    };
    Some(Finding::new(kind, Severity::Critical, now))
}

/// How long a version may take to be there.
struct Patience<'a> {
    current: &'a Current,
    history: &'a [StoredVersion],
    within: Duration,
    now: Timestamp,
}

impl Patience<'_> {
    /// How much it matters that something is missing since then: nothing within its grace.
    fn late(&self, since: Timestamp) -> Option<Severity> {
        let waited = self.now - since;
        if waited > self.within * TOO_LATE {
            Some(Severity::Critical)
        } else {
            (waited > self.within).then_some(Severity::Warning)
        }
    }

    /// When the first version was made that comes after this one, or the first of all after none. Not when the newest was published: with
    /// six-day certificates nothing would ever be late.
    fn missed_since(&self, version: Option<&str>) -> Option<Timestamp> {
        let is_after = |stored: &&StoredVersion| version.is_none_or(|version| *stored.version > *version);
        let first = self
            .history
            .iter()
            .filter(is_after)
            .min_by_key(|stored| &stored.version)?;
        made_at(&first.version)
    }

    fn since(&self, missed: Option<Timestamp>) -> Timestamp {
        let published = self.current.published_at;
        missed.map_or(published, |missed| missed.min(published))
    }

    /// How late an instance is that does not have the current version.
    fn of_instance(&self, receipt: &Receipt) -> Option<Severity> {
        if receipt.not_after.is_some_and(|end| end <= self.now) {
            return Some(Severity::Critical);
        }
        let missed = receipt.has().and_then(|version| self.missed_since(Some(version)));
        let two_behind = receipt
            .sequence
            .is_some_and(|sequence| self.current.sequence > sequence.saturating_add(1));
        match (missed, self.late(self.since(missed))) {
            (None, None) if two_behind => Some(Severity::Warning),
            (_, late) => late,
        }
    }

    /// How late an address is that shows another certificate, one of ours or not.
    fn of_address(&self, seen: &AddressReport) -> Option<Severity> {
        self.late(self.since(self.missed_since(seen.version.as_deref())))
    }
}

/// Where an instance is with the current version: whoever reports about an earlier one has not pulled it. Where nobody knows which one is
/// current, it is where it says.
fn instance(receipt: &Receipt, current: &Result<Option<Current>, String>) -> InstanceReport {
    let is_another = match current {
        Ok(current) => current
            .as_ref()
            .is_none_or(|current| current.facts.version != receipt.version),
        Err(_) => false,
    };
    let stage = match receipt.stage {
        _ if is_another => Stage::Issued,
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

/// What each address shows, of every endpoint where the certificate is to be served.
fn addresses(known: &Known<'_>, history: &[StoredVersion]) -> Vec<AddressReport> {
    let mut addresses = Vec::new();
    for place in &known.certificate.served_at {
        let place = place.to_string();
        let asked_for_it = |seen: &&EndpointReport| seen.endpoint == place && seen.sni.is_none();
        let mut looks = known.endpoints.iter().filter(asked_for_it).peekable();
        if looks.peek().is_none() {
            addresses.push(unseen(&place, None, "nobody has looked at it yet"));
        }
        for look in looks {
            if look.observations.is_empty() {
                addresses.push(unseen(&place, None, why(&look.findings)));
            }
            let shown = look
                .observations
                .iter()
                .map(|seen| address(known, &place, seen, history));
            addresses.extend(shown);
        }
    }
    addresses
}

fn address(known: &Known<'_>, place: &str, seen: &Observation, history: &[StoredVersion]) -> AddressReport {
    let Some(leaf) = &seen.leaf else {
        return unseen(place, Some(seen.address), why(&seen.findings));
    };
    let current = known.stored.current.as_ref().map(|current| {
        current
            .as_ref()
            .is_some_and(|current| current.facts.fingerprint == leaf.fingerprint)
    });
    let (stage, reason) = match current {
        Ok(true) => (AddressStage::Served, None),
        Ok(false) => (AddressStage::Another, None),
        Err(_) => (
            AddressStage::Unseen,
            Some("nobody knows what it should show".to_owned()),
        ),
    };
    let ours = |version: &&StoredVersion| version.fingerprint.as_ref() == Some(&leaf.fingerprint);
    AddressReport {
        endpoint: place.to_owned(),
        address: Some(seen.address),
        stage,
        fingerprint: Some(leaf.fingerprint.clone()),
        version: history.iter().find(ours).map(|version| version.version.clone()),
        not_after: Some(leaf.not_after),
        reason,
    }
}

fn unseen(place: &str, address: Option<std::net::SocketAddr>, reason: &str) -> AddressReport {
    AddressReport {
        endpoint: place.to_owned(),
        address,
        stage: AddressStage::Unseen,
        fingerprint: None,
        version: None,
        not_after: None,
        reason: Some(reason.to_owned()),
    }
}

fn why(findings: &[Finding]) -> &str {
    findings
        .first()
        .map_or("it shows no certificate", |finding| finding.message.as_str())
}

/// Why an instance does not have it: its client is gone, could not install it, or has not fetched it in time.
fn stuck(receipt: &Receipt, patience: &Patience<'_>) -> Option<Finding> {
    let (instance, host) = (receipt.instance.clone(), receipt.host.clone());
    let (current, now, late) = (&patience.current.facts, patience.now, patience.of_instance(receipt));
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
                instance: Some(instance),
                host: Some(host),
                version: current.version.clone(),
                fingerprint: current.fingerprint.clone(),
                not_after: current.not_after,
                installed: receipt.has().map(str::to_owned),
                installed_fingerprint: (!is_current && receipt.installed.is_none())
                    .then(|| receipt.fingerprint.clone()),
            };
            Some(Finding::new(kind, late, now))
        }
    }
}

/// Addresses that still serve another one.
fn wrong_certificates(addresses: &[AddressReport], patience: &Patience<'_>) -> Vec<Finding> {
    let (current, now) = (&patience.current.facts, patience.now);
    let wrong = addresses.iter().filter_map(|seen| {
        let (address, found, found_not_after) = match seen.stage {
            AddressStage::Another => (seen.address?, seen.fingerprint.clone()?, seen.not_after?),
            _ => return None,
        };
        let kind = Kind::WrongCertificate {
            endpoint: seen.endpoint.clone(),
            address,
            expected: current.fingerprint.clone(),
            expected_not_after: current.not_after,
            found,
            found_not_after,
        };
        Some(Finding::new(kind, patience.of_address(seen)?, now))
    });
    wrong.collect()
}

/// No address is looked at, and no instance has seen its server show it: it may be nowhere. Those that say themselves that they do not
/// have it are found already.
fn unseen_anywhere(known: &Known<'_>, receipts: &[&Receipt], patience: &Patience<'_>) -> Option<Finding> {
    let Current {
        facts, published_at, ..
    } = patience.current;
    let looked = receipts.iter().any(|receipt| match receipt.stage {
        receipt::Stage::Installed => receipt.version != facts.version,
        receipt::Stage::Served | receipt::Stage::Failed | receipt::Stage::Pulled => true,
    });
    if looked || !known.certificate.served_at.is_empty() || known.stored.receipts.is_err() {
        return None;
    }
    patience.late(*published_at)?;
    let kind = Kind::NotPulled {
        instance: None,
        host: None,
        version: facts.version.clone(),
        fingerprint: facts.fingerprint.clone(),
        not_after: facts.not_after,
        installed: None,
        installed_fingerprint: None,
    };
    Some(Finding::new(kind, Severity::Warning, patience.now))
}

fn failure<'a>(known: &Known<'a>) -> Option<&'a Failure> {
    known.stored.renewal.as_ref().ok()?.as_ref()?.failure.as_ref()
}

fn renewal_failed(known: &Known<'_>, now: Timestamp) -> Option<Finding> {
    let failure = failure(known)?;
    let kind = Kind::RenewalFailed {
        name: known.certificate.name.clone(),
        problem: failure.problem.clone(),
        tries: failure.count,
        since: failure.since,
        next_try: failure.next_try,
    };
    let is_short = |Facts {
                        not_before, not_after, ..
                    }: &Facts| {
        let threshold = known.certificate.thresholds.lapsing(*not_after - *not_before);
        *not_after - now < threshold
    };
    let severity = match &known.stored.current {
        Ok(current) if current.as_ref().is_none_or(|current| is_short(&current.facts)) => Severity::Critical,
        _ => Severity::Warning,
    };
    Some(Finding::new(kind, severity, now))
}

/// So many times its grace.
const TOO_LATE: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::version::IssuedBy;
    use crate::inventory::{Inventory, KeyType};
    use crate::renewal::{Failure, Renewal};
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-10-10 00:00 UTC);

    fn certificate() -> Managed {
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
        let told = |receipt: Receipt| Told {
            instance: receipt.instance.clone(),
            receipt: Ok(receipt),
        };
        Stored {
            current: Ok(current),
            renewal: Ok(None),
            receipts: Ok(receipts.into_iter().map(told).collect()),
            history: Ok(Vec::new()),
        }
    }

    fn report(stored: &Stored, endpoints: &[EndpointReport]) -> CertificateReport {
        let certificate = certificate();
        let known = Known {
            certificate: &certificate,
            stored,
            endpoints,
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

    fn codes(report: &CertificateReport) -> Vec<(&'static str, Severity)> {
        let code = |finding: &Finding| (finding.kind.code().as_str(), finding.severity);
        report.findings.iter().map(code).collect()
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
                    "192.0.2.1:443 serves another certificate for shop.test:443 (fingerprint bb, until 2026-10-30T00:00:00Z) than the \
                     current one (fingerprint aa, until 2027-01-07T00:00:00Z)"
                );
            }
        }
    }

    #[test]
    fn a_renewal_that_fails_is_a_warning_while_there_is_a_certificate() {
        let mut renewal = Renewal::new("shop.test");
        renewal.failure = Some(Failure::next(None, "the CA said no".into(), None, NOW));
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
            version: "old".into(),
            not_before: NOW,
            not_after: NOW,
            fingerprint: Some("bb".into()),
            issuer: "letsencrypt".into(),
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
            (&there, vec![], S::Unseen, None, Some("nobody has looked at it yet")),
            (&there, vec![dark], S::Unseen, None, Some("x could not be looked up")),
            (
                &unknown,
                vec![seen("bb")],
                S::Unseen,
                Some("old"),
                Some("nobody knows what it should show"),
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
        let broken = Told {
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
            "what i-2 reports cannot be understood: it is not a receipt (line 1, column 1)"
        );

        let denied = "cannot read s3://b/certificates/shop.test/current.json: AccessDenied".to_owned();
        there.current = Err(denied.clone());
        let report = self::report(&there, &[seen("aa")]);
        assert_eq!(report.status, Severity::Unknown);
        assert_eq!(
            report.findings[0].message,
            format!("nobody can say how far it is: {denied}")
        );
        assert_eq!(report.instances[0].stage, Stage::Failed, "as it says itself");

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
            endpoints: &[],
        };
        assert_eq!(codes(&join(&known, NOW)), [("expired", Severity::Critical)]);
    }

    #[test]
    fn an_instance_that_is_gone_alerts_until_its_receipt_is_gone() {
        use crate::alert::state::{Change, Circle, Memory, Run, next};
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
            let circle = Circle::default();
            let run = Run {
                outcome: Ok(&report),
                circle: &circle,
                weekly: false,
            };
            let (news, state) = next(&run, &memory, at);
            memory = Memory::Known(state);
            let notices = news.notices.into_iter();
            notices
                .map(|notice| (notice.change, notice.matter.code, notice.matter.message))
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
        assert_eq!((last[0].0, last[0].1.as_str()), (Change::Over, "silent_instance"));
        assert_eq!(said(of(Vec::new()), NOW + Duration::days(3)), []);
    }

    #[test]
    fn what_cannot_be_read_ends_no_alert() {
        use crate::alert::state::{Circle, Memory, Run, next};
        use crate::report::Report;
        let behind = stored(
            Some(current(Duration::hours(25))),
            vec![receipt("old", receipt::Stage::Served, false)],
        );
        let mut memory = Memory::Blank;
        let mut codes = |stored: &Stored, at| {
            let mut report = Report::new(NOW, NOW, Vec::new());
            report.certificates = vec![self::report(stored, &[])];
            let circle = Circle::default();
            let run = Run {
                outcome: Ok(&report),
                circle: &circle,
                weekly: false,
            };
            let (news, state) = next(&run, &memory, at);
            memory = Memory::Known(state);
            news.notices
                .into_iter()
                .map(|notice| (notice.matter.code.to_string(), notice.change.is_open()))
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
