//! `docs/reference/cli.md`, made from the definition of the command line. Unaware of what the commands do.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

/// The page: one section per command that is shown, in the order of the help.
pub fn markdown(command: Command) -> String {
    let mut command = command;
    command.build();
    let mut out = String::from(
        "# Command line\n\n<!-- made from src/cli/args; FLOW_UPDATE=1 cargo test writes it -->\n\n",
    );
    push_text(&mut out, about(&command));
    out.push_str("| command | what it does |\n| --- | --- |\n");
    let name = command.get_name().to_owned();
    for sub in shown(&command) {
        let title = format!("{name} {}", sub.get_name());
        let line = sub.get_about().map(ToString::to_string).unwrap_or_default();
        push(&mut out, format_args!("| [`{title}`](#{}) | {} |\n", title.replace(' ', "-"), cell(&line)));
    }
    out.push('\n');
    options(&mut out, "Global options", command.get_arguments().filter(|arg| arg.is_global_set()));
    after_help(&mut out, &command);
    for sub in shown(&command) {
        section(&mut out, &name, sub, 2);
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out.push('\n');
    out
}

fn section(out: &mut String, parent: &str, command: &Command, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    push(out, format_args!("{} {name}\n\n", "#".repeat(level)));
    push_text(out, about(command));
    push(out, format_args!("```\n{}\n```\n\n", usage(&name, command)));
    let own = || command.get_arguments().filter(|arg| !arg.is_global_set());
    options(out, "Arguments", own().filter(|arg| arg.is_positional()));
    options(out, "Options", own().filter(|arg| !arg.is_positional()));
    after_help(out, command);
    for sub in shown(command) {
        section(out, &name, sub, level + 1);
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

fn about(command: &Command) -> String {
    command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default()
}

fn usage(name: &str, command: &Command) -> String {
    let mut out = name.to_owned();
    let arguments = || command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set());
    if arguments().any(|arg| !arg.is_positional() && arg.get_id() != "help") {
        out.push_str(" [OPTIONS]");
    }
    for arg in arguments().filter(|arg| arg.is_positional()) {
        let value = value_name(arg);
        let many = if matches!(arg.get_action(), ArgAction::Append) { "..." } else { "" };
        let dashes = if arg.is_last_set() { "-- " } else { "" };
        if arg.is_required_set() {
            push(&mut out, format_args!(" {dashes}{value}{many}"));
        } else {
            push(&mut out, format_args!(" [{dashes}{value}{many}]"));
        }
    }
    if shown(command).next().is_some() {
        out.push_str(if command.is_subcommand_required_set() { " WHAT" } else { " [WHAT]" });
    }
    out
}

fn options<'a>(out: &mut String, title: &str, args: impl Iterator<Item = &'a Arg>) {
    let args: Vec<&Arg> = args.filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").collect();
    if args.is_empty() {
        return;
    }
    push(out, format_args!("{title}:\n\n"));
    for arg in args {
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        push(out, format_args!("- `{}`: {}", spelling(arg), sentence(&help)));
        let values: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|value| arg.get_action().takes_values() && !value.is_hide_set())
            .map(|value| match value.get_help() {
                Some(help) => format!("`{}` ({})", value.get_name(), help.to_string().trim_end_matches('.')),
                None => format!("`{}`", value.get_name()),
            })
            .collect();
        if !values.is_empty() {
            push(out, format_args!(" One of {}.", values.join(", ")));
        }
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        if arg.get_action().takes_values() && !defaults.is_empty() {
            push(out, format_args!(" Default: {}.", defaults.join(", ")));
        }
        out.push('\n');
    }
    out.push('\n');
}

fn spelling(arg: &Arg) -> String {
    let value = value_name(arg);
    if arg.is_positional() {
        return value;
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let mut out = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        match (optional, arg.is_require_equals_set()) {
            (true, true) => push(&mut out, format_args!("[={value}]")),
            (true, false) => push(&mut out, format_args!(" [{value}]")),
            (false, _) => push(&mut out, format_args!(" {value}")),
        }
    }
    out
}

fn value_name(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn after_help(out: &mut String, command: &Command) {
    if let Some(text) = command.get_after_help() {
        push(out, format_args!("```text\n{}\n```\n\n", text.to_string().trim()));
    }
}

fn push_text(out: &mut String, text: String) {
    push(out, format_args!("{}\n\n", sentence(&text)));
}

/// With the full stop that clap takes away.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', ':', ';', '!', '?']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writing to a text cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_current() {
        let page = markdown(crate::cli::args::command());
        crate::observe::check_current("docs/reference/cli.md", &page).unwrap();
    }

    #[test]
    fn hidden_things_are_not_in_it_and_shown_ones_are() {
        let page = markdown(crate::cli::args::command());
        for absent in ["__guard", "--part", "flow init"] {
            assert!(!page.contains(absent), "{absent}");
        }
        for present in
            ["flow run [OPTIONS] FILE [TARGET...]", "--force[=PATTERN]", "## flow exec", "### flow log diff"]
        {
            assert!(page.contains(present), "{present} in\n{page}");
        }
    }
}
