//! How the values of arguments are written; each error names the accepted form.

use std::net::SocketAddr;
use std::time::Duration;

use neverlapse::resolve;
use neverlapse::timestamp::Timestamp;

pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "expected a time such as 2027-01-31T12:00:00Z".to_owned())
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
