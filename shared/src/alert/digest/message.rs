//! A message in parts: what a digest is before it takes the form that a channel wants.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;

use crate::alert::incident::Place;
use crate::alert::news::Change;
use crate::alert::sender::{SUBJECT_LENGTH, Sender};
use crate::finding::{Code, Severity};
use crate::text::{cut_bytes, printable, sha256};
use crate::timestamp::Timestamp;

/// One message, before it takes the form that a channel wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// Printable ASCII, under 100 characters, led by the severity and the worst place.
    pub subject: String,
    /// The worst that it says; ok if everything in it is resolved.
    pub severity: Severity,
    /// What stands above the sections.
    pub summary: String,
    /// One per place, worst first.
    pub sections: Vec<Section>,
    /// What stands under them.
    pub notes: Vec<String>,
    /// Names the incident: messages with the same one belong together.
    pub thread: String,
    /// As of when.
    pub at: Timestamp,
}

/// The news of one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Where, in a form that a person recognises.
    pub title: String,
    /// The worst of it.
    pub severity: Severity,
    /// What happened, worst first.
    pub entries: Vec<Entry>,
    /// What else is known: until when the certificate is valid, who issued it, what the renewer
    /// does about it.
    pub facts: Vec<String>,
}

/// One thing that happened at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Entry {
    /// What happened to it.
    pub change: Change,
    /// What it is about.
    pub place: Place,
    /// The finding's code.
    pub code: Code,
    /// How bad it is, or was.
    pub severity: Severity,
    /// In words.
    pub message: String,
    /// Where exactly; none if it is all of the place.
    pub addresses: Vec<String>,
    /// First seen.
    pub since: Timestamp,
    /// The end of the certificate that is, or was, about to expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The end of the one that is served instead, once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed_until: Option<Timestamp>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// The same from an incident's first message to its last.
    pub incident: String,
    /// Since when, and whether that is news.
    #[serde(skip)]
    pub history: String,
    /// The subject of a message about it alone, as [`Digest::subject`].
    #[serde(skip)]
    pub subject: String,
}

impl Digest {
    /// A message of a single paragraph or more, for what is not a finding of a run.
    pub fn plain(subject: &str, text: &str, severity: Severity, now: Timestamp) -> Self {
        let subject = ascii(subject);
        Self {
            thread: sha256(subject.as_bytes())[..16].to_owned(),
            subject,
            severity,
            summary: text.trim_end().to_owned(),
            sections: Vec::new(),
            notes: Vec::new(),
            at: now,
        }
    }

    /// The ends of the incidents in it: a service that keeps a record of each must not keep those
    /// of a test.
    pub fn ends(&self) -> Vec<Entry> {
        let entries = self.sections.iter().flat_map(|section| &section.entries);
        let firing = entries.filter(|entry| entry.change.is_firing()).cloned();
        let ends = firing.map(|entry| Entry {
            change: Change::Resolved,
            next_step: None,
            ..entry
        });
        ends.collect()
    }

    /// Where people look up the codes in brackets, by the example of the worst.
    pub(in crate::alert) fn manual(&self) -> Option<String> {
        let worst = self.sections.first()?.entries.first()?;
        Some(format!("More on a code in brackets: {}", worst.code.entry()))
    }

    /// As plain text of at most `bytes`, worst first; what does not fit is counted.
    pub fn text(&self, sender: &Sender, bytes: usize) -> String {
        // The end is written first, so that room is left for it.
        let mut tail = String::new();
        for note in &self.notes {
            let _ = write!(tail, "\n{note}\n");
        }
        let manual = self.manual().map(|manual| format!("{manual}\n")).unwrap_or_default();
        let _ = write!(tail, "\n-- \n{manual}{}", sender.signature());

        let mut text = format!("{}\n", cut_bytes(&self.summary, bytes / 2));
        for (index, section) in self.sections.iter().enumerate() {
            let section = section.text();
            if text.len() + section.len() + tail.len() + RESERVE > bytes {
                let more = self.sections.len() - index;
                let _ = write!(text, "\n+{more} more; {}\n", sender.elsewhere());
                break;
            }
            text.push_str(&section);
        }
        text.push_str(cut_bytes(&tail, bytes / 2));
        text
    }
}

impl Section {
    /// As plain text, with an empty line before it.
    fn text(&self) -> String {
        let mut text = format!("\n{}  {}\n", self.label(), self.title);
        for (entry, step) in self.steps() {
            let _ = writeln!(text, "  - {}\n    {}", entry.words(), entry.history);
            if let Some(step) = step {
                let _ = writeln!(text, "    What to do: {step}");
            }
        }
        for fact in &self.facts {
            let _ = writeln!(text, "  {fact}");
        }
        text
    }

    /// The severity in capitals, or that the place was taken out of the inventory.
    pub(in crate::alert) fn label(&self) -> String {
        let mut entries = self.entries.iter();
        if !self.entries.is_empty() && entries.all(|entry| entry.change == Change::NoLongerWatched) {
            REMOVED.to_owned()
        } else {
            self.severity.to_string().to_uppercase()
        }
    }

    /// Each entry with what to do about it. What helps several entries is named at the last of
    /// them.
    pub(in crate::alert) fn steps(&self) -> impl Iterator<Item = (&Entry, Option<&str>)> {
        self.entries.iter().enumerate().map(|(index, entry)| {
            let step = entry.next_step.as_deref();
            let is_named_later = (self.entries[index + 1..].iter()).any(|later| later.next_step == entry.next_step);
            (entry, step.filter(|_| !is_named_later))
        })
    }
}

impl Entry {
    /// What is wrong, and where, with the code to look it up by.
    pub fn words(&self) -> String {
        let code = printable(self.code.as_str());
        match self.addresses.as_slice() {
            [] => format!("{} [{code}]", self.message),
            addresses => format!("{} (at {}) [{code}]", self.message, addresses.join(", ")),
        }
    }
}

/// A subject as SNS takes it: printable ASCII, and under 100 characters.
pub(super) fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .take(SUBJECT_LENGTH)
        .collect()
}

/// What stands in place of a severity where nothing is watched any more: it is not "ok".
pub(super) const REMOVED: &str = "REMOVED";
/// For the line that counts what is left out.
const RESERVE: usize = 200;
