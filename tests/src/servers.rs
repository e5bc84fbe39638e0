//! Real servers: one nginx with a port for each certificate, and a port that never says a word.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::pki::write_secret;
use crate::process::{Group, command, eventually, free_port};

/// A certificate chain and its key, to be served on a free port.
#[derive(Clone, Debug)]
pub struct Site {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM.
    pub key: String,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Group,
    folder: TempDir,
    /// One per site, in their order.
    pub ports: Vec<u16>,
}

impl Nginx {
    /// Serves each site on a port of its own, and returns once all of them answer.
    pub async fn start(sites: &[Site]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-nginx-").tempdir()?;
        let ports = sites.iter().map(|_| free_port()).collect::<Result<Vec<_>>>()?;

        let mut servers = String::new();
        for (index, (site, port)) in sites.iter().zip(&ports).enumerate() {
            let (chain, key) = (
                folder.path().join(format!("{index}.pem")),
                folder.path().join(format!("{index}.key")),
            );
            std::fs::write(&chain, &site.chain)?;
            write_secret(&key, &site.key)?;
            let (chain, key) = (chain.display(), key.display());
            writeln!(
                servers,
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; return 204; }}"
            )?;
        }

        let root = folder.path().display();
        let configuration = format!(
            "daemon off; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
             uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n{servers}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration)?;

        let log = std::fs::File::create(folder.path().join("start.log"))?;
        let process = Group::start(command("nginx").arg("-c").arg(&file).stderr(log))?;
        let mut nginx = Self { process, folder, ports };

        for port in nginx.ports.clone() {
            nginx.answers(port).await?;
        }
        Ok(nginx)
    }

    async fn answers(&mut self, port: u16) -> Result<()> {
        eventually(&format!("nginx's answer on port {port}"), async || {
            if !self.process.is_running() {
                let log = std::fs::read_to_string(self.folder.path().join("start.log")).unwrap_or_default();
                bail!("nginx ended: {log}");
            }
            Ok(TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
        })
        .await
    }
}

/// Accepts connections and stays silent until dropped.
#[derive(Debug)]
pub struct Silent {
    /// Where.
    pub port: u16,
    accepting: JoinHandle<()>,
}

impl Silent {
    /// Starts one.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Ok(Self { port, accepting })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
