//! DNS as the CA will see it: where a CNAME leads, and whether a TXT value has arrived.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use lambda_runtime::tracing::warn;
use neverlapse::resolve;
use neverlapse::text::printable;
use tokio::time::{Instant, sleep};

use super::record::TxtRecord;
use super::zone::{HostedZone, Zones};
use super::{change, plain};
use crate::error::Error;

/// Asks a zone's own name servers for the records, or only the name server of the settings.
pub(crate) struct Lookup {
    resolver: TokioResolver,
    nameserver: Option<SocketAddr>,
}

/// One of a zone's name servers.
struct NameServer {
    /// Its name and address, as messages show it.
    label: String,
    resolver: TokioResolver,
}

/// What a name server answers about a TXT record.
enum Answer {
    Shown,
    /// It has other values, or none.
    Denied(String),
    /// It does not answer.
    Silent(String),
}

impl Lookup {
    pub(crate) fn new(nameserver: Option<SocketAddr>) -> Result<Self, Error> {
        let resolver = match nameserver {
            Some(server) => only(server)?,
            None => system()?,
        };
        Ok(Self { resolver, nameserver })
    }

    /// Where a name's CNAMEs lead: the names on the way, the name itself first.
    pub(crate) async fn path(&self, name: &str, zones: &Zones) -> Result<Vec<String>, Error> {
        let mut path = vec![name.to_owned()];
        while let Some(next) = self.cname(path.last().map_or(name, String::as_str), zones).await? {
            let looped = path.contains(&next);
            path.push(next);

            if looped || path.len() > LONGEST {
                let what = if looped { "runs in a circle" } else { "is too long" };
                return Err(Error::Internal(format!(
                    "the chain of CNAMEs {what}: {}",
                    path.join(" -> ")
                )));
            }
        }
        Ok(path)
    }

    /// A name's CNAME. In a zone of ours Route 53 itself knows: a question by DNS, asked just before
    /// the TXT record is written, would leave "no such name" in the cache of each resolver on the way.
    async fn cname(&self, name: &str, zones: &Zones) -> Result<Option<String>, Error> {
        if let Ok(zone) = zones.of(name)
            && !self.is_delegated_further(name, &zone.name).await
        {
            return change::cname(zone, name).await;
        }

        let Some(target) = self.cname_by_dns(name).await? else {
            return Ok(None);
        };
        // A wildcard makes up CNAMEs for all names that have no record (RFC 4592, 2.2). A TXT record
        // at the name itself would override it.
        if let Some((_, parent)) = name.split_once('.') {
            let sibling = format!("_neverlapse-{:08x}.{parent}", rand::random::<u32>());
            if self.cname_by_dns(&sibling).await? == Some(target.clone()) {
                return Ok(None);
            }
        }
        Ok(Some(target))
    }

    async fn cname_by_dns(&self, name: &str) -> Result<Option<String>, Error> {
        match self.resolver.lookup(format!("{name}."), RecordType::CNAME).await {
            Ok(found) => Ok(found.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some(plain(&target.0.to_string())),
                _ => None,
            })),
            Err(error) => match absence(&error) {
                Some(_) => Ok(None),
                None => Err(Error::Internal(format!(
                    "cannot look up the CNAME of {name}: {}",
                    failure(&error)
                ))),
            },
        }
    }

    /// Whether a name below the zone's is delegated to other servers, so that Route 53 does not know
    /// what is there. No answer counts as no delegation.
    async fn is_delegated_further(&self, name: &str, zone: &str) -> bool {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if parent == zone || !parent.ends_with(zone) {
                return false;
            }
            let found = self.resolver.ns_lookup(format!("{parent}.")).await;
            let is_cut = found.is_ok_and(|found| {
                found
                    .answers()
                    .iter()
                    .any(|record| matches!(record.data, RData::NS(_)) && plain(&record.name.to_string()) == parent)
            });
            if is_cut {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// Waits until every name server of the zone that answers shows every record, or fails with
    /// what each of them answered instead. A server that does not answer proves nothing about the
    /// records, because a resolver would ask the others; but one has to answer.
    pub(crate) async fn see(&self, zone: &HostedZone, records: &[TxtRecord], deadline: Instant) -> Result<(), Error> {
        let longest = Instant::now() + VISIBLE;
        let servers = self.servers(zone).await?;
        let zone = &zone.name;
        loop {
            let queries = servers
                .iter()
                .flat_map(|server| records.iter().map(move |record| server.ask(record)));
            let answers = join_all(queries).await;

            let count = answers.len();
            let mut denied = Vec::new();
            let mut silent = Vec::new();
            for answer in answers {
                match answer {
                    Answer::Shown => {}
                    Answer::Denied(reason) => denied.push(reason),
                    Answer::Silent(reason) => silent.push(reason),
                }
            }

            if denied.is_empty() && silent.len() < count {
                if !silent.is_empty() {
                    warn!(zone, silent = silent.join("; "), "not all name servers answer");
                }
                return Ok(());
            }
            if Instant::now() + POLL > deadline {
                return Err(Error::out_of_time("DNS spreads the TXT records"));
            }
            if Instant::now() > longest {
                return Err(Error::Internal(format!(
                    "the TXT records are in hosted zone {zone}, but DNS does not show them, so the CA was not asked to look:\n  - {}\n  \
                     hint: is {zone} delegated (NS records at the registrar) to the name servers of this very hosted zone? Is a resolver \
                     with a cache or a private zone of this name in between (RenewerNameserver)?",
                    [denied, silent].concat().join("\n  - ")
                )));
            }
            sleep(POLL).await;
        }
    }

    /// The zone's own servers: those that Route 53 says, which no cache and no private zone of the
    /// same name hides; or those that its delegation says, where we may not ask Route 53.
    async fn servers(&self, zone: &HostedZone) -> Result<Vec<NameServer>, Error> {
        if let Some(server) = self.nameserver {
            let label = server.to_string();
            let resolver = only(server)?;
            return Ok(vec![NameServer { label, resolver }]);
        }

        let hosts = match zone.name_servers().await {
            Ok(hosts) if !hosts.is_empty() => hosts,
            answer => {
                if let Err(error) = answer {
                    warn!(zone = zone.name, fault = %error, "asking the servers that the zone is delegated to");
                }
                self.delegated_to(&zone.name).await?
            }
        };
        let mut servers = Vec::new();
        for host in hosts {
            let Ok(addresses) = self.resolver.lookup_ip(format!("{host}.")).await else {
                continue;
            };
            // A Lambda function in a VPC may have no route for IPv6, and every server of Route 53
            // has IPv4.
            if let Some(address) = addresses.iter().find(IpAddr::is_ipv4) {
                servers.push(NameServer {
                    label: format!("{host} ({address})"),
                    resolver: only(SocketAddr::new(address, 53))?,
                });
            }
        }

        if servers.is_empty() {
            return Err(Error::Internal(format!(
                "none of the name servers of {} has an IPv4 address",
                zone.name
            )));
        }
        Ok(servers)
    }

    async fn delegated_to(&self, zone: &str) -> Result<Vec<String>, Error> {
        let found = self.resolver.ns_lookup(format!("{zone}.")).await;
        let found = found.map_err(|error| {
            Error::Internal(format!(
                "cannot look up the name servers of {zone}: {}",
                failure(&error)
            ))
        })?;
        let hosts = found.answers().iter().filter_map(|record| match &record.data {
            RData::NS(name) => Some(plain(&name.0.to_string())),
            _ => None,
        });
        Ok(hosts.collect())
    }
}

impl NameServer {
    async fn ask(&self, record: &TxtRecord) -> Answer {
        let TxtRecord { name, value } = record;
        let query = format!("{name} TXT {value:?}: {}", self.label);

        match self.resolver.txt_lookup(format!("{name}.")).await {
            Ok(found) => {
                let texts = found.answers().iter().filter_map(|record| match &record.data {
                    RData::TXT(text) => Some(text.to_string()),
                    _ => None,
                });
                let values: BTreeSet<String> = texts.collect();
                if values.contains(value) {
                    return Answer::Shown;
                }
                let values = values.into_iter().collect::<Vec<_>>().join(", ");
                Answer::Denied(format!("{query} has {}", printable(&values)))
            }
            Err(error) => match absence(&error) {
                Some(Absence::NoName) => Answer::Denied(format!("{query} says that there is no such name")),
                Some(Absence::NoRecord) => Answer::Denied(format!("{query} says that it has no TXT record")),
                None => Answer::Silent(format!("{query} did not answer: {}", failure(&error))),
            },
        }
    }
}

/// An answer that there is nothing.
#[derive(Debug, PartialEq, Eq)]
enum Absence {
    NoName,
    NoRecord,
}

/// Whether an error is the answer that there is nothing. The library says "no records" also when a
/// name server fails or refuses, which says nothing about the name.
fn absence(error: &NetError) -> Option<Absence> {
    match code(error)? {
        ResponseCode::NXDomain => Some(Absence::NoName),
        ResponseCode::NoError => Some(Absence::NoRecord),
        _ => None,
    }
}

fn code(error: &NetError) -> Option<ResponseCode> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => Some(none.response_code),
        NetError::Dns(DnsError::ResponseCode(code)) => Some(*code),
        _ => None,
    }
}

/// Why there is no answer.
fn failure(error: &NetError) -> String {
    match code(error) {
        Some(code) => format!("the name server answered {}", format!("{code:?}").to_uppercase()),
        None => error.to_string(),
    }
}

/// A file that the library would refuse as a whole for one unknown word stops nothing.
fn system() -> Result<TokioResolver, Error> {
    let mut builder = TokioResolver::builder_with_config(resolve::system(), TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build().map_err(unreadable)
}

fn only(server: SocketAddr) -> Result<TokioResolver, Error> {
    let mut builder = TokioResolver::builder_with_config(resolve::only(server), TokioRuntimeProvider::default());
    let options = builder.options_mut();
    // An answer from a moment ago is what we wait to see changed.
    options.cache_size = 0;
    options.attempts = 2;
    options.timeout = Duration::from_secs(3);
    builder.build().map_err(unreadable)
}

fn unreadable(error: NetError) -> Error {
    Error::Internal(format!("cannot make a resolver: {error}"))
}

const LONGEST: usize = 9;
const VISIBLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;

    /// A name server that refuses counted as one that has no record.
    #[test]
    fn only_an_answer_says_that_there_is_nothing() {
        for (code, expected) in [
            (ResponseCode::NXDomain, Some(Absence::NoName)),
            (ResponseCode::NoError, Some(Absence::NoRecord)),
            (ResponseCode::Refused, None),
            (ResponseCode::ServFail, None),
            (ResponseCode::NotAuth, None),
            (ResponseCode::NotImp, None),
        ] {
            let none = NoRecords::new(Query::default(), code);
            assert_eq!(
                absence(&NetError::Dns(DnsError::NoRecordsFound(none))),
                expected,
                "{code:?}"
            );
            assert_eq!(
                absence(&NetError::Dns(DnsError::ResponseCode(code))),
                expected,
                "{code:?}"
            );
        }
        assert_eq!(absence(&NetError::Timeout), None);
    }
}
