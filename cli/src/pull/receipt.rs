//! What an instance reports about a certificate: its receipt, made from how a run ended.

use neverlapse::bucket::receipt::{Receipt, Stage};
use time::Duration;

use super::outcome::{Outcome, SourceProblem};
use super::state::State;

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter<'a> {
    /// The name under which its receipts are kept.
    pub(crate) instance: &'a str,
    /// Its host name.
    pub(crate) host: &'a str,
    /// How often it runs.
    pub(crate) runs_every: Duration,
}

/// The receipt of a run; none before the instance has ever seen a version.
///
/// It is about the version that the source shows, believed or not, and says how far that one came,
/// and which one is installed instead.
pub(crate) fn receipt(outcome: &Outcome<'_>, reporter: Reporter<'_>) -> Option<Receipt> {
    let State {
        installed,
        pending,
        seen,
        receipt: last,
        ..
    } = outcome.state;
    let now = outcome.now;

    let shown = match outcome.problem {
        Some(SourceProblem::Refused { current, .. }) => Some(&**current),
        _ => seen.as_ref().map(|seen| &seen.current),
    };
    let facts = &shown
        .or(pending.as_ref().map(|pending| &pending.current))
        .or(outcome.installed())?
        .facts;

    // An unreachable source is no failure of the version: the probe notices it by the silence.
    let failure = match (outcome.failure, outcome.problem) {
        (Some(failure), _) => Some(failure),
        (
            None,
            Some(
                SourceProblem::Refused { reason, .. } | SourceProblem::Failed(reason) | SourceProblem::Damaged(reason),
            ),
        ) => Some(reason.as_str()),
        _ => outcome.past_failure(),
    };
    let stage = match installed {
        _ if failure.is_some() => Stage::Failed,
        Some(installed) if installed.current.facts.version == facts.version => match installed.served {
            Some(true) => Stage::Served,
            Some(false) | None => Stage::Installed,
        },
        _ => Stage::Pulled,
    };

    let since = last
        .as_ref()
        .filter(|last| last.version == facts.version && last.stage == stage)
        // Not later than now: a clock may have been ahead.
        .map_or(now, |last| last.since.min(now));
    let installed = outcome.installed();
    Some(Receipt {
        schema: Receipt::SCHEMA.to_owned(),
        name: outcome.name.to_owned(),
        instance: reporter.instance.to_owned(),
        host: reporter.host.to_owned(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        version: facts.version.clone(),
        fingerprint: facts.fingerprint.clone(),
        stage,
        reason: failure.or(outcome.unseen()).or(outcome.repaired).map(str::to_owned),
        installed: installed
            .map(|current| current.facts.version.clone())
            .filter(|installed| *installed != facts.version),
        sequence: installed.map(|current| current.sequence),
        not_after: installed.map(|current| current.facts.not_after),
        since,
        at: now,
        next_by: now + SILENT.max(reporter.runs_every * 3),
    })
}

/// Whether the receipt that was last written stands for the new one as well: nothing has changed,
/// and more than half of the time until the next one is due is left.
pub(crate) fn still_stands(last: &Receipt, new: &Receipt) -> bool {
    let is_same = *last
        == Receipt {
            at: last.at,
            next_by: last.next_by,
            ..new.clone()
        };
    // One from a clock that was ahead would keep us silent until then.
    let is_from_the_past = last.at <= new.at;

    is_same && is_from_the_past && new.at < last.at + (last.next_by - last.at) / 2
}

/// How long an instance may be silent; its receipts are written twice in this time.
const SILENT: Duration = Duration::hours(26);

#[cfg(test)]
mod tests {
    use neverlapse::timestamp;
    use neverlapse::timestamp::Timestamp;

    use super::super::plan::Plan;
    use super::super::state::Shown;
    use super::super::state::tests::{current, installed, pending};
    use super::*;

    const NOW: Timestamp = timestamp!(2026-10-01 12:00 UTC);
    const WEB: Reporter<'_> = Reporter {
        instance: "web-1",
        host: "web",
        runs_every: Duration::HOUR,
    };

    fn of(state: &State, problem: Option<&SourceProblem>, failure: Option<&str>) -> Option<Receipt> {
        let outcome = Outcome {
            name: "shop",
            state,
            plan: Plan::Nothing,
            problem,
            failure,
            repaired: None,
            now: NOW,
        };
        receipt(&outcome, WEB)
    }

    fn seen(sequence: u64, version: &str) -> Option<Shown> {
        Some(Shown {
            source: "s3://bucket".into(),
            tag: "tag".into(),
            current: current(sequence, version),
        })
    }

    #[test]
    fn how_far_which_version_came() {
        let first = State {
            installed: Some(installed(1, "v1")),
            seen: seen(1, "v1"),
            ..State::default()
        };
        let mut unseen = first.clone();
        unseen
            .installed
            .iter_mut()
            .for_each(|installed| installed.served = None);
        let ready = State {
            pending: Some(pending(2, "v2")),
            seen: seen(2, "v2"),
            ..first.clone()
        };
        let mut failed = ready.clone();
        failed
            .pending
            .iter_mut()
            .for_each(|pending| pending.failure = Some("earlier".into()));
        let forgotten = State {
            seen: None,
            ..ready.clone()
        };

        let unreachable = SourceProblem::Unreachable("no answer".into());
        let broken = SourceProblem::Failed("broken".into());
        let refused = SourceProblem::Refused {
            current: Box::new(current(0, "v0")),
            reason: "out of date".into(),
        };

        let served = Stage::Served;
        for (what, state, problem, failure, version, stage, reason, instead) in [
            ("served", &first, None, None, "v1", served, None, None),
            (
                "installed, without verify",
                &unseen,
                None,
                None,
                "v1",
                Stage::Installed,
                None,
                None,
            ),
            ("ready", &ready, None, None, "v2", Stage::Pulled, None, Some("v1")),
            (
                "ready, pointer unknown",
                &forgotten,
                None,
                None,
                "v2",
                Stage::Pulled,
                None,
                Some("v1"),
            ),
            (
                "failed now",
                &ready,
                None,
                Some("now"),
                "v2",
                Stage::Failed,
                Some("now"),
                Some("v1"),
            ),
            (
                "failed before",
                &failed,
                None,
                None,
                "v2",
                Stage::Failed,
                Some("earlier"),
                Some("v1"),
            ),
            (
                "unreachable",
                &first,
                Some(&unreachable),
                None,
                "v1",
                served,
                None,
                None,
            ),
            (
                "unreachable, failed before",
                &failed,
                Some(&unreachable),
                None,
                "v2",
                Stage::Failed,
                Some("earlier"),
                Some("v1"),
            ),
            (
                "broken",
                &first,
                Some(&broken),
                None,
                "v1",
                Stage::Failed,
                Some("broken"),
                None,
            ),
            (
                "refused",
                &first,
                Some(&refused),
                None,
                "v0",
                Stage::Failed,
                Some("out of date"),
                Some("v1"),
            ),
            (
                "refused, failed now",
                &ready,
                Some(&refused),
                Some("now"),
                "v0",
                Stage::Failed,
                Some("now"),
                Some("v1"),
            ),
        ] {
            let receipt = of(state, problem, failure).unwrap();
            assert_eq!(
                (
                    &*receipt.version,
                    receipt.stage,
                    receipt.reason.as_deref(),
                    receipt.installed.as_deref()
                ),
                (version, stage, reason, instead),
                "{what}"
            );
            assert_eq!(
                (receipt.sequence, receipt.since, receipt.at),
                (Some(1), NOW, NOW),
                "{what}"
            );
        }

        assert_eq!(
            of(&State::default(), Some(&unreachable), None),
            None,
            "nothing is known yet"
        );
    }

    #[test]
    fn since_when_it_has_been_that_far() {
        let earlier = NOW - Duration::HOUR;
        let mut state = State {
            installed: Some(installed(1, "v1")),
            ..State::default()
        };
        state.receipt = of(&state, None, None);

        for (stage, since, expected) in [
            (Stage::Served, earlier, earlier),
            (Stage::Installed, earlier, NOW),
            (Stage::Served, NOW + Duration::DAY, NOW),
        ] {
            state
                .receipt
                .iter_mut()
                .for_each(|last| (last.stage, last.since) = (stage, since));
            assert_eq!(of(&state, None, None).unwrap().since, expected, "{stage} {since}");
        }
    }

    #[test]
    fn it_is_written_when_something_is_new_or_half_of_the_time_is_over() {
        let state = State {
            installed: Some(installed(1, "v1")),
            ..State::default()
        };
        let last = of(&state, None, None).unwrap();
        assert_eq!(last.next_by, NOW + Duration::hours(26));

        let after = |pause: Duration| Receipt {
            at: NOW + pause,
            next_by: NOW + pause + Duration::hours(26),
            ..last.clone()
        };
        assert!(still_stands(&last, &after(Duration::ZERO)));
        assert!(still_stands(&last, &after(Duration::hours(12))));
        assert!(!still_stands(&last, &after(Duration::hours(13))));
        assert!(!still_stands(&last, &after(-Duration::HOUR)), "the clock was ahead");

        let other = Receipt {
            reason: Some("new".into()),
            ..after(Duration::HOUR)
        };
        assert!(!still_stands(&last, &other));
    }
}
