//! Removes receipts that nobody should expect any more: on `--leave`, and those of certificates
//! that are no longer configured. Only this machine's own: its state may be a copy of another's.

use std::path::Path;

use anyhow::Result;
use neverlapse::bucket::receipt;
use neverlapse::finding::Severity;

use super::config::Config;
use super::journal::Journal;
use super::source::{RECEIPTS, Source, is_denied};
use super::state::{Owner, State};

/// Who removes receipts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Us<'a> {
    pub(crate) owner: &'a Owner,
    /// The name under which this instance's receipts are kept, if it is known.
    pub(crate) instance: Option<&'a str>,
}

/// Removes every receipt of this instance. A later run writes them again.
pub(crate) async fn leave(config: &Config, source: &Source, us: Us<'_>, journal: Journal) -> Result<Severity> {
    let mut worst = Severity::Ok;

    for (name, file) in State::all(&config.state)? {
        match withdraw(&name, &file, source, us).await {
            Ok(true) => journal.info(&format!("{name}: the receipt is removed")),
            Ok(false) => {}
            Err(error) => {
                journal.warning(&format!("{name}: the receipt is not removed: {error:#}"));
                if is_denied(&error) {
                    journal.hint(RECEIPTS);
                }
                worst = Severity::Unknown;
            }
        }
    }
    Ok(worst)
}

/// Removes the receipts of certificates that are no longer configured here: the probe would report
/// them as overdue.
pub(crate) async fn forget_others(config: &Config, source: &Source, us: Us<'_>, journal: Journal) {
    for (name, file) in State::all(&config.state).unwrap_or_default() {
        if config.certificates.iter().any(|wanted| wanted.name == name) {
            continue;
        }

        match withdraw(&name, &file, source, us).await {
            Ok(true) => journal.info(&format!(
                "{name}: is no longer in the configuration; the receipt is removed"
            )),
            Ok(false) => {}
            Err(error) => journal.warning(&format!("{name}: is no longer in the configuration, but {error:#}")),
        }
    }
}

/// Removes the last receipt, under the name that it was written with, if it is ours. Answers
/// whether it was.
async fn withdraw(name: &str, file: &Path, source: &Source, us: Us<'_>) -> Result<bool> {
    let mut state = State::read(file)?;
    if !is_ours(&state, us) {
        return Ok(false);
    }
    let Some(last) = state.receipt.take() else {
        return Ok(false);
    };

    source.remove(&receipt::key(name, &last.instance)).await?;
    state.write(file)?;
    Ok(true)
}

/// Whether this machine and configuration wrote the last receipt. An earlier version of the client
/// did not note that; then the name decides.
fn is_ours(state: &State, us: Us<'_>) -> bool {
    match &state.owner {
        Some(owner) => owner == us.owner,
        None => {
            let last = state.receipt.as_ref();
            last.is_some_and(|last| Some(last.instance.as_str()) == us.instance)
        }
    }
}
