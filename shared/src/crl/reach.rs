//! Where revocation lists may be fetched from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::endpoint::Host;
use crate::resolve::Resolver;

/// The addresses that lists may be fetched from, whatever certificate, name or redirect leads
/// there.
///
/// A CA's list is never at an address where a cloud hands out credentials, and never on this
/// machine, where Lambda's runtime listens. In a private network it is only if the CA is an
/// organisation's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Whether lists may be in a private network.
    pub(super) private: bool,
    /// Whether lists may be on this machine; only in tests.
    pub(super) loopback: bool,
}

impl Reach {
    pub(super) fn allows(self, address: IpAddr) -> bool {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => return self.allows_v4(address),
            IpAddr::V6(address) => address,
        };
        match address.segments() {
            // NAT64 (RFC 6052) leads to the IPv4 address that is embedded.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                self.allows_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
            }
            // AWS's link-local services, at unique local addresses.
            [0xfd00, 0xec2, ..] => false,
            _ if address.is_loopback() => self.loopback,
            _ if address.is_unique_local() => self.private,
            _ => !address.is_unspecified() && !address.is_unicast_link_local() && !address.is_multicast(),
        }
    }

    fn allows_v4(self, address: Ipv4Addr) -> bool {
        match address.octets() {
            [127, ..] => self.loopback,
            // RFC 6598, shared address space.
            [100, 64..=127, ..] => self.private,
            [0, ..] | [169, 254, ..] | [224..=255, ..] => false,
            _ => self.private || !address.is_private(),
        }
    }

    /// Whether a URL may be requested. A host name passes here, and is checked again by [`Names`]
    /// when its addresses are known.
    pub(super) fn allows_url(self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        matches!(url.scheme(), "http" | "https")
            && host.parse().map_or(!host.is_empty(), |address| self.allows(address))
    }
}

/// Looks names up as the probe does, and leaves out the addresses that are out of reach.
pub(super) struct Names {
    pub(super) resolver: Resolver,
    pub(super) reach: Reach,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.resolver.clone();
        let reach = self.reach;
        Box::pin(async move {
            let host: Host = name.as_str().parse()?;
            let addresses = resolver.addresses(&host).await?.addresses;

            let within: Vec<_> = addresses
                .iter()
                .filter(|address| reach.allows(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            if within.is_empty() {
                return Err(format!("{host} is at {}, where no list is fetched from", addresses[0]).into());
            }
            Ok(Box::new(within.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_for_private_cas() {
        for (address, public, private) in [
            ("192.0.2.7", true, true),
            ("2001:db8::7", true, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("192.168.0.1", false, true),
            ("100.64.0.1", false, true),
            ("fd12:3456::1", false, true),
            ("::ffff:10.1.2.3", false, true),
            ("64:ff9b::a01:203", false, true),
            ("64:ff9b::c000:207", true, true),
            ("127.0.0.1", false, false),
            ("::1", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("fe80::1", false, false),
            ("fd00:ec2::254", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("ff02::1", false, false),
        ] {
            let loopback = false;
            let allows = |private| Reach { private, loopback }.allows(address.parse().unwrap());
            assert_eq!((allows(false), allows(true)), (public, private), "{address}");
        }
    }
}
