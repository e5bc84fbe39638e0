//! `neverlapse rollback`: moves the pointer to an earlier version; instances install it as told.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::bucket::store::{self, Expecting, Object};
use neverlapse::bucket::version::{Current, MANIFEST, Manifest, current_key, file_key, versions_prefix};
use neverlapse::renewal::{Renewal, planned};
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;

use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The certificate's name in the inventory
    name: String,
    /// The version to serve; default: the one before the current
    version: Option<String>,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let (name, now) = (&arguments.name, Timestamp::now());
    let stack = Stack::find(&arguments.stack).await?;
    let current = stack.store.json::<Current>(&current_key(name)).await?;
    let current = current.with_context(|| format!("there is no certificate {name:?} in the bucket"))?;
    let versions = versions(&stack, name).await?;
    let version = match &arguments.version {
        Some(version) if versions.contains(version) => version,
        Some(version) => bail!(
            "there is no version {version:?} of {name} (expected {})",
            listed(&versions)
        ),
        None => versions
            .range(..current.value.facts.version.clone())
            .next_back()
            .with_context(|| format!("there is no version of {name} before {}", current.value.facts.version))?,
    };
    if *version == current.value.facts.version {
        bail!("{version} is the current version of {name} already");
    }
    let key = file_key(name, version, MANIFEST);
    let written = stack
        .store
        .object(&key)
        .await?
        .with_context(|| format!("there is no {key}"))?;
    let manifest: Manifest = serde_json::from_slice(&written).with_context(|| format!("{key} cannot be read"))?;
    if manifest.facts.not_after <= now {
        bail!(
            "version {version} expired on {} (expected one that is valid)",
            manifest.facts.not_after
        );
    }
    let renewal = stack.store.json::<Renewal>(&Renewal::key(name)).await?;
    let not_after = manifest.facts.not_after;
    let next = Current {
        schema: Current::SCHEMA.to_owned(),
        sequence: current.value.sequence + 1,
        facts: manifest.facts,
        manifest_sha256: sha256(&written),
        published_at: now,
        rolled_back: true,
    };
    let due = planned(&next, renewal.as_ref().map(|found| &found.value));
    match stack
        .store
        .put(&current_key(name), Object::json(&next)?, Expecting::Tag(&current.tag))
        .await
    {
        Ok(_) => {}
        Err(store::Error::Changed { .. }) => {
            bail!("a new version was published this very moment; look with `neverlapse plan`, and try again")
        }
        Err(error) => return Err(error.into()),
    }
    println!(
        "{name} is version {version} again, valid until {}; instances install it when they pull",
        not_after
    );
    match due > now {
        true => println!(
            "it is kept until {}; `neverlapse renew {name} --force` ends that sooner",
            due
        ),
        false => println!("it is due already: the next run renews it"),
    }
    Ok(0)
}

async fn versions(stack: &Stack, name: &str) -> Result<BTreeSet<String>> {
    let prefix = versions_prefix(name);
    let keys = stack.store.keys(&prefix).await?;
    let whole = keys
        .iter()
        .filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix(MANIFEST)?.strip_suffix('/'));
    Ok(whole.map(str::to_owned).collect())
}

fn listed(versions: &BTreeSet<String>) -> String {
    versions.iter().cloned().collect::<Vec<_>>().join(", ")
}

const EXAMPLES: &str = "\
Examples:
  neverlapse rollback example.com
  neverlapse rollback example.com 20261001T060112Z-5c1f09aa";
