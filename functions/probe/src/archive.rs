//! Where reports are kept: the last one for programs and for people, and one a run for later.

use lambda_runtime::tracing::{info, warn};
use neverlapse::bucket::store::{Error, Expecting, LATEST_JSON, LATEST_PAGE, Object, Store};
use neverlapse::report::page::page;
use neverlapse::report::{CertificateReport, Report};
use neverlapse::timestamp::Timestamp;
use serde::Deserialize;

/// What the last run said of managed certificates. That it cannot be read costs more requests, and nothing else.
pub(crate) async fn certificates(store: &Store) -> Vec<CertificateReport> {
    /// The rest of a report is large, and skipped.
    #[derive(Deserialize)]
    struct Managed {
        #[serde(default)]
        certificates: Vec<CertificateReport>,
    }
    match store.json::<Managed>(LATEST_JSON).await {
        Ok(last) => last.map_or_else(Vec::new, |last| last.value.certificates),
        Err(failed) => {
            warn!(key = LATEST_JSON, %failed, "the last report cannot be read");
            Vec::new()
        }
    }
}

/// Writes `reports/latest.json`, a dated copy of it, and the page. What can be written is, also after one that cannot.
pub(crate) async fn keep(store: &Store, report: &Report, place: &str) -> Result<(), String> {
    let json = serde_json::to_vec(report).map_err(|error| format!("the report is no JSON: {error}"))?;
    let dated = dated(report.started_at);
    let written = [
        write(store, &dated, json.clone(), JSON).await,
        write(store, LATEST_JSON, json, JSON).await,
        match page(report, Some(place)) {
            Ok(page) => write(store, LATEST_PAGE, page.into_bytes(), HTML).await,
            Err(error) => Err(format!("the report is no page: {error}")),
        },
    ];
    let failed: Vec<_> = written.into_iter().filter_map(Result::err).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("; ")),
    }
}

async fn write(store: &Store, key: &str, body: Vec<u8>, content_type: &'static str) -> Result<(), String> {
    let bytes = body.len();
    let object = Object::new(body, content_type);
    let written = store.put(key, object, Expecting::Anything).await;
    written.map_err(|error: Error| error.to_string())?;
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
