//! `neverlapse validate`: what an inventory or a pull.toml means, and every error in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use comfy_table::Cell;
use neverlapse::bucket::store::Store;
use neverlapse::inventory::{Inventory, Issuer, KeyType, Managed, Problem, Watched, Zone};
use neverlapse::probe;
use neverlapse::text::{counted, printable};

use crate::inventory;
use crate::pull::check;
use crate::terminal::{self, Terminal};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// An inventory or a pull.toml: a file, - for standard input, or s3://bucket[/key]
    #[arg(value_name = "FILE|s3://BUCKET")]
    place: String,
    /// It is a pull.toml. Otherwise its keys say what it is
    #[arg(long)]
    pull: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let inventory::Text { text, store } = inventory::read(&arguments.place).await?;
    let place = match arguments.place.as_str() {
        "-" => "standard input",
        place => place,
    };
    if arguments.pull || check::is_configuration(&text) {
        let is_usable = check::describe(&text, place);
        return Ok(if is_usable { 0 } else { PROBLEMS });
    }
    let mut inventory = Inventory::parse(&text);
    let unreadable = unreadable_roots(&inventory, store.as_ref()).await;
    inventory.problems.extend(unreadable);

    for problem in &inventory.problems {
        eprintln!("error: {place} {}", printable(&problem.to_string()));
    }
    let is_empty = inventory.watched.is_empty() && inventory.certificates.is_empty();
    if is_empty && inventory.problems.is_empty() {
        eprintln!("error: {place} has nothing to watch (expected endpoints, [[endpoint]] or [[certificate]])");
    }
    for note in notes(&inventory) {
        eprintln!("note: {place} {}", printable(&note.to_string()));
    }

    let mut out = io::stdout().lock();
    print(&inventory, Terminal::of_stdout(), &mut out)?;
    out.flush()?;
    let is_usable = inventory.problems.is_empty() && !is_empty;
    Ok(if is_usable { 0 } else { PROBLEMS })
}

/// Root certificates that the functions could not read: they may read `ca/` only. In a bucket, each
/// is read as they would.
async fn unreadable_roots(inventory: &Inventory, store: Option<&Store>) -> Vec<Problem> {
    let of_endpoints = inventory
        .watched
        .iter()
        .flat_map(|watched| watched.ca.iter().map(|ca| (watched.line, ca)));
    let of_issuers = inventory
        .issuers
        .values()
        .filter_map(|issuer| Some((None, issuer.ca.as_ref()?)));

    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for (line, ca) in of_endpoints.chain(of_issuers) {
        if !seen.insert(ca) {
            continue;
        }
        let message = if !ca.starts_with("ca/") {
            format!("ca = {ca:?} is not under ca/ (expected \"ca/NAME.pem\", an object in the bucket)")
        } else if let Some(store) = store
            && let Err(problem) = store.pem(ca).await
        {
            format!("ca = {ca:?}: {problem}")
        } else {
            continue;
        };
        problems.push(Problem { line, message });
    }
    problems
}

/// What can be used, but may not be what was meant.
fn notes(inventory: &Inventory) -> Vec<Problem> {
    let mut notes = Vec::new();
    for certificate in &inventory.certificates {
        let Managed {
            name,
            line,
            identifiers,
            ..
        } = certificate;
        if certificate.served_at.is_empty() {
            let message = format!("no endpoint shows whether {name} is served ({SHOWN})");
            notes.push(Problem { line: *line, message });
        }
        for endpoint in &certificate.served_at {
            let mut watched = inventory.watched.iter();
            let has_sni = watched.any(|watched| watched.endpoint == *endpoint && watched.sni.is_some());
            if !endpoint.host.is_among(identifiers) && !has_sni {
                let message = format!(
                    "served_at names {endpoint}, but {name} is not for {} (expected one of its identifiers, or an [[endpoint]] with sni)",
                    endpoint.host
                );
                notes.push(Problem { line: *line, message });
            }
        }
        for identifier in identifiers
            .iter()
            .filter(|identifier| identifier.parse::<IpAddr>().is_ok())
        {
            let message = format!("identifiers has the address {identifier}: {NO_ADDRESSES}");
            notes.push(Problem { line: *line, message });
        }
        let is_public = certificate.issuers.iter().all(|name| {
            let issuer = inventory.issuers.get(name);
            issuer.is_some_and(|issuer| issuer.ca.is_none())
        });
        for identifier in identifiers.iter().filter(|_| is_public) {
            if let Some(what) = never_issued(identifier) {
                let message = format!("identifiers has {identifier}: public CAs issue no certificates for {what}");
                notes.push(Problem { line: *line, message });
            }
        }
        let (most, of_profile) = most_names(certificate, inventory);
        if is_public && identifiers.len() > most {
            let message = format!(
                "identifiers has {} names: Let's Encrypt takes {most} per certificate{of_profile} (expected several certificates)",
                identifiers.len()
            );
            notes.push(Problem { line: *line, message });
        }
        for identifier in identifiers {
            let wildcard = identifier.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            if let Some(wildcard) = wildcard.filter(|wildcard| wildcard != identifier && identifiers.contains(wildcard))
            {
                let message = format!(
                    "identifiers has {identifier}, which {wildcard} covers: Let's Encrypt refuses both in one order (expected one of them)"
                );
                notes.push(Problem { line: *line, message });
            }
        }
    }

    notes.extend(served_twice(inventory));
    for Zone { name, .. } in (inventory.zones.iter()).filter(|zone| zone.id.is_none() && zone.role_arn.is_none()) {
        notes.push(Problem {
            line: None,
            message: format!("[[zone]] name = {name:?} changes nothing (expected a role_arn or an id in it)"),
        });
    }
    for watched in &inventory.watched {
        if watched.endpoint.port == probe::MAIL {
            notes.push(Problem {
                line: watched.line,
                message: format!("{}: {}", watched.endpoint, probe::MAIL_FROM_LAMBDA),
            });
        }
    }
    notes.sort_by_key(|note| note.line);
    notes
}

/// Certificates with one kind of key at one place: clients get one of them, and the other is an
/// alert.
fn served_twice(inventory: &Inventory) -> Vec<Problem> {
    let mut notes = Vec::new();
    let mut first = BTreeMap::new();
    for certificate in &inventory.certificates {
        let is_rsa = matches!(certificate.key_type, KeyType::Rsa2048 | KeyType::Rsa4096);
        for endpoint in &certificate.served_at {
            let other = *first.entry((endpoint, is_rsa)).or_insert(&certificate.name);
            if *other == certificate.name {
                continue;
            }
            let message = format!(
                "served_at names {endpoint} for {}, and for {other}: a server shows one of them, unless one has an RSA key and \
                 one an ECDSA key (expected served_at without it in one of them)",
                certificate.name
            );
            notes.push(Problem {
                line: certificate.line,
                message,
            });
        }
    }
    notes
}

/// How many names Let's Encrypt takes in a certificate of the profile that is ordered, and which
/// that is where it takes fewer.
fn most_names(certificate: &Managed, inventory: &Inventory) -> (usize, String) {
    let issuers = certificate
        .issuers
        .iter()
        .filter_map(|name| inventory.issuers.get(name));
    let mut profiles = issuers.filter_map(|issuer| certificate.profile_at(issuer));
    match profiles.find(|profile| ["tlsserver", "shortlived"].contains(&profile.name.as_str())) {
        Some(profile) => (FEW_NAMES, format!(" of the profile {}", profile.name)),
        None => (MOST_NAMES, String::new()),
    }
}

/// Why no public CA issues for a name, if none does (Baseline Requirements, 7.1.2.7.12, and RFC
/// 6761).
fn never_issued(identifier: &str) -> Option<&'static str> {
    if identifier.parse::<IpAddr>().is_ok() {
        return None;
    }
    let Some((_, top)) = identifier.rsplit_once('.') else {
        return Some("names without a dot");
    };
    if SPECIAL.contains(&top) {
        Some("names under a top-level domain that is not in public DNS")
    } else if identifier.contains('_') {
        Some("names with an underscore")
    } else if identifier.starts_with("*.") && identifier.matches('.').count() == 1 {
        Some("all of a top-level domain")
    } else {
        None
    }
}

fn print(inventory: &Inventory, terminal: Terminal, out: &mut impl Write) -> io::Result<()> {
    let mut watched = terminal.grid(["LINE", "WARNS", "CRITICAL", "WATCHED"]);
    watched.add_rows(inventory.watched.iter().map(watched_row));

    let mut certificates = terminal.grid(["LINE", "KEY", "RENEWED"]);
    certificates.add_rows(inventory.certificates.iter().map(certificate_row));

    let mut issuers = terminal.grid(["ISSUER", "DIRECTORY"]);
    for (name, issuer) in &inventory.issuers {
        // Those that are built in count only where they are used.
        if inventory.certificates.iter().any(|user| user.issuers.contains(name)) || !issuer.contact.is_empty() {
            issuers.add_row(issuer_row(name, issuer));
        }
    }

    let mut zones = terminal.grid(["ZONE", "ROLE"]);
    zones.add_rows(inventory.zones.iter().map(zone_row));

    for grid in [watched, certificates, issuers, zones] {
        terminal::print(grid, out)?;
    }
    writeln!(
        out,
        "{}, {}, {}",
        counted(inventory.watched.len() as u64, "endpoint", "endpoints"),
        counted(inventory.certificates.len() as u64, "certificate", "certificates"),
        counted(inventory.problems.len() as u64, "error", "errors")
    )
}

fn watched_row(watched: &Watched) -> [Cell; 4] {
    let unicode = watched.endpoint.unicode().map(|unicode| format!(" ({unicode})"));
    let mut lines = vec![format!("{}{}", watched.endpoint, unicode.unwrap_or_default())];
    lines.extend(watched.sni.as_ref().map(|sni| format!("as {sni} (SNI)")));
    if !watched.addresses.is_empty() {
        lines.push(format!("at {}", list(&watched.addresses)));
    }
    lines.extend(
        watched
            .timeout
            .map(|timeout| format!("timeout {} s", timeout.as_secs())),
    );
    lines.extend(watched.ehlo.as_ref().map(|ehlo| format!("EHLO {}", ehlo.as_ref())));
    if !watched.ca.is_empty() {
        lines.push(format!("also trusts {}", list(&watched.ca)));
    }
    if watched.quiet {
        lines.push("quiet: in the report, without alerts".to_owned());
    }

    [
        line(watched.line),
        below(watched.thresholds.warn_days),
        below(watched.thresholds.critical_days),
        cell(&lines),
    ]
}

fn certificate_row(certificate: &Managed) -> [Cell; 3] {
    let profile = certificate
        .profile
        .as_ref()
        .map(|profile| {
            let if_offered = if profile.is_required { "" } else { " if it is offered" };
            format!(", profile {}{if_offered}", profile.name)
        })
        .unwrap_or_default();
    let mut lines = vec![
        certificate.name.clone(),
        format!("for {}", list(&certificate.identifiers)),
        format!("from {}{profile}", certificate.issuers.join(", then ")),
    ];
    lines.push(match certificate.served_at.as_slice() {
        [] => "served_at is empty".to_owned(),
        served_at => format!("served at {}", list(served_at)),
    });

    [line(certificate.line), Cell::new(certificate.key_type), cell(&lines)]
}

fn issuer_row(name: &str, issuer: &Issuer) -> [Cell; 2] {
    let mut lines = vec![issuer.directory.clone()];
    if !issuer.contact.is_empty() {
        lines.push(format!("contact {}", list(&issuer.contact)));
    }
    if issuer.eab {
        lines.push(format!("external account binding in accounts/{name}/eab.json"));
    }
    lines.extend(issuer.ca.as_ref().map(|ca| format!("roots in {ca}")));
    if issuer.staging {
        lines.push("staging: clients do not trust it".to_owned());
    }
    lines.push(match &issuer.staging_directory {
        Some(directory) => format!("dry runs use {directory}"),
        None => "no staging_directory, so no dry runs".to_owned(),
    });
    [cell(&[name.to_owned()]), cell(&lines)]
}

fn zone_row(zone: &Zone) -> [Cell; 2] {
    let mut lines = vec![zone.role_arn.clone().unwrap_or_else(|| "this account's".to_owned())];
    lines.extend(zone.external_id.as_ref().map(|id| format!("external id {id}")));
    [cell(std::slice::from_ref(&zone.name)), cell(&lines)]
}

fn cell(lines: &[String]) -> Cell {
    let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
    Cell::new(lines.join("\n"))
}

fn line(line: Option<usize>) -> Cell {
    Cell::new(line.map(|line| line.to_string()).unwrap_or_default())
}

fn below(days: u32) -> Cell {
    Cell::new(format!("< {days} d"))
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// The inventory has errors, or nothing in it.
const PROBLEMS: u8 = 1;
const SHOWN: &str =
    "expected served_at = [\"host:port\"], or instances that check it themselves, by verify in pull.toml";
/// Let's Encrypt's limits, by the profile: <https://letsencrypt.org/docs/profiles/>.
const MOST_NAMES: usize = 100;
const FEW_NAMES: usize = 25;
/// Top-level domains for special use (RFC 6761, 6762), and ICANN's for private networks.
const SPECIAL: [&str; 6] = ["local", "localhost", "test", "example", "invalid", "internal"];
const NO_ADDRESSES: &str = "public CAs do not validate addresses by DNS-01, which is all that neverlapse uses; expected a CA that needs no validation";
const EXAMPLES: &str = "\
Examples:
  neverlapse validate inventory.toml && aws s3 cp inventory.toml s3://my-bucket/
  neverlapse validate s3://my-bucket
  neverlapse validate web.toml          (a pull.toml, for neverlapse pull)

Errors go to standard error, each with its line, the value and the accepted form. Thresholds that the inventory does not set are \
shown as 14 and 3 days; the stack's parameters WarnDays and CriticalDays replace those.

Exit codes: 0 all of it can be used, 1 it has errors, 3 it cannot be read";
