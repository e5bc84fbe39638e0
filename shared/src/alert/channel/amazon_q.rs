//! Amazon Q Developer, which passes alerts on from SNS to Slack and Microsoft Teams.

use serde_json::{Map, Value, json};

use super::markdown::{escaped, mark, origin, section};
use crate::alert::digest::message::{COUNTS, Digest};
use crate::alert::digest::room::fitting;
use crate::alert::sender::Sender;
use crate::text::cut_utf16;

/// The alert as a custom notification. Amazon Q drops silently what does not keep to its schema:
/// <https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html>.
pub fn custom_notification(digest: &Digest, sender: &Sender) -> Value {
    let title = format!("{} {}", mark(digest.severity), escaped(&digest.subject));
    let mut content = Map::new();
    content.insert("textType".into(), "client-markdown".into());
    content.insert("title".into(), cut_utf16(&title, TITLE).into());
    content.insert("description".into(), description(digest, sender).into());
    let steps = next_steps(digest);
    if !steps.is_empty() {
        content.insert("nextSteps".into(), steps.into());
    }
    let keywords = ["neverlapse", &sender.stack, &digest.severity.to_string()];
    content.insert(
        "keywords".into(),
        keywords.map(|word| cut_utf16(word, KEYWORD)).to_vec().into(),
    );

    let sections = digest.sections.iter().take(STEPS);
    let places: Vec<_> = sections
        .map(|section| cut_utf16(&escaped(&section.title), CONTEXT))
        .collect();
    json!({
        "version": "1.0",
        "source": "custom",
        "id": format!("{}-{}", digest.thread, digest.at.unix()),
        "content": content,
        "metadata": {
            "threadId": format!("neverlapse-{}", digest.thread),
            "summary": cut_utf16(&escaped(&digest.subject), TITLE),
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

/// What to do, place by place.
fn next_steps(digest: &Digest) -> Vec<String> {
    let mut steps = Vec::new();
    for section in &digest.sections {
        for (_, step) in section.steps() {
            steps.extend(step.map(|step| format!("`{}`: {}", escaped(&section.title), escaped(step))));
        }
    }
    steps.iter().take(STEPS).map(|step| cut_utf16(step, STEP)).collect()
}

/// What a chat shows under the title.
fn description(digest: &Digest, sender: &Sender) -> String {
    let tail = format!("{GAP}{}", origin(digest, sender));
    let mut text = cut_utf16(&escaped(&digest.summary), DESCRIPTION / 2);
    let room = |text: &str| DESCRIPTION.saturating_sub(text.len() + tail.len());

    let sections = digest.shown(room(&text).saturating_sub(COUNTS), |one, most| {
        format!("{GAP}{}", section(one, false, most - GAP.len()))
    });
    let more = digest.sections.len() - sections.len();
    text.extend(sections);
    if more > 0 {
        text.push_str(&format!("{GAP}+{more} more; {}", escaped(&sender.elsewhere())));
    }

    let open = digest.also_open(sender, room(&text), escaped);
    let notes = open.into_iter().chain(digest.notes.iter().map(|note| escaped(note)));
    let notes = notes.map(|note| format!("{GAP}{note}"));
    let notes = fitting(notes, room(&text), String::len);
    text.extend(notes);
    text.push_str(&tail);
    cut_utf16(&text, DESCRIPTION)
}

const TITLE: usize = 250;
const DESCRIPTION: usize = 8_000;
const STEP: usize = 350;
const STEPS: usize = 8;
const KEYWORD: usize = 75;
const CONTEXT: usize = 250;
/// Between paragraphs.
const GAP: &str = "\n\n";
