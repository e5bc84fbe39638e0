//! What all proofs share: the deployed stack, an ACME server, DNS from Route 53, and eyes for what came of a request.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_sqs::types::QueueAttributeName;
use neverlapse::renewal::Renewal;
use neverlapse::request::{Asker, Request};
use neverlapse::version::{CERT, CHAIN, Current, FILES, FULLCHAIN, MANIFEST, Manifest, PRIVKEY, current_key, sha256};
use neverlapse::version::{FileHash, file_key, versions_prefix};
use neverlapse_tests::dns::Dns;
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::inbox::{Inbox, Message};
use neverlapse_tests::pebble::{self, Pebble};
use neverlapse_tests::process::{command, run};
use neverlapse_tests::stack::Stack;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

pub(crate) struct Lab {
    pub(crate) stack: Stack,
    pub(crate) dns: Dns,
    pub(crate) pebble: Pebble,
    inbox: Inbox,
    told: Mutex<Vec<Message>>,
}

impl Lab {
    pub(crate) async fn open() -> Result<Self> {
        let emulator = Emulator::start().await?;
        // The world is told to ask somebody else about this name, who has no TXT record there.
        let elsewhere = [(format!("_acme-challenge.{DELEGATED_ELSEWHERE}"), Vec::new())];
        let dns = Dns::with_route53(elsewhere.into(), &emulator.config).await?;
        let stack = Stack::deploy_to(emulator, &[("Nameserver", &dns.address.to_string())]).await?;
        let inbox = Inbox::subscribe(&stack.config, &stack.topic, "alerts").await?;
        let pebble = Pebble::start(pebble::Options::default(), dns.address).await?;
        stack.put("ca/pebble.pem", &pebble.roots).await?;
        Ok(Self {
            stack,
            dns,
            pebble,
            inbox,
            told: Mutex::default(),
        })
    }

    /// Another ACME server, and the inventory's entry for it.
    pub(crate) async fn issuer(&self, name: &str, options: pebble::Options) -> Result<(Pebble, String)> {
        let pebble = Pebble::start(options, self.dns.address).await?;
        let ca = format!("ca/{name}.pem");
        self.stack.put(&ca, &pebble.roots).await?;
        let entry = format!(
            "[issuer.{name}]\ndirectory = {:?}\nca = {ca:?}\neab = {}\n",
            pebble.directory, options.external_account
        );
        Ok((pebble, entry))
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
        let topic = aws_sdk_sns::Client::new(&self.stack.config)
            .publish()
            .topic_arn(&self.stack.renewal_topic);
        topic.message(serde_json::to_string(request)?).send().await?;
        Ok(())
    }

    pub(crate) async fn current(&self, name: &str) -> Result<Option<Current>> {
        let text = self.stack.get(&current_key(name)).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Waits until another version than `before` is the current one.
    pub(crate) async fn published(&self, name: &str, before: Option<&Current>) -> Result<Current> {
        let version = |current: &Current| current.facts.version.clone();
        let before = before.map(version);
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            match self.current(name).await? {
                Some(current) if Some(version(&current)) != before => return Ok(current),
                _ => sleep(POLL).await,
            }
        }
        let renewal = self.renewal(name).await?;
        anyhow::bail!("nothing was published for {name}; the renewer remembers {renewal:?}")
    }

    /// Waits until the renewer remembers a failure of this try.
    pub(crate) async fn failed(&self, name: &str, since: OffsetDateTime) -> Result<String> {
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            match self.renewal(name).await?.and_then(|renewal| renewal.failure) {
                Some(failure) if failure.at >= since => return Ok(failure.problem),
                _ => sleep(POLL).await,
            }
        }
        anyhow::bail!("{name} did not fail")
    }

    pub(crate) async fn renewal(&self, name: &str) -> Result<Option<Renewal>> {
        let text = self.stack.get(&Renewal::key(name)).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Waits until no order for a certificate is under way any more.
    pub(crate) async fn at_rest(&self, name: &str) -> Result<()> {
        let (key, until) = (format!("orders/{name}.json"), Instant::now() + LONG);
        while let Some(record) = self.stack.get(&key).await? {
            ensure!(Instant::now() < until, "{key} is still there ({} bytes)", record.len());
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the queue of requests is empty. What failed stays in it for an hour.
    pub(crate) async fn drained(&self) -> Result<()> {
        let sqs = aws_sdk_sqs::Client::new(&self.stack.config);
        let queues = sqs.list_queues().send().await?.queue_urls.unwrap_or_default();
        let queue = queues.into_iter().find(|url| url.contains("RenewalQueue"));
        let queue = queue.context("the stack has a queue for requests")?;
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let until = Instant::now() + LONG;
        loop {
            let asked = sqs.get_queue_attributes().queue_url(&queue);
            let counts = asked.set_attribute_names(Some(names.to_vec())).send().await?.attributes;
            let counts = counts.context("a queue has attributes")?;
            if names
                .iter()
                .all(|name| counts.get(name).is_some_and(|count| count == "0"))
            {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the queue still has {counts:?}");
            sleep(POLL).await;
        }
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

    /// A version's leaf, PEM.
    pub(crate) async fn leaf(&self, current: &Current) -> Result<String> {
        let facts = &current.facts;
        let leaf = self.stack.get(&file_key(&facts.name, &facts.version, CERT)).await?;
        leaf.context("a version has a leaf")
    }

    /// Removes an object.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        let s3 = aws_sdk_s3::Client::new(&self.stack.config);
        s3.delete_object().bucket(&self.stack.bucket).key(key).send().await?;
        Ok(())
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

    /// Takes the current version out of the bucket, as an instance would, and looks at it as a client would: with webpki and with openssl.
    pub(crate) async fn verified(&self, name: &str, pebble: &Pebble) -> Result<Current> {
        let current = self.current(name).await?.context("there is a current version")?;
        let version = &current.facts.version;
        let get = async |file: &str| {
            let key = file_key(name, version, file);
            let text = self.stack.get(&key).await?;
            text.with_context(|| format!("{key} is not there"))
        };
        let manifest = get(MANIFEST).await?;
        ensure!(
            sha256(manifest.as_bytes()) == current.manifest_sha256,
            "the manifest's hash"
        );
        let manifest: Manifest = serde_json::from_str(&manifest)?;
        ensure!(manifest.facts == current.facts, "manifest and pointer differ");
        let folder = tempfile::tempdir()?;
        for file in FILES {
            let text = get(file).await?;
            let hash = FileHash::of(text.as_bytes());
            ensure!(manifest.files.get(file) == Some(&hash), "the hash of {file}");
            std::fs::write(folder.path().join(file), text)?;
        }
        std::fs::write(folder.path().join(ROOT), &pebble.issuing_root)?;
        with_webpki(folder.path(), &current, &pebble.issuing_root)?;
        with_openssl(folder.path()).await?;
        Ok(current)
    }

    /// The versions of a certificate that are in the bucket, and how many files they have.
    pub(crate) async fn versions(&self, name: &str) -> Result<Vec<(String, usize)>> {
        let prefix = versions_prefix(name);
        let mut versions = std::collections::BTreeMap::<String, usize>::new();
        for key in self.stack.keys(&prefix).await? {
            let version = key.trim_start_matches(&prefix).split('/').next().unwrap_or_default();
            *versions.entry(version.to_owned()).or_default() += 1;
        }
        Ok(versions.into_iter().collect())
    }
}

/// An inventory's entry.
pub(crate) fn certificate(name: &str, identifiers: &[&str], issuer: &str) -> String {
    format!("[[certificate]]\nname = {name:?}\nidentifiers = {identifiers:?}\nissuers = [{issuer:?}]\nserved_at = []\n")
}

/// What the probe sends.
pub(crate) fn request(name: &str) -> Request {
    Request::new(name, Asker::Probe, OffsetDateTime::now_utc())
}

/// What `neverlapse renew NAME --force` sends.
pub(crate) fn forced(name: &str) -> Request {
    Request {
        force: true,
        requested_by: Asker::Person,
        ..request(name)
    }
}

/// What the queue hands to the function.
pub(crate) fn batch(request: &Request) -> Result<Value> {
    let message = json!({
        "messageId": "11111111-1111-4111-8111-111111111111", "receiptHandle": "handle", "body": serde_json::to_string(request)?,
        "attributes": {}, "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs", "awsRegion": "eu-central-1",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:queue"
    });
    Ok(json!({ "Records": [message] }))
}

fn with_webpki(folder: &Path, current: &Current, root: &str) -> Result<()> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(folder.join(FULLCHAIN))?.collect();
    let chain = chain?;
    let (leaf, issuers) = chain.split_first().context("the chain is empty")?;
    let root = CertificateDer::from_pem_slice(root.as_bytes())?;
    let anchors = [webpki::anchor_from_trusted_cert(&root)?];
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, webpki::KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, &anchors, issuers, UnixTime::now(), usage, None, None)?;
    for identifier in &current.facts.identifiers {
        let name = identifier.replace('*', "anything");
        let name = ServerName::try_from(name.as_str())?;
        leaf.verify_is_valid_for_subject_name(&name)?;
    }
    Ok(())
}

async fn with_openssl(folder: &Path) -> Result<()> {
    let openssl = async |arguments: &[&str]| run(command("openssl").current_dir(folder).args(arguments)).await;
    let verify = [
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        ROOT,
        "-untrusted",
        CHAIN,
        CERT,
    ];
    let said = openssl(&verify).await?;
    ensure!(said.trim() == format!("{CERT}: OK"), "openssl says {said}");
    let of_certificate = openssl(&["x509", "-in", FULLCHAIN, "-noout", "-pubkey"]).await?;
    let of_key = openssl(&["pkey", "-in", PRIVKEY, "-pubout"]).await?;
    ensure!(of_certificate == of_key, "the key is not the certificate's");
    Ok(())
}

pub(crate) const DELEGATED_ELSEWHERE: &str = "elsewhere.test";
const ROOT: &str = "root.pem";
/// Longer than anything takes on a busy machine; nothing is measured by it.
const LONG: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
