//! Runs that end at any system call, or find the disk full there.

use std::fs;
use std::iter::StepBy;
use std::ops::RangeFrom;

use futures::future::join_all;
use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{CERT, CHAIN, Current, FULLCHAIN, PRIVKEY};
use tokio::process::Command;

use super::bench::{Bench, NEVERLAPSE, Ran, run};
use super::keystore::KEYSTORE;

/// Every system call that changes something on the disk.
const CHANGES: [&str; 8] = [
    "mkdirat",
    "fchmod",
    "write",
    "fsync",
    "rename",
    "renameat",
    "symlinkat",
    "unlinkat",
];

/// Runs it under strace, which does something to the n-th of a kind of system call; answers whether
/// it came so far.
async fn injected(bench: &Bench, call: &str, what: &str, nth: usize) -> Option<Ran> {
    let log = bench.host.path().join("strace");
    let mut command = Command::new("strace");
    // "?": not every processor has every call. Only the first thread changes anything, so the
    // commands that it starts are left alone.
    command.args(["-qq", "-e", &format!("trace=?{call}"), "-e"]);
    command.arg(format!("inject=?{call}:{what}:when={nth}"));
    command.arg("-o").arg(&log).arg(NEVERLAPSE);
    let ran = run(&mut bench.command(command)).await;
    let calls = fs::read_to_string(&log).expect("strace is installed (apt-get install strace)");
    (calls.lines().filter(|line| line.starts_with(call)).count() >= nth).then_some(ran)
}

/// The calls of a run, with the paths that they are about.
async fn traced(bench: &Bench, calls: &str) -> Vec<String> {
    let log = bench.host.path().join("strace");
    let mut command = Command::new("strace");
    command.args(["-qq", "-y", "-e", calls, "-o"]).arg(&log).arg(NEVERLAPSE);
    let ran = run(&mut bench.command(command)).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let calls = fs::read_to_string(&log).unwrap();
    calls.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_goes_live_is_on_the_disk_and_no_key_was_ever_open_to_others() {
    let (mut bench, _) = Bench::open().await;
    bench.configure(&format!("combined = true\n{}", bench.password("one")));
    let new = bench.publish(80);
    let calls = traced(&bench, "trace=?openat,?fchmod,?fsync,?renameat").await;
    let at = |what: &dyn Fn(&&String) -> bool| calls.iter().position(|call| what(&call));
    let live =
        at(&|call| call.starts_with("renameat") && call.contains("\".shop.test.next\"")).expect("it is switched");
    let stored = at(&|call| call.starts_with("renameat") && call.contains(&format!(".{}", new.facts.version)));
    let stored = stored.expect("the folder gets its name");
    for file in [CERT, CHAIN, FULLCHAIN, PRIVKEY, "combined.pem", KEYSTORE] {
        let synced = at(&|call| call.starts_with("fsync") && call.contains(&format!("/{file}>")));
        assert!(synced.is_some_and(|synced| synced < stored), "{file}: {calls:#?}");
    }
    let synced = |folder: &str, from: usize| {
        let mut later = calls[from..].iter();
        later.any(|call| call.starts_with("fsync") && call.contains(folder))
    };
    assert!(
        stored < live && synced("/versions/shop.test>", stored) && synced("/live>", live),
        "{calls:#?}"
    );
    for key in [PRIVKEY, "combined.pem", KEYSTORE] {
        let of_key: Vec<_> = calls.iter().filter(|call| call.contains(key)).collect();
        let made = of_key.iter().filter(|call| call.contains("O_CREAT"));
        assert!(
            made.clone().count() == 1
                && made
                    .clone()
                    .all(|call| call.contains("O_EXCL") && call.contains("0600")),
            "{of_key:#?}"
        );
        let opened = of_key.iter().filter(|call| call.starts_with("fchmod"));
        assert!(
            opened.clone().count() > 0 && opened.clone().all(|call| call.contains(", 0600)")),
            "{of_key:#?}"
        );
    }
}

/// Sums up what every call of these does, each on benches of its own: a run waits most of its time,
/// for the server to settle. The first of the benches takes the first call of that name, the fourth
/// one and so on.
async fn side_by_side<T: Future<Output = usize>>(
    calls: &[&'static str],
    at_each: impl Fn(&'static str, StepBy<RangeFrom<usize>>) -> T,
) -> usize {
    let benches = calls
        .iter()
        .flat_map(|&call| (1..=BENCHES).map(move |first| (call, (first..).step_by(BENCHES))));
    let counts = join_all(benches.map(|(call, turns)| at_each(call, turns))).await;
    counts.into_iter().sum()
}

/// For each kind of call.
const BENCHES: usize = 3;

#[tokio::test]
async fn whenever_it_is_killed_the_server_can_start_and_the_next_run_finishes() {
    let kills = side_by_side(&CHANGES, killed_at).await;

    assert!(kills > 20, "{kills} kills are fewer than an installation has steps");
}

/// Kills the client at these calls of this name, one after the other, until a run ends before it;
/// says how often it was killed.
async fn killed_at(call: &str, turns: impl Iterator<Item = usize>) -> usize {
    let (mut bench, mut before) = Bench::open().await;
    let mut kills = 0;
    for nth in turns {
        let new = bench.publish(80);
        let ran = injected(&bench, call, "signal=KILL", nth).await;

        serves_one_of(&bench, [&before, &new], &format!("{call} {nth}")).await;

        let again = bench.pull().await;
        assert_eq!(again.code, 0, "{call} {nth}: {again:?}");
        bench.serves(&new).await;
        bench.reported(Stage::Served, &new);
        for (path, ..) in bench.everything() {
            let is_ours = ![".new", ".back", ".next"]
                .iter()
                .any(|end| path.to_string_lossy().ends_with(end));
            assert!(is_ours, "{call} {nth}: {} is left", path.display());
        }

        before = new;
        match ran {
            Some(_) => kills += 1,
            None => break,
        }
    }
    kills
}

/// Whatever happened amid a run, the server can start and serves the old version or the new one.
async fn serves_one_of(bench: &Bench, versions: [&Current; 2], what: &str) {
    let could_start = bench.host.could_start().await;
    could_start.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    bench.assert_keys_are_secret();

    let served = bench.host.served().await.unwrap();
    let mut fingerprints = versions.iter().map(|version| &version.facts.fingerprint);
    assert!(fingerprints.any(|fingerprint| *fingerprint == served), "{what}");
}

#[tokio::test]
async fn whenever_it_is_killed_a_keystore_belongs_to_the_key_beside_it() {
    let kills = side_by_side(&["fsync", "renameat", "unlinkat"], keystore_killed_at).await;

    assert!(kills > 10, "{kills} kills are fewer than an installation has steps");
}

async fn keystore_killed_at(call: &str, turns: impl Iterator<Item = usize>) -> usize {
    let (mut bench, _) = Bench::open().await;
    let mut before = "password-0".to_owned();
    let line = bench.password(&before);
    bench.configure(&line);
    bench.pulls().await;

    let mut kills = 0;
    for nth in turns {
        // A new password alone is an installation of the same version.
        if nth % 2 == 0 {
            bench.publish(80);
        }
        let password = format!("password-{call}-{nth}");
        bench.password(&password);
        let ran = injected(&bench, call, "signal=KILL", nth).await;
        let is_new = bench.keystore(&password, &["-noout"]).await.code == 0;
        bench.assert_keystore(if is_new { &password } else { &before }).await;

        let again = bench.pull().await;
        assert_eq!(again.code, 0, "{call} {nth}: {again:?}");
        bench.assert_keystore(&password).await;
        bench.assert_keys_are_secret();

        before = password;
        match ran {
            Some(_) => kills += 1,
            None => break,
        }
    }
    kills
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_step_leaves_one_that_serves() {
    let calls = ["mkdirat", "fsync", "rename", "renameat", "symlinkat"];
    let failures = side_by_side(&calls, full_at).await;

    assert!(failures > 5, "only {failures} failures were seen");
}

/// Likewise, says how often the client failed.
async fn full_at(call: &str, turns: impl Iterator<Item = usize>) -> usize {
    let (mut bench, mut before) = Bench::open().await;
    let mut failures = 0;
    for nth in turns {
        let new = bench.publish(80);
        let ran = injected(&bench, call, "error=ENOSPC", nth).await;
        serves_one_of(&bench, [&before, &new], &format!("{call} {nth}")).await;
        // The one before the last went live when only the state could not be written.
        let live = bench.live_version();
        assert!(
            [&before, &new].iter().any(|version| version.facts.version == live),
            "{call} {nth}: {live} is live"
        );

        assert_eq!(bench.pull().await.code, 0, "{call} {nth}");
        assert!(
            !bench.host.folder().join("live/.shop.test.back").is_symlink(),
            "{call} {nth}"
        );
        bench.serves(&new).await;

        before = new;
        match ran {
            Some(ran) if ran.code != 0 => failures += 1,
            Some(_) => {}
            None => break,
        }
    }
    failures
}

#[tokio::test]
async fn where_no_file_may_grow_the_old_one_is_served() {
    let (mut bench, before) = Bench::open().await;
    bench.publish(80);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", NEVERLAPSE]);

    let ran = run(&mut bench.command(shell)).await;

    ran.says(1, "cannot write");
    bench.serves(&before).await;
    bench.pulls().await;
}
