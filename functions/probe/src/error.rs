//! Why a run failed.

use lambda_runtime::Diagnostic;
use neverlapse::isolation::Panicked;
use neverlapse::resolve;
use thiserror::Error;

use crate::alerts;

/// Why a run failed. The variant is what Lambda shows as `errorType`.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{0}")]
    InvalidEvent(String),
    #[error("{0}")]
    InventoryUnreadable(String),
    #[error("{0}")]
    InventoryEmpty(String),
    #[error("cannot probe: {0}")]
    ProbeFailed(#[from] resolve::Error),
    #[error(transparent)]
    Alert(#[from] alerts::Error),
    /// Our own code failed, in a place that is about no endpoint and no certificate.
    #[error("cannot {what}: {panicked}")]
    Panicked { what: &'static str, panicked: Panicked },
    #[error("{0}")]
    RenewalNotRequested(String),
    #[error("cannot write the report: {0}")]
    ReportNotWritten(String),
    #[error("cannot write the report as JSON: {0}")]
    ReportInvalid(#[from] serde_json::Error),
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        let error_type = match error {
            Error::InvalidEvent(_) => "InvalidEvent",
            Error::InventoryUnreadable(_) => "InventoryUnreadable",
            Error::InventoryEmpty(_) => "InventoryEmpty",
            Error::ProbeFailed(_) => "ProbeFailed",
            Error::Alert(alerts::Error::NotSent(_)) => "AlertNotSent",
            Error::Alert(alerts::Error::NotRemembered(_)) => "AlertNotRemembered",
            Error::Alert(alerts::Error::WebhookNotNotified(_)) => "WebhookNotNotified",
            Error::Panicked { .. } => "Panicked",
            Error::RenewalNotRequested(_) => "RenewalNotRequested",
            Error::ReportNotWritten(_) => "ReportNotWritten",
            Error::ReportInvalid(_) => "ReportInvalid",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error.to_string(),
        }
    }
}
