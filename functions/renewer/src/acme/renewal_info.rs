//! When the CA suggests to renew a version (RFC 9773).

use instant_acme::CertificateIdentifier;
use neverlapse::bucket::store::Store;
use neverlapse::bucket::version::Facts;
use neverlapse::inventory::Issuer;
use neverlapse::renewal::RenewalInfo;
use neverlapse::timestamp::Timestamp;
use time::Duration;

use super::directory::Directory;
use super::http::{Http, retry_after};
use super::problem::part;
use crate::bucket::version;
use crate::error::Error;

/// Asks the issuer of a version when to replace it. None if the issuer is by now another CA, or has
/// no answer. `before` is its last answer about the version.
pub(crate) async fn fetch(
    store: &Store,
    issuer: &Issuer,
    facts: &Facts,
    before: Option<&RenewalInfo>,
    now: Timestamp,
) -> Result<Option<RenewalInfo>, Error> {
    if issuer.directory != facts.issuer.directory {
        return Ok(None);
    }
    let http = Http::of(issuer, store).await?;
    let Some(url) = Directory::fetch(&issuer.directory, &http).await?.renewal_info else {
        return Ok(None);
    };

    let leaf = version::leaf(store, facts).await?;
    let id = CertificateIdentifier::try_from(&leaf).map_err(Error::Internal)?;
    let url = format!("{url}/{id}");
    let response = http.get(&url).await?;
    let answer = serde_json::from_slice(response.body()).map_err(|error| {
        Error::unavailable(format!(
            "{url} gave no renewal information (HTTP {}): {}",
            response.status(),
            part(&error.to_string())
        ))
    })?;

    // Retry-After is a wish of the CA's (RFC 9773, 4.3): neither hammered nor forgotten.
    let ask_again = retry_after(response.headers(), now)
        .unwrap_or(now + ASK_AGAIN)
        .clamp(now + Duration::MINUTE, now + Duration::DAY);
    Ok(drawn(answer, &facts.version, ask_again, before, rand::random()))
}

/// The answer with the moment in its window that is ours. A server wrote the answer: a time that
/// UTC cannot have becomes the nearest that it can, and only a link is kept for people to see.
fn drawn(
    answer: instant_acme::RenewalInfo,
    version: &str,
    ask_again_at: Timestamp,
    before: Option<&RenewalInfo>,
    draw: f64,
) -> Option<RenewalInfo> {
    let window = answer.suggested_window;
    RenewalInfo::of(
        version,
        (window.start.into(), window.end.into()),
        answer.explanation_url.filter(|url| is_link(url)),
        ask_again_at,
        before,
        draw,
    )
}

fn is_link(url: &str) -> bool {
    url.starts_with("https://") && url.len() <= LONGEST_LINK && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// RFC 9773, 4.3.3: what a client does without Retry-After.
const ASK_AGAIN: Duration = Duration::hours(6);
const LONGEST_LINK: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;
    use serde_json::json;

    /// The sum of its start and nine tenths of its length has a year of five digits, which no clock
    /// can show.
    #[test]
    fn a_hostile_window_does_not_panic() {
        let now = timestamp!(2026-11-24 12:00 UTC);
        for (start, end) in [
            ("9999-12-31T23:59:59+23:59", "9999-12-31T23:59:59-23:59"),
            ("0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
            ("0000-01-01T00:00:00+23:59", "0000-01-01T00:00:00-23:59"),
        ] {
            let answer = json!({ "suggestedWindow": { "start": start, "end": end } });
            let answer = serde_json::from_value(answer).unwrap();
            let info = drawn(answer, "v", now, None, 0.9).unwrap();
            assert!(info.start <= info.renew_at && info.renew_at <= info.end, "{info:?}");

            let written = serde_json::to_string(&info).unwrap();
            assert_eq!(serde_json::from_str::<RenewalInfo>(&written).unwrap(), info);
        }
    }

    #[test]
    fn only_a_link_is_shown() {
        for (url, expected) in [
            ("https://ca.example/why#incident-7", true),
            ("http://ca.example/why", false),
            ("https://ca.example/\u{1b}[2J", false),
            ("javascript:alert(1)", false),
        ] {
            assert_eq!(is_link(url), expected, "{url}");
        }
        assert!(!is_link(&format!("https://ca.example/{}", "a".repeat(500))));
    }
}
