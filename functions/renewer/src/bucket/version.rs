//! What the bucket holds of a published version.

use neverlapse::bucket::store::{LONGEST_FILE, Store};
use neverlapse::bucket::version::{CERT, Facts, PRIVKEY, file_key};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::error::Error;
use crate::key::PrivateKey;

/// The version's leaf.
pub(crate) async fn leaf(store: &Store, facts: &Facts) -> Result<CertificateDer<'static>, Error> {
    let key = file_key(&facts.name, &facts.version, CERT);
    let pem = store
        .object(&key, LONGEST_FILE)
        .await?
        .ok_or_else(|| Error::Internal(format!("{key} is not there")))?;
    CertificateDer::from_pem_slice(&pem).map_err(|error| Error::Internal(format!("{key} is no certificate: {error}")))
}

/// The version's private key, if it is there.
pub(crate) async fn private_key(store: &Store, facts: &Facts) -> Result<Option<PrivateKey>, Error> {
    let pem = store
        .text(&file_key(&facts.name, &facts.version, PRIVKEY), LONGEST_FILE)
        .await?;
    Ok(pem.map(PrivateKey::from_pem))
}
