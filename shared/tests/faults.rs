//! Faults of AWS: every kind of request that the probe and the client on instances make, times
//! every way in which a service may fail. Each is repeated and done, or is an error that says what
//! failed: nothing is lost, and nothing passes in silence.
//!
//! `cargo test -p neverlapse --test faults -- --nocapture` prints the table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::retry::RetryPartition;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use futures::{StreamExt as _, stream};
use neverlapse::alert::{Digest, Sender, Topic};
use neverlapse::aws;
use neverlapse::bucket::store::{Expecting, LONGEST_FILE, Object, Store};
use neverlapse::finding::Severity;
use neverlapse::timestamp::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// What is asked of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    List,
    Create,
    Replace,
    Overwrite,
    Remove,
    Publish,
}

/// What becomes of the first request, or of every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Nobody listens.
    Refused,
    /// The connection ends before anything is done.
    Reset,
    /// The connection ends after everything is done.
    ResetAfterwards,
    /// There is no answer.
    Silent,
    /// The answer ends in its middle.
    Truncated,
    /// The answer comes a few bytes at a time.
    Slow,
    /// An answer with this status, error code and Retry-After.
    Status(u16, &'static str, Option<&'static str>),
}

const CALLS: [Call; 7] = [
    Call::Read,
    Call::List,
    Call::Create,
    Call::Replace,
    Call::Overwrite,
    Call::Remove,
    Call::Publish,
];
/// More at once would starve each other of the seconds that a timeout leaves: on a busy machine a
/// hundred did.
const AT_ONCE: usize = 24;
const FAULTS: [Fault; 14] = [
    Fault::None,
    Fault::Refused,
    Fault::Reset,
    Fault::ResetAfterwards,
    Fault::Silent,
    Fault::Truncated,
    Fault::Slow,
    Fault::Status(500, "InternalError", None),
    Fault::Status(503, "ServiceUnavailable", Some("1")),
    Fault::Status(503, "SlowDown", None),
    Fault::Status(400, "Throttling", None),
    Fault::Status(409, "ConditionalRequestConflict", None),
    Fault::Status(412, "PreconditionFailed", None),
    Fault::Status(403, "AccessDenied", None),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_call_survives_a_fault_or_says_what_failed() {
    let mut cells = Vec::new();
    for call in CALLS {
        for fault in FAULTS {
            for always in [false, true] {
                cells.push(cell(call, fault, always));
            }
        }
    }
    for Cell {
        call,
        fault,
        always,
        requests,
        result,
        objects,
        published,
    } in stream::iter(cells).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
    {
        let how_often = if always { "always" } else { "once" };
        let outcome = result.as_ref().map_or_else(String::as_str, |()| "done");
        println!(
            "{:9} | {:52} | {how_often:6} | {requests:2} requests | {outcome}",
            format!("{call:?}"),
            format!("{fault:?}")
        );

        let context = format!("{call:?} {fault:?} {how_often}: {outcome}");
        let is_there = |content: &[u8]| objects.get(KEY).is_some_and(|(found, _)| found == content);
        match &result {
            // Whatever is called done is done.
            Ok(()) => match call {
                Call::Read | Call::List => {}
                Call::Create | Call::Replace | Call::Overwrite => assert!(is_there(NEW), "{context}"),
                Call::Remove => assert!(!objects.contains_key(KEY), "{context}"),
                Call::Publish => assert!(published >= 1, "{context}"),
            },
            // Whatever is not done says so, with what was tried.
            Err(error) => {
                let what = if call == Call::Publish { TOPIC } else { KEY };
                assert!(
                    error.contains(what) || call == Call::List && error.contains("list"),
                    "{context}"
                );
            }
        }

        // A fault that passes is survived, unless the service has decided against the request.
        let is_decided = match fault {
            Fault::Status(403, ..) => true,
            // The condition is not met, says S3; without one, that is no answer to the request.
            Fault::Status(412 | 409, ..) if call != Call::Create && call != Call::Replace && call != Call::Remove => {
                true
            }
            Fault::Status(412, ..) => true,
            _ => false,
        };
        let is_harmless =
            matches!(fault, Fault::None | Fault::Slow) || !always && fault != Fault::Refused && !is_decided;
        // Who removes an object by its ETag and was not answered finds none: another may have done
        // it.
        let is_ambiguous = call == Call::Remove && matches!(fault, Fault::ResetAfterwards | Fault::Truncated);
        assert!(result.is_ok() || !is_harmless || is_ambiguous, "{context}");
        // Nobody is asked without an end.
        assert!(requests <= 30, "{context}: {requests}");
    }
}

struct Cell {
    call: Call,
    fault: Fault,
    always: bool,
    requests: usize,
    result: Result<(), String>,
    objects: BTreeMap<String, (Vec<u8>, String)>,
    published: usize,
}

async fn cell(call: Call, fault: Fault, always: bool) -> Cell {
    // Retries are paid from one purse per partition, which all cells would share.
    let cell = RetryPartition::new(format!("{call:?} {fault:?} {always}"));
    let service = Service::start(call, fault, always).await;
    let config = service.config().await;
    let store = Store::new(aws_sdk_s3::Client::from_conf(s3(&config, &cell)), "bucket");
    let result = perform(call, &store, &config, &cell).await;
    let state = service.state.lock().unwrap_or_else(PoisonError::into_inner);
    Cell {
        call,
        fault,
        always,
        requests: state.requests,
        result,
        objects: state.objects.clone(),
        published: state.published,
    }
}

async fn perform(call: Call, store: &Store, config: &SdkConfig, cell: &RetryPartition) -> Result<(), String> {
    let words = |error: neverlapse::bucket::store::Error| error.to_string();
    let new = Object::new(NEW, "text/plain");
    match call {
        Call::Read => {
            let read = store
                .object(READ, LONGEST_FILE)
                .await
                .map_err(|error| error.to_string().replace(READ, KEY))?;
            assert_eq!(read.as_deref(), Some(OLD), "what was read is whole");
        }
        Call::List => {
            let keys = store.keys("").await.map_err(words)?;
            assert!(keys.contains(&READ.to_owned()), "{keys:?}");
        }
        Call::Create => drop(store.put(KEY, new, Expecting::Nothing).await.map_err(words)?),
        Call::Replace => {
            drop(store.put(KEY, new, Expecting::Tag(TAG)).await.map_err(words)?);
        }
        Call::Overwrite => drop(store.put(KEY, new, Expecting::Anything).await.map_err(words)?),
        Call::Remove => store.delete_unchanged(KEY, TAG).await.map_err(words)?,
        Call::Publish => {
            let digest = Digest::plain("OK: a test", "a test", Severity::Ok, Timestamp::UNIX_EPOCH);
            let sns = aws_sdk_sns::config::Builder::from(config).retry_partition(cell.clone());
            let topic = Topic::new(aws_sdk_sns::Client::from_conf(sns.build()), TOPIC);
            let sender = Sender::of("prod", TOPIC, "bucket");
            topic
                .publish(&digest, &sender)
                .await
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn s3(config: &SdkConfig, cell: &RetryPartition) -> aws_sdk_s3::Config {
    let config = aws_sdk_s3::config::Builder::from(config).retry_partition(cell.clone());
    config.force_path_style(true).build()
}

/// As much of S3 and SNS as these calls need.
struct Service {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    fault: Fault,
    always: bool,
    requests: usize,
    objects: BTreeMap<String, (Vec<u8>, String)>,
    published: usize,
}

impl Service {
    async fn start(call: Call, fault: Fault, always: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut objects = BTreeMap::from([(READ.to_owned(), (OLD.to_vec(), TAG.to_owned()))]);
        if call != Call::Create {
            objects.insert(KEY.to_owned(), (OLD.to_vec(), TAG.to_owned()));
        }
        let state = Arc::new(Mutex::new(State {
            fault,
            always,
            requests: 0,
            objects,
            published: 0,
        }));
        if fault != Fault::Refused {
            let state = state.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, state.clone()));
                }
            });
        }
        Self { address, state }
    }

    /// The product's own configuration, for this service.
    async fn config(&self) -> SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "test");
        let config = aws::config().await.unwrap().into_builder();
        config
            .endpoint_url(format!("http://{}", self.address))
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Some((head, body)) = request(&mut stream).await {
        let (fault, answer) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.requests += 1;
            let is_hit = state.always || state.requests == 1;
            let fault = if is_hit { state.fault } else { Fault::None };
            let is_done = matches!(
                fault,
                Fault::None | Fault::ResetAfterwards | Fault::Truncated | Fault::Slow
            );
            let answer = if is_done {
                state.answer(&head, body)
            } else {
                String::new()
            };
            (fault, answer)
        };
        let written = match fault {
            Fault::None | Fault::Refused => stream.write_all(answer.as_bytes()).await,
            Fault::Reset | Fault::ResetAfterwards => return,
            Fault::Silent => return std::future::pending().await,
            Fault::Truncated => {
                // In the middle of the body, or of the head where there is no body.
                let end = answer.len() - (answer.len() - answer.find("\r\n\r\n").unwrap_or(0)) / 2;
                let _ = stream.write_all(&answer.as_bytes()[..end.min(answer.len() - 3)]).await;
                return;
            }
            Fault::Slow => {
                for part in answer.as_bytes().chunks(40) {
                    if stream.write_all(part).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            }
            Fault::Status(status, code, retry_after) => {
                let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
                let body = if head.starts_with("POST") {
                    format!("<ErrorResponse>{body}</ErrorResponse>")
                } else {
                    body
                };
                let retry_after = retry_after.map_or_else(String::new, |after| format!("retry-after: {after}\r\n"));
                let answer = format!(
                    "HTTP/1.1 {status} X\r\n{retry_after}content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await
            }
        };
        if written.is_err() {
            return;
        }
    }
}

impl State {
    /// Does what a request asks for.
    fn answer(&mut self, head: &str, body: Vec<u8>) -> String {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let header = |name: &str| {
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            lines
                .filter(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
                .next()
        };
        let path = path.split('?').next().unwrap_or_default();
        let key = path.trim_start_matches("/bucket").trim_start_matches('/').to_owned();
        let there = self.objects.get(&key).cloned();

        let is_met = match (header("if-match"), header("if-none-match")) {
            (Some(tag), _) => there.as_ref().is_some_and(|(_, found)| *found == tag),
            (None, Some(_)) => there.is_none(),
            (None, None) => true,
        };
        match method {
            "POST" => {
                self.published += 1;
                ok(
                    "",
                    "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>",
                )
            }
            "GET" if key.is_empty() => {
                let keys = self
                    .objects
                    .keys()
                    .map(|key| format!("<Contents><Key>{key}</Key></Contents>"));
                let keys: String = keys.collect();
                ok(
                    "",
                    &format!("<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"),
                )
            }
            "GET" => match there {
                Some((content, tag)) => ok(&format!("etag: {tag}\r\n"), &String::from_utf8_lossy(&content)),
                None => status(404, "NoSuchKey"),
            },
            _ if !is_met && there.is_none() => status(404, "NoSuchKey"),
            _ if !is_met => status(412, "PreconditionFailed"),
            "PUT" => {
                let tag = format!("\"{}\"", self.requests);
                self.objects.insert(key, (body, tag.clone()));
                ok(&format!("etag: {tag}\r\n"), "")
            }
            _ => {
                self.objects.remove(&key);
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            }
        }
    }
}

fn ok(headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status(status: u16, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The next request's head and body.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length
        .filter_map(|(_, value)| value.trim().parse().ok())
        .next()
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// What is written and removed; not there for [`Call::Create`].
const KEY: &str = "written.json";
const READ: &str = "read.json";
const TAG: &str = "\"old\"";
const OLD: &[u8] = b"the content before";
const NEW: &[u8] = b"the content after";
const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:alerts";
