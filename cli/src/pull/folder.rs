//! The files on disk: a folder a version, and one symlink that says which is live.
//!
//!     live/{name} -> ../versions/{name}/{version}     switched by one rename
//!     versions/{name}/{version}/                      cert.pem chain.pem fullchain.pem privkey.pem combined.pem keystore.p12
//!
//! Everything below the folder is reached through open directories and never through a symlink, so that nobody who can write
//! there can send a key elsewhere.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use neverlapse::bucket::version::{FULLCHAIN, PRIVKEY};
use neverlapse::text::sha256;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, mkdirat, openat,
    readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::config::Layout;
use super::keystore::KEYSTORE;

/// Where one certificate is installed.
#[derive(Debug)]
pub(crate) struct Folder {
    name: String,
    live: OwnedFd,
    versions: OwnedFd,
}

impl Folder {
    /// Opens `live/` and `versions/{name}/` below a folder, and creates what is missing of them.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Self> {
        create(root).with_context(|| format!("cannot create {}", root.display()))?;
        let opened = guarded(root)?;
        let all = subfolder(opened.as_fd(), "versions")?;
        let folder = Self {
            name: name.to_owned(),
            live: subfolder(opened.as_fd(), "live")?,
            versions: subfolder(all.as_fd(), name)?,
        };
        match statat(&folder.live, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_symlink() => {}
            Ok(_) => bail!(
                "{}/live/{name} is there and is no symlink of ours; move it away",
                root.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot look at live/{name}")),
        }
        Ok(folder)
    }

    /// The version's folder that is live, if one of ours is.
    pub(crate) fn live(&self) -> Result<Option<String>> {
        let target = match readlinkat(&self.live, &self.name, Vec::new()) {
            Ok(target) => target.into_string().unwrap_or_default(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read live/{}", self.name)),
        };
        Ok(target
            .strip_prefix(&self.target(""))
            .filter(|folder| !folder.contains('/'))
            .map(str::to_owned))
    }

    /// Puts files into a folder of their own, whole or not at all, and answers with its name.
    pub(crate) fn store(
        &self,
        version: &str,
        layout: &Layout,
        files: &BTreeMap<&'static str, Vec<u8>>,
    ) -> Result<String> {
        let files = laid_out(layout, files);
        let live = self.live()?;
        let base = base(version, layout);
        for number in 0.. {
            let folder = if number == 0 {
                base.clone()
            } else {
                format!("{base}.{number}")
            };
            if self.holds(&folder, layout, &files) {
                return Ok(folder);
            }
            if live.as_ref() == Some(&folder) {
                // Damaged, and in use: never touched, but replaced by the next.
                continue;
            }
            self.remove(&folder)?;
            self.write(&folder, layout, &files).inspect_err(|_| {
                let _ = self.remove(&staging(&folder));
            })?;
            return Ok(folder);
        }
        bail!("there is no name left for a folder")
    }

    /// Makes a folder live.
    pub(crate) fn switch(&self, folder: &str) -> Result<()> {
        let switch = || -> Result<(), Errno> {
            let next = format!(".{}.next", self.name);
            ignore_missing(unlinkat(&self.live, &next, AtFlags::empty()))?;
            symlinkat(self.target(folder), &self.live, &next)?;
            renameat(&self.live, &next, &self.live, &self.name)?;
            fsync(&self.live)
        };
        switch().with_context(|| format!("cannot switch live/{} to {folder}", self.name))
    }

    /// What [`Folder::switch_back`] will need, made while nothing depends on it: later the disk may be full.
    pub(crate) fn prepare_to_switch_back(&self, folder: &str) -> Result<()> {
        let prepare = || -> Result<(), Errno> {
            let back = self.back();
            ignore_missing(unlinkat(&self.live, &back, AtFlags::empty()))?;
            symlinkat(self.target(folder), &self.live, &back)
        };
        prepare().with_context(|| format!("cannot write a symlink beside live/{}", self.name))
    }

    /// Makes live what [`Folder::prepare_to_switch_back`] was told.
    pub(crate) fn switch_back(&self) -> Result<()> {
        let back = renameat(&self.live, self.back(), &self.live, &self.name).and_then(|()| fsync(&self.live));
        back.with_context(|| format!("cannot switch live/{} back", self.name))
    }

    /// There is no way back from here on.
    pub(crate) fn stay(&self) -> Result<()> {
        let stay = ignore_missing(unlinkat(&self.live, self.back(), AtFlags::empty()));
        stay.with_context(|| format!("cannot remove live/{}", self.back()))
    }

    /// Removes what is neither in `keep` nor live: unfinished folders, old versions and their keys.
    pub(crate) fn sweep(&self, keep: &[&str]) -> Result<()> {
        let live = self.live()?;
        let mut gone = Vec::new();
        let entries = Dir::read_from(&self.versions).context("cannot list versions")?;
        for entry in entries {
            let name = entry
                .context("cannot list versions")?
                .file_name()
                .to_string_lossy()
                .into_owned();
            let kept = live.as_deref() == Some(&name) || keep.contains(&name.as_str());
            if !kept && name != "." && name != ".." {
                gone.push(name);
            }
        }
        gone.iter().try_for_each(|name| self.remove(name))
    }

    /// Every folder of a version, whole or not.
    pub(crate) fn folders(&self) -> Result<Vec<String>> {
        let mut folders = Vec::new();
        for entry in Dir::read_from(&self.versions).context("cannot list versions")? {
            let name = entry
                .context("cannot list versions")?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if !name.starts_with('.') {
                folders.push(name);
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// A file of one of these folders.
    pub(crate) fn read(&self, folder: &str, file: &str) -> io::Result<Vec<u8>> {
        let opened = openat(&self.versions, folder, FOLDER, Mode::empty())?;
        let mut content = Vec::new();
        File::from(openat(&opened, file, FILE, Mode::empty())?).read_to_end(&mut content)?;
        Ok(content)
    }

    fn target(&self, folder: &str) -> String {
        format!("../versions/{}/{folder}", self.name)
    }

    fn back(&self) -> String {
        format!(".{}.back", self.name)
    }

    fn write(&self, folder: &str, layout: &Layout, files: &[(&'static str, Vec<u8>, bool)]) -> Result<()> {
        let staging = staging(folder);
        self.remove(&staging)?;
        let failed = |what: &str| format!("cannot write {what} of {}", self.name);
        let write = || -> Result<(), (Errno, &'static str)> {
            let at = |what: &'static str| move |error: Errno| (error, what);
            mkdirat(&self.versions, &staging, Mode::from_raw_mode(0o700)).map_err(at("the folder"))?;
            let opened = openat(&self.versions, &staging, FOLDER, Mode::empty()).map_err(at("the folder"))?;
            for (file, content, is_secret) in files {
                put(opened.as_fd(), file, content, *is_secret, layout).map_err(at(file))?;
            }
            if layout.owner.is_some() || layout.group.is_some() {
                own(opened.as_fd(), layout).map_err(at("the folder"))?;
                fchmod(
                    &opened,
                    Mode::from_raw_mode(if layout.group.is_some() { 0o750 } else { 0o700 }),
                )
                .map_err(at("the folder"))?;
            }
            fsync(&opened).map_err(at("the folder"))?;
            renameat(&self.versions, &staging, &self.versions, folder).map_err(at("the folder"))?;
            fsync(&self.versions).map_err(at("the folder"))
        };
        write().map_err(|(error, what)| anyhow::Error::from(io::Error::from(error)).context(failed(what)))
    }

    /// Whether a folder has exactly these files, as they should be.
    fn holds(&self, folder: &str, layout: &Layout, files: &[(&'static str, Vec<u8>, bool)]) -> bool {
        let Ok(opened) = openat(&self.versions, folder, FOLDER, Mode::empty()) else {
            return false;
        };
        files.iter().all(|(file, content, is_secret)| {
            let Ok(file) = openat(&opened, *file, FILE, Mode::empty()) else {
                return false;
            };
            let mode = if *is_secret { layout.key_mode } else { PUBLIC };
            let as_it_should = fstat(&file).is_ok_and(|found| {
                found.st_mode & 0o777 == mode
                    && layout.owner.is_none_or(|owner| owner == found.st_uid)
                    && layout.group.is_none_or(|group| group == found.st_gid)
            });
            let mut there = Vec::new();
            as_it_should && File::from(file).read_to_end(&mut there).is_ok() && there == *content
        })
    }

    fn remove(&self, folder: &str) -> Result<()> {
        let remove = || -> Result<(), Errno> {
            let opened = match openat(&self.versions, folder, FOLDER, Mode::empty()) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => return Ok(()),
                // Not a folder: a symlink is removed, not followed.
                Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(&self.versions, folder, AtFlags::empty()),
                Err(error) => return Err(error),
            };
            for entry in Dir::read_from(&opened)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    unlinkat(&opened, entry.file_name(), AtFlags::empty())?;
                }
            }
            unlinkat(&self.versions, folder, AtFlags::REMOVEDIR)
        };
        remove().with_context(|| format!("cannot remove versions/{}/{folder}", self.name))
    }
}

/// The folder for a version; what is laid out otherwise has another name, so that a change of the configuration is an installation.
pub(crate) fn base(version: &str, layout: &Layout) -> String {
    let Layout {
        owner,
        group,
        key_mode,
        combined,
        keystore,
    } = layout;
    let plain = Layout {
        owner: None,
        group: None,
        key_mode: 0o600,
        combined: false,
        keystore: false,
    };
    if *layout == plain {
        return version.to_owned();
    }
    // Nothing is added without a keystore: folders of earlier versions of the client keep their names.
    let keystore = if *keystore { " keystore" } else { "" };
    let layout = sha256(format!("{owner:?} {group:?} {key_mode:o} {combined}{keystore}").as_bytes());
    format!("{version}-{}", &layout[..6])
}

/// Name, content, and whether it is secret.
fn laid_out(layout: &Layout, files: &BTreeMap<&'static str, Vec<u8>>) -> Vec<(&'static str, Vec<u8>, bool)> {
    let mut out: Vec<_> = files
        .iter()
        .map(|(name, content)| (*name, content.clone(), [PRIVKEY, KEYSTORE].contains(name)))
        .collect();
    if layout.combined {
        // haproxy wants certificate, chain and key in one file.
        let mut combined = files[FULLCHAIN].clone();
        if !combined.ends_with(b"\n") {
            combined.push(b'\n');
        }
        combined.extend(&files[PRIVKEY]);
        out.push((COMBINED, combined, true));
    }
    out
}

/// A file that nobody else could read from its first moment on; what is to be read by more is opened to them while it is empty.
fn put(folder: impl AsFd, name: &str, content: &[u8], is_secret: bool, layout: &Layout) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::from_raw_mode(0o600))?;
    own(file.as_fd(), layout)?;
    let mode = if is_secret { layout.key_mode } else { PUBLIC };
    fchmod(&file, Mode::from_raw_mode(mode))?;
    let mut file = File::from(file);
    let write = file.write_all(content).and_then(|()| file.sync_all());
    write.map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

fn own(file: impl AsFd, layout: &Layout) -> Result<(), Errno> {
    match (layout.owner, layout.group) {
        (None, None) => Ok(()),
        (owner, group) => fchown(file, owner.map(Uid::from_raw), group.map(Gid::from_raw)),
    }
}

/// Creates a folder that everybody can pass, whatever the umask, and those above it.
fn create(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), create)?;
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(OPEN))
}

/// Opens a folder of ours in a folder of ours, and creates it if need be. The names in it are no secret, and who may read a key has to get
/// there: a umask of 077 is that of our unit, and not meant for it.
fn subfolder(parent: impl AsFd, name: &str) -> Result<OwnedFd> {
    match mkdirat(&parent, name, Mode::from_raw_mode(OPEN)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot create {name}/")),
    }
    let opened = openat(&parent, name, FOLDER, Mode::empty())
        .with_context(|| format!("cannot open {name}/ (a symlink in its place is refused)"))?;
    let found = safe(opened.as_fd(), &name, false)?;
    if found.st_mode & OPEN != OPEN && found.st_uid == geteuid().as_raw() {
        fchmod(&opened, Mode::from_raw_mode(found.st_mode & 0o7777 | OPEN))
            .with_context(|| format!("cannot open {name}/ to others (chmod 755)"))?;
    }
    Ok(opened)
}

/// Opens a folder, which must be one that nobody but us and root can put something else in the place of.
pub(crate) fn guarded(folder: &Path) -> Result<OwnedFd> {
    let cannot = |folder: &Path| format!("cannot open {}", folder.display());
    let folder = std::fs::canonicalize(folder).with_context(|| cannot(folder))?;
    for above in folder.ancestors() {
        let opened = openat(CWD, above, FOLDER, Mode::empty()).with_context(|| cannot(above))?;
        safe(opened.as_fd(), &above.display(), above != folder)?;
    }
    openat(CWD, &folder, FOLDER, Mode::empty()).with_context(|| cannot(&folder))
}

/// Nobody but us and root can put something else in its place.
fn safe(folder: impl AsFd, name: &dyn std::fmt::Display, sticky_will_do: bool) -> Result<Stat> {
    let found = fstat(folder).with_context(|| format!("cannot look at {name}"))?;
    let ours = found.st_uid == 0 || found.st_uid == geteuid().as_raw();
    ensure!(
        ours,
        "{name} belongs to user {}, who could replace what is in it",
        found.st_uid
    );
    let sticky = sticky_will_do && found.st_mode & 0o1000 != 0;
    ensure!(
        found.st_mode & 0o022 == 0 || sticky,
        "{name} can be written by others (mode {:o}); chmod go-w it",
        found.st_mode & 0o7777
    );
    Ok(found)
}

fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    result.or_else(|error| if error == Errno::NOENT { Ok(()) } else { Err(error) })
}

fn staging(folder: &str) -> String {
    format!(".{folder}.new")
}

/// Leaf, issuers and key in one file.
pub(crate) const COMBINED: &str = "combined.pem";
const PUBLIC: u32 = 0o644;
const OPEN: u32 = 0o755;
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags = FILE.union(OFlags::DIRECTORY);
