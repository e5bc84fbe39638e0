//! What people write where an endpoint, a host or a name server is expected.

#![no_main]

use libfuzzer_sys::fuzz_target;
use neverlapse::endpoint::Endpoint;

fuzz_target!(|text: &str| {
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        // What is shown is read back the same.
        let shown = endpoint.to_string();
        assert_eq!(
            shown.parse::<Endpoint>().as_ref(),
            Ok(&endpoint),
            "{text:?} is shown as {shown:?}"
        );
    }
});
