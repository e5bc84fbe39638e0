//! Reads what SNS delivered, through a real subscription.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use serde_json::{Value, json};

use crate::emulator::Call;

/// A queue that is subscribed to the alert topic.
#[derive(Debug)]
pub struct Inbox {
    endpoint: String,
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
    pub json: Value,
}

impl Inbox {
    /// Subscribes a new queue to a topic.
    pub async fn subscribe(config: &SdkConfig, topic: &str, name: &str) -> Result<Self> {
        let endpoint = config.endpoint_url().context("there is a local AWS")?.to_owned();
        let queue = ask(&endpoint, "CreateQueue", json!({ "QueueName": name })).await?;
        let url = queue["QueueUrl"].as_str().context("a queue has a URL")?.to_owned();

        let wanted = json!({ "QueueUrl": url, "AttributeNames": ["QueueArn"] });
        let attributes = ask(&endpoint, "GetQueueAttributes", wanted).await?;
        let arn = attributes["Attributes"]["QueueArn"]
            .as_str()
            .context("a queue has an ARN")?;

        let sns = aws_sdk_sns::Client::new(config);
        sns.subscribe()
            .topic_arn(topic)
            .protocol("sqs")
            .endpoint(arn)
            .send()
            .await?;
        Ok(Self { endpoint, url })
    }

    /// The next message, waited for up to `limit`.
    pub async fn next(&self, limit: Duration) -> Result<Option<Message>> {
        let until = tokio::time::Instant::now() + limit;
        while tokio::time::Instant::now() < until {
            let wanted = json!({ "QueueUrl": self.url, "WaitTimeSeconds": 1 });
            let received = ask(&self.endpoint, "ReceiveMessage", wanted).await?;
            let message = &received["Messages"][0];
            if let Some(body) = message["Body"].as_str() {
                let taken = json!({ "QueueUrl": self.url, "ReceiptHandle": message["ReceiptHandle"] });
                Call::sqs("DeleteMessage", taken).send(&self.endpoint).await?;
                return parse(body).map(Some);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(None)
    }
}

async fn ask(endpoint: &str, action: &str, body: Value) -> Result<Value> {
    let answer = Call::sqs(action, body).send(endpoint).await?;
    serde_json::from_str(&answer).with_context(|| format!("{action} answers in JSON, not {answer}"))
}

fn parse(body: &str) -> Result<Message> {
    let envelope: Value = serde_json::from_str(body).context("SNS wraps messages in JSON")?;
    let field = |name: &str| envelope[name].as_str().unwrap_or_default().to_owned();

    let message = field("Message");
    let json: Value = serde_json::from_str(&message).unwrap_or_default();
    let text = json["text"].as_str().map(str::to_owned);
    Ok(Message {
        subject: field("Subject"),
        text: text.unwrap_or(message),
        json,
    })
}
