//! `flow completions SHELL`: the completion script of the whole command line. Unaware of workflows.

use clap::Command;
use clap_complete::Shell;

use crate::observe::Printer;

/// The completion script of `command` for `shell`. Hidden commands and options are not in it.
pub fn script(command: &Command, shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut shown(command), command.get_name(), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The command without what is hidden (`clap_complete` would offer it).
fn shown(command: &Command) -> Command {
    Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()))
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(shown))
}

/// Prints it on standard output.
pub fn run(command: &Command, shell: Shell, printer: &Printer) {
    printer.data(&script(command, shell));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_the_commands_but_not_the_hidden_ones() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (printer, captured) = Printer::captured(false);
            run(&crate::cli::args::command(), shell, &printer);
            let text = captured.out();
            for (word, there) in [
                ("explain", true),
                ("keep-going", true),
                ("__guard", false),
                ("remeasure", true),
                ("watch", true),
            ] {
                assert_eq!(text.contains(word), there, "{word} for {shell}");
            }
        }
    }
}
