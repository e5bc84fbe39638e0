//! `neverlapse plan`: what would be renewed now, and why. Orders nothing.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Color};
use neverlapse::bucket::store::Store;
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::inventory::{Inventory, Managed};
use neverlapse::renewal::{Decision, Renewal, decide};
use neverlapse::text::{counted, printable};
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

    let now = Timestamp::now();
    let mut due = 0;
    let mut grid = Terminal::of_stdout().grid();
    grid.set_header(["CERTIFICATE", "VALID UNTIL", "ISSUER", "DECISION"]);
    for certificate in &inventory.certificates {
        let plan = Plan::read(&stack.store, &inventory, certificate, now).await?;
        due += usize::from(plan.is_due());
        grid.add_row(plan.cells());
    }
    Terminal::wrap_last(&mut grid);

    let mut out = io::stdout().lock();
    if grid.row_count() > 0 {
        writeln!(out, "{}\n", grid.trim_fmt())?;
    }
    let certificates = counted(inventory.certificates.len() as u64, "certificate", "certificates");
    writeln!(out, "{certificates}, {due} due")?;
    Ok(if inventory.problems.is_empty() { 0 } else { PROBLEMS })
}

/// What the renewer would decide for a certificate, and what it decides by.
struct Plan {
    name: String,
    current: Option<Current>,
    renewal: Option<Renewal>,
    decision: Decision,
}

impl Plan {
    async fn read(store: &Store, inventory: &Inventory, certificate: &Managed, now: Timestamp) -> Result<Self> {
        let current = store.document::<Current>(&current_key(&certificate.name)).await?;
        let current = current.map(|found| found.value);
        let renewal = store.document::<Renewal>(&Renewal::key(&certificate.name)).await?;
        let renewal = renewal.map(|found| found.value);
        Ok(Self {
            name: certificate.name.clone(),
            decision: decide(
                &inventory.issuers,
                certificate,
                current.as_ref(),
                renewal.as_ref(),
                None,
                now,
            ),
            current,
            renewal,
        })
    }

    fn is_due(&self) -> bool {
        matches!(self.decision, Decision::Due { .. })
    }

    fn cells(&self) -> [Cell; 4] {
        let (not_after, issuer) = match &self.current {
            Some(Current { facts, .. }) => (facts.not_after.to_string(), facts.issuer.name.clone()),
            None => ("-".to_owned(), "-".to_owned()),
        };

        let mut decision = printable(&self.decision.to_string());
        if let Some(failure) = self.renewal.as_ref().and_then(|renewal| renewal.failure.as_ref()) {
            decision.push_str(&format!(
                "\nfailed {} times since {}: {}",
                failure.count,
                failure.since,
                printable(&failure.problem)
            ));
        }
        let color = if self.is_due() { Color::Yellow } else { Color::Green };

        [
            Cell::new(&self.name),
            Cell::new(not_after),
            Cell::new(issuer),
            Cell::new(decision).fg(color),
        ]
    }
}

/// The inventory has problems.
const PROBLEMS: u8 = 1;
const EXAMPLES: &str = "\
Examples:
  neverlapse plan
  neverlapse plan --stack neverlapse-staging";
