//! How long a run may take: systemd ends it after `TimeoutStartSec=`, and then nobody hears why.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of a run's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    end: Instant,
}

impl Budget {
    /// The whole time of a run that begins now.
    pub(crate) fn of_run() -> Self {
        Self {
            end: Instant::now() + RUN,
        }
    }

    /// How long the next step may take, of which a person allows `configured`: never more than half
    /// of what is left, so that there is always something left for the way back and for others.
    pub(crate) fn limit(self, configured: Duration) -> Duration {
        let left = self.end.saturating_duration_since(Instant::now());
        configured.min((left / 2).max(LEAST))
    }
}

/// Less than `TimeoutStartSec=` in neverlapse-pull.service, with time for downloads and receipts.
const RUN: Duration = Duration::from_secs(10 * 60);
/// Enough for a server that works.
const LEAST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_that_hang_took_longer_than_the_unit_may() {
        let unit = include_str!("../../systemd/neverlapse-pull.service");
        let minutes = unit
            .lines()
            .find_map(|line| line.strip_prefix("TimeoutStartSec=")?.strip_suffix("min"));
        let limit = Duration::from_secs(minutes.unwrap().parse::<u64>().unwrap() * 60);
        assert!(limit >= RUN + Duration::from_secs(4 * 60), "{limit:?}");

        let fresh = Budget::of_run();
        assert_eq!(fresh.limit(Duration::from_secs(60)), Duration::from_secs(60));
        assert!(fresh.limit(Duration::from_secs(3600)) <= RUN / 2);
        let over = Budget { end: Instant::now() };
        assert_eq!(over.limit(Duration::from_secs(60)), LEAST);
    }
}
