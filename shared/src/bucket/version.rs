//! A version: one stored generation of a certificate.
//!
//! `certificates/{name}/versions/{version}/` holds four files and their manifest, which is written
//! last; it is never changed. `certificates/{name}/current.json` is written after that and names
//! the version to serve.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::macros::format_description;
use time::{Duration, PrimitiveDateTime};

use super::document::Document;
use crate::inventory::KeyType;
use crate::text::sha256;
use crate::timestamp::Timestamp;

/// What a version is, as its manifest and `current.json` say it: no file needs to be opened to
/// know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The certificate's name in the inventory.
    pub name: String,
    /// See [`id`].
    pub version: String,
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub fingerprint: String,
    /// Lower-case hex of the certificate's octets, leading zeros included: `008a42` (a positive
    /// INTEGER, RFC 5280, 4.1.2.2).
    pub serial: String,
    /// First second of the leaf's validity.
    pub not_before: Timestamp,
    /// Last second of its validity, or of an issuer's on its path, if that ends before.
    pub not_after: Timestamp,
    /// DNS names, wildcards and addresses, as ordered.
    pub identifiers: Vec<String>,
    /// What kind of key it has.
    pub key: KeyType,
    /// Who issued it.
    pub issuer: IssuedBy,
}

/// The issuer and the account that a certificate comes from: `replaces` (RFC 9773) is sent to no
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedBy {
    /// Its name in the inventory.
    pub name: String,
    /// URL of its ACME directory.
    pub directory: String,
    /// URL of the account.
    pub account: String,
    /// ACME profile, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Whether clients are not meant to trust what it issues.
    #[serde(default)]
    pub staging: bool,
}

/// `manifest.json`: a version's files with their hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`Manifest::SCHEMA`].
    pub schema: String,
    /// What the files hold.
    #[serde(flatten)]
    pub facts: Facts,
    /// By file name: [`FILES`].
    pub files: BTreeMap<String, FileHash>,
}

/// A file's hash and length: whether it arrived whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Lower-case hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

impl FileHash {
    /// The hash and length of this content.
    pub fn of(content: &[u8]) -> Self {
        Self {
            sha256: sha256(content),
            bytes: content.len() as u64,
        }
    }
}

/// `current.json`: the version to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Always [`Current::SCHEMA`].
    pub schema: String,
    /// One more each time the pointer moves, forwards or back: a pointer with a lower one is out of
    /// date.
    pub sequence: u64,
    /// The version to serve.
    #[serde(flatten)]
    pub facts: Facts,
    /// SHA-256 of the version's `manifest.json`, so that one small object vouches for all others.
    pub manifest_sha256: String,
    /// When the pointer moved.
    pub published_at: Timestamp,
    /// Whether a person moved it back to an older version.
    #[serde(default)]
    pub rolled_back: bool,
}

impl Manifest {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.manifest/1";
}

impl Document for Manifest {
    const SCHEMA: &'static str = Self::SCHEMA;
}

impl Current {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.current/1";

    /// When the pointer moved, as of `now`.
    ///
    /// A time that is still to come is from a clock that was wrong. What waits for it would wait
    /// for ever, so the first second of the leaf's validity, by the CA's clock, takes its place.
    pub fn moved_at(&self, now: Timestamp) -> Timestamp {
        if self.published_at > now + CLOCKS_DIFFER {
            self.facts.not_before
        } else {
            self.published_at
        }
    }
}

impl Document for Current {
    const SCHEMA: &'static str = Self::SCHEMA;
}

/// A new version's id: sorts by time, to the second, and is never reused thanks to `random`.
pub fn id(now: Timestamp, random: u32) -> String {
    let time = now.rfc3339().replace(['-', ':'], "");
    format!("{time}-{random:08x}")
}

/// When a version was made, by its id; none if it is not an [`id`].
pub fn made_at(id: &str) -> Option<Timestamp> {
    let (time, _) = id.split_once('-')?;
    let made = PrimitiveDateTime::parse(time, TIME).ok()?;
    Some(Timestamp::new(made.assume_utc()))
}

/// Key of `current.json`.
pub fn current_key(name: &str) -> String {
    format!("certificates/{name}/current.json")
}

/// Prefix of all versions, with the slash.
pub fn versions_prefix(name: &str) -> String {
    format!("certificates/{name}/versions/")
}

/// Key of one of a version's files.
pub fn file_key(name: &str, version: &str, file: &str) -> String {
    format!("certificates/{name}/versions/{version}/{file}")
}

/// The leaf alone.
pub const CERT: &str = "cert.pem";
/// The issuers alone.
pub const CHAIN: &str = "chain.pem";
/// Leaf and issuers.
pub const FULLCHAIN: &str = "fullchain.pem";
/// The private key, PKCS#8.
pub const PRIVKEY: &str = "privkey.pem";
/// The files of a version, besides [`MANIFEST`].
pub const FILES: [&str; 4] = [CERT, CHAIN, FULLCHAIN, PRIVKEY];
/// The file with the hashes of the others.
pub const MANIFEST: &str = "manifest.json";

/// By less than this, clocks differ usually.
const CLOCKS_DIFFER: Duration = Duration::HOUR;
const TIME: &[time::format_description::BorrowedFormatItem<'static>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

#[cfg(test)]
impl Current {
    /// A current version, for tests of the decisions about one.
    pub(crate) fn sample(name: &str, not_before: Timestamp, not_after: Timestamp) -> Self {
        Self {
            schema: Self::SCHEMA.into(),
            sequence: 1,
            facts: Facts {
                name: name.into(),
                version: id(not_before, 0),
                fingerprint: "ab".into(),
                serial: "1f".into(),
                not_before,
                not_after,
                identifiers: vec![name.into()],
                key: KeyType::EcdsaP256,
                issuer: IssuedBy {
                    name: "letsencrypt".into(),
                    directory: "https://acme.test/directory".into(),
                    account: "https://acme.test/acct/1".into(),
                    profile: None,
                    staging: false,
                },
            },
            manifest_sha256: "cd".into(),
            published_at: not_before,
            rolled_back: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;

    #[test]
    fn ids_sort_by_time() {
        let earlier = id(timestamp!(2026-09-30 23:59:59 UTC), u32::MAX);
        let later = id(timestamp!(2026-10-01 00:00:00 UTC), 0);
        assert_eq!(earlier, "20260930T235959Z-ffffffff");
        assert!(earlier < later);
        assert_eq!(made_at(&later), Some(timestamp!(2026-10-01 0:00 UTC)));
        assert_eq!(made_at("20260931T000000Z-00000000"), None);
    }

    #[test]
    fn a_later_version_of_the_format_may_say_more() {
        let json = r#"{"schema": "neverlapse.current/1", "sequence": 7, "name": "example.com", "version": "20261001T000000Z-00000000",
            "fingerprint": "ab", "serial": "1f", "not_before": "2026-10-01T00:00:00Z", "not_after": "2026-12-30T00:00:00Z",
            "identifiers": ["example.com"], "key": "ecdsa-p256", "manifest_sha256": "cd", "published_at": "2026-10-01T00:00:09Z",
            "issuer": {"name": "letsencrypt", "directory": "https://x/directory", "account": "https://x/acct/1"}, "new": true}"#;
        let current: Current = serde_json::from_str(json).unwrap();
        assert_eq!(current.facts.key, KeyType::EcdsaP256);
        assert!(!current.facts.issuer.staging && !current.rolled_back);
    }
}
