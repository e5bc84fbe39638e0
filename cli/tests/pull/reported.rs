//! Receipts, and whose they are.

use std::fs;
use std::process::Stdio;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::PRIVKEY;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::process::eventually;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::bench::{Bench, NAME, NEVERLAPSE, chmod, run};

#[tokio::test]
async fn it_says_goodbye_and_is_back_with_the_next_run() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    bench.publish_all(60);
    bench.pull().await;
    let there = |bench: &Bench| [NAME, "b.test"].map(|name| bench.depot.receipt(name, "web-1").is_ok());
    assert_eq!(there(&bench), [true, true]);
    let ran = bench.pull_with(&["--leave"]).await;
    assert_eq!((ran.code, there(&bench)), (0, [false, false]), "{ran:?}");
    assert!(bench.live().join(PRIVKEY).exists(), "what is installed stays");
    bench.pull().await;
    assert_eq!(there(&bench), [true, true]);

    // Nor is anybody to wait for a certificate that is no longer wanted here.
    bench.host.places.pop();
    bench.configure("");
    let ran = bench.pull().await;
    assert!(ran.out.contains("b.test: is no longer in the configuration"), "{ran:?}");
    assert_eq!(there(&bench), [true, false]);
}

#[tokio::test]
async fn two_runs_do_not_meet() {
    let (bench, _) = Bench::open().await;
    let mut holder = Command::new("flock")
        .arg(bench.host.path().join("state/lock"))
        .args(["sh", "-c", "echo held; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    holder.stdout.as_mut().unwrap().read_exact(&mut said).await.unwrap();
    let ran = bench.pull().await;
    ran.says(3, "another run is at work");

    // A goodbye waits for it instead.
    let trace = bench.host.path().join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-e", "trace=flock", "-o"])
        .arg(&trace)
        .arg(NEVERLAPSE);
    let mut leave = bench.command(strace);
    let end = async {
        eventually("a lock that is refused", async || {
            let refused = fs::read_to_string(&trace).unwrap_or_default().contains("EAGAIN");
            Ok(refused.then_some(()))
        })
        .await
        .unwrap();
        drop(holder.stdin.take());
    };
    let (ran, ()) = tokio::join!(run(leave.arg("--leave")), end);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[tokio::test]
async fn a_clock_that_was_ahead_silenced_the_receipts() {
    let (bench, _) = Bench::open().await;
    for ahead in [&["at", "next_by"][..], &["since"]] {
        bench.remember(|state| {
            for time in ahead {
                state["receipt"][time] = "2099-01-01T00:00:00Z".into();
            }
        });
        fs::remove_file(bench.depot.object("receipts/shop.test/web-1.json")).unwrap();
        bench.pulls().await;
        let (receipt, now) = (bench.receipt(), Timestamp::now());
        assert!(receipt.since <= now && receipt.at <= now, "{receipt:?}");
    }
}

#[tokio::test]
async fn what_could_not_be_opened_was_told_to_nobody() {
    let (mut bench, old) = Bench::open().await;
    bench.publish(80);
    let live = bench.host.folder().join("live");
    chmod(&live, 0o775);
    assert_eq!(bench.pull().await.code, 3);
    bench.reported_failed("live can be written by others (mode 775)");
    assert_eq!(bench.receipt().sequence, Some(old.sequence));
    chmod(live, 0o755);

    chmod(bench.state(), 0o777);
    assert_eq!(bench.pull().await.code, 3);
    bench.reported_failed("state can be written by others (mode 777)");
    chmod(bench.state(), 0o700);
    bench.pulls().await;
    bench.reported_served();
}

#[tokio::test]
async fn receipts_came_only_after_everything() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    bench.publish_all(60);
    bench.configure_unverified("true", "true");
    // The second one's reload ends the run.
    bench.reconfigure(|text| format!("{text}\nreload_command = \"kill -KILL $PPID\"\n"));
    assert_eq!(bench.pull().await.code, -1);
    assert_eq!(bench.receipt().stage, Stage::Installed);
}

#[tokio::test]
async fn a_clone_removed_the_receipts_of_its_original() {
    let mut bench = Bench::closed(&[NAME, "old.test"]);
    bench.publish_all(60);
    let write = |file: &str, instance: &str, state: &str, names: &[&str]| {
        let (folder, state) = (bench.host.folder(), bench.host.path().join(state));
        let mut text = format!("instance = {instance:?}\nfolder = {folder:?}\nstate = {state:?}\n");
        for name in names {
            text += &format!("[[certificate]]\nname = {name:?}\n");
        }
        fs::write(bench.host.path().join(file), text).unwrap();
    };
    let pull = async |file: &str, more: &[&str]| {
        let mut command = Command::new(NEVERLAPSE);
        command.args(["pull", "--from"]).arg(bench.depot.path());
        command.arg("--config").arg(bench.host.path().join(file));
        let ran = run(command.args(more)).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    };
    let there = |name: &str, instance: &str| bench.depot.receipt(name, instance).is_ok();
    write("a.toml", "web-a", "state", &[NAME, "old.test"]);
    write("c.toml", "web-c", "state-c", &[NAME]);
    pull("a.toml", &[]).await;
    let copy = async || {
        let mut command = Command::new("cp");
        let from = bench.host.path().join("state");
        run(command.arg("-a").arg(from).arg(bench.host.path().join("state-c"))).await
    };

    copy().await;
    pull("c.toml", &["--leave"]).await;
    assert!(there(NAME, "web-a") && there("old.test", "web-a"));
    pull("c.toml", &[]).await;
    assert!(there(NAME, "web-a") && there("old.test", "web-a") && there(NAME, "web-c"));
    pull("c.toml", &["--leave"]).await;
    assert!(there(NAME, "web-a") && there("old.test", "web-a") && !there(NAME, "web-c"));

    // A new name takes the old receipt along.
    write("a.toml", "web-b", "state", &[NAME, "old.test"]);
    pull("a.toml", &[]).await;
    assert!(there(NAME, "web-b") && !there(NAME, "web-a"));

    // Two configurations share the folder of their state.
    write("mail.toml", "web-b", "state", &["old.test"]);
    write("a.toml", "web-b", "state", &[NAME]);
    pull("mail.toml", &[]).await;
    for _ in 0..2 {
        pull("a.toml", &[]).await;
        pull("mail.toml", &[]).await;
        assert!(there(NAME, "web-b") && there("old.test", "web-b"));
    }
    bench.host.stop();
}
