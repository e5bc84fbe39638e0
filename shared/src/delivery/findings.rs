//! What is wrong with renewal and delivery of one certificate.

use std::cmp::Reverse;

use time::Duration;

use super::grace::Grace;
use super::stored::{Stored, StoredReceipt};
use crate::bucket::receipt::{Receipt, Stage};
use crate::bucket::version::{Current, Facts};
use crate::finding::{Finding, InstanceBehind, Kind, Severity};
use crate::inventory::Managed;
use crate::renewal::planned;
use crate::report::{AddressReport, AddressStage};
use crate::timestamp::Timestamp;

/// Everything that is wrong, worst first.
pub(super) fn all(certificate: &Managed, stored: &Stored, addresses: &[AddressReport], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(unreadable(stored, now));
    findings.extend(renewal_failed(certificate, stored, now));
    findings.extend(
        stored
            .receipts()
            .iter()
            .filter_map(|stored| unreadable_receipt(stored, now)),
    );

    // Without a current version, nothing can be late.
    if let Some(current) = stored.pointer() {
        let grace = Grace {
            current,
            history: stored.versions(),
            within: certificate.deliver_within,
            now,
        };
        findings.extend(expiring(certificate, stored, &current.facts, now));
        findings.extend(overdue(certificate, stored, current, now));
        findings.extend(stored.readable_receipts().filter_map(|receipt| stuck(receipt, &grace)));
        findings.extend(addresses.iter().filter_map(|seen| wrong(seen, &grace)));
        findings.extend(unseen(certificate, stored, &grace));
    }

    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

/// What could not be read, as one finding. It is unknown, because nothing can be judged without it;
/// the history alone is not needed.
fn unreadable(stored: &Stored, now: Timestamp) -> Option<Finding> {
    let needed = [
        stored.current.as_ref().err(),
        stored.renewal.as_ref().err(),
        stored.receipts.as_ref().err(),
    ];
    let severity = if needed.iter().any(Option::is_some) {
        Severity::Unknown
    } else {
        Severity::Warning
    };

    let history = stored.history.as_ref().err();
    let problems: Vec<_> = needed
        .into_iter()
        .chain([history])
        .flatten()
        .map(String::as_str)
        .collect();
    if problems.is_empty() {
        return None;
    }
    let reason = problems.join("; ");
    Some(Finding::new(Kind::CertificateUnreadable { reason }, severity, now))
}

/// A receipt that cannot be read.
fn unreadable_receipt(stored: &StoredReceipt, now: Timestamp) -> Option<Finding> {
    let reason = stored.receipt.as_ref().err()?;
    let kind = Kind::ReceiptUnreadable {
        instance: stored.instance.clone(),
        reason: reason.clone(),
    };
    Some(Finding::new(kind, Severity::Unknown, now))
}

/// The last renewal failed. That is critical if there is no version, or if the current one expires
/// soon.
fn renewal_failed(certificate: &Managed, stored: &Stored, now: Timestamp) -> Option<Finding> {
    let failure = stored.failure()?;
    let kind = Kind::RenewalFailed {
        name: certificate.name.clone(),
        problem: failure.problem.clone(),
        tries: failure.count,
        since: failure.since,
        next_try: failure.next_try,
    };

    let severity = match &stored.current {
        Ok(None) => Severity::Critical,
        Ok(Some(current)) => {
            let Facts {
                not_before, not_after, ..
            } = current.facts;
            let threshold = certificate.thresholds.critical_managed(not_after - not_before);
            if not_after - now < threshold {
                Severity::Critical
            } else {
                Severity::Warning
            }
        }
        Err(_) => Severity::Warning,
    };
    Some(Finding::new(kind, severity, now))
}

/// The current version has expired, or is about to and no renewal has failed.
///
/// Where it is served, the probe reports this already, but for very short lifetimes it would do so
/// too late.
fn expiring(certificate: &Managed, stored: &Stored, current: &Facts, now: Timestamp) -> Option<Finding> {
    let not_after = current.not_after;
    let lifetime = not_after - current.not_before;
    let threshold = certificate.thresholds.critical_managed(lifetime);
    let is_reported_by_probe = threshold <= certificate.thresholds.critical(lifetime);
    if !certificate.served_at.is_empty() && is_reported_by_probe {
        return None;
    }

    let left = not_after - now;
    let kind = if left <= Duration::ZERO {
        Kind::Expired { not_after }
    } else if left < threshold && stored.failure().is_none() {
        Kind::ExpiresSoon {
            not_after,
            threshold_seconds: threshold.whole_seconds(),
        }
    } else {
        return None;
    };
    Some(Finding::new(kind, Severity::Critical, now))
}

/// The renewal has been due for days, and the renewer has recorded no failure: it may not run.
fn overdue(certificate: &Managed, stored: &Stored, current: &Current, now: Timestamp) -> Option<Finding> {
    let renewal = stored.renewal.as_ref().ok()?.as_ref();
    // One that was taken over from elsewhere may have been due before neverlapse had it.
    let due = planned(current, renewal).max(current.moved_at(now));
    if now - due < OVERDUE || stored.failure().is_some() {
        return None;
    }
    let kind = Kind::RenewalOverdue {
        name: certificate.name.clone(),
        since: due,
    };
    Some(Finding::new(kind, Severity::Warning, now))
}

/// Why an instance does not have the current version: its client is silent, could not install it,
/// or has not pulled it in time.
fn stuck(receipt: &Receipt, grace: &Grace<'_>) -> Option<Finding> {
    let now = grace.now;
    let current = &grace.current.facts;
    let late = grace.of_instance(receipt);
    let is_current = receipt.version == current.version;

    if now > receipt.next_by {
        let has_it = is_current && receipt.stage >= Stage::Installed;
        let severity = late.filter(|_| !has_it).unwrap_or(Severity::Warning);
        return Some(Finding::new(silent(receipt), severity, now));
    }

    match receipt.stage {
        Stage::Installed | Stage::Served if is_current => None,
        Stage::Failed if is_current => {
            let severity = late.unwrap_or(Severity::Warning);
            Some(Finding::new(install_failed(receipt, current), severity, now))
        }
        Stage::Failed | Stage::Pulled | Stage::Installed | Stage::Served => {
            Some(Finding::new(not_pulled(Some(receipt), current), late?, now))
        }
    }
}

fn silent(receipt: &Receipt) -> Kind {
    Kind::SilentInstance {
        instance: receipt.instance.clone(),
        host: receipt.host.clone(),
        last_seen: receipt.at,
        due: receipt.next_by,
    }
}

fn install_failed(receipt: &Receipt, current: &Facts) -> Kind {
    Kind::InstallFailed {
        instance: receipt.instance.clone(),
        host: receipt.host.clone(),
        version: current.version.clone(),
        fingerprint: current.fingerprint.clone(),
        not_after: current.not_after,
        reason: receipt
            .reason
            .clone()
            .unwrap_or_else(|| "it does not say why".to_owned()),
        since: receipt.since,
    }
}

/// An instance has not pulled the current version; without a receipt, no instance is known to have
/// done so.
fn not_pulled(receipt: Option<&Receipt>, current: &Facts) -> Kind {
    Kind::NotPulled {
        behind: receipt.map(|receipt| {
            // A receipt has the fingerprint of its own version only.
            let has_its_own = receipt.version != current.version && receipt.installed.is_none();
            InstanceBehind {
                instance: receipt.instance.clone(),
                host: receipt.host.clone(),
                installed: receipt.has().map(str::to_owned),
                installed_fingerprint: has_its_own.then(|| receipt.fingerprint.clone()),
            }
        }),
        version: current.version.clone(),
        fingerprint: current.fingerprint.clone(),
        not_after: current.not_after,
    }
}

/// An address still serves another certificate.
fn wrong(seen: &AddressReport, grace: &Grace<'_>) -> Option<Finding> {
    if seen.stage != AddressStage::Another {
        return None;
    }
    let current = &grace.current.facts;
    let kind = Kind::WrongCertificate {
        endpoint: seen.endpoint.clone(),
        address: seen.address?,
        expected: current.fingerprint.clone(),
        expected_not_after: current.not_after,
        found: seen.fingerprint.clone()?,
        found_not_after: seen.not_after?,
    };
    Some(Finding::new(kind, grace.of_address(seen)?, grace.now))
}

/// No endpoint is probed, and no instance has seen its server serve the version: it may be nowhere.
///
/// Instances that say themselves that they do not have it are found already.
fn unseen(certificate: &Managed, stored: &Stored, grace: &Grace<'_>) -> Option<Finding> {
    let current = &grace.current.facts;
    let is_reported = stored.readable_receipts().any(|receipt| match receipt.stage {
        Stage::Installed => receipt.version != current.version,
        Stage::Served | Stage::Failed | Stage::Pulled => true,
    });
    if is_reported || !certificate.served_at.is_empty() || stored.receipts.is_err() {
        return None;
    }

    grace.of_publication()?;
    Some(Finding::new(not_pulled(None, current), Severity::Warning, grace.now))
}

/// A daily run asks the renewer; the second run after that would have seen its answer.
const OVERDUE: Duration = Duration::days(2);
