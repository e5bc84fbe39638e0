//! Alerts: what is said of a run, to whom, and what was said before.
//!
//! [`state::next`] decides from a report and from what was said before; [`digest::digest`] puts that into words; [`Digest::bodies`] and
//! [`slack::message`] give them the form that a channel wants; [`Topic::publish`] and [`slack::tell`] hand them over.

mod bodies;
pub mod digest;
pub mod sample;
pub mod slack;
pub mod state;
pub mod topic;

pub use crate::text::printable;
pub use bodies::{LIMIT, custom_notification, machine};
pub use digest::Digest;
pub use topic::Topic;

/// Whose alert it is, and where the rest is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The stack's name.
    pub stack: String,
    /// AWS region.
    pub region: String,
    /// AWS account.
    pub account: String,
    /// The bucket with inventory, state and reports.
    pub bucket: String,
}

impl Sender {
    /// A stack that tells `topic` (an ARN, which names region and account) and keeps its things in `bucket`.
    pub fn of(stack: &str, topic: &str, bucket: &str) -> Self {
        let part = |index| topic.split(':').nth(index).unwrap_or_default().to_owned();
        Self {
            stack: stack.to_owned(),
            region: part(3),
            account: part(4),
            bucket: bucket.to_owned(),
        }
    }

    fn signature(&self) -> String {
        let Self {
            stack, region, account, ..
        } = self;
        let report = match self.bucket.is_empty() {
            true => String::new(),
            false => format!("The full report: {} (`neverlapse report` fetches it)\n", self.report()),
        };
        format!("-- \n{report}neverlapse, stack {stack} in {region}, account {account}\n")
    }

    /// Where the last run's report is.
    pub fn report(&self) -> String {
        self.object(REPORT)
    }

    pub(crate) fn object(&self, key: &str) -> String {
        match self.bucket.as_str() {
            "" => key.to_owned(),
            bucket => format!("s3://{bucket}/{key}"),
        }
    }

    fn elsewhere(&self) -> String {
        format!("{} has them all", self.report())
    }
}

const SUBJECT_LENGTH: usize = 99;
const REPORT: &str = "reports/latest.html";
