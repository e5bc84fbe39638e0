//! A proxy in front of the emulator or of an ACME server that keeps what goes by, refuses what it
//! is told to, lets a request wait, or lets it through and never says what came of it.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use futures::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::emulator::{http, http_trusting};
use crate::pki::Leaf;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on, and so is the answer.
    Pass,
    /// It is passed on, but the answer is not: whoever asked is to be killed now.
    Hold,
    /// It is not even passed on: whoever asked is to be killed now.
    Stop,
    /// It is passed on when the gate opens.
    Wait(Gate),
    /// The connection breaks, and the request is not passed on.
    CutBefore,
    /// It is passed on, and the connection breaks instead of an answer.
    CutAfter,
    /// It is passed on after so long.
    Late(Duration),
    /// It is passed on, and the answer comes in small pieces.
    Trickle,
    /// It is answered with this status and body (XML, as AWS does) at once.
    Refuse(u16, String),
    /// It is answered so at once.
    Answer(Reply),
}

/// An answer that the server behind does not give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP's.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The rest.
    pub body: String,
}

impl Reply {
    /// An ACME server's problem document (RFC 8555, 6.7) of a kind such as `rateLimited`.
    pub fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let problem =
            json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status });
        Self {
            status,
            headers: vec![("content-type", "application/problem+json".to_owned())],
            body: problem.to_string(),
        }
    }

    /// Likewise, with one header more.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Where a request waits for something else to happen first.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Notify, Notify)>);

impl Gate {
    /// Until a request waits here.
    pub async fn reached(&self) {
        self.0.0.notified().await;
    }

    /// Lets it go.
    pub fn open(&self) {
        self.0.1.notify_one();
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}

/// A request as it went by: `PUT /bucket/key`.
pub type Line = String;

/// A request with what is in it.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Method and path.
    pub line: Line,
    /// What follows the question mark.
    pub query: String,
    /// The program that sent it, by its own words.
    pub agent: String,
    /// The operation, in AWS's JSON protocol.
    pub target: String,
    /// Who signed it, as AWS does.
    pub authorization: String,
    /// Its body, if that is text.
    pub body: String,
}

type Decide = dyn Fn(&Line) -> Fate + Send + Sync;

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
    passed: Mutex<Vec<Passed>>,
    held: Notify,
}

impl Proxy {
    /// In front of the emulator at `upstream`; `fate` is asked for each request.
    pub async fn start(upstream: &str, fate: impl Fn(&Line) -> Fate + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        Ok(Self::serve(listener, endpoint, upstream, http()?, Box::new(fate)))
    }

    /// In front of an ACME server at `upstream`, whose root is `root` (PEM); it shows `leaf` to who
    /// connects.
    pub async fn start_tls(
        upstream: &str,
        root: &str,
        leaf: &Leaf,
        fate: impl Fn(&Line) -> Fate + Send + Sync + 'static,
    ) -> Result<Self> {
        let client = http_trusting(root)?;
        let listener = Tls::bind(leaf).await?;
        let endpoint = format!("https://{}", listener.local_addr()?);
        Ok(Self::serve(listener, endpoint, upstream, client, Box::new(fate)))
    }

    fn serve<L: Listener<Addr = SocketAddr>>(
        listener: L,
        endpoint: String,
        upstream: &str,
        client: reqwest::Client,
        fate: Box<Decide>,
    ) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client,
            fate,
            passed: Mutex::default(),
            held: Notify::new(),
        });
        let routes = Router::new().fallback(pass).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
        Self {
            endpoint,
            shared,
            serving,
        }
    }

    /// The requests so far, in order.
    pub fn passed(&self) -> Vec<Passed> {
        self.shared
            .passed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many of them begin so.
    pub fn count(&self, what: &str) -> usize {
        let passed = self.passed();
        passed.iter().filter(|passed| passed.line.starts_with(what)).count()
    }

    /// Until a request is held or stopped.
    pub async fn held(&self) {
        self.shared.held.notified().await;
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.endpoint)
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
    let fate = fate(&shared, &method, &uri, &headers, &body);
    match &fate {
        Fate::Pass | Fate::Hold | Fate::CutAfter | Fate::Trickle => {}
        Fate::CutBefore => return cut(),
        Fate::Refuse(status, body) => {
            let headers = vec![("content-type", "application/xml".to_owned())];
            let (status, body) = (*status, body.clone());
            return reply(Reply { status, headers, body });
        }
        Fate::Answer(said) => return reply(said.clone()),
        Fate::Late(time) => sleep(*time).await,
        Fate::Wait(gate) => {
            gate.0.0.notify_one();
            gate.0.1.notified().await;
        }
        Fate::Stop => {
            shared.held.notify_one();
            return std::future::pending().await;
        }
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
    if fate == Fate::CutAfter {
        return cut();
    }
    match answer {
        Ok((status, mut headers, body)) => {
            HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
            if fate == Fate::Trickle {
                return (status, headers, trickled(body)).into_response();
            }
            (status, headers, body).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn fate(shared: &Shared, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Fate {
    let mut passed = shared.passed.lock().unwrap_or_else(PoisonError::into_inner);
    let line = format!("{method} {}", uri.path());
    let fate = (shared.fate)(&line);
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    passed.push(Passed {
        line,
        query: uri.query().unwrap_or_default().to_owned(),
        agent: header("user-agent").to_owned(),
        target: header("x-amz-target").to_owned(),
        authorization: header("authorization").to_owned(),
        body: String::from_utf8_lossy(body).into_owned(),
    });
    fate
}

/// A body in a few pieces, with pauses between them.
fn trickled(body: Bytes) -> Body {
    let length = body.len().div_ceil(PIECES).max(1);
    let pieces: Vec<_> = body.chunks(length).map(Bytes::copy_from_slice).collect();
    Body::from_stream(stream::iter(pieces).then(async |piece| {
        sleep(PAUSE).await;
        Ok::<_, Infallible>(piece)
    }))
}

/// An answer that ends in the middle of nothing, and its connection with it.
fn cut() -> Response {
    let broken = stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    Response::new(Body::from_stream(broken))
}

fn reply(said: Reply) -> Response {
    let mut response = said.body.into_response();
    *response.status_mut() = StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in said.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// TCP and TLS at once, for [`axum::serve`].
pub(crate) struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// On a free port, with this certificate.
    pub(crate) async fn bind(leaf: &Leaf) -> Result<Self> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(leaf.fullchain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
        // The process may have to choose its cryptography first.
        http()?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain?, key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { listener, acceptor })
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, client)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, client);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

const PIECES: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// The host is passed on: an ACME server names itself by it in every URL.
const HOP_BY_HOP: [&str; 3] = ["connection", "content-length", "transfer-encoding"];
