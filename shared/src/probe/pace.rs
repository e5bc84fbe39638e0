//! The pace of look-ups in a Lambda function: Amazon's name servers drop what is over 1,024 packets
//! per second from one network interface, and a look-up is a question for each address family.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Whoever waits for a turn gets one after the other, no faster than the pace.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Instant>);

impl Pace {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub(super) async fn turn(&self) {
        let turn = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            take(&mut free, Instant::now())
        };
        sleep_until(turn).await;
    }
}

/// The next turn. Turns that were not used earlier are not made up for, because that would be a
/// burst.
fn take(free: &mut Instant, now: Instant) -> Instant {
    let turn = now.max(*free);
    *free = turn + GAP;
    turn
}

/// Two questions each three milliseconds are 670 packets per second, which leaves room for those
/// that are asked again.
const GAP: Duration = Duration::from_millis(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_apart_and_never_made_up_for() {
        let now = Instant::now();
        let mut free = now;
        let turns = [take(&mut free, now), take(&mut free, now), take(&mut free, now)];
        assert_eq!(turns, [now, now + GAP, now + 2 * GAP]);

        let later = now + Duration::from_secs(1);
        assert_eq!(take(&mut free, later), later);
        assert_eq!(take(&mut free, later), later + GAP);
    }
}
