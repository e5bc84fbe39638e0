//! One order at one CA (RFC 8555, 7.4), from wherever it stands to the certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier, NewOrder, Order,
    OrderStatus, Problem,
};
use lambda_runtime::tracing::{info, warn};
use tokio::time::{Instant, sleep};

use super::http::{Http, retry_bad_nonce};
use super::problem::describe;
use crate::bucket::attempt::Attempt;
use crate::bucket::lease::Lease;
use crate::dns::change::{self, Edits};
use crate::dns::lookup::Lookup;
use crate::dns::record::{TxtRecord, ZoneRecord};
use crate::dns::zone::Zones;
use crate::error::Error;

/// Everything that it takes to bring an order to its end.
pub(crate) struct Issuance<'a> {
    pub(crate) account: &'a Account,
    pub(crate) http: &'a Http,
    pub(crate) lease: &'a Lease<'a>,
    pub(crate) zones: &'a Zones,
    pub(crate) lookup: &'a Lookup,
    pub(crate) deadline: Instant,
}

impl Issuance<'_> {
    /// The chain that the CA issues for `attempt`: PEM, leaf first. `replaces` is the certificate
    /// that it replaces.
    pub(crate) async fn chain(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<String, Error> {
        let mut order = self.open(attempt, replaces).await?;

        if order.state().status == OrderStatus::Pending {
            self.authorize(&mut order, attempt).await?;
        }

        if order.state().status == OrderStatus::Ready {
            let request = attempt.key.request(&attempt.identifiers)?;
            retry_bad_nonce(async || order.finalize_csr(&request).await)
                .await
                .map_err(|error| self.http.error(error))?;
            info!(order = order.url(), "order finalized");
        }

        self.settle(&mut order, OrderStatus::Processing, "the CA issues")
            .await?;
        retry_bad_nonce(async || order.certificate().await)
            .await
            .map_err(|error| self.http.error(error))?
            .ok_or(Error::OutOfTime("the CA issues"))
    }

    /// Removes our TXT records, and notes that they are gone.
    pub(crate) async fn remove(&self, attempt: &mut Attempt) -> Result<(), Error> {
        if attempt.txt.is_empty() {
            return Ok(());
        }
        change::remove(self.zones, &attempt.txt).await?;
        attempt.txt.clear();
        self.lease.note(Some(attempt)).await
    }

    /// The order that the attempt began, if it still can be used; else a new one.
    async fn open(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Error> {
        if let Some(url) = &attempt.order
            && let Some(order) = self.resume(url).await?
        {
            return Ok(order);
        }

        let order = self.create(attempt, replaces).await?;
        attempt.order = Some(order.url().to_owned());
        self.lease.note(Some(attempt)).await?;
        info!(order = order.url(), issuer = attempt.issuer, "order created");
        Ok(order)
    }

    /// The order at `url`, unless it is invalid or the CA does not have it any more.
    async fn resume(&self, url: &str) -> Result<Option<Order>, Error> {
        let found = retry_bad_nonce(async || self.account.order(url.to_owned()).await).await;
        let mut order = match found {
            Ok(order) => order,
            Err(instant_acme::Error::Api(problem)) if is_gone(&problem) => {
                let problem = describe(&problem);
                info!(order = url, problem, "the order is gone; ordering anew");
                return Ok(None);
            }
            Err(error) => return Err(self.http.error(error)),
        };

        let status = order.state().status;
        if status == OrderStatus::Invalid {
            info!(order = url, "the order is invalid by now; ordering anew");
            return Ok(None);
        }
        info!(order = url, ?status, "order resumed");
        Ok(Some(order))
    }

    async fn create(
        &self,
        attempt: &Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Error> {
        let identifiers: Vec<_> = attempt.identifiers.iter().map(|name| identifier(name)).collect();

        if let Some(replaces) = replaces {
            let order = new_order(&identifiers, attempt).replaces(replaces);
            match retry_bad_nonce(async || self.account.new_order(&order).await).await {
                Ok(order) => return Ok(order),
                // Whatever is wrong with `replaces` must not keep a certificate from being renewed
                // (RFC 9773, 5).
                Err(error) => warn!(
                    error = %self.http.error(error),
                    "the order was refused while it said what it replaces; once more without"
                ),
            }
        }

        let order = new_order(&identifiers, attempt);
        retry_bad_nonce(async || self.account.new_order(&order).await)
            .await
            .map_err(|error| self.http.error(error))
    }

    /// Proves control of every identifier whose authorization is not valid yet, and removes the
    /// proof again.
    async fn authorize(&self, order: &mut Order, attempt: &mut Attempt) -> Result<(), Error> {
        let records = self.challenges(order, &attempt.identifiers).await?;
        let proved = self.prove(order, attempt, &records).await;
        let removed = self.remove(attempt).await;
        proved?;
        removed
    }

    async fn prove(&self, order: &mut Order, attempt: &mut Attempt, records: &[TxtRecord]) -> Result<(), Error> {
        if !records.is_empty() {
            self.write(attempt, records).await?;
            self.set_ready(order).await?;
        }
        self.settle(order, OrderStatus::Pending, "the CA looks at the TXT records")
            .await
    }

    /// The TXT records that the CA wants to see (RFC 8555, 8.4).
    async fn challenges(&self, order: &mut Order, ordered: &[String]) -> Result<Vec<TxtRecord>, Error> {
        self.fetch_authorizations(order).await?;

        let mut records = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.http.error(error))?;
            let identifier = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => {
                    return Err(Error::unavailable(format!(
                        "the authorization of {identifier} is {status:?}"
                    )));
                }
            }
            // We decide what is written into DNS, not the CA.
            if !ordered.iter().any(|name| bare(name) == bare(&identifier)) {
                return Err(Error::unavailable(format!(
                    "the CA wants control of {identifier:?} proved, which was not ordered"
                )));
            }

            let Some(challenge) = authorization.challenge(ChallengeType::Dns01) else {
                return Err(Error::CaRefused(format!(
                    "the CA offers no dns-01 challenge for {identifier}"
                )));
            };
            records.push(TxtRecord {
                name: format!("_acme-challenge.{}", bare(&identifier)),
                value: challenge.key_authorization().dns_value(),
            });
        }
        Ok(records)
    }

    /// Fetches all authorizations into the order. The library's iterator goes on to the next one
    /// when one cannot be fetched, so it is restarted until none is missing.
    async fn fetch_authorizations(&self, order: &mut Order) -> Result<(), Error> {
        retry_bad_nonce(async || {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                authorization?;
            }
            Ok(())
        })
        .await
        .map_err(|error| self.http.error(error))
    }

    /// Writes the records where their names lead, one batch per zone, and waits until DNS shows
    /// them.
    async fn write(&self, attempt: &mut Attempt, records: &[TxtRecord]) -> Result<(), Error> {
        let mut placed = Vec::new();
        for record in records {
            let target = self.lookup.canonical(&record.name).await?;
            placed.push(ZoneRecord {
                zone: self.zones.of(&target)?.id.clone(),
                record: TxtRecord {
                    name: target,
                    value: record.value.clone(),
                },
            });
        }

        // What a dead run has left behind is removed by the same change.
        let stale = attempt
            .txt
            .iter()
            .filter(|old| !placed.contains(old) && !self.zones.is_gone(&old.zone));
        let edits = Edits::default().add(&placed).remove(stale);

        // Noted before they are written, so that the next renewer can remove them if this one dies.
        attempt.txt.extend(placed.iter().cloned());
        attempt.txt.sort();
        attempt.txt.dedup();
        self.lease.note(Some(attempt)).await?;

        edits.apply_in_sync(self.zones, self.deadline).await?;
        info!(zones = edits.zones(), "TXT records written");

        let mut by_zone = BTreeMap::<_, Vec<_>>::new();
        for ZoneRecord { zone, record } in placed {
            by_zone.entry(zone).or_default().push(record);
        }
        let seen = by_zone.iter().map(|(zone, records)| async {
            let zone = self.zones.by_id(zone)?;
            self.lookup.see(&zone.name, records, self.deadline).await
        });
        try_join_all(seen).await.map(drop)
    }

    async fn set_ready(&self, order: &mut Order) -> Result<(), Error> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.http.error(error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            // A challenge that a dead run reported is being validated already.
            if let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01)
                && challenge.status == ChallengeStatus::Pending
            {
                retry_bad_nonce(async || challenge.set_ready().await)
                    .await
                    .map_err(|error| self.http.error(error))?;
            }
        }
        Ok(())
    }

    /// Waits until the order is no longer in the state `while_in`.
    async fn settle(&self, order: &mut Order, while_in: OrderStatus, what: &'static str) -> Result<(), Error> {
        let mut pause = Duration::from_millis(250);
        loop {
            retry_bad_nonce(async || order.refresh().await.map(drop))
                .await
                .map_err(|error| self.http.error(error))?;
            let status = order.state().status;
            if status == OrderStatus::Invalid {
                return Err(self.refusal(order).await);
            }
            if status != while_in {
                return Ok(());
            }

            if Instant::now() + pause > self.deadline {
                return Err(Error::OutOfTime(what));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Why an order became invalid: its own problem, and that of each challenge.
    async fn refusal(&self, order: &mut Order) -> Error {
        let mut reasons: Vec<_> = order.state().error.iter().map(describe).collect();

        // A fresh one, because the states that this one holds are from before the CA looked.
        let url = order.url().to_owned();
        if let Ok(mut fresh) = retry_bad_nonce(async || self.account.order(url.clone()).await).await
            && self.fetch_authorizations(&mut fresh).await.is_ok()
        {
            let mut authorizations = fresh.authorizations();
            while let Some(Ok(authorization)) = authorizations.next().await {
                let identifier = authorization.identifier().to_string();
                let errors = authorization
                    .challenges
                    .iter()
                    .filter_map(|challenge| challenge.error.as_ref());
                reasons.extend(errors.map(|error| format!("{identifier}: {}", describe(error))));
            }
        }

        if reasons.is_empty() {
            reasons.push("the order is invalid, and the CA does not say why".to_owned());
        }
        Error::CaRefused(reasons.join("\n"))
    }
}

/// Whether the CA answered for good that there is no such order.
fn is_gone(problem: &Problem) -> bool {
    problem.status.is_some_and(|status| status < 500 && status != 429)
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
    identifier.trim_start_matches("*.").to_ascii_lowercase()
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(4);
