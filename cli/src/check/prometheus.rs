//! The text format of Prometheus, for node_exporter's textfile collector.
//!
//! Samples of one metric must stand together and none may occur twice, so the little that they say
//! is kept of each endpoint until the run ends.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;

use neverlapse::finding::{Code, Severity};
use neverlapse::report::EndpointReport;

use super::summary::Summary;

/// What is kept of each endpoint. One that was given twice counts once, as the worst that was seen
/// of it.
#[derive(Default)]
pub(crate) struct Metrics {
    endpoints: BTreeMap<String, State>,
    findings: BTreeSet<Found>,
}

/// One finding, as far as it is a metric.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    endpoint: String,
    address: Option<SocketAddr>,
    code: Code,
    severity: Severity,
    /// The key of the certificate that it is about, where the server has two.
    certificate: Option<String>,
}

struct State {
    status: Severity,
    not_after: Option<i64>,
}

impl Metrics {
    pub(crate) fn add(&mut self, report: &EndpointReport) {
        let not_after = report.not_after.map(|not_after| not_after.unix());
        let state = self.endpoints.entry(report.endpoint.clone()).or_insert(State {
            status: report.status,
            not_after,
        });
        state.status = state.status.max(report.status);
        state.not_after = state.not_after.into_iter().chain(not_after).min();

        let findings = report.all_findings();
        for (address, finding) in findings.filter(|(_, finding)| finding.severity > Severity::Ok) {
            self.findings.insert(Found {
                endpoint: report.endpoint.clone(),
                address,
                code: finding.kind.code().clone(),
                severity: finding.severity,
                certificate: finding.certificate.clone(),
            });
        }
    }

    pub(super) fn print(&self, out: &mut impl Write, summary: &Summary) -> io::Result<()> {
        self.print_endpoints(out)?;
        print_run(out, summary)
    }

    /// What is known of the endpoints, without the run that found it.
    pub(crate) fn print_endpoints(&self, out: &mut impl Write) -> io::Result<()> {
        self.print_not_after(out)?;
        self.print_status(out)?;
        self.print_findings(out)
    }

    fn print_not_after(&self, out: &mut impl Write) -> io::Result<()> {
        let name = "neverlapse_endpoint_not_after_timestamp_seconds";
        describe(
            out,
            name,
            "When the certificate of the endpoint expires; the first, if its addresses serve several.",
        )?;
        for (endpoint, state) in &self.endpoints {
            if let Some(not_after) = state.not_after {
                sample(out, name, &[("endpoint", endpoint)], not_after)?;
            }
        }
        Ok(())
    }

    fn print_status(&self, out: &mut impl Write) -> io::Result<()> {
        let name = "neverlapse_endpoint_status";
        describe(
            out,
            name,
            "State of the endpoint: 0 ok, 1 warning, 2 critical, 3 unknown.",
        )?;
        for (endpoint, state) in &self.endpoints {
            sample(out, name, &[("endpoint", endpoint)], state.status.exit_code())?;
        }
        Ok(())
    }

    fn print_findings(&self, out: &mut impl Write) -> io::Result<()> {
        let name = "neverlapse_finding";
        describe(
            out,
            name,
            "What is wrong with an endpoint; without an address, with the endpoint as a whole.",
        )?;

        for found in &self.findings {
            let address = found.address.map(|address| address.to_string()).unwrap_or_default();
            let labels: [(_, &dyn Display); 4] = [
                ("endpoint", &found.endpoint),
                ("address", &address),
                ("code", &found.code),
                ("severity", &found.severity),
            ];
            let certificate = found
                .certificate
                .as_ref()
                .map(|key| ("certificate", key as &dyn Display));
            let labels: Vec<_> = labels.into_iter().chain(certificate).collect();
            sample(out, name, &labels, 1)?;
        }
        Ok(())
    }
}

fn print_run(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let name = "neverlapse_run_endpoints";
    describe(out, name, "Endpoints that the last run checked, by status.")?;
    let counts = summary.counts;
    for (status, count) in [
        ("ok", counts.ok),
        ("warning", counts.warning),
        ("critical", counts.critical),
        ("unknown", counts.unknown),
    ] {
        sample(out, name, &[("status", &status)], count)?;
    }

    let name = "neverlapse_run_mistakes";
    describe(out, name, "Lines and entries that the last run could not understand.")?;
    sample(out, name, &[], summary.problem_count)?;

    let name = "neverlapse_run_duration_seconds";
    describe(out, name, "How long the last run took.")?;
    sample(out, name, &[], (summary.ended - summary.began).as_seconds_f64())?;

    let name = "neverlapse_run_timestamp_seconds";
    describe(out, name, "When the last run ended.")?;
    sample(out, name, &[], summary.ended.unix())
}

pub(crate) fn describe(out: &mut impl Write, name: &str, help: &str) -> io::Result<()> {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")
}

pub(crate) fn sample(
    out: &mut impl Write,
    name: &str,
    labels: &[(&str, &dyn Display)],
    value: impl Display,
) -> io::Result<()> {
    if labels.is_empty() {
        return writeln!(out, "{name} {value}");
    }
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{}\"", escaped(&value.to_string())))
        .collect();
    writeln!(out, "{name}{{{}}} {value}", labels.join(","))
}

/// The three characters that a label's value may not hold as they are.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use neverlapse::report::Counts;

    use super::*;

    fn print(reports: &[&str]) -> String {
        let mut metrics = Metrics::default();
        for report in reports {
            metrics.add(&serde_json::from_str(report).unwrap());
        }
        let counts = Counts {
            critical: 1,
            ..Counts::default()
        };
        let summary = Summary::sample(counts, time::Duration::milliseconds(1_500), 2);
        let mut out = Vec::new();
        metrics.print(&mut out, &summary).unwrap();
        String::from_utf8(out).unwrap()
    }

    const EXPIRED: &str = r#"{"endpoint": "[::1]:443", "status": "critical", "not_after": "1970-01-01T00:01:00Z",
        "observations": [{"address": "[::1]:443", "elapsed_ms": 1, "tries": 1, "findings": [
            {"code": "expired", "severity": "critical", "message": "", "not_after": "1970-01-01T00:01:00Z"}]}],
        "findings": []}"#;
    const SILENT: &str = r#"{"endpoint": "[::1]:443", "status": "unknown", "observations": [], "findings": [
        {"code": "dns_failed", "severity": "unknown", "message": "", "name": "a\"b", "reason": ""}]}"#;

    #[test]
    fn the_whole_page() {
        let page = print(&[EXPIRED]);
        let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "neverlapse_endpoint_not_after_timestamp_seconds{endpoint=\"[::1]:443\"} 60",
            "neverlapse_endpoint_status{endpoint=\"[::1]:443\"} 2",
            "neverlapse_finding{endpoint=\"[::1]:443\",address=\"[::1]:443\",code=\"expired\",severity=\"critical\"} 1",
            "neverlapse_run_endpoints{status=\"ok\"} 0",
            "neverlapse_run_endpoints{status=\"warning\"} 0",
            "neverlapse_run_endpoints{status=\"critical\"} 1",
            "neverlapse_run_endpoints{status=\"unknown\"} 0",
            "neverlapse_run_mistakes 2",
            "neverlapse_run_duration_seconds 1.5",
            "neverlapse_run_timestamp_seconds 1795521601",
        ];
        assert_eq!(samples, expected);
        assert_eq!(page.matches("# TYPE ").count(), page.matches("# HELP ").count());
    }

    #[test]
    fn an_endpoint_given_twice_is_one_sample_with_the_worst_of_both() {
        let page = print(&[SILENT, EXPIRED, EXPIRED]);
        let of_status: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("neverlapse_endpoint_status{"))
            .collect();
        assert_eq!(of_status, ["neverlapse_endpoint_status{endpoint=\"[::1]:443\"} 2"]);
        assert_eq!(page.matches("neverlapse_finding{").count(), 2);
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
