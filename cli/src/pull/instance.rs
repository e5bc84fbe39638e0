//! Who this instance is: its id on EC2, else what the configuration says, else its host name.

use std::time::Duration;

use anyhow::{Result, ensure};
use aws_config::imds::Client;
use aws_config::provider_config::ProviderConfig;
use neverlapse::client::https;
use rustix::system::uname;
use serde::Deserialize;
use tokio::time::timeout;

/// The name under which an instance reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) host: String,
    /// Its region, where the metadata service says so.
    pub(crate) region: Option<String>,
}

impl Instance {
    pub(crate) async fn find(configured: Option<&str>) -> Result<Self> {
        let host = uname().nodename().to_string_lossy().into_owned();
        let document = if is_ec2() { document().await } else { None };
        let (found, region) = document.map(|document| (document.instance_id, document.region)).unzip();
        let id = found
            .or_else(|| configured.map(str::to_owned))
            .unwrap_or_else(|| host.clone());
        ensure!(
            !id.is_empty()
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')),
            "{id:?} cannot be an instance's name; set instance = \"…\" (letters, digits, - _ .)"
        );
        Ok(Self { id, host, region })
    }
}

/// Elsewhere nobody answers at the metadata service's address, and asking costs seconds.
fn is_ec2() -> bool {
    let says =
        |file: &str, what: &str| std::fs::read_to_string(file).is_ok_and(|text| text.to_lowercase().starts_with(what));
    std::env::var_os("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some()
        || says("/sys/class/dmi/id/sys_vendor", "amazon ec2")
        || says("/sys/class/dmi/id/board_asset_tag", "i-")
        || says("/sys/hypervisor/uuid", "ec2")
}

/// From IMDSv2; that it does not answer is no error, because a configuration may name the instance.
async fn document() -> Option<Document> {
    let configuration = ProviderConfig::default().with_http_client(https());
    let client = Client::builder().configure(&configuration).build();
    let document = timeout(LIMIT, client.get("/latest/dynamic/instance-identity/document"))
        .await
        .ok()?
        .ok()?;
    serde_json::from_str(document.as_ref()).ok()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: String,
    region: String,
}

const LIMIT: Duration = Duration::from_secs(10);
