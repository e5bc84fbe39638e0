//! Signed requests to services of AWS for which the command has no SDK crate. Each of those takes a
//! minute to build; what is asked of them here is a call or two.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_types::service_config::ServiceConfigKey;
use http::{HeaderMap, StatusCode};
use neverlapse::aws;
use neverlapse::text::innermost;
use neverlapse::timestamp::Timestamp;
use roxmltree::{Document, Node};
use serde_json::Value;
use thiserror::Error;

/// The services of one region, asked as one identity.
pub(crate) struct Services {
    client: reqwest::Client,
    config: SdkConfig,
    credentials: SharedCredentialsProvider,
    region: String,
    /// The time of the last answer, by AWS's clock and by ours.
    times: Mutex<Option<(Timestamp, Timestamp)>>,
}

/// Why a service did not answer what was asked.
#[derive(Debug, Error)]
#[error("{code}{}{message}", if .code.is_empty() { "" } else { ": " })]
pub(crate) struct Refused {
    /// The service's own, such as `ResourceNotFoundException`; empty if it gave none.
    pub(crate) code: String,
    message: String,
    /// Whether it may answer when it is asked again.
    passing: bool,
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
            code: String::new(),
            message: reason.to_string(),
            passing: false,
        }
    }

    fn unanswered(host: &str, error: &reqwest::Error) -> Self {
        Self {
            passing: true,
            ..Self::unsent(format!("{host}: {}", innermost(error)))
        }
    }

    pub(crate) fn not_understood(reason: impl Display) -> Self {
        Self::unsent(format!("the answer cannot be understood: {reason}"))
    }
}

impl Services {
    pub(crate) fn new(config: &SdkConfig) -> Result<Self> {
        // As the SDK does it, with the name that AWS_SDK_UA_APP_ID gives.
        let app = config.app_name().map(|name| format!(" app/{name}")).unwrap_or_default();
        let client = reqwest::Client::builder()
            .user_agent(format!("{USER_AGENT}{app}"))
            .tls_backend_preconfigured(aws::roots()?.client_config()?)
            .connect_timeout(aws::CONNECT)
            .tcp_keepalive(KEEPALIVE)
            .build()?;
        Ok(Self {
            client,
            config: config.clone(),
            credentials: config
                .credentials_provider()
                .context("no AWS credentials are configured")?,
            region: config
                .region()
                .context("no region is known (expected AWS_REGION, or a profile that has one)")?
                .to_string(),
            times: Mutex::default(),
        })
    }

    /// The same services, in another region.
    pub(crate) fn at(&self, region: &str) -> Self {
        Self {
            client: self.client.clone(),
            config: self.config.clone(),
            credentials: self.credentials.clone(),
            region: region.to_owned(),
            times: Mutex::default(),
        }
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// A call that only reads, in AWS's JSON protocol; `target` is such as
    /// `AmazonSQS.GetQueueAttributes`.
    pub(crate) async fn json(&self, service: Service, target: &str, body: &Value) -> Result<Value, Refused> {
        let request = http::Request::post(self.url(service, "/").await?)
            .header("content-type", format!("application/x-amz-json-{}", service.json))
            .header("x-amz-target", target);
        parsed(&self.read(service, request, body.to_string()).await?)
    }

    /// What is at a path of a service whose protocol is REST.
    pub(crate) async fn get(&self, service: Service, path: &str) -> Result<Value, Refused> {
        let request = http::Request::get(self.url(service, path).await?);
        parsed(&self.read(service, request, String::new()).await?)
    }

    /// A call that only reads, in AWS's query protocol, whose answer is XML.
    pub(crate) async fn query(&self, service: Service, parameters: &[(&str, &str)]) -> Result<String, Refused> {
        let parameters = parameters.iter();
        let form: Vec<_> = parameters
            .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
            .collect();
        let request = http::Request::post(self.url(service, "/").await?)
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        self.read(service, request, form.join("&")).await
    }

    /// Runs a function and waits for its answer. It is asked once, however it ends: a run whose
    /// answer was lost must not be started again.
    pub(crate) async fn invoke(&self, function: &str, event: &Value) -> Result<Invoked, Refused> {
        let path = format!("/2015-03-31/functions/{}/invocations", percent_encoded(function));
        let request = http::Request::post(self.url(LAMBDA, &path).await?)
            .header("content-type", "application/json")
            .body(event.to_string())
            .map_err(Refused::unsent)?;
        let (headers, payload) = self.send(LAMBDA, request, LONGEST_RUN).await?;
        Ok(Invoked {
            failed: headers.contains_key("x-amz-function-error"),
            payload,
        })
    }

    /// By how much the clock of this machine is ahead of AWS's.
    pub(crate) fn clock_ahead(&self) -> Option<time::Duration> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.map(|(theirs, ours)| ours - theirs)
    }

    /// As the SDK finds it: what the environment or the profile says for this service, then what
    /// they say for all, then where AWS has it.
    async fn url(&self, service: Service, path: &str) -> Result<String, Refused> {
        let key = ServiceConfigKey::builder()
            .service_id(service.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let key = key.map_err(Refused::unsent)?;
        let configured = self.config.service_config();
        let base = configured
            .and_then(|configured| configured.load_config(key))
            .or_else(|| self.config.endpoint_url().map(str::to_owned));

        let base = match base {
            Some(base) => base,
            None => endpoint(service, &self.region, &self.config).await?,
        };
        Ok(format!("{}{path}", base.trim_end_matches('/')))
    }

    /// Sends a request that may be repeated: three times in all, like the SDK.
    async fn read(&self, service: Service, request: http::request::Builder, body: String) -> Result<String, Refused> {
        let request = request.body(body).map_err(Refused::unsent)?;
        let mut pauses = PAUSES.into_iter();
        loop {
            let failed = match self.send(service, request.clone(), aws::ATTEMPT).await {
                Ok((_, text)) => return Ok(text),
                Err(failed) => failed,
            };
            match pauses.next() {
                Some(pause) if failed.passing => tokio::time::sleep(pause).await,
                _ => return Err(failed),
            }
        }
    }

    async fn send(
        &self,
        service: Service,
        mut request: http::Request<String>,
        patience: Duration,
    ) -> Result<(HeaderMap, String), Refused> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        // Without a password that AWS_ENDPOINT_URL may have: errors name the host.
        let host = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let value = http::HeaderValue::try_from(&host).map_err(Refused::unsent)?;
        request.headers_mut().insert("host", value);
        self.sign(service, &mut request).await?;

        let mut request = reqwest::Request::try_from(request).map_err(Refused::unsent)?;
        *request.timeout_mut() = Some(patience);
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| Refused::unanswered(&host, &error))?;
        self.note_time(response.headers());

        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await;
        let text = text.map_err(|error| Refused::unanswered(&host, &error))?;
        if status.is_success() {
            return Ok((headers, text));
        }
        Err(refused(status, &headers, &text))
    }

    async fn sign(&self, service: Service, request: &mut http::Request<String>) -> Result<(), Refused> {
        let credentials = self.credentials.provide_credentials().await;
        let identity = credentials.map_err(|error| Refused::unsent(aws::cause(&error)))?.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(signed_for(service, &self.region))
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

    fn note_time(&self, headers: &HeaderMap) {
        let date = header(headers, "date").and_then(Timestamp::from_http);
        if let Some(date) = date {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            *times = Some((date, Timestamp::now()));
        }
    }
}

/// What a function answered.
pub(crate) struct Invoked {
    /// Whether the payload is its error.
    pub(crate) failed: bool,
    /// JSON.
    pub(crate) payload: String,
}

/// A service, and how it is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    /// The SDK's, by which profiles and the environment name it.
    id: &'static str,
    /// In signatures, and the first label of its host.
    name: &'static str,
    /// Version of its JSON protocol.
    json: &'static str,
}

impl Service {
    const fn new(id: &'static str, name: &'static str, json: &'static str) -> Self {
        Self { id, name, json }
    }
}

pub(crate) const ACM: Service = Service::new("ACM", "acm", "1.1");
pub(crate) const CLOUDFORMATION: Service = Service::new("CloudFormation", "cloudformation", "");
pub(crate) const CLOUDWATCH: Service = Service::new("CloudWatch", "monitoring", "1.0");
pub(crate) const IAM: Service = Service::new("IAM", "iam", "");
pub(crate) const KMS: Service = Service::new("KMS", "kms", "1.1");
pub(crate) const LAMBDA: Service = Service::new("Lambda", "lambda", "");
pub(crate) const LOGS: Service = Service::new("CloudWatch Logs", "logs", "1.1");
pub(crate) const SCHEDULER: Service = Service::new("Scheduler", "scheduler", "");
pub(crate) const SQS: Service = Service::new("SQS", "sqs", "1.0");
pub(crate) const SSM: Service = Service::new("SSM", "ssm", "1.1");

/// Where AWS has a service. What the SDK knows about STS holds for each that is in every region: in
/// every partition, with FIPS and with IPv6.
async fn endpoint(service: Service, region: &str, config: &SdkConfig) -> Result<String, Refused> {
    if service.name == IAM.name {
        return Ok(format!("https://{}", iam(region).0));
    }
    let parameters = Params::builder()
        .region(region)
        .use_fips(config.use_fips().unwrap_or_default())
        .use_dual_stack(config.use_dual_stack().unwrap_or_default())
        .build()
        .map_err(Refused::unsent)?;
    let sts = DefaultResolver::new().resolve_endpoint(&parameters).await;
    let sts = sts.map_err(|error| Refused::unsent(format!("no endpoint in the region {region:?}: {error}")))?;
    Ok(sts.url().replacen("sts", service.name, 1))
}

/// The region in a signature.
fn signed_for(service: Service, region: &str) -> &str {
    if service.name == IAM.name {
        iam(region).1
    } else {
        region
    }
}

/// IAM has one endpoint and one region per partition.
fn iam(region: &str) -> (&'static str, &'static str) {
    match region.split('-').next().unwrap_or_default() {
        "cn" => ("iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        "eusc" => ("iam.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        _ if region.starts_with("us-gov-") => ("iam.us-gov.amazonaws.com", "us-gov-west-1"),
        _ => ("iam.amazonaws.com", "us-east-1"),
    }
}

fn parsed(json: &str) -> Result<Value, Refused> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json).map_err(Refused::not_understood)
}

/// The code and words of an answer that is an error, in JSON or XML.
fn refused(status: StatusCode, headers: &HeaderMap, body: &str) -> Refused {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let xml = Document::parse(body).ok();
    let xml = xml.as_ref().map(Document::root_element);
    let code = header(headers, "x-amzn-errortype")
        .or(json["__type"].as_str())
        .or(json["Type"].as_str())
        .or_else(|| text(xml?, "Code"));
    let message = (json["message"].as_str())
        .or(json["Message"].as_str())
        .or_else(|| text(xml?, "Message"));

    // "com.amazonaws.kms#NotFoundException", or "ResourceNotFoundException:http://…".
    let code = code.and_then(|code| code.rsplit('#').next()?.split(':').next());
    let mut passing = THROTTLING_ERRORS.iter().chain(TRANSIENT_ERRORS);
    let is_passing = code.is_some_and(|code| passing.any(|known| *known == code));
    let code = code.map_or_else(|| format!("HTTP {}", status.as_u16()), str::to_owned);
    let message = message.map_or_else(|| "no reason was given".to_owned(), str::to_owned);
    let clock = aws::clock(header(headers, "date"), Timestamp::now()).unwrap_or_default();
    Refused {
        code,
        message: message + &clock,
        passing: is_passing || status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
    }
}

/// An answer in XML.
pub(crate) fn document(xml: &str) -> Result<Document<'_>, Refused> {
    Document::parse(xml).map_err(Refused::not_understood)
}

/// All elements of this name, in whatever namespace.
pub(crate) fn elements<'d, 'x: 'd>(node: Node<'d, 'x>, name: &str) -> impl Iterator<Item = Node<'d, 'x>> {
    node.descendants().filter(move |node| node.tag_name().name() == name)
}

/// The text of the first element of this name.
pub(crate) fn text<'d, 'x: 'd>(node: Node<'d, 'x>, name: &str) -> Option<&'d str> {
    elements(node, name).next()?.text()
}

/// For a query or a path (RFC 3986, 2.1).
pub(crate) fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// ACME servers refuse requests without one (RFC 8555, 6.1).
pub(crate) const USER_AGENT: &str = concat!("neverlapse/", env!("CARGO_PKG_VERSION"));
/// Between the tries of one request.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
/// Lambda's, and some time to answer. Until then, it sends nothing.
const LONGEST_RUN: Duration = Duration::from_secs(15 * 60 + 30);
/// NAT gateways forget a connection after 350 seconds without a packet.
const KEEPALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

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
            let mut headers = HeaderMap::new();
            headers.extend(kind.map(|kind| {
                (
                    HeaderName::from_static("x-amzn-errortype"),
                    HeaderValue::from_static(kind),
                )
            }));
            let refused = refused(StatusCode::NOT_FOUND, &headers, text);
            assert_eq!(refused.to_string(), expected);
            assert!(refused.is_missing() && !refused.passing);
        }

        let headers = HeaderMap::new();
        let broken = refused(StatusCode::BAD_GATEWAY, &headers, "<html>");
        assert_eq!(broken.to_string(), "HTTP 502: no reason was given");
        let denied = refused(
            StatusCode::FORBIDDEN,
            &headers,
            r#"{"__type": "AccessDeniedException"}"#,
        );
        assert!(broken.passing && !denied.passing && !denied.is_missing());
    }

    #[tokio::test]
    async fn where_services_are() {
        let config = SdkConfig::builder().build();
        let fips = SdkConfig::builder().use_fips(true).build();
        let ipv6 = SdkConfig::builder().use_dual_stack(true).build();
        for (service, region, config, expected) in [
            (
                LAMBDA,
                "eu-central-1",
                &config,
                "https://lambda.eu-central-1.amazonaws.com",
            ),
            (
                LAMBDA,
                "us-east-2",
                &fips,
                "https://lambda-fips.us-east-2.amazonaws.com",
            ),
            (LOGS, "eu-west-1", &ipv6, "https://logs.eu-west-1.api.aws"),
            (KMS, "cn-north-1", &config, "https://kms.cn-north-1.amazonaws.com.cn"),
            (
                SQS,
                "eusc-de-east-1",
                &config,
                "https://sqs.eusc-de-east-1.amazonaws.eu",
            ),
            (SSM, "us-iso-east-1", &config, "https://ssm.us-iso-east-1.c2s.ic.gov"),
            (IAM, "eu-west-1", &config, "https://iam.amazonaws.com"),
            (IAM, "us-gov-east-1", &config, "https://iam.us-gov.amazonaws.com"),
            (
                IAM,
                "eusc-de-east-1",
                &config,
                "https://iam.eusc-de-east-1.amazonaws.eu",
            ),
        ] {
            assert_eq!(endpoint(service, region, config).await.unwrap(), expected);
        }

        assert_eq!(signed_for(KMS, "eu-west-1"), "eu-west-1");
        assert_eq!(signed_for(IAM, "eu-west-1"), "us-east-1");
        assert_eq!(signed_for(IAM, "us-gov-east-1"), "us-gov-west-1");
    }
}
