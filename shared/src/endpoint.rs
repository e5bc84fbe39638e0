//! An endpoint: what we probe, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;
use tokio_rustls::rustls::pki_types::ServerName;

/// A host, a port, and how its TLS begins.
///
/// It is parsed from what people write: `example.com`, `example.com:8443`, `[2001:db8::1]:443`,
/// `https://example.com/`, `smtps://mail.example.com` or, with STARTTLS,
/// `smtp://mail.example.com:587`. The parts of a pasted URL that say nothing about the certificate
/// are left out: user, path, query and fragment. It prints in one canonical form, which can be
/// parsed again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Name or address.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// The protocol that is spoken before TLS, if any.
    pub starttls: Option<StartTls>,
}

/// A DNS name in its ASCII form (lower case, no trailing dot), or an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name to look up.
    Name(HostName),
    /// An address to connect to.
    Ip(IpAddr),
}

/// A name that the DNS can have, in ASCII and lower case.
///
/// It need not be one that RFC 1123 lets a host have: names with underscores, and with hyphens at
/// the ends of labels, exist, and other clients connect to them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// Takes letters, digits, hyphens and underscores, in labels of a length that the DNS allows
    /// (RFC 1035, 2.3.4).
    fn new(name: &str) -> Option<Self> {
        // No top-level domain is a number, so 192.0.2.700 is a mistyped address.
        let is_like_an_address = (name.rsplit('.').next()).is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        // One that consists of hyphens alone was a dash on a list.
        let is_a_word = name.bytes().any(|byte| byte.is_ascii_alphanumeric());

        let is_name = name.len() <= NAME && name.split('.').all(is_label) && is_a_word && !is_like_an_address;
        is_name.then(|| Self(name.to_ascii_lowercase()))
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The protocols whose upgrade to TLS we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StartTls {
    /// RFC 3207.
    Smtp,
    /// RFC 9051, 6.2.1.
    Imap,
    /// RFC 2595.
    Pop3,
    /// RFC 4217.
    Ftp,
    /// RFC 4511, 4.14.
    Ldap,
    /// PostgreSQL's SSLRequest.
    Postgres,
    /// MySQL's SSLRequest.
    Mysql,
    /// RFC 2033 with RFC 3207.
    Lmtp,
    /// RFC 4642.
    Nntp,
    /// RFC 5804, 2.2.
    Sieve,
    /// RFC 6120, 5, as clients speak it.
    Xmpp,
    /// The same, as servers speak it.
    XmppServer,
}

/// What is wrong with an endpoint as it was written.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("invalid endpoint {text:?}: {problem} (expected {EXPECTED})")]
pub struct ParseError {
    text: String,
    problem: String,
}

impl ParseError {
    /// What is wrong and what is expected, for a reader who sees the text already.
    pub fn reason(&self) -> String {
        format!("{} (expected {EXPECTED})", self.problem)
    }
}

impl Endpoint {
    /// The endpoint for a host, with the protocol's usual port when none is given.
    pub fn new(host: Host, port: Option<u16>, starttls: Option<StartTls>) -> Self {
        let port = port.unwrap_or_else(|| starttls.map_or(443, StartTls::default_port));
        Self { host, port, starttls }
    }

    /// The scheme of what begins with TLS at this port, usually.
    pub(crate) fn scheme_with_tls(&self) -> Option<&'static str> {
        let of_port = IMPLICIT.iter().find(|(_, port)| *port == self.port);
        of_port.map(|(scheme, _)| *scheme)
    }

    /// The host in Unicode, where that reads differently.
    pub fn unicode(&self) -> Option<String> {
        let Host::Name(name) = &self.host else { return None };
        let (unicode, result) = idna::domain_to_unicode(name.as_ref());
        (result.is_ok() && unicode != name.as_ref()).then_some(unicode)
    }
}

impl FromStr for Endpoint {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = |problem: String| ParseError {
            text: without_secrets(text),
            problem,
        };

        let (scheme, rest) = match text.trim().split_once("://") {
            Some((scheme, rest)) => (scheme, without_user(authority(rest))),
            None if is_network(text.trim()) => return Err(error("it is a network, not one address".to_owned())),
            None => ("tls", authority(text.trim())),
        };
        // RFC 3986, 3.1: schemes are written in either case.
        let scheme = scheme.to_ascii_lowercase();
        let implicit = IMPLICIT.iter().find(|(name, _)| *name == scheme).map(|(_, port)| *port);
        let starttls = match implicit {
            Some(_) => None,
            None => Some(scheme.parse().map_err(|_| error(unknown_scheme(&scheme)))?),
        };

        let (host, port) = split(rest).map_err(error)?;
        let port = port.map(parse_port).transpose().map_err(error)?;
        Ok(Self::new(host.parse().map_err(error)?, port.or(implicit), starttls))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(starttls) = self.starttls {
            write!(f, "{starttls}://")?;
        }
        match self.host {
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    /// Takes a name in Unicode or ASCII, with or without its trailing dot, or an address without
    /// brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the host is missing".to_owned());
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(address));
        }
        if is_scoped(text) {
            return Err(format!(
                "{text:?} is an address on one network interface, which other machines do not have"
            ));
        }
        if text.contains('*') {
            return Err(format!("{text:?} is a wildcard, which cannot be connected to"));
        }

        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL).ok();
        let name = ascii.and_then(|ascii| HostName::new(ascii.strip_suffix('.').unwrap_or(&ascii)));
        name.map(Self::Name)
            .ok_or_else(|| format!("{text:?} is not a domain name"))
    }
}

impl Host {
    /// The name that a client asks for and that a certificate must match; none if the TLS library
    /// does not take it as a name.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Name(name) => ServerName::try_from(name.as_ref()).ok().map(|name| name.to_owned()),
            Self::Ip(address) => Some(ServerName::from(*address)),
        }
    }

    /// Whether a certificate for one of these names is for this host (RFC 9525, 6.3): a wildcard
    /// stands for the leftmost label alone.
    pub fn is_among(&self, names: &[String]) -> bool {
        let name = self.to_string();
        names.iter().any(|presented| is_for(presented, &name))
    }
}

/// Whether a name in a certificate is for the name of a host.
pub(crate) fn is_for(presented: &str, name: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    match presented.strip_prefix("*.") {
        Some(suffix) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(suffix)),
        None => presented.eq_ignore_ascii_case(name),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_ref()),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl StartTls {
    /// All of them, in the order that errors list them.
    pub const ALL: [Self; 12] = [
        Self::Smtp,
        Self::Imap,
        Self::Pop3,
        Self::Ftp,
        Self::Ldap,
        Self::Postgres,
        Self::Mysql,
        Self::Lmtp,
        Self::Nntp,
        Self::Sieve,
        Self::Xmpp,
        Self::XmppServer,
    ];

    /// The port that the protocol uses when none is given.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Smtp => 25,
            Self::Imap => 143,
            Self::Pop3 => 110,
            Self::Ftp => 21,
            Self::Ldap => 389,
            Self::Postgres => 5432,
            Self::Mysql => 3306,
            Self::Lmtp => 24,
            Self::Nntp => 119,
            Self::Sieve => 4190,
            Self::Xmpp => 5222,
            Self::XmppServer => 5269,
        }
    }

    /// Its name in URLs and in the inventory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Ftp => "ftp",
            Self::Ldap => "ldap",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Lmtp => "lmtp",
            Self::Nntp => "nntp",
            Self::Sieve => "sieve",
            Self::Xmpp => "xmpp",
            Self::XmppServer => "xmpp-server",
        }
    }
}

impl FromStr for StartTls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // PostgreSQL's own clients take both.
        let name = if text == "postgresql" { "postgres" } else { text };
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("{text:?} is not a protocol with STARTTLS (expected {known})")
            })
    }
}

impl fmt::Display for StartTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn unknown_scheme(scheme: &str) -> String {
    let starttls = StartTls::ALL.map(StartTls::name).join(", ");
    let implicit = IMPLICIT.map(|(name, _)| name).join(", ");
    format!("{scheme:?} is not a known protocol (with STARTTLS: {starttls}; with TLS from the start: {implicit})")
}

/// The host and port of a URL without its scheme (RFC 3986, 3.2).
fn authority(text: &str) -> &str {
    text.split(['/', '?', '#']).next().unwrap_or_default()
}

fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A URL as a message may show it: without what may be a password.
fn without_secrets(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => format!("{scheme}://…@{}", without_user(rest)),
        _ => text.to_owned(),
    }
}

/// The host without brackets, and the port if there is one.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or("the bracket is not closed")?;
        if address.parse::<Ipv6Addr>().is_err() && !is_scoped(address) {
            return Err(format!("{address:?} is not an IPv6 address"));
        }
        return match (rest, rest.strip_prefix(':')) {
            ("", _) => Ok((address, None)),
            (_, Some(port)) => Ok((address, Some(port))),
            _ => Err(format!("{rest:?} after the bracket is not a port")),
        };
    }
    match text.split_once(':') {
        // An IPv6 address is also accepted without brackets, and then has no port.
        Some((_, rest)) if rest.contains(':') && (text.parse::<Ipv6Addr>().is_ok() || is_scoped(text)) => {
            Ok((text, None))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// Whether it is a network in CIDR notation (RFC 4632, 3.1). As the path of a URL, the length of
/// its prefix would be left out, and its first address alone be watched.
fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let is_length = (1..=3).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
        is_length && address.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    })
}

/// Whether it is an IPv6 address with a zone (RFC 4007, 11): `fe80::1%eth0`.
fn is_scoped(text: &str) -> bool {
    text.split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port @ 1..) => Ok(port),
        Ok(0) => Err("port 0 cannot be connected to".to_owned()),
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(format!("port {text} is larger than 65535"))
        }
        Err(_) if text.is_empty() => Err("the port after the colon is missing".to_owned()),
        Err(_) => Err("port is not a number".to_owned()),
    }
}

/// The schemes of protocols that begin with TLS, and their usual ports.
const IMPLICIT: [(&str, u16); 15] = [
    ("tls", 443),
    ("https", 443),
    ("smtps", 465),
    ("imaps", 993),
    ("pop3s", 995),
    ("ldaps", 636),
    ("ftps", 990),
    ("wss", 443),
    ("amqps", 5671),
    ("mqtts", 8883),
    ("rediss", 6379),
    ("ircs", 6697),
    ("sips", 5061),
    ("nntps", 563),
    ("xmpps", 5223),
];
/// RFC 1035, 2.3.4, in characters.
const LABEL: usize = 63;
const NAME: usize = 253;
const EXPECTED: &str = "host[:port], [v6]:port, smtp://host[:port] or smtps://host[:port]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_as_people_write_them() {
        for (text, canonical) in [
            ("example.com", "example.com:443"),
            ("Example.COM.:8443", "example.com:8443"),
            (" example.com ", "example.com:443"),
            ("https://example.com/", "example.com:443"),
            ("192.0.2.7", "192.0.2.7:443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("smtp://mail.example.com:587", "smtp://mail.example.com:587"),
            ("HTTPS://example.com", "example.com:443"),
            ("smtps://mail.example.com", "mail.example.com:465"),
            ("ldaps://ldap.example.com:3269", "ldap.example.com:3269"),
            ("Imap://mail.example.com", "imap://mail.example.com:143"),
            ("postgres://db.example.com", "postgres://db.example.com:5432"),
            ("bücher.example", "xn--bcher-kva.example:443"),
            ("_sip._tcp.example.com", "_sip._tcp.example.com:443"),
            ("My_Host.example.com", "my_host.example.com:443"),
            ("host_.example.com", "host_.example.com:443"),
            ("foo-.example.com", "foo-.example.com:443"),
            ("-foo.a--b.example.com:8443", "-foo.a--b.example.com:8443"),
            ("amqps://mq.example.com", "mq.example.com:5671"),
            ("xmpp-server://chat.example.com", "xmpp-server://chat.example.com:5269"),
            ("https://example.com:8443/login?next=/a:b@c#top", "example.com:8443"),
            ("https://example.com/?a=b", "example.com:443"),
            ("example.com/login", "example.com:443"),
            ("https://192.0.2.7/24", "192.0.2.7:443"),
            ("https://me:pass@word@example.com/", "example.com:443"),
            ("postgres://app@[2001:db8::1]/shop", "postgres://[2001:db8::1]:5432"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(endpoint.to_string(), canonical);
            assert_eq!(
                canonical.parse::<Endpoint>().unwrap(),
                endpoint,
                "what is printed can be read again"
            );
        }
        assert_eq!(
            "bücher.example".parse::<Endpoint>().unwrap().unicode().unwrap(),
            "bücher.example"
        );
        assert_eq!("example.com".parse::<Endpoint>().unwrap().unicode(), None);
    }

    #[test]
    fn a_certificate_is_for_a_name_that_the_tls_library_does_not_take() {
        for (host, names, expected) in [
            ("foo-.example.com", &["*.example.com"][..], true),
            ("foo-.example.com", &["other.example.com", "Foo-.Example.com"], true),
            (
                "foo-.example.com",
                &["*.com", "example.com", "*.foo-.example.com"],
                false,
            ),
            ("a.foo-.example.com", &["*.example.com"], false),
            ("foo-.example.com", &[], false),
        ] {
            let host: Host = host.parse().unwrap();
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(host.server_name(), None, "{host}");
            assert_eq!(host.is_among(&names), expected, "{host}: {names:?}");
        }
    }

    #[test]
    fn errors_name_the_value_and_the_accepted_form() {
        for (text, problem) in [
            ("exmple:https", "port is not a number"),
            ("example.com:", "the port after the colon is missing"),
            ("example.com:0", "port 0 cannot be connected to"),
            ("example.com:65536", "port 65536 is larger than 65535"),
            ("", "the host is missing"),
            (":443", "the host is missing"),
            (
                "*.example.com",
                "\"*.example.com\" is a wildcard, which cannot be connected to",
            ),
            ("a..b", "\"a..b\" is not a domain name"),
            ("exa mple", "\"exa mple\" is not a domain name"),
            ("--", "\"--\" is not a domain name"),
            ("192.0.2.700", "\"192.0.2.700\" is not a domain name"),
            ("192.0.2.0/24", "it is a network, not one address"),
            ("2001:db8::/32", "it is a network, not one address"),
            ("[::1", "the bracket is not closed"),
            (
                "[fe80::1%eth0]:8443",
                "\"fe80::1%eth0\" is an address on one network interface, which other machines do not have",
            ),
            (
                "fe80::1%25eth0",
                "\"fe80::1%25eth0\" is an address on one network interface, which other machines do not have",
            ),
            ("[::1]x", "\"x\" after the bracket is not a port"),
            (
                "gopher://example.com",
                "\"gopher\" is not a known protocol (with STARTTLS: smtp, imap, pop3, ftp, ldap, postgres, mysql, lmtp, \
                 nntp, sieve, xmpp, xmpp-server; with TLS from the start: tls, https, smtps, imaps, pop3s, ldaps, ftps, wss, amqps, \
                 mqtts, rediss, ircs, sips, nntps, xmpps)",
            ),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("invalid endpoint {text:?}: {problem} (expected {EXPECTED})")
            );
        }
        for url in ["https://me:secret@a..b/path", "https://me:secret/secret@host"] {
            let error = url.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.starts_with("invalid endpoint \"https://…@"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
