//! What is remembered of a certificate from one run to the next, and what people hear of it.

use lambda_runtime::tracing::{error, info};
use neverlapse::bucket::store::{self, Expecting, Object, Tagged};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::renewal::{Failure, Renewal};
use neverlapse::timestamp::Timestamp;

use crate::error::Fault;
use crate::outcome::Outcome;
use crate::renew::Renewer;

impl Renewer {
    /// Remembers how it went, and tells people if that is news. `patient` says that nobody waits for what was asked, `deliveries` how
    /// often the request was delivered.
    pub(crate) async fn conclude(
        &self,
        name: &str,
        patient: bool,
        deliveries: u32,
        result: Result<Outcome, Fault>,
    ) -> Result<Outcome, Fault> {
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
            // Whoever has the lease renews it; a person may have asked for more than that.
            Err(Fault::Overtaken) if patient => Ok(Outcome::Busy),
            Err(fault) => {
                if fault.is_news(patient, deliveries) {
                    self.failed(name, patient, &fault).await;
                }
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
    async fn failed(&self, name: &str, patient: bool, fault: &Fault) {
        let (now, problem) = (Timestamp::now(), fault.to_string());
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
        let failure = match noted.await {
            Ok(failure) => failure,
            // Nobody would know that it was said already, and each certificate would say it at every try. The queue gives up on it, and an
            // alarm tells that once.
            Err(unnoted) if patient => {
                error!(name, %fault, %unnoted, "a renewal failed, and that cannot be remembered");
                return;
            }
            Err(_) => next(None),
        };
        if failure.count == 1 {
            let current = self.current(name).await;
            let current = current.as_ref().map(|found| found.as_ref().map(|found| &found.value));
            let digest = self.teller.failed(name, &failure, current, now);
            self.teller.tell(digest).await;
        }
    }

    /// Remembers that an issuer asked to wait.
    pub(crate) async fn wait(&self, name: &str, issuer: &str, until: Timestamp) -> Result<(), Fault> {
        self.remember(name, |renewal| renewal.wait(issuer, until)).await?;
        info!(name, issuer, %until, "the issuer asked to wait");
        Ok(())
    }

    pub(crate) async fn current(&self, name: &str) -> Result<Option<Tagged<Current>>, Fault> {
        Ok(self.store.json(&current_key(name)).await?)
    }

    pub(crate) async fn renewal(&self, name: &str) -> Result<Renewal, Fault> {
        let found = self.store.json::<Renewal>(&Renewal::key(name)).await?;
        Ok(found.map_or_else(|| Renewal::new(name), |found| found.value))
    }

    /// Changes what is remembered, without undoing what somebody else remembered meanwhile.
    pub(crate) async fn remember<T>(&self, name: &str, change: impl Fn(&mut Renewal) -> T) -> Result<T, Fault> {
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
