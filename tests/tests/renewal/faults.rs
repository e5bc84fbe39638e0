//! Every answer that a CA, Route 53, DNS, S3 or SNS can give at every step of a renewal, once and
//! for good, and what becomes of the certificate.
//!
//! Each fault meets a renewal of its own. If that does not publish, it has to say so, and the next
//! one, which meets no fault, has to publish. In the end there is one certificate and no TXT
//! record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use aws_config::SdkConfig;
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use futures::stream::{self, StreamExt as _};
use neverlapse::renewal::request::Request;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::dns::{Dns, Names};
use neverlapse_tests::dns_fault::{DnsFate, DnsProxy};
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::fault::{Fate, Line, Proxy, Reply};
use neverlapse_tests::pebble::{Options, Pebble};
use neverlapse_tests::pki::{Authority, Leaf};
use neverlapse_tests::program::program;
use neverlapse_tests::runtime::{Function, TIMEOUT_SECONDS};
use tempfile::TempDir;
use time::Duration;

use crate::bucket::Bucket;
use crate::fixture::{ANOTHER_ACCOUNT, Lab, batch, certificate, forced, request};

/// Who answers, and to which requests.
#[derive(Clone, Copy, Debug)]
struct Step {
    who: Who,
    what: &'static str,
    method: &'static str,
    /// Its path has this in it.
    path: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Ca,
    Route53,
    Dns,
    S3,
    Sns,
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// HTTP's status, and the type of an ACME problem or AWS's code.
    Refusal(u16, &'static str),
    /// 200, and nothing that anybody understands.
    Nonsense,
    /// The connection breaks before the request is heard.
    CutBefore,
    /// The request is fulfilled, but the answer is lost.
    CutAfter,
    /// The answer comes in small pieces.
    Trickled,
    /// What a name server answers, or that it does not.
    Dns(DnsFate),
}

/// One fault of one renewal.
#[derive(Clone, Copy, Debug)]
struct Fault {
    step: Step,
    answer: Answer,
    /// Which of the step's requests meet it: one of them, counted from 1, or all.
    at: Option<usize>,
}

const fn step(who: Who, what: &'static str, method: &'static str, path: &'static str) -> Step {
    Step {
        who,
        what,
        method,
        path,
    }
}

const STEPS: [Step; 27] = [
    step(Who::Ca, "directory", "GET", "/dir"),
    step(Who::Ca, "nonce", "HEAD", "/nonce-plz"),
    step(Who::Ca, "newAccount", "POST", "/sign-me-up"),
    step(Who::Ca, "newOrder", "POST", "/order-plz"),
    step(Who::Ca, "authorization", "POST", "/authZ"),
    step(Who::Ca, "challenge", "POST", "/chalZ"),
    step(Who::Ca, "order", "POST", "/my-order"),
    step(Who::Ca, "finalize", "POST", "/finalize-order"),
    step(Who::Ca, "certificate", "POST", "/certZ"),
    step(Who::Route53, "zones", "GET", "/hostedzone"),
    step(Who::Route53, "records", "GET", "/rrset"),
    step(Who::Route53, "change", "POST", "/rrset"),
    step(Who::Route53, "in sync", "GET", "/change/"),
    step(Who::Dns, "CNAME", "CNAME", "_acme-challenge."),
    step(Who::Dns, "NS", "NS", ""),
    step(Who::Dns, "TXT", "TXT", "_acme-challenge."),
    step(Who::S3, "read inventory", "GET", "/inventory.toml"),
    step(Who::S3, "read pointer", "GET", "/current.json"),
    step(Who::S3, "read record", "GET", "/state/renewals/"),
    step(Who::S3, "read trouble", "GET", "/state/issuers/"),
    step(Who::S3, "read lease", "GET", "/orders/"),
    step(Who::S3, "write lease", "PUT", "/orders/"),
    step(Who::S3, "write account", "PUT", "/account.json"),
    step(Who::S3, "write key", "PUT", "/privkey.pem"),
    step(Who::S3, "write pointer", "PUT", "/current.json"),
    step(Who::S3, "write record", "PUT", "/state/renewals/"),
    step(Who::Sns, "alert", "POST", "/"),
];

impl Who {
    /// What it may answer to one request.
    const fn once(self) -> &'static [Answer] {
        use Answer::{CutAfter, CutBefore, Nonsense, Refusal, Trickled};
        match self {
            Self::Ca => &[
                Refusal(500, "serverInternal"),
                Refusal(503, ""),
                Refusal(429, "rateLimited"),
                Refusal(403, ""),
                Refusal(403, "unauthorized"),
                Refusal(404, "malformed"),
                Refusal(400, "badNonce"),
                Nonsense,
                CutBefore,
                CutAfter,
                Trickled,
            ],
            Self::Route53 => &[
                Refusal(400, "Throttling"),
                Refusal(400, "PriorRequestNotComplete"),
                Refusal(400, "InvalidChangeBatch"),
                Refusal(403, "AccessDenied"),
                Refusal(500, "InternalError"),
                Nonsense,
                CutBefore,
                CutAfter,
                Trickled,
            ],
            Self::Dns => &[
                Answer::Dns(SERVFAIL),
                Answer::Dns(NXDOMAIN),
                Answer::Dns(REFUSED),
                Answer::Dns(NO_RECORD),
                Answer::Dns(DnsFate::Stale),
                Answer::Dns(SLOW),
                Answer::Dns(DnsFate::Silence),
            ],
            // Not 412, which says the truth: somebody else has written, and does the work.
            Self::S3 => &[
                Refusal(403, "AccessDenied"),
                Refusal(409, "ConditionalRequestConflict"),
                Refusal(500, "InternalError"),
                Refusal(503, "SlowDown"),
                CutBefore,
                CutAfter,
                Trickled,
            ],
            Self::Sns => &[
                Refusal(403, "AuthorizationError"),
                Refusal(500, "InternalError"),
                CutBefore,
            ],
        }
    }

    /// And to all of them, until somebody repairs it.
    const fn for_good(self) -> &'static [Answer] {
        use Answer::{CutBefore, Nonsense, Refusal};
        match self {
            Self::Ca => &[
                Refusal(500, "serverInternal"),
                Refusal(403, "unauthorized"),
                Nonsense,
                CutBefore,
            ],
            Self::Route53 => &[Refusal(403, "AccessDenied"), Refusal(400, "Throttling"), Nonsense],
            Self::Dns => &[
                Answer::Dns(SERVFAIL),
                Answer::Dns(NXDOMAIN),
                Answer::Dns(REFUSED),
                Answer::Dns(NO_RECORD),
                Answer::Dns(DnsFate::Stale),
                Answer::Dns(DnsFate::Silence),
            ],
            Self::S3 => &[Refusal(403, "AccessDenied"), Refusal(503, "SlowDown")],
            Self::Sns => &[Refusal(403, "AuthorizationError")],
        }
    }
}

impl Fault {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for step in STEPS {
            let mut add = |answers: &[Answer], at| {
                all.extend(answers.iter().map(|&answer| Self { step, answer, at }));
            };
            add(step.who.once(), Some(1));
            if matches!(step.what, "write lease" | "records" | "change" | "order") {
                add(step.who.once(), Some(2));
            }
            add(step.who.for_good(), None);
        }
        all
    }

    fn fate(&self) -> Fate {
        match self.answer {
            Answer::Refusal(status, code) if self.step.who == Who::Ca && code.is_empty() => Fate::Answer(
                Reply {
                    status,
                    headers: vec![("content-type", "text/html".to_owned())],
                    body: "<h1>no</h1>".to_owned(),
                }
                .with("retry-after", "1"),
            ),
            Answer::Refusal(status, code) if self.step.who == Who::Ca => {
                Fate::Answer(Reply::problem(status, code, "fault").with("replay-nonce", "none"))
            }
            Answer::Refusal(status, code) => Fate::Refuse(status, self.step.who.error(code)),
            Answer::Nonsense => Fate::Answer(Reply {
                status: 200,
                headers: vec![("replay-nonce", "none".to_owned())],
                body: "hello".to_owned(),
            }),
            Answer::CutBefore => Fate::CutBefore,
            Answer::CutAfter => Fate::CutAfter,
            Answer::Trickled => Fate::Trickle,
            Answer::Dns(_) => Fate::Pass,
        }
    }

    fn meets(&self, line: &str) -> bool {
        let Step { method, path, .. } = self.step;
        line.strip_prefix(method)
            .and_then(|rest| rest.strip_prefix(' '))
            .is_some_and(|url| {
                let is_elsewhere = self.step.what == "zones" && url.contains("/rrset");
                let is_alert = self.step.who != Who::Sns || url == "/";
                url.contains(path) && !is_elsewhere && is_alert
            })
    }
}

impl Who {
    /// An error as each service writes it.
    fn error(self, code: &str) -> String {
        match self {
            Self::S3 => format!("<Error><Code>{code}</Code><Message>fault</Message></Error>"),
            Self::Ca | Self::Route53 | Self::Dns | Self::Sns => format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>fault</Message></Error><RequestId>0</RequestId></ErrorResponse>"
            ),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.map_or("always".to_owned(), |at| format!("request {at}"));
        write!(f, "{:?}, {}, {at}: {:?}", self.step.who, self.step.what, self.answer)
    }
}

/// What became of a renewal that met a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Became {
    /// The certificate, as if nothing had been.
    Published,
    /// An alert, and the certificate with the next try.
    AlertThenPublished,
    /// The request was handed back to the queue, which gives it up with an alarm, and the next try
    /// published.
    ReturnedThenPublished,
}

pub(crate) async fn what_every_fault_at_every_step_becomes(_: &Lab) -> Result<()> {
    let world = World::open().await?;
    let only = std::env::var("FAULT").unwrap_or_default();
    let faults: Vec<_> = Fault::all()
        .into_iter()
        .filter(|fault| fault.to_string().contains(&only))
        .collect();
    let results: Vec<_> = stream::iter(faults.iter().enumerate())
        .map(|(number, fault)| {
            let world = &world;
            async move { (fault, world.meet(number, fault).await) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    let mut table = BTreeMap::<_, BTreeMap<_, usize>>::new();
    let mut failed = Vec::new();
    for (fault, became) in &results {
        match became {
            Ok(became) => {
                let row = (format!("{:?}", fault.step.who), fault.step.what);
                *table.entry(row).or_default().entry(*became).or_default() += 1;
            }
            Err(error) => failed.push(format!("{fault}: {error:#}")),
        }
    }
    println!(
        "{:<8} {:<16} {:>9} {:>6} {:>8}",
        "", "step", "published", "alert", "returned"
    );
    for ((who, what), row) in &table {
        let count = |became| row.get(&became).copied().unwrap_or_default();
        println!(
            "{who:<8} {what:<16} {:>9} {:>6} {:>8}",
            count(Became::Published),
            count(Became::AlertThenPublished),
            count(Became::ReturnedThenPublished)
        );
    }
    println!("Survived {} of {}", results.len() - failed.len(), results.len());
    ensure!(
        failed.is_empty(),
        "{} faults were not survived:\n{}",
        failed.len(),
        failed.join("\n")
    );
    Ok(())
}

/// Whether a fault is still there, and how many requests of its step have come.
struct Meeting {
    fault: Fault,
    /// None when somebody has repaired it.
    count: Mutex<Option<usize>>,
    met: AtomicUsize,
}

impl Meeting {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            count: Mutex::new(Some(0)),
            met: AtomicUsize::new(0),
        }
    }

    /// Whether this request meets it.
    fn is_now(&self, line: &str) -> bool {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = count.as_mut().filter(|_| self.fault.meets(line)) else {
            return false;
        };
        *count += 1;
        self.met.store(*count, Ordering::Relaxed);
        self.fault.at.is_none_or(|at| at == *count)
    }

    /// Repairs it; answers how many requests of its step had come.
    fn end(&self) -> usize {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.met.load(Ordering::Relaxed)
    }
}

/// An AWS, a name server and a CA for all faults; each has its own bucket, name and account.
struct World {
    emulator: Emulator,
    dns: Dns,
    zone: String,
    /// A zone of another account, and that account.
    elsewhere: String,
    others: SdkConfig,
    topic: String,
    pebble: Pebble,
    leaf: Leaf,
    roots: String,
    renewer: std::path::PathBuf,
    folder: TempDir,
}

impl World {
    async fn open() -> Result<Self> {
        let emulator = Emulator::start().await?;
        let others = emulator.account(ANOTHER_ACCOUNT).await;
        let dns = Dns::with_accounts(Names::new(), &[&emulator.config, &others]).await?;
        let zone = zone_at(&emulator.config, ZONE).await?;
        let elsewhere = zone_at(&others, ELSEWHERE).await?;
        let topic = aws_sdk_sns::Client::new(&emulator.config)
            .create_topic()
            .name("alerts")
            .send()
            .await?;
        let options = Options {
            nonces_refused: 0,
            ..Options::default()
        };
        let pebble = Pebble::start(options, dns.address).await?;
        let authority = Authority::new()?;
        Ok(Self {
            zone,
            elsewhere,
            others,
            topic: topic.topic_arn.context("a topic")?,
            leaf: authority.leaf("127.0.0.1", Timestamp::now() + Duration::days(60))?,
            roots: format!("{}{}", authority.root(), pebble.issuing_root),
            renewer: program("renewer").await?,
            folder: tempfile::tempdir()?,
            emulator,
            dns,
            pebble,
        })
    }

    async fn meet(&self, number: usize, fault: &Fault) -> Result<Became> {
        let name = format!("f{number}.{ZONE}");
        let meeting = Arc::new(Meeting::new(*fault));
        let finalized = Arc::new(Mutex::new(BTreeSet::new()));
        let fate = {
            let (meeting, finalized) = (meeting.clone(), finalized.clone());
            move |line: &Line| {
                let fate = if meeting.is_now(line) {
                    meeting.fault.fate()
                } else {
                    Fate::Pass
                };
                let is_heard = matches!(fate, Fate::Pass | Fate::CutAfter | Fate::Trickle);
                if is_heard && let Some(order) = line.strip_prefix("POST /finalize-order") {
                    finalized
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(order.to_owned());
                }
                fate
            }
        };
        let upstream = self.pebble.directory.trim_end_matches("/dir");
        let ca = Proxy::start_tls(upstream, &self.pebble.listening_root, &self.leaf, fate.clone()).await?;
        let aws = Proxy::start(&self.emulator.endpoint, fate).await?;
        let dns = {
            let meeting = meeting.clone();
            let fate = move |line: &str| match meeting.fault.answer {
                Answer::Dns(fate) if meeting.is_now(line) => fate,
                _ => DnsFate::Pass,
            };
            DnsProxy::start(self.dns.address, fate).await?
        };
        let mut identifiers = vec![name.clone(), format!("*.{name}")];
        if fault.step.who == Who::Dns {
            identifiers.push(self.delegate(number, &name).await?);
        }
        let bucket = self.bucket(number, &name, &identifiers, &ca.endpoint).await?;
        let log = self.folder.path().join(format!("{number}.log"));
        let run = async |request: Request| {
            let environment = self.environment(&bucket, &aws.endpoint, dns.address);
            let function = Function::start(&self.renewer, &environment, &log).await?;
            let answer = function.invoke(batch(&request, OPERATORS)?).await?;
            anyhow::Ok(answer["batchItemFailures"].as_array().is_some_and(Vec::is_empty))
        };
        let logged = || std::fs::read_to_string(&log).unwrap_or_default();

        let is_done = run(request(&name)).await?;
        let met = meeting.end();
        let became = if bucket.current(&name).await?.is_some() {
            Became::Published
        } else {
            let failure = bucket.renewal(&name).await?.and_then(|renewal| renewal.failure);
            let is_told = failure.is_some_and(|failure| failure.next_try > failure.at && !failure.problem.is_empty());
            if is_told && logged().contains("alert published") {
                Became::AlertThenPublished
            } else if !is_done && logged().contains("request failed") {
                Became::ReturnedThenPublished
            } else {
                bail!("silence:\n{}", logged());
            }
        };

        // One that died may have left a lease for a minute; a person waits for that.
        let mut tries = 0;
        while bucket.current(&name).await?.is_none() {
            ensure!(tries < 2, "never published:\n{}", logged());
            tries += 1;
            run(forced(&name)).await?;
        }
        bucket.verified(&name, &self.pebble).await?;
        // What was left is taken out by a later run.
        if self.left(&name).await? {
            run(request(&name)).await?;
            ensure!(!self.left(&name).await?, "a TXT record is left:\n{}", logged());
        }
        let issued = finalized.lock().unwrap_or_else(PoisonError::into_inner).len();
        ensure!(issued == 1, "{issued} certificates for one need:\n{}", logged());
        if met == 0 && fault.step.who != Who::Sns && fault.at != Some(2) {
            bail!("nothing met the fault:\n{}", logged());
        }
        Ok(became)
    }

    /// A name in a zone that the renewer cannot write, which leads to another one's challenge by
    /// CNAME.
    async fn delegate(&self, number: usize, to: &str) -> Result<String> {
        let name = format!("f{number}.{ELSEWHERE}");
        let set = ResourceRecordSet::builder()
            .name(format!("_acme-challenge.{name}"))
            .r#type(RrType::Cname)
            .ttl(60)
            .resource_records(
                ResourceRecord::builder()
                    .value(format!("_acme-challenge.{to}"))
                    .build()?,
            )
            .build()?;
        let change = Change::builder()
            .action(ChangeAction::Create)
            .resource_record_set(set)
            .build()?;
        aws_sdk_route53::Client::new(&self.others)
            .change_resource_record_sets()
            .hosted_zone_id(&self.elsewhere)
            .change_batch(ChangeBatch::builder().changes(change).build()?)
            .send()
            .await?;
        Ok(name)
    }

    async fn bucket(&self, number: usize, name: &str, identifiers: &[String], ca: &str) -> Result<Bucket> {
        let bucket = format!("faults-{number}");
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder()
            .location_constraint(aws_sdk_s3::types::BucketLocationConstraint::EuCentral1);
        aws_sdk_s3::Client::new(&self.emulator.config)
            .create_bucket()
            .bucket(&bucket)
            .create_bucket_configuration(place.build())
            .send()
            .await?;
        let bucket = Bucket::new(&self.emulator.config, &bucket);
        let identifiers: Vec<_> = identifiers.iter().map(String::as_str).collect();
        let entry = certificate(name, &identifiers, "faulty");
        let issuer = format!("[issuer.faulty]\ndirectory = \"{ca}/dir\"\nca = \"ca/faulty.pem\"\n");
        bucket.put("inventory.toml", &format!("{entry}{issuer}")).await?;
        bucket.put("ca/faulty.pem", &self.roots).await?;
        Ok(bucket)
    }

    fn environment(&self, bucket: &Bucket, aws: &str, nameserver: SocketAddr) -> Vec<(String, String)> {
        let nameserver = nameserver.to_string();
        let own = [
            ("BUCKET", bucket.name()),
            ("ALERT_TOPIC_ARN", &self.topic),
            ("OPERATOR_TOPIC_ARN", OPERATORS),
            (
                "SECRETS_KEY_ARN",
                "arn:aws:kms:eu-central-1:000000000000:key/00000000-0000-4000-8000-000000000000",
            ),
            ("RENEWER_NAMESERVER", &nameserver),
            ("AWS_ENDPOINT_URL", aws),
            // Enough for a renewal, and not more than patience needs.
            (TIMEOUT_SECONDS, "36"),
        ];
        let all = self.emulator.environment().into_iter().chain(own);
        all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Whether a TXT record of this name is in the zone.
    async fn left(&self, name: &str) -> Result<bool> {
        let page = aws_sdk_route53::Client::new(&self.emulator.config)
            .list_resource_record_sets()
            .hosted_zone_id(&self.zone)
            .start_record_name(format!("_acme-challenge.{name}"))
            .max_items(1)
            .send()
            .await?;
        let first = page.resource_record_sets.first();
        Ok(first.is_some_and(|set| set.name.trim_end_matches('.') == format!("_acme-challenge.{name}")))
    }
}

/// Makes a hosted zone, and answers with its id.
async fn zone_at(config: &SdkConfig, name: &str) -> Result<String> {
    let created = aws_sdk_route53::Client::new(config)
        .create_hosted_zone()
        .name(name)
        .caller_reference(name)
        .send()
        .await?;
    Ok(created.hosted_zone.context("a zone")?.id)
}

const SERVFAIL: DnsFate = DnsFate::Code(2);
const NXDOMAIN: DnsFate = DnsFate::Code(3);
const REFUSED: DnsFate = DnsFate::Code(5);
const NO_RECORD: DnsFate = DnsFate::Code(0);
const SLOW: DnsFate = DnsFate::Slow(std::time::Duration::from_secs(2));
const ZONE: &str = "faults.test";
const ELSEWHERE: &str = "elsewhere-faults.test";
const OPERATORS: &str = "arn:aws:sns:eu-central-1:000000000000:operators";
/// Most of a renewal is waiting.
const AT_ONCE: usize = 8;
