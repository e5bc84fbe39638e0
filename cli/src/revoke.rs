//! `neverlapse revoke`: asks the renewer to revoke the current certificate, and to replace it.

use std::io;

use anyhow::{Result, bail};
use clap::Args;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName, certificate};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The certificate's name in the inventory
    name: String,
    /// Somebody else may have its private key
    #[arg(long)]
    key_compromise: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let name = &certificate(&inventory, &arguments.name)?.name;
    let Some(current) = stack.current(name).await? else {
        bail!("there is no certificate {name} to revoke yet");
    };

    let facts = current.facts;
    let question = format!(
        "Revoke {name}, version {}, fingerprint {}?",
        facts.version, facts.fingerprint
    );
    if !arguments.yes && !confirmed(&question)? {
        bail!("nothing was revoked (expected y, or --yes)");
    }

    stack
        .request_renewal(&Request {
            action: Action::Revoke,
            // If another one is current by then, that one must not be revoked.
            version: Some(facts.version),
            key_compromise: arguments.key_compromise,
            ..Request::new(name, RequestedBy::Person, Timestamp::now())
        })
        .await?;
    println!("requested: the renewer revokes it and orders another one with a new key; an alert reports the result");
    Ok(0)
}

/// Asks a person. Any answer but y means no.
fn confirmed(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

const HELP: &str = "\
Examples:
  neverlapse revoke example.com
  neverlapse revoke example.com --key-compromise     somebody else may have the key

The renewer revokes the current version at its issuer, and orders a certificate with a new key at once. Instances install that one with \
their next run, within the hour; `neverlapse pull --now` on an instance does not wait. An alert reports the result.

Exit codes: 0 requested, 3 not requested";
