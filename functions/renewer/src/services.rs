//! The services that the renewer works with, set up once in `main` and passed on from there.

use std::net::SocketAddr;

use aws_config::SdkConfig;
use neverlapse::bucket::store::Store;
use neverlapse::dns::zone::Zones;
use neverlapse::inventory;

use crate::acme::account::Accounts;
use crate::bucket::lease::Leases;
use crate::bucket::trouble::Troubles;
use crate::dns::lookup::Lookup;
use crate::error::Error;

/// The bucket, Route 53 and DNS.
pub(crate) struct Services {
    pub(crate) store: Store,
    /// The KMS key for accounts and leases: for objects with private keys that no instance may
    /// read.
    pub(crate) kms_key: String,
    pub(crate) config: SdkConfig,
    pub(crate) nameserver: Option<SocketAddr>,
}

impl Services {
    pub(crate) fn accounts(&self) -> Accounts<'_> {
        Accounts {
            store: &self.store,
            kms_key: &self.kms_key,
        }
    }

    pub(crate) fn leases(&self) -> Leases<'_> {
        Leases {
            store: &self.store,
            kms_key: &self.kms_key,
        }
    }

    pub(crate) fn troubles(&self) -> Troubles<'_> {
        Troubles { store: &self.store }
    }

    /// The hosted zones that can be written, as the inventory says how to reach them.
    pub(crate) async fn zones(&self, written: &[inventory::Zone]) -> Result<Zones, Error> {
        Ok(Zones::list(&self.config, written).await?)
    }

    pub(crate) fn lookup(&self) -> Result<Lookup, Error> {
        Lookup::new(self.nameserver)
    }
}
