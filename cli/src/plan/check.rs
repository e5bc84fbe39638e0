//! What came of one check that `plan --check` makes.

use std::fmt;

use neverlapse::finding::Severity;
use schemars::JsonSchema;
use serde::Serialize;

/// What an order depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    Zone,
    Delegation,
    #[serde(rename = "DNSSEC")]
    Dnssec,
    #[serde(rename = "CAA")]
    Caa,
    Profile,
    Directory,
    #[serde(rename = "EAB")]
    Eab,
}

/// As in JSON.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One thing that an order depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) what: What,
    /// `critical` if an order would fail, `unknown` if that cannot be found out from here.
    pub(crate) status: Severity,
    /// What was found.
    pub(crate) text: String,
}

impl Check {
    pub(crate) fn ok(what: What, text: impl Into<String>) -> Self {
        Self::of(what, Severity::Ok, text)
    }

    /// An order would fail.
    pub(crate) fn critical(what: What, text: impl Into<String>) -> Self {
        Self::of(what, Severity::Critical, text)
    }

    /// It cannot be found out from here.
    pub(crate) fn unknown(what: What, text: impl Into<String>) -> Self {
        Self::of(what, Severity::Unknown, text)
    }

    /// Whether it keeps something from being issued.
    pub(crate) fn is_wrong(&self) -> bool {
        matches!(self.status, Severity::Warning | Severity::Critical)
    }

    pub(super) fn of(what: What, status: Severity, text: impl Into<String>) -> Self {
        Self {
            what,
            status,
            text: text.into(),
        }
    }
}
