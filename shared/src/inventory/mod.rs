//! The inventory: what a person wrote, parsed strictly, each entry on its own.

mod problem;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

pub use self::problem::Problem;
use crate::endpoint::{Endpoint, Host, StartTls};
use crate::finding::Thresholds;

/// What is to be watched and renewed, and what could not be understood of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// For entries that set none of their own.
    pub thresholds: Thresholds,
    /// Everything to look at: the endpoints, and where certificates are served.
    pub watched: Vec<Watched>,
    /// Certificates to renew and deliver.
    pub certificates: Vec<Managed>,
    /// Issuers by name, the built-in ones included.
    pub issuers: BTreeMap<String, Issuer>,
    /// Hosted zones that are not simply ours.
    pub zones: Vec<Zone>,
    /// What could not be understood. The rest stands.
    pub problems: Vec<Problem>,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Watched {
    pub endpoint: Endpoint,
    pub sni: Option<Host>,
    pub addresses: Vec<IpAddr>,
    /// Where the PEM with this endpoint's own roots is: a key in the bucket, or a path beside a local inventory.
    pub ca: Option<String>,
    pub thresholds: Thresholds,
    /// Whether its findings are in the report only, and alert nobody.
    pub quiet: bool,
    /// Where it was written.
    pub line: Option<usize>,
}

/// A certificate to renew, deliver and watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Managed {
    /// Its folder in the bucket.
    pub name: String,
    /// DNS names, wildcards and addresses, in ASCII.
    pub identifiers: Vec<String>,
    pub served_at: Vec<Endpoint>,
    /// By name, in the order in which to try them.
    pub issuers: Vec<String>,
    pub key_type: KeyType,
    /// ACME profile.
    pub profile: Option<String>,
    /// Whether the next version keeps the key of this one.
    pub reuse_key: bool,
    /// How long a new version may take until every instance and address serves it.
    pub deliver_within: time::Duration,
    pub thresholds: Thresholds,
    /// Whether findings about it, and where it is served, are in the report only, and alert nobody.
    pub quiet: bool,
    pub line: Option<usize>,
}

/// The key to generate for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum KeyType {
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        })
    }
}

/// A certification authority that speaks ACME.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its name in the inventory: `[issuer.NAME]`.
    #[serde(skip)]
    pub name: String,
    /// URL of its directory (RFC 8555, 7.1.1).
    pub directory: String,
    /// `mailto:` URLs for the account.
    #[serde(default)]
    pub contact: Vec<String>,
    /// Whether the account needs an external account binding.
    #[serde(default)]
    pub eab: bool,
    /// For a private CA: where the PEM with the roots of its directory and of its certificates is, a key in the bucket.
    pub ca: Option<String>,
    /// Whether clients are not meant to trust what it issues.
    #[serde(default)]
    pub staging: bool,
    /// URL of the directory that a dry run orders from.
    pub staging_directory: Option<String>,
}

/// How to reach a hosted zone that is not simply ours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone's name.
    pub name: String,
    /// Its id, where several zones have that name.
    pub id: Option<String>,
    /// The role to assume for it.
    pub role_arn: Option<String>,
    /// What that role asks for (`sts:ExternalId`).
    pub external_id: Option<String>,
}

impl Inventory {
    /// Understands as much as there is to be understood of an `inventory.toml`; the rest is in `problems`.
    pub fn parse(text: &str) -> Self {
        Self::parse_with(text, Thresholds::default())
    }

    /// Likewise, with other thresholds for a file that sets none.
    pub fn parse_with(text: &str, thresholds: Thresholds) -> Self {
        let mut reader = Reader {
            text,
            places: HashMap::new(),
            lines: text.match_indices('\n').map(|(at, _)| at).collect(),
            inventory: Self {
                thresholds,
                issuers: built_in(),
                ..Self::default()
            },
        };
        match DeTable::parse(text) {
            Ok(table) => reader.read(table.into_inner()),
            Err(error) => reader.problem(error.span(), one_line(error.message())),
        }
        reader.inventory.problems.sort_by_key(|problem| problem.line);
        reader.inventory
    }

    /// The inventory of a list of endpoints, separated by commas or white space.
    pub fn of_endpoints(list: &str, thresholds: Thresholds) -> Self {
        let mut inventory = Self {
            thresholds,
            issuers: built_in(),
            ..Self::default()
        };
        for text in list.split([',', ' ', '\t', '\n', '\r']).filter(|text| !text.is_empty()) {
            match text.parse::<Endpoint>() {
                Ok(endpoint) => inventory.watch(Watched::plain(endpoint, thresholds, None)),
                Err(error) => inventory.problems.push(Problem::new(error.to_string())),
            }
        }
        inventory
    }

    /// Watches an endpoint the way that another inventory does, or plainly if that does not know it.
    pub fn watch_as_in(&mut self, other: &Inventory, endpoint: Endpoint) {
        let known: Vec<_> = other
            .watched
            .iter()
            .filter(|watched| watched.endpoint == endpoint)
            .cloned()
            .collect();
        if known.is_empty() {
            self.watch(Watched::plain(endpoint, self.thresholds, None));
        }
        known.into_iter().for_each(|watched| self.watch(watched));
    }

    /// Adds what is not there yet: the same place may be named by an endpoint and by a certificate.
    fn watch(&mut self, new: Watched) {
        if !self.watched.iter().any(|old| old.covers(&new)) {
            self.watched.push(new);
        }
    }
}

impl Watched {
    fn plain(endpoint: Endpoint, thresholds: Thresholds, line: Option<usize>) -> Self {
        Self {
            endpoint,
            sni: None,
            addresses: Vec::new(),
            ca: None,
            thresholds,
            quiet: false,
            line,
        }
    }

    /// Whether it looks where `new` would: at the same place, or at addresses of its own where `new` leaves that to DNS.
    fn covers(&self, new: &Self) -> bool {
        let anywhere = new.sni.is_none() && new.addresses.is_empty();
        self.endpoint == new.endpoint && self.sni == new.sni && (anywhere || self.addresses == new.addresses)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEndpoint {
    host: Spanned<String>,
    port: Option<Spanned<u16>>,
    sni: Option<Spanned<String>>,
    starttls: Option<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    ca: Option<String>,
    warn_days: Option<Spanned<u32>>,
    critical_days: Option<Spanned<u32>>,
    #[serde(default)]
    quiet: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCertificate {
    identifiers: Spanned<Vec<Spanned<String>>>,
    name: Option<Spanned<String>>,
    served_at: Option<Vec<Spanned<String>>>,
    issuers: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    key_type: KeyType,
    profile: Option<String>,
    #[serde(default)]
    reuse_key: bool,
    deliver_within_hours: Option<u16>,
    warn_days: Option<Spanned<u32>>,
    critical_days: Option<Spanned<u32>>,
    #[serde(default)]
    quiet: bool,
}

/// A problem before its line is counted.
type Unplaced = (Option<Range<usize>>, String);

struct Reader<'a> {
    text: &'a str,
    /// Where lines end.
    lines: Vec<usize>,
    /// Which of the watched are at an endpoint.
    places: HashMap<Endpoint, Vec<usize>>,
    inventory: Inventory,
}

impl Reader<'_> {
    /// Settings and issuers first: entries refer to them wherever they stand in the file.
    fn read(&mut self, mut table: DeTable<'_>) {
        let (warn, critical) = (
            self.take(&mut table, "warn_days"),
            self.take(&mut table, "critical_days"),
        );
        match self.thresholds(warn, critical) {
            Ok(thresholds) => self.inventory.thresholds = thresholds,
            Err((span, problem)) => self.problem(span, problem),
        }
        for (name, value) in self.tables(&mut table, "issuer") {
            self.issuer(name, value);
        }
        for value in self.array(&mut table, "zone") {
            match self.understand::<Zone>(value) {
                Ok(zone) => self.inventory.zones.push(zone),
                Err((span, problem)) => self.problem(span, format!("[[zone]] {problem}")),
            }
        }
        for value in self.array(&mut table, "endpoint") {
            let line = self.line(value.span());
            let written = self.understand(value);
            if let Err((span, problem)) = written.and_then(|written| self.endpoint(written, line)) {
                self.problem(span, format!("[[endpoint]] {problem}"));
            }
        }
        for value in self.array(&mut table, "certificate") {
            let line = self.line(value.span());
            let written = self.understand(value);
            if let Err((span, problem)) = written.and_then(|written| self.certificate(written, line)) {
                self.problem(span, format!("[[certificate]] {problem}"));
            }
        }
        for (key, _) in table {
            let problem = format!("unknown key {:?} (expected {TOP_LEVEL})", key.get_ref());
            self.problem(Some(key.span()), problem);
        }
    }

    fn endpoint(&mut self, written: WrittenEndpoint, line: usize) -> Result<(), Unplaced> {
        let WrittenEndpoint {
            host,
            port,
            sni,
            starttls,
            addresses,
            ca,
            warn_days,
            critical_days,
            quiet,
        } = written;
        if let Some(port) = port.as_ref().filter(|port| *port.get_ref() == 0) {
            return Err((
                Some(port.span()),
                "port = 0 cannot be connected to (expected 1 to 65535)".to_owned(),
            ));
        }
        let host_span = host.span();
        let host = parse::<Host>("host", HOST, host)?;
        let starttls = starttls
            .map(|text| parse::<StartTls>("starttls", "one of them", text))
            .transpose()?;
        let addresses: Result<_, _> = addresses
            .into_iter()
            .map(|text| parse("addresses", ADDRESS, text))
            .collect();
        let watched = Watched {
            endpoint: Endpoint::new(host, port.map(Spanned::into_inner), starttls),
            sni: sni.map(|text| parse("sni", HOST, text)).transpose()?,
            addresses: addresses?,
            ca,
            thresholds: self.thresholds(warn_days, critical_days)?,
            quiet,
            line: Some(line),
        };
        let same = |old: &Watched| old.sni == watched.sni && old.addresses == watched.addresses;
        let Some(old) = self.find(&watched.endpoint, same) else {
            self.watch(watched);
            return Ok(());
        };
        let (first, line) = (old.line.unwrap_or_default(), old.line);
        if *old == (Watched { line, ..watched }) {
            return Ok(());
        }
        let problem = format!(
            "{} is in line {first} already, with other settings (expected once, or with another sni or other addresses)",
            old.endpoint
        );
        Err((Some(host_span), problem))
    }

    fn certificate(&mut self, written: WrittenCertificate, line: usize) -> Result<(), Unplaced> {
        let span = written.identifiers.span();
        let identifiers: Result<Vec<_>, _> = written.identifiers.into_inner().into_iter().map(identifier).collect();
        let (mut identifiers, mut known) = (identifiers?, BTreeSet::new());
        identifiers.retain(|identifier| known.insert(identifier.clone()));
        let Some(first) = identifiers.first() else {
            return Err((
                Some(span),
                "identifiers = [] is empty (expected at least one name)".to_owned(),
            ));
        };
        let (name_span, name) = match written.name {
            Some(name) => (name.span(), name.into_inner()),
            None => (span, first.trim_start_matches("*.").to_owned()),
        };
        self.folder(&name).map_err(|problem| (Some(name_span), problem))?;
        let served_at = match written.served_at {
            Some(served_at) => served_at.into_iter().map(served).collect::<Result<Vec<_>, _>>()?,
            None => identifiers.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let issuers = match written.issuers {
            Some(issuers) => self.known(issuers)?,
            None => vec![DEFAULT_ISSUER.to_owned()],
        };
        let thresholds = self.thresholds(written.warn_days, written.critical_days)?;
        for endpoint in &served_at {
            let new = Watched {
                ca: self.private_roots(&issuers),
                quiet: written.quiet,
                ..Watched::plain(endpoint.clone(), thresholds, Some(line))
            };
            // What an entry of its own says of an endpoint wins.
            match self.find(endpoint, |old| old.covers(&new)) {
                Some(old) => old.ca = old.ca.take().or(new.ca),
                None => self.watch(new),
            }
        }
        let (key_type, profile, reuse_key) = (written.key_type, written.profile, written.reuse_key);
        let hours = written.deliver_within_hours.unwrap_or(DELIVER_WITHIN_HOURS);
        let certificate = Managed {
            name,
            identifiers,
            served_at,
            issuers,
            key_type,
            profile,
            reuse_key,
            deliver_within: time::Duration::hours(hours.into()),
            thresholds,
            quiet: written.quiet,
            line: Some(line),
        };
        self.inventory.certificates.push(certificate);
        Ok(())
    }

    fn issuer(&mut self, name: Spanned<String>, value: Spanned<DeValue<'_>>) {
        let span = value.span();
        let checked = self
            .understand::<Issuer>(value)
            .and_then(|issuer| match &issuer.directory {
                url if url.starts_with("https://") => Ok(issuer),
                url => Err((
                    Some(span),
                    format!("directory = {url:?} is not a URL (expected https://…/directory)"),
                )),
            });
        match checked {
            Ok(issuer) => {
                let name = name.into_inner();
                let issuer = Issuer {
                    name: name.clone(),
                    ..issuer
                };
                self.inventory.issuers.insert(name, issuer);
            }
            Err((span, problem)) => self.problem(span, format!("[issuer.{}] {problem}", name.get_ref())),
        }
    }

    /// A certificate's name is a folder in the bucket and on instances, so it is what both can hold, and its alone.
    fn folder(&self, name: &str) -> Result<(), String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(fits) {
            return Err(format!(
                "name = {name:?} cannot be a folder (expected a-z, 0-9, - _ . and no leading dot)"
            ));
        }
        match self.inventory.certificates.iter().find(|other| other.name == name) {
            Some(Managed { line: Some(line), .. }) => Err(format!(
                "name = {name:?} is taken by the certificate in line {line} (expected another name)"
            )),
            _ => Ok(()),
        }
    }

    fn known(&self, issuers: Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, Unplaced> {
        let names = || self.inventory.issuers.keys().cloned().collect::<Vec<_>>().join(", ");
        let one = |issuer: Spanned<String>| match self.inventory.issuers.contains_key(issuer.get_ref()) {
            true => Ok(issuer.into_inner()),
            false => {
                let problem = format!(
                    "issuers: {:?} is not known (expected {}, or its [issuer.…])",
                    issuer.get_ref(),
                    names()
                );
                Err((Some(issuer.span()), problem))
            }
        };
        let span = issuers.span();
        match issuers
            .into_inner()
            .into_iter()
            .map(one)
            .collect::<Result<Vec<_>, _>>()?
        {
            none if none.is_empty() => Err((Some(span), format!("issuers = [] is empty (expected {})", names()))),
            known => Ok(known),
        }
    }

    fn private_roots(&self, issuers: &[String]) -> Option<String> {
        let of = |issuer: &String| self.inventory.issuers.get(issuer)?.ca.clone();
        issuers.iter().find_map(of)
    }

    /// Critical is never sooner than a warning.
    fn thresholds(
        &self,
        warn_days: Option<Spanned<u32>>,
        critical_days: Option<Spanned<u32>>,
    ) -> Result<Thresholds, Unplaced> {
        let defaults = self.inventory.thresholds;
        let warn = warn_days.map_or(defaults.warn_days, Spanned::into_inner);
        let Some(critical) = critical_days else {
            let critical_days = defaults.critical_days.min(warn);
            return Ok(Thresholds {
                warn_days: warn,
                critical_days,
            });
        };
        let (span, critical) = (critical.span(), critical.into_inner());
        if critical > warn {
            let problem =
                format!("critical_days = {critical} is more than warn_days = {warn} (expected at most as many)");
            return Err((Some(span), problem));
        }
        Ok(Thresholds {
            warn_days: warn,
            critical_days: critical,
        })
    }

    fn watch(&mut self, new: Watched) {
        let place = self.places.entry(new.endpoint.clone()).or_default();
        place.push(self.inventory.watched.len());
        self.inventory.watched.push(new);
    }

    /// What is watched at an endpoint already, and is the same.
    fn find(&mut self, endpoint: &Endpoint, same: impl Fn(&Watched) -> bool) -> Option<&mut Watched> {
        let watched = &mut self.inventory.watched;
        let at = self.places.get(endpoint)?.iter().find(|at| same(&watched[**at]))?;
        watched.get_mut(*at)
    }

    /// A value as what it should be, or what is wrong with it: the key, the value, the accepted form.
    fn understand<T: for<'de> Deserialize<'de>>(&self, value: Spanned<DeValue<'_>>) -> Result<T, Unplaced> {
        let span = value.span();
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| {
            let (span, problem) = (error.span().unwrap_or(span), in_words(error.message()));
            let problem = match self.key(&span) {
                Some(key) if !problem.contains(" field ") => format!("{key}: {problem}"),
                _ => problem,
            };
            (Some(span), problem)
        })
    }

    /// The key in front of a value, on the same line.
    fn key(&self, value: &Range<usize>) -> Option<&str> {
        let line = self.text.get(..value.start)?.lines().next_back()?;
        let key = line.trim_end().strip_suffix('=')?.trim();
        (!key.is_empty() && !key.contains(['=', '{', '['])).then_some(key)
    }

    fn take<T: for<'de> Deserialize<'de>>(&mut self, table: &mut DeTable<'_>, key: &'static str) -> Option<T> {
        match self.understand(table.remove(key)?) {
            Ok(value) => Some(value),
            Err((span, problem)) => {
                self.problem(span, problem);
                None
            }
        }
    }

    fn array<'t>(&mut self, table: &mut DeTable<'t>, key: &'static str) -> Vec<Spanned<DeValue<'t>>> {
        let Some(value) = table.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            _ => {
                self.problem(
                    Some(span),
                    format!("{key} is not a list (expected [[{key}]] before each)"),
                );
                Vec::new()
            }
        }
    }

    fn tables<'t>(
        &mut self,
        table: &mut DeTable<'t>,
        key: &'static str,
    ) -> Vec<(Spanned<String>, Spanned<DeValue<'t>>)> {
        let Some(value) = table.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(tables) => {
                let named = |(name, value): (Spanned<std::borrow::Cow<'t, str>>, _)| {
                    (Spanned::new(name.span(), name.into_inner().into_owned()), value)
                };
                tables.into_iter().map(named).collect()
            }
            _ => {
                self.problem(
                    Some(span),
                    format!("{key} is not a table (expected [{key}.NAME] before each)"),
                );
                Vec::new()
            }
        }
    }

    fn problem(&mut self, span: Option<Range<usize>>, message: String) {
        let line = span.map(|span| self.line(span));
        self.inventory.problems.push(Problem { line, message });
    }

    fn line(&self, span: Range<usize>) -> usize {
        1 + self.lines.partition_point(|end| *end < span.start)
    }
}

fn parse<T: std::str::FromStr<Err: fmt::Display>>(
    key: &str,
    expected: &str,
    text: Spanned<String>,
) -> Result<T, Unplaced> {
    text.get_ref()
        .parse()
        .map_err(|problem| (Some(text.span()), format!("{key}: {problem} (expected {expected})")))
}

fn served(text: Spanned<String>) -> Result<Endpoint, Unplaced> {
    text.get_ref()
        .parse()
        .map_err(|problem| (Some(text.span()), format!("served_at: {problem}")))
}

fn identifier(text: Spanned<String>) -> Result<String, Unplaced> {
    let (star, rest) = match text.get_ref().strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text.get_ref().as_str()),
    };
    match (star, rest.parse::<Host>()) {
        (_, Ok(Host::Name(name))) => Ok(format!("{star}{}", name.as_ref())),
        ("", Ok(Host::Ip(address))) => Ok(address.to_string()),
        _ => {
            let problem = format!(
                "identifiers: {:?} is not a name (expected example.com or *.example.com)",
                text.get_ref()
            );
            Err((Some(text.span()), problem))
        }
    }
}

fn built_in() -> BTreeMap<String, Issuer> {
    let issuer = |name: &str, directory: &str, staging: bool| Issuer {
        name: name.to_owned(),
        directory: directory.to_owned(),
        staging_directory: (!staging).then(|| STAGING_DIRECTORY.to_owned()),
        contact: Vec::new(),
        eab: false,
        ca: None,
        staging,
    };
    [
        issuer(DEFAULT_ISSUER, "https://acme-v02.api.letsencrypt.org/directory", false),
        issuer("letsencrypt-staging", STAGING_DIRECTORY, true),
    ]
    .map(|issuer| (issuer.name.clone(), issuer))
    .into()
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}

/// What the parser says, without names that only a programmer knows.
fn in_words(message: &str) -> String {
    let mut words = one_line(message);
    for (type_name, form) in [
        ("expected u16", "expected 0 to 65535"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list"),
    ] {
        if words.ends_with(type_name) {
            words.truncate(words.len() - type_name.len());
            words.push_str(form);
        }
    }
    words
}

const STAGING_DIRECTORY: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
const DELIVER_WITHIN_HOURS: u16 = 24;
const DEFAULT_ISSUER: &str = "letsencrypt";
const TOP_LEVEL: &str = "warn_days, critical_days, [[endpoint]], [[certificate]], [issuer.NAME] or [[zone]]";
const HOST: &str = "a name or an address; the port is a key of its own";
const ADDRESS: &str = "an IPv4 or IPv6 address";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_documentation() {
        let inventory = Inventory::parse(include_str!("../../../docs/inventory.example.toml"));
        assert_eq!(inventory.problems, []);
        let watched: Vec<_> = inventory
            .watched
            .iter()
            .map(|watched| watched.endpoint.to_string())
            .collect();
        let expected = [
            "partner.example.net:8443",
            "xn--bcher-kva.example:443",
            "smtp://mail.example.com:587",
            "vault.internal.example.com:443",
            "example.com:443",
            "api.example.com:8443",
        ];
        assert_eq!(watched, expected);
        assert_eq!(inventory.certificates[0].identifiers, ["example.com", "*.example.com"]);
        assert_eq!(inventory.certificates[0].name, "example.com");
        assert_eq!(
            inventory.issuers["zerossl"].directory,
            "https://acme.zerossl.com/v2/DV90"
        );
        assert_eq!(inventory.zones[0].name, "example.org");
    }

    #[test]
    fn each_problem_names_its_line_and_stops_nothing_else() {
        for (text, expected) in [
            (
                "warn_dayz = 3",
                "line 1: unknown key \"warn_dayz\" (expected warn_days, critical_days, [[endpoint]], [[certificate]], [issuer.NAME] or [[zone]])",
            ),
            (
                "warn_days = \"x\"",
                "line 1: warn_days: invalid type: string \"x\", expected a whole number, 0 or more",
            ),
            (
                "\n[[endpoint]]\nhost = \"a..b\"",
                "line 3: [[endpoint]] host: \"a..b\" is not a domain name (expected a name or an address; the port is a key of its own)",
            ),
            (
                "[[endpoint]]\nhost = \"a.b\"\nport = 99999",
                "line 3: [[endpoint]] port: invalid value: integer `99999`, expected 0 to 65535",
            ),
            (
                "[[endpoint]]\nhots = \"a.b\"",
                "line 2: [[endpoint]] unknown field `hots`, expected one of `host`, `port`, `sni`, `starttls`, `addresses`, `ca`, `warn_days`, `critical_days`, `quiet`",
            ),
            (
                "[[endpoint]]\nhost = \"a.b\"\nwarn_days = 2\ncritical_days = 3",
                "line 4: [[endpoint]] critical_days = 3 is more than warn_days = 2 (expected at most as many)",
            ),
            (
                "critical_days = -1",
                "line 1: critical_days: invalid value: integer `-1`, expected a whole number, 0 or more",
            ),
            (
                "[[endpoint]]\nhost = \"a.b\"\n[[endpoint]]\nhost = \"A.b\"\nwarn_days = 30",
                "line 4: [[endpoint]] a.b:443 is in line 1 already, with other settings (expected once, or with another sni or other addresses)",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\n[[certificate]]\nidentifiers = [\"a.b\", \"c.b\"]",
                "line 4: [[certificate]] name = \"a.b\" is taken by the certificate in line 1 (expected another name)",
            ),
            (
                "[[endpoint]]\nhost = \"a.b\"\nport = 0",
                "line 3: [[endpoint]] port = 0 cannot be connected to (expected 1 to 65535)",
            ),
            (
                "[[endpoint]]\nhost = \"a.b\"\naddresses = [\"10.0.0.\"]",
                "line 3: [[endpoint]] addresses: invalid IP address syntax (expected an IPv4 or IPv6 address)",
            ),
            ("[[endpoint]]\nport = 1", "line 1: [[endpoint]] missing field `host`"),
            (
                "[endpoint]\nhost = \"a.b\"",
                "line 1: endpoint is not a list (expected [[endpoint]] before each)",
            ),
            (
                "[[certificate]]\nidentifiers = []",
                "line 2: [[certificate]] identifiers = [] is empty (expected at least one name)",
            ),
            (
                "[[certificate]]\nidentifiers = [\"*.*.a\"]",
                "line 2: [[certificate]] identifiers: \"*.*.a\" is not a name (expected example.com or *.example.com)",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\nissuers = [\"lets\"]",
                "line 3: [[certificate]] issuers: \"lets\" is not known (expected letsencrypt, letsencrypt-staging, or its [issuer.…])",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\nname = \"../x\"",
                "line 3: [[certificate]] name = \"../x\" cannot be a folder (expected a-z, 0-9, - _ . and no leading dot)",
            ),
            (
                "[issuer.x]\ndirectory = \"http://x\"",
                "line 1: [issuer.x] directory = \"http://x\" is not a URL (expected https://…/directory)",
            ),
        ] {
            let inventory = Inventory::parse(&format!("{text}\n[[endpoint]]\nhost = \"fine.example\"\n"));
            let problems: Vec<_> = inventory.problems.iter().map(ToString::to_string).collect();
            if text.starts_with("[endpoint]") {
                assert_eq!(
                    problems.len(),
                    1,
                    "TOML itself forbids the two forms together: {problems:?}"
                );
                continue;
            }
            assert_eq!(problems, [expected]);
            let fine = inventory
                .watched
                .iter()
                .any(|watched| watched.endpoint.to_string() == "fine.example:443");
            assert!(fine, "the entry beside it is watched");
        }
    }

    #[test]
    fn quiet_is_said_of_an_endpoint_or_of_a_certificate_and_where_it_is_served() {
        let inventory = Inventory::parse(
            "[[endpoint]]\nhost = \"a.example\"\nquiet = true\n[[endpoint]]\nhost = \"b.example\"\n\
             [[certificate]]\nidentifiers = [\"c.example\"]\nserved_at = [\"b.example\", \"c.example\"]\nquiet = true\n",
        );
        let quiet: Vec<_> = inventory
            .watched
            .iter()
            .map(|watched| (watched.endpoint.to_string(), watched.quiet))
            .collect();
        let expected = [
            ("a.example:443", true),
            ("b.example:443", false),
            ("c.example:443", true),
        ];
        assert_eq!(quiet, expected.map(|(endpoint, quiet)| (endpoint.to_owned(), quiet)));
        assert!(inventory.certificates[0].quiet);
        let wrong = Inventory::parse("[[endpoint]]\nhost = \"a.example\"\nquiet = \"yes\"\n");
        assert_eq!(
            wrong.problems[0].to_string(),
            "line 3: [[endpoint]] quiet: invalid type: string \"yes\", expected true or false"
        );
    }

    #[test]
    fn a_place_that_is_named_twice_is_watched_once() {
        let inventory = Inventory::parse(
            "[[endpoint]]\nhost = \"a.example\"\n[[endpoint]]\nhost = \"A.example.\"\nport = 443\n\
             [[endpoint]]\nhost = \"a.example\"\naddresses = [\"192.0.2.7\"]\n\
             [[certificate]]\nidentifiers = [\"a.example\", \"a.example\", \"*.a.example\"]\nissuers = [\"own\"]\n\
             [issuer.own]\ndirectory = \"https://ca.example/directory\"\nca = \"ca/own.pem\"\n",
        );
        assert_eq!(inventory.problems, []);
        let watched: Vec<_> = inventory
            .watched
            .iter()
            .map(|watched| (watched.line, watched.addresses.len(), watched.ca.as_deref()))
            .collect();
        assert_eq!(
            watched,
            [(Some(1), 0, Some("ca/own.pem")), (Some(6), 1, None)],
            "an endpoint is judged by the roots of the certificate that is delivered there"
        );
        assert_eq!(inventory.certificates[0].identifiers, ["a.example", "*.a.example"]);
    }

    #[test]
    fn critical_is_never_sooner_than_a_warning() {
        let inventory = Inventory::parse("[[endpoint]]\nhost = \"a.example\"\nwarn_days = 2\n");
        let thresholds = inventory.watched[0].thresholds;
        assert_eq!((thresholds.warn_days, thresholds.critical_days), (2, 2));
    }

    #[test]
    fn as_editors_on_other_systems_write_it() {
        let text = "\u{feff}# b\u{fc}cher\r\nwarn_days = 20\r\n\r\n[[endpoint]]\r\nhost = \"b\u{fc}cher.example\"\r\nport = 0\r\n";
        let inventory = Inventory::parse(text);
        assert_eq!(inventory.thresholds.warn_days, 20);
        let problems: Vec<_> = inventory.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            ["line 6: [[endpoint]] port = 0 cannot be connected to (expected 1 to 65535)"]
        );
        for nothing in ["", "\n", "\u{feff}", "# nothing yet\r\n"] {
            let inventory = Inventory::parse(nothing);
            assert_eq!((inventory.watched, inventory.problems), (vec![], vec![]), "{nothing:?}");
        }
    }

    /// Lines were counted from the beginning for each of them.
    #[test]
    fn ten_thousand_entries_are_read_at_once() {
        let entry = |number: u32| format!("[[endpoint]]\nhost = \"h{number}.example\"\nwarn_dayz = {number}\n");
        let bad: String = (0..10_000).map(entry).collect();
        let good = bad.replace("warn_dayz", "warn_days");
        let began = std::time::Instant::now();
        let (bad, good) = (Inventory::parse(&bad), Inventory::parse(&good));
        assert_eq!((bad.problems.len(), good.watched.len()), (10_000, 10_000));
        assert_eq!(bad.problems[9_999].line, Some(30_000));
        assert_eq!(good.watched[9_999].line, Some(29_998));
        assert!(
            began.elapsed() < std::time::Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_file_that_is_not_toml_is_one_problem() {
        let inventory = Inventory::parse("[[endpoint]]\nhost = \"a.b\n");
        assert_eq!(inventory.problems.len(), 1);
        assert_eq!(inventory.problems[0].line, Some(2));
        assert!(inventory.watched.is_empty());
    }

    #[test]
    fn domains_of_the_template_are_an_inventory() {
        let inventory = Inventory::of_endpoints("a.example, b.example:8443\nexmple:https", Thresholds::default());
        assert_eq!(inventory.watched.len(), 2);
        assert_eq!(inventory.problems.len(), 1);
        assert!(inventory.problems[0].to_string().contains("exmple:https"));
    }
}
