//! What to write into `inventory.toml` and `pull.toml` for certificates that were certbot's.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use neverlapse::bucket::version::Facts;

use super::lineage::{LETS_ENCRYPT, Lineage, issuer};

/// Entries for `inventory.toml`.
pub(crate) fn inventory(adopted: &[(Lineage, Facts)]) -> String {
    let mut text = String::new();
    for (lineage, facts) in adopted {
        let _ = write!(
            text,
            "[[certificate]]\nname = {:?}\nidentifiers = {:?}\nkey_type = \"{}\"\n",
            lineage.name, facts.identifiers, facts.key
        );
        if facts.issuer.directory != LETS_ENCRYPT {
            let _ = writeln!(text, "issuers = [{:?}]", facts.issuer.name);
        }
        text.push('\n');
    }

    // Those that are built in need no entry.
    let issuers: BTreeMap<_, _> = adopted
        .iter()
        .map(|(lineage, _)| (issuer(lineage.directory()), lineage.directory()))
        .filter(|(name, _)| !name.starts_with("letsencrypt"))
        .collect();
    for (name, directory) in issuers {
        let _ = writeln!(
            text,
            "[issuer.{name}]\ndirectory = {directory:?}\n# eab = true, ca = \"ca/….pem\": if it wants them\n"
        );
    }
    text
}

/// A `pull.toml` for a host that serves all of them.
pub(crate) fn pull(bucket: Option<&str>, adopted: &[(Lineage, Facts)], hooks: &Path) -> String {
    let bucket = bucket.unwrap_or("YOUR-BUCKET");
    let mut text = format!("bucket = {bucket:?}\n");
    if std::fs::read_dir(hooks).is_ok_and(|mut entries| entries.next().is_some()) {
        let _ = writeln!(
            text,
            "# certbot ran {}/* too: put what is needed of it into reload_command",
            hooks.display()
        );
    }

    for (lineage, facts) in adopted {
        let _ = write!(text, "\n[[certificate]]\nname = {:?}\n", lineage.name);
        match (lineage.installer(), lineage.hook()) {
            (Some("nginx"), None) => text += NGINX,
            (Some("apache"), None) => text += APACHE,
            (_, Some(hook)) => {
                let _ = writeln!(
                    text,
                    "reload_command = {hook:?}   # what certbot ran; once for each certificate"
                );
                text += "reload_each = true\n";
            }
            (_, None) => text += UNKNOWN,
        }
        text += "verify = \"127.0.0.1:443\"\n";
        if facts.issuer.staging {
            text += "allow_staging = true\n";
        }
    }
    text
}

const NGINX: &str = "test_command = [\"nginx\", \"-t\"]\nreload_command = \"systemctl reload-or-restart nginx\"\n";
const APACHE: &str =
    "test_command = [\"apachectl\", \"configtest\"]\nreload_command = \"systemctl reload-or-restart apache2\"\n";
const UNKNOWN: &str =
    "# test_command = [\"nginx\", \"-t\"]\n# reload_command = \"systemctl reload-or-restart nginx\"\n";
