//! A version that is ready to be published, and the order in which its objects are written.

use std::collections::BTreeMap;

use super::version::{Current, Facts, FileHash, MANIFEST, Manifest, current_key, file_key, first_sequence};
use crate::text::sha256;
use crate::timestamp::Timestamp;

/// Everything that a version is in the bucket.
#[derive(Debug)]
pub struct Publication {
    /// By key, in the order in which they are to be written: the files, then the manifest that
    /// vouches for them. None of them replaces another.
    pub objects: Vec<(String, Vec<u8>, &'static str)>,
    /// The pointer to the version, which comes last, at [`current_key`].
    pub current: Current,
}

impl Publication {
    /// A version that takes the place of another (`before`), or is the first.
    pub fn new(
        facts: Facts,
        files: BTreeMap<&'static str, Vec<u8>>,
        before: Option<&Current>,
        now: Timestamp,
    ) -> Result<Self, serde_json::Error> {
        let manifest = Manifest {
            schema: Manifest::SCHEMA.to_owned(),
            files: files
                .iter()
                .map(|(file, content)| ((*file).to_owned(), FileHash::of(content)))
                .collect(),
            facts,
        };
        let written = json(&manifest)?;
        let facts = manifest.facts;
        let key = |file: &str| file_key(&facts.name, &facts.version, file);

        let mut objects: Vec<_> = files
            .into_iter()
            .map(|(file, content)| (key(file), content, "application/x-pem-file"))
            .collect();
        let manifest_sha256 = sha256(&written);
        objects.push((key(MANIFEST), written, "application/json"));

        Ok(Self {
            objects,
            current: Current {
                schema: Current::SCHEMA.to_owned(),
                sequence: before.map_or_else(|| first_sequence(now), Current::next_sequence),
                manifest_sha256,
                facts,
                published_at: now,
                rolled_back: false,
            },
        })
    }

    /// Where its pointer is.
    pub fn pointer(&self) -> String {
        current_key(&self.current.facts.name)
    }
}

/// Over several lines, because people read it too.
fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    Ok(json)
}
