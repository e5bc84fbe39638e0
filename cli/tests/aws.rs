//! The way to AWS: regions, proxies and credentials that a host may have. Nothing here leaves this
//! machine.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");

/// Listens on this machine, remembers the first line of every request, and always gives the same
/// answer.
struct Listener {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    fn new(answer: &'static str) -> Self {
        Self::slow(answer, Duration::ZERO)
    }

    /// Answers after this time.
    fn slow(answer: &'static str, delay: Duration) -> Self {
        Self::start(move |stream| converse(stream, answer, delay))
    }

    /// Speaks TLS, with a certificate for 127.0.0.1.
    fn secured(answer: &'static str, certificate: &CertifiedKey<KeyPair>) -> Self {
        let chain = vec![certificate.cert.der().clone()];
        let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);

        Self::start(move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            converse(StreamOwned::new(connection, stream), answer, Duration::ZERO)
        })
    }

    /// Remembers what `converse` heard on each connection.
    fn start(converse: impl Fn(TcpStream) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let remembered = heard.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let heard = converse(stream.unwrap());
                remembered.lock().unwrap().push(heard);
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// Reads a request, gives the answer, and returns the request's first line.
fn converse(stream: impl Read + Write, answer: &str, delay: Duration) -> String {
    let mut stream = BufReader::new(stream);
    let mut lines = stream.by_ref().lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    for _ in lines.take_while(|line| !line.is_empty()) {}

    thread::sleep(delay);
    let _ = stream.get_mut().write_all(answer.as_bytes());
    first
}

struct Host {
    folder: TempDir,
}

impl Host {
    fn new(general: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tls, state) = (folder.path().join("tls"), folder.path().join("state"));
        let config = format!(
            "bucket = \"my-bucket\"\nfolder = {tls:?}\nstate = {state:?}\n{general}\n[[certificate]]\nname = \"shop.test\"\n"
        );
        fs::write(folder.path().join("pull.toml"), config).unwrap();
        Self { folder }
    }

    /// Exit code, and everything that it said.
    fn pull(&self, variables: &[(&str, &str)]) -> (i32, String) {
        let mut pull = without_proxies();
        pull.args(["pull", "--config"])
            .arg(self.folder.path().join("pull.toml"));
        let Output { status, stdout, stderr } = pull
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", self.folder.path().join("aws"))
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_MAX_ATTEMPTS", "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        (status.code().unwrap_or(-1), said)
    }
}

/// The command, without what this machine needs to reach the network.
fn without_proxies() -> Command {
    let mut command = Command::new(NEVERLAPSE);
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.to_lowercase().ends_with("_proxy")) {
        command.env_remove(variable);
    }
    command
}

const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "example"),
];
const GONE: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn a_bucket_in_another_region_was_a_riddle() {
    let s3 = Listener::new(
        "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-1\r\nconnection: close\r\n\r\n\
         <?xml version=\"1.0\"?><Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to access must be \
         addressed using the specified endpoint.</Message></Error>",
    );
    let endpoint = format!("http://{}", s3.address);
    let (code, said) = Host::new("").pull(
        &[
            &KEYS[..],
            &[("AWS_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", &endpoint)],
        ]
        .concat(),
    );
    let expected = "the bucket is in the region eu-west-1, and us-east-1 was asked (set AWS_REGION=eu-west-1, or region = \"eu-west-1\" in pull.toml)";
    assert!(code != 0 && said.contains(expected), "{said}");
}

#[test]
fn what_is_missing_is_named_in_a_line() {
    let forbidding = Listener::new("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let endpoint = format!("http://{}", forbidding.address);
    let region = ("AWS_REGION", "us-east-1");
    let answered = [&KEYS[..], &[region, ("AWS_ENDPOINT_URL", &endpoint)]].concat();
    for (variables, expected) in [
        // The SDK's words are five lines.
        (
            &[region][..],
            "current.json: no AWS credentials were found (expected an instance's or a container's role, a profile, or \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY); nothing is installed\n",
        ),
        (
            &KEYS[..],
            "current.json: no region is known (set AWS_REGION, or region = \"…\" in pull.toml); nothing is installed\n",
        ),
        (
            &answered,
            "current.json: HTTP 403 and no reason; nothing is installed\n",
        ),
    ] {
        let (code, said) = Host::new("").pull(variables);
        assert!(code == 2 && said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

/// The same of requests that are made without the SDK.
#[test]
fn what_keeps_a_stack_from_being_found_is_named() {
    let forbidding = Listener::new(
        "HTTP/1.1 403 Forbidden\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    let endpoint = format!("http://{}", forbidding.address);
    let region = ("AWS_REGION", "us-east-1");
    let answered = [&KEYS[..], &[region, ("AWS_ENDPOINT_URL", &endpoint)]].concat();
    let nobody = [
        &KEYS[..],
        &[region, ("AWS_ENDPOINT_URL", "http://me:secret@127.0.0.1:1")],
    ]
    .concat();
    for (variables, expected) in [
        (
            &[region][..],
            "error: cannot ask AWS for the stack \"neverlapse\": no AWS credentials were found (expected an instance's",
        ),
        (
            &KEYS[..],
            "error: no region is known (expected AWS_REGION, or a profile that has one)",
        ),
        (
            &answered,
            "error: cannot ask AWS for the stack \"neverlapse\": HTTP 403: no reason was given (this machine's clock is ",
        ),
        (
            &nobody,
            "error: cannot ask AWS for the stack \"neverlapse\": 127.0.0.1:1: Connection refused",
        ),
    ] {
        let ran = without_proxies()
            .arg("status")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(3) && said.starts_with(expected), "{said}");
    }
}

#[test]
fn the_proxy_is_asked_for_aws_and_for_nothing_else() {
    let (proxy, metadata) = (Listener::new(GONE), Listener::new(GONE));
    let host = Host::new("region = \"eu-west-1\"");
    let [through, direct] = [&proxy, &metadata].map(|listener| format!("http://{}", listener.address));
    let environment = [
        ("HTTPS_PROXY", through.as_str()),
        ("HTTP_PROXY", through.as_str()),
        ("AWS_REGION", "us-east-1"),
    ];
    host.pull(&[&KEYS[..], &environment].concat());
    let heard = proxy.heard();
    // The bucket's region is that of pull.toml; who this is, is asked in the own one.
    for expected in [
        "CONNECT my-bucket.s3.eu-west-1.amazonaws.com:443",
        "CONNECT sts.us-east-1.amazonaws.com:443",
    ] {
        assert!(
            heard.iter().any(|line| line.starts_with(expected)),
            "{expected}: {heard:?}"
        );
    }

    // Credentials come from the metadata service, which no proxy reaches.
    host.pull(
        &[
            &environment[..],
            &[
                ("AWS_EC2_METADATA_DISABLED", "false"),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &direct),
            ],
        ]
        .concat(),
    );
    let asked = metadata.heard();
    assert!(
        asked.iter().any(|line| line.starts_with("PUT /latest/api/token")),
        "{asked:?}"
    );
    assert!(
        proxy.heard().iter().all(|line| line.starts_with("CONNECT ")),
        "{:?}",
        proxy.heard()
    );

    let before = proxy.heard().len();
    host.pull(
        &[
            &KEYS[..],
            &environment,
            &[("NO_PROXY", "amazonaws.com,127.0.0.1"), ("AWS_ENDPOINT_URL", &direct)],
        ]
        .concat(),
    );
    assert_eq!(proxy.heard().len(), before, "{:?}", proxy.heard());
}

#[test]
fn what_cannot_be_used_is_named() {
    let host = Host::new("");
    for (variable, value, expected) in [
        ("HTTPS_PROXY", "socks5://127.0.0.1:1", "HTTPS_PROXY is no proxy: "),
        (
            "AWS_CA_BUNDLE",
            "/no/such.pem",
            "AWS_CA_BUNDLE = \"/no/such.pem\" is of no use: No such file",
        ),
    ] {
        let (code, said) = host.pull(&[(variable, value)]);
        assert!(code == 3 && said.contains(expected), "{said}");
    }

    // Profiles, also those that lead to one that is missing or is a session of `aws login`.
    fs::write(
        host.folder.path().join("aws"),
        "[default]\nregion = us-east-1\nlogin_session = arn:aws:iam::123456789012:user/me\n\
         [profile web]\nrole_arn = arn:aws:iam::123456789012:role/web\nsource_profile = default\n\
         [profile mail]\nrole_arn = arn:aws:iam::123456789012:role/mail\nsource_profile = gone\n",
    )
    .unwrap();
    for (profile, expected) in [
        ("default", "the profile \"default\" is a session of `aws login`"),
        ("web", "the profile \"default\" is a session of `aws login`"),
        ("mail", "there is no profile \"gone\""),
        ("nobody", "there is no profile \"nobody\""),
    ] {
        let (code, said) = host.pull(&[("AWS_PROFILE", profile)]);
        assert!(code == 3 && said.contains(expected), "{said}");
    }
}

/// A proxy that opens TLS, or a private endpoint, has a certificate of nobody's. Services that are
/// asked without the SDK are no exception.
#[test]
fn a_bundle_of_roots_counts_for_every_service() {
    let stack = Listener::new(STACK);
    let nothing = Listener::new(
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n<Error><Code>NoSuchKey</Code><Message>none</Message></Error>",
    );
    let zones = Listener::new(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
         <ListHostedZonesResponse><HostedZones></HostedZones><IsTruncated>false</IsTruncated><MaxItems>100</MaxItems>\
         </ListHostedZonesResponse>",
    );
    let certificate = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let secured = |answer| Listener::secured(answer, &certificate);
    let acm = secured("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
    let iam = secured("HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n<a/>");

    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.pem");
    fs::write(&bundle, certificate.cert.pem()).unwrap();
    let [cloudformation, s3, route53] =
        [&stack, &nothing, &zones].map(|listener| format!("http://{}", listener.address));
    let discovered = without_proxies()
        .arg("discover")
        .envs(KEYS)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_CA_BUNDLE", bundle)
        .env("AWS_ENDPOINT_URL", format!("https://{}", acm.address))
        .env("AWS_ENDPOINT_URL_IAM", format!("https://{}", iam.address))
        .env("AWS_ENDPOINT_URL_CLOUDFORMATION", cloudformation)
        .env("AWS_ENDPOINT_URL_S3", s3)
        .env("AWS_ENDPOINT_URL_ROUTE_53", route53)
        .output()
        .unwrap();
    let said = String::from_utf8([discovered.stdout, discovered.stderr].concat()).unwrap();
    assert!(
        discovered.status.success() && said.contains("0 certificates of ACM and IAM"),
        "{said}"
    );
    for asked in [acm, iam] {
        assert_eq!(asked.heard().len(), 1, "{:?}", asked.heard());
    }
}

/// Every other request is given up after ten seconds; `neverlapse run` was, too, and a server that
/// does not answer costs a run fifteen.
#[test]
fn a_run_that_takes_longer_than_other_requests_is_waited_for() {
    let stack = Listener::new(STACK);
    let probe = Listener::slow(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
         {\"schema\": \"neverlapse.report/1\", \"started_at\": \"2026-11-26T06:00:00Z\", \
         \"finished_at\": \"2026-11-26T06:00:15Z\", \"endpoints\": [], \
         \"counts\": {\"ok\": 0, \"warning\": 0, \"critical\": 0, \"unknown\": 0}}",
        Duration::from_secs(11),
    );

    let [cloudformation, lambda] = [&stack, &probe].map(|listener| format!("http://{}", listener.address));
    let ran = without_proxies()
        .arg("run")
        .envs(KEYS)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL_CLOUDFORMATION", cloudformation)
        .env("AWS_ENDPOINT_URL_LAMBDA", lambda)
        .output()
        .unwrap();
    let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
    assert!(ran.status.success() && said.contains("0 endpoints: "), "{said}");
    assert_eq!(probe.heard().len(), 1, "{:?}", probe.heard());
}

/// A second run would send the alerts of the first once more.
#[test]
fn what_only_reads_is_tried_again() {
    let count = AtomicUsize::new(0);
    let throttled = Listener::start(move |stream| {
        let answer = match count.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => THROTTLED,
            _ => STACK,
        };
        converse(stream, answer, Duration::ZERO)
    });
    let overloaded = Listener::new(OVERLOADED);

    for (stack, expected, tries) in [
        (
            &overloaded,
            "cannot ask AWS for the stack \"neverlapse\": HTTP 503: no reason was given",
            [3, 0],
        ),
        (&throttled, "cannot invoke probe: HTTP 503: no reason was given", [3, 1]),
    ] {
        let lambda = Listener::new(OVERLOADED);
        let [cloudformation, url] = [stack, &lambda].map(|listener| format!("http://{}", listener.address));
        let ran = without_proxies()
            .arg("run")
            .envs(KEYS)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL_CLOUDFORMATION", cloudformation)
            .env("AWS_ENDPOINT_URL_LAMBDA", url)
            .output()
            .unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(3) && said.contains(expected), "{said}");
        assert_eq!([stack, &lambda].map(|listener| listener.heard().len()), tries, "{said}");
    }
}

const OVERLOADED: &str = "HTTP/1.1 503 Slow Down\r\nconnection: close\r\n\r\n";
const THROTTLED: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n\
                         <ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
const STACK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
                     <DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>neverlapse</StackName>\
                     <CreationTime>2026-11-26T06:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>\
                     <member><OutputKey>BucketName</OutputKey><OutputValue>my-bucket</OutputValue></member>\
                     <member><OutputKey>ProbeFunctionName</OutputKey><OutputValue>probe</OutputValue></member>\
                     </Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>";
