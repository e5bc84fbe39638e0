//! Where reports are kept: the last one for programs and for people, and one per run for later.

use lambda_runtime::tracing::{info, warn};
use neverlapse::bucket::document::Document;
use neverlapse::bucket::store::{Expecting, LATEST_JSON, LATEST_PAGE, Object, Store};
use neverlapse::isolation::isolated;
use neverlapse::report::page::page;
use neverlapse::report::{CertificateReport, Report, SCHEMA};
use neverlapse::timestamp::Timestamp;
use serde::Deserialize;

/// What the last run reported of managed certificates.
///
/// If that cannot be read, more requests to S3 are needed, and nothing else is lost.
pub(crate) async fn certificates(store: &Store) -> Vec<CertificateReport> {
    /// The rest of a report is large, and skipped.
    #[derive(Deserialize)]
    struct Managed {
        #[serde(default)]
        certificates: Vec<CertificateReport>,
    }

    impl Document for Managed {
        const SCHEMA: &'static str = SCHEMA;
        /// What is only of use is not worth the function's memory.
        const LONGEST: u64 = 128 << 20;
    }

    match store.document::<Managed>(LATEST_JSON).await {
        Ok(last) => last.map_or_else(Vec::new, |last| last.value.certificates),
        Err(failed) => {
            warn!(key = LATEST_JSON, %failed, "the last report cannot be read");
            Vec::new()
        }
    }
}

/// Writes a dated copy of the report, `reports/latest.json`, and the page. One that cannot be
/// written does not stop the others; the error names all of them.
pub(crate) async fn write(store: &Store, report: &Report, place: &str) -> Result<(), String> {
    let json = serde_json::to_vec(report).map_err(|error| format!("the report is no JSON: {error}"))?;
    let json = Object::new(json, JSON);
    let results = [
        put(store, &dated(report.started_at), json.clone()).await,
        put(store, LATEST_JSON, json).await,
        match isolated(|| page(report, Some(place))) {
            Ok(Ok(page)) => put(store, LATEST_PAGE, Object::new(page, HTML)).await,
            Ok(Err(error)) => Err(format!("the report is no page: {error}")),
            Err(panicked) => Err(format!("the report is no page: {panicked}")),
        },
    ];

    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("; "))
    }
}

async fn put(store: &Store, key: &str, object: Object<'_>) -> Result<(), String> {
    let bytes = object.body().len();
    let written = store.put(key, object, Expecting::Anything).await;
    written.map_err(|error| error.to_string())?;
    info!(key, bytes, "report written");
    Ok(())
}

/// `reports/2026-11-24/060012Z.json`.
fn dated(at: Timestamp) -> String {
    let at = at.utc();
    let (hour, minute, second) = at.time().as_hms();
    format!("reports/{}/{hour:02}{minute:02}{second:02}Z.json", at.date())
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    #[test]
    fn dated_copies_sort_by_time() {
        assert_eq!(
            dated(timestamp!(2026-11-24 06:00:12 UTC)),
            "reports/2026-11-24/060012Z.json"
        );
        assert_eq!(
            dated(timestamp!(2026-11-24 00:30 +01)),
            "reports/2026-11-23/233000Z.json"
        );
    }
}
