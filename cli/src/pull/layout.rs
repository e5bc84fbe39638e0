//! How the files of a version are laid out in its folder, and what that folder is called.

use std::collections::BTreeMap;

use neverlapse::bucket::version::{FULLCHAIN, PRIVKEY};
use neverlapse::text::sha256;
use rustix::process::getegid;

/// Who may read a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) mode: u32,
}

/// The files of a version by name: [`FILES`](neverlapse::bucket::version::FILES), and a keystore.
pub(crate) type Files = BTreeMap<&'static str, Vec<u8>>;

/// How a certificate's files are laid out.
///
/// Another layout is another folder, so that a change of the configuration is an installation like
/// any other, with a test, a reload and a way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// User id of the owner; otherwise the user who runs the client.
    pub(crate) owner: Option<u32>,
    /// Group id; otherwise that user's.
    pub(crate) group: Option<u32>,
    /// Of files with a private key.
    pub(crate) key_mode: u32,
    /// Whether [`COMBINED`] is wanted.
    pub(crate) combined: bool,
    /// Whether [`KEYSTORE`] is wanted.
    pub(crate) keystore: bool,
}

/// A file as it is to be on the disk.
pub(crate) struct LaidOut {
    pub(crate) name: &'static str,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

impl Layout {
    /// The name of a version's folder: the version itself in the plain layout, otherwise with a
    /// hash of the layout after it.
    pub(crate) fn base(&self, version: &str) -> String {
        if *self == PLAIN {
            return version.to_owned();
        }

        let Self {
            owner,
            group,
            key_mode,
            combined,
            keystore,
        } = self;
        // Nothing is added without a keystore: folders of earlier versions of the client keep their
        // names.
        let keystore = if *keystore { " keystore" } else { "" };
        let hash = sha256(format!("{owner:?} {group:?} {key_mode:o} {combined}{keystore}").as_bytes());
        format!("{version}-{}", &hash[..6])
    }

    /// Whether a folder is one of a version in this layout: [`Layout::base`], or that and a number.
    pub(crate) fn is_of(&self, version: &str, folder: &str) -> bool {
        folder
            .strip_prefix(&self.base(version))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// All files of a folder, the combined one included.
    pub(crate) fn lay_out(&self, files: &Files) -> Vec<LaidOut> {
        let mut laid_out: Vec<_> = files
            .iter()
            .map(|(name, content)| LaidOut {
                name,
                content: content.clone(),
                mode: self.mode(name),
            })
            .collect();

        if self.combined {
            laid_out.push(LaidOut {
                name: COMBINED,
                content: combined(files),
                mode: self.mode(COMBINED),
            });
        }
        laid_out
    }

    /// The mode of a file.
    pub(crate) fn mode(&self, name: &str) -> u32 {
        if [PRIVKEY, KEYSTORE, COMBINED].contains(&name) {
            self.key_mode
        } else {
            PUBLIC
        }
    }

    /// The mode of a version's folder.
    pub(crate) fn folder_mode(&self) -> u32 {
        if self.group.is_some() { 0o750 } else { 0o700 }
    }

    /// What is wrong with who may read a file or folder. Nobody but the configured owner, or else
    /// the user who runs the client, may own it: an owner can change its mode.
    pub(crate) fn access_problem(&self, name: &str, found: Access, mode: u32, user: u32) -> Option<String> {
        let owner = self.owner.unwrap_or(user);
        if found.mode != mode {
            Some(format!("{name} had mode {:04o} (expected {mode:04o})", found.mode))
        } else if found.owner != owner {
            Some(format!("{name} belonged to user {} (expected {owner})", found.owner))
        } else {
            // Where no group is configured, it counts for what only a group may read.
            let is_for_a_group = mode & 0o070 != 0 && mode & 0o007 == 0;
            let ours = is_for_a_group.then(|| getegid().as_raw());
            let group = self.group.or(ours).filter(|group| *group != found.group)?;
            Some(format!("{name} belonged to group {} (expected {group})", found.group))
        }
    }
}

/// The content of [`COMBINED`].
pub(crate) fn combined(files: &Files) -> Vec<u8> {
    let mut content = files[FULLCHAIN].clone();
    if !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    content.extend(&files[PRIVKEY]);
    content
}

/// Leaf, issuers and key in one file, as haproxy wants them.
pub(crate) const COMBINED: &str = "combined.pem";
/// Chain and key as PKCS#12, encrypted.
pub(crate) const KEYSTORE: &str = "keystore.p12";
const PUBLIC: u32 = 0o644;
/// What the first version of the client wrote.
const PLAIN: Layout = Layout {
    owner: None,
    group: None,
    key_mode: 0o600,
    combined: false,
    keystore: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_layout_is_another_folder_and_names_stay_what_they_were() {
        let group = Layout {
            group: Some(33),
            key_mode: 0o640,
            ..PLAIN
        };
        let combined = Layout {
            combined: true,
            ..PLAIN
        };
        let keystore = Layout {
            keystore: true,
            ..PLAIN
        };

        for (layout, expected) in [
            (&PLAIN, "v"),
            (&group, "v-ad9a4a"),
            (&combined, "v-0f341e"),
            (&keystore, "v-c5f668"),
        ] {
            assert_eq!(layout.base("v"), expected);
            assert!(layout.is_of("v", expected));
            assert!(layout.is_of("v", &format!("{expected}.1")));
            assert!(!layout.is_of("v", &format!("{expected}1")));
            assert!(!layout.is_of("w", expected));
        }
        assert!(!PLAIN.is_of("v", &group.base("v")));
    }

    #[test]
    fn files_with_a_key_are_for_those_who_may_read_it() {
        let layout = Layout {
            key_mode: 0o440,
            combined: true,
            ..PLAIN
        };
        let files = Files::from([
            (FULLCHAIN, b"chain".to_vec()),
            (PRIVKEY, b"key".to_vec()),
            (KEYSTORE, b"both".to_vec()),
        ]);

        let laid_out = layout.lay_out(&files);
        let laid_out: Vec<_> = laid_out
            .iter()
            .map(|file| (file.name, file.mode, &file.content[..]))
            .collect();
        assert_eq!(
            laid_out,
            [
                (FULLCHAIN, 0o644, &b"chain"[..]),
                (KEYSTORE, 0o440, b"both"),
                (PRIVKEY, 0o440, b"key"),
                (COMBINED, 0o440, b"chain\nkey"),
            ]
        );
    }
}
