//! Who could exchange our files: folders are opened only where nobody but root and this user can.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, openat};
use rustix::process::geteuid;

/// Opens a folder, after checking it and every folder above it with [`safe`].
pub(crate) fn guarded(folder: &Path) -> Result<OwnedFd> {
    let folder = std::fs::canonicalize(folder).with_context(|| format!("cannot open {}", folder.display()))?;

    for above in folder.ancestors() {
        // It has only to be passed, which a folder may allow to those who may not list it.
        let opened = openat(CWD, above, FOLDER.union(OFlags::PATH), Mode::empty())
            .with_context(|| format!("cannot open {}", above.display()))?;
        // In a sticky folder such as /tmp others cannot rename what is ours. They could still add
        // files, so the folder itself must not be one.
        safe(opened.as_fd(), &above.display(), above != folder)?;
    }

    openat(CWD, &folder, FOLDER, Mode::empty()).with_context(|| format!("cannot open {}", folder.display()))
}

/// Checks that nobody but root and this user can replace what is in a folder.
pub(crate) fn safe(folder: impl AsFd, name: &dyn Display, may_be_sticky: bool) -> Result<Stat> {
    let found = fstat(folder).with_context(|| format!("cannot read {name}"))?;

    ensure!(
        is_ours(&found),
        "{name} belongs to user {}, who could replace what is in it",
        found.st_uid
    );

    let is_guarded_by_sticky = may_be_sticky && found.st_mode & STICKY != 0;
    ensure!(
        found.st_mode & OTHERS_WRITE == 0 || is_guarded_by_sticky,
        "{name} can be written by others (mode {:o}); chmod go-w it",
        found.st_mode & 0o7777
    );

    Ok(found)
}

/// Whether it belongs to root or to this user.
pub(crate) fn is_ours(found: &Stat) -> bool {
    found.st_uid == 0 || found.st_uid == geteuid().as_raw()
}

/// Opens a file, and no symlink in its place.
pub(crate) const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The same for a folder.
pub(crate) const FOLDER: OFlags = FILE.union(OFlags::DIRECTORY);
/// The same for the standard library's `custom_flags`.
pub(crate) const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        std::fs::create_dir(&inner).unwrap();

        for (outer_mode, inner_mode, expected) in [
            (0o755, 0o755, None),
            (0o700, 0o700, None),
            (0o1777, 0o755, None),
            (0o755, 0o775, Some("inner can be written by others (mode 775)")),
            (0o755, 0o1777, Some("inner can be written by others (mode 1777)")),
            (0o777, 0o755, Some("can be written by others (mode 777)")),
        ] {
            std::fs::set_permissions(root.path(), Permissions::from_mode(outer_mode)).unwrap();
            std::fs::set_permissions(&inner, Permissions::from_mode(inner_mode)).unwrap();

            let error = guarded(&inner).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(error, None, "{outer_mode:o} {inner_mode:o}"),
                Some(expected) => assert!(
                    error.as_ref().is_some_and(|error| error.contains(expected)),
                    "{error:?}"
                ),
            }
        }
    }
}
