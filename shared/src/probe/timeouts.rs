//! How long each step of a probe may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::finding::{Kind, Phase};

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Looking up a name, all tries together.
    pub dns: Duration,
    /// The TCP connection.
    pub connect: Duration,
    /// The conversation before TLS.
    pub starttls: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// All of an address's steps and tries together.
    pub endpoint: Duration,
}

impl Timeouts {
    /// Five seconds per step, ten for STARTTLS, and never more than `endpoint` in all.
    ///
    /// More time than usual is given for a server that is slow, in whichever step: then one step
    /// may take all of it.
    pub fn within(endpoint: Duration) -> Self {
        let is_patient = endpoint > USUAL;
        let step = if is_patient { endpoint } else { endpoint.min(STEP) };
        Self {
            // Not all of it: a query that was lost should be asked again soon.
            dns: endpoint.min(STEP).max(endpoint / 3),
            connect: step,
            // Mail servers let strangers wait before they greet: postscreen(8) for six seconds.
            starttls: if is_patient { endpoint } else { endpoint.min(2 * STEP) },
            handshake: step,
            endpoint,
        }
    }

    /// Runs a step under its own deadline and the endpoint's, whichever is first.
    pub(super) async fn limit<T>(
        &self,
        phase: Phase,
        deadline: Instant,
        step: impl Future<Output = T>,
    ) -> Result<T, Kind> {
        let limit = self.of(phase);
        let own_deadline = Instant::now() + limit;
        let late = if own_deadline <= deadline {
            timed_out(phase, limit)
        } else {
            timed_out(Phase::Endpoint, self.endpoint)
        };
        timeout_at(own_deadline.min(deadline), step).await.map_err(|_| late)
    }

    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Dns => self.dns,
            Phase::Connect => self.connect,
            Phase::Starttls => self.starttls,
            Phase::Handshake => self.handshake,
            Phase::Endpoint => self.endpoint,
        }
    }
}

/// The finding of a step that took too long.
pub(super) fn timed_out(phase: Phase, after: Duration) -> Kind {
    Kind::TimedOut {
        phase,
        after_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
    }
}

/// How long an address may take in all, unless it is set.
pub(super) const USUAL: Duration = Duration::from_secs(15);
/// How long one step may usually take.
pub(super) const STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_time_than_usual_is_for_whichever_step_needs_it() {
        let seconds = Duration::from_secs;
        for (endpoint, [dns, connect, starttls, handshake]) in [
            (2, [2, 2, 2, 2]),
            (8, [5, 5, 8, 5]),
            (15, [5, 5, 10, 5]),
            (16, [5, 16, 16, 16]),
            (60, [20, 60, 60, 60]),
        ] {
            let timeouts = Timeouts::within(seconds(endpoint));
            let steps = [timeouts.connect, timeouts.starttls, timeouts.handshake];
            assert_eq!(steps, [connect, starttls, handshake].map(seconds), "{endpoint} s");
            assert_eq!(timeouts.dns.as_secs(), dns, "{endpoint} s");
        }
    }
}
