//! A local AWS (ministack), and the real template on it by the real `sam deploy`.

use neverlapse::timestamp::Timestamp;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use aws_sdk_s3::primitives::ByteStream;
use serde_json::Value;
use tokio::process::Command;

use crate::emulator::{Call, Emulator, KEY, REGION, http, signed};
use crate::fault::Passed;
use crate::process::{command, run};
use crate::program::program;

/// A running emulator with the stack deployed.
#[derive(Debug)]
pub struct Stack {
    emulator: Emulator,
    /// For SDK clients.
    pub config: SdkConfig,
    /// The stack's outputs.
    pub bucket: String,
    /// ARN.
    pub topic: String,
    /// Name.
    pub probe: String,
    /// ARN of the topic for requests to the renewer.
    pub renewal_topic: String,
    /// ARN of the topic for people's requests to the renewer.
    pub operator_topic: String,
    /// ARN of the KMS key for accounts and orders.
    pub secrets_key: String,
}

/// `PATH` with the AWS CLI that `make` installs.
pub fn with_aws_cli() -> String {
    let aws = root().join(".local/aws/bin");
    format!("{}:{}", aws.display(), std::env::var("PATH").unwrap_or_default())
}

/// What an invocation returned.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The function failed; the payload is `{"errorType": …, "errorMessage": …}`.
    pub failed: bool,
    /// What it returned.
    pub payload: Value,
}

impl Stack {
    /// Deploys with these template parameters.
    pub async fn deploy(parameters: &[(&str, &str)]) -> Result<Self> {
        Self::deploy_to(Emulator::start().await?, parameters).await
    }

    /// Likewise, to an emulator that runs already.
    pub async fn deploy_to(emulator: Emulator, parameters: &[(&str, &str)]) -> Result<Self> {
        // sam leaves its packages behind, and all of its work when it is interrupted.
        let scratch = tempfile::Builder::new().prefix("neverlapse-sam-").tempdir()?;
        let template = released(scratch.path()).await?;

        let overrides = [("Architecture", ARCHITECTURE)].iter().chain(parameters);
        let overrides = overrides.map(|(key, value)| format!("ParameterKey={key},ParameterValue=\"{value}\""));
        let mut deploy = sam(&emulator.endpoint, scratch.path());
        deploy.args([
            "deploy",
            "--stack-name",
            NAME,
            "--resolve-s3",
            "--capabilities",
            "CAPABILITY_IAM",
        ]);
        deploy
            .args(["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides"])
            .args(overrides);
        deploy.arg("--template-file").arg(template);
        run(&mut deploy).await.context("sam deploy onto the local stack")?;

        let outputs = outputs(&emulator.endpoint, scratch.path()).await?;
        let output = |name: &str| {
            outputs
                .get(name)
                .cloned()
                .with_context(|| format!("the stack has no output {name}"))
        };
        let (bucket, topic, probe) = (
            output("BucketName")?,
            output("AlertTopicArn")?,
            output("ProbeFunctionName")?,
        );

        if emulator.recorded().is_some() {
            for (app, function) in [("probe", &probe), ("renewer", &output("RenewerFunctionName")?)] {
                emulator.set_app(function, app).await?;
            }
        }

        Ok(Self {
            renewal_topic: output("RenewalTopicArn")?,
            operator_topic: output("OperatorTopicArn")?,
            secrets_key: output("SecretsKeyArn")?,
            config: emulator.config.clone(),
            emulator,
            bucket,
            topic,
            probe,
        })
    }

    /// Writes an object to the bucket.
    pub async fn put(&self, key: &str, text: &str) -> Result<()> {
        let body = ByteStream::from(text.as_bytes().to_vec());
        aws_sdk_s3::Client::new(&self.config)
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(body)
            .send()
            .await?;
        Ok(())
    }

    /// An object of the bucket, with its content type.
    pub async fn object(&self, key: &str) -> Result<(String, String)> {
        let get = aws_sdk_s3::Client::new(&self.config).get_object();
        let object = get.bucket(&self.bucket).key(key).send().await;
        let object = object.with_context(|| format!("there is no {key}"))?;
        let content_type = object.content_type().unwrap_or_default().to_owned();
        let body = object.body.collect().await?.to_vec();
        Ok((String::from_utf8(body)?, content_type))
    }

    /// The environment of a command that is to find this stack.
    pub fn environment(&self) -> [(&str, &str); 9] {
        self.emulator.environment()
    }

    /// Encrypts topics and bucket with the stack's key, as the template says. The emulator forgets
    /// that when it deploys, and `neverlapse doctor` finds it.
    pub async fn restore_encryption(&self) -> Result<()> {
        let mut bash = command("bash");
        bash.args(["-euo", "pipefail", "-c", ENCRYPTION])
            .envs(self.environment())
            .env("PATH", with_aws_cli());
        run(&mut bash).await.context("restoring the encryption").map(drop)
    }

    /// URL of the emulator, for programs.
    pub fn endpoint(&self) -> &str {
        self.emulator.called()
    }

    /// Calls any API of the emulator, and answers with its answer's body.
    pub async fn call(&self, call: &Call) -> Result<String> {
        self.emulator.call(call).await
    }

    /// The calls that were recorded, if they are.
    pub fn recorded(&self) -> Option<Vec<Passed>> {
        self.emulator.recorded()
    }

    /// For SDK clients of another account.
    pub async fn account(&self, id: &str) -> SdkConfig {
        self.emulator.account(id).await
    }

    /// The environment that the template gives to the renewer, to run it as a plain process that
    /// finds AWS at `endpoint`.
    pub fn renewer_environment(&self, nameserver: SocketAddr, endpoint: &str) -> Vec<(String, String)> {
        let nameserver = nameserver.to_string();
        let own = [
            ("BUCKET", self.bucket.as_str()),
            ("ALERT_TOPIC_ARN", &self.topic),
            ("OPERATOR_TOPIC_ARN", &self.operator_topic),
            ("SECRETS_KEY_ARN", &self.secrets_key),
            ("NAMESERVER", &nameserver),
            ("RENEWER_NAMESERVER", &nameserver),
            ("STACK_NAME", NAME),
        ];
        let aws = self.emulator.environment().into_iter();
        let all = aws
            .chain(own)
            .chain([("AWS_ENDPOINT_URL", endpoint), ("AWS_SDK_UA_APP_ID", "renewer")]);
        all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Makes a public hosted zone, and answers with its id.
    pub async fn create_zone(&self, name: &str) -> Result<String> {
        let route53 = aws_sdk_route53::Client::new(&self.config);
        let reference = format!("{name}-{}", Timestamp::now().utc().unix_timestamp_nanos());
        let created = route53
            .create_hosted_zone()
            .name(name)
            .caller_reference(reference)
            .send()
            .await?;
        Ok(created.hosted_zone.context("a zone was made")?.id)
    }

    /// Adds a record to a zone.
    pub async fn create_record(&self, zone: &str, name: &str, kind: RrType, value: &str) -> Result<()> {
        self.create_records(zone, name, kind, &[value]).await
    }

    /// Adds several records of one name and type to a zone.
    pub async fn create_records(&self, zone: &str, name: &str, kind: RrType, values: &[&str]) -> Result<()> {
        let records = values
            .iter()
            .map(|value| ResourceRecord::builder().value(*value).build());
        let set = ResourceRecordSet::builder().name(name).r#type(kind).ttl(60);
        let set = set
            .set_resource_records(Some(records.collect::<Result<_, _>>()?))
            .build()?;
        self.create_set(zone, set).await
    }

    /// Adds a record set to a zone.
    pub async fn create_set(&self, zone: &str, set: ResourceRecordSet) -> Result<()> {
        let change = Change::builder()
            .action(ChangeAction::Create)
            .resource_record_set(set)
            .build()?;
        let batch = ChangeBatch::builder().changes(change).build()?;
        let route53 = aws_sdk_route53::Client::new(&self.config);
        let request = route53.change_resource_record_sets().hosted_zone_id(zone);
        request.change_batch(batch).send().await?;
        Ok(())
    }

    /// All TXT values of a zone, each with its name.
    pub async fn txt(&self, zone: &str) -> Result<Vec<(String, String)>> {
        let route53 = aws_sdk_route53::Client::new(&self.config);
        let page = route53.list_resource_record_sets().hosted_zone_id(zone).send().await?;

        let sets = page
            .resource_record_sets
            .into_iter()
            .filter(|set| set.r#type == RrType::Txt);
        let values = sets.flat_map(|set| {
            let name = set.name.trim_end_matches('.').to_owned();
            let values = set.resource_records.unwrap_or_default().into_iter();
            values.map(move |record| (name.clone(), record.value.trim_matches('"').to_owned()))
        });
        Ok(values.collect())
    }

    /// An object's text, if it is there.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        let store = neverlapse::bucket::store::Store::new(aws_sdk_s3::Client::new(&self.config), &self.bucket);
        Ok(store.text(key, neverlapse::bucket::store::LONGEST_INVENTORY).await?)
    }

    /// Removes an object.
    pub async fn remove(&self, key: &str) -> Result<()> {
        let store = neverlapse::bucket::store::Store::new(aws_sdk_s3::Client::new(&self.config), &self.bucket);
        Ok(store.delete(key).await?)
    }

    /// The keys that begin with this.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let store = neverlapse::bucket::store::Store::new(aws_sdk_s3::Client::new(&self.config), &self.bucket);
        Ok(store.keys(prefix).await?)
    }

    /// Invokes the probe and waits for what it returns.
    pub async fn invoke(&self, event: &Value) -> Result<Answer> {
        let url = format!(
            "{}/2015-03-31/functions/{}/invocations",
            self.emulator.endpoint, self.probe
        );
        let request = http()?.post(url);
        let request = request
            .header("Authorization", signed("lambda", REGION))
            .body(event.to_string());

        let response = request.send().await?;
        let failed = response.headers().contains_key("x-amz-function-error");
        let text = response.text().await?;
        let payload = serde_json::from_str(&text).with_context(|| format!("the answer is no JSON: {text}"))?;
        Ok(Answer { failed, payload })
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// A release's folder, as `make release` makes it: the template that builds nothing, and the
/// functions' zips beside it. The programs are those that the tests have built anyway.
async fn released(folder: &Path) -> Result<PathBuf> {
    let template = run(command(root().join("packaging/template.sh")).arg(ARCHITECTURE)).await?;
    let file = folder.join("template.yaml");
    std::fs::write(&file, template)?;
    for function in ["probe", "renewer"] {
        zip(function, folder).await?;
    }
    Ok(file)
}

/// A function's program as Lambda wants it, without its symbols, which are most of a debug build,
/// and not compressed, which takes two seconds of the processor for each.
async fn zip(function: &str, folder: &Path) -> Result<()> {
    let bootstrap = folder.join("bootstrap");
    let mut strip = command("strip");
    strip.arg("-o").arg(&bootstrap).arg(program(function).await?);
    run(&mut strip).await.context("strip (of binutils)")?;

    let mut zip = command("python3");
    zip.args(["-c", STORE])
        .arg(folder.join(format!("{function}.zip")))
        .arg(&bootstrap);
    run(&mut zip).await.map(drop)
}

async fn outputs(endpoint: &str, scratch: &Path) -> Result<std::collections::BTreeMap<String, String>> {
    let mut list = sam(endpoint, scratch);
    list.args(["list", "stack-outputs", "--stack-name", NAME, "--output", "json"]);
    let text = run(&mut list).await?;

    let json = text.find('[').map_or(text.as_str(), |at| &text[at..]);
    let all: Vec<Value> = serde_json::from_str(json).with_context(|| format!("sam list printed {text}"))?;
    let pair = |output: &Value| {
        Some((
            output["OutputKey"].as_str()?.to_owned(),
            output["OutputValue"].as_str()?.to_owned(),
        ))
    };
    Ok(all.iter().filter_map(pair).collect())
}

fn sam(endpoint: &str, scratch: &Path) -> Command {
    let tools = root().join(".local/sam/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = command(tools.join("sam"));
    command
        .current_dir(root())
        .env("PATH", path)
        .env("TMPDIR", scratch)
        .env("SAM_CLI_TELEMETRY", "0");
    command.env("AWS_DEFAULT_REGION", REGION).env("AWS_REGION", REGION);
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", KEY);

    // What cargo tells its own child processes would make the inner cargo build everything again.
    std::env::vars()
        .filter(|(key, _)| key.starts_with("CARGO") && key != "CARGO_HOME")
        .for_each(|(key, _)| {
            command.env_remove(key);
        });
    if !endpoint.is_empty() {
        command.env("AWS_ENDPOINT_URL", endpoint);
    }
    command
}

const NAME: &str = "neverlapse";
const STORE: &str = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').write(sys.argv[2], 'bootstrap')";
/// The emulator runs functions natively.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "x86_64"
};

const ENCRYPTION: &str = r#"
resource() {
  aws cloudformation describe-stack-resource --stack-name neverlapse --logical-resource-id "$1" --output text \
    --query StackResourceDetail.PhysicalResourceId
}
key=$(resource Key)
for topic in AlertTopic RenewalTopic OperatorTopic; do
  aws sns set-topic-attributes --topic-arn "$(resource $topic)" --attribute-name KmsMasterKeyId --attribute-value "$key"
done
aws s3api put-bucket-encryption --bucket "$(resource Bucket)" --server-side-encryption-configuration \
  "{\"Rules\": [{\"ApplyServerSideEncryptionByDefault\": {\"SSEAlgorithm\": \"aws:kms\", \"KMSMasterKeyID\": \"$key\"}}]}"
"#;
