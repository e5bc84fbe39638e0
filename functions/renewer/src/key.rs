//! A certificate's private key, and the certificate signing request (RFC 2986) that is made with
//! it.

use std::fmt;

use neverlapse::inventory::KeyType;
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
    PublicKeyData as _, RsaKeySize,
};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::error::Error;

/// A private key in PEM, PKCS#8. Nothing prints it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PrivateKey(String);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl PrivateKey {
    /// A new key. RSA takes seconds, so this belongs where blocking is allowed.
    pub(crate) fn generate(kind: KeyType) -> Result<Self, Error> {
        let pair = match kind {
            KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyType::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        let pair = pair.map_err(|error| Error::Internal(format!("cannot generate a key of type {kind}: {error}")))?;
        Ok(Self(pair.serialize_pem()))
    }

    /// A key that is stored already.
    pub(crate) fn from_pem(pem: String) -> Self {
        Self(pem)
    }

    /// The content of `privkey.pem`.
    pub(crate) fn pem(&self) -> &str {
        &self.0
    }

    /// The request for a certificate with these names, DER.
    pub(crate) fn request(&self, identifiers: &[String]) -> Result<Vec<u8>, Error> {
        let pair = self.pair()?;
        let request = CertificateParams::new(identifiers).and_then(|mut params| {
            params.distinguished_name = DistinguishedName::new();
            params.serialize_request(&pair)
        });
        let request = request.map_err(|error| Error::Internal(format!("cannot make a signing request: {error}")))?;
        Ok(request.der().to_vec())
    }

    /// Its public half, as a certificate's SubjectPublicKeyInfo has it.
    pub(crate) fn public(&self) -> Result<Vec<u8>, Error> {
        Ok(self.pair()?.subject_public_key_info())
    }

    fn pair(&self) -> Result<KeyPair, Error> {
        // One that was adopted may have EC PARAMETERS in front.
        let key = PrivateKeyDer::from_pem_slice(self.0.as_bytes())
            .map_err(|_| Error::Internal("the stored private key is no private key in PEM".to_owned()))?;
        KeyPair::try_from(&key)
            .map_err(|error| Error::Internal(format!("the stored private key cannot be used: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    #[test]
    fn every_type_makes_a_request_with_its_names_and_is_never_printed() {
        let names = ["example.com", "*.example.com", "192.0.2.7"].map(str::to_owned);
        for kind in [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Rsa2048] {
            let key = PrivateKey::generate(kind).unwrap();
            let der = key.request(&names).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
            request.verify_signature().unwrap();
            assert_eq!(
                request.certification_request_info.subject_pki.raw,
                key.public().unwrap()
            );
            assert_eq!(format!("{key:?}"), "PrivateKey(…)");
        }
    }

    /// `openssl ecparam -genkey` writes them, and a key that was adopted with them was never
    /// reused.
    #[test]
    fn a_key_may_have_its_parameters_in_front() {
        let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let same = PrivateKey::from_pem(format!("{parameters}{}", key.pem()));
        assert_eq!(same.public().unwrap(), key.public().unwrap());
        assert!(PrivateKey::from_pem(parameters.to_owned()).public().is_err());
    }
}
