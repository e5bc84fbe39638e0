//! Results on standard output; each format is written as its parts come in.

use std::io::Write;
use std::mem;

use anyhow::Result;
use neverlapse::inventory::Problem;
use neverlapse::report::page::{self, page};
use neverlapse::report::{EndpointReport, Report, SCHEMA};
use neverlapse::text::printable_json;
use neverlapse::timestamp::Timestamp;
use serde::Serialize;

use super::plugin::Plugin;
use super::prometheus::Metrics;
use super::summary::Summary;
use super::table::Table;
use crate::format::Format;
use crate::terminal::Terminal;

/// A format that is being written.
pub(crate) struct Output<W> {
    out: W,
    kind: Kind,
}

enum Kind {
    Table(Table),
    Json { first: bool },
    Jsonl,
    Prometheus(Metrics),
    Plugin(Plugin),
    Html(Worst),
}

impl<W: Write> Output<W> {
    pub(crate) fn new(format: Format, mut out: W, began: Timestamp) -> Result<Self> {
        let kind = match format {
            Format::Table => Kind::Table(Table::default()),
            Format::Json => {
                write!(
                    out,
                    "{{\"schema\":{SCHEMA:?},\"started_at\":\"{}\",\"endpoints\":[",
                    began.rfc3339()
                )?;
                Kind::Json { first: true }
            }
            Format::Jsonl => Kind::Jsonl,
            Format::Prometheus => Kind::Prometheus(Metrics::default()),
            Format::Plugin => Kind::Plugin(Plugin::default()),
            Format::Html => Kind::Html(Worst::default()),
        };
        Ok(Self { out, kind })
    }

    /// Takes one endpoint: prints it, or keeps no more of it than the format needs.
    pub(crate) fn endpoint(&mut self, report: &EndpointReport) -> Result<()> {
        match &mut self.kind {
            Kind::Table(table) => table.add(report),
            Kind::Json { first } => {
                let separator = if mem::take(first) { "\n" } else { ",\n" };
                write!(self.out, "{separator}{}", json(report)?)?;
            }
            Kind::Jsonl => {
                writeln!(self.out, "{}", json(report)?)?;
                // The reader of a stream wants each line as soon as it is there.
                self.out.flush()?;
            }
            Kind::Prometheus(metrics) => metrics.add(report),
            Kind::Plugin(plugin) => plugin.add(report),
            Kind::Html(worst) => worst.add(report),
        }
        Ok(())
    }

    /// Prints what the format keeps until the end, and the summary.
    pub(crate) fn finish(mut self, summary: &Summary) -> Result<()> {
        match self.kind {
            Kind::Table(table) => table.print(&mut self.out, Terminal::of_stdout(), summary)?,
            Kind::Json { .. } => {
                let mistakes = if summary.problems.is_empty() {
                    String::new()
                } else {
                    format!(",\"mistakes\":{}", json(&summary.problems)?)
                };
                writeln!(
                    self.out,
                    "\n],\"finished_at\":\"{}\",\"counts\":{}{mistakes}}}",
                    summary.ended.rfc3339(),
                    json(&summary.counts)?
                )?;
            }
            Kind::Jsonl => {}
            Kind::Prometheus(metrics) => metrics.print(&mut self.out, summary)?,
            Kind::Plugin(plugin) => plugin.print(&mut self.out, summary)?,
            Kind::Html(worst) => {
                let page = page(&worst.report(summary), None)?;
                self.out.write_all(page.as_bytes())?;
            }
        }
        Ok(self.out.flush()?)
    }
}

/// As many endpoints as a page shows, the worst of all.
#[derive(Default)]
struct Worst(Vec<EndpointReport>);

impl Worst {
    /// Keeps an endpoint. They are sorted only when twice as many are there as are needed, because
    /// sorting at each of them would take too long.
    fn add(&mut self, report: &EndpointReport) {
        self.0.push(report.clone());
        if self.0.len() >= 2 * page::ENDPOINTS {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.0.sort_by(EndpointReport::worst_first);
        self.0.truncate(page::ENDPOINTS);
    }

    fn report(mut self, summary: &Summary) -> Report {
        self.cut();
        let mut report = Report::new(summary.began, summary.ended, self.0);
        report.omitted = (summary.counts.total() as usize).saturating_sub(report.endpoints.len());
        report.counts = summary.counts;
        report.problems = summary.problems.iter().map(Problem::new).collect();
        report
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    Ok(printable_json(serde_json::to_string(value)?))
}
