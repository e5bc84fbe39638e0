//! `neverlapse validate`: what an inventory means, or every problem in it.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Table as Grid};
use neverlapse::inventory::{Inventory, Issuer, Managed, Watched, Zone};
use neverlapse::probe;
use neverlapse::text::printable;

use crate::inventory;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The inventory: a file, - for standard input, or s3://bucket[/key]
    #[arg(value_name = "FILE|s3://BUCKET")]
    place: String,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let text = inventory::read(&arguments.place).await?.text;
    let place = match arguments.place.as_str() {
        "-" => "standard input",
        place => place,
    };
    let inventory = Inventory::parse(&text);

    for problem in &inventory.problems {
        eprintln!("error: {place} {}", printable(&problem.to_string()));
    }
    let is_empty = inventory.watched.is_empty() && inventory.certificates.is_empty();
    if is_empty && inventory.problems.is_empty() {
        eprintln!("error: {place} has nothing to look at (expected [[endpoint]] or [[certificate]])");
    }
    for certificate in &inventory.certificates {
        if certificate.served_at.is_empty() {
            let line = certificate.line.map(|line| format!(" line {line}")).unwrap_or_default();
            let name = printable(&certificate.name);
            eprintln!("note: {place}{line}: nobody looks whether {name} is served ({NOBODY_LOOKS})");
        }
    }

    for watched in &inventory.watched {
        if watched.endpoint.port == probe::MAIL {
            let line = watched.line.map(|line| format!(" line {line}")).unwrap_or_default();
            eprintln!("note: {place}{line}: {}: {}", watched.endpoint, probe::MAIL_FROM_LAMBDA);
        }
    }

    let mut out = io::stdout().lock();
    print(&inventory, Terminal::of_stdout(), &mut out)?;
    out.flush()?;
    let is_usable = inventory.problems.is_empty() && !is_empty;
    Ok(if is_usable { 0 } else { PROBLEMS })
}

fn print(inventory: &Inventory, terminal: Terminal, out: &mut impl Write) -> io::Result<()> {
    let mut watched = headed(terminal, ["LINE", "WARNS", "CRITICAL", "WATCHED"]);
    watched.add_rows(inventory.watched.iter().map(watched_row));

    let mut certificates = headed(terminal, ["LINE", "KEY", "RENEWED"]);
    certificates.add_rows(inventory.certificates.iter().map(certificate_row));

    let mut issuers = headed(terminal, ["ISSUER", "DIRECTORY"]);
    for (name, issuer) in &inventory.issuers {
        // Those that are built in matter only where they are used.
        if inventory.certificates.iter().any(|user| user.issuers.contains(name)) || !issuer.contact.is_empty() {
            issuers.add_row(issuer_row(name, issuer));
        }
    }

    let mut zones = headed(terminal, ["ZONE", "ROLE"]);
    zones.add_rows(inventory.zones.iter().map(zone_row));

    for mut grid in [watched, certificates, issuers, zones] {
        if grid.row_count() > 0 {
            Terminal::wrap_last(&mut grid);
            writeln!(out, "{}\n", grid.trim_fmt())?;
        }
    }
    writeln!(
        out,
        "{}, {}, {}",
        count(inventory.watched.len(), "endpoint"),
        count(inventory.certificates.len(), "certificate"),
        count(inventory.problems.len(), "mistake")
    )
}

fn watched_row(watched: &Watched) -> [Cell; 4] {
    let unicode = watched.endpoint.unicode().map(|unicode| format!(" ({unicode})"));
    let mut lines = vec![format!("{}{}", watched.endpoint, unicode.unwrap_or_default())];
    lines.extend(watched.sni.as_ref().map(|sni| format!("asks for {sni}")));
    if !watched.addresses.is_empty() {
        lines.push(format!("at {}", list(&watched.addresses)));
    }
    lines.extend(watched.timeout.map(|timeout| format!("has {} s", timeout.as_secs())));
    lines.extend(
        watched
            .ehlo
            .as_ref()
            .map(|ehlo| format!("hears EHLO {}", ehlo.as_ref())),
    );
    lines.extend(watched.ca.as_ref().map(|ca| format!("trusts {ca} too")));

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
        .map(|profile| format!(", profile {profile}"))
        .unwrap_or_default();
    let mut lines = vec![
        certificate.name.clone(),
        format!("for {}", list(&certificate.identifiers)),
        format!("from {}{profile}", certificate.issuers.join(", then ")),
    ];
    lines.push(match certificate.served_at.as_slice() {
        [] => "served nowhere that is watched".to_owned(),
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
    [cell(&[name.to_owned()]), cell(&lines)]
}

fn zone_row(zone: &Zone) -> [Cell; 2] {
    let mut lines = vec![zone.role_arn.clone().unwrap_or_else(|| "this account's".to_owned())];
    lines.extend(zone.external_id.as_ref().map(|id| format!("external id {id}")));
    [cell(std::slice::from_ref(&zone.name)), cell(&lines)]
}

fn headed<const N: usize>(terminal: Terminal, header: [&str; N]) -> Grid {
    let mut grid = terminal.grid();
    grid.set_header(header);
    grid
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

fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The inventory has problems, or nothing in it.
const PROBLEMS: u8 = 1;
const NOBODY_LOOKS: &str =
    "expected served_at = [\"host:port\"], or instances that look for themselves, by verify in pull.toml";
const EXAMPLES: &str = "\
Examples:
  neverlapse validate inventory.toml && aws s3 cp inventory.toml s3://my-bucket/
  neverlapse validate s3://my-bucket

Mistakes go to standard error, each with its line, the value and the accepted form.
Exit codes: 0 all of it can be used, 1 it has mistakes, 3 it cannot be read";
