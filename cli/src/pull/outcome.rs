//! How a run ended for one certificate, and what a person reads about it.

use std::fmt;

use neverlapse::bucket::version::Current;
use neverlapse::finding::Severity;
use neverlapse::timestamp::Timestamp;

use super::plan::Plan;
use super::state::State;
use super::window::is_urgent;

/// What is wrong with the source, or with what it shows.
///
/// It does not keep a run from going on with what is on the disk already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceProblem {
    /// The source did not answer.
    Unreachable(String),
    /// The bucket answered, and refused.
    Denied(String),
    /// Nothing has been published under this name.
    NotPublished,
    /// A pointer that is not believed.
    Refused { current: Box<Current>, reason: String },
    /// A version that was refused, or could not be stored.
    Failed(String),
    /// What is installed is damaged, and could not be restored.
    Damaged(String),
}

impl SourceProblem {
    /// An error in words.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }

    /// Whether the source could be read, and only what it shows is not taken.
    pub(crate) fn is_about_the_version(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Denied(_) => false,
            Self::NotPublished | Self::Refused { .. } | Self::Failed(_) | Self::Damaged(_) => true,
        }
    }
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) | Self::Denied(reason) | Self::Failed(reason) | Self::Damaged(reason) => {
                f.write_str(reason)
            }
            Self::Refused { reason, .. } => f.write_str(reason),
            Self::NotPublished => f.write_str(NOT_PUBLISHED),
        }
    }
}

/// How a run ended for one certificate.
pub(crate) struct Outcome<'a> {
    /// The certificate's name.
    pub(crate) name: &'a str,
    /// What is installed and what is pending, at the end.
    pub(crate) state: &'a State,
    /// What the run was to do.
    pub(crate) plan: Plan,
    /// What was wrong with the source.
    pub(crate) problem: Option<&'a SourceProblem>,
    /// Why an installation did not succeed.
    pub(crate) failure: Option<&'a str>,
    /// What was put right.
    pub(crate) repaired: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// What a person reads about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) severity: Severity,
    pub(crate) line: String,
    /// What to set or to run.
    pub(crate) hint: Option<&'static str>,
}

impl Outcome<'_> {
    /// Puts it into words. It is critical once there is nothing good to serve, or not for long.
    pub(crate) fn verdict(&self) -> Verdict {
        let Some((reason, severity)) = self.reason() else {
            return Verdict {
                severity: Severity::Ok,
                line: self.summary(),
                hint: None,
            };
        };

        let installed = self.installed();
        let stays = match installed {
            Some(Current { facts, .. }) => format!(
                "version {} stays installed, valid until {}",
                facts.version, facts.not_after
            ),
            // A first version has nothing to go back to.
            None if self.has_tried() => "nothing was installed before, so its files stay live".to_owned(),
            None => "nothing is installed".to_owned(),
        };
        let again = match self.plan {
            Plan::Retry { at } => format!(" (tried again from {at} on, or by neverlapse pull --now)"),
            Plan::AwaitWindow => " (tried again in its window, or by neverlapse pull --now)".to_owned(),
            Plan::Nothing | Plan::Install => String::new(),
        };

        let is_damaged = self.failure.is_none() && matches!(self.problem, Some(SourceProblem::Damaged(_)));
        let is_critical = is_damaged
            || installed.is_none_or(|Current { facts, .. }| is_urgent(facts.not_before, facts.not_after, self.now));
        let is_denied = self.failure.is_none() && matches!(self.problem, Some(SourceProblem::Denied(_)));
        Verdict {
            severity: if is_critical { Severity::Critical } else { severity },
            line: format!("{}: {reason}{again}; {stays}", self.name),
            hint: is_denied.then_some(VERSIONS),
        }
    }

    /// The version that clients get from this host, as far as it knows.
    pub(crate) fn installed(&self) -> Option<&Current> {
        self.state.installed.as_ref().map(|installed| &installed.current)
    }

    /// Why the last try ended, in this run or an earlier one.
    pub(crate) fn past_failure(&self) -> Option<&str> {
        self.state.pending.as_ref()?.failure.as_deref()
    }

    /// Whether the pending version has been live.
    fn has_tried(&self) -> bool {
        let pending = self.state.pending.as_ref();
        pending.is_some_and(|pending| pending.tried.is_some())
    }

    /// Why nobody knows whether the installed version is served.
    pub(crate) fn unseen(&self) -> Option<&str> {
        self.state.installed.as_ref()?.unseen.as_deref()
    }

    /// What is wrong, the latest first: the installation comes after the source was read.
    fn reason(&self) -> Option<(&str, Severity)> {
        if let Some(failure) = self.failure {
            return Some((failure, Severity::Warning));
        }

        match self.problem {
            Some(SourceProblem::Unreachable(reason) | SourceProblem::Denied(reason)) => {
                Some((reason, Severity::Unknown))
            }
            Some(SourceProblem::NotPublished) => Some((NOT_PUBLISHED, Severity::Unknown)),
            Some(
                SourceProblem::Refused { reason, .. } | SourceProblem::Failed(reason) | SourceProblem::Damaged(reason),
            ) => Some((reason, Severity::Warning)),
            None => {
                let reason = self.past_failure().or(self.unseen())?;
                Some((reason, Severity::Warning))
            }
        }
    }

    /// A line about a run in which nothing went wrong.
    fn summary(&self) -> String {
        let State { installed, pending, .. } = self.state;
        let name = self.name;

        match (pending, installed, self.plan) {
            (Some(pending), _, Plan::AwaitWindow) => {
                format!("{name}: {} is ready and waits for its window", words(&pending.current))
            }
            (_, Some(installed), Plan::Install) if installed.served.is_some() => {
                format!("{name}: installed {}; the server shows it", words(&installed.current))
            }
            (_, Some(installed), Plan::Install) => format!("{name}: installed {}", words(&installed.current)),
            (_, Some(installed), _) if installed.served == Some(true) => {
                format!(
                    "{name}: {} is installed; the server shows it",
                    words(&installed.current)
                )
            }
            (_, Some(installed), _) => format!("{name}: {} is installed", words(&installed.current)),
            _ => format!("{name}: nothing is installed"),
        }
    }
}

fn words(current: &Current) -> String {
    format!(
        "version {}, valid until {}",
        current.facts.version, current.facts.not_after
    )
}

const NOT_PUBLISHED: &str = "no version is published under this name";
const VERSIONS: &str = "the instance needs s3:GetObject on certificates/NAME/* and kms:Decrypt with the bucket's key; S3 also says this \
                        while nothing is published under the name";

#[cfg(test)]
mod tests {
    use neverlapse::timestamp;

    use super::super::state::tests::{current, installed, pending};
    use super::*;

    #[test]
    fn what_a_person_reads() {
        // Valid from 2026-09-01 to 2026-11-30.
        let fine = timestamp!(2026-10-01 0:00 UTC);
        let late = timestamp!(2026-11-26 0:00 UTC);

        let nothing = State::default();
        let first = State {
            installed: Some(installed(1, "v1")),
            ..State::default()
        };
        let mut unseen = first.clone();
        unseen
            .installed
            .iter_mut()
            .for_each(|installed| installed.served = None);
        let ready = State {
            pending: Some(pending(2, "v2")),
            ..first.clone()
        };
        let mut failed = ready.clone();
        failed
            .pending
            .iter_mut()
            .for_each(|pending| pending.failure = Some("the reload failed".to_owned()));

        let unreachable = SourceProblem::Unreachable("no answer".to_owned());
        let denied = SourceProblem::Denied("AccessDenied".to_owned());
        let refused = SourceProblem::Refused {
            current: Box::new(current(1, "v0")),
            reason: "out of date".to_owned(),
        };
        let retry = Plan::Retry { at: fine };

        let stays = "version v1 stays installed, valid until 2026-11-30 00:00 UTC";
        for (now, state, plan, problem, failure, severity, line) in [
            (
                fine,
                &first,
                Plan::Nothing,
                None,
                None,
                Severity::Ok,
                "shop: version v1, valid until 2026-11-30 00:00 UTC is installed; the server shows it".to_owned(),
            ),
            (
                fine,
                &first,
                Plan::Install,
                None,
                None,
                Severity::Ok,
                "shop: installed version v1, valid until 2026-11-30 00:00 UTC; the server shows it".to_owned(),
            ),
            (
                fine,
                &unseen,
                Plan::Install,
                None,
                None,
                Severity::Ok,
                "shop: installed version v1, valid until 2026-11-30 00:00 UTC".to_owned(),
            ),
            (
                fine,
                &ready,
                Plan::AwaitWindow,
                None,
                None,
                Severity::Ok,
                "shop: version v2, valid until 2026-11-30 00:00 UTC is ready and waits for its window".to_owned(),
            ),
            (
                fine,
                &failed,
                retry,
                None,
                None,
                Severity::Warning,
                format!(
                    "shop: the reload failed (tried again from 2026-10-01 00:00 UTC on, or by neverlapse pull --now); {stays}"
                ),
            ),
            (
                fine,
                &failed,
                Plan::AwaitWindow,
                None,
                None,
                Severity::Warning,
                format!("shop: the reload failed (tried again in its window, or by neverlapse pull --now); {stays}"),
            ),
            (
                late,
                &failed,
                Plan::Install,
                None,
                Some("the test failed"),
                Severity::Critical,
                format!("shop: the test failed; {stays}"),
            ),
            (
                fine,
                &first,
                Plan::Nothing,
                Some(&unreachable),
                None,
                Severity::Unknown,
                format!("shop: no answer; {stays}"),
            ),
            (
                late,
                &first,
                Plan::Nothing,
                Some(&unreachable),
                None,
                Severity::Critical,
                format!("shop: no answer; {stays}"),
            ),
            (
                fine,
                &first,
                Plan::Nothing,
                Some(&denied),
                None,
                Severity::Unknown,
                format!("shop: AccessDenied; {stays}"),
            ),
            (
                fine,
                &first,
                Plan::Nothing,
                Some(&refused),
                None,
                Severity::Warning,
                format!("shop: out of date; {stays}"),
            ),
            (
                fine,
                &ready,
                Plan::Install,
                Some(&unreachable),
                Some("the test failed"),
                Severity::Warning,
                format!("shop: the test failed; {stays}"),
            ),
            (
                fine,
                &nothing,
                Plan::Nothing,
                Some(&SourceProblem::NotPublished),
                None,
                Severity::Critical,
                "shop: no version is published under this name; nothing is installed".to_owned(),
            ),
        ] {
            let outcome = Outcome {
                name: "shop",
                state,
                plan,
                problem,
                failure,
                repaired: None,
                now,
            };
            let hint = (problem == Some(&denied)).then_some(VERSIONS);
            assert_eq!(outcome.verdict(), Verdict { severity, line, hint });
        }
    }
}
