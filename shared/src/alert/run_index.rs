//! What a run saw, by place: which endpoints and certificates it has, and what became of an
//! address.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use super::incident::{CONFIRMED, Incident, Place};
use crate::finding::{Code, Finding, Kind};
use crate::report::{AddressStage, CertificateReport, EndpointIndex, EndpointReport, Report};

/// A run's report by place. It is built once per run: both endpoints and incidents may be many.
pub(super) struct RunIndex<'r> {
    pub(super) report: &'r Report,
    endpoints: EndpointIndex<'r>,
    certificates: HashMap<&'r str, &'r CertificateReport>,
    not_reached: HashSet<&'r str>,
}

/// What a run knows of an address where something was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sighting {
    /// It was seen, and is healthy.
    Healthy,
    /// The name does not have it. Some name servers give out a part of their addresses at a time.
    Gone,
    /// It was not seen.
    Unknown,
}

impl<'r> RunIndex<'r> {
    pub(super) fn of(report: &'r Report) -> Self {
        let mut certificates = HashMap::new();
        for certificate in &report.certificates {
            certificates.entry(certificate.name.as_str()).or_insert(certificate);
        }
        Self {
            report,
            endpoints: EndpointIndex::of(&report.endpoints),
            certificates,
            not_reached: report.not_reached.iter().map(String::as_str).collect(),
        }
    }

    /// The reports of an endpoint: one for each name that it was asked for.
    pub(super) fn endpoint(&self, endpoint: &str) -> &[&'r EndpointReport] {
        self.endpoints.all(endpoint)
    }

    pub(super) fn certificate(&self, name: &str) -> Option<&'r CertificateReport> {
        self.certificates.get(name).copied()
    }

    /// Whether the run's deadline left no time for the endpoint.
    pub(super) fn has_not_reached(&self, endpoint: &str) -> bool {
        self.not_reached.contains(endpoint)
    }

    /// How many endpoints there are, however often each was probed.
    pub(super) fn endpoint_count(&self) -> usize {
        self.endpoints.count()
    }

    /// Whether addresses were left out for lack of IPv6.
    pub(super) fn lacks_ipv6(&self) -> bool {
        !self.without_ipv6().is_empty()
    }

    /// The endpoints of which addresses were left out for lack of IPv6.
    pub(super) fn without_ipv6(&self) -> Vec<&'r str> {
        let endpoints = self.report.endpoints.iter();
        endpoints
            .filter(|endpoint| endpoint.skipped.iter().any(|skipped| skipped.no_ipv6))
            .map(|endpoint| endpoint.endpoint.as_str())
            .collect()
    }

    /// Whether nothing at all answered for an endpoint: no name server, or nobody at its addresses.
    /// One that has no such name in DNS was answered for, and so was one that spoke, whatever it
    /// said.
    pub(super) fn is_silent(&self, endpoint: &str) -> bool {
        let probes = self.endpoint(endpoint);
        let mut seen = probes.iter().flat_map(|probe| &probe.observations);
        !seen.any(|seen| seen.leaf.is_some() || seen.tls.is_some())
            && (probes.iter().flat_map(|probe| probe.all_findings()))
                .all(|(_, finding)| !finding.is_network() || is_silence(&finding.kind))
            // An address without any finding is one that answered.
            && probes.iter().all(|probe| {
                let observations = &probe.observations;
                observations.iter().all(|seen| seen.findings.iter().any(Finding::is_network))
            })
    }

    /// The probes of a place; none if not all of it was reached.
    pub(super) fn probes(&self, place: &Place) -> Vec<&'r EndpointReport> {
        let probes: Vec<_> = match place {
            Place::Endpoint(name) => self.endpoint(name).to_vec(),
            Place::Certificate(name) => self.probes_of_certificate(name),
            Place::Inventory | Place::Probe => Vec::new(),
        };
        if probes.iter().any(|probe| self.has_not_reached(&probe.endpoint)) {
            return Vec::new();
        }
        probes
    }

    /// The probes of the endpoints that should serve a certificate. A probe
    /// that asked for another name saw another certificate.
    fn probes_of_certificate(&self, name: &str) -> Vec<&'r EndpointReport> {
        let addresses = self.certificate(name).map_or(&[][..], |found| &found.addresses);
        let endpoints: BTreeSet<_> = addresses.iter().map(|seen| seen.endpoint.as_str()).collect();
        let probes = endpoints.into_iter().flat_map(|endpoint| self.endpoint(endpoint));
        probes.filter(|probe| probe.sni.is_none()).copied().collect()
    }

    /// The addresses at which an incident may still be, each with the number of runs in a row in
    /// which the name did not have it.
    pub(super) fn addresses_left(&self, incident: &Incident) -> Vec<(SocketAddr, u32)> {
        let probes = self.probes(&incident.place);
        let mut left = Vec::new();
        for address in &incident.addresses {
            let gone_for = match self.sighting(incident, *address, &probes) {
                Sighting::Healthy => continue,
                Sighting::Gone => gone_for(incident, *address).saturating_add(1),
                Sighting::Unknown => 0,
            };
            if gone_for < CONFIRMED {
                left.push((*address, gone_for));
            }
        }
        left
    }

    fn sighting(&self, incident: &Incident, address: SocketAddr, probes: &[&EndpointReport]) -> Sighting {
        // A managed certificate's report says itself what an address shows.
        if let Place::Certificate(name) = &incident.place
            && let Some(stages) = self.stages(name, address)
        {
            return if stages.iter().all(|stage| *stage == AddressStage::Served) {
                Sighting::Healthy
            } else {
                Sighting::Unknown
            };
        }

        let observations = probes.iter().flat_map(|probe| &probe.observations);
        let mut observed = observations.filter(|seen| seen.address == address).peekable();
        if observed.peek().is_some() {
            return if observed.any(|seen| seen.findings.iter().any(Finding::is_network)) {
                Sighting::Unknown
            } else {
                Sighting::Healthy
            };
        }

        let mut skipped = probes.iter().flat_map(|probe| &probe.skipped);
        if skipped.any(|skipped| skipped.address == address.ip()) {
            // It was left out because it cannot be reached from here: nothing else was wrong with
            // it.
            return if incident.code.is_network() {
                Sighting::Healthy
            } else {
                Sighting::Unknown
            };
        }

        // A name that has other addresses has lost this one; one that has none was not seen at all,
        // and neither was one of which only the addresses of one family are known.
        let is_unseen = |probe: &&EndpointReport| {
            let mut findings = probe.findings.iter();
            probe.observations.is_empty() || findings.any(|finding| *finding.kind.code() == Code::DnsFailed)
        };
        if probes.is_empty() || probes.iter().any(is_unseen) {
            Sighting::Unknown
        } else {
            Sighting::Gone
        }
    }

    /// What an address shows of a managed certificate; none if its report does not have the
    /// address.
    fn stages(&self, certificate: &str, address: SocketAddr) -> Option<Vec<AddressStage>> {
        let shown = &self.certificate(certificate)?.addresses;
        let stages: Vec<_> = (shown.iter().filter(|seen| seen.address == Some(address)))
            .map(|seen| seen.stage)
            .collect();
        (!stages.is_empty()).then_some(stages)
    }
}

/// Whether a failure is that nobody answered.
fn is_silence(kind: &Kind) -> bool {
    match kind {
        Kind::DnsFailed { is_answer, .. } => !is_answer,
        Kind::ConnectFailed { .. } | Kind::TimedOut { .. } => true,
        _ => false,
    }
}

/// In how many runs in a row before this one the name did not have an address.
pub(super) fn gone_for(incident: &Incident, address: SocketAddr) -> u32 {
    incident.gone.get(&address).copied().unwrap_or(0)
}
