//! How much a finding matters, and the state of whatever it is about.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a finding matters, mildest first. An endpoint has the severity of its worst finding.
///
/// `Unknown` means that the probe could not see. It ranks above a warning, because it may hide
/// anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing wrong. A finding that is no more than this is for information, and never alerts.
    Ok,
    /// Someone should act within days.
    Warning,
    /// It could not be probed or read.
    Unknown,
    /// Clients fail, or soon will.
    Critical,
}

impl Severity {
    /// The exit code of monitoring plugins: 0 ok, 1 warning, 2 critical, 3 unknown.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// As in JSON.
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
