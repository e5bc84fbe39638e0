//! Writes receipts, where the probe reads them.

use std::path::Path;

use anyhow::Result;
use neverlapse::bucket::receipt::{self, Receipt};

use super::receipt::still_stands;
use super::source::Source;
use super::state::{Owner, State};

/// Writes a receipt, unless the last one still stands, and removes the one under a former name of
/// this machine. Answers with what is wrong with that.
pub(super) async fn send(
    state: &mut State,
    receipt: Receipt,
    owner: &Owner,
    source: &Source,
    state_file: Option<&Path>,
) -> Result<Option<String>> {
    let save = |state: &State| state_file.map_or(Ok(()), |file| state.write(file));
    let is_ours = state.owner.as_ref() == Some(owner);
    if let Some(last) = &state.receipt
        && still_stands(last, &receipt)
    {
        if !is_ours {
            state.owner = Some(owner.clone());
            save(state)?;
        }
        return Ok(None);
    }

    let mut body = serde_json::to_vec_pretty(&receipt)?;
    body.push(b'\n');
    source
        .put(&receipt::key(&receipt.name, &receipt.instance), body)
        .await?;

    // A copy of this state, on another machine, leaves the receipts of the original alone.
    let mut warning = None;
    if let Some(former) = state
        .receipt
        .as_ref()
        .filter(|former| former.instance != receipt.instance)
        && is_ours
        && let Err(error) = source.remove(&receipt::key(&former.name, &former.instance)).await
    {
        warning = Some(format!("the receipt of {} is not removed: {error:#}", former.instance));
    }

    state.receipt = Some(receipt);
    state.owner = Some(owner.clone());
    save(state)?;
    Ok(warning)
}
