//! Many incidents with one cause become one: what people hear of inhibits what they do not.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::found::{Found, NAMED};
use super::incident::{Outage, Place, id};
use super::memory::State;
use super::seen::Seen;
use crate::finding::{Code, Severity};
use crate::text::{instance_name, some_of};

/// Adds one incident if so many endpoints fail together that the probe's own network is the likely
/// cause, and answers whether they do: then they are not reported one by one.
///
/// That is more than a tenth of all endpoints, and at least three. Those that were already reported
/// on their own do not count: they fail for reasons of their own.
pub(super) fn collapse_outage(seen: &Seen<'_>, before: &State, found: &mut BTreeMap<String, Found>) -> bool {
    let unreachable: Vec<_> = (found.values())
        .filter(|found| found.code.is_network() && !is_reported(before, &found.id))
        .map(|found| found.place.to_string())
        .collect();
    let outage = Outage {
        unreachable: unreachable.len(),
        endpoints: seen.endpoint_count(),
    };
    if outage.unreachable < OUTAGE || outage.unreachable * OUTAGE_SHARE <= outage.endpoints {
        return false;
    }

    let message = format!("{outage}: {}", some_of(&unreachable, NAMED));
    let outage = Found {
        outage: Some(outage),
        ..Found::new(Place::Probe, Code::ManyUnreachable, Severity::Critical, message)
    };
    found.insert(outage.id.clone(), outage);
    true
}

fn is_reported(before: &State, id: &str) -> bool {
    let incident = before.incidents.get(id);
    incident.is_some_and(|incident| incident.notified.is_some())
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
/// And so do fewer than one of this many.
const OUTAGE_SHARE: usize = 10;
/// This many instances in the same trouble are an incident each.
const FEW: usize = 3;
const INSTANCES: &str = "instances";
