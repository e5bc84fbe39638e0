//! A versioned JSON document: its `schema` names its format, such as `neverlapse.receipt/1`.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::text::cut;

/// A document with a `schema` among its members, which must be the type's own.
pub trait Document: DeserializeOwned {
    /// Name and version of the format.
    const SCHEMA: &'static str;
    /// The longest that is read from the bucket, in bytes.
    const LONGEST: u64 = 1 << 20;

    /// Why it cannot be the document at this key, if it cannot: it is about something else.
    fn misplaced(&self, _key: &str) -> Option<String> {
        None
    }
}

/// Why a document cannot be used.
///
/// The text has no word of the document but its `schema`: documents may hold secrets, and the text
/// ends in logs and alerts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// It is no JSON, or not the JSON that the format asks for.
    #[error("it cannot be read ({0})")]
    Malformed(Position),
    /// It is in another format: usually, a later version of neverlapse wrote it.
    #[error("its format is {found:?} (expected {expected:?})")]
    OtherFormat {
        /// The format that it names, cut to 255 characters.
        found: String,
        /// The format that can be read.
        expected: &'static str,
    },
}

/// The place in a document at which it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1; 0 at the end of a line.
    pub column: usize,
}

/// Reads a document.
pub fn read<T: Document>(json: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Header {
        schema: String,
    }

    // The header comes first: the rest of another format may look like anything.
    let header: Header = serde_json::from_slice(json)?;
    if header.schema != T::SCHEMA {
        return Err(Error::OtherFormat {
            found: cut(&header.schema, LONGEST),
            expected: T::SCHEMA,
        });
    }

    Ok(serde_json::from_slice(json)?)
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        // The parser's own words may quote the document.
        Self::Malformed(Position {
            line: error.line(),
            column: error.column(),
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Of a format's name, in characters.
const LONGEST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Note {
        text: String,
    }

    impl Document for Note {
        const SCHEMA: &'static str = "neverlapse.note/1";
    }

    #[test]
    fn an_error_names_the_place_and_quotes_nothing() {
        let read = |json: &str| read::<Note>(json.as_bytes()).map_err(|error| error.to_string());

        let note = read(r#"{"schema": "neverlapse.note/1", "text": "x", "later": true}"#).unwrap();
        assert_eq!(note.text, "x");

        for (json, expected) in [
            ("", "it cannot be read (line 1, column 0)"),
            ("\u{0}secret", "it cannot be read (line 1, column 1)"),
            (
                "{\"schema\": \"neverlapse.note/1\"}",
                "it cannot be read (line 1, column 31)",
            ),
            (
                "{\"schema\": \"neverlapse.note/2\"}",
                "its format is \"neverlapse.note/2\" (expected \"neverlapse.note/1\")",
            ),
        ] {
            assert_eq!(read(json).unwrap_err(), expected);
        }
    }
}
