//! A receipt: what an instance did with which version. The pull client writes
//! `receipts/{name}/{instance}.json`, the probe and `neverlapse status` read it.
//!
//! The key alone says whose receipt it is, because IAM guards it
//! (`receipts/NAME/${aws:userid}.json`). Into its own receipt an instance can write whatever it
//! likes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::{self, Document, Error};
use crate::text::cut;
use crate::timestamp::Timestamp;

/// The last thing that an instance did with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// Always [`Receipt::SCHEMA`].
    pub schema: String,
    /// The certificate's name in the inventory.
    pub name: String,
    /// The instance: its AWS user id, such as `AROAEXAMPLE:i-0123456789abcdef0`, or its name if AWS
    /// knows none. A reader takes it from the key.
    pub instance: String,
    /// Its host name.
    pub host: String,
    /// Version of the client.
    pub agent: String,
    /// The version that `current.json` named when the client last read it.
    pub version: String,
    /// SHA-256 of that version's leaf, lower-case hex.
    pub fingerprint: String,
    /// How far the instance is with that version.
    pub stage: Stage,
    /// Why it failed; in other stages what is to be known besides, such as why nobody could look
    /// whether it is served, or what was damaged and is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The version that is installed, when that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
    /// The `sequence` of `current.json` that the installed version came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When the installed version expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// When it reached this stage.
    pub since: Timestamp,
    /// When the client last ran.
    pub at: Timestamp,
    /// When it will have run again: an instance that has not by then is silent.
    pub next_by: Timestamp,
}

/// How far an instance is with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Something went wrong; the reason says what. The version before it is still served.
    Failed,
    /// Downloaded and verified.
    Pulled,
    /// Installed, and the server was reloaded; nobody has seen it served.
    Installed,
    /// A handshake with the local server showed it.
    Served,
}

impl Document for Receipt {
    const SCHEMA: &'static str = Self::SCHEMA;
    const LONGEST: u64 = LONGEST;
}

/// As in JSON.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Receipt {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.receipt/1";

    /// Reads the receipt that is under the key of `instance`. The error is for people.
    ///
    /// The key says whose it is, and no text is longer than leaves room for others in an alert.
    pub fn read(name: &str, instance: &str, json: &[u8]) -> Result<Self, String> {
        let written: Self = document::read(json).map_err(|error| match error {
            Error::Malformed(position) => format!("it is not a receipt ({position})"),
            error @ Error::OtherFormat { .. } => error.to_string(),
        })?;

        Ok(Self {
            name: name.to_owned(),
            instance: instance.to_owned(),
            host: cut(&written.host, NAME),
            agent: cut(&written.agent, NAME),
            version: cut(&written.version, NAME),
            fingerprint: cut(&written.fingerprint, NAME),
            reason: written.reason.map(|reason| cut(&reason, REASON)),
            installed: written.installed.map(|installed| cut(&installed, NAME)),
            ..written
        })
    }

    /// The version that is installed on the instance.
    pub fn has(&self) -> Option<&str> {
        let is_installed = self.stage >= Stage::Installed || self.sequence.is_some();
        let own = is_installed.then_some(self.version.as_str());
        self.installed.as_deref().or(own)
    }
}

/// The instance whose receipt is under a key, if it is a receipt for the certificate `name`. An
/// instance has one: nothing under it in turn.
pub fn instance<'k>(name: &str, key: &'k str) -> Option<&'k str> {
    key.strip_prefix("receipts/")?
        .strip_prefix(name)?
        .strip_prefix('/')?
        .strip_suffix(".json")
        .filter(|instance| !instance.is_empty() && !instance.contains('/'))
}

/// Key of an instance's receipt.
pub fn key(name: &str, instance: &str) -> String {
    format!("{}{instance}.json", prefix(name))
}

/// Prefix of all receipts of a certificate, with the slash.
pub fn prefix(name: &str) -> String {
    format!("receipts/{name}/")
}

/// The longest receipt that is read, in bytes. A kilobyte is usual.
pub const LONGEST: u64 = 64 << 10;
/// Of a name, in characters.
const NAME: usize = 255;
/// Of a reason, in characters.
const REASON: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::instance_name;

    #[test]
    fn an_instance_cannot_speak_as_another() {
        let json = r#"{"schema": "neverlapse.receipt/1", "name": "other", "instance": "AROA1:i-2", "host": "web-2", "agent": "0",
            "version": "v", "fingerprint": "aa", "stage": "served", "since": "2026-10-10T00:00:00Z", "at": "2026-10-10T00:00:00Z",
            "next_by": "2026-10-11T00:00:00Z", "later": true}"#;
        let receipt = Receipt::read("shop", "AROA1:i-1", json.as_bytes()).unwrap();
        assert_eq!((&*receipt.name, &*receipt.instance), ("shop", "AROA1:i-1"));
        let long = json.replace("web-2", &"x".repeat(9_000));
        let receipt = Receipt::read("shop", "AROA1:i-1", long.as_bytes()).unwrap();
        assert_eq!(receipt.host.chars().count(), 256);
    }

    #[test]
    fn what_is_no_receipt_is_named_and_not_quoted() {
        for (json, expected) in [
            ("", "it is not a receipt (line 1, column 0)"),
            ("\u{0}\u{1}secret", "it is not a receipt (line 1, column 1)"),
            (
                "{\"schema\": \"neverlapse.receipt/1\"}",
                "it is not a receipt (line 1, column 34)",
            ),
            (
                "{\"schema\": \"neverlapse.receipt/2\"}",
                "its format is \"neverlapse.receipt/2\" (expected \"neverlapse.receipt/1\")",
            ),
        ] {
            assert_eq!(Receipt::read("n", "i", json.as_bytes()), Err(expected.to_owned()));
        }
    }

    #[test]
    fn the_key_says_who_it_is() {
        for (id, people) in [
            ("AROAEXAMPLE:i-0abc", "i-0abc"),
            ("web-1", "web-1"),
            ("AIDAEXAMPLE", "AIDAEXAMPLE"),
        ] {
            assert_eq!(instance("shop.test", &key("shop.test", id)), Some(id));
            assert_eq!(instance_name(id), people);
        }
        for stray in [
            "receipts/shop.test/x.txt",
            "receipts/shop.testing/x.json",
            "receipts/shop.test/x/y.json",
            "receipts/shop.test/.json",
            "x",
        ] {
            assert_eq!(instance("shop.test", stray), None, "{stray}");
        }
    }
}
