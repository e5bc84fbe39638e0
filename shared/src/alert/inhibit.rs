//! Many incidents with one cause become one: what people hear of inhibits what they do not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::found::{Found, NAMED};
use super::incident::{Outage, Place, id};
use super::memory::State;
use super::run_index::RunIndex;
use crate::finding::{Code, Severity};
use crate::text::{instance_name, some_of};

/// Adds one incident if so many endpoints fail together that the probe's own network is the likely
/// cause, and returns the ids of those that are part of it: they are not reported one by one.
///
/// That is more than half of them, and at least three, of which nothing at all answered. Endpoints
/// that were already reported on their own do not count on either side: they fail for reasons of
/// their own. Neither does one that fails later than the others did.
pub(super) fn collapse_outage(
    seen: &RunIndex<'_>,
    before: &State,
    found: &mut BTreeMap<String, Found>,
) -> BTreeSet<String> {
    let began = before.incidents.get(&outage_id()).map(|outage| outage.since);
    let mut reported = BTreeSet::new();
    let mut members = BTreeSet::new();
    for found in found.values().filter(|found| found.code.is_network()) {
        let Place::Endpoint(name) = &found.place else { continue };
        let earlier = before.incidents.get(&found.id);
        let is_later = began.is_some_and(|began| earlier.is_none_or(|earlier| earlier.since > began));

        if earlier.is_some_and(|earlier| earlier.notified.is_some()) {
            reported.insert(name);
        } else if !is_later && seen.is_silent(name) {
            members.insert(found.id.clone());
        }
    }

    let others = seen.endpoint_count() - reported.len();
    if members.len() < OUTAGE || members.len() * 2 <= others {
        return BTreeSet::new();
    }
    let outage = Outage {
        unreachable: members.len(),
        endpoints: seen.endpoint_count(),
    };
    let message = format!("{outage}: {}", reasons(members.iter().filter_map(|id| found.get(id))));
    let outage = Found {
        outage: Some(outage),
        ..Found::new(Place::Probe, Code::ManyUnreachable, Severity::Critical, message)
    };
    found.insert(outage.id.clone(), outage);
    members
}

fn outage_id() -> String {
    id(&Place::Probe, Code::ManyUnreachable.as_str(), "")
}

/// Why endpoints fail: each reason, with the places that it keeps from being reached.
fn reasons<'f>(all: impl Iterator<Item = &'f Found>) -> String {
    let mut places = BTreeMap::<&str, Vec<String>>::new();
    for found in all {
        places.entry(&found.message).or_default().push(found.place.to_string());
    }
    let mut reasons: Vec<_> = places.into_iter().collect();
    reasons.sort_by_key(|(_, places)| Reverse(places.len()));

    let reasons: Vec<_> = (reasons.iter())
        .map(|(reason, places)| format!("{} ({reason})", some_of(places, NAMED)))
        .collect();
    let (named, more) = reasons.split_at(reasons.len().min(NAMED));
    let more = match more.len() {
        0 => String::new(),
        count => format!("; and {count} more reasons"),
    };
    format!("{}{more}", named.join("; "))
}

/// Makes one incident of the instances of a certificate that are in the same trouble, once they are
/// more than a few. It stays one until none is left: an Auto Scaling group that loses fifty
/// instances must not be fifty alerts.
pub(super) fn collapse_instances(before: &State, found: &mut BTreeMap<String, Found>) {
    let mut alike = BTreeMap::<(Place, Code), Vec<String>>::new();
    for found in found.values().filter(|found| !found.instances.is_empty()) {
        let same = (found.place.clone(), found.code.clone());
        alike.entry(same).or_default().push(found.id.clone());
    }

    for ((place, code), ids) in alike {
        let id = id(&place, INSTANCES, code.as_str());
        if ids.len() <= FEW && !before.incidents.contains_key(&id) {
            continue;
        }
        let all: Vec<_> = ids.iter().filter_map(|id| found.remove(id)).collect();
        if let Some(one) = collapsed(id.clone(), all) {
            found.insert(id, one);
        }
    }
}

/// All of them as one: the worst, with the names of the others.
fn collapsed(id: String, mut all: Vec<Found>) -> Option<Found> {
    all.sort_by_key(|found| Reverse(found.severity));
    let instances: Vec<_> = all.iter().flat_map(|found| found.instances.clone()).collect();
    let worst = all.into_iter().next()?;

    let message = match &instances[1..] {
        [] => worst.message,
        more => format!(
            "{}; and likewise {} more: {}",
            worst.message,
            more.len(),
            some_of(more.iter().map(|instance| instance_name(instance)), NAMED)
        ),
    };
    Some(Found {
        id,
        message,
        instances,
        ..worst
    })
}

/// Fewer endpoints than this fail each for its own reason.
const OUTAGE: usize = 3;
/// This many instances in the same trouble are an incident each.
const FEW: usize = 3;
const INSTANCES: &str = "instances";
