//! The text between `${` and `}`: parsed to references. Unaware of scopes and of files.

use std::ops::Range;

use crate::base::suggest;
use crate::model::{MatrixField, Reference, ServiceField, StepRef, WorkflowField};

/// All kinds of reference.
const KINDS: [&str; 11] = [
    "params", "matrix", "steps", "services", "service", "inputs", "outputs", "env", "device", "shard",
    "workflow",
];

const LITERAL: &str = "for a literal '${' write '$${'";

/// A piece of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Lit(String),
    /// A reference and its bytes in the text, `${` and `}` included.
    Ref(Reference, Range<usize>),
}

/// A malformed or unknown reference.
#[derive(Debug)]
pub(super) struct RefFault {
    pub(super) range: Range<usize>,
    pub(super) message: String,
    pub(super) hints: Vec<String>,
}

/// Cuts `text` at its references.
pub(super) fn parse(text: &str) -> (Vec<Piece>, Vec<RefFault>) {
    let (mut pieces, mut faults) = (Vec::new(), Vec::new());
    let mut literal = String::new();
    let mut rest = 0;
    while let Some(found) = text[rest..].find("${").map(|at| at + rest) {
        if found > rest && text.as_bytes()[found - 1] == b'$' {
            literal.push_str(&text[rest..found - 1]);
            literal.push_str("${");
            rest = found + 2;
            continue;
        }
        literal.push_str(&text[rest..found]);
        let Some(end) = close(text, found + 2) else {
            faults.push(RefFault {
                range: found..text.len(),
                message: "malformed reference: '${' is never closed".to_owned(),
                hints: vec!["add '}'".to_owned(), LITERAL.to_owned()],
            });
            rest = text.len();
            break;
        };
        let body = &text[found + 2..end];
        match reference(body) {
            Ok(reference) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Lit(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Ref(reference, found..end + 1));
            }
            Err((message, hint)) => faults.push(RefFault {
                range: found..end + 1,
                message,
                hints: hint.into_iter().chain([LITERAL.to_owned()]).collect(),
            }),
        }
        rest = end + 1;
    }
    literal.push_str(&text[rest..]);
    if !literal.is_empty() {
        pieces.push(Piece::Lit(literal));
    }
    (pieces, faults)
}

/// The `}` that closes a reference; one inside a quoted axis value does not.
fn close(text: &str, from: usize) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at),
            _ => {}
        }
    }
    // An unbalanced quote: the reference is malformed, but it ends somewhere.
    text[from..].find('}').map(|at| at + from)
}

type Fault = (String, Option<String>);

/// `name(.name)*` with at most one `[axis=value,...]` after a name.
struct Parts<'t> {
    names: Vec<&'t str>,
    /// The selector and the number of names before it.
    fixed: Option<(Vec<(String, String)>, usize)>,
}

fn reference(body: &str) -> Result<Reference, Fault> {
    let parts = split(body)?;
    let kind = parts.names[0];
    if !KINDS.contains(&kind) {
        let hint = match suggest::nearest(kind, KINDS) {
            Some(near) => format!("did you mean '{near}'?"),
            None if parts.names.len() == 1 => {
                format!("for a variable of the shell write $${{{kind}}} or ${kind}")
            }
            None => format!("known: {}", KINDS.join(", ")),
        };
        return Err((format!("unknown kind of reference '{kind}'"), Some(hint)));
    }
    let wrong = |form: &str| (format!("malformed reference '{body}'"), Some(format!("expected {form}")));
    if parts.fixed.is_some() && !matches!(kind, "steps" | "services") {
        return Err((format!("malformed reference '{body}': {kind} has no axes to fix"), None));
    }
    let rest = &parts.names[1..];
    let one = |form: &str| match rest {
        [name] => Ok((*name).to_owned()),
        _ => Err(wrong(form)),
    };
    let choice = |known: &[&'static str], form: &str| -> Result<&'static str, Fault> {
        let name = one(form)?;
        known.iter().find(|k| **k == name).copied().ok_or_else(|| {
            (format!("unknown reference '{kind}.{name}'"), suggest::hint(&name, known.iter().copied()))
        })
    };
    Ok(match kind {
        "params" => Reference::Param(one("params.NAME")?),
        "inputs" => Reference::Input(one("inputs.NAME")?),
        "outputs" => Reference::Output(one("outputs.NAME")?),
        "env" => Reference::Env(one("env.NAME")?),
        "matrix" => match rest {
            [axis] => Reference::Matrix { axis: (*axis).to_owned(), field: MatrixField::Value },
            [axis, field] => {
                Reference::Matrix { axis: (*axis).to_owned(), field: matrix_field(axis, field)? }
            }
            _ => return Err(wrong("matrix.AXIS or matrix.AXIS.index|name|stem|rel|dir")),
        },
        "device" => Reference::Device(choice(&["index", "uuid"], "device.index or device.uuid")?.to_owned()),
        "shard" => Reference::Shard(choice(&["index", "count"], "shard.index or shard.count")?.to_owned()),
        "service" => {
            choice(&["port"], "service.port")?;
            Reference::ServicePort
        }
        "workflow" => Reference::Workflow(match choice(&["name", "dir"], "workflow.name or workflow.dir")? {
            "name" => WorkflowField::Name,
            _ => WorkflowField::Dir,
        }),
        "services" => service(body, parts)?,
        _ => step(body, parts)?,
    })
}

fn matrix_field(axis: &str, field: &str) -> Result<MatrixField, Fault> {
    Ok(match field {
        "index" => MatrixField::Index,
        "name" => MatrixField::Name,
        "stem" => MatrixField::Stem,
        "rel" => MatrixField::Rel,
        "dir" => MatrixField::Dir,
        _ => {
            let known = ["index", "name", "stem", "rel", "dir"];
            return Err((format!("unknown reference 'matrix.{axis}.{field}'"), suggest::hint(field, known)));
        }
    })
}

fn service(body: &str, parts: Parts<'_>) -> Result<Reference, Fault> {
    let form = "expected services.ID.url, .urls, .host or .port";
    let [_, id, field] = parts.names[..] else {
        let hint = match parts.names.len() {
            4.. => format!("{form}; a service of an included file is known in that file only"),
            _ => form.to_owned(),
        };
        return Err((format!("malformed reference '{body}'"), Some(hint)));
    };
    let fixed = match parts.fixed {
        None => Vec::new(),
        Some((fixed, 2)) => fixed,
        Some(_) => return Err((format!("malformed reference '{body}'"), Some(form.to_owned()))),
    };
    let field = match field {
        "url" => ServiceField::Url,
        "urls" => ServiceField::Urls,
        "host" => ServiceField::Host,
        "port" => ServiceField::Port,
        other => {
            let known = ["url", "urls", "host", "port"];
            return Err((format!("unknown reference 'services.{id}.{other}'"), suggest::hint(other, known)));
        }
    };
    Ok(Reference::Service { id: id.to_owned(), fixed, field })
}

fn step(body: &str, parts: Parts<'_>) -> Result<Reference, Fault> {
    let wrong = || {
        let form = "expected steps.ID.OUTPUT, steps.ID[axis=value].OUTPUT or steps.PREFIX.ID.OUTPUT";
        (format!("malformed reference '{body}'"), Some(form.to_owned()))
    };
    let count = parts.names.len();
    if count < 3 {
        return Err(wrong());
    }
    let fixed = match parts.fixed {
        None => Vec::new(),
        Some((fixed, at)) if at == count - 1 => fixed,
        Some(_) => return Err(wrong()),
    };
    Ok(Reference::Step(StepRef {
        path: parts.names[1..count - 1].iter().map(|name| (*name).to_owned()).collect(),
        fixed,
        output: parts.names[count - 1].to_owned(),
    }))
}

/// Letters, digits, `_` and `-`: what ids, axes and names of inputs and outputs are made of.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn split(body: &str) -> Result<Parts<'_>, Fault> {
    let malformed = |what: &str| (format!("malformed reference '{body}'"), Some(what.to_owned()));
    let mut parts = Parts { names: Vec::new(), fixed: None };
    let mut rest = body;
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let name = &rest[..end];
        if !is_id(name) {
            let what = match name {
                "" => "a name is missing".to_owned(),
                _ if name.trim() != name => "no white space inside '${...}'".to_owned(),
                _ => format!("'{name}' is not a name (letters, digits, '_', '-')"),
            };
            return Err(malformed(&what));
        }
        parts.names.push(name);
        rest = &rest[end..];
        if let Some(inner) = rest.strip_prefix('[') {
            if parts.fixed.is_some() {
                return Err(malformed("only one '[...]' is allowed"));
            }
            let (fixed, after) =
                selector(inner).ok_or_else(|| malformed("expected [axis=value,other=\"any text\"]"))?;
            parts.fixed = Some((fixed, parts.names.len()));
            rest = after;
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(parts),
            None => return Err(malformed("expected '.' after ']'")),
        }
    }
}

/// Reads `axis=value,axis="text"]` and gives what follows.
fn selector(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut fixed: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    loop {
        let (axis, after) = rest.split_once('=')?;
        if !is_id(axis) || fixed.iter().any(|(known, _)| known == axis) {
            return None;
        }
        let value = if after.starts_with('"') {
            let mut stream = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = stream.next()?.ok()?;
            rest = &after[stream.byte_offset()..];
            value
        } else {
            let end = after.find([',', ']'])?;
            rest = &after[end..];
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if end == 0 || !after[..end].bytes().all(plain) {
                return None;
            }
            after[..end].to_owned()
        };
        fixed.push((axis.to_owned(), value));
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.strip_prefix(']').map(|after| (fixed, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(text: &str) -> Reference {
        let (mut pieces, faults) = parse(text);
        assert!(faults.is_empty(), "{faults:?}");
        match pieces.pop() {
            Some(Piece::Ref(reference, range)) if pieces.is_empty() && range == (0..text.len()) => reference,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_kind_is_read() {
        for text in [
            "params.base_url",
            "matrix.model",
            "matrix.model.index",
            "steps.fetch.body",
            "steps.fetch[kind=e2e,tp=8].body",
            "steps.process.clean.data",
            "services.dashboard.url",
            "services.pods[gpu=1].urls",
            "service.port",
            "inputs.left",
            "outputs.csv",
            "env.HOME",
            "device.uuid",
            "shard.count",
            "workflow.dir",
        ] {
            assert_eq!(only(&format!("${{{text}}}")).to_string(), text);
        }
    }

    #[test]
    fn a_quoted_axis_value_may_hold_anything() {
        let Reference::Step(step) = only(r#"${steps.a.b[m="x}],=\"y"].out}"#) else { panic!() };
        assert_eq!(step.path, ["a", "b"]);
        assert_eq!(step.fixed, [("m".to_owned(), "x}],=\"y".to_owned())]);
        assert_eq!(step.output, "out");
    }

    #[test]
    fn literals_and_references_alternate() {
        let (pieces, faults) = parse("a $${x} ${params.p}b$$${params.q}");
        assert!(faults.is_empty());
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0], Piece::Lit("a ${x} ".into()));
        assert_eq!(pieces[2], Piece::Lit("b$${params.q}".into()));
    }

    #[test]
    fn faults_say_what_was_expected() {
        let told = |text: &str| {
            let (_, faults) = parse(text);
            format!("{} | {}", faults[0].message, faults[0].hints.join(" | "))
        };
        assert!(told("${param.x}").contains("did you mean 'params'?"));
        assert!(told("${HOME}").contains("for a literal '${' write '$${'"));
        assert!(told("${params.x").contains("never closed"));
        assert!(told("${ params.x }").contains("white space"));
        assert!(told("${X:-1}").contains("malformed"));
        assert!(told("${steps.fetch}").contains("steps.ID.OUTPUT"));
        assert!(told("${steps.fetch[kind].x}").contains("axis=value"));
        assert!(told("${params.x[a=b]}").contains("no axes"));
        assert!(told("${services.a.ur}").contains("did you mean 'url'?"));
        assert!(told("${matrix.a.steam}").contains("did you mean 'stem'?"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "[a-z$.{}\\[\\]=\",é\\\\]{0,40}") {
            let (pieces, faults) = parse(&text);
            if !text.contains("${") {
                prop_assert!(faults.is_empty());
                prop_assert!(pieces.len() <= 1);
            }
        }
    }
}
