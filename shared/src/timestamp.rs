//! A moment in time, in UTC and with a year of four digits: what RFC 3339 can write and every
//! reader understands.
//!
//! Documents that instances, certificate authorities and the bucket hold may name any moment, such
//! as `9999-12-31T23:59:59-00:01`, which is valid RFC 3339 and in UTC has a year of five digits.
//! Such a time is refused where the document is read. Arithmetic ends at the first and last moment
//! instead of panicking, so no sum of a foreign time and a foreign length of time can stop a run.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::utc_datetime;
use time::{Duration, OffsetDateTime, UtcDateTime};

/// A moment in UTC, between the years 0 and 9999. In JSON it is an RFC 3339 string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub struct Timestamp(#[schemars(with = "String", extend("format" = "date-time"))] UtcDateTime);

/// A text that names no moment that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// It is not RFC 3339 at all.
    #[error("not a time (expected RFC 3339, such as 2027-01-31T12:00:00Z)")]
    Form,
    /// Its year in UTC is before 0 or after 9999.
    #[error("a time outside of the years 0000 to 9999 (UTC)")]
    Range,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(UtcDateTime::UNIX_EPOCH);

    const FIRST: Self = Self(utc_datetime!(0000-01-01 0:00));
    const LAST: Self = Self(utc_datetime!(9999-12-31 23:59:59.999_999_999));

    /// The moment of the call, by the system's clock.
    pub fn now() -> Self {
        Self(UtcDateTime::now())
    }

    /// The same moment, or the nearest that there is.
    pub const fn new(at: OffsetDateTime) -> Self {
        match at.checked_to_utc() {
            Some(utc) if utc.year() < 0 => Self::FIRST,
            Some(utc) => Self(utc),
            // Only an offset of hours leads out of the range of `OffsetDateTime` itself.
            None if at.year() < 0 => Self::FIRST,
            None => Self::LAST,
        }
    }

    /// This many seconds after 1970 began, or the nearest moment that there is.
    pub fn from_unix(seconds: i64) -> Self {
        Self::UNIX_EPOCH + Duration::seconds(seconds)
    }

    /// The moment of a header field of HTTP (RFC 9110, 5.6.7), such as `Thu, 26 Nov 2026 14:00:00
    /// GMT`, or the nearest that there is; none if it is not of that form.
    pub fn from_http(date: &str) -> Option<Self> {
        let date = OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok()?;
        Some(Self::new(date))
    }

    /// The seconds since 1970 began.
    pub fn unix(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Date and time of day.
    pub fn utc(self) -> UtcDateTime {
        self.0
    }

    /// To the second, as programs read it: `2027-01-31T12:00:00Z`.
    pub fn rfc3339(self) -> String {
        let (hour, minute, second) = self.0.as_hms();
        format!("{}T{hour:02}:{minute:02}:{second:02}Z", self.0.date())
    }

    fn checked(at: OffsetDateTime) -> Option<Self> {
        let utc = at.checked_to_utc()?;
        (utc.year() >= 0).then_some(Self(utc))
    }

    fn saturating_add(self, duration: Duration) -> Self {
        match self.0.checked_add(duration) {
            Some(sum) if sum < Self::FIRST.0 => Self::FIRST,
            Some(sum) => Self(sum),
            None if duration.is_negative() => Self::FIRST,
            None => Self::LAST,
        }
    }
}

/// To the minute, as people read it: `2027-01-31 12:00 UTC`. For programs there is
/// [`Timestamp::rfc3339`].
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, _) = self.0.as_hms();
        write!(f, "{} {hour:02}:{minute:02} UTC", self.0.date())
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| Error::Form)?;
        Self::checked(at).ok_or(Error::Range)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        time::serde::rfc3339::serialize(&self.0.into(), serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let at = time::serde::rfc3339::deserialize(deserializer)?;
        Self::checked(at).ok_or_else(|| D::Error::custom(Error::Range))
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self::new(at)
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(at: Timestamp) -> Self {
        at.0.into()
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        // The longest negative length has no positive twin.
        self.saturating_add(duration.checked_neg().unwrap_or(Duration::MAX))
    }
}

impl Add<std::time::Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: std::time::Duration) -> Self {
        self + Duration::try_from(duration).unwrap_or(Duration::MAX)
    }
}

impl Sub<std::time::Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: std::time::Duration) -> Self {
        self - Duration::try_from(duration).unwrap_or(Duration::MAX)
    }
}

/// The time from one moment to another. All of the range fits into a [`Duration`].
impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

/// A moment written in code, as `time::macros::datetime!` takes it: `timestamp!(2027-01-31 12:00
/// UTC)`.
#[macro_export]
macro_rules! timestamp {
    ($($moment:tt)*) => {
        $crate::timestamp::Timestamp::new(::time::macros::datetime!($($moment)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_utc_cannot_have_is_refused() {
        for (text, expected) in [
            ("2027-01-31T12:00:00Z", Ok(timestamp!(2027-01-31 12:00 UTC))),
            ("2027-01-31T12:00:00+02:00", Ok(timestamp!(2027-01-31 10:00 UTC))),
            ("9999-12-31T23:59:59Z", Ok(timestamp!(9999-12-31 23:59:59 UTC))),
            ("9999-12-31T23:59:59-00:01", Err(Error::Range)),
            ("0000-01-01T00:00:00+00:01", Err(Error::Range)),
            ("tomorrow", Err(Error::Form)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
            let json = serde_json::from_str::<Timestamp>(&format!("{text:?}"));
            assert_eq!(json.ok(), expected.ok(), "{text}");
        }
    }

    #[test]
    fn arithmetic_ends_where_time_does() {
        let now = timestamp!(2027-01-31 12:00 UTC);
        assert_eq!(now + Duration::MAX, Timestamp::LAST);
        assert_eq!(now - Duration::MIN, Timestamp::LAST);
        assert_eq!(now - Duration::MAX, Timestamp::FIRST);
        assert_eq!(now + std::time::Duration::MAX, Timestamp::LAST);
        assert_eq!(Timestamp::from_unix(i64::MAX), Timestamp::LAST);
        assert_eq!(Timestamp::from_unix(i64::MIN), Timestamp::FIRST);
        assert!((Timestamp::LAST - Timestamp::FIRST).is_positive());
    }

    #[test]
    fn it_is_written_and_read_back() {
        for at in [
            Timestamp::FIRST,
            Timestamp::LAST,
            Timestamp::UNIX_EPOCH,
            timestamp!(2027-01-31 12:00:09.5 UTC),
        ] {
            let json = serde_json::to_string(&at).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at, "{json}");
        }
        let at = timestamp!(2027-01-31 12:00:09.5 UTC);
        assert_eq!(at.rfc3339(), "2027-01-31T12:00:09Z");
        assert_eq!(at.to_string(), "2027-01-31 12:00 UTC");
        assert_eq!(Timestamp::FIRST.rfc3339(), "0000-01-01T00:00:00Z");
    }
}
