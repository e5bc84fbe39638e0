//! The `neverlapse` command: what the Lambda does, from a laptop or an instance.

mod check;
mod output;
mod prometheus;
mod source;
mod table;
mod validate;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

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
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
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
    let result = match arguments.command {
        Command::Check(arguments) => check::run(*arguments).await,
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "neverlapse", &mut io::stdout());
            Ok(0)
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read us has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
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
