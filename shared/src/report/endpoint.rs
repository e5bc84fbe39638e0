//! What a run saw of one endpoint.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Duration;

use super::left::Left;
use crate::certificate::Certificate;
use crate::endpoint::Endpoint;
use crate::finding::{Finding, Severity};
use crate::observation::{Observation, Skipped};
use crate::timestamp::Timestamp;

/// What was seen of one endpoint, over all of its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointReport {
    /// An [`Endpoint`] as text, such as `smtp://host:port`; the host as it is in DNS.
    pub endpoint: String,
    /// The host in Unicode, if that reads differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unicode: Option<String>,
    /// The name in the handshake (SNI), if it is not the host: another certificate is then to be
    /// expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Whether the inventory keeps it out of alerts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// Its worst finding's severity.
    pub status: Severity,
    /// The earliest end of the leaves that its addresses serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Signed seconds until then; negative once expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
    /// One entry per address.
    pub observations: Vec<Observation>,
    /// Addresses that were not probed, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// What is wrong with the endpoint as a whole.
    pub findings: Vec<Finding>,
}

/// The same finding at several addresses of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged<'r> {
    /// The first of them.
    pub finding: &'r Finding,
    /// Those that have it; none if it is about the endpoint as a whole.
    pub addresses: Vec<SocketAddr>,
    /// Whether some addresses have it, and others do not.
    pub is_somewhere: bool,
}

/// Reports by their endpoint. It is built once per run, because both the endpoints and those who
/// ask for one may be many.
#[derive(Clone, Debug, Default)]
pub struct EndpointIndex<'r>(HashMap<&'r str, Vec<&'r EndpointReport>>);

impl<'r> EndpointIndex<'r> {
    /// The index of these.
    pub fn of(endpoints: &'r [EndpointReport]) -> Self {
        let mut index = HashMap::<_, Vec<_>>::new();
        for endpoint in endpoints {
            index.entry(endpoint.endpoint.as_str()).or_default().push(endpoint);
        }
        Self(index)
    }

    /// The reports of an endpoint: one for each name that it was asked for.
    pub fn all(&self, endpoint: &str) -> &[&'r EndpointReport] {
        self.0.get(endpoint).map_or(&[], Vec::as_slice)
    }

    /// Those that say what clients of the endpoint get: with another name in the handshake they
    /// would get another certificate.
    pub fn of_clients(&self, endpoint: &Endpoint) -> impl Iterator<Item = &'r EndpointReport> + use<'r> {
        let all = self.all(&endpoint.to_string()).to_vec();
        all.into_iter().filter(|report| report.sni.is_none())
    }

    /// How many endpoints there are, however often each was probed.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl EndpointReport {
    /// Drops everything that was seen, and keeps the finding that says why.
    pub(crate) fn lose(&mut self, finding: Finding) {
        *self = Self {
            endpoint: mem::take(&mut self.endpoint),
            unicode: None,
            sni: self.sni.take(),
            quiet: self.quiet,
            status: finding.severity,
            not_after: None,
            seconds_left: None,
            observations: Vec::new(),
            skipped: Vec::new(),
            findings: vec![finding],
        };
    }

    /// All findings: those of the endpoint as a whole, then those of each address.
    pub fn all_findings(&self) -> impl Iterator<Item = (Option<SocketAddr>, &Finding)> {
        let own = self.findings.iter().map(|finding| (None, finding));
        let of_addresses = self.observations.iter().flat_map(|seen| {
            let findings = seen.findings.iter();
            findings.map(|finding| (Some(seen.address), finding))
        });
        own.chain(of_addresses)
    }

    /// All findings, worst first, those with the same severity and message once.
    pub fn merged(&self) -> Vec<Merged<'_>> {
        let mut all = Vec::<Merged<'_>>::new();
        for (address, finding) in self.all_findings() {
            let same = all
                .iter_mut()
                .find(|one| one.finding.severity == finding.severity && one.finding.message == finding.message);
            match same {
                Some(one) => one.addresses.extend(address),
                None => all.push(Merged {
                    finding,
                    addresses: address.into_iter().collect(),
                    is_somewhere: false,
                }),
            }
        }

        for one in &mut all {
            one.is_somewhere = !one.addresses.is_empty() && one.addresses.len() < self.observations.len();
        }
        all.sort_by_key(|one| Reverse(one.finding.severity));
        all
    }

    /// How long the first of its certificates is still valid.
    pub fn left(&self) -> Option<Left> {
        self.seconds_left.map(|seconds| Left(Duration::seconds(seconds)))
    }

    /// The leaf that expires first, of those that its addresses serve; `not_after` is from it.
    pub fn leaf(&self) -> Option<&Certificate> {
        self.observations
            .iter()
            .flat_map(Observation::leaves)
            .min_by_key(|leaf| leaf.not_after)
    }

    /// Orders by status, worst first, then by time left, then by name.
    pub fn worst_first(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    fn rank(&self) -> impl Ord {
        let time_left = self.seconds_left.unwrap_or(i64::MAX);
        (Reverse(self.status), time_left, &self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An alert gave the end of the old certificate, at one address, and the issuer of the new one,
    /// at another.
    #[test]
    fn the_end_that_is_reported_and_the_issuer_are_of_one_certificate() {
        let seen = |address: &str, issuer: &str, end: &str| {
            serde_json::json!({"address": address, "findings": [], "elapsed_ms": 1, "tries": 1, "leaf": {"role": "leaf",
                "subject": "", "issuer": issuer, "serial": "1", "fingerprint": "aa", "names": [], "key": "ecdsa-p256",
                "signature": "ecdsa-sha256", "not_before": "2026-10-01T00:00:00Z", "not_after": end}})
        };
        let endpoint: EndpointReport = serde_json::from_value(serde_json::json!({
            "endpoint": "a:443", "status": "ok", "findings": [],
            "observations": [
                seen("192.0.2.1:443", "CN=new", "2027-01-01T00:00:00Z"),
                seen("192.0.2.2:443", "CN=old", "2026-12-01T00:00:00Z"),
            ],
        }))
        .unwrap();
        assert_eq!(endpoint.leaf().map(|leaf| leaf.issuer.as_str()), Some("CN=old"));
    }
}
