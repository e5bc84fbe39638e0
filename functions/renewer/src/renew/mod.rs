//! One request, from the question whether anything is due to the version that is published.

mod dry_run;
pub(crate) mod job;
mod revoke;

use std::fmt::Display;

use aws_config::SdkConfig;
use instant_acme::{Account, CertificateIdentifier};
use lambda_runtime::tracing::{info, warn};
use neverlapse::alert::{Sender, Topic};
use neverlapse::bucket::store::{Store, Tagged};
use neverlapse::bucket::version::{CERT, Current, Facts, PRIVKEY, file_key};
use neverlapse::chain::roots::Roots;
use neverlapse::inventory::{Inventory, Issuer, Managed};
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::renewal::{Decision, Reason, Renewal, decide};
use neverlapse::timestamp::Timestamp;
use tokio::time::{Duration, Instant, sleep, timeout_at};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::acme::account::Accounts;
use crate::acme::http::Http;
use crate::acme::order::{self, Ordering};
use crate::bucket::lease::{self as record, Attempt, Lease};
use crate::bucket::publish::{self, Issued};
use crate::dns::lookup::Lookup;
use crate::dns::zone::Zones;
use crate::error::Fault;
use crate::key::PrivateKey;
use crate::notify::Teller;
use crate::outcome::Outcome;
use crate::renew::job::Case;
use crate::settings::Settings;

/// Everything that outlives one request.
pub(crate) struct Renewer {
    settings: Settings,
    config: SdkConfig,
    pub(crate) store: Store,
    pub(crate) teller: Teller,
}

impl Renewer {
    pub(crate) fn new(settings: Settings, config: SdkConfig) -> Self {
        let store = Store::new(aws_sdk_s3::Client::new(&config), settings.bucket.clone());
        Self {
            teller: Teller {
                store: store.clone(),
                topic: Topic::new(aws_sdk_sns::Client::new(&config), &settings.alert_topic),
                sender: Sender::of(&settings.stack, &settings.alert_topic, &settings.bucket),
            },
            store,
            settings,
            config,
        }
    }

    /// The stack that it belongs to.
    pub(crate) fn stack(&self) -> &str {
        &self.settings.stack
    }

    /// Does what is asked, if it is due. An error means: deliver the request again.
    pub(crate) async fn handle(&self, request: &Request, deliveries: u32, deadline: Instant) -> Result<Outcome, Fault> {
        let (name, result) = (&request.name, self.answer(request, deadline).await);
        if request.action != Action::ReplaceAccountKey && !request.dry_run {
            let patient = request.requested_by == RequestedBy::Probe;
            return self.conclude(name, patient, deliveries, result).await;
        }
        match result {
            Err(fault @ (Fault::OutOfTime(_) | Fault::Overtaken)) => Err(fault),
            // A person reads that and asks again; the queue must not.
            Err(fault) => {
                self.teller.tell(self.teller.refused(name, &fault.to_string())).await;
                Ok(Outcome::Refused)
            }
            done => done,
        }
    }

    async fn answer(&self, request: &Request, deadline: Instant) -> Result<Outcome, Fault> {
        let blind = |failed: &dyn Display| Fault::Blind(failed.to_string());
        let written = self.store.inventory().await.map_err(|failed| blind(&failed))?;
        let inventory = Inventory::parse(&written.unwrap_or_default());
        if request.action == Action::ReplaceAccountKey {
            return self.replace_account_key(request, &inventory).await;
        }
        let certificates = &inventory.certificates;
        let Some(wanted) = certificates.iter().find(|wanted| wanted.name == request.name) else {
            return Ok(self.unknown(request, &inventory).await);
        };
        let case = Case {
            wanted,
            inventory: &inventory,
            request,
            deadline,
        };
        if request.dry_run {
            return self.rehearse(&case).await;
        }
        let key = record::key(&wanted.name);
        let current = self.current(&wanted.name).await.map_err(|failed| blind(&failed))?;
        let renewal = self.advised(&case, current.as_ref()).await;
        let renewal = renewal.map_err(|failed| blind(&failed))?;
        let under_way = self.store.object(&key).await?.is_some();
        let now = Timestamp::now();
        match decide(wanted, value(current.as_ref()), Some(&renewal), Some(request), now) {
            Decision::NotDue { next } if !under_way && request.action != Action::Revoke => {
                return Ok(Outcome::NotDue { next });
            }
            Decision::Due {
                next_try: Some(until), ..
            } => return Ok(Outcome::Waiting { until }),
            decision => info!(name = wanted.name, %decision, under_way, "decided"),
        }
        self.with_lease(&case, key, async |lease| self.work(&case, lease).await)
            .await
    }

    async fn replace_account_key(&self, request: &Request, inventory: &Inventory) -> Result<Outcome, Fault> {
        let name = &request.name;
        let issuer = inventory.issuers.get(name);
        let issuer = issuer.ok_or_else(|| Fault::Ours(format!("the inventory has no [issuer.{name}]")))?;
        let http = Http::new(&self.roots(issuer).await?)?;
        self.accounts().replace_key(name, issuer, request.at, &http).await?;
        Ok(Outcome::AccountKeyReplaced)
    }

    /// A late request for what was taken out of the inventory is no failure; a person's, or one for an entry that cannot be read, is told.
    async fn unknown(&self, request: &Request, inventory: &Inventory) -> Outcome {
        if request.requested_by == RequestedBy::Probe && inventory.problems.is_empty() {
            return Outcome::Gone;
        }
        let names: Vec<_> = inventory
            .certificates
            .iter()
            .map(|certificate| certificate.name.as_str())
            .collect();
        let mistakes: String = inventory
            .problems
            .iter()
            .map(|mistake| format!("\n  - {mistake}"))
            .collect();
        let problem = format!(
            "the inventory has no certificate {:?} (it has: {}){mistakes}",
            request.name,
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        );
        self.teller.tell(self.teller.refused(&request.name, &problem)).await;
        Outcome::Refused
    }

    /// Does `work` while nobody else can, and stops it when Lambda's time is over. What a person asks for waits for the lease: whoever has
    /// it may not be doing that.
    pub(crate) async fn with_lease(
        &self,
        case: &Case<'_>,
        key: String,
        work: impl AsyncFnOnce(&Lease<'_>) -> Result<Outcome, Fault>,
    ) -> Result<Outcome, Fault> {
        let (name, kms_key) = (&case.wanted.name, &self.settings.secrets_key);
        let lease = loop {
            let now = Timestamp::now();
            match Lease::take(&self.store, kms_key, key.clone(), name, now).await? {
                Some(lease) => break lease,
                None if case.request.requested_by == RequestedBy::Probe => return Ok(Outcome::Busy),
                None if Instant::now() + LEASE_POLL > case.deadline => {
                    return Err(Fault::OutOfTime("another renewer is at the certificate"));
                }
                None => sleep(LEASE_POLL).await,
            }
        };
        let result = match lease
            .while_held(timeout_at(case.deadline + LAST_CALL, work(&lease)))
            .await
        {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::OutOfTime("working on it")),
            Err(lost) => Err(lost),
        };
        // A lease that cannot be given up ends by itself.
        if let Err(fault) = lease.release().await {
            warn!(name, %fault, "cannot give the lease up");
        }
        result
    }

    /// Revokes what is to be revoked, finishes what is under way, and orders what is due.
    async fn work(&self, case: &Case<'_>, lease: &Lease<'_>) -> Result<Outcome, Fault> {
        let revoked = match case.request.action {
            Action::Revoke => self.revoke(case).await,
            _ => Ok(()),
        };
        // A certificate with another key is as urgent if revoking failed.
        let outcome = self.renew(case, lease).await?;
        revoked.map(|()| outcome)
    }

    async fn renew(&self, case: &Case<'_>, lease: &Lease<'_>) -> Result<Outcome, Fault> {
        let (wanted, now) = (case.wanted, Timestamp::now());
        // Read again: whoever had the lease before may have published.
        let current = self.current(&wanted.name).await?;
        let renewal = self.renewal(&wanted.name).await?;
        let decision = decide(wanted, value(current.as_ref()), Some(&renewal), Some(case.request), now);
        let under_way = self.tidied(case, lease, value(current.as_ref()), &decision).await?;
        match decision {
            Decision::Due { reason, .. } => self.order(case, lease, current, under_way, &reason, &renewal).await,
            Decision::NotDue { next } => Ok(Outcome::NotDue { next }),
        }
    }

    /// The attempt under way, unless it came to its end already, nothing is due any more, or something else is wanted by now.
    async fn tidied(
        &self,
        case: &Case<'_>,
        lease: &Lease<'_>,
        current: Option<&Current>,
        decision: &Decision,
    ) -> Result<Option<Attempt>, Fault> {
        let (Some(attempt), wanted) = (lease.attempt().await, case.wanted) else {
            return Ok(None);
        };
        let Decision::Due { reason, .. } = decision else {
            return self.abandon(case, lease, attempt).await.map(|()| None);
        };
        let published = current.is_some_and(|current| current.facts.version == attempt.version);
        let issuer = |name: &str| case.inventory.issuers.get(name).cloned();
        let compromised = match current {
            Some(current) if *reason == Reason::Revoked => {
                let version = &current.facts.version;
                self.keeps_the_key(&attempt, &wanted.name, version).await?
            }
            _ => false,
        };
        if !published && !compromised && attempt.fits(wanted, issuer) {
            return Ok(Some(attempt));
        }
        self.abandon(case, lease, attempt).await.map(|()| None)
    }

    /// Forgets an attempt, once nothing of it is left in DNS.
    async fn abandon(&self, case: &Case<'_>, lease: &Lease<'_>, attempt: Attempt) -> Result<(), Fault> {
        if !attempt.txt.is_empty() {
            let zones = Zones::list(&self.config, &case.inventory.zones).await?;
            order::remove(&zones, &attempt.txt).await?;
        }
        lease.note(None).await
    }

    /// From one issuer after the other, until one issues or it is not an issuer's fault.
    pub(crate) async fn order(
        &self,
        case: &Case<'_>,
        lease: &Lease<'_>,
        current: Option<Tagged<Current>>,
        mut under_way: Option<Attempt>,
        reason: &Reason,
        renewal: &Renewal,
    ) -> Result<Outcome, Fault> {
        let wanted = &case.wanted.name;
        let mut issuers = case.wanted.issuers.clone();
        // An order that was begun is finished, whoever would be asked first.
        if let Some(attempt) = under_way.as_ref().filter(|attempt| attempt.order.is_some()) {
            issuers.sort_by_key(|issuer| *issuer != attempt.issuer);
        }
        let (mut problems, mut waits) = (Vec::new(), Vec::new());
        for name in &issuers {
            let now = Timestamp::now();
            if let Some(until) = renewal.asked_to_wait(name, now).filter(|_| !case.request.is_urgent()) {
                problems.push(format!("{name}: not asked; it said to wait until {}", until));
                waits.push(Some(until));
                continue;
            }
            let resumed = under_way.take_if(|attempt| attempt.issuer == *name);
            match self
                .order_from(name, case, lease, current.as_ref(), resumed, reason)
                .await
            {
                Err(Fault::Issuer { said, retry_after }) => {
                    warn!(name = wanted, issuer = name, said, "the issuer is at fault");
                    problems.push(format!("{name}: {said}"));
                    waits.push(retry_after);
                    if let Some(until) = retry_after.filter(|_| !case.request.dry_run) {
                        self.wait(wanted, name, until).await?;
                    }
                }
                Err(Fault::Refused { said }) => {
                    return Err(Fault::Refused {
                        said: format!("{name}: {said}"),
                    });
                }
                other => return other,
            }
        }
        Err(Fault::Issuer {
            said: problems.join("\n"),
            // One that did not ask to wait may be asked again sooner.
            retry_after: waits
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .and_then(|waits| waits.into_iter().min()),
        })
    }

    async fn order_from(
        &self,
        name: &str,
        case: &Case<'_>,
        lease: &Lease<'_>,
        current: Option<&Tagged<Current>>,
        resumed: Option<Attempt>,
        reason: &Reason,
    ) -> Result<Outcome, Fault> {
        let wanted = case.wanted;
        let issuer = case.issuer(name)?;
        let roots = self.roots(issuer).await?;
        let http = Http::new(&roots)?;
        let account = self.accounts().open(name, issuer, &http).await?;
        let mut attempt = match resumed.filter(|attempt| attempt.is_of(&account)) {
            Some(attempt) => attempt,
            None => {
                let key = self.key(wanted, value(current), reason).await?;
                let before = lease.attempt().await;
                let attempt = Attempt::new((name, issuer), account.id(), wanted, key, before.as_ref());
                // Stored with its key before the CA hears of it.
                lease.note(Some(&attempt)).await?;
                attempt
            }
        };
        let zones = Zones::list(&self.config, &case.inventory.zones).await?;
        let lookup = Lookup::new(self.settings.nameserver)?;
        let ordering = Ordering {
            account: &account,
            http: &http,
            lease,
            zones: &zones,
            lookup: &lookup,
            deadline: case.deadline,
        };
        let replaces = self.replaces(value(current), issuer, &account).await;
        let chain = match ordering.chain(&mut attempt, replaces).await {
            Err(refused @ Fault::Refused { .. }) if attempt.txt.is_empty() => {
                lease.note(None).await?;
                return Err(refused);
            }
            chain => chain?,
        };
        // An attempt that was resumed may have left TXT values behind that its order no longer needs.
        ordering.remove(&mut attempt).await?;
        let believed = (!issuer.staging || issuer.ca.is_some()).then_some(&roots);
        let now = Timestamp::now();
        let issued = match Issued::new(&chain, &attempt, issuer.staging, believed, now) {
            Ok(issued) => issued,
            Err(fault) => {
                // Asked again, the CA would hand out the same.
                lease.note(None).await?;
                return Err(fault);
            }
        };
        if case.request.dry_run {
            lease.note(None).await?;
            return Ok(Outcome::DryRun);
        }
        let current = issued.publish(&wanted.name, &self.store, current, now).await?;
        let facts = &current.facts;
        info!(name = wanted.name, version = facts.version, issuer = name, not_after = %facts.not_after, "published");
        lease.note(None).await?;
        match publish::prune(&wanted.name, &self.store).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => info!(name = wanted.name, removed = removed.join(", "), "old versions removed"),
            Err(fault) => warn!(name = wanted.name, %fault, "old versions could not be removed"),
        }
        Ok(Outcome::Published(Box::new(current)))
    }

    async fn key(&self, wanted: &Managed, current: Option<&Current>, reason: &Reason) -> Result<PrivateKey, Fault> {
        let kept = current
            .filter(|current| wanted.reuse_key && current.facts.key == wanted.key_type && *reason != Reason::Revoked);
        if let Some(current) = kept {
            let key = file_key(&wanted.name, &current.facts.version, PRIVKEY);
            let pem = self.store.text(&key).await?;
            return pem
                .map(PrivateKey::from_pem)
                .ok_or_else(|| Fault::Ours(format!("{key} is not there, and reuse_key wants it")));
        }
        let kind = wanted.key_type;
        let generated = tokio::task::spawn_blocking(move || PrivateKey::generate(kind)).await;
        generated.map_err(|error| Fault::Ours(format!("cannot generate a key: {error}")))?
    }

    /// Said only to the issuer and account that made the current certificate: all others refuse it (RFC 9773, 5).
    async fn replaces(
        &self,
        current: Option<&Current>,
        issuer: &Issuer,
        account: &Account,
    ) -> Option<CertificateIdentifier<'static>> {
        let current = current.filter(|current| {
            let by = &current.facts.issuer;
            by.directory == issuer.directory && by.account == account.id()
        })?;
        let leaf = self.leaf(&current.facts).await.ok()?;
        CertificateIdentifier::try_from(&leaf)
            .ok()
            .map(CertificateIdentifier::into_owned)
    }

    pub(crate) async fn leaf(&self, facts: &Facts) -> Result<CertificateDer<'static>, Fault> {
        let key = file_key(&facts.name, &facts.version, CERT);
        let pem = self
            .store
            .object(&key)
            .await?
            .ok_or_else(|| Fault::Ours(format!("{key} is not there")))?;
        CertificateDer::from_pem_slice(&pem).map_err(|error| Fault::Ours(format!("{key} is no certificate: {error}")))
    }

    pub(crate) async fn roots(&self, issuer: &Issuer) -> Result<Roots, Fault> {
        let Some(key) = &issuer.ca else {
            return Ok(Roots::public());
        };
        let wrong = |problem: String| Fault::Ours(format!("the issuer's ca = {key:?}: {problem}"));
        let pem = self
            .store
            .object(key)
            .await?
            .ok_or_else(|| wrong("no such object in the bucket (expected a PEM file)".to_owned()))?;
        Roots::public().with_pem(&pem).map_err(|error| wrong(error.to_string()))
    }

    pub(crate) fn accounts(&self) -> Accounts<'_> {
        Accounts {
            store: &self.store,
            kms_key: &self.settings.secrets_key,
        }
    }
}

fn value(tagged: Option<&Tagged<Current>>) -> Option<&Current> {
    tagged.map(|tagged| &tagged.value)
}

/// Longer than the deadline only for what tidies up.
const LAST_CALL: Duration = Duration::from_secs(15);
const LEASE_POLL: Duration = Duration::from_secs(2);
