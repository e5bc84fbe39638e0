//! Signed requests to services of AWS for which the command has no SDK crate. Each of those takes a
//! minute to build and adds to the client on every instance; what is asked of them here is one call
//! each.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use neverlapse::aws;
use neverlapse::text::innermost;
use neverlapse::timestamp::Timestamp;
use serde_json::Value;
use thiserror::Error;

/// The services of one region, asked as one identity.
pub(crate) struct Services {
    client: reqwest::Client,
    credentials: SharedCredentialsProvider,
    region: String,
    /// `AWS_ENDPOINT_URL`, which then stands for all services.
    endpoint: Option<String>,
    /// The time of the last answer, by AWS's clock and by ours.
    times: Mutex<Option<(Timestamp, Timestamp)>>,
}

/// Why a service did not answer what was asked.
#[derive(Debug, Error)]
#[error("{code}: {message}")]
pub(crate) struct Refused {
    /// The service's own, such as `ResourceNotFoundException`.
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refused {
    /// What was asked for does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        ["ResourceNotFound", "NotFound", "NoSuch", "NonExistent", "DoesNotExist"]
            .iter()
            .any(|word| self.code.contains(word))
    }

    fn unsent(reason: impl Display) -> Self {
        Self {
            code: "NotSent".to_owned(),
            message: reason.to_string(),
        }
    }
}

impl Services {
    pub(crate) fn new(config: &SdkConfig) -> Result<Self> {
        // As the SDK does it, with the name that AWS_SDK_UA_APP_ID gives.
        let app = config.app_name().map(|name| format!(" app/{name}")).unwrap_or_default();
        let client = reqwest::Client::builder()
            .user_agent(format!("{USER_AGENT}{app}"))
            .tls_backend_preconfigured(aws::roots()?.client_config()?)
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            client,
            credentials: config
                .credentials_provider()
                .context("no AWS credentials are configured")?,
            region: config.region().context("AWS_REGION is not set")?.to_string(),
            endpoint: config.endpoint_url().map(str::to_owned),
            times: Mutex::default(),
        })
    }

    /// The same services, in another region.
    pub(crate) fn at(&self, region: &str) -> Self {
        Self {
            client: self.client.clone(),
            credentials: self.credentials.clone(),
            region: region.to_owned(),
            endpoint: self.endpoint.clone(),
            times: Mutex::default(),
        }
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// A call in AWS's JSON protocol; `target` is such as `AmazonSQS.GetQueueAttributes`.
    pub(crate) async fn json(&self, service: Service, target: &str, body: &Value) -> Result<Value, Refused> {
        let request = http::Request::post(self.url(service, "/"))
            .header("content-type", format!("application/x-amz-json-{}", service.json))
            .header("x-amz-target", target);
        let answer = self.send(service, request, body.to_string()).await?;
        parsed(&answer)
    }

    /// What is at a path of a service whose protocol is REST.
    pub(crate) async fn get(&self, service: Service, path: &str) -> Result<Value, Refused> {
        let request = http::Request::get(self.url(service, path));
        let answer = self.send(service, request, String::new()).await?;
        parsed(&answer)
    }

    /// A call in AWS's query protocol, whose answer is XML.
    pub(crate) async fn query(&self, service: Service, form: &str) -> Result<String, Refused> {
        let request = http::Request::post(self.url(service, "/"))
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        self.send(service, request, form.to_owned()).await
    }

    /// By how much the clock of this machine is ahead of AWS's.
    pub(crate) fn clock_ahead(&self) -> Option<time::Duration> {
        let times = self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        times.map(|(theirs, ours)| ours - theirs)
    }

    fn url(&self, service: Service, path: &str) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{}{path}", endpoint.trim_end_matches('/')),
            None => format!("https://{}{path}", host(service, &self.region)),
        }
    }

    async fn send(&self, service: Service, request: http::request::Builder, body: String) -> Result<String, Refused> {
        let mut request = request.body(body).map_err(Refused::unsent)?;
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let host = http::HeaderValue::try_from(host).map_err(Refused::unsent)?;
        request.headers_mut().insert("host", host);
        self.sign(service, &mut request).await?;

        let request = reqwest::Request::try_from(request).map_err(Refused::unsent)?;
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| Refused::unsent(innermost(&error)))?;
        self.note_time(response.headers());

        let status = response.status();
        let kind = header(response.headers(), "x-amzn-errortype");
        let text = response
            .text()
            .await
            .map_err(|error| Refused::unsent(innermost(&error)))?;
        if status.is_success() {
            return Ok(text);
        }
        Err(refused(status.as_u16(), kind, &text))
    }

    async fn sign(&self, service: Service, request: &mut http::Request<String>) -> Result<(), Refused> {
        let credentials = self.credentials.provide_credentials().await;
        let identity = credentials.map_err(|error| Refused::unsent(innermost(&error)))?.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region(service, &self.region))
            .name(service.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(Refused::unsent)?
            .into();

        let headers = request.headers().iter();
        let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Bytes(request.body().as_bytes());
        let signed = SignableRequest::new(request.method().as_str(), request.uri().to_string(), headers, body)
            .and_then(|signable| sign(signable, &parameters));
        let (instructions, _) = signed.map_err(Refused::unsent)?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    fn note_time(&self, headers: &http::HeaderMap) {
        let date = header(headers, "date").and_then(|date| Timestamp::from_http(&date));
        if let Some(date) = date {
            let mut times = self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *times = Some((date, Timestamp::now()));
        }
    }
}

/// A service, and how it is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    /// In signatures.
    name: &'static str,
    /// First label of its host.
    host: &'static str,
    /// Version of its JSON protocol.
    json: &'static str,
}

impl Service {
    const fn new(name: &'static str, host: &'static str, json: &'static str) -> Self {
        Self { name, host, json }
    }
}

pub(crate) const ACM: Service = Service::new("acm", "acm", "1.1");
pub(crate) const CLOUDWATCH: Service = Service::new("monitoring", "monitoring", "1.0");
pub(crate) const IAM: Service = Service::new("iam", "iam", "");
pub(crate) const KMS: Service = Service::new("kms", "kms", "1.1");
pub(crate) const LAMBDA: Service = Service::new("lambda", "lambda", "");
pub(crate) const LOGS: Service = Service::new("logs", "logs", "1.1");
pub(crate) const SCHEDULER: Service = Service::new("scheduler", "scheduler", "");
pub(crate) const SQS: Service = Service::new("sqs", "sqs", "1.0");
pub(crate) const SSM: Service = Service::new("ssm", "ssm", "1.1");

/// IAM has one endpoint per partition.
fn host(service: Service, region: &str) -> String {
    match (service.name, region) {
        ("iam", region) if region.starts_with("cn-") => "iam.cn-north-1.amazonaws.com.cn".to_owned(),
        ("iam", region) if region.starts_with("us-gov-") => "iam.us-gov.amazonaws.com".to_owned(),
        ("iam", _) => "iam.amazonaws.com".to_owned(),
        (_, region) if region.starts_with("cn-") => format!("{}.{region}.amazonaws.com.cn", service.host),
        (_, region) => format!("{}.{region}.amazonaws.com", service.host),
    }
}

/// The region in a signature.
fn region(service: Service, region: &str) -> &str {
    match (service.name, region) {
        ("iam", region) if region.starts_with("cn-") => "cn-north-1",
        ("iam", region) if region.starts_with("us-gov-") => "us-gov-west-1",
        ("iam", _) => "us-east-1",
        (_, region) => region,
    }
}

fn parsed(json: &str) -> Result<Value, Refused> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json).map_err(|error| Refused {
        code: "NotUnderstood".to_owned(),
        message: error.to_string(),
    })
}

/// The code and words of an answer that is an error, in JSON or XML.
fn refused(status: u16, kind: Option<String>, text: &str) -> Refused {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let code = (kind.as_deref())
        .or(json["__type"].as_str())
        .or(json["Type"].as_str())
        .or_else(|| texts(text, "Code").next());
    let message = (json["message"].as_str())
        .or(json["Message"].as_str())
        .or_else(|| texts(text, "Message").next());

    // "com.amazonaws.kms#NotFoundException", or "ResourceNotFoundException:http://…".
    let code = code.and_then(|code| code.rsplit('#').next()?.split(':').next());
    Refused {
        code: code.map_or_else(|| format!("HTTP {status}"), str::to_owned),
        message: message.map_or_else(|| format!("HTTP status {status}"), str::to_owned),
    }
}

/// The texts of XML's elements of this name, where they have no escapes.
pub(crate) fn texts<'x>(xml: &'x str, element: &str) -> impl Iterator<Item = &'x str> {
    let parts: Vec<_> = xml.split(&format!("<{element}>")).skip(1).collect();
    parts.into_iter().filter_map(|part| part.split('<').next())
}

/// For a query or a path (RFC 3986, 2.1).
pub(crate) fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn header(headers: &http::HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// ACME servers refuse requests without one (RFC 8555, 6.1).
pub(crate) const USER_AGENT: &str = concat!("neverlapse/", env!("CARGO_PKG_VERSION"));
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_each_protocol() {
        for (kind, text, expected) in [
            (
                None,
                r#"{"__type": "com.amazonaws.kms#NotFoundException", "message": "no"}"#,
                "NotFoundException: no",
            ),
            (
                Some("ResourceNotFoundException:http://x"),
                r#"{"Message": "none"}"#,
                "ResourceNotFoundException: none",
            ),
            (
                None,
                "<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>gone</Message></Error></ErrorResponse>",
                "NoSuchEntity: gone",
            ),
        ] {
            let refused = refused(404, kind.map(str::to_owned), text);
            assert_eq!(refused.to_string(), expected);
            assert!(refused.is_missing());
        }
        assert_eq!(refused(502, None, "").to_string(), "HTTP 502: HTTP status 502");
        assert!(!refused(403, None, r#"{"__type": "AccessDeniedException"}"#).is_missing());
    }

    #[test]
    fn hosts_of_each_partition() {
        assert_eq!(host(LAMBDA, "eu-central-1"), "lambda.eu-central-1.amazonaws.com");
        assert_eq!(host(KMS, "cn-north-1"), "kms.cn-north-1.amazonaws.com.cn");
        assert_eq!(
            (host(IAM, "eu-west-1"), region(IAM, "eu-west-1")),
            ("iam.amazonaws.com".to_owned(), "us-east-1")
        );
        assert_eq!(region(IAM, "us-gov-east-1"), "us-gov-west-1");
    }
}
