//! STARTTLS: asks a plain-text protocol for TLS, and leaves the stream exactly where TLS begins.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ehlo::Ehlo;
use crate::endpoint::StartTls;
use crate::text::{cut, printable};

/// Why a server did not switch to TLS. Its own words are cut and escaped, so that they can be
/// printed.
#[derive(Debug, Error)]
pub enum Error {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server answered that it does not, in its words.
    #[error("the server refused: \"{0}\"")]
    Refused(String),
    /// The server's answer breaks the protocol.
    #[error("the server's answer is not of the protocol: {0}")]
    Garbled(String),
}

impl Error {
    fn refused(answer: &[u8]) -> Self {
        Self::Refused(words(answer))
    }

    fn unexpected(answer: &[u8], expected: &str) -> Self {
        Self::Garbled(format!("\"{}\" (expected {expected})", words(answer)))
    }
}

/// Speaks the protocol until TLS may begin, and has no deadline of its own. A mail server hears
/// `ehlo`.
///
/// It reads not one byte further than the answer. The bytes after it are for TLS to read, and to
/// refuse when they are plain text that an attacker injected.
pub async fn upgrade<S>(protocol: StartTls, stream: &mut S, host: &str, ehlo: &Ehlo) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match protocol {
        StartTls::Smtp => mail(stream, "EHLO", ehlo).await,
        StartTls::Lmtp => mail(stream, "LHLO", ehlo).await,
        StartTls::Imap => imap(stream).await,
        StartTls::Pop3 => pop3(stream).await,
        StartTls::Ftp => ftp(stream).await,
        StartTls::Ldap => ldap(stream).await,
        StartTls::Postgres => postgres(stream).await,
        StartTls::Mysql => mysql(stream).await,
        StartTls::Nntp => nntp(stream).await,
        StartTls::Sieve => sieve(stream).await,
        StartTls::Xmpp => xmpp(stream, "jabber:client", host).await,
        StartTls::XmppServer => xmpp(stream, "jabber:server", host).await,
    }
    .map_err(|error| match error {
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Garbled(format!("{host} closed the connection"))
        }
        Error::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Error::Garbled(format!("{host} reset the connection"))
        }
        other => other,
    })
}

/// RFC 3207, and the same for local delivery (RFC 2033), which greets by another word.
async fn mail<S>(stream: &mut S, greeting: &str, ehlo: &Ehlo) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    reply(stream, &["220"]).await?;
    stream
        .write_all(format!("{greeting} {}\r\n", ehlo.as_ref()).as_bytes())
        .await?;
    reply(stream, &["250"]).await?;
    stream.write_all(b"STARTTLS\r\n").await?;
    reply(stream, &["220"]).await
}

/// RFC 4642. A server that takes no articles greets with 201.
async fn nntp<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    reply(stream, &["200", "201"]).await?;
    stream.write_all(b"STARTTLS\r\n").await?;
    reply(stream, &["382"]).await
}

/// ManageSieve (RFC 5804, 2.2): lines with what the server can, then OK.
async fn sieve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    sieve_response(stream).await?;
    stream.write_all(b"STARTTLS\r\n").await?;
    sieve_response(stream).await
}

async fn sieve_response<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), Error> {
    for _ in 0..LINES {
        let line = line(stream).await?;
        let word = line
            .split(|byte| !byte.is_ascii_alphabetic())
            .next()
            .unwrap_or_default();
        match word.to_ascii_uppercase().as_slice() {
            b"OK" => return Ok(()),
            b"NO" | b"BYE" => return Err(Error::refused(&line)),
            // A capability is a quoted string.
            b"" if line.starts_with(b"\"") => {}
            _ => return Err(Error::unexpected(&line, "OK or NO")),
        }
    }
    Err(Error::Garbled(format!("more than {LINES} lines")))
}

/// RFC 6120, 5.4. `domain` is the one that the server is asked for.
async fn xmpp<S>(stream: &mut S, namespace: &str, domain: &str) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{namespace}' \
         xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
    );
    stream.write_all(header.as_bytes()).await?;
    let features = until(
        stream,
        &["</stream:features>", "<stream:features/>", "</stream:stream>"],
    )
    .await?;
    if !contains(&features, XMPP_TLS) {
        return Err(Error::refused(&features));
    }

    stream
        .write_all(format!("<starttls xmlns='{XMPP_TLS}'/>").as_bytes())
        .await?;
    let answer = until(stream, &["/>", "</proceed>", "</failure>"]).await?;
    if contains(&answer, "<proceed") {
        Ok(())
    } else {
        Err(Error::refused(&answer))
    }
}

/// RFC 4217.
async fn ftp<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    reply(stream, &["220"]).await?;
    stream.write_all(b"AUTH TLS\r\n").await?;
    // Some servers announce more security data (RFC 2228, 3), and begin with TLS all the same.
    reply(stream, &["234", "334"]).await
}

/// RFC 2595, section 4.
async fn pop3<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    for command in [None, Some(&b"STLS\r\n"[..])] {
        if let Some(command) = command {
            stream.write_all(command).await?;
        }
        match line(stream).await? {
            ok if begins(&ok, b"+OK") => {}
            no if begins(&no, b"-ERR") => return Err(Error::refused(&no)),
            other => return Err(Error::unexpected(&other, "+OK or -ERR")),
        }
    }
    Ok(())
}

/// RFC 9051, 6.2.1.
async fn imap<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    match line(stream).await? {
        ok if begins(&ok, b"* OK") || begins(&ok, b"* PREAUTH") => {}
        no if begins(&no, b"* BYE") => return Err(Error::refused(&no)),
        other => return Err(Error::unexpected(&other, "* OK")),
    }

    stream.write_all(b"a1 STARTTLS\r\n").await?;
    for _ in 0..LINES {
        match line(stream).await? {
            bye if begins(&bye, b"* BYE") => return Err(Error::refused(&bye)),
            untagged if untagged.starts_with(b"* ") => {}
            ok if begins(&ok, b"a1 OK") => return Ok(()),
            no if begins(&no, b"a1 ") => return Err(Error::refused(&no)),
            other => return Err(Error::unexpected(&other, "a1 OK")),
        }
    }
    Err(Error::Garbled(format!("more than {LINES} lines")))
}

/// RFC 4511, 4.14: an extended request for 1.3.6.1.4.1.1466.20037, and an extended response with
/// result 0.
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
    if code == [0] {
        return Ok(());
    }

    let code = code.iter().take(4).fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    // matchedDN, then diagnosticMessage.
    let diagnostic = element(rest, 0x04)
        .and_then(|(_, rest)| element(rest, 0x04))
        .map_or(&[][..], |(text, _)| text);
    let refusal = format!("result {code} {}", words(diagnostic));
    Err(Error::Refused(refusal.trim_end().to_owned()))
}

/// PostgreSQL's SSLRequest: length 8, code 80877103, answered by one byte.
async fn postgres<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(Error::Refused("N (TLS is off)".to_owned())),
        // ErrorResponse: from before TLS, or from a pooler that turns everyone away.
        b'E' => {
            let mut answer = vec![0; PACKET];
            let length = stream.read(&mut answer).await?;
            Err(Error::refused(postgres_message(&answer[..length])))
        }
        other => Err(Error::unexpected(&[other], "S or N")),
    }
}

/// The message of an ErrorResponse: of its fields, each of which ends with a zero, the one with the
/// type M; or all of it, as servers before PostgreSQL 7.4 wrote it.
fn postgres_message(response: &[u8]) -> &[u8] {
    let mut fields = response.split(|byte| *byte == 0);
    fields.find_map(|field| field.strip_prefix(b"M")).unwrap_or(response)
}

/// MySQL's handshake: the server's greeting has its capabilities, and a short SSLRequest asks for
/// TLS.
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
        Some(0xff) => return Err(Error::refused(greeting.get(3..).unwrap_or(&[]))),
        _ => return Err(Error::Garbled("no protocol 10 greeting".to_owned())),
    }

    // protocol, version NUL, thread id (4), nonce (8), filler (1), capabilities (2)
    let version = greeting.iter().position(|byte| *byte == 0).unwrap_or(length);
    let at = version + 1 + 4 + 8 + 1;
    let capabilities = greeting
        .get(at..at + 2)
        .map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if capabilities & MYSQL_SSL == 0 {
        return Err(Error::refused(b"TLS is not among its capabilities"));
    }

    // capabilities (4), the longest packet (4), character set (1), filler (23)
    let flags = u32::from(MYSQL_SSL) | MYSQL_PROTOCOL_41 | MYSQL_SECURE_CONNECTION;
    let mut request = vec![32, 0, 0, 1];
    request.extend_from_slice(&flags.to_le_bytes());
    request.extend_from_slice(&0x0100_0000_u32.to_le_bytes());
    request.push(UTF8MB4);
    request.extend_from_slice(&[0; 23]);
    Ok(stream.write_all(&request).await?)
}

/// A reply of SMTP or FTP: a line `250 …`, or lines from `250-…` to `250 …`. FTP lets the lines
/// between say anything (RFC 959, 4.2).
async fn reply<S: AsyncRead + Unpin>(stream: &mut S, expected: &[&str]) -> Result<(), Error> {
    let first = line(stream).await?;
    let digits = first.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
    let Some(code) = digits.filter(|_| matches!(first.get(3), None | Some(b' ' | b'-'))) else {
        return Err(Error::unexpected(&first, &expected.join(" or ")));
    };
    if !expected.iter().any(|expected| expected.as_bytes() == code) {
        return Err(Error::refused(&first));
    }

    if first.get(3) != Some(&b'-') {
        return Ok(());
    }
    for _ in 1..LINES {
        let next = line(stream).await?;
        if next
            .strip_prefix(code)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b' ')))
        {
            return Ok(());
        }
    }
    Err(Error::Garbled(format!("more than {LINES} lines")))
}

/// Everything up to the first of these endings, read byte by byte, so that nothing after it is
/// taken.
async fn until<S: AsyncRead + Unpin>(stream: &mut S, endings: &[&str]) -> Result<Vec<u8>, Error> {
    let mut read = Vec::new();
    while !endings.iter().any(|ending| read.ends_with(ending.as_bytes())) {
        if read.len() == PACKET {
            return Err(Error::Garbled(format!(
                "more than {PACKET} bytes without {}",
                endings[0]
            )));
        }
        read.push(stream.read_u8().await?);
    }
    Ok(read)
}

/// Whether a line begins with these words, in either case (RFC 9051, 9).
fn begins(line: &[u8], words: &[u8]) -> bool {
    line.get(..words.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(words))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// One line without its end, read byte by byte, so that nothing after it is taken.
async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Error> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte if line.len() < LINE => line.push(byte),
            _ => return Err(Error::Garbled(format!("a line of more than {LINE} bytes"))),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// A server's answer, fit for a terminal and a message.
fn words(answer: &[u8]) -> String {
    printable(&cut(&String::from_utf8_lossy(answer), WORDS)).replace('"', "\\\"")
}

/// The contents of one BER SEQUENCE.
async fn ber<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Error> {
    if stream.read_u8().await? != 0x30 {
        return Err(Error::Garbled("no LDAP message".to_owned()));
    }

    // One octet, or the number of octets that follow (X.690, 8.1.3).
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

/// RFC 7162, 4, asks IMAP to bear as much.
const LINE: usize = 8_192;
const LINES: usize = 100;
const PACKET: usize = 16_384;
const WORDS: usize = 200;
const MYSQL_SSL: u16 = 0x0800;
const MYSQL_PROTOCOL_41: u32 = 0x0200;
const MYSQL_SECURE_CONNECTION: u32 = 0x8000;
const UTF8MB4: u8 = 45;
const XMPP_TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a server that says `says[0]`, waits for a command, says `says[1]` …, and hangs up.
    /// Returns what came of it, what nobody had read by then, and what the server heard.
    async fn play<B: AsRef<[u8]>>(protocol: StartTls, says: &[B]) -> (Result<(), Error>, Vec<u8>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(65_536);
        let waits = matches!(
            protocol,
            StartTls::Ldap | StartTls::Postgres | StartTls::Xmpp | StartTls::XmppServer
        );
        let says: Vec<Vec<u8>> = says.iter().map(|bytes| bytes.as_ref().to_vec()).collect();
        let playing = tokio::spawn(async move {
            // Room for all that a client says in one turn.
            let mut heard = Vec::with_capacity(1_024);
            for (index, bytes) in says.iter().enumerate() {
                if index > 0 || waits {
                    let _ = server.read_buf(&mut heard).await;
                }
                let _ = server.write_all(bytes).await;
            }
            heard
        });
        let result = upgrade(protocol, &mut client, "mail.example", &"[192.0.2.7]".parse().unwrap()).await;
        let mut rest = Vec::new();
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut rest).await;
        (result, rest, playing.await.unwrap())
    }

    fn greeting(capabilities: u16) -> Vec<u8> {
        let mut body = b"\x0a8.0.36\0\x01\0\0\0abcdefgh\0".to_vec();
        body.extend_from_slice(&capabilities.to_le_bytes());
        body.extend_from_slice(&[45, 2, 0]);
        [&[body.len() as u8, 0, 0, 0][..], &body].concat()
    }

    /// A conversation with each protocol that ends with one byte of TLS, and what a client has to
    /// say in it.
    fn conversations() -> Vec<(StartTls, Vec<Vec<u8>>, Vec<u8>)> {
        let mut ssl_request = b"\x20\0\0\x01\0\x8a\0\0\0\0\0\x01\x2d".to_vec();
        ssl_request.extend([0; 23]);
        let mysql = vec![greeting(0xffff), b"\x16".to_vec()];
        let of = |says: &[&str]| says.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        vec![
            (
                StartTls::Smtp,
                of(&[
                    "220-hi\r\n220 there\r\n",
                    "250-a\r\n250-STARTTLS\r\n250 b\r\n",
                    "220 go\r\n\x16",
                ]),
                b"EHLO [192.0.2.7]\r\nSTARTTLS\r\n".to_vec(),
            ),
            (
                StartTls::Smtp,
                of(&["220\n", "250\n", "220\n\x16"]),
                b"EHLO [192.0.2.7]\r\nSTARTTLS\r\n".to_vec(),
            ),
            (
                StartTls::Ftp,
                of(&["220 hi\r\n", "234 go\r\n\x16"]),
                b"AUTH TLS\r\n".to_vec(),
            ),
            (
                StartTls::Ftp,
                of(&["220 hi\r\n", "334 go\r\n\x16"]),
                b"AUTH TLS\r\n".to_vec(),
            ),
            (
                StartTls::Ftp,
                of(&["220-hi\r\n  it is\r\n2200 files\r\n\r\n220 here\r\n", "234 go\r\n\x16"]),
                b"AUTH TLS\r\n".to_vec(),
            ),
            (
                StartTls::Pop3,
                of(&["+OK hi\r\n", "+OK go\r\n\x16"]),
                b"STLS\r\n".to_vec(),
            ),
            (
                StartTls::Imap,
                of(&["* OK hi\r\n", "* CAPABILITY X\r\na1 OK go\r\n\x16"]),
                b"a1 STARTTLS\r\n".to_vec(),
            ),
            (
                StartTls::Ldap,
                of(&["\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0\x16"]),
                b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037".to_vec(),
            ),
            (
                // As Active Directory writes lengths.
                StartTls::Ldap,
                vec![b"\x30\x84\0\0\0\x10\x02\x01\x01\x78\x84\0\0\0\x07\x0a\x01\0\x04\0\x04\0\x16".to_vec()],
                b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037".to_vec(),
            ),
            (
                StartTls::Postgres,
                of(&["S\x16"]),
                b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(),
            ),
            (StartTls::Mysql, mysql, ssl_request),
            (
                StartTls::Lmtp,
                of(&["220 hi\r\n", "250-a\r\n250 STARTTLS\r\n", "220 go\r\n\x16"]),
                b"LHLO [192.0.2.7]\r\nSTARTTLS\r\n".to_vec(),
            ),
            (
                StartTls::Nntp,
                of(&["201 hi\r\n", "382 go\r\n\x16"]),
                b"STARTTLS\r\n".to_vec(),
            ),
            (
                StartTls::Sieve,
                of(&["\"SIEVE\" \"fileinto\"\r\n\"STARTTLS\"\r\nOK \"hi\"\r\n", "ok\r\n\x16"]),
                b"STARTTLS\r\n".to_vec(),
            ),
            (
                StartTls::Xmpp,
                of(&[
                    &format!(
                        "<?xml version='1.0'?><stream:stream from='x' id='1'><stream:features><starttls \
                         xmlns='{XMPP_TLS}'><required/></starttls></stream:features>"
                    ),
                    &format!("<proceed xmlns='{XMPP_TLS}'/>\x16"),
                ]),
                format!(
                    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                     xmlns:stream='http://etherx.jabber.org/streams' to='mail.example' version='1.0'>\
                     <starttls xmlns='{XMPP_TLS}'/>"
                )
                .into_bytes(),
            ),
            (
                StartTls::XmppServer,
                of(&[
                    &format!("<stream:stream><stream:features><starttls xmlns=\"{XMPP_TLS}\"/></stream:features>"),
                    &format!("<proceed xmlns='{XMPP_TLS}'></proceed>\x16"),
                ]),
                format!(
                    "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
                     xmlns:stream='http://etherx.jabber.org/streams' to='mail.example' version='1.0'>\
                     <starttls xmlns='{XMPP_TLS}'/>"
                )
                .into_bytes(),
            ),
        ]
    }

    #[tokio::test]
    async fn takes_not_one_byte_of_tls() {
        for (protocol, says, expected) in conversations() {
            let (result, rest, heard) = play(protocol, &says).await;
            assert!(result.is_ok(), "{protocol}: {result:?}");
            assert_eq!(rest, b"\x16", "{protocol}");
            assert_eq!(heard, expected, "{protocol}: {}", heard.escape_ascii());
        }
    }

    #[tokio::test]
    async fn words_of_imap_and_pop3_are_in_either_case() {
        for (protocol, says) in [
            (StartTls::Imap, ["* Ok hi\r\n", "A1 ok go\r\n\x16"]),
            (StartTls::Pop3, ["+ok hi\r\n", "+Ok go\r\n\x16"]),
        ] {
            let (result, rest, _) = play(protocol, &says).await;
            assert!(result.is_ok(), "{protocol}: {result:?}");
            assert_eq!(rest, b"\x16", "{protocol}");
        }
    }

    #[tokio::test]
    async fn a_server_can_hang_up_at_any_byte() {
        for (protocol, says, _) in conversations() {
            for turn in 0..says.len() {
                let tls = says[turn].len() - usize::from(turn + 1 == says.len());
                // MySQL's last turn is TLS alone, and by then the upgrade is done.
                for at in 0..tls {
                    let mut says = says[..=turn].to_vec();
                    says[turn].truncate(at);
                    let (result, ..) = play(protocol, &says).await;
                    let error = result.unwrap_err();
                    let closed = matches!(&error, Error::Io(_))
                        || matches!(&error, Error::Garbled(words) if words.contains("closed the connection"));
                    assert!(closed, "{protocol}, {at} bytes of turn {turn}: {error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn refusals_carry_the_servers_words() {
        let without_tls = greeting(0);
        let too_many = b"\x17\0\0\0\xff\x10\x04Too many connections";
        for (protocol, says, words) in [
            (
                StartTls::Smtp,
                vec![&b"220 hi\r\n"[..], b"250 hi\r\n", b"454 TLS not available\r\n"],
                "454 TLS not available",
            ),
            (StartTls::Smtp, vec![b"554 go away\r\n"], "554 go away"),
            (StartTls::Smtp, vec![b"554-go\r\n554 away\r\n"], "554-go"),
            (StartTls::Ftp, vec![b"220 hi\r\n", b"502 no\r\n"], "502 no"),
            (StartTls::Pop3, vec![b"+OK hi\r\n", b"-ERR no\r\n"], "-ERR no"),
            (StartTls::Imap, vec![b"* BYE later\r\n"], "* BYE later"),
            (StartTls::Imap, vec![b"* OK hi\r\n", b"* BYE later\r\n"], "* BYE later"),
            (
                StartTls::Imap,
                vec![b"* OK hi\r\n", b"a1 BAD \x1b[2J\"\r\n"],
                r#""a1 BAD \u{1b}[2J\"""#,
            ),
            (
                StartTls::Ldap,
                vec![b"\x30\x0e\x02\x01\x01\x78\x09\x0a\x01\x34\x04\x00\x04\x02no"],
                "\"result 52 no\"",
            ),
            (StartTls::Postgres, vec![b"N"], "TLS is off"),
            (
                StartTls::Postgres,
                vec![b"E\0\0\0\x3aSFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0"],
                "\"sorry, too many clients already\"",
            ),
            (StartTls::Postgres, vec![b"Eno such database\n\0"], "no such database"),
            (StartTls::Mysql, vec![&without_tls], "not among its capabilities"),
            (StartTls::Mysql, vec![too_many], "Too many connections"),
            (StartTls::Nntp, vec![b"200 hi\r\n", b"580 no\r\n"], "580 no"),
            (StartTls::Sieve, vec![b"OK\r\n", b"NO \"later\"\r\n"], "NO"),
            (StartTls::Xmpp, vec![b"<stream:stream><stream:features/>"], "features/>"),
            (StartTls::Xmpp, vec![b"<stream:error/></stream:stream>"], "error"),
        ] {
            let (result, ..) = play(protocol, &says).await;
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{protocol}: {error:?}");
            assert!(error.to_string().contains(words), "{protocol}: {error}");
        }
    }

    #[tokio::test]
    async fn garbage_is_said_and_cut_short() {
        let endless = vec![b'a'; 60_000];
        let chatter = b"220-more\r\n".repeat(200);
        let untagged = b"* more\r\n".repeat(200);
        let long = [&[b'a'; 2_000][..], b"\r\n"].concat();
        let line = "a line of more than 8192 bytes";
        for (protocol, says, words) in [
            (
                StartTls::Smtp,
                vec![&b"HTTP/1.1 400 Bad Request\r\n"[..]],
                r#""HTTP/1.1 400 Bad Request" (expected 220)"#,
            ),
            (StartTls::Smtp, vec![&endless], line),
            (StartTls::Smtp, vec![&long], "aaa…\" (expected 220)"),
            (StartTls::Smtp, vec![&chatter], "more than 100 lines"),
            (StartTls::Smtp, vec![b"2200 hi\r\n"], "expected 220"),
            (StartTls::Ftp, vec![&endless], line),
            (StartTls::Ftp, vec![&chatter], "more than 100 lines"),
            (StartTls::Imap, vec![b"\xff\xfe\r\n"], "expected * OK"),
            (StartTls::Imap, vec![&endless], line),
            (
                StartTls::Imap,
                vec![&b"* OK hi\r\n"[..], &untagged],
                "more than 100 lines",
            ),
            (StartTls::Pop3, vec![&endless], line),
            (
                StartTls::Pop3,
                vec![b"SSH-2.0-x\r\n"],
                r#""SSH-2.0-x" (expected +OK or -ERR)"#,
            ),
            (StartTls::Ldap, vec![b"HTTP"], "no LDAP message"),
            (
                StartTls::Ldap,
                vec![b"\x30\x84\xff\xff\xff\xff"],
                "a message of 4294967295 bytes",
            ),
            (StartTls::Ldap, vec![b"\x30\x80"], "a length of form 0x80"),
            (
                StartTls::Ldap,
                vec![b"\x30\x03\x02\x01\x01"],
                "no LDAP extended response",
            ),
            (
                StartTls::Ldap,
                vec![b"\x30\x07\x02\x01\x01\x78\x84\xff\xff"],
                "no LDAP extended response",
            ),
            (StartTls::Postgres, vec![b"HTTP"], "\"H\" (expected S or N)"),
            (StartTls::Mysql, vec![b"HTTP"], "a greeting of"),
            (StartTls::Nntp, vec![b"hi\r\n"], "expected 200 or 201"),
            (StartTls::Sieve, vec![b"220 hi\r\n"], "expected OK or NO"),
            (
                StartTls::Xmpp,
                vec![&endless],
                "more than 16384 bytes without </stream:features>",
            ),
            (StartTls::Mysql, vec![b"\x04\0\0\0\x09abc"], "no protocol 10 greeting"),
            (StartTls::Mysql, vec![b"\0\0\0\0"], "no protocol 10 greeting"),
        ] {
            let (result, ..) = play(protocol, &says).await;
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Garbled(_)), "{protocol}: {error:?}");
            assert!(error.to_string().contains(words), "{protocol}: {error}");
            assert!(error.to_string().len() < 300, "{protocol}: {error}");
        }
    }

    /// Whole conversations, with bytes changed, lost and added.
    #[tokio::test]
    async fn no_bytes_make_it_panic() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        for round in 0..2_000 {
            let conversations = conversations();
            let (protocol, mut says, _) = conversations[round % conversations.len()].clone();
            let turn = random.random_range(0..says.len());
            says.truncate(turn + 1);
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..=says[turn].len());
                match random.random_range(0..3) {
                    0 if at < says[turn].len() => says[turn][at] = random.random(),
                    1 => says[turn].truncate(at),
                    _ => says[turn].insert(at, random.random()),
                }
            }
            let (result, ..) = play(protocol, &says).await;
            if let Err(error) = result {
                let words = error.to_string();
                assert!(
                    words.len() < 500 && !words.contains(char::is_control),
                    "{protocol}: {words:?}"
                );
            }
        }
    }
}
