//! The files on disk: a folder per version, and one symlink that says which is live.
//!
//!     live/{name} -> ../versions/{name}/{version}     switched by one rename
//!     versions/{name}/{version}/                      cert.pem chain.pem fullchain.pem privkey.pem
//!                                                     combined.pem keystore.p12
//!
//! Everything below the folder is reached through open directories and never through a symlink, so
//! that nobody who can write there can send a key elsewhere.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, mkdirat, openat, readlinkat,
    renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::condition::{Found, FoundFile};
use super::guard::{FILE, FOLDER, guarded, safe};
use super::layout::{Access, Files, LaidOut, Layout};

/// Where one certificate is installed.
#[derive(Debug)]
pub(crate) struct Folder {
    name: String,
    /// Missing only in a dry run, which creates nothing.
    live: Option<OwnedFd>,
    versions: Option<OwnedFd>,
}

impl Folder {
    /// Opens `live/` and `versions/{name}/` below a folder, and creates what is missing of them.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Self> {
        create(root).with_context(|| format!("cannot create {}", root.display()))?;
        let opened = guarded(root)?;
        let all = subfolder(opened.as_fd(), "versions")?;
        let folder = Self {
            name: name.to_owned(),
            live: Some(subfolder(opened.as_fd(), "live")?),
            versions: Some(subfolder(all.as_fd(), name)?),
        };
        folder.check_link(root)?;
        Ok(folder)
    }

    /// Opens what is there of them, for reading. Nothing is created or changed.
    pub(crate) fn look(root: &Path, name: &str) -> Result<Self> {
        let mut folder = Self {
            name: name.to_owned(),
            live: None,
            versions: None,
        };
        if !root.exists() {
            return Ok(folder);
        }

        let opened = guarded(root)?;
        folder.live = existing(opened.as_fd(), "live")?;
        if let Some(all) = existing(opened.as_fd(), "versions")? {
            folder.versions = existing(all.as_fd(), name)?;
        }
        folder.check_link(root)?;
        Ok(folder)
    }

    fn check_link(&self, root: &Path) -> Result<()> {
        let name = &self.name;
        let found = self
            .live_folder()
            .and_then(|live| statat(live, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Err(Errno::NOENT) => Ok(()),
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_symlink() => Ok(()),
            Ok(_) => bail!(
                "{}/live/{name} is there and is no symlink of ours; move it away",
                root.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot read live/{name}")),
        }
    }

    /// The version's folder that is live, if one of ours is.
    pub(crate) fn live(&self) -> Result<Option<String>> {
        let found = self
            .live_folder()
            .and_then(|live| readlinkat(live, &self.name, Vec::new()));
        let target = match found {
            Ok(target) => target.into_string().unwrap_or_default(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read live/{}", self.name)),
        };

        let folder = target.strip_prefix(&self.target(""));
        Ok(folder.filter(|folder| !folder.contains('/')).map(str::to_owned))
    }

    /// Puts files into a folder of their own, whole or not at all, and answers with its name.
    pub(crate) fn store(&self, version: &str, layout: &Layout, files: &Files) -> Result<String> {
        let files = layout.lay_out(files);
        let base = layout.base(version);
        let live = self.live()?;

        for number in 0_u32.. {
            let folder = if number == 0 {
                base.clone()
            } else {
                format!("{base}.{number}")
            };
            if self.holds(&folder, layout, &files) {
                return Ok(folder);
            }
            if live.as_ref() == Some(&folder) {
                // It is damaged, but in use: it is not touched, the next one replaces it.
                continue;
            }

            // Something in it that is not ours to remove does not keep the next one from being
            // used.
            if self.remove(&folder).is_err() && number < NUMBERS {
                continue;
            }
            self.write(&folder, layout, &files).inspect_err(|_| {
                let _ = self.remove(&staging(&folder));
            })?;
            return Ok(folder);
        }
        bail!("there is no name left for a folder")
    }

    /// Puts right what is wrong in a folder, file by file, so that its name stays. What cannot be
    /// put right there is an error.
    pub(crate) fn repair(&self, folder: &str, layout: &Layout, files: &Files) -> Result<()> {
        let files = layout.lay_out(files);
        let opened = match self.version(folder) {
            Ok(opened) => opened,
            Err(_) => {
                self.remove(folder)?;
                return self.write(folder, layout, &files).inspect_err(|_| {
                    let _ = self.remove(&staging(folder));
                });
            }
        };

        for file in &files {
            if !is_as_laid_out(opened.as_fd(), file, layout) {
                exchange(&opened, file, layout).with_context(|| self.cannot_write(file.name))?;
            }
        }
        fsync(&opened).with_context(|| self.cannot_write("the folder"))?;
        let names: Vec<_> = files.iter().map(|file| file.name).collect();
        self.set_access(folder, layout, &names)
    }

    /// What is in a version's folder, of these files. The error says why there is none.
    pub(crate) fn inspect(&self, folder: &str, names: &[&'static str]) -> Result<Found, String> {
        let opened = self.version(folder).map_err(|error| match error {
            Errno::NOENT => "its folder is missing".to_owned(),
            error => format!("its folder cannot be opened: {}", io::Error::from(error)),
        })?;
        let found = fstat(&opened).map_err(|error| format!("its folder cannot be read: {error}"))?;

        let files = names.iter().map(|name| (*name, read_whole(opened.as_fd(), name)));
        Ok(Found {
            folder: access(&found),
            files: files.collect(),
        })
    }

    /// Gives the files of a version's folder, and the folder, the modes and owners of a layout.
    pub(crate) fn set_access(&self, folder: &str, layout: &Layout, names: &[&'static str]) -> Result<()> {
        self.set_access_of_all(folder, layout, names)
            .with_context(|| format!("cannot set the modes of versions/{}/{folder}", self.name))
    }

    fn set_access_of_all(&self, folder: &str, layout: &Layout, names: &[&'static str]) -> io::Result<()> {
        let ours = Layout {
            owner: Some(layout.owner.unwrap_or(geteuid().as_raw())),
            group: Some(layout.group.unwrap_or(getegid().as_raw())),
            ..layout.clone()
        };
        let opened = self.version(folder)?;
        for name in names {
            let file = openat(&opened, *name, FILE.union(OFlags::NONBLOCK), Mode::empty())?;
            own(&file, &ours)?;
            fchmod(&file, Mode::from_raw_mode(layout.mode(name)))?;
        }
        own(&opened, &ours)?;
        Ok(fchmod(&opened, Mode::from_raw_mode(layout.folder_mode()))?)
    }

    /// Removes a version's folder, unless it is live.
    pub(crate) fn discard(&self, folder: &str) -> Result<()> {
        if self.live()?.as_deref() == Some(folder) {
            return Ok(());
        }
        self.remove(folder)
    }

    /// Makes a folder live.
    pub(crate) fn switch(&self, folder: &str) -> Result<()> {
        self.relink(folder)
            .with_context(|| format!("cannot switch live/{} to {folder}", self.name))
    }

    /// Makes the symlink for [`Folder::switch_back`] while nothing depends on it: the disk may be
    /// full later.
    pub(crate) fn prepare_to_switch_back(&self, folder: &str) -> Result<()> {
        let back = self.back();
        self.link(folder, &back)
            .with_context(|| format!("cannot write a symlink next to live/{}", self.name))
    }

    /// Makes the folder live that [`Folder::prepare_to_switch_back`] was called with.
    pub(crate) fn switch_back(&self) -> Result<()> {
        self.rename_link(&self.back())
            .with_context(|| format!("cannot switch live/{} back", self.name))
    }

    /// Removes the symlink for [`Folder::switch_back`].
    pub(crate) fn stay(&self) -> Result<()> {
        self.live_folder()
            .and_then(|live| ignore_missing(unlinkat(live, self.back(), AtFlags::empty())))
            .with_context(|| format!("cannot remove live/{}", self.back()))
    }

    /// Removes what is neither in `keep` nor live: unfinished folders, old versions and their keys.
    /// Answers with what could not be removed, and why.
    pub(crate) fn sweep(&self, keep: &[&str]) -> Vec<String> {
        let entries = self.live().and_then(|live| Ok((live, self.entries()?)));
        let (live, entries) = match entries {
            Ok(found) => found,
            Err(error) => return vec![format!("{error:#}")],
        };

        let old = entries
            .iter()
            .filter(|name| live.as_ref() != Some(name) && !keep.contains(&name.as_str()));
        old.filter_map(|name| self.remove(name).err())
            .map(|error| format!("{error:#}"))
            .collect()
    }

    /// Every folder of a version, whole or not.
    pub(crate) fn folders(&self) -> Result<Vec<String>> {
        let mut folders = self.entries()?;
        // Those that begin with a dot are still being written, or were when a run was cut off.
        folders.retain(|name| !name.starts_with('.'));
        folders.sort();
        Ok(folders)
    }

    /// A file of one of these folders.
    pub(crate) fn read(&self, folder: &str, file: &str) -> io::Result<Vec<u8>> {
        let opened = self.version(folder)?;
        let mut content = Vec::new();
        let file = openat(&opened, file, FILE.union(OFlags::NONBLOCK), Mode::empty())?;
        File::from(file).take(LONGEST).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Everything in `versions/{name}/`.
    fn entries(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let Some(versions) = &self.versions else {
            return Ok(names);
        };
        for entry in Dir::read_from(versions).context("cannot list versions")? {
            let entry = entry.context("cannot list versions")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn target(&self, folder: &str) -> String {
        format!("../versions/{}/{folder}", self.name)
    }

    fn back(&self) -> String {
        format!(".{}.back", self.name)
    }

    /// A symlink can only be exchanged by renaming another one over it.
    fn relink(&self, folder: &str) -> Result<(), Errno> {
        let next = format!(".{}.next", self.name);
        self.link(folder, &next)?;
        self.rename_link(&next)
    }

    /// Makes a symlink to a folder, next to the one that is live.
    fn link(&self, folder: &str, link: &str) -> Result<(), Errno> {
        let live = self.live_folder()?;
        ignore_missing(unlinkat(live, link, AtFlags::empty()))?;
        symlinkat(self.target(folder), live, link)
    }

    /// Makes such a symlink the live one.
    fn rename_link(&self, link: &str) -> Result<(), Errno> {
        let live = self.live_folder()?;
        renameat(live, link, live, &self.name)?;
        fsync(live)
    }

    fn live_folder(&self) -> Result<&OwnedFd, Errno> {
        self.live.as_ref().ok_or(Errno::NOENT)
    }

    fn versions(&self) -> Result<&OwnedFd, Errno> {
        self.versions.as_ref().ok_or(Errno::NOENT)
    }

    /// Opens the folder of a version.
    fn version(&self, folder: &str) -> Result<OwnedFd, Errno> {
        openat(self.versions()?, folder, FOLDER, Mode::empty())
    }

    fn write(&self, folder: &str, layout: &Layout, files: &[LaidOut]) -> Result<()> {
        let staging = staging(folder);
        self.remove(&staging)?;
        let opened = self.stage(&staging).with_context(|| self.cannot_write("the folder"))?;

        for file in files {
            put(opened.as_fd(), file.name, file, layout).with_context(|| self.cannot_write(file.name))?;
        }

        self.publish(&opened, layout, &staging, folder)
            .with_context(|| self.cannot_write("the folder"))
    }

    fn cannot_write(&self, what: &str) -> String {
        format!("cannot write {what} of {}", self.name)
    }

    /// Creates a folder to be filled. Until it is full nobody else may enter it.
    fn stage(&self, staging: &str) -> io::Result<OwnedFd> {
        mkdirat(self.versions()?, staging, Mode::from_raw_mode(0o700))?;
        Ok(self.version(staging)?)
    }

    /// Opens a full folder to those who may read it, and gives it its name once it is on the disk.
    fn publish(&self, opened: &OwnedFd, layout: &Layout, staging: &str, folder: &str) -> io::Result<()> {
        own(opened, layout)?;
        // Also where it is for nobody else: a folder above may have given it its own setgid bit.
        fchmod(opened, Mode::from_raw_mode(layout.folder_mode()))?;

        fsync(opened)?;
        let versions = self.versions()?;
        renameat(versions, staging, versions, folder)?;
        Ok(fsync(versions)?)
    }

    /// Whether a folder has exactly these files, as they should be.
    fn holds(&self, folder: &str, layout: &Layout, files: &[LaidOut]) -> bool {
        let Ok(opened) = self.version(folder) else {
            return false;
        };
        let is_closed =
            fstat(&opened).is_ok_and(|found| is_for_whom(layout, "the folder", access(&found), layout.folder_mode()));
        is_closed && files.iter().all(|file| is_as_laid_out(opened.as_fd(), file, layout))
    }

    fn remove(&self, folder: &str) -> Result<()> {
        self.remove_whole(folder)
            .with_context(|| format!("cannot remove versions/{}/{folder}", self.name))
    }

    fn remove_whole(&self, folder: &str) -> Result<(), Errno> {
        let opened = match self.version(folder) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(()),
            // It is not a folder. A symlink is removed, not followed.
            Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(self.versions()?, folder, AtFlags::empty()),
            Err(error) => return Err(error),
        };

        // All that can be: there is a key among them.
        let mut failure = None;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                failure = unlinkat(&opened, entry.file_name(), AtFlags::empty()).err().or(failure);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => unlinkat(self.versions()?, folder, AtFlags::REMOVEDIR),
        }
    }
}

/// The content of a file and who may read it; the error says what is there instead.
fn read_whole(folder: impl AsFd, name: &str) -> Result<FoundFile, String> {
    // Without NONBLOCK, a pipe in its place would block the run.
    let opened = openat(folder, name, FILE.union(OFlags::NONBLOCK), Mode::empty()).map_err(|error| match error {
        Errno::NOENT => "is missing".to_owned(),
        Errno::LOOP => "is a symlink".to_owned(),
        error => format!("cannot be opened: {}", io::Error::from(error)),
    })?;
    let found = fstat(&opened).map_err(|error| format!("cannot be read: {error}"))?;
    if !FileType::from_raw_mode(found.st_mode).is_file() {
        return Err("is no regular file".to_owned());
    }

    let mut content = Vec::new();
    File::from(opened)
        .take(LONGEST)
        .read_to_end(&mut content)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(FoundFile {
        access: access(&found),
        content,
    })
}

/// Reads a file of at most so many bytes that somebody else may have put there, also through a
/// symlink. Only a regular file is read: a pipe would block the run, and a device fill the memory.
pub(crate) fn read_file(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }

    let mut content = Vec::new();
    // What its size is said to be is not what comes out of every file.
    file.take(longest + 1).read_to_end(&mut content)?;
    if content.len() as u64 > longest {
        return Err(io::Error::other(format!("it has more than {longest} bytes")));
    }
    Ok(content)
}

fn access(found: &Stat) -> Access {
    Access {
        owner: found.st_uid,
        group: found.st_gid,
        mode: found.st_mode & 0o7777,
    }
}

fn is_as_laid_out(folder: impl AsFd, file: &LaidOut, layout: &Layout) -> bool {
    read_whole(folder, file.name)
        .is_ok_and(|found| found.content == file.content && is_for_whom(layout, file.name, found.access, file.mode))
}

/// Whether a file or folder belongs to those, and can be read by those, for whom a layout has it.
fn is_for_whom(layout: &Layout, name: &str, found: Access, mode: u32) -> bool {
    layout.access_problem(name, found, mode, geteuid().as_raw()).is_none()
}

/// Writes a file next to the one that is there, and renames it over that.
fn exchange(folder: &OwnedFd, file: &LaidOut, layout: &Layout) -> io::Result<()> {
    let next = staging(file.name);
    ignore_missing(unlinkat(folder, &next, AtFlags::empty()))?;
    put(folder.as_fd(), &next, file, layout)?;

    match renameat(folder, &next, folder, file.name) {
        // An empty folder is in its place.
        Err(Errno::ISDIR) => {
            unlinkat(folder, file.name, AtFlags::REMOVEDIR)?;
            Ok(renameat(folder, &next, folder, file.name)?)
        }
        renamed => Ok(renamed?),
    }
}

/// Writes a file that nobody else can read from its first moment on. If more may read it, it is
/// opened to them while it is still empty.
fn put(folder: impl AsFd, name: &str, file: &LaidOut, layout: &Layout) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(folder, name, flags, Mode::from_raw_mode(0o600))?;
    own(&opened, layout)?;
    fchmod(&opened, Mode::from_raw_mode(file.mode))?;

    let mut opened = File::from(opened);
    opened.write_all(&file.content)?;
    opened.sync_all()
}

fn own(file: impl AsFd, layout: &Layout) -> Result<(), Errno> {
    match (layout.owner, layout.group) {
        (None, None) => Ok(()),
        (owner, group) => fchown(file, owner.map(Uid::from_raw), group.map(Gid::from_raw)),
    }
}

/// Creates a folder that everybody can enter, whatever the umask, and those above it.
fn create(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), create)?;
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(OPEN))
}

/// Opens a folder of ours in a folder of ours, and creates it if need be.
///
/// The names in it are no secret, and whoever may read a key has to get there: the umask of 077 of
/// our unit is not meant for it.
fn subfolder(parent: impl AsFd, name: &str) -> Result<OwnedFd> {
    match mkdirat(&parent, name, Mode::from_raw_mode(OPEN)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot create {name}/")),
    }
    let opened = openat(&parent, name, FOLDER, Mode::empty()).with_context(|| cannot_open(name))?;

    let found = safe(opened.as_fd(), &name, false)?;
    if found.st_mode & OPEN != OPEN && found.st_uid == geteuid().as_raw() {
        fchmod(&opened, Mode::from_raw_mode(found.st_mode & 0o7777 | OPEN))
            .with_context(|| format!("cannot open {name}/ to others (chmod 755)"))?;
    }
    Ok(opened)
}

/// Opens a folder of ours, if it is there.
fn existing(parent: impl AsFd, name: &str) -> Result<Option<OwnedFd>> {
    let opened = match openat(&parent, name, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.with_context(|| cannot_open(name))?,
    };
    safe(opened.as_fd(), &name, false)?;
    Ok(Some(opened))
}

fn cannot_open(name: &str) -> String {
    format!("cannot open {name}/ (a symlink in its place is refused)")
}

pub(crate) fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn staging(folder: &str) -> String {
    format!(".{folder}.new")
}

const OPEN: u32 = 0o755;
/// So many folders of one version and layout are tried.
const NUMBERS: u32 = 100;
/// Certificates and keys are some kilobytes.
const LONGEST: u64 = 1 << 20;
