//! The programs of this workspace, built for tests.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::process::{command, run};
use crate::stack::root;

/// The path of a binary: `neverlapse`, `probe` or `renewer`. The first call of a process builds
/// them all.
pub async fn program(name: &str) -> Result<PathBuf> {
    BUILT.get_or_try_init(build).await?;
    Ok(root().join("target/debug").join(name))
}

/// Whether a document is as `neverlapse schema NAME` describes it.
pub async fn ensure_fits(name: &str, document: &Value) -> Result<()> {
    let schema = run(command(program("neverlapse").await?).args(["schema", name])).await?;
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema)?).map_err(|error| anyhow!("{error}"))?;
    let errors: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(errors.is_empty(), "{errors:#?} in {document:#}");
    Ok(())
}

async fn build() -> Result<()> {
    let mut build = command("cargo");
    build.current_dir(root()).args(["build", "--quiet", "--workspace"]);
    build.args(["--bin", "neverlapse", "--bin", "probe", "--bin", "renewer"]);
    // Cargo unites the features of what it builds together, those of dev-dependencies only next to
    // a test. So this finds almost everything that `cargo test --workspace` has built, instead of
    // building a second set of dependencies.
    build.args(["--test", "docs"]);
    run(&mut build).await.context("the programs for tests").map(drop)
}

static BUILT: OnceCell<()> = OnceCell::const_new();
