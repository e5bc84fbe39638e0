//! The inventory's places as alerts need them: which are quiet, and what they should serve.

use std::collections::{BTreeMap, BTreeSet};

use super::incident::Place;
use crate::inventory::{Inventory, Source};

/// Which places are quiet, and which endpoints serve a managed certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watchlist {
    quiet: BTreeSet<Place>,
    certificates: BTreeMap<String, String>,
    source: Source,
}

impl Watchlist {
    /// The watchlist of an inventory.
    pub fn of(inventory: &Inventory) -> Self {
        // An endpoint that is listed twice is quiet only if both entries say so.
        let loud: BTreeSet<_> = (inventory.watched.iter().filter(|watched| !watched.quiet))
            .map(|watched| watched.endpoint.to_string())
            .collect();
        let all = inventory.watched.iter().map(|watched| watched.endpoint.to_string());
        let quiet_endpoints = all.filter(|endpoint| !loud.contains(endpoint)).map(Place::Endpoint);

        let quiet_certificates = (inventory.certificates.iter())
            .filter(|certificate| certificate.quiet)
            .map(|certificate| Place::Certificate(certificate.name.clone()));

        let mut certificates = BTreeMap::new();
        for certificate in &inventory.certificates {
            for endpoint in &certificate.served_at {
                certificates.insert(endpoint.to_string(), certificate.name.clone());
            }
        }
        Self {
            quiet: quiet_endpoints.chain(quiet_certificates).collect(),
            certificates,
            source: inventory.source,
        }
    }

    /// Where the inventory was written, and can be corrected.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// The managed certificate that an endpoint should serve.
    pub fn certificate_at(&self, endpoint: &str) -> Option<&str> {
        self.certificates.get(endpoint).map(String::as_str)
    }

    /// Whether nobody wants to hear about a place.
    pub fn is_quiet(&self, place: &Place) -> bool {
        self.quiet.contains(place)
    }
}
