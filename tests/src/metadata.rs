//! An instance's metadata service (IMDSv2): who it is, and the credentials of its role, for who
//! asks with a token.

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::emulator::{REGION, Session};

/// A running service, for one instance.
pub struct Metadata {
    /// Its URL: `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub endpoint: String,
    serving: JoinHandle<()>,
}

struct Instance {
    id: String,
    session: Session,
}

impl Metadata {
    /// Starts it on a free port, for the instance with this id and the session of its role.
    pub async fn start(id: &str, session: &Session) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (id, session) = (id.to_owned(), session.clone());
        let routes = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/dynamic/instance-identity/document", get(document))
            .route("/latest/meta-data/iam/security-credentials/", get(role))
            .route("/latest/meta-data/iam/security-credentials/{role}", get(credentials))
            .fallback(async || StatusCode::NOT_FOUND)
            .with_state(Arc::new(Instance { id, session }));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
        Ok(Self { endpoint, serving })
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn token(headers: HeaderMap) -> Response {
    match headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") {
        true => ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], TOKEN).into_response(),
        false => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// IMDSv1 has none, and is refused.
fn has_token(headers: &HeaderMap) -> Result<(), StatusCode> {
    match headers.get("x-aws-ec2-metadata-token") {
        Some(token) if token == TOKEN => Ok(()),
        _ => Err(StatusCode::UNAUTHORIZED),
    }
}

async fn document(State(instance): State<Arc<Instance>>, headers: HeaderMap) -> Result<String, StatusCode> {
    has_token(&headers)?;
    Ok(json!({"instanceId": instance.id, "region": REGION, "accountId": "000000000000"}).to_string())
}

async fn role(headers: HeaderMap) -> Result<&'static str, StatusCode> {
    has_token(&headers).map(|()| ROLE)
}

async fn credentials(
    State(instance): State<Arc<Instance>>,
    Path(role): Path<String>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    has_token(&headers)?;
    if role != ROLE {
        return Err(StatusCode::NOT_FOUND);
    }
    let session = &instance.session;
    Ok(json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
        "AccessKeyId": session.access_key_id, "SecretAccessKey": session.secret_access_key, "Token": session.token})
    .to_string())
}

const TOKEN: &str = "a-token-of-this-instance";
const ROLE: &str = "web";
