//! A local AWS: ministack in a folder of its own, with nothing on it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::process::{Group, command, free_port};
use crate::stack::root;

/// A running emulator; ends when dropped.
#[derive(Debug)]
pub struct Emulator {
    _group: Group,
    _folder: TempDir,
    /// Its URL, for all services.
    pub endpoint: String,
    /// For SDK clients.
    pub config: SdkConfig,
}

impl Emulator {
    /// Starts it on a free port and waits until it answers.
    pub async fn start() -> Result<Self> {
        Self::start_trusting("").await
    }

    /// Likewise; it delivers to https subscribers whose certificates lead to this root, PEM.
    pub async fn start_trusting(root_of_subscribers: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-aws-").tempdir()?;
        let program = root().join(".local/ministack/bin/ministack");
        ensure!(
            program.exists(),
            "{} is missing: run `make setup` first",
            program.display()
        );
        let port = free_port()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let log = std::fs::File::create(folder.path().join(LOG))?;
        let mut command = command(program);
        if !root_of_subscribers.is_empty() {
            let roots = folder.path().join("subscribers.pem");
            std::fs::write(&roots, root_of_subscribers)?;
            command.env("SSL_CERT_FILE", roots);
        }
        command
            .env("GATEWAY_PORT", port.to_string())
            .env("MINISTACK_HOST", "127.0.0.1")
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("TMPDIR", folder.path())
            .current_dir(folder.path())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut group = Group::start(&mut command)?;
        if !answers(&endpoint, &mut group).await? {
            let log = std::fs::read_to_string(folder.path().join(LOG)).unwrap_or_default();
            bail!("ministack does not answer:\n{log}");
        }
        let config = config(&endpoint, KEY).await;
        Ok(Self {
            _group: group,
            _folder: folder,
            endpoint,
            config,
        })
    }

    /// For SDK clients of the account with this id: the emulator takes twelve digits as a key for one.
    pub async fn account(&self, id: &str) -> SdkConfig {
        config(&self.endpoint, id).await
    }

    /// What a command needs in its environment to use it, and nothing that this machine has.
    pub fn environment(&self) -> [(&str, &str); 7] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", KEY),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}

/// Whether it comes up within a minute.
async fn answers(endpoint: &str, group: &mut Group) -> Result<bool> {
    let client = http()?;
    for _ in 0..300 {
        if client.get(format!("{endpoint}/_ministack/health")).send().await.is_ok() {
            return Ok(true);
        }
        if !group.is_running() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(false)
}

/// reqwest wants the process to have chosen its cryptography, even for plain HTTP.
pub(crate) fn http() -> Result<reqwest::Client> {
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// Likewise, for a server whose root is this PEM.
pub(crate) fn http_trusting(root: &str) -> Result<reqwest::Client> {
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(root.as_bytes()) {
        roots.add(root?)?;
    }
    let config = tokio_rustls::rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .no_proxy()
        .use_preconfigured_tls(config)
        .build()?)
}

async fn config(endpoint: &str, key: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(key, KEY, None, None, "local stack"))
        .http_client(neverlapse::client::https())
        .load()
        .await
}

pub(crate) const REGION: &str = "eu-central-1";
/// The emulator takes any.
pub(crate) const KEY: &str = "test";
const LOG: &str = "ministack.log";
