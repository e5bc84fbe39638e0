//! DNS as the CA will see it: where a CNAME leads, and whether a TXT value has arrived.

use std::collections::BTreeSet;
use std::net::SocketAddr;
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

use crate::error::Fault;

/// Asks the system's resolver where the name servers are, and these for what they hold; or only the one that was set.
pub(crate) struct Lookup {
    resolver: TokioResolver,
    nameserver: Option<SocketAddr>,
}

impl Lookup {
    pub(crate) fn new(nameserver: Option<SocketAddr>) -> Result<Self, Fault> {
        let resolver = match nameserver {
            Some(server) => only(server)?,
            None => system().map_err(unreadable)?,
        };
        Ok(Self { resolver, nameserver })
    }

    /// Where a name's CNAMEs lead, or the name itself.
    pub(crate) async fn canonical(&self, name: &str) -> Result<String, Fault> {
        let mut path = vec![name.to_owned()];
        while let Some(next) = self.cname(path.last().map_or(name, String::as_str)).await? {
            let looped = path.contains(&next);
            path.push(next);
            if looped || path.len() > LONGEST {
                let what = if looped { "runs in a circle" } else { "is too long" };
                return Err(Fault::Ours(format!(
                    "the chain of CNAMEs {what}: {}",
                    path.join(" -> ")
                )));
            }
        }
        Ok(path.pop().unwrap_or_default())
    }

    async fn cname(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.resolver.lookup(format!("{name}."), RecordType::CNAME).await {
            Ok(found) => {
                let mut targets = found.answers().iter().filter_map(|record| match &record.data {
                    RData::CNAME(target) => Some(plain(&target.0.to_string())),
                    _ => None,
                });
                Ok(targets.next())
            }
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(None),
            Err(error) => Err(Fault::Ours(format!("cannot look up the CNAME of {name}: {error}"))),
        }
    }

    /// Waits until every name server of the zone that answers shows every value, or says which of them answered what. One that does not
    /// answer says nothing about the value; a resolver asks the others.
    pub(crate) async fn see(&self, zone: &str, wanted: &[(String, String)], deadline: Instant) -> Result<(), Fault> {
        let longest = Instant::now() + VISIBLE;
        let servers = self.servers(zone).await?;
        loop {
            let answers = servers.iter().flat_map(|(server, resolver)| {
                wanted
                    .iter()
                    .map(move |(name, value)| ask(server, resolver, name, value))
            });
            let answers = join_all(answers).await;
            let said = |of: fn(&Answer) -> Option<&String>| answers.iter().filter_map(of).cloned().collect::<Vec<_>>();
            let (denied, silent) = (said(Answer::denied), said(Answer::silent));
            if denied.is_empty() && silent.len() < answers.len() {
                if !silent.is_empty() {
                    warn!(zone, silent = silent.join("; "), "not all name servers answer");
                }
                return Ok(());
            }
            if Instant::now() + POLL > deadline {
                return Err(Fault::OutOfTime("DNS spreads the TXT records"));
            }
            if Instant::now() > longest {
                return Err(Fault::Ours(format!(
                    "the TXT records are in hosted zone {zone}, but DNS does not show them, so the CA was not asked to look:\n  - {}\n  \
                     hint: is {zone} delegated (NS records at the registrar) to the name servers of this very hosted zone?",
                    [denied, silent].concat().join("\n  - ")
                )));
            }
            sleep(POLL).await;
        }
    }

    /// Those that the world is told to ask, not those that Route 53 thinks are asked.
    async fn servers(&self, zone: &str) -> Result<Vec<(String, TokioResolver)>, Fault> {
        if let Some(server) = self.nameserver {
            return Ok(vec![(server.to_string(), only(server)?)]);
        }
        let wrong = |error| Fault::Ours(format!("cannot look up the name servers of {zone}: {error}"));
        let found = self.resolver.ns_lookup(format!("{zone}.")).await.map_err(wrong)?;
        let mut servers = Vec::new();
        for record in found.answers() {
            let RData::NS(name) = &record.data else { continue };
            let host = plain(&name.0.to_string());
            let addresses = self.resolver.lookup_ip(format!("{host}.")).await;
            let address = addresses
                .ok()
                .and_then(|found| found.iter().find(std::net::IpAddr::is_ipv4));
            if let Some(address) = address {
                servers.push((format!("{host} ({address})"), only(SocketAddr::new(address, 53))?));
            }
        }
        match servers.is_empty() {
            true => Err(Fault::Ours(format!(
                "none of the name servers of {zone} has an IPv4 address"
            ))),
            false => Ok(servers),
        }
    }
}

/// What a name server says about a value.
enum Answer {
    Shown,
    /// It answers something else.
    Denied(String),
    Silent(String),
}

impl Answer {
    fn denied(&self) -> Option<&String> {
        match self {
            Self::Denied(said) => Some(said),
            _ => None,
        }
    }

    fn silent(&self) -> Option<&String> {
        match self {
            Self::Silent(said) => Some(said),
            _ => None,
        }
    }
}

async fn ask(server: &str, resolver: &TokioResolver, name: &str, value: &str) -> Answer {
    let about = |said: String| format!("{name} TXT {value:?}: {server} {said}");
    match resolver.txt_lookup(format!("{name}.")).await {
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
            Answer::Denied(about(format!("has {}", printable(&values))))
        }
        Err(error) if error.is_nx_domain() => Answer::Denied(about("says that there is no such name".to_owned())),
        Err(error) if error.is_no_records_found() => Answer::Denied(about("says that it has no TXT record".to_owned())),
        Err(error) => Answer::Silent(about(format!("did not answer: {error}"))),
    }
}

fn system() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().cache_size = 0;
    builder.build()
}

fn only(server: SocketAddr) -> Result<TokioResolver, Fault> {
    let mut builder = TokioResolver::builder_with_config(resolve::only(server), TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.cache_size = 0;
    options.attempts = 2;
    options.timeout = Duration::from_secs(3);
    builder.build().map_err(unreadable)
}

fn unreadable(error: NetError) -> Fault {
    Fault::Ours(format!("cannot read the system's DNS configuration: {error}"))
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

const LONGEST: usize = 9;
const VISIBLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(2);
