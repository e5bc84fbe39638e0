//! STARTTLS: asks a plain-text protocol for TLS, and leaves the stream exactly where TLS begins.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::endpoint::StartTls;

/// Why a server did not switch to TLS.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server refused: {0:?}")]
    Refused(String),
    #[error("the server's answer is not of the protocol: {0}")]
    Garbled(String),
}

/// Speaks the protocol until TLS may begin. Reads not one byte further, and has no deadline of its own.
pub async fn upgrade<S>(protocol: StartTls, stream: &mut S, host: &str) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match protocol {
        StartTls::Smtp => smtp(stream).await,
        StartTls::Imap => imap(stream).await,
        StartTls::Pop3 => pop3(stream).await,
        StartTls::Ftp => ftp(stream).await,
        StartTls::Ldap => ldap(stream).await,
        StartTls::Postgres => postgres(stream).await,
        StartTls::Mysql => mysql(stream).await,
    }
    .map_err(|error| match error {
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Garbled(format!("{host} closed the connection"))
        }
        other => other,
    })
}

/// RFC 3207.
async fn smtp<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    reply(stream, "220").await?;
    stream.write_all(b"EHLO neverlapse.invalid\r\n").await?;
    reply(stream, "250").await?;
    stream.write_all(b"STARTTLS\r\n").await?;
    reply(stream, "220").await
}

/// RFC 4217.
async fn ftp<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    reply(stream, "220").await?;
    stream.write_all(b"AUTH TLS\r\n").await?;
    reply(stream, "234").await
}

/// RFC 2595, section 4.
async fn pop3<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    for command in [None, Some(&b"STLS\r\n"[..])] {
        if let Some(command) = command {
            stream.write_all(command).await?;
        }
        let answer = line(stream).await?;
        match answer {
            ok if ok.starts_with("+OK") => {}
            no if no.starts_with("-ERR") => return Err(Error::Refused(no)),
            other => return Err(Error::Garbled(format!("{other:?} (expected +OK or -ERR)"))),
        }
    }
    Ok(())
}

/// RFC 9051, 6.2.1.
async fn imap<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    let greeting = line(stream).await?;
    if !greeting.starts_with("* OK") && !greeting.starts_with("* PREAUTH") {
        return Err(Error::Garbled(format!("{greeting:?} (expected * OK)")));
    }
    stream.write_all(b"a1 STARTTLS\r\n").await?;
    for _ in 0..LINES {
        match line(stream).await? {
            untagged if untagged.starts_with("* ") => {}
            ok if ok.starts_with("a1 OK") => return Ok(()),
            no if no.starts_with("a1 ") => return Err(Error::Refused(no)),
            other => return Err(Error::Garbled(format!("{other:?} (expected a1 OK)"))),
        }
    }
    Err(Error::Garbled(format!("more than {LINES} lines")))
}

/// RFC 4511, 4.14: an extended request for 1.3.6.1.4.1.1466.20037, and an extended response with result 0.
async fn ldap<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    let oid = b"1.3.6.1.4.1.1466.20037";
    let mut request = vec![0x30, 0x1d, 0x02, 0x01, 0x01, 0x77, 0x18, 0x80, 0x16];
    request.extend_from_slice(oid);
    stream.write_all(&request).await?;
    let message = ber(stream).await?;
    let garbled = || Error::Garbled("no LDAP extended response".to_owned());
    // messageID, then [APPLICATION 24] with resultCode first.
    let (_, rest) = element(&message, 0x02).ok_or_else(garbled)?;
    let (response, _) = element(rest, 0x78).ok_or_else(garbled)?;
    let (code, rest) = element(response, 0x0a).ok_or_else(garbled)?;
    match code {
        [0] => Ok(()),
        code => {
            let diagnostic = element(rest, 0x04)
                .and_then(|(_, rest)| element(rest, 0x04))
                .map_or(&[][..], |(text, _)| text);
            Err(Error::Refused(format!(
                "result {code:?} {}",
                String::from_utf8_lossy(diagnostic)
            )))
        }
    }
}

/// PostgreSQL's SSLRequest: length 8, code 80877103, answered by one byte.
async fn postgres<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(Error::Refused("N (TLS is off)".to_owned())),
        other => Err(Error::Garbled(format!("{:?} (expected S or N)", char::from(other)))),
    }
}

/// MySQL's handshake: the server's greeting tells its capabilities, a short SSLRequest asks for TLS.
async fn mysql<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    let header = stream.read_u32_le().await?;
    let length = (header & 0x00ff_ffff) as usize;
    if length > PACKET {
        return Err(Error::Garbled(format!("a greeting of {length} bytes")));
    }
    let mut greeting = vec![0; length];
    stream.read_exact(&mut greeting).await?;
    match greeting.first() {
        Some(0x0a) => {}
        Some(0xff) => {
            return Err(Error::Refused(
                String::from_utf8_lossy(greeting.get(3..).unwrap_or(&[])).into_owned(),
            ));
        }
        _ => return Err(Error::Garbled("no protocol 10 greeting".to_owned())),
    }
    // protocol, version NUL, thread id (4), nonce (8), filler (1), capabilities (2)
    let version = greeting.iter().position(|byte| *byte == 0).unwrap_or(length);
    let at = version + 1 + 4 + 8 + 1;
    let capabilities = greeting
        .get(at..at + 2)
        .map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if capabilities & MYSQL_SSL == 0 {
        return Err(Error::Refused("TLS is not among its capabilities".to_owned()));
    }
    let flags = u32::from(MYSQL_SSL) | MYSQL_PROTOCOL_41 | MYSQL_SECURE_CONNECTION;
    let mut request = vec![32, 0, 0, 1];
    request.extend_from_slice(&flags.to_le_bytes());
    request.extend_from_slice(&0x0100_0000_u32.to_le_bytes());
    request.push(UTF8MB4);
    request.extend_from_slice(&[0; 23]);
    Ok(stream.write_all(&request).await?)
}

/// A reply of SMTP or FTP: lines `250-…` and a last one `250 …`.
async fn reply<S: AsyncRead + Unpin>(stream: &mut S, expected: &str) -> Result<(), Error> {
    for _ in 0..LINES {
        let line = line(stream).await?;
        let code = line
            .get(..3)
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        match (code, line.as_bytes().get(3)) {
            (None, _) => return Err(Error::Garbled(format!("{line:?} (expected {expected})"))),
            (Some(code), _) if code != expected => return Err(Error::Refused(line)),
            (Some(_), Some(b'-')) => {}
            (Some(_), _) => return Ok(()),
        }
    }
    Err(Error::Garbled(format!("more than {LINES} lines")))
}

/// One line, byte by byte, so that nothing behind it is taken.
async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, Error> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte if line.len() < LINE => line.push(byte),
            _ => return Err(Error::Garbled(format!("a line of more than {LINE} bytes"))),
        }
    }
    Ok(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned())
}

/// The contents of one BER SEQUENCE.
async fn ber<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Error> {
    if stream.read_u8().await? != 0x30 {
        return Err(Error::Garbled("no LDAP message".to_owned()));
    }
    let length = match stream.read_u8().await? {
        short @ 0..=0x7f => usize::from(short),
        long @ 0x81..=0x84 => {
            let mut length = 0_usize;
            for _ in 0x80..long {
                length = length << 8 | usize::from(stream.read_u8().await?);
            }
            length
        }
        other => return Err(Error::Garbled(format!("a length of form {other:#x}"))),
    };
    if length > PACKET {
        return Err(Error::Garbled(format!("a message of {length} bytes")));
    }
    let mut contents = vec![0; length];
    stream.read_exact(&mut contents).await?;
    Ok(contents)
}

/// The first element of `bytes` if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (length, rest) = match rest.split_first()? {
        (short @ 0..=0x7f, rest) => (usize::from(*short), rest),
        (long @ 0x81..=0x84, rest) => {
            let (length, rest) = rest.split_at_checked(usize::from(long - 0x80))?;
            (length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

const LINE: usize = 2_048;
const LINES: usize = 100;
const PACKET: usize = 16_384;
const MYSQL_SSL: u16 = 0x0800;
const MYSQL_PROTOCOL_41: u32 = 0x0200;
const MYSQL_SECURE_CONNECTION: u32 = 0x8000;
const UTF8MB4: u8 = 45;

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a server that says `says[0]`, waits for a command, says `says[1]` …, then a byte of TLS.
    async fn play(protocol: StartTls, server_first: bool, says: &[&[u8]]) -> (Result<(), Error>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(65_536);
        let says: Vec<Vec<u8>> = says.iter().map(|bytes| bytes.to_vec()).collect();
        let playing = tokio::spawn(async move {
            let mut heard = [0; 1_024];
            for (index, bytes) in says.iter().enumerate() {
                if index > 0 || !server_first {
                    let _ = server.read(&mut heard).await;
                }
                let _ = server.write_all(bytes).await;
            }
        });
        let result = upgrade(protocol, &mut client, "mail.example").await;
        drop(playing.await);
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        (result, rest)
    }

    fn greeting(capabilities: u16) -> Vec<u8> {
        let mut body = b"\x0a8.0.36\0\x01\0\0\0abcdefgh\0".to_vec();
        body.extend_from_slice(&capabilities.to_le_bytes());
        body.extend_from_slice(&[45, 2, 0]);
        let mut packet = vec![body.len() as u8, 0, 0, 0];
        packet.extend(body);
        packet
    }

    #[tokio::test]
    async fn takes_not_one_byte_of_tls() {
        let (with_tls, _) = (greeting(0xffff), ());
        for (protocol, server_first, says) in [
            (
                StartTls::Smtp,
                true,
                vec![
                    &b"220-hi\r\n220 there\r\n"[..],
                    b"250-a\r\n250-STARTTLS\r\n250 b\r\n",
                    b"220 go\r\n\x16",
                ],
            ),
            (StartTls::Ftp, true, vec![b"220 hi\r\n", b"234 go\r\n\x16"]),
            (StartTls::Pop3, true, vec![b"+OK hi\r\n", b"+OK go\r\n\x16"]),
            (
                StartTls::Imap,
                true,
                vec![b"* OK hi\r\n", b"* CAPABILITY X\r\na1 OK go\r\n\x16"],
            ),
            (
                StartTls::Ldap,
                false,
                vec![b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00\x16"],
            ),
            (StartTls::Postgres, false, vec![b"S\x16"]),
            (StartTls::Mysql, true, vec![&with_tls, b"\x16"]),
        ] {
            let (result, rest) = play(protocol, server_first, &says).await;
            assert!(result.is_ok(), "{protocol}: {result:?}");
            assert_eq!(rest, b"\x16", "{protocol}");
        }
    }

    #[tokio::test]
    async fn refusals_carry_the_servers_words() {
        let without_tls = greeting(0);
        for (protocol, server_first, says, words) in [
            (
                StartTls::Smtp,
                true,
                vec![&b"220 hi\r\n"[..], b"250 hi\r\n", b"454 TLS not available\r\n"],
                "454 TLS not available",
            ),
            (StartTls::Smtp, true, vec![b"554 go away\r\n"], "554 go away"),
            (StartTls::Ftp, true, vec![b"220 hi\r\n", b"502 no\r\n"], "502 no"),
            (StartTls::Pop3, true, vec![b"+OK hi\r\n", b"-ERR no\r\n"], "-ERR no"),
            (
                StartTls::Imap,
                true,
                vec![b"* OK hi\r\n", b"a1 BAD no\r\n"],
                "a1 BAD no",
            ),
            (
                StartTls::Ldap,
                false,
                vec![b"\x30\x0e\x02\x01\x01\x78\x09\x0a\x01\x34\x04\x00\x04\x02no"],
                "result [52] no",
            ),
            (StartTls::Postgres, false, vec![b"N"], "TLS is off"),
            (StartTls::Mysql, true, vec![&without_tls], "not among its capabilities"),
        ] {
            let (result, _) = play(protocol, server_first, &says).await;
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{protocol}: {error:?}");
            assert!(error.to_string().contains(words), "{protocol}: {error}");
        }
    }

    #[tokio::test]
    async fn garbage_and_silence_are_errors() {
        let endless = vec![b'a'; 10_000];
        let chatter = b"220-more\r\n".repeat(200);
        for protocol in StartTls::ALL {
            for bytes in [
                &b""[..],
                b"\0",
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                &endless,
                &chatter,
                &[0xff; 64],
                b"\x30\x84\xff\xff\xff\xff",
            ] {
                let (result, _) = play(protocol, true, &[bytes]).await;
                assert!(result.is_err(), "{protocol} took {:?}", &bytes[..bytes.len().min(20)]);
            }
        }
    }
}
