//! The output of a monitoring plugin: one line with the worst and with performance data, then one
//! line for each certificate and endpoint that is not fine.

use std::io::{self, Write};

use neverlapse::finding::Severity;
use neverlapse::text::{counted, cut, printable};

use super::overview::{self, Overview};

pub(super) fn print(overview: &Overview, out: &mut impl Write) -> io::Result<()> {
    let mut worst = Vec::new();
    for certificate in &overview.certificates {
        let finding = certificate.findings.iter().max_by_key(|finding| finding.severity);
        let message = finding.map_or("", |finding| finding.message.as_str());
        let status = overview::status(certificate, overview.now);
        worst.push((status, line(&format!("certificate {}", certificate.name), message)));
    }
    for endpoint in overview.watched() {
        let merged = endpoint.merged();
        let message = merged.first().map_or("", |merged| merged.finding.message.as_str());
        worst.push((endpoint.status, line(&endpoint.endpoint, message)));
    }
    worst.retain(|(status, _)| *status > Severity::Ok);
    worst.sort_by(|(a, _), (b, _)| b.cmp(a));

    let certificates = counted(overview.certificates.len() as u64, "certificate", "certificates");
    let endpoints = counted(overview.watched().count() as u64, "endpoint", "endpoints");
    let first = worst.first().map_or_else(String::new, |(_, line)| format!("{line}; "));
    let status = overview.status().to_string().to_uppercase();
    write!(out, "NEVERLAPSE {status} - {first}{certificates}, {endpoints} |")?;
    for severity in [Severity::Critical, Severity::Unknown, Severity::Warning] {
        let count = worst.iter().filter(|(status, _)| *status == severity).count();
        write!(out, " {severity}={count}")?;
    }
    if let Some(first) = overview.certificates.iter().filter_map(|found| found.not_after()).min() {
        write!(
            out,
            " days_left={:.1}",
            (first - overview.now).as_seconds_f64() / 86_400.0
        )?;
    }
    writeln!(out)?;

    for (status, line) in worst.iter().skip(1).take(LINES) {
        writeln!(out, "{} {line}", status.to_string().to_uppercase())?;
    }
    Ok(())
}

/// A place and its worst finding. A bar would begin the performance data.
fn line(place: &str, message: &str) -> String {
    let text = if message.is_empty() {
        place.to_owned()
    } else {
        format!("{place}: {message}")
    };
    cut(&printable(&text), LENGTH).replace('|', "/")
}

const LINES: usize = 50;
const LENGTH: usize = 300;
