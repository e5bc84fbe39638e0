//! What DNS and Route 53 say of a name whose control is to be proved: the hosted zone that it is
//! in, where its CNAMEs lead, and what CAA records and DNSSEC let a CA do.

pub mod caa;
pub mod dnssec;
pub mod path;
pub mod zone;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ProtocolConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use thiserror::Error;

use crate::resolve;

/// Why a name's control cannot be proved, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Asks name servers for records of any type, and keeps no answers.
#[derive(Clone, Debug)]
pub struct Dns {
    resolver: TokioResolver,
    /// For what UDP brought no answer to: a firewall may drop the fragments of a large one, and the
    /// library takes no truncated one that leaves the question out.
    over_tcp: TokioResolver,
}

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There is no such name.
    NoName,
    /// The name has no records of that type.
    NoRecord,
    /// There was no answer, or one that says nothing about the name.
    Failed(String),
}

impl Dns {
    /// Asks this name server and no other, or else the system's.
    pub fn new(nameserver: Option<SocketAddr>) -> Result<Self, Error> {
        nameserver.map_or_else(Self::system, Self::only)
    }

    /// Asks the system's name servers. A file that the library would refuse as a whole for one
    /// unknown word stops nothing.
    fn system() -> Result<Self, Error> {
        Self::of(resolve::system(), &ResolverOpts::default())
    }

    /// Asks one name server and no other.
    pub fn only(server: SocketAddr) -> Result<Self, Error> {
        let mut options = ResolverOpts::default();
        options.attempts = 2;
        options.timeout = Duration::from_secs(3);
        Self::of(resolve::only(server), &options)
    }

    fn of(config: ResolverConfig, options: &ResolverOpts) -> Result<Self, Error> {
        let mut servers = config.name_servers().to_vec();
        for server in &mut servers {
            server
                .connections
                .retain(|connection| connection.protocol == ProtocolConfig::Tcp);
        }
        Ok(Self {
            resolver: build(config, options)?,
            over_tcp: build(ResolverConfig::from_name_servers(servers), options)?,
        })
    }

    /// A name's records of one type, also if a CNAME led there: at least one.
    pub async fn look_up(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, Absent> {
        let name = format!("{name}.");
        let found = match self.resolver.lookup(name.as_str(), kind).await {
            // Not an answer of a name server.
            Err(error) if !matches!(error, NetError::Dns(_)) => {
                self.over_tcp.lookup(name.as_str(), kind).await.map_err(|_| error)
            }
            answer => answer,
        };

        let found = found.map_err(|error| Absent::of(&error))?;
        let records: Vec<_> = found
            .answers()
            .iter()
            .filter(|record| record.record_type() == kind)
            .cloned()
            .collect();
        if records.is_empty() {
            return Err(Absent::NoRecord);
        }
        Ok(records)
    }

    /// A name's records of one type, of which there may be none. The error says why that is not
    /// known.
    async fn any(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, String> {
        match self.look_up(name, kind).await {
            Ok(found) => Ok(found),
            Err(Absent::NoName | Absent::NoRecord) => Ok(Vec::new()),
            Err(Absent::Failed(reason)) => Err(reason),
        }
    }

    /// The names of the servers that a zone is delegated to: at least one.
    pub async fn delegated_to(&self, zone: &str) -> Result<Vec<String>, Absent> {
        let found = self.look_up(zone, RecordType::NS).await?;
        let names = found.iter().filter_map(|record| match &record.data {
            RData::NS(name) => Some(plain(&name.0.to_string())),
            _ => None,
        });
        Ok(names.collect())
    }

    /// A host's IPv4 address. A Lambda function in a VPC may have no route for IPv6, and every
    /// server of Route 53 has IPv4.
    pub async fn ipv4(&self, host: &str) -> Option<IpAddr> {
        let found = self.resolver.lookup_ip(format!("{host}.")).await.ok()?;
        found.iter().find(IpAddr::is_ipv4)
    }
}

impl Absent {
    /// The library says "no records" also when a name server fails or refuses, which says nothing
    /// about the name.
    fn of(error: &NetError) -> Self {
        let code = match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
            NetError::Dns(DnsError::ResponseCode(code)) => *code,
            other => return Self::Failed(other.to_string()),
        };
        match code {
            ResponseCode::NXDomain => Self::NoName,
            ResponseCode::NoError => Self::NoRecord,
            code => Self::Failed(format!(
                "the name server answered {}",
                format!("{code:?}").to_uppercase()
            )),
        }
    }
}

fn build(config: ResolverConfig, options: &ResolverOpts) -> Result<TokioResolver, Error> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options.clone();
    // An answer from a moment ago is what the renewer waits to see changed.
    builder.options_mut().cache_size = 0;
    builder
        .build()
        .map_err(|error| Error(format!("cannot make a resolver: {error}")))
}

/// A name as it is compared: lower case, without the last dot.
pub fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UdpSocket};

    /// A name server that refuses counted as one that has no record.
    #[test]
    fn only_an_answer_says_that_there_is_nothing() {
        for (code, expected) in [
            (ResponseCode::NXDomain, Some(Absent::NoName)),
            (ResponseCode::NoError, Some(Absent::NoRecord)),
            (ResponseCode::Refused, None),
            (ResponseCode::ServFail, None),
            (ResponseCode::NotAuth, None),
            (ResponseCode::NotImp, None),
        ] {
            let none = NoRecords::new(Query::default(), code);
            for error in [DnsError::NoRecordsFound(none), DnsError::ResponseCode(code)] {
                let absent = Absent::of(&NetError::Dns(error));
                match &expected {
                    Some(expected) => assert_eq!(absent, *expected, "{code:?}"),
                    None => assert!(matches!(absent, Absent::Failed(_)), "{code:?}"),
                }
            }
        }
        assert!(matches!(Absent::of(&NetError::Timeout), Absent::Failed(_)));
    }

    /// Forty values of one name did not fit into a datagram; the server said so without repeating
    /// the question, and the library waited for an answer that it could believe.
    #[tokio::test]
    async fn what_udp_does_not_answer_is_asked_over_tcp() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(server).await.unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((_, client)) = udp.recv_from(&mut query).await {
                // The header of a truncated answer, and no question.
                let truncated = [query[0], query[1], 0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                udp.send_to(&truncated, client).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut client, _)) = tcp.accept().await {
                let mut query = vec![0; client.read_u16().await.unwrap().into()];
                client.read_exact(&mut query).await.unwrap();
                client.write_all(&answer(&query)).await.unwrap();
            }
        });

        let dns = Dns::only(server).unwrap();
        let found = dns.look_up("a.test", RecordType::TXT).await.unwrap();
        assert_eq!(found[0].data.to_string(), "yes");
    }

    /// One TXT record, with its length in front.
    fn answer(query: &[u8]) -> Vec<u8> {
        let question = query[12..].iter().position(|byte| *byte == 0).unwrap() + 17;
        let mut answer = vec![query[0], query[1], 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        answer.extend_from_slice(&query[12..question]);
        answer.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 1, 0, 4, 3, b'y', b'e', b's']);
        let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
        framed.append(&mut answer);
        framed
    }
}
