//! A Slack incoming webhook, and an alert in Block Kit, the form that it takes.

use serde_json::{Value, json};
use thiserror::Error;

use super::markdown::{escaped, mark, origin, section};
use super::post::Address;
use crate::alert::digest::message::{COUNTS, Digest};
use crate::alert::digest::room::fitting;
use crate::alert::sender::Sender;
use crate::bucket::store::{self, LONGEST_FILE, Store};
use crate::text::cut_utf16;

/// The webhook's URL in the bucket: one line of text. Anyone who has the URL can write into the
/// channel.
pub const KEY: &str = "secrets/slack-webhook";

/// What it is called among the webhooks.
pub const NAME: &str = "Slack";

/// Where to post, if the bucket says so.
pub(super) async fn address(store: &Store) -> Result<Option<Address>, Error> {
    let url = store.text(KEY, LONGEST_FILE).await?;
    url.map(|url| Address::new(&url).map_err(|_| Error::Invalid))
        .transpose()
}

/// The alert in Block Kit: <https://docs.slack.dev/reference/block-kit/blocks>.
pub fn message(digest: &Digest, sender: &Sender) -> Value {
    let title = format!("{} {}", mark(digest.severity), digest.subject);
    // In plain text, entities may be shown as they are.
    let title = cut_utf16(&title, HEADER).replace('<', "‹").replace('>', "›");
    let title = json!({"type": "plain_text", "text": title, "emoji": true});
    let mut blocks = vec![
        json!({"type": "header", "text": title}),
        block(&escaped(&digest.summary)),
    ];

    let mut room = TOTAL - digest.summary.len().min(TEXT);
    let mut sections = digest.shown(room - COUNTS, |one, most| section(one, true, most.min(TEXT)));
    sections.truncate(SECTIONS);
    for text in &sections {
        room -= text.len();
        blocks.push(json!({"type": "divider"}));
        blocks.push(block(text));
    }
    let more = digest.sections.len() - sections.len();
    if more > 0 {
        blocks.push(block(&format!("*+{more} more*; {}", escaped(&sender.elsewhere()))));
    }

    let open = digest.also_open(sender, room.min(TEXT), escaped);
    let notes = open.into_iter().chain(digest.notes.iter().map(|note| escaped(note)));
    for note in fitting(notes, room, String::len) {
        blocks.push(block(&note));
    }
    blocks.push(json!({"type": "context", "elements": [text(&origin(digest, sender))]}));
    json!({"text": escaped(&digest.subject), "blocks": blocks})
}

fn block(markdown: &str) -> Value {
    json!({"type": "section", "text": text(markdown)})
}

/// `verbatim`: names and addresses in it are not made into links.
fn text(markdown: &str) -> Value {
    json!({"type": "mrkdwn", "text": cut_utf16(markdown, TEXT), "verbatim": true})
}

/// Why Slack cannot be notified. It never has the webhook's URL in it.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each says in words what it is")]
pub enum Error {
    #[error(transparent)]
    Unreadable(#[from] store::Error),
    #[error("{KEY} does not hold a webhook's URL (expected one line, https://hooks.slack.com/services/…)")]
    Invalid,
}

const HEADER: usize = 150;
/// Of one block.
const TEXT: usize = 3_000;
/// Of all blocks together; Slack refuses somewhat above 13,000.
const TOTAL: usize = 10_000;
/// Slack takes 50 blocks; each of these is two.
const SECTIONS: usize = 20;
