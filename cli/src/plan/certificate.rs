//! The plan of one certificate.

use anyhow::Result;
use comfy_table::{Cell, Color};
use neverlapse::bucket::version::Current;
use neverlapse::inventory::{Inventory, Managed};
use neverlapse::renewal::{Decision, Renewal, RenewalFailure, decide};
use neverlapse::text::{counted, printable};
use neverlapse::timestamp::Timestamp;

use super::check::Check;
use crate::stack::Stack;

/// What the renewer would decide for a certificate, and what it decides by.
pub(super) struct CertificatePlan {
    pub(super) name: String,
    pub(super) current: Option<Current>,
    pub(super) renewal: Option<Renewal>,
    pub(super) decision: Decision,
    pub(super) checks: Vec<Check>,
}

impl CertificatePlan {
    pub(super) async fn read(
        stack: &Stack,
        inventory: &Inventory,
        certificate: &Managed,
        now: Timestamp,
    ) -> Result<Self> {
        let current = stack.current(&certificate.name).await?;
        let renewal = stack.renewal(&certificate.name).await?;

        Ok(Self {
            name: certificate.name.clone(),
            decision: decide(
                &inventory.issuers,
                certificate,
                current.as_ref(),
                renewal.as_ref(),
                None,
                now,
            ),
            current,
            renewal,
            checks: Vec::new(),
        })
    }

    pub(super) fn is_due(&self) -> bool {
        matches!(self.decision, Decision::Due { .. })
    }

    pub(super) fn failure(&self) -> Option<&RenewalFailure> {
        self.renewal.as_ref()?.failure.as_ref()
    }

    pub(super) fn cells(&self) -> [Cell; 4] {
        let (not_after, issuer) = match &self.current {
            Some(Current { facts, .. }) => (facts.not_after.to_string(), facts.issuer.name.clone()),
            None => ("-".to_owned(), "-".to_owned()),
        };

        let mut decision = printable(&self.decision.to_string());
        if let Some(failure) = self.failure() {
            decision.push_str(&format!(
                "\nfailed {} since {}: {}",
                counted(failure.count.into(), "time", "times"),
                failure.since,
                printable(&failure.problem)
            ));
        }
        let color = if self.is_due() { Color::Yellow } else { Color::Green };

        [
            Cell::new(&self.name),
            Cell::new(not_after),
            Cell::new(issuer),
            Cell::new(decision).fg(color),
        ]
    }
}
