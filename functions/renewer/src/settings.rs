//! What the template sets, parsed before the first event.

use std::net::SocketAddr;

use neverlapse::environment::{Environment, Error};

/// What the function needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) bucket: String,
    pub(crate) alert_topic: String,
    /// The topic of people's requests, to which the probe cannot publish.
    pub(crate) operator_topic: String,
    /// The KMS key for accounts and orders, which hold private keys that no instance may read.
    pub(crate) secrets_key: String,
    /// The only name server to ask about challenges; else the zones' own.
    pub(crate) nameserver: Option<SocketAddr>,
    pub(crate) stack: String,
    pub(crate) region: String,
}

impl Settings {
    /// From environment variables; an empty one counts as not set.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let environment = Environment::new(variable);
        Ok(Self {
            bucket: environment.required("BUCKET")?,
            alert_topic: environment.required("ALERT_TOPIC_ARN")?,
            operator_topic: environment.required("OPERATOR_TOPIC_ARN")?,
            secrets_key: environment.required("SECRETS_KEY_ARN")?,
            nameserver: environment.nameserver_at("RENEWER_NAMESERVER")?,
            stack: environment
                .optional("STACK_NAME")
                .unwrap_or_else(|| "neverlapse".to_owned()),
            region: environment.optional("AWS_REGION").unwrap_or_default(),
        })
    }
}
