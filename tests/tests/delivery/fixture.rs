//! What all proofs share: the deployed stack, an ACME server, a CA for what was served before, and
//! the alerts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::version::Current;
use neverlapse::renewal::PREFIX;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::cluster::{self, Cluster, Ran, current, neverlapse};
use neverlapse_tests::dns::Dns;
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::inbox::{Inbox, Message};
use neverlapse_tests::pebble::{self, Pebble};
use neverlapse_tests::pki::Authority;
use neverlapse_tests::process::eventually_within;
use neverlapse_tests::program::program;
use neverlapse_tests::stack::Stack;
use serde_json::{Value, json};

pub(crate) struct Lab {
    pub(crate) stack: Stack,
    pub(crate) dns: Dns,
    pub(crate) pebble: Pebble,
    pub(crate) authority: Authority,
    inbox: Inbox,
}

impl Lab {
    pub(crate) async fn open() -> Result<Self> {
        // Before the first proof, which would otherwise wait for it.
        program("neverlapse").await?;
        let emulator = Emulator::start_recorded().await?;
        let dns = Dns::with_route53([].into(), &emulator.config).await?;
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
        let authority = Authority::new()?;
        let roots = format!("{}{}", pebble.roots, authority.root());
        stack.put("ca/pebble.pem", &roots).await?;
        Ok(Self {
            stack,
            dns,
            pebble,
            authority,
            inbox,
        })
    }

    /// Three instances that serve a certificate with so many days left, which alone is in the
    /// inventory. Those before it are let go.
    pub(crate) async fn cluster(&self, name: &str, days: i64, grace_hours: u16) -> Result<Cluster> {
        for key in self.stack.keys(PREFIX).await? {
            self.stack.remove(&key).await?;
        }
        let zone = self.stack.create_zone(name).await?;
        let not_after = Timestamp::now() + time::Duration::days(days) + time::Duration::HOUR;
        let leaf = self.authority.leaf(name, not_after)?;
        let cluster = Cluster::open(&self.stack, &zone, name, &leaf).await?;
        let entry = cluster.inventory(&format!(
            "issuers = [\"pebble\"]\ndeliver_within_hours = {grace_hours}\n"
        ));
        let issuer = format!(
            "[issuer.pebble]\ndirectory = {:?}\nca = \"ca/pebble.pem\"\n",
            self.pebble.directory
        );
        self.stack.put("inventory.toml", &format!("{entry}{issuer}")).await?;
        Ok(cluster)
    }

    /// Runs the probe, and answers with its report.
    pub(crate) async fn probe(&self) -> Result<Value> {
        let answer = self.stack.invoke(&json!({})).await?;
        ensure!(!answer.failed, "the probe: {}", answer.payload);
        Ok(answer.payload)
    }

    /// Waits until the renewer has published another version than `before`.
    pub(crate) async fn renewed(&self, before: &Current) -> Result<Current> {
        let name = &before.facts.name;
        eventually_within(LONG, &format!("{name}'s renewal"), async || {
            let now = current(&self.stack, name).await?;
            Ok((now.facts.version != before.facts.version).then_some(now))
        })
        .await
    }

    /// The next alert.
    pub(crate) async fn alert(&self) -> Result<Message> {
        self.inbox.next(LONG).await?.context("no alert arrived")
    }

    /// The next alert, if one has arrived.
    pub(crate) async fn next_alert(&self) -> Result<Option<Message>> {
        self.inbox.next(QUIET).await
    }

    /// No alert arrives.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let more = self.inbox.next(QUIET).await?;
        ensure!(more.is_none(), "there was nothing to say: {more:?}");
        Ok(())
    }

    /// Makes a version as old as this: the pointer says when it was published, and nobody waits for
    /// a day here.
    pub(crate) async fn published_hours_ago(&self, name: &str, hours: i64) -> Result<()> {
        let mut pointer = current(&self.stack, name).await?;
        pointer.published_at = Timestamp::now() - time::Duration::hours(hours);
        let key = neverlapse::bucket::version::current_key(name);
        self.stack.put(&key, &serde_json::to_string(&pointer)?).await
    }

    /// Runs the built command as an operator does.
    pub(crate) async fn neverlapse(&self, arguments: &[&str]) -> Result<Ran> {
        Ran::of(neverlapse(&self.stack).await?.args(arguments)).await
    }
}

/// Every address serves this certificate, as a client sees it.
pub(crate) async fn all_serve(cluster: &Cluster, current: &Current) -> Result<()> {
    for instance in &cluster.instances {
        serves(instance, current).await?;
    }
    Ok(())
}

/// An instance's server shows this certificate.
pub(crate) async fn serves(instance: &cluster::Instance, current: &Current) -> Result<()> {
    let (seen, expected) = (instance.host.served().await?, &current.facts.fingerprint);
    ensure!(seen == *expected, "{} serves {seen}, not {expected}", instance.id);
    Ok(())
}

/// It says all of this.
pub(crate) fn says(alert: &Message, all: &[&str]) -> Result<()> {
    for words in all {
        ensure!(
            alert.text.contains(words),
            "{words:?} is missing in:\n{}\n{}",
            alert.subject,
            alert.text
        );
    }
    Ok(())
}

/// Longer than anything takes on a busy machine; nothing is measured by it.
const LONG: Duration = Duration::from_secs(300);
/// The probe answers after SNS took its alert, so what it said is there by then.
const QUIET: Duration = Duration::from_secs(3);
