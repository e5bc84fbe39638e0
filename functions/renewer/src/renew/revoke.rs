//! Revoking a version because a person asks.

use instant_acme::{Error, RevocationReason, RevocationRequest};
use lambda_runtime::tracing::info;
use neverlapse::bucket::version::{MANIFEST, Manifest, PRIVKEY, file_key};

use crate::acme::http::{Http, fault, is, patiently, said};
use crate::bucket::lease::Attempt;
use crate::error::Fault;
use crate::renew::Renewer;
use crate::renew::job::Case;

impl Renewer {
    /// Revokes the version that the request names, be it the current one or not: a renewal may have overtaken the request, and the key
    /// that somebody else has is still that version's. That it is revoked already is as good.
    pub(crate) async fn revoke(&self, case: &Case<'_>) -> Result<(), Fault> {
        let name = &case.wanted.name;
        let Some(version) = &case.request.version else {
            return Err(Fault::Ours(
                "the request to revoke does not say which version".to_owned(),
            ));
        };
        let key = file_key(name, version, MANIFEST);
        let Some(manifest) = self.store.json::<Manifest>(&key).await? else {
            return Err(Fault::Ours(format!(
                "cannot revoke version {version}: {key} is not there"
            )));
        };
        let facts = manifest.value.facts;
        let issuer = case.issuer(&facts.issuer.name)?;
        let http = Http::new(&self.roots(issuer).await?)?;
        let account = self.accounts().open(&facts.issuer.name, issuer, &http).await?;
        let leaf = self.leaf(&facts).await?;
        let reason = match case.request.key_compromise {
            true => RevocationReason::KeyCompromise,
            false => RevocationReason::Superseded,
        };
        let request = RevocationRequest {
            certificate: &leaf,
            reason: Some(reason),
        };
        match patiently(async || account.revoke(&request).await).await {
            Ok(()) => info!(name, version, "revoked"),
            Err(Error::Api(problem)) if is(&problem, "alreadyRevoked") => {
                info!(name, version, problem = said(&problem), "revoked already")
            }
            Err(error) => return Err(fault(error, &http).context(&format!("cannot revoke version {version}"))),
        }
        Ok(())
    }

    /// Whether an attempt would issue once more for the key of a version that is revoked.
    pub(crate) async fn keeps_the_key(&self, attempt: &Attempt, name: &str, version: &str) -> Result<bool, Fault> {
        let key = file_key(name, version, PRIVKEY);
        let pem = self.store.text(&key).await?;
        Ok(pem.is_some_and(|pem| pem == attempt.key.pem()))
    }
}
