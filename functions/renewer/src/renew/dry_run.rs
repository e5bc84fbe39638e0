//! A dry run: all of an order, at the issuer's staging directory, with a lease and an account of
//! its own. Nothing is published.

use neverlapse::inventory::Issuer;
use neverlapse::renewal::{Reason, Renewal};

use super::job::Job;
use super::leftovers;
use super::task::Task;
use crate::bucket::lease;
use crate::error::Error;
use crate::outcome::Outcome;

/// Orders the certificate from the staging directory of its first issuer, and drops what is issued.
pub(crate) async fn dry_run(task: Task<'_>) -> Result<Outcome, Error> {
    let name = &task.wanted.name;
    let Some(issuer) = task.issuers()?.into_iter().next() else {
        return Err(Error::Internal(format!("{name} has no issuer to order from")));
    };
    let staging = staging(issuer)?;
    let nothing = Renewal::new(name);

    task.hold(lease::dry_run_key(name), async |lease| {
        let job = Job {
            task,
            lease,
            issuers: vec![&staging],
            current: None,
            reason: &Reason::Requested,
            renewal: &nothing,
            history: None,
        };
        let issued = job.order(Vec::new()).await;
        lease.finish().await?;
        leftovers::remove(lease, &task).await?;
        issued.map(|_| Outcome::DryRun {
            issuer: issuer.name.clone(),
        })
    })
    .await
}

/// The same issuer at its staging directory, under a name of its own: the name is the account's
/// folder.
fn staging(issuer: &Issuer) -> Result<Issuer, Error> {
    let own = issuer.staging.then_some(&issuer.directory);
    let Some(directory) = issuer.staging_directory.as_ref().or(own) else {
        return Err(Error::Internal(format!(
            "[issuer.{}] has no staging_directory to order from in a dry run",
            issuer.name
        )));
    };
    Ok(Issuer {
        name: format!("{}.staging", issuer.name),
        directory: directory.clone(),
        staging: true,
        staging_directory: None,
        ..issuer.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::inventory::Inventory;

    #[test]
    fn a_dry_run_has_a_directory_and_an_account_of_its_own() {
        let own = "[issuer.own]\ndirectory = \"https://ca.example/dir\"\n";
        let issuers = Inventory::parse(own).issuers;

        let letsencrypt = staging(&issuers["letsencrypt"]).unwrap();
        assert_eq!(letsencrypt.name, "letsencrypt.staging");
        assert_eq!(letsencrypt.directory, issuers["letsencrypt-staging"].directory);
        let already = staging(&issuers["letsencrypt-staging"]).unwrap();
        assert_eq!(already.directory, letsencrypt.directory);

        let error = staging(&issuers["own"]).unwrap_err().to_string();
        assert!(error.starts_with("[issuer.own] has no staging_directory"), "{error}");
    }
}
