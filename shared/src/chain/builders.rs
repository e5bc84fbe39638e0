//! How clients build a path that do not go back: OpenSSL and GnuTLS take one certificate of an
//! issuer's name, and refuse the chain if that was the wrong one (RFC 4158, 2.4, wants them to go
//! on).

use x509_parser::certificate::X509Certificate;

use super::issuer::{KeyMatch, Sent, has_signed, is_valid_at};
use super::path::{Path, is_self_issued};
use crate::chain::roots::Roots;
use crate::der;
use crate::distinguished_name::{is_same, text};

/// What a path can be built of.
pub(super) struct Material<'a> {
    pub(super) leaf: &'a X509Certificate<'a>,
    /// Everything that was sent besides the leaf, in the server's order.
    pub(super) sent: &'a [Sent<'a>],
    pub(super) roots: &'a Roots,
    /// The parsed certificates of [`Roots::dated`].
    pub(super) dated: &'a [Sent<'a>],
    /// The path that was found, to a trusted root.
    pub(super) path: &'a Path<'a>,
    /// Whether the server sent an OCSP response, if that is known.
    pub(super) has_staple: Option<bool>,
    /// As of when, as a Unix time.
    pub(super) now: i64,
}

/// Which of the certificates of an issuer's name a client takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// As OpenSSL: the first trusted one; else the first one that was sent. One that is valid now,
    /// if there is any.
    TrustedThenSent,
    /// As GnuTLS: the first one that was sent; else the last trusted one that is valid now.
    SentThenTrusted,
}

/// The clients that take a wrong certificate, and the name of the issuer of which there are
/// several.
pub(super) fn misled(material: &Material<'_>) -> Vec<(&'static [&'static str], String)> {
    // What all of them refuse needs no more words.
    if !material
        .path
        .above_leaf()
        .all(|(_, certificate)| material.is_valid(certificate))
    {
        return Vec::new();
    }

    let openssl = material.first_wrong(Choice::TrustedThenSent);
    let gnutls = material.first_wrong(Choice::SentThenTrusted);
    match (openssl, gnutls) {
        (Some(issuer), Some(other)) if issuer == other => vec![(&["OpenSSL", "curl", "GnuTLS"], issuer)],
        (openssl, gnutls) => {
            let openssl = openssl.map(|issuer| (&["OpenSSL", "curl"][..], issuer));
            let gnutls = gnutls.map(|issuer| (&["GnuTLS"][..], issuer));
            openssl.into_iter().chain(gnutls).collect()
        }
    }
}

impl<'a> Material<'a> {
    /// The name of the first issuer of which a client takes a certificate that has not signed the
    /// one below it, or is not valid now, although there is another one of that name in the path.
    fn first_wrong(&self, choice: Choice) -> Option<String> {
        let mut child = self.leaf;
        let mut taken = Vec::<&X509Certificate<'_>>::new();
        while !is_self_issued(child) {
            let issuer = self.issuer_of(child, &taken, choice)?;
            let is_in_path = self
                .path
                .above_leaf()
                .any(|(_, certificate)| certificate.as_ref() == issuer.as_ref());
            // Signatures are most of what a judgement takes, so this is not asked of all.
            let is_as_good = || self.is_valid(issuer) && has_signed(issuer.public_key().raw, child);
            if !is_in_path && !is_as_good() {
                return Some(text(issuer.subject()));
            }
            taken.push(issuer);
            child = issuer;
        }
        None
    }

    /// What a client takes for the issuer of a certificate; none if there is no choice.
    fn issuer_of(
        &self,
        child: &X509Certificate<'_>,
        taken: &[&X509Certificate<'_>],
        choice: Choice,
    ) -> Option<&'a X509Certificate<'a>> {
        let is_issuer = |issuer: &&X509Certificate<'_>| {
            is_same(issuer.subject().as_raw(), child.issuer().as_raw())
                && KeyMatch::of(child, issuer) != KeyMatch::Other
        };
        let trusted = self.dated.iter().map(|(_, certificate)| certificate);
        let trusted: Vec<_> = trusted.filter(is_issuer).collect();
        let sent: Vec<_> = (self.sent.iter().map(|(_, certificate)| certificate))
            .filter(is_issuer)
            .filter(|issuer| !taken.iter().any(|earlier| std::ptr::eq(*earlier, *issuer)))
            .collect();

        match choice {
            // A public root that has signed it ends the path, whatever was sent.
            _ if self.is_signed_by_public_root(child) => None,
            Choice::TrustedThenSent => [trusted, sent].iter().find_map(|some| {
                some.iter()
                    .copied()
                    .find(|issuer| self.is_valid(issuer))
                    .or(some.first().copied())
            }),
            Choice::SentThenTrusted => match sent.first().copied() {
                Some(first) => {
                    // Of a trusted key, it needs no certificate.
                    let mut keys = trusted.iter().map(|root| root.public_key().raw);
                    (!keys.any(|key| key == first.public_key().raw)).then_some(first)
                }
                None => trusted.into_iter().rev().find(|root| self.is_valid(root)),
            },
        }
    }

    fn is_valid(&self, certificate: &X509Certificate<'_>) -> bool {
        is_valid_at(certificate, self.now)
    }

    fn is_signed_by_public_root(&self, child: &X509Certificate<'_>) -> bool {
        // The path's own signatures have been verified.
        let issuers = &self.path.issuers;
        let top = issuers.last().map_or(self.leaf, |(_, certificate)| certificate);
        if self.path.root.is_none() && top.as_ref() == child.as_ref() {
            return true;
        }
        let mut public = self.roots.public_of_subject(child.issuer().as_raw());
        public.any(|anchor| has_signed(&der::encode(SEQUENCE, &anchor.subject_public_key_info), child))
    }
}

const SEQUENCE: u8 = 0x30;
