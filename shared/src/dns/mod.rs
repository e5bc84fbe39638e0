//! What DNS and Route 53 say of a name whose control is to be proved: the hosted zone that it is
//! in, where its CNAMEs lead, and what CAA records and DNSSEC let a CA do.

pub mod caa;
pub mod dnssec;
pub mod path;
pub mod zone;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Record, RecordType};
use thiserror::Error;

use crate::resolve;

/// Why a name's control cannot be proved, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Asks name servers for records of any type, and keeps no answers.
#[derive(Clone, Debug)]
pub struct Dns(TokioResolver);

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
    /// Asks the system's name servers. A file that the library would refuse as a whole for one
    /// unknown word stops nothing.
    pub fn system() -> Result<Self, Error> {
        let mut builder = TokioResolver::builder_with_config(resolve::system(), TokioRuntimeProvider::default());
        builder.options_mut().cache_size = 0;
        builder.build().map(Self).map_err(unusable)
    }

    /// Asks one name server and no other.
    pub fn only(server: SocketAddr) -> Result<Self, Error> {
        let mut builder = TokioResolver::builder_with_config(resolve::only(server), TokioRuntimeProvider::default());
        let options = builder.options_mut();
        // An answer from a moment ago is what the renewer waits to see changed.
        options.cache_size = 0;
        options.attempts = 2;
        options.timeout = Duration::from_secs(3);
        builder.build().map(Self).map_err(unusable)
    }

    /// A name's records of one type, also if a CNAME led there: at least one.
    pub async fn look_up(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, Absent> {
        let found = self.0.lookup(format!("{name}."), kind).await;
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

    /// A host's IPv4 address. A Lambda function in a VPC may have no route for IPv6, and every
    /// server of Route 53 has IPv4.
    pub async fn ipv4(&self, host: &str) -> Option<IpAddr> {
        let found = self.0.lookup_ip(format!("{host}.")).await.ok()?;
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

fn unusable(error: NetError) -> Error {
    Error(format!("cannot make a resolver: {error}"))
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
