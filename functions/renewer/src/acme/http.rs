//! Talking to an ACME server: timeouts, its Retry-After, and whose fault it is when it refuses.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use neverlapse::chain::roots::Roots;
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;
use reqwest::redirect::Policy;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::error::Fault;

/// One issuer's server, as HTTP sees it.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    asked_to_wait: Arc<Mutex<Option<Timestamp>>>,
}

impl Http {
    /// Trusts `roots`: the public ones, and those of a private CA.
    pub(crate) fn new(roots: &Roots) -> Result<Self, Fault> {
        let impossible = |error: &dyn std::fmt::Display| Fault::Ours(format!("cannot make an HTTPS client: {error}"));
        let tls = roots.client_config().map_err(|error| impossible(&error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(same_server())
            .timeout(REQUEST)
            .connect_timeout(CONNECT)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| impossible(&error))?;
        Ok(Self {
            client,
            asked_to_wait: Arc::default(),
        })
    }

    /// Until when the server's last answer asked to wait (Retry-After with 429 or 503); the library drops that header.
    pub(crate) fn asked_to_wait(&self) -> Option<Timestamp> {
        *self.asked_to_wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and takes the answer whole; an error is why there is none.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, String> {
        let request = request.try_into().map_err(chained)?;
        let response = self.client.execute(request).await.map_err(chained)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let until = retry_after(&headers, Timestamp::now()).filter(|_| busy);
        *self.asked_to_wait.lock().unwrap_or_else(PoisonError::into_inner) = until;
        let body = problem(status, &headers, body(response).await?);
        let mut whole = Response::new(body);
        *whole.status_mut() = status;
        *whole.headers_mut() = headers;
        Ok(whole)
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let body = body.to_bytes();
            let request = Request::from_parts(parts, body.to_vec());
            let response = http.send(request).await.map_err(|reason| Error::Other(reason.into()))?;
            let (parts, body) = response.into_parts();
            let body = Box::new(body);
            Ok(BytesResponse { parts, body })
        })
    }
}

/// A CA may move within its server, but nobody leads us elsewhere.
fn same_server() -> Policy {
    Policy::custom(|attempt| {
        let origin = |url: &reqwest::Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
        match attempt.previous() {
            [first, ..] if origin(first) != origin(attempt.url()) => {
                let elsewhere = format!("it leads to another server: {}", attempt.url());
                attempt.error(elsewhere)
            }
            previous if previous.len() > REDIRECTS => attempt.error("it leads in circles"),
            _ => attempt.follow(),
        }
    })
}

/// All of a body, of the size that ACME has.
async fn body(mut response: reqwest::Response) -> Result<Bytes, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(chained)? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST {
            return Err(format!("{} answers with more than {LARGEST} bytes", response.url()));
        }
    }
    Ok(body.into())
}

/// Retries what a fresh nonce mends: the library gives up after three (RFC 8555, 6.5 sets no bound).
pub(crate) async fn patiently<T>(mut request: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..NONCES {
        match request().await {
            Err(Error::Api(problem)) if is(&problem, "badNonce") => continue,
            answer => return answer,
        }
    }
    request().await
}

/// Whose fault an error is. `http` remembers how long its server asked to wait.
pub(crate) fn fault(error: Error, http: &Http) -> Fault {
    let retry_after = http.asked_to_wait();
    match error {
        Error::Api(problem) => {
            let theirs = problem.status.is_some_and(|status| status >= 500 || status == 429)
                || ["rateLimited", "serverInternal", "badNonce"]
                    .iter()
                    .any(|kind| is(&problem, kind));
            let said = said(&problem);
            if theirs {
                Fault::Issuer { said, retry_after }
            } else {
                Fault::Refused { said }
            }
        }
        Error::Unsupported(what) => Fault::Refused {
            said: format!("the CA does not support what the inventory asks for: {what}"),
        },
        Error::Timeout(_) => Fault::Issuer {
            said: "the CA did not finish the order in time".to_owned(),
            retry_after,
        },
        error => Fault::Issuer {
            said: error.to_string(),
            retry_after,
        },
    }
}

/// A problem document (RFC 8555, 6.7) whole: type, detail, subproblems, and a hint for the usual ones.
pub(crate) fn said(problem: &Problem) -> String {
    // Terminals and mail show it, and another server wrote it.
    let one = |kind: Option<&str>, detail: Option<&str>| {
        let (kind, detail) = (kind.unwrap_or("no type"), detail.unwrap_or("no detail"));
        printable(&format!("{detail} ({kind})"))
    };
    let mut said = one(problem.r#type.as_deref(), problem.detail.as_deref());
    for sub in &problem.subproblems {
        let about = sub
            .identifier
            .as_ref()
            .map(|identifier| printable(&identifier.authorized(false).to_string()));
        let sub_said = one(sub.r#type.as_deref(), sub.detail.as_deref());
        said.push_str(&format!(
            "\n  - {}: {sub_said}",
            about.unwrap_or_else(|| "no identifier".to_owned())
        ));
    }
    let kinds = problem
        .r#type
        .iter()
        .chain(problem.subproblems.iter().filter_map(|sub| sub.r#type.as_ref()));
    for hint in kinds
        .filter_map(|kind| hint(kind))
        .collect::<std::collections::BTreeSet<_>>()
    {
        said.push_str(&format!("\n  hint: {hint}"));
    }
    said
}

/// Whether it is a problem of this kind, such as `badNonce`.
pub(crate) fn is(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|full| full.strip_prefix(NAMESPACE)) == Some(kind)
}

fn hint(kind: &str) -> Option<&'static str> {
    Some(match kind.strip_prefix(NAMESPACE)? {
        "caa" => "the domain's CAA records must name this CA; look with: dig CAA example.com",
        "dns" => {
            "the CA's look-up failed: check the delegation (NS at the registrar) and DNSSEC (DS must match the zone's keys)"
        }
        "unauthorized" => {
            "the CA saw another TXT value: is the public zone that we write the one that the domain is delegated to?"
        }
        "incorrectResponse" => {
            "the CA saw another TXT value than ours: is the zone that we write the one that the world sees?"
        }
        "rateLimited" => {
            "the CA's limits: https://letsencrypt.org/docs/rate-limits/; nothing is tried before the time that it named"
        }
        "rejectedIdentifier" => {
            "the CA does not issue for this name: check its spelling, and whether it is a public name"
        }
        "externalAccountRequired" => "set eab = true for this issuer and put accounts/ISSUER/eab.json into the bucket",
        "userActionRequired" => "the CA's terms changed: open the link in its message",
        "invalidProfile" => "the CA does not know this profile: check `profile` in the inventory",
        "badCSR" => "the CA does not take this kind of key or these names: check key_type and identifiers",
        "accountDoesNotExist" => {
            "the CA does not know our account: if it has forgotten it for good, delete accounts/ISSUER/account.json, and the next run makes one"
        }
        "invalidContact" | "unsupportedContact" => "check `contact` of this issuer in the inventory",
        _ => return None,
    })
}

/// Some answers that are no problem documents come from what stands before a CA; the library would say "expected value at line 1".
fn problem(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Bytes {
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    if !(status.is_client_error() || status.is_server_error()) || json {
        return body;
    }
    let start: String = String::from_utf8_lossy(&body).chars().take(SHOWN).collect();
    let detail = format!(
        "HTTP {status}: {}",
        start.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Bytes::from(json!({ "type": "about:blank", "detail": detail, "status": status.as_u16() }).to_string())
}

/// Seconds or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let until = match text.parse::<u32>() {
        Ok(seconds) => now + time::Duration::seconds(seconds.into()),
        Err(_) => OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822)
            .ok()?
            .into(),
    };
    Some(until.min(now + LONGEST_WAIT))
}

/// reqwest says only "error sending request"; the reason is further down.
fn chained(error: reqwest::Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        said.push_str(&format!(": {error}"));
        source = error.source();
    }
    said
}

const NAMESPACE: &str = "urn:ietf:params:acme:error:";
const NONCES: u32 = 12;
/// Let's Encrypt's limits are by the week; certificates must not lapse because a CA says more.
const LONGEST_WAIT: time::Duration = time::Duration::days(8);
const REDIRECTS: usize = 3;
/// A hundred authorizations in an order take 10,000 bytes, a chain less.
const LARGEST: usize = 1 << 20;
const REQUEST: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
const SHOWN: usize = 200;
const USER_AGENT: &str = concat!("neverlapse/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    /// RFC 8555, 6.7.1.
    const COMPOUND: &str = r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "Some of the identifiers requested were rejected",
        "subproblems": [
          {"type": "urn:ietf:params:acme:error:malformed", "detail": "Invalid underscore in DNS name \"_example.org\"",
           "identifier": {"type": "dns", "value": "_example.org"}},
          {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "This CA will not issue for \"example.net\"",
           "identifier": {"type": "dns", "value": "example.net"}}]}"#;

    #[test]
    fn a_problem_is_said_whole() {
        let problem = serde_json::from_str(COMPOUND).unwrap();
        let expected = "Some of the identifiers requested were rejected (urn:ietf:params:acme:error:malformed)\n\
            \x20 - _example.org: Invalid underscore in DNS name \"_example.org\" (urn:ietf:params:acme:error:malformed)\n\
            \x20 - example.net: This CA will not issue for \"example.net\" (urn:ietf:params:acme:error:rejectedIdentifier)\n\
            \x20 hint: the CA does not issue for this name: check its spelling, and whether it is a public name";
        assert_eq!(said(&problem), expected);
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
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }

    #[test]
    fn a_page_of_html_becomes_a_problem() {
        let body = problem(
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            Bytes::from_static(b"<h1>Bad\nGateway</h1>"),
        );
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            said(&problem),
            "HTTP 502 Bad Gateway: <h1>Bad Gateway</h1> (about:blank)"
        );
    }

    #[test]
    fn only_the_issuers_fault_is_the_issuers() {
        let http = Http::new(&Roots::public()).unwrap();
        for (kind, status, theirs) in [
            ("rateLimited", 429, true),
            ("serverInternal", 500, true),
            ("caa", 403, false),
            ("rejectedIdentifier", 400, false),
            ("dns", 400, false),
        ] {
            let problem =
                serde_json::from_value(json!({ "type": format!("{NAMESPACE}{kind}"), "status": status })).unwrap();
            assert_eq!(
                matches!(fault(Error::Api(problem), &http), Fault::Issuer { .. }),
                theirs,
                "{kind}"
            );
        }
    }
}
