//! Make-style dependency files: which files a command says it read. Unaware of where they lie and what they are to a node.

use std::collections::BTreeMap;

/// A depfile that is none: the line, from 1, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepfileFault {
    /// From 1.
    pub line: usize,
    /// A fragment.
    pub message: String,
}

/// The prerequisites of all rules of a depfile, each once, with the line (from 1) that first names it.
///
/// Read as make reads them, and as gcc, clang, rustc and others write them: `target ...: file ...`, continued by a backslash at the
/// end of a line; `\ `, `\#`, `\:` and `$$` are those characters; `#` begins a comment. What the targets are called decides nothing;
/// a rule without files (`gcc -MP`) names none. Variables, recipes and assignments are no part of a depfile.
pub fn parse_depfile(bytes: &[u8]) -> Result<BTreeMap<String, usize>, DepfileFault> {
    let mut files = BTreeMap::new();
    let (mut at, mut number) = (0, 1);
    while at < bytes.len() {
        let line = logical_line(&bytes[at..]);
        at += line.len();
        let last = number + line.iter().filter(|byte| **byte == b'\n').count();
        rule(line, number, &mut files)?;
        number = last;
    }
    Ok(files)
}

/// One line with its continuations and its end.
fn logical_line(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' => return &bytes[..=at],
            _ => {}
        }
        at += 1;
    }
    bytes
}

/// A word, and the line on which it begins.
struct Word {
    bytes: Vec<u8>,
    line: usize,
    /// It ended with a bare colon, which is not part of it.
    colon: bool,
}

fn rule(line: &[u8], number: usize, files: &mut BTreeMap<String, usize>) -> Result<(), DepfileFault> {
    let words = words(line, number)?;
    let Some(first) = words.first() else { return Ok(()) };
    let Some(end) = words.iter().position(|word| word.colon) else {
        let start = String::from_utf8_lossy(&first.bytes).into_owned();
        let message = format!("expected 'target: file ...', found a line without a colon: {start}");
        return Err(DepfileFault { line: first.line, message });
    };
    if words[..=end].iter().all(|word| word.bytes.is_empty()) {
        let message = "expected 'target: file ...', found no target before the colon".to_owned();
        return Err(DepfileFault { line: first.line, message });
    }
    for word in &words[end + 1..] {
        if word.colon {
            let name = String::from_utf8_lossy(&word.bytes).into_owned();
            let message =
                format!("expected one 'target: file ...' on a line, found a second colon after {name}");
            return Err(DepfileFault { line: word.line, message });
        }
        let name = String::from_utf8(word.bytes.clone()).map_err(|error| DepfileFault {
            line: word.line,
            message: format!("a file name that is not UTF-8: {}", String::from_utf8_lossy(error.as_bytes())),
        })?;
        files.entry(name).or_insert(word.line);
    }
    Ok(())
}

/// Splits a logical line at its blanks, escapes resolved. The first colon that a blank follows (if there is none: the first colon)
/// ends the targets.
fn words(line: &[u8], number: usize) -> Result<Vec<Word>, DepfileFault> {
    let spaced = split(line, number, false)?;
    if spaced.iter().any(|word| word.colon) { Ok(spaced) } else { split(line, number, true) }
}

/// The words found so far, and the one being read.
#[derive(Default)]
struct Words {
    done: Vec<Word>,
    open: Option<Word>,
}

impl Words {
    fn push(&mut self, byte: u8, line: usize) {
        let begun = || Word { bytes: Vec::new(), line, colon: false };
        self.open.get_or_insert_with(begun).bytes.push(byte);
    }

    fn end(&mut self) {
        self.done.extend(self.open.take());
    }

    /// A bare colon: it ends the word being read, or the one before if only blanks lie between.
    fn colon(&mut self, line: usize) {
        match (&mut self.open, self.done.last_mut()) {
            (Some(open), _) => open.colon = true,
            (None, Some(last)) if !last.colon => last.colon = true,
            _ => self.open = Some(Word { bytes: Vec::new(), line, colon: true }),
        }
        self.end();
    }
}

/// `tight`: the first colon ends the targets, whatever follows it.
fn split(line: &[u8], mut number: usize, tight: bool) -> Result<Vec<Word>, DepfileFault> {
    let mut words = Words::default();
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        let rest = &line[at + 1..];
        match byte {
            b'\\' => {
                let slashes = line[at..].iter().take_while(|byte| **byte == b'\\').count();
                let (after, odd) = (line.get(at + slashes).copied(), slashes % 2 == 1);
                // before a blank and such each pair is one, and an odd one escapes it; elsewhere a backslash is one
                let escapes = matches!(after, Some(b' ' | b'\t' | b'#' | b':'));
                let continued = after.is_none_or(|after| after == b'\n') && odd;
                let kept = if escapes || continued { slashes / 2 } else { slashes };
                (0..kept).for_each(|_| words.push(b'\\', number));
                at += slashes;
                if continued {
                    words.end();
                    number += 1;
                    at += 1;
                } else if escapes && odd {
                    words.push(line[at], number);
                    at += 1;
                }
                continue;
            }
            b'$' if rest.first() == Some(&b'$') => {
                words.push(b'$', number);
                at += 1;
            }
            b'$' => {
                let message = "a variable: '$' itself is written '$$'".to_owned();
                return Err(DepfileFault { line: number, message });
            }
            b' ' | b'\t' | b'\r' | b'\n' => {
                words.end();
                number += usize::from(byte == b'\n');
            }
            b'#' if words.open.is_none() => break,
            b':' if (tight && words.done.iter().all(|word| !word.colon))
                || rest.first().is_none_or(u8::is_ascii_whitespace)
                || rest.starts_with(b"\\\n") =>
            {
                words.colon(number);
            }
            other => words.push(other, number),
        }
        at += 1;
    }
    words.end();
    Ok(words.done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, usize)> {
        parse_depfile(text.as_bytes()).unwrap().into_iter().collect()
    }

    fn plain(text: &str) -> Vec<String> {
        names(text).into_iter().map(|(name, _)| name).collect()
    }

    fn fault(text: &[u8]) -> (usize, String) {
        let fault = parse_depfile(text).unwrap_err();
        (fault.line, fault.message)
    }

    #[test]
    fn a_rule_over_several_lines_names_each_file_with_its_line() {
        let found = names("out/a.o: a.c \\\n  inc/b.h \\\n inc/c.h\n\nout/a.o: a.c d.h\n");
        let expected = [("a.c", 1), ("d.h", 5), ("inc/b.h", 2), ("inc/c.h", 3)];
        assert_eq!(found, expected.map(|(name, line)| (name.to_owned(), line)));
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(
            plain(r"a.o: with\ blank.h cost$$.h no\#1.h a\:b.h"),
            ["a:b.h", "cost$.h", "no#1.h", "with blank.h"]
        );
        // gcc doubles backslashes before a blank
        assert_eq!(plain(r"a: one\\\ two end\\ back\slash"), [r"back\slash", r"end\", r"one\ two"]);
    }

    #[test]
    fn several_targets_phony_ones_and_comments() {
        assert_eq!(plain("a.o a.d: x.h\nx.h:\ny.h :\n# env-dep:HOME=/x: y\n"), ["x.h"]);
        assert_eq!(plain("C:odd.o: a.h"), ["a.h"]);
        assert_eq!(plain("a:b.h c.h"), ["b.h", "c.h"]);
        assert_eq!(plain("a:\\\n b.h"), ["b.h"]);
        assert_eq!(plain("a.o: x#y.h # all of it\n"), ["x#y.h"]);
        assert!(plain("").is_empty() && plain("a.o:\n").is_empty() && plain("\n\n# nothing\n").is_empty());
        assert_eq!(plain("a.o: b.h \\"), ["b.h"]);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_line() {
        let cases: [(&[u8], usize, &str); 6] = [
            (b"a: b\nb c d\n", 2, "without a colon: b"),
            (b"a: b \\\n $(X)\n", 2, "a variable"),
            (b": b\n", 1, "no target"),
            (b"CFLAGS = -O2\n", 1, "without a colon: CFLAGS"),
            (b"a: b: c\n", 1, "a second colon after b"),
            (b"a: ok \\\n \xff.h\n", 2, "not UTF-8"),
        ];
        for (text, line, part) in cases {
            let (at, message) = fault(text);
            assert_eq!(at, line, "{message}");
            assert!(message.contains(part), "{message}");
        }
    }
}
