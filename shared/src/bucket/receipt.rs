//! What an instance did with which version: `receipts/{name}/{instance}.json`, written by the pull client, read by the probe.
//!
//! Who an instance is stands in the key, which IAM guards (`receipts/NAME/${aws:userid}.json`), and nowhere else: into its own receipt
//! it may write what it likes.

use crate::timestamp::Timestamp;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The last thing that an instance did with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Always [`Receipt::SCHEMA`].
    pub schema: String,
    /// The certificate's name in the inventory.
    pub name: String,
    /// Who writes: its AWS user id, such as `AROAEXAMPLE:i-0123456789abcdef0`, or its name where AWS knows none. A reader takes it from
    /// the key.
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
    /// The `sequence` of `current.json` that the installed version came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When the installed version ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// When it came this far.
    pub since: Timestamp,
    /// When the client last ran.
    pub at: Timestamp,
    /// When it will have run again, unless something is wrong with it.
    pub next_by: Timestamp,
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

    /// Understands what an instance wrote; the error is for people. Whose it is, is for the key to say, and what is told to people is
    /// cut to a length that leaves room for others.
    pub fn read(name: &str, instance: &str, json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Header {
            schema: String,
        }
        // The parser's own words could repeat what does not belong into an alert.
        let no_receipt = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            format!("it is not a receipt (line {line}, column {column})")
        };
        let Header { schema } = serde_json::from_slice(json).map_err(no_receipt)?;
        if schema != Self::SCHEMA {
            let schema: String = schema.chars().take(NAME).collect();
            return Err(format!("its format is {schema:?} (expected {:?})", Self::SCHEMA));
        }
        let written: Self = serde_json::from_slice(json).map_err(no_receipt)?;
        let cut = |text: String, length| match text.char_indices().nth(length) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        Ok(Self {
            name: name.to_owned(),
            instance: instance.to_owned(),
            host: cut(written.host, NAME),
            agent: cut(written.agent, NAME),
            version: cut(written.version, NAME),
            fingerprint: cut(written.fingerprint, NAME),
            reason: written.reason.map(|reason| cut(reason, WORDS)),
            installed: written.installed.map(|installed| cut(installed, NAME)),
            ..written
        })
    }

    /// The version that is in place on the instance.
    pub fn has(&self) -> Option<&str> {
        let reported = self.stage >= Stage::Installed || self.sequence.is_some();
        let reported = reported.then_some(self.version.as_str());
        self.installed.as_deref().or(reported)
    }
}

/// Whose receipt is under a key, by the certificate's prefix.
pub fn instance<'k>(name: &str, key: &'k str) -> Option<&'k str> {
    key.strip_prefix("receipts/")?
        .strip_prefix(name)?
        .strip_prefix('/')?
        .strip_suffix(".json")
}

/// Key of an instance's receipt.
pub fn key(name: &str, instance: &str) -> String {
    format!("{}{instance}.json", prefix(name))
}

/// Prefix of all receipts of a certificate, with the slash.
pub fn prefix(name: &str) -> String {
    format!("receipts/{name}/")
}

/// No receipt is longer, in bytes: a kilobyte is usual.
pub const LONGEST: u64 = 64 << 10;
/// Of a name, in characters.
const NAME: usize = 255;
/// Of a reason.
const WORDS: usize = 2_000;

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
        for stray in ["receipts/shop.test/x.txt", "receipts/shop.testing/x.json", "x"] {
            assert_eq!(instance("shop.test", stray), None, "{stray}");
        }
    }
}
