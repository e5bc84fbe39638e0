//! Revoking a version at a person's request (RFC 8555, 7.6).

use instant_acme::{RevocationReason, RevocationRequest};
use lambda_runtime::tracing::info;
use neverlapse::bucket::version::{MANIFEST, Manifest, file_key};
use neverlapse::inventory::Issuer;

use super::task::Task;
use crate::acme::http::{Http, retry_bad_nonce};
use crate::acme::problem::{ProblemType, Step, describe};
use crate::bucket::version;
use crate::error::Error;

/// Revokes the version that the request names, whether or not it is the current one: a renewal may
/// have overtaken the request, and a stolen key is still that version's. A version that is revoked
/// already is no error.
pub(crate) async fn revoke(task: &Task<'_>) -> Result<(), Error> {
    let name = &task.wanted.name;
    let store = &task.services.store;
    let Some(version) = &task.request.version else {
        return Err(Error::Internal(
            "the request to revoke does not say which version".to_owned(),
        ));
    };
    let key = file_key(name, version, MANIFEST);
    let Some(manifest) = store.document::<Manifest>(&key).await? else {
        return Err(Error::Internal(format!(
            "cannot revoke version {version}: {key} is not there"
        )));
    };
    let facts = manifest.value.facts;

    // The issuer of that name may be another CA by now.
    let issuer = Issuer {
        directory: facts.issuer.directory.clone(),
        ..task.issuer(&facts.issuer.name)?.clone()
    };
    // The certificate that takes its place is as urgent.
    let http = Http::of(&issuer, store).await?.within(task.half());
    let account = task.services.accounts().open(&issuer, &http).await?;
    let leaf = version::leaf(store, &facts).await?;
    let reason = if task.request.key_compromise {
        RevocationReason::KeyCompromise
    } else {
        RevocationReason::Superseded
    };
    let request = RevocationRequest {
        certificate: &leaf,
        reason: Some(reason),
    };

    match retry_bad_nonce(async || account.revoke(&request).await).await {
        Ok(()) => info!(name, version, "revoked"),
        Err(instant_acme::Error::Api(problem)) if ProblemType::of(&problem) == ProblemType::AlreadyRevoked => {
            info!(
                name,
                version,
                problem = describe(&problem, Step::Revocation),
                "revoked already"
            );
        }
        Err(error) => {
            let what = format!("cannot revoke version {version}");
            return Err(http.error(Step::Revocation, error).context(&what));
        }
    }
    Ok(())
}
