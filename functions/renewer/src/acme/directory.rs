//! A CA's directory, and the requests that the library does not make: newAccount and keyChange (RFC
//! 8555, 7.3 and 7.3.5) in a way that survives a crash, and other chains of a certificate (7.4.2).
//!
//! The key of the former two has to be stored before the CA hears of it. The library can make an
//! account for a given key (`AccountBuilder::create_from_key`), but then sends neither contact nor
//! external account binding; and `Account::update_key` generates the new key inside the call. So
//! these are signed here, and everything else is the library's.

use bytes::Bytes;
use http::Response;
use http::header::LOCATION;
use instant_acme::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Http, REPLAY_NONCE, check_https};
use super::jws::{ExternalAccount, Key};
use super::order::check_url;
use super::problem::{ProblemType, Step, part};
use crate::error::Error;

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
    pub(crate) async fn fetch(url: &str, http: &Http) -> Result<Self, Error> {
        let response = http.directory(url).await?;
        let response = accepted(response, http)?;
        Self::parse(response.body())
            .map_err(|reason| Error::unavailable(format!("{url} is no ACME directory: {reason}")))
    }

    /// Reads a directory; an error is the reason why it is none.
    fn parse(body: &[u8]) -> Result<Self, String> {
        let directory: Self = serde_json::from_slice(body).map_err(|error| part(&error.to_string()))?;
        check_https("newNonce", &directory.new_nonce)?;
        check_https("newAccount", &directory.new_account)?;
        Ok(directory)
    }

    /// Registers `key` and answers with the account's URL. If the CA knows the key already, it
    /// answers with the account that has it.
    pub(crate) async fn register(
        &self,
        key: &Key,
        contact: &[String],
        external: Option<&ExternalAccount>,
        http: &Http,
    ) -> Result<String, Error> {
        let mut payload = json!({ "termsOfServiceAgreed": true, "contact": contact });
        if let Some(external) = external {
            payload["externalAccountBinding"] = external.bind(key, &self.new_account)?;
        }

        let header = json!({ "jwk": key.jwk() });
        let response = self
            .post(&self.new_account, key, header, &payload.to_string(), http)
            .await?;
        let location = response.headers().get(LOCATION).and_then(|url| url.to_str().ok());
        let location =
            location.ok_or_else(|| Error::unavailable("the CA answered newAccount without the account's URL"))?;
        check_url("the account", location)?;
        Ok(location.to_owned())
    }

    /// Replaces an account's key. The new key signs the inner JWS, so it proves that we have it.
    pub(crate) async fn change_key(&self, account: &str, old: &Key, new: &Key, http: &Http) -> Result<(), Error> {
        let Some(url) = &self.key_change else {
            return Err(Error::Internal(
                "this CA cannot change an account's key (its directory has no keyChange)".to_owned(),
            ));
        };

        let inner_header = json!({ "alg": "ES256", "jwk": new.jwk(), "url": url });
        let proof = json!({ "account": account, "oldKey": old.jwk() });
        let inner = new.sign(&inner_header, &proof.to_string())?;
        self.post(url, old, json!({ "kid": account }), &inner.to_string(), http)
            .await
            .map(drop)
    }

    /// Asks for a resource as an account (POST-as-GET, RFC 8555, 6.3).
    pub(crate) async fn post_as_get(&self, url: &str, account: &str, key: &Key, http: &Http) -> Result<Bytes, Error> {
        let response = self.post(url, key, json!({ "kid": account }), "", http).await?;
        Ok(response.into_body())
    }

    /// Posts a payload that `key` signs. `header` says whose the key is: `jwk` or `kid`.
    async fn post(
        &self,
        url: &str,
        key: &Key,
        mut header: Value,
        payload: &str,
        http: &Http,
    ) -> Result<Response<Bytes>, Error> {
        header["alg"] = "ES256".into();
        header["url"] = url.into();

        let mut tries = 1;
        loop {
            header["nonce"] = self.nonce(http).await?.into();
            let response = http.post(url, &key.sign(&header, payload)?).await?;
            if tries == NONCES || !is_bad_nonce(&response) {
                return accepted(response, http);
            }
            tries += 1;
        }
    }

    async fn nonce(&self, http: &Http) -> Result<String, Error> {
        let response = accepted(http.nonce(&self.new_nonce).await?, http)?;
        let nonce = response
            .headers()
            .get(REPLAY_NONCE)
            .and_then(|nonce| nonce.to_str().ok());
        nonce.map(str::to_owned).ok_or_else(|| Error::CaUnavailable {
            problem: format!("{} gave no nonce (HTTP {})", self.new_nonce, response.status()),
            retry_after: http.asked_to_wait(),
        })
    }
}

/// The response, or what the CA answers instead.
fn accepted(response: Response<Bytes>, http: &Http) -> Result<Response<Bytes>, Error> {
    if response.status().is_success() {
        return Ok(response);
    }

    let problem = serde_json::from_slice::<Problem>(response.body())?;
    Err(http.error(Step::Account, instant_acme::Error::Api(problem)))
}

fn is_bad_nonce(response: &Response<Bytes>) -> bool {
    !response.status().is_success()
        && serde_json::from_slice::<Problem>(response.body())
            .is_ok_and(|problem| ProblemType::of(&problem) == ProblemType::BadNonce)
}

const NONCES: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// The library asks for a nonce wherever the directory says, and panics where that is no URL.
    #[test]
    fn a_directory_whose_urls_are_none() {
        let read = |nonce: &str| {
            let directory = json!({ "newNonce": nonce, "newAccount": "https://ca.test/account" });
            Directory::parse(directory.to_string().as_bytes())
        };
        assert!(read("https://ca.test/nonce").is_ok());
        for wrong in [
            "",
            "/nonce",
            "nonce",
            "http://ca.test/nonce",
            "https://a b/nonce",
            "https:///nonce",
            "\n",
        ] {
            let reason = read(wrong).unwrap_err();
            assert!(
                reason.contains("newNonce") && reason.contains("expected an https URL"),
                "{reason}"
            );
        }
        let directory = json!({ "newNonce": "https://ca.test/nonce", "newAccount": "account" });
        let reason = Directory::parse(directory.to_string().as_bytes()).unwrap_err();
        assert!(reason.contains("its newAccount is \"account\""), "{reason}");
        assert!(!read("\u{1b}[31m").unwrap_err().contains('\u{1b}'));
    }
}
