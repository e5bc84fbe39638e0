//! How far a person's request is, written where `neverlapse renew` reads it.

use lambda_runtime::tracing::warn;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::renewal::{RequestProgress, RequestStage};
use neverlapse::timestamp::Timestamp;

use crate::history::History;

/// Notes each step of a person's request. Nobody waits for a request of the probe.
#[derive(Clone, Copy)]
pub(crate) struct Progress<'a> {
    pub(crate) history: &'a History,
    pub(crate) request: &'a Request,
}

impl Progress<'_> {
    /// Notes the step that begins now. A step that cannot be noted stops nothing.
    pub(crate) async fn step(&self, what: impl Into<String>) {
        if !is_followed(self.request) {
            return;
        }

        let progress = progress_of(self.request, RequestStage::UnderWay, what.into());
        let name = &self.request.name;
        let noted = self
            .history
            .remember(name, |renewal| renewal.request = Some(progress.clone()));
        if let Err(error) = noted.await {
            warn!(name, fault = %error, "the progress cannot be noted");
        }
    }
}

/// Whether somebody may be reading along: an account's key has no certificate's record.
pub(crate) fn is_followed(request: &Request) -> bool {
    request.requested_by == RequestedBy::Person && request.action != Action::ReplaceAccountKey
}

/// The record's entry for a request.
pub(crate) fn progress_of(request: &Request, stage: RequestStage, text: String) -> RequestProgress {
    RequestProgress::new(request.at, Timestamp::now(), stage, &text)
}
