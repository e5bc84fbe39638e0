//! Slack's markdown, which Amazon Q passes on to chats.

use crate::alert::digest::message::{Digest, Section};
use crate::alert::digest::room::shortened;
use crate::alert::sender::Sender;
use crate::finding::Severity;

/// One place with what is wrong there, in at most so many bytes, and what to do about it where the
/// channel has no other field for that.
pub(super) fn section(section: &Section, with_steps: bool, most: usize) -> String {
    let head = format!(
        "{} *{}* `{}`\n",
        mark(section.severity),
        section.label(),
        escaped(&section.title)
    );
    let entries = section.steps().map(|(entry, step)| {
        let step = step
            .filter(|_| with_steps)
            .map(|step| format!("*What to do:* {}\n", escaped(step)));
        format!(
            "• {} _({})_\n{}",
            escaped(&entry.words()),
            escaped(&entry.history),
            step.unwrap_or_default()
        )
    });
    let facts = section.facts.iter().map(|fact| format!("{}\n", escaped(fact)));
    let text = shortened(&head, entries.chain(facts).collect(), most);
    text.trim_end().to_owned()
}

/// Whose message it is, and where the rest is.
pub(super) fn origin(digest: &Digest, sender: &Sender) -> String {
    let Sender {
        stack, region, account, ..
    } = sender;
    let manual = digest.manual().map(|manual| format!("{manual}\n")).unwrap_or_default();
    escaped(&format!(
        "{manual}neverlapse, stack {stack} in {region}, account {account}; full report: {}",
        sender.report()
    ))
}

/// A severity at a glance.
pub(super) fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => ":red_circle:",
        Severity::Unknown => ":black_circle:",
        Severity::Warning => ":large_yellow_circle:",
        Severity::Ok => ":large_green_circle:",
    }
}

/// The text without links and mentions, which markdown takes from angle brackets only.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
