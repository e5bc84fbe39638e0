//! The name that a client gives a mail server.

use std::net::IpAddr;
use std::str::FromStr;

/// What EHLO says of this client (RFC 5321, 4.1.1.1): a domain name, or an address in brackets.
///
/// Servers may refuse a name that has no address in DNS. A client that has no such name gives its
/// address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ehlo(String);

impl Ehlo {
    /// The address literal of a client without a name (RFC 5321, 4.1.3).
    pub fn literal(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        })
    }
}

impl AsRef<str> for Ehlo {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ehlo {
    type Err = String;

    /// Takes what fits into one command, and no line end that would begin another.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_word {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a name that a client can give (expected {EXPECTED})"
            ))
        }
    }
}

/// How it is written.
pub const EXPECTED: &str = "a domain name such as probe.example.com, or an address such as [192.0.2.7]";
/// RFC 5321, 4.5.3.1.2.
const LONGEST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_word_and_an_address_is_in_brackets() {
        for (text, is_right) in [
            ("probe.example.com", true),
            ("[192.0.2.7]", true),
            ("[IPv6:2001:db8::1]", true),
            ("", false),
            ("two words", false),
            ("a\r\nRSET", false),
            ("bücher.example", false),
        ] {
            assert_eq!(text.parse::<Ehlo>().is_ok(), is_right, "{text:?}");
        }
        for (address, expected) in [
            ("192.0.2.7", "[192.0.2.7]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("::ffff:192.0.2.7", "[192.0.2.7]"),
        ] {
            assert_eq!(Ehlo::literal(address.parse().unwrap()).as_ref(), expected);
        }
    }
}
