//! A name server in front of the tests' own that answers badly when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_server::proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFate {
    /// It is passed on, and so is the answer.
    Pass,
    /// An answer without records, with this code (RFC 1035, 4.1.1).
    Code(u8),
    /// A TXT record from before.
    Stale,
    /// The answer comes late.
    Slow(Duration),
    /// No answer.
    Silence,
}

/// A running proxy; ends when dropped.
pub struct DnsProxy {
    /// Where, for UDP and TCP alike.
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

type Decide = dyn Fn(&str) -> DnsFate + Send + Sync;

impl DnsProxy {
    /// In front of the name server at `upstream`; `fate` is asked for each question, such as `TXT
    /// example.com`.
    pub async fn start(upstream: SocketAddr, fate: impl Fn(&str) -> DnsFate + Send + Sync + 'static) -> Result<Self> {
        let (udp, tcp) = crate::dns::listeners().await?;
        let address = udp.local_addr()?;
        let fate: Arc<Decide> = Arc::new(fate);
        let mut serving = JoinSet::new();
        serving.spawn(serve_udp(Arc::new(udp), upstream, fate.clone()));
        serving.spawn(serve_tcp(tcp, upstream, fate));
        Ok(Self {
            address,
            _serving: serving,
        })
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, upstream: SocketAddr, fate: Arc<Decide>) {
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        while answering.try_join_next().is_some() {}
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let question = buffer[..length].to_vec();
        let (socket, fate) = (socket.clone(), fate.clone());
        answering.spawn(async move {
            if let Ok(Some(answer)) = answer(&question, &*fate, async || by_udp(&question, upstream).await).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, upstream: SocketAddr, fate: Arc<Decide>) {
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        if let Ok((stream, _)) = listener.accept().await {
            let fate = fate.clone();
            // A client that is gone needs no answer.
            serving.spawn(async move { serve_stream(stream, upstream, &*fate).await.unwrap_or_default() });
        }
    }
}

async fn serve_stream(mut client: TcpStream, upstream: SocketAddr, fate: &Decide) -> Result<()> {
    loop {
        let question = read(&mut client).await?;
        let passed = async || {
            let mut server = TcpStream::connect(upstream).await?;
            write(&mut server, &question).await?;
            read(&mut server).await
        };
        if let Some(answer) = answer(&question, fate, passed).await? {
            write(&mut client, &answer).await?;
        }
    }
}

/// The answer to a question, if it is to have one.
async fn answer(
    question: &[u8],
    fate: &Decide,
    pass: impl AsyncFnOnce() -> Result<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let message = Message::from_vec(question)?;
    let query = message.queries.first().context("a question")?;
    let name = query.name().to_ascii();
    let line = format!("{} {}", query.query_type(), name.trim_end_matches('.'));

    Ok(match fate(&line) {
        DnsFate::Pass => Some(pass().await?),
        DnsFate::Slow(pause) => {
            sleep(pause).await;
            Some(pass().await?)
        }
        DnsFate::Code(code) => Some(without_records(question, code)),
        DnsFate::Stale => Some(stale(question)),
        DnsFate::Silence => None,
    })
}

async fn by_udp(question: &[u8], upstream: SocketAddr) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(question, upstream).await?;
    let mut buffer = vec![0; LONGEST];
    let length = timeout(IN_TIME, socket.recv(&mut buffer)).await??;
    buffer.truncate(length);
    Ok(buffer)
}

/// The question's own bytes as an answer that has no records (RFC 1035, 4.1.1).
fn without_records(question: &[u8], code: u8) -> Vec<u8> {
    // Labels, each with its length before it, then type and class.
    let mut end = HEADER;
    while let Some(length) = question.get(end).filter(|length| **length > 0) {
        end += 1 + usize::from(*length);
    }
    let mut answer = question[..(end + 5).min(question.len())].to_vec();
    // An answer, authoritative, to one question; nothing else is in it.
    answer[2] = 0x84 | (question[2] & 0x01);
    answer[3] = code & 0x0f;
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    answer
}

/// The same with a TXT record that nobody has any more.
fn stale(question: &[u8]) -> Vec<u8> {
    let mut answer = without_records(question, 0);
    answer[7] = 1;
    // The question's name, TXT, IN, a minute, a string.
    answer.extend([0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 60, 0, 6, 5]);
    answer.extend(b"stale");
    answer
}

async fn read(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    stream.write_u16(message.len().try_into()?).await?;
    stream.write_all(message).await?;
    Ok(())
}

const HEADER: usize = 12;
const LONGEST: usize = 4096;
const IN_TIME: Duration = Duration::from_secs(60);
