//! Looks up a host: every address, or why there is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use thiserror::Error;

use crate::endpoint::Host;

/// Asks the system's name servers, or a given one, for both address families at once.
///
/// Clones share one cache. Errors say whether the answer was that there is no address, or whether
/// there was no answer: only the latter is worth another try.
#[derive(Clone, Debug)]
pub struct Resolver {
    v4: TokioResolver,
    v6: TokioResolver,
}

/// Why no address of a name is known.
#[derive(Debug, Error)]
pub enum Error {
    /// The system's configuration cannot be read.
    #[error("cannot read the system's DNS configuration: {0}")]
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
    /// A resolver with its own cache; without a name server, the system's (and its hosts file).
    pub fn new(nameserver: Option<SocketAddr>, timeout: Duration) -> Result<Self, Error> {
        Ok(Self {
            v4: build(LookupIpStrategy::Ipv4Only, nameserver, timeout)?,
            v6: build(LookupIpStrategy::Ipv6Only, nameserver, timeout)?,
        })
    }

    /// Every A and AAAA address of a host, IPv4 first, without repetition.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Error> {
        let name = match host {
            Host::Ip(address) => return Ok(vec![*address]),
            // A name with a dot is complete; resolv.conf's search list would only add surprises.
            Host::Name(name) if name.as_ref().contains('.') => format!("{}.", name.as_ref()),
            Host::Name(name) => name.as_ref().to_owned(),
        };

        let mut addresses = Vec::new();
        let mut errors = Vec::new();
        let (v4, v6) = futures::join!(self.v4.lookup_ip(name.clone()), self.v6.lookup_ip(name));
        for found in [v4, v6] {
            match found {
                Ok(found) => addresses.extend(found.iter()),
                Err(error) => errors.push(Error::from(error)),
            }
        }
        addresses.sort();
        addresses.dedup();
        if !addresses.is_empty() {
            return Ok(addresses);
        }

        // A family whose look-up failed may have addresses, whatever the answer for the other was.
        let failed = errors.iter().position(|error| matches!(error, Error::Failed(_)));
        if errors.is_empty() {
            Err(Error::NoAddress)
        } else {
            Err(errors.swap_remove(failed.unwrap_or(0)))
        }
    }
}

/// A resolver of one address family.
fn build(
    strategy: LookupIpStrategy,
    nameserver: Option<SocketAddr>,
    timeout: Duration,
) -> Result<TokioResolver, Error> {
    let mut builder = match nameserver {
        None => TokioResolver::builder_tokio().map_err(|error| Error::Configuration(error.to_string()))?,
        Some(server) => TokioResolver::builder_with_config(only(server), TokioRuntimeProvider::default()),
    };
    let options = builder.options_mut();
    options.ip_strategy = strategy;
    options.cache_size = CACHED_NAMES;
    options.attempts = ATTEMPTS;
    // All attempts end before the caller's deadline, so that one family's silence does not hide the
    // other's answer.
    options.timeout = timeout * 4 / 5 / (ATTEMPTS as u32 + 1);
    builder.build().map_err(|error| Error::Configuration(error.to_string()))
}

impl From<NetError> for Error {
    fn from(error: NetError) -> Self {
        let code = match &error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
            NetError::Dns(DnsError::ResponseCode(code)) => *code,
            _ => return Self::Failed(error.to_string()),
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
const ATTEMPTS: usize = 1;
const CACHED_NAMES: u64 = 4_096;
