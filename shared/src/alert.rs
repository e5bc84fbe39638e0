//! The alert: one digest a run, worst first, in words that a person can act on.

use std::fmt::Write;

use crate::finding::{Severity, Span, date};
use crate::report::{EndpointReport, Report};
pub use crate::text::printable;

/// A message for SNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Printable ASCII, under 100 characters.
    pub subject: String,
    /// Plain text, as the e-mail shows it.
    pub text: String,
}

/// Whose alert it is.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The stack's name.
    pub stack: String,
    /// AWS region.
    pub region: String,
}

/// What is to be said of a run, or nothing when all is well.
pub fn digest(report: &Report, sender: &Sender) -> Option<Digest> {
    let bad: Vec<_> = report
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.status != Severity::Ok)
        .collect();
    if report.status() == Severity::Ok {
        return None;
    }
    let subject = match (bad.first(), report.mistakes.first()) {
        (Some(worst), _) => headline(worst, bad.len() - 1),
        (None, Some(_)) => "UNKNOWN: the inventory has mistakes".to_owned(),
        (None, None) => format!(
            "UNKNOWN: {} endpoints were not reached in time",
            report.not_reached.len()
        ),
    };
    Some(Digest {
        subject: subject_of(&subject),
        text: text(report, &bad, sender),
    })
}

/// The alert for a run that could not even begin.
pub fn failure(reason: &str, sender: &Sender) -> Digest {
    let text = format!(
        "neverlapse could not look at anything: {reason}\n\nUntil this is mended, nobody watches these certificates.\n\n{}",
        signature(sender)
    );
    Digest {
        subject: subject_of("CRITICAL: neverlapse watches nothing"),
        text: cut(text),
    }
}

fn headline(worst: &EndpointReport, others: usize) -> String {
    let severity = worst.status.to_string().to_uppercase();
    let state = match worst.seconds_left {
        Some(left) if left < 0 => format!("expired {} ago", Span(time::Duration::seconds(-left))),
        Some(left) => format!("{} left", Span(time::Duration::seconds(left))),
        None => worst
            .all_findings()
            .next()
            .map_or("", |(_, finding)| finding.kind.code())
            .replace('_', " "),
    };
    let more = if others == 0 {
        String::new()
    } else {
        format!(" (+{others} more)")
    };
    let room = SUBJECT_LENGTH.saturating_sub(severity.len() + state.len() + more.len() + ": , ".len());
    let endpoint: String = worst.endpoint.chars().take(room).collect();
    format!("{severity}: {endpoint}, {state}{more}")
}

fn text(report: &Report, bad: &[&EndpointReport], sender: &Sender) -> String {
    let counts = report.counts;
    let mut head = format!(
        "{} endpoints: {} critical, {} could not be looked at, {} warning, {} ok\n",
        counts.total(),
        counts.critical,
        counts.unknown,
        counts.warning,
        counts.ok
    );
    for mistake in &report.mistakes {
        let _ = writeln!(head, "\nMISTAKE in the inventory, {mistake}");
    }
    if !report.not_reached.is_empty() {
        let _ = writeln!(
            head,
            "\nNOT REACHED before the run's deadline: {}",
            report.not_reached.join(", ")
        );
    }
    let tail = signature(sender);
    let mut body = cut(head);
    for (index, endpoint) in bad.iter().enumerate() {
        let entry = entry(endpoint);
        if body.len() + entry.len() + tail.len() + RESERVE > TEXT_LENGTH {
            let _ = write!(body, "\n+{} more; the run's result has them all.\n", bad.len() - index);
            break;
        }
        body.push_str(&entry);
    }
    format!("{body}\n{tail}")
}

fn entry(endpoint: &EndpointReport) -> String {
    let mut text = format!(
        "\n{}  {}",
        endpoint.status.to_string().to_uppercase(),
        endpoint.endpoint
    );
    if let Some(unicode) = &endpoint.unicode {
        let _ = write!(text, " ({unicode})");
    }
    text.push('\n');
    for (message, addresses) in merged(endpoint) {
        let place = if addresses.is_empty() {
            String::new()
        } else {
            format!("  [{}]", addresses.join(", "))
        };
        let _ = writeln!(text, "  - {}{place}", printable(message));
    }
    if let Some(end) = endpoint.not_after {
        let issuer = endpoint
            .observations
            .iter()
            .find_map(|seen| Some(&seen.leaf.as_ref()?.issuer));
        let _ = writeln!(
            text,
            "  valid until {}, issued by {}",
            date(end),
            printable(issuer.map_or("", |name| name))
        );
    }
    text
}

/// The same finding at several addresses is said once, with the addresses unless it is all of them.
pub fn merged(endpoint: &EndpointReport) -> Vec<(&str, Vec<String>)> {
    let mut merged: Vec<(&str, Vec<String>)> = Vec::new();
    for (address, finding) in endpoint.all_findings() {
        let address = address.map(|address| address.to_string());
        match merged.iter_mut().find(|(message, _)| *message == finding.message) {
            Some((_, addresses)) => addresses.extend(address),
            None => merged.push((&finding.message, address.into_iter().collect())),
        }
    }
    let all = endpoint.observations.len();
    merged
        .iter_mut()
        .filter(|(_, addresses)| addresses.len() == all && all > 1)
        .for_each(|(_, some)| some.clear());
    merged
}

fn signature(sender: &Sender) -> String {
    format!("-- \nneverlapse, stack {} in {}\n", sender.stack, sender.region)
}

/// SNS refuses a subject with anything else than printable ASCII, or of 100 characters.
fn subject_of(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .take(SUBJECT_LENGTH)
        .collect()
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_LENGTH / 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

const SUBJECT_LENGTH: usize = 99;
/// The message travels twice (for e-mail and as the default) in one JSON of at most 262,144 bytes, escaped.
const TEXT_LENGTH: usize = 60_000;
const RESERVE: usize = 200;
