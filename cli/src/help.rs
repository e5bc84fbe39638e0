//! The list of commands in `neverlapse --help`, grouped by where they are used.

use std::fmt::Write;

use clap::Command;

/// The same command, whose help lists its subcommands in groups.
pub(crate) fn grouped(command: Command) -> Command {
    let mut list = String::new();
    for (heading, names) in GROUPS {
        let _ = writeln!(list, "{heading}:");
        for subcommand in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(list, "  {:<20} {about}", subcommand.get_name());
        }
        list.push('\n');
    }
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}\n\n\
         `neverlapse COMMAND --help` has the options and examples of a command."
    ))
}

const GROUPS: [(&str, &[&str]); 3] = [
    ("Anywhere", &["check", "init", "validate", "schema", "completions"]),
    (
        "For a stack",
        &[
            "run",
            "status",
            "report",
            "discover",
            "plan",
            "renew",
            "rollback",
            "revoke",
            "replace-account-key",
            "test-alert",
        ],
    ),
    ("On an instance", &["pull"]),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Arguments;

    #[test]
    fn every_command_is_in_a_group() {
        let command = Arguments::command();
        let listed: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            assert!(listed.contains(&subcommand.get_name()), "{}", subcommand.get_name());
        }
        for name in listed {
            assert!(command.find_subcommand(name).is_some(), "{name}");
        }
    }
}
