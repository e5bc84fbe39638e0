//! A certificate that a run can only report, because its files or its state cannot be opened.

use std::path::PathBuf;

use anyhow::Result;
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::store::Fresh;
use neverlapse::bucket::version::current_key;

use super::config::Wanted;
use super::report::send;
use super::source::{Source, understood};
use super::state::{Owner, Shown, State};

/// A certificate whose files or state cannot be opened.
pub(crate) struct Broken<'a> {
    pub(crate) wanted: &'a Wanted,
    pub(crate) reason: String,
    /// What is known of it: nothing, if its state cannot be read.
    pub(super) state: State,
    pub(super) source: &'a Source,
    /// Where its state can be written.
    pub(super) state_file: Option<PathBuf>,
}

impl<'a> Broken<'a> {
    /// One of which there is no state that can be used.
    pub(crate) fn without_state(wanted: &'a Wanted, source: &'a Source, reason: String) -> Self {
        Self {
            wanted,
            reason,
            state: State::default(),
            source,
            state_file: None,
        }
    }

    /// What is known of it: where its state cannot be read, what the source shows.
    pub(crate) async fn known(&self) -> State {
        let mut state = self.state.clone();
        if state.seen.is_none()
            && let Ok(Fresh::Changed(tagged)) = self.source.fresh(&current_key(&self.wanted.name), None).await
            && let Ok(current) = understood(&tagged.value, &self.wanted.name)
        {
            state.seen = Some(Shown {
                source: self.source.to_string(),
                tag: tagged.tag,
                current,
            });
        }
        state
    }

    /// Writes its receipt.
    pub(crate) async fn report(&mut self, receipt: Receipt, owner: &Owner) -> Result<()> {
        send(&mut self.state, receipt, owner, self.source, self.state_file.as_deref())
            .await
            .map(drop)
    }
}
