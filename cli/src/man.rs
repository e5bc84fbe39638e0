//! `neverlapse man`: the manual pages, one for each command, as packages install them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder, which is created if need be
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, command: Command) -> Result<u8> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(0)
}
