//! What an instance did with which version: `receipts/{name}/{instance}.json`, written by the pull client, read by the probe.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The last thing that an instance did with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Always [`Receipt::SCHEMA`].
    pub schema: String,
    /// The certificate's name in the inventory.
    pub name: String,
    /// Who writes: the instance's id, or what stands for one elsewhere.
    pub instance: String,
    /// Its host name.
    pub host: String,
    /// Version of the client.
    pub agent: String,
    /// `current.json` as the client saw it.
    pub version: String,
    /// SHA-256 of that version's leaf, lower-case hex.
    pub fingerprint: String,
    /// How far it came with that version.
    pub stage: Stage,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The version that is installed, when that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
    /// When it came this far.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When the client last ran.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// When it will have run again, unless something is wrong with it.
    #[serde(with = "time::serde::rfc3339")]
    pub next_by: OffsetDateTime,
}

/// How far a version came on an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Something went wrong; the reason says what. The version before it is still served.
    Failed,
    /// Downloaded and verified.
    Pulled,
    /// In place, and the server was told; nobody has seen it served.
    Installed,
    /// A handshake with the local server showed it.
    Served,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed",
            Self::Pulled => "pulled",
            Self::Installed => "installed",
            Self::Served => "served",
        })
    }
}

impl Receipt {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.receipt/1";
}

/// Key of an instance's receipt.
pub fn key(name: &str, instance: &str) -> String {
    format!("{}{instance}.json", prefix(name))
}

/// Prefix of all receipts of a certificate, with the slash.
pub fn prefix(name: &str) -> String {
    format!("receipts/{name}/")
}
