//! A message in parts: what a digest is before it takes the form that a channel wants.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;

use super::room::{LEAST, excerpt, fitting, share, shortened};
use crate::alert::incident::Place;
use crate::alert::news::Change;
use crate::alert::sender::{SUBJECT_LENGTH, Sender};
use crate::finding::{Code, Severity};
use crate::text::{cut_bytes, sha256};
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
    /// What else is open, and was reported before: a line each, worst first.
    pub open: Vec<String>,
    /// What stands at the end.
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
    /// Where exactly, or the first of many; none if it is all of the place.
    pub addresses: Vec<String>,
    /// How many more addresses there are.
    pub more_addresses: usize,
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
            open: Vec::new(),
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
        Some(format!(
            "More on a code in brackets: {}",
            excerpt(&worst.code.entry(), NAME)
        ))
    }

    /// As plain text of at most `bytes`, worst first; what does not fit is counted.
    pub fn text(&self, sender: &Sender, bytes: usize) -> String {
        // The end is written first, so that room is left for it.
        let mut end = String::new();
        for note in &self.notes {
            let _ = write!(end, "\n{note}\n");
        }
        let manual = self.manual().map(|manual| format!("{manual}\n")).unwrap_or_default();
        let _ = write!(end, "\n-- \n{manual}{}", sender.signature());
        let end = cut_bytes(&end, bytes / 2);

        let mut text = format!("{}\n", cut_bytes(&self.summary, bytes / 2));
        let room = |text: &str| bytes.saturating_sub(text.len() + end.len());
        let sections = self.shown(room(&text).saturating_sub(COUNTS), Section::text);
        let more = self.sections.len() - sections.len();
        text.extend(sections);
        if more > 0 {
            let _ = write!(text, "\n+{more} more; {}\n", sender.elsewhere());
        }

        if let Some(open) = self.also_open(sender, room(&text), str::to_owned) {
            let _ = write!(text, "\n{open}\n");
        }
        text.push_str(end);
        text
    }

    /// The sections that fit into `room`, each in the `form` of a channel, which takes the most
    /// bytes that a section may have.
    pub(in crate::alert) fn shown(&self, room: usize, form: impl Fn(&Section, usize) -> String) -> Vec<String> {
        // There may be thousands; these are enough to fill it.
        let sections = &self.sections[..self.sections.len().min(room / SHORTEST)];
        let whole: Vec<_> = sections.iter().map(|section| form(section, usize::MAX)).collect();
        let longest = share(whole.iter().map(String::len).collect(), room).max(LEAST);
        let forms = sections.iter().zip(whole).map(|(section, whole)| {
            if whole.len() <= longest {
                whole
            } else {
                form(section, longest)
            }
        });
        fitting(forms, room, String::len)
    }

    /// What else is open, as much as fits into the `room` that the news leaves; the rest is
    /// counted.
    pub(in crate::alert) fn also_open(
        &self,
        sender: &Sender,
        room: usize,
        form: impl Fn(&str) -> String,
    ) -> Option<String> {
        if self.open.is_empty() {
            return None;
        }
        let lines = self.open.iter().take(ALSO_OPEN);
        let lines = lines.map(|line| format!("\n  {}", form(line)));
        let lines = fitting(lines, room.saturating_sub(COUNTS / 2), String::len);

        let mut text = format!("Also open, and reported before:{}", lines.concat());
        let more = self.open.len() - lines.len();
        if more > 0 {
            let _ = write!(text, "\n  +{more} more; {}", form(&sender.elsewhere()));
        }
        Some(text)
    }
}

impl Section {
    /// As plain text, with an empty line before it.
    fn text(&self, most: usize) -> String {
        let head = format!("\n{}  {}\n", self.label(), self.title);
        let entries = self.steps().map(|(entry, step)| {
            let step = step.map(|step| format!("    What to do: {step}\n"));
            format!(
                "  - {}\n    {}\n{}",
                entry.words(),
                entry.history,
                step.unwrap_or_default()
            )
        });
        let facts = self.facts.iter().map(|fact| format!("  {fact}\n"));
        shortened(&head, entries.chain(facts).collect(), most)
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
    /// them; where they are so long that the last may be left out, at the first.
    pub(in crate::alert) fn steps(&self) -> impl Iterator<Item = (&Entry, Option<&str>)> {
        let length: usize = self.entries.iter().map(|entry| entry.message.len()).sum();
        let is_long = length > LONG;
        self.entries.iter().enumerate().map(move |(index, entry)| {
            let (before, after) = (&self.entries[..index], &self.entries[index + 1..]);
            let mut others = if is_long { before } else { after }.iter();
            let is_named = others.any(|other| other.next_step == entry.next_step);
            (entry, entry.next_step.as_deref().filter(|_| !is_named))
        })
    }
}

impl Entry {
    /// What is wrong, and where, with the code to look it up by.
    pub fn words(&self) -> String {
        let code = excerpt(self.code.as_str(), NAME);
        let addresses = self.addresses.join(", ");
        match (addresses.as_str(), self.more_addresses) {
            ("", _) => format!("{} [{code}]", self.message),
            (addresses, 0) => format!("{} (at {addresses}) [{code}]", self.message),
            (addresses, more) => format!("{} (at {addresses} and {more} more) [{code}]", self.message),
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
/// How many characters of a name are written. A DNS name has at most 253.
pub(super) const NAME: usize = 300;
/// For the two lines that count what is left out.
pub(in crate::alert) const COUNTS: usize = 400;
/// Messages of one place that are shown whole, as long as not everything is huge, in bytes.
const LONG: usize = 2_000;
/// No section is shorter.
const SHORTEST: usize = 50;
/// How many incidents are named that were reported before.
const ALSO_OPEN: usize = 10;
