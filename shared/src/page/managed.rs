//! Managed certificates: how far each is on its way from the issuer to the clients.

use time::OffsetDateTime;

use super::{cut, day, joined, left, moment, plural};
use crate::finding::Severity;
use crate::report::{CertificateReport, InstanceReport, Report, Stage};

/// A card.
pub(super) struct Managed {
    pub(super) name: String,
    pub(super) status: Severity,
    pub(super) left: String,
    pub(super) identifiers: Option<String>,
    pub(super) stages: Vec<Step>,
    /// What is wrong, and what is being done about it.
    pub(super) lines: Vec<String>,
    pub(super) facts: String,
    pub(super) instances: Vec<Instance>,
    pub(super) instances_words: String,
    pub(super) instances_more: usize,
    /// Whether the instances are shown at once.
    pub(super) open: bool,
    pub(super) history: Vec<Version>,
    pub(super) history_words: String,
}

/// One of the four stages, over all instances.
pub(super) struct Step {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) words: String,
}

pub(super) struct Instance {
    pub(super) name: String,
    pub(super) host: Option<String>,
    pub(super) class: &'static str,
    pub(super) stage: &'static str,
    pub(super) reason: Option<String>,
    pub(super) version: String,
    pub(super) at: String,
}

pub(super) struct Version {
    pub(super) version: String,
    pub(super) validity: String,
    pub(super) issuer: String,
    pub(super) current: bool,
}

/// The cards, and how many are left out.
pub(super) fn all(report: &Report, now: OffsetDateTime) -> (Vec<Managed>, usize) {
    let mut certificates: Vec<_> = report.certificates.iter().collect();
    certificates.sort_by_key(|certificate| {
        let left = certificate.not_after.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        (std::cmp::Reverse(certificate.status), left, certificate.name.as_str())
    });
    let more = certificates.len().saturating_sub(CARDS);
    let cards = certificates.into_iter().take(CARDS);
    (cards.map(|certificate| card(certificate, now)).collect(), more)
}

fn card(certificate: &CertificateReport, now: OffsetDateTime) -> Managed {
    let seconds = certificate.not_after.map(|end| (end - now).whole_seconds());
    let mut instances: Vec<_> = certificate.instances.iter().collect();
    instances.sort_by_key(|instance| (reached(certificate, instance), instance.instance.as_str()));
    let itself = certificate.identifiers == [certificate.name.clone()];
    Managed {
        name: cut(&certificate.name),
        status: certificate.status,
        left: left(seconds).unwrap_or_else(|| "not issued yet".to_owned()),
        identifiers: (!itself).then(|| joined(&certificate.identifiers)),
        stages: stages(certificate),
        lines: lines(certificate),
        facts: facts(certificate),
        instances_words: plural(instances.len() as u64, "instance"),
        instances_more: instances.len().saturating_sub(INSTANCES),
        instances: (instances.into_iter().take(INSTANCES))
            .map(|instance| row(certificate, instance))
            .collect(),
        open: certificate.status != Severity::Ok,
        history: history(certificate),
        history_words: format!("History: {}", plural(certificate.history.len() as u64, "version")),
    }
}

/// How far an instance is with the version that it should serve; with another one, it is at the beginning.
fn reached(certificate: &CertificateReport, instance: &InstanceReport) -> Stage {
    if instance.version == certificate.version || instance.stage == Stage::Failed {
        instance.stage
    } else {
        Stage::Issued
    }
}

fn stages(certificate: &CertificateReport) -> Vec<Step> {
    let all = certificate.instances.len();
    let step = |name, stage| {
        let there = certificate
            .instances
            .iter()
            .filter(|one| reached(certificate, one) >= stage);
        let there = there.count();
        let (class, words) = match (all, there) {
            (0, _) => ("", "no instance yet".to_owned()),
            (all, there) if there == all => ("done", format!("{there} of {all}")),
            (_, 0) => ("stuck", format!("0 of {all}")),
            _ => ("part", format!("{there} of {all}")),
        };
        Step { class, name, words }
    };
    let issued = match (&certificate.version, certificate.not_before) {
        (Some(_), Some(begin)) => ("done", day(begin)),
        (Some(_), None) => ("done", String::new()),
        (None, _) => ("stuck", "not yet".to_owned()),
    };
    let (class, words) = issued;
    let issued = Step {
        class,
        name: "Issued",
        words,
    };
    vec![
        issued,
        step("Pulled", Stage::Pulled),
        step("Installed", Stage::Installed),
        step("Served", Stage::Served),
    ]
}

fn lines(certificate: &CertificateReport) -> Vec<String> {
    let mut lines: Vec<_> = certificate
        .findings
        .iter()
        .map(|finding| cut(&finding.message))
        .collect();
    let is_said = certificate
        .findings
        .iter()
        .any(|finding| finding.kind.code() == "renewal_failed");
    if let Some(problem) = certificate.renewal.problem.as_ref().filter(|_| !is_said) {
        let next = certificate.renewal.next_try;
        let next = next.map_or_else(String::new, |at| format!(" Next try: {}.", moment(at)));
        lines.push(format!("Renewal failed: {}.{next}", cut(problem).trim_end_matches('.')));
    }
    lines
}

fn facts(certificate: &CertificateReport) -> String {
    let issuer = certificate
        .issuer
        .as_deref()
        .map(|issuer| format!("issued by {}", cut(issuer)));
    let end = certificate.not_after.map(|end| format!("valid until {}", moment(end)));
    let planned = certificate.renewal.planned;
    let planned = planned.map(|at| format!("renewal planned for {}", moment(at)));
    let facts: Vec<_> = [issuer, end, planned].into_iter().flatten().collect();
    facts.join(", ")
}

fn row(certificate: &CertificateReport, instance: &InstanceReport) -> Instance {
    let (class, stage) = match reached(certificate, instance) {
        Stage::Failed => ("stuck", "failed"),
        Stage::Issued => ("stuck", "not pulled"),
        Stage::Pulled => ("part", "pulled"),
        Stage::Installed => ("part", "installed"),
        Stage::Served => ("done", "served"),
    };
    Instance {
        name: cut(&instance.instance),
        host: instance.host.as_deref().map(cut),
        class,
        stage,
        reason: instance.reason.as_deref().map(cut),
        version: instance.version.as_deref().map_or_else(|| "none".to_owned(), cut),
        at: instance
            .at
            .map_or_else(String::new, |at| moment(at).replace(" UTC", "")),
    }
}

fn history(certificate: &CertificateReport) -> Vec<Version> {
    let version = |stored: &crate::report::StoredVersion| Version {
        version: cut(&stored.version),
        validity: format!("{} – {}", day(stored.not_before), day(stored.not_after)),
        issuer: cut(&stored.issuer),
        current: stored.current,
    };
    certificate.history.iter().take(VERSIONS).map(version).collect()
}

const CARDS: usize = 300;
/// Of one certificate.
const INSTANCES: usize = 100;
const VERSIONS: usize = 30;
