//! What people and programs hear of a whole life on the deployed stack, and that no secret is in
//! any of it.

use neverlapse::timestamp::Timestamp;
use std::time::Duration;

use neverlapse_tests::cluster;
use neverlapse_tests::emulator::{Emulator, http};
use neverlapse_tests::inbox::{Inbox, Message};
use neverlapse_tests::pebble::{HMAC_KEY, KEY_ID, Options, Pebble};
use neverlapse_tests::pki::Authority;
use neverlapse_tests::process::{eventually, eventually_within, run};
use neverlapse_tests::shop::{CA, Shop};
use neverlapse_tests::stack::Stack;
use neverlapse_tests::webhook::Webhook;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const NAME: &str = "soon.shop.test";

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_message_arrives_by_each_way_and_none_has_a_secret() {
    let now = Timestamp::now();
    let subscribers = Authority::new().unwrap();
    let emulator = Emulator::start_trusting(&subscribers.root()).await.unwrap();
    let shop = Shop::open_on(now, &emulator.config).await.unwrap();
    // Whoever looks for a mistake may log everything that we have to say.
    let nameserver = shop.dns.address.to_string();
    let parameters = [
        ("Nameserver", &*nameserver),
        ("RenewerNameserver", &*nameserver),
        ("LogLevel", "TRACE"),
    ];
    let stack = Stack::deploy_to(emulator, &parameters).await.unwrap();
    let slack = Webhook::start().await.unwrap();
    stack.put("secrets/slack-webhook", &slack.url).await.unwrap();
    let inbox = Inbox::subscribe(&stack.config, &stack.topic, "programs").await.unwrap();
    let leaf = subscribers.leaf("127.0.0.1", now + time::Duration::days(9)).unwrap();
    let amazon_q = Webhook::start_tls(&leaf).await.unwrap();
    subscribe(&stack, &amazon_q).await;
    let mut heard = Heard::default();

    // One of each kind, by the command that people install.
    let said = neverlapse(&stack, &["test-alert"]).await;
    for kind in KINDS {
        let message = heard.next(&inbox).await;
        assert!(
            message.subject.starts_with(&format!("TEST {kind}")),
            "{kind}: {}",
            message.subject
        );
        assert_eq!(message.json["schema"], "neverlapse.alert/1");
        assert!(message.text.contains("This is a test"), "{}", message.text);
        assert!(
            said.contains(&format!("sent to topic, Slack: {}", message.subject)),
            "{said}"
        );
    }
    let posts = heard.posts(&slack, KINDS.len()).await;
    let notifications = heard.posts(&amazon_q, KINDS.len()).await;
    for kind in KINDS {
        let is_of = |text: &Value| text.as_str().is_some_and(|text| text.contains(&format!("TEST {kind}")));
        assert!(posts.iter().any(|post| is_of(&post["text"])), "{kind}: {posts:?}");
        let custom = |envelope: &Value| serde_json::from_str::<Value>(envelope["Message"].as_str().unwrap()).unwrap();
        let found = notifications
            .iter()
            .map(custom)
            .find(|one| is_of(&one["content"]["title"]));
        let found = found.unwrap_or_else(|| panic!("{kind}: {notifications:?}"));
        assert_eq!((&found["version"], &found["source"]), (&json!("1.0"), &json!("custom")));
    }

    // A run that finds something, and asks for a renewal that fails: everybody hears of that at
    // once, also where there is Slack alone.
    let options = Options {
        external_account: true,
        ..Options::default()
    };
    let pebble = Pebble::start(options, shop.dns.address).await.unwrap();
    stack.create_zone("shop.test").await.unwrap();
    let managed = format!(
        "[[certificate]]\nidentifiers = [{NAME:?}]\nserved_at = [{:?}]\nissuers = [\"customers\"]\n\n\
         [issuer.customers]\ndirectory = {:?}\nca = \"ca/pebble.pem\"\neab = true\n",
        shop.endpoint("soon"),
        pebble.directory
    );
    let wrong = json!({ "key_id": KEY_ID, "hmac_key": WRONG_KEY }).to_string();
    let eab = "accounts/customers/eab.json";
    for (key, text) in [(CA, &shop.root), ("ca/pebble.pem", &pebble.roots), (eab, &wrong)] {
        stack.put(key, text).await.unwrap();
    }
    let inventory = format!("{}{managed}", shop.inventory_by_name());
    stack.put("inventory.toml", &inventory).await.unwrap();
    let answer = stack.invoke(&json!({})).await.unwrap();
    assert!(!answer.failed, "{}", answer.payload);
    let (found, failed) = (heard.next(&inbox).await, heard.next(&inbox).await);
    assert!(
        found.subject.starts_with("CRITICAL: expired.shop.test"),
        "{}",
        found.subject
    );
    assert!(
        failed
            .subject
            .starts_with(&format!("WARNING: renewal of {NAME} failed")),
        "{}",
        failed.subject
    );
    let posts = heard.posts(&slack, 2).await;
    assert!(
        posts.iter().any(|post| post["text"] == failed.subject.as_str()),
        "{posts:?}"
    );

    // With the right key it works again, and that is told as well.
    let right = json!({ "key_id": KEY_ID, "hmac_key": HMAC_KEY }).to_string();
    stack.put(eab, &right).await.unwrap();
    neverlapse(&stack, &["renew", NAME, "--force"]).await;
    let renewed = heard.next(&inbox).await;
    assert!(
        renewed.subject.starts_with(&format!("OK: {NAME} is renewed until")),
        "{}",
        renewed.subject
    );
    // For a service with a record of each incident, it ends what began with the failure.
    assert_eq!(renewed.json["incident"], failed.json["incident"]);
    let posts = heard.posts(&slack, 1).await;
    assert_eq!(posts[0]["text"], renewed.subject.as_str());
    // A run that sees the new version.
    assert!(!stack.invoke(&json!({})).await.unwrap().failed);
    heard.next(&inbox).await;

    let logs = logs(&stack).await;
    for (decision, line) in [
        ("a finding", "is not for wrongname.shop.test"),
        ("an alert", "alert published"),
        ("a renewal", "decided"),
        ("its outcome", "request done"),
        ("its failure", "request failed"),
    ] {
        let line = logs.lines().find(|one| one.contains(line));
        let line = line.unwrap_or_else(|| panic!("{decision} is not in the log:\n{logs}"));
        assert!(
            line.contains("requestId"),
            "{decision} does not say of which request: {line}"
        );
    }
    let metrics: Vec<Value> = logs
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let metrics: Vec<_> = metrics
        .iter()
        .filter(|line| line["_aws"]["CloudWatchMetrics"].is_array())
        .collect();
    let renewals: Vec<_> = metrics.iter().filter(|line| line["RenewalsTried"] == 1.0).collect();
    let failures: Vec<_> = renewals
        .iter()
        .map(|line| line["RenewalsFailed"].as_f64().unwrap())
        .collect();
    assert_eq!(failures, [1.0, 0.0], "one try failed, the next did not");
    let issued: Vec<_> = metrics
        .iter()
        .filter_map(|line| line["ManagedIssued"].as_f64())
        .collect();
    assert_eq!(issued, [0.0, 1.0], "none before the renewal, one after it");

    // Nothing that is secret is anywhere but where it belongs.
    let secrets = secrets(&stack, &slack).await;
    assert!(
        secrets.len() >= 6,
        "a certificate's key, an account's, two of an external one, a webhook's: {secrets:?}"
    );
    let key = stack.keys("certificates/").await.unwrap();
    let key = key.iter().find(|key| key.ends_with("privkey.pem")).unwrap();
    let (pem, _) = stack.object(key).await.unwrap();
    assert_ne!(leaks(&secrets, &pem), Vec::<&str>::new(), "it finds what it looks for");
    for prefix in ["reports/", "state/", "certificates/"] {
        for key in stack.keys(prefix).await.unwrap() {
            if !key.ends_with("privkey.pem") {
                heard.0.push((key.clone(), stack.object(&key).await.unwrap().0));
            }
        }
    }
    heard.0.push(("the logs".to_owned(), logs));
    for (place, text) in &heard.0 {
        assert_eq!(leaks(&secrets, text), Vec::<&str>::new(), "in {place}:\n{text}");
    }
}

/// Everything that arrived, each with where.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    async fn next(&mut self, inbox: &Inbox) -> Message {
        let message = inbox.next(SOON).await.unwrap().expect("a message");
        let text = format!("{} {} {}", message.subject, message.text, message.json);
        self.0.push(("a message".to_owned(), text));
        message
    }

    /// Waits for this many posts.
    async fn posts(&mut self, hook: &Webhook, count: usize) -> Vec<Value> {
        let mut posts = Vec::new();
        let arrived = eventually_within(SOON, "all posts", async || {
            posts.extend(hook.taken());
            Ok((posts.len() >= count).then_some(()))
        });
        arrived.await.unwrap();

        self.0
            .extend(posts.iter().map(|post| ("a post".to_owned(), post.to_string())));
        assert_eq!(posts.len(), count, "{posts:?}");
        posts
    }
}

async fn neverlapse(stack: &Stack, arguments: &[&str]) -> String {
    let mut neverlapse = cluster::neverlapse(stack).await.unwrap();
    run(neverlapse.args(arguments)).await.unwrap()
}

/// As Amazon Q Developer does: by https, and confirmed by the token that comes first.
async fn subscribe(stack: &Stack, hook: &Webhook) {
    let sns = aws_sdk_sns::Client::new(&stack.config);
    let subscription = sns.subscribe().topic_arn(&stack.topic).protocol("https");
    subscription.endpoint(&hook.url).send().await.unwrap();

    let token = eventually("a token", async || {
        let taken = hook.taken();
        let token = taken.iter().find_map(|envelope| envelope["Token"].as_str());
        Ok(token.map(str::to_owned))
    });
    let token = token.await.unwrap();

    let confirm = sns.confirm_subscription().topic_arn(&stack.topic).token(token);
    confirm.send().await.unwrap();
}

/// Everything in CloudWatch Logs, line by line.
async fn logs(stack: &Stack) -> String {
    let call = async |action: &str, body: Value| -> Value {
        let request = http().unwrap().post(stack.endpoint()).body(body.to_string());
        let request = request
            .header("Content-Type", "application/x-amz-json-1.1")
            .header("X-Amz-Target", format!("Logs_20140328.{action}"))
            .header("Authorization", SIGNED_FOR_LOGS);
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{action}: {text}"))
    };
    let groups = call("DescribeLogGroups", json!({})).await;
    let mut lines = Vec::new();
    for group in groups["logGroups"].as_array().unwrap() {
        let events = call("FilterLogEvents", json!({"logGroupName": group["logGroupName"]})).await;
        let events = events["events"].as_array().unwrap().iter();
        lines.extend(events.map(|event| event["message"].as_str().unwrap().trim_end().to_owned()));
    }
    lines.join("\n")
}

/// Every piece of text that tells a secret.
async fn secrets(stack: &Stack, slack: &Webhook) -> Vec<String> {
    let mut secrets = [HMAC_KEY, WRONG_KEY, slack.secret()].map(str::to_owned).to_vec();
    for key in stack.keys("").await.unwrap() {
        let (text, _) = stack.object(&key).await.unwrap();
        if key.ends_with("privkey.pem") {
            let lines = text.lines().filter(|line| !line.starts_with("-----"));
            secrets.extend(lines.filter(|line| line.len() > 20).map(str::to_owned));
            // Also as a part of JSON, or of one long line.
            secrets.extend(
                text.lines()
                    .find(|line| line.contains("PRIVATE KEY"))
                    .map(str::to_owned),
            );
        } else if key.ends_with("account.json") {
            let account: Value = serde_json::from_str(&text).unwrap();
            secrets.push(account["key"].as_str().expect("an account has a key").to_owned());
        }
    }
    secrets
}

fn leaks<'a>(secrets: &'a [String], text: &str) -> Vec<&'a str> {
    let leaked = secrets.iter().filter(|secret| text.contains(secret.as_str()));
    leaked.map(String::as_str).collect()
}

const KINDS: [&str; 7] = [
    "WARNING: shop.example.com:443, 3 d 23 h left",
    "CRITICAL: shop.example.com:443, expired 1 h ago",
    "OK: shop.example.com:443, valid until",
    "WARNING: certificate www.example.com, renewal failed",
    "CRITICAL: 10 of 11 endpoints cannot be reached together",
    "CRITICAL: neverlapse watches nothing",
    "OK: all 11 endpoints are fine",
];
const WRONG_KEY: &str = "AAAAAM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const SIGNED_FOR_LOGS: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/logs/aws4_request, SignedHeaders=host, Signature=0";
