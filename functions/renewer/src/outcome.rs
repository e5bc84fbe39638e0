//! The result of a request that did not fail.

use std::fmt;

use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;

/// The result of a request that did not fail: nothing has to be delivered again.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The inventory no longer has the certificate.
    Gone,
    NotDue {
        next: Timestamp,
    },
    /// Due, but an earlier failure asks to wait.
    Waiting {
        until: Timestamp,
    },
    /// Another renewer holds the lease.
    Busy,
    Published(Box<Current>),
    /// A staging directory issued, and nothing was published.
    DryRun,
    AccountKeyReplaced,
    /// A person's request cannot be fulfilled; an alert gave the reason.
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the inventory does not have it any more"),
            Self::NotDue { next } => write!(f, "not due before {next}"),
            Self::Waiting { until } => write!(f, "due, but after a failure not before {until}"),
            Self::Busy => f.write_str("another renewer is at it"),
            Self::Published(current) => write!(f, "published {}", current.facts.version),
            Self::AccountKeyReplaced => f.write_str("the account has a new key"),
            Self::Refused => f.write_str("it cannot be done; an alert says why"),
            Self::DryRun => f.write_str("the dry run succeeded"),
        }
    }
}
