//! One JSON object per line: certificates first, then endpoints, worst first.

use std::io::Write;

use anyhow::Result;
use neverlapse::text::printable_json;

use super::overview::Overview;

pub(super) fn print(overview: &Overview, out: &mut impl Write) -> Result<()> {
    let report = overview.report();
    for certificate in &report.certificates {
        writeln!(out, "{}", printable_json(serde_json::to_string(certificate)?))?;
    }
    for endpoint in &report.endpoints {
        writeln!(out, "{}", printable_json(serde_json::to_string(endpoint)?))?;
    }
    Ok(())
}
