//! The renewer's place. It is not written yet, and the template does not deploy it.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("renewer: not written yet; neverlapse watches certificates, it does not renew them");
    ExitCode::FAILURE
}
