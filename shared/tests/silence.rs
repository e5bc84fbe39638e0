//! Sequences of runs that once ended in silence, in a storm of messages, or in "it is over" when it
//! was not.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use neverlapse::alert::{Change, Digest, Memory, Notice, Run, Sender, Watchlist, closing, decide, digest};
use neverlapse::bucket::receipt::{Receipt, Stage};
use neverlapse::bucket::version::{self, Current, Facts, IssuedBy};
use neverlapse::delivery::{self, Known, Stored, StoredReceipt, join};
use neverlapse::finding::Severity;
use neverlapse::inventory::{Inventory, KeyType, Managed};
use neverlapse::renewal::{Renewal, RenewalFailure};
use neverlapse::report::page::page;
use neverlapse::report::{CertificateReport, EndpointIndex, EndpointReport, Report, StoredVersion};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use serde_json::{Value, json};
use time::Duration;

const START: Timestamp = timestamp!(2026-10-01 06:00 UTC);

/// DNS that gives out a part, IPv6 that is left out, an address that is dark: none of them had
/// shown that it was mended.
#[test]
fn a_bad_address_that_was_not_seen_was_said_to_be_over() {
    for (runs, expected) in [
        ("1 bad, 2 fine; 1 fine, 2 fine", "new; over"),
        ("1 bad, 2 fine; 2 fine; 1 bad, 2 fine", "new; -; -"),
        ("1 bad, 2 fine; 2 fine; 2 fine", "new; -; over"),
        (
            "1 bad, 2 fine; 2 fine; 1 dark, 2 fine; 2 fine; 2 fine",
            "new; -; -; -; over",
        ),
        ("1 bad; 2 fine, 1 skipped; 2 fine, 1 skipped; 1 fine", "new; -; -; over"),
        ("1 bad, 2 fine; 1 dark, 2 fine; 1 fine, 2 fine", "new; -; over"),
        ("1 bad, 2 bad; 1 fine; 2 fine", "new; -; over"),
        ("1 bad, 2 bad; 1 bad; 1 fine; 1 fine", "new; -; over; -"),
        ("1 bad; not reached; 1 fine", "new; -; over"),
        (
            "1 old, 2 fine; 2 fine; 1 old, 2 fine; 1 fine, 2 fine",
            "new; -; -; over",
        ),
        // It was only that it could not be reached.
        ("1 dark, 2 dark; 1 dark, 2 dark; 1 fine, 2 skipped", "-; new; over"),
    ] {
        let mut memory = Memory::Blank;
        let mut said = Vec::new();
        for (hour, run) in runs.split("; ").enumerate() {
            let mut report = Report::new(START, START, Vec::new());
            match run {
                "not reached" => report.not_reached.push("a.test:443".to_owned()),
                run => report.endpoints.push(look("a.test:443", run)),
            }
            let (notices, _) = tell(&mut memory, &report, START + Duration::hours(hour as i64));
            let about_it = notices
                .iter()
                .filter(|(_, code)| code != "not_reached")
                .map(|(change, _)| *change);
            said.push(about_it.collect::<Vec<_>>().first().map_or("-", |change| word(*change)));
        }
        assert_eq!(said.join("; "), expected, "{runs}");
    }
}

/// One address, and two servers behind it of which one has an old certificate: each run saw one of
/// them, and people got an alert one day and "it is over" the next.
#[test]
fn two_servers_behind_an_address_alternated_between_an_alert_and_its_end() {
    const GOOD: &str = "2027-01-01T00:00:00Z";
    const BAD: &str = "2026-11-01T00:00:00Z";
    const OTHER: &str = "2026-11-02T00:00:00Z";
    let days = |runs: &[(&str, &str)]| {
        let mut memory = Memory::Blank;
        let mut said = Vec::new();
        let mut last = String::new();
        for (day, (shows, not_after)) in runs.iter().enumerate() {
            let mut endpoint = serde_json::to_value(look("a.test:443", shows)).unwrap();
            endpoint["not_after"] = json!(not_after);
            let endpoint = serde_json::from_value(endpoint).unwrap();
            let report = Report::new(START, START, vec![endpoint]);
            let now = START + Duration::days(day as i64);
            let (notices, digest) = tell(&mut memory, &report, now);
            said.push(notices.first().map_or("-", |(change, _)| word(*change)));
            last = digest.map_or(last, |digest| digest.text(&sender(), 10_000));
        }
        (said.join("; "), last)
    };
    let (bad, fine) = (("1 bad", BAD), ("1 fine", GOOD));

    let (said, text) = days(&[bad, fine, bad, fine, bad, fine, fine, bad]);
    assert_eq!(said, "new; over; new; again; again; again; again; again");
    assert!(
        text.contains("is not for a.test; it comes and goes: the run of 2026-10-07 06:00 UTC saw nothing of it"),
        "{text}"
    );
    // The server was mended.
    let (said, _) = days(&[bad, fine, bad, fine, fine, fine, fine, fine, fine, bad]);
    assert_eq!(said, "new; over; new; again; again; again; again; over; -; new");

    // Another certificate is another story, and so is the network.
    let (said, _) = days(&[bad, fine, ("1 bad", OTHER), fine]);
    assert_eq!(said, "new; over; new; over");
    let dark = ("1 dark", BAD);
    let (said, _) = days(&[dark, dark, fine, dark, dark, fine]);
    assert_eq!(said, "-; new; over; -; new; over");
    // After a week it is news.
    let mut runs = vec![bad];
    runs.extend([fine; 8]);
    runs.extend([bad, fine]);
    assert!(days(&runs).0.ends_with("; new; over"), "{}", days(&runs).0);
}

/// What nobody can see any more was told once, and never again.
#[test]
fn what_is_out_of_sight_was_out_of_mind() {
    let mut memory = Memory::Blank;
    let run = |runs: &str| Report::new(START, START, vec![look("a.test:443", runs)]);
    tell(&mut memory, &run("1 bad"), START);
    let (said, digest) = tell(&mut memory, &run("2 fine, 1 skipped"), START + Duration::DAY);
    assert_eq!(said, [(Change::Reminder, "name_mismatch".to_owned())]);
    let text = digest.unwrap().text(&sender(), 10_000);
    assert!(text.contains("(nothing shows that it is over)"), "{text}");
}

/// A run's clock was a year ahead: for a year, nobody was reminded of anything.
#[test]
fn a_message_from_the_future_silenced_the_reminders() {
    let mut memory = Memory::Blank;
    let report = Report::new(START, START, vec![look("a.test:443", "1 bad")]);
    let changes = [365, 0, 0, 1].map(|day| {
        let (said, _) = tell(&mut memory, &report, START + Duration::days(day));
        said.first().map_or("-", |(change, _)| word(*change))
    });
    assert_eq!(changes, ["new", "again", "-", "again"]);
}

/// Lateness was counted from the newest version: with six-day certificates each came before the one
/// before it was late.
#[test]
fn every_new_version_gave_a_stuck_instance_another_day() {
    let mut world = World::new("");
    world.publish(START);
    world.receipt("i-1", Stage::Served, START);
    let old = world.current.clone().unwrap();
    let mut arrived = Vec::new();
    for day in 1..=9 {
        let now = START + Duration::days(day);
        if day % 3 == 0 {
            world.publish(now - Duration::HOUR);
        }
        // Its client lives, and does not get further.
        world.receipt_for(&old, "i-1", Stage::Served, now);
        let (said, subject) = world.run(now);
        arrived.extend(
            said.into_iter()
                .map(|(change, code)| format!("{day} {} {code}: {subject}", word(change))),
        );
    }
    assert_eq!(
        arrived,
        [
            "4 new not_pulled: WARNING: certificate shop.test, an instance has not installed it",
            // Three days late, or its certificate has ended.
            "6 worse not_pulled: CRITICAL: certificate shop.test, an instance has not installed it",
            "7 again not_pulled: CRITICAL: certificate shop.test, an instance has not installed it",
            "8 again not_pulled: CRITICAL: certificate shop.test, an instance has not installed it",
            "9 again not_pulled: CRITICAL: certificate shop.test, an instance has not installed it",
        ]
    );
    let now = START + Duration::days(10);
    world.receipt("i-1", Stage::Served, now);
    let (said, subject) = world.run(now);
    assert_eq!(said, [(Change::Resolved, "not_pulled".to_owned())]);
    assert!(
        subject.starts_with("OK: certificate shop.test, valid until 2026-10-1"),
        "{subject}"
    );
}

/// An old client does not say what it has, and the versions that are kept cannot be listed: then
/// two versions are enough.
#[test]
fn without_a_history_nothing_was_ever_late() {
    let mut world = World::new("");
    for (sequence, ends_in, expected) in [
        (Some(3), 9, None),
        (Some(2), 9, Some(Severity::Warning)),
        (None, 9, None),
        (Some(3), 0, Some(Severity::Critical)),
    ] {
        (world.current, world.history) = (None, Vec::new());
        for hour in 0..4 {
            world.publish(START + Duration::hours(hour));
        }
        world.history.clear();
        let now = START + Duration::hours(5);
        let old = world.current.clone().unwrap();
        world.receipt_for(&old, "i-1", Stage::Served, now);
        let receipt = world.receipts.first_mut().unwrap();
        receipt.version = "20260101T000000Z-00000000".to_owned();
        (receipt.sequence, receipt.not_after) = (sequence, Some(now + Duration::days(ends_in)));
        let severity = world.report(now).findings.first().map(|finding| finding.severity);
        assert_eq!(severity, expected, "{sequence:?} {ends_in}");
    }
}

/// One instance could stop every run, before any alert and any renewal: its receipt named a time
/// that UTC does not have, and the probe panicked where it printed that.
#[test]
fn one_receipt_at_the_end_of_time_stopped_every_run() {
    let beyond = ["9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00+00:01"];
    let extreme = ["9999-12-31T23:59:59.999999999Z", "0000-01-01T00:00:00Z"];
    for field in ["since", "at", "next_by", "not_after"] {
        for time in beyond.iter().chain(&extreme) {
            for stage in ["failed", "pulled", "installed", "served"] {
                let mut world = World::new("");
                world.publish(START);
                let mut receipt = json!({"schema": Receipt::SCHEMA, "name": "", "instance": "", "host": "web", "agent": "",
                    "version": world.current.as_ref().unwrap().facts.version, "fingerprint": "", "stage": stage,
                    "sequence": u64::MAX, "since": START, "at": START, "next_by": START + Duration::DAY});
                receipt[field] = json!(time);
                let receipt = Receipt::read("shop.test", "i-1", receipt.to_string().as_bytes());
                assert_eq!(receipt.is_err(), beyond.contains(time), "{field} = {time}");

                let mut report = Report::new(START, START, vec![look("a.test:443", "1 bad")]);
                let told = StoredReceipt {
                    instance: "i-1".into(),
                    receipt,
                };
                report.certificates = vec![world.report_with(vec![told], START)];
                let (said, _) = tell(&mut Memory::Blank, &report, START);
                let html = page(&report, Some("prod")).unwrap();

                let bad = (Change::Appeared, "name_mismatch".to_owned());
                assert!(said.contains(&bad), "{field} = {time}: {said:?}");
                let not_a_receipt = (Change::Appeared, "receipt_unreadable".to_owned());
                assert_eq!(said.contains(&not_a_receipt), beyond.contains(time), "{said:?}");
                assert!(html.contains("shop.test"));
            }
        }
    }
}

/// Published is not served: "resolved: a new certificate is served" came from the bucket's date
/// alone.
#[test]
fn published_was_said_to_be_served() {
    for (receipt, at, expected) in [
        (None, None, "OK: certificate shop.test, renewed again"),
        (Some(Stage::Installed), None, "OK: certificate shop.test, renewed again"),
        (
            Some(Stage::Served),
            None,
            "OK: certificate shop.test, valid until 2026-10-11",
        ),
        (
            Some(Stage::Served),
            Some("1 old"),
            "CRITICAL: certificate shop.test, a different certificate is served",
        ),
        (
            None,
            Some("1 fine"),
            "OK: certificate shop.test, valid until 2026-10-11",
        ),
        (None, Some("1 dark"), "OK: certificate shop.test, renewed again"),
    ] {
        let mut world = World::new(if at.is_some() { "served_at = [\"a.test\"]\n" } else { "" });
        world.publish(START);
        world.receipts.clear();
        world.fails(START);
        let (said, _) = world.run(START + Duration::HOUR);
        assert_eq!(said, [(Change::Appeared, "renewal_failed".to_owned())]);
        let now = START + Duration::days(4);
        world.publish(now);
        world.failure = None;
        if let Some(stage) = receipt {
            world.receipt("i-1", stage, now);
        }
        world.wire = at.map(|at| look("a.test:443", at)).into_iter().collect();
        let (said, subject) = world.run(now + Duration::HOUR);
        assert!(
            said.contains(&(Change::Resolved, "renewal_failed".to_owned())),
            "{said:?}"
        );
        assert_eq!(subject, expected, "{receipt:?} {at:?}");
    }
}

/// Another certificate on the wire, and the next run could not see the wire.
#[test]
fn a_wrong_certificate_was_over_when_nobody_could_look() {
    for (runs, expected) in [
        ("1 old; 1 fine", "new; over"),
        ("1 old; 1 dark; 1 fine", "new; -; over"),
        ("1 old; not reached; 1 fine", "new; -; over"),
        ("1 old, 2 fine; 2 fine; 2 fine", "new; -; over"),
        ("1 old; 2 fine, 1 skipped; 1 fine", "new; -; over"),
        ("1 old, 2 fine; 1 fine, 2 dark; 1 fine, 2 fine", "new; -; over"),
    ] {
        let mut world = World::new("served_at = [\"a.test\"]\n");
        world.publish(START);
        let now = START + Duration::hours(30);
        let mut said = Vec::new();
        for (hour, run) in runs.split("; ").enumerate() {
            world.wire = match run {
                "not reached" => Vec::new(),
                run => vec![look("a.test:443", run)],
            };
            let (notices, _) = world.run(now + Duration::hours(hour as i64));
            let about_it = notices.iter().find(|(_, code)| code == "wrong_certificate");
            said.push(about_it.map_or("-", |(change, _)| word(*change)));
        }
        assert_eq!(said.join("; "), expected, "{runs}");
    }
}

/// A new version gave every address its grace again, and what was said of one that is wrong was
/// over.
#[test]
fn a_new_version_ended_a_wrong_certificate() {
    let mut world = World::new("served_at = [\"a.test\"]\n");
    world.publish(START);
    world.wire = vec![look("a.test:443", "1 old")];
    let (said, _) = world.run(START + Duration::hours(25));
    assert_eq!(said, [(Change::Appeared, "wrong_certificate".to_owned())]);
    world.publish(START + Duration::hours(26));
    assert_eq!(world.run(START + Duration::hours(27)).0, []);
}

/// Only wildcards: no address to look at, no instance that looks; and all was green while servers
/// lapsed.
#[test]
fn nobody_saw_it_and_all_was_green() {
    use Stage as S;
    for (served_at, receipts, hours, expected) in [
        ("", vec![], 23, false),
        ("", vec![], 25, true),
        ("", vec![S::Installed], 25, true),
        ("", vec![S::Installed, S::Served], 25, false),
        ("served_at = [\"a.test\"]\n", vec![S::Installed], 25, false),
    ] {
        let mut world = World::new(served_at);
        world.publish(START);
        let now = START + Duration::hours(hours);
        for (n, stage) in receipts.iter().enumerate() {
            world.receipt(&format!("i-{n}"), *stage, now);
        }
        let (said, subject) = world.run(now);
        assert_eq!(!said.is_empty(), expected, "{served_at:?} {receipts:?} {hours}");
        if !expected {
            continue;
        }
        assert_eq!(subject, "WARNING: certificate shop.test, not seen at any server");
        // The next version's grace is no reason to say that somebody has.
        world.publish(now + Duration::HOUR);
        assert_eq!(world.run(now + Duration::hours(2)).0, []);
        world.receipt("i-0", S::Served, now + Duration::hours(3));
        let (said, subject) = world.run(now + Duration::hours(3));
        assert_eq!(said, [(Change::Resolved, "not_pulled".to_owned())]);
        assert!(
            subject.starts_with("OK: certificate shop.test, valid until"),
            "{subject}"
        );
    }
}

/// A deleted `[[certificate]]`, or an `inventory.toml` that is gone, ended renewals without a word.
#[test]
fn an_entry_that_was_deleted_ended_renewals_in_silence() {
    for (missing, severity, again) in [(false, "WARNING", 7), (true, "CRITICAL", 1)] {
        let mut world = World::new("");
        world.publish(START);
        world.receipt("i-1", Stage::Served, START);
        world.fails(START);
        world.run(START + Duration::HOUR);
        let current = world.current.clone().unwrap();
        let mut memory = world.memory.clone();
        let without = |now| {
            let mut report = Report::new(now, now, vec![look("b.test:443", "1 fine")]);
            report.certificates = vec![delivery::not_renewed(&current.facts, missing, now)];
            report
        };
        let now = START + Duration::hours(2);
        let (said, digest) = tell(&mut memory, &without(now), now);
        let codes: Vec<_> = said.iter().map(|(change, code)| (*change, code.as_str())).collect();
        assert_eq!(
            codes,
            [
                (Change::Appeared, "not_renewed"),
                (Change::NoLongerWatched, "renewal_failed")
            ]
        );
        let digest = digest.unwrap();
        assert_eq!(
            digest.subject,
            format!("{severity}: certificate shop.test, no longer renewed")
        );
        let text = digest.text(&sender(), 10_000);
        for words in [
            "valid until 2026-10-07 ",
            "s3://bucket/inventory.toml",
            "s3://bucket/state/renewals/shop.test.json",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        let next_day = now + Duration::DAY;
        assert_eq!(tell(&mut memory, &without(next_day), next_day).0.is_empty(), !missing);
        let later = now + Duration::days(again * 2);
        assert_eq!(tell(&mut memory, &without(later), later).0[0].0, Change::Reminder);
        // A person has removed what the renewer remembers of it; or has put it back.
        let mut other = memory.clone();
        let nothing = Report::new(later, later, vec![look("b.test:443", "1 fine")]);
        assert_eq!(tell(&mut memory, &nothing, later).0[0].0, Change::NoLongerWatched);
        let mut back = nothing.clone();
        back.certificates = vec![world.report(later)];
        let said = tell(&mut other, &back, later).0;
        assert!(said.contains(&(Change::Resolved, "not_renewed".to_owned())), "{said:?}");
    }
}

/// An Auto Scaling group went, and each of its instances was an alert.
#[test]
fn fifty_silent_instances_were_fifty_alerts() {
    let mut world = World::new("");
    world.publish(START);
    let mut arrived = Vec::new();
    for (hour, silent) in [3, 4, 6, 50, 50, 2, 0].into_iter().enumerate() {
        let now = START + Duration::hours(hour as i64);
        for n in 0..50 {
            world.receipt(&format!("AROA:i-{n:02}"), Stage::Served, now);
            if n < silent {
                world.receipts.last_mut().unwrap().next_by = now - Duration::MINUTE;
            }
        }
        let (said, _) = world.run(now);
        let said: Vec<_> = said.iter().map(|(change, _)| word(*change)).collect();
        arrived.push(format!("{silent}: {}", said.join(", ")));
    }
    assert_eq!(
        arrived,
        [
            "3: new, new, new",
            "4: new",
            "6: ",
            "50: worse",
            "50: ",
            "2: ",
            "0: over"
        ]
    );
}

/// A service for incidents was notified of three instances, and never of the end of any when a
/// fourth made them one incident: its own records stayed open for ever.
#[test]
fn what_became_part_of_another_incident_was_never_closed() {
    let mut world = World::new("");
    world.publish(START);
    let mut runs = Vec::new();
    for (hour, silent) in [3, 4, 0].into_iter().enumerate() {
        let now = START + Duration::hours(hour as i64);
        for n in 0..10 {
            world.receipt(&format!("AROA:i-{n:02}"), Stage::Served, now);
            if n < silent {
                world.receipts.last_mut().unwrap().next_by = now - Duration::MINUTE;
            }
        }
        let mut report = Report::new(now, now, Vec::new());
        report.certificates = vec![world.report(now)];
        let run = Run {
            outcome: Ok(&report),
            watchlist: &Watchlist::default(),
            weekly: false,
        };
        let (news, mut state) = decide(&run, &world.memory, now);
        let closed: BTreeSet<_> = closing(&state.unclosed)
            .into_iter()
            .map(|entry| entry.incident)
            .collect();
        // If the service stays away, what it was not notified of is tried for a month.
        for (days, kept) in [(29, closed.len()), (31, 0)] {
            let (_, later) = decide(&run, &Memory::Known(state.clone()), now + Duration::days(days));
            assert_eq!(later.unclosed.len(), kept, "{days}");
        }
        state.unclosed.clear();
        world.memory = Memory::Known(state);
        let keys: BTreeSet<_> = news.notices.iter().map(Notice::key).collect();
        runs.push((keys, closed));
    }

    let [(three, none), (all, closed), (over, nothing)] = runs.try_into().unwrap();
    assert_eq!((three.len(), none.len(), all.len(), nothing.len()), (3, 0, 1, 0));
    assert_eq!(closed, three);
    assert_eq!(over, all);
}

/// The tenth of six days is less than a day between runs: one warning, and then it had expired.
#[test]
fn a_six_day_certificate_expired_after_one_warning() {
    for (hours, left, fails, expected) in [
        (160, 54, true, vec![("renewal_failed", Severity::Warning)]),
        (160, 53, true, vec![("renewal_failed", Severity::Critical)]),
        (160, 53, false, vec![("expires_soon", Severity::Critical)]),
        (160, 54, false, vec![]),
        (90 * 24, 73, true, vec![("renewal_failed", Severity::Warning)]),
        (90 * 24, 71, true, vec![("renewal_failed", Severity::Critical)]),
        (15 * 24, 37, true, vec![("renewal_failed", Severity::Warning)]),
        (15 * 24, 35, true, vec![("renewal_failed", Severity::Critical)]),
    ] {
        let mut world = World::new("");
        world.publish(START);
        let now = START + Duration::hours(hours - left);
        world.current.as_mut().unwrap().facts.not_after = START + Duration::hours(hours);
        world.receipt("i-1", Stage::Served, now);
        if fails {
            world.fails(START);
        }
        let report = world.report(now);
        let found: Vec<_> = (report.findings.iter())
            .map(|finding| (finding.kind.code().as_str(), finding.severity))
            .collect();
        assert_eq!(found, expected, "{hours} {left} {fails}");
    }
}

/// `[[endpoint]] host, sni = "other"` beside a certificate at the same place: what it shows is
/// right, and another one.
#[test]
fn another_name_at_the_same_place_was_a_wrong_certificate() {
    let mut world = World::new("served_at = [\"a.test\"]\n");
    world.publish(START);
    let mut other = look("a.test:443", "1 old");
    other.sni = Some("other.test".to_owned());
    world.wire = vec![look("a.test:443", "1 fine"), other];
    let report = world.report(START + Duration::hours(30));
    assert_eq!((report.findings.len(), report.addresses.len()), (0, 1), "{report:?}");
}

/// A certificate for six days, and what the bucket has of it.
struct World {
    certificate: Managed,
    current: Option<Current>,
    history: Vec<StoredVersion>,
    receipts: Vec<Receipt>,
    failure: Option<RenewalFailure>,
    wire: Vec<EndpointReport>,
    memory: Memory,
}

impl World {
    fn new(served_at: &str) -> Self {
        let served_at = if served_at.is_empty() {
            "served_at = []\n"
        } else {
            served_at
        };
        let text = format!("[[certificate]]\nidentifiers = [\"shop.test\"]\n{served_at}");
        Self {
            certificate: Inventory::parse(&text).certificates.remove(0),
            current: None,
            history: Vec::new(),
            receipts: Vec::new(),
            failure: None,
            wire: Vec::new(),
            memory: Memory::Blank,
        }
    }

    fn publish(&mut self, now: Timestamp) {
        let sequence = self.current.as_ref().map_or(1, |current| current.sequence + 1);
        let facts = Facts {
            name: "shop.test".into(),
            version: version::id(now, 7),
            fingerprint: "fine".into(),
            serial: "1".into(),
            not_before: now - Duration::HOUR,
            not_after: now + Duration::hours(159),
            identifiers: vec!["shop.test".into()],
            key: KeyType::EcdsaP256,
            issuer: IssuedBy {
                name: "letsencrypt".into(),
                directory: "https://acme.test/directory".into(),
                account: "https://acme.test/1".into(),
                profile: None,
                staging: false,
            },
        };
        self.history.insert(
            0,
            StoredVersion {
                facts: (&facts).into(),
                current: true,
            },
        );
        self.current = Some(Current {
            schema: Current::SCHEMA.into(),
            sequence,
            facts,
            manifest_sha256: "cd".into(),
            published_at: now,
            rolled_back: false,
        });
    }

    fn fails(&mut self, now: Timestamp) {
        self.failure = Some(RenewalFailure::next(None, "no".into(), None, now));
    }

    fn receipt(&mut self, instance: &str, stage: Stage, now: Timestamp) {
        let current = self.current.clone().unwrap();
        self.receipt_for(&current, instance, stage, now);
    }

    fn receipt_for(&mut self, installed: &Current, instance: &str, stage: Stage, now: Timestamp) {
        self.receipts.retain(|receipt| receipt.instance != instance);
        self.receipts.push(Receipt {
            schema: Receipt::SCHEMA.into(),
            name: "shop.test".into(),
            instance: instance.into(),
            host: "web".into(),
            agent: "0".into(),
            version: installed.facts.version.clone(),
            fingerprint: installed.facts.fingerprint.clone(),
            stage,
            reason: None,
            installed: None,
            sequence: Some(installed.sequence),
            not_after: Some(installed.facts.not_after),
            since: now,
            at: now,
            next_by: now + Duration::hours(26),
        });
    }

    fn report(&self, now: Timestamp) -> CertificateReport {
        let receipts = self.receipts.iter().map(|receipt| StoredReceipt {
            instance: receipt.instance.clone(),
            receipt: Ok(receipt.clone()),
        });
        self.report_with(receipts.collect(), now)
    }

    fn report_with(&self, receipts: Vec<StoredReceipt>, now: Timestamp) -> CertificateReport {
        let stored = Stored {
            current: Ok(self.current.clone()),
            renewal: Ok(Some(Renewal {
                failure: self.failure.clone(),
                ..Renewal::new("shop.test")
            })),
            receipts: Ok(receipts),
            history: Ok(self.history.clone()),
        };
        let known = Known {
            certificate: &self.certificate,
            stored: &stored,
            endpoints: &EndpointIndex::of(&self.wire),
        };
        join(&known, now)
    }

    fn run(&mut self, now: Timestamp) -> (Vec<(Change, String)>, String) {
        let mut report = Report::new(now, now, self.wire.clone());
        report.certificates = vec![self.report(now)];
        let (said, digest) = tell(&mut self.memory, &report, now);
        let about_it = said
            .into_iter()
            .filter(|(_, code)| code != "name_mismatch" && code != "connect_failed");
        (
            about_it.collect(),
            digest.map_or_else(String::new, |digest| digest.subject),
        )
    }
}

/// What a run says, and remembers.
fn tell(memory: &mut Memory, report: &Report, now: Timestamp) -> (Vec<(Change, String)>, Option<Digest>) {
    let watchlist = Watchlist::default();
    let run = Run {
        outcome: Ok(report),
        watchlist: &watchlist,
        weekly: false,
    };
    let (news, state) = decide(&run, memory, now);
    let said = news
        .notices
        .iter()
        .map(|notice| (notice.change, notice.incident.code.to_string()));
    let said = said.collect();
    *memory = Memory::read(&serde_json::to_vec(&state).unwrap());
    (said, digest(&news, Some(report), &watchlist, &sender(), now))
}

/// `1 bad, 2 fine`: what the addresses of an endpoint show. `old` is a certificate that has nothing
/// wrong with it, and another one.
fn look(endpoint: &str, addresses: &str) -> EndpointReport {
    let (mut observations, mut skipped) = (Vec::<Value>::new(), Vec::<Value>::new());
    for address in addresses.split(", ") {
        let (last, what) = address.split_once(' ').unwrap();
        let address: SocketAddr = format!("192.0.2.{last}:443").parse().unwrap();
        if what == "skipped" {
            skipped.push(json!({"address": address.ip(), "reason": "no route"}));
            continue;
        }
        let findings = match what {
            "bad" => json!([{"code": "name_mismatch", "severity": "critical", "message": "is not for a.test",
                "expected": "a.test", "names": []}]),
            "dark" => {
                json!([{"code": "connect_failed", "severity": "unknown", "message": "refused", "reason": "refused"}])
            }
            _ => json!([]),
        };
        let leaf = json!({"subject": "", "issuer": "CN=x", "serial": "1", "fingerprint": what, "names": ["a.test"],
            "not_before": "2026-08-01T00:00:00Z", "not_after": "2036-10-30T00:00:00Z", "key": "ecdsa-p256",
            "signature": "ecdsa-sha256", "role": "leaf"});
        let leaf = if what == "dark" { Value::Null } else { leaf };
        observations.push(json!({"address": address, "elapsed_ms": 1, "tries": 1, "findings": findings, "leaf": leaf}));
    }
    let fingerprints: Vec<_> = (observations.iter())
        .filter(|seen| seen["leaf"]["fingerprint"] == "old" || seen["leaf"]["fingerprint"] == "fine")
        .collect();
    let disagree = ["old", "fine"].map(|kind| {
        let served = fingerprints.iter().filter(|seen| seen["leaf"]["fingerprint"] == kind);
        let addresses: Vec<_> = served.map(|seen| seen["address"].clone()).collect();
        json!({"fingerprint": kind, "not_after": "2036-10-30T00:00:00Z", "addresses": addresses})
    });
    let findings = match disagree.iter().all(|served| served["addresses"] != json!([])) {
        true => json!([{"code": "addresses_disagree", "severity": "warning", "message": "", "certificates": disagree}]),
        false => json!([]),
    };
    let report = json!({"endpoint": endpoint, "status": "ok", "observations": observations, "skipped": skipped,
        "findings": findings});
    serde_json::from_value(report).unwrap()
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Appeared => "new",
        Change::Worsened => "worse",
        Change::Reminder => "again",
        Change::Resolved => "over",
        Change::NoLongerWatched => "gone",
    }
}

fn sender() -> Sender {
    Sender::of("prod", "arn:aws:sns:eu-central-1:123456789012:alerts", "bucket")
}
