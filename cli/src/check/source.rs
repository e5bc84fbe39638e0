//! Where targets come from: arguments, a file read line by line, or an inventory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::bucket::store::Store;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Endpoint;
use neverlapse::finding::Thresholds;
use neverlapse::inventory::Inventory;
use neverlapse::probe::Target;
use neverlapse::text::printable;

use super::file::EndpointFile;
use super::problems::Problems;
use super::thresholds;
use crate::argument;
use crate::inventory;

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// host, host:port, [v6]:port, smtp://host[:port] (STARTTLS; also imap, pop3, ftp, ldap,
    /// postgres, mysql, lmtp, nntp, sieve, xmpp, xmpp-server), or smtps://host
    #[arg(value_name = "ENDPOINT", value_parser = argument::endpoint, required_unless_present_any = ["file", "inventory"])]
    endpoints: Vec<Endpoint>,
    /// Read endpoints from a file, one per line, # for comments; - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Read an inventory: a file, in which `ca` is a path relative to it, or s3://bucket[/key], in
    /// which `ca` is a key
    #[arg(long, value_name = "FILE|s3://BUCKET")]
    inventory: Option<String>,
    /// Trust the roots in this PEM file too; may be given several times
    #[arg(long, value_name = "PEM")]
    ca: Vec<PathBuf>,
}

/// Everything that is to be probed.
pub(super) struct Source {
    /// Those of a file are read as they are needed.
    pub(super) targets: Box<dyn Iterator<Item = Target> + Send>,
    /// How many there are, where that is known before the end.
    pub(super) expected: Option<u64>,
}

impl Source {
    /// Reads the inventory whole, and opens the file.
    pub(super) async fn open(
        arguments: &Arguments,
        thresholds: &thresholds::Arguments,
        problems: &Arc<Problems>,
    ) -> Result<Self> {
        let roots = arguments.roots()?;
        let shared_roots = Arc::new(roots.clone());
        let default_thresholds = thresholds.or(Thresholds::default());

        let mut targets: Vec<_> = arguments
            .endpoints
            .iter()
            .map(|endpoint| target(endpoint.clone(), &shared_roots, default_thresholds))
            .collect();
        if let Some(place) = &arguments.inventory {
            targets.extend(of_inventory(place, thresholds, &roots, problems).await?);
        }
        let listed = targets.len() as u64;

        let Some(path) = &arguments.file else {
            return Ok(Self {
                targets: Box::new(targets.into_iter()),
                expected: Some(listed),
            });
        };
        let file = EndpointFile::open(path)?;
        let expected = file.line_count.map(|lines| lines + listed);
        let of_file = file
            .endpoints(problems.clone())
            .map(move |endpoint| target(endpoint, &shared_roots, default_thresholds));
        Ok(Self {
            targets: Box::new(targets.into_iter().chain(of_file)),
            expected,
        })
    }
}

impl Arguments {
    /// The public roots, and those that were given.
    fn roots(&self) -> Result<Roots> {
        let mut roots = Roots::public();
        for path in &self.ca {
            let pem = fs::read(path).with_context(|| format!("cannot read --ca {}", path.display()))?;
            roots = roots
                .with_pem(&pem)
                .with_context(|| format!("--ca {}", path.display()))?;
        }
        Ok(roots)
    }
}

/// An endpoint without settings of its own.
fn target(endpoint: Endpoint, roots: &Arc<Roots>, thresholds: Thresholds) -> Target {
    Target {
        thresholds,
        ..Target::plain(endpoint, roots.clone())
    }
}

async fn of_inventory(
    place: &str,
    thresholds: &thresholds::Arguments,
    roots: &Roots,
    problems: &Problems,
) -> Result<Vec<Target>> {
    let inventory::Text { text, store } = inventory::read(place).await?;
    let mut inventory = Inventory::parse(&text);
    for watched in &mut inventory.watched {
        watched.thresholds = thresholds.or(watched.thresholds);
    }

    let folder = Path::new(place).parent().unwrap_or(Path::new(""));
    let (targets, unusable) = Target::all(&inventory, roots, async |ca: &str| {
        load(ca, store.as_ref(), folder).await
    })
    .await;
    for problem in inventory.problems.iter().chain(&unusable) {
        problems.add(format!("{place} {}", printable(&problem.to_string())));
    }

    if targets.is_empty() && problems.count() == 0 {
        bail!("the inventory {place} has nothing to check (expected endpoints, [[endpoint]] or [[certificate]])");
    }
    Ok(targets)
}

/// A PEM file that an inventory names: a key in its bucket, or a path from its folder.
async fn load(ca: &str, store: Option<&Store>, folder: &Path) -> Result<Vec<u8>, String> {
    match store {
        Some(store) => store.pem(ca).await,
        None => {
            let path = folder.join(ca);
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        }
    }
}
