//! How the values of arguments are written; each error names the accepted form.

use std::net::SocketAddr;
use std::time::Duration;

use neverlapse::endpoint::{Endpoint, ParseError};
use neverlapse::resolve;
use neverlapse::timestamp::Timestamp;

pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .or_else(|_| format!("{text}T00:00:00Z").parse())
        // As we print it.
        .or_else(|_| text.replacen(' ', "T", 1).replace(" UTC", ":00Z").parse())
        .map_err(|_| "expected a time such as 2027-01-31 or 2027-01-31T12:00:00Z".to_owned())
}

/// The error leaves out the text, which clap prints before it.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: ParseError| error.reason())
}

pub(crate) fn nameserver(text: &str) -> Result<SocketAddr, String> {
    resolve::nameserver(text).ok_or_else(|| {
        "expected an address, with or without a port, such as 10.0.0.2 or [2001:db8::53]:5353".to_owned()
    })
}

pub(crate) fn days(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "expected a whole number of days, 0 or more".to_owned())
}

pub(crate) fn concurrency(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=50_000) => Ok(count),
        _ => Err("expected a whole number, from 1 to 50000".to_owned()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds, from 0.001 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_and_programs_write_them() {
        for text in ["2027-01-31", "2027-01-31T00:00:00Z", "2027-01-31 00:00 UTC"] {
            let time = time(text).map(Timestamp::rfc3339);
            assert_eq!(time.as_deref(), Ok("2027-01-31T00:00:00Z"), "{text}");
        }
        assert!(time("31.1.2027").is_err());
    }
}
