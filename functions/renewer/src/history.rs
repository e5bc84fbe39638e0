//! The history of a certificate: its current version, and what was remembered of its renewals.

use lambda_runtime::tracing::info;
use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::renewal::{Renewal, Wait};

use crate::error::Error;

/// Reads `current.json`, and reads and changes `state/renewals/{name}.json`.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) store: Store,
}

impl History {
    /// The version to serve, if there is one yet.
    pub(crate) async fn current(&self, name: &str) -> Result<Option<Tagged<Current>>, Error> {
        Ok(self.store.document(&current_key(name)).await?)
    }

    /// What is remembered of its renewals.
    pub(crate) async fn renewal(&self, name: &str) -> Result<Renewal, Error> {
        let found = self.store.document::<Renewal>(&Renewal::key(name)).await?;
        Ok(found.map_or_else(|| Renewal::new(name), |found| found.value))
    }

    /// Changes what is remembered, without undoing what another renewer remembered meanwhile.
    pub(crate) async fn remember<T>(&self, name: &str, change: impl Fn(&mut Renewal) -> T) -> Result<T, Error> {
        let key = Renewal::key(name);
        loop {
            let found = self.store.document::<Renewal>(&key).await?;
            let mut renewal = found
                .as_ref()
                .map_or_else(|| Renewal::new(name), |found| found.value.clone());
            let answer = change(&mut renewal);

            let expecting = Expecting::unchanged(found.as_ref());
            match self.store.put(&key, Object::json(&renewal)?, expecting).await {
                Ok(_) => return Ok(answer),
                Err(store::Error::Changed { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Remembers that an issuer is left alone.
    pub(crate) async fn wait(&self, name: &str, wait: Wait) -> Result<(), Error> {
        self.remember(name, |renewal| renewal.wait(wait.clone())).await?;
        let Wait {
            issuer,
            until,
            is_unfit,
        } = wait;
        info!(name, issuer, %until, is_unfit, "the issuer is left alone");
        Ok(())
    }
}
