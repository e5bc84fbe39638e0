//! One order at one CA (RFC 8555, 7.4), from wherever it stands to the certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, Challenge, ChallengeStatus, ChallengeType, Identifier, NewOrder, Order,
    OrderState, OrderStatus, Problem,
};
use lambda_runtime::tracing::{info, warn};
use neverlapse::dns::zone::Zones;
use neverlapse::inventory;
use neverlapse::text::cut;
use neverlapse::timestamp::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::account::OpenAccount;
use super::alternate::Download;
use super::http::{Http, retry_bad_nonce};
use super::problem::{self, ProblemType, Step, Verdict, describe};
use crate::bucket::attempt::Attempt;
use crate::bucket::issued;
use crate::bucket::lease::Lease;
use crate::dns::change::{self, Edits};
use crate::dns::record::{TxtRecord, ZoneRecord};
use crate::error::{Error, IssuerError};
use crate::progress::Progress;
use crate::services::Services;

/// Everything that it takes to bring an order to its end.
pub(crate) struct Issuance<'a> {
    pub(crate) account: &'a OpenAccount,
    pub(crate) http: &'a Http,
    pub(crate) lease: &'a Lease<'a>,
    pub(crate) progress: Progress<'a>,
    pub(crate) services: &'a Services,
    /// The inventory's zones.
    pub(crate) written: &'a [inventory::Zone],
    /// Listed once they are needed: an order that is proved already needs no DNS.
    pub(crate) zones: OnceCell<Zones>,
    pub(crate) deadline: Instant,
    /// How long an order that was resumed may stay as it is.
    pub(crate) patience: Option<Instant>,
    /// How long one may that takes the place of an order that was resumed and is dead.
    pub(crate) half: Instant,
}

impl Issuance<'_> {
    /// What the CA issues for `attempt`. `replaces` is the certificate that it replaces.
    ///
    /// An order that turns out to be dead, or somebody else's, is forgotten, and one more is made
    /// in its place. One that the CA cannot answer for again and again is given up.
    pub(crate) async fn chain(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Download, IssuerError> {
        let chain = self.chain_of_any(attempt, replaces).await;
        let is_unavailable = matches!(&chain, Err(failed) if matches!(failed.error, Error::CaUnavailable { .. }));
        if is_unavailable && attempt.order.is_some() && attempt.resumed >= MOST_RESUMED {
            attempt.given_up = true;
            self.lease.note(attempt).await?;
        }
        chain
    }

    async fn chain_of_any(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Download, IssuerError> {
        let mut order = self.open(attempt, replaces.clone()).await?;
        match self.fulfil(&mut order, attempt).await {
            Err(Error::CaUnavailable { problem, .. }) if attempt.order.is_none() => {
                warn!(problem, "the order is dead; ordering again");
            }
            // CAs hand out one order for the same names twice: another certificate of ours, with
            // another kind of key, may have finalized it first.
            Ok(download) if issued::is_for_another_key(&download.chain, &attempt.key) => {
                let order = attempt.order_name();
                warn!(order, "the order was finalized with another key; ordering again");
                attempt.order = None;
                self.lease.note(attempt).await?;
            }
            result => return Ok(result?),
        }

        let mut order = self.open(attempt, replaces).await?;
        Ok(self.fulfil(&mut order, attempt).await?)
    }

    /// Removes our TXT records as far as Route 53 lets us, and notes which of them are gone. Those
    /// that stay must not keep a certificate from being issued: a later run removes them.
    pub(crate) async fn tidy(&self, attempt: &mut Attempt) -> Result<(), Error> {
        if attempt.txt.is_empty() {
            return Ok(());
        }

        match self.zones().await {
            Ok(zones) => {
                let removal = change::remove(zones, &attempt.txt).await;
                if !removal.problems.is_empty() {
                    let problem = removal.problems.join("; ");
                    warn!(problem, "TXT records cannot be removed; a later run tries again");
                }
                attempt.txt = removal.left;
            }
            Err(error) => warn!(fault = %error, "TXT records cannot be removed; a later run tries again"),
        }
        self.lease.note(attempt).await
    }

    async fn fulfil(&self, order: &mut Order, attempt: &mut Attempt) -> Result<Download, Error> {
        if order.state().status == OrderStatus::Pending {
            self.authorize(order, attempt).await?;
        }

        self.progress.step("the CA issues").await;
        self.finalize(order, attempt).await?;

        let fetched = self.patiently(Step::Finalize, async || order.certificate().await).await;
        match fetched {
            Ok(Some(chain)) if chain.contains(PEM) => Ok(Download {
                chain,
                alternates: self.http.alternates(),
            }),
            // A page of a proxy, say. Taken for an unfit certificate, it had another one ordered.
            Ok(Some(other)) => Err(Error::unavailable(format!(
                "the CA answers {:?} in place of the certificate ({})",
                cut(&other, SHOWN),
                attempt.order_name()
            ))),
            Ok(None) => Err(Error::out_of_time(format!("the CA issues ({})", attempt.order_name()))),
            // What the CA has issued cannot be refused any more: whatever it answers, it is asked
            // again for the same certificate before it is asked for another one.
            Err(Error::CaDeclined(problem)) => Err(Error::unavailable(format!(
                "the certificate is issued, but cannot be fetched ({}): {problem}",
                attempt.order_name()
            ))),
            Err(error) => Err(error),
        }
    }

    /// The order that the attempt began, if it still can be used; else a new one.
    async fn open(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, IssuerError> {
        if let Some(url) = &attempt.order {
            if let Some(order) = self.resume(url).await? {
                return Ok(checked(order, attempt)?);
            }
            // Its issuer gets another order at its own turn.
            if attempt.given_up {
                attempt.given_up = false;
                attempt.resumed = 0;
                return Ok(self.bury(attempt, "the order that was given up is dead").await?);
            }
        }

        let order = checked(self.create(attempt, replaces).await?, attempt)?;
        attempt.order = Some(order.url().to_owned());
        attempt.began_at = Some(Timestamp::now());
        attempt.resumed = 0;
        attempt.given_up = false;
        self.lease.note(attempt).await?;
        info!(order = order.url(), issuer = attempt.issuer, "order created");
        Ok(order)
    }

    /// The order at `url`, unless it is invalid or the CA does not have it any more.
    async fn resume(&self, url: &str) -> Result<Option<Order>, Error> {
        let found = retry_bad_nonce(async || self.account.order(url.to_owned()).await).await;
        let mut order = match found {
            Ok(order) => order,
            Err(instant_acme::Error::Api(problem)) if is_gone(&problem) => {
                let problem = describe(&problem, Step::Order);
                info!(order = url, problem, "the order is gone; ordering again");
                return Ok(None);
            }
            Err(error) => return Err(self.http.error(Step::Order, error)),
        };

        let status = order.state().status;
        if status == OrderStatus::Invalid {
            info!(order = url, "the order is invalid by now; ordering again");
            return Ok(None);
        }
        info!(order = url, ?status, "order resumed");
        Ok(Some(order))
    }

    async fn create(
        &self,
        attempt: &Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, IssuerError> {
        let identifiers: Vec<_> = attempt.identifiers.iter().map(|name| identifier(name)).collect();

        if let Some(replaces) = replaces {
            let order = new_order(&identifiers, attempt).replaces(replaces);
            match retry_bad_nonce(async || self.account.new_order(&order).await).await {
                Ok(order) => return Ok(order),
                // Whatever is wrong with `replaces` must not keep a certificate from being renewed
                // (RFC 9773, 5).
                Err(instant_acme::Error::Api(problem)) if problem::is_about_replaces(&problem) => warn!(
                    problem = describe(&problem, Step::Order),
                    "the order was refused while it said what it replaces; once more without"
                ),
                // The library says so when the directory has no renewalInfo.
                Err(instant_acme::Error::Unsupported(what)) => {
                    warn!(what, "the CA knows no renewal information; ordering without it");
                }
                Err(error @ instant_acme::Error::Api(_)) => return Err(self.not_ordered(error, attempt)),
                // The library does not take an order that does not repeat `replaces`; but it is
                // there.
                Err(error) => match self.http.made() {
                    Some(url) => {
                        warn!(fault = %error, order = url, "the CA's answer to the order is odd; asking for the order");
                        return retry_bad_nonce(async || self.account.order(url.clone()).await)
                            .await
                            .map_err(|error| self.http.error(Step::Order, error).into());
                    }
                    None => return Err(self.not_ordered(error, attempt)),
                },
            }
        }

        let order = new_order(&identifiers, attempt);
        retry_bad_nonce(async || self.account.new_order(&order).await)
            .await
            .map_err(|error| self.not_ordered(error, attempt))
    }

    /// Why the CA took no order, and whether it is about this certificate's names.
    fn not_ordered(&self, error: instant_acme::Error, attempt: &Attempt) -> IssuerError {
        let is_general = match &error {
            instant_acme::Error::Api(problem) => problem::is_general(problem, &attempt.identifiers),
            instant_acme::Error::Unsupported(_) => false,
            _ => true,
        };
        IssuerError {
            error: self.http.error(Step::Order, error),
            is_general,
        }
    }

    /// Proves control of every identifier whose authorization is not valid yet, and removes the
    /// proof again.
    async fn authorize(&self, order: &mut Order, attempt: &mut Attempt) -> Result<(), Error> {
        let records = self.challenges(order, attempt).await?;
        let proved = self.prove(order, attempt, &records).await;
        let tidied = self.tidy(attempt).await;
        proved?;
        tidied
    }

    async fn prove(&self, order: &mut Order, attempt: &mut Attempt, records: &[TxtRecord]) -> Result<(), Error> {
        if !records.is_empty() {
            self.progress
                .step("writing the TXT records, and waiting until DNS shows them")
                .await;
            if let Err(error) = self.write(attempt, records).await {
                // Whoever else has this order may have proved the same, and removed the records.
                let is_known = self.refresh(order, attempt).await.is_ok();
                let is_proved = is_known && order.state().status != OrderStatus::Pending;
                return if is_proved { Ok(()) } else { Err(error) };
            }
            self.progress.step("the CA looks at the TXT records").await;
            self.set_ready(order, attempt).await?;
        }

        let mut pauses = Pauses::default();
        loop {
            self.refresh(order, attempt).await?;
            if order.state().status != OrderStatus::Pending {
                return Ok(());
            }
            // Some CAs leave the order as it is when an authorization fails.
            if pauses.0 % 8 == 7 {
                self.stop_if_dead(order, attempt).await?;
            }
            self.pause(&mut pauses, attempt, "the CA looks at the TXT records")
                .await?;
        }
    }

    /// The TXT records that the CA wants to see (RFC 8555, 8.4).
    async fn challenges(&self, order: &mut Order, attempt: &mut Attempt) -> Result<Vec<TxtRecord>, Error> {
        self.fetch_authorizations(order).await?;

        let mut records = Vec::new();
        let mut dead = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.http.error(Step::Order, error))?;
            let identifier = authorization.identifier().to_string();
            let shown = problem::part(&identifier);
            let identifier = bare(&identifier);
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => {
                    dead.push(format!(
                        "the authorization of {shown} is {status:?}{}",
                        described(&authorization.challenges)
                    ));
                    continue;
                }
            }
            // We decide what is written into DNS, not the CA.
            if !attempt.identifiers.iter().any(|name| bare(name) == identifier) {
                return Err(Error::unavailable(format!(
                    "the CA wants control of \"{shown}\" proved, which was not ordered"
                )));
            }

            let Some(challenge) = authorization.challenge(ChallengeType::Dns01) else {
                return Err(Error::CaDeclined(format!(
                    "the CA offers no dns-01 challenge for {shown}"
                )));
            };
            check_url("a challenge", &challenge.url)?;
            records.push(TxtRecord {
                name: format!("_acme-challenge.{identifier}"),
                value: challenge.key_authorization().dns_value(),
            });
        }

        if dead.is_empty() {
            Ok(records)
        } else {
            self.bury(attempt, &joined(&dead)).await
        }
    }

    /// Forgets an order that can never be issued. The failure names it.
    async fn bury<T>(&self, attempt: &mut Attempt, problem: &str) -> Result<T, Error> {
        let problem = format!("{problem}\n  ({})", attempt.order_name());
        attempt.order = None;
        self.lease.note(attempt).await?;
        Err(Error::unavailable(problem))
    }

    /// Fetches all authorizations into the order. The library's iterator goes on to the next one
    /// when one cannot be fetched, so it is restarted until none is missing.
    async fn fetch_authorizations(&self, order: &mut Order) -> Result<(), Error> {
        self.patiently(Step::Order, async || {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                authorization?;
            }
            Ok(())
        })
        .await
    }

    /// Writes the records where their names lead, one batch per zone, and waits until DNS shows
    /// them.
    async fn write(&self, attempt: &mut Attempt, records: &[TxtRecord]) -> Result<(), Error> {
        let zones = self.zones().await?;
        let lookup = self.services.lookup()?;

        let mut paths = BTreeMap::new();
        for record in records {
            // Apex and wildcard have one name.
            if !paths.contains_key(&record.name) {
                paths.insert(&record.name, lookup.path(&record.name, zones).await?);
            }
        }

        let mut placed = Vec::new();
        for record in records {
            let path = &paths[&record.name];
            let target = path.end();
            // A name that is nowhere in the inventory needs its origin.
            let placed_in = match &path.cut {
                Some(why) => Err(Error::Internal(why.clone())),
                None => zones.of(target).map_err(Error::from),
            };
            let zone = placed_in.map_err(|error| match path.names.len() {
                0 | 1 => error,
                _ => error.context(&format!("the CNAMEs {}", path.names.join(" -> "))),
            })?;
            placed.push(ZoneRecord {
                zone: zone.id.clone(),
                record: TxtRecord {
                    name: target.to_owned(),
                    value: record.value.clone(),
                },
            });
        }
        let edits = Edits::default().add(&placed);

        // Noted before they are written, so that the next renewer can remove them if this one dies.
        attempt.txt.extend(placed.iter().cloned());
        attempt.txt.sort();
        attempt.txt.dedup();
        self.lease.note(attempt).await?;

        edits.apply_in_sync(zones, self.deadline).await?;
        info!(zones = edits.zones(), "TXT records written");

        let mut by_zone = BTreeMap::<_, Vec<_>>::new();
        for ZoneRecord { zone, record } in placed {
            by_zone.entry(zone).or_default().push(record);
        }
        let seen = by_zone.iter().map(|(zone, records)| async {
            let zone = zones.by_id(zone)?;
            lookup.see(zone, records, self.deadline).await
        });
        try_join_all(seen).await.map(drop)
    }

    async fn set_ready(&self, order: &mut Order, attempt: &Attempt) -> Result<(), Error> {
        let mut refusal = None;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.http.error(Step::Order, error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            // A challenge that a dead run reported is being validated already.
            if let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01)
                && challenge.status == ChallengeStatus::Pending
            {
                let is_set = self.patiently(Step::Order, async || challenge.set_ready().await).await;
                match is_set {
                    Err(error @ Error::CaDeclined(_)) => refusal = Some(error),
                    other => other?,
                }
            }
        }

        // A CA that looks already, because its answer was lost, may refuse to hear it again.
        match refusal {
            Some(error) if !self.is_looking(order.url(), attempt).await => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the CA has been told of every challenge of an order.
    async fn is_looking(&self, url: &str, attempt: &Attempt) -> bool {
        let Some(mut fresh) = self.fresh(url, attempt).await else {
            return false;
        };
        let mut authorizations = fresh.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let Ok(mut authorization) = authorization else {
                return false;
            };
            let is_pending = authorization.status == AuthorizationStatus::Pending;
            let challenge = authorization.challenge(ChallengeType::Dns01);
            if is_pending && challenge.is_none_or(|challenge| challenge.status == ChallengeStatus::Pending) {
                return false;
            }
        }
        true
    }

    /// The order at `url` once more, without the authorizations that were fetched before; none if
    /// it cannot be had.
    async fn fresh(&self, url: &str, attempt: &Attempt) -> Option<Order> {
        let order = retry_bad_nonce(async || self.account.order(url.to_owned()).await).await;
        checked(order.ok()?, attempt).ok()
    }

    /// Sends the certificate's request, and waits until the certificate is there.
    ///
    /// Replicas of a CA may lag: an order that was finalized can read `pending` or `ready` for a
    /// while. So every state but `valid` and `invalid` means to ask again, and one that stays
    /// `ready` is finalized once more.
    async fn finalize(&self, order: &mut Order, attempt: &mut Attempt) -> Result<(), Error> {
        let request = attempt.key.request(&attempt.identifiers)?;
        let mut pauses = Pauses::default();
        let mut sent = 0;
        let mut ready = 0;
        loop {
            let status = order.state().status;
            if status == OrderStatus::Invalid {
                return Err(self.refusal(order, attempt).await?);
            }
            if status == OrderStatus::Valid && order.state().certificate.is_some() {
                return Ok(());
            }

            if status == OrderStatus::Ready {
                ready += 1;
                if ready > sent * READY {
                    sent += 1;
                    match self
                        .patiently(Step::Finalize, async || finalized(order, &request).await)
                        .await
                    {
                        Ok(()) => info!(order = order.url(), "order finalized"),
                        Err(error) if sent > 1 => warn!(fault = %error, "the order was finalized already"),
                        Err(error) => return Err(error),
                    }
                    if order.state().status != OrderStatus::Ready {
                        continue;
                    }
                }
            }
            self.pause(&mut pauses, attempt, "the CA issues").await?;
            self.refresh_any(order).await?;
        }
    }

    /// Asks for the order's state. One that is invalid by now is an error.
    async fn refresh(&self, order: &mut Order, attempt: &mut Attempt) -> Result<(), Error> {
        self.refresh_any(order).await?;
        if order.state().status == OrderStatus::Invalid {
            return Err(self.refusal(order, attempt).await?);
        }
        Ok(())
    }

    async fn refresh_any(&self, order: &mut Order) -> Result<(), Error> {
        self.patiently(Step::Order, async || order.refresh().await.map(drop))
            .await
    }

    /// Waits before the order is asked for again, as long as the CA wants (Retry-After). When time
    /// is over, the next delivery goes on; one that has gone on already gives the order up, or the
    /// one that took its place.
    async fn pause(&self, pauses: &mut Pauses, attempt: &mut Attempt, what: &str) -> Result<(), Error> {
        let pause = pauses.next(self.http.ask_again_at());
        let next = Instant::now() + pause;

        let patience = if attempt.resumed > 0 {
            self.patience
        } else {
            self.patience.map(|_| self.half)
        };
        if patience.is_some_and(|patience| next > patience) {
            attempt.given_up = true;
            self.lease.note(attempt).await?;
            return Err(Error::unavailable(format!(
                "the order did not move while {what}, and is given up ({})",
                attempt.order_name()
            )));
        }
        if next > self.deadline {
            return Err(Error::out_of_time(format!("{what} ({})", attempt.order_name())));
        }
        sleep(pause).await;
        Ok(())
    }

    /// Repeats a request of an order under way while the CA cannot answer for a moment. A replica
    /// that lags may not know yet what another one has made (404).
    async fn patiently<T>(
        &self,
        step: Step,
        mut request: impl AsyncFnMut() -> Result<T, instant_acme::Error>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let left = self.deadline.saturating_duration_since(start);
        let mut pauses = Pauses::default();
        loop {
            let error = match retry_bad_nonce(&mut request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };

            let is_missing = matches!(&error, instant_acme::Error::Api(problem) if problem.status == Some(404));
            let error = self.http.error(step, error);
            let longest = match error {
                Error::CaUnavailable { .. } => (left / 2).min(PASSING),
                _ if is_missing => (left / 2).min(MISSING),
                _ => return Err(error),
            };
            let pause = pauses.next(self.http.ask_again_at());
            if self.http.is_over() || Instant::now() + pause > start + longest {
                return Err(error);
            }
            warn!(fault = %error, ?pause, "the CA cannot answer for the moment");
            sleep(pause).await;
        }
    }

    /// Fails if an authorization of a pending order is invalid, although the order does not say so.
    async fn stop_if_dead(&self, order: &mut Order, attempt: &mut Attempt) -> Result<(), Error> {
        let Some(mut fresh) = self.fresh(order.url(), attempt).await else {
            return Ok(());
        };
        let mut is_dead = false;
        let mut authorizations = fresh.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            is_dead |= !matches!(
                authorization.status,
                AuthorizationStatus::Pending | AuthorizationStatus::Valid
            );
        }
        if is_dead {
            return Err(self.refusal(order, attempt).await?);
        }
        Ok(())
    }

    /// Why an order became invalid: its own problem, and that of each challenge. The order is
    /// forgotten.
    async fn refusal(&self, order: &mut Order, attempt: &mut Attempt) -> Result<Error, Error> {
        attempt.order = None;
        self.lease.note(attempt).await?;

        let own = order.state().error.clone();
        let mut reasons: Vec<_> = own.iter().map(|error| describe(error, Step::Validation)).collect();
        let mut verdicts = Vec::new();

        // A fresh one, because the states that this one holds are from before the CA looked.
        let url = order.url().to_owned();
        if let Some(mut fresh) = self.fresh(&url, attempt).await {
            let mut authorizations = fresh.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let Ok(authorization) = authorization else { continue };
                let identifier = problem::part(&authorization.identifier().to_string());
                for error in errors_of(&authorization.challenges) {
                    verdicts.push(problem::verdict(error));
                    reasons.push(format!("{identifier}: {}", describe(error, Step::Validation)));
                }
            }
        }

        // The challenges' errors say more than the order's, which is often about all of them.
        let own = own.map(|error| problem::verdict(&error));
        let verdict = verdicts.into_iter().max().or(own).unwrap_or(Verdict::Unavailable);
        if reasons.is_empty() {
            reasons.push(format!("the order {url} is invalid, and the CA does not say why"));
        }
        Ok(problem::of_verdict(verdict, joined(&reasons), None))
    }

    async fn zones(&self) -> Result<&Zones, Error> {
        self.zones.get_or_try_init(|| self.services.zones(self.written)).await
    }
}

/// Ever longer pauses, and no shorter than the CA asks for.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    fn next(&mut self, ask_again_at: Option<Timestamp>) -> Duration {
        let own = (FIRST_PAUSE * 2_u32.pow(self.0.min(8))).min(LONGEST_PAUSE);
        self.0 += 1;
        // Some CAs name a day while they need seconds, so Retry-After is not followed without end.
        let asked = ask_again_at.and_then(|until| Duration::try_from(until - Timestamp::now()).ok());
        asked.map_or(own, |asked| asked.min(LONGEST_ASKED).max(own))
    }
}

/// Finalizes an order. One that is not ready any more was finalized by a request whose answer was
/// lost, so its state is asked for instead.
async fn finalized(order: &mut Order, request: &[u8]) -> Result<(), instant_acme::Error> {
    match order.finalize_csr(request).await {
        Err(instant_acme::Error::Api(problem)) if ProblemType::of(&problem) == ProblemType::OrderNotReady => {
            order.refresh().await.map(drop)
        }
        result => result,
    }
}

/// Whether the CA answered for good that there is no such order.
fn is_gone(problem: &Problem) -> bool {
    problem.status == Some(404) || problem::verdict(problem) == Verdict::Declined
}

/// The order, if it can be noted and worked on. What a CA makes of it has no bound of its own, and
/// a lease that is too long cannot be read again.
fn checked(mut order: Order, attempt: &Attempt) -> Result<Order, Error> {
    check_url("the order", order.url())?;
    check(order.state(), attempt.identifiers.len())?;
    Ok(order)
}

fn check(order: &OrderState, identifiers: usize) -> Result<(), Error> {
    let authorizations = order.authorizations.len();
    let most = identifiers * AUTHORIZATIONS;
    if authorizations > most {
        return Err(Error::unavailable(format!(
            "the CA wants {authorizations} authorizations for an order of {identifiers} identifiers (expected at most {most})"
        )));
    }

    check_url("finalize", &order.finalize)?;
    order
        .authorizations
        .iter()
        .try_for_each(|authorization| check_url("an authorization", &authorization.url))
}

/// Fails on a URL that is longer than what is stored of an order or an account may be.
pub(super) fn check_url(of: &str, url: &str) -> Result<(), Error> {
    match url.len() {
        0..=LONGEST_URL => Ok(()),
        length => Err(Error::unavailable(format!(
            "the CA's URL of {of} has {length} bytes (expected at most {LONGEST_URL})"
        ))),
    }
}

/// Several problems of one order, cut as one.
fn joined(problems: &[String]) -> String {
    cut(&problems.join("\n"), problem::LONGEST)
}

/// Why an authorization failed. Usual ones have three challenges, and an error with one of them.
fn errors_of(challenges: &[Challenge]) -> impl Iterator<Item = &Problem> {
    let errors = challenges.iter().filter_map(|challenge| challenge.error.as_ref());
    errors.take(MOST_ERRORS)
}

fn described(challenges: &[Challenge]) -> String {
    errors_of(challenges)
        .map(|error| format!(": {}", describe(error, Step::Validation)))
        .collect()
}

fn new_order<'o>(identifiers: &'o [Identifier], attempt: &'o Attempt) -> NewOrder<'o> {
    let order = NewOrder::new(identifiers);
    match &attempt.profile {
        Some(profile) => order.profile(profile),
        None => order,
    }
}

/// A name without the wildcard's label, as authorizations have it (RFC 8555, 7.1.4).
fn bare(identifier: &str) -> String {
    identifier
        .trim_start_matches("*.")
        .trim_end_matches('.')
        .to_ascii_lowercase()
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How long Retry-After is followed while an order is under way.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// How long a CA that cannot answer is waited for while an order is under way, and how long for
/// what it does not have yet.
const PASSING: Duration = Duration::from_secs(120);
const MISSING: Duration = Duration::from_secs(30);
const PEM: &str = "-----BEGIN CERTIFICATE-----";
const SHOWN: usize = 100;
/// How many authorizations there may be per identifier. CAs have one, but need not (RFC 8555,
/// 7.1.3).
const AUTHORIZATIONS: usize = 2;
const LONGEST_URL: usize = 2_000;
const MOST_ERRORS: usize = 10;
/// How many renewers in a row find that the CA cannot answer for an order until it is given up.
const MOST_RESUMED: u32 = 2;
/// How often an order has to read `ready` before it is finalized once more.
const READY: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The CA decided how much was noted in the lease, until nobody could read it any more.
    #[test]
    fn an_order_that_is_too_much_to_note_is_refused() {
        let url = |length: usize| format!("https://ca.example/{}", "a".repeat(length - 19));
        for (authorizations, authorization, finalize, expected) in [
            (4, LONGEST_URL, LONGEST_URL, None),
            (
                5,
                LONGEST_URL,
                LONGEST_URL,
                Some("5 authorizations for an order of 2 identifiers (expected at most 4)"),
            ),
            (
                1,
                LONGEST_URL + 1,
                LONGEST_URL,
                Some("URL of an authorization has 2001 bytes (expected at most 2000)"),
            ),
            (1, LONGEST_URL, 300_000, Some("URL of finalize has 300000 bytes")),
        ] {
            let order = json!({
                "status": "pending",
                "authorizations": vec![url(authorization); authorizations],
                "finalize": url(finalize),
            });
            let order = serde_json::from_value(order).unwrap();
            match (check(&order, 2), expected) {
                (Ok(()), None) => {}
                (Err(error @ Error::CaUnavailable { .. }), Some(words)) => {
                    assert!(error.to_string().contains(words), "{error}");
                }
                (checked, expected) => panic!("{expected:?}: {checked:?}"),
            }
        }
    }

    /// Each failed challenge had as many words as the CA liked, and all were kept.
    #[test]
    fn however_many_challenges_fail_the_problem_stays_short() {
        let challenge = json!({
            "type": "dns-01",
            "url": "https://ca.example/challenge/1",
            "status": "invalid",
            "error": { "type": "urn:ietf:params:acme:error:dns", "detail": "\u{7f}".repeat(2_000) },
        });
        let challenges: Vec<Challenge> = serde_json::from_value(json!(vec![challenge; 100])).unwrap();
        let failed = described(&challenges);
        assert!(
            failed.chars().count() <= MOST_ERRORS * (problem::LONGEST + 500),
            "{}",
            failed.len()
        );
        let all = joined(&vec![failed; 100]);
        assert!(all.chars().count() <= problem::LONGEST + 1, "{}", all.len());
    }

    #[test]
    fn pauses_grow_and_retry_after_is_kept_within_reason() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(None), Duration::from_millis(250));
        assert_eq!(pauses.next(None), Duration::from_millis(500));
        let asked = pauses.next(Some(Timestamp::now() + time::Duration::seconds(10)));
        assert!(
            asked > Duration::from_secs(8) && asked <= Duration::from_secs(10),
            "{asked:?}"
        );
        let day = pauses.next(Some(Timestamp::now() + time::Duration::DAY));
        assert_eq!(day, LONGEST_ASKED);
        let past = pauses.next(Some(Timestamp::now() - time::Duration::DAY));
        assert_eq!(past, Duration::from_secs(4));
    }
}
