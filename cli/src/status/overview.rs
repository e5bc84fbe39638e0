//! Everything that is known of the managed certificates at one time.

use neverlapse::finding::Severity;
use neverlapse::inventory::Problem;
use neverlapse::renewal::Decision;
use neverlapse::report::{AddressStage, CertificateReport, EndpointReport, Report};
use neverlapse::timestamp::Timestamp;
use time::Duration;

use super::served::{SeenBy, Served};

/// The state of the certificates as of `now`.
pub(super) struct Overview {
    pub(super) certificates: Vec<CertificateReport>,
    /// By name: what the renewer would decide. None for a certificate that cannot be read.
    pub(super) decisions: Vec<(String, Decision)>,
    /// What could not be understood or listed.
    pub(super) problems: Vec<Problem>,
    /// Whether it is about everything that is watched, or about certificates by name.
    pub(super) is_everything: bool,
    pub(super) served: Served,
    /// The probe's results are old after this time.
    pub(super) probe_period: Duration,
    pub(super) began: Timestamp,
    pub(super) now: Timestamp,
}

impl Overview {
    /// The worst of all. What nobody saw, or saw too long ago, is unknown.
    pub(super) fn status(&self) -> Severity {
        let is_unseen = self.is_everything && self.served.by == SeenBy::Nobody;
        let unknown = !self.problems.is_empty() || self.is_old() || is_unseen;
        let rest = if unknown { Severity::Unknown } else { Severity::Ok };
        let certificates = self
            .certificates
            .iter()
            .map(|certificate| status(certificate, self.now));
        let endpoints = self.watched().map(|endpoint| endpoint.status);
        certificates.chain(endpoints).fold(rest, Severity::max)
    }

    /// The endpoints that the overview lists. Endpoints that should serve a certificate are also
    /// part of that certificate.
    pub(super) fn watched(&self) -> impl Iterator<Item = &EndpointReport> {
        self.served.endpoints.iter().filter(|_| self.is_everything)
    }

    /// As a document, which `neverlapse report -` makes a page of.
    pub(super) fn report(&self) -> Report {
        let endpoints = self.served.endpoints.iter().map(|seen| EndpointReport {
            // The probe counted from its own run.
            seconds_left: seen.not_after.map(|not_after| (not_after - self.now).whole_seconds()),
            ..seen.clone()
        });
        let mut report = Report::new(self.began, self.now, endpoints.collect());
        report.certificates = self.certificates.clone();
        report.problems = self.problems.clone();
        if let SeenBy::Probe(at) = self.served.by {
            report.looked_at = Some(at);
        }
        report
    }

    /// Whether the probe should have finished another run since.
    pub(super) fn is_old(&self) -> bool {
        matches!(self.served.by, SeenBy::Probe(at) if self.now - at > self.probe_period)
    }

    pub(super) fn is_served_somewhere(&self) -> bool {
        self.certificates
            .iter()
            .any(|certificate| !certificate.addresses.is_empty())
    }
}

/// The status of one certificate: its worst finding, a warning where there is none to serve,
/// unknown where an address was not seen, and critical once it has expired.
pub(super) fn status(certificate: &CertificateReport, now: Timestamp) -> Severity {
    let is_expired = certificate.not_after().is_some_and(|not_after| not_after <= now);
    let is_unseen = certificate
        .addresses
        .iter()
        .any(|address| address.stage == AddressStage::Unseen);

    let rest = if is_expired {
        Severity::Critical
    } else if is_unseen {
        Severity::Unknown
    } else if certificate.current.is_none() {
        Severity::Warning
    } else {
        Severity::Ok
    };
    certificate.status.max(rest)
}
