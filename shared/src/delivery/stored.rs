//! What the bucket has of a certificate. Each part is read on its own, so that one that cannot be
//! read hides no other.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::join;
use tokio::time::{Instant, timeout_at};

use crate::bucket::document::Document;
use crate::bucket::receipt::{self, Receipt};
use crate::bucket::store::Store;
use crate::bucket::version::{Current, Facts, MANIFEST, Manifest, current_key, file_key, versions_prefix};
use crate::inventory::Managed;
use crate::isolation::{isolated, isolated_async};
use crate::renewal::{self, Renewal, RenewalFailure};
use crate::report::{CertificateReport, StoredVersion};

/// What the bucket has of one certificate. An error is for people, and says what could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The version to serve; `None` before the first one.
    pub current: Result<Option<Current>, String>,
    /// The record of its renewals; `None` before the first try.
    pub renewal: Result<Option<Renewal>, String>,
    /// The receipts of instances, in the order of their keys.
    pub receipts: Result<Vec<StoredReceipt>, String>,
    /// The versions that are kept, newest first.
    pub history: Result<Vec<StoredVersion>, String>,
}

/// A receipt as it is in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The instance, by the receipt's key.
    pub instance: String,
    /// What it reports, or why that cannot be read.
    pub receipt: Result<Receipt, String>,
}

/// Reads what the bucket has of some certificates until `deadline`, in their order.
///
/// `before` are the reports of an earlier run: a version never changes, so only those that were not
/// known then are read.
pub async fn read(
    store: &Store,
    certificates: &[Managed],
    before: &[CertificateReport],
    deadline: Instant,
) -> Vec<Stored> {
    read_each_within(PER_CERTIFICATE, store, certificates, before, deadline).await
}

/// The same, with a limit to the time that each certificate takes.
async fn read_each_within(
    limit: Duration,
    store: &Store,
    certificates: &[Managed],
    before: &[CertificateReport],
    deadline: Instant,
) -> Vec<Stored> {
    let before: BTreeMap<_, _> = before.iter().map(|report| (report.name.as_str(), report)).collect();

    // In order, one that is slow would keep those after it from being begun.
    let mut read: Vec<_> = stream::iter(certificates.iter().enumerate())
        .map(|(index, certificate)| {
            let name = certificate.name.clone();
            let before = before.get(name.as_str()).copied();
            async move {
                let until = deadline.min(Instant::now() + limit);
                let read = isolated_async(Stored::read(store, &name, before));
                let stored = match timeout_at(until, read).await {
                    Ok(Ok(stored)) => stored,
                    Ok(Err(panicked)) => Stored::unread(&panicked.to_string()),
                    Err(_) if until == deadline => Stored::unread("the run's deadline left no time to read it"),
                    Err(_) => Stored::unread(&format!("it cannot be read within {} seconds", limit.as_secs())),
                };
                (index, stored)
            }
        })
        .buffer_unordered(CERTIFICATES_AT_ONCE)
        .collect()
        .await;
    read.sort_by_key(|(index, _)| *index);
    read.into_iter().map(|(_, stored)| stored).collect()
}

/// The current versions of certificates that were renewed once and are not among these, by name,
/// and what could not be read of them.
///
/// A certificate is known by the record of its renewals; one without that record is forgotten.
pub async fn left_out(store: &Store, certificates: &[Managed], deadline: Instant) -> (Vec<Facts>, Vec<String>) {
    let mut left_out = Vec::new();
    let mut problems = Vec::new();

    let read = timeout_at(deadline, async {
        let keys = store.keys(renewal::PREFIX).await.map_err(in_words)?;
        let managed: HashSet<_> = certificates
            .iter()
            .map(|certificate| certificate.name.as_str())
            .collect();
        let mut names: Vec<_> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(renewal::PREFIX)?.strip_suffix(".json"))
            .filter(|name| !managed.contains(name))
            .map(str::to_owned)
            .collect();
        // Without their number, which may be another one in each run: it is one incident.
        if names.len() > LEFT_OUT {
            names.truncate(LEFT_OUT);
            problems.push(format!(
                "{} has records of more than {LEFT_OUT} certificates that are not in it; the others are not read",
                renewal::PREFIX
            ));
        }

        let mut all = stream::iter(names)
            .map(|name| async move { document::<Current>(store, &current_key(&name)).await })
            .buffer_unordered(CERTIFICATES_AT_ONCE);
        while let Some(read) = all.next().await {
            match read {
                Ok(current) => left_out.extend(current.map(|current| current.facts)),
                Err(problem) => problems.push(problem),
            }
        }
        Ok(())
    });
    let read = read
        .await
        .unwrap_or_else(|_| Err(format!("the run's deadline left no time to read {}", renewal::PREFIX)));
    problems.extend(read.err());

    left_out.sort_by(|one: &Facts, other| one.name.cmp(&other.name));
    problems.sort();
    let problems = problems
        .into_iter()
        .map(|problem| format!("it is not known what was removed from the inventory: {problem}"))
        .collect();
    (left_out, problems)
}

impl Stored {
    /// Reads what there is of one certificate. `before` is its report of an earlier run.
    pub async fn read(store: &Store, name: &str, before: Option<&CertificateReport>) -> Self {
        let current_key = current_key(name);
        let renewal_key = Renewal::key(name);
        let (current, renewal, receipts) = join!(
            document::<Current>(store, &current_key),
            document::<Renewal>(store, &renewal_key),
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

    /// A certificate of which nothing could be read.
    pub fn unread(reason: &str) -> Self {
        Self {
            current: Err(reason.to_owned()),
            renewal: Ok(None),
            receipts: Ok(Vec::new()),
            history: Ok(Vec::new()),
        }
    }

    /// The version to serve, if it is known and there is one.
    pub(super) fn pointer(&self) -> Option<&Current> {
        self.current.as_ref().ok()?.as_ref()
    }

    /// The record of renewals, if it is known and there is one.
    pub(super) fn record(&self) -> Option<&Renewal> {
        self.renewal.as_ref().ok()?.as_ref()
    }

    /// The last renewal's failure, if it is known and did fail.
    pub(super) fn failure(&self) -> Option<&RenewalFailure> {
        self.record()?.failure.as_ref()
    }

    /// The versions that are known.
    pub(super) fn versions(&self) -> &[StoredVersion] {
        self.history.as_deref().unwrap_or_default()
    }

    /// The receipts that are known, readable or not.
    pub(super) fn receipts(&self) -> &[StoredReceipt] {
        self.receipts.as_deref().unwrap_or_default()
    }

    /// The receipts that can be read.
    pub(super) fn readable_receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts().iter().filter_map(|stored| stored.receipt.as_ref().ok())
    }
}

/// Reads a document, if it is there.
async fn document<T: Document>(store: &Store, key: &str) -> Result<Option<T>, String> {
    let found = store.document(key).await.map_err(in_words)?;
    Ok(found.map(|found| found.value))
}

/// Reads all receipts of a certificate.
async fn receipts(store: &Store, name: &str) -> Result<Vec<StoredReceipt>, String> {
    let prefix = receipt::prefix(name);
    let (keys, are_all) = store.first_keys(&prefix, RECEIPTS).await.map_err(in_words)?;
    let read: Vec<_> = stream::iter(keys)
        .map(|key| stored_receipt(store, name, key))
        .buffered(RECEIPTS_AT_ONCE)
        .collect()
        .await;

    let mut receipts: Vec<_> = read.into_iter().flatten().collect();
    if !are_all {
        receipts.push(StoredReceipt {
            instance: format!("whoever writes to {prefix}"),
            receipt: Err(format!(
                "there are more than {RECEIPTS} receipts; the others are not read"
            )),
        });
    }
    Ok(receipts)
}

/// Reads one receipt; none if its instance has removed it since the keys were listed.
async fn stored_receipt(store: &Store, name: &str, key: String) -> Option<StoredReceipt> {
    let Some(instance) = receipt::instance(name, &key) else {
        return Some(StoredReceipt {
            instance: key.strip_prefix(&receipt::prefix(name)).unwrap_or(&key).to_owned(),
            receipt: Err(format!("{key} is not named like one (expected INSTANCE.json)")),
        });
    };

    let receipt = match store.object(&key, receipt::LONGEST).await {
        Ok(json) => {
            let json = json?;
            isolated(|| Receipt::read(name, instance, &json)).unwrap_or_else(|panicked| Err(panicked.to_string()))
        }
        Err(error) => Err(error.to_string()),
    };
    Some(StoredReceipt {
        instance: instance.to_owned(),
        receipt,
    })
}

/// Reads the versions that are kept. It lists them only if the pointer has moved since `before`.
async fn history(
    store: &Store,
    current: &Facts,
    before: Option<&CertificateReport>,
) -> Result<Vec<StoredVersion>, String> {
    let known = before.map_or(&[][..], |before| &before.history);
    let has_not_moved = known
        .iter()
        .any(|known| known.current && known.facts.version == current.version);
    if has_not_moved {
        return Ok(known.to_vec());
    }

    let prefix = versions_prefix(&current.name);
    let keys = store.keys(&prefix).await.map_err(in_words)?;
    // The manifest is written last: without it, a version is not whole.
    let versions = keys
        .iter()
        .rev()
        .filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix(MANIFEST)?.strip_suffix('/'));

    let mut history = Vec::new();
    for version in versions.take(VERSIONS) {
        let is_current = version == current.version;
        let known = known.iter().find(|known| known.facts.version == version);
        let facts = if is_current {
            Some(current.into())
        } else if let Some(known) = known {
            Some(known.facts.clone())
        } else {
            let key = file_key(&current.name, version, MANIFEST);
            let manifest = document::<Manifest>(store, &key).await?;
            manifest.map(|manifest| (&manifest.facts).into())
        };
        history.extend(facts.map(|facts| StoredVersion {
            facts,
            current: is_current,
        }));
    }
    Ok(history)
}

fn in_words(error: impl Display) -> String {
    error.to_string()
}

const CERTIFICATES_AT_ONCE: usize = 16;
/// One that takes longer than this has more objects than anybody needs, or S3 does not answer.
const PER_CERTIFICATE: Duration = Duration::from_secs(120);
/// The most certificates that are read of those that are not in the inventory.
const LEFT_OUT: usize = 1_000;
/// Of one certificate.
const RECEIPTS_AT_ONCE: usize = 8;
/// The most that are read of a certificate, in the order of their keys. A fleet of this size has
/// its own ways to deliver.
const RECEIPTS: usize = 5_000;
/// The most that are read. The renewer keeps five.
const VERSIONS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::fake::bucket;
    use crate::inventory::Inventory;
    use crate::timestamp;

    fn pointer(name: &str) -> (String, String) {
        let from = timestamp!(2026-10-01 0:00 UTC);
        let current = Current::sample(name, from, from + time::Duration::days(90));
        (current_key(name), serde_json::to_string(&current).unwrap())
    }

    /// While the first certificate was slow, the seventeenth was not begun, and had no time in the
    /// end.
    #[tokio::test]
    async fn a_slow_certificate_keeps_no_other_from_being_read() {
        let names: Vec<_> = (0..40).map(|n| format!("n{n:02}.test")).collect();
        let inventory: String = names
            .iter()
            .map(|name| format!("[[certificate]]\nidentifiers = [{name:?}]\n"))
            .collect();
        let certificates = Inventory::parse(&inventory).certificates;
        let objects = names.iter().map(|name| pointer(name)).collect();
        let store = bucket(objects, |key| {
            Duration::from_secs(if key.contains("n00.test") { 600 } else { 0 })
        })
        .await;

        let limit = Duration::from_secs(10);
        let deadline = Instant::now() + Duration::from_secs(120);
        let read = read_each_within(limit, &store, &certificates, &[], deadline).await;
        assert_eq!(read[0], Stored::unread("it cannot be read within 10 seconds"));
        let others: Vec<_> = read[1..]
            .iter()
            .map(|stored| &stored.pointer().unwrap().facts.name)
            .collect();
        assert_eq!(others, names[1..].iter().collect::<Vec<_>>());
    }

    /// They were read one after the other, and alerts waited for all of them.
    #[tokio::test]
    async fn a_thousand_stray_records_are_read_soon_and_the_rest_is_one_problem() {
        let stray = |n: usize| format!("n{n:04}.test");
        let records = (0..LEFT_OUT + 5).map(|n| (Renewal::key(&stray(n)), "{}".to_owned()));
        let pointers = [1, 0].map(|n| pointer(&stray(n)));
        // It is about another certificate.
        let foreign = (current_key(&stray(2)), pointer("shop.test").1);
        let objects = records.chain(pointers).chain([foreign]).collect();
        let store = bucket(objects, |_| Duration::from_millis(100)).await;

        let deadline = Instant::now() + Duration::from_secs(60);
        let (left_out, problems) = super::left_out(&store, &[], deadline).await;
        let names: Vec<_> = left_out.iter().map(|facts| facts.name.as_str()).collect();
        assert_eq!(names, ["n0000.test", "n0001.test"]);
        let [foreign, rest] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert!(
            foreign.ends_with("it is about \"shop.test\" (expected \"n0002.test\")"),
            "{foreign}"
        );
        assert!(rest.contains("more than 1000 certificates"), "{rest}");
    }
}
