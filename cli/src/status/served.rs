//! What the certificates' endpoints serve: as the probe saw it last, or probed now, from here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use neverlapse::chain::roots::Roots;
use neverlapse::inventory::{Inventory, Managed};
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::report::{EndpointReport, Report};
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;
use tokio::time::Instant;

use crate::stack::Stack;

/// What was seen of the endpoints, and by whom.
pub(super) struct Served {
    pub(super) endpoints: Vec<EndpointReport>,
    pub(super) by: SeenBy,
}

/// Who has seen the endpoints, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeenBy {
    /// This command, now.
    Here,
    /// The probe, in a run that ended then.
    Probe(Timestamp),
    /// Nobody: there is no report.
    Nobody,
}

impl Served {
    /// What the probe's last report says of these certificates' endpoints, or of all endpoints.
    pub(super) fn seen_by_probe(only: Option<&[Managed]>, last: Option<&Report>) -> Self {
        let Some(last) = last else {
            return Self {
                endpoints: Vec::new(),
                by: SeenBy::Nobody,
            };
        };

        let mut endpoints = last.endpoints.clone();
        if let Some(certificates) = only {
            let places: BTreeSet<_> = certificates
                .iter()
                .flat_map(|certificate| &certificate.served_at)
                .map(ToString::to_string)
                .collect();
            endpoints.retain(|seen| places.contains(&seen.endpoint));
        }
        Self {
            endpoints,
            by: SeenBy::Probe(last.finished_at),
        }
    }

    /// Probes these certificates' endpoints, or all of the inventory, in the same way as the probe
    /// does.
    pub(super) async fn probe(
        only: Option<&[Managed]>,
        inventory: &Inventory,
        stack: &Stack,
        nameserver: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<Self> {
        let mut watched = Inventory {
            thresholds: inventory.thresholds,
            ..Inventory::default()
        };
        match only {
            Some(certificates) => {
                for endpoint in certificates.iter().flat_map(|certificate| &certificate.served_at) {
                    watched.watch_as_in(inventory, endpoint.clone());
                }
            }
            None => watched.watched.clone_from(&inventory.watched),
        }

        let roots = roots(stack).await?;
        let (targets, problems) = Target::all(&watched, &roots, async |key: &str| stack.store.pem(key).await).await;
        for problem in problems {
            eprintln!("error: inventory.toml {}", printable(&problem.to_string()));
        }

        let prober = Prober::new(Options {
            nameserver,
            sockets: SOCKETS,
            ..Options::default()
        })?;
        Ok(Self {
            endpoints: prober.report(targets, deadline).await.endpoints,
            by: SeenBy::Here,
        })
    }
}

/// The public roots, and those of the stack's trust bundle.
async fn roots(stack: &Stack) -> Result<Roots> {
    let public = Roots::public();
    let Some(key) = stack.parameter("TrustBundleKey") else {
        return Ok(public);
    };
    let pem = stack.store.pem(key).await.map_err(|problem| anyhow!(problem));
    pem.and_then(|pem| Ok(public.with_pem(&pem)?))
        .with_context(|| format!("trust bundle {key:?}"))
}

/// A terminal's limit on open files may be as low as 256.
const SOCKETS: usize = 200;
