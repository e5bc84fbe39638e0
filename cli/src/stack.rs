//! The deployed stack: where its bucket and topics are.

use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use aws_config::SdkConfig;
use aws_sdk_cloudformation::error::ProvideErrorMetadata;
use aws_sdk_cloudformation::types::{Output, Parameter};
use clap::Args;
use neverlapse::aws;
use neverlapse::bucket::store::{self, Store};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::finding::Thresholds;
use neverlapse::inventory::{Inventory, Managed, Source};
use neverlapse::renewal::Renewal;
use neverlapse::renewal::request::Request;
use neverlapse::text::printable;
use thiserror::Error;
use time::Duration;

/// Which stack.
#[derive(Debug, Args)]
pub(crate) struct StackName {
    /// Name of the CloudFormation stack
    #[arg(long, env = "NEVERLAPSE_STACK", default_value = "neverlapse", value_name = "NAME")]
    stack: String,
}

impl StackName {
    pub(crate) fn as_str(&self) -> &str {
        &self.stack
    }
}

/// AWS could not be asked for the stack at all, so that nothing is known about it.
#[derive(Debug, Error)]
#[error("cannot ask AWS for the stack {name:?}: {reason}")]
pub(crate) struct NotAsked {
    name: String,
    reason: String,
}

/// A stack's outputs and parameters, and clients for what they name.
pub(crate) struct Stack {
    pub(crate) config: SdkConfig,
    pub(crate) store: Store,
    name: String,
    outputs: Vec<Output>,
    parameters: Vec<Parameter>,
}

impl Stack {
    /// Asks CloudFormation for the stack of this name.
    pub(crate) async fn find(name: &StackName) -> Result<Self> {
        let config = aws::config().await?;
        let name = name.as_str().to_owned();
        let answer = aws_sdk_cloudformation::Client::new(&config)
            .describe_stacks()
            .stack_name(&name)
            .send()
            .await
            .map_err(|error| {
                let reason = aws::reason(&error);
                match error.as_service_error().and_then(ProvideErrorMetadata::code) {
                    // What CloudFormation answers when it has no such stack.
                    Some("ValidationError") => {
                        anyhow!("{reason}").context(format!("there is no stack {name:?} {IN_REGION}"))
                    }
                    _ => anyhow!(NotAsked {
                        name: name.clone(),
                        reason
                    }),
                }
            })?;

        let stack = answer.stacks.and_then(|stacks| stacks.into_iter().next());
        let (outputs, parameters) = stack.map(|stack| (stack.outputs, stack.parameters)).unzip();
        let outputs = outputs.flatten().unwrap_or_default();
        let bucket = output(&name, &outputs, "BucketName")?;
        Ok(Self {
            store: Store::new(aws_sdk_s3::Client::new(&config), bucket),
            config,
            name,
            outputs,
            parameters: parameters.flatten().unwrap_or_default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All outputs, by name.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (&str, &str)> {
        let outputs = self.outputs.iter();
        outputs.filter_map(|output| Some((output.output_key()?, output.output_value()?)))
    }

    /// All parameters, by name.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.parameters.iter();
        parameters.filter_map(|parameter| Some((parameter.parameter_key()?, parameter.parameter_value()?)))
    }

    /// The value of the template's output of this name.
    pub(crate) fn output(&self, key: &str) -> Result<&str> {
        output(&self.name, &self.outputs, key)
    }

    /// The value that the template's parameter of this name was set to, if it is not empty.
    pub(crate) fn parameter(&self, key: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        parameters
            .find(|parameter| parameter.parameter_key() == Some(key))?
            .parameter_value()
            .filter(|value| !value.is_empty())
    }

    /// The number that the template's parameter of this name was set to.
    pub(crate) fn number<N: FromStr>(&self, key: &str) -> Option<N> {
        self.parameter(key)?.parse().ok()
    }

    /// The time within which the probe must have finished a run, or the stack raises an alarm.
    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::hours(self.number("HeartbeatHours").unwrap_or(HEARTBEAT_HOURS))
    }

    /// The inventory in the bucket, else that of the parameter `Domains`, as the probe reads it.
    /// Prints what is wrong with it.
    pub(crate) async fn inventory(&self) -> Result<Inventory> {
        let inventory = match self.store.inventory().await? {
            Some(text) => Inventory::parse_with(&text, self.thresholds()),
            None => Inventory::of_endpoints(self.parameter("Domains").unwrap_or_default(), self.thresholds()),
        };

        let place = match inventory.source {
            Source::File => "inventory.toml",
            Source::Domains => "parameter",
        };
        for problem in &inventory.problems {
            eprintln!("error: {place} {}", printable(&problem.to_string()));
        }
        Ok(inventory)
    }

    /// The current version of a certificate, if there is one yet.
    pub(crate) async fn current(&self, name: &str) -> Result<Option<Current>, store::Error> {
        let found = self.store.document(&current_key(name)).await?;
        Ok(found.map(|found| found.value))
    }

    /// The record of a certificate's renewals, if it was ever requested.
    pub(crate) async fn renewal(&self, name: &str) -> Result<Option<Renewal>, store::Error> {
        let found = self.store.document(&Renewal::key(name)).await?;
        Ok(found.map(|found| found.value))
    }

    /// The thresholds of entries that set none of their own.
    fn thresholds(&self) -> Thresholds {
        let default = Thresholds::default();
        Thresholds {
            warn_days: self.number("WarnDays").unwrap_or(default.warn_days),
            critical_days: self.number("CriticalDays").unwrap_or(default.critical_days),
        }
    }

    /// Sends a person's request to the renewer, over a topic to which the probe cannot publish.
    pub(crate) async fn request_renewal(&self, request: &Request) -> Result<()> {
        let topic = self.output("OperatorTopicArn")?;
        let sent = aws_sdk_sns::Client::new(&self.config)
            .publish()
            .topic_arn(topic)
            .message(serde_json::to_string(request)?)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => bail!("cannot publish to {topic}: {}", aws::reason(&error)),
        }
    }
}

/// The value of the output `key` of the stack `name`.
fn output<'o>(name: &str, outputs: &'o [Output], key: &str) -> Result<&'o str> {
    let output = outputs.iter().find(|output| output.output_key() == Some(key));
    output
        .and_then(|output| output.output_value())
        .with_context(|| format!("the stack {name:?} has no output {key}; is it neverlapse, and up to date?"))
}

/// The certificate of this name; the error lists those that there are.
pub(crate) fn certificate<'i>(inventory: &'i Inventory, name: &str) -> Result<&'i Managed> {
    let mut certificates = inventory.certificates.iter();
    if let Some(certificate) = certificates.find(|certificate| certificate.name == name) {
        return Ok(certificate);
    }

    let names: Vec<_> = inventory.certificates.iter().map(|known| known.name.as_str()).collect();
    if names.is_empty() {
        bail!("the inventory has no [[certificate]]");
    }
    bail!(
        "the inventory has no certificate {name:?} (expected {})",
        names.join(", ")
    );
}

/// The template's default: a day, and some slack.
const HEARTBEAT_HOURS: i64 = 26;
const IN_REGION: &str =
    "in this region and account (expected --stack NAME, and AWS_REGION and AWS_PROFILE of the stack)";
