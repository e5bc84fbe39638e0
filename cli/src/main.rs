//! The `neverlapse` command: what the Lambda does, from a laptop or an instance.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "doc comments on arguments are what --help prints, not links"
)]

mod adopt;
mod argument;
mod cell;
mod check;
mod completions;
mod discover;
mod doctor;
mod explain;
mod format;
mod help;
mod init;
mod inventory;
mod man;
mod plan;
mod pull;
mod renew;
mod replace_account_key;
mod report;
mod revoke;
mod rollback;
mod run;
mod schema;
mod service;
mod stack;
mod status;
mod terminal;
mod test_alert;
mod validate;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use neverlapse::bucket::store;
use neverlapse::chain::roots;
use tokio::runtime;

use self::stack::NotAsked;

/// Checks TLS certificates where they are served, and renews and installs them.
#[derive(Debug, Parser)]
#[command(name = "neverlapse", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check endpoints from here, and show what is wrong
    Check(Box<check::Arguments>),
    /// Show what an inventory or a pull.toml means, and every error in it
    Validate(validate::Arguments),
    /// Write a first inventory, with what the account's hosted zones and certificates lead to
    Init(init::Arguments),
    /// Have the probe check now, and show what it sees
    Run(run::Arguments),
    /// Show every endpoint, and how far each certificate is at each instance and address
    Status(status::Arguments),
    /// Fetch the last report as a web page, or make the page from a report's JSON
    Report(report::Arguments),
    /// Show what serves TLS in the account and is not watched, and what ACM and IAM keep
    Discover(discover::Arguments),
    /// Show what would be renewed now, and why; orders nothing
    Plan(plan::Arguments),
    /// Install the current certificates on this host, reload the server, and check that it serves
    /// them
    Pull(pull::Arguments),
    /// Take over certificates from certbot, without ordering them again
    Adopt(adopt::Arguments),
    /// Ask the renewer for a new certificate
    Renew(renew::Arguments),
    /// Serve an earlier version again
    Rollback(rollback::Arguments),
    /// Revoke the current certificate and replace it
    Revoke(revoke::Arguments),
    /// Replace the key of the ACME account at an issuer
    ReplaceAccountKey(replace_account_key::Arguments),
    /// Check the deployed stack: what is wrong, why it matters, which command corrects it
    Doctor(doctor::Arguments),
    /// Send one alert of each kind, to see whether they arrive
    TestAlert(test_alert::Arguments),
    /// Print what a finding's code means, and what to do about it
    Explain(explain::Arguments),
    /// Print the JSON Schema of a file or document
    Schema(schema::Arguments),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(man::Arguments),
    /// Print completions for a shell
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let parsed = help::grouped(Arguments::command()).try_get_matches();
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
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

    // A fleet is probed by all processors. An installation is one thing after the other, on an
    // instance that has better things to do.
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
        Command::Init(arguments) => init::run(&arguments).await,
        Command::Discover(arguments) => discover::run(&arguments).await,
        Command::Run(arguments) => run::run(&arguments).await,
        Command::Report(arguments) => report::run(&arguments).await,
        Command::Plan(arguments) => plan::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Pull(arguments) => pull::run(&arguments).await,
        Command::Adopt(arguments) => adopt::run(&arguments).await,
        Command::Renew(arguments) => renew::run(&arguments).await,
        Command::Rollback(arguments) => rollback::run(&arguments).await,
        Command::Revoke(arguments) => revoke::run(&arguments).await,
        Command::ReplaceAccountKey(arguments) => replace_account_key::run(&arguments).await,
        Command::Doctor(arguments) => doctor::run(&arguments).await,
        Command::TestAlert(arguments) => test_alert::run(&arguments).await,
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Man(arguments) => man::run(&arguments, Arguments::command()),
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
        _ if cause.is::<NotAsked>() => Some(CREDENTIALS),
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

/// The exit code of monitoring plugins for what could not be checked.
const UNKNOWN: u8 = 3;
const CREDENTIALS: &str =
    "set AWS_REGION, and AWS_PROFILE or other credentials, of an identity that may cloudformation:DescribeStacks";
const S3: &str = "set AWS_REGION, and AWS_PROFILE or other credentials, of an identity that may s3:GetObject in the bucket \
                  and kms:Decrypt with its key";
const PEM: &str = "a private root is a CA certificate of version 3";

#[cfg(test)]
mod tests {
    use super::*;

    /// What documents tell people to type can be typed.
    #[test]
    fn every_command_in_the_documents_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let documents = std::fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|file| file.unwrap().path());
        let documents = documents.filter(|path| path.extension().is_some_and(|extension| extension == "md"));

        let mut count = 0;
        for path in documents.chain([root.join("README.md")]) {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().filter_map(|line| line.strip_prefix("    "));
            // What stands further to the right was printed, not typed.
            let code = code.filter(|line| !line.starts_with(' '));
            for line in code.flat_map(|line| line.split(" && ")) {
                let command = line.trim().trim_start_matches("$ ");
                if !command.starts_with("neverlapse ") || command.contains('…') {
                    continue;
                }
                // Without comments, pipes and redirections.
                let end = command.find(['#', '|', '>', ';']).unwrap_or(command.len());
                let words = command[..end]
                    .split_whitespace()
                    .map(|word| word.trim_matches(['"', '\'']));
                if let Err(error) = Arguments::try_parse_from(words) {
                    let is_help = !error.use_stderr();
                    assert!(is_help, "{}: {command}: {error}", path.display());
                }
                count += 1;
            }
        }
        assert!(count > 15, "{count} commands");
    }

    #[test]
    fn no_two_arguments_are_in_each_others_way() {
        // Subcommands are looked at only when asked for, in debug builds only.
        Arguments::command().debug_assert();
    }
}
