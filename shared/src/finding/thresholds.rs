//! How much time must be left before a certificate expires.

use time::Duration;

use super::severity::Severity;

/// How much time must be left, in days; capped by the certificate's own lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Warn below this, or below a third of the lifetime.
    pub warn_days: u32,
    /// Critical below this, or below a tenth of the lifetime.
    pub critical_days: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            warn_days: 14,
            critical_days: 3,
        }
    }
}

impl Thresholds {
    /// The same, with an earlier warning if a certificate would be critical before it warns.
    pub fn ordered(self) -> Self {
        Self {
            warn_days: self.warn_days.max(self.critical_days),
            ..self
        }
    }

    /// The threshold that `left` falls under, if any.
    pub fn crossed(self, left: Duration, lifetime: Duration) -> Option<(Severity, Duration)> {
        let warn = Duration::days(self.warn_days.into()).min(lifetime / 3);
        let critical = self.critical(lifetime);
        if left < critical {
            Some((Severity::Critical, critical))
        } else {
            (left < warn).then_some((Severity::Warning, warn))
        }
    }

    /// Critical below this.
    pub fn critical(self, lifetime: Duration) -> Duration {
        Duration::days(self.critical_days.into()).min(lifetime / 10)
    }

    /// Critical below this, for a certificate that we renew ourselves. It is a third of a lifetime
    /// under ten days, because a tenth of six days is less than the day between two runs.
    pub fn critical_managed(self, lifetime: Duration) -> Duration {
        if lifetime < SHORT {
            Duration::days(self.critical_days.into()).min(lifetime / 3)
        } else {
            self.critical(lifetime)
        }
    }
}

/// Certificates with a shorter lifetime than this are renewed at half of it.
const SHORT: Duration = Duration::days(10);
