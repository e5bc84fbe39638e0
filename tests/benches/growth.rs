//! How cost grows with the number of endpoints: `neverlapse check` and the probe function as they
//! ship, over 1,000, 10,000 and 100,000 names on loopback. The function reads its inventory from an
//! emulated S3, and writes report, page and alerts there.

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use neverlapse_tests::cost::Cost;
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::farm::{CA, Farm, NAMES};
use neverlapse_tests::runtime::{Function, TIMEOUT_SECONDS};
use neverlapse_tests::stack::root;
use serde_json::json;
use tokio::process::Command;
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<()> {
    let counts: Vec<usize> = std::env::args()
        .skip(1)
        // `cargo bench` gives every program --bench.
        .filter(|word| word != "--bench")
        .map(|count| count.parse())
        .collect::<Result<_, _>>()?;
    let counts = if counts.is_empty() { COUNTS.to_vec() } else { counts };

    println!(
        "{:<10}{:>10}{:>8}{:>12}{:>10}{:>8}",
        "", "endpoints", "CPU s", "ms per each", "peak MiB", "wall s"
    );
    for count in counts {
        let farm = Farm::open(count).await?;
        check(&farm, count).await?;
        probe(&farm, count).await?;
    }
    Ok(())
}

async fn check(farm: &Farm, count: usize) -> Result<()> {
    let mut check = Command::new(root().join("target/release/neverlapse"));
    check.args(["check", "--format", "jsonl"]);
    check.args(["--nameserver", &farm.dns.address.to_string()]);
    check.arg("--file").arg(farm.file(NAMES));
    check.arg("--ca").arg(farm.file(CA));

    let began = Instant::now();
    let cost = Cost::of(check).await?;
    print("check", count, cost, began);
    Ok(())
}

/// One run of the function over its inventory, and what it left in the bucket.
async fn probe(farm: &Farm, count: usize) -> Result<()> {
    let emulator = Emulator::start().await?;
    let s3 = aws_sdk_s3::Client::new(&emulator.config);
    let place = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuCentral1);
    let bucket = s3
        .create_bucket()
        .bucket(BUCKET)
        .create_bucket_configuration(place.build());
    bucket.send().await?;
    let sns = aws_sdk_sns::Client::new(&emulator.config);
    let topic = sns
        .create_topic()
        .name("alerts")
        .send()
        .await?
        .topic_arn
        .context("a topic")?;

    let inventory: String = farm
        .endpoints()
        .map(|endpoint| format!("[[endpoint]]\nhost = {endpoint:?}\n"))
        .collect();
    for (key, text) in [
        ("inventory.toml", inventory),
        (CA, std::fs::read_to_string(farm.file(CA))?),
    ] {
        let body = ByteStream::from(text.into_bytes());
        s3.put_object().bucket(BUCKET).key(key).body(body).send().await?;
    }

    let nameserver = farm.dns.address.to_string();
    let own = [
        ("BUCKET", BUCKET),
        ("ALERT_TOPIC_ARN", &topic),
        ("TRUST_BUNDLE_KEY", CA),
        ("NAMESERVER", &nameserver),
        (TIMEOUT_SECONDS, "900"),
    ];
    let environment: Vec<_> = emulator.environment().into_iter().chain(own).collect();
    let environment: Vec<_> = environment
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let log = farm.file("probe.log");
    let function = Function::start(&root().join("target/release/probe"), &environment, &log).await?;

    let began = Instant::now();
    let report = function.invoke(json!({})).await?;
    let cost = function.cost()?;
    ensure!(report["counts"]["ok"] == count, "{}", report["counts"]);
    print("function", count, cost, began);

    let left = s3.list_objects_v2().bucket(BUCKET).send().await?;
    for object in left.contents() {
        println!(
            "          {:>11} bytes  {}",
            object.size().unwrap_or_default(),
            object.key().unwrap_or_default()
        );
    }
    Ok(())
}

fn print(what: &str, count: usize, cost: Cost, began: Instant) {
    let (cpu, wall) = (cost.cpu.as_secs_f64(), began.elapsed().as_secs_f64());
    let (each, peak) = (cpu / count as f64 * 1000.0, cost.peak as f64 / 1024.0);
    println!("{what:<10}{count:>10}{cpu:>8.2}{each:>12.3}{peak:>10.1}{wall:>8.1}");
}

const COUNTS: [usize; 3] = [1_000, 10_000, 100_000];
const BUCKET: &str = "growth";
