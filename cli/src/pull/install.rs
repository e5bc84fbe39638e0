//! Installs what is ready: switch, test, reload and check, and back again where the server does not
//! take it.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::budget::Budget;
use super::config::Wanted;
use super::handshake::Seen;
use super::journal::Journal;
use super::program::{CommandFailure, Variables};
use super::work::{Back, Work, renewed};

/// Why certificates could not be installed, by their names.
pub(crate) type Failures<'a> = BTreeMap<&'a str, String>;

/// Installs certificates with the same commands: one test and one reload for all of them, or as few
/// as possible where some do not pass.
pub(crate) async fn install<'a>(mut batch: Vec<&mut Work<'a>>, budget: Budget, journal: Journal) -> Failures<'a> {
    let mut failures = Failures::new();
    let mut parts = vec![&mut batch[..]];

    while let Some(part) = parts.pop() {
        let tried = attempt(part, budget, journal).await;
        // One of them may be at fault, and must not hold up the others. Halves of halves lead to it
        // with few reloads: each may leave a server with one more set of workers.
        if tried.rejected == Some(Rejected::Failed) && part.len() > 1 {
            let (first, second) = part.split_at_mut(part.len() / 2);
            parts.extend([second, first]);
        } else {
            failures.extend(tried.failures);
        }
    }
    failures
}

/// What came of one test and one reload.
#[derive(Default)]
struct Installation<'a> {
    /// Whether the test or the reload failed: it does not say which certificate is at fault.
    rejected: Option<Rejected>,
    failures: Failures<'a>,
}

/// How a test or a reload failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejected {
    Failed,
    /// It would hang again for each half, and take the whole time of the run.
    TimedOut,
}

/// A certificate whose new version is live.
struct Switched<'w, 'a> {
    work: &'w mut Work<'a>,
    back: Back,
}

/// Tries to install certificates with the same commands: switches, tests, reloads and checks. What
/// does not pass is switched back, and the server reloaded if it may have seen the new files.
async fn attempt<'a>(batch: &mut [&mut Work<'a>], budget: Budget, journal: Journal) -> Installation<'a> {
    let mut installation = Installation::default();

    let mut switched = Vec::new();
    for work in batch {
        let wanted = work.wanted;
        let variables = renewed([&**work]);
        match installation.switch(work) {
            Ok(work) => switched.push(work),
            Err(Back::WasLive) => reload_old(wanted, &variables, budget, journal).await,
            Err(Back::Nothing | Back::Switched) => {}
        }
    }
    let Some(wanted) = switched.first().map(|switched| switched.work.wanted) else {
        return installation;
    };

    let variables = renewed(switched.iter().map(|switched| &*switched.work));
    if let Some(test) = &wanted.test
        && let Err(failure) = test.run(&variables, budget.limit(wanted.timeout)).await
    {
        let back = installation.reject(switched, "the test failed", &failure);
        // Nothing was reloaded. But a server may have started, or have been started again, since an
        // earlier run switched and was cut off.
        if back == Back::WasLive {
            reload_old(wanted, &variables, budget, journal).await;
        }
        return installation;
    }

    if let Err(failure) = reload(wanted, &variables, budget).await {
        let back = installation.reject(switched, "the reload failed", &failure);
        if back > Back::Nothing {
            reload_old(wanted, &variables, budget, journal).await;
        }
        return installation;
    }

    // All together: a server that is down takes its whole time.
    let checks: Vec<_> = stream::iter(switched.iter().map(|switched| switched.work.check(budget)))
        .buffered(TOGETHER)
        .collect()
        .await;
    let mut back = Back::Nothing;
    for (switched, check) in switched.into_iter().zip(checks) {
        match check {
            Seen::Another(reason) => {
                back = back.max(installation.not_served(switched, format!("after the reload {reason}")));
            }
            seen => installation.finish(switched, &seen),
        }
    }
    if back > Back::Nothing {
        reload_old(wanted, &variables, budget, journal).await;
    }
    installation
}

impl<'a> Installation<'a> {
    /// Makes the new version live. The error is what servers may have seen of it nevertheless.
    fn switch<'w>(&mut self, work: &'w mut Work<'a>) -> Result<Switched<'w, 'a>, Back> {
        let back = match work.begin() {
            Ok(back) => back,
            Err(error) => {
                self.fail(work, format!("{error:#}"));
                return Err(Back::Nothing);
            }
        };

        match work.switch() {
            Ok(()) => Ok(Switched { work, back }),
            // It may have happened, such as when only the fsync after it failed.
            Err(error) => Err(self.back_out(Switched { work, back }, format!("{error:#}"))),
        }
    }

    /// It is tested and loaded, and as far as anybody could look no server has another one: to go
    /// back would gain nothing.
    fn finish(&mut self, switched: Switched<'_, 'a>, seen: &Seen) {
        let Switched { work, .. } = switched;
        if let Err(error) = work.finish(seen) {
            self.failures.insert(&work.wanted.name, format!("{error:#}"));
        }
    }

    /// The server accepted the new version but does not serve it. Goes back, unless the old one has
    /// expired, or nobody knows when it does: then the new one is better, served or not.
    fn not_served(&mut self, switched: Switched<'_, 'a>, reason: String) -> Back {
        let Switched { work, .. } = &switched;
        let installed = work.state.installed.as_ref();
        if installed.is_some_and(|installed| installed.current.facts.not_after > work.now) {
            return self.back_out(switched, reason);
        }

        let reason = match work.stay() {
            Ok(()) => reason,
            Err(error) => format!("{reason}; and {error:#}"),
        };
        self.fail(switched.work, reason);
        Back::Nothing
    }

    /// The test or the reload failed, and all go back. Answers with the most that servers may have
    /// seen.
    fn reject(&mut self, all: Vec<Switched<'_, 'a>>, what: &str, failure: &CommandFailure) -> Back {
        self.rejected = Some(if failure.timed_out {
            Rejected::TimedOut
        } else {
            Rejected::Failed
        });

        let mut most = Back::Nothing;
        for switched in all {
            most = most.max(self.back_out(switched, format!("{what}: {}", failure.reason)));
        }
        most
    }

    /// Makes the old version live again. Answers with what servers may have seen of the new one.
    fn back_out(&mut self, switched: Switched<'_, 'a>, reason: String) -> Back {
        let Switched { work, back } = switched;

        let went_back = match back {
            Back::Nothing => Ok(()),
            Back::Switched | Back::WasLive => work.switch_back(),
        };
        match went_back {
            Ok(()) => {
                self.fail(work, reason);
                back
            }
            Err(error) => {
                self.fail(work, format!("{reason}; and {error:#}"));
                Back::Nothing
            }
        }
    }

    fn fail(&mut self, work: &mut Work<'a>, reason: String) {
        let reason = work.put_off(reason);
        self.failures.insert(&work.wanted.name, reason);
    }
}

async fn reload(wanted: &Wanted, variables: &Variables, budget: Budget) -> Result<(), CommandFailure> {
    match &wanted.reload {
        Some(reload) => reload.run(variables, budget.limit(wanted.timeout)).await,
        None => Ok(()),
    }
}

/// Has the server load the old files, now that they are back.
async fn reload_old(wanted: &Wanted, variables: &Variables, budget: Budget, journal: Journal) {
    if let Err(failure) = reload(wanted, variables, budget).await {
        journal.error(&format!(
            "{}: the old files are back, but {}",
            wanted.name, failure.reason
        ));
    }
}

/// This many servers are probed at the same time: one that is down then takes the time of one
/// probe, not of a hundred.
const TOGETHER: usize = 50;
