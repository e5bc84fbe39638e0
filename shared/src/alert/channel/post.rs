//! A web address that messages are posted to. It is a secret, and is never shown.

use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use tokio::time::timeout;

use crate::chain::roots::Roots;
use crate::text::{cut_utf16, innermost, printable};

/// Where to post, and with which headers.
#[derive(Clone)]
pub struct Address {
    url: reqwest::Url,
    headers: HeaderMap,
    client: reqwest::Client,
}

/// Why a message was not taken. It has neither the URL nor a header's value in it.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each says in words what it is")]
pub enum Error {
    #[error("the URL is not one (expected https://…)")]
    Invalid,
    #[error("the header {name:?} is not one, or its value is not")]
    InvalidHeader { name: String },
    #[error("no answer within {} s", ALTOGETHER.as_secs())]
    TooSlow,
    #[error("it cannot be reached: {reason}")]
    Unreachable { reason: String },
    #[error("it answered {status}: {answer}")]
    Refused { status: u16, answer: String },
}

/// An error of one try, and how long to wait at least before another, if that is worth it.
type Failed = (Error, Option<Duration>);

impl Address {
    /// An address that takes JSON, unless a header says otherwise.
    pub fn new(url: &str) -> Result<Self, Error> {
        let url = parsed(url)?;
        let tls = Roots::public().client_config().map_err(|error| Error::Unreachable {
            reason: error.to_string(),
        })?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(GRACE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(unreachable)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Ok(Self { url, headers, client })
    }

    /// Another address that takes the same headers.
    pub fn at(&self, url: &str) -> Result<Self, Error> {
        let url = parsed(url)?;
        Ok(Self { url, ..self.clone() })
    }

    /// The same address with another header, which takes the place of one of its name.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let Some((key, mut value)) = header else {
            return Err(Error::InvalidHeader { name: name.to_owned() });
        };
        value.set_sensitive(true);
        self.headers.insert(key, value);
        Ok(self)
    }

    /// Posts a message; tries again when the server is busy or cannot be reached.
    pub async fn post(&self, message: &str) -> Result<(), Error> {
        timeout(ALTOGETHER, self.try_all(message))
            .await
            .unwrap_or(Err(Error::TooSlow))
    }

    async fn try_all(&self, message: &str) -> Result<(), Error> {
        let mut outcome = self.try_once(message).await;
        for wait in WAITS {
            match &outcome {
                Err((_, Some(requested))) => tokio::time::sleep(wait.max(*requested).min(GRACE)).await,
                _ => break,
            }
            outcome = self.try_once(message).await;
        }
        outcome.map_err(|(error, _)| error)
    }

    async fn try_once(&self, message: &str) -> Result<(), Failed> {
        let request = (self.client.post(self.url.clone()))
            .headers(self.headers.clone())
            .body(message.to_owned());
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err((unreachable(error), Some(Duration::ZERO))),
        };

        let status = response.status();
        if status.is_success() {
            return Ok(());
        }

        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let is_busy = status.as_u16() == 429 || status.is_server_error();
        let wait = is_busy.then(|| Duration::from_secs(retry_after.unwrap_or(0)));
        let answer = beginning(response).await;
        let refused = Error::Refused {
            status: status.as_u16(),
            answer: cut_utf16(&printable(&String::from_utf8_lossy(&answer)), ANSWER),
        };
        Err((refused, wait))
    }
}

/// The first bytes of an answer, which may have no end.
async fn beginning(mut response: reqwest::Response) -> Vec<u8> {
    let mut answer = Vec::new();
    while answer.len() < READ
        && let Ok(Some(chunk)) = response.chunk().await
    {
        answer.extend_from_slice(&chunk);
    }
    answer.truncate(READ);
    answer
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address { .. }")
    }
}

fn parsed(url: &str) -> Result<reqwest::Url, Error> {
    let url: reqwest::Url = url.trim().parse().map_err(|_| Error::Invalid)?;
    // In clear only to this machine.
    let is_here = matches!(url.host_str(), Some("127.0.0.1" | "localhost"));
    if url.scheme() == "https" || url.scheme() == "http" && is_here {
        Ok(url)
    } else {
        Err(Error::Invalid)
    }
}

/// The innermost reason is the one that says something; the outermost would say the URL.
fn unreachable(error: reqwest::Error) -> Error {
    Error::Unreachable {
        reason: innermost(&error.without_url()),
    }
}

/// With all tries: a function has more to do than to wait for a chat.
const ALTOGETHER: Duration = Duration::from_secs(8);
/// For one try, and for the wait before another.
const GRACE: Duration = Duration::from_secs(5);
const WAITS: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];
const ANSWER: usize = 200;
/// Bytes of an answer that are read for it.
const READ: usize = 4_096;
