//! Route 53's hosted zones: which of them we can write, and which of them a name is in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_route53::Client;
use aws_sdk_route53::config::SharedCredentialsProvider;
use aws_sdk_route53::error::SdkError;
use aws_sdk_route53::operation::list_resource_record_sets::ListResourceRecordSetsError;
use aws_sdk_route53::operation::list_resource_record_sets::builders::ListResourceRecordSetsFluentBuilder;
use aws_sdk_route53::types::{ResourceRecordSet, RrType};

use super::{Error, plain};
use crate::aws::reason;
use crate::inventory;

/// The hosted zones that we can write.
#[derive(Debug)]
pub struct Zones {
    zones: Vec<HostedZone>,
    unreachable: Vec<UnreachableZone>,
}

/// A hosted zone, and a client of the account that it is in.
#[derive(Clone, Debug)]
pub struct HostedZone {
    /// Such as `Z0123456789`.
    pub id: String,
    /// Lower case, without the last dot.
    pub name: String,
    private: bool,
    /// Of the account that it is in.
    pub client: Client,
}

/// What is written at a name of a zone that leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The name that it leads to.
    Cname(String),
    /// The name servers that know what is there and below.
    Delegation(Vec<String>),
    /// No such record.
    Nothing,
}

/// A zone behind a role that could not be used, or that does not lead to it.
#[derive(Debug)]
struct UnreachableZone {
    name: String,
    problem: String,
}

impl HostedZone {
    /// The name servers that Route 53 gave the zone (its delegation set).
    pub async fn name_servers(&self) -> Result<Vec<String>, Error> {
        let found = self.client.get_hosted_zone().id(&self.id).send().await;
        let found = found.map_err(|error| {
            Error(format!(
                "cannot ask for the name servers of hosted zone {} ({}): {}",
                self.id,
                self.name,
                reason(&error)
            ))
        })?;
        let servers = found.delegation_set.map(|set| set.name_servers).unwrap_or_default();
        Ok(servers.iter().map(|server| plain(server)).collect())
    }

    /// What is written at this very name that leads elsewhere: not what a wildcard makes up.
    pub async fn at(&self, name: &str) -> Result<At, Error> {
        // A name's types are listed in the order of the alphabet, and beside an NS record there can
        // only be DS in front of it.
        let request = self.list(name, RrType::Cname).max_items(MOST_AT_A_NAME);
        let page = request.send().await.map_err(|error| self.cannot_read(&error))?;
        let own = page.resource_record_sets.iter().filter(|set| plain(&set.name) == name);

        for set in own {
            let mut values = set.resource_records().iter().map(|record| plain(&record.value));
            match &set.r#type {
                RrType::Cname => return Ok(values.next().map_or(At::Nothing, At::Cname)),
                RrType::Ns if name != self.name => return Ok(At::Delegation(values.collect())),
                _ => {}
            }
        }
        Ok(At::Nothing)
    }

    /// A name's record sets of one type: one, or several if they have a routing policy.
    pub async fn record_sets(&self, name: &str, kind: RrType) -> Result<Vec<ResourceRecordSet>, Error> {
        let request = self.list(name, kind.clone());
        let mut found = Vec::new();
        let mut start = None;
        loop {
            // Usually there is none or one; the list goes on with other names.
            let page = request
                .clone()
                .max_items(if start.is_none() { FIRST_PAGE } else { NEXT_PAGE })
                .set_start_record_identifier(start)
                .send()
                .await
                .map_err(|error| self.cannot_read(&error))?;
            let sets = page.resource_record_sets.into_iter();
            found.extend(sets.filter(|set| set.r#type == kind && plain(&set.name) == name));

            let goes_on = page.is_truncated
                && page.next_record_type.as_ref() == Some(&kind)
                && page.next_record_name.as_deref().map(plain).as_deref() == Some(name);
            match page.next_record_identifier {
                Some(next) if goes_on => start = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// The zone's record sets from this name and type on.
    fn list(&self, name: &str, kind: RrType) -> ListResourceRecordSetsFluentBuilder {
        self.client
            .list_resource_record_sets()
            .hosted_zone_id(&self.id)
            .start_record_name(name)
            .start_record_type(kind)
    }

    fn cannot_read(&self, error: &SdkError<ListResourceRecordSetsError>) -> Error {
        let reason = reason(error);
        Error(format!("cannot read hosted zone {} ({}): {reason}", self.id, self.name))
    }
}

impl Zones {
    /// Lists our own zones, and those behind the roles that the inventory names. A zone that the
    /// inventory puts behind a role is looked for there only. A role that cannot be used fails only
    /// what needs its zones.
    pub async fn list(config: &SdkConfig, written: &[inventory::Zone]) -> Result<Self, Error> {
        // Route 53 takes five requests a second from an account, and many renewers may be at it.
        let retries = RetryConfig::standard()
            .with_max_attempts(10)
            .with_initial_backoff(Duration::from_millis(500));
        let config = &config.to_builder().retry_config(retries).build();
        let mut zones = zones_of(&Client::new(config), "this account").await?;

        // One listing per role, however many zones are behind it.
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
                    unreachable.extend(missing.map(|name| UnreachableZone {
                        name: name.clone(),
                        problem: format!("{role} leads to no hosted zone of that name"),
                    }));
                    zones.extend(found.into_iter().filter(|zone| names.contains(&zone.name)));
                }
                Err(error) => unreachable.extend(names.into_iter().map(|name| UnreachableZone {
                    name,
                    problem: error.to_string(),
                })),
            }
        }

        let mut zones = Self { zones, unreachable };
        for entry in written {
            if let Some(id) = &entry.id {
                zones.choose(&plain(&entry.name), id);
            }
        }
        Ok(zones)
    }

    /// Of several zones with one name, only the one that the inventory names by its id counts. The
    /// id of a zone above it means that this name has no zone of its own in the world's eyes. An id
    /// that leads nowhere fails what needs the zone.
    fn choose(&mut self, name: &str, id: &str) {
        let id = bare_id(id);
        if (self.zones.iter()).any(|zone| zone.id == id && is_in(name, &zone.name)) {
            self.zones.retain(|zone| zone.name != name || zone.id == id);
            return;
        }
        // A role that cannot be used says more.
        if self.unreachable.iter().any(|zone| zone.name == name) {
            return;
        }

        let there: Vec<_> = self
            .zones
            .iter()
            .filter(|zone| zone.name == name)
            .map(|zone| zone.id.as_str())
            .collect();
        let there = if there.is_empty() {
            "none".to_owned()
        } else {
            there.join(", ")
        };
        let problem = format!(
            "the inventory's [[zone]] name = {name:?} has id = {id:?}, but that is no zone of this name (there are: {there})"
        );
        self.zones.retain(|zone| zone.name != name);
        self.unreachable.push(UnreachableZone {
            name: name.to_owned(),
            problem,
        });
    }

    /// The longest public zone that holds `name`.
    pub fn of(&self, name: &str) -> Result<&HostedZone, Error> {
        let public: Vec<_> = self
            .zones
            .iter()
            .filter(|zone| !zone.private && is_in(name, &zone.name))
            .collect();
        let longest = public.iter().map(|zone| zone.name.len()).max();

        // A zone that cannot be reached is not replaced by its parent: the world asks the nearer
        // one.
        let nearer = self
            .unreachable
            .iter()
            .find(|zone| is_in(name, &zone.name) && Some(zone.name.len()) > longest);
        if let Some(UnreachableZone { name: zone, problem }) = nearer {
            return Err(Error(format!("cannot reach hosted zone {zone} for {name}: {problem}")));
        }

        let best: Vec<_> = public
            .into_iter()
            .filter(|zone| Some(zone.name.len()) == longest)
            .collect();
        match best.as_slice() {
            [zone] => Ok(zone),
            [] => Err(Error(self.none(name))),
            several => Err(Error(ambiguous(several))),
        }
    }

    /// The zone with this id.
    pub fn by_id(&self, id: &str) -> Result<&HostedZone, Error> {
        self.zones
            .iter()
            .find(|zone| zone.id == id)
            .ok_or_else(|| Error(format!("hosted zone {id} is not there any more")))
    }

    /// Whether a zone was deleted, with everything in it.
    pub fn is_gone(&self, id: &str) -> bool {
        self.unreachable.is_empty() && self.by_id(id).is_err()
    }

    fn none(&self, name: &str) -> String {
        let public: Vec<_> = self
            .zones
            .iter()
            .filter(|zone| !zone.private)
            .map(|zone| zone.name.as_str())
            .take(SHOWN)
            .collect();
        let public = if public.is_empty() {
            "none".to_owned()
        } else {
            public.join(", ")
        };

        // No public zone holds the name, so any zone that does is private.
        let private = if self.zones.iter().any(|zone| is_in(name, &zone.name)) {
            "; a private zone has that name, but a CA cannot see it"
        } else {
            ""
        };
        format!(
            "no public hosted zone for {name} (there are: {public}{private}). If it is in another account, add [[zone]] with its role_arn; \
             if it is not in Route 53, point {name} by CNAME into a zone that is"
        )
    }
}

fn ambiguous(zones: &[&HostedZone]) -> String {
    let ids: Vec<_> = zones.iter().map(|zone| zone.id.as_str()).collect();
    format!(
        "{} public hosted zones are named {:?}: {}. Say which one is delegated: [[zone]] name = {:?}, id = {:?}",
        zones.len(),
        zones[0].name,
        ids.join(", "),
        zones[0].name,
        ids[0]
    )
}

fn is_in(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

/// An id without the prefix that Route 53 prints before it.
fn bare_id(id: &str) -> &str {
    id.trim().trim_start_matches('/').trim_start_matches("hostedzone/")
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

async fn zones_of(client: &Client, whose: &str) -> Result<Vec<HostedZone>, Error> {
    let mut pages = client.list_hosted_zones().into_paginator().send();
    let mut zones = Vec::new();
    while let Some(page) = pages.next().await {
        let page =
            page.map_err(|error| Error(format!("cannot list the hosted zones of {whose}: {}", reason(&error))))?;
        zones.extend(page.hosted_zones.into_iter().map(|zone| HostedZone {
            id: bare_id(&zone.id).to_owned(),
            name: plain(&zone.name),
            private: zone.config.is_some_and(|config| config.private_zone),
            client: client.clone(),
        }));
    }
    Ok(zones)
}

const SHOWN: usize = 20;
const FIRST_PAGE: i32 = 2;
const MOST_AT_A_NAME: i32 = 3;
const NEXT_PAGE: i32 = 100;

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
        let zones = list.iter().map(|&(id, name, private)| HostedZone {
            id: id.into(),
            name: name.into(),
            private,
            client: client.clone(),
        });
        Zones {
            zones: zones.collect(),
            unreachable: vec![UnreachableZone {
                name: "theirs.example".into(),
                problem: "AccessDenied".into(),
            }],
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
                .map_or_else(|error| error.to_string(), |zone| zone.id.clone());
            assert!(found.contains(expected), "{name}: {found}");
        }
    }

    /// `aws route53 list-hosted-zones` prints `/hostedzone/Z4`; that and a typing error made the
    /// zone vanish.
    #[test]
    fn an_id_with_its_prefix_is_the_same_and_one_that_leads_nowhere_is_an_error() {
        for (name, id, expected) in [
            ("twice.example", "Z4", "Z4"),
            ("twice.example", "/hostedzone/Z5", "Z5"),
            ("twice.example", "hostedzone/Z5", "Z5"),
            (
                "twice.example",
                "Z6",
                "id = \"Z6\", but that is no zone of this name (there are: Z4, Z5)",
            ),
        ] {
            let mut zones = zones(&[("Z4", "twice.example", false), ("Z5", "twice.example", false)]);
            zones.choose(name, id);
            let found = zones
                .of("_acme-challenge.twice.example")
                .map_or_else(|error| error.to_string(), |zone| zone.id.clone());
            assert!(found.contains(expected), "{name} {id}: {found}");
        }

        // A zone that is not delegated is left out in favour of the one above it.
        let mut zones = zones(&[("Z1", "par.example", false), ("Z2", "sub.par.example", false)]);
        zones.choose("sub.par.example", "Z1");
        let found = zones.of("_acme-challenge.sub.par.example").unwrap();
        assert_eq!(found.id, "Z1");
    }
}
