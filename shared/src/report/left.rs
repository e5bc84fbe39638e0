//! How long a certificate is still valid, as people read it.

use std::fmt;

use time::Duration;

use crate::finding::Span;

/// The time until a certificate expires: `9 d 4 h left`, or `expired 2 h ago`. The alternate form
/// (`{:#}`) is for a column of times: `9 d 4 h`, or `2 h ago`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left(pub Duration);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = Span(self.0.abs());
        match (self.0.is_negative(), f.alternate()) {
            (true, true) => write!(f, "{span} ago"),
            (true, false) => write!(f, "expired {span} ago"),
            (false, true) => write!(f, "{span}"),
            (false, false) => write!(f, "{span} left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_and_time_since() {
        for (left, sentence, column) in [
            (Duration::days(9), "9 d left", "9 d"),
            (Duration::ZERO, "0 s left", "0 s"),
            (Duration::minutes(-2), "expired 2 min ago", "2 min ago"),
        ] {
            assert_eq!(Left(left).to_string(), sentence);
            assert_eq!(format!("{:#}", Left(left)), column);
        }
        // A report from outside may hold any number.
        assert!(Left(Duration::seconds(i64::MIN)).to_string().ends_with(" d ago"));
    }
}
