//! `neverlapse test-alert`: one message of each kind, to see that alerts arrive and how they look.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use aws_sdk_sns::config::{Builder, Region};
use clap::Args;
use neverlapse::alert::{Sender, Topic, sample, slack};
use neverlapse::aws;
use neverlapse::bucket::store::Store;
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Send to this topic, and to nobody else, instead of finding out where the stack sends its alerts
    #[arg(long, env = "NEVERLAPSE_ALERT_TOPIC", value_name = "ARN")]
    topic: Option<String>,
    #[command(flatten)]
    stack: StackName,
}

/// Where a stack's alerts go.
struct Channels {
    topic: Topic,
    sender: Sender,
    /// Holds the URL of the Slack webhook, if there is one. None where only a topic is known.
    store: Option<Store>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let Channels { topic, sender, store } = match &arguments.topic {
        Some(arn) => of_topic(arn, &arguments.stack).await?,
        None => of_stack(&arguments.stack).await?,
    };

    let mut out = io::stdout();
    for digest in sample::digests(&sender, Timestamp::now()) {
        topic.publish(&digest, &sender).await?;
        let in_slack = match &store {
            Some(store) => slack::notify(store, &digest, &sender)
                .await
                .context("the topic was told, but Slack was not")?,
            None => false,
        };
        let places = if in_slack { "topic, Slack" } else { "topic" };
        writeln!(out, "sent to {places}: {}", digest.subject)?;
    }
    Ok(0)
}

async fn of_stack(name: &StackName) -> Result<Channels> {
    let stack = Stack::find(name).await?;
    let arn = stack.output("AlertTopicArn")?;
    Ok(Channels {
        topic: Topic::new(aws_sdk_sns::Client::new(&stack.config), arn),
        sender: Sender::of(name.as_str(), arn, stack.store.bucket()),
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
    let config = Builder::from(&aws::config().await).region(region).build();
    Ok(Channels {
        topic: Topic::new(aws_sdk_sns::Client::from_conf(config), arn),
        sender,
        store: None,
    })
}

const EXAMPLES: &str = "\
Examples:
  neverlapse test-alert
  neverlapse test-alert --stack neverlapse-staging
  neverlapse test-alert --topic arn:aws:sns:eu-central-1:123456789012:alerts";
