//! A webhook, Slack's or a subscriber's of SNS, as far as it matters: takes JSON at a secret path,
//! or refuses it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::Listener;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fault::Tls;
use crate::pki::Leaf;

/// A running webhook.
pub struct Webhook {
    /// Its URL, which is a secret.
    pub url: String,
    channel: Arc<Channel>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Channel {
    refuses: AtomicBool,
    taken: Mutex<Vec<Value>>,
}

impl Webhook {
    /// Starts it on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}{PATH}", listener.local_addr()?);
        Ok(Self::serve(listener, url))
    }

    /// Likewise, behind TLS with this certificate.
    pub async fn start_tls(leaf: &Leaf) -> Result<Self> {
        let listener = Tls::bind(leaf).await?;
        let url = format!("https://{}{PATH}", listener.local_addr()?);
        Ok(Self::serve(listener, url))
    }

    fn serve<L: Listener<Addr = SocketAddr>>(listener: L, url: String) -> Self {
        let channel = Arc::<Channel>::default();
        let routes = Router::new().route(PATH, post(take)).with_state(channel.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
        Self { url, channel, serving }
    }

    /// Whether it refuses what comes from now on.
    pub fn refuse(&self, refuses: bool) {
        self.channel.refuses.store(refuses, Ordering::SeqCst);
    }

    /// What it took since it was last asked.
    pub fn taken(&self) -> Vec<Value> {
        std::mem::take(&mut *self.channel.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The part of the URL that nobody may see.
    pub fn secret(&self) -> &str {
        SECRET
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(channel): State<Arc<Channel>>, body: String) -> (StatusCode, &'static str) {
    let Ok(message) = serde_json::from_str(&body) else {
        return (StatusCode::BAD_REQUEST, "invalid_payload");
    };
    if channel.refuses.load(Ordering::SeqCst) {
        return (StatusCode::FORBIDDEN, "invalid_token");
    }
    channel
        .taken
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(message);
    (StatusCode::OK, "ok")
}

const SECRET: &str = "XXXXXXXXXXXXXXXXXXXXXXXX";
const PATH: &str = "/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX";
