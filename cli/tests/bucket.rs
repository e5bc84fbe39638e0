//! `neverlapse pull` on an instance: credentials from its metadata service, versions and receipts
//! in a bucket whose policies are enforced.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use neverlapse::bucket::receipt::{self, Receipt, Stage};
use neverlapse::bucket::store::{Expecting, LONGEST_FILE, Object, Store};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::emulator::{Emulator, Session};
use neverlapse_tests::fault::{Fate, Proxy};
use neverlapse_tests::metadata::Metadata;
use neverlapse_tests::pki::Authority;
use neverlapse_tests::webhost::WebHost;
use serde_json::{Value, json};
use time::Duration;
use tokio::process::Command;

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const NAME: &str = "shop.test";
const BUCKET: &str = "neverlapse-bucket";
const ROLE: &str = "web";
const ID: &str = "i-0aaaaaaaaaaaaaaaa";

/// An instance with nginx, a role and a bucket.
struct Instance {
    emulator: Emulator,
    proxy: Proxy,
    sts_is_away: Arc<AtomicBool>,
    metadata: Metadata,
    session: Session,
    store: Store,
    authority: Authority,
    depot: Depot,
    host: WebHost,
}

/// What the template's policy for readers says. The emulator enforces policies but fills in no
/// variables, so that here stands what IAM puts in the place of `${aws:userid}`.
fn policy(user_id: &str) -> Value {
    let objects = |key: &str| format!("arn:aws:s3:::{BUCKET}/{key}");
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": objects("certificates/shop.test/*")},
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"],
            "Resource": objects(&format!("receipts/shop.test/{user_id}.json"))}]})
}

impl Instance {
    /// It serves the first version.
    async fn open() -> (Self, Current) {
        let emulator = Emulator::start_strict().await.unwrap();
        let s3 = aws_sdk_s3::Client::new(&emulator.config);
        s3.create_bucket()
            .bucket(BUCKET)
            .create_bucket_configuration(location())
            .send()
            .await
            .unwrap();
        emulator.create_role(ROLE, &policy("nobody")).await.unwrap();
        let session = emulator.assume_role(ROLE, ID).await.unwrap();
        emulator.set_policy(ROLE, &policy(&session.user_id)).await.unwrap();
        let sts_is_away = Arc::new(AtomicBool::new(false));
        let away = sts_is_away.clone();
        // Nothing else is asked by POST here.
        let fate = move |line: &String| match away.load(Ordering::SeqCst) && line.starts_with("POST ") {
            true => Fate::Refuse(503, "<Error><Code>ServiceUnavailable</Code></Error>".to_owned()),
            false => Fate::Pass,
        };
        let mut instance = Self {
            proxy: Proxy::start(&emulator.endpoint, fate).await.unwrap(),
            metadata: Metadata::start(ID, &session).await.unwrap(),
            store: Store::new(s3, BUCKET),
            authority: Authority::new().unwrap(),
            depot: Depot::new().unwrap(),
            host: WebHost::new(Ipv4Addr::LOCALHOST, &[NAME]).unwrap(),
            emulator,
            sts_is_away,
            session,
        };
        instance.configure();
        let first = instance.publish(60).await;
        let ran = instance.pull(&[]).await;
        assert_eq!(ran.code, 2, "nothing serves yet: {ran:?}");
        instance.host.start().await.unwrap();
        let ran = instance.pull(&[]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        instance.serves(&first).await;
        (instance, first)
    }

    fn configure(&self) {
        let (folder, state) = (self.host.folder(), self.host.path().join("state"));
        let (test, reload) = (self.host.test_command(), self.host.reload_command());
        let address = self.host.places[0].1;
        let text = format!(
            "bucket = {BUCKET:?}\nfolder = {folder:?}\nstate = {state:?}\ntest_command = {test:?}\nreload_command = {reload:?}\n\
             [[certificate]]\nname = {NAME:?}\nverify = \"{address}\"\n"
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.host.path().join("pull.toml")
    }

    async fn publish(&mut self, days: i64) -> Current {
        let now = Timestamp::now();
        let (from, to) = (now - Duration::days(90 - days), now + Duration::days(days));
        let leaf = self.authority.issue(&[NAME], from, to).unwrap();
        let current = self.depot.publish(NAME, &leaf).unwrap();
        self.depot.upload(&self.store).await.unwrap();
        current
    }

    /// With nothing in its environment but where the services are.
    async fn pull(&self, more: &[&str]) -> Ran {
        let mut command = Command::new(NEVERLAPSE);
        command.args(["pull", "--config"]).arg(self.config()).args(more);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_ENDPOINT_URL", &self.proxy.endpoint)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.metadata.endpoint)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        let before = self.proxy.passed().len();
        let output = command.kill_on_drop(true).output().await.unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            requests: self.proxy.passed()[before..]
                .iter()
                .map(|passed| passed.line.clone())
                .collect(),
        }
    }

    async fn receipt(&self) -> Option<Receipt> {
        let key = receipt::key(NAME, &self.session.user_id);
        self.store.document(&key).await.unwrap().map(|found| found.value)
    }

    async fn serves(&self, current: &Current) {
        self.host.serves(current).await.unwrap();
    }
}

fn location() -> aws_sdk_s3::types::CreateBucketConfiguration {
    aws_sdk_s3::types::CreateBucketConfiguration::builder()
        .location_constraint(aws_sdk_s3::types::BucketLocationConstraint::EuCentral1)
        .build()
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
    requests: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_pulls_with_its_role_and_reports_under_its_user_id() {
    let (mut instance, first) = Instance::open().await;
    assert!(
        instance.session.user_id.ends_with(&format!(":{ID}")),
        "{}",
        instance.session.user_id
    );
    let receipt = instance.receipt().await.unwrap();
    assert_eq!((receipt.stage, &receipt.version), (Stage::Served, &first.facts.version));

    // Nothing new is one request.
    let ran = instance.pull(&[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.requests, [format!("GET /{BUCKET}/{}", current_key(NAME))]);

    // AWS need not say again who this is.
    instance.sts_is_away.store(true, Ordering::SeqCst);
    let second = instance.publish(80).await;
    let ran = instance.pull(&[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    instance.serves(&second).await;
    assert_eq!(instance.receipt().await.unwrap().version, second.facts.version);

    // It says goodbye, and a reboot brings it back.
    let ran = instance.pull(&["--leave"]).await;
    assert!(
        ran.code == 0 && ran.out.contains("shop.test: the receipt is removed"),
        "{ran:?}"
    );
    assert_eq!(instance.receipt().await, None);
    let ran = instance.pull(&["--leave"]).await;
    assert!(ran.code == 0 && ran.requests.is_empty(), "once is enough: {ran:?}");
    assert_eq!(instance.pull(&[]).await.code, 0);
    assert_eq!(instance.receipt().await.unwrap().stage, Stage::Served);
    instance.serves(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_cannot_write_as_another_nor_read_what_is_not_its_own() {
    let (instance, _) = Instance::open().await;
    let config = instance.emulator.config.to_builder();
    let credentials = aws_sdk_s3::config::SharedCredentialsProvider::new(instance.session.credentials());
    let config = config.credentials_provider(credentials).build();
    let own = Store::new(aws_sdk_s3::Client::new(&config), BUCKET);
    let receipt = || Object::new("{}", "application/json");
    let of = |id: &str| receipt::key(NAME, id);
    let role = instance.session.user_id.split(':').next().unwrap();
    for other in [
        format!("{role}:i-0bbbbbbbbbbbbbbbb"),
        ID.to_owned(),
        format!("{role}:{ID}/x"),
    ] {
        let written = own.put(&of(&other), receipt(), Expecting::Anything).await;
        assert!(
            written.as_ref().is_err_and(neverlapse::bucket::store::Error::is_denied),
            "{other}: {written:?}"
        );
        let deleted = own.delete(&of(&other)).await;
        assert!(deleted.is_err_and(|error| error.is_denied()), "{other}");
    }
    for key in [
        "accounts/letsencrypt/account.json",
        "certificates/other.test/current.json",
    ] {
        let read = own.object(key, LONGEST_FILE).await;
        assert!(read.is_err_and(|error| error.is_denied()), "{key}");
    }
    own.put(&of(&instance.session.user_id), receipt(), Expecting::Anything)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn access_denied_keeps_what_is_installed_and_says_what_is_needed() {
    let (mut instance, first) = Instance::open().await;
    let nothing = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]});
    instance.emulator.set_policy(ROLE, &nothing).await.unwrap();
    let second = instance.publish(80).await;
    let ran = instance.pull(&[]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    for words in [
        "AccessDenied",
        &format!("version {} stays installed", first.facts.version),
        "hint: the instance needs s3:GetObject on certificates/NAME/*",
    ] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    instance.serves(&first).await;

    // It may read, but not report: installed all the same, and said.
    let mut only_read = policy(&instance.session.user_id);
    only_read["Statement"].as_array_mut().unwrap().truncate(1);
    instance.emulator.set_policy(ROLE, &only_read).await.unwrap();
    let ran = instance.pull(&[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in ["the receipt is not written", "hint: the instance may need s3:PutObject"] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    instance.serves(&second).await;

    // And when it may again, it tells what it did meanwhile.
    let all = policy(&instance.session.user_id);
    instance.emulator.set_policy(ROLE, &all).await.unwrap();
    assert_eq!(instance.pull(&[]).await.code, 0);
    assert_eq!(instance.receipt().await.unwrap().version, second.facts.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_nobody_knows_yet_installs_and_reports_later() {
    let (mut instance, _) = Instance::open().await;
    fs::remove_file(instance.host.path().join("state/.identity.json")).unwrap();
    instance.sts_is_away.store(true, Ordering::SeqCst);
    let second = instance.publish(80).await;
    let ran = instance.pull(&[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("AWS STS does not say who this is"), "{ran:?}");
    instance.serves(&second).await;
    instance.sts_is_away.store(false, Ordering::SeqCst);
    assert_eq!(instance.pull(&[]).await.code, 0);
    assert_eq!(instance.receipt().await.unwrap().version, second.facts.version);
}
