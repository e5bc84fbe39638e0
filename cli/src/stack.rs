//! The deployed stack: where its bucket and topics are.

use anyhow::{Context, Result, bail};
use aws_config::SdkConfig;
use clap::Args;
use neverlapse::aws;
use neverlapse::bucket::store::Store;
use neverlapse::inventory::{Inventory, Managed};

/// Which stack.
#[derive(Debug, Args)]
pub(crate) struct StackName {
    /// Name of the CloudFormation stack, as `sam deploy` was told
    #[arg(long, env = "NEVERLAPSE_STACK", default_value = "neverlapse", value_name = "NAME")]
    stack: String,
}

impl StackName {
    pub(crate) fn as_str(&self) -> &str {
        &self.stack
    }
}

/// A stack's outputs, and clients for what they name.
pub(crate) struct Stack {
    pub(crate) config: SdkConfig,
    pub(crate) store: Store,
    name: String,
    outputs: Vec<aws_sdk_cloudformation::types::Output>,
    parameters: Vec<aws_sdk_cloudformation::types::Parameter>,
}

impl Stack {
    pub(crate) async fn find(name: &StackName) -> Result<Self> {
        let config = aws::config().await;
        let name = name.stack.clone();
        let request = aws_sdk_cloudformation::Client::new(&config)
            .describe_stacks()
            .stack_name(&name);
        let answer = request.send().await;
        let answer = answer
            .map_err(|error| anyhow::anyhow!(aws::reason(&error)))
            .with_context(|| {
                format!("cannot find the stack {name:?} (expected --stack NAME, and AWS_REGION where it is)")
            })?;
        let found = answer.stacks.and_then(|stacks| stacks.into_iter().next());
        let (outputs, parameters) = found.map(|found| (found.outputs, found.parameters)).unzip();
        let mut stack = Self {
            store: Store::new(aws_sdk_s3::Client::new(&config), ""),
            config,
            name,
            outputs: outputs.flatten().unwrap_or_default(),
            parameters: parameters.flatten().unwrap_or_default(),
        };
        stack.store = Store::new(aws_sdk_s3::Client::new(&stack.config), stack.output("BucketName")?);
        Ok(stack)
    }

    /// What the template names so.
    pub(crate) fn output(&self, key: &str) -> Result<&str> {
        let output = self.outputs.iter().find(|output| output.output_key() == Some(key));
        output.and_then(|output| output.output_value()).with_context(|| {
            format!(
                "the stack {:?} has no output {key}; is it neverlapse, and up to date?",
                self.name
            )
        })
    }

    /// What the template's parameter of this name was set to, if it is not empty.
    pub(crate) fn parameter(&self, key: &str) -> Option<&str> {
        let parameter = self.parameters.iter().find(|one| one.parameter_key() == Some(key));
        parameter?.parameter_value().filter(|value| !value.is_empty())
    }

    /// The inventory in the bucket.
    pub(crate) async fn inventory(&self) -> Result<Inventory> {
        let text = self.store.inventory().await?;
        let text = text.with_context(|| format!("there is no inventory.toml in s3://{}", self.store.bucket()))?;
        Ok(Inventory::parse(&text))
    }
}

/// The certificate of this name, or a list of those that there are.
pub(crate) fn certificate<'i>(inventory: &'i Inventory, name: &str) -> Result<&'i Managed> {
    let names: Vec<_> = inventory.certificates.iter().map(|one| one.name.as_str()).collect();
    match inventory
        .certificates
        .iter()
        .find(|certificate| certificate.name == name)
    {
        Some(certificate) => Ok(certificate),
        None if names.is_empty() => bail!("the inventory has no [[certificate]]"),
        None => bail!(
            "the inventory has no certificate {name:?} (expected {})",
            names.join(", ")
        ),
    }
}
