//! Changes to TXT records: our values come and go by compare-and-swap, and all other values stay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_route53::error::{BuildError, ProvideErrorMetadata};
use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, ChangeStatus, ResourceRecord, ResourceRecordSet, RrType,
};
use futures::future::try_join_all;
use lambda_runtime::tracing::warn;
use neverlapse::aws::reason;
use neverlapse::dns::zone::{HostedZone, Zones};
use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use super::record::ZoneRecord;
use crate::error::Error;

/// Values to add and to remove, by the zone's id, then by name.
#[derive(Debug, Default)]
pub(crate) struct Edits(BTreeMap<String, BTreeMap<String, Edit>>);

/// What is to become of one name's TXT values; all others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edit {
    add: BTreeSet<String>,
    remove: BTreeSet<String>,
}

impl Edits {
    pub(crate) fn add<'r>(mut self, records: impl IntoIterator<Item = &'r ZoneRecord>) -> Self {
        for record in records {
            self.edit(record).add.insert(record.record.value.clone());
        }
        self
    }

    pub(crate) fn remove<'r>(mut self, records: impl IntoIterator<Item = &'r ZoneRecord>) -> Self {
        for record in records {
            self.edit(record).remove.insert(record.record.value.clone());
        }
        self
    }

    /// How many zones they are in.
    pub(crate) fn zones(&self) -> usize {
        self.0.len()
    }

    /// Makes the changes, one batch per zone.
    pub(crate) async fn apply(&self, zones: &Zones) -> Result<(), Error> {
        let changes = self
            .0
            .iter()
            .map(|(zone, edits)| async { change(zones.by_id(zone)?, edits).await });
        try_join_all(changes).await.map(drop)
    }

    /// The same, and waits until all of Route 53's name servers have the changes.
    pub(crate) async fn apply_in_sync(&self, zones: &Zones, deadline: Instant) -> Result<(), Error> {
        let changes = self.0.iter().map(|(zone, edits)| async {
            let zone = zones.by_id(zone)?;
            if let Some(change) = change(zone, edits).await? {
                in_sync(zone, &change, deadline).await;
            }
            Ok(())
        });
        try_join_all(changes).await.map(drop)
    }

    fn edit(&mut self, at: &ZoneRecord) -> &mut Edit {
        let zone = self.0.entry(at.zone.clone()).or_default();
        zone.entry(at.record.name.clone()).or_default()
    }
}

/// What came of removing TXT records of ours.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// Those that are still there.
    pub(crate) left: Vec<ZoneRecord>,
    /// Why, for each zone of theirs.
    pub(crate) problems: Vec<String>,
}

/// Removes TXT records of ours, as far as each zone lets us. A record that is no longer there is no
/// problem, and neither is its zone.
pub(crate) async fn remove(zones: &Zones, records: &[ZoneRecord]) -> Removal {
    let mut by_zone = BTreeMap::<_, Vec<_>>::new();
    for record in records.iter().filter(|record| !zones.is_gone(&record.zone)) {
        by_zone.entry(&record.zone).or_default().push(record);
    }

    let mut removal = Removal::default();
    for records in by_zone.into_values() {
        if let Err(error) = Edits::default().remove(records.iter().copied()).apply(zones).await {
            removal.left.extend(records.into_iter().cloned());
            removal.problems.push(error.to_string());
        }
    }
    removal
}

/// Changes TXT values by compare-and-swap, all names in one batch. Answers with the change's id, or
/// with none if there was nothing to change.
async fn change(zone: &HostedZone, edits: &BTreeMap<String, Edit>) -> Result<Option<String>, Error> {
    let mut last = String::new();
    for attempt in 0..TRIES {
        let mut changes = Vec::new();
        for (name, edit) in edits {
            let old = zone.record_sets(name, RrType::Txt).await?;
            changes.extend(swap(name, edit, &old)?);
        }
        if changes.is_empty() {
            return Ok(None);
        }

        let batch = ChangeBatch::builder()
            .comment("neverlapse: ACME DNS-01")
            .set_changes(Some(changes))
            .build()
            .map_err(not_built)?;
        let request = zone
            .client
            .change_resource_record_sets()
            .hosted_zone_id(&zone.id)
            .change_batch(batch);
        let error = match request.send().await {
            Ok(answer) => return Ok(answer.change_info.map(|change| change.id)),
            Err(error) => error,
        };

        last = reason(&error);
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        if !is_transient(code.unwrap_or_default()) {
            break;
        }
        let longest = (200 << attempt.min(5)).min(5_000);
        let pause = rand::rng().random_range(50..=longest);
        sleep(Duration::from_millis(pause)).await;
    }

    Err(Error::Internal(format!(
        "cannot change TXT records in hosted zone {} ({}): {last}",
        zone.id, zone.name
    )))
}

/// Whether a change that Route 53 refused can be tried again: another writer won the race for a
/// name (the values to delete are no longer there), or Route 53 is busy.
fn is_transient(code: &str) -> bool {
    matches!(
        code,
        "InvalidChangeBatch" | "PriorRequestNotComplete" | "Throttling" | "ThrottlingException"
    )
}

/// Waits until Route 53 says that all of the zone's name servers have a change. What they have is
/// looked up afterwards in any case, so an answer that does not come stops nothing.
async fn in_sync(zone: &HostedZone, change: &str, deadline: Instant) {
    let now = Instant::now();
    let longest = now + (deadline.saturating_duration_since(now) / 2).min(IN_SYNC);
    let mut last = String::new();
    while Instant::now() < longest {
        match zone.client.get_change().id(change).send().await {
            Ok(answer) => match answer.change_info.map(|change| change.status) {
                Some(ChangeStatus::Insync) => return,
                other => last = format!("{other:?}"),
            },
            Err(error) => {
                last = reason(&error);
                let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
                if !is_transient(code.unwrap_or_default()) {
                    break;
                }
            }
        }
        sleep(POLL).await;
    }

    warn!(
        zone = zone.name,
        id = zone.id,
        change,
        last,
        "Route 53 does not say that the change is in sync; looking at the name servers"
    );
}

/// What makes a name's record sets have our values: DELETE of exactly what was read and CREATE of
/// what is wanted, or nothing if that is the same.
fn swap(name: &str, edit: &Edit, old: &[ResourceRecordSet]) -> Result<Vec<Change>, Error> {
    match old {
        [] => swap_simple(name, edit, None),
        [one] if one.set_identifier.is_none() && one.alias_target.is_none() => swap_simple(name, edit, Some(one)),
        several if several.iter().all(|set| set.multi_value_answer == Some(true)) => {
            swap_multivalue(name, edit, several)
        }
        _ => Err(Error::Internal(format!(
            "the TXT records of {name} have a routing policy or are an alias (expected a simple record, or multivalue answers): somebody else proves \
             control of this name that way. Delete them if nobody does any more; else point {name} by CNAME at another name, which both \
             can write"
        ))),
    }
}

fn has(set: &ResourceRecordSet, value: &str) -> bool {
    set.resource_records().iter().any(|record| record.value == value)
}

/// All values are in one record set.
fn swap_simple(name: &str, edit: &Edit, old: Option<&ResourceRecordSet>) -> Result<Vec<Change>, Error> {
    let before: Vec<_> = old
        .map(ResourceRecordSet::resource_records)
        .unwrap_or_default()
        .iter()
        .map(|record| record.value.clone())
        .collect();
    let add = quoted(&edit.add);
    let remove = quoted(&edit.remove);
    let mut after: Vec<_> = before.iter().filter(|value| !remove.contains(value)).cloned().collect();
    after.extend(add.into_iter().filter(|value| !before.contains(value)));
    if after == before {
        return Ok(Vec::new());
    }

    let mut changes = Vec::new();
    if let Some(old) = old {
        changes.push(one_change(ChangeAction::Delete, old.clone())?);
    }
    if !after.is_empty() {
        // Someone else's set keeps its TTL.
        let ttl = old.and_then(|old| old.ttl).unwrap_or(TTL);
        changes.push(one_change(ChangeAction::Create, record_set(name, after, ttl)?)?);
    }
    Ok(changes)
}

/// Each value is a record set of its own, as other ACME clients write them; a simple one cannot be
/// beside them.
fn swap_multivalue(name: &str, edit: &Edit, old: &[ResourceRecordSet]) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for value in quoted(&edit.remove) {
        let ours = old
            .iter()
            .filter(|set| has(set, &value) && set.resource_records().len() == 1);
        for set in ours {
            changes.push(one_change(ChangeAction::Delete, set.clone())?);
        }
    }

    for value in &edit.add {
        let record = quoted_one(value);
        if old.iter().any(|set| has(set, &record)) {
            continue;
        }

        let mut set = record_set(name, vec![record], TTL)?;
        set.set_identifier = Some(value.clone());
        set.multi_value_answer = Some(true);
        changes.push(one_change(ChangeAction::Create, set)?);
    }
    Ok(changes)
}

fn quoted(values: &BTreeSet<String>) -> Vec<String> {
    values.iter().map(|value| quoted_one(value)).collect()
}

/// A value as Route 53 writes it. Ours are base64url (RFC 8555, 8.4), so nothing in them needs
/// escaping.
fn quoted_one(value: &str) -> String {
    format!("{value:?}")
}

fn record_set(name: &str, values: Vec<String>, ttl: i64) -> Result<ResourceRecordSet, Error> {
    let mut set = ResourceRecordSet::builder()
        .name(format!("{name}."))
        .r#type(RrType::Txt)
        .ttl(ttl);
    for value in values {
        set = set.resource_records(ResourceRecord::builder().value(value).build().map_err(not_built)?);
    }
    set.build().map_err(not_built)
}

fn one_change(action: ChangeAction, set: ResourceRecordSet) -> Result<Change, Error> {
    let change = Change::builder().action(action).resource_record_set(set);
    change.build().map_err(not_built)
}

fn not_built(error: BuildError) -> Error {
    Error::Internal(format!("cannot make a change for Route 53: {error}"))
}

const TTL: i64 = 60;
const TRIES: u32 = 12;
/// Route 53's own advice is to ask for five minutes.
const IN_SYNC: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str], ttl: i64) -> ResourceRecordSet {
        let values = values.iter().map(|value| format!("{value:?}")).collect();
        record_set("_acme-challenge.example.com", values, ttl).unwrap()
    }

    fn edit(add: &[&str], remove: &[&str]) -> Edit {
        Edit {
            add: add.iter().map(|&value| value.to_owned()).collect(),
            remove: remove.iter().map(|&value| value.to_owned()).collect(),
        }
    }

    #[test]
    fn only_our_values_come_and_go_and_the_rest_keeps_its_ttl() {
        for (old, edit, expected) in [
            (None, edit(&["a", "b"], &[]), vec!["CREATE 60 \"a\" \"b\""]),
            (
                Some(set(&["theirs"], 300)),
                edit(&["a"], &[]),
                vec!["DELETE 300 \"theirs\"", "CREATE 300 \"theirs\" \"a\""],
            ),
            (
                Some(set(&["theirs", "a"], 300)),
                edit(&[], &["a"]),
                vec!["DELETE 300 \"theirs\" \"a\"", "CREATE 300 \"theirs\""],
            ),
            (Some(set(&["a"], 60)), edit(&[], &["a"]), vec!["DELETE 60 \"a\""]),
            (Some(set(&["a"], 60)), edit(&["a"], &[]), vec![]),
            (None, edit(&[], &["a"]), vec![]),
        ] {
            let old: Vec<_> = old.into_iter().collect();
            assert_eq!(written(&edit, &old), expected);
        }
    }

    fn written(edit: &Edit, old: &[ResourceRecordSet]) -> Vec<String> {
        let changes = swap("_acme-challenge.example.com", edit, old).unwrap();
        changes
            .iter()
            .map(|change| {
                let set = change.resource_record_set.as_ref().unwrap();
                let values: Vec<_> = set
                    .resource_records()
                    .iter()
                    .map(|record| record.value.as_str())
                    .collect();
                let identifier = set.set_identifier.iter().map(|id| format!(" as {id}"));
                let identifier: String = identifier.collect();
                format!(
                    "{} {} {}{identifier}",
                    change.action,
                    set.ttl.unwrap(),
                    values.join(" ")
                )
            })
            .collect()
    }

    /// Another client had written multivalue answers, and ours failed for ever.
    #[test]
    fn beside_multivalue_answers_each_value_is_one_more() {
        let multivalue = |value: &str, id: &str, ttl| {
            let mut set = set(&[value], ttl);
            set.set_identifier = Some(id.to_owned());
            set.multi_value_answer = Some(true);
            set
        };
        let theirs = multivalue("theirs", "lego", 300);
        let ours = multivalue("a", "a", 60);
        for (old, edit, expected) in [
            (
                vec![theirs.clone()],
                edit(&["a", "b"], &[]),
                vec!["CREATE 60 \"a\" as a", "CREATE 60 \"b\" as b"],
            ),
            (vec![theirs.clone(), ours.clone()], edit(&["a"], &[]), vec![]),
            (
                vec![theirs.clone(), ours],
                edit(&[], &["a"]),
                vec!["DELETE 60 \"a\" as a"],
            ),
            (vec![theirs], edit(&[], &["a"]), vec![]),
        ] {
            assert_eq!(written(&edit, &old), expected);
        }

        let mut weighted = set(&["theirs"], 300);
        weighted.set_identifier = Some("one".to_owned());
        weighted.weight = Some(1);
        let error = swap("_acme-challenge.example.com", &edit(&["a"], &[]), &[weighted]).unwrap_err();
        assert!(error.to_string().contains("have a routing policy"), "{error}");
    }
}
