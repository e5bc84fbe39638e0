//! The order of one certificate: from one issuer after the other, until one of them issues.

use instant_acme::{Account, CertificateIdentifier};
use lambda_runtime::tracing::warn;
use neverlapse::bucket::version::{Current, PRIVKEY, file_key};
use neverlapse::inventory::Issuer;
use neverlapse::renewal::{Reason, Renewal};
use neverlapse::timestamp::Timestamp;

use super::task::Task;
use crate::acme::http::{self, Http};
use crate::acme::order::Issuance;
use crate::bucket::attempt::Attempt;
use crate::bucket::issued::{Expected, Issued};
use crate::bucket::lease::Lease;
use crate::bucket::version;
use crate::error::Error;
use crate::history::History;
use crate::key::PrivateKey;

/// A certificate that is due, and everything that its order depends on.
pub(crate) struct Job<'a> {
    pub(crate) task: Task<'a>,
    pub(crate) lease: &'a Lease<'a>,
    /// In the order in which to try them.
    pub(crate) issuers: Vec<&'a Issuer>,
    /// The version to replace.
    pub(crate) current: Option<&'a Current>,
    pub(crate) reason: &'a Reason,
    pub(crate) renewal: &'a Renewal,
    /// Where to remember that an issuer asked to wait; a dry run remembers nothing.
    pub(crate) history: Option<&'a History>,
}

impl Job<'_> {
    /// Orders from one issuer after the other, until one issues or the failure is not an issuer's.
    /// `under_way` is the attempt that an earlier renewer began.
    pub(crate) async fn order(&self, mut under_way: Option<Attempt>) -> Result<Issued, Error> {
        let name = &self.task.wanted.name;
        let mut issuers = self.issuers.clone();
        // An order that was begun is finished, whichever issuer would be asked first.
        if let Some(attempt) = under_way.as_ref().filter(|attempt| attempt.order.is_some()) {
            issuers.sort_by_key(|issuer| issuer.name != attempt.issuer);
        }

        let mut problems = Vec::new();
        let mut waits = Vec::new();
        for issuer in issuers {
            if let Some(until) = self.has_to_wait(issuer) {
                problems.push(format!("{}: not asked; it said to wait until {until}", issuer.name));
                waits.push(Some(until));
                continue;
            }

            let resumed = under_way.take_if(|attempt| attempt.issuer == issuer.name);
            match self.order_from(issuer, resumed).await {
                Err(Error::CaUnavailable { problem, retry_after }) => {
                    warn!(name, issuer = issuer.name, said = problem, "the issuer is at fault");
                    problems.push(format!("{}: {problem}", issuer.name));
                    waits.push(retry_after);
                    if let (Some(until), Some(history)) = (retry_after, self.history) {
                        history.wait(name, &issuer.name, until).await?;
                    }
                }
                Err(Error::CaRefused(problem)) => {
                    return Err(Error::CaRefused(format!("{}: {problem}", issuer.name)));
                }
                other => return other,
            }
        }

        Err(Error::CaUnavailable {
            problem: problems.join("\n"),
            // An issuer that named no time may be asked again sooner than the earliest of the
            // others.
            retry_after: waits
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .and_then(|waits| waits.into_iter().min()),
        })
    }

    fn has_to_wait(&self, issuer: &Issuer) -> Option<Timestamp> {
        if self.task.request.is_urgent() {
            return None;
        }
        self.renewal.asked_to_wait(&issuer.name, Timestamp::now())
    }

    /// One order at one issuer. Its attempt stays in the lease until the version is published,
    /// unless the CA would only answer the same again.
    async fn order_from(&self, issuer: &Issuer, resumed: Option<Attempt>) -> Result<Issued, Error> {
        let Task { services, wanted, .. } = self.task;
        let roots = http::roots(issuer, &services.store).await?;
        let http = Http::new(&roots)?;
        let account = services.accounts().open(issuer, &http).await?;
        let mut attempt = match resumed.filter(|attempt| attempt.is_of(&account)) {
            Some(attempt) => attempt,
            None => self.begin(issuer, &account).await?,
        };

        let issuance = Issuance {
            account: &account,
            http: &http,
            lease: self.lease,
            zones: &services.zones(&self.task.inventory.zones).await?,
            lookup: &services.lookup()?,
            deadline: self.task.deadline,
        };
        let replaces = self.replaces(issuer, &account).await;
        let chain = match issuance.chain(&mut attempt, replaces).await {
            Err(refused @ Error::CaRefused(_)) if attempt.txt.is_empty() => {
                self.lease.note(None).await?;
                return Err(refused);
            }
            chain => chain?,
        };
        // An attempt that was resumed may have left TXT records behind that its order no longer
        // needs.
        issuance.remove(&mut attempt).await?;

        let expected = Expected {
            name: &wanted.name,
            attempt: &attempt,
            issuer,
            roots: &roots,
        };
        let issued = expected.check(&chain, Timestamp::now());
        if issued.is_err() {
            // Asked again, the CA would hand out the same.
            self.lease.note(None).await?;
        }
        issued
    }

    /// A new attempt, stored with its key before the CA hears of it. It also removes from DNS what
    /// the attempt before it could not.
    async fn begin(&self, issuer: &Issuer, account: &Account) -> Result<Attempt, Error> {
        let key = self.key().await?;
        let before = self.lease.attempt().await;
        let attempt = Attempt {
            txt: before.map(|before| before.txt).unwrap_or_default(),
            ..Attempt::new(issuer, account, self.task.wanted, key)
        };
        self.lease.note(Some(&attempt)).await?;
        Ok(attempt)
    }

    /// The current version's key, if the inventory wants to keep it and it is not revoked; else a
    /// new one.
    async fn key(&self) -> Result<PrivateKey, Error> {
        let wanted = self.task.wanted;
        let kept = self.current.filter(|current| {
            wanted.reuse_key && current.facts.key == wanted.key_type && *self.reason != Reason::Revoked
        });
        if let Some(Current { facts, .. }) = kept {
            let found = version::private_key(&self.task.services.store, facts).await?;
            return found.ok_or_else(|| {
                let key = file_key(&facts.name, &facts.version, PRIVKEY);
                Error::Internal(format!("{key} is not there, and reuse_key wants it"))
            });
        }

        // An RSA key takes seconds, and the lease has to be renewed meanwhile.
        let kind = wanted.key_type;
        tokio::task::spawn_blocking(move || PrivateKey::generate(kind))
            .await
            .map_err(|error| Error::Internal(format!("cannot generate a key: {error}")))?
    }

    /// The certificate that the order replaces. It is named only to the issuer and account that it
    /// came from, because all others refuse such an order (RFC 9773, 5).
    async fn replaces(&self, issuer: &Issuer, account: &Account) -> Option<CertificateIdentifier<'static>> {
        let facts = self.current.map(|current| &current.facts)?;
        if facts.issuer.directory != issuer.directory || facts.issuer.account != account.id() {
            return None;
        }

        let leaf = version::leaf(&self.task.services.store, facts).await.ok()?;
        let id = CertificateIdentifier::try_from(&leaf).ok()?;
        Some(id.into_owned())
    }
}
