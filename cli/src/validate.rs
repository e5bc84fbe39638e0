//! `neverlapse validate`: what an inventory means, or every mistake in it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use neverlapse::inventory::Inventory;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all of it can be used, 2 it has mistakes, 3 it cannot be read")]
pub(crate) struct Arguments {
    /// An inventory.toml
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let name = arguments.file.display();
    let text = std::fs::read_to_string(&arguments.file).with_context(|| format!("cannot read {name}"))?;
    let inventory = Inventory::parse(&text);
    for mistake in &inventory.mistakes {
        eprintln!("{name} {mistake}");
    }
    for watched in &inventory.watched {
        let (warn, critical) = (watched.thresholds.warn_days, watched.thresholds.critical_days);
        let unicode = watched
            .endpoint
            .unicode()
            .map(|unicode| format!(" ({unicode})"))
            .unwrap_or_default();
        let sni = watched
            .sni
            .as_ref()
            .map(|sni| format!(", asks for {sni}"))
            .unwrap_or_default();
        let ca = watched
            .ca
            .as_ref()
            .map(|ca| format!(", trusts {ca} too"))
            .unwrap_or_default();
        let pinned = if watched.addresses.is_empty() {
            String::new()
        } else {
            format!(", at {:?}", watched.addresses)
        };
        println!(
            "watch {}{unicode}: warns below {warn} days, critical below {critical}{sni}{pinned}{ca}",
            watched.endpoint
        );
    }
    for certificate in &inventory.certificates {
        let served: Vec<_> = certificate.served_at.iter().map(ToString::to_string).collect();
        println!(
            "renew {}: for {}, {} key, from {}, served at {}",
            certificate.name,
            certificate.identifiers.join(" "),
            certificate.key_type,
            certificate.issuers.join(" then "),
            if served.is_empty() {
                "no endpoint".to_owned()
            } else {
                served.join(" ")
            },
        );
    }
    let (watched, certificates, mistakes) = (
        inventory.watched.len(),
        inventory.certificates.len(),
        inventory.mistakes.len(),
    );
    println!("{watched} endpoints, {certificates} certificates, {mistakes} mistakes");
    Ok(if mistakes == 0 { 0 } else { 2 })
}
