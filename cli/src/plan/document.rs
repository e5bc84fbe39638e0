//! A plan as a document, for programs.

use neverlapse::renewal::{Decision, RenewalFailure};
use neverlapse::timestamp::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::certificate::CertificatePlan;
use super::check::Check;
use super::checker::Surroundings;

/// What would be renewed now, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Plan<'p> {
    /// Always `neverlapse.plan/1`.
    schema: &'static str,
    /// When it was made.
    at: Timestamp,
    /// In the order of the inventory, or as they were named.
    certificates: Vec<PlannedCertificate<'p>>,
    /// Only with `--check`.
    #[serde(flatten)]
    surroundings: Option<&'p Surroundings>,
}

/// One certificate of a plan.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PlannedCertificate<'p> {
    /// Its name in the inventory.
    name: &'p str,
    /// When its current version expires, if there is one.
    not_after: Option<Timestamp>,
    /// The name of the issuer of its current version, in the inventory.
    issuer: Option<&'p str>,
    /// Whether it is due.
    due: bool,
    /// When it will be due if nothing changes. Absent (null) if it is due.
    next: Option<Timestamp>,
    /// Why it is due.
    reason: Option<String>,
    /// If it is due, the earliest next try, where an earlier failure asks to wait until then.
    next_try: Option<Timestamp>,
    /// The last failed try, until one succeeds.
    failure: Option<&'p RenewalFailure>,
    /// What an order of it depends on. Empty without `--check`.
    checks: &'p [Check],
}

impl<'p> Plan<'p> {
    pub(super) fn of(plans: &'p [CertificatePlan], surroundings: Option<&'p Surroundings>, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            at: now,
            certificates: plans.iter().map(PlannedCertificate::of).collect(),
            surroundings,
        }
    }
}

impl<'p> PlannedCertificate<'p> {
    pub(super) fn of(plan: &'p CertificatePlan) -> Self {
        let (next, reason, next_try) = match &plan.decision {
            Decision::NotDue { next } => (Some(*next), None, None),
            Decision::Due { reason, next_try } => (None, Some(reason.to_string()), *next_try),
        };
        let current = plan.current.as_ref().map(|current| &current.facts);
        Self {
            name: &plan.name,
            not_after: current.map(|current| current.not_after),
            issuer: current.map(|current| current.issuer.name.as_str()),
            due: plan.is_due(),
            next,
            reason,
            next_try,
            failure: plan.failure(),
            checks: &plan.checks,
        }
    }
}

const SCHEMA: &str = "neverlapse.plan/1";
