//! `neverlapse renew`: asks the renewer for a new certificate.

use anyhow::Result;
use clap::Args;
use neverlapse::renewal::request::{Request, RequestedBy};
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName, certificate};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The certificate's name in the inventory
    name: String,
    /// Also if nothing is due, and at once even after a failure
    #[arg(long)]
    force: bool,
    /// Order from the issuer's staging directory, and publish nothing; the outcome comes as an alert
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let certificate = certificate(&inventory, &arguments.name)?;

    stack
        .request_renewal(&Request {
            force: arguments.force,
            dry_run: arguments.dry_run,
            ..Request::new(&certificate.name, RequestedBy::Person, Timestamp::now())
        })
        .await?;
    println!("requested; `neverlapse plan` shows when it is done, and an alert comes if it fails");
    Ok(0)
}

const EXAMPLES: &str = "\
Examples:
  neverlapse renew example.com               if it is due
  neverlapse renew example.com --force       in any case
  neverlapse renew example.com --dry-run     does everything work? (from the issuer's staging directory)";
