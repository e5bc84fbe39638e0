//! A request, and the certificate that it is about.

use std::time::Duration;

use neverlapse::inventory::{Inventory, Issuer, Managed};
use neverlapse::renewal::request::{Request, RequestedBy};
use tokio::time::Instant;

use crate::bucket::lease::{Claim, Lease};
use crate::error::Error;
use crate::history::History;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::services::Services;

/// What is requested, what the inventory wants, and how much time there is.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) services: &'a Services,
    pub(crate) history: &'a History,
    pub(crate) inventory: &'a Inventory,
    pub(crate) wanted: &'a Managed,
    pub(crate) request: &'a Request,
    pub(crate) deadline: Instant,
}

impl<'a> Task<'a> {
    /// Where to note how far the request is.
    pub(crate) fn progress(&self) -> Progress<'a> {
        Progress {
            history: self.history,
            request: self.request,
        }
    }

    /// Half of the time that is left: what one step may take, so that another one can follow.
    pub(crate) fn half(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()) / 2
    }

    /// The issuer of this name.
    pub(crate) fn issuer(&self, name: &str) -> Result<&'a Issuer, Error> {
        self.inventory.issuers.get(name).ok_or_else(|| {
            Error::Internal(format!(
                "the inventory has no [issuer.{name}] (the current certificate came from it)"
            ))
        })
    }

    /// The certificate's issuers, in the order in which to try them.
    pub(crate) fn issuers(&self) -> Result<Vec<&'a Issuer>, Error> {
        self.wanted.issuers.iter().map(|name| self.issuer(name)).collect()
    }

    /// Does `work` under the lease at `key`. A person's request waits for the lease, because
    /// whoever holds it may not do what the person asks for.
    pub(crate) async fn hold(
        &self,
        key: String,
        work: impl AsyncFnOnce(&Lease<'_>) -> Result<Outcome, Error>,
    ) -> Result<Outcome, Error> {
        let claim = Claim {
            key,
            name: &self.wanted.name,
            wait: self.request.requested_by != RequestedBy::Probe,
            deadline: self.deadline,
        };
        let done = self.services.leases().hold(claim, work).await?;
        Ok(done.unwrap_or(Outcome::Busy))
    }
}
