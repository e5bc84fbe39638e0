//! The output of a monitoring plugin: one line with the worst and with performance data, then one
//! line for each endpoint that is not fine.
//!
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use std::io::{self, Write};

use neverlapse::finding::Severity;
use neverlapse::report::EndpointReport;
use neverlapse::text::{counted, cut, printable};
use time::Duration;

use super::summary::Summary;

/// What is kept of the endpoints until the run ends.
#[derive(Default)]
pub(crate) struct Plugin {
    /// Worst first; no more than are printed.
    worst: Vec<EndpointReport>,
    /// Of the certificate that expires first.
    seconds_left: Option<i64>,
}

impl Plugin {
    pub(super) fn add(&mut self, report: &EndpointReport) {
        self.seconds_left = self.seconds_left.into_iter().chain(report.seconds_left).min();
        if report.status == Severity::Ok {
            return;
        }
        self.worst.push(report.clone());
        self.worst.sort_by(EndpointReport::worst_first);
        self.worst.truncate(LINES + 1);
    }

    pub(super) fn print(&self, out: &mut impl Write, summary: &Summary) -> io::Result<()> {
        let counts = summary.counts;
        let endpoints = counted(counts.total(), "endpoint", "endpoints");
        let problems = match summary.problem_count {
            0 => String::new(),
            some => format!(", {some} not understood"),
        };

        let worst: Vec<_> = self.worst.iter().map(row).collect();
        Status {
            status: summary.status(),
            worst: &worst,
            totals: format!("{endpoints}: {counts}{problems}"),
            counts: &counts.by_status(),
            left: self.seconds_left.map(Duration::seconds),
        }
        .print(out)
    }
}

/// What a plugin prints.
pub(crate) struct Status<'a> {
    pub(crate) status: Severity,
    /// What is not fine: a line for each, worst first.
    pub(crate) worst: &'a [(Severity, String)],
    pub(crate) totals: String,
    /// How many there are of each status.
    pub(crate) counts: &'a [(Severity, u64)],
    /// Until the first certificate expires.
    pub(crate) left: Option<Duration>,
}

impl Status<'_> {
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let status = self.status.to_string().to_uppercase();
        let worst = self
            .worst
            .first()
            .map_or_else(String::new, |(_, line)| format!("{line}; "));
        write!(out, "NEVERLAPSE {status} - {worst}{} |", self.totals)?;

        for (status, count) in self.counts {
            write!(out, " {status}={count}")?;
        }
        if let Some(left) = self.left {
            write!(out, " days_left={:.1}", left.as_seconds_f64() / 86_400.0)?;
        }
        writeln!(out)?;

        for (status, line) in self.worst.iter().skip(1).take(LINES) {
            writeln!(out, "{} {line}", status.to_string().to_uppercase())?;
        }
        Ok(())
    }
}

/// The row of an endpoint: its status, and its worst finding.
pub(crate) fn row(report: &EndpointReport) -> (Severity, String) {
    let merged = report.merged();
    let finding = merged.first().map_or("", |merged| merged.finding.message.as_str());
    (report.status, line(&report.endpoint, finding))
}

/// A place and its worst finding. A bar would begin the performance data.
pub(crate) fn line(place: &str, message: &str) -> String {
    let text = match message {
        "" => place.to_owned(),
        message => format!("{place}: {message}"),
    };
    cut(&printable(&text), LENGTH).replace('|', "/")
}

/// Below the first one, which has the worst.
const LINES: usize = 50;
const LENGTH: usize = 300;

#[cfg(test)]
mod tests {
    use neverlapse::report::Counts;

    use super::*;

    fn print(reports: &[&str], counts: Counts) -> String {
        let mut plugin = Plugin::default();
        for report in reports {
            plugin.add(&serde_json::from_str(report).unwrap());
        }
        let mut out = Vec::new();
        let summary = Summary::sample(counts, time::Duration::SECOND, 0);
        plugin.print(&mut out, &summary).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_line_has_the_worst_and_the_numbers() {
        let fine =
            r#"{"endpoint": "a:443", "status": "ok", "seconds_left": 864000, "observations": [], "findings": []}"#;
        let old = r#"{"endpoint": "b:443", "status": "critical", "seconds_left": -43200, "observations": [], "findings": [
            {"code": "self_signed", "severity": "critical", "subject": "x", "message": "self|signed\nby hand"}]}"#;
        let dark = r#"{"endpoint": "c:443", "status": "unknown", "observations": [], "findings": [
            {"code": "connect_failed", "severity": "unknown", "reason": "x", "message": "no TCP connection: x"}]}"#;

        let all = Counts {
            ok: 1,
            ..Counts::default()
        };
        assert_eq!(
            print(&[fine], all),
            "NEVERLAPSE OK - 1 endpoint: 0 critical, 0 unknown, 0 warning, 1 ok | critical=0 unknown=0 warning=0 ok=1 days_left=10.0\n"
        );
        let all = Counts {
            ok: 1,
            critical: 1,
            unknown: 1,
            ..Counts::default()
        };
        assert_eq!(
            print(&[dark, fine, old], all),
            "NEVERLAPSE CRITICAL - b:443: self/signed\\nby hand; 3 endpoints: 1 critical, 1 unknown, 0 warning, 1 ok | \
             critical=1 unknown=1 warning=0 ok=1 days_left=-0.5\n\
             UNKNOWN c:443: no TCP connection: x\n"
        );
    }
}
