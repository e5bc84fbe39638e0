//! AWS clients: one HTTPS stack, credentials and region from wherever the SDK finds them.

use std::collections::BTreeSet;
use std::time::Duration;
use std::{error, iter};

use aws_config::profile;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_sdk_sns::config::SharedHttpClient;
use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_types::os_shim_internal::{Env, Fs};
use thiserror::Error;
use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::anchor_from_trusted_cert;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::chain::roots::Roots;
use crate::pem;
use crate::text::causes;
use crate::timestamp::Timestamp;

/// The configuration for every AWS client.
///
/// Endpoints come from `AWS_ENDPOINT_URL` and its per-service variants, so the same code talks to a
/// local stack.
pub async fn config() -> Result<SdkConfig, Error> {
    let way = Way::from_environment(|name| std::env::var(name).ok())?;
    check_profile().await?;
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(https(&way))
        .timeout_config(timeouts())
        .load();
    Ok(config.await)
}

/// What our own HTTPS requests to AWS trust, which are made without the SDK: the public roots, and
/// those of `AWS_CA_BUNDLE`.
pub fn roots() -> Result<Roots, Error> {
    let way = Way::from_environment(|name| std::env::var(name).ok())?;
    Ok(Roots::public().with(way.roots))
}

/// How AWS is reached from here: directly, unless the environment says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Way {
    proxy: Option<ProxyConfig>,
    /// Trusted besides the roots of AWS: those of a proxy that opens TLS, or of a private endpoint.
    roots: Vec<CertificateDer<'static>>,
    /// Whether it is AWS in China, whose endpoints may chain to any public root: no document says
    /// to which. Those of the European Sovereign Cloud chain to the same as all others, by
    /// <https://www.amazontrust.com/repository>.
    in_china: bool,
}

/// Why AWS cannot be reached as the environment says.
#[derive(Debug, Error)]
pub enum Error {
    /// Its value is not shown, because it may hold a password.
    #[error("{variable} is no proxy: {reason} (expected such as http://proxy.example.com:3128)")]
    Proxy {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It, or one that its `source_profile` leads to, has credentials that cannot be read.
    #[error(
        "the profile {0:?} is a session of `aws login`, which is not read directly (expected another profile with \
         credential_process = aws configure export-credentials --profile {0} --format process)"
    )]
    LoginSession(String),
    /// It is asked for, and nowhere.
    #[error(
        "there is no profile {0:?} (AWS_PROFILE and source_profile name one of ~/.aws/config or ~/.aws/credentials)"
    )]
    NoProfile(String),
    /// The file that it names cannot be used.
    #[error("AWS_CA_BUNDLE = {file:?} is of no use: {reason} (expected a PEM file with roots)")]
    Bundle {
        /// As it is written.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Way {
    /// As other programs understand it: `HTTPS_PROXY` (or else `ALL_PROXY`) and `NO_PROXY`, also in
    /// lower case, and `AWS_CA_BUNDLE`.
    ///
    /// Plain HTTP never goes to a proxy: that is how the metadata service and the credentials of a
    /// container are asked for.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let written = |variable: &'static str| get(variable).filter(|value| !value.trim().is_empty());

        let proxy = PROXIES
            .into_iter()
            .find_map(|variable| written(variable).map(|url| (variable, url)));
        let no_proxy = written("NO_PROXY").or_else(|| written("no_proxy"));
        let proxy = proxy
            .map(|(variable, url)| proxy_at(variable, url.trim(), no_proxy.as_deref()))
            .transpose()?;

        let roots = written("AWS_CA_BUNDLE").map(|file| bundle(&file).map_err(|reason| Error::Bundle { file, reason }));
        let region = written("AWS_REGION").or_else(|| written("AWS_DEFAULT_REGION"));
        Ok(Self {
            proxy,
            roots: roots.transpose()?.unwrap_or_default(),
            in_china: region.is_some_and(|region| region.starts_with("cn-")),
        })
    }
}

fn proxy_at(variable: &'static str, url: &str, no_proxy: Option<&str>) -> Result<ProxyConfig, Error> {
    // As curl takes it.
    let url = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };

    let proxy = ProxyConfig::https(url).map_err(|error| Error::Proxy {
        variable,
        reason: error.to_string(),
    })?;
    Ok(match no_proxy {
        Some(rules) => proxy.no_proxy(rules),
        None => proxy,
    })
}

fn bundle(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut roots = pem::certificates(&file).map_err(|error| error.to_string())?;

    // A bundle of a whole system may hold one that the verifier does not understand.
    roots.retain(|root| webpki::anchor_from_trusted_cert(root).is_ok());
    if roots.is_empty() {
        return Err("none of its certificates can be a root".to_owned());
    }
    Ok(roots)
}

/// How long a service may take. Without these, a request that nobody answers waits until Lambda
/// ends the run, and with it the alerts that come after. Reading an object's content has its own
/// limit: the SDK gives up on one that stops.
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
pub fn https(way: &Way) -> SharedHttpClient {
    let store = TLS_SERVER_ROOT_CERTS
        .iter()
        .filter(|root| way.in_china || is_used_by_aws(root))
        .chain(&way.roots)
        .fold(TrustStore::empty(), |store, root| {
            store.with_pem_certificate(block(root))
        });
    let context = TlsContext::builder()
        .with_trust_store(store)
        .build()
        .unwrap_or_default();

    let proxy = way.proxy.clone().unwrap_or_else(ProxyConfig::disabled);
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
}

/// Why a request failed, in a line: the service's own code and words, or what kept it from
/// answering.
pub fn reason<E: ProvideErrorMetadata + error::Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(service) = error.as_service_error() {
        let words = match (service.code(), service.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            // A proxy or a firewall answers in the place of the service.
            (None, _) => match error.raw_response() {
                Some(answer) => format!("HTTP {} and no reason", answer.status().as_u16()),
                None => "no reason was given".to_owned(),
            },
        };
        let date = error.raw_response().and_then(|answer| answer.headers().get("date"));
        return words + &clock(date, Timestamp::now()).unwrap_or_default();
    }
    cause(error)
}

/// What kept a request from being sent or answered, in a line.
pub fn cause(error: &(dyn error::Error + 'static)) -> String {
    if lacks_credentials(error) {
        return NO_CREDENTIALS.to_owned();
    }
    // Some causes have several lines.
    let causes = causes(error);
    causes.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// How far this machine's clock is from that of the service that answered at this date, if that is
/// why it may have refused.
pub fn clock(date: Option<&str>, now: Timestamp) -> Option<String> {
    let ahead = now - Timestamp::from_http(date?)?;
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    (ahead.abs() >= CLOCKS_DIFFER).then(|| {
        let minutes = ahead.whole_minutes().abs();
        format!(" (this machine's clock is {minutes} min {direction} the service's, which refuses requests for that)")
    })
}

/// Whether no credentials were found at all. The SDK's own words are a line for each place where it
/// looked.
fn lacks_credentials(error: &(dyn error::Error + 'static)) -> bool {
    let mut causes = iter::successors(Some(error), |error| error.source());
    causes.any(|cause| matches!(cause.downcast_ref(), Some(CredentialsError::CredentialsNotLoaded(_))))
}

/// Follows the profile that credentials would come from. The SDK says nothing understandable about
/// one that is missing, and reads a session of `aws login` only with a second cryptography library.
async fn check_profile() -> Result<(), Error> {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(());
    }
    // What cannot be parsed is for the SDK to say.
    let loaded = profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await;
    let Ok(profiles) = loaded else {
        return Ok(());
    };

    let mut name = profiles.selected_profile();
    let mut followed = BTreeSet::new();
    // A profile may be its own source, with credentials of its own.
    while followed.insert(name) {
        let Some(profile) = profiles.get_profile(name) else {
            return match name {
                "default" => Ok(()),
                name => Err(Error::NoProfile(name.to_owned())),
            };
        };
        if profile.get("login_session").is_some() {
            return Err(Error::LoginSession(name.to_owned()));
        }
        match profile.get("source_profile") {
            Some(source) => name = source,
            None => break,
        }
    }
    Ok(())
}

/// By its subject alone: all of each root is ten times as much to read, at each start.
fn is_used_by_aws(root: &CertificateDer<'_>) -> bool {
    let anchor = anchor_from_trusted_cert(root);
    anchor.is_ok_and(|TrustAnchor { subject, .. }| {
        AWS_ROOTS
            .iter()
            .any(|name| subject.windows(name.len()).any(|window| window == name.as_bytes()))
    })
}

fn block(der: &[u8]) -> Vec<u8> {
    let body = data_encoding::BASE64.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").into_bytes()
}

const NO_CREDENTIALS: &str = "no AWS credentials were found (expected an instance's or a container's role, a profile, or \
                              AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)";
/// How long a service may take to accept a connection.
pub const CONNECT: Duration = Duration::from_secs(5);
/// One try, until the answer begins.
pub const ATTEMPT: Duration = Duration::from_secs(10);
/// All tries of one request together, with the pauses between them.
const OPERATION: Duration = Duration::from_secs(30);
/// Signatures are refused when they are older or newer than this, at some services only later.
const CLOCKS_DIFFER: time::Duration = time::Duration::minutes(5);
/// The first that is set counts.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const AWS_ROOTS: [&str; 2] = ["Amazon Root CA", "Starfield"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;

    fn way(variables: &[(&str, &str)]) -> Result<Way, String> {
        let get = |name: &str| {
            let mut variables = variables.iter();
            variables
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Way::from_environment(get).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_environment_says() {
        for (variables, expected) in [
            (&[][..], false),
            (&[("HTTPS_PROXY", "")], false),
            // It is for plain HTTP, such as the metadata service's.
            (&[("HTTP_PROXY", "http://proxy:3128")], false),
            (&[("HTTPS_PROXY", "http://proxy:3128")], true),
            (&[("https_proxy", "proxy:3128"), ("no_proxy", "169.254.169.254")], true),
            (&[("ALL_PROXY", "http://user:secret@proxy:3128")], true),
        ] {
            assert_eq!(way(variables).unwrap().proxy.is_some(), expected, "{variables:?}");
        }

        for (region, expected) in [("cn-north-1", true), ("eu-central-1", false)] {
            assert_eq!(way(&[("AWS_REGION", region)]).unwrap().in_china, expected, "{region}");
        }
    }

    /// <https://www.amazontrust.com/repository>, and what of them the public roots have.
    #[test]
    fn endpoints_chain_to_these_roots() {
        let taken = TLS_SERVER_ROOT_CERTS.iter().filter(|root| is_used_by_aws(root));
        let names = taken.map(|root| {
            let (_, root) = x509_parser::parse_x509_certificate(root).unwrap();
            let name = root.subject().iter_common_name().next().unwrap();
            name.as_str().unwrap().to_owned()
        });

        assert_eq!(
            names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            [
                "Amazon Root CA 1",
                "Amazon Root CA 2",
                "Amazon Root CA 3",
                "Amazon Root CA 4",
                "Starfield Root Certificate Authority - G2",
                "Starfield Services Root Certificate Authority - G2",
            ]
        );
    }

    /// S3 says that the times differ, STS that the signature has expired, and neither whose clock
    /// it is.
    #[test]
    fn a_clock_that_is_wrong_is_named() {
        let now = timestamp!(2026-11-26 14:00 UTC);
        for (date, expected) in [
            ("Thu, 26 Nov 2026 14:04:00 GMT", None),
            ("Thu, 26 Nov 2026 13:30:00 GMT", Some("30 min ahead of the service's")),
            ("Sat, 28 Nov 2026 14:00:00 GMT", Some("2880 min behind the service's")),
            ("today", None),
        ] {
            match (clock(Some(date), now), expected) {
                (None, None) => {}
                (Some(words), Some(expected)) => assert!(words.contains(expected), "{words}"),
                (words, _) => panic!("{date}: {words:?}"),
            }
        }
    }

    #[test]
    fn mistakes_name_the_variable_and_no_password() {
        let error = way(&[("HTTPS_PROXY", "socks5://user:secret@proxy")]).unwrap_err();
        assert!(
            error.starts_with("HTTPS_PROXY is no proxy: ") && error.contains("expected such as http://"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");

        for (content, expected) in [
            (None, "No such file"),
            (Some("nothing"), "no certificate in it"),
            (
                Some("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"),
                "is of no use: ",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("bundle.pem");
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let file = file.to_str().unwrap();
            let error = way(&[("AWS_CA_BUNDLE", file)]).unwrap_err();
            assert!(
                error.starts_with(&format!("AWS_CA_BUNDLE = {file:?}")) && error.contains(expected),
                "{error}"
            );
        }
    }
}
