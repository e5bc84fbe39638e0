//! A local AWS: ministack in a folder of its own, with nothing on it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::fault::{Fate, Passed, Proxy};
use crate::process::{Group, command, eventually_within, free_port};
use crate::stack::root;

/// A running emulator; ends when dropped.
#[derive(Debug)]
pub struct Emulator {
    _group: Group,
    _folder: TempDir,
    /// Its URL, for all services.
    pub endpoint: String,
    /// What programs call goes through here, if it is recorded. What the tests themselves call does
    /// not.
    recorder: Option<Proxy>,
    /// For SDK clients.
    pub config: SdkConfig,
}

impl Emulator {
    /// Starts it on a free port and waits until it answers.
    pub async fn start() -> Result<Self> {
        Self::start_with("", &[]).await
    }

    /// Likewise; it records every call of the programs that have [`Emulator::environment`], and of
    /// deployed functions.
    pub async fn start_recorded() -> Result<Self> {
        let port = free_port()?;
        let recorder = Proxy::start(&format!("http://127.0.0.1:{port}"), |_| Fate::Pass).await?;
        Self::start_at(port, Some(recorder), "", &[]).await
    }

    /// Likewise; it delivers to https subscribers whose certificates lead to this root, PEM.
    pub async fn start_trusting(root_of_subscribers: &str) -> Result<Self> {
        Self::start_with(root_of_subscribers, &[]).await
    }

    /// Likewise, one that enforces IAM policies. What [`Emulator::config`] makes may do everything.
    pub async fn start_strict() -> Result<Self> {
        Self::start_with("", &[("AUTH", "true")]).await
    }

    async fn start_with(root_of_subscribers: &str, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_at(free_port()?, None, root_of_subscribers, settings).await
    }

    async fn start_at(
        port: u16,
        recorder: Option<Proxy>,
        root_of_subscribers: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-aws-").tempdir()?;
        let program = root().join(".local/ministack/bin/ministack");
        ensure!(
            program.exists(),
            "{} is missing: run `make setup` first",
            program.display()
        );

        let endpoint = format!("http://127.0.0.1:{port}");
        let called = recorder.as_ref().map_or(&endpoint, |recorder| &recorder.endpoint);

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
            .env("AWS_ENDPOINT_URL", called)
            .env("TMPDIR", folder.path())
            .envs(settings.iter().copied())
            .current_dir(folder.path())
            .stdout(log.try_clone()?)
            .stderr(log);

        let mut group = Group::start(&mut command)?;
        answers(&endpoint, &mut group)
            .await
            .with_context(|| std::fs::read_to_string(folder.path().join(LOG)).unwrap_or_default())?;

        let config = config(&endpoint, KEY).await;
        Ok(Self {
            _group: group,
            _folder: folder,
            endpoint,
            recorder,
            config,
        })
    }

    /// For SDK clients of the account with this id: the emulator takes twelve digits as a key for
    /// one.
    pub async fn account(&self, id: &str) -> SdkConfig {
        config(&self.endpoint, id).await
    }

    /// Makes a role that anybody may assume, with this policy.
    pub async fn create_role(&self, name: &str, policy: &Value) -> Result<()> {
        let trust = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]});
        let trust = trust.to_string();
        let create = [
            ("Action", "CreateRole"),
            ("RoleName", name),
            ("AssumeRolePolicyDocument", &trust),
        ];
        self.query("iam", &create).await?;
        self.set_policy(name, policy).await
    }

    /// Replaces a role's policy.
    pub async fn set_policy(&self, role: &str, policy: &Value) -> Result<()> {
        let policy = policy.to_string();
        let put = [
            ("Action", "PutRolePolicy"),
            ("RoleName", role),
            ("PolicyName", "policy"),
            ("PolicyDocument", &policy),
        ];
        self.query("iam", &put).await.map(drop)
    }

    /// Assumes a role, as EC2 does for an instance: the session is named after it.
    pub async fn assume_role(&self, role: &str, session: &str) -> Result<Session> {
        let arn = format!("arn:aws:iam::000000000000:role/{role}");
        let assume = [
            ("Action", "AssumeRole"),
            ("RoleArn", &*arn),
            ("RoleSessionName", session),
        ];
        let answer = self.query("sts", &assume).await?;
        let element = |name: &str| element(&answer, name).with_context(|| format!("there is no {name} in {answer}"));
        Ok(Session {
            user_id: element("AssumedRoleId")?,
            access_key_id: element("AccessKeyId")?,
            secret_access_key: element("SecretAccessKey")?,
            token: element("SessionToken")?,
        })
    }

    /// Likewise, in AWS's query protocol.
    async fn query(&self, service: &'static str, parameters: &[(&str, &str)]) -> Result<String> {
        self.call(&Call::query(service, parameters)).await
    }

    /// Calls an API, and answers with its answer's body.
    pub async fn call(&self, call: &Call) -> Result<String> {
        call.send(&self.endpoint).await
    }

    /// Has a function name itself so in its calls' user agent. The emulator gives all functions the
    /// same credentials.
    pub async fn set_app(&self, function: &str, app: &str) -> Result<()> {
        let path = format!("/2015-03-31/functions/{function}/configuration");
        let configuration = self.call(&Call::rest("lambda", "GET", &path, "")).await?;
        let mut environment = serde_json::from_str::<Value>(&configuration)?["Environment"].take();
        environment["Variables"]["AWS_SDK_UA_APP_ID"] = app.into();
        let update = json!({ "Environment": environment }).to_string();
        self.call(&Call::rest("lambda", "PUT", &path, &update)).await.map(drop)
    }

    /// URL for programs.
    pub fn called(&self) -> &str {
        self.recorder
            .as_ref()
            .map_or(&self.endpoint, |recorder| &recorder.endpoint)
    }

    /// The calls that were recorded, if they are.
    pub fn recorded(&self) -> Option<Vec<Passed>> {
        self.recorder.as_ref().map(Proxy::passed)
    }

    /// What a command needs in its environment to use it, and nothing that this machine has.
    pub fn environment(&self) -> [(&str, &str); 9] {
        [
            ("AWS_ENDPOINT_URL", self.called()),
            ("AWS_SDK_UA_APP_ID", "operator"),
            ("AWS_REGION", REGION),
            // What sam and version 1 of the AWS CLI read.
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", KEY),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}

/// A call of an API, in one of AWS's protocols.
#[derive(Clone, Debug)]
pub struct Call {
    service: &'static str,
    region: &'static str,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Call {
    /// REST.
    pub fn rest(service: &'static str, method: &str, path: &str, body: &str) -> Self {
        Self {
            service,
            region: REGION,
            method: method.parse().unwrap_or_default(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    /// JSON; the target is such as `AmazonSQS.SendMessage`.
    pub fn json(service: &'static str, target: &str, body: Value) -> Self {
        let version = if ["sqs", "monitoring"].contains(&service) {
            "1.0"
        } else {
            "1.1"
        };
        let headers = [
            ("X-Amz-Target", target.to_owned()),
            ("Content-Type", format!("application/x-amz-json-{version}")),
        ];
        Self {
            headers: headers.into(),
            ..Self::rest(service, "POST", "/", &body.to_string())
        }
    }

    /// A form, whose answer is XML.
    pub fn query(service: &'static str, parameters: &[(&str, &str)]) -> Self {
        let form: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        Self {
            headers: vec![("Content-Type", "application/x-www-form-urlencoded".to_owned())],
            ..Self::rest(service, "POST", "/", &form.join("&"))
        }
    }

    /// One of SQS, by the name of its action.
    pub fn sqs(action: &str, body: Value) -> Self {
        Self::json("sqs", &format!("AmazonSQS.{action}"), body)
    }

    /// The same, in another region.
    pub fn at(self, region: &'static str) -> Self {
        Self { region, ..self }
    }

    /// Calls it, and answers with its answer's body.
    pub(crate) async fn send(&self, endpoint: &str) -> Result<String> {
        let Self {
            service,
            region,
            method,
            path,
            headers,
            body,
        } = self;
        let mut request = http()?.request(method.clone(), format!("{endpoint}{path}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }

        let response = request
            .header("Authorization", signed(service, region))
            .body(body.clone())
            .send()
            .await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{service} answers {status}: {text}");
        Ok(text)
    }
}

/// The text of the first element of this name, where it has no escapes.
pub fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.to_owned())
}

/// For a form (RFC 3986, 2.1).
fn encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

/// The credentials of a role's session.
#[derive(Clone)]
pub struct Session {
    /// `ROLEID:SESSION`.
    pub user_id: String,
    /// Of the three parts of the credentials, the one that is no secret.
    pub access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) token: String,
}

impl Session {
    /// For SDK clients.
    pub fn credentials(&self) -> Credentials {
        let (id, secret) = (&self.access_key_id, &self.secret_access_key);
        Credentials::new(id, secret, Some(self.token.clone()), None, "a role's session")
    }
}

/// The emulator reads region and service here, and checks no signature.
pub(crate) fn signed(service: &str, region: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

async fn answers(endpoint: &str, group: &mut Group) -> Result<()> {
    let client = http()?;
    let url = format!("{endpoint}/_ministack/health");
    eventually_within(STARTS, "ministack's answer", async || {
        ensure!(group.is_running(), "ministack ended");
        Ok(client.get(&url).send().await.ok().map(drop))
    })
    .await
}

/// For plain HTTP: by itself, each client would read all the roots of the system.
pub fn http() -> Result<reqwest::Client> {
    http_trusting("")
}

/// For servers with a root of this PEM.
pub(crate) fn http_trusting(root: &str) -> Result<reqwest::Client> {
    // reqwest wants the process to have chosen its cryptography.
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
        .tls_backend_preconfigured(config)
        .build()?)
}

async fn config(endpoint: &str, key: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(key, KEY, None, None, "local stack"))
        .http_client(neverlapse::aws::https(&neverlapse::aws::Way::default()))
        .load()
        .await
}

pub(crate) const REGION: &str = "eu-central-1";
/// The emulator takes any.
pub(crate) const KEY: &str = "test";
/// A cold Python beside busy cores.
const STARTS: Duration = Duration::from_secs(180);
const LOG: &str = "ministack.log";
