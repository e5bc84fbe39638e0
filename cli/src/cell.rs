//! What several tables show in their cells.

use comfy_table::{Attribute, Cell, Color};
use neverlapse::finding::{Severity, Span};
use neverlapse::text::{self, printable};
use neverlapse::timestamp::Timestamp;
use time::Duration;

/// A status in its colour.
pub(crate) fn status(status: Severity) -> Cell {
    let color = match status {
        Severity::Ok => Color::Green,
        Severity::Warning => Color::Yellow,
        Severity::Unknown => Color::Magenta,
        Severity::Critical => Color::Red,
    };
    Cell::new(status).fg(color).add_attribute(Attribute::Bold)
}

/// The time left, and below it the day on which the certificate expires.
pub(crate) fn time_left(seconds: Option<i64>, not_after: Option<Timestamp>) -> String {
    let left = match seconds {
        Some(seconds @ ..0) => format!("{} ago", Span(Duration::seconds(seconds.saturating_neg()))),
        Some(seconds) => Span(Duration::seconds(seconds)).to_string(),
        None => "?".to_owned(),
    };
    match not_after {
        Some(not_after) => format!("{left}\n{}", not_after.utc().date()),
        None => left,
    }
}

/// A text that somebody else wrote, escaped, and shortened so that no server fills the screen or
/// the memory.
pub(crate) fn cut(text: &str) -> String {
    text::cut(&printable(text), LENGTH)
}

const LENGTH: usize = 500;
