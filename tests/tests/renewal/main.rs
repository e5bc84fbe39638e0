//! The deployed renewer, as its users meet it: a real ACME server, DNS from the emulated Route 53, and what then stands in the bucket.
//!
//! The stack is deployed once for all proofs, which run one after the other; `cargo test --test renewal killed` runs one.

mod killed;
mod lab;
mod proofs;
mod refused;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use lab::Lab;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // Alerts and counts are those of one proof at a time.
    arguments.test_threads = Some(1);
    let runtime = Arc::new(Runtime::new()?);
    let lab = match arguments.list {
        true => None,
        false => Some(Arc::new(runtime.block_on(Lab::open())?)),
    };
    macro_rules! trials {
        ($($proof:path),* $(,)?) => {
            vec![$({
                let (runtime, lab) = (runtime.clone(), lab.clone());
                let name = stringify!($proof).rsplit("::").next().unwrap_or_default().trim();
                Trial::test(name, move || {
                    let lab = lab.ok_or("there is no lab in a list")?;
                    runtime.block_on($proof(&lab)).map_err(|error| format!("{error:?}").into())
                })
            }),*]
        };
    }
    let trials = trials![
        proofs::the_probe_asks_and_apex_wildcard_and_a_delegated_name_are_issued,
        proofs::ten_deliveries_make_one_certificate,
        proofs::two_certificates_and_a_foreign_value_share_a_name,
        killed::killed_at_every_step_it_finishes_with_one_certificate,
        proofs::with_every_fourth_nonce_rejected_twenty_of_twenty_are_issued,
        proofs::an_external_account_a_profile_an_advised_window_and_another_account,
        refused::what_cannot_be_done_is_told_and_loses_nothing,
        refused::what_the_bucket_refuses_is_told_and_makes_no_account,
        proofs::a_hundred_due_at_once_stay_within_the_concurrency,
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Ends the servers before their folders go.
    if let Some(lab) = lab {
        let _context = runtime.enter();
        drop(lab);
    }
    Ok(conclusion.exit_code())
}
