//! One request's certificate, and all that is known of it.

use neverlapse::inventory::{Inventory, Issuer, Managed};
use neverlapse::renewal::request::Request;
use tokio::time::Instant;

use crate::error::Fault;

/// What is asked for, what the inventory wants, and how much time there is.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) wanted: &'a Managed,
    pub(crate) inventory: &'a Inventory,
    pub(crate) request: &'a Request,
    pub(crate) deadline: Instant,
}

impl Case<'_> {
    /// The issuer of this name.
    pub(crate) fn issuer(&self, name: &str) -> Result<&Issuer, Fault> {
        let issuer = self.inventory.issuers.get(name);
        issuer.ok_or_else(|| {
            Fault::Ours(format!(
                "the inventory has no [issuer.{name}] (the current certificate came from it)"
            ))
        })
    }
}
