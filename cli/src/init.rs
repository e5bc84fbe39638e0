//! `neverlapse init`: a first inventory.toml, with what the account's hosted zones and certificates
//! lead to.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::aws;
use neverlapse::certificate::common_name;
use neverlapse::endpoint::Endpoint;
use neverlapse::inventory::Inventory;
use neverlapse::report::{EndpointIndex, EndpointReport};
use neverlapse::text::{counted, printable};

use crate::argument;
use crate::discover::{self, Found, not_reached, serving};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Endpoints to watch besides those that are discovered
    #[arg(value_name = "ENDPOINT", value_parser = argument::endpoint)]
    endpoints: Vec<Endpoint>,
    /// Discover nothing: ask neither AWS nor the endpoints
    #[arg(long)]
    no_discovery: bool,
    /// The file to write, which must not exist yet
    #[arg(long, short, value_name = "FILE", default_value = "inventory.toml")]
    output: PathBuf,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let found = if arguments.no_discovery {
        Found::default()
    } else {
        Found::read(&aws::config().await?)
            .await
            .context("cannot discover anything (--no-discovery does without)")?
    };
    for problem in &found.stores.problems {
        eprintln!("warning: {}", printable(problem));
    }
    let names: Vec<_> = found.endpoints().into_iter().collect();
    let report = discover::probe(&names).await?;
    if let Some(problem) = not_reached(&report) {
        eprintln!("warning: {}", printable(&problem));
    }
    let seen = serving(report);

    let text = inventory(&arguments.endpoints, &found, &seen);
    let created = OpenOptions::new().write(true).create_new(true).open(&arguments.output);
    let path = arguments.output.display();
    match created {
        Ok(mut file) => file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write {path}"))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{path} exists already (expected --output with another name)")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot create {path}")),
    }

    let watched = Inventory::parse(&text).watched.len() as u64;
    let found = if arguments.no_discovery {
        String::new()
    } else {
        format!(
            ", from {} in {} and in certificates of ACM",
            counted(names.len() as u64, "name", "names"),
            counted(found.zones.len() as u64, "hosted zone", "hosted zones")
        )
    };
    println!("{path}: {} to watch{found}", counted(watched, "endpoint", "endpoints"));
    if watched == 0 {
        println!("next: write endpoints into it, or remove the # before those that you want to watch; then");
        println!("      neverlapse check --inventory {path}");
    } else {
        println!("next: neverlapse check --inventory {path}");
    }
    println!("      neverlapse validate {path} && aws s3 cp {path} s3://BUCKET/inventory.toml");
    Ok(0)
}

/// The file's text. Endpoints that serve TLS are watched; other names, and certificates, are
/// proposed in comments.
fn inventory(given: &[Endpoint], found: &Found, seen: &[EndpointReport]) -> String {
    let mut text = HEAD.to_owned();
    let mut listed = BTreeSet::new();
    text.push_str("endpoints = [\n");
    for endpoint in given {
        if listed.insert(endpoint.clone()) {
            let _ = writeln!(text, "    \"{endpoint}\",");
        }
    }

    let in_acm = (IN_ACM, found.stores.endpoints().collect());
    let of_zones = found
        .zones
        .iter()
        .map(|zone| (zone.name.as_str(), zone.endpoints.clone()));
    for (place, mut endpoints) in of_zones.chain([in_acm]) {
        endpoints.retain(|endpoint| listed.insert(endpoint.clone()));
        if !endpoints.is_empty() {
            let _ = writeln!(text, "    # {place}");
        }
        for endpoint in &endpoints {
            let line = match report(seen, endpoint) {
                Some(report) => format!("\"{endpoint}\",  # {}", served(report)),
                None => format!("# \"{endpoint}\",  # no TLS on port 443, as seen from here"),
            };
            let _ = writeln!(text, "    {line}");
        }
    }
    text.push_str("]\n");

    text.push_str(CERTIFICATES);
    for zone in &found.zones {
        let served_at: Vec<_> = (zone.endpoints.iter())
            .filter(|endpoint| report(seen, endpoint).is_some())
            .map(|endpoint| format!("\"{endpoint}\""))
            .collect();
        let name = &zone.name;
        let _ = write!(
            text,
            "\n# [[certificate]]\n# identifiers = [\"{name}\", \"*.{name}\"]\n# served_at = [{}]\n",
            served_at.join(", ")
        );
    }
    text
}

fn report<'r>(seen: &'r [EndpointReport], endpoint: &Endpoint) -> Option<&'r EndpointReport> {
    EndpointIndex::of(seen).of_clients(endpoint).next()
}

/// Until when its certificate is valid, and who issued it.
fn served(report: &EndpointReport) -> String {
    let until = report.not_after.map(|end| format!("until {}", end.utc().date()));
    let issuer = report
        .leaf()
        .map(|leaf| format!("issued by {}", common_name(&leaf.issuer)));
    let known: Vec<_> = [until, issuer].into_iter().flatten().collect();
    printable(&known.join(", "))
}

const HEAD: &str = "\
# What neverlapse watches and renews. `neverlapse validate inventory.toml` shows what it means, and every error in it;
# docs/inventory.example.toml explains all keys.

# warn_days = 14        # default: the stack's WarnDays
# critical_days = 3     # default: the stack's CriticalDays

# host[:port], smtp://host[:port], smtps://host …; an [[endpoint]] can have settings.
";
const CERTIFICATES: &str = "
# Certificates to renew and install: a [[certificate]] for each hosted zone that was found. Nothing is renewed until you remove
# the # of one; try it with `neverlapse renew NAME --dry-run` first (docs/renewal.md).
";
const IN_ACM: &str = "names of certificates in ACM, in none of these hosted zones";
const HELP: &str = "\
Examples:
  neverlapse init                                          from what the account has
  neverlapse init --no-discovery example.com smtp://mail.example.com:587

Reads what `neverlapse discover` reads: the public hosted zones of the account, and the certificates in ACM, in the region of \
AWS_REGION and in us-east-1, where CloudFront's are. It connects to each name on port 443, from here, and changes nothing but the file \
that it writes.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::discover::{Stores, Zone};

    #[test]
    fn what_it_writes_can_be_used_and_so_can_what_it_proposes() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let found = Found {
            zones: vec![Zone {
                name: "example.com".to_owned(),
                endpoints: ["example.com", "dark.example.com"].map(endpoint).into(),
            }],
            stores: Stores::with_names(["example.com", "*.example.com", "cdn.example.org"]),
        };
        let seen: EndpointReport = serde_json::from_value(json!({
            "endpoint": "example.com:443", "status": "ok", "findings": [], "observations": [], "not_after": "2027-01-31T12:00:00Z"
        }))
        .unwrap();
        let given = ["smtp://mail.example.net:587", "example.com"].map(endpoint);
        let text = inventory(&given, &found, &[seen]);

        let written = Inventory::parse(&text);
        assert_eq!(written.problems, [], "{text}");
        let watched: Vec<_> = written
            .watched
            .iter()
            .map(|watched| watched.endpoint.to_string())
            .collect();
        assert_eq!(watched, ["smtp://mail.example.net:587", "example.com:443"]);
        assert!(written.certificates.is_empty(), "nothing is renewed unasked");
        for (name, times) in [
            ("# \"dark.example.com:443\"", 1),
            ("# \"cdn.example.org:443\"", 1),
            (IN_ACM, 1),
        ] {
            assert_eq!(text.matches(name).count(), times, "{text}");
        }

        let (_, proposed) = text.split_once("# [[certificate]]").unwrap();
        let proposed = format!("[[certificate]]{}", proposed.replace("\n# ", "\n"));
        let proposed = Inventory::parse(&proposed);
        assert_eq!(proposed.problems, [], "{text}");
        assert_eq!(proposed.certificates[0].identifiers, ["example.com", "*.example.com"]);
    }
}
