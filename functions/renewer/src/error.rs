//! Why a renewal stopped, and whether another issuer could help.

use neverlapse::bucket::store;
use neverlapse::dns;
use neverlapse::timestamp::Timestamp;
use thiserror::Error;

/// Why a renewal stopped.
///
/// The variant decides what happens next: only [`Error::CaUnavailable`], [`Error::CaDeclined`] and
/// [`Error::Unfit`] move on to the next issuer, and [`Error::should_notify`] says which of them
/// people are notified of.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// A failure of our own, or of AWS: another issuer would not help.
    #[error("{0}")]
    Internal(String),
    /// The CA refuses: another issuer may help.
    #[error("{0}")]
    CaDeclined(String),
    /// The CA is down, busy, or does not speak ACME: another issuer may help.
    #[error("{problem}")]
    CaUnavailable {
        problem: String,
        /// When the CA may be asked again, if it said so.
        retry_after: Option<Timestamp>,
    },
    /// What the CA issued cannot be served: another issuer may help. It is not asked again at once,
    /// because each try is a certificate more, and CAs limit them: Let's Encrypt issues five per
    /// week for the same names.
    #[error("{problem}")]
    Unfit { problem: String, until: Timestamp },
    /// All issuers are in trouble, and people were notified of it when another certificate met it.
    #[error("{problem}")]
    IssuersInTrouble {
        problem: String,
        /// When the first of them may be asked again, if all said so.
        retry_after: Option<Timestamp>,
    },
    /// Nobody knows whether anything is due, because the bucket cannot be read.
    #[error("{0}")]
    BucketUnreadable(String),
    /// Lambda's time is nearly over, or the CA's work takes longer; the next delivery goes on.
    #[error("out of time while {0}; goes on with the next delivery")]
    OutOfTime(String),
    /// Another renewer holds the certificate's lease now.
    #[error("another renewer has taken over")]
    LeaseLost,
}

impl Error {
    /// The CA cannot be used, and does not say until when.
    pub(crate) fn unavailable(problem: impl Into<String>) -> Self {
        Self::CaUnavailable {
            problem: problem.into(),
            retry_after: None,
        }
    }

    /// Time is over while this goes on.
    pub(crate) fn out_of_time(what: impl Into<String>) -> Self {
        Self::OutOfTime(what.into())
    }

    /// The same error from what concerns one issuer alone, such as its account in the bucket.
    pub(crate) fn of_issuer(self) -> Self {
        match self {
            Self::Internal(problem) => Self::CaDeclined(problem),
            other => other,
        }
    }

    /// The same error from an operation that cannot even begin without the bucket.
    pub(crate) fn bucket_unreadable(self) -> Self {
        Self::BucketUnreadable(self.to_string())
    }

    /// Whether it is a failure to remember and to notify people of, at this delivery of the
    /// request. Nobody waits for a request `by_probe`.
    pub(crate) fn should_notify(&self, by_probe: bool, deliveries: u32) -> bool {
        match self {
            Self::Internal(_)
            | Self::CaDeclined(_)
            | Self::CaUnavailable { .. }
            | Self::Unfit { .. }
            | Self::IssuersInTrouble { .. } => true,
            // The probe reads the same objects, and reports that once for all certificates.
            Self::BucketUnreadable(_) => !by_probe,
            // It goes on with the next delivery. If it happens again and again, it is a failure
            // like others.
            Self::OutOfTime(_) => deliveries >= OUT_OF_TIME,
            Self::LeaseLost => false,
        }
    }

    /// The same error, preceded by what it kept from being done.
    pub(crate) fn context(self, what: &str) -> Self {
        match self {
            Self::Internal(problem) => Self::Internal(format!("{what}: {problem}")),
            Self::CaDeclined(problem) => Self::CaDeclined(format!("{what}: {problem}")),
            Self::CaUnavailable { problem, retry_after } => Self::CaUnavailable {
                problem: format!("{what}: {problem}"),
                retry_after,
            },
            other @ (Self::Unfit { .. }
            | Self::IssuersInTrouble { .. }
            | Self::BucketUnreadable(_)
            | Self::OutOfTime(_)
            | Self::LeaseLost) => other,
        }
    }

    /// When the CA may be asked again, if that is known.
    pub(crate) fn retry_after(&self) -> Option<Timestamp> {
        match self {
            Self::CaUnavailable { retry_after, .. } | Self::IssuersInTrouble { retry_after, .. } => *retry_after,
            Self::Unfit { until, .. } => Some(*until),
            Self::Internal(_)
            | Self::CaDeclined(_)
            | Self::BucketUnreadable(_)
            | Self::OutOfTime(_)
            | Self::LeaseLost => None,
        }
    }
}

/// Why an order at one issuer failed.
#[derive(Debug)]
pub(crate) struct IssuerError {
    pub(crate) error: Error,
    /// Whether the issuer answers so whatever is ordered: it is down, or refuses our account.
    pub(crate) is_general: bool,
}

impl IssuerError {
    /// An error that every certificate meets at this issuer.
    pub(crate) fn general(error: Error) -> Self {
        Self {
            error,
            is_general: true,
        }
    }
}

impl From<Error> for IssuerError {
    fn from(error: Error) -> Self {
        Self {
            error,
            is_general: false,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<dns::Error> for Error {
    fn from(error: dns::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(format!("cannot write JSON: {error}"))
    }
}

/// The delivery from which on running out of time is a failure; the queue gives a request up after
/// five.
const OUT_OF_TIME: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Running out of time again and again was in nobody's digest; every certificate reported that
    /// the bucket could not be read.
    #[test]
    fn what_is_news_and_to_whom() {
        let internal = || Error::Internal("no zone".into());
        let unreadable = || Error::BucketUnreadable("AccessDenied".into());
        let late = || Error::out_of_time("waiting");

        for (error, by_probe, deliveries, expected) in [
            (internal(), true, 1, true),
            (internal(), false, 1, true),
            (unreadable(), true, 1, false),
            (unreadable(), true, 4, false),
            (unreadable(), false, 1, true),
            (late(), true, 1, false),
            (late(), false, 2, false),
            (late(), true, 3, true),
            (Error::LeaseLost, false, 4, false),
        ] {
            let notifies = error.should_notify(by_probe, deliveries);
            assert_eq!(notifies, expected, "{error:?}, {by_probe}, {deliveries}");
        }
    }
}
