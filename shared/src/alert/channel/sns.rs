//! The SNS topic that alerts go to. It hands each subscriber the body for its protocol: text for
//! people, Amazon Q's notification for chats, JSON for programs.

use aws_sdk_sns::Client;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

use super::amazon_q::custom_notification;
use crate::alert::digest::message::{Digest, Entry};
use crate::alert::digest::room::fitting;
use crate::alert::sender::Sender;
use crate::aws::reason;
use crate::finding::Severity;
use crate::timestamp::Timestamp;

/// The topic, with the client that publishes to it.
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
        let request = (self.sns.publish().topic_arn(&self.arn))
            .subject(&digest.subject)
            .message_structure("json")
            .message(bodies(digest, sender));
        match request.send().await {
            Ok(sent) => Ok(sent.message_id.unwrap_or_default()),
            Err(failed) => Err(Error {
                arn: self.arn.clone(),
                reason: reason(&failed),
            }),
        }
    }
}

/// `Message` of an SNS request with `MessageStructure: json`: a body for each protocol, all
/// together within [`LIMIT`].
pub fn bodies(digest: &Digest, sender: &Sender) -> String {
    let mut bytes = TEXT;
    loop {
        let text = digest.text(sender, bytes);
        let machine = json!(machine(digest, sender, bytes)).to_string();
        let bodies = json!({
            "default": text,
            "email": text,
            "sms": digest.subject,
            "https": custom_notification(digest, sender).to_string(),
            "sqs": machine,
            "lambda": machine,
        });

        // How much JSON has to escape is known only afterwards.
        let bodies = bodies.to_string();
        if bodies.len() <= LIMIT || bytes < SMALLEST {
            return bodies;
        }
        bytes = bytes / 4 * 3;
    }
}

/// The alert for programs, which queues and functions receive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Always `neverlapse.alert/1`.
    schema: &'static str,
    /// When the run ended that it reports.
    at: Timestamp,
    /// AWS account.
    account: String,
    /// AWS region.
    region: String,
    /// The stack's name.
    stack: String,
    /// The worst that it reports; `ok` if everything in it is resolved.
    severity: Severity,
    /// The same as in a mail.
    subject: String,
    /// Messages with the same value belong together.
    incident: String,
    /// Where the full report is.
    report: String,
    /// What happened, worst first.
    notices: Vec<Entry>,
    /// How many notices did not fit.
    omitted: usize,
    /// The same as in a mail.
    text: String,
}

/// The alert for programs, with the text and with as many entries, worst first, as fit into about
/// `bytes`.
fn machine(digest: &Digest, sender: &Sender, bytes: usize) -> Document {
    let entries = digest.sections.iter().flat_map(|section| &section.entries);
    // There may be thousands; these are enough to fill it.
    let shown = entries.clone().take(bytes / SHORTEST);
    let shown = fitting(shown, bytes, |entry| json!(entry).to_string().len());

    Document {
        schema: SCHEMA,
        at: digest.at,
        account: sender.account.clone(),
        region: sender.region.clone(),
        stack: sender.stack.clone(),
        severity: digest.severity,
        subject: digest.subject.clone(),
        incident: digest.thread.clone(),
        report: sender.report(),
        omitted: entries.count() - shown.len(),
        notices: shown.into_iter().cloned().collect(),
        text: digest.text(sender, bytes),
    }
}

/// What SNS takes as one message, all its bodies together.
pub const LIMIT: usize = 262_144;
/// Name and version of the format for programs.
const SCHEMA: &str = "neverlapse.alert/1";
/// The text travels four times in one JSON, twice of that within another.
const TEXT: usize = 60_000;
const SMALLEST: usize = 4_000;
/// Hardly an entry is shorter in JSON.
const SHORTEST: usize = 200;
