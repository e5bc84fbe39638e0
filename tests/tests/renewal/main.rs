//! The deployed renewer, as its users meet it: a real ACME server, DNS from the emulated Route 53,
//! and what then stands in the bucket.
//!
//! The stack is deployed once for all proofs. One at a time has it for itself; those with a bucket
//! of their own run beside that. `cargo test --test renewal killed` runs those whose name has that
//! in it.

mod asked;
mod bucket;
mod chains;
mod dns;
mod faults;
mod fixture;
mod herd;
mod isolated;
mod issuance;
mod issuers;
mod keys;
mod killed;
mod planned;
mod records;
mod refused;
mod stuck;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use fixture::Lab;
use libtest_mimic::{Arguments, Trial};
use neverlapse_tests::calls::Catalogue;
use tokio::runtime::Runtime;
use tokio::time::Instant;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(SIDE_BY_SIDE));
    let runtime = Arc::new(Runtime::new()?);
    let lab = match arguments.list {
        true => None,
        false => Some(Arc::new(runtime.block_on(Lab::open())?)),
    };
    // The stack's inventory, queue and counts are those of one proof at a time.
    let stack = Arc::new(Mutex::new(()));

    macro_rules! trials {
        ($stack:expr; $($proof:path),* $(,)?) => {
            vec![$({
                let (runtime, lab) = (runtime.clone(), lab.clone());
                let stack: Option<Arc<Mutex<()>>> = $stack;
                let name = stringify!($proof).rsplit("::").next().unwrap_or_default().trim();
                Trial::test(name, move || {
                    let lab = lab.ok_or("there is no lab in a list")?;
                    let alone = stack.as_ref().map(|stack| stack.lock().unwrap_or_else(PoisonError::into_inner));
                    if alone.is_some() {
                        runtime.block_on(lab.purge())?;
                    }
                    let (begun, proved) = (Instant::now(), runtime.block_on($proof(&lab)));
                    println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
                    proved.map_err(|error| format!("{error:?}").into())
                })
            }),*]
        };
    }

    // The long ones first.
    let mut trials = trials![None;
        faults::what_every_fault_at_every_step_becomes,
        killed::killed_at_every_step_it_finishes_with_one_certificate,
        killed::an_account_key_is_replaced_once_wherever_it_dies,
        stuck::an_order_that_is_stuck_is_given_up_for_the_next_issuer,
        stuck::an_order_in_place_of_a_dead_one_is_given_up_too,
        stuck::an_issuer_that_answers_slowly_leaves_time_for_the_next,
        keys::every_kind_of_key_and_a_hundred_names,
        asked::the_last_five_versions_are_kept_and_an_earlier_one_that_is_current,
        herd::a_limit_of_the_account_is_one_alert_and_one_wait,
        dns::a_change_that_route_53_never_calls_in_sync_is_waited_for,
        issuers::the_second_issues_when_the_first_does_not,
        dns::the_zones_real_name_servers_are_asked,
        dns::a_busy_route_53_and_a_change_in_between_lose_nothing,
        dns::cnames_that_lead_in_circles_and_many_that_lead_to_one,
        dns::cnames_that_wildcards_make_up_are_not_followed,
        dns::nothing_is_written_where_the_zone_delegates_to_others,
        dns::beside_multivalue_answers_of_another_client_ours_come_and_go,
        dns::a_zone_in_another_account_is_reached_by_its_role_alone,
        issuers::nothing_is_asked_before_the_time_that_an_issuer_named,
        issuers::a_changed_contact_is_told_to_the_ca_once,
        issuers::a_key_change_that_the_ca_refuses_costs_no_certificate,
        issuers::another_directory_is_due_and_has_an_account_of_its_own,
        issuers::where_authorizations_are_valid_already_no_txt_record_is_written,
        chains::the_chain_ends_at_the_preferred_root_where_one_is_offered,
        chains::a_chain_that_can_be_served_is_taken_where_the_cas_own_cannot,
        chains::an_account_and_its_first_order_take_one_directory_and_one_nonce,
        records::a_damaged_record_is_named_and_costs_its_own_certificate_alone,
        records::waits_that_no_renewer_writes_hold_nothing_up,
        stuck::nothing_is_stuck_at_what_passes_or_at_a_dead_order,
        stuck::txt_records_that_are_stuck_keep_no_certificate_from_being_published,
        keys::an_order_that_another_certificate_finalized_is_made_anew,
        keys::a_kept_key_is_kept_and_nothing_secret_is_logged_at_trace,
    ];

    let alone = trials![Some(stack.clone());
        refused::what_cannot_be_done_is_told_and_loses_nothing,
        issuance::a_hundred_due_at_once_stay_within_the_concurrency,
        issuance::the_probe_asks_and_apex_wildcard_and_a_delegated_name_are_issued,
        issuance::ten_deliveries_make_one_certificate,
        issuance::two_certificates_and_a_foreign_value_share_a_name,
        issuance::the_second_schedule_renews_too,
        issuance::with_every_fourth_nonce_rejected_twenty_of_twenty_are_issued,
        issuance::an_external_account_a_profile_an_advised_window_and_another_account,
        asked::plan_dry_run_renew_rollback_and_revoke_by_command,
        planned::what_keeps_a_certificate_from_being_issued_is_named_beforehand,
        refused::what_the_bucket_refuses_is_told_and_makes_no_account,
    ];
    // Scattered, so that few of them wait for another one's end.
    for (number, trial) in alone.into_iter().enumerate() {
        trials.insert(3 * number + 2, trial);
    }

    let conclusion = libtest_mimic::run(&arguments, trials);
    let is_whole = arguments.filter.is_none() && arguments.skip.is_empty() && !conclusion.has_failed();
    if let Some(recorded) = lab.as_ref().and_then(|lab| lab.stack.recorded()) {
        Catalogue::read()?.compare("renewal", &recorded, is_whole)?;
    }
    // Ends the servers before their folders go.
    if let Some(lab) = lab {
        let _context = runtime.enter();
        drop(lab);
    }
    Ok(conclusion.exit_code())
}

/// Each waits more than it works.
const SIDE_BY_SIDE: usize = 4;
