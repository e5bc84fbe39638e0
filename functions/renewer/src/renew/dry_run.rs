//! A dry run: all of an order, from the issuer's staging directory, with a record and an account of its own. Nothing is published.

use neverlapse::inventory::Issuer;
use neverlapse::renewal::{Reason, Renewal};

use crate::bucket::lease::{self as record, Lease};
use crate::error::Fault;
use crate::outcome::Outcome;
use crate::renew::Renewer;
use crate::renew::job::Case;

impl Renewer {
    /// Orders what the case wants from the staging directory of its first issuer, and throws it away.
    pub(crate) async fn rehearse(&self, case: &Case<'_>) -> Result<Outcome, Fault> {
        let mut inventory = case.inventory.clone();
        let mut wanted = case.wanted.clone();
        let name = wanted.issuers[0].clone();
        let issuer = case.issuer(&name)?;
        let Some(directory) = issuer
            .staging_directory
            .clone()
            .or_else(|| issuer.staging.then(|| issuer.directory.clone()))
        else {
            return Err(Fault::Ours(format!(
                "[issuer.{name}] has no staging_directory to order from in a dry run"
            )));
        };
        let staging = format!("{name}.staging");
        inventory.issuers.insert(
            staging.clone(),
            Issuer {
                directory,
                staging: true,
                staging_directory: None,
                ..issuer.clone()
            },
        );
        wanted.issuers = vec![staging];
        let case = Case {
            wanted: &wanted,
            inventory: &inventory,
            ..*case
        };
        let key = record::key(&format!("dry-run/{}", wanted.name));
        let nothing = Renewal::new(&wanted.name);
        let order = async |lease: &Lease<'_>| self.order(&case, lease, None, None, &Reason::Requested, &nothing).await;
        let outcome = self.with_lease(&case, key, order).await?;
        if let Outcome::DryRun = outcome {
            self.teller.tell(self.teller.dry_run(&wanted.name, &name)).await;
        }
        Ok(outcome)
    }
}
