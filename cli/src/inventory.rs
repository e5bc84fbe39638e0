//! Where an inventory is read from: a file, standard input or a bucket.

use std::fs;
use std::io::{self, stdin};

use anyhow::{Context, Result, bail};
use neverlapse::aws;
use neverlapse::bucket::store::{INVENTORY, LONGEST_INVENTORY, Store};

/// An inventory as it is written.
pub(crate) struct Text {
    pub(crate) text: String,
    /// The bucket that it came from, which also holds the objects that it names.
    pub(crate) store: Option<Store>,
}

/// Reads `s3://bucket[/key]`, `-` for standard input, or a file.
pub(crate) async fn read(place: &str) -> Result<Text> {
    if let Some(place) = place.strip_prefix("s3://") {
        return fetch(place).await;
    }
    let text = match place {
        "-" => io::read_to_string(stdin()),
        _ => fs::read_to_string(place),
    };
    Ok(Text {
        text: text.with_context(|| format!("cannot read {place}"))?,
        store: None,
    })
}

async fn fetch(place: &str) -> Result<Text> {
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        bail!(
            "invalid inventory {:?}: the bucket is missing (expected s3://bucket[/key])",
            format!("s3://{place}")
        );
    }

    let key = if key.is_empty() { INVENTORY } else { key };
    let store = Store::new(aws_sdk_s3::Client::new(&aws::config().await?), bucket);
    match store.text(key, LONGEST_INVENTORY).await? {
        Some(text) => Ok(Text {
            text,
            store: Some(store),
        }),
        None => bail!("there is no object s3://{bucket}/{key} (expected an inventory)"),
    }
}
