//! The list of commands in `neverlapse --help`, grouped by where they are used.

use std::fmt::Write;

use clap::Command;

/// The same command, whose help lists its subcommands in groups. None is left out: what is neither
/// for anywhere nor for an instance is for a stack.
pub(crate) fn grouped(command: Command) -> Command {
    let mut list = String::new();
    for (heading, group) in [
        ("Anywhere", Group::Anywhere),
        ("For a stack", Group::Stack),
        ("On an instance", Group::Instance),
    ] {
        let _ = writeln!(list, "{heading}:");

        let shown = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
        for subcommand in shown.filter(|subcommand| Group::of(subcommand.get_name()) == group) {
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

/// Where a command is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Anywhere,
    Stack,
    Instance,
}

impl Group {
    fn of(command: &str) -> Self {
        match command {
            "pull" | "adopt" => Self::Instance,
            "check" | "init" | "validate" | "explain" | "schema" | "completions" => Self::Anywhere,
            _ => Self::Stack,
        }
    }
}
