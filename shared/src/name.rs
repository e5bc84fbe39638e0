//! A name that can be a folder: the same rule in the bucket, in a policy and on an instance's disk.

/// Whether a name can be a folder: ASCII letters, digits, `-`, `_` and `.`, without a leading dot.
///
/// Nothing else means the same in an S3 key, in an IAM policy's resource, in a shell and on every
/// disk. Without a leading dot it is neither `..` nor one of our own temporary files, which begin
/// with one. Version ids and instances may hold capitals. Code that makes names for people to type
/// allows fewer characters on top of this rule, never more.
pub fn is_folder(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_here_and_nowhere_else() {
        for name in ["shop.test", "web-1", "20261001T060112Z-5c1f09aa.1", "a_b", "A"] {
            assert!(is_folder(name), "{name}");
        }
        for name in [
            "", ".", "..", ".v.new", "../x", "/etc", "a/b", "a\\b", "a b", "*.test", "bücher", "a\0",
        ] {
            assert!(!is_folder(name), "{name:?}");
        }
    }
}
