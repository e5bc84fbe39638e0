//! The deployed probe, as its users meet it: one stack, real servers, the alert that arrived.

use neverlapse::timestamp::Timestamp;
use std::time::Duration;

use neverlapse_tests::cluster::{Ran, neverlapse};
use neverlapse_tests::emulator::{Call, Emulator};
use neverlapse_tests::inbox::Inbox;
use neverlapse_tests::shop::{CA, Shop};
use neverlapse_tests::stack::Stack;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(5);
/// The schedule fires once a minute, in a window of one.
const SCHEDULED: Duration = Duration::from_secs(240);

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    let endpoints = report["endpoints"].as_array().expect("a report has endpoints");
    let endpoint = endpoints
        .iter()
        .find(|one| one["endpoint"].as_str().unwrap_or("").starts_with(name));
    endpoint.unwrap_or_else(|| panic!("{name} is not in {report}"))["status"]
        .as_str()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployed_probe_looks_and_tells() {
    let emulator = Emulator::start().await.unwrap();
    let shop = Shop::open_on(Timestamp::now(), &emulator.config).await.unwrap();
    let nameserver = shop.dns.address.to_string();
    let parameters = [
        ("Schedule", "rate(1 minute)"),
        ("FlexibleWindowMinutes", "1"),
        ("Nameserver", &nameserver),
        ("RenewerNameserver", &nameserver),
    ];
    let stack = Stack::deploy_to(emulator, &parameters).await.unwrap();
    let inbox = Inbox::subscribe(&stack.config, &stack.topic, "alerts").await.unwrap();

    // Nothing to look at is an error and an alert, never a success. The schedule may say so too.
    let empty = stack.invoke(&json!({})).await.unwrap();
    assert!(empty.failed);
    assert_eq!(empty.payload["errorType"], "InventoryEmpty");
    let alert = inbox
        .next(SOON)
        .await
        .unwrap()
        .expect("an alert about the empty inventory");
    assert_eq!(alert.subject, "CRITICAL: neverlapse watches nothing");
    assert!(alert.text.contains("inventory.toml"), "{}", alert.text);

    // The schedule itself finds the inventory, and one bad entry in it hides nothing.
    stack.put(CA, &shop.root).await.unwrap();
    let with_a_mistake = format!("{}[[endpoint]]\nhost = \"a..b\"\n", shop.inventory_by_name());
    stack.put("inventory.toml", &with_a_mistake).await.unwrap();
    let alert = loop {
        let alert = inbox.next(SCHEDULED).await.unwrap().expect("the schedule's alert");
        if alert.subject != "CRITICAL: neverlapse watches nothing" {
            break alert;
        }
    };
    assert!(
        alert.subject.starts_with("CRITICAL: expired.shop.test:"),
        "{}",
        alert.subject
    );
    assert!(
        alert.subject.ends_with("expired 2 d ago (+4 more)"),
        "{}",
        alert.subject
    );
    assert!(alert.subject.len() < 100 && alert.subject.is_ascii());
    for words in [
        "expired.shop.test",
        "soon.shop.test",
        "expires in 9 d",
        "wrongname.shop.test",
        "is not for wrongname.shop.test",
        "incomplete.shop.test",
        "does not send the issuer",
        "\"a..b\"",
        "neverlapse watches again",
    ] {
        assert!(alert.text.contains(words), "{words:?} is missing in:\n{}", alert.text);
    }
    for name in ["healthy.shop.test", "silent.shop.test"] {
        let text = &alert.text;
        assert!(!text.contains(name), "{name} is fine, or not yet confirmed:\n{text}");
    }

    // The answer is the report.
    let answer = stack.invoke(&json!({})).await.unwrap();
    assert!(!answer.failed, "{}", answer.payload);
    let report = answer.payload;
    assert_eq!(report["schema"], "neverlapse.report/1");
    assert_eq!(
        report["counts"],
        json!({"ok": 1, "warning": 1, "critical": 3, "unknown": 1})
    );
    for (name, expected) in [
        ("healthy", "ok"),
        ("soon", "warning"),
        ("expired", "critical"),
        ("silent", "unknown"),
    ] {
        assert_eq!(status(&report, name), expected);
    }

    // The second run in a row that gets no answer says so, and of the rest nothing new.
    let alert = inbox.next(SOON).await.unwrap().expect("an alert about the silent one");
    assert!(
        alert.subject.starts_with("UNKNOWN: silent.shop.test:"),
        "{}",
        alert.subject
    );
    assert!(alert.subject.ends_with(", no answer in time"), "{}", alert.subject);
    assert!(alert.text.contains("TLS handshake took longer"), "{}", alert.text);

    // It is kept in the bucket, for programs and for people.
    let (json, content_type) = stack.object("reports/latest.json").await.unwrap();
    assert_eq!(content_type, "application/json");
    let kept: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(kept["counts"], report["counts"]);
    let (page, content_type) = stack.object("reports/latest.html").await.unwrap();
    assert_eq!(content_type, "text/html; charset=utf-8");
    assert!(page.contains("<h1>3 of 6 endpoints are critical</h1>"), "{page}");

    // Asked for one, it looks at one, with the roots that the inventory gives it; all forms of an
    // event work.
    let healthy = &shop.endpoints[0].0;
    for event in [
        json!({"endpoints": [healthy]}),
        json!({"Items": [{"endpoint": healthy}]}),
        json!({"endpoint": healthy}),
    ] {
        let answer = stack.invoke(&event).await.unwrap();
        assert_eq!(
            answer.payload["counts"],
            json!({"ok": 1, "warning": 0, "critical": 0, "unknown": 0}),
            "{event}"
        );
    }
    let answer = stack.invoke(&json!({"endpont": healthy})).await.unwrap();
    assert!(answer.failed);
    assert_eq!(answer.payload["errorType"], "InvalidEvent");
    let expired = &shop.endpoints[2].0;
    let answer = stack.invoke(&json!({"endpoint": expired})).await.unwrap();
    assert_eq!(answer.payload["counts"]["critical"], 1);

    // The command has the probe check, prints the table, and exits as a monitoring plugin does.
    let mut run = neverlapse(&stack).await.unwrap();
    let ran = Ran::of(run.args(["run", expired])).await.unwrap();
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.said.contains("expired 2 d ago") && ran.said.contains("1 endpoint: 1 critical"),
        "{ran:?}"
    );
    let mut run = neverlapse(&stack).await.unwrap();
    let ran = Ran::of(run.args(["run", healthy, "--format", "plugin"])).await.unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.said.starts_with("NEVERLAPSE OK - 1 endpoint: "), "{ran:?}");

    // Certificates of ACM are listed, CloudFront's in us-east-1 too.
    for (name, region) in [("app.shop.test", "eu-central-1"), ("cdn.shop.test", "us-east-1")] {
        let wanted = json!({"DomainName": name});
        let request = Call::json("acm", "CertificateManager.RequestCertificate", wanted).at(region);
        stack.call(&request).await.unwrap();
    }
    let mut discover = neverlapse(&stack).await.unwrap();
    let ran = Ran::of(discover.arg("discover")).await.unwrap();
    for region in ["eu-central-1", "us-east-1"] {
        let words = format!("issued by ACM in {region}, which renews it");
        assert!(ran.said.contains(&words), "{ran:?}");
    }
    // The local AWS lists no certificates of IAM, and that is said.
    assert!(ran.code == 3 && ran.said.contains(" hosted zone"), "{ran:?}");
    assert!(ran.said.contains("cannot list the certificates in IAM"), "{ran:?}");

    // A first inventory proposes their names, where nothing answers yet as comments.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inventory.toml");
    let mut init = neverlapse(&stack).await.unwrap();
    let ran = Ran::of(init.args(["init", "--output"]).arg(&file)).await.unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    let proposed = std::fs::read_to_string(&file).unwrap();
    for name in ["# \"app.shop.test:443\"", "# \"cdn.shop.test:443\""] {
        assert!(proposed.contains(name), "{proposed}");
    }

    let more = inbox.next(QUIET).await.unwrap();
    assert!(more.is_none(), "everything was said before: {more:?}");
}
