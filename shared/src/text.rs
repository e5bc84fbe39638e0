//! Text for people: foreign text is made harmless and cut to a length; bytes, names and errors are written in one way.

use std::error::Error;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// The text on one line: control characters, which move the cursor, and invisible ones, which turn or hide the text
/// next to them, are written as `\u{…}`.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmless(c) {
            line.push(c);
        } else {
            line.extend(c.escape_debug());
        }
    }
    line
}

/// The same for JSON, which has its own escapes and allows most such characters as they are. Its meaning stays.
pub fn printable_json(json: String) -> String {
    if json.chars().all(is_harmless) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if is_harmless(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

/// At most `longest` characters of the text, with `…` after them if there were more.
pub fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The SHA-256 of `content` in lower-case hex.
pub fn sha256(content: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, content).as_ref())
}

/// An instance's name as people know it: that of the session, without the role's id before it.
pub fn instance_name(user_id: &str) -> &str {
    user_id.rsplit_once(':').map_or(user_id, |(_, session)| session)
}

/// An error and all its sources, outermost first, joined by `: `.
///
/// A source that repeats an outer text is left out, because many wrappers print what they wrap.
pub fn causes(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();

    while let Some(error) = source {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
        source = error.source();
    }

    texts.join(": ")
}

/// Whether Rust shows it as it is, or escapes it only because it would end a literal.
fn is_harmless(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn every_cause_is_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot send the request")]
        struct Outer(#[source] io::Error);

        let inner = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let wrapped = io::Error::other(io::Error::other(inner));
        assert_eq!(causes(&Outer(wrapped)), "cannot send the request: connection refused");
        assert_eq!(causes(&io::Error::other("alone")), "alone");
    }

    #[test]
    fn nothing_of_a_certificate_moves_the_cursor_or_turns_a_line() {
        for (hostile, expected) in [
            ("CN=Let's \"Encrypt\"", "CN=Let's \"Encrypt\""),
            ("CN=bücher 書籍", "CN=bücher 書籍"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}moc.elgoog", "\\u{202e}moc.elgoog"),
            ("\u{200e}\u{200f}\u{2069}", "\\u{200e}\\u{200f}\\u{2069}"),
            ("\u{2066}\u{61c}\u{200b}\u{feff}", "\\u{2066}\\u{61c}\\u{200b}\\u{feff}"),
            ("\u{ad}\u{180e}\u{2060}", "\\u{ad}\\u{180e}\\u{2060}"),
            ("\u{2028}\u{e0041}", "\\u{2028}\\u{e0041}"),
        ] {
            assert_eq!(printable(hostile), expected);
            let json = printable_json(serde_json::to_string(hostile).unwrap());
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
            assert_eq!(printable(&json), json, "nothing is left to escape");
        }
    }
}
