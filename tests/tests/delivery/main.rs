//! Delivery against the deployed stack: three nginx behind one name, the built `neverlapse pull`,
//! and the alerts that arrive.
//!
//! The stack is deployed once for all proofs, which run one after the other; `cargo test --test
//! delivery rolled_back` runs one.

mod adopted;
mod doctor;
mod fixture;
mod proofs;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use fixture::Lab;
use libtest_mimic::{Arguments, Trial};
use neverlapse_tests::calls::Catalogue;
use tokio::runtime::Runtime;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // Alerts are those of one proof at a time, and all clusters have the same addresses.
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
        // First, because it finds what the others leave in logs and queues.
        doctor::each_fault_is_named_by_the_doctor_and_no_other,
        proofs::three_serve_what_was_renewed_and_it_is_said_once,
        proofs::a_reload_that_fails_is_told_and_the_next_run_finishes,
        proofs::who_never_pulls_is_told_after_the_grace,
        proofs::an_address_that_another_process_serves_is_told_with_both_fingerprints,
        proofs::rolled_back_it_is_installed_as_told,
        proofs::one_that_is_taken_out_of_the_inventory_is_told_until_it_is_let_go,
        adopted::from_certbot_into_the_bucket_renewed_and_back,
    ];

    let conclusion = libtest_mimic::run(&arguments, trials);
    let is_whole = arguments.filter.is_none() && arguments.skip.is_empty() && !conclusion.has_failed();
    if let Some(recorded) = lab.as_ref().and_then(|lab| lab.stack.recorded()) {
        Catalogue::read()?.compare("delivery", &recorded, is_whole)?;
    }
    // Ends the servers before their folders go.
    if let Some(lab) = lab {
        let _context = runtime.enter();
        drop(lab);
    }
    Ok(conclusion.exit_code())
}
