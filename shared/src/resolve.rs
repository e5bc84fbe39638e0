//! Looks a host up: every address, or why there is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfigGroup, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use thiserror::Error;

use crate::endpoint::Host;

/// Asks the system's name servers, or one that was named.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: TokioResolver,
}

/// Why a name has no address that we know of.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read the system's DNS configuration: {0}")]
    Configuration(String),
    #[error("no such name (NXDOMAIN)")]
    NoSuchName,
    #[error("the name has neither A nor AAAA records")]
    NoAddress,
    #[error("{0}")]
    Failed(String),
}

impl Resolver {
    /// A resolver with its own cache; without a name server, the system's (and its hosts file).
    pub fn new(nameserver: Option<SocketAddr>, timeout: Duration) -> Result<Self, Error> {
        let mut builder = match nameserver {
            None => TokioResolver::builder_tokio().map_err(|error| Error::Configuration(error.to_string()))?,
            Some(server) => TokioResolver::builder_with_config(only(server), TokioConnectionProvider::default()),
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = CACHED_NAMES;
        options.attempts = ATTEMPTS;
        options.timeout = timeout / (ATTEMPTS as u32 + 1);
        Ok(Self { inner: builder.build() })
    }

    /// Every A and AAAA address of a host, IPv4 first, without repetition.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Error> {
        let name = match host {
            Host::Ip(address) => return Ok(vec![*address]),
            // A name with a dot is complete; resolv.conf's search list would only add surprises.
            Host::Name(name) if name.as_ref().contains('.') => format!("{}.", name.as_ref()),
            Host::Name(name) => name.as_ref().to_owned(),
        };
        let mut addresses: Vec<IpAddr> = self.inner.lookup_ip(name).await.map_err(Error::from)?.iter().collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            Err(Error::NoAddress)
        } else {
            Ok(addresses)
        }
    }
}

impl From<hickory_resolver::ResolveError> for Error {
    fn from(error: hickory_resolver::ResolveError) -> Self {
        if error.is_nx_domain() {
            Self::NoSuchName
        } else if error.is_no_records_found() {
            Self::NoAddress
        } else {
            Self::Failed(error.to_string())
        }
    }
}

/// Whether this machine has a route to an address. Sends nothing: connecting a UDP socket only asks the routing table.
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

fn only(server: SocketAddr) -> ResolverConfig {
    let group = NameServerConfigGroup::from_ips_clear(&[server.ip()], server.port(), true);
    ResolverConfig::from_parts(None, Vec::new(), group)
}

const ATTEMPTS: usize = 1;
const CACHED_NAMES: usize = 4_096;
