//! What comes of a request to renew, in words and as an exit code.

use neverlapse::renewal::{Decision, Reason, RequestProgress, RequestStage};
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing is due, so the renewer was not asked.
    NotDue { next: Timestamp },
    /// It is due, but an earlier failure asks to wait, so the renewer was not asked.
    Waits {
        reason: Reason,
        until: Timestamp,
        /// Why it failed before.
        problem: Option<String>,
    },
    /// The issuer of this name has no directory for a dry run.
    NoStaging(String),
    /// The renewer's answer; for a certificate that it issued, how many instances have it.
    Renewer {
        progress: RequestProgress,
        pulled: Option<String>,
    },
    /// Somebody asked for something else before there was an answer.
    Overtaken { at: Timestamp },
    /// There is no answer yet. The last step that the renewer noted, if any.
    Nothing { last: Option<String> },
    /// A person pressed Ctrl-C.
    Interrupted,
}

impl Answer {
    /// The answer that a decision gives already.
    pub(super) fn of_decision(decision: Decision, problem: Option<String>) -> Option<Self> {
        match decision {
            Decision::NotDue { next } => Some(Self::NotDue { next }),
            Decision::Due {
                reason,
                next_try: Some(until),
            } => Some(Self::Waits { reason, until, problem }),
            Decision::Due { next_try: None, .. } => None,
        }
    }

    /// Prints it, and returns the exit code.
    pub(super) fn print(&self) -> u8 {
        let text = self.text();
        let code = self.code();
        if code == 0 {
            println!("{text}");
        } else {
            eprintln!("{text}");
        }
        code
    }

    fn code(&self) -> u8 {
        match self {
            Self::NotDue { .. } => OK,
            Self::Waits { .. } => WAITS,
            Self::NoStaging(_) => FAILED,
            Self::Renewer { progress, .. } => match progress.stage {
                RequestStage::Done | RequestStage::NotDue => OK,
                RequestStage::Waiting => WAITS,
                RequestStage::Failed | RequestStage::Refused => FAILED,
                RequestStage::UnderWay | RequestStage::Unknown(_) => UNKNOWN,
            },
            Self::Overtaken { .. } | Self::Nothing { .. } => UNKNOWN,
            Self::Interrupted => INTERRUPTED,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NotDue { next } => format!("not due before {next}; --force orders anyway"),
            Self::Waits { reason, until, problem } => {
                let reason = printable(&reason.to_string());
                let problem = problem.as_deref().unwrap_or("an earlier try failed");
                format!(
                    "due ({reason}), but it waits until {until}, because an earlier try failed; --force orders at once\n{problem}"
                )
            }
            Self::NoStaging(issuer) => {
                format!("refused: [issuer.{issuer}] has no staging_directory to order from in a dry run")
            }
            Self::Renewer { progress, pulled } => {
                let text = printable_lines(&progress.text);
                match (&progress.stage, pulled) {
                    (RequestStage::Failed, _) => format!("failed; it is tried again\n{text}"),
                    (RequestStage::Refused, _) => format!("refused: {text}"),
                    (_, Some(pulled)) => format!("{text}; {pulled}"),
                    (_, None) => text,
                }
            }
            Self::Overtaken { at } => format!(
                "somebody asked for this certificate again at {at}, before this request was answered; an alert says what came of it"
            ),
            Self::Nothing { last: None } => format!("the renewer has not begun yet; {LATER}"),
            Self::Nothing { last: Some(last) } => format!("no end yet ({}); {LATER}", printable(last)),
            Self::Interrupted => format!("the renewer goes on; {LATER}"),
        }
    }
}

/// A server's words, with the lines that they have.
pub(super) fn printable_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(printable).collect();
    lines.join("\n")
}

const OK: u8 = 0;
const WAITS: u8 = 1;
const FAILED: u8 = 2;
const UNKNOWN: u8 = 3;
/// What shells report for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
const LATER: &str = "`neverlapse status` shows when it is done, and an alert says what came of it";

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    const NOW: Timestamp = timestamp!(2026-11-26 12:00 UTC);

    #[test]
    fn each_answer_has_its_words_and_its_code() {
        let renewer = |stage, text: &str, pulled: Option<&str>| Answer::Renewer {
            progress: RequestProgress {
                at: NOW,
                noted_at: NOW,
                stage,
                text: text.to_owned(),
            },
            pulled: pulled.map(str::to_owned),
        };
        for (answer, code, words) in [
            (
                Answer::NotDue { next: NOW },
                0,
                "not due before 2026-11-26 12:00 UTC; --force orders anyway",
            ),
            (
                Answer::Waits {
                    reason: Reason::Missing,
                    until: NOW,
                    problem: Some("the CA's words".to_owned()),
                },
                1,
                "waits until 2026-11-26 12:00 UTC, because an earlier try failed; --force orders at once\nthe CA's words",
            ),
            (
                Answer::NoStaging("own".to_owned()),
                2,
                "refused: [issuer.own] has no staging_directory",
            ),
            (
                renewer(RequestStage::Done, "issued", Some("pulled by 0 of 3 instances")),
                0,
                "issued; pulled by 0 of 3 instances",
            ),
            (renewer(RequestStage::NotDue, "not due", None), 0, "not due"),
            (
                renewer(RequestStage::Failed, "no TXT record", None),
                2,
                "failed; it is tried again\nno TXT record",
            ),
            (
                renewer(RequestStage::Refused, "no\n  hint: \u{1b}[2J", None),
                2,
                "refused: no\n  hint: \\u{1b}[2J",
            ),
            (renewer(RequestStage::Unknown("new".to_owned()), "?", None), 3, "?"),
            (Answer::Nothing { last: None }, 3, "the renewer has not begun yet"),
            (Answer::Interrupted, 130, "the renewer goes on"),
        ] {
            assert_eq!(answer.code(), code, "{answer:?}");
            assert!(answer.text().contains(words), "{}", answer.text());
        }
    }
}
