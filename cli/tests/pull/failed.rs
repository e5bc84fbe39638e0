//! What happens when a server does not take a new version.

use std::path::Path;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;
use time::Duration;

use super::bench::{Bench, NAME};

#[tokio::test]
async fn a_failed_test_or_reload_leaves_the_old_one_and_is_tried_again() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    let (test, reload) = (bench.host.test_command(), bench.host.reload_command());
    for (test, reload, expected) in [
        (
            &*test,
            "echo sorry >&2; exit 1",
            "the reload failed: `echo sorry >&2; exit 1` ended with 1: sorry",
        ),
        (
            "echo broken; exit 3",
            &*reload,
            "the test failed: `echo broken; exit 3` ended with 3: broken",
        ),
        ("/bin/false", &*reload, "the test failed"),
        // The server was never told, so it goes on with the old one.
        (&*test, "true", "after the reload 127.0.0.1"),
    ] {
        bench.configure_unserved(test, reload, "");
        let ran = bench.pull_with(&["--now"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.err.contains(expected)
                && ran
                    .err
                    .contains(&format!("version {} stays installed", old.facts.version)),
            "{ran:?}"
        );
        bench.serves(&old).await;
        assert_eq!(bench.live_version(), old.facts.version);
        let receipt = bench.receipt();
        assert_eq!(
            (receipt.stage, &receipt.version, receipt.installed.as_ref()),
            (Stage::Failed, &new.facts.version, Some(&old.facts.version))
        );
        assert!(receipt.reason.unwrap().contains(expected));
        bench.host.could_start().await.unwrap();
    }
    // A configuration that is broken elsewhere, then repaired.
    bench.configure("");
    bench.host.configure("nonsense;").unwrap();
    let ran = bench.pull_with(&["--now"]).await;
    ran.says(1, "unknown directive \"nonsense\"");
    bench.host.configure("").unwrap();
    let ran = bench.pull_with(&["--now"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    bench.serves(&new).await;
    bench.reported_served();
}

#[tokio::test]
async fn a_failed_reload_is_not_forgotten_when_the_bucket_is_away() {
    let (mut bench, _) = Bench::open().await;
    let new = bench.publish(80);
    bench.configure_with("true", "exit 1", "");
    assert_eq!(bench.pull().await.code, 1);
    bench.configure("");
    let ran = bench.pull_from_nowhere().await;
    assert_eq!(
        ran.code, 3,
        "the old is gone, the new is in, but nobody could ask: {ran:?}"
    );
    assert!(
        !Path::new("/nonexistent").exists(),
        "a place that is not there is not made"
    );
    bench.serves(&new).await;
    bench.pulls().await;
    assert_eq!(bench.receipt().stage, Stage::Served);
}

#[tokio::test]
async fn trying_a_batch_one_by_one_forgot_that_the_bucket_was_away() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    bench.publish_all(60);
    bench.pull().await;
    bench.host.start().await.unwrap();
    bench.pulls().await;

    // Both are on the disk, and b.test is the one at fault.
    let new = bench.publish(80);
    bench.publish_of("b.test", 80);
    bench.configure_with("true", "exit 1", "");
    assert_eq!(bench.pull().await.code, 1);
    let picky = bench.refuses_what_is_new_of("b.test");
    bench.configure_with(&picky, &bench.host.reload_command(), "");

    // It is installed, but nobody could ask.
    let ran = bench.pull_from_nowhere().await;
    ran.says(3, "shop.test: cannot read /nonexistent");
    assert!(ran.err.contains("b.test: the test failed"), "{ran:?}");
    bench.serves(&new).await;
}

#[tokio::test]
async fn what_failed_three_times_waits_and_is_not_forgotten() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    bench.configure_with("true", &format!("{}; exit 1", bench.log_of_reloads()), "");
    // Each try tells the server twice: of the new files, and that the old ones are back.
    for tries in 1..=3 {
        assert_eq!(bench.pull().await.code, 1);
        assert_eq!(bench.reloads(), 2 * tries);
    }
    let ran = bench.pull().await;
    assert!(
        ran.code == 1 && ran.err.contains("the reload failed") && ran.err.contains("tried again from"),
        "{ran:?}"
    );
    assert_eq!((bench.reloads(), bench.live_version()), (6, old.facts.version));
    bench.reported(Stage::Failed, &new);
    bench.remember(|state| {
        let tried = state["pending"]["tried"].as_str().unwrap();
        let tried: Timestamp = tried.parse().unwrap();
        state["pending"]["tried"] = (tried - Duration::hours(2)).rfc3339().into();
    });
    assert_eq!((bench.pull().await.code, bench.reloads()), (1, 8));
    assert_eq!((bench.pull().await.code, bench.reloads()), (1, 8));
    bench.configure("");
    assert_eq!(bench.pull_with(&["--now"]).await.code, 0);
    bench.serves(&new).await;
}

/// A host that serves a certificate which has just expired, next to one that has not.
///
/// It must be installed and served before it expires. Where that took too long, everything starts
/// over with twice the lifetime.
async fn with_an_expired_one() -> (Bench, Current) {
    for seconds in [20, 40, 80, 160] {
        let mut bench = Bench::closed(&[NAME, "b.test"]);
        let end = Timestamp::now() + Duration::seconds(seconds);
        let old = bench.authority.issue(&[NAME], end - Duration::days(60), end).unwrap();
        let old = bench.depot.publish(NAME, &old).unwrap();
        bench.publish_of("b.test", 60);

        bench.pull().await;
        let started = bench.host.start().await;
        let ran = bench.pull().await;
        if Timestamp::now() > end {
            continue;
        }
        started.unwrap();
        assert_eq!(ran.code, 0, "{ran:?}");

        while Timestamp::now() <= end + Duration::seconds(1) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        return (bench, old);
    }
    panic!("two runs and the start of a server took minutes");
}

#[tokio::test]
async fn a_refused_version_stayed_live_once_the_old_one_had_expired() {
    let (mut bench, old) = with_an_expired_one().await;
    let new = bench.publish(80);
    let other = bench.publish_of("b.test", 80);

    let reload = bench.host.reload_command();
    bench.configure_with(&bench.passes_only(&old), &reload, "");
    let ran = bench.pull().await;
    ran.says(2, "the test failed");
    assert_eq!(bench.live_version(), old.facts.version, "the server can start again");
    let of_other = bench.receipt_of("b.test");
    assert_eq!((of_other.stage, of_other.version), (Stage::Served, other.facts.version));
    bench.configure_with("true", "exit 1", "");
    assert_eq!(bench.pull().await.code, 2);
    assert_eq!(
        bench.live_version(),
        old.facts.version,
        "nor after a reload that failed"
    );

    // When only nobody sees it, it is better than one that has expired.
    bench.configure_unserved("true", "true", "");
    let ran = bench.pull().await;
    ran.says(2, "does not serve it");
    assert_eq!(bench.live_version(), new.facts.version);
    bench.configure("");
    bench.pulls().await;
    bench.serves(&new).await;
}

#[tokio::test]
async fn a_server_that_met_a_refused_version_at_its_start_was_never_told_of_the_old_one() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    // Killed between switch and test.
    bench.configure_with("kill -KILL $PPID", "true", "");
    assert_eq!(bench.pull().await.code, -1);
    assert_eq!(bench.live_version(), new.facts.version);
    bench.configure_with(&bench.passes_only(&old), &bench.log_of_reloads(), "");
    let ran = bench.pull().await;
    ran.says(1, "the test failed");
    assert_eq!(bench.live_version(), old.facts.version);
    assert_eq!(bench.reloads(), 1);
    // From now on the server has what is live, and need not be told.
    assert_eq!(bench.pull().await.code, 1);
    assert_eq!(bench.reloads(), 1);
}

#[tokio::test]
async fn a_reload_that_hangs_took_its_time_again_for_each_certificate() {
    let names = [NAME, "b.test", "c.test", "d.test", "e.test"];
    let mut bench = Bench::closed(&names);
    bench.configure_unverified("true", "true");
    bench.publish_all(60);
    bench.pulls().await;
    bench.publish_all(80);
    bench.configure_unverified("true", &format!("{}; sleep 600", bench.log_of_reloads()));
    bench.reconfigure(|text| format!("command_timeout_seconds = 1\n{text}"));

    let ran = bench.pull().await;

    assert_eq!(ran.code, 1, "{ran:?}");
    // For the new ones, and for the way back: not once more for each certificate.
    assert_eq!(bench.reloads(), 2);
    for name in names {
        let receipt = bench.receipt_of(name);
        assert_eq!(receipt.stage, Stage::Failed);
        assert!(receipt.reason.unwrap().contains("took longer than 1 s"));
    }
}
