//! The result schema `neverlapse.report/1`: what one run saw, the same for Lambda, CLI, S3 and metrics.

pub mod page;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Problem;
use crate::observation::{Observation, Skipped};
use crate::text::instance_name;
use crate::timestamp::Timestamp;

/// The schema's name and version, the first thing in every report.
pub const SCHEMA: &str = "neverlapse.report/1";

/// What one run saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Endpoints by status.
    pub counts: Counts,
    /// One entry an endpoint, worst first.
    pub endpoints: Vec<EndpointReport>,
    /// One entry a managed certificate, worst first: where it is on its way from issuer to client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateReport>,
    /// Endpoints that the run's deadline left no time for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<String>,
    /// Entries of the inventory that could not be used, each with line, key, value and accepted form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Problem>,
    /// When the endpoints were looked at, if that was in an earlier run than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Timestamp>,
    /// How many endpoints were left out to fit a size limit; `counts` has them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
    /// Likewise of the certificates.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted_certificates: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Report {
    /// Collects a run's endpoints, worst first.
    pub fn new(started_at: Timestamp, finished_at: Timestamp, mut endpoints: Vec<EndpointReport>) -> Self {
        endpoints.sort_by(EndpointReport::worst_first);
        let mut counts = Counts::default();
        endpoints.iter().for_each(|endpoint| counts.add(endpoint.status));
        let (not_reached, mistakes) = (Vec::new(), Vec::new());
        Self {
            schema: SCHEMA.to_owned(),
            started_at,
            finished_at,
            counts,
            endpoints,
            certificates: Vec::new(),
            not_reached,
            mistakes,
            looked_at: None,
            omitted: 0,
            omitted_certificates: 0,
        }
    }

    /// The same report with as many certificates and endpoints, worst first, as fit into about `bytes` of JSON. One that does not fit leaves
    /// its place to milder ones: a server that fills the report must not hide the others.
    pub fn fitting(mut self, bytes: usize) -> Self {
        let mut size = 0;
        // Half of the room is left to the endpoints.
        self.omitted_certificates = fit(&mut self.certificates, &mut size, bytes / 2);
        self.omitted = fit(&mut self.endpoints, &mut size, bytes);
        self
    }

    /// The worst that is to be said of the run; what was not reached and what could not be read is unknown.
    pub fn status(&self) -> Severity {
        let rest = if self.not_reached.is_empty() && self.mistakes.is_empty() {
            Severity::Ok
        } else {
            Severity::Unknown
        };
        self.counts.worst().max(rest)
    }
}

/// Keeps what fits, in its order, and answers with how many do not.
fn fit<T: Serialize>(entries: &mut Vec<T>, size: &mut usize, bytes: usize) -> usize {
    let all = entries.len();
    entries.retain(|entry| {
        let next = serde_json::to_string(entry).map_or(0, |json| json.len() + 1);
        let fits = *size + next <= bytes;
        *size += if fits { next } else { 0 };
        fits
    });
    all - entries.len()
}

/// Endpoints by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub ok: u64,
    pub warning: u64,
    pub critical: u64,
    pub unknown: u64,
}

impl Counts {
    /// One more endpoint of this status.
    pub fn add(&mut self, status: Severity) {
        match status {
            Severity::Ok => self.ok += 1,
            Severity::Warning => self.warning += 1,
            Severity::Critical => self.critical += 1,
            Severity::Unknown => self.unknown += 1,
        }
    }

    /// The worst status that is there.
    pub fn worst(&self) -> Severity {
        match self {
            Self { critical: 1.., .. } => Severity::Critical,
            Self { unknown: 1.., .. } => Severity::Unknown,
            Self { warning: 1.., .. } => Severity::Warning,
            _ => Severity::Ok,
        }
    }

    /// How many endpoints in all.
    pub fn total(&self) -> u64 {
        let counts = [self.ok, self.warning, self.critical, self.unknown];
        counts.into_iter().fold(0, u64::saturating_add)
    }
}

/// What was seen of one endpoint, over all of its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// `host:port`, or `smtp://host:port` and the like; the host as it is in DNS.
    pub endpoint: String,
    /// The host in Unicode, where that reads differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unicode: Option<String>,
    /// The name that was asked for, where that is not the host's: another certificate is to be expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Its worst finding's severity.
    pub status: Severity,
    /// The earliest end of the leaves that its addresses serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Signed seconds until then; negative once expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
    /// One entry an address.
    pub observations: Vec<Observation>,
    /// Addresses that were left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// What is wrong with the endpoint as a whole.
    pub findings: Vec<Finding>,
}

impl EndpointReport {
    /// All findings: those of the endpoint as a whole, then those of each address.
    pub fn all_findings(&self) -> impl Iterator<Item = (Option<SocketAddr>, &Finding)> {
        let own = self.findings.iter().map(|finding| (None, finding));
        let theirs = self
            .observations
            .iter()
            .flat_map(|seen| seen.findings.iter().map(|f| (Some(seen.address), f)));
        own.chain(theirs)
    }

    /// Of the leaves that its addresses serve, the one that ends first: `not_after` is its.
    pub fn leaf(&self) -> Option<&Certificate> {
        let leaves = self.observations.iter().filter_map(|seen| seen.leaf.as_ref());
        leaves.min_by_key(|leaf| leaf.not_after)
    }

    /// Orders by status, worst first, then by time left, then by name.
    pub fn worst_first(&self, other: &Self) -> std::cmp::Ordering {
        let time_left = |report: &Self| report.seconds_left.unwrap_or(i64::MAX);
        (other.status.cmp(&self.status))
            .then_with(|| time_left(self).cmp(&time_left(other)))
            .then_with(|| self.endpoint.cmp(&other.endpoint))
    }
}

/// A managed certificate: what the bucket has of it, where it is installed, and what the renewer does about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Its folder in the bucket.
    pub name: String,
    /// Its worst finding's severity.
    pub status: Severity,
    /// What it is ordered for.
    pub identifiers: Vec<String>,
    /// The issuer's name in the inventory, else the name in the certificate; none before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The version that instances are to serve; none before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of that version's DER, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// First second of its validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Last second of its validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The stored versions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<StoredVersion>,
    /// How far each instance is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceReport>,
    /// What each address where it is to be served shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressReport>,
    /// What the renewer did and means to do.
    #[serde(default)]
    pub renewal: RenewalReport,
    /// What is wrong with renewal or delivery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl CertificateReport {
    /// Whether anybody has seen clients get the version to serve: an address that shows it, or an instance that saw its server do so.
    pub fn is_seen(&self) -> bool {
        let at_address = self.addresses.iter().any(|seen| seen.stage == AddressStage::Served);
        at_address || self.instances.iter().any(|instance| instance.stage == Stage::Served)
    }

    /// Whether it is in the bucket, and in the inventory no more.
    pub fn is_left_out(&self) -> bool {
        let not_renewed = |finding: &Finding| matches!(finding.kind, Kind::NotRenewed { .. });
        self.findings.iter().any(not_renewed)
    }

    /// Whether it was seen, and nobody is known to have another one.
    pub fn is_served(&self) -> bool {
        let another = self.addresses.iter().any(|seen| seen.stage == AddressStage::Another);
        let behind = self.instances.iter().any(|instance| instance.stage < Stage::Installed);
        self.is_seen() && !another && !behind
    }
}

/// One stored generation of a managed certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredVersion {
    /// Its folder; sorts by time.
    pub version: String,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// SHA-256 of its DER, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// As [`CertificateReport::issuer`].
    pub issuer: String,
    /// Whether it is the one to serve.
    #[serde(default)]
    pub current: bool,
}

/// What an instance did with which version, by its receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Who it is by the key of its receipt, such as `AROAEXAMPLE:i-0123456789abcdef0`; [`InstanceReport::shown`] is for people.
    pub instance: String,
    /// Its host name, if the receipt says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The version that the stage is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// Why it is not further, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it got there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl InstanceReport {
    /// Its name as people know it.
    pub fn shown(&self) -> &str {
        instance_name(&self.instance)
    }
}

/// What one address shows to clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressReport {
    /// As the inventory names it.
    pub endpoint: String,
    /// Which of its addresses; none if nobody got so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Whether it is what it should be.
    pub stage: AddressStage,
    /// SHA-256 of the DER that it shows, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Which of the stored versions that is; none if it is not one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Why nobody knows what it shows, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether an address shows the version to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressStage {
    /// Another certificate: an earlier version, or one that is not ours.
    Another,
    /// Nobody could see.
    Unseen,
    /// Clients get it.
    Served,
}

/// The way of a certificate to the clients, in order; `failed` is off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// An instance tried to install it and could not.
    Failed,
    /// It is in the bucket.
    Issued,
    /// The instance has it on its disk.
    Pulled,
    /// The instance's server was told to use it.
    Installed,
    /// Clients get it.
    Served,
}

/// What the renewer did and means to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RenewalReport {
    /// The last try's problem, in the server's words; none if it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The earliest next try after that problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// When it is to be renewed if all goes well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One endpoint with more to say than the whole answer may hold left no other in it.
    #[test]
    fn an_endpoint_that_fits_nowhere_hides_no_other() {
        let endpoint = |name: &str, status: Severity, length: usize| EndpointReport {
            endpoint: name.to_owned(),
            sni: None,
            unicode: Some("x".repeat(length)),
            status,
            not_after: None,
            seconds_left: None,
            observations: Vec::new(),
            skipped: Vec::new(),
            findings: Vec::new(),
        };
        let endpoints = vec![
            endpoint("huge", Severity::Critical, 9_000),
            endpoint("bad", Severity::Critical, 1_000),
            endpoint("unknown", Severity::Unknown, 1_000),
            endpoint("mild", Severity::Warning, 1_000),
            endpoint("well", Severity::Ok, 1_000),
        ];
        let now = Timestamp::UNIX_EPOCH;
        let report = Report::new(now, now, endpoints).fitting(3_800);
        let kept: Vec<_> = report.endpoints.iter().map(|kept| kept.endpoint.as_str()).collect();
        assert_eq!(kept, ["bad", "unknown", "mild"]);
        assert_eq!((report.omitted, report.counts.total()), (2, 5));
    }

    /// An alert gave the end of the old certificate, at one address, and the issuer of the new one, at another.
    #[test]
    fn the_end_that_is_told_and_the_issuer_are_of_one_certificate() {
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

    #[test]
    fn certificates_leave_half_of_the_room_to_endpoints() {
        let now = Timestamp::UNIX_EPOCH;
        let mut report = Report::new(now, now, Vec::new());
        let certificate = |n: usize| {
            let instances: Vec<_> = (0..n)
                .map(|n| serde_json::json!({"instance": format!("i-{n}"), "stage": "served"}))
                .collect();
            serde_json::from_value(
                serde_json::json!({"name": format!("{n}"), "status": "ok", "identifiers": [], "instances": instances}),
            )
            .unwrap()
        };
        report.certificates = [1, 500, 2].map(certificate).to_vec();
        let report = report.fitting(4_000);
        let kept: Vec<_> = report.certificates.iter().map(|kept| kept.name.as_str()).collect();
        assert_eq!((kept, report.omitted_certificates), (vec!["1", "2"], 1));
    }
}
