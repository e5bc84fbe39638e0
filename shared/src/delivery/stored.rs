//! What the bucket has of a certificate: each part is read on its own, so that one that cannot be read hides no other.

use std::collections::BTreeMap;
use std::fmt::Display;

use futures::stream::{self, StreamExt as _};
use serde::de::DeserializeOwned;
use tokio::join;
use tokio::time::{Instant, timeout_at};

use crate::bucket::document::{self, Error};
use crate::bucket::receipt::{self, Receipt};
use crate::bucket::store::Store;
use crate::bucket::version::{Current, Facts, MANIFEST, Manifest, current_key, file_key, versions_prefix};
use crate::inventory::Managed;
use crate::renewal::{self, Renewal};
use crate::report::{CertificateReport, StoredVersion};

/// What the bucket has of one certificate. An error is for people, and says what could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What is to be served; `None` before the first one.
    pub current: Result<Option<Current>, String>,
    /// What the renewer did.
    pub renewal: Result<Option<Renewal>, String>,
    /// What instances did, in the order of their names.
    pub receipts: Result<Vec<Told>, String>,
    /// The versions that are kept, newest first.
    pub history: Result<Vec<StoredVersion>, String>,
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who it is, by the receipt's key.
    pub instance: String,
    /// What it says, or why that makes no sense.
    pub receipt: Result<Receipt, String>,
}

/// Reads what the bucket has of some certificates until `deadline`, in their order.
///
/// `before` are reports of an earlier run: a version never changes, so only those that were not known then are read.
pub async fn read(
    store: &Store,
    certificates: &[Managed],
    before: &[CertificateReport],
    deadline: Instant,
) -> Vec<Stored> {
    let before: BTreeMap<_, _> = before.iter().map(|report| (report.name.as_str(), report)).collect();
    let one = |certificate: &Managed| {
        let (name, before) = (certificate.name.clone(), before.get(certificate.name.as_str()).copied());
        async move {
            let read = timeout_at(deadline, Stored::read(store, &name, before)).await;
            read.unwrap_or_else(|_| Stored::unread("the run's deadline left no time to read it"))
        }
    };
    stream::iter(certificates)
        .map(one)
        .buffered(CERTIFICATES_AT_ONCE)
        .collect()
        .await
}

/// What is to be served of the certificates that were renewed once and are not among these, and what could not be read of them. To forget one, remove what the renewer
/// remembers of it.
pub async fn left_out(store: &Store, certificates: &[Managed], deadline: Instant) -> (Vec<Current>, Vec<String>) {
    let unknown = |problem: String| format!("nobody can say what was taken out of the inventory: {problem}");
    let (mut left, mut problems) = (Vec::new(), Vec::new());
    let read = async {
        let keys = store.keys(renewal::PREFIX).await.map_err(in_words)?;
        let names = keys
            .iter()
            .filter_map(|key| key.strip_prefix(renewal::PREFIX)?.strip_suffix(".json"));
        for name in names.filter(|name| !certificates.iter().any(|certificate| certificate.name == *name)) {
            match document::<Current>(store, &current_key(name), Current::SCHEMA).await {
                Ok(current) => left.extend(current.filter(|current| current.facts.name == name)),
                Err(problem) => problems.push(unknown(problem)),
            }
        }
        Ok(())
    };
    let late = || Err(format!("the run's deadline left no time to list {}", renewal::PREFIX));
    let read = timeout_at(deadline, read).await.unwrap_or_else(|_| late());
    problems.extend(read.err().map(unknown));
    (left, problems)
}

impl Stored {
    /// Reads what there is of one certificate.
    pub async fn read(store: &Store, name: &str, before: Option<&CertificateReport>) -> Self {
        let (current_key, renewal_key) = (current_key(name), Renewal::key(name));
        let (current, renewal, receipts) = join!(
            document::<Current>(store, &current_key, Current::SCHEMA),
            document::<Renewal>(store, &renewal_key, Renewal::SCHEMA),
            receipts(store, name)
        );
        let history = match &current {
            Ok(Some(current)) => history(store, &current.facts, before).await,
            _ => Ok(Vec::new()),
        };
        Self {
            current,
            renewal,
            receipts,
            history,
        }
    }

    /// One of which nothing is known.
    pub fn unread(reason: &str) -> Self {
        Self {
            current: Err(reason.to_owned()),
            renewal: Ok(None),
            receipts: Ok(Vec::new()),
            history: Ok(Vec::new()),
        }
    }
}

/// Reads a document, if it is there.
async fn document<T: DeserializeOwned>(store: &Store, key: &str, schema: &'static str) -> Result<Option<T>, String> {
    let Some(json) = store.object_within(key, LONGEST).await.map_err(in_words)? else {
        return Ok(None);
    };

    let place = format!("s3://{}/{key}", store.bucket());
    document::read(&json, schema).map(Some).map_err(|error| match error {
        Error::Malformed(position) => format!("{place} is not what it should be ({position})"),
        Error::OtherFormat { found, expected } => format!("{place} is in the format {found:?} (expected {expected:?})"),
    })
}

async fn receipts(store: &Store, name: &str) -> Result<Vec<Told>, String> {
    let prefix = receipt::prefix(name);
    let keys = store.keys(&prefix).await.map_err(in_words)?;
    let read = |key: String| async move {
        let Some(instance) = receipt::instance(name, &key) else {
            let instance = key.strip_prefix(&receipt::prefix(name)).unwrap_or(&key).to_owned();
            let receipt = Err(format!("{key} is not named like one (expected INSTANCE.json)"));
            return Some(Told { instance, receipt });
        };
        let receipt = match store.object_within(&key, receipt::LONGEST).await {
            Ok(Some(json)) => Receipt::read(name, instance, &json),
            // The instance has said goodbye since they were listed.
            Ok(None) => return None,
            Err(error) => Err(error.to_string()),
        };
        let instance = instance.to_owned();
        Some(Told { instance, receipt })
    };
    let read: Vec<_> = stream::iter(keys).map(read).buffered(RECEIPTS_AT_ONCE).collect().await;
    Ok(read.into_iter().flatten().collect())
}

/// Looks for other versions only after the pointer has moved.
async fn history(
    store: &Store,
    current: &Facts,
    before: Option<&CertificateReport>,
) -> Result<Vec<StoredVersion>, String> {
    let known = before.map_or(&[][..], |before| &before.history);
    let complete = known.iter().all(|version| version.fingerprint.is_some());
    if complete
        && known
            .iter()
            .any(|known| known.current && known.version == current.version)
    {
        return Ok(known.to_vec());
    }
    let prefix = versions_prefix(&current.name);
    let keys = store.keys(&prefix).await.map_err(in_words)?;
    // The manifest is what makes a version whole.
    let versions = keys
        .iter()
        .rev()
        .filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix(MANIFEST)?.strip_suffix('/'));
    let mut history = Vec::new();
    for version in versions.take(VERSIONS) {
        let is_known = |known: &&StoredVersion| known.version == version && known.fingerprint.is_some();
        history.push(match known.iter().find(is_known) {
            _ if version == current.version => kept(current, current),
            Some(known) => StoredVersion {
                current: false,
                ..known.clone()
            },
            None => {
                let key = file_key(&current.name, version, MANIFEST);
                let manifest = document::<Manifest>(store, &key, Manifest::SCHEMA).await?;
                let Some(manifest) = manifest else { continue };
                kept(&manifest.facts, current)
            }
        });
    }
    Ok(history)
}

fn kept(facts: &Facts, current: &Facts) -> StoredVersion {
    StoredVersion {
        version: facts.version.clone(),
        not_before: facts.not_before,
        not_after: facts.not_after,
        fingerprint: Some(facts.fingerprint.clone()),
        issuer: facts.issuer.name.clone(),
        current: facts.version == current.version,
    }
}

fn in_words(error: impl Display) -> String {
    error.to_string()
}

const CERTIFICATES_AT_ONCE: usize = 16;
/// Of one certificate.
const RECEIPTS_AT_ONCE: usize = 8;
/// As many as anybody looks at; the renewer keeps five.
const VERSIONS: usize = 30;
/// No document of ours is longer, in bytes.
const LONGEST: u64 = 1 << 20;
