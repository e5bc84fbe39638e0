//! How far one managed certificate is on its way from the issuer to the clients.

use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bucket::version::Facts;
use crate::finding::{Finding, Kind, Severity};
use crate::text::instance_name;
use crate::timestamp::Timestamp;

/// A managed certificate: its current version, where that is installed and served, and what the
/// renewer does about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateReport {
    /// Its name in the inventory, and its folder in the bucket.
    pub name: String,
    /// Its worst finding's severity.
    pub status: Severity,
    /// The names and addresses that it is ordered for.
    pub identifiers: Vec<String>,
    /// Whether the inventory keeps it out of alerts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// The version to serve; none before the first one. In JSON, its members stand among these.
    #[serde(flatten)]
    pub current: Option<Version>,
    /// The stored versions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<StoredVersion>,
    /// How far each instance is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceReport>,
    /// What is served at each address of the endpoints in `served_at`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressReport>,
    /// What the renewer did and what it plans.
    #[serde(default)]
    pub renewal: RenewalReport,
    /// What is wrong with renewal or delivery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// What a version of a managed certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The issuer's name in the inventory.
    pub issuer: String,
    /// The version's id, which sorts by time.
    pub version: String,
    /// SHA-256 of its DER, lower-case hex.
    #[serde(default)]
    pub fingerprint: String,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
}

/// One stored version of a managed certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoredVersion {
    /// What it is. In JSON, its members stand among these.
    #[serde(flatten)]
    pub facts: Version,
    /// Whether it is the version to serve.
    #[serde(default)]
    pub current: bool,
}

/// What an instance did with which version, by its receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceReport {
    /// Its id in the key of its receipt, such as `AROAEXAMPLE:i-0123456789abcdef0`;
    /// [`InstanceReport::shown`] is for people.
    pub instance: String,
    /// Its host name, if the receipt has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The version that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How far it is with the current version.
    pub stage: InstanceStage,
    /// Why it is not further, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it reached this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// The stages of a certificate's way to its clients, in order; `failed` stands before all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceStage {
    /// An instance tried to install it and could not.
    Failed,
    /// It is in the bucket.
    Issued,
    /// It is on the instance's disk.
    Pulled,
    /// The instance's server was reloaded with it.
    Installed,
    /// Clients get it.
    Served,
}

impl fmt::Display for InstanceStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failed => "failed",
            Self::Issued => "not pulled",
            Self::Pulled => "pulled",
            Self::Installed => "installed",
            Self::Served => "served",
        })
    }
}

/// What one address serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddressReport {
    /// The endpoint as text, as in [`EndpointReport::endpoint`](super::EndpointReport::endpoint).
    pub endpoint: String,
    /// One of its addresses; none if the probe did not get so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Whether it serves the current version.
    pub stage: AddressStage,
    /// SHA-256 of the DER that it serves, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The stored version that it serves; none if what it serves is not one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When what it serves expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Why it is unknown what it serves, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether an address serves the current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressStage {
    /// Another certificate: an earlier version, or one that is not ours.
    Another,
    /// Unknown: the probe could not see it.
    Unseen,
    /// Clients get it.
    Served,
}

impl fmt::Display for AddressStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Another => "different",
            Self::Unseen => "not seen",
            Self::Served => "served",
        })
    }
}

/// What the renewer did and what it plans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RenewalReport {
    /// How the last try failed; none if it went well. In JSON, its members stand among these.
    #[serde(flatten)]
    pub failure: Option<FailedTry>,
    /// When it is to be renewed if nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Timestamp>,
}

/// How the last try to renew a certificate failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FailedTry {
    /// What went wrong, in the server's words.
    pub problem: String,
    /// The earliest next try.
    pub next_try: Timestamp,
    /// Until when every issuer of it asked to wait (Retry-After), as for a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Timestamp>,
}

impl From<&Facts> for Version {
    fn from(facts: &Facts) -> Self {
        Self {
            issuer: facts.issuer.name.clone(),
            version: facts.version.clone(),
            fingerprint: facts.fingerprint.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
        }
    }
}

impl CertificateReport {
    /// A certificate with these findings, of whose delivery nothing is known yet.
    pub fn new(name: &str, identifiers: &[String], current: Option<Version>, findings: Vec<Finding>) -> Self {
        let severities = findings.iter().map(|finding| finding.severity);
        Self {
            name: name.to_owned(),
            status: severities.max().unwrap_or(Severity::Ok),
            identifiers: identifiers.to_vec(),
            quiet: false,
            current,
            history: Vec::new(),
            instances: Vec::new(),
            addresses: Vec::new(),
            renewal: RenewalReport::default(),
            findings,
        }
    }

    /// The id of the version to serve.
    pub fn version(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.version.as_str())
    }

    /// When the version to serve expires.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.current.as_ref().map(|current| current.not_after)
    }

    /// Whether the current version was seen in use: an address serves it, or an instance saw its
    /// own server do so.
    pub fn is_seen(&self) -> bool {
        let at_address = self.addresses.iter().any(|seen| seen.stage == AddressStage::Served);
        at_address
            || self
                .instances
                .iter()
                .any(|instance| instance.stage == InstanceStage::Served)
    }

    /// Whether it was seen, and no address or instance is known to have another one.
    pub fn is_served(&self) -> bool {
        let another = self.addresses.iter().any(|seen| seen.stage == AddressStage::Another);
        let behind = self
            .instances
            .iter()
            .any(|instance| instance.stage < InstanceStage::Installed);
        self.is_seen() && !another && !behind
    }

    /// Whether it is in the bucket, but no longer in the inventory.
    pub fn is_left_out(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| matches!(finding.kind, Kind::NotRenewed { .. }))
    }
}

impl InstanceReport {
    /// Its name as people know it.
    pub fn shown(&self) -> &str {
        instance_name(&self.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_current_version_is_all_there_or_absent() {
        let before_the_first = json!({"name": "a.test", "status": "ok", "identifiers": ["a.test"], "renewal": {}});
        let report: CertificateReport = serde_json::from_value(before_the_first.clone()).unwrap();
        assert_eq!(report.current, None);
        assert_eq!(serde_json::to_value(&report).unwrap(), before_the_first);

        let json = r#"{"name":"a.test","status":"ok","identifiers":["a.test"],"issuer":"x","version":"v","fingerprint":"aa","not_before":"2026-10-01T00:00:00Z","not_after":"2026-12-30T00:00:00Z","renewal":{}}"#;
        let report: CertificateReport = serde_json::from_str(json).unwrap();
        assert_eq!(report.version(), Some("v"));
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
    }
}
