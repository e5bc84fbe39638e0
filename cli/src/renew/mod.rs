//! `neverlapse renew`: asks the renewer for a new certificate, and follows it to its end.

mod answer;
mod follow;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use neverlapse::inventory::{Inventory, Managed};
use neverlapse::renewal::decide;
use neverlapse::renewal::request::{Request, RequestedBy};
use neverlapse::timestamp::Timestamp;

use self::answer::{Answer, printable_lines};
use crate::stack::{Stack, StackName, certificate};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The certificate's name in the inventory
    name: String,
    /// Also if nothing is due, and at once even after a failure
    #[arg(long)]
    force: bool,
    /// Order from the issuer's staging directory, and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the result; an alert reports it
    #[arg(long)]
    no_wait: bool,
    /// How many minutes to wait for the result
    #[arg(long, value_name = "MINUTES", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1440))]
    timeout: u64,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let certificate = certificate(&inventory, &arguments.name)?;
    let request = Request {
        force: arguments.force,
        dry_run: arguments.dry_run,
        ..Request::new(&certificate.name, RequestedBy::Person, Timestamp::now())
    };

    if let Some(answer) = at_once(&stack, &inventory, certificate, &request).await? {
        return Ok(answer.print());
    }
    stack.request_renewal(&request).await?;
    if arguments.no_wait {
        println!("requested; an alert reports the result");
        return Ok(0);
    }

    let timeout = Duration::from_secs(arguments.timeout * 60);
    let answer = follow::follow(&stack.store, certificate, &request, timeout).await?;
    Ok(answer.print())
}

/// The answer that needs no renewer: what it decides is known from what is in the bucket.
async fn at_once(
    stack: &Stack,
    inventory: &Inventory,
    certificate: &Managed,
    request: &Request,
) -> Result<Option<Answer>> {
    if request.dry_run {
        let first = certificate.issuers.first().and_then(|name| inventory.issuers.get(name));
        return Ok(first
            .filter(|issuer| !issuer.staging && issuer.staging_directory.is_none())
            .map(|issuer| Answer::NoStaging(issuer.name.clone())));
    }

    let current = stack.current(&certificate.name).await?;
    let renewal = stack.renewal(&certificate.name).await?;
    let decision = decide(
        &inventory.issuers,
        certificate,
        current.as_ref(),
        renewal.as_ref(),
        Some(request),
        request.at,
    );
    let failure = renewal.and_then(|renewal| renewal.failure);
    let problem = failure.map(|failure| printable_lines(&failure.problem));
    Ok(Answer::of_decision(decision, problem))
}

const HELP: &str = "\
Examples:
  neverlapse renew example.com               if it is due
  neverlapse renew example.com --force       in any case
  neverlapse renew example.com --dry-run     does everything work? (from the issuer's staging directory)
  neverlapse renew example.com --no-wait     for scripts; an alert reports the result

It prints each step of the renewer's, and ends with what came of it. Ctrl-C ends the waiting, not the renewal.

Exit codes: 0 issued, not due, or with --no-wait requested; 1 it waits until an earlier failure allows; 2 it failed or is refused; \
3 not known (nothing came within --timeout, or something could not be read); 130 Ctrl-C.";
