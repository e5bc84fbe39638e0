//! A private CA: one root, one intermediate, and leaves of any age.

use neverlapse::timestamp::Timestamp;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::Duration;

/// Issues certificates.
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf with its key, as files hold them.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The leaf alone.
    pub certificate: String,
    /// Leaf and intermediate.
    pub fullchain: String,
    /// PKCS #8.
    pub key: String,
}

impl Authority {
    /// A CA of its own.
    pub fn new() -> Result<Self> {
        Self::with(ca("neverlapse test issuer"))
    }

    /// A CA whose intermediate ends at `not_after`, perhaps before the leaves that it issues.
    pub fn ending(not_after: Timestamp) -> Result<Self> {
        let mut intermediate = ca("neverlapse test issuer");
        intermediate.not_after = not_after.into();
        Self::with(intermediate)
    }

    fn with(intermediate: CertificateParams) -> Result<Self> {
        let root = CertifiedIssuer::self_signed(ca("neverlapse test root"), KeyPair::generate()?)?;
        let intermediate = CertifiedIssuer::signed_by(intermediate, KeyPair::generate()?, &root)?;
        Ok(Self { root, intermediate })
    }

    /// The root, as a trust bundle.
    pub fn root(&self) -> String {
        self.root.pem()
    }

    /// A 90-day certificate for `name` that ends at `not_after`.
    pub fn leaf(&self, name: &str, not_after: Timestamp) -> Result<Leaf> {
        self.issue(&[name], not_after - Duration::days(90), not_after)
    }

    /// A certificate for these names and this time.
    pub fn issue(&self, names: &[&str], not_before: Timestamp, not_after: Timestamp) -> Result<Leaf> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.use_authority_key_identifier_extension = true;
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        self.sign(&params, &KeyPair::generate()?)
    }

    /// A 90-day certificate for `name`, with this private key.
    pub fn of_key(&self, name: &str, key: &str, not_after: Timestamp) -> Result<Leaf> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.use_authority_key_identifier_extension = true;
        params.not_before = (not_after - Duration::days(90)).into();
        params.not_after = not_after.into();
        self.sign(&params, &KeyPair::from_pem(key)?)
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<Leaf> {
        let certificate = params.signed_by(key, &self.intermediate)?.pem();
        let fullchain = format!("{certificate}{}", self.intermediate.pem());
        Ok(Leaf {
            certificate,
            fullchain,
            key: key.serialize_pem(),
        })
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    // All roots have one name: the identifier says which of them is the issuer.
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Writes a key where nobody else can read it.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
