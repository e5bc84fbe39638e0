//! What a name server answers, behind a right id and question.

#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use neverlapse::endpoint::Host;
use neverlapse::resolve::Resolver;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};

fuzz_target!(|data: &[u8]| {
    let world = world();
    data.clone_into(&mut world.answer.lock().expect("no panic before"));
    world.runtime.block_on(async {
        // A new one each time: a resolver remembers.
        let resolver = Resolver::new(Some(world.server), Duration::from_millis(200)).expect("a resolver");
        let host: Host = "a.test".parse().expect("a host");
        if let Ok(found) = resolver.addresses(&host).await {
            assert!(found.addresses.len() <= data.len(), "{found:?}");
        }
    });
});

struct World {
    runtime: Runtime,
    server: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).expect("a socket");
        let server = socket.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new(Vec::new()));
        runtime.spawn(answers(socket, answer.clone()));
        World {
            runtime,
            server,
            answer,
        }
    })
}

/// Answers each question with its own header and question, and the input behind them: its first
/// seven bytes are flags and counts.
async fn answers(socket: UdpSocket, answer: Arc<Mutex<Vec<u8>>>) {
    let mut question = [0; 1_500];
    while let Ok((length, client)) = socket.recv_from(&mut question).await {
        let input = answer.lock().expect("no panic before").clone();
        let (head, rest) = input.split_at(input.len().min(7));
        let mut packet = question[..length.min(12)].to_vec();
        if packet.len() == 12 {
            packet[2] |= 0x80;
            for (at, byte) in [3, 7, 9, 11].into_iter().zip(head) {
                packet[at] = *byte;
            }
        }
        // The additional record of EDNS goes, the question stays.
        let end = question[12..length]
            .iter()
            .position(|byte| *byte == 0)
            .map_or(length, |zero| 12 + zero + 5);
        packet.extend_from_slice(&question[12..end.min(length)]);
        packet.extend_from_slice(rest);
        let _ = socket.send_to(&packet, client).await;
    }
}
