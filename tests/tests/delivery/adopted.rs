//! From certbot into the bucket, onto a host, renewed there by an account of another client, and
//! back: docs/from-certbot.md.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use aws_sdk_route53::types::RrType;
use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::store::{Expecting, Object, Store};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::certbot::Lineage;
use neverlapse_tests::cluster::{Instance, Ran, current, neverlapse};
use neverlapse_tests::process::{command, free_port, run};
use neverlapse_tests::stack::root;
use serde_json::Value;

use crate::fixture::{Lab, serves};

pub(crate) async fn from_certbot_into_the_bucket_renewed_and_back(lab: &Lab) -> Result<()> {
    let (name, ip) = ("adopted.test", Ipv4Addr::new(127, 0, 0, 9));
    let zone = lab.stack.create_zone(name).await?;
    lab.stack.create_record(&zone, name, RrType::A, &ip.to_string()).await?;

    // A host that certbot looks after. Its certificate is due.
    let place: SocketAddr = (ip, free_port()?).into();
    let mut instance = Instance::new(&lab.stack, "web-9", name, place)?;
    let hooked = instance.host.path().join("hooked");
    let lineage = Lineage {
        root: instance.host.folder(),
        name: name.to_owned(),
        directory: lab.pebble.directory.clone(),
        hook: format!(
            "echo $RENEWED_LINEAGE for $RENEWED_DOMAINS >{}; {}",
            hooked.display(),
            instance.host.reload_command()
        ),
    };
    let not_after = Timestamp::now() + time::Duration::days(9);
    lineage.renew(1, &lab.authority.leaf(name, not_after)?)?;
    instance.host.start().await?;

    // 1. Into the bucket, and the inventory as it is proposed.
    let adopted = adopt(lab, &lineage, &[]).await?;
    let first = current(&lab.stack, name).await?;
    ensure!(
        adopted.contains(&format!("is version {}", first.facts.version)),
        "{adopted}"
    );
    let (_, proposed) = adopted.split_once("# for inventory.toml\n").context("a proposal")?;
    let (inventory, proposed) = proposed.split_once("# for pull.toml\n").context("another one")?;
    let served_at = format!("\nserved_at = [\"{name}:{}\"]\nissuers", place.port());
    let inventory = inventory.replace("\nissuers", &served_at).replace(
        "# eab = true, ca = \"ca/….pem\": if it wants them",
        "ca = \"ca/pebble.pem\"",
    );
    let account = take_account_over(lab, &first.facts.issuer.name, name).await?;
    lab.stack.put("inventory.toml", &inventory).await?;

    // 2. Onto the disk. 3. Under the server, which goes on with certbot's paths. 4. The client.
    let (ours, state) = (
        instance.host.path().join("neverlapse"),
        instance.host.path().join("state"),
    );
    let general = format!("instance = \"web-9\"\nfolder = {ours:?}\nstate = {state:?}\n");
    let bucket = format!("bucket = {:?}\n", lab.stack.bucket);
    let names = format!("{general}{bucket}[[certificate]]\nname = \"{name}\"\n");
    fs::write(instance.config(), names)?;
    pulls(&instance).await?;
    let folder = ours.to_str().context("UTF-8")?;
    adopt(lab, &lineage, &["--link", "--folder", folder]).await?;
    instance.host.could_start().await?;
    let whole = proposed.replace("127.0.0.1:443", &place.to_string());
    fs::write(instance.config(), format!("{general}{whole}"))?;
    pulls(&instance).await?;
    ensure!(
        instance.receipt(&lab.stack).await?.stage == Stage::Served,
        "it is served"
    );

    // The renewal comes from the bucket, and by the account that was brought along.
    lab.probe().await?;
    let second = lab.renewed(&first).await?;
    ensure!(
        second.facts.issuer.account == account,
        "{} ordered it, not {account}",
        second.facts.issuer.account
    );
    pulls(&instance).await?;
    serves(&instance, &second).await?;
    let of_hook = fs::read_to_string(&hooked)?;
    ensure!(of_hook == format!("{folder}/live/{name} for {name}\n"), "{of_hook}");

    // And back.
    let mut leave = neverlapse(&lab.stack).await?;
    let ran = Ran::of(leave.args(["pull", "--leave", "--config"]).arg(instance.config())).await?;
    ensure!(ran.code == 0 && instance.receipt(&lab.stack).await.is_err(), "{ran:?}");
    adopt(lab, &lineage, &["--unlink", "--folder", folder]).await?;
    run(command("sh").args(["-c", &instance.host.reload_command()])).await?;
    instance.host.serves(&first).await?;
    ensure!(lineage.renewal().exists(), "certbot renews it again");
    Ok(())
}

/// Runs it with more rights than an operator has, because it brings a private key: its calls are
/// not held against the policies.
async fn adopt(lab: &Lab, lineage: &Lineage, more: &[&str]) -> Result<String> {
    let mut adopt = neverlapse(&lab.stack).await?;
    let endpoint = lab.stack.config.endpoint_url().context("the emulator's")?;
    adopt.env("AWS_ENDPOINT_URL", endpoint);
    run(adopt.arg("adopt").arg(&lineage.root).args(more)).await
}

async fn pulls(instance: &Instance) -> Result<()> {
    let ran = instance.pull().await?;
    ensure!(ran.code == 0, "{ran:?}");
    Ok(())
}

/// Takes an account over by the commands of the document, for the issuer that is adopted. Answers
/// with its URL.
///
/// Another client's is one that was made under another name.
async fn take_account_over(lab: &Lab, issuer: &str, zone: &str) -> Result<String> {
    let name = format!("other.{zone}");
    let entry = format!(
        "[[certificate]]\nname = \"{name}\"\nidentifiers = [\"{name}\"]\nissuers = [\"other\"]\nserved_at = []\n"
    );
    let directory = &lab.pebble.directory;
    let other = format!("[issuer.other]\ndirectory = \"{directory}\"\nca = \"ca/pebble.pem\"\n");
    lab.stack.put("inventory.toml", &format!("{entry}{other}")).await?;
    let ran = lab.neverlapse(&["renew", &name]).await?;
    ensure!(ran.code == 0, "{ran:?}");
    let made = lab
        .stack
        .get("accounts/other/account.json")
        .await?
        .context("it is made")?;
    let made: Value = serde_json::from_str(&made)?;
    let account = made["account"].as_str().context("it has a URL")?;

    // Other clients keep the key as OpenSSL writes it.
    let folder = tempfile::tempdir()?;
    let key = made["key"].as_str().context("it has a key")?;
    let key = data_encoding::BASE64URL_NOPAD.decode(key.as_bytes())?;
    fs::write(folder.path().join("account.der"), key)?;
    let convert = "openssl pkey -inform DER -in account.der | openssl ec -out account.key";
    let document = fs::read_to_string(root().join("docs/from-certbot.md"))?;
    let (_, commands) = document.split_once("    key=$(openssl").context("its commands")?;
    let (commands, _) = commands.split_once("    aws s3 cp").context("their end")?;
    let commands = format!("{convert}\nkey=$(openssl{commands}")
        .replace("DIRECTORY", directory)
        .replace("ACCOUNT", account);
    run(command("sh").current_dir(folder.path()).args(["-ec", &commands])).await?;

    let written = fs::read(folder.path().join("account.json"))?;
    let object = Object::new(written, "application/json").under(&lab.stack.secrets_key);
    Store::new(aws_sdk_s3::Client::new(&lab.stack.config), &lab.stack.bucket)
        .put(&format!("accounts/{issuer}/account.json"), object, Expecting::Nothing)
        .await?;
    Ok(account.to_owned())
}
