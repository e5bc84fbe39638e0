//! What the template sets, parsed before the first event.

use std::net::SocketAddr;

use neverlapse::environment::{Environment, Error};
use neverlapse::finding::Thresholds;
use neverlapse::probe::Options;

/// What the function needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) bucket: String,
    pub(crate) alert_topic: String,
    /// Where requests for renewal go; none without a renewer.
    pub(crate) renewal_topic: Option<String>,
    pub(crate) domains: String,
    pub(crate) thresholds: Thresholds,
    pub(crate) revocation: bool,
    pub(crate) trust_bundle: Option<String>,
    pub(crate) nameserver: Option<SocketAddr>,
    /// How many connections and look-ups may be open together.
    pub(crate) sockets: usize,
    /// Whether each endpoint gets a metric of its own.
    pub(crate) endpoint_metrics: bool,
    pub(crate) stack: String,
    /// Whether to report once a week that everything is fine.
    pub(crate) weekly: bool,
}

impl Settings {
    /// From environment variables; an empty one counts as not set.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let environment = Environment::new(variable);
        let default = Thresholds::default();
        Ok(Self {
            bucket: environment.required("BUCKET")?,
            alert_topic: environment.required("ALERT_TOPIC_ARN")?,
            renewal_topic: environment.optional("RENEWAL_TOPIC_ARN"),
            domains: environment.optional("DOMAINS").unwrap_or_default(),
            thresholds: Thresholds {
                warn_days: environment.parsed("WARN_DAYS", DAYS)?.unwrap_or(default.warn_days),
                critical_days: environment
                    .parsed("CRITICAL_DAYS", DAYS)?
                    .unwrap_or(default.critical_days),
            }
            .ordered(),
            revocation: environment.parsed("CHECK_REVOCATION", BOOLEAN)?.unwrap_or(true),
            trust_bundle: environment.optional("TRUST_BUNDLE_KEY"),
            nameserver: environment.nameserver()?,
            sockets: environment
                .parsed("SOCKETS", "a number of sockets")?
                .unwrap_or(Options::default().sockets),
            endpoint_metrics: environment.parsed("ENDPOINT_METRICS", BOOLEAN)?.unwrap_or(false),
            stack: environment
                .optional("STACK_NAME")
                .unwrap_or_else(|| "neverlapse".to_owned()),
            weekly: environment.parsed("WEEKLY_DIGEST", BOOLEAN)?.unwrap_or(false),
        })
    }
}

const DAYS: &str = "a number of days";
const BOOLEAN: &str = "true or false";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &[(&str, &str)]) -> Result<Settings, Error> {
        let fixed = [
            ("BUCKET", "b"),
            ("ALERT_TOPIC_ARN", "arn:aws:sns:eu-central-1:123456789012:t"),
        ];
        let all: Vec<_> = extra.iter().chain(&fixed).copied().collect();
        let variable = |name: &str| {
            all.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Settings::from_environment(variable)
    }

    #[test]
    fn empty_means_default() {
        let settings = settings(&[("WARN_DAYS", ""), ("NAMESERVER", ""), ("CHECK_REVOCATION", "false")]).unwrap();
        assert_eq!(
            settings.thresholds,
            Thresholds {
                warn_days: 14,
                critical_days: 3
            }
        );
        assert_eq!((settings.nameserver, settings.revocation), (None, false));
        assert_eq!(settings.sockets, 800);
    }

    /// A template that sets one of them may not know of the other.
    #[test]
    fn nothing_is_critical_before_it_warns() {
        for (warn, critical, expected) in [("2", "", (3, 3)), ("", "20", (20, 20)), ("30", "7", (30, 7))] {
            let thresholds = settings(&[("WARN_DAYS", warn), ("CRITICAL_DAYS", critical)])
                .unwrap()
                .thresholds;
            assert_eq!((thresholds.warn_days, thresholds.critical_days), expected);
        }
    }

    #[test]
    fn errors_name_variable_value_and_form() {
        let error = settings(&[("WARN_DAYS", "two weeks")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "environment variable WARN_DAYS: \"two weeks\" is not a number of days"
        );
        let error = Settings::from_environment(|_| None).unwrap_err();
        assert_eq!(error, Error::Missing("BUCKET"));
    }
}
