//! The deployed stack: where its bucket and topics are.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use aws_config::SdkConfig;
use clap::Args;
use neverlapse::aws;
use neverlapse::bucket::store::{self, Store};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::finding::Thresholds;
use neverlapse::inventory::{Inventory, Managed, Source};
use neverlapse::renewal::Renewal;
use neverlapse::renewal::request::Request;
use neverlapse::text::printable;
use roxmltree::Node;
use thiserror::Error;
use time::Duration;

use crate::service::{self, CLOUDFORMATION, Refused, Services};

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
    pub(crate) services: Services,
    pub(crate) store: Store,
    /// CloudFormation's, such as `UPDATE_COMPLETE`.
    pub(crate) status: String,
    name: String,
    outputs: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
}

impl Stack {
    /// Asks CloudFormation for the stack of this name.
    pub(crate) async fn find(name: &StackName) -> Result<Self> {
        let config = aws::config().await?;
        let services = Services::new(&config)?;
        let name = name.as_str().to_owned();
        let not_asked = |refused: Refused| NotAsked {
            name: name.clone(),
            reason: refused.to_string(),
        };

        let answer = match services.query(CLOUDFORMATION, &call("DescribeStacks", &name)).await {
            // What CloudFormation answers when it has no such stack.
            Err(refused) if refused.code == "ValidationError" => {
                return Err(anyhow!("{refused}").context(format!("there is no stack {name:?} {IN_REGION}")));
            }
            answer => answer.map_err(not_asked)?,
        };
        let answer = service::document(&answer).map_err(not_asked)?;
        let answer = answer.root_element();
        let outputs = pairs(answer, "OutputKey", "OutputValue");
        let bucket = output(&name, &outputs, "BucketName")?;
        Ok(Self {
            store: Store::new(aws_sdk_s3::Client::new(&config), bucket),
            config,
            services,
            status: service::text(answer, "StackStatus").unwrap_or_default().to_owned(),
            parameters: pairs(answer, "ParameterKey", "ParameterValue"),
            name,
            outputs,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Type and physical id of what CloudFormation made for the stack, by the template's names.
    pub(crate) async fn resources(&self) -> Result<BTreeMap<String, (String, String)>, Refused> {
        let call = call("DescribeStackResources", &self.name);
        let answer = self.services.query(CLOUDFORMATION, &call).await?;
        let answer = service::document(&answer)?;
        let resources = service::elements(answer.root_element(), "member").filter_map(|member| {
            let text = |name| service::text(member, name).map(str::to_owned);
            let resource = (text("ResourceType")?, text("PhysicalResourceId")?);
            Some((text("LogicalResourceId")?, resource))
        });
        Ok(resources.collect())
    }

    /// All outputs, by name.
    pub(crate) fn outputs(&self) -> &BTreeMap<String, String> {
        &self.outputs
    }

    /// All parameters, by name.
    pub(crate) fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// The value of the template's output of this name.
    pub(crate) fn output(&self, key: &str) -> Result<&str> {
        output(&self.name, &self.outputs, key)
    }

    /// The value that the template's parameter of this name was set to, if it is not empty.
    pub(crate) fn parameter(&self, key: &str) -> Option<&str> {
        let value = self.parameters.get(key)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
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

fn call<'c>(action: &'c str, stack: &'c str) -> [(&'c str, &'c str); 3] {
    [("Action", action), ("Version", "2010-05-15"), ("StackName", stack)]
}

/// The texts of all pairs of elements with these names.
fn pairs(answer: Node<'_, '_>, key: &str, value: &str) -> BTreeMap<String, String> {
    let keys = service::elements(answer, key);
    let pairs = keys.filter_map(|key| {
        let value = service::text(key.parent()?, value).unwrap_or_default();
        Some((key.text()?.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// The value of the output `key` of the stack `name`.
fn output<'o>(name: &str, outputs: &'o BTreeMap<String, String>, key: &str) -> Result<&'o str> {
    let value = outputs.get(key).map(String::as_str);
    value.with_context(|| format!("the stack {name:?} has no output {key}; is it neverlapse, and up to date?"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cloudformation_answers() {
        let xml = "<DescribeStacksResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\">\
            <DescribeStacksResult><Stacks><member><Outputs><member><Description>a &amp; b</Description>\
            <OutputKey>BucketName</OutputKey><OutputValue>b</OutputValue></member></Outputs><Parameters>\
            <member><ParameterKey>Domains</ParameterKey><ParameterValue>a.test, b.test?x&amp;y</ParameterValue></member>\
            <member><ParameterKey>ZoneRole</ParameterKey><ParameterValue/></member></Parameters></member></Stacks>\
            </DescribeStacksResult></DescribeStacksResponse>";
        let document = service::document(xml).unwrap();
        let read = |key, value| pairs(document.root_element(), key, value);
        assert_eq!(
            read("OutputKey", "OutputValue"),
            [("BucketName", "b")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        );
        assert_eq!(
            read("ParameterKey", "ParameterValue"),
            [("Domains", "a.test, b.test?x&y"), ("ZoneRole", "")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        );
    }
}
