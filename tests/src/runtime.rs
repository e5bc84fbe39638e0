//! A Lambda Runtime API of our own, so that a built function can be run as a plain process, killed,
//! and started again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path as Segment, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinHandle;

use crate::cost::Cost;
use crate::process::{Group, command};

/// A function that runs as a process of its own; killed (SIGKILL) on drop.
pub struct Function {
    process: Group,
    serving: JoinHandle<()>,
    events: mpsc::Sender<Value>,
    answers: Mutex<mpsc::Receiver<Result<Value, Value>>>,
    api: Arc<Api>,
}

struct Api {
    events: Mutex<mpsc::Receiver<Value>>,
    answers: mpsc::Sender<Result<Value, Value>>,
    timeout: Duration,
    asked: Notify,
}

impl Function {
    /// Starts a `bootstrap` with this environment; its log goes to `log`.
    pub async fn start(bootstrap: &Path, environment: &[(String, String)], log: &Path) -> Result<Self> {
        let (events, pending) = mpsc::channel(1);
        let (answered, answers) = mpsc::channel(1);
        let seconds = environment.iter().find(|(key, _)| key == TIMEOUT_SECONDS);
        let seconds = seconds.and_then(|(_, value)| value.parse().ok());
        let api = Arc::new(Api {
            events: Mutex::new(pending),
            answers: answered,
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
            asked: Notify::new(),
        });

        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .layer(DefaultBodyLimit::max(RESPONSE_BYTES))
            .with_state(api.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });

        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut process = command(bootstrap);
        process
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "function")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "group")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdout(log.try_clone()?)
            .stderr(log);

        Ok(Self {
            process: Group::start(&mut process)?,
            serving,
            events,
            answers: Mutex::new(answers),
            api,
        })
    }

    /// Waits until it asks for an event.
    pub async fn asks(&self) {
        self.api.asked.notified().await;
    }

    /// What it returns; an error is the function's own, with `errorType` and `errorMessage`.
    pub async fn invoke(&self, event: Value) -> Result<Value> {
        self.events
            .send(event)
            .await
            .context("the function takes no more events")?;
        match self.answers.lock().await.recv().await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => bail!("{error}"),
            None => bail!("the function is gone"),
        }
    }

    /// What it took so far.
    pub fn cost(&self) -> Result<Cost> {
        Cost::so_far(self.process.program()?)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn next(State(api): State<Arc<Api>>) -> (HeaderMap, String) {
    api.asked.notify_one();
    let event = api.events.lock().await.recv().await;
    let Some(event) = event else {
        return std::future::pending().await;
    };
    let deadline = SystemTime::now() + api.timeout;
    let deadline = deadline
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
        .to_string();

    let headers = [
        ("lambda-runtime-aws-request-id", "00000000-0000-4000-8000-000000000000"),
        ("lambda-runtime-deadline-ms", &deadline),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-central-1:000000000000:function:function",
        ),
    ];
    let headers = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    (
        HeaderMap::from_iter(headers.collect::<Vec<(axum::http::HeaderName, _)>>()),
        event.to_string(),
    )
}

async fn response(State(api): State<Arc<Api>>, Segment(_): Segment<String>, body: String) -> StatusCode {
    answer(&api, Ok(serde_json::from_str(&body).unwrap_or_default())).await
}

async fn error(State(api): State<Arc<Api>>, Segment(_): Segment<String>, body: String) -> StatusCode {
    answer(&api, Err(serde_json::from_str(&body).unwrap_or_default())).await
}

async fn answer(api: &Api, answer: Result<Value, Value>) -> StatusCode {
    let _ = api.answers.send(answer).await;
    StatusCode::ACCEPTED
}

/// A variable of the environment that says how much time an event has.
pub const TIMEOUT_SECONDS: &str = "TEST_TIMEOUT_SECONDS";
const TIMEOUT: Duration = Duration::from_secs(600);
/// Lambda's limit.
const RESPONSE_BYTES: usize = 6 << 20;
