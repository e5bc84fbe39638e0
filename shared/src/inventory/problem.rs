//! What is wrong with an inventory: typed until it is printed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something in an inventory that could not be used, and where it was written.
///
/// It prints as `line 3: [[endpoint]] port = 0 cannot be connected to (expected 1 to 65535)`, or
/// without the line where there is none. Reports carry it as that text: in JSON it is a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Problem {
    /// Counted from 1; none for what was not written in an inventory file.
    pub line: Option<usize>,
    /// The key, the value, and the accepted form.
    pub message: String,
}

impl Problem {
    /// A problem that belongs to no line.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            line: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<Problem> for String {
    fn from(problem: Problem) -> Self {
        problem.to_string()
    }
}

impl From<String> for Problem {
    /// The problem in a report that was written earlier; a text without a line stays whole.
    fn from(text: String) -> Self {
        let written = text
            .strip_prefix("line ")
            .and_then(|rest| rest.split_once(": "))
            .and_then(|(line, message)| Some((line.parse().ok()?, message)));
        match written {
            Some((line, message)) => Self {
                line: Some(line),
                message: message.to_owned(),
            },
            None => Self::new(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_string_in_json() {
        for (json, line, message) in [
            (
                r#""line 3: [[endpoint]] missing field `host`""#,
                Some(3),
                "[[endpoint]] missing field `host`",
            ),
            (r#""names.txt line 3: no host""#, None, "names.txt line 3: no host"),
            (r#""line of text: more""#, None, "line of text: more"),
            (r#""""#, None, ""),
        ] {
            let problem: Problem = serde_json::from_str(json).unwrap();
            assert_eq!((problem.line, problem.message.as_str()), (line, message));
            assert_eq!(serde_json::to_string(&problem).unwrap(), json);
        }
    }
}
