//! Who this instance is: for AWS, which guards its receipts by that, and for people.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_config::SdkConfig;
use aws_config::imds::Client;
use aws_config::provider_config::ProviderConfig;
use neverlapse::aws::{Way, https, reason};
use rustix::system::uname;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::config::Config;
use super::state::write_whole;

/// What a host knows of itself, without asking AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its host name.
    pub(crate) host: String,
    /// Its instance id, on EC2.
    pub(crate) ec2: Option<String>,
    /// Its region, where the metadata service says so.
    pub(crate) region: Option<String>,
    /// What an image of it does not take along, as far as the system knows.
    pub(crate) id: String,
}

impl Machine {
    /// Asks the kernel, and on EC2 the metadata service.
    pub(crate) async fn find() -> Self {
        let document = if is_ec2() { document().await } else { None };
        let (ec2, region) = document.map(|document| (document.instance_id, document.region)).unzip();
        let host = uname().nodename().to_string_lossy().into_owned();
        // A name can be changed, and an image has its original's machine id until it is started as
        // the manual says (machine-id(5)). The virtual machine's own id is another one at once.
        let ids = [MACHINE, PRODUCT].map(|file| std::fs::read_to_string(file).unwrap_or_default());
        let ids = ids.map(|id| id.trim().to_owned()).join(" ");
        let id = if ids.trim().is_empty() { host.clone() } else { ids };
        Self {
            id: ec2.clone().unwrap_or(id),
            host,
            ec2,
            region,
        }
    }

    /// Its instance id, or its host name elsewhere.
    pub(crate) fn name(&self) -> &str {
        self.ec2.as_deref().unwrap_or(&self.host)
    }
}

/// The name under which an instance's receipts are kept.
///
/// In a bucket that is its AWS user id, because a policy can say
/// `receipts/NAME/${aws:userid}.json`, and nothing else that tells instances apart. AWS is asked
/// once: the answer is kept, for this machine, so that STS need not answer in every run.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// As the configuration says, or the machine's where no bucket is used.
    Name(String),
    /// As AWS says, which is kept in `file`.
    UserId { sts: aws_sdk_sts::Client, file: PathBuf },
}

/// The answer of AWS, and which machine it was for: an image of that machine must not use its name.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    machine: String,
    user_id: String,
}

impl Identity {
    /// Of whoever has the credentials of `config`.
    pub(crate) fn by_user_id(shared: &SdkConfig, machine: &Machine, config: &Config) -> Self {
        let mut sts = aws_sdk_sts::config::Builder::from(shared);
        // The bucket's region comes last: an endpoint for STS is in this machine's own.
        if let (None, Some(region)) = (shared.region(), machine.region.as_ref().or(config.region.as_ref())) {
            sts = sts.region(aws_config::Region::new(region.clone()));
        }
        Self::UserId {
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            file: config.state.join(KEPT),
        }
    }

    /// The name. AWS is asked if it is not known yet.
    pub(crate) async fn find(&self, machine: &Machine) -> Result<String> {
        let name = match self {
            Self::Name(name) => name.clone(),
            Self::UserId { sts, file } => match kept(file, machine) {
                Some(user_id) => user_id,
                None => {
                    let user_id = request(sts).await?;
                    // It is asked again, if it cannot be kept.
                    let _ = keep(file, machine, &user_id);
                    user_id
                }
            },
        };

        ensure!(
            is_key(&name),
            "{name:?} cannot be an instance's name; set instance = \"…\" (letters, digits, - _ .)"
        );
        Ok(name)
    }

    /// Has AWS asked again in the next run: a receipt that could not be written may have been under
    /// the name of another role.
    pub(crate) fn forget(&self) {
        if let Self::UserId { file, .. } = self {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A file that is damaged, or of another machine, is as good as none.
fn kept(file: &Path, machine: &Machine) -> Option<String> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (kept.machine == machine.name()).then_some(kept.user_id)
}

fn keep(file: &Path, machine: &Machine, user_id: &str) -> Result<()> {
    let kept = Kept {
        machine: machine.name().to_owned(),
        user_id: user_id.to_owned(),
    };
    write_whole(file, &serde_json::to_vec_pretty(&kept)?)
}

/// `sts:GetCallerIdentity` needs no permission.
async fn request(sts: &aws_sdk_sts::Client) -> Result<String> {
    let answer = match timeout(LIMIT, sts.get_caller_identity().send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failed)) => bail!("AWS STS does not say who this is: {}", reason(&failed)),
        Err(_) => bail!("AWS STS does not say within {} s who this is", LIMIT.as_secs()),
    };
    answer.user_id.context("AWS STS knows no user id for these credentials")
}

/// Whether a name can be in a receipt's key. A user id, of role or user and the session's name
/// (`[\w+=,.@-]`), may hold more than a folder's name.
fn is_key(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.len() <= 200
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+=,@:".contains(&byte))
}

const MACHINE: &str = "/etc/machine-id";
const PRODUCT: &str = "/sys/class/dmi/id/product_uuid";

/// Elsewhere nothing answers at the metadata service's address, and the attempt would take seconds.
fn is_ec2() -> bool {
    std::env::var_os("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some()
        || begins_with("/sys/class/dmi/id/sys_vendor", "amazon ec2")
        || begins_with("/sys/class/dmi/id/board_asset_tag", "i-")
        || begins_with("/sys/hypervisor/uuid", "ec2")
}

fn begins_with(file: &str, expected: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.to_lowercase().starts_with(expected))
}

/// From IMDSv2, which no proxy reaches. It may not answer: the configuration can name the instance
/// instead.
async fn document() -> Option<Document> {
    let configuration = ProviderConfig::default().with_http_client(https(&Way::default()));
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
/// No certificate's name begins with a dot.
const KEPT: &str = ".identity.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(ec2: &str) -> Machine {
        Machine {
            host: "web-1".into(),
            ec2: (!ec2.is_empty()).then(|| ec2.to_owned()),
            region: None,
            id: ec2.to_owned(),
        }
    }

    #[test]
    fn an_image_does_not_go_on_in_the_name_of_where_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(KEPT);
        assert_eq!(kept(&file, &machine("i-1")), None);
        std::fs::write(&file, r#"{"machine": "i-1", "user_id": "AROA:i-1"}"#).unwrap();
        assert_eq!(kept(&file, &machine("i-1")).as_deref(), Some("AROA:i-1"));
        assert_eq!(kept(&file, &machine("i-2")), None);
        assert_eq!(kept(&file, &machine("")), None);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(kept(&file, &machine("i-1")), None, "damaged");
    }

    #[test]
    fn what_can_be_a_key() {
        for name in [
            "AROAEXAMPLE:i-0abc",
            "web-1",
            "AROAEXAMPLE:first.last@example.com",
            "123456789012:Bob",
        ] {
            assert!(is_key(name), "{name}");
        }
        for name in ["", "a/b", "..", ".hidden", "a b", "bücher"] {
            assert!(!is_key(name), "{name}");
        }
    }
}
