//! Results on standard output, each format written as its parts come in.

use std::io::Write;

use anyhow::Result;
use neverlapse::finding::date;
use neverlapse::report::{Counts, EndpointReport, SCHEMA};
use time::OffsetDateTime;

use crate::check::Format;
use crate::prometheus::Metrics;
use crate::table::Table;

/// One of the formats under way.
pub(crate) struct Output<W> {
    out: W,
    began: OffsetDateTime,
    kind: Kind,
}

enum Kind {
    Table(Table),
    Json { first: bool },
    Jsonl,
    Prometheus(Metrics),
}

impl<W: Write> Output<W> {
    pub(crate) fn new(format: Format, mut out: W, began: OffsetDateTime) -> Result<Self> {
        let kind = match format {
            Format::Table => Kind::Table(Table::default()),
            Format::Json => {
                write!(
                    out,
                    "{{\"schema\":{SCHEMA:?},\"started_at\":\"{}\",\"endpoints\":[",
                    date(began)
                )?;
                Kind::Json { first: true }
            }
            Format::Jsonl => Kind::Jsonl,
            Format::Prometheus => Kind::Prometheus(Metrics::default()),
        };
        Ok(Self { out, began, kind })
    }

    /// Takes one endpoint: prints it, or keeps no more of it than the format needs.
    pub(crate) fn endpoint(&mut self, report: EndpointReport) -> Result<()> {
        match &mut self.kind {
            Kind::Table(table) => table.add(report),
            Kind::Json { first } => {
                self.out.write_all(if std::mem::take(first) { b"\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.out, &report)?;
            }
            Kind::Jsonl => {
                serde_json::to_writer(&mut self.out, &report)?;
                self.out.write_all(b"\n")?;
                // Whoever reads a stream wants each line when it is there.
                self.out.flush()?;
            }
            Kind::Prometheus(metrics) => metrics.add(&report),
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, counts: &Counts, ended: OffsetDateTime, mistakes: &[String]) -> Result<()> {
        match self.kind {
            Kind::Table(table) => table.print(&mut self.out, counts, ended - self.began),
            Kind::Json { .. } => {
                let (counts, mistakes) = (serde_json::to_string(counts)?, serde_json::to_string(mistakes)?);
                let ended = date(ended);
                writeln!(
                    self.out,
                    "\n],\"finished_at\":\"{ended}\",\"counts\":{counts},\"mistakes\":{mistakes}}}"
                )?;
                Ok(())
            }
            Kind::Jsonl => Ok(()),
            Kind::Prometheus(metrics) => metrics.print(&mut self.out, counts, ended),
        }
    }
}
