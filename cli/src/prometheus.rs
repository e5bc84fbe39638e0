//! The text format of Prometheus, for node_exporter's textfile collector.

use std::io::Write;

use anyhow::Result;
use neverlapse::report::{Counts, EndpointReport};
use time::OffsetDateTime;

/// What is kept of each endpoint: samples of one metric must stand together.
#[derive(Default)]
pub(crate) struct Metrics {
    not_after: Vec<String>,
    status: Vec<String>,
    findings: Vec<String>,
}

impl Metrics {
    pub(crate) fn add(&mut self, report: &EndpointReport) {
        let endpoint = label(&report.endpoint);
        if let Some(end) = report.not_after {
            let end = end.unix_timestamp();
            self.not_after.push(format!(
                "neverlapse_endpoint_not_after_timestamp_seconds{{endpoint=\"{endpoint}\"}} {end}"
            ));
        }
        let status = report.status.exit_code();
        self.status.push(format!(
            "neverlapse_endpoint_status{{endpoint=\"{endpoint}\"}} {status}"
        ));
        for (address, finding) in report.all_findings() {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            let (code, severity) = (finding.kind.code(), finding.severity);
            let sample = format!(
                "neverlapse_finding{{endpoint=\"{endpoint}\",address=\"{address}\",code=\"{code}\",severity=\"{severity}\"}} 1"
            );
            // A code may occur twice at an address (two weak issuers); a sample may not.
            if !self.findings.iter().rev().take(NEAR).any(|near| *near == sample) {
                self.findings.push(sample);
            }
        }
    }

    pub(crate) fn print(self, out: &mut impl Write, counts: &Counts, ended: OffsetDateTime) -> Result<()> {
        let Counts {
            ok,
            warning,
            critical,
            unknown,
        } = counts;
        let count = |status: &str, count: &u64| format!("neverlapse_endpoints{{status=\"{status}\"}} {count}");
        let counts = vec![
            count("ok", ok),
            count("warning", warning),
            count("critical", critical),
            count("unknown", unknown),
        ];
        let ended = vec![format!("neverlapse_run_timestamp_seconds {}", ended.unix_timestamp())];
        for (name, help, samples) in [
            (
                "neverlapse_endpoint_not_after_timestamp_seconds",
                "When the endpoint's leaf certificate ends.",
                self.not_after,
            ),
            (
                "neverlapse_endpoint_status",
                "0 ok, 1 warning, 2 critical, 3 unknown.",
                self.status,
            ),
            ("neverlapse_finding", "What is wrong with an endpoint.", self.findings),
            ("neverlapse_endpoints", "Endpoints by status.", counts),
            ("neverlapse_run_timestamp_seconds", "When the run ended.", ended),
        ] {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")?;
            for sample in samples {
                writeln!(out, "{sample}")?;
            }
        }
        Ok(())
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

const NEAR: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
