//! What the renewer is asked: one message a certificate and run, by the probe or by a person.

use crate::timestamp::Timestamp;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A request. It says what was seen and what is wanted; whether anything is due is the renewer's to decide, so that duplicates, late
/// ones and those out of order do no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Always [`Request::SCHEMA`].
    pub schema: String,
    /// The certificate's name in the inventory; an issuer's for [`Action::ReplaceAccountKey`].
    pub name: String,
    /// What is wanted.
    #[serde(default)]
    pub action: Action,
    /// The version to revoke, so that a late duplicate cannot revoke its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it is revoked because somebody else may have its key.
    #[serde(default)]
    pub key_compromise: bool,
    /// Renew although nothing is due, and although an earlier failure asks to wait.
    #[serde(default)]
    pub force: bool,
    /// Order from the issuer's staging directory, and publish nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks.
    pub requested_by: Asker,
    /// When.
    pub at: Timestamp,
    /// What the probe saw being served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Observed>,
}

/// What is wanted of the renewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new certificate, if one is due.
    #[default]
    Renew,
    /// Revoke a version, and if it is the current one replace it by one with a new key.
    Revoke,
    /// Replace the key of our account at an issuer, which `name` then names.
    ReplaceAccountKey,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// The daily run.
    Probe,
    /// Somebody with a command line.
    Person,
}

/// What one address served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// As the inventory names it.
    pub endpoint: String,
    /// Who answered.
    pub address: SocketAddr,
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub fingerprint: String,
    /// When that leaf ends.
    pub not_after: Timestamp,
    /// Whether its issuer has revoked it.
    #[serde(default)]
    pub revoked: bool,
}

impl Request {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.renewal-request/1";

    /// Whether what an earlier failure asks for does not count: a person wants it now.
    pub fn is_urgent(&self) -> bool {
        self.force || self.action == Action::Revoke
    }

    /// Asks for a renewal if one is due, and says nothing of what was seen.
    pub fn new(name: &str, requested_by: Asker, at: Timestamp) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            name: name.to_owned(),
            action: Action::Renew,
            version: None,
            key_compromise: false,
            force: false,
            dry_run: false,
            requested_by,
            at,
            observed: Vec::new(),
        }
    }
}
