//! What is installed, when, and for whom.

use std::fs;
use std::os::unix::fs::MetadataExt;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{CERT, CHAIN, FULLCHAIN, PRIVKEY};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::pki::Authority;
use time::Duration;
use tokio::process::Command;

use super::bench::{Bench, NAME, NEVERLAPSE, chmod, mode, run, window};

#[tokio::test]
async fn a_new_version_is_installed_once_and_served() {
    let (mut bench, _) = Bench::open().await;
    let new = bench.publish(80);
    let ran = bench.pull_with(&["--dry-run"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains(&format!("would install version {}", new.facts.version)),
        "{ran:?}"
    );
    assert_ne!(bench.host.served().await.unwrap(), new.facts.fingerprint);

    let ran = bench.pulls().await;
    assert!(
        ran.out.contains(&format!("installed version {}", new.facts.version)),
        "{ran:?}"
    );
    bench.serves(&new).await;
    let receipt = bench.receipt();
    assert_eq!(
        (receipt.stage, &receipt.version, &receipt.instance[..]),
        (Stage::Served, &new.facts.version, "web-1")
    );
    assert_eq!(
        (receipt.sequence, receipt.not_after),
        (Some(new.sequence), Some(new.facts.not_after))
    );
    assert_eq!(
        (receipt.installed, receipt.reason, receipt.fingerprint),
        (None, None, new.facts.fingerprint)
    );
    for (file, expected) in [(CERT, 0o644), (CHAIN, 0o644), (FULLCHAIN, 0o644), (PRIVKEY, 0o600)] {
        assert_eq!(mode(bench.live().join(file)), expected, "{file}");
    }
    bench.assert_keys_are_secret();

    // Nothing is new: nothing is reloaded, nothing reported.
    bench.configure_with("exit 1", "exit 1", "");
    let written = || {
        let receipt = bench.depot.object("receipts/shop.test/web-1.json");
        fs::metadata(receipt).unwrap().mtime_nsec()
    };
    let before = written();
    bench.pulls().await;
    assert_eq!(written(), before);
}

/// The renewer says when the first certificate on the path ends, and the client compared that with
/// the leaf alone: no instance took such a version.
#[tokio::test]
async fn a_version_that_ends_with_its_issuer_was_refused() {
    let (mut bench, _) = Bench::open().await;
    let now = Timestamp::from_unix(Timestamp::now().unix());
    let end = now + Duration::days(40);
    let leaf = Authority::ending(end)
        .unwrap()
        .leaf(NAME, now + Duration::days(80))
        .unwrap();
    let stored = bench.depot.store(NAME, &leaf, false).unwrap();
    let mut manifest = bench.depot.manifest(&stored).unwrap();
    manifest.facts.not_after = end - Duration::DAY;
    let wrong = bench.depot.vouch(&manifest).unwrap();
    bench.depot.point(&wrong).unwrap();
    let ran = bench.pull_with(&[]).await;
    assert!(ran.err.contains("its not_after differs"), "{ran:?}");

    manifest.facts.not_after = end;
    let current = bench.depot.vouch(&manifest).unwrap();
    bench.depot.point(&current).unwrap();
    bench.pulls().await;
    bench.serves(&current).await;
    assert_eq!(bench.receipt().not_after, Some(end));
}

#[tokio::test]
async fn several_certificates_take_one_reload_and_one_bad_one_does_not_hold_up_the_others() {
    let mut bench = Bench::closed(&[NAME, "b.test", "c.test"]);
    bench.publish_all(60);
    bench.pull().await;
    bench.host.start().await.unwrap();
    let (test, reload) = (bench.host.test_command(), bench.logged_reload());
    bench.configure_with(&test, &reload, "");
    bench.pulls().await;
    assert_eq!(bench.reloads(), 1);

    bench.publish_all(70);
    let picky = format!("{} && {test}", bench.refuses_what_is_new_of("c.test"));
    bench.configure_with(&picky, &reload, "");
    let ran = bench.pull().await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(
        [NAME, "b.test", "c.test"].map(|name| bench.receipt_of(name).stage),
        [Stage::Served, Stage::Served, Stage::Failed]
    );
}

#[tokio::test]
async fn outside_of_its_window_a_change_waits() {
    let (mut bench, old) = Bench::open().await;
    bench.configure(&window(6, 8));
    let new = bench.publish(80);
    let ran = bench.pull().await;
    assert!(
        ran.code == 0 && ran.out.contains("is ready and waits for its window"),
        "{ran:?}"
    );
    bench.serves(&old).await;
    assert_eq!(
        (bench.receipt().stage, bench.receipt().installed),
        (Stage::Pulled, Some(old.facts.version))
    );
    bench.configure(&window(23, 2));
    bench.pulls().await;
    bench.serves(&new).await;
}

#[tokio::test]
async fn a_closed_window_is_ignored_in_the_last_week() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(5);
    bench.pull().await;
    bench.host.start().await.unwrap();
    bench.pulls().await;
    bench.configure(&window(6, 8));
    let new = bench.publish(80);
    bench.pulls().await;
    bench.serves(&new).await;
}

#[tokio::test]
async fn a_change_of_the_layout_is_an_installation() {
    let (bench, version) = Bench::open().await;
    bench.configure("combined = true\nkey_mode = \"0640\"\ngroup = \"0\"");
    // Without the right to give files away there is nothing to be shown here.
    if fs::metadata(bench.host.folder()).unwrap().uid() != 0 {
        bench.configure("combined = true\nkey_mode = \"0640\"");
    }
    bench.pulls().await;
    let combined = fs::read_to_string(bench.live().join("combined.pem")).unwrap();
    assert!(combined.contains("BEGIN CERTIFICATE") && combined.contains("PRIVATE KEY"));
    assert_eq!(mode(bench.live().join("combined.pem")), 0o640);
    bench.serves(&version).await;
    bench.pulls().await;
}

#[tokio::test]
async fn a_group_could_not_reach_its_key_under_the_units_umask() {
    let mut bench = Bench::closed(&[NAME]);
    // Without the right to give files away there is nothing to be shown here.
    if fs::metadata(bench.host.path()).unwrap().uid() != 0 {
        return;
    }
    chmod(bench.host.path(), 0o755);
    bench.configure("group = \"65534\"");
    bench.publish(60);
    let pull = async || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh", NEVERLAPSE]);
        run(&mut bench.command(shell)).await
    };
    let key = bench.live().join(PRIVKEY);
    let can_read = async |id: u32| {
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={id}"),
            &format!("--regid={id}"),
            "--clear-groups",
            "cat",
        ]);
        let read = command.arg(&key).output().await.unwrap();
        String::from_utf8(read.stdout).unwrap().contains("PRIVATE KEY")
    };
    pull().await;
    assert_eq!((can_read(65_534).await, can_read(65_533).await), (true, false));
    // What earlier versions left behind is mended.
    for folder in ["live", "versions", "versions/shop.test"] {
        chmod(bench.host.folder().join(folder), 0o700);
    }
    assert!(!can_read(65_534).await);
    pull().await;
    assert_eq!((can_read(65_534).await, can_read(65_533).await), (true, false));
}

#[tokio::test]
async fn what_lies_in_an_old_folder_was_a_failed_installation() {
    let (mut bench, first) = Bench::open().await;
    bench.publish(70);
    bench.pulls().await;
    let folder = bench.host.folder().join("versions/shop.test").join(first.facts.version);
    fs::create_dir(folder.join("backup")).unwrap();
    let new = bench.publish(80);
    let ran = bench.pull().await;
    ran.says(0, "cannot remove versions/shop.test/");
    bench.serves(&new).await;
    bench.reported_served();
    assert!(!folder.join(PRIVKEY).exists(), "the old key is gone all the same");
}

#[tokio::test]
async fn a_reload_that_uses_the_aws_cli_lost_its_profile() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(60);
    let said = bench.host.path().join("environment");
    bench.configure_unserved("true", &format!("env >{}", said.display()), "");

    let mut command = bench.command(Command::new(NEVERLAPSE));
    let secrets = [
        "AWS_SECRET_ACCESS_KEY",
        "SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ];
    for (variable, value) in [
        ("AWS_PROFILE", "shop"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "secret"),
    ] {
        command.env(variable, value);
    }
    run(command.envs(secrets.map(|secret| (secret, "secret")))).await;

    let environment = fs::read_to_string(said).unwrap();
    let live = bench.live();
    for expected in [
        "AWS_PROFILE=shop",
        "AWS_REGION=eu-west-1",
        "RENEWED_DOMAINS=shop.test *.shop.test",
        &format!("RENEWED_LINEAGE={}", live.display()),
    ] {
        assert!(
            environment.lines().any(|line| line == expected),
            "{expected}: {environment}"
        );
    }
    assert!(!environment.contains("secret"), "{environment}");
}
