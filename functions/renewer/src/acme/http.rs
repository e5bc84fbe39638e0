//! HTTP as ACME uses it: only to the server that was named, with timeouts, its Retry-After, and
//! answers of a bounded size.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use neverlapse::bucket::store::{LONGEST_FILE, Store};
use neverlapse::chain::roots::Roots;
use neverlapse::http::body;
use neverlapse::inventory::Issuer;
use neverlapse::renewal::LONGEST_ASKED;
use neverlapse::text::causes;
use neverlapse::timestamp::Timestamp;
use reqwest::redirect::{Attempt, Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::problem::{self, ProblemType, Step, part};
use crate::error::Error;

/// One issuer's server, as HTTP sees it.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    last: Arc<Mutex<LastAnswer>>,
    spare: Arc<Mutex<Spare>>,
    /// What is left of the time that the server may take for its answers, all together.
    left: Option<Arc<Mutex<Duration>>>,
}

/// What one part of a renewal was told and the next one asks for: an account that is made here is
/// then the library's, which asks for the directory and a nonce on its own.
#[derive(Default)]
struct Spare {
    /// The directory, by its URL.
    directory: Option<(String, Bytes)>,
    nonce: Option<HeaderValue>,
}

/// What the server's last answer said besides its body.
#[derive(Clone, Debug, Default)]
struct LastAnswer {
    is_error: bool,
    retry_after: Option<Timestamp>,
    location: Option<String>,
    alternates: Vec<String>,
}

impl Http {
    /// A client that trusts `roots`: see [`roots`].
    pub(crate) fn new(roots: &Roots) -> Result<Self, Error> {
        let tls = roots.client_config().map_err(|error| no_client(&error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(Policy::custom(same_server))
            .timeout(REQUEST)
            .connect_timeout(CONNECT)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| no_client(&error))?;
        Ok(Self {
            client,
            last: Arc::default(),
            spare: Arc::default(),
            left: None,
        })
    }

    /// The same for a server that may take so long for its answers, all together: each within its
    /// own time, they could take all of a run.
    pub(crate) fn within(self, time: Duration) -> Self {
        let left = Some(Arc::new(Mutex::new(time)));
        Self { left, ..self }
    }

    /// Whether the server has used up its time; it is not asked any more.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    fn left(&self) -> Option<Duration> {
        let left = self.left.as_ref()?;
        Some(*left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn took(&self, time: Duration) {
        if let Some(left) = &self.left {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            *left = left.saturating_sub(time);
        }
    }

    /// A client for the server of this issuer.
    pub(crate) async fn of(issuer: &Issuer, store: &Store) -> Result<Self, Error> {
        Self::new(&roots(issuer, store).await?)
    }

    /// Until when the server's last answer asked to wait (Retry-After with an error). The library
    /// drops that header, so it is kept here.
    pub(crate) fn asked_to_wait(&self) -> Option<Timestamp> {
        let last = self.last();
        last.retry_after.filter(|_| last.is_error)
    }

    /// When the server wants to be asked again (Retry-After with any answer; RFC 8555, 7.4 has it
    /// with an order that is `processing`).
    pub(crate) fn ask_again_at(&self) -> Option<Timestamp> {
        self.last().retry_after
    }

    /// The URL of what the server has just made, if its last answer was no error.
    pub(crate) fn made(&self) -> Option<String> {
        let last = self.last();
        last.location.filter(|_| !last.is_error)
    }

    /// The URLs of other chains for the certificate that the server has just handed out (RFC 8555,
    /// 7.4.2).
    pub(crate) fn alternates(&self) -> Vec<String> {
        self.last().alternates
    }

    fn last(&self) -> LastAnswer {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last(&self, last: LastAnswer) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// What an error of the library at this step means for the renewal.
    pub(crate) fn error(&self, step: Step, error: instant_acme::Error) -> Error {
        problem::error(step, error, self.asked_to_wait())
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Response<Bytes>, Error> {
        self.request(Method::GET, url, Vec::new()).await
    }

    /// The directory at `url`, asked for once.
    pub(crate) async fn directory(&self, url: &str) -> Result<Response<Bytes>, Error> {
        if let Some(known) = self.known_directory(url) {
            return Ok(Response::new(known));
        }

        let response = self.get(url).await?;
        if response.status().is_success() {
            self.spare().directory = Some((url.to_owned(), response.body().clone()));
        }
        Ok(response)
    }

    /// The answer of newNonce: the nonce that came with the last answer to [`Http::post`], or a new
    /// one.
    pub(crate) async fn nonce(&self, url: &str) -> Result<Response<Bytes>, Error> {
        match self.spare_nonce() {
            Some(response) => Ok(response),
            None => self.request(Method::HEAD, url, Vec::new()).await,
        }
    }

    /// Posts a JWS (RFC 8555, 6.2).
    pub(crate) async fn post(&self, url: &str, jws: &Value) -> Result<Response<Bytes>, Error> {
        let response = self.request(Method::POST, url, jws.to_string().into_bytes()).await?;
        self.spare().nonce = response.headers().get(REPLAY_NONCE).cloned();
        Ok(response)
    }

    fn known_directory(&self, url: &str) -> Option<Bytes> {
        let spare = self.spare();
        let (known, directory) = spare.directory.as_ref()?;
        (known == url).then(|| directory.clone())
    }

    fn spare_nonce(&self) -> Option<Response<Bytes>> {
        let nonce = self.spare().nonce.take()?;
        let mut response = Response::new(Bytes::new());
        response.headers_mut().insert(REPLAY_NONCE, nonce);
        Some(response)
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, method: Method, url: &str, body: Vec<u8>) -> Result<Response<Bytes>, Error> {
        let mut request = Request::builder().uri(url);
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/jose+json");
        }
        let request = request
            .method(method)
            .body(body)
            .map_err(|error| Error::unavailable(format!("the CA's directory names an invalid URL: {error}")))?;

        self.send(request).await.map_err(|reason| Error::CaUnavailable {
            problem: format!("cannot reach {url}: {reason}"),
            retry_after: self.asked_to_wait(),
        })
    }

    /// Sends a request and reads the whole answer; an error is the reason why there is none.
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, String> {
        // A server that does not answer has not asked to wait.
        self.set_last(LastAnswer::default());
        let Some(left) = self.left() else {
            return self.exchange(request).await;
        };

        let start = Instant::now();
        let answer = timeout(left, self.exchange(request)).await;
        self.took(start.elapsed());
        answer.unwrap_or_else(|_| Err(TOO_SLOW.to_owned()))
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, String> {
        let request = request.try_into().map_err(|error: reqwest::Error| causes(&error))?;
        let response = self.client.execute(request).await.map_err(|error| causes(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let url = response.url().to_string();
        self.set_last(LastAnswer {
            is_error: is_error(status),
            retry_after: retry_after(&headers, Timestamp::now()),
            location: headers
                .get(LOCATION)
                .and_then(|url| url.to_str().ok())
                .map(str::to_owned),
            alternates: problem::links(&headers, "alternate"),
        });

        let mut body: Bytes = body(response, LARGEST).await?.into();
        if is_error(status) {
            body = problem::document(status, &headers, &body, &url).into();
        }
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            // The library takes an error for the directory that it asked for, or says of a nonce no
            // more than that it failed.
            let is_unsigned = request.method() != Method::POST;
            let is_directory = request.method() == Method::GET;
            let known = match *request.method() {
                Method::GET => http.known_directory(&request.uri().to_string()).map(Response::new),
                Method::HEAD => http.spare_nonce(),
                _ => None,
            };

            let response = match known {
                Some(response) => response,
                None => {
                    let (parts, body) = request.into_parts();
                    let Ok(body) = body.collect().await;
                    let request = Request::from_parts(parts, body.to_bytes().to_vec());
                    let response = http.send(request).await;
                    response.map_err(|reason| instant_acme::Error::Other(reason.into()))?
                }
            };

            let (mut parts, body) = response.into_parts();
            // The library adds it to the present time, whatever it says, and panics when no time is
            // so late. `LastAnswer` has it.
            parts.headers.remove(RETRY_AFTER);
            // And it panics when it asks for a nonce where there cannot be one.
            if is_directory && let Ok(NewNonce { url }) = serde_json::from_slice(&body) {
                check_https("newNonce", &url).map_err(|reason| instant_acme::Error::Other(reason.into()))?;
            }
            if is_unsigned && is_error(parts.status) {
                return Err(instant_acme::Error::Api(serde_json::from_slice(&body)?));
            }
            Ok(BytesResponse {
                parts,
                body: Box::new(whole_order(body)),
            })
        })
    }
}

/// What the library takes from a directory on trust.
#[derive(Deserialize)]
struct NewNonce {
    #[serde(rename = "newNonce")]
    url: String,
}

/// Fails, with the reason, unless the URL that a directory has for something can be asked.
pub(super) fn check_https(name: &str, url: &str) -> Result<(), String> {
    let is_https = |url: &Uri| url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty());
    match url.parse::<Uri>() {
        Ok(url) if is_https(&url) => Ok(()),
        _ => Err(format!("its {name} is \"{}\" (expected an https URL)", part(url))),
    }
}

/// An order that is issued has nothing left to finalize, and some CAs leave that URL out then. The
/// library takes no order without it, so that the certificate would be lost.
fn whole_order(body: Bytes) -> Bytes {
    let Ok(Value::Object(mut order)) = serde_json::from_slice(&body) else {
        return body;
    };
    let is_issued = order.get("status").is_some_and(|status| status == "valid") && order.contains_key("certificate");
    if !is_issued {
        return body;
    }

    order.entry("authorizations").or_insert_with(|| json!([]));
    order.entry("finalize").or_insert_with(|| json!(""));
    Value::Object(order).to_string().into()
}

/// The roots that an issuer's servers and certificates are trusted by: the public ones, and those
/// of a private CA.
pub(crate) async fn roots(issuer: &Issuer, store: &Store) -> Result<Roots, Error> {
    let Some(key) = &issuer.ca else {
        return Ok(Roots::public());
    };
    let Some(pem) = store.object(key, LONGEST_FILE).await? else {
        return Err(Error::Internal(format!(
            "the issuer's ca = {key:?}: no such object in the bucket (expected a PEM file)"
        )));
    };
    Roots::public()
        .with_pem(&pem)
        .map_err(|error| Error::Internal(format!("the issuer's ca = {key:?}: {error}")))
}

/// Retries requests whose nonce the server refuses. RFC 8555, 6.5 sets no bound, and the library
/// gives up after three tries.
pub(crate) async fn retry_bad_nonce<T>(
    mut request: impl AsyncFnMut() -> Result<T, instant_acme::Error>,
) -> Result<T, instant_acme::Error> {
    for _ in 0..NONCES {
        match request().await {
            Err(instant_acme::Error::Api(problem)) if ProblemType::of(&problem) == ProblemType::BadNonce => continue,
            answer => return answer,
        }
    }
    request().await
}

/// The time that Retry-After names, in seconds or as a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    // Some send a fraction. A number that no integer holds is longer than anybody waits.
    let whole = text.split('.').next().unwrap_or_default();
    let until = if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        now + time::Duration::seconds(whole.parse::<u32>().unwrap_or(u32::MAX).into())
    } else {
        Timestamp::from_http(text)?
    };
    Some(until.min(now + LONGEST_ASKED))
}

/// A CA may move within its server, but must not lead us to another one.
fn same_server(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    match attempt.previous() {
        [first, ..] if origin(first) != origin(attempt.url()) => {
            let elsewhere = format!("it leads to another server: {}", attempt.url());
            attempt.error(elsewhere)
        }
        previous if previous.len() > REDIRECTS => attempt.error("it leads in circles"),
        _ => attempt.follow(),
    }
}

fn origin(url: &reqwest::Url) -> (Option<&str>, Option<u16>) {
    (url.host_str(), url.port_or_known_default())
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn no_client(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!("cannot make an HTTPS client: {error}"))
}

/// RFC 8555, 6.5.1.
pub(super) const REPLAY_NONCE: &str = "replay-nonce";
const NONCES: u32 = 12;
const REDIRECTS: usize = 3;
/// No answer needs more. A hundred authorizations in an order take 10,000 bytes, a chain less.
const LARGEST: usize = 1 << 20;
const REQUEST: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
const TOO_SLOW: &str = "its answers take so long that there would be no time to ask another issuer";
const USER_AGENT: &str = concat!("neverlapse/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    /// Such a certificate was never fetched, and ordered anew again and again.
    #[test]
    fn an_issued_order_may_lack_what_is_of_no_use_any_more() {
        let issued = r#"{"status":"valid","certificate":"https://ca.example/1","expires":"2026-12-01T00:00:00Z"}"#;
        let order = whole_order(Bytes::from(issued));
        let order: instant_acme::OrderState = serde_json::from_slice(&order).unwrap();
        assert_eq!(order.certificate.as_deref(), Some("https://ca.example/1"));

        for untouched in [
            r#"{"authorizations":["a"],"certificate":"c","finalize":"f","status":"valid"}"#,
            r#"{"status":"processing"}"#,
            r#"{"status": "valid", "challenges": []}"#,
            "-----BEGIN CERTIFICATE-----",
            "",
        ] {
            assert_eq!(whole_order(Bytes::from(untouched)), untouched.as_bytes());
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = timestamp!(2026-11-24 12:00 UTC);
        for (text, expected) in [
            ("120", Some(timestamp!(2026-11-24 12:02 UTC))),
            (
                "Wed, 25 Nov 2026 23:59:59 GMT",
                Some(timestamp!(2026-11-25 23:59:59 UTC)),
            ),
            ("4294967295", Some(timestamp!(2026-12-02 12:00 UTC))),
            ("99999999999999999999", Some(timestamp!(2026-12-02 12:00 UTC))),
            ("120.5", Some(timestamp!(2026-11-24 12:02 UTC))),
            ("-5", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }
}
