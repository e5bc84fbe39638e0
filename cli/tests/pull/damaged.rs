//! What is damaged on the disk is seen, restored and reported.

use std::fs;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{CERT, CHAIN, PRIVKEY};
use tokio::process::Command;

use super::bench::{Bench, mode, run, window};

#[tokio::test]
async fn what_was_damaged_on_the_disk_was_neither_seen_nor_restored() {
    let (bench, version) = Bench::open().await;
    let reload = bench.logged_reload();
    // What is damaged is restored whatever the window.
    let closed = format!("{}\ncombined = true", window(6, 8));
    bench.configure_with(&bench.host.test_command(), &reload, &closed);
    assert_eq!(bench.pull_with(&["--now"]).await.code, 0);

    let files = || {
        let folder = fs::read_dir(bench.live()).unwrap();
        let paths = folder.map(|file| file.unwrap().path());
        let mut files: Vec<_> = paths
            .map(|path| (path.clone(), mode(&path), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let other = bench.leaf(60);
    fs::write(bench.host.path().join("other.key"), &other.key).unwrap();
    fs::write(bench.host.path().join("other.pem"), &other.fullchain).unwrap();

    for (expected, is_reloaded, damage) in [
        ("privkey.pem had mode 0644", false, "chmod 644 privkey.pem"),
        ("combined.pem had mode 0640", false, "chmod 640 combined.pem"),
        ("cert.pem had mode 0600", false, "chmod 600 cert.pem"),
        ("its folder had mode 0755", false, "chmod 755 ."),
        ("privkey.pem is empty", true, ": >privkey.pem"),
        ("privkey.pem is missing", true, "rm privkey.pem"),
        ("privkey.pem is not the one", true, "cat $OTHER.key >privkey.pem"),
        ("chain.pem is empty", true, ": >chain.pem"),
        ("fullchain.pem is not the one", true, "cat $OTHER.pem >fullchain.pem"),
        ("combined.pem is not the one", true, "cat $OTHER.key >combined.pem"),
        (
            "privkey.pem is a symlink",
            true,
            "mv privkey.pem $OTHER.moved; ln -s $OTHER.moved privkey.pem",
        ),
        (
            "privkey.pem is no regular file",
            true,
            "rm privkey.pem; mkdir privkey.pem",
        ),
        ("its folder is missing", true, "rm -r $PWD"),
        ("live/shop.test is missing", true, "rm $LIVE"),
    ] {
        let known = bench.reloads();
        let mut shell = Command::new("sh");
        shell.current_dir(fs::canonicalize(bench.live()).unwrap());
        shell.env("OTHER", bench.host.path().join("other"));
        assert_eq!(run(shell.env("LIVE", bench.live()).args(["-c", damage])).await.code, 0);

        let dry = bench.pull_with(&["--dry-run"]).await;
        assert!(
            dry.out.contains("would ") && dry.out.contains(expected),
            "{expected}: {dry:?}"
        );
        let ran = bench.pull().await;
        assert!(ran.code == 0 && ran.err.contains(expected), "{expected}: {ran:?}");
        assert_eq!(files(), before, "{expected}");
        assert_eq!(bench.reloads() > known, is_reloaded, "{expected}");
        bench.host.could_start().await.unwrap();
        let receipt = bench.receipt();
        assert_eq!(receipt.stage, Stage::Served);
        assert!(receipt.reason.unwrap().contains(expected), "{expected}");
        // It is reported once.
        let ran = bench.pull().await;
        assert!(ran.code == 0 && ran.err.is_empty(), "{expected}: {ran:?}");
        assert_eq!(bench.receipt().reason, None);
    }
    bench.serves(&version).await;
}

#[tokio::test]
async fn what_was_damaged_while_the_bucket_was_away_is_restored_as_far_as_it_can_be() {
    let (bench, _) = Bench::open().await;
    let before = fs::read(bench.live().join(CERT)).unwrap();
    // It is a part of fullchain.pem.
    fs::remove_file(bench.live().join(CERT)).unwrap();
    let ran = bench.pull_from_nowhere().await;
    ran.says(3, "cert.pem is missing");
    assert_eq!(fs::read(bench.live().join(CERT)).unwrap(), before);

    fs::remove_file(bench.live().join(PRIVKEY)).unwrap();
    let ran = bench.pull_from_nowhere().await;
    ran.says(2, "is damaged (privkey.pem is missing), and cannot be restored");
    let ran = bench.pull().await;
    ran.says(0, "privkey.pem is missing");
    bench.host.could_start().await.unwrap();

    // Nor can it be when the bucket has it no more. The receipt says so, until a new one comes.
    fs::remove_file(bench.live().join(PRIVKEY)).unwrap();
    fs::rename(
        bench.depot.object("certificates/shop.test/versions"),
        bench.host.path().join("gone"),
    )
    .unwrap();
    assert_eq!(bench.pull().await.code, 2);
    bench.reported_failed("privkey.pem is missing");
}

#[tokio::test]
async fn what_was_damaged_while_a_newer_version_waits_was_left_to_that() {
    let (mut bench, old) = Bench::open().await;
    let reload = bench.logged_reload();
    bench.configure_with(&bench.host.test_command(), &reload, &window(6, 8));
    bench.publish(80);
    bench.pulls().await;
    assert_eq!(bench.receipt().stage, Stage::Pulled);

    fs::write(bench.live().join(PRIVKEY), "").unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 0 && ran.err.contains("privkey.pem is empty") && ran.out.contains("waits for its window"),
        "{ran:?}"
    );
    assert_eq!(bench.live_version(), old.facts.version);
    assert_eq!(bench.reloads(), 1);
    bench.host.could_start().await.unwrap();
    assert!(bench.receipt().reason.unwrap().contains("privkey.pem is empty"));

    // What the bucket no longer has cannot be restored. The newer version takes its place at once.
    fs::write(bench.live().join(PRIVKEY), "").unwrap();
    let versions = bench.depot.object("certificates/shop.test/versions");
    fs::remove_dir_all(versions.join(&old.facts.version)).unwrap();
    bench.pulls().await;
    assert_ne!(bench.live_version(), old.facts.version);
    assert_eq!(bench.receipt().stage, Stage::Served);
}

#[tokio::test]
async fn a_state_of_an_earlier_client_knows_no_hashes() {
    let (bench, _) = Bench::open().await;
    let forget = |bench: &Bench| {
        bench.remember(|state| {
            for key in ["manifests", "owner"] {
                state.as_object_mut().unwrap().remove(key);
            }
            for key in ["unseen", "keystore"] {
                state["installed"].as_object_mut().unwrap().remove(key);
            }
        });
    };
    let issuer = fs::read_to_string(bench.live().join(CHAIN)).unwrap();
    forget(&bench);
    // The certificates are the same, the file is not.
    fs::write(bench.live().join(CHAIN), format!("# a note\n{issuer}")).unwrap();
    let ran = bench.pull().await;
    ran.says(0, "chain.pem is not the one that was installed");
    assert_eq!(fs::read_to_string(bench.live().join(CHAIN)).unwrap(), issuer);

    // And where there is nobody to ask, at least everything has to belong together.
    forget(&bench);
    fs::write(bench.live().join(PRIVKEY), bench.leaf(60).key).unwrap();
    let ran = bench.pull_from_nowhere().await;
    ran.says(2, "privkey.pem does not hold the certificate's private key");
}

/// After a loss of power the state was empty, and nothing was installed until a person removed it.
#[tokio::test]
async fn a_damaged_state_kept_the_next_version_from_being_installed() {
    let (mut bench, _) = Bench::open().await;
    let file = bench.state().join("shop.test.json");
    for damaged in ["", "{", "\0\0\0"] {
        fs::write(&file, damaged).unwrap();
        bench
            .pull_with(&["--dry-run"])
            .await
            .says(3, "shop.test.json is damaged");
        let new = bench.publish(80);

        let ran = bench.pull().await;
        ran.says(0, "shop.test.json was damaged (");
        bench.serves(&new).await;
        let receipt = bench.receipt();
        assert_eq!(receipt.stage, Stage::Served);
        assert!(receipt.reason.unwrap().contains("is started over"));
        assert_eq!(fs::read_to_string(file.with_extension("damaged")).unwrap(), damaged);

        let ran = bench.pull().await;
        assert!(ran.code == 0 && ran.err.is_empty(), "{ran:?}");
        assert_eq!(bench.receipt().reason, None);
    }
}

/// The folder was kept and the state was not, as on a host whose `/var` is new: a version that the
/// server does not take stayed live, and the server could not have been started again.
#[tokio::test]
async fn without_a_state_there_was_no_way_back() {
    let (mut bench, old) = Bench::open().await;
    fs::remove_file(bench.state().join("shop.test.json")).unwrap();
    let new = bench.publish(80);
    let reload = bench.logged_reload();
    bench.configure_with("false", &reload, "");

    for _ in 0..2 {
        bench.pull().await.says(2, "the test failed: `false` ended with 1");
        assert_eq!(bench.live_version(), old.facts.version);
        assert_eq!(bench.reloads(), 0);
        bench.reported_failed("the test failed");
    }
    bench.serves(&old).await;

    bench.configure_with("true", &reload, "");
    bench.pulls().await;
    assert_eq!(bench.live_version(), new.facts.version);
    bench.serves(&new).await;
}
