//! The CA's renewal information (RFC 9773): the window in which it suggests to renew.

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// The CA's renewal information about one version, and the moment that we drew from its window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalInfo {
    /// The version that it is about.
    pub version: String,
    /// Start of the suggested window.
    pub start: Timestamp,
    /// End of the suggested window.
    pub end: Timestamp,
    /// The moment in the window that was drawn for us. It is kept, so that it does not move from
    /// run to run.
    pub renew_at: Timestamp,
    /// A page on which the CA explains its suggestion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation_url: Option<String>,
    /// The CA is not to be asked again before this (Retry-After).
    pub ask_again_at: Timestamp,
}

impl RenewalInfo {
    /// Draws the moment to renew from a window: uniformly random (`draw` in 0..1), and the same as
    /// `before` if the window did not change. A window whose end is not after its start is none
    /// (RFC 9773, 4.2).
    pub fn of(
        version: &str,
        (start, end): (Timestamp, Timestamp),
        explanation_url: Option<String>,
        ask_again_at: Timestamp,
        before: Option<&RenewalInfo>,
        draw: f64,
    ) -> Option<Self> {
        if end <= start {
            return None;
        }

        let same = before.filter(|before| before.version == version && before.start == start && before.end == end);
        let renew_at = match same {
            Some(before) => before.renew_at,
            None => start + (end - start) * draw.clamp(0.0, 1.0),
        };

        Some(Self {
            version: version.to_owned(),
            start,
            end,
            renew_at,
            explanation_url,
            ask_again_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;
    use time::Duration;

    #[test]
    fn the_moment_stays_while_the_window_does() {
        let start = timestamp!(2026-10-01 00:00 UTC);
        let of = |days: i64, before: Option<&RenewalInfo>, draw| {
            RenewalInfo::of("v", (start, start + Duration::days(days)), None, start, before, draw).unwrap()
        };

        let first = of(2, None, 0.25);
        assert_eq!(of(2, Some(&first), 0.75).renew_at, start + Duration::hours(12));
        assert_eq!(of(4, Some(&first), 0.75).renew_at, start + Duration::days(3));
    }
}
