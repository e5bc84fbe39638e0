//! Results on standard output, each format written as its parts come in.

use std::io::Write;

use anyhow::Result;
use neverlapse::inventory::Problem;
use neverlapse::report::page::{self, page};
use neverlapse::report::{Counts, EndpointReport, Report, SCHEMA};
use neverlapse::text::printable_json;
use neverlapse::timestamp::Timestamp;

use crate::check::Format;
use crate::prometheus::Metrics;
use crate::source::Mistakes;
use crate::table::Table;
use crate::terminal::Terminal;

/// One of the formats under way.
pub(crate) struct Output<W> {
    out: W,
    began: Timestamp,
    kind: Kind,
}

/// What stands under the endpoints.
pub(crate) struct Summary {
    pub(crate) counts: Counts,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    /// Lines and entries that could not be understood.
    pub(crate) mistakes: u64,
}

#[cfg(test)]
impl Summary {
    /// Of a run that began on 2026-11-24 at noon.
    pub(crate) fn sample(counts: Counts, lasted: time::Duration, mistakes: u64) -> Self {
        let began = neverlapse::timestamp!(2026-11-24 12:00 UTC);
        Self {
            counts,
            began,
            ended: began + lasted,
            mistakes,
        }
    }
}

enum Kind {
    Table(Table),
    Json { first: bool },
    Jsonl,
    Prometheus(Metrics),
    Html(Worst),
}

/// As many endpoints as a page shows, the worst of all.
#[derive(Default)]
struct Worst(Vec<EndpointReport>);

impl Worst {
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

    fn report(mut self, summary: &Summary, mistakes: Vec<String>) -> Report {
        self.cut();
        let mut report = Report::new(summary.began, summary.ended, self.0);
        report.omitted = (summary.counts.total() as usize).saturating_sub(report.endpoints.len());
        report.counts = summary.counts;
        report.mistakes = mistakes.into_iter().map(Problem::new).collect();
        report
    }
}

impl<W: Write> Output<W> {
    pub(crate) fn new(format: Format, mut out: W, began: Timestamp) -> Result<Self> {
        let kind = match format {
            Format::Table => Kind::Table(Table::default()),
            Format::Json => {
                write!(
                    out,
                    "{{\"schema\":{SCHEMA:?},\"started_at\":\"{began}\",\"endpoints\":["
                )?;
                Kind::Json { first: true }
            }
            Format::Jsonl => Kind::Jsonl,
            Format::Prometheus => Kind::Prometheus(Metrics::default()),
            Format::Html => Kind::Html(Worst::default()),
        };
        Ok(Self { out, began, kind })
    }

    /// Takes one endpoint: prints it, or keeps no more of it than the format needs.
    pub(crate) fn endpoint(&mut self, report: &EndpointReport) -> Result<()> {
        match &mut self.kind {
            Kind::Table(table) => table.add(report),
            Kind::Json { first } => {
                let separator = if std::mem::take(first) { "\n" } else { ",\n" };
                write!(self.out, "{separator}{}", json(report)?)?;
            }
            Kind::Jsonl => {
                writeln!(self.out, "{}", json(report)?)?;
                // Whoever reads a stream wants each line when it is there.
                self.out.flush()?;
            }
            Kind::Prometheus(metrics) => metrics.add(report),
            Kind::Html(worst) => worst.add(report),
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, counts: Counts, ended: Timestamp, mistakes: &Mistakes) -> Result<()> {
        let summary = Summary {
            counts,
            began: self.began,
            ended,
            mistakes: mistakes.count(),
        };
        match self.kind {
            Kind::Table(table) => table.print(&mut self.out, Terminal::of_stdout(), &summary)?,
            Kind::Json { .. } => {
                let (ended, counts, mistakes) = (ended, json(&counts)?, json(&mistakes.first())?);
                let mistakes = match mistakes.as_str() {
                    "[]" => String::new(),
                    some => format!(",\"mistakes\":{some}"),
                };
                writeln!(
                    self.out,
                    "\n],\"finished_at\":\"{ended}\",\"counts\":{counts}{mistakes}}}"
                )?;
            }
            Kind::Jsonl => {}
            Kind::Prometheus(metrics) => metrics.print(&mut self.out, &summary)?,
            Kind::Html(worst) => {
                let report = worst.report(&summary, mistakes.first());
                self.out.write_all(page(&report, None)?.as_bytes())?;
            }
        }
        Ok(self.out.flush()?)
    }
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<String> {
    Ok(printable_json(serde_json::to_string(value)?))
}
