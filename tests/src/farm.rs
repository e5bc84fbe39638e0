//! Many names on loopback that lead to one TLS server: what benches look at.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use neverlapse::timestamp::Timestamp;
use tempfile::TempDir;

use crate::dns::Dns;
use crate::pki::Authority;
use crate::servers::{Nginx, Site};

/// A running server with its names; ends when dropped.
pub struct Farm {
    nginx: Nginx,
    /// Knows all of the names.
    pub dns: Dns,
    folder: TempDir,
    count: usize,
}

impl Farm {
    /// So many names, whose certificate is an ECDSA one under an intermediate.
    pub async fn open(count: usize) -> Result<Self> {
        let authority = Authority::new()?;
        let leaf = authority.leaf("*.farm.test", Timestamp::now() + time::Duration::days(60))?;
        let nginx = Nginx::start(&[Site {
            chain: leaf.fullchain,
            key: leaf.key,
        }])
        .await?;

        let addresses = names(count).map(|name| (name, vec![Ipv4Addr::LOCALHOST.into()]));
        let farm = Self {
            nginx,
            dns: Dns::start(addresses.collect()).await?,
            folder: tempfile::Builder::new().prefix("neverlapse-farm-").tempdir()?,
            count,
        };
        let endpoints: String = farm.endpoints().map(|endpoint| endpoint + "\n").collect();
        std::fs::write(farm.file(NAMES), endpoints)?;
        std::fs::write(farm.file(CA), authority.root())?;
        Ok(farm)
    }

    /// A file in its folder, such as [`NAMES`] and [`CA`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the server listens.
    pub fn port(&self) -> u16 {
        self.nginx.ports[0]
    }

    /// Its [`names`].
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        names(self.count)
    }

    /// The names with the port.
    pub fn endpoints(&self) -> impl Iterator<Item = String> + use<> {
        let port = self.port();
        self.names().map(move |name| format!("{name}:{port}"))
    }
}

/// The first names of every farm.
pub fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|index| format!("d{index}.farm.test"))
}

/// The endpoints, one per line.
pub const NAMES: &str = "names";
/// The root to trust, PEM.
pub const CA: &str = "ca.pem";
