//! JSON Web Signatures (RFC 7515) of an account's key, for the requests of
//! [`Directory`](super::directory::Directory).

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;

/// An account's key, P-256.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    /// A new key as PKCS#8, which has to be stored before it is used.
    pub(crate) fn generate() -> Result<Vec<u8>, Error> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| Error::Internal("cannot generate an account key".to_owned()))?;
        Ok(pkcs8.as_ref().to_vec())
    }

    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8);
        key.map(Self)
            .map_err(|_| Error::Internal("the stored account key is not PKCS#8 of a P-256 key".to_owned()))
    }

    /// Its public half (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        // An uncompressed point: a byte that says so, then both coordinates (SEC 1, 2.3.3).
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
    }

    /// A JWS in the flattened JSON serialization (RFC 7515, 7.2.2).
    pub(crate) fn sign(&self, protected: &Value, payload: &str) -> Result<Value, Error> {
        signed(protected, payload, |input| {
            let signature = self.0.sign(&SystemRandom::new(), input);
            let signature = signature.map_err(|_| Error::Internal("cannot sign with the account key".to_owned()))?;
            Ok(signature.as_ref().to_vec())
        })
    }
}

/// The credentials by which a CA binds an account to a customer: `accounts/{issuer}/eab.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalAccount {
    key_id: String,
    /// base64url or base64, as CAs hand it out.
    hmac_key: String,
}

impl ExternalAccount {
    /// The JWS that binds `key` in a request to `url` (RFC 8555, 7.3.4).
    pub(crate) fn bind(&self, key: &Key, url: &str) -> Result<Value, Error> {
        // Some CAs hand out the other alphabet, and padding.
        let written = self.hmac_key.replace('+', "-").replace('/', "_");
        let written = written.trim().trim_end_matches('=');
        let secret = BASE64URL_NOPAD.decode(written.as_bytes()).map_err(|_| {
            Error::Internal("hmac_key in eab.json is not base64 (expected it as the CA handed it out)".to_owned())
        })?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);

        let protected = json!({ "alg": "HS256", "kid": self.key_id, "url": url });
        signed(&protected, &key.jwk().to_string(), |input| {
            Ok(hmac::sign(&secret, input).as_ref().to_vec())
        })
    }
}

fn signed(
    protected: &Value,
    payload: &str,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>,
) -> Result<Value, Error> {
    let protected = encode(protected.to_string());
    let payload = encode(payload);
    let signature = encode(sign(format!("{protected}.{payload}").as_bytes())?);
    Ok(json!({ "protected": protected, "payload": payload, "signature": signature }))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some CAs hand out standard base64, which was refused.
    #[test]
    fn a_key_of_an_external_account_may_be_in_either_alphabet() {
        let key = Key::from_pkcs8(&Key::generate().unwrap()).unwrap();
        let bound = |hmac_key: &str| {
            let account = ExternalAccount {
                key_id: "kid-1".to_owned(),
                hmac_key: hmac_key.to_owned(),
            };
            account.bind(&key, "https://ca.example/new-account").ok()
        };

        let expected = bound("-_-_nKTo9Hu8fpCq");
        assert!(expected.is_some());
        for same in ["+/+/nKTo9Hu8fpCq", "-_-_nKTo9Hu8fpCq\n", " +/+/nKTo9Hu8fpCq"] {
            assert_eq!(bound(same), expected, "{same:?}");
        }
        assert_eq!(bound("+/8="), bound("-_8"));
        assert_eq!(bound("not base64"), None);
    }
}
