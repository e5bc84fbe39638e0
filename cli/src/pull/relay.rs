//! Where a certificate is looked for on this host, and the way to servers to which the prober has
//! none of its own: those that expect the PROXY protocol, and those at a unix socket.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use neverlapse::endpoint::{Endpoint, Host};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// A place in `verify`: an endpoint, `unix:/path`, or one of them behind the PROXY protocol, with
/// `proxy://` or `proxy2://` before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    server: Server,
    proxy: Option<Proxy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    Endpoint(Endpoint),
    Unix(PathBuf),
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    V1,
    V2,
}

impl Proxy {
    /// The header of a connection between these addresses; a unix socket has none. It says what is
    /// true, so that the server takes the connection as it is
    /// (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, 2.1 and 2.2).
    fn header(self, between: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
        match (self, between) {
            // LOCAL: as a proxy connects to look after a server's health.
            (Self::V2, _) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
            // postfix does not take UNKNOWN.
            (Self::V1, Some((from, to))) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let (source, target) = (from.ip(), to.ip());
                format!("PROXY {family} {source} {target} {} {}\r\n", from.port(), to.port()).into_bytes()
            }
            (Self::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::V1 => "proxy",
            Self::V2 => "proxy2",
        }
    }
}

impl Place {
    /// The endpoint that the prober can connect to by itself.
    pub(crate) fn direct(&self) -> Option<&Endpoint> {
        match (&self.server, self.proxy) {
            (Server::Endpoint(endpoint), None) => Some(endpoint),
            _ => None,
        }
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, anyhow::Error> {
        let (proxy, rest) = [Proxy::V1, Proxy::V2]
            .into_iter()
            .find_map(|proxy| {
                let rest = text.strip_prefix(proxy.scheme())?;
                // proxy+smtp://…, proxy+unix:/…, or proxy://… alone.
                let rest = rest.strip_prefix('+').or_else(|| rest.strip_prefix("://"))?;
                Some((Some(proxy), rest))
            })
            .unwrap_or((None, text));

        let server = match rest.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Server::Unix(path.into()),
            Some(path) => anyhow::bail!("{path:?} is not absolute (expected such as unix:/run/server.sock)"),
            None => Server::Endpoint(rest.parse()?),
        };
        Ok(Self { server, proxy })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(proxy) = self.proxy {
            let is_alone = matches!(&self.server, Server::Endpoint(Endpoint { starttls: None, .. }));
            write!(f, "{}{}", proxy.scheme(), if is_alone { "://" } else { "+" })?;
        }
        match &self.server {
            Server::Endpoint(endpoint) => endpoint.fmt(f),
            Server::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listens on this host for the prober, and hands everything on to a place.
#[derive(Debug)]
pub(crate) struct Relay {
    /// What the prober connects to.
    pub(crate) endpoint: Endpoint,
    failure: Arc<OnceLock<String>>,
    listening: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn open(place: &Place) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let starttls = match &place.server {
            Server::Endpoint(endpoint) => endpoint.starttls,
            Server::Unix(_) => None,
        };

        let failure = Arc::new(OnceLock::new());
        let listening = tokio::spawn(listen(listener, place.clone(), failure.clone()));
        Ok(Self {
            endpoint: Endpoint::new(Host::Ip(address.ip()), Some(address.port()), starttls),
            failure,
            listening,
        })
    }

    /// Why the place could not be reached, if it could not: what the prober sees of it is a lost
    /// connection.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, place: Place, failure: Arc<OnceLock<String>>) {
    while let Ok((client, _)) = listener.accept().await {
        let place = place.clone();
        let failure = failure.clone();
        tokio::spawn(async move {
            if let Err(error) = hand_on(client, &place).await {
                let _ = failure.set(format!("{place} cannot be reached: {error}"));
            }
        });
    }
}

/// The error says that there is no connection; how one ends is for the client to see.
async fn hand_on(client: TcpStream, place: &Place) -> io::Result<()> {
    let header = |between| place.proxy.map(|proxy| proxy.header(between)).unwrap_or_default();

    match &place.server {
        Server::Endpoint(endpoint) => {
            let server = match &endpoint.host {
                Host::Ip(ip) => TcpStream::connect(SocketAddr::new(*ip, endpoint.port)).await?,
                Host::Name(name) => TcpStream::connect((name.as_ref(), endpoint.port)).await?,
            };
            let header = header(Some((server.local_addr()?, server.peer_addr()?)));
            exchange(client, server, &header).await;
        }
        Server::Unix(path) => exchange(client, UnixStream::connect(path).await?, &header(None)).await,
    }
    Ok(())
}

async fn exchange(mut client: TcpStream, mut server: impl AsyncRead + AsyncWrite + Unpin, header: &[u8]) {
    if server.write_all(header).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn places_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:443"),
            ("smtp://127.0.0.1", "smtp://127.0.0.1:25"),
            ("proxy://127.0.0.1:8443", "proxy://127.0.0.1:8443"),
            ("proxy2://[::1]", "proxy2://[::1]:443"),
            ("proxy+smtp://127.0.0.1", "proxy+smtp://127.0.0.1:25"),
            ("unix:/run/server.sock", "unix:/run/server.sock"),
            ("proxy2+unix:/run/server.sock", "proxy2+unix:/run/server.sock"),
            // A host may be called so.
            ("proxy:8443", "proxy:8443"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), expected);
            assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        }
        for (text, expected) in [
            ("unix:server.sock", "\"server.sock\" is not absolute"),
            ("proxy://a:b", "invalid endpoint \"a:b\""),
            ("proxy3://127.0.0.1", "invalid endpoint"),
        ] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn the_header_comes_first_and_everything_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.sock");
        let server = UnixListener::bind(&path).unwrap();
        for (scheme, expected) in [("unix:", &b"hello"[..]), ("proxy+unix:", b"PROXY UNKNOWN\r\nhello")] {
            let relay = Relay::open(&format!("{scheme}{}", path.display()).parse().unwrap())
                .await
                .unwrap();
            let mut client = TcpStream::connect(("127.0.0.1", relay.endpoint.port)).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let (mut at_server, _) = server.accept().await.unwrap();
            let mut heard = Vec::new();
            at_server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, expected);
            assert_eq!(relay.failure(), None);
        }
        let between = Some(("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:443".parse().unwrap()));
        assert_eq!(
            Proxy::V1.header(between),
            b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 443\r\n"
        );
        assert_eq!(Proxy::V2.header(None).len(), 16);
    }
}
