//! Reads `inventory.toml` strictly, each entry on its own: what was written, and what it means.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::written::{WrittenCertificate, WrittenEndpoint, WrittenIssuer};
use super::{DEFAULT_ISSUER, Inventory, Issuer, Managed, Problem, Profile, Watched, Zone};
use crate::ehlo::Ehlo;
use crate::endpoint::{Endpoint, Host, StartTls};
use crate::finding::Thresholds;
use crate::name;
use crate::text;

impl Inventory {
    /// Reads as much as can be understood of an `inventory.toml`; the rest is in `problems`.
    pub fn parse(text: &str) -> Self {
        Self::parse_with(text, Thresholds::default())
    }

    /// The same, with other thresholds for a file that sets none.
    pub fn parse_with(text: &str, thresholds: Thresholds) -> Self {
        let mut reader = Reader {
            text,
            line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
            places: HashMap::new(),
            broken_issuers: BTreeSet::new(),
            inventory: Self::empty(thresholds),
            more_problems: 0,
        };

        match DeTable::parse(text) {
            Ok(table) => reader.read(table.into_inner()),
            Err(first) => {
                // Of a file with a syntax error nothing is used: what seems to be left out of an
                // entry may stand behind the error. But all of its errors are reported, unless
                // there may be millions of them.
                let errors = if text.len() <= RECOVERABLE {
                    DeTable::parse_recoverable(text).1
                } else {
                    vec![first]
                };
                for error in errors {
                    reader.report(syntax_problem(text, &error));
                }
            }
        }

        let mut inventory = reader.inventory;
        inventory.problems.sort_by_key(|problem| problem.line);
        if reader.more_problems > 0 {
            let more = format!("and {} more problems", reader.more_problems);
            inventory.problems.push(Problem::new(more));
        }
        inventory
    }
}

/// A problem whose line is not counted yet.
struct WrittenProblem {
    /// The bytes of the text that it is about.
    span: Option<Range<usize>>,
    message: String,
}

impl WrittenProblem {
    fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
        }
    }

    /// The same problem, with the table that it is in.
    fn within(self, table: &str) -> Self {
        Self {
            message: format!("{table} {}", self.message),
            ..self
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    /// The offset of each line's end, so that a line's number is found without counting from the
    /// beginning.
    line_ends: Vec<usize>,
    /// Which of the watched are at an endpoint.
    places: HashMap<Endpoint, Vec<usize>>,
    /// Issuers that are written, but not usable. A certificate that names one of them is left out
    /// without an error of its own.
    broken_issuers: BTreeSet<String>,
    inventory: Inventory,
    /// How many problems are left out.
    more_problems: usize,
}

impl Reader<'_> {
    /// Reads settings and issuers first: entries refer to them wherever they stand in the file.
    fn read(&mut self, mut table: DeTable<'_>) {
        let warn_days = self.take(&mut table, "warn_days");
        let critical_days = self.take(&mut table, "critical_days");
        match self.thresholds(warn_days, critical_days) {
            Ok(thresholds) => self.inventory.thresholds = thresholds,
            Err(problem) => self.report(problem),
        }
        let timeout = self.setting(&mut table, "timeout_seconds", timeout);
        let ehlo = self.setting(&mut table, "ehlo", ehlo);

        for (name, value) in self.tables(&mut table, "issuer") {
            if let Err(problem) = self.issuer(&name, value) {
                self.report(problem.within(&format!("[issuer.{name}]")));
                self.broken_issuers.insert(name.into_owned());
            }
        }
        for value in self.array(&mut table, "zone") {
            if let Err(problem) = self.zone(value) {
                self.report(problem.within("[[zone]]"));
            }
        }

        for value in self.array(&mut table, "endpoint") {
            let line = self.line(&value.span());
            let written = self.understand(value);
            if let Err(problem) = written.and_then(|written| self.endpoint(written, line)) {
                self.report(problem.within("[[endpoint]]"));
            }
        }
        // After the entries with settings: those win.
        for value in self.elements(&mut table, "endpoints", ENDPOINTS, false) {
            let written = self.understand::<Spanned<String>>(value);
            let written = written.map_err(|problem| problem.within("endpoints:"));
            if let Err(problem) = written.and_then(|text| self.plain_endpoint(text)) {
                self.report(problem);
            }
        }
        for value in self.array(&mut table, "certificate") {
            let line = self.line(&value.span());
            let written = self.understand::<WrittenCertificate>(value);
            // The problem is the issuer's, and is reported there.
            if written.as_ref().is_ok_and(|written| self.names_broken_issuer(written)) {
                continue;
            }
            if let Err(problem) = written.and_then(|written| self.certificate(written, line)) {
                self.report(problem.within("[[certificate]]"));
            }
        }

        for watched in &mut self.inventory.watched {
            watched.timeout = watched.timeout.or(timeout);
            watched.ehlo = watched.ehlo.take().or_else(|| ehlo.clone());
        }

        for (key, _) in table {
            let message = format!("unknown key {:?} (expected {TOP_LEVEL})", key.get_ref());
            self.report(WrittenProblem::at(key.span(), message));
        }
    }

    fn issuer(&mut self, name: &str, value: Spanned<DeValue<'_>>) -> Result<(), WrittenProblem> {
        let span = value.span();
        if !name::is_folder(name) {
            let message = "cannot be a folder (expected letters, digits, - _ . and no leading dot)";
            return Err(WrittenProblem::at(span, message));
        }
        let written = self.understand::<WrittenIssuer>(value)?;
        let built_in = Issuer::built_in().remove(name);
        let mut issuer = match (written.directory, built_in) {
            (None, Some(built_in)) => built_in,
            (Some(directory), Some(built_in)) if directory == built_in.directory => built_in,
            (Some(directory), _) if directory.starts_with("https://") => Issuer::public(name, &directory),
            (Some(directory), _) => {
                let message = format!("directory = {directory:?} is not a URL (expected https://…/directory)");
                return Err(WrittenProblem::at(span, message));
            }
            (None, None) => {
                let built_in: Vec<_> = Issuer::built_in().into_keys().collect();
                let message = format!(
                    "directory is missing (expected https://…/directory; only {} have one built in)",
                    built_in.join(" and ")
                );
                return Err(WrittenProblem::at(span, message));
            }
        };

        if let Some(contact) = written.contact {
            issuer.contact = contact.into_iter().map(contact_url).collect::<Result<_, _>>()?;
        }
        issuer.eab = written.eab.unwrap_or(issuer.eab);
        issuer.ca = written.ca.or(issuer.ca);
        issuer.staging = written.staging.unwrap_or(issuer.staging);
        if let Some(directory) = written.staging_directory {
            if !directory.starts_with("https://") {
                let message = format!("staging_directory = {directory:?} is not a URL (expected https://…/directory)");
                return Err(WrittenProblem::at(span, message));
            }
            issuer.staging_directory = Some(directory);
        }
        issuer.profile = profile("profile", written.profile)?.or(issuer.profile);
        issuer.preferred_profile =
            profile("preferred_profile", written.preferred_profile)?.or(issuer.preferred_profile);
        issuer.preferred_chain = written.preferred_chain.or(issuer.preferred_chain);
        self.inventory.issuers.insert(name.to_owned(), issuer);
        Ok(())
    }

    fn zone(&mut self, value: Spanned<DeValue<'_>>) -> Result<(), WrittenProblem> {
        let span = value.span();
        let mut zone = self.understand::<Zone>(value)?;
        if let Some(written) = &zone.id {
            let Some(id) = zone_id(written) else {
                let message = format!("id = {written:?} is not a hosted zone's (expected {ZONE_ID})");
                return Err(WrittenProblem::at(span, message));
            };
            zone.id = Some(id.to_owned());
        }
        let is_role = |role: &str| role.starts_with("arn:") && role.contains(":role/");
        if let Some(role) = zone.role_arn.as_deref().filter(|role| !is_role(role)) {
            let message = format!("role_arn = {role:?} is not a role's ARN (expected arn:aws:iam::ACCOUNT:role/NAME)");
            return Err(WrittenProblem::at(span, message));
        }
        if self
            .inventory
            .zones
            .iter()
            .any(|other| other.name == zone.name && other.id == zone.id)
        {
            let message = format!(
                "name = {:?} is in another [[zone]] already (expected once per name and id)",
                zone.name
            );
            return Err(WrittenProblem::at(span, message));
        }
        self.inventory.zones.push(zone);
        Ok(())
    }

    /// One of the top-level `endpoints`, which has no settings of its own.
    fn plain_endpoint(&mut self, text: Spanned<String>) -> Result<(), WrittenProblem> {
        let line = self.line(&text.span());
        let endpoint = text
            .get_ref()
            .parse()
            .map_err(|error| WrittenProblem::at(text.span(), format!("endpoints: {error}")))?;
        let watched = Watched::plain(endpoint, self.inventory.thresholds, Some(line));
        if self.find(&watched.endpoint, |old| old.covers(&watched)).is_none() {
            self.watch(watched);
        }
        Ok(())
    }

    fn endpoint(&mut self, written: WrittenEndpoint, line: usize) -> Result<(), WrittenProblem> {
        let host_span = written.host.span();
        let endpoint = if written.port.is_none() && written.starttls.is_none() {
            parse::<Endpoint>("host", written.host)?
        } else {
            let port = written.port.map(port).transpose()?;
            let host = parse_as::<Host>("host", HOST, written.host)?;
            let starttls = written
                .starttls
                .map(|text| parse::<StartTls>("starttls", text))
                .transpose()?;
            Endpoint::new(host, port, starttls)
        };
        let addresses = written.addresses.into_iter().map(address).collect::<Result<_, _>>()?;
        let watched = Watched {
            endpoint,
            sni: written.sni.map(|text| parse_as("sni", NAME, text)).transpose()?,
            addresses,
            timeout: written.timeout_seconds.map(timeout).transpose()?,
            ehlo: written.ehlo.map(ehlo).transpose()?,
            ca: written.ca.into_iter().collect(),
            thresholds: self.thresholds(written.warn_days, written.critical_days)?,
            quiet: written.quiet,
            line: Some(line),
        };

        let old = self.find(&watched.endpoint, |old| {
            old.sni == watched.sni && old.addresses == watched.addresses
        });
        let Some(old) = old else {
            self.watch(watched);
            return Ok(());
        };

        // An entry that is repeated word for word is harmless.
        let repeated = Watched {
            line: old.line,
            ..watched
        };
        if *old == repeated {
            return Ok(());
        }
        let message = format!(
            "{} is in line {} already, with other settings (expected once, or with another sni or other addresses)",
            old.endpoint,
            old.line.unwrap_or_default()
        );
        Err(WrittenProblem::at(host_span, message))
    }

    fn certificate(&mut self, written: WrittenCertificate, line: usize) -> Result<(), WrittenProblem> {
        let span = written.identifiers.span();
        let identifiers = identifiers(written.identifiers)?;
        let (name_span, name) = match written.name {
            Some(name) => (name.span(), name.into_inner()),
            None => (span, identifiers[0].trim_start_matches("*.").to_owned()),
        };
        self.check_name(&name)
            .map_err(|message| WrittenProblem::at(name_span, message))?;

        let served_at = match written.served_at {
            Some(served_at) => served_at
                .into_iter()
                .map(served_at_endpoint)
                .collect::<Result<Vec<_>, _>>()?,
            // A wildcard is no endpoint, so it is left out here.
            None => identifiers.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let issuers = match written.issuers {
            Some(issuers) => self.known_issuers(issuers)?,
            None => vec![DEFAULT_ISSUER.to_owned()],
        };
        let hours = match written.deliver_within_hours {
            Some(hours) if *hours.get_ref() == 0 => {
                let message = "deliver_within_hours = 0 leaves no time (expected 1 to 65535)";
                return Err(WrittenProblem::at(hours.span(), message));
            }
            Some(hours) => hours.into_inner(),
            None => DELIVER_WITHIN_HOURS,
        };
        let required = profile("profile", written.profile)?;
        let preferred = profile("preferred_profile", written.preferred_profile)?;
        let certificate = Managed {
            name,
            identifiers,
            served_at,
            issuers,
            key_type: written.key_type,
            profile: Profile::of(required, preferred),
            reuse_key: written.reuse_key,
            deliver_within: time::Duration::hours(hours.into()),
            thresholds: self.thresholds(written.warn_days, written.critical_days)?,
            quiet: written.quiet,
            line: Some(line),
        };

        self.watch_where_served(&certificate);
        self.inventory.certificates.push(certificate);
        Ok(())
    }

    /// A certificate's name is a folder in the bucket and on instances, and its alone. Capitals are
    /// not allowed: two names that differ only in case would be one folder on some disks.
    fn check_name(&self, name: &str) -> Result<(), String> {
        if !name::is_folder(name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
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

    fn names_broken_issuer(&self, written: &WrittenCertificate) -> bool {
        let mut issuers = written.issuers.iter().flat_map(|issuers| issuers.get_ref());
        issuers.any(|issuer| self.broken_issuers.contains(issuer.get_ref()))
    }

    fn known_issuers(&self, issuers: Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, WrittenProblem> {
        let known = &self.inventory.issuers;
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let names = names.join(", ");

        for issuer in issuers.get_ref() {
            if !known.contains_key(issuer.get_ref()) {
                let message = format!(
                    "issuers: {:?} is not known (expected {names}, or its [issuer.…])",
                    issuer.get_ref()
                );
                return Err(WrittenProblem::at(issuer.span(), message));
            }
        }

        if issuers.get_ref().is_empty() {
            let message = format!("issuers = [] is empty (expected {names})");
            return Err(WrittenProblem::at(issuers.span(), message));
        }
        Ok(issuers.into_inner().into_iter().map(Spanned::into_inner).collect())
    }

    fn watch_where_served(&mut self, certificate: &Managed) {
        let ca = self.private_roots(&certificate.issuers);
        for endpoint in &certificate.served_at {
            let new = Watched {
                ca: ca.clone(),
                quiet: certificate.quiet,
                ..Watched::plain(endpoint.clone(), certificate.thresholds, certificate.line)
            };
            // The settings of an endpoint's own entry win.
            let mut is_watched = false;
            for at in self.places.get(endpoint).into_iter().flatten() {
                let Some(old) = self.inventory.watched.get_mut(*at).filter(|old| old.sni.is_none()) else {
                    continue;
                };
                is_watched |= old.covers(&new);
                for ca in &ca {
                    if !old.ca.contains(ca) {
                        old.ca.push(ca.clone());
                    }
                }
            }
            if !is_watched {
                self.watch(new);
            }
        }
    }

    /// The roots of all issuers that may issue: whichever of them did.
    fn private_roots(&self, issuers: &[String]) -> Vec<String> {
        let mut roots = Vec::new();
        for ca in (issuers.iter()).filter_map(|name| self.inventory.issuers.get(name)?.ca.as_ref()) {
            if !roots.contains(ca) {
                roots.push(ca.clone());
            }
        }
        roots
    }

    /// Thresholds of an entry. Critical is never sooner than a warning.
    fn thresholds(
        &self,
        warn_days: Option<Spanned<u32>>,
        critical_days: Option<Spanned<u32>>,
    ) -> Result<Thresholds, WrittenProblem> {
        let defaults = self.inventory.thresholds;
        let warn = warn_days.map_or(defaults.warn_days, Spanned::into_inner);
        let Some(critical) = critical_days else {
            return Ok(Thresholds {
                warn_days: warn,
                critical_days: defaults.critical_days.min(warn),
            });
        };

        let span = critical.span();
        let critical = critical.into_inner();
        if critical > warn {
            let message =
                format!("critical_days = {critical} is more than warn_days = {warn} (expected at most as many)");
            return Err(WrittenProblem::at(span, message));
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

    /// The first that is watched at an endpoint already and fits.
    fn find(&mut self, endpoint: &Endpoint, fits: impl Fn(&Watched) -> bool) -> Option<&mut Watched> {
        let watched = &mut self.inventory.watched;
        let at = self.places.get(endpoint)?.iter().find(|at| fits(&watched[**at]))?;
        watched.get_mut(*at)
    }

    /// A value as what it should be, or what is wrong with it: the key, the value, the accepted
    /// form.
    fn understand<T: for<'de> Deserialize<'de>>(&self, value: Spanned<DeValue<'_>>) -> Result<T, WrittenProblem> {
        let value_span = value.span();
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| {
            let span = error.span().unwrap_or(value_span);
            let message = in_words(error.message());
            // A message about a field names its key already.
            let message = match self.key(&span) {
                Some(key) if !error.message().contains(" field ") => format!("{key}: {message}"),
                _ => message,
            };
            WrittenProblem::at(span, message)
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
            Err(problem) => {
                self.report(problem);
                None
            }
        }
    }

    /// A setting of the whole inventory, as `understood` from what is written.
    fn setting<W: for<'de> Deserialize<'de>, T>(
        &mut self,
        table: &mut DeTable<'_>,
        key: &'static str,
        understood: fn(Spanned<W>) -> Result<T, WrittenProblem>,
    ) -> Option<T> {
        let written = self.take::<Spanned<W>>(table, key)?;
        understood(written).map_err(|problem| self.report(problem)).ok()
    }

    /// The tables of a list of tables.
    fn array<'t>(&mut self, table: &mut DeTable<'t>, key: &'static str) -> Vec<Spanned<DeValue<'t>>> {
        let expected = format!("expected [[{key}]] before each");
        let expected = if key == "endpoint" { ENDPOINTS } else { &expected };
        self.elements(table, key, expected, true)
    }

    /// The elements of a list that are tables, or those that are none. The first of the others is a
    /// problem.
    fn elements<'t>(
        &mut self,
        table: &mut DeTable<'t>,
        key: &'static str,
        expected: &str,
        are_tables: bool,
    ) -> Vec<Spanned<DeValue<'t>>> {
        let Some(value) = table.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        let DeValue::Array(array) = value.into_inner() else {
            self.report(WrittenProblem::at(span, format!("{key} is not a list ({expected})")));
            return Vec::new();
        };

        let (elements, others): (Vec<_>, Vec<_>) = array
            .into_iter()
            .partition(|value| matches!(value.get_ref(), DeValue::Table(_)) == are_tables);
        if let Some(other) = others.first() {
            let message = if are_tables {
                format!("{key} is a list of values ({expected})")
            } else {
                format!("there is no [[{key}]] ({expected})")
            };
            self.report(WrittenProblem::at(other.span(), message));
        }
        elements
    }

    fn tables<'t>(&mut self, table: &mut DeTable<'t>, key: &'static str) -> Vec<(Cow<'t, str>, Spanned<DeValue<'t>>)> {
        let Some(value) = table.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        let DeValue::Table(tables) = value.into_inner() else {
            let message = format!("{key} is not a table (expected [{key}.NAME] before each)");
            self.report(WrittenProblem::at(span, message));
            return Vec::new();
        };
        tables
            .into_iter()
            .map(|(name, value)| (name.into_inner(), value))
            .collect()
    }

    fn report(&mut self, problem: WrittenProblem) {
        if self.inventory.problems.len() == MOST_PROBLEMS {
            self.more_problems += 1;
            return;
        }
        let line = problem.span.map(|span| self.line(&span));
        let message = text::cut(&problem.message, LONGEST_PROBLEM);
        self.inventory.problems.push(Problem { line, message });
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.line_ends.partition_point(|end| *end < span.start)
    }
}

/// A value whose error names the accepted form itself.
fn parse<T: FromStr<Err: fmt::Display>>(key: &str, text: Spanned<String>) -> Result<T, WrittenProblem> {
    text.get_ref()
        .parse()
        .map_err(|error| WrittenProblem::at(text.span(), format!("{key}: {error}")))
}

fn parse_as<T: FromStr<Err: fmt::Display>>(
    key: &str,
    expected: &str,
    text: Spanned<String>,
) -> Result<T, WrittenProblem> {
    text.get_ref()
        .parse()
        .map_err(|error| WrittenProblem::at(text.span(), format!("{key}: {error} (expected {expected})")))
}

fn address(text: Spanned<String>) -> Result<IpAddr, WrittenProblem> {
    text.get_ref().parse().map_err(|_| {
        let message = format!(
            "addresses: {:?} is not an address (expected IPv4 or IPv6, without a port)",
            text.get_ref()
        );
        WrittenProblem::at(text.span(), message)
    })
}

fn contact_url(text: Spanned<String>) -> Result<String, WrittenProblem> {
    if text.get_ref().starts_with("mailto:") {
        return Ok(text.into_inner());
    }
    let message = format!(
        "contact: {0:?} is not a mailto URL (expected \"mailto:{0}\")",
        text.get_ref()
    );
    Err(WrittenProblem::at(text.span(), message))
}

fn port(port: Spanned<u16>) -> Result<u16, WrittenProblem> {
    if *port.get_ref() == 0 {
        let message = "port = 0 cannot be connected to (expected 1 to 65535)";
        return Err(WrittenProblem::at(port.span(), message));
    }
    Ok(port.into_inner())
}

fn served_at_endpoint(text: Spanned<String>) -> Result<Endpoint, WrittenProblem> {
    text.get_ref()
        .parse()
        .map_err(|error| WrittenProblem::at(text.span(), format!("served_at: {error}")))
}

/// At least one identifier, each once.
fn identifiers(written: Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, WrittenProblem> {
    let span = written.span();
    let mut seen = BTreeSet::new();
    let mut identifiers = written
        .into_inner()
        .into_iter()
        .map(identifier)
        .collect::<Result<Vec<_>, _>>()?;
    identifiers.retain(|identifier| seen.insert(identifier.clone()));

    if identifiers.is_empty() {
        let message = "identifiers = [] is empty (expected at least one name)";
        return Err(WrittenProblem::at(span, message));
    }
    Ok(identifiers)
}

fn timeout(seconds: Spanned<u64>) -> Result<Duration, WrittenProblem> {
    let span = seconds.span();
    match seconds.into_inner() {
        seconds @ 1..=LONGEST_TIMEOUT => Ok(Duration::from_secs(seconds)),
        other => {
            let message = format!("timeout_seconds = {other} is out of range (expected 1 to {LONGEST_TIMEOUT})");
            Err(WrittenProblem::at(span, message))
        }
    }
}

/// An empty name would be sent to the CA, which has no such profile.
fn profile(key: &str, written: Option<Spanned<String>>) -> Result<Option<String>, WrittenProblem> {
    match written {
        Some(name) if name.get_ref().is_empty() => {
            let message = format!("{key} = \"\" is empty (expected a profile of the CA, or no such line)");
            Err(WrittenProblem::at(name.span(), message))
        }
        name => Ok(name.map(Spanned::into_inner)),
    }
}

fn ehlo(text: Spanned<String>) -> Result<Ehlo, WrittenProblem> {
    let parsed = text.get_ref().parse();
    parsed.map_err(|problem: String| WrittenProblem::at(text.span(), format!("ehlo: {problem}")))
}

fn identifier(text: Spanned<String>) -> Result<String, WrittenProblem> {
    let (star, rest) = match text.get_ref().strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text.get_ref().as_str()),
    };
    match (star, rest.parse::<Host>()) {
        (_, Ok(Host::Name(name))) => Ok(format!("{star}{}", name.as_ref())),
        ("", Ok(Host::Ip(address))) => Ok(address.to_string()),
        _ => {
            let message = format!(
                "identifiers: {:?} is not a name (expected example.com or *.example.com)",
                text.get_ref()
            );
            Err(WrittenProblem::at(text.span(), message))
        }
    }
}

/// What is wrong with the TOML itself: for a repeated key which one, else where reading stopped.
fn syntax_problem(text: &str, error: &toml::de::Error) -> WrittenProblem {
    let message = one_line(error.message());
    let found = error.span().and_then(|span| text.get(span)).unwrap_or_default();
    let found = found.lines().next().unwrap_or_default();

    let message = match found {
        "" => message,
        found => format!("{message}: {}", text::cut(found, FOUND_SHOWN)),
    };
    WrittenProblem {
        span: error.span(),
        message,
    }
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}

/// The parser's message, without names that only a programmer knows.
fn in_words(message: &str) -> String {
    let mut words = one_line(message);
    for (type_name, form) in [
        ("expected u16", "expected 1 to 65535"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list"),
    ] {
        if words.ends_with(type_name) {
            words.truncate(words.len() - type_name.len());
            words.push_str(form);
        }
    }

    if let Some(name) = words.strip_prefix("missing field ") {
        return format!("{name} is missing");
    }
    words
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown value")
}

/// The bare id of a hosted zone, which Route 53 prints with a prefix.
fn zone_id(written: &str) -> Option<&str> {
    let id = written.trim_start_matches('/').trim_start_matches("hostedzone/");
    let has_length = (2..=32).contains(&id.len());
    let has_letters = id
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (id.starts_with('Z') && has_length && has_letters).then_some(id)
}

const ENDPOINTS: &str = "expected [[endpoint]] before each, or endpoints = [\"host:port\"]";
const DELIVER_WITHIN_HOURS: u16 = 24;
const ZONE_ID: &str = "Z and up to 31 capitals and digits, with or without /hostedzone/ in front";
/// A run of the probe has 15 minutes for everything.
const LONGEST_TIMEOUT: u64 = 300;
const TOP_LEVEL: &str = "warn_days, critical_days, timeout_seconds, ehlo, endpoints, [[endpoint]], [[certificate]], [issuer.NAME] or [[zone]]";
const HOST: &str = "a name or an address alone, because port or starttls is a key next to it";
const NAME: &str = "a name or an address, without a port";
/// Of a line that is not TOML.
const FOUND_SHOWN: usize = 40;
/// In bytes. A file of this length can be nothing but errors.
const RECOVERABLE: usize = 1 << 18;
const MOST_PROBLEMS: usize = 10_000;
/// In characters.
const LONGEST_PROBLEM: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn settings_of_the_whole_inventory_are_for_entries_without_their_own() {
        let inventory = Inventory::parse(
            "timeout_seconds = 40\nehlo = \"probe.example\"\nendpoints = [\"a.example\"]\n\
             [[endpoint]]\nhost = \"b.example\"\ntimeout_seconds = 5\n[[certificate]]\nidentifiers = [\"c.example\"]\n",
        );
        assert_eq!(inventory.problems, []);
        let settings: BTreeMap<_, _> = inventory
            .watched
            .iter()
            .map(|watched| (watched.endpoint.host.to_string(), watched.timeout))
            .collect();
        let expected = [("a", 40), ("b", 5), ("c", 40)]
            .map(|(name, seconds)| (format!("{name}.example"), Some(Duration::from_secs(seconds))));
        assert_eq!(settings, BTreeMap::from(expected));
        let is_named = |watched: &Watched| {
            watched
                .ehlo
                .as_ref()
                .is_some_and(|ehlo| ehlo.as_ref() == "probe.example")
        };
        assert!(inventory.watched.iter().all(is_named));

        let bad = Inventory::parse("timeout_seconds = 0\nehlo = \"a b\"\nendpoints = [\"a.example\"]\n");
        assert_eq!(bad.problems.len(), 2, "{:?}", bad.problems);
        assert_eq!(bad.watched.len(), 1);
    }

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
            "www.example.net:443",
            "mail.example.net:465",
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

    /// The list was read as a whole, and one such element cost all others.
    #[test]
    fn what_is_no_endpoint_costs_no_other() {
        for (other, expected) in [
            ("8443", "endpoints: invalid type: integer `8443`, expected a string"),
            ("[\"c.b\"]", "endpoints: invalid type: sequence, expected a string"),
            (
                "{ host = \"c.b\" }",
                "there is no [[endpoints]] (expected [[endpoint]] before each, or endpoints = [\"host:port\"])",
            ),
        ] {
            let inventory = Inventory::parse(&format!("endpoints = [\n\"a.b\",\n{other},\n\"d.b\"]"));
            let watched: Vec<_> = inventory.watched.iter().map(|one| one.endpoint.to_string()).collect();
            assert_eq!(watched, ["a.b:443", "d.b:443"], "{other}");
            let problems: Vec<_> = inventory.problems.iter().map(ToString::to_string).collect();
            assert_eq!(problems, [format!("line 3: {expected}")]);
        }
    }

    /// Millions of problems did not fit into the function's memory, and nobody was alerted.
    #[test]
    fn what_is_nothing_but_problems_has_ten_thousand_at_most() {
        let long = format!("endpoints = [\"{}\"]", "?".repeat(1 << 20));
        for (text, count) in [
            ("=\n".repeat(20_000), 10_001),
            ("=\n".repeat(1 << 20), 1),
            (format!("endpoints = [{}]", "\"?\",".repeat(100_000)), 10_001),
            (long, 1),
        ] {
            let problems = Inventory::parse(&text).problems;
            assert_eq!(problems.len(), count, "{:.40}", text);
            assert!(problems.iter().all(|problem| problem.message.chars().count() <= 1_001));
            if count > 1 {
                let more = problems.last().unwrap().to_string();
                assert!(more.starts_with("and ") && more.ends_with(" more problems"), "{more}");
            }
        }
    }

    #[test]
    fn a_zone_has_its_bare_id() {
        for id in [
            "Z0123456789ABC",
            "/hostedzone/Z0123456789ABC",
            "hostedzone/Z0123456789ABC",
        ] {
            let inventory = Inventory::parse(&format!("[[zone]]\nname = \"example.org\"\nid = {id:?}"));
            assert_eq!(inventory.problems, []);
            assert_eq!(inventory.zones[0].id.as_deref(), Some("Z0123456789ABC"));
        }
    }

    #[test]
    fn each_problem_names_its_line_and_stops_nothing_else() {
        for (text, expected) in [
            (
                "warn_dayz = 3",
                "line 1: unknown key \"warn_dayz\" (expected warn_days, critical_days, timeout_seconds, ehlo, endpoints, [[endpoint]], [[certificate]], [issuer.NAME] or [[zone]])",
            ),
            (
                "warn_days = \"x\"",
                "line 1: warn_days: invalid type: string \"x\", expected a whole number, 0 or more",
            ),
            (
                "\n[[endpoint]]\nhost = \"a..b\"",
                "line 3: [[endpoint]] host: invalid endpoint \"a..b\": \"a..b\" is not a domain name (expected host[:port], [v6]:port, \
                 smtp://host[:port] or smtps://host[:port])",
            ),
            (
                "[[endpoint]]\nhost = \"a.b\"\nport = 99999",
                "line 3: [[endpoint]] port: invalid value: integer `99999`, expected 1 to 65535",
            ),
            (
                "[[endpoint]]\nhots = \"a.b\"",
                "line 2: [[endpoint]] unknown key `hots`, expected one of `host`, `port`, `sni`, `starttls`, `addresses`, `timeout_seconds`, `ehlo`, `ca`, `warn_days`, `critical_days`, `quiet`",
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
                "line 3: [[endpoint]] addresses: \"10.0.0.\" is not an address (expected IPv4 or IPv6, without a port)",
            ),
            ("[[endpoint]]\nport = 1", "line 1: [[endpoint]] `host` is missing"),
            // Such an entry once made the zone vanish, and nobody said why.
            (
                "[[zone]]\nname = \"a.b\"\nid = \"hostedzones/Z1\"",
                "line 1: [[zone]] id = \"hostedzones/Z1\" is not a hosted zone's (expected Z and up to 31 capitals and digits, with or without /hostedzone/ in front)",
            ),
            (
                "[endpoint]\nhost = \"a.b\"",
                "line 1: endpoint is not a list (expected [[endpoint]] before each, or endpoints = [\"host:port\"])",
            ),
            (
                "[[endpoints]]\nhost = \"a.b\"",
                "line 1: there is no [[endpoints]] (expected [[endpoint]] before each, or endpoints = [\"host:port\"])",
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
            (
                "[issuer.x]\neab = true\n[[certificate]]\nidentifiers = [\"a.b\"]\nissuers = [\"x\"]",
                "line 1: [issuer.x] directory is missing (expected https://…/directory; only letsencrypt and letsencrypt-staging \
                 have one built in)",
            ),
            (
                "[issuer.letsencrypt]\ncontact = [\"ops@a.b\"]",
                "line 2: [issuer.letsencrypt] contact: \"ops@a.b\" is not a mailto URL (expected \"mailto:ops@a.b\")",
            ),
            (
                "endpoints = [\n\"a.b\",\n\"a.b:https\"]",
                "line 3: endpoints: invalid endpoint \"a.b:https\": port is not a number (expected host[:port], [v6]:port, \
                 smtp://host[:port] or smtps://host[:port])",
            ),
            (
                "certificate = [\"a.b\"]",
                "line 1: certificate is a list of values (expected [[certificate]] before each)",
            ),
            (
                "[[endpoint]]\nhost = \"a.b:443\"\nport = 443",
                "line 2: [[endpoint]] host: \"a.b:443\" is not a domain name (expected a name or an address alone, because port \
                 or starttls is a key next to it)",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\nkey_type = \"rsa2048\"",
                "line 3: [[certificate]] key_type: unknown value `rsa2048`, expected one of `ecdsa-p256`, `ecdsa-p384`, \
                 `rsa-2048`, `rsa-4096`",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\ndeliver_within_hours = 0",
                "line 3: [[certificate]] deliver_within_hours = 0 leaves no time (expected 1 to 65535)",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\nprofile = \"\"",
                "line 3: [[certificate]] profile = \"\" is empty (expected a profile of the CA, or no such line)",
            ),
            (
                "[[certificate]]\nidentifiers = [\"a.b\"]\npreferred_profile = \"\"",
                "line 3: [[certificate]] preferred_profile = \"\" is empty (expected a profile of the CA, or no such line)",
            ),
            (
                "[issuer.letsencrypt]\nprofile = \"\"",
                "line 2: [issuer.letsencrypt] profile = \"\" is empty (expected a profile of the CA, or no such line)",
            ),
            (
                "[issuer.letsencrypt]\nstaging_directory = \"acme-staging-v02.api.letsencrypt.org\"",
                "line 1: [issuer.letsencrypt] staging_directory = \"acme-staging-v02.api.letsencrypt.org\" is not a URL \
                 (expected https://…/directory)",
            ),
            (
                "[issuer.\"our/ca\"]\ndirectory = \"https://x\"",
                "line 1: [issuer.our/ca] cannot be a folder (expected letters, digits, - _ . and no leading dot)",
            ),
            (
                "endpoints = [\"192.0.2.0/24\"]",
                "line 1: endpoints: invalid endpoint \"192.0.2.0/24\": it is a network, not one address (expected host[:port], \
                 [v6]:port, smtp://host[:port] or smtps://host[:port])",
            ),
            (
                "[[zone]]\nname = \"a.b\"\nrole_arn = \"acme-dns\"",
                "line 1: [[zone]] role_arn = \"acme-dns\" is not a role's ARN (expected arn:aws:iam::ACCOUNT:role/NAME)",
            ),
            (
                "[[zone]]\nname = \"a.b\"\nrole_arn = \"arn:aws:sts::123456789012:assumed-role/dns/me\"",
                "line 1: [[zone]] role_arn = \"arn:aws:sts::123456789012:assumed-role/dns/me\" is not a role's ARN (expected \
                 arn:aws:iam::ACCOUNT:role/NAME)",
            ),
            (
                "[[zone]]\nname = \"a.b\"\n[[zone]]\nname = \"a.b\"",
                "line 3: [[zone]] name = \"a.b\" is in another [[zone]] already (expected once per name and id)",
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
            assert!(fine, "the entry next to it is watched");
        }
    }

    #[test]
    fn quiet_is_set_for_an_endpoint_or_for_a_certificate_and_where_it_is_served() {
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
            .map(|watched| (watched.line, watched.addresses.len(), watched.ca.concat()))
            .collect();
        assert_eq!(
            watched,
            [
                (Some(1), 0, "ca/own.pem".to_owned()),
                (Some(6), 1, "ca/own.pem".to_owned())
            ],
            "an endpoint is judged by the roots of the certificate that is delivered there"
        );
        assert_eq!(inventory.certificates[0].identifiers, ["a.example", "*.a.example"]);
    }

    /// The second issuer had issued, or another certificate was served beside: the chain was called
    /// untrusted.
    #[test]
    fn only_the_roots_of_one_issuer_were_trusted() {
        let inventory = Inventory::parse(
            "endpoints = [\"public.example\"]\n\
             [[endpoint]]\nhost = \"b.example\"\nca = \"ca/corp.pem\"\n\
             [[endpoint]]\nhost = \"b.example\"\nsni = \"other.example\"\n\
             [[certificate]]\nname = \"one\"\nidentifiers = [\"a.example\", \"b.example\"]\n\
             issuers = [\"own\", \"letsencrypt\", \"spare\"]\n\
             [[certificate]]\nname = \"two\"\nidentifiers = [\"a.example\"]\nissuers = [\"third\", \"own\"]\n\
             [issuer.own]\ndirectory = \"https://own.example/directory\"\nca = \"ca/own.pem\"\n\
             [issuer.spare]\ndirectory = \"https://spare.example/directory\"\nca = \"ca/spare.pem\"\n\
             [issuer.third]\ndirectory = \"https://third.example/directory\"\nca = \"ca/third.pem\"\n",
        );
        assert_eq!(inventory.problems, []);
        let watched = inventory.watched.iter();
        let watched: Vec<_> = watched
            .map(|watched| format!("{} {}", watched.endpoint, watched.ca.join(" ")))
            .collect();
        assert_eq!(
            watched,
            [
                "b.example:443 ca/corp.pem ca/own.pem ca/spare.pem",
                "b.example:443 ",
                "public.example:443 ",
                "a.example:443 ca/own.pem ca/spare.pem ca/third.pem",
            ]
        );
    }

    #[test]
    fn endpoints_are_written_alike_everywhere() {
        let inventory = Inventory::parse(
            "endpoints = [\"a.example\", \"smtp://mail.example:587\", \"b.example:8443\", \"a.example:443\"]\n\
             [[endpoint]]\nhost = \"b.example:8443\"\nwarn_days = 30\n\
             [[endpoint]]\nhost = \"imap://mail.example\"\n\
             [[endpoint]]\nhost = \"mail.example\"\nport = 993\n",
        );
        assert_eq!(inventory.problems, []);
        let watched: Vec<_> = (inventory.watched.iter())
            .map(|watched| (watched.endpoint.to_string(), watched.thresholds.warn_days))
            .collect();
        let expected = [
            ("b.example:8443", 30),
            ("imap://mail.example:143", 14),
            ("mail.example:993", 14),
            ("a.example:443", 14),
            ("smtp://mail.example:587", 14),
        ];
        assert_eq!(watched, expected.map(|(endpoint, days)| (endpoint.to_owned(), days)));
    }

    #[test]
    fn a_built_in_issuer_keeps_what_is_not_written() {
        let inventory = Inventory::parse("[issuer.letsencrypt]\ncontact = [\"mailto:ops@example.com\"]\n");
        assert_eq!(inventory.problems, []);
        let issuer = &inventory.issuers["letsencrypt"];
        assert_eq!(issuer.contact, ["mailto:ops@example.com"]);
        assert_eq!(issuer.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert!(issuer.staging_directory.is_some());

        let other = Inventory::parse("[issuer.letsencrypt]\ndirectory = \"https://ca.example/dir\"\n");
        assert_eq!(other.issuers["letsencrypt"].staging_directory, None, "it is another CA");
    }

    #[test]
    fn every_syntax_error_is_reported_with_what_was_found() {
        let inventory = Inventory::parse(
            "[[zone]]\nname = \"a.b\"\n[zone]\nname = \"c.d\"\n[[endpoint]]\nhost = \u{201c}a.example\u{201d}\n",
        );
        let problems: Vec<_> = inventory.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].starts_with("line 3: ") && problems[0].contains("zone"),
            "{problems:?}"
        );
        assert!(
            problems[1].starts_with("line 6: ") && problems[1].contains('\u{201c}'),
            "{problems:?}"
        );
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

    /// How long it takes is in `make bench-growth`.
    #[test]
    fn ten_thousand_entries_have_their_lines() {
        let entry = |number: u32| format!("[[endpoint]]\nhost = \"h{number}.example\"\nwarn_dayz = {number}\n");
        let bad: String = (0..10_000).map(entry).collect();
        let good = bad.replace("warn_dayz", "warn_days");
        let (bad, good) = (Inventory::parse(&bad), Inventory::parse(&good));
        assert_eq!((bad.problems.len(), good.watched.len()), (10_000, 10_000));
        assert_eq!(bad.problems[9_999].line, Some(30_000));
        assert_eq!(good.watched[9_999].line, Some(29_998));
    }

    #[test]
    fn a_file_that_is_not_toml_is_one_problem() {
        let inventory = Inventory::parse("[[endpoint]]\nhost = \"a.b\n");
        assert_eq!(inventory.problems.len(), 1);
        assert_eq!(inventory.problems[0].line, Some(2));
        assert!(inventory.watched.is_empty());
    }
}
