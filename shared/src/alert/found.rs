//! What is wrong after a run, as incidents will know it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;

use super::incident::{CONFIRMED, Incident, Outage, Place, id};
use super::run_index::RunIndex;
use super::watchlist::Watchlist;
use crate::finding::{Code, Finding, InstanceBehind, Kind, Severity};
use crate::report::Report;
use crate::text::some_of;
use crate::timestamp::Timestamp;

/// What a run saw of one incident.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) place: Place,
    pub(super) code: Code,
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) instances: Vec<String>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) outage: Option<Outage>,
}

/// Everything that a run found by incident, at the places that somebody wants to hear about. A run
/// that failed has a reason instead of a report.
pub(super) fn everything(outcome: Result<&Report, &str>, watchlist: &Watchlist) -> BTreeMap<String, Found> {
    let all = match outcome {
        Ok(report) => of_report(report),
        Err(reason) => {
            let message = format!("could not check anything: {reason}");
            vec![Found::new(Place::Probe, Code::RunFailed, Severity::Critical, message)]
        }
    };

    let mut by_id = BTreeMap::<String, Found>::new();
    for found in all {
        match by_id.get_mut(&found.id) {
            Some(same) => same.merge(found),
            None if watchlist.is_quiet(&found.place) => {}
            None => drop(by_id.insert(found.id.clone(), found)),
        }
    }
    by_id
}

fn of_report(report: &Report) -> Vec<Found> {
    let mut all = Vec::new();
    for endpoint in &report.endpoints {
        let findings = endpoint.all_findings();
        for (address, finding) in findings.filter(|(_, finding)| finding.severity > Severity::Ok) {
            let place = Place::Endpoint(endpoint.endpoint.clone());
            all.push(Found::of(place, finding, address, endpoint.not_after));
        }
    }
    for certificate in &report.certificates {
        for finding in &certificate.findings {
            let place = Place::Certificate(certificate.name.clone());
            all.push(Found::of(place, finding, None, certificate.not_after()));
        }
    }

    for problem in &report.problems {
        let code = Code::InventoryProblem;
        // Without the line: lines above it may come and go.
        let id = id(&Place::Inventory, code.as_str(), &problem.message);
        let found = Found::new(Place::Inventory, code, Severity::Unknown, problem.to_string());
        all.push(Found { id, ..found });
    }
    if !report.not_reached.is_empty() {
        let message = format!(
            "the run's deadline left no time for {} endpoints: {}",
            report.not_reached.len(),
            some_of(&report.not_reached, NAMED)
        );
        all.push(Found::new(Place::Probe, Code::NotReached, Severity::Unknown, message));
    }
    all
}

impl Found {
    /// Something that is wrong with a place as a whole.
    pub(super) fn new(place: Place, code: Code, severity: Severity, message: String) -> Self {
        Self {
            id: id(&place, code.as_str(), ""),
            place,
            code,
            severity,
            message,
            addresses: Vec::new(),
            instances: Vec::new(),
            not_after: None,
            outage: None,
        }
    }

    /// A finding of a report.
    fn of(place: Place, finding: &Finding, address: Option<SocketAddr>, not_after: Option<Timestamp>) -> Self {
        let code = finding.kind.code();
        Self {
            id: id(&place, code.family().as_str(), &facts(&finding.kind)),
            addresses: address.map_or_else(|| addresses(&finding.kind), |address| vec![address]),
            instances: instance(&finding.kind).cloned().into_iter().collect(),
            not_after,
            ..Self::new(place, code.clone(), finding.severity, finding.message.clone())
        }
    }

    /// The same incident at another address: one incident, as bad as the worst of them.
    fn merge(&mut self, other: Self) {
        let new = other
            .addresses
            .iter()
            .filter(|address| !self.addresses.contains(address));
        let addresses: Vec<_> = self.addresses.iter().chain(new).copied().collect();
        if self.level() < other.level() {
            *self = other;
        }
        self.addresses = addresses;
    }

    fn level(&self) -> (Severity, bool) {
        (self.severity, self.code.has_happened())
    }

    /// The incident as it is after this run. It may still be at earlier addresses too, if this run
    /// did not see them.
    pub(super) fn incident(self, before: Option<&Incident>, seen: Option<&RunIndex<'_>>, now: Timestamp) -> Incident {
        let mut left = match (before, seen) {
            (Some(before), Some(seen)) => seen.addresses_left(before),
            _ => Vec::new(),
        };
        left.retain(|(address, _)| !self.addresses.contains(address));

        let mut addresses = self.addresses;
        addresses.extend(left.iter().map(|(address, _)| *address));
        Incident {
            place: self.place,
            code: self.code,
            severity: self.severity,
            message: self.message,
            addresses,
            gone: gone(&left),
            instances: self.instances,
            not_after: self.not_after,
            outage: self.outage,
            since: before.map_or(now, |before| before.since),
            runs: before.map_or(1, |before| before.runs.saturating_add(1).min(CONFIRMED)),
            notified: before.and_then(|before| before.notified.clone()),
            flapping: before.and_then(|before| before.flapping),
        }
    }
}

/// Those of the addresses that the name no longer has.
pub(super) fn gone(left: &[(SocketAddr, u32)]) -> BTreeMap<SocketAddr, u32> {
    left.iter().filter(|(_, runs)| *runs > 0).copied().collect()
}

/// Those of a finding's facts that tell it from another of the same family; not times, addresses
/// and reasons, which change from run to run.
fn facts(kind: &Kind) -> String {
    let facts = match kind {
        Kind::SelfSigned { subject }
        | Kind::IssuerExpired { subject, .. }
        | Kind::IssuerExpiresSoon { subject, .. }
        | Kind::IssuerNotYetValid { subject, .. }
        | Kind::WeakKey { subject, .. }
        | Kind::WeakSignature { subject, .. } => vec![("subject", subject)],
        Kind::Revoked { subject, serial, .. } => vec![("subject", subject), ("serial", serial)],
        Kind::IncompleteChain { missing } => vec![("missing", missing)],
        // There may be several about one chain, and their reasons are facts of the chain.
        Kind::SomeClientsRefuse { reason, .. } => vec![("reason", reason)],
        Kind::UntrustedRoot { root, .. } => vec![("root", root)],
        Kind::NotPulled {
            behind: Some(InstanceBehind { instance, .. }),
            ..
        }
        | Kind::InstallFailed { instance, .. }
        | Kind::SilentInstance { instance, .. }
        | Kind::ReceiptUnreadable { instance, .. } => vec![("instance", instance)],
        Kind::Expired { .. }
        | Kind::ExpiresSoon { .. }
        | Kind::NotYetValid { .. }
        | Kind::NameMismatch { .. }
        | Kind::InvalidChain { .. }
        | Kind::KeyUsage { .. }
        | Kind::LongLifetime { .. }
        | Kind::LegacyTls { .. }
        | Kind::AddressesDisagree { .. }
        | Kind::DnsFailed { .. }
        | Kind::ConnectFailed { .. }
        | Kind::StarttlsFailed { .. }
        | Kind::HandshakeFailed { .. }
        | Kind::TimedOut { .. }
        | Kind::RenewalFailed { .. }
        | Kind::NotPulled { behind: None, .. }
        | Kind::RenewalOverdue { .. }
        | Kind::NotRenewed { .. }
        | Kind::WrongCertificate { .. }
        | Kind::CertificateUnreadable { .. }
        | Kind::NotJudged { .. }
        | Kind::Unknown { .. } => Vec::new(),
    };
    let facts = facts.into_iter().map(|(name, fact)| format!("{name}={}", json!(fact)));
    facts.collect::<Vec<_>>().join(" ")
}

/// Where a finding is, if it is one of a place as a whole.
fn addresses(kind: &Kind) -> Vec<SocketAddr> {
    match kind {
        Kind::WrongCertificate { address, .. } => vec![*address],
        Kind::AddressesDisagree { certificates } => {
            let addresses = certificates.iter().flat_map(|served| &served.addresses);
            addresses.copied().collect()
        }
        _ => Vec::new(),
    }
}

/// The instance that a finding is about.
fn instance(kind: &Kind) -> Option<&String> {
    match kind {
        Kind::NotPulled {
            behind: Some(InstanceBehind { instance, .. }),
            ..
        }
        | Kind::InstallFailed { instance, .. }
        | Kind::SilentInstance { instance, .. }
        | Kind::ReceiptUnreadable { instance, .. } => Some(instance),
        _ => None,
    }
}

/// How many endpoints a message names.
pub(super) const NAMED: usize = 20;
