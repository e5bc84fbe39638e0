//! What DNS and Route 53 say of a name whose control is to be proved: the hosted zone that it is
//! in, where its CNAMEs lead, and what CAA records and DNSSEC let a CA do.

pub mod caa;
pub mod dnssec;
pub mod path;
pub mod zone;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use thiserror::Error;

use crate::resolve;
use crate::resolve::servers::Servers;

/// Why a name's control cannot be proved, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Asks name servers for records of any type, and keeps no answers.
#[derive(Clone, Debug)]
pub struct Dns {
    servers: Servers,
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
        Self::of(resolve::system(), ResolverOpts::default())
    }

    /// Asks one name server and no other.
    pub fn only(server: SocketAddr) -> Result<Self, Error> {
        let mut options = ResolverOpts::default();
        options.attempts = 2;
        options.timeout = Duration::from_secs(3);
        Self::of(resolve::only(server), options)
    }

    fn of(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, Error> {
        // An answer from a moment ago is what the renewer waits to see changed.
        options.cache_size = 0;
        let servers = Servers::new(config, options);
        let servers = servers.map_err(|error| Error(format!("cannot make a resolver: {error}")))?;
        Ok(Self { servers })
    }

    /// A name's records of one type, also if a CNAME led there: at least one.
    pub async fn look_up(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, Absent> {
        let name = Name::from_ascii(format!("{name}.")).map_err(|error| Absent::Failed(error.to_string()))?;
        let found = self.servers.look_up(&name, kind).await;
        let records = found.map_err(|error| Absent::of(&error))?;
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
        let found = self.look_up(host, RecordType::A).await.ok()?;
        found.iter().find_map(|record| record.data.ip_addr())
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

/// A name as it is compared: lower case, without the last dot.
pub fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;

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
}
