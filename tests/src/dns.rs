//! A DNS server on loopback, over UDP and TCP. It knows a few names, and serves the records of the
//! emulated Route 53, which has no DNS of its own.
//!
//! A CA asks a hundred questions at once, and the emulator does one thing at a time. The server
//! therefore reads Route 53 as a whole, and one reading answers every question that came before it
//! began. So a change is visible to every question that is asked after it.
//!
//! On a busy machine a reading can take longer than a client waits. Its question is then answered
//! from the last reading, as by a name server that a change has not reached yet: the renewer asks
//! until it sees its records, and only then the CA.

use std::collections::{BTreeMap, HashMap};
use std::iter::successors;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use aws_sdk_route53::Client;
use aws_sdk_route53::types::{HostedZone, ResourceRecordSet};
use data_encoding::HEXLOWER_PERMISSIVE;
use futures::future::try_join_all;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::NULL;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Names, lower case and without the last dot, and their addresses.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

/// A running server; ends when dropped.
pub struct Dns {
    /// Where, for UDP and TCP alike.
    pub address: SocketAddr,
    _server: Server<Handler>,
}

impl Dns {
    /// Answers for these names, and that there is no other.
    pub async fn start(names: Names) -> Result<Self> {
        Self::with_accounts(names, &[]).await
    }

    /// Answers for these names, and for all others from the public hosted zones behind `config`.
    pub async fn with_route53(names: Names, config: &aws_config::SdkConfig) -> Result<Self> {
        Self::with_accounts(names, &[config]).await
    }

    /// Likewise, from those of several accounts.
    pub async fn with_accounts(names: Names, configs: &[&aws_config::SdkConfig]) -> Result<Self> {
        let (udp, tcp) = listeners().await?;
        Self::serve(udp, tcp, names, configs)
    }

    /// Likewise, at a given address: the port that name servers have needs privileges.
    pub async fn at(address: SocketAddr, names: Names, config: &aws_config::SdkConfig) -> Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(address).await?;
        Self::serve(udp, tcp, names, &[config])
    }

    fn serve(udp: UdpSocket, tcp: TcpListener, names: Names, configs: &[&aws_config::SdkConfig]) -> Result<Self> {
        let route53 = Route53::new(configs.iter().map(|config| Client::new(config)).collect());
        let address = udp.local_addr()?;

        let mut server = Server::new(Handler {
            source: Arc::new(Source { names, route53 }),
            answers: Mutex::default(),
        });
        server.register_socket(udp);
        server.register_listener(tcp, IDLE, QUEUED);
        Ok(Self {
            address,
            _server: server,
        })
    }
}

/// A port that is free for both.
pub(crate) async fn listeners() -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr()?).await {
            return Ok((udp, tcp));
        }
    }
    anyhow::bail!("no port is free for UDP and TCP")
}

/// Answers each question in a task of its own. hickory-server handles the questions of a TCP
/// connection one after the other, and each would wait for a reading of its own.
struct Handler {
    source: Arc<Source>,
    answers: Mutex<JoinSet<()>>,
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, client: R) -> ResponseInfo {
        let asked = Instant::now();
        let copy = Request::from_bytes(request.as_slice().to_vec(), request.src(), request.protocol());

        let mut answers = self.answers.lock().await;
        while answers.try_join_next().is_some() {}
        if let Ok(request) = copy {
            answers.spawn(answer(self.source.clone(), asked, request, client));
        }

        ResponseInfo::from(Header {
            metadata: Metadata::response_from_request(&request.metadata),
            counts: HeaderCounts::default(),
        })
    }
}

/// Answers a question: records, none of that type, or no such name. hickory-server truncates what
/// is too long for UDP, so that the client asks again over TCP.
async fn answer<R: ResponseHandler>(source: Arc<Source>, asked: Instant, request: Request, mut client: R) {
    let found = match request.request_info() {
        Ok(info) => {
            let name = plain(&info.query.name().to_ascii());
            source.records(&name, info.query.query_type(), asked).await
        }
        Err(_) => Err(ResponseCode::FormErr),
    };

    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.authoritative = true;
    metadata.response_code = *found.as_ref().err().unwrap_or(&ResponseCode::NoError);

    // EDNS is only for clients that use it themselves (RFC 6891, 7).
    let mut edns = Edns::new();
    edns.set_max_payload(request.max_payload());
    let edns = request.edns.as_ref().map(|_| &edns);

    let records = found.unwrap_or_default();
    let response = MessageResponseBuilder::new(&request.queries, edns);
    // An error means that the client is gone, and needs no answer.
    let _ = client
        .send_response(response.build(metadata, &records, [], [], []))
        .await;
}

/// Where answers come from.
struct Source {
    names: Names,
    route53: Route53,
}

impl Source {
    /// The records of a name at `asked` or later, or the code of an answer without records.
    async fn records(&self, name: &str, wanted: RecordType, asked: Instant) -> Result<Vec<Record>, ResponseCode> {
        let failed = |_| ResponseCode::ServFail;
        if let Some(addresses) = self.names.get(name) {
            let owner = owner(name).map_err(failed)?;
            let records = addresses
                .iter()
                .map(|address| Record::from_rdata(owner.clone(), TTL, RData::from(*address)));
            return Ok(records.filter(|record| record.record_type() == wanted).collect());
        }

        let zones = self.route53.zones(asked).await.ok_or(ResponseCode::ServFail)?;
        let found = records(&zones, name, wanted, CNAMES).map_err(failed)?;
        found.ok_or(ResponseCode::NXDomain)
    }
}

/// The public hosted zones of some accounts.
struct Route53 {
    /// Asks for a reading, or for another one after that which is under way.
    wanted: Arc<Notify>,
    latest: watch::Receiver<Option<Reading>>,
    /// Ends with this.
    _reader: JoinSet<()>,
}

/// The zones of one reading.
#[derive(Clone)]
struct Reading {
    begun: Instant,
    /// Nothing if it failed.
    zones: Option<Arc<Zones>>,
}

/// Zones and what is in them, by name. All names are as [`plain`] has them.
type Zones = HashMap<String, Vec<ResourceRecordSet>>;

impl Route53 {
    fn new(accounts: Vec<Client>) -> Self {
        let wanted = Arc::new(Notify::new());
        let (readings, latest) = watch::channel(None);
        let mut reader = JoinSet::new();
        reader.spawn(read(accounts, wanted.clone(), readings));
        Self {
            wanted,
            latest,
            _reader: reader,
        }
    }

    /// The zones as they were at `asked` or later, or before it if that takes too long; nothing if
    /// they cannot be read.
    async fn zones(&self, asked: Instant) -> Option<Arc<Zones>> {
        self.wanted.notify_one();
        let mut latest = self.latest.clone();
        let is_fresh = |reading: &Option<Reading>| reading.as_ref().is_some_and(|reading| reading.begun >= asked);

        let fresh = timeout(IN_TIME, latest.wait_for(is_fresh)).await.map(drop);
        if fresh.is_err() {
            // There is an older one, except at the very beginning.
            latest.wait_for(Option::is_some).await.ok()?;
        }
        self.latest.borrow().clone()?.zones
    }
}

/// Reads the zones whenever that is wanted.
async fn read(accounts: Vec<Client>, wanted: Arc<Notify>, readings: watch::Sender<Option<Reading>>) {
    loop {
        wanted.notified().await;
        let begun = Instant::now();
        let zones = match try_join_all(accounts.iter().map(zones)).await {
            Ok(zones) => Some(Arc::new(zones.into_iter().flatten().collect())),
            Err(error) => {
                eprintln!("the tests' DNS server cannot read Route 53: {error:?}");
                None
            }
        };
        readings.send_replace(Some(Reading { begun, zones }));
    }
}

/// The public hosted zones of an account. They are read concurrently, so that all of them together
/// wait only once for the emulator's other work.
async fn zones(route53: &Client) -> Result<Vec<(String, Vec<ResourceRecordSet>)>> {
    let zones = route53.list_hosted_zones().into_paginator().items().send();
    let zones: Vec<HostedZone> = zones.try_collect().await?;
    let public = zones
        .iter()
        .filter(|zone| !zone.config.as_ref().is_some_and(|config| config.private_zone));
    try_join_all(public.map(async |zone| Ok((plain(&zone.name), sets(route53, &zone.id).await?)))).await
}

async fn sets(route53: &Client, zone: &str) -> Result<Vec<ResourceRecordSet>> {
    let mut sets = Vec::new();
    let mut request = route53.list_resource_record_sets().hosted_zone_id(zone);
    loop {
        let page = request.clone().send().await?;
        sets.extend(page.resource_record_sets);
        if !page.is_truncated {
            break;
        }
        request = request
            .set_start_record_name(page.next_record_name)
            .set_start_record_type(page.next_record_type)
            .set_start_record_identifier(page.next_record_identifier);
    }

    for set in &mut sets {
        set.name = plain(&set.name);
    }
    Ok(sets)
}

/// The records of a name, with the CNAMEs on the way; nothing if there is no such name.
fn records(zones: &Zones, name: &str, wanted: RecordType, cnames: usize) -> Result<Option<Vec<Record>>> {
    // The longest zone that holds a name is the one that answers for it; a zone's DS records are
    // its parent's (RFC 4035, 2.4).
    let mut parents = successors(Some(name), |name| Some(name.split_once('.')?.1));
    if wanted == RecordType::DS {
        parents.next();
    }
    let zone = parents.find_map(|parent| zones.get(parent));
    let Some(zone) = zone else { return Ok(None) };
    let Some(holder) = holder(zone, name) else {
        return Ok(None);
    };

    let mut found = Vec::new();
    for set in zone.iter().filter(|set| set.name == holder) {
        found.extend(answers(set, name, wanted)?);
    }

    if let Some(RData::CNAME(target)) = found.last().map(|record| &record.data)
        && wanted != RecordType::CNAME
        && cnames > 1
    {
        let further = records(zones, &plain(&target.to_ascii()), wanted, cnames - 1)?;
        found.extend(further.into_iter().flatten());
    }
    Ok(Some(found))
}

/// The name whose records answer for `name`: itself, or the wildcard below the nearest name above
/// it that exists (RFC 4592, 3.3.1). Nothing if there is no such name.
fn holder(zone: &[ResourceRecordSet], name: &str) -> Option<String> {
    let exists = |name: &str| {
        zone.iter()
            .any(|set| set.name == name || set.name.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    };
    if exists(name) {
        return Some(name.to_owned());
    }
    let mut parents = successors(Some(name), |name| Some(name.split_once('.')?.1)).skip(1);
    let wildcard = format!("*.{}", parents.find(|parent| exists(parent))?);
    zone.iter().any(|set| set.name == wildcard).then_some(wildcard)
}

/// The records of a set that answer a question about a name. A CNAME answers questions of every
/// type (RFC 1034, 3.6.2).
fn answers(set: &ResourceRecordSet, name: &str, wanted: RecordType) -> Result<Vec<Record>> {
    let kind = set.r#type.as_str().parse().ok();
    let Some(kind) = kind.filter(|kind| [wanted, RecordType::CNAME].contains(kind)) else {
        return Ok(Vec::new());
    };

    let owner = owner(name)?;
    let values = set.resource_records().iter().map(|record| {
        // Route 53 writes values as zone files do: a TXT is one or more strings in quotes.
        let data = data(kind, &record.value)?;
        Ok(Record::from_rdata(owner.clone(), TTL, data))
    });
    values.collect()
}

fn data(kind: RecordType, value: &str) -> Result<RData> {
    let RecordType::DS = kind else {
        return Ok(RData::try_from_str(kind, value)?);
    };
    // The library takes no DS record from text: key tag, algorithm, kind of digest, digest.
    let words: Vec<_> = value.split_whitespace().collect();
    let [tag, algorithm, digest_kind, digest] = words[..] else {
        anyhow::bail!("{value:?} is no DS record");
    };
    let mut raw = tag.parse::<u16>()?.to_be_bytes().to_vec();
    raw.extend([algorithm.parse::<u8>()?, digest_kind.parse()?]);
    raw.extend(HEXLOWER_PERMISSIVE.decode(digest.as_bytes())?);
    Ok(RData::Unknown {
        code: kind,
        rdata: NULL::with(raw),
    })
}

fn owner(name: &str) -> Result<Name> {
    Ok(Name::from_ascii(format!("{name}."))?)
}

/// Route 53 writes an asterisk as `\\052`.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').replace("\\052", "*").to_ascii_lowercase()
}

/// Pebble asks once, and waits for two seconds.
const IN_TIME: Duration = Duration::from_millis(1_200);
const TTL: u32 = 1;
const CNAMES: usize = 10;
/// Longer than any client waits for an answer, so that no connection is closed before its answer.
const IDLE: Duration = Duration::from_secs(60);
/// How many answers may wait for a TCP client to take them: hickory-server's default.
const QUEUED: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_sdk_route53::config::Credentials;
    use axum::Router;
    use axum::extract::{Path, State};
    use axum::http::{StatusCode, Uri};
    use axum::routing::get;
    use futures::future::{join, join_all};
    use hickory_server::proto::op::{self, Message, MessageType, OpCode};
    use neverlapse::resolve::{Error, Resolver};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn the_resolver_of_the_probe_understands_it() {
        let both: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let names = [
            ("both.shop.test".to_owned(), both.to_vec()),
            ("none.shop.test".to_owned(), vec![]),
        ];
        let dns = Dns::start(names.into()).await.unwrap();
        let resolver = Resolver::new(Some(dns.address), Duration::from_secs(60)).unwrap();

        let found = resolver.addresses(&"Both.shop.test".parse().unwrap()).await.unwrap();
        assert_eq!(found.addresses, both);
        let none = resolver.addresses(&"none.shop.test".parse().unwrap()).await;
        assert!(matches!(none, Err(Error::NoAddress)), "{none:?}");
        let nobody = resolver.addresses(&"nobody.shop.test".parse().unwrap()).await;
        assert!(matches!(nobody, Err(Error::NoSuchName)), "{nobody:?}");
    }

    #[tokio::test]
    async fn it_answers_over_tcp_too() {
        let names = [("a.test".to_owned(), vec!["127.0.0.1".parse().unwrap()])];
        let dns = Dns::start(names.into()).await.unwrap();
        let answer = over_tcp(&dns, &question(1, "a.test", RecordType::A)).await;
        assert_eq!(answer.answers.len(), 1);
    }

    /// Each question once read Route 53 for itself, and the last of a hundred timed out.
    #[tokio::test]
    async fn a_hundred_questions_at_once_share_a_few_readings() {
        let name = |number: u16| format!("n{number:02}.shop.test");
        let records = (0..100).map(|number| record("shop.test", &name(number), "TXT", &format!("\"{number}\"")));
        let route53 = Stub::start(records.collect()).await;
        let dns = Dns::with_route53(Names::new(), &route53.config).await.unwrap();

        // Half of them come over UDP, half over one TCP connection without waiting for answers.
        let udp = (0..50).map(async |number| over_udp(&dns, &question(number, &name(number), RecordType::TXT)).await);
        let tcp = async {
            let mut stream = TcpStream::connect(dns.address).await.unwrap();
            for number in 50..100 {
                send(&mut stream, &question(number, &name(number), RecordType::TXT)).await;
            }
            let mut answers = Vec::new();
            while answers.len() < 50 {
                answers.push(receive(&mut stream).await);
            }
            answers
        };
        let (udp, tcp) = join(join_all(udp), tcp).await;

        let mut answered = BTreeSet::new();
        for answer in udp.iter().chain(&tcp) {
            assert_eq!(texts(answer), [answer.id.to_string()]);
            answered.insert(answer.id);
        }
        assert_eq!(answered.len(), 100);
        // Two, if all questions come during the first one.
        let readings = route53.readings();
        assert!(readings < 10, "{readings} readings");
    }

    #[tokio::test]
    async fn a_change_made_before_the_question_is_seen_though_a_reading_is_under_way() {
        let value = |value| vec![record("shop.test", "a.shop.test", "TXT", value)];
        let route53 = Stub::start(value("\"old\"")).await;
        let dns = Dns::with_route53(Names::new(), &route53.config).await.unwrap();
        let question = question(1, "a.shop.test", RecordType::TXT);

        let early = over_udp(&dns, &question);
        let late = async {
            // The records have been read, but the answer is still on its way.
            route53.state.read.notified().await;
            *route53.state.records.lock().await = value("\"new\"");
            over_udp(&dns, &question).await
        };
        let (early, late) = join(early, late).await;
        assert_eq!(texts(&early), ["old"]);
        assert_eq!(texts(&late), ["new"]);
        assert_eq!(route53.readings(), 2);
    }

    /// On a busy machine, readings took longer than Pebble waits for an answer.
    #[tokio::test]
    async fn while_a_reading_takes_long_the_last_one_answers() {
        let value = |value| vec![record("shop.test", "a.shop.test", "TXT", value)];
        let route53 = Stub::start(value("\"old\"")).await;
        let dns = Dns::with_route53(Names::new(), &route53.config).await.unwrap();
        let question = question(1, "a.shop.test", RecordType::TXT);
        assert_eq!(texts(&over_udp(&dns, &question).await), ["old"]);

        // No reading ends as long as somebody has this.
        let mut records = route53.state.records.lock().await;
        assert_eq!(texts(&over_udp(&dns, &question).await), ["old"]);

        *records = value("\"new\"");
        drop(records);
        assert_eq!(texts(&over_udp(&dns, &question).await), ["new"]);
    }

    #[tokio::test]
    async fn it_answers_as_route_53_would() {
        let long = "x".repeat(255);
        let mut records = vec![
            record("shop.test", "www.shop.test", "A", "192.0.2.1"),
            record("shop.test", "alias.shop.test", "CNAME", "Many.other.test"),
            record("shop.test", "circle.shop.test", "CNAME", "circle.shop.test."),
            record(
                "shop.test",
                "hidden.sub.shop.test",
                "TXT",
                "\"not in the zone of that name\"",
            ),
        ];
        let value = |number| format!("\"{number}\" \"{long}\"");
        records.extend((0..9).map(|number| record("other.test", "many.other.test", "TXT", &value(number))));
        let route53 = Stub::start(records).await;
        let dns = Dns::with_route53(Names::new(), &route53.config).await.unwrap();
        let ask = async |name, kind| over_udp(&dns, &question(1, name, kind)).await;

        let found = ask("WWW.Shop.test", RecordType::A).await;
        assert_eq!(found.answers[0].data, RData::from(IpAddr::from([192, 0, 2, 1])));
        let no_such_type = ask("www.shop.test", RecordType::TXT).await;
        assert_eq!(
            (no_such_type.response_code, no_such_type.answers.len()),
            (ResponseCode::NoError, 0)
        );
        for name in ["nobody.shop.test", "nobody.test", "hidden.sub.shop.test"] {
            assert_eq!(
                ask(name, RecordType::TXT).await.response_code,
                ResponseCode::NXDomain,
                "{name}"
            );
        }
        assert_eq!(ask("circle.shop.test", RecordType::TXT).await.answers.len(), CNAMES);
        assert_eq!(ask("circle.shop.test", RecordType::CNAME).await.answers.len(), 1);

        // A CNAME leads into another zone, to more records than UDP carries.
        let many = question(1, "alias.shop.test", RecordType::TXT);
        assert!(over_udp(&dns, &many).await.truncation);
        let whole = over_tcp(&dns, &many).await;
        let expected: Vec<_> = (0..9).map(|number| format!("{number}{long}")).collect();
        assert_eq!(texts(&whole), expected);

        route53.state.refuses.store(true, Ordering::Relaxed);
        assert_eq!(
            ask("www.shop.test", RecordType::A).await.response_code,
            ResponseCode::ServFail
        );
    }

    fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
        let mut question = Message::new(id, MessageType::Query, OpCode::Query);
        question.add_query(op::Query::query(owner(name).unwrap(), kind));
        question.to_vec().unwrap()
    }

    async fn over_udp(dns: &Dns, question: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(question, dns.address).await.unwrap();
        let mut answer = [0; 4_096];
        let length = socket.recv(&mut answer).await.unwrap();
        Message::from_vec(&answer[..length]).unwrap()
    }

    async fn over_tcp(dns: &Dns, question: &[u8]) -> Message {
        let mut stream = TcpStream::connect(dns.address).await.unwrap();
        send(&mut stream, question).await;
        receive(&mut stream).await
    }

    async fn send(stream: &mut TcpStream, question: &[u8]) {
        stream.write_u16(question.len().try_into().unwrap()).await.unwrap();
        stream.write_all(question).await.unwrap();
    }

    async fn receive(stream: &mut TcpStream) -> Message {
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }

    fn texts(answer: &Message) -> Vec<String> {
        let texts = answer.answers.iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.to_string()),
            _ => None,
        });
        texts.collect()
    }

    /// A slow Route 53 with [`ZONES`].
    struct Stub {
        config: SdkConfig,
        state: Arc<Shared>,
        serving: JoinHandle<()>,
    }

    struct Shared {
        records: Mutex<Vec<Entry>>,
        readings: AtomicUsize,
        /// The records of the first zone are read, and not yet sent.
        read: Notify,
        refuses: AtomicBool,
    }

    struct Entry {
        zone: &'static str,
        name: String,
        kind: &'static str,
        value: String,
    }

    fn record(zone: &'static str, name: &str, kind: &'static str, value: &str) -> Entry {
        let (name, value) = (name.to_owned(), value.to_owned());
        Entry {
            zone,
            name,
            kind,
            value,
        }
    }

    impl Stub {
        async fn start(records: Vec<Entry>) -> Self {
            let state = Arc::new(Shared {
                records: Mutex::new(records),
                readings: AtomicUsize::default(),
                read: Notify::new(),
                refuses: AtomicBool::default(),
            });
            let routes = Router::new()
                .route("/2013-04-01/hostedzone", get(hosted_zones))
                .route("/2013-04-01/hostedzone/{zone}/rrset", get(record_sets))
                .with_state(state.clone());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });

            let config = aws_config::defaults(BehaviorVersion::latest())
                .endpoint_url(endpoint)
                .region(Region::new("eu-central-1"))
                .credentials_provider(Credentials::new("test", "test", None, None, "a stub"))
                .http_client(neverlapse::aws::https(&neverlapse::aws::Way::default()));
            let config = config.load().await;
            Self { config, state, serving }
        }

        fn readings(&self) -> usize {
            self.state.readings.load(Ordering::Relaxed)
        }
    }

    impl Drop for Stub {
        fn drop(&mut self) {
            self.serving.abort();
        }
    }

    async fn hosted_zones(State(shared): State<Arc<Shared>>) -> Result<String, StatusCode> {
        if shared.refuses.load(Ordering::Relaxed) {
            return Err(StatusCode::FORBIDDEN);
        }
        shared.readings.fetch_add(1, Ordering::Relaxed);
        sleep(SLOW).await;
        let zones = ZONES.map(|zone| {
            format!(
                "<HostedZone><Id>/hostedzone/{zone}</Id><Name>{zone}.</Name>\
                 <CallerReference>1</CallerReference></HostedZone>"
            )
        });
        Ok(format!(
            "<ListHostedZonesResponse><HostedZones>{}</HostedZones><Marker></Marker>\
             <IsTruncated>false</IsTruncated><MaxItems>100</MaxItems></ListHostedZonesResponse>",
            zones.concat()
        ))
    }

    async fn record_sets(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, uri: Uri) -> String {
        let mut parameters = uri.query().unwrap_or_default().split('&');
        let from = parameters.find_map(|parameter| parameter.strip_prefix("name="));
        let page = page(&shared.records.lock().await, &zone, from);

        if zone == ZONES[0] {
            shared.read.notify_one();
        }
        sleep(SLOW).await;
        page
    }

    fn page(records: &[Entry], zone: &str, from: Option<&str>) -> String {
        let records: Vec<_> = records.iter().filter(|record| record.zone == zone).collect();
        let first = records.iter().position(|record| Some(&*record.name) == from);
        let mut rest = records.into_iter().skip(first.unwrap_or(0));

        let sets = rest.by_ref().take(PAGE).map(|record| {
            format!(
                "<ResourceRecordSet><Name>{}.</Name><Type>{}</Type><ResourceRecords><ResourceRecord>\
                 <Value>{}</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>",
                record.name, record.kind, record.value
            )
        });
        let sets: String = sets.collect();
        let next = rest.next().map(|record| {
            let (name, kind) = (&record.name, record.kind);
            format!("<NextRecordName>{name}</NextRecordName><NextRecordType>{kind}</NextRecordType>")
        });
        format!(
            "<ListResourceRecordSetsResponse><ResourceRecordSets>{sets}</ResourceRecordSets>\
             <IsTruncated>{}</IsTruncated>{}<MaxItems>{PAGE}</MaxItems></ListResourceRecordSetsResponse>",
            next.is_some(),
            next.unwrap_or_default()
        )
    }

    const ZONES: [&str; 3] = ["shop.test", "sub.shop.test", "other.test"];
    const SLOW: Duration = Duration::from_millis(50);
    const PAGE: usize = 30;
}
