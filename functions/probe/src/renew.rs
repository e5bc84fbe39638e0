//! One request to the renewer a managed certificate and run, with what was seen. Whether anything is due is not for the probe to say.

use aws_sdk_sns::Client;
use futures::stream::{self, StreamExt as _};
use lambda_runtime::tracing::info;
use neverlapse::aws::reason;
use neverlapse::inventory::Managed;
use neverlapse::observation::Revocation;
use neverlapse::renewal::request::{Observed, Request, RequestedBy};
use neverlapse::report::Report;
use neverlapse::timestamp::Timestamp;

/// The requests of a run.
pub(crate) fn requests(certificates: &[Managed], report: &Report, now: Timestamp) -> Vec<Request> {
    let request = |certificate: &Managed| Request {
        observed: observed(certificate, report),
        ..Request::new(&certificate.name, RequestedBy::Probe, now)
    };
    certificates.iter().map(request).collect()
}

fn observed(certificate: &Managed, report: &Report) -> Vec<Observed> {
    let places: Vec<_> = certificate.served_at.iter().map(ToString::to_string).collect();
    let reports = report
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.sni.is_none() && places.contains(&endpoint.endpoint));
    let seen = reports.flat_map(|endpoint| endpoint.observations.iter().map(move |seen| (endpoint, seen)));
    seen.filter_map(|(endpoint, seen)| {
        let leaf = seen.leaf.as_ref()?;
        Some(Observed {
            endpoint: endpoint.endpoint.clone(),
            address: seen.address,
            fingerprint: leaf.fingerprint.clone(),
            not_after: leaf.not_after,
            revoked: matches!(seen.revocation, Some(Revocation::Revoked)),
        })
    })
    .take(OBSERVED)
    .collect()
}

/// Sends them all, also those after one that could not be sent.
pub(crate) async fn publish(sns: &Client, topic: &str, requests: Vec<Request>) -> Result<(), String> {
    let count = requests.len();
    let send = |request: Request| async move {
        let body = serde_json::to_string(&request).map_err(|error| error.to_string())?;
        let sent = sns.publish().topic_arn(topic).message(body).send().await;
        sent.map(drop)
            .map_err(|error| format!("{}: {}", request.name, reason(&error)))
    };
    let failed: Vec<_> = stream::iter(requests)
        .map(send)
        .buffer_unordered(AT_ONCE)
        .filter_map(async |sent| sent.err())
        .collect()
        .await;
    info!(count, failed = failed.len(), "renewals requested");
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("cannot publish to {topic}: {}", failed.join("; "))),
    }
}

/// An SQS message holds 262,144 bytes; one observation takes about 250.
const OBSERVED: usize = 500;
const AT_ONCE: usize = 10;

#[cfg(test)]
mod tests {
    use neverlapse::inventory::Inventory;
    use neverlapse::report::EndpointReport;
    use serde_json::json;

    use super::*;

    /// What it was asked for is another certificate, and says nothing of ours.
    #[test]
    fn another_name_at_the_same_place_was_taken_for_ours() {
        let certificates = Inventory::parse("[[certificate]]\nidentifiers = [\"a.test\"]\n").certificates;
        for (sni, expected) in [(None, 1), (Some("other.test"), 0)] {
            let look: EndpointReport = serde_json::from_value(json!({
                "endpoint": "a.test:443", "sni": sni, "status": "ok", "findings": [], "observations": [{
                    "address": "192.0.2.1:443", "elapsed_ms": 1, "tries": 1, "findings": [], "revocation": {"state": "revoked"},
                    "leaf": {"subject": "", "issuer": "CN=x", "serial": "1", "fingerprint": "ab", "names": ["a.test"],
                        "not_before": "2026-08-01T00:00:00Z", "not_after": "2026-10-30T00:00:00Z", "key": "ecdsa-p256",
                        "signature": "ecdsa-sha256", "role": "leaf"}}]
            }))
            .unwrap();
            let now = Timestamp::UNIX_EPOCH;
            let requests = requests(&certificates, &Report::new(now, now, vec![look]), now);
            assert_eq!(requests[0].observed.len(), expected, "{sni:?}");
        }
    }
}
