//! Instances behind one name: each an nginx on an address of its own, with the built `neverlapse
//! pull` and a stack's bucket.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aws_sdk_route53::types::RrType;
use neverlapse::bucket::receipt::{self, Receipt};
use neverlapse::bucket::store::Store;
use neverlapse::bucket::version::{Current, current_key};
use tokio::process::Command;

use crate::depot::Depot;
use crate::pki::Leaf;
use crate::process::{command, free_port, outcome};
use crate::program::program;
use crate::stack::Stack;
use crate::webhost::WebHost;

/// Some instances that serve one certificate.
#[derive(Debug)]
pub struct Cluster {
    /// The certificate, and the name that leads to all of them.
    pub name: String,
    /// The same everywhere.
    pub port: u16,
    /// In the order of their addresses.
    pub instances: Vec<Instance>,
    /// What they served first.
    pub first: Current,
}

/// One host with the client.
#[derive(Debug)]
pub struct Instance {
    /// Under which it reports.
    pub id: String,
    /// Its server.
    pub host: WebHost,
    certificate: String,
    environment: Vec<(String, String)>,
}

/// How a run of `neverlapse` ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub said: String,
}

impl Cluster {
    /// Three instances, `web-1` to `web-3` at 127.0.0.2 to .4, that have pulled `leaf` and serve
    /// it; the zone has their addresses.
    pub async fn open(stack: &Stack, zone: &str, name: &str, leaf: &Leaf) -> Result<Self> {
        let mut depot = Depot::new()?;
        let first = depot.publish(name, leaf)?;
        depot.upload(&store(stack)).await?;

        // Free at each of the addresses.
        let port = free_port()?;
        let mut instances = Vec::new();
        for (number, address) in (1..).zip(ADDRESSES) {
            let place = (address, port).into();
            let mut instance = Instance::new(stack, &format!("web-{number}"), name, place)?;
            instance.launch().await?;
            instances.push(instance);
        }

        let addresses = ADDRESSES.map(|address| address.to_string());
        let addresses = addresses.each_ref().map(String::as_str);
        stack.create_records(zone, name, RrType::A, &addresses).await?;

        Ok(Self {
            name: name.to_owned(),
            port,
            instances,
            first,
        })
    }

    /// As the inventory and reports name it.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// Its entry in the inventory, with lines of its own.
    pub fn inventory(&self, more: &str) -> String {
        format!(
            "[[certificate]]\nidentifiers = [{:?}]\nserved_at = [{:?}]\n{more}\n",
            self.name,
            self.endpoint()
        )
    }
}

impl Instance {
    /// A host whose server is not started, and that has nothing to serve.
    pub fn new(stack: &Stack, id: &str, certificate: &str, place: SocketAddr) -> Result<Self> {
        let environment = stack.environment().into_iter();
        let instance = Self {
            id: id.to_owned(),
            host: WebHost::at(vec![(certificate.to_owned(), place)])?,
            certificate: certificate.to_owned(),
            environment: environment
                .chain([("AWS_SDK_UA_APP_ID", "instance")])
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        };
        let (test, reload) = (instance.host.test_command(), instance.host.reload_command());
        let commands = format!("test_command = {test:?}\nreload_command = {reload:?}\n");
        instance.configure(&stack.bucket, &commands)?;
        Ok(instance)
    }

    /// Writes the client's configuration.
    pub fn configure(&self, bucket: &str, commands: &str) -> Result<()> {
        let (folder, state) = (self.host.folder(), self.host.path().join("state"));
        let (id, certificate, place) = (&self.id, &self.certificate, self.place());
        let text = format!(
            "bucket = {bucket:?}\ninstance = {id:?}\nfolder = {folder:?}\nstate = {state:?}\nverify_timeout_seconds = 30\n{commands}\
             [[certificate]]\nname = {certificate:?}\nverify = \"{place}\"\n"
        );
        Ok(fs::write(self.config(), text)?)
    }

    /// Installs what is current and starts the server, as one does with a new host.
    pub async fn launch(&mut self) -> Result<()> {
        // Nothing serves yet, so nothing has been seen; what is there lets the server start.
        let ran = self.pull().await?;
        ensure!(ran.code == 2, "the first pull of {}: {ran:?}", self.id);
        self.host.start().await?;
        let ran = self.pull().await?;
        ensure!(ran.code == 0, "the second pull of {}: {ran:?}", self.id);
        Ok(())
    }

    /// Runs `neverlapse pull`.
    pub async fn pull(&self) -> Result<Ran> {
        let mut pull = command(program("neverlapse").await?);
        pull.arg("pull").arg("--config").arg(self.config());
        pull.envs(self.environment.iter().map(|(key, value)| (key, value)));
        Ran::of(&mut pull).await
    }

    /// Where it serves.
    pub fn place(&self) -> SocketAddr {
        self.host.places[0].1
    }

    /// What it reported last.
    pub async fn receipt(&self, stack: &Stack) -> Result<Receipt> {
        let key = receipt::key(&self.certificate, &self.id);
        let text = stack.get(&key).await?.with_context(|| format!("there is no {key}"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The client's configuration file.
    pub fn config(&self) -> PathBuf {
        self.host.path().join("pull.toml")
    }
}

impl Ran {
    /// Runs it to its end.
    pub async fn of(command: &mut Command) -> Result<Self> {
        let (status, said) = outcome(command).await?;
        let code = status.code().unwrap_or(-1);
        Ok(Self { code, said })
    }
}

/// The built command of an operator of this stack.
pub async fn neverlapse(stack: &Stack) -> Result<Command> {
    let mut neverlapse = command(program("neverlapse").await?);
    neverlapse.envs(stack.environment());
    Ok(neverlapse)
}

/// What is to be served now.
pub async fn current(stack: &Stack, name: &str) -> Result<Current> {
    let key = current_key(name);
    let text = stack.get(&key).await?.with_context(|| format!("there is no {key}"))?;
    Ok(serde_json::from_str(&text)?)
}

fn store(stack: &Stack) -> Store {
    Store::new(aws_sdk_s3::Client::new(&stack.config), &stack.bucket)
}

const ADDRESSES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
];
