//! `neverlapse renew`, `revoke` and `replace-account-key`: requests that go the way of the probe's, through SNS to the renewer.

use anyhow::{Result, bail};
use clap::Args;
use neverlapse::aws::reason;
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName, certificate};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Renew {
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

#[derive(Debug, Args)]
pub(crate) struct Revoke {
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

#[derive(Debug, Args)]
pub(crate) struct ReplaceAccountKey {
    /// The issuer's name in the inventory
    issuer: String,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn renew(arguments: &Renew) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let name = &certificate(&inventory, &arguments.name)?.name;
    let (force, dry_run) = (arguments.force, arguments.dry_run);
    send(
        &stack,
        Request {
            force,
            dry_run,
            ..request(name)
        },
    )
    .await?;
    println!("requested; `neverlapse plan` shows when it is done, and an alert comes if it fails");
    Ok(0)
}

pub(crate) async fn revoke(arguments: &Revoke) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let name = &certificate(&inventory, &arguments.name)?.name;
    let Some(current) = stack.store.json::<Current>(&current_key(name)).await? else {
        bail!("there is no certificate {name} to revoke yet");
    };
    let facts = current.value.facts;
    if !arguments.yes
        && !confirmed(&format!(
            "Revoke {name}, version {}, fingerprint {}?",
            facts.version, facts.fingerprint
        ))?
    {
        bail!("nothing was revoked (expected y, or --yes)");
    }
    let request = Request {
        action: Action::Revoke,
        version: Some(facts.version),
        key_compromise: arguments.key_compromise,
        ..request(name)
    };
    send(&stack, request).await?;
    println!("requested; a certificate with a new key takes its place at once");
    Ok(0)
}

pub(crate) async fn replace_account_key(arguments: &ReplaceAccountKey) -> Result<u8> {
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
    let action = Action::ReplaceAccountKey;
    send(
        &stack,
        Request {
            action,
            ..request(&arguments.issuer)
        },
    )
    .await?;
    println!("requested");
    Ok(0)
}

fn request(name: &str) -> Request {
    Request::new(name, RequestedBy::Person, Timestamp::now())
}

async fn send(stack: &Stack, request: Request) -> Result<()> {
    let topic = stack.output("RenewalTopicArn")?;
    let body = serde_json::to_string(&request)?;
    let sent = aws_sdk_sns::Client::new(&stack.config)
        .publish()
        .topic_arn(topic)
        .message(body)
        .send()
        .await;
    match sent {
        Ok(_) => Ok(()),
        Err(error) => bail!("cannot publish to {topic}: {}", reason(&error)),
    }
}

/// Asks a person; anything but y is no.
pub(crate) fn confirmed(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

const EXAMPLES: &str = "\
Examples:
  neverlapse renew example.com               if it is due
  neverlapse renew example.com --force       in any case
  neverlapse renew example.com --dry-run     does everything work? (from the issuer's staging directory)";
