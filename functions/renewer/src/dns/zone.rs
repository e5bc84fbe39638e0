//! Route 53: which hosted zone a name is in, and TXT values put in and taken out without touching anybody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_route53::Client;
use aws_sdk_route53::config::SharedCredentialsProvider;
use aws_sdk_route53::error::ProvideErrorMetadata;
use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, ChangeStatus, ResourceRecord, ResourceRecordSet, RrType,
};
use neverlapse::aws::reason;
use neverlapse::inventory;
use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use crate::error::Fault;

/// The hosted zones that we can write.
pub(crate) struct Zones {
    zones: Vec<HostedZone>,
    /// Names of zones behind roles that could not be used, and why.
    unreachable: Vec<(String, String)>,
}

/// A public hosted zone.
#[derive(Clone, Debug)]
pub(crate) struct HostedZone {
    /// Such as `Z0123456789`.
    pub(crate) id: String,
    /// Lower case, without the last dot.
    pub(crate) name: String,
    private: bool,
    client: Client,
}

/// Values to put in and to take out, by name.
pub(crate) type Edits = BTreeMap<String, Edit>;

/// What is to become of one name's TXT values; all others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) add: BTreeSet<String>,
    pub(crate) remove: BTreeSet<String>,
}

impl Zones {
    /// Lists our own zones, and those behind the roles that the inventory names; a zone that it says is behind a role is that one. A role
    /// that cannot be used fails only what needs its zones.
    pub(crate) async fn list(config: &SdkConfig, written: &[inventory::Zone]) -> Result<Self, Fault> {
        // Route 53 takes five requests a second from an account, and many renewers may be at it.
        let patient = RetryConfig::standard()
            .with_max_attempts(10)
            .with_initial_backoff(Duration::from_millis(500));
        let config = &config.to_builder().retry_config(patient).build();
        let mut zones = zones_of(&Client::new(config), "this account").await?;
        let mut roles = BTreeMap::<_, Vec<_>>::new();
        for zone in written {
            if let Some(role) = &zone.role_arn {
                roles.entry((role, &zone.external_id)).or_default().push(zone);
            }
        }
        let mut unreachable = Vec::new();
        for ((role, external_id), entries) in roles {
            let names: BTreeSet<_> = entries.iter().map(|entry| plain(&entry.name)).collect();
            zones.retain(|zone| !names.contains(&zone.name));
            match zones_of(&assuming(config, role, external_id.as_deref()).await, role).await {
                Ok(found) => {
                    let missing = names
                        .iter()
                        .filter(|name| !found.iter().any(|zone| zone.name == **name));
                    let problem = format!("{role} leads to no hosted zone of that name");
                    unreachable.extend(missing.map(|name| (name.clone(), problem.clone())));
                    zones.extend(found.into_iter().filter(|zone| names.contains(&zone.name)));
                }
                Err(fault) => unreachable.extend(names.into_iter().map(|name| (name, fault.to_string()))),
            }
        }
        for entry in written {
            if let Some(id) = &entry.id {
                zones.retain(|zone| zone.name != plain(&entry.name) || zone.id == *id);
            }
        }
        Ok(Self { zones, unreachable })
    }

    /// The longest public zone that holds `name`.
    pub(crate) fn of(&self, name: &str) -> Result<&HostedZone, Fault> {
        let is_in = |zone: &str| name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
        let holds = |zone: &&HostedZone| is_in(&zone.name);
        let public: Vec<_> = self.zones.iter().filter(|zone| !zone.private).filter(holds).collect();
        let longest = public.iter().map(|zone| zone.name.len()).max();
        let nearer = |zone: &&(String, String)| is_in(&zone.0) && Some(zone.0.len()) > longest;
        if let Some((zone, problem)) = self.unreachable.iter().find(nearer) {
            return Err(Fault::Ours(format!(
                "cannot reach hosted zone {zone} for {name}: {problem}"
            )));
        }
        let best: Vec<_> = public
            .into_iter()
            .filter(|zone| Some(zone.name.len()) == longest)
            .collect();
        match best.as_slice() {
            [zone] => Ok(zone),
            [] => Err(Fault::Ours(self.none(name, self.zones.iter().any(|zone| holds(&zone))))),
            several => {
                let ids: Vec<_> = several.iter().map(|zone| zone.id.as_str()).collect();
                Err(Fault::Ours(format!(
                    "{} public hosted zones are named {:?}: {}. Say which one is delegated: [[zone]] name = {:?}, id = {:?}",
                    several.len(),
                    several[0].name,
                    ids.join(", "),
                    several[0].name,
                    ids[0]
                )))
            }
        }
    }

    /// The zone with this id.
    pub(crate) fn by_id(&self, id: &str) -> Result<&HostedZone, Fault> {
        self.zones
            .iter()
            .find(|zone| zone.id == id)
            .ok_or_else(|| Fault::Ours(format!("hosted zone {id} is not there any more")))
    }

    /// Whether a zone was deleted, with all that was in it.
    pub(crate) fn is_gone(&self, id: &str) -> bool {
        self.unreachable.is_empty() && self.by_id(id).is_err()
    }

    fn none(&self, name: &str, private: bool) -> String {
        let mut seen: Vec<_> = self
            .zones
            .iter()
            .filter(|zone| !zone.private)
            .map(|zone| zone.name.as_str())
            .collect();
        seen.truncate(SHOWN);
        let seen = if seen.is_empty() {
            "none".to_owned()
        } else {
            seen.join(", ")
        };
        let private = if private {
            "; a private zone has that name, but a CA cannot see it"
        } else {
            ""
        };
        format!(
            "no public hosted zone for {name} (there are: {seen}{private}). If it is in another account, add [[zone]] with its role_arn; \
             if it is not in Route 53, point {name} by CNAME into a zone that is"
        )
    }
}

impl HostedZone {
    /// Changes TXT values by compare-and-swap, all names in one batch. Answers with the change's id, or nothing if all is as wanted.
    pub(crate) async fn change(&self, edits: &Edits) -> Result<Option<String>, Fault> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            let mut changes = Vec::new();
            for (name, edit) in edits {
                changes.extend(swap(name, edit, self.txt(name).await?.as_ref())?);
            }
            if changes.is_empty() {
                return Ok(None);
            }
            let batch = ChangeBatch::builder()
                .comment("neverlapse: ACME DNS-01")
                .set_changes(Some(changes))
                .build();
            let batch = batch.map_err(|error| Fault::Ours(format!("cannot make a change for Route 53: {error}")))?;
            let request = self
                .client
                .change_resource_record_sets()
                .hosted_zone_id(&self.id)
                .change_batch(batch);
            match request.send().await {
                Ok(answer) => return Ok(answer.change_info.map(|change| change.id)),
                Err(error) => {
                    let code = error
                        .as_service_error()
                        .and_then(ProvideErrorMetadata::code)
                        .unwrap_or_default();
                    last = reason(&error);
                    // Lost the race for a name (then what was deleted was not there any more), or Route 53 is busy.
                    if ![
                        "InvalidChangeBatch",
                        "PriorRequestNotComplete",
                        "Throttling",
                        "ThrottlingException",
                    ]
                    .contains(&code)
                    {
                        break;
                    }
                }
            }
            let longest = (200 << attempt.min(5)).min(5_000);
            let pause = rand::rng().random_range(50..=longest);
            sleep(Duration::from_millis(pause)).await;
        }
        Err(Fault::Ours(format!(
            "cannot change TXT records in hosted zone {} ({}): {last}",
            self.id, self.name
        )))
    }

    /// Waits until all of the zone's name servers have a change.
    pub(crate) async fn in_sync(&self, change: &str, deadline: Instant) -> Result<(), Fault> {
        let longest = Instant::now() + IN_SYNC;
        loop {
            let answer = self.client.get_change().id(change).send().await;
            let status = answer.map_err(|error| self.failed("ask for a change in", &reason(&error)))?;
            if status
                .change_info
                .is_some_and(|change| change.status == ChangeStatus::Insync)
            {
                return Ok(());
            }
            if Instant::now() + POLL > deadline {
                return Err(Fault::OutOfTime("Route 53 spreads the change"));
            }
            if Instant::now() > longest {
                return Err(self.failed("wait for a change in", "it is not INSYNC after three minutes"));
            }
            sleep(POLL).await;
        }
    }

    async fn txt(&self, name: &str) -> Result<Option<ResourceRecordSet>, Fault> {
        let request = self.client.list_resource_record_sets().hosted_zone_id(&self.id);
        let request = request
            .start_record_name(name)
            .start_record_type(RrType::Txt)
            .max_items(1);
        let page = request
            .send()
            .await
            .map_err(|error| self.failed("read", &reason(&error)))?;
        let same = |set: &ResourceRecordSet| set.r#type == RrType::Txt && plain(&set.name) == name;
        Ok(page.resource_record_sets.into_iter().next().filter(same))
    }

    fn failed(&self, what: &str, reason: &str) -> Fault {
        Fault::Ours(format!(
            "cannot {what} hosted zone {} ({}): {reason}",
            self.id, self.name
        ))
    }
}

/// DELETE of exactly what was read and CREATE of what is wanted, or nothing if that is the same.
fn swap(name: &str, edit: &Edit, old: Option<&ResourceRecordSet>) -> Result<Vec<Change>, Fault> {
    if old.is_some_and(|old| old.set_identifier.is_some() || old.alias_target.is_some()) {
        return Err(Fault::Ours(format!(
            "the TXT records of {name} have a routing policy (expected a simple record)"
        )));
    }
    let before: Vec<_> = old
        .map(ResourceRecordSet::resource_records)
        .unwrap_or_default()
        .iter()
        .map(|record| record.value.clone())
        .collect();
    let quoted = |values: &BTreeSet<String>| values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>();
    let (add, remove) = (quoted(&edit.add), quoted(&edit.remove));
    let mut after: Vec<_> = before.iter().filter(|value| !remove.contains(value)).cloned().collect();
    after.extend(add.into_iter().filter(|value| !before.contains(value)));
    if after == before {
        return Ok(Vec::new());
    }
    let wrong = |error| Fault::Ours(format!("cannot make a change for Route 53: {error}"));
    let change = |action, set: ResourceRecordSet| {
        Change::builder()
            .action(action)
            .resource_record_set(set)
            .build()
            .map_err(wrong)
    };
    let mut changes = Vec::new();
    if let Some(old) = old {
        changes.push(change(ChangeAction::Delete, old.clone())?);
    }
    if !after.is_empty() {
        let records = after
            .into_iter()
            .map(|value| ResourceRecord::builder().value(value).build())
            .collect::<Result<_, _>>();
        let ttl = old.and_then(|old| old.ttl).unwrap_or(TTL);
        let new = ResourceRecordSet::builder()
            .name(format!("{name}."))
            .r#type(RrType::Txt)
            .ttl(ttl);
        let new = new
            .set_resource_records(Some(records.map_err(wrong)?))
            .build()
            .map_err(wrong)?;
        changes.push(change(ChangeAction::Create, new)?);
    }
    Ok(changes)
}

async fn assuming(config: &SdkConfig, role: &str, external_id: Option<&str>) -> Client {
    let mut provider = AssumeRoleProvider::builder(role)
        .session_name("neverlapse")
        .configure(config);
    if let Some(id) = external_id {
        provider = provider.external_id(id);
    }
    let credentials = SharedCredentialsProvider::new(provider.build().await);
    Client::new(&config.to_builder().credentials_provider(credentials).build())
}

async fn zones_of(client: &Client, whose: &str) -> Result<Vec<HostedZone>, Fault> {
    let mut pages = client.list_hosted_zones().into_paginator().send();
    let mut zones = Vec::new();
    while let Some(page) = pages.next().await {
        let page =
            page.map_err(|error| Fault::Ours(format!("cannot list the hosted zones of {whose}: {}", reason(&error))))?;
        zones.extend(page.hosted_zones.into_iter().map(|zone| HostedZone {
            id: zone.id.trim_start_matches("/hostedzone/").to_owned(),
            name: plain(&zone.name),
            private: zone.config.is_some_and(|config| config.private_zone),
            client: client.clone(),
        }));
    }
    Ok(zones)
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

const TTL: i64 = 60;
const TRIES: u32 = 12;
const IN_SYNC: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_secs(1);
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_route53::config::BehaviorVersion;

    fn zones(list: &[(&str, &str, bool)]) -> Zones {
        let client = Client::from_conf(
            aws_sdk_route53::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .build(),
        );
        let zone = |&(id, name, private): &(&str, &str, bool)| HostedZone {
            id: id.into(),
            name: name.into(),
            private,
            client: client.clone(),
        };
        Zones {
            zones: list.iter().map(zone).collect(),
            unreachable: vec![("theirs.example".into(), "AccessDenied".into())],
        }
    }

    #[test]
    fn the_longest_public_zone_whose_name_ends_at_a_dot() {
        let zones = zones(&[
            ("Z1", "example.com", false),
            ("Z2", "sub.example.com", false),
            ("Z3", "deep.sub.example.com", true),
            ("Z4", "twice.example", false),
            ("Z5", "twice.example", false),
            ("Z6", "hidden.example", true),
            ("Z7", "deep.theirs.example", false),
        ]);
        for (name, expected) in [
            ("_acme-challenge.example.com", "Z1"),
            ("_acme-challenge.sub.example.com", "Z2"),
            ("_acme-challenge.deep.sub.example.com", "Z2"),
            ("_acme-challenge.notexample.com", "no public hosted zone"),
            ("_acme-challenge.twice.example", "Z4, Z5. Say which one is delegated"),
            ("_acme-challenge.hidden.example", "a private zone has that name"),
            (
                "_acme-challenge.theirs.example",
                "cannot reach hosted zone theirs.example",
            ),
            ("_acme-challenge.deep.theirs.example", "Z7"),
        ] {
            let found = zones
                .of(name)
                .map_or_else(|fault| fault.to_string(), |zone| zone.id.clone());
            assert!(found.contains(expected), "{name}: {found}");
        }
    }

    fn set(values: &[&str], ttl: i64) -> ResourceRecordSet {
        let records = values
            .iter()
            .map(|value| ResourceRecord::builder().value(format!("{value:?}")).build().unwrap());
        let set = ResourceRecordSet::builder()
            .name("_acme-challenge.example.com.")
            .r#type(RrType::Txt)
            .ttl(ttl);
        set.set_resource_records(Some(records.collect())).build().unwrap()
    }

    fn edit(add: &[&str], remove: &[&str]) -> Edit {
        let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Edit {
            add: own(add),
            remove: own(remove),
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
            let said: Vec<_> = swap("_acme-challenge.example.com", &edit, old.as_ref())
                .unwrap()
                .iter()
                .map(|change| {
                    let set = change.resource_record_set.as_ref().unwrap();
                    let values: Vec<_> = set
                        .resource_records()
                        .iter()
                        .map(|record| record.value.as_str())
                        .collect();
                    format!("{} {} {}", change.action, set.ttl.unwrap(), values.join(" "))
                })
                .collect();
            assert_eq!(said, expected);
        }
    }
}
