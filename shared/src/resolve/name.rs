//! Names as DNS has them, from the text that people write.

use hickory_resolver::proto::rr::Name;

/// A complete name of these labels, whatever characters they have: hosts have names with
/// underscores, and with hyphens at the ends of labels, and the C library asks for them.
pub(super) fn name(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}
