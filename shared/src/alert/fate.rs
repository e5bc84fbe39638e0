//! What became of an incident that a run did not find again.

use std::collections::BTreeSet;

use super::found::gone;
use super::incident::{Incident, Place};
use super::news::Change;
use super::run_index::RunIndex;
use crate::finding::{Code, Finding, Severity};
use crate::report::{AddressStage, CertificateReport, EndpointReport, InstanceStage};

/// What became of it.
#[derive(Debug)]
pub(super) enum Fate {
    /// Nothing shows that it is over, at least not everywhere.
    Open(Box<Incident>),
    /// It is over, or nobody watches the place any more.
    Resolved(Change),
    /// It ends without a word: it goes on as part of another incident, or nobody wants to hear of
    /// the place any more.
    Silenced,
}

/// What became of an incident of a place, given what the run saw, if it saw anything. `troubled`
/// are the instances that the run found something about, each with its place.
pub(super) fn fate(seen: Option<&RunIndex<'_>>, incident: Incident, troubled: &BTreeSet<(Place, String)>) -> Fate {
    let Some(seen) = seen else {
        return Fate::open(incident);
    };

    match &incident.place {
        Place::Inventory | Place::Probe => Fate::Resolved(Change::Resolved),
        Place::Endpoint(name) if seen.has_not_reached(name) => Fate::open(incident),
        Place::Endpoint(name) if seen.endpoint(name).is_empty() => unwatched(seen, incident),
        Place::Endpoint(_) => at_place(seen, incident),
        Place::Certificate(name) => match seen.certificate(name) {
            None => unwatched(seen, incident),
            // It is not in the inventory any more: that itself is an incident, and the only one it
            // can have.
            Some(found) if found.is_left_out() && incident.code != Code::NotRenewed => unwatched(seen, incident),
            Some(found) if found.is_left_out() => at_place(seen, incident),
            Some(found) if !is_judged(found) && !is_about_judging(&incident.code) => Fate::open(incident),
            Some(found) => of_certificate(seen, found, incident, troubled),
        },
    }
}

/// An entry with a problem in it is missing too, but not because anybody took it out.
fn unwatched(seen: &RunIndex<'_>, incident: Incident) -> Fate {
    if seen.report.problems.is_empty() {
        Fate::Resolved(Change::NoLongerWatched)
    } else {
        Fate::open(incident)
    }
}

fn at_place(seen: &RunIndex<'_>, incident: Incident) -> Fate {
    if !incident.addresses.is_empty() {
        return at_addresses(seen, incident);
    }
    let probes = seen.probes(&incident.place);
    if probes.iter().any(|probe| is_unseen(probe)) && incident.code != Code::NotJudged {
        return Fate::open(incident);
    }
    Fate::Resolved(Change::Resolved)
}

/// Over when each of its addresses was seen healthy, or is no longer an address of the name.
fn at_addresses(seen: &RunIndex<'_>, mut incident: Incident) -> Fate {
    let left = seen.addresses_left(&incident);
    if left.is_empty() {
        return Fate::Resolved(Change::Resolved);
    }
    incident.addresses = left.iter().map(|(address, _)| *address).collect();
    incident.gone = gone(&left);
    Fate::open(incident)
}

fn of_certificate(
    seen: &RunIndex<'_>,
    found: &CertificateReport,
    incident: Incident,
    troubled: &BTreeSet<(Place, String)>,
) -> Fate {
    if !incident.addresses.is_empty() {
        let is_unseen = found.addresses.iter().any(|seen| seen.stage == AddressStage::Unseen);
        return match at_addresses(seen, incident.clone()) {
            Fate::Resolved(_) if is_unseen => Fate::open(incident),
            fate => fate,
        };
    }
    if incident.is_unseen() {
        return if found.is_seen() {
            Fate::Resolved(Change::Resolved)
        } else {
            Fate::open(incident)
        };
    }
    of_instances(found, incident, troubled)
}

/// Over when no instance is behind any more.
fn of_instances(found: &CertificateReport, mut incident: Incident, troubled: &BTreeSet<(Place, String)>) -> Fate {
    let had_instances = !incident.instances.is_empty();
    let place = incident.place.clone();
    incident
        .instances
        .retain(|instance| !troubled.contains(&(place.clone(), instance.clone())));
    if incident.instances.is_empty() && had_instances {
        return Fate::Silenced;
    }

    // A newer version may have given an instance more time; that is no reason to say that it has
    // caught up.
    let behind: BTreeSet<_> = (found.instances.iter())
        .filter(|seen| seen.stage < InstanceStage::Installed)
        .map(|seen| seen.instance.as_str())
        .collect();
    incident.instances.retain(|instance| behind.contains(instance.as_str()));
    if incident.instances.is_empty() {
        Fate::Resolved(Change::Resolved)
    } else {
        Fate::open(incident)
    }
}

/// Whether a certificate was judged. It can be, if only its history could not be read.
fn is_judged(certificate: &CertificateReport) -> bool {
    let is_obstacle =
        |finding: &Finding| is_about_judging(finding.kind.code()) && finding.severity == Severity::Unknown;
    !certificate.findings.iter().any(is_obstacle)
}

fn is_about_judging(code: &Code) -> bool {
    matches!(code, Code::CertificateUnreadable | Code::NotJudged)
}

/// Whether an endpoint, or one of its addresses, was not reached or not judged.
fn is_unseen(probe: &EndpointReport) -> bool {
    let findings = probe
        .all_findings()
        .filter(|(_, finding)| finding.severity > Severity::Ok);
    let mut codes = findings.map(|(_, finding)| finding.kind.code());
    codes.any(|code| code.is_network() || *code == Code::NotJudged)
}

impl Fate {
    fn open(incident: Incident) -> Self {
        Self::Open(Box::new(incident))
    }
}
