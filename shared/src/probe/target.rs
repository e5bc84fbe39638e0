//! What to probe, and what it is judged by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::chain::roots::Roots;
use crate::ehlo::Ehlo;
use crate::endpoint::{Endpoint, Host};
use crate::finding::Thresholds;
use crate::inventory::{Inventory, Problem, Watched};

/// An endpoint, and what it is judged by.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// The name to ask for, if it is not the host's.
    pub sni: Option<Host>,
    /// The addresses to connect to, instead of those in DNS.
    pub addresses: Vec<IpAddr>,
    /// How long an address may take in all, if it is not as long as usual.
    pub timeout: Option<Duration>,
    /// The name to give a mail server there, if it is not the usual one.
    pub ehlo: Option<Ehlo>,
    /// The roots that are trusted there.
    pub roots: Arc<Roots>,
    /// How close an expiry has to be for a finding.
    pub thresholds: Thresholds,
    /// Whether it stays out of alerts.
    pub quiet: bool,
}

impl Target {
    /// An endpoint of which nothing is known but its name.
    pub fn plain(endpoint: Endpoint, roots: Arc<Roots>) -> Self {
        Self {
            endpoint,
            sni: None,
            addresses: Vec::new(),
            timeout: None,
            ehlo: None,
            roots,
            thresholds: Thresholds::default(),
            quiet: false,
        }
    }

    /// A place that an inventory wants probed, judged by `roots`.
    pub fn new(watched: &Watched, roots: Arc<Roots>) -> Self {
        Self {
            endpoint: watched.endpoint.clone(),
            sni: watched.sni.clone(),
            addresses: watched.addresses.clone(),
            timeout: watched.timeout,
            ehlo: watched.ehlo.clone(),
            roots,
            thresholds: watched.thresholds,
            quiet: watched.quiet,
        }
    }

    /// What a client asks for: the SNI that was set, else the host.
    pub(super) fn requested(&self) -> &Host {
        self.sni.as_ref().unwrap_or(&self.endpoint.host)
    }

    /// Everything that an inventory wants probed. Each target has the roots of `base`, and its own
    /// from the PEM files that `load` finds for its `ca`.
    ///
    /// An entry whose roots cannot be loaded is a problem: judged without them, its chain would be
    /// wrong.
    pub async fn all(
        inventory: &Inventory,
        base: &Roots,
        load: impl AsyncFn(&str) -> Result<Vec<u8>, String>,
    ) -> (Vec<Self>, Vec<Problem>) {
        let shared = Arc::new(base.clone());
        let mut private = BTreeMap::<&[String], Result<Arc<Roots>, String>>::new();
        let mut targets = Vec::with_capacity(inventory.watched.len());
        let mut problems = Vec::new();

        for watched in &inventory.watched {
            let ca = watched.ca.as_slice();
            if ca.is_empty() {
                targets.push(Self::new(watched, shared.clone()));
                continue;
            }

            // Many endpoints share a private CA; its files are read once.
            if !private.contains_key(ca) {
                private.insert(ca, with_files(base, ca, &load).await.map(Arc::new));
            }

            match &private[ca] {
                Ok(roots) => targets.push(Self::new(watched, roots.clone())),
                Err(reason) => problems.push(Problem {
                    line: watched.line,
                    message: format!("{}: {reason}", watched.endpoint),
                }),
            }
        }

        (targets, problems)
    }
}

/// The roots of `base`, and those in these PEM files.
async fn with_files(
    base: &Roots,
    files: &[String],
    load: &impl AsyncFn(&str) -> Result<Vec<u8>, String>,
) -> Result<Roots, String> {
    let mut roots = base.clone();
    for file in files {
        let pem = load(file).await;
        let added = pem.and_then(|pem| roots.with_pem(&pem).map_err(|error| error.to_string()));
        roots = added.map_err(|reason| format!("ca = {file:?}: {reason}"))?;
    }
    Ok(roots)
}
