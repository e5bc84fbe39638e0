//! What a certificate costs: apex and wildcard, proved by Route 53, from nothing to the chain,
//! account included. The renewer beside certbot and lego, against one Pebble and one emulated Route
//! 53, in turns in one run.
//!
//! Each has a name, a folder or bucket, and an account of its own. Proxies count their requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::store::{Expecting, Object, Store};
use neverlapse::bucket::version::{Current, current_key};
use neverlapse::renewal::request::{Request, RequestedBy};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::cost::Cost;
use neverlapse_tests::dns::{Dns, Names};
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::fault::{Fate, Proxy};
use neverlapse_tests::pebble::{Options, Pebble};
use neverlapse_tests::pki::{Authority, Leaf};
use neverlapse_tests::runtime::Function;
use neverlapse_tests::stack::root;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<()> {
    let bench = Bench::open().await?;
    let mut rows = [Row::new("neverlapse"), Row::new("certbot"), Row::new("lego")];
    for round in 0..ROUNDS {
        rows[0].taken.push(bench.neverlapse(round).await?);
        rows[1].taken.push(bench.certbot(round).await?);
        rows[2].taken.push(bench.lego(round).await?);
    }

    println!("apex and wildcard, account included; the least of {ROUNDS} rounds\n");
    println!(
        "{:<12}{:>8}{:>8}{:>10}{:>8}{:>10}",
        "", "wall s", "CPU s", "peak MiB", "ACME", "Route 53"
    );
    rows.iter().for_each(Row::print);
    Ok(())
}

/// The servers, for all contenders and rounds.
struct Bench {
    emulator: Emulator,
    dns: Dns,
    pebble: Pebble,
    leaf: Leaf,
    /// Roots of the proxy and of what Pebble issues.
    roots: PathBuf,
    folder: TempDir,
}

/// What one contender took for one certificate.
struct Taken {
    wall: Duration,
    cost: Cost,
    acme: usize,
    route53: usize,
}

/// One contender's round: a name of its own, and its proxies.
struct Round {
    name: String,
    acme: Proxy,
    aws: Proxy,
    folder: PathBuf,
}

impl Bench {
    async fn open() -> Result<Self> {
        let emulator = Emulator::start().await?;
        let dns = Dns::with_route53(Names::new(), &emulator.config).await?;
        aws_sdk_route53::Client::new(&emulator.config)
            .create_hosted_zone()
            .name(ZONE)
            .caller_reference("bench")
            .send()
            .await?;
        let options = Options {
            nonces_refused: 0,
            ..Options::default()
        };
        let pebble = Pebble::start(options, dns.address).await?;

        let authority = Authority::new()?;
        let folder = tempfile::tempdir()?;
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, format!("{}{}", authority.root(), pebble.issuing_root))?;
        Ok(Self {
            leaf: authority.leaf("127.0.0.1", Timestamp::now() + time::Duration::days(60))?,
            emulator,
            dns,
            pebble,
            roots,
            folder,
        })
    }

    async fn round(&self, contender: &str, number: usize) -> Result<Round> {
        let upstream = self.pebble.directory.trim_end_matches("/dir");
        let folder = self.folder.path().join(format!("{contender}-{number}"));
        std::fs::create_dir(&folder)?;
        Ok(Round {
            name: format!("{contender}-{number}.{ZONE}"),
            acme: Proxy::start_tls(upstream, &self.pebble.listening_root, &self.leaf, |_| Fate::Pass).await?,
            aws: Proxy::start(&self.emulator.endpoint, |_| Fate::Pass).await?,
            folder,
        })
    }

    /// From the start of the process, as Lambda starts it, to the version in the bucket.
    async fn neverlapse(&self, number: usize) -> Result<Taken> {
        let round = self.round("neverlapse", number).await?;
        let bucket = format!("bench-{number}");
        let s3 = aws_sdk_s3::Client::new(&self.emulator.config);
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder()
            .location_constraint(aws_sdk_s3::types::BucketLocationConstraint::EuCentral1);
        s3.create_bucket()
            .bucket(&bucket)
            .create_bucket_configuration(place.build())
            .send()
            .await?;
        let store = Store::new(s3, bucket.as_str());
        let inventory = format!(
            "[[certificate]]\nidentifiers = [{name:?}, \"*.{name}\"]\nissuers = [\"bench\"]\nserved_at = []\n\
             [issuer.bench]\ndirectory = \"{}/dir\"\nca = \"ca/bench.pem\"\n",
            round.acme.endpoint,
            name = round.name
        );
        for (key, text) in [
            ("inventory.toml", inventory),
            ("ca/bench.pem", std::fs::read_to_string(&self.roots)?),
        ] {
            store
                .put(key, Object::new(text, "text/plain"), Expecting::Anything)
                .await?;
        }

        let program = root().join(RENEWER);
        ensure!(
            program.exists(),
            "{} is missing: run `make bench-renewal`",
            program.display()
        );
        let nameserver = self.dns.address.to_string();
        let own = [
            ("BUCKET", bucket.as_str()),
            ("ALERT_TOPIC_ARN", TOPIC),
            ("OPERATOR_TOPIC_ARN", TOPIC),
            ("SECRETS_KEY_ARN", KEY),
            ("RENEWER_NAMESERVER", nameserver.as_str()),
            ("AWS_ENDPOINT_URL", round.aws.endpoint.as_str()),
        ];
        let environment = self.emulator.environment().into_iter().chain(own);
        let environment: Vec<_> = environment
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let request = Request::new(&round.name, RequestedBy::Probe, Timestamp::now());
        let notification =
            json!({ "Type": "Notification", "TopicArn": TOPIC, "Message": serde_json::to_string(&request)? });
        let event =
            json!({ "Records": [{ "messageId": "1", "body": notification.to_string(), "eventSource": "aws:sqs" }] });

        let log = round.folder.join("log");
        let begun = Instant::now();
        let function = Function::start(&program, &environment, &log).await?;
        function.invoke(event).await?;
        let wall = begun.elapsed();
        let cost = Cost::so_far(process_of(&program)?)?;
        drop(function);

        let current = store.document::<Current>(&current_key(&round.name)).await?;
        ensure!(
            current.is_some(),
            "nothing is issued:\n{}",
            std::fs::read_to_string(&log)?
        );
        Ok(round.taken(wall, cost))
    }

    async fn certbot(&self, number: usize) -> Result<Taken> {
        let round = self.round("certbot", number).await?;
        let mut certbot = Command::new(root().join(".local/certbot/bin/certbot"));
        certbot
            .args([
                "certonly",
                "--non-interactive",
                "--quiet",
                "--agree-tos",
                "--no-eff-email",
            ])
            .args(["--email", "ops@bench.test", "--dns-route53", "--server"])
            .arg(format!("{}/dir", round.acme.endpoint))
            .env("REQUESTS_CA_BUNDLE", &self.roots);
        for option in ["--config-dir", "--work-dir", "--logs-dir"] {
            certbot.arg(option).arg(&round.folder);
        }
        certbot.args(["-d", &round.name, "-d", &format!("*.{}", round.name)]);

        let issued = format!("live/{}/fullchain.pem", round.name);
        self.measured(certbot, round, Path::new(&issued)).await
    }

    async fn lego(&self, number: usize) -> Result<Taken> {
        let round = self.round("lego", number).await?;
        let mut lego = Command::new(root().join(".local/lego/lego"));
        lego.args([
            "--accept-tos",
            "--email",
            "ops@bench.test",
            "--dns",
            "route53",
            "--server",
        ])
        .arg(format!("{}/dir", round.acme.endpoint))
        // It would ask the zone's name servers, which the emulator does not have.
        .args([
            "--dns.propagation-disable-ans",
            "--dns.resolvers",
            &self.dns.address.to_string(),
            "--path",
        ])
        .arg(&round.folder)
        .env("LEGO_CA_CERTIFICATES", &self.roots);
        lego.args([
            "--domains",
            &round.name,
            "--domains",
            &format!("*.{}", round.name),
            "run",
        ]);

        let issued = format!("certificates/{}.crt", round.name);
        self.measured(lego, round, Path::new(&issued)).await
    }

    /// A command that leaves what it got at `issued` in its folder.
    async fn measured(&self, mut command: Command, round: Round, issued: &Path) -> Result<Taken> {
        command
            .envs(self.emulator.environment())
            .env("AWS_ENDPOINT_URL", &round.aws.endpoint)
            .env("AWS_DEFAULT_REGION", "eu-central-1");
        let begun = Instant::now();
        let cost = Cost::of(command).await?;
        let wall = begun.elapsed();
        let issued = round.folder.join(issued);
        ensure!(issued.exists(), "{} is not there", issued.display());
        Ok(round.taken(wall, cost))
    }
}

impl Round {
    fn taken(&self, wall: Duration, cost: Cost) -> Taken {
        let is_route53 = |line: &str| line.contains("/2013-04-01/");
        Taken {
            wall,
            cost,
            acme: self.acme.passed().len(),
            route53: self
                .aws
                .passed()
                .iter()
                .filter(|passed| is_route53(&passed.line))
                .count(),
        }
    }
}

/// One contender.
struct Row {
    name: &'static str,
    taken: Vec<Taken>,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            taken: Vec::new(),
        }
    }

    fn print(&self) {
        let least = |of: &dyn Fn(&Taken) -> f64| self.taken.iter().map(of).fold(f64::INFINITY, f64::min);
        println!(
            "{:<12}{:>8.1}{:>8.2}{:>10.0}{:>8}{:>10}",
            self.name,
            least(&|taken| taken.wall.as_secs_f64()),
            least(&|taken| taken.cost.cpu.as_secs_f64()),
            least(&|taken| taken.cost.peak as f64 / 1024.0),
            least(&|taken| taken.acme as f64),
            least(&|taken| taken.route53 as f64),
        );
    }
}

/// The running process of a program.
fn process_of(program: &Path) -> Result<u32> {
    let program = program.canonicalize()?;
    let entries = std::fs::read_dir("/proc")?.flatten();
    let mut ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = ids.find(|id| std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == program));
    found.with_context(|| format!("{} does not run", program.display()))
}

const ROUNDS: usize = 3;
const ZONE: &str = "bench.test";
const RENEWER: &str = "target/release/renewer";
const TOPIC: &str = "arn:aws:sns:eu-central-1:000000000000:alerts";
const KEY: &str = "arn:aws:kms:eu-central-1:000000000000:key/00000000-0000-4000-8000-000000000000";
