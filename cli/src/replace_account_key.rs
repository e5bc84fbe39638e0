//! `neverlapse replace-account-key`: asks the renewer to give our account at an issuer a new key.

use anyhow::{Result, bail};
use clap::Args;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The issuer's name in the inventory
    issuer: String,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    if !inventory.issuers.contains_key(&arguments.issuer) {
        let known: Vec<_> = inventory.issuers.keys().map(String::as_str).collect();
        bail!(
            "the inventory has no issuer {:?} (expected {})",
            arguments.issuer,
            known.join(", ")
        );
    }

    stack
        .request_renewal(&Request {
            action: Action::ReplaceAccountKey,
            ..Request::new(&arguments.issuer, RequestedBy::Person, Timestamp::now())
        })
        .await?;
    println!("requested");
    Ok(0)
}
