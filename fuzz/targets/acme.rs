//! What a CA answers: problem documents with their headers, renewal information, and the chain that
//! it issued for our key.

#![no_main]
#![allow(dead_code, reason = "modules of the renewer, of which a target calls a part")]

mod hostile;

#[path = "../../functions/renewer/src/error.rs"]
mod error;
#[path = "../../functions/renewer/src/key.rs"]
mod key;
#[path = "../../functions/renewer/src/acme"]
mod acme {
    pub(crate) mod http;
    pub(crate) mod problem;
}
#[path = "../../functions/renewer/src/bucket"]
mod bucket {
    pub(crate) mod attempt;
    pub(crate) mod issued;
}
#[path = "../../functions/renewer/src/dns"]
mod dns {
    pub(crate) mod record;
}

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use http::header::{LINK, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use instant_acme::Problem;
use libfuzzer_sys::fuzz_target;
use neverlapse::bucket::version::{CERT, CHAIN, FULLCHAIN, PRIVKEY};
use neverlapse::inventory::{Inventory, Issuer, KeyType};
use neverlapse::renewal::RenewalInfo;

use crate::acme::http::retry_after;
use crate::acme::problem::{self, Step};
use crate::bucket::attempt::Attempt;
use crate::bucket::issued::Expected;
use crate::hostile::NOW;
use crate::key::PrivateKey;

fuzz_target!(|data: &[u8]| {
    let mut wish = Unstructured::new(data);
    let _ = match wish.int_in_range(0..=2u8) {
        Ok(0) => refusal(&mut wish),
        Ok(1) => renewal_info(&mut wish),
        Ok(_) => chain(&mut wish),
        Err(_) => Ok(()),
    };
});

/// Whatever an error's body is, it becomes a problem that people can read, and a wait that ends.
fn refusal(wish: &mut Unstructured<'_>) -> Result<()> {
    let step = *wish.choose(&[
        Step::Account,
        Step::Order,
        Step::Validation,
        Step::Finalize,
        Step::Revocation,
    ])?;
    let status = StatusCode::from_u16(wish.int_in_range(100..=599)?).expect("a status");
    let mut headers = HeaderMap::new();
    for name in [RETRY_AFTER, LINK] {
        let length = wish.int_in_range(0..=200usize)?.min(wish.len());
        if let Ok(value) = HeaderValue::from_bytes(wish.bytes(length)?) {
            headers.append(name, value);
        }
    }

    let until = retry_after(&headers, NOW);
    assert!(
        until.is_none_or(|until| until <= NOW + time::Duration::days(8)),
        "{until:?}"
    );
    let document = problem::document(
        status,
        &headers,
        wish.peek_bytes(wish.len()).unwrap_or_default(),
        "https://ca.test/",
    );
    let problem: Problem = serde_json::from_str(&document).expect("a problem that the library reads");
    assert_eq!(problem.status, Some(status.as_u16()));
    problem::is_about_replaces(&problem);

    let text = problem::describe(&problem, step);
    assert!(!text.is_empty());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    problem::error(step, instant_acme::Error::Api(problem), until);
    Ok(())
}

/// A window of any two times gives a moment within it, or none.
fn renewal_info(wish: &mut Unstructured<'_>) -> Result<()> {
    let draw = f64::from(wish.arbitrary::<u16>()?) / f64::from(u16::MAX);
    let Ok(answer) =
        serde_json::from_slice::<instant_acme::RenewalInfo>(wish.peek_bytes(wish.len()).unwrap_or_default())
    else {
        return Ok(());
    };
    let window = answer.suggested_window;
    let window = (window.start.into(), window.end.into());
    let ask_again_at = NOW + time::Duration::HOUR;

    let first = RenewalInfo::of("v", window, answer.explanation_url.clone(), ask_again_at, None, draw);
    let later = RenewalInfo::of(
        "v",
        window,
        answer.explanation_url,
        ask_again_at,
        first.as_ref(),
        1.0 - draw,
    );
    assert_eq!(first.is_some(), later.is_some());
    if let (Some(first), Some(later)) = (first, later) {
        assert_eq!(first.renew_at, later.renew_at, "one draw for a window");
        assert!(window.0 <= first.renew_at && first.renew_at <= window.1);
    }
    Ok(())
}

/// What is published is ours, whole and valid, whatever the CA put around it.
fn chain(wish: &mut Unstructured<'_>) -> Result<()> {
    let mut pem = String::new();
    if wish.ratio(1, 8)? {
        pem = String::from_utf8_lossy(wish.peek_bytes(wish.len()).unwrap_or_default()).into_owned();
    } else {
        for certificate in hostile::chain(wish)? {
            pem.push_str(&hostile::pem("CERTIFICATE", &certificate));
        }
    }
    let (attempt, issuer) = ours();
    let expected = Expected {
        name: "a.test",
        attempt,
        issuer,
        roots: hostile::roots(),
    };

    expected.valid_from(&pem, NOW);
    if let Ok(issued) = expected.check(&pem, NOW) {
        assert!(issued.facts.not_after > NOW);
        assert_eq!(
            issued.files[FULLCHAIN],
            [issued.files[CERT].as_slice(), &issued.files[CHAIN]].concat()
        );
        assert_eq!(issued.files[PRIVKEY], attempt.key.pem().as_bytes());
    }
    Ok(())
}

fn ours() -> &'static (Attempt, Issuer) {
    static OURS: OnceLock<(Attempt, Issuer)> = OnceLock::new();
    OURS.get_or_init(|| {
        let attempt = Attempt {
            version: "20261124T060000Z-00000000".into(),
            issuer: "letsencrypt".into(),
            directory: "https://ca.test/directory".into(),
            account: "https://ca.test/account/1".into(),
            identifiers: vec!["a.test".into()],
            key_type: KeyType::EcdsaP256,
            profile: None,
            key: PrivateKey::from_pem(hostile::keys()[0].serialize_pem()),
            order: None,
            txt: Vec::new(),
            began_at: None,
            resumed: 0,
            given_up: false,
        };
        let issuer = Inventory::parse("")
            .issuers
            .remove("letsencrypt")
            .expect("an issuer that is built in");
        (attempt, issuer)
    })
}
