//! The system's DNS configuration, read as leniently as the C library reads it.

use std::fs;
use std::net::IpAddr;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::rr::Name;

use super::name::name;

/// What `/etc/resolv.conf` says (resolv.conf(5)).
///
/// Whatever is not understood is ignored, as glibc does it: a word that some other resolver knows
/// must not keep every name from being looked up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    /// In the order in which to ask them.
    servers: Vec<IpAddr>,
    /// The domains in which single labels are looked for.
    search: Vec<String>,
    ndots: Option<usize>,
    /// Whether to ask by TCP only.
    tcp_only: bool,
}

impl System {
    /// Reads the system's file. One that is missing or cannot be read is like an empty one.
    pub(super) fn read() -> Self {
        let text = fs::read(RESOLV_CONF).unwrap_or_default();
        let mut system = Self::parse(&String::from_utf8_lossy(&text));
        if system.search.is_empty() {
            system.search.extend(own_domain());
        }
        system
    }

    fn parse(text: &str) -> Self {
        let mut system = Self::default();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let mut words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
            match words.next() {
                Some("nameserver") => system.servers.extend(words.next().and_then(address)),
                // The last of these lines counts.
                Some("domain") => system.search = words.take(1).map(str::to_owned).collect(),
                Some("search") => system.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| system.option(option)),
                _ => {}
            }
        }
        system.servers.truncate(SERVERS);
        system
    }

    fn option(&mut self, option: &str) {
        match option.split_once(':').unwrap_or((option, "")) {
            ("ndots", number) => self.ndots = number.parse().ok().map(|ndots: usize| ndots.min(NDOTS)).or(self.ndots),
            ("use-vc", _) => self.tcp_only = true,
            _ => {}
        }
    }

    /// Whether the file names a server that can be asked.
    pub(super) fn has_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The configuration of a resolver. Without a name server it asks the one on this machine, as
    /// glibc does.
    pub(super) fn config(&self) -> ResolverConfig {
        let servers = if self.servers.is_empty() {
            vec![IpAddr::from([127, 0, 0, 1])]
        } else {
            self.servers.clone()
        };
        let servers = servers.into_iter().map(|server| {
            if self.tcp_only {
                NameServerConfig::tcp(server)
            } else {
                NameServerConfig::udp_and_tcp(server)
            }
        });
        let search = self.search.iter().filter_map(|domain| domain_name(domain));
        ResolverConfig::from_parts(None, search.collect(), servers.collect())
    }

    /// Sets what the file says of how to look up.
    pub(super) fn apply(&self, options: &mut ResolverOpts) {
        if let Some(ndots) = self.ndots {
            options.ndots = ndots;
        }
    }
}

/// A name server's address, without the scope of a link-local one.
fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

/// A domain of the search list; none for the root, in which a name is looked for anyway, and for
/// what cannot be a name.
fn domain_name(domain: &str) -> Option<Name> {
    name(domain.strip_suffix('.').unwrap_or(domain))
}

/// The domain of this machine's own name, which is searched where the file names none.
fn own_domain() -> Option<String> {
    let host = fs::read_to_string(HOST_NAME).ok()?;
    let (_, domain) = host.trim().split_once('.')?;
    Some(domain.to_owned())
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// More than these are ignored by the C library.
const SERVERS: usize = 3;
/// The largest `ndots` of the C library.
const NDOTS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, Vec<String>, Option<usize>) {
        let system = System::parse(text);
        let servers = system.servers.iter().map(ToString::to_string).collect();
        (servers, system.search, system.ndots)
    }

    #[test]
    fn whatever_stands_in_the_file_the_rest_of_it_counts() {
        for text in [
            "nameserver 192.0.2.1",
            "nameserver\t192.0.2.1\r\n",
            "\u{feff}nameserver 192.0.2.1  # the first\n",
            "nameserver 192.0.2.1\noptions retrans:1 retry:1\n",
            "nameserver 192.0.2.1\noptions edns0 no_tld_query trust-ad timeout:abc ndots:x attempts:\n",
            "nameserver dns.example.com\nnameserver 192.0.2.1\n",
            "nameserver\nnameserver 192.0.2.300\nnameserver 192.0.2.1\n",
            "some-new-directive 1\nnameserver 192.0.2.1\n",
            "; a comment\n# another\nsortlist 192.0.2.0/24\nfamily inet4\nlookup file bind\nnameserver 192.0.2.1\n",
            "options\nsearch\ndomain\nnameserver 192.0.2.1\n\0\n",
        ] {
            assert_eq!(parsed(text), (vec!["192.0.2.1".to_owned()], vec![], None), "{text:?}");
        }
    }

    #[test]
    fn servers_search_and_ndots_are_taken_as_glibc_takes_them() {
        let text = "search a.example b.example\ndomain c.example d.example\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:99\n";
        let (servers, search, ndots) = parsed(text);
        assert_eq!(servers, ["fe80::1", "2001:db8::1", "192.0.2.1"]);
        assert_eq!((search, ndots), (vec!["c.example".to_owned()], Some(15)));

        for (search, expected) in [
            (
                "search Speedport_000 . x..y example.com",
                &["Speedport_000.", "example.com."][..],
            ),
            ("search lan- a_b.lan", &["lan-.", "a_b.lan."]),
            ("domain corp.example.", &["corp.example."]),
        ] {
            let config = System::parse(search).config();
            let names: Vec<_> = config.search().iter().map(ToString::to_string).collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn without_a_name_server_it_is_this_machine() {
        for text in ["", "# nothing here\n", "nameserver none\n"] {
            let system = System::parse(text);
            assert!(!system.has_servers());
            let config = system.config();
            let servers: Vec<_> = config.name_servers().iter().map(|server| server.ip).collect();
            assert_eq!(servers, [IpAddr::from([127, 0, 0, 1])], "{text:?}");
        }
    }
}
