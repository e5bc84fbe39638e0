//! What a run found in all.

use neverlapse::finding::Severity;
use neverlapse::report::Counts;
use neverlapse::timestamp::Timestamp;

/// The counts and times that stand below the endpoints.
pub(crate) struct Summary {
    pub(crate) counts: Counts,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    /// How many lines and entries could not be understood.
    pub(crate) problem_count: u64,
    /// The first of them.
    pub(crate) problems: Vec<String>,
}

impl Summary {
    /// The worst status. A line that could not be understood may name an endpoint in any state.
    pub(crate) fn status(&self) -> Severity {
        let unread = if self.problem_count > 0 {
            Severity::Unknown
        } else {
            Severity::Ok
        };
        self.counts.worst().max(unread)
    }
}

#[cfg(test)]
impl Summary {
    /// Of a run that began on 2026-11-24 at noon.
    pub(crate) fn sample(counts: Counts, lasted: time::Duration, problem_count: u64) -> Self {
        let began = neverlapse::timestamp!(2026-11-24 12:00 UTC);
        Self {
            counts,
            began,
            ended: began + lasted,
            problem_count,
            problems: Vec::new(),
        }
    }
}
