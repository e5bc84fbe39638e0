//! Pebble, the ACME server that Let's Encrypt makes for tests, with `-strict`.

use neverlapse::timestamp::Timestamp;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::emulator::http_trusting;
use crate::pki::{Authority, write_secret};
use crate::process::{Group, command, eventually, free_port};
use crate::stack::root;

/// What Pebble is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many of a hundred nonces it refuses.
    pub nonces_refused: u8,
    /// Whether accounts need an external account binding: [`KEY_ID`] and [`HMAC_KEY`].
    pub external_account: bool,
    /// Whether it knows the profile `shortlived`, of six days; it then gives any of its profiles to
    /// who asks for none.
    pub shortlived: bool,
    /// How many of a hundred authorizations that were proved once are valid in later orders.
    pub authorizations_reused: u8,
    /// How many other roots its chains can end at.
    pub alternate_roots: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nonces_refused: 5,
            external_account: false,
            shortlived: false,
            authorizations_reused: 0,
            alternate_roots: 0,
        }
    }
}

/// A running Pebble; ends when dropped.
pub struct Pebble {
    group: Group,
    folder: TempDir,
    management: u16,
    client: reqwest::Client,
    /// URL of its directory.
    pub directory: String,
    /// Roots of its own listener and of what it issues, PEM.
    pub roots: String,
    /// Root of what it issues, PEM.
    pub issuing_root: String,
    /// Root of its own listener, PEM.
    pub listening_root: String,
}

impl Pebble {
    /// Starts it on free ports; it looks names up at `dns`.
    pub async fn start(options: Options, dns: SocketAddr) -> Result<Self> {
        let program = root().join(".local/pebble/pebble");
        ensure!(
            program.exists(),
            "{} is missing: run `make setup` first",
            program.display()
        );

        let folder = tempfile::Builder::new().prefix("neverlapse-pebble-").tempdir()?;
        let listener = Authority::new()?;
        let leaf = listener.leaf("127.0.0.1", Timestamp::now() + time::Duration::days(60))?;
        let (certificate, key) = (folder.path().join("listener.pem"), folder.path().join("listener.key"));
        std::fs::write(&certificate, leaf.fullchain)?;
        write_secret(&key, &leaf.key)?;

        let (port, management) = (free_port()?, free_port()?);
        let configuration = folder.path().join("pebble.json");
        std::fs::write(
            &configuration,
            configured(options, port, management, &certificate, &key).to_string(),
        )?;

        let log = std::fs::File::create(folder.path().join(LOG))?;
        let mut command = command(program);
        command
            .arg("-config")
            .arg(&configuration)
            .arg("-strict")
            .arg("-dnsserver")
            .arg(dns.to_string());
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", options.nonces_refused.to_string())
            .env("PEBBLE_AUTHZREUSE", options.authorizations_reused.to_string())
            .env("PEBBLE_ALTERNATE_ROOTS", options.alternate_roots.to_string())
            .stdout(log.try_clone()?)
            .stderr(log);

        let mut pebble = Self {
            group: Group::start(&mut command)?,
            management,
            client: http_trusting(&listener.root())?,
            directory: format!("https://127.0.0.1:{port}/dir"),
            roots: String::new(),
            issuing_root: String::new(),
            listening_root: listener.root(),
            folder,
        };

        pebble.issuing_root = pebble.issuing_root().await?;
        pebble.roots = format!("{}{}", pebble.listening_root, pebble.issuing_root);
        for number in 1..=options.alternate_roots {
            pebble.roots.push_str(&pebble.root(number).await?);
        }
        Ok(pebble)
    }

    /// One of the roots that its chains can end at, PEM; 0 is that of its own choice.
    pub async fn root(&self, number: u8) -> Result<String> {
        let url = format!("https://127.0.0.1:{}/roots/{number}", self.management);
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }

    /// How many orders it has accepted.
    pub fn orders(&self) -> Result<usize> {
        self.logged("Added order ")
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> Result<usize> {
        self.logged("Issued certificate serial ")
    }

    /// How many accounts it knows.
    pub fn accounts(&self) -> Result<usize> {
        self.logged("accounts in memory")
    }

    /// How many orders said which certificate they replace (RFC 9773, 5).
    pub fn replacements(&self) -> Result<usize> {
        self.logged("is a replacement of")
    }

    /// Says another window in the renewal information (RFC 9773) of a certificate, PEM.
    pub async fn set_renewal_window(&self, certificate: &str, start: Timestamp, end: Timestamp) -> Result<()> {
        let window = json!({ "suggestedWindow": { "start": start, "end": end } });
        let body = json!({ "certificate": certificate, "ariResponse": window.to_string() });
        let url = format!("https://127.0.0.1:{}/set-renewal-info/", self.management);
        let response = self
            .client
            .post(url)
            .header("User-Agent", "neverlapse-tests")
            .body(body.to_string())
            .send()
            .await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "Pebble refused the window: {status} {text}");
        Ok(())
    }

    /// What it says about a certificate, by serial in hex: `Valid` or `Revoked`, and the reason
    /// (RFC 5280, 5.3.1).
    pub async fn status(&self, serial: &str) -> Result<(String, Option<u64>)> {
        let url = format!("https://127.0.0.1:{}/cert-status-by-serial/{serial}", self.management);
        let answer = self.client.get(url).send().await?.error_for_status()?.text().await?;
        let answer: Value = serde_json::from_str(&answer)?;
        let status = answer["Status"].as_str().context("a certificate has a status")?;
        Ok((status.to_owned(), answer["Reason"].as_u64()))
    }

    async fn issuing_root(&mut self) -> Result<String> {
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        // Before it listens, it makes the RSA keys of its issuers.
        let answer = eventually("Pebble's answer", async || {
            ensure!(self.group.is_running(), "Pebble ended");
            Ok(self.client.get(&url).send().await.ok())
        });
        let answer = answer.await;

        let answer = answer.with_context(|| self.log().unwrap_or_default())?;
        Ok(answer.error_for_status()?.text().await?)
    }

    fn logged(&self, words: &str) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains(words)).count())
    }

    fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.folder.path().join(LOG)).context("Pebble's log")
    }
}

fn configured(options: Options, port: u16, management: u16, certificate: &Path, key: &Path) -> Value {
    let mut profiles = json!({ "default": { "description": "90 days", "validityPeriod": 90 * 86_400 } });
    if options.shortlived {
        profiles["shortlived"] = json!({ "description": "6 days", "validityPeriod": 6 * 86_400 });
    }
    json!({ "pebble": {
        "listenAddress": format!("127.0.0.1:{port}"),
        "managementListenAddress": format!("127.0.0.1:{management}"),
        "certificate": certificate,
        "privateKey": key,
        "httpPort": 5002,
        "tlsPort": 5001,
        "externalAccountBindingRequired": options.external_account,
        "externalAccountMACKeys": { KEY_ID: HMAC_KEY },
        "profiles": profiles,
        "domainBlocklist": [BLOCKED],
    }})
}

/// The external account that it knows.
pub const KEY_ID: &str = "kid-1";
/// Its secret, base64url.
pub const HMAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
/// A name that it issues nothing for.
pub const BLOCKED: &str = "blocked.test";
const LOG: &str = "pebble.log";
