//! What a run covers: the targets that an event means, by the inventory.

use neverlapse::bucket::store::Store;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Endpoint;
use neverlapse::inventory::{Inventory, Problem};
use neverlapse::probe::Target;

use crate::error::Error;
use crate::settings::Settings;

/// What a run covers.
pub(crate) struct Scope {
    pub(crate) targets: Vec<Target>,
    /// What could not be understood or used.
    pub(crate) problems: Vec<Problem>,
    /// Of the whole, or of the requested endpoints alone.
    pub(crate) inventory: Inventory,
    /// Whether a person wrote the inventory, or it is made of the template's `Domains`.
    pub(crate) is_written: bool,
}

impl Scope {
    /// Everything in the inventory.
    ///
    /// Problems in it are part of the scope. It is an error if the inventory cannot be read, or if
    /// there is nothing to probe and nothing managed.
    pub(crate) async fn read(store: &Store, settings: &Settings) -> Result<Self, Error> {
        let (inventory, is_written) = inventory(store, settings).await?;
        Self::with_roots(inventory, is_written, store, settings).await
    }

    /// These endpoints alone, with the settings that the inventory has for them.
    pub(crate) async fn of(
        endpoints: Vec<Result<Endpoint, String>>,
        store: &Store,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let (inventory, is_written) = inventory(store, settings).await?;
        Self::with_roots(only(endpoints, &inventory), is_written, store, settings).await
    }

    /// Reads every root certificate that the inventory names.
    async fn with_roots(
        inventory: Inventory,
        is_written: bool,
        store: &Store,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let roots = roots(store, settings).await?;
        let (targets, unusable) = Target::all(&inventory, &roots, async |key: &str| store.pem(key).await).await;
        let problems: Vec<_> = inventory.problems.iter().cloned().chain(unusable).collect();

        if targets.is_empty() && inventory.certificates.is_empty() {
            let problems: String = problems.iter().map(|problem| format!("; {problem}")).collect();
            return Err(Error::InventoryEmpty(format!(
                "there is nothing to look at. Write an inventory.toml to s3://{} or set the template's Domains.{problems}",
                settings.bucket
            )));
        }
        Ok(Self {
            targets,
            problems,
            inventory,
            is_written,
        })
    }
}

/// The bucket's `inventory.toml`, else the template's `Domains`; and whether it is the former.
async fn inventory(store: &Store, settings: &Settings) -> Result<(Inventory, bool), Error> {
    match store.inventory().await {
        Ok(Some(text)) => Ok((Inventory::parse_with(&text, settings.thresholds), true)),
        Ok(None) => Ok((Inventory::of_endpoints(&settings.domains, settings.thresholds), false)),
        Err(error) => Err(Error::InventoryUnreadable(error.to_string())),
    }
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
