//! Requests to the renewer: one per managed certificate and run, with what was observed. The
//! renewer decides whether anything is due.

use aws_sdk_sns::Client;
use futures::stream::{self, StreamExt as _};
use lambda_runtime::tracing::info;
use neverlapse::aws::reason;
use neverlapse::inventory::Managed;
use neverlapse::observation::Revocation;
use neverlapse::renewal::request::{Observed, Request, RequestedBy};
use neverlapse::report::{EndpointIndex, EndpointReport};
use neverlapse::timestamp::Timestamp;

/// The requests of a run.
pub(crate) fn requests(certificates: &[Managed], endpoints: &[EndpointReport], now: Timestamp) -> Vec<Request> {
    let endpoints = EndpointIndex::of(endpoints);
    let mut requests = Vec::new();
    for certificate in certificates {
        requests.push(Request {
            observed: observed(certificate, &endpoints),
            ..Request::new(&certificate.name, RequestedBy::Probe, now)
        });
    }
    requests
}

/// What was seen at the certificate's endpoints. One that was probed for another name (`sni`)
/// serves another certificate, and proves nothing of this one.
fn observed(certificate: &Managed, endpoints: &EndpointIndex<'_>) -> Vec<Observed> {
    let mut observed = Vec::new();
    let served_at = certificate.served_at.iter();
    for endpoint in served_at.flat_map(|served_at| endpoints.of_clients(served_at)) {
        for observation in &endpoint.observations {
            observed.extend(observation.leaves_and_revocation().map(|(leaf, revocation)| Observed {
                endpoint: endpoint.endpoint.clone(),
                address: observation.address,
                fingerprint: leaf.fingerprint.clone(),
                not_after: leaf.not_after,
                revoked: matches!(revocation, Some(Revocation::Revoked)),
            }));
        }
    }

    // Whatever does not fit, the renewer hears of a revocation.
    observed.sort_by_key(|observed| !observed.revoked);
    observed.truncate(OBSERVED);
    observed
}

/// Sends them all. One that cannot be sent does not stop the others; the error names all of them.
pub(crate) async fn publish(sns: &Client, topic: &str, requests: Vec<Request>) -> Result<(), String> {
    let count = requests.len();
    let failed: Vec<_> = stream::iter(requests)
        .map(|request| send(sns, topic, request))
        .buffer_unordered(AT_ONCE)
        .filter_map(async |sent| sent.err())
        .collect()
        .await;

    info!(count, failed = failed.len(), "renewals requested");
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("cannot publish to {topic}: {}", failed.join("; ")))
    }
}

async fn send(sns: &Client, topic: &str, request: Request) -> Result<(), String> {
    let body = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    match sns.publish().topic_arn(topic).message(body).send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{}: {}", request.name, reason(&error))),
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

    /// The last of more addresses than a message has room for.
    #[test]
    fn a_revocation_is_told_wherever_it_was_seen() {
        let certificates = Inventory::parse("[[certificate]]\nidentifiers = [\"a.test\"]\n").certificates;
        let observations: Vec<_> = (0..600)
            .map(|number| {
                json!({
                    "address": format!("192.0.{}.{}:443", number / 250, number % 250), "elapsed_ms": 1, "tries": 1, "findings": [],
                    "revocation": {"state": if number == 599 { "revoked" } else { "good" }},
                    "leaf": {"subject": "", "issuer": "CN=x", "serial": "1", "fingerprint": number.to_string(), "names": ["a.test"],
                        "not_before": "2026-08-01T00:00:00Z", "not_after": "2026-10-30T00:00:00Z", "key": "ecdsa-p256",
                        "signature": "ecdsa-sha256", "role": "leaf"}
                })
            })
            .collect();
        let look = json!({ "endpoint": "a.test:443", "status": "ok", "findings": [], "observations": observations });
        let look: EndpointReport = serde_json::from_value(look).unwrap();

        let requests = requests(&certificates, &[look], Timestamp::UNIX_EPOCH);
        let observed = &requests[0].observed;
        assert_eq!(observed.len(), OBSERVED);
        assert!(
            observed[0].revoked && observed[0].fingerprint == "599",
            "{:?}",
            observed[0]
        );
        assert_eq!(observed[1].fingerprint, "0");
    }

    /// The name that was asked for has another certificate, which says nothing about ours.
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
            let requests = requests(&certificates, &[look], now);
            assert_eq!(requests[0].observed.len(), expected, "{sni:?}");
        }
    }
}
