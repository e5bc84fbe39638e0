//! What the template sets, parsed before the first event.

use std::net::SocketAddr;

use neverlapse::resolve;
use thiserror::Error;

/// What the function needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) bucket: String,
    pub(crate) alert_topic: String,
    /// The KMS key for accounts and orders: what holds private keys that no instance may read.
    pub(crate) secrets_key: String,
    pub(crate) nameserver: Option<SocketAddr>,
    pub(crate) stack: String,
    pub(crate) region: String,
}

#[derive(Debug, Error, PartialEq)]
pub(crate) enum Error {
    #[error("environment variable {0} is not set (the template sets it)")]
    Missing(&'static str),
    #[error("environment variable NAMESERVER: {0:?} is not an address, with or without :port")]
    Nameserver(String),
}

impl Settings {
    /// From environment variables; an empty one is as good as none.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let optional = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let required = |name: &'static str| optional(name).ok_or(Error::Missing(name));
        Ok(Self {
            bucket: required("BUCKET")?,
            alert_topic: required("ALERT_TOPIC_ARN")?,
            secrets_key: required("SECRETS_KEY_ARN")?,
            nameserver: optional("NAMESERVER").map(nameserver).transpose()?,
            stack: optional("STACK_NAME").unwrap_or_else(|| "neverlapse".to_owned()),
            region: optional("AWS_REGION").unwrap_or_default(),
        })
    }
}

fn nameserver(value: String) -> Result<SocketAddr, Error> {
    resolve::nameserver(value.trim()).ok_or(Error::Nameserver(value))
}
