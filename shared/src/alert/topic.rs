//! The SNS topic that alerts go to. It hands each subscriber the body for its protocol.

use aws_sdk_sns::Client;
use thiserror::Error;

use super::Sender;
use super::digest::Digest;
use crate::aws::reason;

/// The topic, and whoever publishes to it.
#[derive(Clone, Debug)]
pub struct Topic {
    sns: Client,
    arn: String,
}

/// Why SNS did not take an alert.
#[derive(Debug, Error)]
#[error("cannot publish to {arn}: {reason}")]
pub struct Error {
    arn: String,
    reason: String,
}

impl Topic {
    /// The topic with this ARN.
    pub fn new(sns: Client, arn: impl Into<String>) -> Self {
        Self { sns, arn: arn.into() }
    }

    /// Publishes an alert, and answers with SNS's id for it.
    pub async fn publish(&self, digest: &Digest, sender: &Sender) -> Result<String, Error> {
        let request = self.sns.publish().topic_arn(&self.arn).subject(&digest.subject);
        let request = request.message_structure("json").message(digest.bodies(sender));
        match request.send().await {
            Ok(sent) => Ok(sent.message_id.unwrap_or_default()),
            Err(failed) => Err(Error {
                arn: self.arn.clone(),
                reason: reason(&failed),
            }),
        }
    }
}
