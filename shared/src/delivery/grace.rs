//! Grace: how long a new version may take to arrive, and how bad it is when it has not.

use time::Duration;

use crate::bucket::receipt::Receipt;
use crate::bucket::version::{Current, made_at};
use crate::finding::Severity;
use crate::report::{AddressReport, StoredVersion};
use crate::timestamp::Timestamp;

/// The time that the inventory gives a version to arrive (`deliver_within`), as of `now`.
pub(super) struct Grace<'a> {
    pub(super) current: &'a Current,
    pub(super) history: &'a [StoredVersion],
    pub(super) within: Duration,
    pub(super) now: Timestamp,
}

impl Grace<'_> {
    /// How late an instance is that does not have the current version; none within its grace.
    pub(super) fn of_instance(&self, receipt: &Receipt) -> Option<Severity> {
        let is_expired = receipt.not_after.is_some_and(|not_after| not_after <= self.now);
        if is_expired {
            return Some(Severity::Critical);
        }

        let missed = receipt.has().and_then(|version| self.missed_since(Some(version)));
        let late = self.late(self.since(missed));

        // The history may be unreadable. The sequence still tells how many versions an instance has
        // missed.
        let is_two_behind = receipt
            .sequence
            .is_some_and(|sequence| self.current.sequence > sequence.saturating_add(1));
        if missed.is_none() && is_two_behind {
            return late.or(Some(Severity::Warning));
        }
        late
    }

    /// How late an address is that serves another certificate, one of ours or not; none within its
    /// grace.
    pub(super) fn of_address(&self, seen: &AddressReport) -> Option<Severity> {
        self.late(self.since(self.missed_since(seen.version.as_deref())))
    }

    /// How late a version is that has not been seen anywhere since it was published; none within
    /// its grace.
    pub(super) fn of_publication(&self) -> Option<Severity> {
        self.late(self.current.moved_at(self.now))
    }

    fn late(&self, since: Timestamp) -> Option<Severity> {
        let waited = self.now - since;
        if waited > self.within * TOO_LATE {
            Some(Severity::Critical)
        } else if waited > self.within {
            Some(Severity::Warning)
        } else {
            None
        }
    }

    /// When the first version was made that comes after this one, or the first of all if there is
    /// none.
    ///
    /// It is not when the newest was published: with six-day certificates nothing would ever be
    /// late. A version's id has the time at which its first order was tried, which may be days
    /// before the CA issued it; one that was taken over from elsewhere was issued before.
    fn missed_since(&self, version: Option<&str>) -> Option<Timestamp> {
        let missed = self
            .history
            .iter()
            .map(|stored| &stored.facts)
            .filter(|stored| version.is_none_or(|version| stored.version.as_str() > version));
        let first = missed.min_by_key(|stored| &stored.version)?;
        Some(made_at(&first.version)?.max(first.not_before))
    }

    /// A version is made before it is published.
    fn since(&self, missed: Option<Timestamp>) -> Timestamp {
        let published = self.current.moved_at(self.now);
        missed.map_or(published, |missed| missed.min(published))
    }
}

/// After this many times its grace, what is late is critical.
const TOO_LATE: i32 = 3;
