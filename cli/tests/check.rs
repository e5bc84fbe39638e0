//! The built command against real servers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use futures::future::join_all;
use neverlapse::report::Report;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::dns::Dns;
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::pki::Authority;
use neverlapse_tests::process::{output, text};
use neverlapse_tests::shop::{CA, Shop};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const A_MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
const LINES: u32 = 100_000;
const EARLY: u32 = 20_000;
const LATE: u32 = 99_000;

struct Bench {
    shop: Shop,
    folder: TempDir,
}

impl Bench {
    async fn open() -> Self {
        let shop = Shop::open(Timestamp::now()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("ca")).unwrap();
        std::fs::write(folder.path().join(CA), &shop.root).unwrap();
        std::fs::write(folder.path().join("inventory.toml"), &shop.inventory).unwrap();
        Self { shop, folder }
    }

    async fn check(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["check", "--inventory", "inventory.toml", "--timeout", "10"];
        all.extend(arguments);
        neverlapse(self.folder.path(), &all, "").await
    }

    fn port(&self, index: usize) -> &str {
        self.shop.endpoints[index].0.rsplit(':').next().unwrap()
    }
}

async fn neverlapse(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(NEVERLAPSE);
    output(command.args(arguments).current_dir(folder), input)
        .await
        .unwrap()
}

#[tokio::test]
async fn every_format_tells_the_same() {
    let bench = Bench::open().await;
    // Together, because each waits for the silent server.
    let [table, json, jsonl, metrics, page] = [
        &[][..],
        &["--format", "json"],
        &["--format", "jsonl"],
        &["--format", "prometheus"],
        &["--format", "html"],
    ]
    .map(|arguments| bench.check(arguments));
    let (table, json, jsonl, metrics, page) = tokio::join!(table, json, jsonl, metrics, page);

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

    let metrics = text(&metrics.stdout);
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

    let page = text(&page.stdout);
    assert!(
        page.starts_with("<!doctype html>") && page.contains("<h1>3 of 6 endpoints are critical</h1>"),
        "{page}"
    );
}

#[tokio::test]
async fn an_inventory_in_a_bucket() {
    let (bench, emulator) = (Bench::open().await, Emulator::start().await.unwrap());
    let s3 = aws_sdk_s3::Client::new(&emulator.config);
    let location = BucketLocationConstraint::from(emulator.config.region().unwrap().as_ref());
    let location = CreateBucketConfiguration::builder().location_constraint(location);
    let create = s3.create_bucket().bucket("watched");
    create
        .create_bucket_configuration(location.build())
        .send()
        .await
        .unwrap();
    for (key, text) in [
        ("inventory.toml", &bench.shop.inventory),
        ("team/web.toml", &bench.shop.inventory),
        (CA, &bench.shop.root),
    ] {
        let body = ByteStream::from(text.as_bytes().to_vec());
        s3.put_object()
            .bucket("watched")
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
    }
    let check = async |place: &str, endpoint: &str| {
        let mut command = Command::new(NEVERLAPSE);
        command
            .args(["check", "--inventory", place, "--timeout", "10", "--format", "json"])
            .current_dir(bench.folder.path())
            .envs(emulator.environment())
            .env("AWS_ENDPOINT_URL", endpoint);
        output(&mut command, "").await.unwrap()
    };
    let places = ["s3://watched", "s3://watched/", "s3://watched/team/web.toml"];
    let outs = join_all(places.map(|place| check(place, &emulator.endpoint))).await;
    for (place, out) in places.iter().zip(outs) {
        let report: Report = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out.stderr)));
        let counts = report.counts;
        let counts = [counts.ok, counts.warning, counts.critical, counts.unknown];
        assert_eq!(
            (counts, out.status.code()),
            ([1, 1, 3, 1], Some(2)),
            "{place}: its `ca` is in the bucket too"
        );
    }
    for (place, endpoint, words) in [
        (
            "s3://watched/none.toml",
            emulator.endpoint.as_str(),
            "error: there is no object s3://watched/none.toml (expected an inventory)\n",
        ),
        (
            "s3://nobodys",
            &emulator.endpoint,
            "error: cannot read s3://nobodys/inventory.toml: NoSuchBucket",
        ),
        (
            "s3://watched",
            "http://127.0.0.1:1",
            "hint: set AWS_REGION, and AWS_PROFILE or other credentials",
        ),
    ] {
        let out = check(place, endpoint).await;
        let said = text(&out.stderr);
        assert!(said.contains(words), "{place}: {said}");
        assert_eq!(out.status.code(), Some(3), "{place}");
    }
}

#[tokio::test]
async fn another_time_and_other_thresholds() {
    let bench = Bench::open().await;
    let later = (Timestamp::now() + Duration::days(61)).rfc3339();
    let at = ["--at", &later, "--format", "json"];
    let thresholds = ["--warn-days", "5", "--critical-days", "1", "--format", "json"];
    let (at, thresholds) = tokio::join!(bench.check(&at), bench.check(&thresholds));

    let report: Report = serde_json::from_slice(&at.stdout).unwrap();
    let healthy = report
        .endpoints
        .iter()
        .find(|endpoint| endpoint.endpoint.starts_with("healthy"))
        .unwrap();
    assert_eq!(healthy.findings.len() + healthy.observations[0].findings.len(), 1);
    assert_eq!(healthy.observations[0].findings[0].kind.code().as_str(), "expired");

    let report: Report = serde_json::from_slice(&thresholds.stdout).unwrap();
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
    let complaint = "error: standard input line 4: invalid endpoint \"exmple:https\": port is not a number (expected host[:port], [v6]:port, smtp://host[:port] or smtps://host[:port])\n";
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
            "expected a time such as 2027-01-31 or 2027-01-31T12:00:00Z",
        ),
        (vec!["check"], "[--file FILE] [--inventory FILE|s3://BUCKET]"),
        (
            vec!["check", "a.b", "--timeout", "-1"],
            "'-1' for '--timeout <SECONDS>': expected seconds, from 0.001 to 3600",
        ),
        (
            vec!["check", "a.b", "--warn-days", "-3"],
            "'-3' for '--warn-days <N>': expected a whole number of days, 0 or more",
        ),
        (
            vec!["check", "a.b", "--critical-days", "few"],
            "'few' for '--critical-days <N>': expected a whole number of days, 0 or more",
        ),
        (
            vec!["check", "a.b", "--concurrency", "0"],
            "'0' for '--concurrency <N>': expected a whole number, from 1 to 50000",
        ),
        (
            vec!["check", "https://a..b/path"],
            "\"a..b\" is not a domain name (expected host[:port]",
        ),
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

#[tokio::test]
async fn nothing_of_a_certificate_reaches_the_terminal_unescaped() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(["hostile.test".to_owned()]).unwrap();
    let subject = "\u{1b}[2J\u{202e}evil\nfine\u{9b}31m";
    params.distinguished_name.push(DnType::CommonName, subject);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let address = serve("127.0.0.1", &certificate.pem(), &key.serialize_pem()).await;
    for format in ["table", "json", "jsonl", "prometheus"] {
        let out = neverlapse(folder.path(), &["check", &address.to_string(), "--format", format], "").await;
        let out = text(&out.stdout);
        assert!(out.contains("evil") || format == "prometheus", "{out}");
        let harmless = |c: char| c == '\n' || matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
        assert!(out.chars().all(harmless), "{format}: {out:?}");
    }
}

#[tokio::test]
async fn exit_codes_follow_the_worst_and_trust_needs_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, now) = (Authority::new().unwrap(), Timestamp::now());
    std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
    let mut served = Vec::new();
    for days in [60, 9, 2] {
        let leaf = authority.leaf("127.0.0.1", now + Duration::days(days)).unwrap();
        served.push(serve("127.0.0.1", &leaf.fullchain, &leaf.key).await.to_string());
    }
    let [ok, warning, critical] = served.try_into().unwrap();
    let closed = "127.0.0.1:1".to_owned();
    for (endpoints, code) in [
        (vec![&ok], 0),
        (vec![&ok, &warning], 1),
        (vec![&warning, &closed], 3),
        (vec![&closed, &critical, &ok], 2),
    ] {
        let mut arguments = vec!["check", "--ca", "root.pem"];
        arguments.extend(endpoints.iter().map(|endpoint| endpoint.as_str()));
        let out = neverlapse(folder.path(), &arguments, "").await;
        assert_eq!(out.status.code(), Some(code), "{}", text(&out.stdout));
    }
    let out = neverlapse(folder.path(), &["check", &ok, "--format", "jsonl"], "").await;
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stdout).contains("\"untrusted_root\"") || text(&out.stdout).contains("\"incomplete_chain\""));
}

#[tokio::test]
async fn a_finding_of_one_address_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, now) = (Authority::new().unwrap(), Timestamp::now());
    let leaf = authority.leaf("shop.test", now + Duration::days(60)).unwrap();
    let port = serve("127.0.0.1", &leaf.fullchain, &leaf.key).await.port();
    std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
    let entry = |ca: &str| {
        format!(
            "[[endpoint]]\nhost = \"shop.test\"\nport = {port}\naddresses = [\"127.0.0.1\", \"127.0.0.2\"]\nca = {ca:?}\n"
        )
    };
    std::fs::write(folder.path().join("inventory.toml"), entry("root.pem")).unwrap();
    let out = neverlapse(folder.path(), &["check", "--inventory", "inventory.toml"], "").await;
    let line = "- no TCP connection: connection refused [127.0.0.2]\n";
    assert!(text(&out.stdout).contains(line), "{}", text(&out.stdout));

    std::fs::write(folder.path().join("inventory.toml"), entry("missing.pem")).unwrap();
    let out = neverlapse(folder.path(), &["check", "--inventory", "inventory.toml"], "").await;
    let said = text(&out.stderr);
    assert!(
        said.contains("inventory.toml line 1: shop.test") && said.contains("missing.pem"),
        "{said}"
    );
    assert_eq!(out.status.code(), Some(3), "what cannot be judged is unknown");
}

#[tokio::test]
async fn names_are_asked_of_the_name_server_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut query).await {
            // A response, NXDOMAIN; the question as it came.
            query[2..4].copy_from_slice(&[0x81, 0x83]);
            query[10..12].copy_from_slice(&[0, 0]);
            let end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            server.send_to(&query[..end], from).await.unwrap();
        }
    });
    let arguments = ["check", "bücher.example", "--nameserver", &address];
    let out = text(&neverlapse(folder.path(), &arguments, "").await.stdout);
    assert!(
        out.contains("xn--bcher-kva.example could not be looked up: no such name"),
        "{out}"
    );
    assert!(out.contains("xn--bcher-kva.example:443 (bücher.example)\n"), "{out}");
}

/// Whoever answers for one name in DNS cannot take the time of the others.
#[tokio::test]
async fn answers_of_a_hostile_name_server() {
    let folder = tempfile::tempdir().unwrap();
    // A record behind the question: its name, CNAME, IN, a minute, and what it is an alias for.
    let alias = |target: &[u8]| [&b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0"[..], &[target.len() as u8], target].concat();
    for (what, code, answer) in [
        ("an alias for itself", 0x80, Some(alias(b"\xc0\x0c"))),
        ("aliases without end", 0x80, Some(alias(b"\x01x\xc0\x0c"))),
        ("half an answer", 0x80, Some(b"\xc0\x0c\0\x01".to_vec())),
        ("a failure", 0x82, Some(Vec::new())),
        ("silence", 0x80, None),
    ] {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut query).await {
                let Some(answer) = &answer else { continue };
                let end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
                query[2..4].copy_from_slice(&[0x81, code]);
                query[6..12].copy_from_slice(&[0, u8::from(!answer.is_empty()), 0, 0, 0, 0]);
                let _ = server.send_to(&[&query[..end], answer.as_slice()].concat(), from).await;
            }
        });
        let arguments = ["check", "a.example", "--nameserver", &address, "--timeout", "3"];
        let run = neverlapse(folder.path(), &arguments, "");
        let out = timeout(A_MINUTE, run)
            .await
            .unwrap_or_else(|_| panic!("{what}: no end"));
        task.abort();

        let out = text(&out.stdout);
        let told = [
            "a.example could not be looked up: ",
            "the DNS look-up took longer than 3.0 s",
        ];
        assert!(told.iter().any(|words| out.contains(words)), "{what}: {out}");
    }
}

/// A name server that drops questions for AAAA hid the addresses that it had; and where it had
/// none, another's failure.
#[tokio::test]
async fn one_family_of_addresses_does_not_hide_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01".to_vec();
    for (what, v4, v6, words) in [
        (
            "IPv6 in silence",
            Some((0x80, address)),
            None,
            "no TCP connection: connection refused",
        ),
        (
            "IPv4 fails, no IPv6",
            Some((0x82, Vec::new())),
            Some((0x80, Vec::new())),
            "a.example could not be looked up: the name server answered SERVFAIL",
        ),
    ] {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let nameserver = server.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut query).await {
                let end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
                let answer = if query[end - 3] == 1 { &v4 } else { &v6 };
                let Some((code, answer)) = answer else { continue };
                query[2..4].copy_from_slice(&[0x81, *code]);
                query[6..12].copy_from_slice(&[0, u8::from(!answer.is_empty()), 0, 0, 0, 0]);
                let _ = server.send_to(&[&query[..end], answer.as_slice()].concat(), from).await;
            }
        });
        let arguments = ["check", "a.example:1", "--nameserver", &nameserver, "--timeout", "15"];
        let out = text(&neverlapse(folder.path(), &arguments, "").await.stdout);
        task.abort();
        assert!(out.contains(words) && !out.contains("neither"), "{what}: {out}");
    }
}

#[tokio::test]
async fn a_name_with_a_thousand_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let addresses: Vec<_> = (0..1_000_u32)
        .map(|number| Ipv4Addr::from(0x7f02_0001 + number).into())
        .collect();
    let dns = Dns::start([("many.example".to_owned(), addresses)].into())
        .await
        .unwrap();
    let nameserver = dns.address.to_string();
    let arguments = [
        "check",
        "many.example:1",
        "--nameserver",
        &nameserver,
        "--format",
        "json",
    ];
    let out = neverlapse(folder.path(), &arguments, "").await;
    let report: Report = serde_json::from_slice(&out.stdout).unwrap();
    let seen = &report.endpoints[0];
    assert_eq!((seen.observations.len(), seen.skipped.len()), (100, 900));
    assert_eq!(seen.skipped[0].reason, "more than 100 addresses");
    assert_eq!(out.status.code(), Some(3));
}

/// Results once waited for the end of standard input, or for as many lines as connections are
/// allowed.
#[tokio::test]
async fn a_slow_pipe_is_looked_at_meanwhile() {
    let mut child = Command::new(NEVERLAPSE)
        .args(["check", "--file", "-", "--format", "jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(stdout).lines();
    for _ in 0..2 {
        stdin.write_all(b"127.0.0.1:1\n").await.unwrap();
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.starts_with("{\"endpoint\":\"127.0.0.1:1\","), "{line}");
    }
    drop(stdin);
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
}

/// How much memory it takes depends on how many endpoints are under way, not on how many there are.
#[tokio::test]
async fn a_hundred_thousand_lines_take_no_more_memory_than_the_first_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let address = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
    let list: String = (0..LINES).map(|number| format!("{}:1\n", address(number))).collect();
    std::fs::write(folder.path().join("names.txt"), list).unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\"",
            NEVERLAPSE,
            "check",
        ])
        .args(["--file", "names.txt", "--format", "jsonl", "--concurrency", "5000"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut read, mut early, mut late) = (0, 0, 0);
    while let Some(line) = lines.next_line().await.unwrap() {
        assert!(line.contains("\"code\":\"connect_failed\""), "{line}");
        read += 1;
        // More than the pipe holds are left at the second, so that it is still there.
        match read {
            EARLY => early = peak(&status),
            LATE => late = peak(&status),
            _ => {}
        }
    }
    println!("at most {early} kB until line {EARLY}, {late} kB until line {LATE}");
    assert_eq!((read, child.wait().await.unwrap().code()), (LINES, Some(3)));
    // On a busy machine not all that are allowed are under way at the first look. A kilobyte a line
    // would be a hundred thousand.
    assert!(late < early * 2, "{early} kB, then {late} kB");
    assert!(late < 160_000, "{late} kB");
}

/// The most memory that a process ever had, in kB.
fn peak(status: &str) -> u64 {
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Ctrl-C threw away what had been seen, which was all of a long table.
#[tokio::test]
async fn ctrl_c_prints_what_was_looked_at_by_then() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = silent.local_addr().unwrap().to_string();
    for (format, words) in [
        ("table", "1 endpoint: 0 critical, 1 unknown, 0 warning, 0 ok in "),
        (
            "json",
            "\"counts\":{\"ok\":0,\"warning\":0,\"critical\":0,\"unknown\":1}}\n",
        ),
        ("jsonl", "{\"endpoint\":\"127.0.0.1:1\","),
        ("prometheus", "neverlapse_run_endpoints{status=\"unknown\"} 1\n"),
    ] {
        let child = Command::new(NEVERLAPSE)
            .args(["check", "127.0.0.1:1", &second, "--concurrency", "1"])
            .args(["--timeout", "600", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // One at a time: with the second begun, the first is done.
        let connection = silent.accept().await.unwrap();
        let id = child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .await
                .unwrap()
                .success()
        );
        let out = child.wait_with_output().await.unwrap();
        drop(connection);
        assert_eq!(out.status.code(), Some(130), "{format}");
        let said = text(&out.stdout);
        assert!(said.contains(words) && said.contains("127.0.0.1:1"), "{format}: {said}");
        assert!(!said.contains(&second), "{format}: {said}");
        assert_eq!(text(&out.stderr), "error: interrupted; these are the results so far\n");
    }
}

/// Completions once panicked, and JSON said "error: Broken pipe".
#[tokio::test]
async fn a_reader_that_has_read_enough_is_no_error() {
    let list = "127.0.0.1:1\n".repeat(500);
    for arguments in [
        vec!["completions", "bash"],
        vec!["check", "--file", "-", "--format", "json"],
        vec!["check", "--file", "-", "--format", "jsonl"],
        vec!["check", "--file", "-", "--format", "table"],
    ] {
        let mut child = Command::new(NEVERLAPSE)
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(list.as_bytes()).await;
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(
            (child.wait().await.unwrap().code(), said.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

/// node_exporter refuses a page with a sample that occurs twice.
#[tokio::test]
async fn an_endpoint_given_twice_is_one_sample() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["check", "127.0.0.1:1", "127.0.0.1:1", "--format", "prometheus"];
    let page = text(&neverlapse(folder.path(), &arguments, "").await.stdout);
    let mut samples: Vec<_> = page
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "#")
        .collect();
    let all = samples.len();
    samples.sort();
    samples.dedup();
    assert_eq!((all, samples.len()), (9, 9), "{page}");
}

/// A directory once was an endless file of errors, and a named pipe was read twice.
#[tokio::test]
async fn a_file_may_be_a_directory_or_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let out = neverlapse(folder.path(), &["check", "--file", "."], "").await;
    assert_eq!(out.status.code(), Some(3));
    assert!(
        text(&out.stderr).contains("cannot read on: Is a directory"),
        "{}",
        text(&out.stderr)
    );
    let out = neverlapse(folder.path(), &["check", "--file", "/dev/stdin"], "127.0.0.1:1\n").await;
    assert!(
        text(&out.stdout).contains("1 endpoint: 0 critical, 1 unknown"),
        "{}",
        text(&out.stdout)
    );
}

#[tokio::test]
async fn validate_says_what_an_inventory_means() {
    let folder = tempfile::tempdir().unwrap();
    let example = include_str!("../../docs/inventory.example.toml");
    let out = neverlapse(folder.path(), &["validate", "-"], example).await;
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let said = text(&out.stdout);
    for words in [
        "< 30 d   < 3 d      xn--bcher-kva.example:443 (bücher.example)\n",
        "as vault.example.com (SNI)",
        "also trusts ca/internal.pem",
        "from letsencrypt, then zerossl",
        "served at example.com:443, api.example.com:8443",
        "https://acme.zerossl.com/v2/DV90",
        "arn:aws:iam::123456789012:role/acme-dns",
        "8 endpoints, 1 certificate, 0 errors\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let bad = "warn_dayz = 3\n[[endpoint]]\nhost = \"a..b\"\n[[endpoint]]\nhost = \"fine.example\"\n";
    let out = neverlapse(folder.path(), &["validate", "-"], bad).await;
    let said = text(&out.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].starts_with("error: standard input line 1: unknown key \"warn_dayz\" (expected "),
        "{said}"
    );
    assert!(
        lines[1].starts_with(
            "error: standard input line 3: [[endpoint]] host: invalid endpoint \"a..b\": \"a..b\" is not a domain name"
        ),
        "{said}"
    );
    assert!(text(&out.stdout).contains("fine.example:443"), "the rest is understood");
    assert_eq!(out.status.code(), Some(1));

    let wild = "[[certificate]]\nidentifiers = [\"*.example.com\"]\n";
    let out = neverlapse(folder.path(), &["validate", "-"], wild).await;
    let note = "note: standard input line 1: no endpoint shows whether example.com is served (expected served_at = ";
    assert!(text(&out.stderr).starts_with(note), "{}", text(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "instances may look");

    // What no public CA issues; a CA of one's own may.
    let odd = "[[certificate]]\nidentifiers = [\"my_host.example.com\", \"intranet\", \"db.internal\", \"*.com\", \"fine.example.com\"]\n";
    let own =
        "issuers = [\"own\"]\n[issuer.own]\ndirectory = \"https://ca.example.com/directory\"\nca = \"ca/own.pem\"\n";
    let out = neverlapse(folder.path(), &["validate", "-"], odd).await;
    let said = text(&out.stderr);
    for words in [
        "identifiers has my_host.example.com: public CAs issue no certificates for names with an underscore\n",
        "identifiers has intranet: public CAs issue no certificates for names without a dot\n",
        "identifiers has db.internal: public CAs issue no certificates for names under a top-level domain that is not in",
        "identifiers has *.com: public CAs issue no certificates for all of a top-level domain\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("has fine.example.com"), "{said}");
    let out = neverlapse(folder.path(), &["validate", "-"], &format!("{odd}{own}")).await;
    assert!(!text(&out.stderr).contains("public CAs"), "{}", text(&out.stderr));

    let names: Vec<_> = (0..101).map(|number| format!("\"h{number}.example.com\"")).collect();
    let many = format!("[[certificate]]\nidentifiers = [{}]\n", names.join(", "));
    let out = neverlapse(folder.path(), &["validate", "-"], &many).await;
    let said = text(&out.stderr);
    assert!(
        said.contains("identifiers has 101 names: Let's Encrypt takes 100"),
        "{said}"
    );
    let short = format!(
        "[[certificate]]\nidentifiers = [{}]\nprofile = \"shortlived\"\n",
        names[..26].join(", ")
    );
    let out = neverlapse(folder.path(), &["validate", "-"], &short).await;
    let said = text(&out.stderr);
    assert!(
        said.contains("identifiers has 26 names: Let's Encrypt takes 25 per certificate of the profile shortlived"),
        "{said}"
    );

    let out = neverlapse(folder.path(), &["validate", "-"], "[[zone]]\nname = \"a.example\"\n").await;
    let said = text(&out.stderr);
    assert!(said.contains("[[zone]] name = \"a.example\" changes nothing"), "{said}");

    // Each would be an alert about the other.
    let twice = |key: &str| {
        format!(
            "[[certificate]]\nidentifiers = [\"a.example.com\", \"www.example.com\"]\n\
             [[certificate]]\nidentifiers = [\"www.example.com\"]\nkey_type = {key:?}\n"
        )
    };
    let out = neverlapse(folder.path(), &["validate", "-"], &twice("ecdsa-p384")).await;
    let said = text(&out.stderr);
    assert!(
        said.contains("line 3: served_at names www.example.com:443 for www.example.com, and for a.example.com"),
        "{said}"
    );
    let out = neverlapse(folder.path(), &["validate", "-"], &twice("rsa-2048")).await;
    assert!(!text(&out.stderr).contains("served_at names"), "{}", text(&out.stderr));

    let out = neverlapse(folder.path(), &["validate", "-"], "# nothing yet\n").await;
    assert!(text(&out.stderr).contains("nothing to watch (expected endpoints, [[endpoint]] or [[certificate]])"));
    assert_eq!(out.status.code(), Some(1), "an inventory of nothing watches nothing");
}

/// A TLS server until the test ends.
async fn serve(ip: &str, chain: &str, key: &str) -> SocketAddr {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let (address, acceptor) = (listener.local_addr().unwrap(), TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Held until the client has seen enough.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 16]).await;
                }
            });
        }
    });
    address
}
