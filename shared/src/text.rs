//! Text for people: foreign text is made harmless and cut to a length; bytes, names and errors are
//! written in one way.

use std::error::Error;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// The text on one line: control characters, which move the cursor, and invisible ones, which turn
/// or hide the text next to them, are written as `\u{…}`.
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

/// The same for JSON, which has its own escapes and allows most such characters as they are. Its
/// meaning stays.
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

/// Whether a file begins as UTF-16 does, by its byte order mark.
pub fn is_utf_16(file: &[u8]) -> bool {
    matches!(file, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
}

/// The text of a file in UTF-16, with its byte order mark; none if it is not.
pub fn from_utf_16(file: &[u8]) -> Option<String> {
    let units: fn([u8; 2]) -> u16 = match file {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let units: Vec<_> = file.as_chunks().0.iter().copied().map(units).collect();
    Some(String::from_utf16_lossy(&units))
}

/// At most `longest` characters of the text, with `…` after them if there were more.
pub fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text, or its start with `…` after it: at most this many characters as JavaScript and Java
/// count them, which is how chats limit a message.
pub fn cut_utf16(text: &str, units: usize) -> String {
    if utf16_length(text) <= units {
        return text.to_owned();
    }
    let mut length = 0;
    let end = text.char_indices().find(|(_, c)| {
        length += c.len_utf16();
        length >= units
    });
    format!("{}…", &text[..end.map_or(text.len(), |(end, _)| end)])
}

/// The length of a text as JavaScript and Java count it.
pub fn utf16_length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The first bytes of a text, to a whole character.
pub fn cut_bytes(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The first of them with commas between, and how many more there are.
pub fn some_of<T: ToString>(all: impl IntoIterator<Item = T>, shown: usize) -> String {
    let mut all = all.into_iter();
    let first: Vec<_> = all.by_ref().take(shown).map(|one| one.to_string()).collect();
    let first = first.join(", ");
    match all.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// A number with its noun: `1 endpoint`, `2 endpoints`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
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

/// The innermost source of an error. The outer texts of an HTTP client only repeat the URL.
pub fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
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
    fn no_way_to_shorten_a_text_splits_a_character() {
        let text = "aß書𝄞z";
        for (length, characters, utf16, bytes) in [
            (0, "…", "…", ""),
            (1, "a…", "…", "a"),
            (2, "aß…", "a…", "a"),
            (3, "aß書…", "aß…", "aß"),
            (4, "aß書𝄞…", "aß書…", "aß"),
            (5, "aß書𝄞z", "aß書…", "aß"),
            (6, "aß書𝄞z", "aß書𝄞z", "aß書"),
            (11, "aß書𝄞z", "aß書𝄞z", "aß書𝄞z"),
        ] {
            assert_eq!(cut(text, length), characters);
            assert_eq!(cut_utf16(text, length), utf16);
            assert_eq!(cut_bytes(text, length), bytes);
        }
    }

    #[test]
    fn of_many_some_are_named_and_the_others_counted() {
        assert_eq!(some_of([1, 2, 3], 3), "1, 2, 3");
        assert_eq!(some_of([1, 2, 3], 1), "1 and 2 more");
        assert_eq!(some_of([""; 0], 3), "");
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
