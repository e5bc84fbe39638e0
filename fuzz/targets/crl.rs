//! Revocation lists, of which the target signs the hostile ones itself.

#![no_main]

mod hostile;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use neverlapse::crl::{Status, judge};
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, KeyIdMethod, KeyPair,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use tokio_rustls::rustls::pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    let mut wish = Unstructured::new(data);
    let Ok(leaf) = leaf(&mut wish) else { return };
    let signed = if wish.arbitrary().unwrap_or(false) {
        list(&mut wish).ok().flatten()
    } else {
        None
    };
    let is_signed = signed.is_some();
    let mut list = match signed {
        Some(list) => list,
        None => wish.bytes(wish.len()).unwrap_or_default().to_vec(),
    };
    if is_signed && wish.ratio(1, 3).unwrap_or(false) && !list.is_empty() {
        let at = wish.choose_index(list.len()).unwrap_or(0);
        list[at] ^= 1;
    }

    let status = judge(&list, &leaf, &[], hostile::roots(), hostile::NOW);
    if !is_signed {
        // Nobody but the issuer revokes anything, or vouches for it.
        assert!(matches!(status, Status::Unknown { .. }), "{status:?}");
    }
    status.finding(hostile::NOW);
});

fn leaf(wish: &mut Unstructured<'_>) -> Result<CertificateDer<'static>> {
    let params = hostile::params(wish, false)?;
    let key = KeyPair::generate().map_err(|_| arbitrary::Error::IncorrectFormat)?;
    let leaf = params
        .signed_by(&key, hostile::root())
        .map_err(|_| arbitrary::Error::IncorrectFormat)?;
    Ok(leaf.der().clone())
}

fn list(wish: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
    let serial = |wish: &mut Unstructured<'_>| {
        let length = wish.int_in_range(0..=24usize)?.min(wish.len());
        Ok::<_, arbitrary::Error>(SerialNumber::from_slice(wish.bytes(length)?))
    };
    let mut revoked_certs = Vec::new();
    for _ in 0..wish.int_in_range(0..=5)? {
        revoked_certs.push(RevokedCertParams {
            serial_number: serial(wish)?,
            revocation_time: (hostile::NOW + time::Duration::days(wish.arbitrary::<i16>()?.into())).into(),
            reason_code: wish.arbitrary::<bool>()?.then_some(RevocationReason::RemoveFromCrl),
            invalidity_date: None,
        });
    }
    let params = CertificateRevocationListParams {
        this_update: (hostile::NOW - time::Duration::days(wish.arbitrary::<u8>()?.into())).into(),
        next_update: (hostile::NOW + time::Duration::days(wish.arbitrary::<i16>()?.into())).into(),
        crl_number: serial(wish)?,
        issuing_distribution_point: wish.arbitrary::<bool>()?.then(|| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://ca.test/list.crl".to_owned()],
            },
            scope: Some(CrlScope::UserCertsOnly),
        }),
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(hostile::root()).ok().map(|list| list.der().to_vec()))
}
