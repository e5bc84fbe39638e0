//! What a run does about a certificate: decided from what is known, without a file or a server.

use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;
use time::Duration;

use super::state::{Pending, State};
use super::window::{Window, is_urgent};

/// What a `current.json` means to an instance that has installed versions before.
///
/// Each time the pointer moves, back as well, its sequence grows by one. A lower one than is known
/// here is therefore a replay, or comes from a bucket that was created again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pointer {
    /// It is to be fetched.
    New,
    /// It is installed, or is being installed.
    Known,
    /// It has been replaced since: a later sequence is `known` here.
    OutOfDate { known: u64 },
    /// Another version had this sequence when it was last read.
    Conflict,
}

impl Pointer {
    /// Compares what the source shows with the latest that is known here.
    pub(crate) fn judge(state: &State, current: &Current) -> Self {
        let pending = state.pending.iter().map(|pending| &pending.current);
        let installed = state.installed.iter().map(|installed| &installed.current);

        match pending.chain(installed).max_by_key(|known| known.sequence) {
            None => Self::New,
            Some(known) if current.sequence > known.sequence => Self::New,
            Some(known) if current.sequence < known.sequence => Self::OutOfDate { known: known.sequence },
            Some(known) if !is_same(known, current) => Self::Conflict,
            Some(_) => Self::Known,
        }
    }

    /// Whether it is not to be believed.
    pub(crate) fn is_refused(self) -> bool {
        matches!(self, Self::OutOfDate { .. } | Self::Conflict)
    }
}

/// What is to be done about a certificate in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing: it is installed and served, or there is nothing that could be installed.
    Nothing,
    /// To switch, test, reload and check.
    Install,
    /// To wait for the hours in which changes are wanted.
    AwaitWindow,
    /// To try again, but not before `at`: it has failed too often.
    Retry { at: Timestamp },
}

/// What a plan depends on besides the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The folder that is live.
    pub(crate) live: Option<&'a str>,
    /// The hours in which changes are wanted; `None` is always.
    pub(crate) window: Option<Window>,
    /// Whether a person wants it done now, whatever window and failed tries say.
    pub(crate) at_once: bool,
    pub(crate) now: Timestamp,
}

impl Plan {
    /// When to install what is pending: now, in the window, or later after too many failures.
    pub(crate) fn of(state: &State, pending: &Pending, circumstances: Circumstances<'_>) -> Self {
        let Circumstances {
            live,
            window,
            at_once,
            now,
        } = circumstances;

        // An earlier run was cut off after the switch: what is live has not been tested, and the
        // server may not have loaded it.
        let is_half_done = live == Some(&pending.folder)
            && state
                .installed
                .as_ref()
                .is_some_and(|installed| installed.folder != pending.folder);
        if at_once || is_half_done {
            return Self::Install;
        }

        let installed = state.installed.as_ref().map(|installed| &installed.current.facts);
        let at = next_try(pending, installed.map(|installed| installed.not_after), now);
        if at > now {
            return Self::Retry { at };
        }

        // A closed window is ignored where there is nothing to lose, or much, and where a person
        // rolled back.
        let is_open = window.is_none_or(|window| window.is_open(now));
        let is_pressing = pending.current.rolled_back
            || installed.is_none_or(|installed| is_urgent(installed.not_before, installed.not_after, now));
        if is_open || is_pressing {
            Self::Install
        } else {
            Self::AwaitWindow
        }
    }

    /// Whether there is something to install, but not in this run.
    pub(crate) fn is_postponed(self) -> bool {
        matches!(self, Self::AwaitWindow | Self::Retry { .. })
    }
}

/// What can be installed without the source: work whose folder is on the disk and is not what is
/// installed.
pub(crate) fn unfinished<'a>(state: &'a State, folders: &[String]) -> Option<&'a Pending> {
    let installed = state.installed.as_ref().map(|installed| &installed.folder);
    state
        .pending
        .as_ref()
        .filter(|pending| installed != Some(&pending.folder) && folders.contains(&pending.folder))
}

/// When pending work is tried again, on an instance whose certificate is valid until `not_after`.
///
/// The first tries come in every run. After that the pauses double, up to a day, but are never
/// longer than a quarter of the time that was left when it was last tried.
fn next_try(pending: &Pending, not_after: Option<Timestamp>, now: Timestamp) -> Timestamp {
    // A try in the future was dated by a clock that was ahead.
    let Some(tried) = pending
        .tried
        .filter(|tried| *tried <= now && pending.attempts >= IN_EVERY_RUN)
    else {
        return now;
    };

    let doublings = (pending.attempts - IN_EVERY_RUN + 1).min(5);
    let pause = (Duration::HOUR * (1_i32 << doublings)).min(Duration::DAY);
    let quarter = not_after.map_or(pause, |not_after| (not_after - tried).max(Duration::ZERO) / 4);

    tried + (pause.min(quarter) - EARLY).max(Duration::ZERO)
}

fn is_same(one: &Current, other: &Current) -> bool {
    one.facts.version == other.facts.version && one.manifest_sha256 == other.manifest_sha256
}

/// Whatever made a try fail is often gone an hour later.
const IN_EVERY_RUN: u32 = 3;
/// Timers are not exact. Without this, the run that is meant would come a minute too early, and the
/// next one an hour too late.
const EARLY: Duration = Duration::minutes(10);

#[cfg(test)]
mod tests {
    use neverlapse::timestamp;

    use super::super::state::tests::{current, installed, pending};
    use super::*;

    const NOON: Timestamp = timestamp!(2026-10-01 12:00 UTC);

    #[test]
    fn what_a_pointer_means() {
        let nothing = State::default();
        let second = State {
            installed: Some(installed(2, "v2")),
            ..State::default()
        };
        let third_pending = State {
            pending: Some(pending(3, "v3")),
            ..second.clone()
        };
        let again = State {
            pending: Some(pending(2, "v2")),
            ..second.clone()
        };

        for (state, sequence, version, expected) in [
            (&nothing, 1, "v1", Pointer::New),
            (&second, 3, "v3", Pointer::New),
            (&second, 3, "v1", Pointer::New),
            (&second, 2, "v2", Pointer::Known),
            (&second, 2, "other", Pointer::Conflict),
            (&second, 1, "v1", Pointer::OutOfDate { known: 2 }),
            (&third_pending, 3, "v3", Pointer::Known),
            (&third_pending, 2, "v2", Pointer::OutOfDate { known: 3 }),
            (&third_pending, 4, "v4", Pointer::New),
            (&again, 2, "v2", Pointer::Known),
        ] {
            assert_eq!(
                Pointer::judge(state, &current(sequence, version)),
                expected,
                "{sequence} {version}"
            );
        }

        let mut twin = current(2, "v2");
        twin.manifest_sha256 = "0".repeat(64);
        assert_eq!(Pointer::judge(&second, &twin), Pointer::Conflict);
    }

    #[test]
    fn when_it_is_installed() {
        let open = "11:00-13:00".parse().ok();
        let closed = "02:00-04:00".parse().ok();
        assert!(open.is_some() && closed.is_some());
        let plain = Circumstances {
            live: Some("v1"),
            window: None,
            at_once: false,
            now: NOON,
        };
        let in_window = Circumstances { window: open, ..plain };
        let outside = Circumstances {
            window: closed,
            ..plain
        };

        let with = |left: Duration| {
            let mut installed = installed(1, "v1");
            installed.current.facts.not_before = NOON + left - Duration::days(90);
            installed.current.facts.not_after = NOON + left;
            State {
                installed: Some(installed),
                ..State::default()
            }
        };
        let fine = with(Duration::days(60));
        let urgent = with(Duration::days(5));
        let nothing = State::default();

        let new = pending(2, "v2");
        let mut rolled_back = new.clone();
        rolled_back.current.rolled_back = true;
        let mut failed = new.clone();
        (failed.attempts, failed.tried) = (3, Some(NOON - Duration::HOUR));
        let later = Plan::Retry {
            at: NOON + Duration::minutes(50),
        };

        for (what, state, pending, circumstances, expected) in [
            ("without a window", &fine, &new, plain, Plan::Install),
            ("in its window", &fine, &new, in_window, Plan::Install),
            ("outside", &fine, &new, outside, Plan::AwaitWindow),
            (
                "outside, by hand",
                &fine,
                &new,
                Circumstances {
                    at_once: true,
                    ..outside
                },
                Plan::Install,
            ),
            ("outside, rolled back", &fine, &rolled_back, outside, Plan::Install),
            ("outside, little time left", &urgent, &new, outside, Plan::Install),
            ("outside, nothing installed", &nothing, &new, outside, Plan::Install),
            (
                "outside, switched and cut off",
                &fine,
                &new,
                Circumstances {
                    live: Some("v2"),
                    ..outside
                },
                Plan::Install,
            ),
            ("failed too often", &fine, &failed, plain, later),
            ("failed too often, outside", &fine, &failed, outside, later),
            (
                "failed too often, by hand",
                &fine,
                &failed,
                Circumstances { at_once: true, ..plain },
                Plan::Install,
            ),
            (
                "failed too often, cut off",
                &fine,
                &failed,
                Circumstances {
                    live: Some("v2"),
                    ..plain
                },
                Plan::Install,
            ),
        ] {
            assert_eq!(Plan::of(state, pending, circumstances), expected, "{what}");
        }

        // The server lost what is installed: these files are live, and no switch was cut off.
        let again = pending(1, "v1");
        assert_eq!(Plan::of(&fine, &again, outside), Plan::AwaitWindow);
    }

    #[test]
    fn what_can_be_finished_without_the_source() {
        let folders = ["v1".to_owned(), "v2".to_owned()];
        for (installed_folder, pending_folder, expected) in [
            (None, None, false),
            (Some("v1"), None, false),
            (Some("v1"), Some("v2"), true),
            (None, Some("v2"), true),
            (Some("v1"), Some("v1"), false),
            (Some("v1"), Some("v3"), false),
        ] {
            let state = State {
                installed: installed_folder.map(|folder| installed(1, folder)),
                pending: pending_folder.map(|folder| pending(2, folder)),
                ..State::default()
            };
            assert_eq!(
                unfinished(&state, &folders).is_some(),
                expected,
                "{installed_folder:?} {pending_folder:?}"
            );
        }
    }

    #[test]
    fn a_version_that_never_passes_was_switched_and_reloaded_every_hour_for_ever() {
        let start = timestamp!(2026-10-01 0:00 UTC);
        let far = Some(start + Duration::days(80));
        let mut pending = pending(1, "v");
        let tries = |pending: &mut Pending, until, hours: i64| {
            let hours = (0..hours).filter(|hour| {
                let now = start + Duration::hours(*hour);
                let due = now >= next_try(pending, until, now);
                if due {
                    pending.count(now);
                    pending.count(now);
                }
                due
            });
            hours.collect::<Vec<_>>()
        };

        let expected = [0, 1, 2, 4, 8, 16, 32, 56, 80];
        assert_eq!(tries(&mut pending.clone(), far, 90), expected);
        assert_eq!(tries(&mut pending.clone(), None, 90), expected, "nothing is installed");

        let short = Some(start + Duration::hours(40));
        assert_eq!(tries(&mut pending.clone(), short, 33), [0, 1, 2, 4, 8, 16, 22, 27, 31]);
        assert_eq!(tries(&mut pending.clone(), Some(start), 30).len(), 30, "it has expired");

        pending.tried = Some(start + Duration::days(400));
        assert_eq!(tries(&mut pending, far, 2), [0, 1], "the clock was ahead");
    }
}
