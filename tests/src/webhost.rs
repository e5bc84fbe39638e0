//! A host: an nginx whose configuration names the files that `neverlapse pull` installs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use neverlapse::bucket::version::Current;
use neverlapse::certificate::fingerprint;
use neverlapse::probe::tls::{Handshaker, Witness};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::process::{Group, command, eventually, free_port, run};

/// A folder with `live/`, and a server that reads from there.
#[derive(Debug)]
pub struct WebHost {
    // Before its folder, so that it is gone before that is.
    server: Option<Group>,
    folder: TempDir,
    /// Where it serves, one per certificate.
    pub places: Vec<(String, SocketAddr)>,
}

impl WebHost {
    /// A host for certificates of these names, on an address of the loopback network; nothing runs
    /// yet.
    pub fn new(address: Ipv4Addr, names: &[&str]) -> Result<Self> {
        let places = names
            .iter()
            .map(|name| Ok(((*name).to_owned(), (address, free_port()?).into())));
        Self::at(places.collect::<Result<_>>()?)
    }

    /// A host that serves certificates of these names at these addresses; nothing runs yet.
    pub fn at(places: Vec<(String, SocketAddr)>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-host-").tempdir()?;
        let host = Self {
            folder,
            places,
            server: None,
        };
        host.configure("")?;
        Ok(host)
    }

    /// Where `live/` is.
    pub fn folder(&self) -> PathBuf {
        self.path().join("tls")
    }

    /// Its own folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes nginx's configuration, with `more` in it.
    pub fn configure(&self, more: &str) -> Result<()> {
        let (root, live) = (self.path().display(), self.folder().join("live"));
        let server = |(name, address): &(String, SocketAddr)| {
            let live = live.join(name);
            let live = live.display();
            format!(
                "server {{ listen {address} ssl; ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; return 204; }}\n"
            )
        };
        let servers: String = self.places.iter().map(server).collect();
        let configuration = format!(
            "daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1; events {{}}\n\
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
             uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n{servers}{more}\n}}\n"
        );
        Ok(fs::write(self.conf(), configuration)?)
    }

    /// nginx's configuration.
    pub fn conf(&self) -> PathBuf {
        self.path().join("nginx.conf")
    }

    /// What tests the configuration.
    pub fn test_command(&self) -> String {
        format!("nginx -q -t -c {}", self.conf().display())
    }

    /// What makes the running server take it.
    pub fn reload_command(&self) -> String {
        format!("nginx -s reload -c {}", self.conf().display())
    }

    /// Whether the server could be started with what is there now.
    pub async fn could_start(&self) -> Result<()> {
        run(command("nginx").args(["-q", "-t", "-c"]).arg(self.conf()))
            .await
            .map(drop)
    }

    /// Starts the server, and returns once it answers.
    pub async fn start(&mut self) -> Result<()> {
        let log = fs::File::create(self.path().join("start.log"))?;
        let mut server = Group::start(command("nginx").arg("-c").arg(self.conf()).stderr(log))?;

        eventually("nginx's answer", async || {
            if !server.is_running() {
                let log = fs::read_to_string(self.path().join("start.log")).unwrap_or_default();
                bail!("nginx ended: {log}");
            }
            // nginx writes it last, and a reload needs it.
            let ready = fs::read_to_string(self.path().join("pid")).is_ok_and(|id| id.ends_with('\n'));
            Ok((ready && TcpStream::connect(self.places[0].1).await.is_ok()).then_some(()))
        })
        .await?;

        self.server = Some(server);
        Ok(())
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Waits until it serves this certificate. After a reload, old workers may answer for a moment,
    /// or close a connection that has not begun its handshake.
    pub async fn serves(&self, current: &Current) -> Result<()> {
        let version = &current.facts.version;
        eventually(&format!("{version} being served"), async || {
            let served = self.served().await;
            Ok(served
                .is_ok_and(|served| served == current.facts.fingerprint)
                .then_some(()))
        })
        .await
    }

    /// The fingerprint of what it serves for its first certificate.
    pub async fn served(&self) -> Result<String> {
        fingerprint_at(self.places[0].1, &self.places[0].0).await
    }
}

/// The fingerprint of the leaf that a server shows.
pub async fn fingerprint_at(address: SocketAddr, name: &str) -> Result<String> {
    let witness = Arc::new(Witness::default());
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned())?;
    let capture = Handshaker::default().handshake(stream, name, &witness).await;
    Ok(fingerprint(capture.chain.first().context("it shows no certificate")?))
}
