//! The TXT records that prove control of a name: written by Route 53, and looked up as the CA will.

pub(crate) mod change;
pub(crate) mod lookup;
pub(crate) mod record;
pub(crate) mod zone;

/// A name as we compare it: lower case, without the last dot.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
