//! One message in the forms that SNS delivers: text for people, Amazon Q's notification for chats, JSON for machines.

use serde_json::{Map, Value, json};

use super::digest::{Digest, Entry, Section};
use super::slack::{escaped, mark};
use super::{Sender, slack};
use crate::text::{cut_utf16, utf16_length};

/// What SNS takes as one message, all its bodies together.
pub const LIMIT: usize = 262_144;

impl Digest {
    /// `Message` of an SNS request with `MessageStructure: json`: a body for each protocol, all together within [`LIMIT`].
    pub fn bodies(&self, sender: &Sender) -> String {
        let mut bytes = TEXT;
        loop {
            let (text, machine) = (self.text(sender, bytes), machine(self, sender, bytes).to_string());
            let bodies = json!({
                "default": text,
                "email": text,
                "sms": self.subject,
                "https": custom_notification(self, sender).to_string(),
                "sqs": machine,
                "lambda": machine,
            })
            .to_string();
            if bodies.len() <= LIMIT || bytes < SMALLEST {
                return bodies;
            }
            bytes = bytes / 4 * 3;
        }
    }
}

/// The alert for programs: `neverlapse.alert/1`, with as many entries, worst first, as fit into about `bytes`, and the text.
pub fn machine(digest: &Digest, sender: &Sender, bytes: usize) -> Value {
    let entries = digest.sections.iter().flat_map(|section| &section.entries);
    let mut room = bytes;
    let shown: Vec<_> = entries
        .clone()
        .map(|entry| json!(entry))
        .take_while(|entry| {
            let size = entry.to_string().len();
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        })
        .collect();
    let omitted = entries.count() - shown.len();
    json!({
        "schema": SCHEMA,
        "at": digest.at,
        "account": sender.account,
        "region": sender.region,
        "stack": sender.stack,
        "severity": digest.severity,
        "subject": digest.subject,
        "incident": digest.thread,
        "report": sender.report(),
        "notices": shown,
        "omitted": omitted,
        "text": digest.text(sender, bytes),
    })
}

/// The alert for Slack and Microsoft Teams by way of Amazon Q Developer, which drops silently what does not keep to its schema:
/// <https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html>.
pub fn custom_notification(digest: &Digest, sender: &Sender) -> Value {
    let title = format!("{} {}", mark(digest.severity), escaped(&digest.subject));
    let steps = digest.sections.iter().flat_map(|section| {
        let step = |step: &String| format!("`{}`: {}", escaped(&section.title), escaped(step));
        section.next.iter().map(step)
    });
    let steps: Vec<_> = steps.take(STEPS).map(|step| cut_utf16(&step, STEP)).collect();
    let places: Vec<_> = digest
        .sections
        .iter()
        .take(STEPS)
        .map(|section| cut_utf16(&section.title, CONTEXT))
        .collect();
    let mut content = Map::new();
    content.insert("textType".into(), "client-markdown".into());
    content.insert("title".into(), cut_utf16(&title, TITLE).into());
    content.insert("description".into(), description(digest, sender).into());
    if !steps.is_empty() {
        content.insert("nextSteps".into(), steps.into());
    }
    let keywords = ["neverlapse", &sender.stack, &digest.severity.to_string()].map(|word| cut_utf16(word, KEYWORD));
    content.insert("keywords".into(), keywords.to_vec().into());
    json!({
        "version": "1.0",
        "source": "custom",
        "id": format!("{}-{}", digest.thread, digest.at.unix()),
        "content": content,
        "metadata": {
            "threadId": format!("neverlapse-{}", digest.thread),
            "summary": cut_utf16(&digest.subject, TITLE),
            "eventType": "neverlapse.alert",
            "relatedResources": places,
            "additionalContext": {
                "account": sender.account,
                "region": sender.region,
                "stack": cut_utf16(&sender.stack, CONTEXT),
                "report": cut_utf16(&sender.report(), CONTEXT),
            },
        },
    })
}

/// What a chat shows under the title.
fn description(digest: &Digest, sender: &Sender) -> String {
    let tail = format!("\n\n{}", slack::origin(sender));
    let mut text = cut_utf16(&escaped(&digest.summary), DESCRIPTION / 2);
    for (index, section) in digest.sections.iter().enumerate() {
        let section = format!("\n\n{}", slack::section(section));
        if utf16_length(&text) + utf16_length(&section) + utf16_length(&tail) + RESERVE > DESCRIPTION {
            let more = digest.sections.len() - index;
            text.push_str(&format!("\n\n+{more} more; {}", escaped(&sender.elsewhere())));
            break;
        }
        text.push_str(&section);
    }
    for note in &digest.notes {
        let note = format!("\n\n{}", escaped(note));
        if utf16_length(&text) + utf16_length(&note) + utf16_length(&tail) <= DESCRIPTION {
            text.push_str(&note);
        }
    }
    text.push_str(&tail);
    cut_utf16(&text, DESCRIPTION)
}

impl Section {
    /// The worst entry's words.
    pub fn headline(&self) -> &str {
        self.entries.first().map_or("", |entry: &Entry| entry.message.as_str())
    }
}

/// Name and version of [`machine`]'s format.
const SCHEMA: &str = "neverlapse.alert/1";
/// The text travels four times in one JSON, twice of that within another.
const TEXT: usize = 60_000;
const SMALLEST: usize = 4_000;
const TITLE: usize = 250;
const DESCRIPTION: usize = 8_000;
const STEP: usize = 350;
const STEPS: usize = 8;
const KEYWORD: usize = 75;
const CONTEXT: usize = 250;
const RESERVE: usize = 300;
