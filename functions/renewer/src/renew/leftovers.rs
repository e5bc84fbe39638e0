//! TXT records of ours that could not be removed when their order was over.

use lambda_runtime::tracing::{info, warn};

use super::task::Task;
use crate::bucket::lease::Lease;
use crate::dns::change::{self, Removal};
use crate::dns::record::ZoneRecord;
use crate::error::Error;

/// Removes what earlier orders left in DNS, as far as Route 53 lets us, and answers with what is
/// still there and why. That is housekeeping: a certificate never waits for it.
pub(crate) async fn remove(lease: &Lease<'_>, task: &Task<'_>) -> Result<Removal, Error> {
    let records = lease.leftovers().await;
    if records.is_empty() {
        return Ok(Removal::default());
    }

    let removal = match task.services.zones(&task.inventory.zones).await {
        Ok(zones) => change::remove(&zones, &records).await,
        Err(error) => Removal {
            left: records.clone(),
            problems: vec![error.to_string()],
        },
    };
    if removal.left != records {
        lease.note_leftovers(removal.left.clone()).await?;
    }

    let name = &task.wanted.name;
    if removal.left.is_empty() {
        info!(name, records = records.len(), "TXT records of earlier orders removed");
    } else {
        let problem = removal.problems.join("; ");
        warn!(
            name,
            left = describe(&removal.left),
            problem,
            "TXT records are left in DNS"
        );
    }
    Ok(removal)
}

/// The records in words, one after the other.
pub(crate) fn describe(records: &[ZoneRecord]) -> String {
    let records: Vec<_> = records
        .iter()
        .map(|ZoneRecord { zone, record }| format!("{} {:?} in hosted zone {zone}", record.name, record.value))
        .collect();
    records.join(", ")
}
