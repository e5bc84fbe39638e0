//! `neverlapse plan`: what would be renewed now, and why. Orders nothing.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Color};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::renewal::{Decision, Renewal, decide};
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName};
use crate::terminal::Terminal;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    for mistake in &inventory.problems {
        eprintln!("error: inventory.toml {}", printable(&mistake.to_string()));
    }
    let (terminal, now) = (Terminal::of_stdout(), Timestamp::now());
    let mut grid = terminal.grid();
    grid.set_header(["CERTIFICATE", "VALID UNTIL", "ISSUER", "DECISION"]);
    let mut due = 0;
    for certificate in &inventory.certificates {
        let current = stack.store.json::<Current>(&current_key(&certificate.name)).await?;
        let renewal = stack.store.json::<Renewal>(&Renewal::key(&certificate.name)).await?;
        let (current, renewal) = (current.map(|found| found.value), renewal.map(|found| found.value));
        let decision = decide(certificate, current.as_ref(), renewal.as_ref(), None, now);
        let color = match decision {
            Decision::NotDue { .. } => Color::Green,
            Decision::Due { .. } => Color::Yellow,
        };
        due += usize::from(color == Color::Yellow);
        let mut said = printable(&decision.to_string());
        if let Some(failure) = renewal.and_then(|renewal| renewal.failure) {
            said.push_str(&format!(
                "\nfailed {} times since {}: {}",
                failure.count,
                failure.since,
                printable(&failure.problem)
            ));
        }
        let until = current
            .as_ref()
            .map_or_else(|| "-".to_owned(), |current| current.facts.not_after.to_string());
        let issuer = current.map_or_else(|| "-".to_owned(), |current| current.facts.issuer.name);
        grid.add_row([
            Cell::new(&certificate.name),
            Cell::new(until),
            Cell::new(issuer),
            Cell::new(said).fg(color),
        ]);
    }
    Terminal::wrap_last(&mut grid);
    let mut out = io::stdout().lock();
    if grid.row_count() > 0 {
        writeln!(out, "{}\n", grid.trim_fmt())?;
    }
    writeln!(out, "{} certificates, {due} due", inventory.certificates.len())?;
    Ok(if inventory.problems.is_empty() { 0 } else { MISTAKEN })
}

const MISTAKEN: u8 = 1;
const EXAMPLES: &str = "\
Examples:
  neverlapse plan
  neverlapse plan --stack neverlapse-staging";
