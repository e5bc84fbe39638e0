//! A DNS server on loopback that knows a few names, over UDP and TCP.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// Names, lower case and without the last dot, and their addresses.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

/// A running server.
#[derive(Debug)]
pub struct Dns {
    /// Where, for UDP and TCP alike.
    pub address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Dns {
    /// Answers for these names, and that there is no other.
    pub async fn start(names: Names) -> Result<Self> {
        let (udp, tcp) = listeners().await?;
        let (address, names) = (udp.local_addr()?, Arc::new(names));
        let tasks = [
            tokio::spawn(answer_udp(udp, names.clone())),
            tokio::spawn(answer_tcp(tcp, names)),
        ];
        Ok(Self { address, tasks })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A port that is free for both.
async fn listeners() -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr()?).await {
            return Ok((udp, tcp));
        }
    }
    anyhow::bail!("no port is free for UDP and TCP")
}

async fn answer_udp(socket: UdpSocket, names: Arc<Names>) {
    let mut packet = [0; 4_096];
    while let Ok((length, client)) = socket.recv_from(&mut packet).await {
        if let Ok(answer) = answer(&packet[..length], &names) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn answer_tcp(listener: TcpListener, names: Arc<Names>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(stream, names.clone()));
    }
}

async fn converse(mut stream: TcpStream, names: Arc<Names>) -> Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await?;
        let answer = answer(&query, &names)?;
        stream.write_u16(answer.len().try_into()?).await?;
        stream.write_all(&answer).await?;
    }
}

/// The answer to one query: addresses, none of that type, or no such name.
fn answer(query: &[u8], names: &Names) -> Result<Vec<u8>> {
    let query = Message::from_vec(query)?;
    let question = query.queries().first().context("no question")?;
    let mut answer = Message::new();
    answer.set_id(query.id()).set_message_type(MessageType::Response);
    answer.set_op_code(OpCode::Query).set_authoritative(true);
    answer.set_recursion_desired(query.recursion_desired());
    answer.add_query(question.clone());
    let name = question.name().to_ascii().to_ascii_lowercase();
    match names.get(name.trim_end_matches('.')) {
        None => {
            answer.set_response_code(ResponseCode::NXDomain);
        }
        Some(addresses) => {
            let matching = addresses
                .iter()
                .filter(|address| record_type(address) == question.query_type());
            let records =
                matching.map(|&address| Record::from_rdata(question.name().clone(), TTL, RData::from(address)));
            answer.add_answers(records);
        }
    }
    Ok(answer.to_vec()?)
}

fn record_type(address: &IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

const TTL: u32 = 60;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use neverlapse::resolve::{Error, Resolver};

    use super::*;

    #[tokio::test]
    async fn the_resolver_of_the_probe_understands_it() {
        let both: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let names = [
            ("both.shop.test".to_owned(), both.to_vec()),
            ("none.shop.test".to_owned(), vec![]),
        ];
        let dns = Dns::start(names.into()).await.unwrap();
        let resolver = Resolver::new(Some(dns.address), Duration::from_secs(5)).unwrap();
        let found = resolver.addresses(&"Both.shop.test".parse().unwrap()).await.unwrap();
        assert_eq!(found, both);
        let none = resolver.addresses(&"none.shop.test".parse().unwrap()).await;
        assert!(matches!(none, Err(Error::NoAddress)), "{none:?}");
        let nobody = resolver.addresses(&"nobody.shop.test".parse().unwrap()).await;
        assert!(matches!(nobody, Err(Error::NoSuchName)), "{nobody:?}");
    }

    #[tokio::test]
    async fn it_answers_over_tcp_too() {
        let names = [("a.test".to_owned(), vec!["127.0.0.1".parse().unwrap()])];
        let dns = Dns::start(names.into()).await.unwrap();
        let mut query = Message::new();
        let name = "a.test.".parse().unwrap();
        query.add_query(hickory_proto::op::Query::query(name, RecordType::A));
        let query = query.to_vec().unwrap();
        let mut stream = TcpStream::connect(dns.address).await.unwrap();
        stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers().len(), 1);
    }
}
