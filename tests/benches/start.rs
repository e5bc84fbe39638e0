//! How long a function takes from its start to its first question for an event, and from its first
//! event to the first connection that the event is about: probe and renewer as they ship, beside
//! Python with boto3.
//!
//! AWS answers at once here, so that only the functions are measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse;
use neverlapse_tests::runtime::Function;
use neverlapse_tests::stack::root;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::select;
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let release = root().join("target/release");
    let renewal: Value = serde_json::from_str(include_str!("../../events/renewal-batch.json"))?;
    let contenders = [
        ("probe", release.join("probe"), json!({})),
        ("renewer", release.join("renewer"), renewal),
        ("Python with boto3", python(&folder)?, json!({})),
    ];

    println!("milliseconds, the least of {ROUNDS} rounds\n");
    println!(
        "{:<20}{:>24}{:>30}",
        "", "start to first question", "event to first connection"
    );
    for (name, program, event) in contenders {
        let (mut started, mut connected) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let (start, connect) = measure(&program, &event, folder.path()).await?;
            started = started.min(start);
            connected = connected.min(connect);
        }
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!("{name:<20}{:>24.1}{:>30.1}", ms(started), ms(connected));
    }
    Ok(())
}

async fn measure(program: &Path, event: &Value, folder: &Path) -> Result<(Duration, Duration)> {
    // Of this round alone: an earlier function may have left connections that nobody took.
    let destination = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let aws = aws(destination.local_addr()?).await?;
    let topic = "arn:aws:sns:eu-central-1:123456789012:neverlapse-OperatorTopic-1";
    let (aws, domains) = (format!("http://{aws}"), destination.local_addr()?.to_string());
    let environment = [
        ("AWS_ENDPOINT_URL", aws.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("BUCKET", "start"),
        ("DOMAINS", &domains),
        ("ALERT_TOPIC_ARN", topic),
        ("OPERATOR_TOPIC_ARN", topic),
        (
            "SECRETS_KEY_ARN",
            "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-4000-8000-000000000000",
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));

    let began = Instant::now();
    let function = Function::start(program, &environment, &folder.join("log")).await?;
    function.asks().await;
    let started = began.elapsed();

    let began = Instant::now();
    select! {
        // The connection is dropped at once: what comes of it is not measured.
        connection = destination.accept() => drop(connection?),
        answer = function.invoke(event.clone()) => anyhow::bail!("it connected to nothing: {answer:?}"),
    }
    Ok((started, began.elapsed()))
}

/// An AWS whose bucket has nothing but an inventory that lets the renewer order at `ca`, and takes
/// whatever is written.
async fn aws(ca: SocketAddr) -> Result<SocketAddr> {
    let inventory = format!(
        "[[certificate]]\nidentifiers = [\"example.com\"]\nissuers = [\"start\"]\nserved_at = [\"{ca}\"]\n\
         [issuer.start]\ndirectory = \"https://{ca}/dir\"\n"
    );
    let answer = move |method: Method, uri: Uri| {
        std::future::ready(match method {
            Method::GET if uri.path().ends_with("/inventory.toml") => inventory.clone().into_response(),
            Method::GET => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
            _ => ([("etag", "\"1\"")], "").into_response(),
        })
    };

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let routes = Router::new().fallback(answer);
    tokio::spawn(async { axum::serve(listener, routes).await.unwrap_or_default() });
    Ok(address)
}

fn python(folder: &TempDir) -> Result<PathBuf> {
    let program = folder.path().join("function");
    let interpreter = root().join(".local/ministack/bin/python3");
    let script = std::fs::read_to_string(root().join("tests/benches/function.py"))?;
    std::fs::write(&program, format!("#!{}\n{script}", interpreter.display()))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

const ROUNDS: usize = 20;
