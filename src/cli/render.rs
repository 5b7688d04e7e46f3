//! Errors as a person reads them, rendered here and nowhere else. Unaware of where they come from and of how source lines are drawn.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use crate::Error;
use crate::error::Kind;
use crate::model::Diagnostic;
use crate::observe::Printer;

/// Draws a fault with its source line and caret, with or without colours.
pub type Draw = fn(&Diagnostic, bool) -> String;

/// Says the error on standard error; the result is the exit code of its kind.
pub fn error(error: &Error, printer: &Printer, draw: Draw) -> ExitCode {
    printer.talk(&text(error, printer.talk_color(), draw));
    ExitCode::from(error.kind.exit_code())
}

/// Every fault with its place, then `error: message`, then each hint as `help: ...`.
pub fn text(error: &Error, color: bool, draw: Draw) -> String {
    let paint =
        |style: Style, text: &str| if color { format!("{style}{text}{style:#}") } else { text.to_owned() };
    let mut out = String::new();
    for diagnostic in &error.diagnostics {
        out.push_str(draw(diagnostic, color).trim_end());
        out.push_str("\n\n");
    }
    let mut lines = error.message.lines();
    out.push_str(&paint(AnsiColor::Red.on_default().bold(), "error:"));
    out.push_str(&format!(" {}\n", lines.next().unwrap_or_default()));
    for line in lines {
        out.push_str(&format!("  {line}\n"));
    }
    let bug =
        "this is a bug in flow, not in your workflow: please report it with the command and this message";
    let bug = (error.kind == Kind::Bug).then_some(bug);
    for hint in error.hints.iter().map(String::as_str).chain(bug) {
        out.push_str(&paint(AnsiColor::Cyan.on_default().bold(), "help:"));
        out.push_str(&format!(" {}\n", hint.replace('\n', "\n      ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn plain(diagnostic: &Diagnostic, _color: bool) -> String {
        format!("error: {diagnostic}")
    }

    #[test]
    fn message_faults_and_hints() {
        let one = Error::usage("no run 'x'\nin cache/runs").hint("flow log lists the runs");
        expect![[r#"
            error: no run 'x'
              in cache/runs
            help: flow log lists the runs
        "#]]
        .assert_eq(&text(&one, false, plain));
        let many = Error::diagnostics(vec![
            Diagnostic::new("unknown key 'ouputs'"),
            Diagnostic::new("a cycle: a -> a"),
        ]);
        expect![[r#"
            error: unknown key 'ouputs'

            error: a cycle: a -> a

            error: the workflow has 2 faults
        "#]]
        .assert_eq(&text(&many, false, plain));
    }

    #[test]
    fn the_kind_decides_the_exit_code_and_a_bug_asks_to_be_reported() {
        let (printer, captured) = Printer::captured(true);
        let code = error(&Error::bug("index out of range"), &printer, plain);
        assert_eq!(code, ExitCode::from(70));
        assert!(captured.err().contains("\u{1b}[") && captured.err().contains("this is a bug in flow"));
        assert_eq!(captured.out(), "");
    }
}
