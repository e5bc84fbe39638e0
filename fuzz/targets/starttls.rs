//! What a server says before TLS, in each protocol, and the old handshake.

#![no_main]

use std::io::Cursor;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use neverlapse::ehlo::Ehlo;
use neverlapse::endpoint::StartTls;
use neverlapse::probe::{legacy, starttls};
use tokio::io::join;
use tokio::runtime::{Builder, Runtime};

fuzz_target!(|data: &[u8]| {
    let Some((first, answer)) = data.split_first() else {
        return;
    };
    runtime().block_on(async {
        let mut stream = join(Cursor::new(answer), tokio::io::sink());
        match StartTls::ALL.get(usize::from(*first) % (StartTls::ALL.len() + 1)) {
            Some(protocol) => {
                let ehlo = Ehlo::literal([192, 0, 2, 7].into());
                if let Err(error) = starttls::upgrade(*protocol, &mut stream, "a.test", &ehlo).await {
                    let words = error.to_string();
                    assert!(words.len() < 2_000 && !words.chars().any(char::is_control), "{words:?}");
                }
            }
            None => {
                if let Ok(legacy) = legacy::fetch(&mut stream, Some("a.test")).await {
                    assert!(legacy.certificates.iter().map(|der| der.len()).sum::<usize>() <= answer.len());
                }
            }
        }
    });
});

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_current_thread().enable_all().build().expect("a runtime"))
}
