//! `orders/{name}.json`: the lease on a certificate, and where to resume. It exists while an order is under way.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use instant_acme::Account;
use lambda_runtime::tracing::warn;
use neverlapse::bucket::store::{self, Expecting, Object, Store};
use neverlapse::bucket::version;
use neverlapse::inventory::{Issuer, KeyType, Managed};
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use crate::error::Fault;
use crate::key::PrivateKey;

/// What the object holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    schema: String,
    name: String,
    /// Drawn by whoever holds it, so that no two of them ever write the same.
    #[serde(default)]
    holder: String,
    /// Until when nobody else may touch it; renewed while the holder lives.
    leased_until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
}

/// One attempt to get one version from one issuer.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The version that it will become.
    pub(crate) version: String,
    /// The issuer's name in the inventory, its directory, and our account there.
    pub(crate) issuer: String,
    pub(crate) directory: String,
    pub(crate) account: String,
    pub(crate) identifiers: Vec<String>,
    pub(crate) key_type: KeyType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<String>,
    /// Stored before the CA sees a request made with it.
    pub(crate) key: PrivateKey,
    /// The order's URL, once the CA has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<String>,
    /// TXT values of ours: noted before they are written, forgotten after they are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) txt: Vec<Txt>,
}

/// A TXT value, and the hosted zone that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Txt {
    pub(crate) zone: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut attempt = f.debug_struct("Attempt");
        attempt
            .field("version", &self.version)
            .field("issuer", &self.issuer)
            .field("order", &self.order);
        attempt.finish_non_exhaustive()
    }
}

impl Attempt {
    /// A new one for what the inventory wants. What an attempt before it could not take out of DNS is taken out by this one.
    pub(crate) fn new(
        (name, issuer): (&str, &Issuer),
        account: &str,
        wanted: &Managed,
        key: PrivateKey,
        before: Option<&Attempt>,
    ) -> Self {
        Self {
            version: version::id(Timestamp::now(), rand::random()),
            issuer: name.to_owned(),
            directory: issuer.directory.clone(),
            account: account.to_owned(),
            identifiers: wanted.identifiers.clone(),
            key_type: wanted.key_type,
            profile: wanted.profile.clone(),
            key,
            order: None,
            txt: before.map(|before| before.txt.clone()).unwrap_or_default(),
        }
    }

    /// Whether what it orders is still what the inventory wants.
    pub(crate) fn fits(&self, wanted: &Managed, issuers: impl Fn(&str) -> Option<Issuer>) -> bool {
        let issuer = wanted
            .issuers
            .contains(&self.issuer)
            .then(|| issuers(&self.issuer))
            .flatten();
        issuer.is_some_and(|issuer| issuer.directory == self.directory)
            && self.identifiers == wanted.identifiers
            && self.key_type == wanted.key_type
            && self.profile == wanted.profile
    }

    /// Whether the order is one of this account's.
    pub(crate) fn is_of(&self, account: &Account) -> bool {
        self.account == account.id()
    }
}

/// The right to work on a certificate. Each write insists on the ETag of the one before, so that who lost it cannot go on.
pub(crate) struct Lease<'a> {
    store: &'a Store,
    kms_key: &'a str,
    key: String,
    held: Mutex<(Record, String)>,
}

impl<'a> Lease<'a> {
    /// Takes the lease, also that of a renewer that died; nothing if another one holds it.
    pub(crate) async fn take(
        store: &'a Store,
        kms_key: &'a str,
        key: String,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, Fault> {
        let found = store.json::<Record>(&key).await?;
        if found.as_ref().is_some_and(|found| found.value.leased_until > now) {
            return Ok(None);
        }
        let record = Record {
            schema: SCHEMA.to_owned(),
            name: name.to_owned(),
            holder: format!("{:016x}", rand::random::<u64>()),
            leased_until: now + LEASE,
            attempt: found.as_ref().and_then(|found| found.value.attempt.clone()),
        };
        let object = Object::json(&record)?.under(kms_key);
        match store.put(&key, object, Expecting::unchanged(found.as_ref())).await {
            Ok(tag) => {
                let held = Mutex::new((record, tag));
                Ok(Some(Self {
                    store,
                    kms_key,
                    key,
                    held,
                }))
            }
            Err(store::Error::Changed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The attempt under way, if there is one.
    pub(crate) async fn attempt(&self) -> Option<Attempt> {
        self.held.lock().await.0.attempt.clone()
    }

    /// Stores the attempt, or that there is none.
    pub(crate) async fn note(&self, attempt: Option<&Attempt>) -> Result<(), Fault> {
        self.write(|record| record.attempt = attempt.cloned()).await
    }

    /// Renews the lease while `work` goes on, and stops it when the lease is lost.
    pub(crate) async fn while_held<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        let done = Notify::new();
        let mut beat = pin!(self.beat(&done));
        tokio::select! {
            result = work => {
                // A beat that is being written is waited for: its ETag is needed to give the lease up.
                done.notify_one();
                beat.await;
                Ok(result)
            }
            () = &mut beat => Err(Fault::Overtaken),
        }
    }

    /// Ends when the work is done, or when the lease is lost.
    async fn beat(&self, done: &Notify) {
        while timeout(BEAT, done.notified()).await.is_err() {
            match self.write(|_| {}).await {
                Ok(()) => {}
                Err(Fault::Overtaken) => return,
                // The next beat may succeed; if none does, the lease ends, and the next write finds out.
                Err(fault) => warn!(%fault, key = self.key, "cannot renew the lease"),
            }
        }
    }

    /// Gives the lease up: removes the record, or leaves the attempt to whoever comes next.
    pub(crate) async fn release(self) -> Result<(), Fault> {
        let (mut record, tag) = self.held.into_inner();
        let done = match record.attempt {
            None => self.store.delete_unchanged(&self.key, &tag).await,
            Some(_) => {
                record.leased_until = Timestamp::now();
                let object = Object::json(&record)?.under(self.kms_key);
                self.store.put(&self.key, object, Expecting::Tag(&tag)).await.map(drop)
            }
        };
        match done {
            Ok(()) | Err(store::Error::Changed { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, change: impl FnOnce(&mut Record)) -> Result<(), Fault> {
        let mut held = self.held.lock().await;
        let (record, tag) = &mut *held;
        let mut next = record.clone();
        change(&mut next);
        next.leased_until = Timestamp::now() + LEASE;
        let object = Object::json(&next)?.under(self.kms_key);
        match self.store.put(&self.key, object, Expecting::Tag(tag)).await {
            Ok(written) => {
                (*record, *tag) = (next, written);
                Ok(())
            }
            Err(store::Error::Changed { .. }) => Err(Fault::Overtaken),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where a certificate's record is.
pub(crate) fn key(name: &str) -> String {
    format!("orders/{name}.json")
}

const SCHEMA: &str = "neverlapse.order/1";
const LEASE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_secs(20);
