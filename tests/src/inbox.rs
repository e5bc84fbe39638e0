//! Reads what SNS delivered, through a real subscription.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_config::SdkConfig;

/// A queue that is subscribed to the alert topic.
#[derive(Debug)]
pub struct Inbox {
    sqs: aws_sdk_sqs::Client,
    url: String,
}

/// One alert as it arrived.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// Its body; of an alert for machines, the text in it.
    pub text: String,
    /// The alert for machines, if it is one.
    pub json: serde_json::Value,
}

impl Inbox {
    /// Subscribes a new queue to a topic.
    pub async fn subscribe(config: &SdkConfig, topic: &str, name: &str) -> Result<Self> {
        let sqs = aws_sdk_sqs::Client::new(config);
        let url = sqs
            .create_queue()
            .queue_name(name)
            .send()
            .await?
            .queue_url
            .context("a queue has a URL")?;

        let attribute = aws_sdk_sqs::types::QueueAttributeName::QueueArn;
        let attributes = sqs
            .get_queue_attributes()
            .queue_url(&url)
            .attribute_names(attribute.clone())
            .send()
            .await?;
        let arn = attributes
            .attributes
            .and_then(|mut all| all.remove(&attribute))
            .context("a queue has an ARN")?;

        let sns = aws_sdk_sns::Client::new(config);
        sns.subscribe()
            .topic_arn(topic)
            .protocol("sqs")
            .endpoint(arn)
            .send()
            .await?;
        Ok(Self { sqs, url })
    }

    /// The next message, waited for up to `limit`.
    pub async fn next(&self, limit: Duration) -> Result<Option<Message>> {
        let until = tokio::time::Instant::now() + limit;
        while tokio::time::Instant::now() < until {
            let received = self
                .sqs
                .receive_message()
                .queue_url(&self.url)
                .wait_time_seconds(1)
                .send()
                .await?;

            if let Some(message) = received.messages.unwrap_or_default().into_iter().next() {
                let handle = message.receipt_handle.context("a message has a handle")?;
                self.sqs
                    .delete_message()
                    .queue_url(&self.url)
                    .receipt_handle(handle)
                    .send()
                    .await?;
                return parse(&message.body.unwrap_or_default()).map(Some);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(None)
    }
}

fn parse(body: &str) -> Result<Message> {
    let envelope: serde_json::Value = serde_json::from_str(body).context("SNS wraps messages in JSON")?;
    let field = |name: &str| envelope[name].as_str().unwrap_or_default().to_owned();

    let message = field("Message");
    let json: serde_json::Value = serde_json::from_str(&message).unwrap_or_default();
    let text = json["text"].as_str().map(str::to_owned);
    Ok(Message {
        subject: field("Subject"),
        text: text.unwrap_or(message),
        json,
    })
}
