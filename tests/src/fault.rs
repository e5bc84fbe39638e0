//! A proxy in front of the emulator that refuses what it is told to, or lets a request through and never says what came of it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::emulator::http;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on, and so is the answer.
    Pass,
    /// It is passed on, but the answer is not: whoever asked is to be killed now.
    Hold,
    /// It is answered with this status and body at once.
    Refuse(u16, String),
}

/// A request as it went by: `PUT /bucket/key`.
pub type Line = String;

type Decide = dyn Fn(&Line, usize) -> Fate + Send + Sync;

/// A running proxy.
pub struct Proxy {
    /// Its URL.
    pub endpoint: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    fate: Box<Decide>,
    lines: Mutex<Vec<Line>>,
    held: Notify,
}

impl Proxy {
    /// In front of `upstream`; `fate` is asked for each request that writes, with how many there were before.
    pub async fn start(upstream: &str, fate: impl Fn(&Line, usize) -> Fate + Send + Sync + 'static) -> Result<Self> {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: http()?,
            fate: Box::new(fate),
            lines: Mutex::default(),
            held: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(pass).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
        Ok(Self {
            endpoint,
            shared,
            serving,
        })
    }

    /// The requests that wrote, in order.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until a request is held.
    pub async fn held(&self) {
        self.shared.held.notified().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let writes = method != Method::GET && method != Method::HEAD;
    let fate = if writes {
        fate(&shared, &method, &uri)
    } else {
        Fate::Pass
    };
    if let Fate::Refuse(status, body) = fate {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return (status, [("content-type", "application/xml")], body).into_response();
    }
    let url = format!("{}{uri}", shared.upstream);
    let mut request = shared.client.request(method, url).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str())) {
        request = request.header(name, value);
    }
    let answer = async {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, response.bytes().await?))
    };
    let answer = answer.await;
    if fate == Fate::Hold {
        shared.held.notify_one();
        return std::future::pending().await;
    }
    match answer {
        Ok((status, mut headers, body)) => {
            HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
            (status, headers, body).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn fate(shared: &Shared, method: &Method, uri: &Uri) -> Fate {
    let mut lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
    let line = format!("{method} {}", uri.path());
    let fate = (shared.fate)(&line, lines.len());
    lines.push(line);
    fate
}

const HOP_BY_HOP: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];
