//! A handful of real servers, each in another state: what the demo and the end-to-end tests look at.

use std::fmt::Write;

use anyhow::Result;
use time::{Duration, OffsetDateTime};

use crate::pki::Authority;
use crate::servers::{Nginx, Silent, Site};

/// The servers, and the inventory that watches them.
pub struct Shop {
    _nginx: Nginx,
    _silent: Silent,
    /// The root they are judged by.
    pub root: String,
    /// `inventory.toml`; its `ca` is [`CA`].
    pub inventory: String,
    /// Each endpoint with its state in a word or two.
    pub endpoints: Vec<(String, &'static str)>,
}

/// Where the inventory says that the root is.
pub const CA: &str = "ca/shop.pem";

impl Shop {
    /// Opens it.
    pub async fn open(now: OffsetDateTime) -> Result<Self> {
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
                "[[endpoint]]\nhost = {host:?}\nport = {port}\naddresses = [\"127.0.0.1\"]\nca = {CA:?}\n"
            )?;
            endpoints.push((format!("{host}:{port}"), state));
        }
        Ok(Self {
            _nginx: nginx,
            _silent: silent,
            root: authority.root(),
            inventory,
            endpoints,
        })
    }
}
