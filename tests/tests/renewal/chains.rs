//! Which chain is published, and how many requests an order takes.

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::version::FULLCHAIN;
use neverlapse::pem;
use neverlapse_tests::fault::Fate;
use neverlapse_tests::pebble::Options;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;
use crate::issuers::{Front, front_entry};

/// A root that the CA offers no chain to keeps no certificate from being published.
pub(crate) async fn the_chain_ends_at_the_preferred_root_where_one_is_offered(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "preferred-chain").await?;
    let options = Options {
        alternate_roots: 2,
        ..Options::default()
    };
    let (pebble, issuer) = isolated.issuer_with("rooted", options).await?;
    lab.stack.create_zone("rooted.test").await?;
    let entry = certificate("rooted", &["rooted.test"], "rooted");
    let own = common_name(&pebble.root(0).await?)?;
    let other = common_name(&pebble.root(2).await?)?;
    for (preferred, expected) in [
        ("", &own),
        (other.as_str(), &other),
        (own.as_str(), &own),
        ("No Such Root", &own),
    ] {
        let preferred = match preferred {
            "" => String::new(),
            root => format!("preferred_chain = {root:?}\n"),
        };
        isolated.inventory(&format!("{entry}{issuer}{preferred}")).await?;
        let done = isolated.run(&forced("rooted")).await?;
        ensure!(done, "{}", isolated.log("rooted")?);

        let current = isolated.bucket.current("rooted").await?.context("a version")?;
        let fullchain = isolated.bucket.file(&current, FULLCHAIN).await?;
        let chain = pem::certificates(fullchain.as_bytes())?;
        let ends_at = ends_at(&fullchain)?;
        ensure!(
            chain.len() == 2 && ends_at == *expected,
            "{preferred}: {ends_at}, expected {expected}"
        );
    }
    ensure!(isolated.log("rooted")?.contains("no chain ends at the preferred root"));
    Ok(())
}

/// A CA's own choice ended at a root that is too new to be trusted, while it offered another chain
/// that ends at an old one: the certificate was not published, and the CA not asked for two days.
pub(crate) async fn a_chain_that_can_be_served_is_taken_where_the_cas_own_cannot(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "new-root").await?;
    let options = Options {
        alternate_roots: 2,
        ..Options::default()
    };
    let (pebble, issuer) = isolated.issuer_with("newroot", options).await?;
    lab.stack.create_zone("newroot.test").await?;
    let old = pebble.root(2).await?;
    let trusted = format!("{}{old}", pebble.listening_root);
    isolated.bucket.put("ca/newroot.pem", &trusted).await?;
    let entry = certificate("newroot", &["newroot.test"], "newroot");

    // A preference for what cannot be served changes nothing.
    let own = common_name(&pebble.root(0).await?)?;
    for preferred in [String::new(), format!("preferred_chain = {own:?}\n")] {
        isolated.inventory(&format!("{entry}{issuer}{preferred}")).await?;
        let done = isolated.run(&forced("newroot")).await?;
        ensure!(done, "{}", isolated.log("newroot")?);

        let current = isolated.bucket.current("newroot").await?.context("a version")?;
        let fullchain = isolated.bucket.file(&current, FULLCHAIN).await?;
        ensure!(ends_at(&fullchain)? == common_name(&old)?, "{preferred}");
    }
    ensure!(pebble.orders()? == 2, "{} orders", pebble.orders()?);

    // Where none can be served, a person has to do something: it is not the CA that asked to wait.
    isolated.bucket.put("ca/newroot.pem", &pebble.listening_root).await?;
    let problem = isolated.refused(&forced("newroot")).await?;
    let words = "no path to a trusted root: UnknownIssuer. A root that this release does not know yet can be trusted by `ca` in [issuer.newroot]";
    ensure!(problem.contains(words), "{problem}");
    let renewal = isolated.bucket.renewal("newroot").await?.context("a record")?;
    ensure!(
        renewal.waits.len() == 1 && renewal.waits[0].is_unfit,
        "{:?}",
        renewal.waits
    );
    Ok(())
}

/// What the account's making was told is not asked for again by its order.
pub(crate) async fn an_account_and_its_first_order_take_one_directory_and_one_nonce(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "frugal").await?;
    lab.stack.create_zone("frugal.test").await?;
    let front = Front::new(&isolated).await?;
    let proxy = front.open(|_| Fate::Pass).await?;
    let entry = certificate("frugal", &["frugal.test", "*.frugal.test"], "frugal");
    let issuer = front_entry("frugal", &proxy.endpoint);
    isolated.inventory(&format!("{entry}{issuer}")).await?;

    isolated.renewed(&request("frugal"), &front.pebble).await?;
    let lines: Vec<_> = proxy.passed().into_iter().map(|passed| passed.line).collect();
    let count = |what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
    ensure!(count("GET /dir") == 1, "{lines:#?}");
    ensure!(count("HEAD /nonce-plz") == 1, "{lines:#?}");
    Ok(())
}

/// The common name of the root that a chain ends at.
fn ends_at(fullchain: &str) -> Result<String> {
    let chain = pem::certificates(fullchain.as_bytes())?;
    let (_, last) = X509Certificate::from_der(chain.last().context("a chain")?)?;
    let name = last.issuer().iter_common_name().next().context("a name")?;
    Ok(name.as_str()?.to_owned())
}

fn common_name(pem: &str) -> Result<String> {
    let root = pem::certificates(pem.as_bytes())?;
    let (_, root) = X509Certificate::from_der(root.first().context("a root")?)?;
    let name = root.subject().iter_common_name().next().context("a name")?;
    Ok(name.as_str()?.to_owned())
}
