//! Outputs of other nodes that a shell text names without taking them: said, never an error. Knows of words of a shell's language,
//! unaware of what they do.

use std::collections::{BTreeSet, HashSet};

use super::pattern::normal;
use super::{Graph, NodeAction, NodeIx, ShellPart};

/// A path in the text of one step's command that another step makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undeclared {
    /// The step with the command.
    pub step: String,
    /// The path, as declared by its maker.
    pub path: String,
    /// The step that makes it.
    pub maker: String,
}

impl Graph {
    /// Words of shell texts that are the path of an output of a node that does not come before. A word without a slash or a dot only
    /// counts where it is read (`< word`), since elsewhere it may be any word. What is written to, said (`echo`), commented, or part
    /// of a longer quoted text does not count.
    pub fn undeclared(&self) -> Vec<Undeclared> {
        let mut found = BTreeSet::new();
        let mut seen: HashSet<(&str, &str)> = HashSet::new();
        for (ix, node) in self.nodes.iter().enumerate() {
            let NodeAction::Shell { parts, io, .. } = &node.action else { continue };
            for (at, part) in parts.iter().enumerate() {
                let ShellPart::Raw(text) = part else { continue };
                let joined = (at > 0, at + 1 < parts.len());
                // the same text in another node of the step says the same
                if parts.len() == 1 && !seen.insert((&node.step, text)) {
                    continue;
                }
                for word in paths(text, joined) {
                    let path = match &io.cwd {
                        Some(cwd) if !word.starts_with('/') => normal(&format!("{cwd}/{word}")),
                        _ => normal(&word),
                    };
                    let Some(made) = self.made_by.get(&path) else { continue };
                    if made.iter().any(|(maker, _)| *maker == ix || self.comes_before(*maker, ix)) {
                        continue;
                    }
                    let maker = self.nodes[made[0].0].step.clone();
                    found.insert(Undeclared { step: node.step.clone(), path, maker });
                }
            }
        }
        found.into_iter().collect()
    }

    fn comes_before(&self, first: NodeIx, then: NodeIx) -> bool {
        let mut above = vec![then];
        let mut seen = HashSet::new();
        while let Some(ix) = above.pop() {
            for before in self.dependencies(ix) {
                if before == first {
                    return true;
                }
                if seen.insert(before) {
                    above.push(before);
                }
            }
        }
        false
    }
}

/// Reads one piece of shell text, between two references.
#[derive(Default)]
struct Reader {
    found: Vec<String>,
    /// The word being read, and whether it stands for itself.
    word: Option<(String, bool)>,
    /// `<` or `>` before it.
    redirect: Option<char>,
    /// The program of the command being read.
    program: Option<String>,
}

impl Reader {
    fn push(&mut self, char: char, plain: bool) {
        let (word, all) = self.word.get_or_insert_with(|| (String::new(), true));
        word.push(char);
        *all &= plain;
    }

    /// The end of a word, if one is being read. `whole`: no reference goes on with it.
    fn end(&mut self, whole: bool) {
        let Some((word, plain)) = self.word.take() else { return };
        let redirect = self.redirect.take();
        let talks = matches!(self.program.as_deref(), Some("echo" | "printf" | "mkdir"));
        let may_be_path = match redirect {
            Some(redirect) => redirect == '<',
            None => word.contains(['/', '.']) && !talks,
        };
        if redirect.is_none() && self.program.is_none() {
            self.program = Some(word.clone());
        }
        if plain && whole && may_be_path {
            self.found.push(word);
        }
    }
}

/// The words of a piece of shell text that may be paths which are read. `joined`: whether a reference touches its begin and its end.
fn paths(text: &str, joined: (bool, bool)) -> Vec<String> {
    // the lines of a here-document are no words
    if text.contains("<<") {
        return Vec::new();
    }
    let mut reader = Reader::default();
    let mut whole = !joined.0;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\'' | '"' => {
                reader.word.get_or_insert_with(|| (String::new(), true));
                for inner in chars.by_ref().take_while(|inner| *inner != char) {
                    reader.push(inner, !"$`\\".contains(inner));
                }
            }
            '#' if reader.word.is_none() => drop(chars.by_ref().find(|inner| *inner == '\n')),
            _ if char.is_whitespace() || ";|&<>()".contains(char) => {
                reader.end(whole);
                whole = true;
                match char {
                    '<' | '>' => reader.redirect = Some(char),
                    '\n' | ';' | '|' | '&' | '(' | ')' => (reader.redirect, reader.program) = (None, None),
                    _ => {}
                }
            }
            _ => reader.push(char, !"$`\\*?[]{}=~!".contains(char)),
        }
    }
    reader.end(whole && !joined.1);
    reader.found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        paths(text, (false, false))
    }

    #[test]
    fn words_that_may_be_paths() {
        assert_eq!(found("cat out/x b.csv a > out/y"), ["out/x", "b.csv"]);
        assert_eq!(found("sort <a | tee -a b 2>&1; wc -l < c.d >>e/f"), ["a", "c.d"]);
        assert_eq!(found("cat 'out/a b' \"out/c\"&&python3 s.py"), ["out/a b", "out/c", "s.py"]);
        assert_eq!(found("cd sub; (cat ./x.y)"), ["./x.y"]);
    }

    #[test]
    fn what_is_no_path_or_not_read() {
        let none = [
            "echo out/x; printf out/x",
            "mkdir -p out/dir",
            "# cat out/x\n",
            "echo 'see out/x' \"and out/y\"",
            "cat $OUT/x ~/x out/* out/{a,b} X=out/x --in=out/x",
            "cat <<END\nout/x\nEND",
            "make x > out/x 2>out/y",
        ];
        for text in none {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
        assert_eq!(paths("/x out/a out/b", (true, true)), ["out/a"]);
        assert_eq!(paths(" out/a out/b ", (true, true)), ["out/a", "out/b"]);
    }
}
