//! What a run covers: the targets that an event means, by the inventory.

use std::collections::BTreeSet;

use neverlapse::bucket::store::Store;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Endpoint;
use neverlapse::inventory::{Inventory, Problem, Source};
use neverlapse::probe::Target;
use neverlapse::text::some_of;

use crate::error::Error;
use crate::settings::Settings;

/// What a run covers.
pub(crate) struct Scope {
    pub(crate) targets: Vec<Target>,
    /// What could not be understood or used.
    pub(crate) problems: Vec<Problem>,
    /// Of the whole, or of the requested endpoints alone.
    pub(crate) inventory: Inventory,
}

impl Scope {
    /// Everything in the inventory.
    ///
    /// Problems in it are part of the scope. It is an error if the inventory cannot be read, or if
    /// there is nothing to probe and nothing managed.
    pub(crate) async fn read(store: &Store, settings: &Settings) -> Result<Self, Error> {
        let inventory = inventory(store, settings).await?;
        let ignored = ignored(&inventory, settings);
        let mut scope = Self::with_roots(inventory, store, settings).await?;
        scope.problems.extend(ignored);
        Ok(scope)
    }

    /// These endpoints alone, with the settings that the inventory has for them.
    pub(crate) async fn of(
        endpoints: Vec<Result<Endpoint, String>>,
        store: &Store,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let inventory = inventory(store, settings).await?;
        Self::with_roots(only(endpoints, &inventory), store, settings).await
    }

    /// Reads every root certificate that the inventory names.
    async fn with_roots(inventory: Inventory, store: &Store, settings: &Settings) -> Result<Self, Error> {
        let roots = roots(store, settings).await?;
        let (targets, unusable) = Target::all(&inventory, &roots, async |key: &str| store.pem(key).await).await;
        let problems: Vec<_> = inventory.problems.iter().cloned().chain(unusable).collect();

        if targets.is_empty() && inventory.certificates.is_empty() {
            let mut shown: Vec<_> = problems
                .iter()
                .take(PROBLEMS_SHOWN)
                .map(|problem| format!("; {problem}"))
                .collect();
            if let Some(more @ 1..) = problems.len().checked_sub(PROBLEMS_SHOWN) {
                shown.push(format!("; and {more} more"));
            }
            let problems = shown.concat();
            return Err(Error::InventoryEmpty(format!(
                "there is nothing to watch. Write an inventory.toml to s3://{} or set the stack's parameter Domains{problems}",
                settings.bucket
            )));
        }
        Ok(Self {
            targets,
            problems,
            inventory,
        })
    }
}

/// The bucket's `inventory.toml`, else the template's `Domains`.
pub(crate) async fn inventory(store: &Store, settings: &Settings) -> Result<Inventory, Error> {
    match store.inventory().await {
        Ok(Some(text)) => Ok(Inventory::parse_with(&text, settings.thresholds)),
        Ok(None) => Ok(Inventory::of_endpoints(&settings.domains, settings.thresholds)),
        Err(error) => Err(Error::InventoryUnreadable(error.to_string())),
    }
}

/// The endpoints of `Domains` that are not watched, because an inventory.toml takes its place.
fn ignored(inventory: &Inventory, settings: &Settings) -> Option<Problem> {
    if inventory.source == Source::Domains {
        return None;
    }

    let domains = Inventory::of_endpoints(&settings.domains, settings.thresholds);
    let watched: BTreeSet<_> = inventory.watched.iter().map(|watched| &watched.endpoint).collect();
    let ignored: Vec<_> = (domains.watched.iter())
        .map(|watched| &watched.endpoint)
        .filter(|endpoint| !watched.contains(endpoint))
        .collect();
    if ignored.is_empty() {
        return None;
    }
    Some(Problem::new(format!(
        "the stack's parameter Domains is not used, because there is an inventory.toml. Not watched: {} (expected in \
         inventory.toml, or Domains empty)",
        some_of(ignored, IGNORED_SHOWN)
    )))
}

/// The requested endpoints, with the settings that the inventory has for them.
fn only(endpoints: Vec<Result<Endpoint, String>>, inventory: &Inventory) -> Inventory {
    let mut requested = Inventory {
        thresholds: inventory.thresholds,
        ..Inventory::default()
    };
    for endpoint in endpoints {
        match endpoint {
            Ok(endpoint) => requested.watch_as_in(inventory, endpoint),
            Err(problem) => requested.problems.push(Problem::new(problem)),
        }
    }
    requested
}

/// The public roots, and those of the trust bundle.
async fn roots(store: &Store, settings: &Settings) -> Result<Roots, Error> {
    let public = Roots::public();
    let Some(key) = &settings.trust_bundle else {
        return Ok(public);
    };
    store
        .pem(key)
        .await
        .and_then(|pem| public.with_pem(&pem).map_err(|error| error.to_string()))
        .map_err(|problem| Error::InventoryUnreadable(format!("trust bundle {key:?}: {problem}")))
}

const IGNORED_SHOWN: usize = 10;
const PROBLEMS_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use neverlapse::finding::Thresholds;

    use super::*;

    /// The endpoints of `Domains` were dropped without a word as soon as there was an inventory.
    #[test]
    fn what_only_domains_names_is_reported_beside_an_inventory() {
        let mut settings = Settings::from_environment(|name| match name {
            "BUCKET" | "ALERT_TOPIC_ARN" => Some("x".to_owned()),
            _ => None,
        })
        .unwrap();
        let inventory = Inventory::parse("endpoints = [\"a.example\"]\n");

        for (domains, expected) in [
            ("", None),
            ("a.example:443", None),
            (
                "a.example, b.example,c.example:8443",
                Some("b.example:443, c.example:8443"),
            ),
        ] {
            settings.domains = domains.to_owned();
            let problem = ignored(&inventory, &settings).map(|problem| problem.message);
            assert_eq!(problem.is_some(), expected.is_some(), "{domains}");
            if let (Some(problem), Some(expected)) = (problem, expected) {
                assert!(problem.contains(&format!("Not watched: {expected} (")), "{problem}");
            }
            let alone = Inventory::of_endpoints(domains, Thresholds::default());
            assert_eq!(ignored(&alone, &settings), None, "{domains}");
        }
    }
}
