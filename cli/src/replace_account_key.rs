//! `neverlapse replace-account-key`: asks the renewer to give our account at an issuer a new key.

use anyhow::{Result, bail};
use clap::Args;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
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
    println!("requested; an alert reports the result");
    Ok(0)
}

const HELP: &str = "\
Examples:
  neverlapse replace-account-key letsencrypt

Certificates stay as they are. An alert reports the result.

Exit codes: 0 requested, 3 not requested";
