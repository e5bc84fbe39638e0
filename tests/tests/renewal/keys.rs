//! Keys of every kind, many names, and where private keys never are.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::version::{CERT, FULLCHAIN, PRIVKEY};
use neverlapse_tests::fault::{Fate, Reply};
use neverlapse_tests::process::{command, run};
use neverlapse_tests::program::program;
use serde_json::Value;

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;
use crate::issuers::{Front, front_entry};

/// Let's Encrypt hands out one order for the same names twice. Of two certificates, one with RSA
/// and one with ECDSA, the second one found the order finalized with the first one's key, and the
/// CA was not asked for two days.
pub(crate) async fn an_order_that_another_certificate_finalized_is_made_anew(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "dual").await?;
    lab.stack.create_zone("dual.test").await?;
    let front = Front::new(&isolated).await?;
    let theirs = Arc::new(Mutex::new(None));
    let other = theirs.clone();
    let proxy = front
        .open(move |line| {
            let is_download = line.starts_with("POST /certZ");
            match other.lock().unwrap().take_if(|_| is_download) {
                Some(chain) => Fate::Answer(chain),
                None => Fate::Pass,
            }
        })
        .await?;
    let issuer = front_entry("dual", &proxy.endpoint);
    let entry = |name: &str, kind: &str| format!("{}key_type = {kind:?}\n", certificate(name, &["dual.test"], "dual"));
    let entries = format!("{}{}", entry("ec", "ecdsa-p256"), entry("rsa", "rsa-2048"));
    isolated.inventory(&format!("{entries}{issuer}")).await?;

    let ec = isolated.renewed(&request("ec"), &front.pebble).await?;
    *theirs.lock().unwrap() = Some(Reply {
        status: 200,
        headers: vec![("content-type", "application/pem-certificate-chain".to_owned())],
        body: isolated.bucket.file(&ec, FULLCHAIN).await?,
    });
    let rsa = isolated.renewed(&request("rsa"), &front.pebble).await?;
    ensure!(rsa.facts.key.to_string() == "rsa-2048" && rsa.facts.fingerprint != ec.facts.fingerprint);
    ensure!(
        proxy.count("POST /order-plz") == 3,
        "{} orders",
        proxy.count("POST /order-plz")
    );
    Ok(())
}

pub(crate) async fn every_kind_of_key_and_a_hundred_names(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "kinds").await?;
    let (pebble, issuer) = isolated.issuer("kinds").await?;
    lab.stack.create_zone("kinds.test").await?;
    let kinds = [
        ("ecdsa-p384", "(384 bit)"),
        ("rsa-2048", "(2048 bit)"),
        ("rsa-4096", "(4096 bit)"),
    ];
    let entry = |kind: &str| {
        let host = format!("{kind}.kinds.test");
        format!("{}key_type = {kind:?}\n", certificate(kind, &[&host], "kinds"))
    };
    let hundred: Vec<_> = (0..100).map(|number| format!("n{number:02}.kinds.test")).collect();
    let names: Vec<_> = hundred.iter().map(String::as_str).collect();
    let entries: String = kinds.iter().map(|(kind, _)| entry(kind)).collect();
    let many = certificate("hundred", &names, "kinds");
    isolated.inventory(&format!("{entries}{many}{issuer}")).await?;
    for (kind, words) in kinds {
        let current = isolated.renewed(&request(kind), &pebble).await?;
        ensure!(current.facts.key.to_string() == kind, "{:?}", current.facts.key);
        let folder = tempfile::tempdir()?;
        for file in [CERT, PRIVKEY] {
            std::fs::write(folder.path().join(file), isolated.bucket.file(&current, file).await?)?;
        }
        let openssl = async |arguments: &[&str]| run(command("openssl").current_dir(&folder).args(arguments)).await;
        let said = openssl(&["x509", "-in", CERT, "-noout", "-text"]).await?;
        ensure!(said.contains(&format!("Public-Key: {words}")), "{kind}: {said}");
        let of_certificate = openssl(&["x509", "-in", CERT, "-noout", "-pubkey"]).await?;
        let of_key = openssl(&["pkey", "-in", PRIVKEY, "-pubout"]).await?;
        ensure!(of_certificate == of_key, "{kind}: the key is not the certificate's");
    }
    let current = isolated.renewed(&request("hundred"), &pebble).await?;
    ensure!(current.facts.identifiers.len() == 100 && pebble.orders()? == kinds.len() + 1);
    Ok(())
}

pub(crate) async fn a_kept_key_is_kept_and_nothing_secret_is_logged_at_trace(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "secrets").await?;
    let (pebble, issuer) = isolated.issuer("secrets").await?;
    lab.stack.create_zone("secrets.test").await?;
    let name = "secrets.test";
    let inventory = |keep: bool| format!("{}reuse_key = {keep}\n{issuer}", certificate(name, &[name], "secrets"));
    let mut keys = Vec::new();
    for (keep, force) in [(true, false), (true, true), (false, true)] {
        let request = if force { forced(name) } else { request(name) };
        isolated.inventory(&inventory(keep)).await?;
        // As the template has it with LogLevel=TRACE.
        let ours = "warn,lambda_runtime=info,neverlapse=TRACE,renewer=TRACE";
        let trace = [("AWS_LAMBDA_LOG_LEVEL", "TRACE"), ("RUST_LOG", ours)];
        let (renewer, aws) = (program("renewer").await?, lab.stack.endpoint());
        let done = isolated.run_with(&renewer, aws, &trace, &request).await?;
        ensure!(done, "{}", isolated.log(name)?);
        let current = isolated.bucket.verified(name, &pebble).await?;
        keys.push(isolated.bucket.file(&current, PRIVKEY).await?);
    }
    ensure!(
        keys[0] == keys[1] && keys[1] != keys[2],
        "kept as long as it is to be kept"
    );

    let account = isolated
        .bucket
        .get("accounts/secrets/account.json")
        .await?
        .context("there is an account")?;
    let account: Value = serde_json::from_str(&account)?;
    let mut secrets = vec![
        account["key"].as_str().context("with a key")?.to_owned(),
        "PRIVATE KEY".to_owned(),
    ];
    let lines = keys
        .iter()
        .flat_map(|key| key.lines().filter(|line| !line.starts_with('-')));
    secrets.extend(lines.map(str::to_owned));
    let log = isolated.log(name)?;
    ensure!(log.contains("published") && log.contains("decided"), "{log}");
    for secret in secrets {
        ensure!(!log.contains(&secret), "the log has {secret}");
    }
    Ok(())
}
