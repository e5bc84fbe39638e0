//! What several tables show in their cells.

use comfy_table::{Attribute, Cell, Color};
use neverlapse::finding::Severity;
use neverlapse::report::Left;
use neverlapse::text::{self, printable};
use neverlapse::timestamp::Timestamp;

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
pub(crate) fn time_left(left: Option<Left>, not_after: Option<Timestamp>) -> String {
    let left = left.map_or_else(|| "?".to_owned(), |left| format!("{left:#}"));
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
