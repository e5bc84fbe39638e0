//! The system's hosts file (hosts(5)).

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;

/// The names that need no name server, in lower case and without a trailing dot.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    addresses: HashMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads the system's file. One that is missing or cannot be read has no names.
    pub(super) fn read() -> Self {
        let text = fs::read(HOSTS).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// A line that is not understood is ignored, and so is a name that no host has.
    fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|address| address.parse().ok()) else {
                continue;
            };
            for name in words {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                hosts.addresses.entry(name).or_default().push(address);
            }
        }
        hosts
    }

    /// The addresses of a name in lower case; none if it is not in the file.
    pub(super) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.addresses.get(name).map(Vec::as_slice)
    }
}

const HOSTS: &str = "/etc/hosts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_people_and_programs_write_them() {
        let text = "\u{feff}127.0.0.1 localhost # this machine\r\n::1\tlocalhost ip6-localhost\n# 192.0.2.9 off.example\n\
                    192.0.2.7 My_Host.Example.com. foo-.example.com db\n\nnonsense here\n192.0.2.8\nfe80::1%lo0 scoped.example\n";
        let hosts = Hosts::parse(text);
        for (name, expected) in [
            ("localhost", &["127.0.0.1", "::1"][..]),
            ("ip6-localhost", &["::1"]),
            ("my_host.example.com", &["192.0.2.7"]),
            ("foo-.example.com", &["192.0.2.7"]),
            ("db", &["192.0.2.7"]),
            ("off.example", &[]),
            ("here", &[]),
            ("scoped.example", &[]),
        ] {
            let found = hosts.addresses(name).unwrap_or_default();
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
