//! What all proofs share: the deployed stack, an ACME server, DNS from Route 53, and eyes for what
//! came of a request.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use neverlapse::bucket::version::Current;
use neverlapse::renewal::request::{Request, RequestedBy};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::cluster::neverlapse;
use neverlapse_tests::dns::Dns;
use neverlapse_tests::emulator::{Call, Emulator};
use neverlapse_tests::inbox::{Inbox, Message};
use neverlapse_tests::pebble::{self, Pebble};
use neverlapse_tests::process::{eventually_within, run};
use neverlapse_tests::program::program;
use neverlapse_tests::stack::Stack;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bucket::Bucket;

pub(crate) struct Lab {
    pub(crate) stack: Stack,
    /// The stack's.
    pub(crate) bucket: Bucket,
    pub(crate) dns: Dns,
    pub(crate) pebble: Pebble,
    inbox: Inbox,
    told: Mutex<Vec<Message>>,
}

impl Lab {
    pub(crate) async fn open() -> Result<Self> {
        // Before the first proof, because one that builds while it has the stack alone would keep
        // the others waiting.
        program("neverlapse").await?;
        let emulator = Emulator::start_recorded().await?;
        // The world is told to ask somebody else about this name, who has no TXT record there.
        let elsewhere = [(format!("_acme-challenge.{DELEGATED_ELSEWHERE}"), Vec::new())];
        let others = emulator.account(ANOTHER_ACCOUNT).await;
        let dns = Dns::with_accounts(elsewhere.into(), &[&emulator.config, &others]).await?;
        let stack = Stack::deploy_to(
            emulator,
            &[
                ("Nameserver", &dns.address.to_string()),
                ("RenewerNameserver", &dns.address.to_string()),
            ],
        )
        .await?;
        let inbox = Inbox::subscribe(&stack.config, &stack.topic, "alerts").await?;
        let pebble = Pebble::start(pebble::Options::default(), dns.address).await?;
        stack.put("ca/pebble.pem", &pebble.roots).await?;
        Ok(Self {
            bucket: Bucket::new(&stack.config, &stack.bucket),
            stack,
            dns,
            pebble,
            inbox,
            told: Mutex::default(),
        })
    }

    /// Another ACME server, and the inventory's entry for it.
    pub(crate) async fn issuer(&self, name: &str, options: pebble::Options) -> Result<(Pebble, String)> {
        issuer(name, options, self.dns.address, &self.bucket).await
    }

    /// Writes the inventory, with `[issuer.pebble]` at its end.
    pub(crate) async fn inventory(&self, entries: &str) -> Result<()> {
        let pebble = format!(
            "[issuer.pebble]\ndirectory = {:?}\nca = \"ca/pebble.pem\"\n",
            self.pebble.directory
        );
        self.stack.put("inventory.toml", &format!("{entries}\n{pebble}")).await
    }

    /// Sends a request the way of the probe and of `neverlapse renew`.
    pub(crate) async fn ask(&self, request: &Request) -> Result<()> {
        aws_sdk_sns::Client::new(&self.stack.config)
            .publish()
            .topic_arn(self.topic(request))
            .message(serde_json::to_string(request)?)
            .send()
            .await?;
        Ok(())
    }

    /// What the queue hands to the function.
    pub(crate) fn batch(&self, request: &Request) -> Result<Value> {
        batch(request, self.topic(request))
    }

    /// The topic over which it comes.
    fn topic(&self, request: &Request) -> &str {
        match request.requested_by {
            RequestedBy::Probe => &self.stack.renewal_topic,
            RequestedBy::Person => &self.stack.operator_topic,
        }
    }

    /// Waits until another version than `before` is the current one. While others are published, it
    /// may still come: a hundred that are requested together come one after the other.
    pub(crate) async fn published(&self, name: &str, before: Option<&Current>) -> Result<Current> {
        let before = before.map(|current| &current.facts.version);
        loop {
            let others = self.stack.keys(CERTIFICATES).await?;
            let published = eventually_within(LONG, "the next version", async || {
                let current = self.bucket.current(name).await?;
                Ok(current.filter(|current| Some(&current.facts.version) != before))
            });

            match published.await {
                Err(_) if self.stack.keys(CERTIFICATES).await? != others => {}
                Ok(current) => return Ok(current),
                Err(late) => {
                    let renewal = self.bucket.renewal(name).await?;
                    return Err(late.context(format!("{name}: the renewer remembers {renewal:?}")));
                }
            }
        }
    }

    /// Waits until the renewer remembers a failure of this try.
    pub(crate) async fn failed(&self, name: &str, since: Timestamp) -> Result<String> {
        eventually_within(LONG, &format!("a failure of {name}"), async || {
            let failure = self.bucket.renewal(name).await?.and_then(|renewal| renewal.failure);
            Ok(failure
                .filter(|failure| failure.at >= since)
                .map(|failure| failure.problem))
        })
        .await
    }

    /// Waits until no order for a certificate is under way any more.
    pub(crate) async fn at_rest(&self, name: &str) -> Result<()> {
        let key = format!("orders/{name}.json");
        eventually_within(LONG, &format!("the end of {key}"), async || {
            Ok(self.stack.get(&key).await?.is_none().then_some(()))
        })
        .await
    }

    /// Takes what failed in an earlier proof out of the queue of requests; it would stay for an
    /// hour.
    pub(crate) async fn purge(&self) -> Result<()> {
        let purge = Call::sqs("PurgeQueue", json!({ "QueueUrl": self.queue().await? }));
        self.stack.call(&purge).await.map(drop)
    }

    /// Waits until the queue of requests is empty.
    pub(crate) async fn drained(&self) -> Result<()> {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let wanted = json!({ "QueueUrl": self.queue().await?, "AttributeNames": names });
        let count = Call::sqs("GetQueueAttributes", wanted);
        eventually_within(LONG, "an empty queue of requests", async || {
            let counts: Value = serde_json::from_str(&self.stack.call(&count).await?)?;
            let empty = names.iter().all(|name| counts["Attributes"][name] == "0");
            Ok(empty.then_some(()))
        })
        .await
    }

    async fn queue(&self) -> Result<String> {
        let answer = self.stack.call(&Call::sqs("ListQueues", json!({}))).await?;
        let queues: Value = serde_json::from_str(&answer)?;
        let mut urls = queues["QueueUrls"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let url = urls.find(|url| url.contains("RenewalQueue"));
        url.map(str::to_owned).context("the stack has a queue for requests")
    }

    /// How many processes of the deployed renewer there are.
    pub(crate) fn renewers(&self) -> Result<usize> {
        let endpoint = format!("AWS_ENDPOINT_URL={}", self.stack.endpoint());
        let is_one = |environment: &[u8]| {
            let has = |wanted: &dyn Fn(&[u8]) -> bool| environment.split(|byte| *byte == 0).any(wanted);
            let named = |entry: &[u8]| {
                let entry = String::from_utf8_lossy(entry);
                entry.starts_with("AWS_LAMBDA_FUNCTION_NAME=") && entry.contains("Renewer")
            };
            has(&named) && has(&|entry| entry == endpoint.as_bytes())
        };
        // A process that ends meanwhile has nothing to read.
        let environments = std::fs::read_dir("/proc")?
            .flatten()
            .map(|entry| entry.path().join("environ"));
        Ok(environments
            .filter_map(|path| std::fs::read(path).ok())
            .filter(|read| is_one(read))
            .count())
    }

    /// Runs the built command on the stack; what it printed, also if it failed.
    pub(crate) async fn neverlapse(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut neverlapse = neverlapse(&self.stack).await?;
        neverlapse.args(arguments);
        Ok(match run(&mut neverlapse).await {
            Ok(said) => (true, said),
            Err(failed) => (false, format!("{failed}")),
        })
    }

    /// The first alert with these words in its subject, among those that were not taken yet.
    pub(crate) async fn alert(&self, words: &str) -> Result<Message> {
        let until = Instant::now() + LONG;
        loop {
            let found = {
                let mut told = self.told.lock().unwrap();
                let at = told.iter().position(|message| message.subject.contains(words));
                at.map(|at| told.remove(at))
            };
            if let Some(message) = found {
                return Ok(message);
            }
            if Instant::now() > until {
                let told = self.told.lock().unwrap();
                let subjects: Vec<_> = told.iter().map(|message| message.subject.clone()).collect();
                anyhow::bail!("no alert has {words:?} in its subject, only {subjects:?}");
            }
            if let Some(message) = self.inbox.next(Duration::from_secs(2)).await? {
                self.told.lock().unwrap().push(message);
            }
        }
    }
}

/// An ACME server whose roots are in `bucket`, and the inventory's entry for it.
pub(crate) async fn issuer(
    name: &str,
    options: pebble::Options,
    dns: SocketAddr,
    bucket: &Bucket,
) -> Result<(Pebble, String)> {
    let pebble = Pebble::start(options, dns).await?;
    let ca = format!("ca/{name}.pem");
    bucket.put(&ca, &pebble.roots).await?;
    let entry = format!(
        "[issuer.{name}]\ndirectory = {:?}\nca = {ca:?}\neab = {}\n",
        pebble.directory, options.external_account
    );
    Ok((pebble, entry))
}

/// An inventory's entry.
pub(crate) fn certificate(name: &str, identifiers: &[&str], issuer: &str) -> String {
    format!("[[certificate]]\nname = {name:?}\nidentifiers = {identifiers:?}\nissuers = [{issuer:?}]\nserved_at = []\n")
}

/// What the probe sends.
pub(crate) fn request(name: &str) -> Request {
    Request::new(name, RequestedBy::Probe, Timestamp::now())
}

/// What `neverlapse renew NAME --force` sends.
pub(crate) fn forced(name: &str) -> Request {
    Request {
        force: true,
        requested_by: RequestedBy::Person,
        ..request(name)
    }
}

/// What the queue hands to a function for a request that came over this topic.
pub(crate) fn batch(request: &Request, topic: &str) -> Result<Value> {
    let notification = json!({
        "Type": "Notification", "TopicArn": topic, "Message": serde_json::to_string(request)?,
    });
    let message = json!({
        "messageId": "11111111-1111-4111-8111-111111111111", "receiptHandle": "handle", "body": notification.to_string(),
        "attributes": {}, "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs", "awsRegion": "eu-central-1",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:queue"
    });
    Ok(json!({ "Records": [message] }))
}

pub(crate) const ANOTHER_ACCOUNT: &str = "210987654321";
pub(crate) const DELEGATED_ELSEWHERE: &str = "elsewhere.test";
/// Longer than anything takes on a busy machine; nothing is measured by it.
const LONG: Duration = Duration::from_secs(300);
const CERTIFICATES: &str = "certificates/";
