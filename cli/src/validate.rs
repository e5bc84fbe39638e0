//! `neverlapse validate`: what an inventory means, or every mistake in it.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Table as Grid};
use neverlapse::inventory::{Certificate, Inventory, Watched};

use crate::source::read;
use crate::terminal::{Terminal, escaped};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The inventory: a file, - for standard input, or s3://bucket[/key]
    #[arg(value_name = "FILE|s3://BUCKET")]
    place: String,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let (text, _) = read(&arguments.place).await?;
    let place = match arguments.place.as_str() {
        "-" => "standard input",
        place => place,
    };
    let inventory = Inventory::parse(&text);
    for mistake in &inventory.mistakes {
        eprintln!("error: {place} {}", escaped(&mistake.to_string()));
    }
    let nothing = inventory.watched.is_empty() && inventory.certificates.is_empty();
    if nothing && inventory.mistakes.is_empty() {
        eprintln!("error: {place} has nothing to look at (expected [[endpoint]] or [[certificate]])");
    }
    let mut out = io::stdout().lock();
    print(&inventory, Terminal::of_stdout(), &mut out)?;
    out.flush()?;
    Ok(if inventory.mistakes.is_empty() && !nothing {
        0
    } else {
        MISTAKEN
    })
}

fn print(inventory: &Inventory, terminal: Terminal, out: &mut impl Write) -> io::Result<()> {
    let mut watched = headed(
        terminal,
        &["LINE", "WATCHED", "WARNS BELOW", "CRITICAL BELOW", "BESIDES"],
    );
    watched.add_rows(inventory.watched.iter().map(watched_row));
    let mut certificates = headed(terminal, &["LINE", "RENEWED", "FOR", "KEY", "ISSUERS", "SERVED AT"]);
    certificates.add_rows(inventory.certificates.iter().map(certificate_row));
    let mut issuers = headed(terminal, &["ISSUER", "DIRECTORY", "CONTACT", "ACCOUNT BINDING"]);
    for (name, issuer) in &inventory.issuers {
        // The built-in ones matter where they are used.
        if inventory.certificates.iter().any(|user| user.issuers.contains(name)) || !issuer.contact.is_empty() {
            let binding = if issuer.eab { "yes" } else { "no" };
            issuers.add_row(cells([name, &issuer.directory, &issuer.contact.join("\n"), binding]));
        }
    }
    let mut zones = headed(terminal, &["ZONE", "ROLE", "EXTERNAL ID"]);
    for zone in &inventory.zones {
        let (role, id) = (zone.role_arn.as_deref(), zone.external_id.as_deref());
        zones.add_row(cells([&zone.name, role.unwrap_or_default(), id.unwrap_or_default()]));
    }
    for grid in [watched, certificates, issuers, zones] {
        if grid.row_count() > 0 {
            writeln!(out, "{}\n", grid.trim_fmt())?;
        }
    }
    writeln!(
        out,
        "{}, {}, {}",
        count(inventory.watched.len(), "endpoint"),
        count(inventory.certificates.len(), "certificate"),
        count(inventory.mistakes.len(), "mistake")
    )
}

fn watched_row(watched: &Watched) -> Vec<Cell> {
    let endpoint = match watched.endpoint.unicode() {
        Some(unicode) => format!("{}\n{}", watched.endpoint, escaped(&unicode)),
        None => watched.endpoint.to_string(),
    };
    let addresses: Vec<_> = watched.addresses.iter().map(ToString::to_string).collect();
    let mut besides = Vec::new();
    besides.extend(watched.sni.as_ref().map(|sni| format!("asks for {sni}")));
    besides.extend((!addresses.is_empty()).then(|| format!("at {}", addresses.join(", "))));
    besides.extend(watched.ca.as_deref().map(|ca| format!("trusts {} too", escaped(ca))));
    let thresholds = watched.thresholds;
    vec![
        line(watched.line),
        Cell::new(endpoint),
        Cell::new(format!("{} d", thresholds.warn_days)),
        Cell::new(format!("{} d", thresholds.critical_days)),
        Cell::new(besides.join("\n")),
    ]
}

fn certificate_row(certificate: &Certificate) -> Vec<Cell> {
    let served_at: Vec<_> = certificate.served_at.iter().map(ToString::to_string).collect();
    let served_at = match served_at.is_empty() {
        true => "nowhere that is watched".to_owned(),
        false => served_at.join("\n"),
    };
    let profile = certificate
        .profile
        .as_deref()
        .map(|profile| format!("\n({})", escaped(profile)));
    let issuers = certificate.issuers.join("\nthen ") + &profile.unwrap_or_default();
    vec![
        line(certificate.line),
        Cell::new(escaped(&certificate.name)),
        Cell::new(certificate.identifiers.join("\n")),
        Cell::new(certificate.key_type),
        Cell::new(issuers),
        Cell::new(served_at),
    ]
}

fn headed(terminal: Terminal, header: &[&str]) -> Grid {
    let mut grid = terminal.grid();
    grid.set_header(header);
    grid
}

fn cells<const N: usize>(texts: [&str; N]) -> Vec<Cell> {
    let lines = |text: &str| text.lines().map(escaped).collect::<Vec<_>>().join("\n");
    texts.into_iter().map(|text| Cell::new(lines(text))).collect()
}

fn line(line: Option<usize>) -> Cell {
    Cell::new(line.map(|line| line.to_string()).unwrap_or_default())
}

fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

const MISTAKEN: u8 = 1;
const EXAMPLES: &str = "\
Examples:
  neverlapse validate inventory.toml && aws s3 cp inventory.toml s3://my-bucket/
  neverlapse validate s3://my-bucket

Mistakes go to standard error, each with its line, the value and the accepted form.
Exit codes: 0 all of it can be used, 1 it has mistakes, 3 it cannot be read";
