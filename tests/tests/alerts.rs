//! What the probe says and remembers, run after run: the built function, on a local AWS that fails
//! where it is told to.

use neverlapse::timestamp::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::fault::{Fate, Proxy};
use neverlapse_tests::inbox::{Inbox, Message};
use neverlapse_tests::program::program;
use neverlapse_tests::runtime::Function;
use neverlapse_tests::shop::{CA, Shop};
use neverlapse_tests::webhook::Webhook;
use serde_json::{Value, json};
use tempfile::TempDir;

const STATE: &str = "state/alerts.json";
const LOG: &str = "log";
const SOON: Duration = Duration::from_secs(120);
/// SNS hands over at once here.
const QUIET: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_is_new_and_remembers_only_what_was_said() {
    let world = World::open().await;
    world.watch(&["soon", "expired", "silent", "healthy"]).await;

    // What is certain is said at once, what may be the network's fault only when the next run sees
    // it too, and nothing twice.
    let first = world.run_and_hear().await;
    assert!(
        first.subject.starts_with("CRITICAL: expired.shop.test:"),
        "{}",
        first.subject
    );
    assert!(
        first.subject.ends_with(", expired 2 d ago (+1 more)"),
        "{}",
        first.subject
    );
    assert_eq!(first.json["schema"], "neverlapse.alert/1");
    assert_eq!(first.json["notices"][0]["code"], "expired");
    let second = world.run_and_hear().await;
    assert!(
        second.subject.starts_with("UNKNOWN: silent.shop.test:"),
        "{}",
        second.subject
    );
    assert!(
        second.text.contains("Also open, and reported before:"),
        "{}",
        second.text
    );
    world.run_and_hear_nothing().await;

    // Who asks for one endpoint gets an answer; nobody else hears of it, and nothing is remembered.
    let before = world.state().await;
    let answer = world
        .probe
        .invoke(json!({"endpoint": world.endpoint("expired")}))
        .await
        .unwrap();
    assert_eq!(answer["counts"]["critical"], 1);
    assert_eq!(world.heard().await.map(|message| message.subject), None);
    assert_eq!(world.state().await, before);

    // SNS is down: the run fails and remembers nothing, so the message comes when SNS is back.
    world.watch(&["expired", "healthy"]).await;
    world.sns_is_down.store(true, Ordering::SeqCst);
    let failed = world.probe.invoke(json!({})).await.unwrap_err().to_string();
    assert!(
        failed.contains("AlertNotSent") && failed.contains("cannot publish to"),
        "{failed}"
    );
    assert_eq!(world.state().await, before);
    world.sns_is_down.store(false, Ordering::SeqCst);
    let gone = world.run_and_hear().await;
    assert!(gone.subject.starts_with("REMOVED: s"), "{}", gone.subject);
    assert!(
        gone.subject.ends_with(", no longer watched (+1 more)"),
        "{}",
        gone.subject
    );
    world.run_and_hear_nothing().await;

    // Another run was faster: what both know is kept.
    world.watch(&["expired"]).await;
    world.race_is_lost.store(true, Ordering::SeqCst);
    world.run_and_hear_nothing().await;
    world.watch(&["expired", "soon"]).await;
    world.race_is_lost.store(true, Ordering::SeqCst);
    let new = world.run_and_hear().await;
    assert!(new.subject.starts_with("WARNING: soon.shop.test:"), "{}", new.subject);
    assert!(!world.race_is_lost.load(Ordering::SeqCst), "the race took place");
    assert_eq!(world.matters().await, 2);
    world.run_and_hear_nothing().await;

    // It cannot be remembered: that is an error, and the message is repeated.
    world.watch(&["expired", "soon", "wrongname"]).await;
    world.state_is_locked.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let failed = world.probe.invoke(json!({})).await.unwrap_err().to_string();
        assert!(failed.contains("AlertNotRemembered"), "{failed}");
        let message = world.alert().await.expect("the alert came");
        assert!(message.subject.ends_with(", wrong name"), "{}", message.subject);
    }
    world.state_is_locked.store(false, Ordering::SeqCst);
    world.run_and_hear().await;
    world.run_and_hear_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_makes_no_sense_is_said_and_keeps_nothing_back() {
    let world = World::open().await;
    world.watch(&["expired", "soon"]).await;
    world.run_and_hear().await;

    // Broken: everything is said again, and the memory is whole again.
    world
        .put(STATE, "{\"schema\": \"neverlapse.alerts/1\", \"matters\": 7}")
        .await;
    let repeated = world.run_and_hear().await;
    assert!(
        repeated.subject.ends_with(", expired 2 d ago (+2 more)"),
        "{}",
        repeated.subject
    );
    assert!(
        repeated.text.contains("the record of earlier alerts cannot be read"),
        "{}",
        repeated.text
    );
    let mended = world.run_and_hear().await;
    assert_eq!(mended.subject, "OK: the record of earlier alerts can be read again");
    assert_eq!(world.matters().await, 2);
    world.run_and_hear_nothing().await;

    // Nobody may read it: the same, and the report is there all the same.
    let before = world.get(STATE).await;
    world.state_is_hidden.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let answer = world.probe.invoke(json!({})).await.unwrap();
        let message = world.alert().await.expect("an alert");
        assert!(
            message.subject.ends_with(", expired 2 d ago (+2 more)"),
            "{}",
            message.subject
        );
        let reason = "cannot read s3://alerts/state/alerts.json: AccessDenied";
        assert!(message.text.contains(reason), "{}", message.text);
        let kept: Value = serde_json::from_str(&world.get("reports/latest.json").await).unwrap();
        assert_eq!(kept["finished_at"], answer["finished_at"], "the report of this run");
    }
    world.state_is_hidden.store(false, Ordering::SeqCst);
    assert_eq!(world.get(STATE).await, before);
    world.run_and_hear_nothing().await;

    // Of a later version: the same in every run, but it is not ours to change.
    let future = "{\"schema\": \"neverlapse.alerts/2\", \"anything\": []}";
    world.put(STATE, future).await;
    for _ in 0..2 {
        let report = world.probe.invoke(json!({})).await.unwrap();
        assert_eq!(report["counts"]["critical"], 1);
        let message = world.alert().await.expect("an alert");
        assert!(
            message.subject.ends_with(", expired 2 d ago (+2 more)"),
            "{}",
            message.subject
        );
        assert!(
            message.text.contains("format of a later version (neverlapse.alerts/2)"),
            "{}",
            message.text
        );
        assert_eq!(world.get(STATE).await, future);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_gets_what_it_missed() {
    let world = World::open().await;
    let slack = Webhook::start().await.unwrap();
    world.put("secrets/slack-webhook", &format!("{}\n", slack.url)).await;
    world.watch(&["expired"]).await;

    slack.refuse(true);
    let failed = world.probe.invoke(json!({})).await.unwrap_err().to_string();
    assert!(
        failed.contains("WebhookNotNotified") && failed.contains("it answered 403: invalid_token"),
        "{failed}"
    );
    assert!(!failed.contains(slack.secret()), "{failed}");
    let message = world.alert().await.expect("the topic is notified all the same");
    assert!(
        message.text.contains("Slack was not notified: it answered 403"),
        "{}",
        message.text
    );
    assert!(!message.text.contains(slack.secret()), "{}", message.text);

    slack.refuse(false);
    world.run_and_hear_nothing().await;
    let [posted] = slack.taken().try_into().expect("one message");
    assert!(
        posted["text"]
            .as_str()
            .unwrap()
            .starts_with("CRITICAL: expired.shop.test:"),
        "{posted}"
    );
    assert_eq!(posted["blocks"][0]["type"], "header");
    world.run_and_hear_nothing().await;
    assert_eq!(slack.taken(), Vec::<Value>::new(), "it was notified of everything");
    assert!(!world.log().contains(slack.secret()));
}

/// What a pager missed was sent again as far as it was open: the ends were lost, and its own
/// records stayed open.
#[tokio::test(flavor = "multi_thread")]
async fn a_pager_gets_the_ends_that_it_missed() {
    let world = World::open().await;
    let pager = Webhook::start().await.unwrap();
    let body = r#"{"action": "{{action}}", "incident": "{{incident}}"}"#;
    let webhook = format!(
        "[[webhook]]\nname = \"pager\"\nurl = \"{}\"\nper_incident = true\n",
        pager.url
    );
    world
        .put("secrets/webhooks.toml", &format!("{webhook}body = '{body}'\n"))
        .await;
    world.watch(&["soon", "expired"]).await;
    world.run_and_hear().await;
    let [expired, soon] = pager.taken().try_into().expect("two incidents");
    assert_eq!(
        (&expired["action"], &soon["action"]),
        (&json!("trigger"), &json!("trigger"))
    );
    assert_ne!(expired["incident"], soon["incident"]);

    pager.refuse(true);
    world.watch(&["soon"]).await;
    let failed = world.probe.invoke(json!({})).await.unwrap_err().to_string();
    assert!(failed.contains("pager was not notified: it answered 403"), "{failed}");
    world.alert().await.expect("the topic is notified all the same");

    pager.refuse(false);
    world.run_and_hear_nothing().await;
    let ended = json!({"action": "resolve", "incident": expired["incident"]});
    assert_eq!(pager.taken(), [ended, soon]);
    world.run_and_hear_nothing().await;
    assert_eq!(pager.taken(), Vec::<Value>::new(), "it was notified of everything");
}

/// A misspelt key in one webhook silenced all others of its file, and whoever failed made all
/// others repeat, in every run, everything that was open.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_webhook_neither_silences_the_others_nor_makes_them_repeat() {
    let world = World::open().await;
    let slack = Webhook::start().await.unwrap();
    let teams = Webhook::start().await.unwrap();
    let pager = Webhook::start().await.unwrap();
    let described = |name: &str, url: &str| {
        let body = r#"{"subject": "{{subject}}"}"#;
        format!("[[webhook]]\nname = \"{name}\"\nurl = \"{url}\"\nbody = '{body}'\n")
    };
    let file = format!("{}{}", described("Teams", &teams.url), described("pager", &pager.url));
    world.put("secrets/slack-webhook", &slack.url).await;
    world
        .put("secrets/webhooks.toml", &format!("{file}per_incidnet = true\n"))
        .await;
    world.watch(&["expired"]).await;

    let failed = world.probe.invoke(json!({})).await.unwrap_err().to_string();
    assert!(failed.contains("WebhookNotNotified"), "{failed}");
    assert!(!failed.contains(pager.secret()), "{failed}");
    let message = world.alert().await.expect("the topic is notified all the same");
    let problem =
        "secrets/webhooks.toml line 9, webhook 2 (\"pager\") cannot be understood (expected name, url and body)";
    assert!(message.text.contains(problem), "{}", message.text);
    assert_eq!((slack.taken().len(), teams.taken().len()), (1, 1));
    assert_eq!(world.state().await["missed"], json!(["pager"]));

    let failed = world.probe.invoke(json!({})).await.unwrap_err().to_string();
    assert!(failed.contains("WebhookNotNotified"), "{failed}");
    assert!(world.heard().await.is_none());
    assert_eq!((slack.taken().len(), teams.taken().len()), (0, 0));

    // Once it is corrected, it gets what is open, alone.
    world.put("secrets/webhooks.toml", &file).await;
    world.run_and_hear_nothing().await;
    assert_eq!(pager.taken(), [json!({"subject": message.subject})]);
    assert_eq!((slack.taken().len(), teams.taken().len()), (0, 0));
    assert_eq!(world.state().await["missed"], Value::Null);
    world.run_and_hear_nothing().await;
    assert_eq!(pager.taken(), Vec::<Value>::new(), "it was notified of everything");
    assert!(!world.log().contains(pager.secret()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_of_json_for_each_decision_with_the_request() {
    let world = World::open().await;
    world.watch(&["soon", "healthy"]).await;
    world.run_and_hear().await;
    let lines = world.log();
    let lines: Vec<Value> = (lines.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let (metrics, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["_aws"].is_object());
    assert_eq!(metrics.len(), 1, "one line of metrics: {metrics:?}");
    for line in &lines {
        assert!(
            line["span"]["requestId"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    let said: Vec<_> = lines.iter().map(|line| &line["fields"]).collect();
    let finding = said
        .iter()
        .find(|fields| fields["code"] == "expires_soon" && fields["endpoint"].is_string());
    let finding = finding.unwrap_or_else(|| panic!("no finding in {said:?}"));
    for name in ["address", "severity", "message"] {
        assert!(finding[name].is_string(), "{name}: {finding}");
    }
    let messages: Vec<_> = said.iter().filter_map(|fields| fields["message"].as_str()).collect();
    for message in ["to be reported", "alert published", "report written", "run finished"] {
        assert!(messages.contains(&message), "{message}: {messages:?}");
    }
}

struct World {
    emulator: Emulator,
    shop: Shop,
    bucket: String,
    inbox: Inbox,
    probe: Function,
    sns_is_down: Arc<AtomicBool>,
    /// The next write of the state finds that somebody was faster.
    race_is_lost: Arc<AtomicBool>,
    state_is_locked: Arc<AtomicBool>,
    state_is_hidden: Arc<AtomicBool>,
    _proxy: Proxy,
    folder: TempDir,
}

impl World {
    async fn open() -> Self {
        let emulator = Emulator::start().await.unwrap();
        let shop = Shop::open(Timestamp::now()).await.unwrap();
        let bucket = "alerts".to_owned();
        let s3 = aws_sdk_s3::Client::new(&emulator.config);
        let here = aws_sdk_s3::types::BucketLocationConstraint::EuCentral1;
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder()
            .location_constraint(here)
            .build();
        s3.create_bucket()
            .bucket(&bucket)
            .create_bucket_configuration(place)
            .send()
            .await
            .unwrap();
        let sns = aws_sdk_sns::Client::new(&emulator.config);
        let topic = sns
            .create_topic()
            .name("alerts")
            .send()
            .await
            .unwrap()
            .topic_arn
            .unwrap();
        let inbox = Inbox::subscribe(&emulator.config, &topic, "inbox").await.unwrap();
        let flags: [Arc<AtomicBool>; 4] = Default::default();
        let [sns_is_down, race_is_lost, state_is_locked, state_is_hidden] = flags.clone();
        let proxy = Proxy::start(&emulator.endpoint, move |line| {
            let [sns_is_down, race_is_lost, state_is_locked, state_is_hidden] = &flags;
            let refuse = |status, code| Fate::Refuse(status, format!("<Error><Code>{code}</Code></Error>"));
            match line.as_str() {
                "POST /" if sns_is_down.load(Ordering::SeqCst) => refuse(403, "AuthorizationError"),
                line if !line.contains(STATE) => Fate::Pass,
                line if line.starts_with("GET") => match state_is_hidden.load(Ordering::SeqCst) {
                    true => refuse(403, "AccessDenied"),
                    false => Fate::Pass,
                },
                _ if state_is_locked.load(Ordering::SeqCst) => refuse(403, "AccessDenied"),
                _ if race_is_lost.swap(false, Ordering::SeqCst) => refuse(412, "PreconditionFailed"),
                _ => Fate::Pass,
            }
        });
        let proxy = proxy.await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let own = [
            ("BUCKET", bucket.as_str()),
            ("ALERT_TOPIC_ARN", &topic),
            ("NAMESERVER", &shop.dns.address.to_string()),
            ("STACK_NAME", "neverlapse"),
            // As Lambda and the template set them.
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("RUST_LOG", "warn,lambda_runtime=info,neverlapse=trace,probe=trace"),
        ];
        let mut environment: Vec<_> = (emulator.environment().iter().chain(&own))
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        environment.retain(|(key, _)| key != "AWS_ENDPOINT_URL");
        environment.push(("AWS_ENDPOINT_URL".into(), proxy.endpoint.clone()));
        let program = program("probe").await.unwrap();
        let probe = Function::start(&program, &environment, &folder.path().join(LOG))
            .await
            .unwrap();
        let world = Self {
            emulator,
            shop,
            bucket,
            inbox,
            probe,
            sns_is_down,
            race_is_lost,
            state_is_locked,
            state_is_hidden,
            _proxy: proxy,
            folder,
        };
        world.put(CA, &world.shop.root).await;
        world
    }

    /// Writes an inventory of these, out of all that the shop has.
    async fn watch(&self, names: &[&str]) {
        let all = self.shop.inventory_by_name();
        let entries = all
            .split("[[endpoint]]")
            .filter(|entry| names.iter().any(|name| entry.contains(&format!("\"{name}.shop"))));
        let inventory: String = entries.map(|entry| format!("[[endpoint]]{entry}")).collect();
        self.put("inventory.toml", &inventory).await;
    }

    fn endpoint(&self, name: &str) -> &str {
        let (endpoint, _) = self
            .shop
            .endpoints
            .iter()
            .find(|(endpoint, _)| endpoint.starts_with(name))
            .unwrap();
        endpoint
    }

    async fn run_and_hear(&self) -> Message {
        self.probe.invoke(json!({})).await.unwrap();
        self.alert().await.expect("an alert")
    }

    async fn run_and_hear_nothing(&self) {
        self.probe.invoke(json!({})).await.unwrap();
        let heard = self.heard().await;
        assert!(heard.is_none(), "{heard:?}");
    }

    /// An alert that must come.
    async fn alert(&self) -> Option<Message> {
        self.inbox.next(SOON).await.unwrap()
    }

    /// One that may not come.
    async fn heard(&self) -> Option<Message> {
        self.inbox.next(QUIET).await.unwrap()
    }

    async fn put(&self, key: &str, text: &str) {
        let s3 = aws_sdk_s3::Client::new(&self.emulator.config);
        let body = text.as_bytes().to_vec().into();
        s3.put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
    }

    async fn get(&self, key: &str) -> String {
        let s3 = aws_sdk_s3::Client::new(&self.emulator.config);
        let object = s3.get_object().bucket(&self.bucket).key(key).send().await.unwrap();
        String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(LOG)).unwrap()
    }

    async fn state(&self) -> Value {
        serde_json::from_str(&self.get(STATE).await).unwrap()
    }

    async fn matters(&self) -> usize {
        self.state().await["matters"].as_object().unwrap().len()
    }
}
