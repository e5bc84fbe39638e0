//! `neverlapse test-alert`: one message of each kind, to see that alerts arrive and how they look.

use std::io::Write;

use anyhow::{Context, Result, anyhow, bail};
use aws_sdk_sns::config::Region;
use neverlapse::alert::{Sender, sample};
use neverlapse::client::reason;
use time::OffsetDateTime;

/// What to send where.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The topic that alerts go to: the stack's output AlertTopicArn
    #[arg(long, env = "NEVERLAPSE_ALERT_TOPIC", value_name = "ARN")]
    topic: String,
    /// The stack's name, as it stands under each message
    #[arg(long, default_value = "neverlapse", value_name = "NAME")]
    stack: String,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let Arguments { topic, stack } = arguments;
    if topic.split(':').count() != 6 || !topic.starts_with("arn:") {
        bail!("invalid topic {topic:?} (expected arn:aws:sns:REGION:ACCOUNT:NAME, the stack's output AlertTopicArn)");
    }
    let sender = Sender::of(stack, topic, "");
    let config = neverlapse::client::config().await;
    // The topic's own region, whatever the profile says.
    let config = aws_sdk_sns::config::Builder::from(&config).region(Region::new(sender.region.clone()));
    let sns = aws_sdk_sns::Client::from_conf(config.build());
    for digest in sample::digests(&sender, OffsetDateTime::now_utc()) {
        let request = sns.publish().topic_arn(topic).subject(&digest.subject);
        let request = request.message_structure("json").message(digest.bodies(&sender));
        let sent = request.send().await;
        sent.map_err(|failed| anyhow!(reason(&failed)))
            .with_context(|| format!("cannot publish to {topic}"))?;
        writeln!(std::io::stdout(), "sent  {}", digest.subject)?;
    }
    Ok(0)
}
