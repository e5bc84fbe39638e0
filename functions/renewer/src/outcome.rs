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
    Published(Box<Published>),
    /// This issuer's staging directory issued, and nothing was published.
    DryRun {
        issuer: String,
    },
    AccountKeyReplaced,
    /// A person's request cannot be fulfilled.
    Refused {
        problem: String,
    },
}

/// A version that is published, and what people may have to know of it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) current: Current,
    /// The issuers that were asked before the one that issued.
    pub(crate) missed: Vec<Miss>,
    /// Whether the CA suggested it early in the life of the version before.
    pub(crate) is_early: bool,
}

/// An issuer that did not issue.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(crate) issuer: String,
    pub(crate) problem: String,
    /// When it can be asked again, if it is only busy and says so.
    pub(crate) retry_after: Option<Timestamp>,
    /// Whether it refuses, and does so until a person changes something.
    pub(crate) is_declined: bool,
    /// Whether every certificate meets it there, and if so, whether people were notified already.
    pub(crate) trouble: Option<TroubleNews>,
}

/// Whether trouble with an issuer is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleNews {
    New,
    Known,
}

impl Miss {
    /// Whether people were notified of it when another certificate met it.
    pub(crate) fn is_known(&self) -> bool {
        self.trouble == Some(TroubleNews::Known)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the inventory does not have it any more"),
            Self::NotDue { next } => write!(f, "not due before {next}"),
            Self::Waiting { until } => write!(f, "due, but after a failure not before {until}"),
            Self::Busy => f.write_str("another renewer is at it"),
            Self::Published(published) => write!(f, "published {}", published.current.facts.version),
            Self::AccountKeyReplaced => f.write_str("the account has a new key"),
            Self::Refused { problem } => write!(f, "it cannot be done: {problem}"),
            Self::DryRun { issuer } => write!(f, "the dry run succeeded at {issuer}"),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.issuer, self.problem)?;
        if self.trouble == Some(TroubleNews::New) {
            write!(
                f,
                "\n  note: every order at {} fails like this for now; one alert per day reports it for all certificates",
                self.issuer
            )?;
        }
        Ok(())
    }
}
