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
use crate::name;
use crate::text::{cut, sha256};
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

impl Facts {
    /// Why these cannot be the facts of a version of the certificate `name`, if they cannot.
    ///
    /// They come from the bucket, and every finding about the version repeats some of them.
    pub fn problem(&self, name: &str) -> Option<String> {
        if self.name != name {
            return Some(format!("it is about {:?} (expected {name:?})", cut(&self.name, SHOWN)));
        }
        if !name::is_folder(&self.version) || self.version.len() > LONGEST {
            return Some(format!(
                "version {:?} cannot be a folder (expected at most {LONGEST} letters, digits, -, _ and .)",
                cut(&self.version, SHOWN)
            ));
        }

        let repeated = [("fingerprint", &self.fingerprint), ("issuer", &self.issuer.name)];
        let (what, long) = repeated.into_iter().find(|(_, text)| text.len() > LONGEST)?;
        Some(format!(
            "{what} {:?} is too long (expected at most {LONGEST} bytes)",
            cut(long, SHOWN)
        ))
    }
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
    /// date. It begins with the Unix time, so it is never above that.
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

    fn misplaced(&self, key: &str) -> Option<String> {
        let Facts { name, version, .. } = &self.facts;
        let problem = self.facts.problem(name_in(key)?);
        problem.or_else(|| {
            let is_elsewhere = file_key(name, version, MANIFEST) != key;
            is_elsewhere.then(|| format!("it is about version {version:?}"))
        })
    }
}

impl Current {
    /// Name and version of this format.
    pub const SCHEMA: &str = "neverlapse.current/1";

    /// Why this cannot be the pointer of the certificate `name`, if it cannot.
    pub fn problem(&self, name: &str, now: Timestamp) -> Option<String> {
        self.facts.problem(name).or_else(|| {
            // No pointer could ever follow the highest number there is. The words are the same in
            // each run, because they tell one problem from another.
            let is_possible = self.sequence <= unix(now + CLOCKS_DIFFER);
            (!is_possible).then(|| format!("its sequence is {} (expected at most the Unix time)", self.sequence))
        })
    }

    /// The sequence of the pointer that takes its place.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.saturating_add(1)
    }

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

    fn misplaced(&self, key: &str) -> Option<String> {
        self.problem(name_in(key)?, Timestamp::now())
    }
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

/// Where a sequence begins: above any that an earlier bucket has shown to instances, which refuse a
/// lower one.
pub(super) fn first_sequence(now: Timestamp) -> u64 {
    unix(now).max(1)
}

fn unix(time: Timestamp) -> u64 {
    time.unix().try_into().unwrap_or_default()
}

/// The certificate that a key of these belongs to.
fn name_in(key: &str) -> Option<&str> {
    key.strip_prefix("certificates/")?.split('/').next()
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

/// Of a version's name and of what findings repeat, in bytes. An [`id`] has 25, a fingerprint 64.
const LONGEST: usize = 200;
/// Of a text that is refused, in characters.
const SHOWN: usize = 100;
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

    /// A version of a megabyte was copied into a finding for each receipt.
    #[test]
    fn facts_of_another_certificate_or_without_a_folder_are_refused() {
        let now = timestamp!(2026-10-01 0:00 UTC);
        let facts = Current::sample("shop.test", now, now).facts;
        let of = |version: &str| Facts {
            version: version.to_owned(),
            ..facts.clone()
        };
        for version in ["v1", "new", &id(now, 7), &"v".repeat(LONGEST)] {
            assert_eq!(of(version).problem("shop.test"), None, "{version}");
        }

        let fingerprint = Facts {
            fingerprint: "a".repeat(1 << 20),
            ..facts.clone()
        };
        for (facts, expected) in [
            (of("../../x"), "version \"../../x\" cannot be a folder (expected "),
            (of(""), "version \"\" cannot be a folder (expected "),
            (of(&"v".repeat(1 << 20)), "version \"vvv"),
            (fingerprint, "fingerprint \"aaa"),
        ] {
            let problem = facts.problem("shop.test").unwrap();
            assert!(problem.starts_with(expected) && problem.len() < 300, "{problem}");
        }
        assert_eq!(
            facts.problem("other.test").unwrap(),
            "it is about \"shop.test\" (expected \"other.test\")"
        );
    }

    /// What follows the highest number was 0, which every instance refuses.
    #[test]
    fn a_sequence_that_none_could_follow_is_refused() {
        let now = timestamp!(2026-10-01 0:00 UTC);
        let of = |sequence| Current {
            sequence,
            ..Current::sample("shop.test", now, now)
        };
        let first = first_sequence(now);
        for sequence in [0, 7, first, first + 3600] {
            assert_eq!(of(sequence).problem("shop.test", now), None, "{sequence}");
        }
        for sequence in [first + 3601, u64::MAX] {
            assert_eq!(
                of(sequence).problem("shop.test", now).unwrap(),
                format!("its sequence is {sequence} (expected at most the Unix time)")
            );
        }
        assert_eq!(first_sequence(timestamp!(1969-12-31 0:00 UTC)), 1);
    }

    #[test]
    fn a_manifest_belongs_into_the_folder_of_its_version() {
        let now = timestamp!(2026-10-01 0:00 UTC);
        let manifest = Manifest {
            schema: Manifest::SCHEMA.into(),
            facts: Current::sample("shop.test", now, now).facts,
            files: BTreeMap::new(),
        };
        let version = &manifest.facts.version;
        for (name, folder, expected) in [
            ("shop.test", version.as_str(), None),
            ("shop.test", "other", Some(format!("it is about version {version:?}"))),
            (
                "other.test",
                version.as_str(),
                Some("it is about \"shop.test\" (expected \"other.test\")".to_owned()),
            ),
        ] {
            assert_eq!(manifest.misplaced(&file_key(name, folder, MANIFEST)), expected);
        }
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
