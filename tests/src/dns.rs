//! A DNS server on loopback, over UDP and TCP: it knows a few names, and what stands in the emulated Route 53, which has no DNS of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use aws_sdk_route53::Client;
use aws_sdk_route53::types::{ResourceRecordSet, RrType};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, NS, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// Names, lower case and without the last dot, and their addresses.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

/// Where answers come from.
struct Source {
    names: Names,
    /// One of each account.
    route53: Vec<Client>,
}

/// A running server.
#[derive(Debug)]
pub struct Dns {
    /// Where, for UDP and TCP alike.
    pub address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Dns {
    /// Answers for these names, and that there is no other.
    pub async fn start(names: Names) -> Result<Self> {
        Self::of(listeners().await?, names, Vec::new())
    }

    /// Answers for these names, and for all others from the public hosted zones behind `config`.
    pub async fn with_route53(names: Names, config: &aws_config::SdkConfig) -> Result<Self> {
        Self::with_accounts(names, &[config]).await
    }

    /// Likewise, from those of several accounts.
    pub async fn with_accounts(names: Names, configs: &[&aws_config::SdkConfig]) -> Result<Self> {
        Self::of(
            listeners().await?,
            names,
            configs.iter().map(|config| Client::new(config)).collect(),
        )
    }

    /// Likewise, at a given address: the port that name servers have needs privileges.
    pub async fn at(address: SocketAddr, names: Names, config: &aws_config::SdkConfig) -> Result<Self> {
        let listeners = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
        Self::of(listeners, names, vec![Client::new(config)])
    }

    fn of((udp, tcp): (UdpSocket, TcpListener), names: Names, route53: Vec<Client>) -> Result<Self> {
        let (address, source) = (udp.local_addr()?, Arc::new(Source { names, route53 }));
        let tasks = [
            tokio::spawn(answer_udp(udp, source.clone())),
            tokio::spawn(answer_tcp(tcp, source)),
        ];
        Ok(Self { address, tasks })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A port that is free for both.
async fn listeners() -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr()?).await {
            return Ok((udp, tcp));
        }
    }
    anyhow::bail!("no port is free for UDP and TCP")
}

async fn answer_udp(socket: UdpSocket, source: Arc<Source>) {
    let (socket, mut packet) = (Arc::new(socket), [0; 4_096]);
    while let Ok((length, client)) = socket.recv_from(&mut packet).await {
        let (socket, source, query) = (socket.clone(), source.clone(), packet[..length].to_vec());
        tokio::spawn(async move {
            if let Ok(answer) = answer(&query, &source, UDP_BYTES).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn answer_tcp(listener: TcpListener, source: Arc<Source>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(stream, source.clone()));
    }
}

async fn converse(mut stream: TcpStream, source: Arc<Source>) -> Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await?;
        let answer = answer(&query, &source, usize::MAX).await?;
        stream.write_u16(answer.len().try_into()?).await?;
        stream.write_all(&answer).await?;
    }
}

/// The answer to one query: records, none of that type, or no such name; what is too long for UDP is to be asked over TCP.
async fn answer(query: &[u8], source: &Source, longest: usize) -> Result<Vec<u8>> {
    let query = Message::from_vec(query)?;
    let question = query.queries().first().context("no question")?;
    let mut answer = Message::new();
    answer.set_id(query.id()).set_message_type(MessageType::Response);
    answer.set_op_code(OpCode::Query).set_authoritative(true);
    answer.set_recursion_desired(query.recursion_desired());
    answer.add_query(question.clone());
    let name = plain(&question.name().to_ascii());
    match source.records(&name, question.query_type()).await {
        Ok(Some(records)) => drop(answer.add_answers(records)),
        Ok(None) => drop(answer.set_response_code(ResponseCode::NXDomain)),
        Err(_) => drop(answer.set_response_code(ResponseCode::ServFail)),
    }
    let mut bytes = answer.to_vec()?;
    if bytes.len() > longest {
        answer.take_answers();
        bytes = answer.set_truncated(true).to_vec()?;
    }
    Ok(bytes)
}

impl Source {
    /// The records of a name, with the CNAMEs on the way; nothing if there is no such name.
    async fn records(&self, name: &str, wanted: RecordType) -> Result<Option<Vec<Record>>> {
        let owner: Name = format!("{name}.").parse()?;
        if let Some(addresses) = self.names.get(name) {
            let matching = addresses.iter().filter(|address| record_type(address) == wanted);
            let record = |&address: &IpAddr| Record::from_rdata(owner.clone(), TTL, RData::from(address));
            return Ok(Some(matching.map(record).collect()));
        }
        if self.route53.is_empty() {
            return Ok(None);
        }
        let zones = public_zones(&self.route53).await?;
        let (mut name, mut found) = (name.to_owned(), Vec::new());
        for _ in 0..CNAMES {
            let sets = sets(&zones, &name).await?;
            let owner: Name = format!("{name}.").parse()?;
            let cname = sets
                .iter()
                .find(|set| set.r#type == RrType::Cname && wanted != RecordType::CNAME);
            // Beside a CNAME nothing else is asked for but the CNAME itself.
            let of_type = sets.iter().filter(|set| cname.is_none() || set.r#type == RrType::Cname);
            for value in of_type.flat_map(|set| {
                set.resource_records()
                    .iter()
                    .map(move |record| (&set.r#type, &record.value))
            }) {
                if let Some(data) = data(value.0, value.1, wanted)? {
                    found.push(Record::from_rdata(owner.clone(), TTL, data));
                }
            }
            match cname.and_then(|set| set.resource_records().first()) {
                Some(target) => name = plain(&target.value),
                None if sets.is_empty() && found.is_empty() => return Ok(None),
                None => break,
            }
        }
        Ok(Some(found))
    }
}

/// A hosted zone, its name, and who knows it.
type Zone<'a> = (String, String, &'a Client);

async fn public_zones(accounts: &[Client]) -> Result<Vec<Zone<'_>>> {
    let mut zones = Vec::new();
    for route53 in accounts {
        let mut pages = route53.list_hosted_zones().into_paginator().send();
        while let Some(page) = pages.next().await {
            let public = page?
                .hosted_zones
                .into_iter()
                .filter(|zone| !zone.config.as_ref().is_some_and(|config| config.private_zone));
            zones.extend(public.map(|zone| (zone.id, plain(&zone.name), route53)));
        }
    }
    Ok(zones)
}

/// What the longest zone that holds `name` has of it.
async fn sets(zones: &[Zone<'_>], name: &str) -> Result<Vec<ResourceRecordSet>> {
    let holds = |zone: &&Zone<'_>| name == zone.1 || name.ends_with(&format!(".{}", zone.1));
    let Some((zone, _, route53)) = zones.iter().filter(holds).max_by_key(|zone| zone.1.len()) else {
        return Ok(Vec::new());
    };
    let request = route53.list_resource_record_sets().hosted_zone_id(zone);
    let page = request.start_record_name(name).send().await?;
    Ok(page
        .resource_record_sets
        .into_iter()
        .filter(|set| plain(&set.name) == name)
        .collect())
}

fn data(kind: &RrType, value: &str, wanted: RecordType) -> Result<Option<RData>> {
    Ok(match (kind, wanted) {
        (RrType::Cname, _) => Some(RData::CNAME(CNAME(format!("{}.", plain(value)).parse()?))),
        (RrType::Ns, RecordType::NS) => Some(RData::NS(NS(format!("{}.", plain(value)).parse()?))),
        (RrType::Txt, RecordType::TXT) => Some(RData::TXT(TXT::new(vec![value.trim_matches('"').to_owned()]))),
        (RrType::A, RecordType::A) | (RrType::Aaaa, RecordType::AAAA) => Some(RData::from(value.parse::<IpAddr>()?)),
        _ => None,
    })
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn record_type(address: &IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

const TTL: u32 = 1;
const UDP_BYTES: usize = 1_200;
const CNAMES: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use neverlapse::resolve::{Error, Resolver};

    use super::*;

    #[tokio::test]
    async fn the_resolver_of_the_probe_understands_it() {
        let both: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let names = [
            ("both.shop.test".to_owned(), both.to_vec()),
            ("none.shop.test".to_owned(), vec![]),
        ];
        let dns = Dns::start(names.into()).await.unwrap();
        let resolver = Resolver::new(Some(dns.address), Duration::from_secs(5)).unwrap();
        let found = resolver.addresses(&"Both.shop.test".parse().unwrap()).await.unwrap();
        assert_eq!(found, both);
        let none = resolver.addresses(&"none.shop.test".parse().unwrap()).await;
        assert!(matches!(none, Err(Error::NoAddress)), "{none:?}");
        let nobody = resolver.addresses(&"nobody.shop.test".parse().unwrap()).await;
        assert!(matches!(nobody, Err(Error::NoSuchName)), "{nobody:?}");
    }

    #[tokio::test]
    async fn it_answers_over_tcp_too() {
        let names = [("a.test".to_owned(), vec!["127.0.0.1".parse().unwrap()])];
        let dns = Dns::start(names.into()).await.unwrap();
        let mut query = Message::new();
        let name = "a.test.".parse().unwrap();
        query.add_query(hickory_proto::op::Query::query(name, RecordType::A));
        let query = query.to_vec().unwrap();
        let mut stream = TcpStream::connect(dns.address).await.unwrap();
        stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers().len(), 1);
    }
}
