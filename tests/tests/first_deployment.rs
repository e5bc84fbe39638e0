//! docs/first-deployment.md, followed command by command on the local stack, and then the upgrade
//! and the removal of docs/operations.md: each does what the page says, and prints that.

use anyhow::{Context, Result, ensure};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::pebble::{self, Pebble};
use neverlapse_tests::process::{command, run};
use neverlapse_tests::program::program;
use neverlapse_tests::shop::{CA, Shop};
use neverlapse_tests::stack::{Stack, root};
use tempfile::TempDir;

const FIRST: &str = include_str!("../../docs/first-deployment.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const FLEET: &str = include_str!("../../docs/fleet.md");

#[tokio::test(flavor = "multi_thread")]
async fn each_step_prints_what_the_page_says() {
    let newcomer = Newcomer::open().await.unwrap();
    newcomer.confirms_and_looks().await.unwrap();
    newcomer.has_a_certificate_issued().await.unwrap();
    newcomer.lets_instances_read().await.unwrap();
    newcomer.upgrades().await.unwrap();
    newcomer.removes_it().await.unwrap();
}

/// Who follows the pages, after the first step.
struct Newcomer {
    stack: Stack,
    _shop: Shop,
    pebble: Pebble,
    folder: TempDir,
}

impl Newcomer {
    async fn open() -> Result<Self> {
        let emulator = Emulator::start().await?;
        let shop = Shop::open_on(Timestamp::now(), &emulator.config).await?;
        let pebble = Pebble::start(pebble::Options::default(), shop.dns.address).await?;
        let nameserver = shop.dns.address.to_string();
        let parameters = [
            ("AlertEmail", "ops@example.com"),
            ("Domains", &shop.endpoint("healthy")),
            ("TrustBundleKey", CA),
            ("Nameserver", &nameserver),
            ("RenewerNameserver", &nameserver),
        ];
        let stack = Stack::deploy_to(emulator, &parameters).await?;

        stack.put(CA, &shop.root).await?;
        stack.put("ca/pebble.pem", &pebble.roots).await?;
        stack.create_zone("try.example.com").await?;
        program("neverlapse").await?;
        Ok(Self {
            stack,
            _shop: shop,
            pebble,
            folder: tempfile::tempdir()?,
        })
    }

    /// Steps 2 to 4.
    async fn confirms_and_looks(&self) -> Result<()> {
        // The local AWS confirms an address at once, and knows no token for it.
        let confirmed = self.follow(FIRST, "## 2. ", 0, &[("TOKEN", "0123456789abcdef")]).await;
        let refused = confirmed.err().context("a token that nobody has is accepted")?;
        ensure!(format!("{refused:#}").contains("Invalid token"), "{refused:#}");

        let ran = self.follow(FIRST, "## 3. ", 0, &[]).await?;
        ensure!(ran.contains(r#""counts""#) && ran.contains(r#""ok":1"#), "{ran}");

        self.stack.restore_encryption().await?;
        let command = ("cargo install --locked --path cli\n", "");
        let looked = self.follow(FIRST, "## 4. ", 0, &[command]).await?;
        ensure!(looked.contains(" things were checked, 0 to act on"), "{looked}");
        let all = self.bash("neverlapse doctor --all").await?;
        let shown: Vec<_> = all.lines().map(shape).collect();
        for line in block(FIRST, "## 4. ", 2).lines().filter(|line| *line != "[…]") {
            ensure!(
                shown.contains(&shape(line)),
                "doctor --all does not print {line:?}:\n{all}"
            );
        }

        self.follow(FIRST, "## 4. ", 3, &[]).await?;
        let alarms =
            "aws cloudwatch describe-alarms --state-value ALARM --query 'MetricAlarms[].AlarmName' --output text";
        let alarms = self.bash(alarms).await?;
        ensure!(alarms.contains("ProbeErrors"), "{alarms}");
        Ok(())
    }

    /// Steps 5 and 6.
    async fn has_a_certificate_issued(&self) -> Result<()> {
        let issuer = format!(
            "[issuer.pebble]\ndirectory = {:?}\nca = \"ca/pebble.pem\"\nEND\nneverlapse validate",
            self.pebble.directory
        );
        let bucket = format!("s3://{}/", self.stack.bucket);
        let own = [
            ("letsencrypt-staging", "pebble"),
            ("END\nneverlapse validate", &issuer),
            ("s3://BUCKET/", &bucket),
        ];
        self.follow(FIRST, "## 5. ", 0, &own).await?;

        let issued = self.follow(FIRST, "## 6. ", 0, &[]).await?;
        ensure!(issued.contains("1 certificate, 0 due"), "{issued}");
        Ok(())
    }

    /// Step 7, and the policies of an instance with more certificates than ReaderPolicy has room
    /// for.
    async fn lets_instances_read(&self) -> Result<()> {
        let trust = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"#;
        self.bash(&format!(
            "aws iam create-role --role-name web --assume-role-policy-document '{trust}'"
        ))
        .await?;
        let attach =
            format!("{OUTPUT}\naws iam attach-role-policy --role-name web --policy-arn \"$(output ReaderPolicyArn)\"");
        self.bash(&attach).await?;
        let status = self.follow(FIRST, "## 7. ", 0, &[]).await?;
        ensure!(status.contains("try.example.com"), "{status}");

        let docs = root().join("docs/readers.example.yaml");
        let own = [
            ("ROLE-OF-THE-INSTANCES", "web"),
            ("readers.example.yaml", &docs.to_string_lossy()),
        ];
        self.follow(FLEET, "### More certificates", 0, &own).await?;
        let policies = self
            .bash("aws iam list-role-policies --role-name web --output text")
            .await?;
        for name in [
            "mail.example",
            "imap.example",
            "smtp.example",
            "lists.example",
            "client-and-key",
        ] {
            ensure!(policies.contains(&format!("mail-certificates-{name}")), "{policies}");
        }
        self.bash("aws cloudformation delete-stack --stack-name mail-certificates")
            .await?;
        Ok(())
    }

    /// An update keeps whatever instances, people and documents refer to.
    async fn upgrades(&self) -> Result<()> {
        let kept = "aws cloudformation describe-stack-resources --stack-name neverlapse --output text --query \
            'StackResources[?contains(`[\"Bucket\", \"Key\", \"SecretsKey\", \"AlertTopic\", \"OperatorTopic\", \"ReaderPolicy\", \"OperatorPolicy\"]`, LogicalResourceId)].PhysicalResourceId'";
        let before = self.bash(kept).await?;
        ensure!(before.split_whitespace().count() == 7, "{before}");

        self.bash(
            "aws cloudformation update-stack --stack-name neverlapse --use-previous-template --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND \
             --parameters ParameterKey=WarnDays,ParameterValue=30 ParameterKey=Domains,UsePreviousValue=true \
             ParameterKey=AlertEmail,UsePreviousValue=true ParameterKey=Architecture,UsePreviousValue=true",
        )
        .await?;
        self.bash("aws cloudformation wait stack-update-complete --stack-name neverlapse")
            .await?;
        let after = self.bash(kept).await?;
        ensure!(before == after, "{before}\n{after}");
        ensure!(
            self.stack.get("inventory.toml").await?.is_some(),
            "the inventory is gone"
        );
        Ok(())
    }

    /// Step 8, which is a section of another page.
    async fn removes_it(&self) -> Result<()> {
        self.follow(OPERATIONS, "## Remove it", 0, &[]).await?;
        let attached = self
            .bash("aws iam list-attached-role-policies --role-name web --output text")
            .await?;
        ensure!(!attached.contains("ReaderPolicy"), "{attached}");

        let keys = "aws cloudformation describe-stack-resources --stack-name neverlapse --output text \
            --query 'StackResources[?ResourceType==`AWS::KMS::Key`].PhysicalResourceId'";
        let keys = self.bash(keys).await?;
        let deleted = self
            .bash("sam delete --stack-name neverlapse --no-prompts --region \"$AWS_REGION\"")
            .await?;
        for line in block(FIRST, "## 8. ", 0).lines() {
            ensure!(deleted.contains(line), "sam delete does not print {line:?}:\n{deleted}");
        }

        ensure!(self.stack.get("inventory.toml").await?.is_some(), "the bucket is gone");
        for key in keys.split_whitespace() {
            let key = self.bash(&format!("aws kms describe-key --key-id {key}")).await?;
            ensure!(key.contains("\"KeyState\": \"Enabled\""), "{key}");
        }
        Ok(())
    }

    /// Runs a block of a page, with what is the newcomer's own in it.
    async fn follow(&self, page: &str, heading: &str, nth: usize, own: &[(&str, &str)]) -> Result<String> {
        let mut script = block(page, heading, nth);
        for (theirs, own) in own {
            ensure!(script.contains(theirs), "{heading} has no {theirs:?}:\n{script}");
            script = script.replace(theirs, own);
        }
        self.bash(&script).await
    }

    async fn bash(&self, script: &str) -> Result<String> {
        let root = root();
        let tools = [
            root.join("target/debug"),
            root.join(".local/aws/bin"),
            root.join(".local/sam/bin"),
        ];
        let path = tools
            .iter()
            .map(|tool| tool.display().to_string())
            .collect::<Vec<_>>()
            .join(":");
        let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());

        // Version 1 of the AWS CLI reads no other variable.
        let whole = format!("export AWS_DEFAULT_REGION=\"$AWS_REGION\"\n{script}");
        let mut bash = command("bash");
        bash.args(["-euo", "pipefail", "-c", &whole])
            .current_dir(self.folder.path())
            .envs(self.stack.environment())
            .env("PATH", path)
            .env("SAM_CLI_TELEMETRY", "0");
        run(&mut bash).await.with_context(|| script.to_owned())
    }
}

/// A line's words, where those with a digit differ from stack to stack.
fn shape(line: &str) -> Vec<&str> {
    let words = line.split_whitespace();
    words
        .map(|word| {
            if word.contains(|character: char| character.is_ascii_digit()) {
                "…"
            } else {
                word
            }
        })
        .collect()
}

/// The n-th indented block below a heading.
fn block(page: &str, heading: &str, nth: usize) -> String {
    let section = page.split_once(&format!("\n{heading}")).expect(heading).1;
    let mut blocks = vec![String::new()];
    // Within a list, blocks are indented once more.
    for line in section.lines().take_while(|line| !line.starts_with("## ")) {
        match line.strip_prefix("    ") {
            Some(code) => blocks.last_mut().unwrap().extend([code, "\n"]),
            None if blocks.last().unwrap().is_empty() => {}
            None => blocks.push(String::new()),
        }
    }
    blocks.swap_remove(nth)
}

/// As in docs/fleet.md.
const OUTPUT: &str = r#"
output() {
  aws cloudformation describe-stacks --stack-name neverlapse --output text --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
}"#;
