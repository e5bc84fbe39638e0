//! The built command against real servers.

use std::process::{Output, Stdio};

use neverlapse::report::Report;
use neverlapse_tests::shop::{CA, Shop};
use serde_json::Value;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

struct Bench {
    shop: Shop,
    folder: TempDir,
}

impl Bench {
    async fn open() -> Self {
        let shop = Shop::open(OffsetDateTime::now_utc()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("ca")).unwrap();
        std::fs::write(folder.path().join(CA), &shop.root).unwrap();
        std::fs::write(folder.path().join("inventory.toml"), &shop.inventory).unwrap();
        Self { shop, folder }
    }

    async fn check(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["check", "--inventory", "inventory.toml", "--timeout", "2"];
        all.extend(arguments);
        neverlapse(self.folder.path(), &all, "").await
    }

    fn port(&self, index: usize) -> &str {
        self.shop.endpoints[index].0.rsplit(':').next().unwrap()
    }
}

async fn neverlapse(folder: &std::path::Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_neverlapse"));
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn every_format_tells_the_same() {
    let bench = Bench::open().await;
    let table = bench.check(&[]).await;
    assert_eq!(table.status.code(), Some(2));
    let table = text(&table.stdout);
    assert!(
        table.ends_with('\n') && table.contains("6 endpoints: 3 critical, 1 unknown, 1 warning, 1 ok in"),
        "{table}"
    );
    let order = [
        "expired.shop",
        "incomplete.shop",
        "silent.shop",
        "soon.shop",
        "healthy.shop",
    ]
    .map(|name| table.find(name).unwrap());
    assert!(order.is_sorted(), "worst first:\n{table}");
    assert!(!table.contains('\u{1b}'), "no colours in a pipe");

    let json = bench.check(&["--format", "json"]).await;
    let report: Report = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (report.schema.as_str(), report.endpoints.len()),
        ("neverlapse.report/1", 6)
    );
    assert_eq!(
        (
            report.counts.ok,
            report.counts.warning,
            report.counts.critical,
            report.counts.unknown
        ),
        (1, 1, 3, 1)
    );

    let jsonl = bench.check(&["--format", "jsonl"]).await;
    let lines: Vec<Value> = text(&jsonl.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
    assert!(
        lines.last().unwrap()["endpoint"]
            .as_str()
            .unwrap()
            .starts_with("silent"),
        "the slow one finishes last"
    );

    let metrics = text(&bench.check(&["--format", "prometheus"]).await.stdout);
    let expired = format!(
        "neverlapse_endpoint_status{{endpoint=\"{}\"}} 2",
        bench.shop.endpoints[2].0
    );
    assert!(metrics.contains(&expired), "{metrics}");
    assert!(
        metrics.contains("code=\"name_mismatch\",severity=\"critical\"} 1"),
        "{metrics}"
    );
    assert_eq!(metrics.matches("# TYPE neverlapse_finding gauge").count(), 1);
}

#[tokio::test]
async fn another_time_and_other_thresholds() {
    let bench = Bench::open().await;
    let later = neverlapse::finding::date(OffsetDateTime::now_utc() + Duration::days(61));
    let out = bench.check(&["--at", &later, "--format", "json"]).await;
    let report: Report = serde_json::from_slice(&out.stdout).unwrap();
    let healthy = report
        .endpoints
        .iter()
        .find(|endpoint| endpoint.endpoint.starts_with("healthy"))
        .unwrap();
    assert_eq!(healthy.findings.len() + healthy.observations[0].findings.len(), 1);
    assert_eq!(healthy.observations[0].findings[0].kind.code(), "expired");

    let out = bench
        .check(&["--warn-days", "5", "--critical-days", "1", "--format", "json"])
        .await;
    let report: Report = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (report.counts.ok, report.counts.warning),
        (2, 0),
        "nine days are enough now"
    );
}

#[tokio::test]
async fn a_list_is_read_to_its_end() {
    let bench = Bench::open().await;
    let (port, ca) = (bench.port(0), bench.folder.path().join(CA));
    let list = format!("# names\n\n127.0.0.1:{port}\nexmple:https\n127.0.0.1:{port}   # again\n");
    let arguments = [
        "check",
        "--file",
        "-",
        "--ca",
        ca.to_str().unwrap(),
        "--format",
        "jsonl",
    ];
    let out = neverlapse(bench.folder.path(), &arguments, &list).await;
    assert_eq!(text(&out.stdout).lines().count(), 2, "both good lines are looked at");
    let complaint = "error: - line 4: invalid endpoint \"exmple:https\": port is not a number (expected host[:port], [v6]:port or smtp://host[:port])\n";
    assert_eq!(text(&out.stderr), complaint);
    assert_eq!(
        out.status.code(),
        Some(2),
        "the certificate is for a name, not for an address"
    );
    assert!(text(&out.stdout).contains("name_mismatch"));
}

#[tokio::test]
async fn mistakes_are_unknown_and_say_what_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "warn_dayz = 3\n").unwrap();
    std::fs::write(folder.path().join("no.pem"), "nothing\n").unwrap();
    for (arguments, words) in [
        (vec!["check"], "<ENDPOINT>..."),
        (
            vec!["check", "exmple:https"],
            "port is not a number (expected host[:port]",
        ),
        (
            vec!["check", "a.b", "--at", "tomorrow"],
            "expected a time such as 2027-01-31T12:00:00Z",
        ),
        (vec!["check", "a.b", "--timeout", "-1"], "--timeout"),
        (
            vec!["check", "a.b", "--nameserver", "dns"],
            "expected an address, with or without a port",
        ),
        (
            vec!["check", "a.b", "--ca", "no.pem"],
            "--ca no.pem: no certificate in it (expected PEM",
        ),
        (vec!["check", "--file", "missing.txt"], "cannot read --file missing.txt"),
        (
            vec!["check", "--inventory", "bad.toml"],
            "bad.toml line 1: unknown key \"warn_dayz\" (expected warn_days",
        ),
        (vec!["check", "127.0.0.1:1", "--format", "jsonl"], ""),
        (vec!["validate", "missing.toml"], "cannot read missing.toml"),
    ] {
        let out = neverlapse(folder.path(), &arguments, "").await;
        let said = text(&out.stderr);
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(out.status.code(), Some(3), "{arguments:?}: {said}");
    }
    let out = neverlapse(folder.path(), &["validate", "bad.toml"], "").await;
    assert_eq!(out.status.code(), Some(1));
}

#[tokio::test]
async fn help_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let help = neverlapse(folder.path(), &["check", "--help"], "").await;
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Examples:\n  neverlapse check example.com"));
    for shell in ["bash", "zsh", "fish"] {
        let out = neverlapse(folder.path(), &["completions", shell], "").await;
        assert!(text(&out.stdout).contains("validate"), "{shell}");
    }
}
