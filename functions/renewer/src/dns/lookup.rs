//! DNS as the CA will see it: whether a TXT value has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::proto::rr::{RData, RecordType};
use lambda_runtime::tracing::warn;
use neverlapse::dns::path::{self, Path};
use neverlapse::dns::zone::{HostedZone, Zones};
use neverlapse::dns::{Absent, Dns};
use neverlapse::text::{printable, some_of};
use tokio::time::{Instant, sleep};

use super::record::TxtRecord;
use crate::error::Error;

/// Asks a zone's own name servers for the records, or only the name server of the settings.
pub(crate) struct Lookup {
    dns: Dns,
    nameserver: Option<SocketAddr>,
}

/// One of a zone's name servers.
struct NameServer {
    /// Its name and address, as messages show it.
    label: String,
    dns: Dns,
}

/// What a name server answers about the TXT records of a name.
enum Answer {
    Shown,
    /// It has other values, or none.
    Denied(String),
    /// It does not answer.
    Silent(String),
}

impl Lookup {
    pub(crate) fn new(nameserver: Option<SocketAddr>) -> Result<Self, Error> {
        Ok(Self {
            dns: Dns::new(nameserver)?,
            nameserver,
        })
    }

    /// Where a challenge's name leads.
    pub(crate) async fn path(&self, name: &str, zones: &Zones) -> Result<Path, Error> {
        Ok(path::path(name, zones, &self.dns).await?)
    }

    /// Waits until every name server of the zone that answers shows every record, or fails with
    /// what each of them answered instead. A server that does not answer proves nothing about the
    /// records, because a resolver would ask the others; but one has to answer.
    pub(crate) async fn see(&self, zone: &HostedZone, records: &[TxtRecord], deadline: Instant) -> Result<(), Error> {
        let longest = Instant::now() + VISIBLE;
        let servers = self.servers(zone).await?;
        // A hundred names may lead to one: it is asked for once, whatever it has to show.
        let mut values = BTreeMap::<&str, Vec<&str>>::new();
        for record in records {
            values.entry(&record.name).or_default().push(&record.value);
        }

        let zone = &zone.name;
        loop {
            let queries = servers
                .iter()
                .flat_map(|server| values.iter().map(move |(name, values)| server.ask(name, values)));
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
    /// same name hides; or those that its delegation says, where we may not ask Route 53 or cannot
    /// look its servers up.
    async fn servers(&self, zone: &HostedZone) -> Result<Vec<NameServer>, Error> {
        if let Some(server) = self.nameserver {
            return Ok(vec![NameServer {
                label: server.to_string(),
                dns: Dns::only(server)?,
            }]);
        }

        let named = match zone.name_servers().await {
            Ok(hosts) => self.addresses(hosts).await?,
            Err(error) => {
                warn!(zone = zone.name, fault = %error, "Route 53 does not say which servers the zone has");
                Vec::new()
            }
        };
        if !named.is_empty() {
            return Ok(named);
        }

        warn!(zone = zone.name, "asking the servers that the zone is delegated to");
        let delegated = self.addresses(self.delegated_to(&zone.name).await?).await?;
        if delegated.is_empty() {
            return Err(Error::Internal(format!(
                "none of the name servers of {} has an IPv4 address",
                zone.name
            )));
        }
        Ok(delegated)
    }

    /// Those of the servers whose names can be looked up.
    async fn addresses(&self, hosts: Vec<String>) -> Result<Vec<NameServer>, Error> {
        let mut servers = Vec::new();
        for host in hosts {
            if let Some(address) = self.dns.ipv4(&host).await {
                servers.push(NameServer {
                    label: format!("{host} ({address})"),
                    dns: Dns::only(SocketAddr::new(address, 53))?,
                });
            }
        }

        Ok(servers)
    }

    async fn delegated_to(&self, zone: &str) -> Result<Vec<String>, Error> {
        self.dns.delegated_to(zone).await.map_err(|absent| {
            let reason = match absent {
                Absent::NoName => "there is no such name".to_owned(),
                Absent::NoRecord => "it has none".to_owned(),
                Absent::Failed(reason) => reason,
            };
            Error::Internal(format!("cannot look up the name servers of {zone}: {reason}"))
        })
    }
}

impl NameServer {
    async fn ask(&self, name: &str, expected: &[&str]) -> Answer {
        let query = format!("{name} TXT {:?}: {}", some_of(expected, SHOWN), self.label);

        let found = match self.dns.look_up(name, RecordType::TXT).await {
            Ok(found) => found,
            Err(Absent::NoName) => return Answer::Denied(format!("{query} says that there is no such name")),
            Err(Absent::NoRecord) => return Answer::Denied(format!("{query} says that it has no TXT record")),
            Err(Absent::Failed(reason)) => return Answer::Silent(format!("{query} did not answer: {reason}")),
        };

        let texts = found.iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.to_string()),
            _ => None,
        });
        let values: BTreeSet<String> = texts.collect();
        let missing: Vec<_> = expected.iter().filter(|value| !values.contains(**value)).collect();
        if missing.is_empty() {
            return Answer::Shown;
        }
        Answer::Denied(format!(
            "{name} TXT {:?}: {} has {}",
            some_of(missing, SHOWN),
            self.label,
            printable(&some_of(values, SHOWN))
        ))
    }
}

/// So many values of one name are in a message.
const SHOWN: usize = 5;
const VISIBLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(2);
