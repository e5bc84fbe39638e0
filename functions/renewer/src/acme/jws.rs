//! The two requests of an account's life that must survive a crash, and so need a key that is stored before it is used: newAccount
//! and keyChange (RFC 8555, 7.3 and 7.3.5). The library makes that key itself and hands it out too late.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use data_encoding::BASE64URL_NOPAD;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, Response};
use instant_acme::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::acme::http::{Http, is};
use crate::error::Fault;

/// An account's key, P-256.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    /// A new one, with its PKCS#8 form, which has to be stored first.
    pub(crate) fn generate() -> Result<Vec<u8>, Fault> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| Fault::Ours("cannot generate an account key".to_owned()))?;
        Ok(pkcs8.as_ref().to_vec())
    }

    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Fault> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8);
        key.map(Self)
            .map_err(|_| Fault::Ours("the stored account key is not PKCS#8 of a P-256 key".to_owned()))
    }

    /// RFC 7517.
    fn jwk(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
    }

    /// Flattened JSON (RFC 7515, 7.2.2).
    fn sign(&self, protected: &Value, payload: &Value) -> Result<Value, Fault> {
        signed(protected, payload, |input| {
            let signature = self.0.sign(&SystemRandom::new(), input);
            Ok(signature
                .map_err(|_| Fault::Ours("cannot sign with the account key".to_owned()))?
                .as_ref()
                .to_vec())
        })
    }
}

/// What a CA gives out to bind an account to a customer: `accounts/{issuer}/eab.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalAccount {
    key_id: String,
    /// base64url, as CAs hand it out.
    hmac_key: String,
}

/// What we need of a directory (RFC 8555, 7.1.1; RFC 9773, 4).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Directory {
    new_nonce: String,
    new_account: String,
    key_change: Option<String>,
    pub(crate) renewal_info: Option<String>,
}

impl Directory {
    pub(crate) async fn fetch(url: &str, http: &Http) -> Result<Self, Fault> {
        let response = http
            .send(get(url)?)
            .await
            .map_err(|reason| unreachable(url, &reason, http))?;
        if !response.status().is_success() {
            return Err(refusal(&response, http));
        }
        serde_json::from_slice(response.body()).map_err(|error| Fault::Issuer {
            said: format!("{url} is no ACME directory: {error}"),
            retry_after: None,
        })
    }

    /// Registers `key` and answers with the account's URL; with a key that is known, the CA answers with the account that has it.
    pub(crate) async fn register(
        &self,
        key: &Key,
        contact: &[String],
        external: Option<&ExternalAccount>,
        http: &Http,
    ) -> Result<String, Fault> {
        let mut payload = json!({ "termsOfServiceAgreed": true, "contact": contact });
        if let Some(external) = external {
            payload["externalAccountBinding"] = self.bind(key, external)?;
        }
        let header = json!({ "jwk": key.jwk() });
        location(self.post(&self.new_account, key, header, &payload, http).await?)
    }

    /// The URL of the account that has `key`, if the CA knows one.
    pub(crate) async fn account_of(&self, key: &Key, http: &Http) -> Result<Option<String>, Fault> {
        let header = json!({ "jwk": key.jwk() });
        let payload = json!({ "onlyReturnExisting": true });
        match self.post(&self.new_account, key, header, &payload, http).await {
            Ok(response) => location(response).map(Some),
            Err(Fault::Refused { said }) if said.contains("accountDoesNotExist") => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Replaces an account's key.
    pub(crate) async fn change_key(&self, account: &str, old: &Key, new: &Key, http: &Http) -> Result<(), Fault> {
        let Some(url) = &self.key_change else {
            return Err(Fault::Ours(
                "this CA cannot change an account's key (its directory has no keyChange)".to_owned(),
            ));
        };
        let inner_header = json!({ "alg": "ES256", "jwk": new.jwk(), "url": url });
        let inner = new.sign(&inner_header, &json!({ "account": account, "oldKey": old.jwk() }))?;
        self.post(url, old, json!({ "kid": account }), &inner, http)
            .await
            .map(drop)
    }

    /// RFC 8555, 7.3.4.
    fn bind(&self, key: &Key, external: &ExternalAccount) -> Result<Value, Fault> {
        let trimmed = external.hmac_key.trim().trim_end_matches('=');
        let secret = BASE64URL_NOPAD.decode(trimmed.as_bytes()).map_err(|_| {
            Fault::Ours("hmac_key in eab.json is not base64url (expected it as the CA handed it out)".to_owned())
        })?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let protected = json!({ "alg": "HS256", "kid": external.key_id, "url": self.new_account });
        signed(&protected, &key.jwk(), |input| {
            Ok(hmac::sign(&secret, input).as_ref().to_vec())
        })
    }

    async fn post(
        &self,
        url: &str,
        key: &Key,
        mut header: Value,
        payload: &Value,
        http: &Http,
    ) -> Result<Response<bytes::Bytes>, Fault> {
        header["alg"] = "ES256".into();
        header["url"] = url.into();
        for attempt in 1.. {
            header["nonce"] = self.nonce(http).await?.into();
            let body = key.sign(&header, payload)?.to_string().into_bytes();
            let request = Request::builder().method(Method::POST).uri(url);
            let request = request
                .header(CONTENT_TYPE, "application/jose+json")
                .body(body)
                .map_err(invalid)?;
            let response = http
                .send(request)
                .await
                .map_err(|reason| unreachable(url, &reason, http))?;
            if response.status().is_success() {
                return Ok(response);
            }
            let problem = serde_json::from_slice::<Problem>(response.body());
            if attempt == NONCES || !problem.is_ok_and(|problem| is(&problem, "badNonce")) {
                return Err(refusal(&response, http));
            }
        }
        unreachable!("the loop returns")
    }

    async fn nonce(&self, http: &Http) -> Result<String, Fault> {
        let request = Request::builder()
            .method(Method::HEAD)
            .uri(&self.new_nonce)
            .body(Vec::new())
            .map_err(invalid)?;
        let response = http
            .send(request)
            .await
            .map_err(|reason| unreachable(&self.new_nonce, &reason, http))?;
        let nonce = response
            .headers()
            .get("Replay-Nonce")
            .and_then(|nonce| nonce.to_str().ok());
        nonce.map(str::to_owned).ok_or_else(|| Fault::Issuer {
            said: format!("{} gave no nonce (HTTP {})", self.new_nonce, response.status()),
            retry_after: http.asked_to_wait(),
        })
    }
}

/// A plain GET.
pub(crate) fn get(url: &str) -> Result<Request<Vec<u8>>, Fault> {
    Request::builder().uri(url).body(Vec::new()).map_err(invalid)
}

/// What it means that a server does not answer.
pub(crate) fn unreachable(url: &str, reason: &str, http: &Http) -> Fault {
    Fault::Issuer {
        said: format!("cannot reach {url}: {reason}"),
        retry_after: http.asked_to_wait(),
    }
}

fn refusal(response: &Response<bytes::Bytes>, http: &Http) -> Fault {
    match serde_json::from_slice::<Problem>(response.body()) {
        Ok(problem) => crate::acme::http::fault(instant_acme::Error::Api(problem), http),
        Err(error) => Fault::Issuer {
            said: format!("HTTP {} without a problem document: {error}", response.status()),
            retry_after: http.asked_to_wait(),
        },
    }
}

fn location(response: Response<bytes::Bytes>) -> Result<String, Fault> {
    let location = response.headers().get(LOCATION).and_then(|url| url.to_str().ok());
    location.map(str::to_owned).ok_or_else(|| Fault::Issuer {
        said: "the CA answered newAccount without the account's URL".to_owned(),
        retry_after: None,
    })
}

fn signed(
    protected: &Value,
    payload: &Value,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, Fault>,
) -> Result<Value, Fault> {
    let (protected, payload) = (encode(protected.to_string()), encode(payload.to_string()));
    let signature = encode(sign(format!("{protected}.{payload}").as_bytes())?);
    Ok(json!({ "protected": protected, "payload": payload, "signature": signature }))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

fn invalid(error: http::Error) -> Fault {
    Fault::Issuer {
        said: format!("the CA's directory names an invalid URL: {error}"),
        retry_after: None,
    }
}

const NONCES: u32 = 15;
