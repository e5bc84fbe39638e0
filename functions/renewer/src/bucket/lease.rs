//! `orders/{name}.json`: the lease on a certificate, and where to resume. It exists while an order
//! is under way.

use std::pin::pin;
use std::time::Duration;

use lambda_runtime::tracing::warn;
use neverlapse::bucket::document::Document;
use neverlapse::bucket::store::{self, Expecting, Object, Store};
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::attempt::Attempt;
use crate::dns::record::ZoneRecord;
use crate::error::Error;

/// Where leases are kept, and under which KMS key.
pub(crate) struct Leases<'a> {
    pub(crate) store: &'a Store,
    pub(crate) kms_key: &'a str,
}

/// What a lease is wanted for.
pub(crate) struct Claim<'a> {
    /// The object's key: see [`key`] and [`dry_run_key`].
    pub(crate) key: String,
    /// The certificate's name.
    pub(crate) name: &'a str,
    /// Whether to wait for the lease if another renewer holds it.
    pub(crate) wait: bool,
    /// When the work has to be done.
    pub(crate) deadline: Instant,
}

/// The right to work on a certificate. Each write insists on the ETag of the one before, so a
/// renewer that has lost the lease cannot go on.
pub(crate) struct Lease<'a> {
    store: &'a Store,
    kms_key: &'a str,
    key: String,
    held: Mutex<Held>,
}

/// What was written last, and its ETag.
struct Held {
    record: Record,
    tag: String,
}

/// The object's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    schema: String,
    name: String,
    /// Drawn by each holder, so that no two of them ever write the same content.
    #[serde(default)]
    holder: String,
    /// Until when nobody else may touch it; renewed while the holder lives.
    leased_until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
    /// Attempts before it whose orders may still be issued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Attempt>,
    /// TXT records of ours that could not be removed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leftovers: Vec<ZoneRecord>,
}

impl Record {
    /// Makes this the attempt under way, a new one or one to resume. The one before it is kept if
    /// its order may still be issued.
    fn switch_to(&mut self, attempt: Attempt) {
        self.earlier.retain(|earlier| earlier.version != attempt.version);
        if let Some(mut before) = self.attempt.take().filter(|before| before.version != attempt.version) {
            self.leftovers.append(&mut before.txt);
            if before.order.is_some() {
                self.earlier.push(before);
            }
        }
        let surplus = self.earlier.len().saturating_sub(MOST_EARLIER);
        self.earlier.drain(..surplus);
        self.attempt = Some(attempt);
    }

    /// Forgets the attempt, but not its TXT records.
    fn forget(&mut self) {
        if let Some(mut attempt) = self.attempt.take() {
            self.leftovers.append(&mut attempt.txt);
        }
    }

    /// Whether another renewer has the lease. None takes it for long; one that ends later than that
    /// comes from a clock that was wrong, and must not keep the certificate from being renewed.
    fn is_held(&self, now: Timestamp) -> bool {
        now < self.leased_until && self.leased_until <= now + LEASE * 2
    }

    fn is_empty(&self) -> bool {
        self.attempt.is_none() && self.earlier.is_empty() && self.leftovers.is_empty()
    }
}

impl Document for Record {
    const SCHEMA: &'static str = SCHEMA;
}

impl<'a> Leases<'a> {
    /// Does `work` while nobody else can, and stops it when Lambda's time is over. None if another
    /// renewer holds the lease and the claim does not wait.
    pub(crate) async fn hold<T>(
        &self,
        claim: Claim<'_>,
        work: impl AsyncFnOnce(&Lease<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let lease = loop {
            match self.take(&claim, Timestamp::now()).await? {
                Some(lease) => break lease,
                None if !claim.wait => return Ok(None),
                None if Instant::now() + POLL > claim.deadline => {
                    return Err(Error::out_of_time("another renewer is at the certificate"));
                }
                None => sleep(POLL).await,
            }
        };

        let work = timeout_at(claim.deadline + LAST_CALL, work(&lease));
        let result = match lease.while_held(work).await {
            Ok(Ok(result)) => result.map(Some),
            Ok(Err(_)) => Err(Error::out_of_time("working on it")),
            Err(lost) => Err(lost),
        };

        // A lease that cannot be given up expires by itself.
        if let Err(error) = lease.release().await {
            warn!(name = claim.name, fault = %error, "cannot give the lease up");
        }
        result
    }

    /// Takes the lease, also that of a renewer that died; none if another renewer holds it.
    async fn take(&self, claim: &Claim<'_>, now: Timestamp) -> Result<Option<Lease<'a>>, Error> {
        let found = self.store.document::<Record>(&claim.key).await?;
        if found.as_ref().is_some_and(|found| found.value.is_held(now)) {
            return Ok(None);
        }

        let record = Record {
            schema: SCHEMA.to_owned(),
            name: claim.name.to_owned(),
            holder: format!("{:016x}", rand::random::<u64>()),
            leased_until: now + LEASE,
            attempt: found.as_ref().and_then(|found| found.value.attempt.clone()),
            earlier: found
                .as_ref()
                .map(|found| found.value.earlier.clone())
                .unwrap_or_default(),
            leftovers: found
                .as_ref()
                .map(|found| found.value.leftovers.clone())
                .unwrap_or_default(),
        };
        let object = Object::json(&record)?.under(self.kms_key);
        let expecting = Expecting::unchanged(found.as_ref());
        match self.store.put(&claim.key, object, expecting).await {
            Ok(tag) => Ok(Some(Lease {
                store: self.store,
                kms_key: self.kms_key,
                key: claim.key.clone(),
                held: Mutex::new(Held { record, tag }),
            })),
            Err(store::Error::Changed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Lease<'_> {
    /// The attempt under way, and then those before it whose orders may still be issued.
    pub(crate) async fn attempts(&self) -> Vec<Attempt> {
        let held = self.held.lock().await;
        let record = &held.record;
        record
            .attempt
            .iter()
            .chain(record.earlier.iter().rev())
            .cloned()
            .collect()
    }

    /// TXT records of ours that could not be removed yet.
    pub(crate) async fn leftovers(&self) -> Vec<ZoneRecord> {
        self.held.lock().await.record.leftovers.clone()
    }

    /// Makes this the attempt under way.
    pub(crate) async fn switch_to(&self, attempt: &Attempt) -> Result<(), Error> {
        self.write(|record| record.switch_to(attempt.clone())).await
    }

    /// Stores what has become of the attempt under way.
    pub(crate) async fn note(&self, attempt: &Attempt) -> Result<(), Error> {
        self.write(|record| record.attempt = Some(attempt.clone())).await
    }

    /// Forgets the attempt under way.
    pub(crate) async fn forget(&self) -> Result<(), Error> {
        self.write(Record::forget).await
    }

    /// Forgets this attempt, whichever it is.
    pub(crate) async fn drop(&self, version: &str) -> Result<(), Error> {
        self.write(|record| {
            record.earlier.retain(|earlier| earlier.version != version);
            if record
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.version == version)
            {
                record.forget();
            }
        })
        .await
    }

    /// Forgets all attempts, because a version is published.
    pub(crate) async fn finish(&self) -> Result<(), Error> {
        self.write(|record| {
            record.forget();
            record.earlier.clear();
        })
        .await
    }

    /// Stores which TXT records are still to be removed.
    pub(crate) async fn note_leftovers(&self, leftovers: Vec<ZoneRecord>) -> Result<(), Error> {
        self.write(|record| record.leftovers = leftovers).await
    }

    /// Renews the lease while `work` goes on, and stops it when the lease is lost.
    async fn while_held<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let done = Notify::new();
        let mut beat = pin!(self.beat(&done));
        tokio::select! {
            result = work => {
                // A beat that is being written is waited for: its ETag is needed to give the lease
                // up.
                done.notify_one();
                beat.await;
                Ok(result)
            }
            () = &mut beat => Err(Error::LeaseLost),
        }
    }

    /// Returns when the work is done, or when the lease is lost.
    async fn beat(&self, done: &Notify) {
        while timeout(BEAT, done.notified()).await.is_err() {
            match self.write(|_| {}).await {
                Ok(()) => {}
                Err(Error::LeaseLost) => return,
                // The next beat may succeed; if none does, the lease expires, and the next write
                // finds out.
                Err(error) => warn!(fault = %error, key = self.key, "cannot renew the lease"),
            }
        }
    }

    /// Gives the lease up: removes the record, or leaves the attempt to the next renewer.
    async fn release(self) -> Result<(), Error> {
        let Held { mut record, tag } = self.held.into_inner();
        let done = if record.is_empty() {
            self.store.delete_unchanged(&self.key, &tag).await
        } else {
            record.leased_until = Timestamp::now();
            let object = Object::json(&record)?.under(self.kms_key);
            self.store.put(&self.key, object, Expecting::Tag(&tag)).await.map(drop)
        };

        match done {
            Ok(()) | Err(store::Error::Changed { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        let mut next = held.record.clone();
        change(&mut next);
        next.leased_until = Timestamp::now() + LEASE;

        let object = Object::json(&next)?.under(self.kms_key);
        match self.store.put(&self.key, object, Expecting::Tag(&held.tag)).await {
            Ok(tag) => {
                *held = Held { record: next, tag };
                Ok(())
            }
            Err(store::Error::Changed { .. }) => Err(Error::LeaseLost),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where a certificate's lease is.
pub(crate) fn key(name: &str) -> String {
    format!("orders/{name}.json")
}

/// Where the lease of its dry runs is.
pub(crate) fn dry_run_key(name: &str) -> String {
    key(&format!("dry-run/{name}"))
}

const SCHEMA: &str = "neverlapse.order/1";
/// How many orders are kept that may still be issued.
const MOST_EARLIER: usize = 3;
const LEASE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_secs(2);
/// Work may go on for longer than the deadline only in order to tidy up.
const LAST_CALL: Duration = Duration::from_secs(15);
