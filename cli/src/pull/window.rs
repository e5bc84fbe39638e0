//! The hours in which a person wants changes made.

use std::fmt;
use std::str::FromStr;

use neverlapse::timestamp::Timestamp;
use time::macros::format_description;
use time::{Duration, Time};

/// From one time of day to another, in UTC; over midnight where the second is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    from: Time,
    to: Time,
}

impl Window {
    /// Whether changes are wanted now.
    pub(crate) fn is_open(self, now: Timestamp) -> bool {
        let now = now.utc().time();
        if self.from <= self.to {
            (self.from..self.to).contains(&now)
        } else {
            now >= self.from || now < self.to
        }
    }

    /// Checks that at least one of the runs that come at such intervals falls into it.
    ///
    /// Each may be late by [`DELAY`], and a timer gives a host the same minute in every hour: one
    /// that misses a shorter window once can miss it for ever.
    pub(crate) fn is_met(self, every: Duration) -> Result<(), String> {
        let length = self.length();
        let needed = every + DELAY;
        if length >= needed {
            return Ok(());
        }

        let expected = if needed < Duration::DAY {
            format!("expected at least {} minutes", needed.whole_minutes())
        } else {
            "expected no window; let the timer run when changes are wanted".to_owned()
        };
        Err(format!(
            "it is open for {} minutes, and runs every {} h, each up to {} minutes late, can all miss it ({expected})",
            length.whole_minutes(),
            every.whole_hours(),
            DELAY.whole_minutes()
        ))
    }

    fn length(self) -> Duration {
        let length = self.to - self.from;
        if length.is_negative() {
            length + Duration::DAY
        } else {
            length
        }
    }
}

/// Whether a certificate has so little time left that no window counts.
pub(crate) fn is_urgent(not_before: Timestamp, not_after: Timestamp, now: Timestamp) -> bool {
    not_after - now < URGENT.min((not_after - not_before) / 4)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from, self.to].map(|time| (time.hour(), time.minute()));
        write!(f, "{:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('-')
            .and_then(|(from, to)| {
                Some(Self {
                    from: Time::parse(from.trim(), TIME).ok()?,
                    to: Time::parse(to.trim(), TIME).ok()?,
                })
            })
            .filter(|window| window.from != window.to)
            .ok_or_else(|| format!("{text:?} is not a window (expected such as \"02:00-04:30\", in UTC)"))
    }
}

const TIME: &[time::format_description::BorrowedFormatItem<'static>] = format_description!("[hour]:[minute]");
const URGENT: Duration = Duration::days(7);
/// `RandomizedDelaySec` of the timer.
const DELAY: Duration = Duration::minutes(50);

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    #[test]
    fn open_and_closed() {
        for (window, now, expected) in [
            ("02:00-04:30", timestamp!(2026-10-01 02:00 UTC), true),
            ("02:00-04:30", timestamp!(2026-10-01 04:30 UTC), false),
            ("02:00-04:30", timestamp!(2026-10-01 04:00 +02:00), true),
            ("22:00-02:00", timestamp!(2026-10-01 23:00 UTC), true),
            ("22:00-02:00", timestamp!(2026-10-01 01:59 UTC), true),
            ("22:00-02:00", timestamp!(2026-10-01 12:00 UTC), false),
        ] {
            assert_eq!(
                window.parse::<Window>().unwrap().is_open(now),
                expected,
                "{window} {now}"
            );
        }
        for wrong in ["", "02:00", "02:00-02:00", "2-4", "25:00-26:00"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_window_that_the_hosts_minute_never_meets() {
        for (window, hours, expected) in [
            ("02:00-04:30", 1, None),
            ("23:00-00:50", 1, None),
            (
                "02:00-02:30",
                1,
                Some(
                    "it is open for 30 minutes, and runs every 1 h, each up to 50 minutes late, can all miss it (expected at least 110 minutes)",
                ),
            ),
            ("02:00-03:49", 1, Some("expected at least 110 minutes")),
            ("22:00-02:00", 6, Some("it is open for 240 minutes, and runs every 6 h")),
            (
                "02:00-01:59",
                24,
                Some("expected no window; let the timer run when changes are wanted"),
            ),
        ] {
            let met = window.parse::<Window>().unwrap().is_met(Duration::hours(hours));
            match expected {
                None => assert_eq!(met, Ok(()), "{window}"),
                Some(expected) => assert!(met.as_ref().unwrap_err().contains(expected), "{window}: {met:?}"),
            }
        }
        let timer = include_str!("../../systemd/neverlapse-pull.timer");
        assert!(timer.contains(&format!("RandomizedDelaySec={}min", DELAY.whole_minutes())));
    }

    #[test]
    fn the_last_week_is_urgent_and_the_last_quarter_of_a_short_life() {
        let end = timestamp!(2026-10-01 0:00 UTC);
        for (lifetime, left, expected) in [
            (Duration::days(90), Duration::days(8), false),
            (Duration::days(90), Duration::days(6), true),
            (Duration::hours(160), Duration::hours(41), false),
            (Duration::hours(160), Duration::hours(39), true),
            (Duration::days(90), Duration::days(-1), true),
        ] {
            assert_eq!(is_urgent(end - lifetime, end, end - left), expected);
        }
    }
}
