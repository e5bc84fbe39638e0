//! Why a renewal did not come to its end, and whose fault that is.

use neverlapse::store;
use thiserror::Error;
use time::OffsetDateTime;

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
        retry_after: Option<OffsetDateTime>,
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
