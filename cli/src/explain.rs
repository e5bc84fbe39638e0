//! `neverlapse explain`: the entry of a finding's code in docs/findings.md.

use std::io::{self, Write};

use anyhow::{Result, anyhow};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// As alerts have it in brackets, and JSON and metrics as `code`
    #[arg(value_name = "CODE")]
    code: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let code = arguments.code.trim_matches(['[', ']']);
    let (_, text) = entries().find(|(heading, _)| *heading == code).ok_or_else(|| {
        let known: Vec<_> = entries().map(|(heading, _)| heading).collect();
        anyhow!("there is no code {code:?} (expected one of {})", known.join(", "))
    })?;
    writeln!(io::stdout(), "{code}\n\n{text}")?;
    Ok(0)
}

/// The codes, each with its text.
fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    let entries = FINDINGS
        .split("\n### ")
        .skip(1)
        .filter_map(|entry| entry.split_once('\n'));
    // The next chapter is not part of a chapter's last entry.
    entries.map(|(code, text)| (code, text.split("\n## ").next().unwrap_or(text).trim()))
}

const FINDINGS: &str = include_str!("../../docs/findings.md");
const EXAMPLES: &str = "\
Examples:
  neverlapse explain incomplete_chain";
