//! Alerts: what people hear of a run, by which channel, and what they heard before.
//!
//! An [`Incident`] is one thing that is wrong at one place. [`decide`] compares what a run found
//! with the [`Memory`] of earlier runs: an incident is firing until a run shows that it is
//! resolved, people are notified when it appears, reminded while it lasts, and many with one cause
//! inhibit each other in favour of one. The result is the [`News`], and the [`State`] to remember
//! once people have heard it.
//!
//! [`digest()`] puts the news into words. Each channel gives these its own form and hands them
//! over: [`sns`] to mail, phones and programs, [`amazon_q`] by way of SNS to chats, [`slack`] to a
//! webhook.

pub mod channel;
mod decide;
mod digest;
mod fate;
mod found;
mod incident;
mod inhibit;
mod memory;
mod news;
pub mod sample;
mod seen;
mod watchlist;

pub use self::channel::sns::Topic;
pub use self::channel::{amazon_q, slack, sns};
pub use self::decide::{Run, decide};
pub use self::digest::{Digest, Entry, Section, digest};
pub use self::incident::{CONFIRMED, Incident, Notified, Outage, Place};
pub use self::memory::{KEY, Memory, SCHEMA, State};
pub use self::news::{Change, News, Notice};
pub use self::watchlist::Watchlist;

/// Whose alert it is, and where the rest is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The stack's name.
    pub stack: String,
    /// AWS region.
    pub region: String,
    /// AWS account.
    pub account: String,
    /// The bucket with inventory, state and reports; empty if it is not known.
    pub bucket: String,
}

impl Sender {
    /// A stack that alerts by `topic` (an ARN, which names region and account) and keeps its
    /// documents in `bucket`.
    pub fn of(stack: &str, topic: &str, bucket: &str) -> Self {
        let part = |index| topic.split(':').nth(index).unwrap_or_default().to_owned();
        Self {
            stack: stack.to_owned(),
            region: part(3),
            account: part(4),
            bucket: bucket.to_owned(),
        }
    }

    /// Where the last run's report is.
    pub fn report(&self) -> String {
        self.object(REPORT)
    }

    /// Where an object of the bucket is.
    fn object(&self, key: &str) -> String {
        match self.bucket.as_str() {
            "" => key.to_owned(),
            bucket => format!("s3://{bucket}/{key}"),
        }
    }

    /// Where everything is that a message has no room for.
    fn elsewhere(&self) -> String {
        format!("{} has them all", self.report())
    }

    /// The end of a message.
    fn signature(&self) -> String {
        let Self {
            stack, region, account, ..
        } = self;
        let report = if self.bucket.is_empty() {
            String::new()
        } else {
            format!("The full report: {} (`neverlapse report` fetches it)\n", self.report())
        };
        format!("-- \n{report}neverlapse, stack {stack} in {region}, account {account}\n")
    }
}

/// SNS refuses a subject of 100 characters.
const SUBJECT_LENGTH: usize = 99;
const REPORT: &str = "reports/latest.html";
