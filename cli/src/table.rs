//! The table for people: worst first, every finding readable.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table as Grid, Width, presets};
use neverlapse::alert::{merged, printable};
use neverlapse::finding::{Severity, Span};
use neverlapse::report::{Counts, EndpointReport};
use time::Duration;

/// The worst endpoints so far; the others are only counted.
#[derive(Default)]
pub(crate) struct Table {
    worst: BTreeSet<Row>,
    more: u64,
}

struct Row(EndpointReport, u64);

impl Table {
    /// Keeps an endpoint if it is among the worst.
    pub(crate) fn add(&mut self, report: EndpointReport) {
        // The number tells apart what is equal otherwise, such as an endpoint that was given twice.
        self.worst.insert(Row(report, self.worst.len() as u64 + self.more));
        if self.worst.len() > ROWS {
            self.worst.pop_last();
            self.more += 1;
        }
    }

    pub(crate) fn print(self, out: &mut impl Write, counts: &Counts, took: Duration) -> Result<()> {
        let mut grid = Grid::new();
        grid.load_preset(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if !io::stdout().is_terminal() {
            grid.set_width(PIPED_WIDTH);
        }
        if !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            grid.force_no_tty();
        }
        grid.set_header(["STATUS", "ENDPOINT", "TIME LEFT", "WHAT WAS SEEN"]);
        grid.add_rows(self.worst.iter().map(|Row(report, _)| row(report)));
        for (column, width) in [(0, 8), (2, 10)] {
            if let Some(column) = grid.column_mut(column) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
        }
        if !self.worst.is_empty() {
            writeln!(out, "{grid}")?;
        }
        if self.more > 0 {
            writeln!(
                out,
                "+{} more, none of them worse (--format jsonl has them all)",
                self.more
            )?;
        }
        let Counts {
            ok,
            warning,
            critical,
            unknown,
        } = counts;
        let seconds = took.as_seconds_f64();
        let noun = if counts.total() == 1 { "endpoint" } else { "endpoints" };
        let total = counts.total();
        writeln!(
            out,
            "{total} {noun}: {critical} critical, {unknown} unknown, {warning} warning, {ok} ok in {seconds:.1} s"
        )?;
        Ok(())
    }
}

fn row(report: &EndpointReport) -> Vec<Cell> {
    let color = match report.status {
        Severity::Ok => Color::Green,
        Severity::Warning => Color::Yellow,
        Severity::Unknown => Color::Magenta,
        Severity::Critical => Color::Red,
    };
    let status = Cell::new(report.status).fg(color).add_attribute(Attribute::Bold);
    let endpoint = match &report.unicode {
        Some(unicode) => format!("{}\n{}", report.endpoint, printable(unicode)),
        None => report.endpoint.clone(),
    };
    let left = match report.seconds_left {
        Some(seconds) if seconds < 0 => format!("expired\n{} ago", Span(Duration::seconds(-seconds))),
        Some(seconds) => Span(Duration::seconds(seconds)).to_string(),
        None => "?".to_owned(),
    };
    vec![status, Cell::new(endpoint), Cell::new(left), Cell::new(seen(report))]
}

/// Every finding on a line of its own; without any, who issued the certificate.
fn seen(report: &EndpointReport) -> String {
    let mut lines: Vec<String> = merged(report)
        .into_iter()
        .map(|(message, addresses)| match addresses.as_slice() {
            some if some.is_empty() || report.observations.len() < 2 => printable(message),
            some => format!("{} [{}]", printable(message), some.join(", ")),
        })
        .collect();
    if lines.is_empty() {
        let leaf = report.observations.iter().find_map(|seen| seen.leaf.as_ref());
        lines.extend(leaf.map(|leaf| format!("{}, issued by {}", leaf.key, printable(&leaf.issuer))));
    }
    lines.extend(
        report
            .skipped
            .iter()
            .map(|skipped| format!("{} skipped: {}", skipped.address, skipped.reason)),
    );
    lines.join("\n")
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.worst_first(&other.0).then(self.1.cmp(&other.1))
    }
}

const ROWS: usize = 1_000;
const PIPED_WIDTH: u16 = 120;
