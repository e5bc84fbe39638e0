//! DNS as the CA will see it: where a CNAME leads, and whether a TXT value has arrived.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use lambda_runtime::tracing::warn;
use neverlapse::resolve;
use neverlapse::text::printable;
use tokio::time::{Instant, sleep};

use super::plain;
use super::record::TxtRecord;
use crate::error::Error;

/// Asks the system's resolver for a zone's name servers, and asks these for the records; or asks
/// only the name server of the settings.
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
            None => system().map_err(unreadable)?,
        };
        Ok(Self { resolver, nameserver })
    }

    /// Where a name's CNAMEs lead, or the name itself.
    pub(crate) async fn canonical(&self, name: &str) -> Result<String, Error> {
        let mut path = vec![name.to_owned()];
        while let Some(next) = self.cname(path.last().map_or(name, String::as_str)).await? {
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
        Ok(path.pop().unwrap_or_default())
    }

    async fn cname(&self, name: &str) -> Result<Option<String>, Error> {
        match self.resolver.lookup(format!("{name}."), RecordType::CNAME).await {
            Ok(found) => Ok(found.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some(plain(&target.0.to_string())),
                _ => None,
            })),
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(None),
            Err(error) => Err(Error::Internal(format!("cannot look up the CNAME of {name}: {error}"))),
        }
    }

    /// Waits until every name server of the zone that answers shows every record, or fails with
    /// what each of them answered instead. A server that does not answer proves nothing about the
    /// records, because a resolver would ask the others; but one has to answer.
    pub(crate) async fn see(&self, zone: &str, records: &[TxtRecord], deadline: Instant) -> Result<(), Error> {
        let longest = Instant::now() + VISIBLE;
        let servers = self.servers(zone).await?;
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
                     hint: is {zone} delegated (NS records at the registrar) to the name servers of this very hosted zone?",
                    [denied, silent].concat().join("\n  - ")
                )));
            }
            sleep(POLL).await;
        }
    }

    /// The servers that the world asks by the zone's delegation, not the ones that Route 53
    /// assigned to it.
    async fn servers(&self, zone: &str) -> Result<Vec<NameServer>, Error> {
        if let Some(server) = self.nameserver {
            let label = server.to_string();
            let resolver = only(server)?;
            return Ok(vec![NameServer { label, resolver }]);
        }

        let found = self.resolver.ns_lookup(format!("{zone}.")).await;
        let found =
            found.map_err(|error| Error::Internal(format!("cannot look up the name servers of {zone}: {error}")))?;
        let mut servers = Vec::new();
        for record in found.answers() {
            let RData::NS(name) = &record.data else { continue };
            let host = plain(&name.0.to_string());
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
                "none of the name servers of {zone} has an IPv4 address"
            )));
        }
        Ok(servers)
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
            Err(error) if error.is_nx_domain() => Answer::Denied(format!("{query} says that there is no such name")),
            Err(error) if error.is_no_records_found() => {
                Answer::Denied(format!("{query} says that it has no TXT record"))
            }
            Err(error) => Answer::Silent(format!("{query} did not answer: {error}")),
        }
    }
}

fn system() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().cache_size = 0;
    builder.build()
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
    Error::Internal(format!("cannot read the system's DNS configuration: {error}"))
}

const LONGEST: usize = 9;
const VISIBLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(2);
