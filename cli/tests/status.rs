//! `neverlapse status` against a bucket: what it tells, what hides nothing, and how it ends.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use neverlapse::bucket::receipt::{self, Receipt, Stage};
use neverlapse::bucket::store::{Expecting, Object, Store};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::emulator::{Call, Emulator, element};
use neverlapse_tests::fault::{Fate, Proxy};
use neverlapse_tests::pki::Authority;
use neverlapse_tests::process::eventually;
use neverlapse_tests::webhost::WebHost;
use serde_json::{Value, json};
use time::Duration;
use tokio::process::Command;

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const NAMES: [&str; 2] = ["a.test", "b.test"];

/// A stack with two certificates, and a server for both.
struct Stack {
    emulator: Emulator,
    proxy: Proxy,
    /// The key that nobody may read.
    denied: Arc<Mutex<String>>,
    store: Store,
    depot: Depot,
    authority: Authority,
    host: WebHost,
}

impl Stack {
    async fn open() -> Self {
        let emulator = Emulator::start().await.unwrap();
        let bucket = deploy(&emulator).await;
        let denied = Arc::<Mutex<String>>::default();
        let no = denied.clone();
        let fate = move |line: &String| {
            let no = no.lock().unwrap();
            match !no.is_empty() && line.ends_with(no.as_str()) {
                true => Fate::Refuse(
                    403,
                    "<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_owned(),
                ),
                false => Fate::Pass,
            }
        };
        let stack = Self {
            proxy: Proxy::start(&emulator.endpoint, fate).await.unwrap(),
            store: Store::new(aws_sdk_s3::Client::new(&emulator.config), bucket),
            depot: Depot::new().unwrap(),
            authority: Authority::new().unwrap(),
            host: WebHost::new(Ipv4Addr::LOCALHOST, &NAMES).unwrap(),
            emulator,
            denied,
        };
        let entry = |(name, address): &(String, std::net::SocketAddr)| {
            format!("[[certificate]]\nidentifiers = [{name:?}]\nserved_at = [\"{address}\"]\nissuers = [\"test\"]\n")
        };
        let inventory: String = stack.host.places.iter().map(entry).collect();
        let issuer = "[issuer.test]\ndirectory = \"https://ca.test/directory\"\n";
        stack
            .put("inventory.toml", format!("{inventory}{issuer}").as_bytes())
            .await;
        stack
    }

    async fn publish(&mut self, name: &str, days: i64) -> Current {
        let leaf = self
            .authority
            .leaf(name, Timestamp::now() + Duration::days(days))
            .unwrap();
        let current = self.depot.publish(name, &leaf).unwrap();
        self.depot.upload(&self.store).await.unwrap();
        current
    }

    async fn put(&self, key: &str, body: &[u8]) {
        let object = Object::new(body, "application/json");
        self.store.put(key, object, Expecting::Anything).await.unwrap();
    }

    async fn report(&self, current: &Current, instance: &str, stage: Stage) {
        let now = Timestamp::now();
        let receipt = Receipt {
            schema: Receipt::SCHEMA.to_owned(),
            name: current.facts.name.clone(),
            instance: "what it says itself".to_owned(),
            host: "host-1".to_owned(),
            agent: "0".to_owned(),
            version: current.facts.version.clone(),
            fingerprint: current.facts.fingerprint.clone(),
            stage,
            reason: (stage == Stage::Failed).then(|| "the test failed: \u{1b}[2Jbroken".to_owned()),
            installed: None,
            sequence: None,
            not_after: None,
            since: now,
            at: now,
            next_by: now + Duration::DAY,
        };
        let key = receipt::key(&current.facts.name, instance);
        self.put(&key, &serde_json::to_vec(&receipt).unwrap()).await;
    }

    /// What the probe would have written.
    async fn looked(&self, ago: Duration, fingerprints: &[(&str, &str)]) {
        let at = Timestamp::now() - ago;
        let endpoint = |(name, fingerprint): &(&str, &str)| {
            let address = self.host.places.iter().find(|(known, _)| known == name).unwrap().1;
            json!({"endpoint": address.to_string(), "status": "ok", "findings": [], "observations": [{
                "address": address.to_string(), "elapsed_ms": 1, "tries": 1, "findings": [],
                "leaf": {"subject": "", "issuer": "CN=x", "serial": "1", "fingerprint": fingerprint, "names": [name],
                    "not_before": "2026-08-01T00:00:00Z", "not_after": "2036-10-30T00:00:00Z", "key": "ecdsa-p256",
                    "signature": "ecdsa-sha256", "role": "leaf"}}]})
        };
        let endpoints: Vec<_> = fingerprints.iter().map(endpoint).collect();
        let report = json!({"schema": "neverlapse.report/1", "started_at": at, "finished_at": at, "endpoints": endpoints,
            "counts": {"ok": 2, "warning": 0, "critical": 0, "unknown": 0}});
        self.put("reports/latest.json", report.to_string().as_bytes()).await;
    }

    async fn status(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(NEVERLAPSE);
        command.arg("status").args(arguments);
        command
            .envs(self.emulator.environment())
            .env("AWS_ENDPOINT_URL", &self.proxy.endpoint);
        let output = command.kill_on_drop(true).output().await.unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.status(&[arguments, &["--format", "json"]].concat()).await;
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }
}

/// Only what the command asks a stack for.
async fn deploy(emulator: &Emulator) -> String {
    let template = json!({
        "Parameters": {"Domains": {"Type": "String", "Default": "c.test, d.test:8443"}},
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {"BucketName": {"Value": {"Ref": "Bucket"}}}});
    let template = template.to_string();
    let create = [
        ("Action", "CreateStack"),
        ("StackName", "neverlapse"),
        ("TemplateBody", &*template),
    ];
    let create = Call::query("cloudformation", &create);
    emulator.call(&create).await.unwrap();

    let describe = Call::query(
        "cloudformation",
        &[("Action", "DescribeStacks"), ("StackName", "neverlapse")],
    );
    let bucket = eventually("the stack's output", async || {
        Ok(element(&emulator.call(&describe).await?, "OutputValue"))
    });
    bucket.await.unwrap()
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_with_the_stage_of_each_instance_and_address() {
    let mut stack = Stack::open().await;
    let ran = stack.status(&[]).await;
    assert_eq!(ran.code, 3, "nobody has looked: {ran:?}");
    assert!(
        ran.err.contains("warning: there is no reports/latest.json yet"),
        "{ran:?}"
    );
    assert!(ran.out.contains("no version yet"), "{ran:?}");

    let old = stack.publish("a.test", 20).await;
    let (a, b) = (stack.publish("a.test", 80).await, stack.publish("b.test", 80).await);
    stack.report(&a, "AROA:i-1", Stage::Served).await;
    stack.report(&b, "AROA:i-1", Stage::Failed).await;
    let seen = [("a.test", &*old.facts.fingerprint), ("b.test", &*b.facts.fingerprint)];
    stack.looked(Duration::HOUR, &seen).await;
    let ran = stack.status(&[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.err, "");
    for words in [
        "1 instance: 1 failed",
        "i-1 (host-1) has failed to install version",
        "the test failed: \\u{1b}[2Jbroken",
        "1 address: 1 different",
        &format!("serves version {}, valid until ", old.facts.version),
        &format!("version {} from test, 2 versions kept", a.facts.version),
        "renewal not due before",
        "2 certificates: 0 critical, 0 unknown, 1 warning, 1 ok",
        "2 endpoints: 0 critical, 0 unknown, 0 warning, 2 ok",
        "endpoints as the probe saw them 1 h",
    ] {
        assert!(ran.out.contains(words), "{words} in {}", ran.out);
    }
    assert!(
        !ran.out.contains("what it says itself") && !ran.out.contains("AROA"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.find("b.test") < ran.out.find("a.test"),
        "worst first: {}",
        ran.out
    );

    // A certificate by its name.
    let ran = stack.status(&["a.test"]).await;
    assert!(ran.code == 0 && !ran.out.contains("b.test"), "{ran:?}");
    let ran = stack.status(&["c.test"]).await;
    assert!(
        ran.code == 3
            && ran
                .err
                .contains("the inventory has no certificate \"c.test\" (expected a.test, b.test)"),
        "{ran:?}"
    );

    // For programs: a report, of which the page can be made too.
    let document = stack.json(&[]).await;
    assert_eq!(document["schema"], "neverlapse.report/1");
    assert!(document["looked_at"].is_string());
    let certificate = &document["certificates"][1];
    assert_eq!(
        (&certificate["name"], &certificate["status"]),
        (&json!("a.test"), &json!("ok"))
    );
    assert_eq!(certificate["instances"][0]["instance"], "AROA:i-1");
    assert_eq!(certificate["addresses"][0]["stage"], "another");
    assert_eq!(certificate["addresses"][0]["version"], old.facts.version);
    let history: Vec<_> = certificate["history"].as_array().unwrap().iter().collect();
    assert_eq!(
        history
            .iter()
            .map(|one| one["version"].as_str().unwrap())
            .collect::<Vec<_>>(),
        [&a.facts.version, &old.facts.version]
    );
    assert_eq!(
        (&history[0]["current"], &history[1]["current"]),
        (&json!(true), &json!(false))
    );

    // What the probe saw long ago is not what is served.
    stack.looked(Duration::hours(30), &seen).await;
    let ran = stack.status(&["a.test"]).await;
    assert!(
        ran.code == 3 && ran.err.contains("the last run of the probe was 1 d 6 h ago"),
        "{ran:?}"
    );
}

/// A stack that only watches had no status at all.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_alone_have_a_status() {
    let stack = Stack::open().await;
    stack.store.delete("inventory.toml").await.unwrap();
    let ran = stack.status(&[]).await;
    assert!(ran.out.contains("0 certificates: "), "{ran:?}");
    assert!(
        ran.err.contains("hint: `neverlapse run` has the probe check now"),
        "{ran:?}"
    );

    let expired = json!({"code": "self_signed", "severity": "critical", "subject": "x", "message": "is self-signed"});
    let at = Timestamp::now();
    let report = json!({"schema": "neverlapse.report/1", "started_at": at, "finished_at": at,
        "counts": {"ok": 1, "warning": 0, "critical": 1, "unknown": 0}, "endpoints": [
            {"endpoint": "c.test:443", "status": "critical", "findings": [expired], "observations": []},
            {"endpoint": "d.test:8443", "status": "ok", "findings": [], "observations": [], "seconds_left": 864_000}]});
    stack.put("reports/latest.json", report.to_string().as_bytes()).await;
    let ran = stack.status(&[]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    for words in [
        "c.test:443",
        "- is self-signed",
        "d.test:8443",
        "2 endpoints: 1 critical, 0 unknown, 0 warning, 1 ok",
    ] {
        assert!(ran.out.contains(words), "{words} in {}", ran.out);
    }

    let plugin = stack.status(&["--format", "plugin"]).await;
    assert_eq!(plugin.code, 2, "{plugin:?}");
    let expected = "NEVERLAPSE CRITICAL - c.test:443: is self-signed; 0 certificates, 2 endpoints | critical=1 unknown=0 warning=0\n";
    assert_eq!(plugin.out, expected);
    let lines = stack.status(&["--format", "jsonl"]).await.out;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines
            .iter()
            .map(|line| line["endpoint"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["c.test:443", "d.test:8443"]
    );
    let metrics = stack.status(&["--format", "prometheus"]).await.out;
    assert!(
        metrics.contains("neverlapse_endpoint_status{endpoint=\"c.test:443\"} 2\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_now_sees_what_is_served_now() {
    let mut stack = Stack::open().await;
    for name in NAMES {
        let current = stack.publish(name, 80).await;
        let live = stack.host.folder().join("live").join(name);
        std::fs::create_dir_all(&live).unwrap();
        for file in neverlapse::bucket::version::FILES {
            let key = neverlapse::bucket::version::file_key(name, &current.facts.version, file);
            std::fs::copy(stack.depot.object(&key), live.join(file)).unwrap();
        }
    }
    stack.host.start().await.unwrap();
    let ran = stack.status(&["a.test", "b.test", "--look"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("endpoints as seen now, from here"), "{ran:?}");
    // Published, and served nowhere yet.
    stack.publish("b.test", 85).await;
    let document = stack.json(&["--look"]).await;
    let stages: Vec<_> = document["certificates"].as_array().unwrap().iter().collect();
    assert_eq!(
        stages
            .iter()
            .map(|one| one["addresses"][0]["stage"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["served", "another"]
    );
    stack.host.stop();
    let ran = stack.status(&["--look"]).await;
    assert!(ran.code == 3 && ran.out.contains("not seen"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_or_cannot_be_read_is_named_and_hides_nothing() {
    let mut stack = Stack::open().await;
    let (a, b) = (stack.publish("a.test", 80).await, stack.publish("b.test", 80).await);
    stack
        .looked(
            Duration::HOUR,
            &[("a.test", &a.facts.fingerprint), ("b.test", &b.facts.fingerprint)],
        )
        .await;
    stack.report(&a, "AROA:i-1", Stage::Served).await;
    stack.report(&b, "AROA:i-1", Stage::Served).await;
    let huge = vec![b' '; 3 << 20];
    let future = br#"{"schema": "neverlapse.receipt/2"}"#;
    for (instance, body) in [
        ("AROA:i-2", &b"\0garbage"[..]),
        ("AROA:i-3", &huge),
        ("AROA:i-4", future),
    ] {
        stack.put(&receipt::key("a.test", instance), body).await;
    }
    stack.put("receipts/a.test/stray.txt", b"x").await;
    let ran = stack.status(&[]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    for words in [
        "the receipt of i-2 cannot be read: it is not a receipt",
        "the receipt of i-3 cannot be read",
        "it has 3145728 bytes (expected at most 65536)",
        "the receipt of i-4 cannot be read: its format is \"neverlapse.receipt/2\"",
        "the receipt of stray.txt cannot be read",
        "1 instance: 1 served",
        "2 certificates: 0 critical, 1 unknown, 0 warning, 1 ok",
    ] {
        assert!(ran.out.contains(words), "{words} in {}", ran.out);
    }

    *stack.denied.lock().unwrap() = current_key("b.test");
    let ran = stack.status(&["b.test"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.out.contains("its state is not known: cannot read s3://"), "{ran:?}");
    assert!(ran.err.contains("hint: this needs s3:ListBucket"), "{ran:?}");
    let ran = stack.status(&[]).await;
    assert!(ran.out.contains(&a.facts.version), "{ran:?}");
}

/// It was renewed, somebody took it out of the inventory, and nobody was told.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_taken_out_is_told_until_it_is_let_go() {
    let mut stack = Stack::open().await;
    stack.publish("c.test", 80).await;
    let told =
        "no longer renewed or watched: inventory.toml has no [[certificate]] named \"c.test\" any more; valid until";
    let said = |ran: &Ran| ran.out.contains(told);
    assert!(!said(&stack.status(&[]).await), "nobody has renewed it");
    stack.put("state/renewals/c.test.json", b"{}").await;
    let ran = stack.status(&[]).await;
    assert!(said(&ran), "{}", ran.out);
    assert!(
        !said(&stack.status(&["b.test"]).await),
        "only those that were asked for"
    );
    stack.store.delete("state/renewals/c.test.json").await.unwrap();
    assert!(!said(&stack.status(&[]).await), "it is let go");
}
