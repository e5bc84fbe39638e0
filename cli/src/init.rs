//! `neverlapse init`: a first inventory.toml, with what the account's hosted zones lead to.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::aws;
use neverlapse::certificate::common_name;
use neverlapse::endpoint::Endpoint;
use neverlapse::report::{EndpointIndex, EndpointReport};
use neverlapse::text::{counted, printable};

use crate::argument;
use crate::discover::{self, Zone, serving};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Endpoints to watch besides those that are discovered
    #[arg(value_name = "ENDPOINT", value_parser = argument::endpoint)]
    endpoints: Vec<Endpoint>,
    /// Discover nothing: ask neither Route 53 nor the endpoints
    #[arg(long)]
    no_discovery: bool,
    /// The file to write, which must not exist yet
    #[arg(long, short, value_name = "FILE", default_value = "inventory.toml")]
    output: PathBuf,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let zones = if arguments.no_discovery {
        Vec::new()
    } else {
        discover::zones(&aws::config().await?)
            .await
            .context("cannot discover anything (--no-discovery does without)")?
    };
    let found: Vec<_> = zones.iter().flat_map(|zone| zone.endpoints.iter().cloned()).collect();
    let seen = serving(discover::probe(&found).await?);

    let text = inventory(&arguments.endpoints, &zones, &seen);
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

    let watched = (seen.len() + arguments.endpoints.len()) as u64;
    println!(
        "{path}: {} to watch, from {} in {}",
        counted(watched, "endpoint", "endpoints"),
        counted(found.len() as u64, "name", "names"),
        counted(zones.len() as u64, "hosted zone", "hosted zones")
    );
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
fn inventory(given: &[Endpoint], zones: &[Zone], seen: &[EndpointReport]) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("endpoints = [\n");
    for endpoint in given {
        let _ = writeln!(text, "    \"{endpoint}\",");
    }
    for zone in zones {
        let _ = writeln!(text, "    # {}", zone.name);
        for endpoint in &zone.endpoints {
            let line = match report(seen, endpoint) {
                Some(report) => format!("\"{endpoint}\",  # {}", served(report)),
                None => format!("# \"{endpoint}\",  # no TLS on port 443, as seen from here"),
            };
            let _ = writeln!(text, "    {line}");
        }
    }
    text.push_str("]\n");

    text.push_str(CERTIFICATES);
    for zone in zones {
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
const HELP: &str = "\
Examples:
  neverlapse init                                          from the hosted zones of the account
  neverlapse init --no-discovery example.com smtp://mail.example.com:587

Reads the public hosted zones of the account (route53:ListHostedZones, route53:ListResourceRecordSets) and connects to each name on port \
443, from here. It changes nothing but the file that it writes. `neverlapse discover` also finds names in certificates of ACM.";

#[cfg(test)]
mod tests {
    use neverlapse::inventory::Inventory;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_it_writes_can_be_used_and_so_can_what_it_proposes() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let zones = [Zone {
            name: "example.com".to_owned(),
            endpoints: ["example.com", "dark.example.com"].map(endpoint).into(),
        }];
        let seen: EndpointReport = serde_json::from_value(json!({
            "endpoint": "example.com:443", "status": "ok", "findings": [], "observations": [], "not_after": "2027-01-31T12:00:00Z"
        }))
        .unwrap();
        let text = inventory(&[endpoint("smtp://mail.example.net:587")], &zones, &[seen]);

        let written = Inventory::parse(&text);
        assert_eq!(written.problems, [], "{text}");
        let watched: Vec<_> = written
            .watched
            .iter()
            .map(|watched| watched.endpoint.to_string())
            .collect();
        assert_eq!(watched, ["smtp://mail.example.net:587", "example.com:443"]);
        assert!(written.certificates.is_empty(), "nothing is renewed unasked");
        assert!(text.contains("# \"dark.example.com:443\""), "{text}");

        let (_, proposed) = text.split_once("# [[certificate]]").unwrap();
        let proposed = format!("[[certificate]]{}", proposed.replace("\n# ", "\n"));
        let proposed = Inventory::parse(&proposed);
        assert_eq!(proposed.problems, [], "{text}");
        assert_eq!(proposed.certificates[0].identifiers, ["example.com", "*.example.com"]);
    }
}
