//! A handful of real servers, each in another state: what the demo and the end-to-end tests look
//! at.

use neverlapse::timestamp::Timestamp;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use aws_config::SdkConfig;
use time::Duration;

use crate::dns::Dns;
use crate::pki::Authority;
use crate::servers::{Nginx, Silent, Site};

/// The servers, and the inventory that watches them.
pub struct Shop {
    _nginx: Nginx,
    _silent: Silent,
    /// Knows the addresses of their names.
    pub dns: Dns,
    /// The root they are judged by.
    pub root: String,
    /// `inventory.toml` with addresses, for who cannot ask [`Shop::dns`]; its `ca` is [`CA`].
    pub inventory: String,
    /// Each endpoint with its state in a word or two.
    pub endpoints: Vec<(String, &'static str)>,
}

const ADDRESSES: &str = "addresses = [\"127.0.0.1\"]\n";
/// Where the inventory says that the root is.
pub const CA: &str = "ca/shop.pem";

impl Shop {
    /// Opens it.
    pub async fn open(now: Timestamp) -> Result<Self> {
        Self::of(now, None).await
    }

    /// Opens it with a DNS server that also answers from the Route 53 behind `aws`.
    pub async fn open_on(now: Timestamp, aws: &SdkConfig) -> Result<Self> {
        Self::of(now, Some(aws)).await
    }

    async fn of(now: Timestamp, aws: Option<&SdkConfig>) -> Result<Self> {
        let authority = Authority::new()?;
        let healthy = authority.leaf("healthy.shop.test", now + Duration::days(60))?;
        let soon = authority.leaf("soon.shop.test", now + Duration::days(9) + Duration::HOUR)?;
        let expired = authority.leaf("expired.shop.test", now - Duration::days(2))?;
        let other = authority.leaf("other.shop.test", now + Duration::days(60))?;
        let lone = authority.leaf("incomplete.shop.test", now + Duration::days(60))?;
        let sites = [
            Site {
                chain: healthy.fullchain,
                key: healthy.key,
            },
            Site {
                chain: soon.fullchain,
                key: soon.key,
            },
            Site {
                chain: expired.fullchain,
                key: expired.key,
            },
            Site {
                chain: other.fullchain,
                key: other.key,
            },
            Site {
                chain: lone.certificate,
                key: lone.key,
            },
        ];
        let (nginx, silent) = (Nginx::start(&sites).await?, Silent::start().await?);
        let names = [
            ("healthy", "fine, 60 days left"),
            ("soon", "9 days left"),
            ("expired", "expired 2 days ago"),
            ("wrongname", "a certificate for another name"),
            ("incomplete", "the intermediate is not sent"),
            ("silent", "accepts, and never says a word"),
        ];
        let ports = nginx.ports.iter().chain([&silent.port]);
        let mut inventory = String::new();
        let mut endpoints = Vec::new();
        for ((name, state), port) in names.into_iter().zip(ports) {
            let host = format!("{name}.shop.test");
            writeln!(
                inventory,
                "[[endpoint]]\nhost = {host:?}\nport = {port}\n{ADDRESSES}ca = {CA:?}\n"
            )?;
            endpoints.push((format!("{host}:{port}"), state));
        }
        let here = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let known = names.map(|(name, _)| (format!("{name}.shop.test"), here.clone()));
        Ok(Self {
            dns: match aws {
                Some(aws) => Dns::with_route53(known.into(), aws).await?,
                None => Dns::start(known.into()).await?,
            },
            _nginx: nginx,
            _silent: silent,
            root: authority.root(),
            inventory,
            endpoints,
        })
    }

    /// Stops watching one of them, for who has a better one.
    pub fn forget(&mut self, name: &str) {
        let host = format!("{name}.shop.test");
        self.endpoints.retain(|(endpoint, _)| !endpoint.starts_with(&host));
        let entries = self.inventory.split_inclusive("\n\n");
        self.inventory = entries.filter(|entry| !entry.contains(&host)).collect();
    }

    /// The endpoint of this name, such as `soon`.
    pub fn endpoint(&self, name: &str) -> String {
        let found = self
            .endpoints
            .iter()
            .find(|(endpoint, _)| endpoint.starts_with(&format!("{name}.")));
        found.map(|(endpoint, _)| endpoint.clone()).unwrap_or_default()
    }

    /// The inventory as most people write it: by name.
    pub fn inventory_by_name(&self) -> String {
        self.inventory.replace(ADDRESSES, "")
    }
}
