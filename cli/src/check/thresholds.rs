//! The thresholds that the command line sets in place of an inventory's.

use anyhow::{Result, bail};
use clap::Args;
use neverlapse::finding::Thresholds;

use crate::argument::days;

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// Warn below this many days, or below a third of the certificate's lifetime [default: 14]
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    warn_days: Option<u32>,
    /// Critical below this many days, or below a tenth of the certificate's lifetime [default: 3]
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    critical_days: Option<u32>,
}

impl Arguments {
    /// Refuses thresholds by which a certificate would be critical before it warns.
    pub(super) fn validate(&self) -> Result<()> {
        if let (Some(warn), Some(critical)) = (self.warn_days, self.critical_days)
            && warn < critical
        {
            bail!("--warn-days {warn} is less than --critical-days {critical} (expected at least as many)");
        }
        Ok(())
    }

    /// These thresholds, and the others where none was set here.
    ///
    /// Where only the warning was set, the other critical threshold is lowered to it if need be;
    /// where only the critical one was, the warning comes no later.
    pub(super) fn or(&self, other: Thresholds) -> Thresholds {
        let warn_days = self.warn_days.unwrap_or(other.warn_days);
        let critical_days = self.critical_days.unwrap_or(other.critical_days.min(warn_days));
        Thresholds {
            warn_days,
            critical_days,
        }
        .ordered()
    }
}
