//! The terminal: how wide it is, whether it shows colours, and what may be written to it.

use std::env;
use std::io::{self, IsTerminal};

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, presets};

/// What standard output can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terminal {
    /// In columns; none when nobody watches, so that no line is broken.
    pub(crate) width: Option<u16>,
    pub(crate) colors: bool,
}

impl Terminal {
    pub(crate) fn of_stdout() -> Self {
        let watched = io::stdout().is_terminal();
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            width: Grid::new().width().filter(|_| watched),
            colors: watched && !plain,
        }
    }

    /// An empty table that fits.
    pub(crate) fn grid(self) -> Grid {
        let mut grid = Grid::new();
        grid.load_preset(presets::UTF8_HORIZONTAL_ONLY).force_no_tty();
        if self.colors {
            grid.enforce_styling();
        }
        if let Some(width) = self.width {
            grid.set_width(width)
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        grid
    }

    /// Gives the last column what the others leave, and breaks lines only there.
    pub(crate) fn wrap_last(grid: &mut Grid) {
        let last = grid.column_count().saturating_sub(1);
        for column in grid.column_iter_mut().take(last) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Text from a certificate or a server, on one line and harmless: control characters, which move the cursor, and
/// invisible ones, which turn or hide what stands beside them, are written as `\u{…}`.
pub(crate) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => line.push(c),
            _ => line.extend(c.escape_debug()),
        }
    }
    line
}

/// The same for JSON, which has its own escapes and allows most such characters as they are.
pub(crate) fn escaped_json(json: String) -> String {
    let harmless = |c: char| c == '"' || c == '\\' || c.escape_debug().len() == 1;
    if json.chars().all(harmless) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if harmless(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_certificate_moves_the_cursor_or_turns_a_line() {
        for (hostile, expected) in [
            ("CN=Let's \"Encrypt\"", "CN=Let's \"Encrypt\""),
            ("CN=bücher 書籍", "CN=bücher 書籍"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}moc.elgoog", "\\u{202e}moc.elgoog"),
            ("\u{2066}\u{61c}\u{200b}\u{feff}", "\\u{2066}\\u{61c}\\u{200b}\\u{feff}"),
            ("\u{2028}\u{e0041}", "\\u{2028}\\u{e0041}"),
        ] {
            assert_eq!(escaped(hostile), expected);
            let json = escaped_json(serde_json::to_string(hostile).unwrap());
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
            assert!(
                json.chars()
                    .all(|c| c == '"' || c == '\\' || c.escape_debug().len() == 1)
            );
        }
    }
}
