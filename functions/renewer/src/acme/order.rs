//! One order at one CA, from wherever it stands to the certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus,
};
use lambda_runtime::tracing::{info, warn};
use tokio::time::{Instant, sleep};

use crate::acme::http::{Http, fault, patiently, said};
use crate::bucket::lease::{Attempt, Lease, Txt};
use crate::dns::lookup::Lookup;
use crate::dns::zone::{Edit, Edits, Zones};
use crate::error::Fault;

/// What it takes to bring an order to its end.
pub(crate) struct Ordering<'a> {
    pub(crate) account: &'a Account,
    pub(crate) http: &'a Http,
    pub(crate) lease: &'a Lease<'a>,
    pub(crate) zones: &'a Zones,
    pub(crate) lookup: &'a Lookup,
    pub(crate) deadline: Instant,
}

impl Ordering<'_> {
    /// The chain that the CA issues for `attempt`, PEM, leaf first. `replaces` is the certificate that it takes the place of.
    pub(crate) async fn chain(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<String, Fault> {
        let mut order = self.open(attempt, replaces).await?;
        if order.state().status == OrderStatus::Pending {
            self.authorize(&mut order, attempt).await?;
        }
        if order.state().status == OrderStatus::Ready {
            let request = attempt.key.request(&attempt.identifiers)?;
            let finalized = patiently(async || order.finalize_csr(&request).await).await;
            finalized.map_err(|error| self.fault(error))?;
            info!(order = order.url(), "order finalized");
        }
        self.settle(&mut order, OrderStatus::Processing, "the CA issues")
            .await?;
        let chain = patiently(async || order.certificate().await)
            .await
            .map_err(|error| self.fault(error))?;
        chain.ok_or(Fault::OutOfTime("the CA issues"))
    }

    /// The order that the record names, if it still can be used; else a new one.
    async fn open(
        &self,
        attempt: &mut Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Fault> {
        if let Some(url) = &attempt.order {
            match patiently(async || self.account.order(url.clone()).await).await {
                Ok(mut order) => {
                    let status = order.state().status;
                    if status != OrderStatus::Invalid {
                        info!(order = url, ?status, "order resumed");
                        return Ok(order);
                    }
                    info!(order = url, "the order is invalid by now; ordering anew");
                }
                Err(Error::Api(problem)) if problem.status.is_some_and(|status| status < 500 && status != 429) => {
                    info!(
                        order = url,
                        problem = said(&problem),
                        "the order is gone; ordering anew"
                    );
                }
                Err(error) => return Err(self.fault(error)),
            }
        }
        let order = self.create(attempt, replaces).await?;
        attempt.order = Some(order.url().to_owned());
        self.lease.note(Some(attempt)).await?;
        info!(order = order.url(), issuer = attempt.issuer, "order created");
        Ok(order)
    }

    async fn create(
        &self,
        attempt: &Attempt,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Fault> {
        let identifiers: Vec<_> = attempt.identifiers.iter().map(|name| identifier(name)).collect();
        let new = || {
            let order = NewOrder::new(&identifiers);
            attempt.profile.as_deref().into_iter().fold(order, NewOrder::profile)
        };
        if let Some(replaces) = replaces {
            let order = new().replaces(replaces);
            match patiently(async || self.account.new_order(&order).await).await {
                Ok(order) => return Ok(order),
                // Whatever is wrong with `replaces` must not keep a certificate from being renewed (RFC 9773, 5).
                Err(error) => {
                    warn!(error = %self.fault(error), "the order was refused while it said what it replaces; once more without")
                }
            }
        }
        let order = new();
        patiently(async || self.account.new_order(&order).await)
            .await
            .map_err(|error| self.fault(error))
    }

    /// Proves control of every identifier whose authorization is not valid yet.
    async fn authorize(&self, order: &mut Order, attempt: &mut Attempt) -> Result<(), Fault> {
        let wanted = self.challenges(order, &attempt.identifiers).await?;
        let proved = self.prove(order, attempt, &wanted).await;
        let removed = self.remove(attempt).await;
        proved?;
        removed
    }

    async fn prove(&self, order: &mut Order, attempt: &mut Attempt, wanted: &[(String, String)]) -> Result<(), Fault> {
        if !wanted.is_empty() {
            self.write(attempt, wanted).await?;
            self.set_ready(order).await?;
        }
        self.settle(order, OrderStatus::Pending, "the CA looks at the TXT records")
            .await
    }

    /// The TXT values that the CA wants to see, each with the name that it is looked up by.
    async fn challenges(&self, order: &mut Order, ordered: &[String]) -> Result<Vec<(String, String)>, Fault> {
        self.fetch(order).await?;
        let mut wanted = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.fault(error))?;
            let identifier = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => {
                    return Err(Fault::Issuer {
                        said: format!("the authorization of {identifier} is {status:?}"),
                        retry_after: None,
                    });
                }
            }
            // What we write into DNS is for us to say, not for the CA.
            if !ordered.iter().any(|name| bare(name) == bare(&identifier)) {
                return Err(Fault::Issuer {
                    said: format!("the CA wants control of {identifier:?} proved, which was not ordered"),
                    retry_after: None,
                });
            }
            let Some(challenge) = authorization.challenge(ChallengeType::Dns01) else {
                return Err(Fault::Refused {
                    said: format!("the CA offers no dns-01 challenge for {identifier}"),
                });
            };
            let name = format!("_acme-challenge.{}", bare(&identifier));
            wanted.push((name, challenge.key_authorization().dns_value()));
        }
        Ok(wanted)
    }

    /// The library's iterator goes on to the next authorization when one cannot be fetched, so it is begun anew until none is missing.
    async fn fetch(&self, order: &mut Order) -> Result<(), Fault> {
        let all = async || {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                authorization?;
            }
            Ok(())
        };
        patiently(all).await.map_err(|error| self.fault(error))
    }

    /// Writes the values where their names lead, one batch a zone, and waits until DNS shows them.
    async fn write(&self, attempt: &mut Attempt, wanted: &[(String, String)]) -> Result<(), Fault> {
        let mut txt = Vec::new();
        for (name, value) in wanted {
            let target = self.lookup.canonical(name).await?;
            let zone = self.zones.of(&target)?.id.clone();
            txt.push(Txt {
                zone,
                name: target,
                value: value.clone(),
            });
        }
        // What a dead run has left behind goes in the same change.
        let stale = attempt.txt.iter().filter(|old| !txt.contains(old));
        let stale: Vec<_> = stale.filter(|old| !self.zones.is_gone(&old.zone)).cloned().collect();
        attempt.txt.extend(txt.iter().cloned());
        attempt.txt.sort();
        attempt.txt.dedup();
        self.lease.note(Some(attempt)).await?;
        self.change(&edits(&txt, &stale)).await?;
        let mut by_zone = BTreeMap::<_, Vec<_>>::new();
        for txt in txt {
            by_zone.entry(txt.zone).or_default().push((txt.name, txt.value));
        }
        let seen = by_zone.iter().map(|(zone, values)| async {
            self.lookup
                .see(&self.zones.by_id(zone)?.name, values, self.deadline)
                .await
        });
        try_join_all(seen).await.map(drop)
    }

    /// Takes our values out again.
    pub(crate) async fn remove(&self, attempt: &mut Attempt) -> Result<(), Fault> {
        if attempt.txt.is_empty() {
            return Ok(());
        }
        remove(self.zones, &attempt.txt).await?;
        attempt.txt.clear();
        self.lease.note(Some(attempt)).await
    }

    async fn change(&self, zones: &BTreeMap<String, Edits>) -> Result<(), Fault> {
        let changes = zones.iter().map(|(zone, edits)| async {
            let zone = self.zones.by_id(zone)?;
            match zone.change(edits).await? {
                Some(change) => zone.in_sync(&change, self.deadline).await,
                None => Ok(()),
            }
        });
        try_join_all(changes).await?;
        info!(zones = zones.len(), "TXT records written");
        Ok(())
    }

    async fn set_ready(&self, order: &mut Order) -> Result<(), Fault> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.fault(error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01)
                && challenge.status == ChallengeStatus::Pending
            {
                patiently(async || challenge.set_ready().await)
                    .await
                    .map_err(|error| self.fault(error))?;
            }
        }
        Ok(())
    }

    /// Waits until the order is no longer in the state `while_in`.
    async fn settle(&self, order: &mut Order, while_in: OrderStatus, what: &'static str) -> Result<(), Fault> {
        let mut pause = Duration::from_millis(250);
        loop {
            patiently(async || order.refresh().await.map(drop))
                .await
                .map_err(|error| self.fault(error))?;
            let status = order.state().status;
            if status == OrderStatus::Invalid {
                return Err(self.refusal(order).await);
            }
            if status != while_in {
                return Ok(());
            }
            if Instant::now() + pause > self.deadline {
                return Err(Fault::OutOfTime(what));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Why an order became invalid: what it says itself, and what each challenge says.
    async fn refusal(&self, order: &mut Order) -> Fault {
        let mut reasons: Vec<_> = order.state().error.iter().map(said).collect();
        let url = order.url().to_owned();
        // A fresh one, because the states that this one holds are from before the CA looked.
        if let Ok(mut fresh) = patiently(async || self.account.order(url.clone()).await).await
            && self.fetch(&mut fresh).await.is_ok()
        {
            let mut authorizations = fresh.authorizations();
            while let Some(Ok(authorization)) = authorizations.next().await {
                let identifier = authorization.identifier().to_string();
                let errors = authorization
                    .challenges
                    .iter()
                    .filter_map(|challenge| challenge.error.as_ref());
                reasons.extend(errors.map(|error| format!("{identifier}: {}", said(error))));
            }
        }
        if reasons.is_empty() {
            reasons.push("the order is invalid, and the CA does not say why".to_owned());
        }
        Fault::Refused {
            said: reasons.join("\n"),
        }
    }

    fn fault(&self, error: Error) -> Fault {
        fault(error, self.http)
    }
}

/// Takes TXT values of ours out of their zones; what is not there any more, with its zone perhaps, is no error.
pub(crate) async fn remove(zones: &Zones, txt: &[Txt]) -> Result<(), Fault> {
    let left: Vec<_> = txt.iter().filter(|txt| !zones.is_gone(&txt.zone)).cloned().collect();
    let edits = edits(&[], &left);
    let changes = edits
        .iter()
        .map(|(zone, edits)| async { zones.by_id(zone)?.change(edits).await });
    try_join_all(changes).await.map(drop)
}

/// By zone and name.
fn edits(add: &[Txt], remove: &[Txt]) -> BTreeMap<String, Edits> {
    let mut zones = BTreeMap::new();
    for txt in add {
        edit(&mut zones, txt).add.insert(txt.value.clone());
    }
    for txt in remove {
        edit(&mut zones, txt).remove.insert(txt.value.clone());
    }
    zones
}

fn edit<'z>(zones: &'z mut BTreeMap<String, Edits>, txt: &Txt) -> &'z mut Edit {
    let edits = zones.entry(txt.zone.clone()).or_default();
    edits.entry(txt.name.clone()).or_default()
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
