//! `neverlapse test-alert`: one message of each kind, to see whether alerts arrive and how they
//! look.

use std::collections::BTreeSet;
use std::io::{self, Write};

use anyhow::{Result, bail, ensure};
use aws_sdk_sns::Client;
use aws_sdk_sns::config::{Builder, Region};
use clap::Args;
use neverlapse::alert::webhook::{Webhooks, listed};
use neverlapse::alert::{Digest, Sender, Topic, sample};
use neverlapse::aws;
use neverlapse::bucket::store::Store;
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Send to this topic only, instead of to wherever the stack sends its alerts
    #[arg(long, env = "NEVERLAPSE_ALERT_TOPIC", value_name = "ARN")]
    topic: Option<String>,
    #[command(flatten)]
    stack: StackName,
}

/// Where a stack's alerts go.
struct Channels {
    sns: Client,
    /// The topic's.
    arn: String,
    sender: Sender,
    /// Holds the webhooks, if there are any. None where only a topic is known.
    store: Option<Store>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let Channels {
        sns,
        arn,
        sender,
        store,
    } = match &arguments.topic {
        Some(arn) => of_topic(arn, &arguments.stack).await?,
        None => of_stack(&arguments.stack).await?,
    };

    let is_heard = print_subscribers(&sns, &arn).await;
    let mut out = io::stdout();
    let topic = Topic::new(sns, &arn);
    let webhooks = match &store {
        Some(store) => Webhooks::read(store).await,
        None => Webhooks::default(),
    };
    let mut in_any_webhook = false;
    let mut failed = BTreeSet::new();
    let now = Timestamp::now();
    let digests = sample::digests(&sender, now);
    for digest in &digests {
        topic.publish(digest, &sender).await?;
        let mut places = vec!["topic".to_owned()];
        for posted in webhooks.notify(&[], Some(digest), &sender, now).await {
            match posted {
                Ok(name) => places.push(name),
                Err(error) => {
                    failed.insert(error);
                }
            }
        }
        writeln!(out, "sent to {}: {}", places.join(", "), digest.subject)?;
        in_any_webhook |= places.len() > 1;
    }

    let ends: Vec<_> = digests.iter().flat_map(Digest::ends).collect();
    let closed = webhooks.notify(&ends, None, &sender, now).await;
    failed.extend(closed.into_iter().filter_map(Result::err));
    ensure!(
        failed.is_empty(),
        "the topic was notified, but not every webhook: {}",
        listed(&failed)
    );

    if is_heard || in_any_webhook {
        return Ok(0);
    }
    eprintln!(
        "warning: nobody receives these alerts: the topic has no confirmed subscription, and there is no webhook"
    );
    eprintln!(
        "hint: `aws sns subscribe --topic-arn {arn} --protocol email --notification-endpoint ADDRESS`, then confirm by mail"
    );
    Ok(NOT_HEARD)
}

/// Prints who is subscribed to the topic, and returns whether anybody has confirmed that. Where it
/// cannot be read, somebody may have.
async fn print_subscribers(sns: &Client, arn: &str) -> bool {
    let mut pages = sns
        .list_subscriptions_by_topic()
        .topic_arn(arn)
        .into_paginator()
        .items()
        .send();

    let mut is_heard = false;
    loop {
        match pages.next().await {
            None => return is_heard,
            Some(Ok(subscription)) => {
                let is_pending = subscription.subscription_arn() == Some(PENDING);
                let protocol = printable(subscription.protocol().unwrap_or("?"));
                let endpoint = printable(subscription.endpoint().unwrap_or("?"));
                let state = if is_pending {
                    " (NOT CONFIRMED: open the mail from AWS and confirm)"
                } else {
                    ""
                };
                println!("to: {protocol} {endpoint}{state}");
                is_heard |= !is_pending;
            }
            Some(Err(error)) => {
                eprintln!("note: the subscriptions cannot be listed: {}", aws::reason(&error));
                return true;
            }
        }
    }
}

async fn of_stack(name: &StackName) -> Result<Channels> {
    let stack = Stack::find(name).await?;
    let arn = stack.output("AlertTopicArn")?.to_owned();
    Ok(Channels {
        sns: Client::new(&stack.config),
        sender: Sender::of(name.as_str(), &arn, stack.store.bucket()),
        arn,
        store: Some(stack.store),
    })
}

async fn of_topic(arn: &str, stack: &StackName) -> Result<Channels> {
    if arn.split(':').count() != 6 || !arn.starts_with("arn:") {
        bail!("invalid topic {arn:?} (expected arn:aws:sns:REGION:ACCOUNT:NAME, the stack's output AlertTopicArn)");
    }

    let sender = Sender::of(stack.as_str(), arn, "");
    // The topic is in its own region, whatever the profile says.
    let region = Region::new(sender.region.clone());
    let config = Builder::from(&aws::config().await?).region(region).build();
    Ok(Channels {
        sns: Client::from_conf(config),
        arn: arn.to_owned(),
        sender,
        store: None,
    })
}

/// Everything was sent, but nobody receives it.
const NOT_HEARD: u8 = 1;
/// What SNS shows in place of a subscription's ARN until it is confirmed.
const PENDING: &str = "PendingConfirmation";
const EXAMPLES: &str = "\
Sends seven messages, each marked as a test, after a list of who is subscribed. Nothing that they report is real.

Exit codes: 0 sent, 1 sent but nobody receives it, 3 not sent

Examples:
  neverlapse test-alert
  neverlapse test-alert --stack neverlapse-staging
  neverlapse test-alert --topic arn:aws:sns:eu-central-1:123456789012:alerts";
