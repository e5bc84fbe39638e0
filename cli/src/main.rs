//! The `neverlapse` command: what the Lambda does, from a laptop or an instance.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "doc comments on arguments are what --help prints, not links"
)]

mod argument;
mod cell;
mod check;
mod completions;
mod inventory;
mod plan;
mod pull;
mod renew;
mod replace_account_key;
mod report;
mod revoke;
mod rollback;
mod stack;
mod status;
mod terminal;
mod test_alert;
mod validate;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use neverlapse::bucket::store;
use neverlapse::chain::roots;
use tokio::runtime;

/// TLS certificates that never lapse: look at endpoints, see what is wrong, before anyone notices.
#[derive(Debug, Parser)]
#[command(name = "neverlapse", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at endpoints and say what is wrong with them
    Check(Box<check::Arguments>),
    /// Say what an inventory means, or every mistake in it with its line
    Validate(validate::Arguments),
    /// Fetch the last run's report as a web page, or make one of a report's JSON
    Report(report::Arguments),
    /// Say what would be renewed now, and why; orders nothing
    Plan(plan::Arguments),
    /// Say how far every managed certificate is, at each instance and each address
    Status(status::Arguments),
    /// Install on this host what the bucket says is current, reload the server, and see that it serves it
    Pull(pull::Arguments),
    /// Ask the renewer for a new certificate
    Renew(renew::Arguments),
    /// Serve an earlier version again
    Rollback(rollback::Arguments),
    /// Revoke the current certificate, and replace it
    Revoke(revoke::Arguments),
    /// Give our account at an issuer a new key
    ReplaceAccountKey(replace_account_key::Arguments),
    /// Send one alert of each kind, to see that they arrive
    TestAlert(test_alert::Arguments),
    /// Print completions for a shell
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // 2 would mean that something is critical.
            return if error.use_stderr() {
                ExitCode::from(UNKNOWN)
            } else {
                ExitCode::SUCCESS
            };
        }
    };

    // A fleet is probed by all processors. An installation is one thing after the other, on an instance that has better
    // things to do.
    let mut runtime = match arguments.command {
        Command::Pull(_) => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };

    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run(arguments.command)),
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            ExitCode::from(UNKNOWN)
        }
    }
}

async fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Check(arguments) => check::run(*arguments).await,
        Command::Validate(arguments) => validate::run(&arguments).await,
        Command::Report(arguments) => report::run(&arguments).await,
        Command::Plan(arguments) => plan::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Pull(arguments) => pull::run(&arguments).await,
        Command::Renew(arguments) => renew::run(&arguments).await,
        Command::Rollback(arguments) => rollback::run(&arguments).await,
        Command::Revoke(arguments) => revoke::run(&arguments).await,
        Command::ReplaceAccountKey(arguments) => replace_account_key::run(&arguments).await,
        Command::TestAlert(arguments) => test_alert::run(&arguments).await,
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
    };

    match result {
        Ok(code) => ExitCode::from(code),
        // The reader of our output has closed it, and has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = hint(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(UNKNOWN)
        }
    }
}

/// What to run or set, where that is known.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(store::Error::Failed { .. }) => Some(S3),
        _ => cause.is::<roots::Error>().then_some(PEM),
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
    })
}

/// The exit code of monitoring plugins for "could not look".
const UNKNOWN: u8 = 3;
const S3: &str = "set AWS_REGION, and AWS_PROFILE or other credentials, of an identity that may s3:GetObject in the bucket \
                  and kms:Decrypt with its key";
const PEM: &str = "a private root is a CA certificate of version 3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_arguments_are_in_each_others_way() {
        // Subcommands are looked at only when asked for, in debug builds only.
        Arguments::command().debug_assert();
    }
}
