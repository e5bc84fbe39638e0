//! Slack's markdown, which Amazon Q passes on to chats.

use crate::alert::digest::message::Section;
use crate::alert::sender::Sender;
use crate::finding::Severity;

/// One place with what is wrong there.
pub(super) fn section(section: &Section) -> String {
    let mut lines = vec![format!(
        "{} *{}* `{}`",
        mark(section.severity),
        section.severity.to_string().to_uppercase(),
        escaped(&section.title)
    )];
    for entry in &section.entries {
        lines.push(format!("• {} _({})_", escaped(&entry.words()), escaped(&entry.history)));
    }
    lines.extend(section.facts.iter().map(|fact| escaped(fact)));
    lines.join("\n")
}

/// Whose message it is, and where the rest is.
pub(super) fn origin(sender: &Sender) -> String {
    let Sender {
        stack, region, account, ..
    } = sender;
    escaped(&format!(
        "neverlapse, stack {stack} in {region}, account {account}; full report: {}",
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
