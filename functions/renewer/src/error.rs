//! Why a renewal did not come to its end, and whose fault that is.

use neverlapse::bucket::store;
use neverlapse::timestamp::Timestamp;
use thiserror::Error;

/// Why a renewal stopped.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// Our own mistake, or AWS's: another issuer would not help.
    #[error("{0}")]
    Ours(String),
    /// The CA says no to what we ask: another issuer would hear the same.
    #[error("{said}")]
    Refused { said: String },
    /// The CA is down, busy, or says something else than ACME: another issuer may help.
    #[error("{said}")]
    Issuer {
        said: String,
        retry_after: Option<Timestamp>,
    },
    /// Whether anything is due is not known, because the bucket cannot be read.
    #[error("{0}")]
    Blind(String),
    /// Lambda's time is nearly over, or the CA's work takes longer; the next delivery goes on.
    #[error("out of time while {0}; goes on with the next delivery")]
    OutOfTime(&'static str),
    /// Another renewer has the certificate's lease now.
    #[error("another renewer has taken over")]
    Overtaken,
}

impl Fault {
    /// Whether it is a failure to remember and to tell, at this delivery of the request. `patient` says that nobody waits for what was asked.
    pub(crate) fn is_news(&self, patient: bool, deliveries: u32) -> bool {
        match self {
            Self::Ours(_) | Self::Refused { .. } | Self::Issuer { .. } => true,
            // The probe tells that once for all certificates: it reads the same objects.
            Self::Blind(_) => !patient,
            // It goes on with the next delivery. That this happens again and again is a failure like others.
            Self::OutOfTime(_) => deliveries >= OUT_OF_TIME,
            Self::Overtaken => false,
        }
    }

    /// The same, and what it kept from being done.
    pub(crate) fn context(self, what: &str) -> Self {
        match self {
            Self::Ours(said) => Self::Ours(format!("{what}: {said}")),
            Self::Refused { said } => Self::Refused {
                said: format!("{what}: {said}"),
            },
            Self::Issuer { said, retry_after } => Self::Issuer {
                said: format!("{what}: {said}"),
                retry_after,
            },
            other => other,
        }
    }
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Self {
        Self::Ours(error.to_string())
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Ours(format!("cannot write JSON: {error}"))
    }
}

/// The delivery from which on it is a failure to run out of time; the queue gives a request up after four.
const OUT_OF_TIME: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Running out of time again and again was in nobody's digest; a bucket that could not be read was told by every certificate.
    #[test]
    fn what_is_news_and_to_whom() {
        let (ours, blind, late) = (
            || Fault::Ours("no zone".into()),
            || Fault::Blind("AccessDenied".into()),
            || Fault::OutOfTime("waiting"),
        );
        for (fault, patient, deliveries, expected) in [
            (ours(), true, 1, true),
            (ours(), false, 1, true),
            (blind(), true, 1, false),
            (blind(), true, 4, false),
            (blind(), false, 1, true),
            (late(), true, 1, false),
            (late(), false, 2, false),
            (late(), true, 3, true),
            (Fault::Overtaken, false, 4, false),
        ] {
            let is_news = fault.is_news(patient, deliveries);
            assert_eq!(is_news, expected, "{fault:?}, {patient}, {deliveries}");
        }
    }
}
