//! One thing that was looked at, and what it means.

use std::fmt::Display;

use neverlapse::finding::Severity;
use schemars::JsonSchema;
use serde::Serialize;

/// What was found about one thing, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Line {
    /// Such as `schedule ProbeDaily`.
    pub(super) about: String,
    /// `critical` if it does not work, `unknown` if it could not be looked at.
    pub(super) status: Severity,
    /// What was found.
    pub(super) found: String,
    /// Why that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// The command that corrects it, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

impl Line {
    /// As it should be.
    pub(super) fn ok(about: impl Display, found: impl Display) -> Self {
        Self {
            about: about.to_string(),
            status: Severity::Ok,
            found: found.to_string(),
            why: None,
            fix: None,
        }
    }

    /// Something to act on soon.
    pub(super) fn warning(about: impl Display, found: impl Display, why: &str, fix: impl Display) -> Self {
        Self::wrong(Severity::Warning, about, found, why, fix)
    }

    /// Something that does not work.
    pub(super) fn critical(about: impl Display, found: impl Display, why: &str, fix: impl Display) -> Self {
        Self::wrong(Severity::Critical, about, found, why, fix)
    }

    /// Something that could not be looked at.
    pub(super) fn unknown(about: impl Display, reason: impl Display) -> Self {
        let found = format!("cannot look: {reason}");
        let fix = "attach the output OperatorPolicyArn to the role that you use, or use one that may look";
        Self::wrong(
            Severity::Unknown,
            about,
            found,
            "what cannot be looked at may be wrong",
            fix,
        )
    }

    fn wrong(status: Severity, about: impl Display, found: impl Display, why: &str, fix: impl Display) -> Self {
        Self {
            about: about.to_string(),
            status,
            found: found.to_string(),
            why: Some(why.to_owned()),
            fix: Some(fix.to_string()),
        }
    }
}
