//! Whose alert it is: the stack, and where its documents are.

use crate::bucket::store::LATEST_PAGE;

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
        let mut parts = topic.split(':').skip(3);
        Self {
            stack: stack.to_owned(),
            region: parts.next().unwrap_or_default().to_owned(),
            account: parts.next().unwrap_or_default().to_owned(),
            bucket: bucket.to_owned(),
        }
    }

    /// Where the last run's report is.
    pub fn report(&self) -> String {
        self.object(LATEST_PAGE)
    }

    /// Where an object of the bucket is.
    pub(crate) fn object(&self, key: &str) -> String {
        match self.bucket.as_str() {
            "" => key.to_owned(),
            bucket => format!("s3://{bucket}/{key}"),
        }
    }

    /// Where everything is that a message has no room for.
    pub(crate) fn elsewhere(&self) -> String {
        format!("{} has them all", self.report())
    }

    /// The end of a text.
    pub(crate) fn signature(&self) -> String {
        let Self {
            stack, region, account, ..
        } = self;
        let report = if self.bucket.is_empty() {
            String::new()
        } else {
            format!("The full report: {} (`neverlapse report` fetches it)\n", self.report())
        };
        format!("{report}neverlapse, stack {stack} in {region}, account {account}\n")
    }
}

/// SNS refuses a subject of 100 characters.
pub(crate) const SUBJECT_LENGTH: usize = 99;
