//! What the template sets, parsed before the first event.

use std::net::SocketAddr;

use neverlapse::finding::Thresholds;
use neverlapse::resolve;
use thiserror::Error;

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
    /// Whether each endpoint gets a metric of its own.
    pub(crate) endpoint_metrics: bool,
    pub(crate) stack: String,
    /// Whether to say once a week that everything is fine.
    pub(crate) weekly: bool,
}

#[derive(Debug, Error, PartialEq)]
pub(crate) enum Error {
    #[error("environment variable {0} is not set (the template sets it)")]
    Missing(&'static str),
    #[error("environment variable {name}: {value:?} is not {expected}")]
    Invalid {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
}

impl Settings {
    /// From environment variables; an empty one is as good as none.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let optional = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let required = |name: &'static str| optional(name).ok_or(Error::Missing(name));
        let default = Thresholds::default();
        let warn_days = parsed("WARN_DAYS", optional("WARN_DAYS"), "a number of days")?;
        let critical_days = parsed("CRITICAL_DAYS", optional("CRITICAL_DAYS"), "a number of days")?;
        let revocation = parsed("CHECK_REVOCATION", optional("CHECK_REVOCATION"), "true or false")?;
        let weekly = parsed("WEEKLY_DIGEST", optional("WEEKLY_DIGEST"), "true or false")?;
        let endpoint_metrics = parsed("ENDPOINT_METRICS", optional("ENDPOINT_METRICS"), "true or false")?;
        Ok(Self {
            bucket: required("BUCKET")?,
            alert_topic: required("ALERT_TOPIC_ARN")?,
            renewal_topic: optional("RENEWAL_TOPIC_ARN"),
            domains: optional("DOMAINS").unwrap_or_default(),
            thresholds: Thresholds {
                warn_days: warn_days.unwrap_or(default.warn_days),
                critical_days: critical_days.unwrap_or(default.critical_days),
            },
            revocation: revocation.unwrap_or(true),
            trust_bundle: optional("TRUST_BUNDLE_KEY"),
            nameserver: optional("NAMESERVER").map(nameserver).transpose()?,
            endpoint_metrics: endpoint_metrics.unwrap_or(false),
            stack: optional("STACK_NAME").unwrap_or_else(|| "neverlapse".to_owned()),
            weekly: weekly.unwrap_or(false),
        })
    }
}

fn parsed<T: std::str::FromStr>(
    name: &'static str,
    value: Option<String>,
    expected: &'static str,
) -> Result<Option<T>, Error> {
    let parse = |value: String| {
        value
            .trim()
            .parse()
            .map_err(|_| Error::Invalid { name, value, expected })
    };
    value.map(parse).transpose()
}

fn nameserver(value: String) -> Result<SocketAddr, Error> {
    resolve::nameserver(value.trim()).ok_or(Error::Invalid {
        name: "NAMESERVER",
        value,
        expected: "an address, with or without :port",
    })
}

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
