//! What a `pull.toml` means, or every error in it: for `neverlapse validate`, before it goes to a
//! fleet.

use neverlapse::text::printable;
use toml::Table;

use super::config::{Config, Wanted};

/// Whether a text is a `pull.toml` and not an inventory: it has a key that only the one has.
pub(crate) fn is_configuration(text: &str) -> bool {
    let Ok(table) = text.parse::<Table>() else {
        return false;
    };
    let certificates = table.get("certificate").and_then(|value| value.as_array());
    let mut entries = certificates.into_iter().flatten().filter_map(|entry| entry.as_table());

    table.keys().any(|key| GENERAL.contains(&key.as_str()))
        || entries.any(|entry| entry.keys().any(|key| OF_A_CERTIFICATE.contains(&key.as_str())))
}

/// Says what it means on standard output, and everything that is wrong with it on standard error.
/// Answers whether it can be used.
pub(crate) fn describe(text: &str, place: &str) -> bool {
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors {
                eprintln!("error: {place}: {}", printable(&format!("{error:#}")));
            }
            return false;
        }
    };

    if config.bucket.is_none() {
        eprintln!("note: {place}: it has no bucket (expected bucket = \"…\", or neverlapse pull --from DIR)");
    }
    for wanted in &config.certificates {
        for note in notes(wanted) {
            eprintln!("note: {place}: {}: {}", wanted.name, printable(&note));
        }
        println!("{}", printable(&meaning(wanted)));
    }
    println!(
        "a pull.toml with {} and no errors",
        match config.certificates.len() {
            1 => "1 certificate".to_owned(),
            number => format!("{number} certificates"),
        }
    );
    true
}

/// What is allowed and may still not be meant.
fn notes(wanted: &Wanted) -> Vec<String> {
    let mut notes = Vec::new();

    if wanted.reload.is_none() {
        notes.push("no server is reloaded for new versions (expected reload_command)".to_owned());
    }
    if wanted.verify.is_empty() {
        notes.push("nothing checks whether it is served (expected verify = \"127.0.0.1:443\" or the like)".to_owned());
    }
    notes.extend(
        wanted
            .no_account
            .as_ref()
            .map(|reason| format!("on this machine: {reason}")),
    );
    notes
}

fn meaning(wanted: &Wanted) -> String {
    let mut meaning = format!("{}: in {}", wanted.name, wanted.live.display());
    for (what, command) in [("tests", &wanted.test), ("reloads", &wanted.reload)] {
        if let Some(command) = command {
            meaning += &format!(", {what} by {command}");
        }
    }
    if !wanted.verify.is_empty() {
        let places: Vec<_> = wanted.verify.iter().map(ToString::to_string).collect();
        meaning += &format!(", checks {}", places.join(", "));
    }
    match wanted.window {
        Some(window) => meaning + &format!(", changes at {window} UTC"),
        None => meaning,
    }
}

/// Keys that no inventory has.
const GENERAL: [&str; 13] = [
    "bucket",
    "region",
    "instance",
    "folder",
    "state",
    "runs_every_hours",
    "test_command",
    "reload_command",
    "reload_each",
    "command_timeout_seconds",
    "verify_timeout_seconds",
    "window",
    "metrics_file",
];
const OF_A_CERTIFICATE: [&str; 12] = [
    "owner",
    "group",
    "key_mode",
    "combined",
    "pkcs12_password_file",
    "test_command",
    "reload_command",
    "reload_each",
    "verify",
    "server_name",
    "window",
    "allow_staging",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_of_our_files_it_is() {
        let pull = include_str!("../../../docs/pull.example.toml");
        let inventory = include_str!("../../../docs/inventory.example.toml");
        for (text, expected) in [
            (pull, true),
            (inventory, false),
            ("bukcket = 'x'\n[[certificate]]\nname = 'a'\nverify = 'x:y'", true),
            ("bucket = 'x'\nbukcket = 'y'", true),
            ("[[certificate]]\nname = 'a'\nidentifiers = ['a.test']", false),
            ("", false),
            ("[", false),
        ] {
            assert_eq!(is_configuration(text), expected, "{text}");
        }
    }
}
