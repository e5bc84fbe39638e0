//! What a large run costs besides probing: seconds of one core for an inventory full of errors,
//! alerts, delivery and the page, for 10,000 endpoints that all have an incident and 500
//! certificates, and for twice as many.

use std::time::Instant;

use neverlapse::alert::{Memory, Run, Sender, Watchlist, compose, decide};
use neverlapse::bucket::version::Current;
use neverlapse::delivery::{Stored, reports};
use neverlapse::finding::{Finding, Kind, Severity};
use neverlapse::inventory::Inventory;
use neverlapse::report::page::page;
use neverlapse::report::{EndpointReport, Report};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use serde_json::json;
use time::Duration;

const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);

fn main() {
    for (endpoints, certificates) in [(10_000, 500), (20_000, 1_000)] {
        println!("{endpoints} endpoints of two addresses, {certificates} certificates");
        measure(endpoints, certificates);
    }
}

fn measure(endpoints: usize, certificates: usize) {
    let unknown_keys: String = (0..endpoints)
        .map(|index| format!("[[endpoint]]\nhost = \"{index}.test\"\nwarn_dayz = 20\n"))
        .collect();
    timed("an inventory with an error in each entry", || {
        Inventory::parse(&unknown_keys)
    });

    let text: Vec<_> = (0..certificates)
        .map(|index| format!("[[certificate]]\nidentifiers = [\"{index}.test\"]\nserved_at = [\"{index}.test\"]\n"))
        .collect();
    let inventory = Inventory::parse(&text.concat());
    let stored: Vec<_> = (0..certificates).map(stored).collect();
    let bad = |net| {
        (0..endpoints)
            .map(move |index| endpoint(index, net, true))
            .collect::<Vec<_>>()
    };
    let fine = (0..endpoints)
        .map(|index| endpoint(index, 0, false))
        .collect::<Vec<_>>();

    let report = |endpoints: Vec<EndpointReport>| {
        let mut report = Report::new(NOW, NOW, endpoints);
        report.certificates = reports(&inventory.certificates, &stored, &report.endpoints, NOW);
        report
    };
    let first = timed("delivery", || report(bad(0)));
    let (again, moved, mended) = (report(bad(0)), report(bad(1)), report(fine));

    let watchlist = Watchlist::of(&inventory);
    let run = |report| Run {
        outcome: Ok(report),
        watchlist: &watchlist,
        weekly: false,
    };
    let (_, state) = timed("alerts: everything is new", || {
        decide(&run(&first), &Memory::Blank, NOW)
    });
    let memory = Memory::Known(state);
    let later = NOW + Duration::DAY;
    timed("alerts: everything as before", || decide(&run(&again), &memory, later));
    timed("alerts: all addresses moved", || decide(&run(&moved), &memory, later));
    timed("alerts: everything is mended", || decide(&run(&mended), &memory, later));

    let sender = Sender::of("prod", "arn:aws:sns:eu-central-1:123456789012:alerts", "bucket");
    timed("alerts in words, for each channel", || {
        compose(&run(&first), &memory, &sender, later)
    });
    timed("the page", || page(&first, Some("prod"))).expect("a page");
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    println!("  {:7.3} s  {what}", began.elapsed().as_secs_f64());
    result
}

/// A certificate that was published two days ago, and should be served by now.
fn stored(index: usize) -> Stored {
    let published = NOW - Duration::days(2);
    let current = json!({"schema": Current::SCHEMA, "sequence": 7, "name": format!("{index}.test"),
        "version": "20261122T060000Z-00000000", "fingerprint": "aa", "serial": "1f", "not_before": published,
        "not_after": NOW + Duration::days(88), "identifiers": [format!("{index}.test")], "key": "ecdsa-p256",
        "manifest_sha256": "cd", "published_at": published,
        "issuer": {"name": "letsencrypt", "directory": "https://ca.test/directory", "account": "https://ca.test/1"}});
    Stored {
        current: serde_json::from_value(current).map_err(|error| error.to_string()),
        renewal: Ok(None),
        receipts: Ok(Vec::new()),
        history: Ok(Vec::new()),
    }
}

/// An endpoint of two addresses, which serve a certificate that is not the published one.
fn endpoint(index: usize, net: u8, is_bad: bool) -> EndpointReport {
    let not_after = NOW + Duration::days(if is_bad { 1 } else { 80 });
    let soon = Kind::ExpiresSoon {
        not_after,
        threshold_seconds: 259_200,
    };
    let findings = if is_bad {
        vec![Finding::new(soon, Severity::Critical, NOW)]
    } else {
        Vec::new()
    };
    let fingerprint = if is_bad { "bb" } else { "aa" };
    let leaf = json!({"subject": "CN=a", "issuer": "CN=x", "serial": "1", "fingerprint": fingerprint, "names": ["a.test"],
        "not_before": NOW - Duration::days(80), "not_after": not_after, "key": "ecdsa-p256",
        "signature": "ecdsa-sha256", "role": "leaf"});
    let observation = |last: u8| {
        let address = format!("10.{net}.{}.{}:{}", index / 250 % 250, last, 1_000 + index % 250);
        json!({"address": address, "elapsed_ms": 1, "tries": 1, "findings": findings, "leaf": leaf})
    };
    let report = json!({"endpoint": format!("{index}.test:443"), "status": "ok", "not_after": not_after,
        "seconds_left": 86_400, "observations": [observation(1), observation(2)], "findings": []});
    serde_json::from_value(report).expect("a report of this version")
}
