//! What holds for any sequence of runs, any certificate and any text, and not only for the cases
//! that somebody thought of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use neverlapse::alert::{CONFIRMED, Change, Memory, News, Run, State, Watchlist, decide};
use neverlapse::bucket::receipt::{Receipt, Stage};
use neverlapse::bucket::version::{Current, id, made_at};
use neverlapse::delivery::{Stored, StoredReceipt, reports};
use neverlapse::finding::{Severity, Thresholds};
use neverlapse::inventory::{Inventory, Managed};
use neverlapse::renewal::{self, Decision, Renewal, RenewalFailure};
use neverlapse::report::{self, EndpointReport, Report};
use neverlapse::text::{cut, cut_bytes, cut_utf16, utf16_length};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::json;
use time::Duration;

const START: Timestamp = timestamp!(2026-10-01 06:00 UTC);

/// What one address shows in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Fine,
    /// The wrong name, which is critical.
    Bad,
    /// An old suite, which is a warning.
    Old,
    /// It does not answer.
    Dark,
    /// DNS does not name it.
    Gone,
}

/// What happens after one run has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// People are notified, and the memory is written.
    Done,
    /// People are notified, and the memory is lost.
    Crashed,
    /// Another run wrote its memory meanwhile: both are merged.
    Merged,
}

/// One run: what each address of each endpoint shows, after how many hours, and what comes then.
type Step = (Vec<Vec<Shows>>, i64, Then);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shows = prop_oneof![
        4 => Just(Shows::Fine), 3 => Just(Shows::Bad), 2 => Just(Shows::Old), 2 => Just(Shows::Dark), 2 => Just(Shows::Gone),
    ];
    let then = prop_oneof![6 => Just(Then::Done), 1 => Just(Then::Crashed), 1 => Just(Then::Merged)];
    // More endpoints than fail together as one outage.
    let endpoints = vec(vec(shows, 2), 5);
    vec((endpoints, 1..60_i64, then), 1..14)
}

proptest! {
    #[test]
    fn alerts_lose_nothing_and_repeat_nothing_without_a_reason(steps in steps()) {
        let mut memory = Memory::Blank;
        let mut now = START;
        // By endpoint and code: when people last heard that it is there. None once it is over.
        let mut heard = BTreeMap::<(String, String), Timestamp>::new();
        let mut may_repeat = false;

        for (endpoints, hours, then) in steps {
            now = now + Duration::hours(hours);
            let report = look(&endpoints);
            let (news, state) = decided(&report, &memory, now);
            let heard_before = heard.clone();

            for (key, severity) in wrong(&report) {
                let notice = news.notices.iter().find(|notice| {
                    notice.change.is_firing() && (notice.incident.place.to_string(), notice.incident.code.to_string()) == key
                });
                prop_assert!(notice.is_some() || heard.contains_key(&key), "{key:?} was lost: {news:?}");
                let worst = notice.map_or(severity, |notice| notice.incident.severity);
                prop_assert!(worst >= severity, "{key:?} is milder than it is: {news:?}");
            }
            for notice in &news.notices {
                let incident = &notice.incident;
                let key = (incident.place.to_string(), incident.code.to_string());
                match notice.change {
                    Change::Appeared => {
                        prop_assert!(may_repeat || !heard.contains_key(&key), "{key:?} appeared twice");
                    }
                    Change::Reminder => {
                        let since = now - heard.get(&key).copied().unwrap_or(START);
                        prop_assert!(may_repeat || since >= Duration::hours(20), "{key:?} again after {since}");
                    }
                    Change::Resolved => {
                        prop_assert!(may_repeat || heard.contains_key(&key), "{key:?} is over, and never was");
                        let is_still_there = wrong(&report).contains_key(&key);
                        prop_assert!(!is_still_there, "{key:?} is over, and still there");
                        let is_unseen = incident.addresses.iter().any(|address| dark(&report, &key.0).contains(address));
                        prop_assert!(!is_unseen || incident.code.is_network(), "{key:?} is over, where nobody could look");
                    }
                    Change::Worsened | Change::NoLongerWatched => {}
                }
                if notice.change.is_firing() {
                    heard.insert(key, now);
                } else {
                    heard.remove(&key);
                }
            }
            for incident in state.incidents.values() {
                prop_assert!(incident.since <= now && incident.runs <= CONFIRMED);
                let addresses: BTreeSet<_> = incident.addresses.iter().collect();
                prop_assert_eq!(addresses.len(), incident.addresses.len(), "an address twice");
            }

            may_repeat = then != Then::Done;
            match then {
                Then::Done => memory = Memory::Known(state),
                // The memory is what it was, and so is what the next run believes that people know.
                Then::Crashed => heard = heard_before,
                Then::Merged => {
                    let Memory::Known(before) = memory else {
                        memory = Memory::Known(state);
                        continue;
                    };
                    let merged = state.clone().merged(before.clone());
                    for id in state.incidents.keys().chain(before.incidents.keys()) {
                        prop_assert!(merged.incidents.contains_key(id), "{id} is lost");
                    }
                    prop_assert_eq!(&merged.clone().merged(before), &merged, "merging twice is merging once");
                    // What is over for this run may be open for the other one.
                    for incident in merged.incidents.values() {
                        if let Some(notified) = &incident.notified {
                            let key = (incident.place.to_string(), incident.code.to_string());
                            heard.entry(key).or_insert(notified.at);
                        }
                    }
                    memory = Memory::Known(merged);
                }
            }
        }
    }

    #[test]
    fn merging_depends_on_no_order(one in steps(), other in steps()) {
        let state = |steps: Vec<Step>| {
            let mut state = State::default();
            for (index, (endpoints, ..)) in steps.iter().enumerate() {
                let now = START + Duration::days(index as i64);
                state = decided(&look(endpoints), &Memory::Known(state), now).1;
            }
            state
        };
        let (one, other) = (state(one), state(other));
        let (there, back) = (one.clone().merged(other.clone()), other.merged(one));
        let facts = |state: &State| -> Vec<_> {
            let incidents = state.incidents.iter();
            let fact = |(id, incident): (&String, &neverlapse::alert::Incident)| {
                let addresses: BTreeSet<_> = incident.addresses.iter().copied().collect();
                let notified = incident.notified.as_ref().map(|notified| notified.at);
                (id.clone(), incident.since, incident.runs, addresses, notified)
            };
            incidents.map(fact).collect()
        };
        prop_assert_eq!(facts(&there), facts(&back));
    }

    #[test]
    fn what_is_due_stays_due(days in 1..400_i64, age in 0..420_i64, later in 0..100_i64, failed in any::<bool>(), rolled_back in any::<bool>()) {
        let (certificate, current) = (managed(), current(days, rolled_back));
        let mut record = Renewal::new("shop.test");
        let now = START + Duration::days(age);
        record.failure = failed.then(|| RenewalFailure::next(None, "no".into(), None, now));
        let decide = |now| renewal::decide(&BTreeMap::new(), &certificate, Some(&current), Some(&record), None, now);

        match decide(now) {
            Decision::Due { .. } => {
                let is_due = matches!(decide(now + Duration::days(later)), Decision::Due { .. });
                prop_assert!(is_due, "it was due, and is not any more");
            }
            Decision::NotDue { next } => {
                prop_assert!(next > now && next < current.facts.not_after);
                let is_due_then = matches!(decide(next), Decision::Due { .. });
                let is_due_before = matches!(decide(next - Duration::SECOND), Decision::Due { .. });
                prop_assert!(is_due_then && !is_due_before, "{next} is not the first moment");
            }
        }
    }

    #[test]
    fn failures_never_wait_less_than_before(count in any::<u32>(), asked in prop::option::of(0..400_i64)) {
        let asked = asked.map(|days| START + Duration::days(days));
        let before = RenewalFailure { count, ..RenewalFailure::next(None, String::new(), None, START) };
        let again = RenewalFailure::next(Some(&before), String::new(), asked, START);
        let (one, two) = (again.next_try - START, RenewalFailure::next(Some(&again), String::new(), asked, START).next_try - START);
        prop_assert!(one > Duration::ZERO && two >= one && again.count >= count);
        prop_assert!(asked.is_none_or(|asked| again.next_try >= asked));
    }

    #[test]
    fn more_time_is_never_worse(warn in any::<u32>(), critical in any::<u32>(), hours in 0..20_000_i64, more in 0..20_000_i64, lifetime in 1..400_i64) {
        let thresholds = Thresholds { warn_days: warn, critical_days: critical }.ordered();
        prop_assert!(thresholds.critical_days <= thresholds.warn_days && thresholds.critical_days == critical);
        let lifetime = Duration::days(lifetime);
        let severity = |hours| {
            let crossed = thresholds.crossed(Duration::hours(hours), lifetime);
            crossed.map_or(Severity::Ok, |(severity, _)| severity)
        };
        prop_assert!(severity(hours + more) <= severity(hours));
        prop_assert_eq!(severity(hours) == Severity::Critical, Duration::hours(hours) < thresholds.critical(lifetime));
        prop_assert!(thresholds.critical_managed(lifetime) >= thresholds.critical(lifetime));
    }

    #[test]
    fn a_certificate_is_as_bad_as_its_worst_finding_and_stages_say_what_receipts_do(
        receipts in vec((0..3_usize, 0..4_usize, -50..50_i64, -50..50_i64), 0..6),
        published in 0..200_i64,
    ) {
        let now = START + Duration::days(3);
        let mut current = current(90, false);
        current.published_at = now - Duration::hours(published);
        let versions = [current.facts.version.clone(), id(START - Duration::days(60), 1), "odd".to_owned()];
        let stages = [Stage::Failed, Stage::Pulled, Stage::Installed, Stage::Served];
        let receipts: Vec<_> = (receipts.into_iter().enumerate())
            .map(|(index, (version, stage, at, next_by))| StoredReceipt {
                instance: format!("i-{index}"),
                receipt: Ok(Receipt {
                    instance: format!("i-{index}"),
                    version: versions[version].clone(),
                    stage: stages[stage],
                    at: now + Duration::hours(at),
                    next_by: now + Duration::hours(next_by),
                    ..receipt(now)
                }),
            })
            .collect();
        let stored = Stored {
            current: Ok(Some(current.clone())),
            renewal: Ok(None),
            receipts: Ok(receipts.clone()),
            history: Ok(Vec::new()),
        };
        let report = reports(&[managed()], &[stored], &[], now).remove(0);

        let worst = report.findings.iter().map(|finding| finding.severity).max();
        prop_assert_eq!(report.status, worst.unwrap_or(Severity::Ok));
        for (seen, stored) in report.instances.iter().zip(&receipts) {
            let receipt = stored.receipt.as_ref().expect("all can be read");
            let has_it = receipt.version == current.facts.version;
            prop_assert_eq!(seen.stage == report::InstanceStage::Served, has_it && receipt.stage == Stage::Served);
            prop_assert_eq!(seen.stage == report::InstanceStage::Issued, !has_it);
        }
        let is_behind = report.instances.iter().any(|seen| seen.stage < report::InstanceStage::Installed);
        let is_late = published > 72;
        prop_assert!(!(is_behind && is_late) || report.status >= Severity::Warning, "{report:?}");
    }

    #[test]
    fn no_text_is_split_within_a_character(text in any::<String>(), longest in 0..40_usize) {
        let short = cut(&text, longest);
        prop_assert!(short.chars().count() <= longest + 1 && text.starts_with(short.trim_end_matches('…')));
        let short = cut_utf16(&text, longest);
        prop_assert!(utf16_length(&short) <= longest.max(1) && text.starts_with(short.trim_end_matches('…')));
        let short = cut_bytes(&text, longest);
        prop_assert!(short.len() <= longest && text.starts_with(short) && longest - short.len() < 4 || short == text);

        let mut receipt = json!(receipt(START));
        receipt["reason"] = json!(text.repeat(longest));
        let read = Receipt::read("shop.test", "i-1", receipt.to_string().as_bytes()).expect("a receipt");
        prop_assert!(read.reason.expect("a reason").chars().count() <= 2_001);
    }

    #[test]
    fn a_version_sorts_by_the_time_that_it_names(one in 0..4_000_000_000_i64, other in 0..4_000_000_000_i64, random in any::<[u32; 2]>()) {
        let (at, then) = (Timestamp::from_unix(one), Timestamp::from_unix(other));
        let (first, second) = (id(at, random[0]), id(then, random[1]));
        prop_assert_eq!(made_at(&first), Some(at));
        prop_assert!(one == other || (one < other) == (first < second));
    }
}

fn decided(report: &Report, memory: &Memory, now: Timestamp) -> (News, State) {
    let run = Run {
        outcome: Ok(report),
        watchlist: &Watchlist::default(),
        weekly: false,
    };
    decide(&run, memory, now)
}

/// What is wrong besides the network, by place and code, with how bad it is.
fn wrong(report: &Report) -> BTreeMap<(String, String), Severity> {
    let mut wrong = BTreeMap::new();
    for endpoint in &report.endpoints {
        for (_, finding) in endpoint.all_findings().filter(|(_, finding)| !finding.is_network()) {
            let key = (endpoint.endpoint.clone(), finding.kind.code().to_string());
            let worst = wrong.entry(key).or_insert(finding.severity);
            *worst = finding.severity.max(*worst);
        }
    }
    wrong
}

/// The addresses of an endpoint that did not answer.
fn dark(report: &Report, name: &str) -> BTreeSet<SocketAddr> {
    let endpoints = report.endpoints.iter().filter(|endpoint| endpoint.endpoint == name);
    let findings = endpoints.flat_map(EndpointReport::all_findings);
    findings
        .filter(|(_, finding)| finding.is_network())
        .filter_map(|(address, _)| address)
        .collect()
}

fn endpoint_name(index: usize) -> String {
    format!("{index}.test:443")
}

fn look(endpoints: &[Vec<Shows>]) -> Report {
    let endpoints = endpoints.iter().enumerate().map(|(index, shows)| {
        let mut observations = Vec::new();
        for (last, shows) in shows.iter().enumerate() {
            let finding = match shows {
                Shows::Gone => continue,
                Shows::Fine => json!([]),
                Shows::Bad => json!([{"code": "name_mismatch", "severity": "critical", "message": "no", "expected": "a", "names": []}]),
                Shows::Old => json!([{"code": "legacy_tls", "severity": "warning", "message": "old", "version": "TLSv1.2", "cipher_suite": "x"}]),
                Shows::Dark => json!([{"code": "connect_failed", "severity": "unknown", "message": "refused", "reason": "refused"}]),
            };
            observations.push(json!({"address": format!("192.0.2.{last}:443"), "elapsed_ms": 1, "tries": 1, "findings": finding}));
        }
        let report = json!({"endpoint": endpoint_name(index), "status": "ok", "observations": observations, "findings": []});
        serde_json::from_value::<EndpointReport>(report).expect("a report")
    });
    Report::new(START, START, endpoints.collect())
}

fn managed() -> Managed {
    Inventory::parse("[[certificate]]\nidentifiers = [\"shop.test\"]\n")
        .certificates
        .remove(0)
}

fn current(days: i64, rolled_back: bool) -> Current {
    let certificate = managed();
    serde_json::from_value(json!({"schema": Current::SCHEMA, "sequence": 7, "name": "shop.test",
        "version": id(START, 0), "fingerprint": "aa", "serial": "1f", "not_before": START,
        "not_after": START + Duration::days(days), "identifiers": ["shop.test"], "key": certificate.key_type,
        "manifest_sha256": "cd", "published_at": START, "rolled_back": rolled_back,
        "issuer": {"name": certificate.issuers[0], "directory": "https://ca.test/directory", "account": "https://ca.test/1"}}))
    .expect("a pointer")
}

fn receipt(now: Timestamp) -> Receipt {
    Receipt {
        schema: Receipt::SCHEMA.into(),
        name: "shop.test".into(),
        instance: "i-1".into(),
        host: "web-1".into(),
        agent: "0".into(),
        version: id(START, 0),
        fingerprint: "aa".into(),
        stage: Stage::Pulled,
        reason: None,
        installed: None,
        sequence: None,
        not_after: None,
        since: now,
        at: now,
        next_by: now,
    }
}
