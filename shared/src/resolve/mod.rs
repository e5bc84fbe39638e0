//! Looks up a host: every address, or why there is none.

mod hosts;
mod name;
pub(crate) mod servers;
mod system;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use thiserror::Error;
use tokio::time::timeout;

use self::hosts::Hosts;
use self::name::name;
use self::servers::Servers;
use self::system::System;
use crate::endpoint::Host;

/// Looks names up in the system's hosts file, and then asks its name servers, or a given one, for
/// both address families at once.
///
/// It takes the system's files as the C library does: what is odd in them, or missing, keeps no
/// other name from being looked up. Clones share one cache. Errors say whether the answer was that
/// there is no address, or whether there was no answer: only the latter is worth another try.
#[derive(Clone, Debug)]
pub struct Resolver {
    hosts: Arc<Hosts>,
    servers: Servers,
    /// Whether this machine is asked only because the system's configuration names no server.
    is_without_servers: bool,
}

/// The addresses of a host.
#[derive(Debug)]
pub struct Found {
    /// IPv4 first, without repetition; at least one.
    pub addresses: Vec<IpAddr>,
    /// The family whose addresses are not known, because there was no answer about it.
    pub missing: Option<Missing>,
}

/// A family of addresses that is not known, while the other is.
#[derive(Debug)]
pub struct Missing {
    /// Whether it is IPv4.
    pub is_ipv4: bool,
    /// Why.
    pub error: Error,
}

impl Found {
    fn all(addresses: Vec<IpAddr>) -> Self {
        Self {
            addresses: in_order(addresses),
            missing: None,
        }
    }
}

/// Why no address of a name is known.
#[derive(Debug, Error)]
pub enum Error {
    /// No resolver can be made.
    #[error("cannot prepare DNS look-ups: {0}")]
    Configuration(String),
    /// There is no such name (RFC 8020).
    #[error("no such name (NXDOMAIN)")]
    NoSuchName,
    /// The name exists without an address (RFC 2308, 2.2).
    #[error("the name has neither A nor AAAA records")]
    NoAddress,
    /// The name is an alias for one that does not exist or has no address.
    #[error("it is an alias (CNAME) for {target}: {reason}")]
    Dangling {
        /// The other name.
        target: String,
        /// What is wrong with that one.
        reason: Box<Error>,
    },
    /// No name server answered, or not with a result; another try may help.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Whether a name server has answered that there is no address.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::NoSuchName | Self::NoAddress | Self::Dangling { .. } => true,
            Self::Configuration(_) | Self::Failed(_) => false,
        }
    }
}

/// A name server as people write it: an address, with a port or on DNS's own.
pub fn nameserver(text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok();
    address.or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)))
}

impl Resolver {
    /// A resolver with its own cache; without a name server, it asks the system's.
    pub fn new(nameserver: Option<SocketAddr>, timeout: Duration) -> Result<Self, Error> {
        let system = nameserver.is_none().then(System::read);
        let config = nameserver.map_or_else(ResolverConfig::default, only);
        let config = system.as_ref().map_or(config, System::config);
        let options = options(system.as_ref(), timeout);

        Ok(Self {
            servers: Servers::new(config, options).map_err(|error| Error::Configuration(error.to_string()))?,
            hosts: Arc::new(Hosts::read()),
            is_without_servers: system.is_some_and(|system| !system.has_servers()),
        })
    }

    /// Every A and AAAA address of a host.
    pub async fn addresses(&self, host: &Host) -> Result<Found, Error> {
        let text = match host {
            Host::Ip(address) => return Ok(Found::all(vec![*address])),
            Host::Name(name) => name.as_ref(),
        };
        // A name that is there is not asked for, as in the C library: not for its other family
        // either.
        if let Some(addresses) = self.hosts.addresses(text) {
            return Ok(Found::all(addresses.to_vec()));
        }
        let mut name = name(text).ok_or_else(|| Error::Failed("it is longer than a name may be".to_owned()))?;
        // A name with a dot is complete; resolv.conf's search list would only add surprises.
        name.set_fqdn(text.contains('.'));

        let mut addresses = Vec::new();
        let mut errors = Vec::new();
        let (v4, v6) = futures::join!(
            self.servers.look_up(&name, RecordType::A),
            self.servers.look_up(&name, RecordType::AAAA)
        );
        for (is_ipv4, found) in [(true, v4), (false, v6)] {
            match found {
                Ok(records) => addresses.extend(records.iter().filter_map(|record| record.data.ip_addr())),
                Err(error) => errors.push(Missing {
                    is_ipv4,
                    error: self.error(error),
                }),
            }
        }

        // A family whose look-up failed may have addresses, whatever the answer for the other was.
        let failed = errors.iter().position(|missing| !missing.error.is_answer());
        if !addresses.is_empty() {
            return Ok(Found {
                addresses: in_order(addresses),
                missing: failed.map(|at| errors.swap_remove(at)),
            });
        }
        let error = if errors.is_empty() {
            Error::NoAddress
        } else {
            errors.swap_remove(failed.unwrap_or(0)).error
        };
        if !error.is_answer() {
            return Err(error);
        }
        Err(match self.alias(&name).await {
            Some(target) => Error::Dangling {
                target,
                reason: Box::new(error),
            },
            None => error,
        })
    }

    /// The name that a name without an address is an alias for. It is asked for an explanation
    /// only, for which nobody has to wait long.
    async fn alias(&self, name: &Name) -> Option<String> {
        let aliases = timeout(EXPLANATION, self.servers.look_up(name, RecordType::CNAME));
        let aliases = aliases.await.ok()?.ok()?;
        aliases.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.to_string().trim_end_matches('.').to_owned()),
            _ => None,
        })
    }

    fn error(&self, error: NetError) -> Error {
        match Error::from(error) {
            Error::Failed(reason) if self.is_without_servers => Error::Failed(format!(
                "{reason} (/etc/resolv.conf names none, so this machine was asked)"
            )),
            other => other,
        }
    }
}

/// How to ask.
fn options(system: Option<&System>, timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    if let Some(system) = system {
        system.apply(&mut options);
    }

    options.cache_size = CACHED_NAMES;
    options.attempts = RETRIES;
    // All attempts end before the caller's deadline, the one over TCP too, so that one family's
    // silence does not hide the other's answer. A system's own timeout would not fit the probe's.
    options.timeout = timeout * 9 / 10 / (RETRIES as u32 + 2);
    options
}

/// IPv4 first, without repetition.
fn in_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort();
    addresses.dedup();
    addresses
}

impl From<NetError> for Error {
    fn from(error: NetError) -> Self {
        let code = match &error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
            NetError::Dns(DnsError::ResponseCode(code)) => *code,
            _ => return Self::Failed(words(&error)),
        };
        match code {
            ResponseCode::NXDomain => Self::NoSuchName,
            ResponseCode::NoError => Self::NoAddress,
            other => Self::Failed(format!(
                "the name server answered {}",
                format!("{other:?}").to_uppercase()
            )),
        }
    }
}

/// Why there was no answer.
fn words(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no name server answered in time".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        NetError::Io(error) => format!("no name server answered: {error}"),
        NetError::Proto(error) => format!("the name server's answer cannot be read: {error}"),
        other => other.to_string(),
    }
}

/// Whether this machine has a route to an address. Sends nothing: connecting a UDP socket only asks
/// the routing table.
pub fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((address, 443)))
        .is_ok()
}

/// The configuration that asks the system's name servers, whatever else is in its file.
pub fn system() -> ResolverConfig {
    System::read().config()
}

/// The configuration that asks one name server and no other, over UDP and TCP.
pub fn only(server: SocketAddr) -> ResolverConfig {
    let mut server_config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut server_config.connections {
        connection.port = server.port();
    }
    ResolverConfig::from_name_servers(vec![server_config])
}

/// How many sockets a look-up may have open: hickory sends each family's query up to three times,
/// each from a port of its own, and waits for the answer on all of them.
pub const SOCKETS: usize = 6;
/// How often UDP is tried once more.
const RETRIES: usize = 1;
const CACHED_NAMES: u64 = 4_096;
const EXPLANATION: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket as Socket;

    use super::*;

    const NO_ERROR: u8 = 0;
    const SERVER_FAILED: u8 = 2;
    const NO_SUCH_NAME: u8 = 3;

    /// A resolver whose name server answers each question, a type and a name, with a response code
    /// and a record, if it has one.
    async fn asking(answer: impl Fn(u8, &[u8]) -> (u8, &'static [u8]) + Send + 'static) -> Resolver {
        let socket = Socket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
                let (code, record) = answer(query[end - 3], &query[12..end]);
                query[2..4].copy_from_slice(&[0x81, 0x80 | code]);
                query[6..12].copy_from_slice(&[0, u8::from(!record.is_empty()), 0, 0, 0, 0]);
                socket.send_to(&[&query[..end], record].concat(), client).await.unwrap();
            }
        });
        Resolver::new(Some(server), Duration::from_secs(5)).unwrap()
    }

    /// With an address of one family, that the other could not be looked up went unnoticed.
    #[tokio::test]
    async fn what_is_not_known_of_a_family_is_no_answer() {
        let resolver = asking(|kind, name| match (kind == 1, name.starts_with(b"\x02v4")) {
            (true, true) => (NO_ERROR, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07"),
            (false, false) => (
                NO_ERROR,
                b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07",
            ),
            _ => (SERVER_FAILED, b""),
        })
        .await;

        for (name, address, is_ipv4) in [("v4.test", "192.0.2.7", false), ("v6.test", "2001:db8::7", true)] {
            let found = resolver.addresses(&name.parse().unwrap()).await.unwrap();
            assert_eq!(found.addresses, [address.parse::<IpAddr>().unwrap()]);
            let missing = found.missing.unwrap();
            assert_eq!(missing.is_ipv4, is_ipv4);
            assert_eq!(missing.error.to_string(), "the name server answered SERVFAIL");
        }
    }

    /// "No such name" was said of a name that is there, and leads to one that is not.
    #[tokio::test]
    async fn an_alias_that_leads_nowhere_is_named() {
        let resolver = asking(|kind, name| {
            let alias: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x0b\x04gone\x04test\0";
            match (name.starts_with(b"\x03www"), kind == 5) {
                // What the alias leads to does not exist; the alias does.
                (true, true) => (NO_ERROR, alias),
                (true, false) => (NO_SUCH_NAME, alias),
                (false, _) => (NO_SUCH_NAME, b""),
            }
        })
        .await;

        for (name, expected) in [
            (
                "www.test",
                "it is an alias (CNAME) for gone.test: no such name (NXDOMAIN)",
            ),
            ("other.test", "no such name (NXDOMAIN)"),
        ] {
            let error = resolver.addresses(&name.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.is_answer());
        }
    }
}
