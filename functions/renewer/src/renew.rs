//! One request, from the question whether anything is due to the version that is published.

use std::fmt;

use aws_config::SdkConfig;
use instant_acme::{Account, CertificateIdentifier, Error, RevocationReason, RevocationRequest};
use lambda_runtime::tracing::{info, warn};
use neverlapse::alert::{Sender, Topic};
use neverlapse::finding::date;
use neverlapse::inventory::{Certificate, Inventory, Issuer};
use neverlapse::renewal::{Advice, Decision, Failure, Reason, Renewal, decide};
use neverlapse::request::{Action, Asker, Request};
use neverlapse::roots::Roots;
use neverlapse::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::version::{self, CERT, Current, PRIVKEY, current_key, file_key};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::account::Accounts;
use crate::acme::{Http, fault, is, patiently, retry_after, said};
use crate::fault::Fault;
use crate::jws::{Directory, get, unreachable};
use crate::key::PrivateKey;
use crate::lookup::Lookup;
use crate::order::{self, Ordering};
use crate::publish::{self, Issued};
use crate::record::{self, Attempt, Lease};
use crate::settings::Settings;
use crate::tell::Teller;
use crate::zone::Zones;

/// Everything that outlives one request.
pub(crate) struct Renewer {
    settings: Settings,
    config: SdkConfig,
    store: Store,
    teller: Teller,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The inventory no longer has the certificate.
    Gone,
    NotDue {
        next: OffsetDateTime,
    },
    /// Due, but an earlier failure asks to wait.
    Waiting {
        until: OffsetDateTime,
    },
    /// Another renewer is at it.
    Busy,
    Published(Box<Current>),
    /// A staging directory issued, and nothing was published.
    DryRun,
    AccountKeyReplaced,
    /// What a person asked for cannot be done; they were told why.
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the inventory does not have it any more"),
            Self::NotDue { next } => write!(f, "not due before {}", date(*next)),
            Self::Waiting { until } => write!(f, "due, but after a failure not before {}", date(*until)),
            Self::Busy => f.write_str("another renewer is at it"),
            Self::Published(current) => write!(f, "published {}", current.facts.version),
            Self::AccountKeyReplaced => f.write_str("the account has a new key"),
            Self::Refused => f.write_str("it cannot be done; an alert says why"),
            Self::DryRun => f.write_str("the dry run succeeded"),
        }
    }
}

/// One request's certificate, and all that is known of it.
struct Case<'a> {
    wanted: &'a Certificate,
    inventory: &'a Inventory,
    request: &'a Request,
    deadline: Instant,
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
    pub(crate) async fn handle(&self, request: &Request, deadline: Instant) -> Result<Outcome, Fault> {
        let result = self.answer(request, deadline).await;
        if request.action == Action::ReplaceAccountKey || request.dry_run {
            if let Err(fault) = &result {
                let name = &request.name;
                self.teller.tell(self.teller.refused(name, &fault.to_string())).await;
            }
            // A person reads that and asks again; the queue must not.
            return Ok(result.unwrap_or(Outcome::Refused));
        }
        self.conclude(&request.name, result).await
    }

    async fn answer(&self, request: &Request, deadline: Instant) -> Result<Outcome, Fault> {
        let written = self.store.inventory().await?;
        let inventory = Inventory::parse(&written.unwrap_or_default());
        if request.action == Action::ReplaceAccountKey {
            return self.replace_account_key(&request.name, &inventory).await;
        }
        let certificates = &inventory.certificates;
        let Some(wanted) = certificates.iter().find(|wanted| wanted.name == request.name) else {
            return self.unknown(request, &inventory);
        };
        let case = Case {
            wanted,
            inventory: &inventory,
            request,
            deadline,
        };
        if request.dry_run {
            return self.dry_run(&case).await;
        }
        let current = self.current(&wanted.name).await?;
        let renewal = self.advised(&case, current.as_ref()).await?;
        let under_way = self.store.object(&record::key(&wanted.name)).await?.is_some();
        let now = OffsetDateTime::now_utc();
        match decide(wanted, value(&current), Some(&renewal), Some(request), now) {
            Decision::NotDue { next } if !under_way => return Ok(Outcome::NotDue { next }),
            Decision::Due {
                not_before: Some(until),
                ..
            } => return Ok(Outcome::Waiting { until }),
            decision => info!(name = wanted.name, %decision, under_way, "decided"),
        }
        let key = record::key(&wanted.name);
        self.with_lease(&case, key, async |lease| self.work(&case, lease).await)
            .await
    }

    async fn replace_account_key(&self, name: &str, inventory: &Inventory) -> Result<Outcome, Fault> {
        let issuer = inventory.issuers.get(name);
        let issuer = issuer.ok_or_else(|| Fault::Ours(format!("the inventory has no [issuer.{name}]")))?;
        let http = Http::new(&self.roots(issuer).await?)?;
        self.accounts().replace_key(name, issuer, &http).await?;
        Ok(Outcome::AccountKeyReplaced)
    }

    /// A late request for what was taken out of the inventory is no failure; a person's, or one for an entry that cannot be read, is.
    fn unknown(&self, request: &Request, inventory: &Inventory) -> Result<Outcome, Fault> {
        if request.requested_by == Asker::Probe && inventory.mistakes.is_empty() {
            return Ok(Outcome::Gone);
        }
        let names: Vec<_> = inventory
            .certificates
            .iter()
            .map(|certificate| certificate.name.as_str())
            .collect();
        let mistakes: String = inventory
            .mistakes
            .iter()
            .map(|mistake| format!("\n  - {mistake}"))
            .collect();
        Err(Fault::Ours(format!(
            "the inventory has no certificate {:?} (it has: {}){mistakes}",
            request.name,
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        )))
    }

    /// Does `work` while nobody else can, and stops it when Lambda's time is over.
    async fn with_lease(
        &self,
        case: &Case<'_>,
        key: String,
        work: impl AsyncFnOnce(&Lease<'_>) -> Result<Outcome, Fault>,
    ) -> Result<Outcome, Fault> {
        let (name, kms_key, now) = (&case.wanted.name, &self.settings.secrets_key, OffsetDateTime::now_utc());
        let Some(lease) = Lease::take(&self.store, kms_key, key, name, now).await? else {
            return Ok(Outcome::Busy);
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

    /// Remembers how it went, and tells people if that is news.
    async fn conclude(&self, name: &str, result: Result<Outcome, Fault>) -> Result<Outcome, Fault> {
        match result {
            Ok(Outcome::Published(current)) => {
                self.succeeded(name, &current).await?;
                Ok(Outcome::Published(current))
            }
            Ok(Outcome::NotDue { next }) => {
                // A run that was killed after it had published left it to us to say so.
                if self.renewal(name).await?.failure.is_some()
                    && let Some(current) = self.current(name).await?
                {
                    self.succeeded(name, &current.value).await?;
                }
                Ok(Outcome::NotDue { next })
            }
            Err(Fault::Overtaken) => Ok(Outcome::Busy),
            Err(fault @ Fault::OutOfTime(_)) => Err(fault),
            Err(fault) => {
                self.failed(name, &fault).await;
                Err(fault)
            }
            other => other,
        }
    }

    async fn succeeded(&self, name: &str, current: &Current) -> Result<(), Fault> {
        let before = self.remember(name, |renewal| {
            renewal.issued_at = Some(current.published_at);
            renewal.failure.take()
        });
        match before.await? {
            Some(failure) if failure.since < current.published_at => {
                self.teller.tell(self.teller.recovered(current, &failure)).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// The first failure is told here and now; that it lasts is for the probe's digest to say.
    async fn failed(&self, name: &str, fault: &Fault) {
        let (now, problem) = (OffsetDateTime::now_utc(), fault.to_string());
        let retry_after = match fault {
            Fault::Issuer { retry_after, .. } => *retry_after,
            _ => None,
        };
        let next = |before: Option<&Failure>| Failure::next(before, problem.clone(), retry_after, now);
        let noted = self.remember(name, |renewal| {
            let failure = next(renewal.failure.as_ref());
            renewal.failure = Some(failure.clone());
            failure
        });
        // Where the bucket cannot be written either, people hear at every try.
        let failure = noted.await.unwrap_or_else(|_| next(None));
        if failure.count == 1 {
            let current = self.current(name).await;
            let digest = self.teller.failed(name, &failure, current.as_ref().map(value), now);
            self.teller.tell(digest).await;
        }
    }

    /// Finishes what is under way, and orders what is due.
    async fn work(&self, case: &Case<'_>, lease: &Lease<'_>) -> Result<Outcome, Fault> {
        let wanted = case.wanted;
        // Read again: whoever had the lease before may have published.
        let current = self.current(&wanted.name).await?;
        let under_way = self.tidied(case, lease, value(&current)).await?;
        let renewal = self.renewal(&wanted.name).await?;
        let reason = match decide(
            wanted,
            value(&current),
            Some(&renewal),
            Some(case.request),
            OffsetDateTime::now_utc(),
        ) {
            Decision::Due { reason, .. } => reason,
            Decision::NotDue { next } => {
                if let Some(attempt) = under_way {
                    self.abandon(case, lease, attempt).await?;
                }
                return Ok(Outcome::NotDue { next });
            }
        };
        if let (Action::Revoke, Reason::Revoked, Some(current)) = (case.request.action, &reason, &current) {
            self.revoke(case, &current.value).await?;
        }
        self.order(case, lease, current, under_way, &reason).await
    }

    /// The attempt under way, unless it came to its end already or the inventory wants something else by now.
    async fn tidied(
        &self,
        case: &Case<'_>,
        lease: &Lease<'_>,
        current: Option<&Current>,
    ) -> Result<Option<Attempt>, Fault> {
        let Some(attempt) = lease.attempt().await else {
            return Ok(None);
        };
        let published = current.is_some_and(|current| current.facts.version == attempt.version);
        let revoking = case.request.action == Action::Revoke;
        let issuer = |name: &str| case.inventory.issuers.get(name).cloned();
        if !published && !revoking && attempt.fits(case.wanted, issuer) {
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
    async fn order(
        &self,
        case: &Case<'_>,
        lease: &Lease<'_>,
        current: Option<Tagged<Current>>,
        mut under_way: Option<Attempt>,
        reason: &Reason,
    ) -> Result<Outcome, Fault> {
        let mut issuers = case.wanted.issuers.clone();
        if let Some(attempt) = &under_way {
            issuers.sort_by_key(|issuer| *issuer != attempt.issuer);
        }
        let (mut problems, mut retry_at) = (Vec::new(), None::<OffsetDateTime>);
        for name in &issuers {
            let resumed = under_way.take_if(|attempt| attempt.issuer == *name);
            match self
                .order_from(name, case, lease, current.as_ref(), resumed, reason)
                .await
            {
                Err(Fault::Issuer { said, retry_after }) => {
                    warn!(name = case.wanted.name, issuer = name, said, "the issuer is at fault");
                    problems.push(format!("{name}: {said}"));
                    retry_at = [retry_at, retry_after].into_iter().flatten().min();
                }
                Err(Fault::Refused { said }) => {
                    return Err(Fault::Refused {
                        said: format!("{name}: {said}"),
                    });
                }
                other => return other,
            }
        }
        let said = problems.join("\n");
        Err(Fault::Issuer {
            said,
            retry_after: retry_at,
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
                self.attempt(name, issuer, case, &account, lease, current, reason)
                    .await?
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
        // An attempt that was resumed may have left TXT values behind that its order no longer needs.
        let replaces = self
            .replaces(current.map(|current| &current.value), issuer, &account)
            .await;
        let chain = match ordering.chain(&mut attempt, replaces).await {
            Err(refused @ Fault::Refused { .. }) if attempt.txt.is_empty() => {
                lease.note(None).await?;
                return Err(refused);
            }
            chain => chain?,
        };
        ordering.remove(&mut attempt).await?;
        let believed = (!issuer.staging || issuer.ca.is_some()).then_some(&roots);
        let now = OffsetDateTime::now_utc();
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
        info!(name = wanted.name, version = facts.version, issuer = name, not_after = %date(facts.not_after), "published");
        lease.note(None).await?;
        match publish::prune(&wanted.name, &self.store, &facts.version).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => info!(name = wanted.name, removed = removed.join(", "), "old versions removed"),
            Err(fault) => warn!(name = wanted.name, %fault, "old versions could not be removed"),
        }
        Ok(Outcome::Published(Box::new(current)))
    }

    /// A new attempt, stored with its key before the CA hears of it.
    #[allow(clippy::too_many_arguments)]
    async fn attempt(
        &self,
        name: &str,
        issuer: &Issuer,
        case: &Case<'_>,
        account: &Account,
        lease: &Lease<'_>,
        current: Option<&Tagged<Current>>,
        reason: &Reason,
    ) -> Result<Attempt, Fault> {
        let wanted = case.wanted;
        let attempt = Attempt {
            version: version::id(OffsetDateTime::now_utc(), rand::random()),
            issuer: name.to_owned(),
            directory: issuer.directory.clone(),
            account: account.id().to_owned(),
            identifiers: wanted.identifiers.clone(),
            key_type: wanted.key_type,
            profile: wanted.profile.clone(),
            key: self.key(wanted, value_of(current), reason).await?,
            order: None,
            // What an earlier attempt could not take out is taken out by this one.
            txt: lease.attempt().await.map(|before| before.txt).unwrap_or_default(),
        };
        lease.note(Some(&attempt)).await?;
        Ok(attempt)
    }

    async fn key(&self, wanted: &Certificate, current: Option<&Current>, reason: &Reason) -> Result<PrivateKey, Fault> {
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
        let leaf = self.leaf(current).await.ok()?;
        CertificateIdentifier::try_from(&leaf)
            .ok()
            .map(CertificateIdentifier::into_owned)
    }

    /// Revokes the current certificate; that it is revoked already is as good.
    async fn revoke(&self, case: &Case<'_>, current: &Current) -> Result<(), Fault> {
        let by = &current.facts.issuer;
        let issuer = case.issuer(&by.name)?;
        let http = Http::new(&self.roots(issuer).await?)?;
        let account = self.accounts().open(&by.name, issuer, &http).await?;
        let leaf = self.leaf(current).await?;
        let reason = match case.request.key_compromise {
            true => RevocationReason::KeyCompromise,
            false => RevocationReason::Superseded,
        };
        let request = RevocationRequest {
            certificate: &leaf,
            reason: Some(reason),
        };
        match patiently(async || account.revoke(&request).await).await {
            Ok(()) => info!(name = case.wanted.name, version = current.facts.version, "revoked"),
            Err(Error::Api(problem)) if is(&problem, "alreadyRevoked") => {
                info!(problem = said(&problem), "revoked already")
            }
            Err(error) => return Err(fault(error, &http)),
        }
        Ok(())
    }

    /// From the issuer's staging directory, with a record and an account of its own; nothing is published.
    async fn dry_run(&self, case: &Case<'_>) -> Result<Outcome, Fault> {
        let mut inventory = case.inventory.clone();
        let mut wanted = case.wanted.clone();
        let name = wanted.issuers[0].clone();
        let issuer = case.issuer(&name)?;
        let Some(directory) = issuer
            .staging_directory
            .clone()
            .or_else(|| issuer.staging.then(|| issuer.directory.clone()))
        else {
            return Err(Fault::Ours(format!(
                "[issuer.{name}] has no staging_directory to order from in a dry run"
            )));
        };
        let staging = format!("{name}.staging");
        inventory.issuers.insert(
            staging.clone(),
            Issuer {
                directory,
                staging: true,
                staging_directory: None,
                ..issuer.clone()
            },
        );
        wanted.issuers = vec![staging.clone()];
        let case = Case {
            wanted: &wanted,
            inventory: &inventory,
            ..*case
        };
        let key = record::key(&format!("dry-run/{}", wanted.name));
        let order = async |lease: &Lease<'_>| self.order(&case, lease, None, None, &Reason::Asked).await;
        let outcome = self.with_lease(&case, key, order).await?;
        self.teller.tell(self.teller.dry_run(&wanted.name, &name)).await;
        Ok(outcome)
    }

    /// What is remembered, with the CA's advice brought up to date if it is time to ask.
    async fn advised(&self, case: &Case<'_>, current: Option<&Tagged<Current>>) -> Result<Renewal, Fault> {
        let (name, now) = (&case.wanted.name, OffsetDateTime::now_utc());
        let renewal = self.renewal(name).await?;
        let Some(Tagged { value: current, .. }) = current else {
            return Ok(renewal);
        };
        let before = renewal
            .advice
            .as_ref()
            .filter(|advice| advice.version == current.facts.version);
        if before.is_some_and(|advice| advice.ask_again_at > now) {
            return Ok(renewal);
        }
        match self.ask(case, current, before, now).await {
            Ok(None) => Ok(renewal),
            Ok(advice) => {
                let remembered = self.remember(name, |renewal| {
                    renewal.advice = advice.clone();
                    renewal.clone()
                });
                remembered.await
            }
            // Trouble with advice never keeps a certificate from being renewed.
            Err(fault) => {
                warn!(name, %fault, "the CA's renewal information could not be had");
                Ok(renewal)
            }
        }
    }

    /// Asks the CA that issued the current version when to replace it (RFC 9773).
    async fn ask(
        &self,
        case: &Case<'_>,
        current: &Current,
        before: Option<&Advice>,
        now: OffsetDateTime,
    ) -> Result<Option<Advice>, Fault> {
        let issuer = case.issuer(&current.facts.issuer.name)?;
        if issuer.directory != current.facts.issuer.directory {
            return Ok(None);
        }
        let http = Http::new(&self.roots(issuer).await?)?;
        let Some(url) = Directory::fetch(&issuer.directory, &http).await?.renewal_info else {
            return Ok(None);
        };
        let leaf = self.leaf(current).await?;
        let id = CertificateIdentifier::try_from(&leaf).map_err(Fault::Ours)?;
        let url = format!("{url}/{id}");
        let response = http
            .send(get(&url)?)
            .await
            .map_err(|error| unreachable(&url, &error, &http))?;
        let info: RenewalInfo = serde_json::from_slice(response.body()).map_err(|error| Fault::Issuer {
            said: format!(
                "{url} gave no renewal information (HTTP {}): {error}",
                response.status()
            ),
            retry_after: None,
        })?;
        let ask_again = retry_after(response.headers(), now).unwrap_or(now + ASK_AGAIN);
        let ask_again = ask_again.clamp(now + Duration::MINUTE, now + Duration::DAY);
        let window = (info.suggested_window.start, info.suggested_window.end);
        Ok(Advice::of(
            &current.facts.version,
            window,
            info.explanation_url,
            ask_again,
            before,
            rand::random(),
        ))
    }

    async fn leaf(&self, current: &Current) -> Result<CertificateDer<'static>, Fault> {
        let key = file_key(&current.facts.name, &current.facts.version, CERT);
        let pem = self
            .store
            .object(&key)
            .await?
            .ok_or_else(|| Fault::Ours(format!("{key} is not there")))?;
        CertificateDer::from_pem_slice(&pem).map_err(|error| Fault::Ours(format!("{key} is no certificate: {error}")))
    }

    async fn roots(&self, issuer: &Issuer) -> Result<Roots, Fault> {
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

    fn accounts(&self) -> Accounts<'_> {
        Accounts {
            store: &self.store,
            kms_key: &self.settings.secrets_key,
        }
    }

    async fn current(&self, name: &str) -> Result<Option<Tagged<Current>>, Fault> {
        Ok(self.store.json(&current_key(name)).await?)
    }

    async fn renewal(&self, name: &str) -> Result<Renewal, Fault> {
        let found = self.store.json::<Renewal>(&Renewal::key(name)).await?;
        Ok(found.map_or_else(|| Renewal::new(name), |found| found.value))
    }

    /// Changes what is remembered, without undoing what somebody else remembered meanwhile.
    async fn remember<T>(&self, name: &str, change: impl Fn(&mut Renewal) -> T) -> Result<T, Fault> {
        let key = Renewal::key(name);
        loop {
            let found = self.store.json::<Renewal>(&key).await?;
            let mut renewal = found
                .as_ref()
                .map_or_else(|| Renewal::new(name), |found| found.value.clone());
            let answer = change(&mut renewal);
            match self
                .store
                .put(&key, Object::json(&renewal)?, Expecting::unchanged(found.as_ref()))
                .await
            {
                Ok(_) => return Ok(answer),
                Err(store::Error::Changed { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Case<'_> {
    fn issuer(&self, name: &str) -> Result<&Issuer, Fault> {
        let issuer = self.inventory.issuers.get(name);
        issuer.ok_or_else(|| {
            Fault::Ours(format!(
                "the inventory has no [issuer.{name}] (the current certificate came from it)"
            ))
        })
    }
}

/// RFC 9773, 4.2.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: Window,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct Window {
    #[serde(with = "time::serde::rfc3339")]
    start: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    end: OffsetDateTime,
}

fn value(tagged: &Option<Tagged<Current>>) -> Option<&Current> {
    value_of(tagged.as_ref())
}

fn value_of(tagged: Option<&Tagged<Current>>) -> Option<&Current> {
    tagged.map(|tagged| &tagged.value)
}

/// Longer than the deadline only for what tidies up.
const LAST_CALL: std::time::Duration = std::time::Duration::from_secs(15);
/// RFC 9773, 4.3.3: what a client does without Retry-After.
const ASK_AGAIN: Duration = Duration::hours(6);
