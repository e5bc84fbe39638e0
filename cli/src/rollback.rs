//! `neverlapse rollback`: moves the pointer to an earlier version, which instances then install.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::bucket::document::{self, Document};
use neverlapse::bucket::store::{self, Expecting, Object};
use neverlapse::bucket::version::{Current, MANIFEST, Manifest, current_key, file_key, versions_prefix};
use neverlapse::renewal::planned;
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

/// Reads what there is, decides on a version, and moves the pointer to it.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let name = &arguments.name;
    let now = Timestamp::now();
    let stack = Stack::find(&arguments.stack).await?;

    let current = stack
        .store
        .document::<Current>(&current_key(name))
        .await?
        .with_context(|| format!("there is no certificate {name:?} in the bucket"))?;
    let versions = versions(&stack, name).await?;
    let from = &current.value.facts.version;
    let version = match &arguments.version {
        Some(version) => chosen(name, &versions, from, version)?,
        None => previous(&versions, from).with_context(|| format!("there is no version of {name} before {from}"))?,
    };

    let next = pointer(&stack, &current.value, version, now).await?;
    let due = planned(&next, stack.renewal(name).await?.as_ref());

    // Only if it is still what was read: a version that the renewer publishes now must not be lost.
    let moved = stack
        .store
        .put(&current_key(name), Object::json(&next)?, Expecting::Tag(&current.tag))
        .await;
    match moved {
        Ok(_) => {}
        Err(store::Error::Changed { .. }) => {
            bail!("a new version was published this very moment; see `neverlapse plan`, and try again")
        }
        Err(error) => return Err(error.into()),
    }

    println!(
        "{name} is version {version} again, valid until {}; instances install it when they pull",
        next.facts.not_after
    );
    if due > now {
        println!("it is kept until {due}; `neverlapse renew {name} --force` ends that sooner");
    } else {
        println!("it is due already: the next run renews it");
    }
    Ok(0)
}

/// The version before the current one. Version ids begin with their time, so they sort by it.
fn previous<'v>(versions: &'v BTreeSet<String>, current: &str) -> Option<&'v str> {
    let mut latest_first = versions.iter().rev().map(String::as_str);
    latest_first.find(|version| *version < current)
}

/// The version that a person wants, if there is one and it is not served already.
fn chosen<'v>(name: &str, versions: &'v BTreeSet<String>, current: &str, version: &str) -> Result<&'v str> {
    let Some(version) = versions.get(version) else {
        let versions: Vec<_> = versions.iter().map(String::as_str).collect();
        bail!(
            "there is no version {version:?} of {name} (expected {})",
            versions.join(", ")
        );
    };

    if version == current {
        bail!("{version} is the current version of {name} already");
    }
    Ok(version)
}

/// The complete versions of a certificate: the manifest of each is written last.
async fn versions(stack: &Stack, name: &str) -> Result<BTreeSet<String>> {
    let prefix = versions_prefix(name);
    let keys = stack.store.keys(&prefix).await?;

    let complete = keys
        .iter()
        .filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix(MANIFEST)?.strip_suffix('/'));
    Ok(complete.map(str::to_owned).collect())
}

/// The pointer to an earlier version, which must still be valid.
async fn pointer(stack: &Stack, current: &Current, version: &str, now: Timestamp) -> Result<Current> {
    let key = file_key(&current.facts.name, version, MANIFEST);
    let written = stack
        .store
        .object(&key, Manifest::LONGEST)
        .await?
        .with_context(|| format!("there is no {key}"))?;
    let manifest: Manifest = document::read(&written).with_context(|| format!("{key} cannot be read"))?;
    if let Some(problem) = manifest.misplaced(&key) {
        bail!("{key} is not what it should be: {problem}");
    }

    let not_after = manifest.facts.not_after;
    if not_after <= now {
        bail!("version {version} expired on {not_after} (expected one that is valid)");
    }
    Ok(Current {
        schema: Current::SCHEMA.to_owned(),
        sequence: current.next_sequence(),
        facts: manifest.facts,
        manifest_sha256: sha256(&written),
        published_at: now,
        rolled_back: true,
    })
}

const EXAMPLES: &str = "\
Examples:
  neverlapse rollback example.com
  neverlapse rollback example.com 20261001T060112Z-5c1f09aa

Instances install the version with their next run, within the hour. If there is no version of that name, the error lists those that \
are kept.

Exit codes: 0 it is current now, 3 nothing was changed";

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> BTreeSet<String> {
        ["20260801T060000Z-b", "20260901T060000Z-c", "20261001T060000Z-a"]
            .map(str::to_owned)
            .into()
    }

    #[test]
    fn the_version_before() {
        for (current, expected) in [
            ("20261001T060000Z-a", Some("20260901T060000Z-c")),
            ("20260901T060000Z-c", Some("20260801T060000Z-b")),
            ("20260801T060000Z-b", None),
            // Its folder is gone.
            ("20260915T060000Z-d", Some("20260901T060000Z-c")),
        ] {
            assert_eq!(previous(&versions(), current), expected, "{current}");
        }
    }

    #[test]
    fn a_version_that_cannot_be_chosen() {
        let chosen = |version| {
            chosen("shop", &versions(), "20261001T060000Z-a", version)
                .map(str::to_owned)
                .map_err(|error| error.to_string())
        };

        assert_eq!(chosen("20260801T060000Z-b"), Ok("20260801T060000Z-b".to_owned()));
        assert_eq!(
            chosen("20261001T060000Z-a"),
            Err("20261001T060000Z-a is the current version of shop already".to_owned())
        );
        assert_eq!(
            chosen("x"),
            Err("there is no version \"x\" of shop (expected 20260801T060000Z-b, 20260901T060000Z-c, 20261001T060000Z-a)".to_owned())
        );
    }
}
