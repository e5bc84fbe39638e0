//! When the CA suggests to renew (RFC 9773). Trouble with it never keeps a certificate from being renewed.

use instant_acme::CertificateIdentifier;
use lambda_runtime::tracing::warn;
use neverlapse::bucket::store::Tagged;
use neverlapse::bucket::version::Current;
use neverlapse::renewal::{Renewal, RenewalInfo as Advice};
use neverlapse::timestamp::Timestamp;
use serde::Deserialize;
use time::Duration;

use crate::acme::http::{Http, retry_after};
use crate::acme::jws::{Directory, get, unreachable};
use crate::error::Fault;
use crate::renew::Renewer;
use crate::renew::job::Case;

impl Renewer {
    /// What is remembered, with the CA's advice brought up to date if it is time to ask.
    pub(crate) async fn advised(&self, case: &Case<'_>, current: Option<&Tagged<Current>>) -> Result<Renewal, Fault> {
        let (name, now) = (&case.wanted.name, Timestamp::now());
        let renewal = self.renewal(name).await?;
        let Some(Tagged { value: current, .. }) = current else {
            return Ok(renewal);
        };
        let before = renewal
            .renewal_info
            .as_ref()
            .filter(|advice| advice.version == current.facts.version);
        if before.is_some_and(|advice| advice.ask_again_at > now) {
            return Ok(renewal);
        }
        match self.ask(case, current, before, now).await {
            Ok(None) => Ok(renewal),
            Ok(advice) => {
                let remembered = self.remember(name, |renewal| {
                    renewal.renewal_info = advice.clone();
                    renewal.clone()
                });
                remembered.await.or_else(|fault| {
                    warn!(name, %fault, "the CA's renewal information cannot be remembered");
                    Ok(Renewal {
                        renewal_info: advice,
                        ..renewal
                    })
                })
            }
            Err(fault) => {
                warn!(name, %fault, "the CA's renewal information could not be had");
                Ok(renewal)
            }
        }
    }

    /// Asks the CA that issued the current version when to replace it.
    async fn ask(
        &self,
        case: &Case<'_>,
        current: &Current,
        before: Option<&Advice>,
        now: Timestamp,
    ) -> Result<Option<Advice>, Fault> {
        let issuer = case.issuer(&current.facts.issuer.name)?;
        if issuer.directory != current.facts.issuer.directory {
            return Ok(None);
        }
        let http = Http::new(&self.roots(issuer).await?)?;
        let Some(url) = Directory::fetch(&issuer.directory, &http).await?.renewal_info else {
            return Ok(None);
        };
        let leaf = self.leaf(&current.facts).await?;
        let id = CertificateIdentifier::try_from(&leaf).map_err(Fault::Ours)?;
        let url = format!("{url}/{id}");
        let response = http
            .send(get(&url)?)
            .await
            .map_err(|reason| unreachable(&url, &reason, &http))?;
        let info: RenewalInfo = serde_json::from_slice(response.body()).map_err(|error| Fault::Issuer {
            said: format!(
                "{url} gave no renewal information (HTTP {}): {error}",
                response.status()
            ),
            retry_after: None,
        })?;
        let ask_again = retry_after(response.headers(), now).unwrap_or(now + ASK_AGAIN);
        let ask_again = ask_again.clamp(now + Duration::MINUTE, now + Duration::DAY);
        let window = (info.suggested_window.start, info.suggested_window.end);
        Ok(Advice::of(
            &current.facts.version,
            window,
            info.explanation_url.filter(|url| is_link(url)),
            ask_again,
            before,
            rand::random(),
        ))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: Window,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct Window {
    start: Timestamp,
    end: Timestamp,
}

/// People are shown it, and a server wrote it.
fn is_link(url: &str) -> bool {
    url.starts_with("https://") && url.len() <= LONGEST_LINK && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// RFC 9773, 4.3.3: what a client does without Retry-After.
const ASK_AGAIN: Duration = Duration::hours(6);
const LONGEST_LINK: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

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
