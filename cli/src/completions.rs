//! `neverlapse completions`: a script that completes our commands and options in a shell.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::{Shell, generate};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, mut command: Command) -> Result<u8> {
    // Into memory first: clap_complete panics when standard output is closed.
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, "neverlapse", &mut script);
    io::stdout().write_all(&script)?;
    Ok(0)
}

const EXAMPLES: &str = "\
Examples:
  neverlapse completions bash > /etc/bash_completion.d/neverlapse
  neverlapse completions zsh > \"${fpath[1]}/_neverlapse\"
  neverlapse completions fish > ~/.config/fish/completions/neverlapse.fish";
