//! Publishing a version: its files are written, then `current.json` points at it, then old versions
//! are removed.

use std::collections::BTreeSet;

use neverlapse::bucket::publish::Publication;
use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::bucket::version::{self, Current, MANIFEST, current_key, file_key};
use neverlapse::timestamp::Timestamp;

use super::issued::Issued;
use crate::error::Error;

/// Writes a version, then moves the pointer if it is still where it was when the order began
/// (`before`).
///
/// A version's files are written once: a renewer that was killed and runs again writes the same
/// content, which [`Store::put`] takes for success.
pub(crate) async fn publish(
    issued: Issued,
    store: &Store,
    before: Option<&Tagged<Current>>,
    now: Timestamp,
) -> Result<Current, Error> {
    let Issued { facts, files, .. } = issued;
    let publication = Publication::new(facts, files, before.map(|before| &before.value), now)?;
    let pointer = publication.pointer();

    for (key, content, content_type) in publication.objects {
        let object = Object::new(content, content_type);
        store.put(&key, object, Expecting::Nothing).await?;
    }
    let current = publication.current;
    let expecting = Expecting::unchanged(before);
    match store.put(&pointer, Object::json(&current)?, expecting).await {
        Ok(_) => Ok(current),
        Err(store::Error::Changed { .. }) => Err(Error::LeaseLost),
        Err(error) => Err(error.into()),
    }
}

/// Removes all but the last few versions, but never the current one, and what a dead renewer left
/// of one.
pub(crate) async fn prune(name: &str, store: &Store) -> Result<Vec<String>, Error> {
    let keys = store.keys(&version::versions_prefix(name)).await?;
    // Read now: a person may have gone back to one of the oldest this very moment.
    let Some(current) = store.document::<Current>(&current_key(name)).await? else {
        return Ok(Vec::new());
    };

    let outdated = outdated(name, &keys, &current.value.facts.version);
    // The manifest goes first: without it nobody takes the version for complete.
    for version in &outdated {
        store.delete(&file_key(name, version, MANIFEST)).await?;
    }
    for version in &outdated {
        let prefix = file_key(name, version, "");
        for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
            store.delete(key).await?;
        }
    }
    Ok(outdated)
}

/// The versions among `keys` that nobody needs any more.
fn outdated(name: &str, keys: &[String], current: &str) -> Vec<String> {
    let prefix = version::versions_prefix(name);
    let versions: BTreeSet<_> = keys
        .iter()
        .filter_map(|key| key.strip_prefix(&prefix)?.split('/').next())
        .map(str::to_owned)
        .collect();

    // Ids sort by time, so the newest come first.
    let (complete, partial): (Vec<_>, Vec<_>) = versions
        .into_iter()
        .rev()
        .partition(|version| keys.contains(&file_key(name, version, MANIFEST)));
    complete
        .into_iter()
        .skip(KEPT)
        .chain(partial)
        .filter(|version| version != current)
        .collect()
}

const KEPT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::bucket::version::CERT;

    #[test]
    fn the_last_five_are_kept_and_the_current_one_and_nothing_of_what_is_not_whole() {
        let key = |version: &str, file| file_key("example.com", version, file);
        let mut keys: Vec<_> = (1..=8)
            .flat_map(|number| [CERT, MANIFEST].map(|file| key(&format!("v{number}"), file)))
            .collect();
        keys.push(key("v9", CERT));
        for (current, expected) in [("v8", vec!["v3", "v2", "v1", "v9"]), ("v2", vec!["v3", "v1", "v9"])] {
            assert_eq!(outdated("example.com", &keys, current), expected);
        }
        assert!(outdated("example.com", &keys[..2], "v1").is_empty());
    }
}
