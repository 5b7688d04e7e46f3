//! Shell text that needs no shell: one program, its arguments, and perhaps `> FILE`. Unaware of how it is started.
//!
//! GNU make does the same with its recipes: starting a shell costs as much as many a program. Text counts as plain only if every
//! shell would read it the same way: words of characters that mean nothing to any of them, the first of which is no builtin. Whatever
//! goes wrong with it then goes to the shell after all, whose message people know.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// What text comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) argv: Vec<String>,
    /// A file to create for standard output.
    pub(super) stdout: Option<PathBuf>,
}

/// Words that a POSIX shell, dash or bash takes for itself.
const OWN: &[&str] = &[
    ".",
    ":",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "newgrp",
    "popd",
    "print",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "whence",
    "while",
];

/// What a command comes to that gives text to the default shell; `None` if only a shell can tell.
pub(super) fn plain(argv: &[String], cwd: &Path) -> Option<Plain> {
    let [shell, flags, text] = argv else { return None };
    if shell != "sh" || flags != "-euc" {
        return None;
    }
    let (command, target) = match text.split_once('>') {
        // a digit before it is a descriptor
        Some((command, target)) if command.ends_with([' ', '\t']) => {
            (command, Some(target.trim_matches([' ', '\t'])))
        }
        Some(_) => return None,
        None => (text.as_str(), None),
    };
    let argv: Vec<String> =
        command.split([' ', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let program = argv.first()?;
    // a shell would take a text that begins with a dash for an option
    let own = OWN.contains(&program.as_str()) || program.contains('=') || text.starts_with(['-', '+']);
    let words = argv.iter().map(String::as_str).chain(target);
    let all_plain = words.into_iter().all(|word| !word.is_empty() && word.chars().all(is_plain));
    if own || !all_plain || target.is_some_and(|target| !is_file_or_nothing(target, cwd)) {
        return None;
    }
    Some(Plain { argv, stdout: target.map(|target| cwd.join(target)) })
}

/// Whether flow may open it in the place of the command: a plain file below the working directory, or nothing yet. A pipe would make
/// flow wait, and `/dev/fd/3` or `/proc/self` mean something else to flow than to a command.
fn is_file_or_nothing(target: &str, cwd: &Path) -> bool {
    let below =
        Path::new(target).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    below
        && match std::fs::symlink_metadata(cwd.join(target)) {
            Ok(meta) => meta.is_file(),
            Err(e) => e.kind() == ErrorKind::NotFound,
        }
}

/// Means nothing to any shell, wherever in a word.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./,:=+@%".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(String, Option<String>)> {
        let argv = ["sh", "-euc", text].map(str::to_owned);
        let Plain { argv, stdout } = plain(&argv, Path::new("/w"))?;
        Some((argv.join("|"), stdout.map(|path| path.to_string_lossy().into_owned())))
    }

    #[test]
    fn words_and_one_target() {
        let some = |argv: &str, stdout: Option<&str>| Some((argv.to_owned(), stdout.map(str::to_owned)));
        assert_eq!(of("head -c 64 a/b.txt > out/c"), some("head|-c|64|a/b.txt", Some("/w/out/c")));
        assert_eq!(of("  sort\t--key=1,2  x "), some("sort|--key=1,2|x", None));
        assert_eq!(of("./tool >x"), some("./tool", Some("/w/x")));
    }

    #[test]
    fn whatever_a_shell_would_read_otherwise_goes_to_it() {
        for text in [
            "",
            " ",
            "echo a",
            "cd x",
            "true",
            "time ls",
            "{ ls",
            "A=1 ls",
            "ls *",
            "ls ~",
            "ls $HOME",
            "ls 'a b'",
            "ls \"a\"",
            "ls a\\ b",
            "ls `x`",
            "ls; ls",
            "ls | ls",
            "ls & ",
            "ls 2> x",
            "ls > x > y",
            "ls >> x",
            "ls >| x",
            "ls >& x",
            "ls > x y",
            "ls >",
            "ls > ",
            "ls < x",
            "# ls",
            "ls\nls",
            "ls # x",
            "ls [a]",
            "! ls",
            "ls é",
            "ls x>y",
            "-x",
            "+x",
            "ls > /dev/stderr",
            "ls > /w/x",
            "ls > ../x",
            "(ls)",
            "ls ^ x",
            "ls {a,b}",
            "> x",
            "ls a?",
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
        let argv = ["bash", "-euc", "ls"].map(str::to_owned);
        assert_eq!(plain(&argv, Path::new("/w")), None);
    }
}
