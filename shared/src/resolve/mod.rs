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
use hickory_resolver::proto::rr::RecordType;
use thiserror::Error;

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
    /// No name server answered, or not with a result; another try may help.
    #[error("{0}")]
    Failed(String),
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

    /// Every A and AAAA address of a host, IPv4 first, without repetition.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Error> {
        let text = match host {
            Host::Ip(address) => return Ok(vec![*address]),
            Host::Name(name) => name.as_ref(),
        };
        // A name that is there is not asked for, as in the C library: not for its other family
        // either.
        if let Some(addresses) = self.hosts.addresses(text) {
            return Ok(in_order(addresses.to_vec()));
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
        for found in [v4, v6] {
            match found {
                Ok(records) => addresses.extend(records.iter().filter_map(|record| record.data.ip_addr())),
                Err(error) => errors.push(self.error(error)),
            }
        }
        if !addresses.is_empty() {
            return Ok(in_order(addresses));
        }

        // A family whose look-up failed may have addresses, whatever the answer for the other was.
        let failed = errors.iter().position(|error| matches!(error, Error::Failed(_)));
        if errors.is_empty() {
            Err(Error::NoAddress)
        } else {
            Err(errors.swap_remove(failed.unwrap_or(0)))
        }
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
