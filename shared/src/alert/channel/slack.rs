//! A Slack incoming webhook, and an alert in Block Kit, the form that it takes.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use super::markdown::{escaped, mark, origin, section};
use crate::alert::digest::message::Digest;
use crate::alert::sender::Sender;
use crate::bucket::store::{self, Store};
use crate::chain::roots::Roots;
use crate::text::{cut_utf16, innermost, printable, utf16_length};

/// Where the webhook's URL is in the bucket: one line of text. Whoever has it can write into the
/// channel.
pub const KEY: &str = "secrets/slack-webhook";

/// Posts an alert to the webhook whose URL the bucket holds, if it holds one; answers whether it
/// does.
pub async fn notify(store: &Store, digest: &Digest, sender: &Sender) -> Result<bool, Error> {
    let post = async {
        let Some(url) = store.text(KEY).await? else {
            return Ok(false);
        };
        Webhook::new(&url)?.post(&message(digest, sender)).await?;
        Ok(true)
    };
    timeout(ALTOGETHER, post).await.unwrap_or(Err(Error::TooSlow))
}

/// The alert in Block Kit: <https://docs.slack.dev/reference/block-kit/blocks>.
pub fn message(digest: &Digest, sender: &Sender) -> Value {
    let title = format!("{} {}", mark(digest.severity), digest.subject);
    let title = json!({"type": "plain_text", "text": cut_utf16(&title, HEADER), "emoji": true});
    let mut blocks = vec![
        json!({"type": "header", "text": title}),
        block(&escaped(&digest.summary)),
    ];

    let mut room = TOTAL - utf16_length(&digest.summary).min(TEXT);
    for (index, one) in digest.sections.iter().enumerate() {
        let mut text = section(one);
        for step in &one.next {
            text.push_str(&format!("\n*What to do:* {}", escaped(step)));
        }
        if index == SECTIONS || utf16_length(&text) > room {
            let more = digest.sections.len() - index;
            blocks.push(block(&format!("*+{more} more*; {}", escaped(&sender.elsewhere()))));
            break;
        }
        room -= utf16_length(&text).min(TEXT);
        blocks.push(json!({"type": "divider"}));
        blocks.push(block(&text));
    }

    for note in digest.notes.iter().filter(|note| utf16_length(note) <= room) {
        blocks.push(block(&escaped(note)));
    }
    blocks.push(json!({"type": "context", "elements": [text(&origin(sender))]}));
    json!({"text": digest.subject, "blocks": blocks})
}

fn block(markdown: &str) -> Value {
    json!({"type": "section", "text": text(markdown)})
}

/// `verbatim`: names and addresses in it are not made into links.
fn text(markdown: &str) -> Value {
    json!({"type": "mrkdwn", "text": cut_utf16(markdown, TEXT), "verbatim": true})
}

/// An incoming webhook. Its URL is a secret, and is never shown.
#[derive(Clone)]
pub struct Webhook {
    url: reqwest::Url,
    client: reqwest::Client,
}

/// Why Slack was not notified. It never has the webhook's URL in it.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each says in words what it is")]
pub enum Error {
    #[error(transparent)]
    Unreadable(#[from] store::Error),
    #[error("Slack took longer than {} s", ALTOGETHER.as_secs())]
    TooSlow,
    #[error("{KEY} does not hold a webhook's URL (expected one line, https://hooks.slack.com/services/…)")]
    Invalid,
    #[error("Slack cannot be reached: {reason}")]
    Unreachable { reason: String },
    #[error("Slack answered {status}: {answer}")]
    Refused { status: u16, answer: String },
}

/// An error of one try, and how long to wait at least before another, if that is worth it.
type Failed = (Error, Option<Duration>);

impl Webhook {
    /// The webhook with the URL that [`KEY`] holds.
    pub fn new(url: &str) -> Result<Self, Error> {
        let url: reqwest::Url = url.trim().parse().map_err(|_| Error::Invalid)?;
        // In clear only to this machine.
        let is_here = matches!(url.host_str(), Some("127.0.0.1" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && is_here) {
            return Err(Error::Invalid);
        }

        let tls = Roots::public().client_config().map_err(|error| Error::Unreachable {
            reason: error.to_string(),
        })?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(GRACE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(unreachable)?;
        Ok(Self { url, client })
    }

    /// Posts a message; tries again when Slack is busy or cannot be reached.
    pub async fn post(&self, message: &Value) -> Result<(), Error> {
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

    async fn try_once(&self, message: &Value) -> Result<(), Failed> {
        let request = (self.client.post(self.url.clone()))
            .header("content-type", "application/json")
            .body(message.to_string());
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
        let answer = response.text().await.unwrap_or_default();
        let refused = Error::Refused {
            status: status.as_u16(),
            answer: cut_utf16(&printable(&answer), ANSWER),
        };
        Err((refused, wait))
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook { .. }")
    }
}

/// The innermost reason is the one that says something; the outermost would say the URL.
fn unreachable(error: reqwest::Error) -> Error {
    Error::Unreachable {
        reason: innermost(&error.without_url()),
    }
}

/// With all tries: a function has more to do than to wait for Slack.
const ALTOGETHER: Duration = Duration::from_secs(8);
/// For one try, and for the wait before another.
const GRACE: Duration = Duration::from_secs(5);
const WAITS: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];
const HEADER: usize = 150;
/// Of one block.
const TEXT: usize = 3_000;
/// Of all blocks together; Slack refuses somewhat above 13,000.
const TOTAL: usize = 10_000;
/// Slack takes 50 blocks; each of these is two.
const SECTIONS: usize = 20;
const ANSWER: usize = 200;
