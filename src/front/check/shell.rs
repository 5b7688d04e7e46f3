//! References inside quotes of a shell text. Knows of quoting, unaware of everything else of the shell's language.

use crate::model::{Part, Span, Template};

/// What surrounds a character.
#[derive(Clone, Copy, PartialEq)]
enum Around {
    /// Nothing, or `( )`.
    Bare,
    Single,
    Double,
    Comment,
}

/// The references of `text` that stand inside quotes, where inserting quoted text would break the quoting.
pub(super) fn quoted(text: &Template) -> Vec<Option<Span>> {
    let mut found = Vec::new();
    let mut stack = vec![Around::Bare];
    let (mut before, mut escaped) = (' ', false);
    for part in &text.parts {
        let literal = match part {
            Part::Ref(_, span) => {
                if matches!(stack.last(), Some(Around::Single | Around::Double)) {
                    found.push(*span);
                }
                (before, escaped) = ('x', false);
                continue;
            }
            Part::Lit(literal) => literal,
        };
        for char in literal.chars() {
            let around = stack.last().copied().unwrap_or(Around::Bare);
            let was_escaped = std::mem::take(&mut escaped);
            match (around, char) {
                (Around::Comment, '\n') | (Around::Single, '\'') => drop(stack.pop()),
                (Around::Comment | Around::Single, _) => {}
                _ if was_escaped => {}
                (_, '\\') => escaped = true,
                (Around::Double, '"') => drop(stack.pop()),
                (_, '(') if around == Around::Bare || before == '$' => stack.push(Around::Bare),
                (Around::Double, _) => {}
                (Around::Bare, '\'') => stack.push(Around::Single),
                (Around::Bare, '"') => stack.push(Around::Double),
                (Around::Bare, ')') if stack.len() > 1 => drop(stack.pop()),
                (Around::Bare, '#') if before.is_whitespace() || before == ';' => {
                    stack.push(Around::Comment);
                }
                (Around::Bare, _) => {}
            }
            before = if was_escaped { 'x' } else { char };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reference;

    /// `@` stands for a reference; gives which ones are inside quotes.
    fn inside(text: &str) -> Vec<u32> {
        let span = |at: u32| Some(Span { source: crate::model::SourceId(0), start: at, end: at });
        let mut parts = Vec::new();
        for (at, literal) in text.split('@').enumerate() {
            if at > 0 {
                parts.push(Part::Ref(Reference::Param("p".into()), span(at as u32)));
            }
            parts.push(Part::Lit(literal.to_owned()));
        }
        quoted(&Template { parts }).into_iter().map(|span| span.unwrap().start).collect()
    }

    #[test]
    fn quotes_are_followed() {
        assert_eq!(inside("echo @ '@' \"@\" @"), [2, 3]);
        assert_eq!(inside(r#"echo \" @ \' @ "a\"@" @"#), [3]);
        assert_eq!(inside("a 'it''s @' @"), [1]);
    }

    #[test]
    fn a_substitution_inside_quotes_is_bare_again() {
        assert_eq!(inside(r#"x="$(cat @ "@")@" @"#), [2, 3]);
        assert_eq!(inside(r#"(cd @ && echo "(@") @"#), [2]);
    }

    #[test]
    fn an_apostrophe_in_a_comment_opens_nothing() {
        assert_eq!(inside("# don't\ncat @ > x#'@'"), [2]);
    }
}
