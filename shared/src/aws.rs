//! AWS clients: one HTTPS stack, credentials and region from wherever the SDK finds them.

use std::error::Error;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sns::config::SharedHttpClient;
use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::text::causes;

/// The configuration for every AWS client.
///
/// Endpoints come from `AWS_ENDPOINT_URL` and its per-service variants, so the same code talks to a
/// local stack.
pub async fn config() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(https())
        .timeout_config(timeouts())
        .load()
        .await
}

/// How long a service may take. Without these, a request that nobody answers waits until Lambda ends
/// the run, and with it the alerts that come after. Reading an object's content has its own limit:
/// the SDK gives up on one that stops.
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build()
}

/// The HTTPS client of [`config`]. The SDK's default reads every file of the system's trust
/// directory before the first event; AWS's endpoints chain to a handful of roots, so those are all
/// that is loaded.
pub fn https() -> SharedHttpClient {
    let store = TLS_SERVER_ROOT_CERTS
        .iter()
        .filter(|root| is_used_by_aws(root))
        .fold(TrustStore::empty(), |store, root| store.with_pem_certificate(pem(root)));
    let context = TlsContext::builder().with_trust_store(store).build();

    let builder = aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
    match context {
        Ok(context) => builder.tls_context(context).build_https(),
        Err(_) => builder.build_https(),
    }
}

/// Why a request failed, in a line: the service's own code and words, or what kept it from
/// answering.
pub fn reason<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(service) = error.as_service_error() {
        let code = service.code().unwrap_or("unknown error");
        return match service.message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    causes(error)
}

fn is_used_by_aws(root: &[u8]) -> bool {
    AWS_ROOTS
        .iter()
        .any(|name| root.windows(name.len()).any(|window| window == name.as_bytes()))
}

fn pem(der: &[u8]) -> Vec<u8> {
    let body = data_encoding::BASE64.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").into_bytes()
}

const CONNECT: Duration = Duration::from_secs(5);
/// One try, until the answer begins.
const ATTEMPT: Duration = Duration::from_secs(10);
/// All tries of one request together, with the pauses between them.
const OPERATION: Duration = Duration::from_secs(30);
const AWS_ROOTS: [&str; 2] = ["Amazon Root CA", "Starfield"];
