//! Name servers, asked over UDP, and over TCP where that brings no answer.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, Record, RecordType};

/// Clones share one cache.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    usual: TokioResolver,
    /// For what UDP brought no answer to: a firewall may drop the fragments of a large one, and the
    /// library takes no truncated one that leaves the question out.
    over_tcp: TokioResolver,
}

impl Servers {
    pub(crate) fn new(config: ResolverConfig, options: ResolverOpts) -> Result<Self, NetError> {
        let mut servers = config.name_servers().to_vec();
        for server in &mut servers {
            server
                .connections
                .retain(|connection| connection.protocol == ProtocolConfig::Tcp);
        }
        let tcp_config = ResolverConfig::from_parts(None, config.search().to_vec(), servers);
        let mut tcp_options = options.clone();
        // TCP itself sends again what is lost.
        tcp_options.attempts = 0;

        Ok(Self {
            usual: build(config, options)?,
            over_tcp: build(tcp_config, tcp_options)?,
        })
    }

    /// A name's records of one type, also if a CNAME led there. The error is that of UDP.
    pub(crate) async fn look_up(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, NetError> {
        let found = match self.usual.lookup(name.clone(), kind).await {
            // Not an answer of a name server.
            Err(error) if !matches!(error, NetError::Dns(_)) => {
                self.over_tcp.lookup(name.clone(), kind).await.map_err(|_| error)
            }
            answer => answer,
        };
        let mut records = found?.answers().to_vec();
        records.retain(|record| record.record_type() == kind);
        Ok(records)
    }
}

/// A resolver that leaves the hosts file to others.
fn build(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::resolve::only;

    /// Forty values of one name did not fit into a datagram; the server said so without repeating
    /// the question, and the library waited for an answer that it could believe.
    #[tokio::test]
    async fn what_udp_does_not_answer_is_asked_over_tcp() {
        // The rest of the header of a truncated answer, and no question.
        let truncated = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for says in [Some(truncated), None] {
            let (udp, tcp) = one_port().await;
            let server = udp.local_addr().unwrap();
            tokio::spawn(async move {
                let mut query = [0; 512];
                while let Ok((_, client)) = udp.recv_from(&mut query).await {
                    let Some(says) = says else { continue };
                    udp.send_to(&[&query[..2], &says].concat(), client).await.unwrap();
                }
            });
            tokio::spawn(async move {
                while let Ok((mut client, _)) = tcp.accept().await {
                    let mut query = vec![0; client.read_u16().await.unwrap().into()];
                    client.read_exact(&mut query).await.unwrap();
                    client.write_all(&answer(&query)).await.unwrap();
                }
            });

            let mut options = ResolverOpts::default();
            options.attempts = 0;
            options.timeout = Duration::from_secs(3);
            let servers = Servers::new(only(server), options).unwrap();
            let name = Name::from_ascii("a.test.").unwrap();
            let found = servers.look_up(&name, RecordType::TXT).await.unwrap();
            assert_eq!(found[0].data.to_string(), "yes");
        }
    }

    /// Both on one port: what is free for one may be in use by the other.
    async fn one_port() -> (UdpSocket, TcpListener) {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                return (udp, tcp);
            }
        }
    }

    /// One TXT record, with its length in front.
    fn answer(query: &[u8]) -> Vec<u8> {
        let question = query[12..].iter().position(|byte| *byte == 0).unwrap() + 17;
        let mut answer = vec![query[0], query[1], 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        answer.extend_from_slice(&query[12..question]);
        answer.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 1, 0, 4, 3, b'y', b'e', b's']);
        let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
        framed.append(&mut answer);
        framed
    }
}
