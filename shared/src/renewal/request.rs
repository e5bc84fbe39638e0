//! A request to the renewer: one message per certificate and run from the probe, or one from a
//! person.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// A request. It says what was seen and what is wanted, never what to do: the renewer decides
/// whether anything is due, so that requests that are repeated, late or out of order do no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Who requests it.
    pub requested_by: RequestedBy,
    /// When it was requested.
    pub at: Timestamp,
    /// What the probe saw being served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Observed>,
}

/// What the renewer is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Who requests something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestedBy {
    /// The probe, in its daily run.
    Probe,
    /// A person at a command line.
    Person,
}

/// What one address served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// As the inventory names it.
    pub endpoint: String,
    /// The address that answered.
    pub address: SocketAddr,
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub fingerprint: String,
    /// When that leaf expires.
    pub not_after: Timestamp,
    /// Whether its issuer has revoked it.
    #[serde(default)]
    pub revoked: bool,
}

impl Request {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.renewal-request/1";

    /// Requests a renewal if one is due, and says nothing of what was seen.
    pub fn new(name: &str, requested_by: RequestedBy, at: Timestamp) -> Self {
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

    /// Whether it is more than "renew this if it is due", so that the probe may not request it.
    pub fn needs_a_person(&self) -> bool {
        self.requested_by == RequestedBy::Person
            || self.action != Action::Renew
            || self.version.is_some()
            || self.key_compromise
            || self.force
            || self.dry_run
    }

    /// Whether it does not wait for the time that an earlier failure asks for: a person wants it
    /// now.
    pub fn is_urgent(&self) -> bool {
        self.force || self.action == Action::Revoke
    }
}
