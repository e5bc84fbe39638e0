//! The output of a monitoring plugin: one line with the worst and with performance data, then one
//! line for each certificate and endpoint that is not fine.

use std::io::{self, Write};

use neverlapse::finding::Severity;
use neverlapse::text::counted;

use super::overview::{self, Overview};
use crate::check::plugin::{Status, line, row};

pub(super) fn print(overview: &Overview, out: &mut impl Write) -> io::Result<()> {
    let mut worst = Vec::new();
    for certificate in &overview.certificates {
        let finding = certificate.findings.iter().max_by_key(|finding| finding.severity);
        let message = finding.map_or("", |finding| finding.message.as_str());
        let status = overview::status(certificate, overview.now);
        worst.push((status, line(&format!("certificate {}", certificate.name), message)));
    }
    worst.extend(overview.watched().map(row));
    worst.retain(|(status, _)| *status > Severity::Ok);
    worst.sort_by(|(a, _), (b, _)| b.cmp(a));

    let certificates = counted(overview.certificates.len() as u64, "certificate", "certificates");
    let endpoints = counted(overview.watched().count() as u64, "endpoint", "endpoints");
    let counts = [Severity::Critical, Severity::Unknown, Severity::Warning].map(|severity| {
        let count = worst.iter().filter(|(status, _)| *status == severity).count();
        (severity, count as u64)
    });
    let first_end = overview.certificates.iter().filter_map(|found| found.not_after()).min();
    Status {
        status: overview.status(),
        worst: &worst,
        totals: format!("{certificates}, {endpoints}"),
        counts: &counts,
        left: first_end.map(|end| end - overview.now),
    }
    .print(out)
}
