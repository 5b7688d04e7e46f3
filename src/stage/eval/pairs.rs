//! `eval.pairs`: what models answered beside what was expected. Unaware of how pairs are scored.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::metrics::row::MOST_TOKENS;
use crate::stage::table::jsonl::{JsonLines, write_line};

/// The stage.
pub(super) struct Pairs;

/// So many ids are named.
const NAMED: usize = 5;

/// What to do about a row without an answer, or an answer without a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnUnmatched {
    /// An error names them.
    #[default]
    Fail,
    /// They are counted and left out.
    Skip,
}

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The member of a row that was to be answered.
    #[serde(default = "summary")]
    target: String,
    /// The member of an output that is the answer.
    #[serde(default = "prediction")]
    prediction: String,
    /// What to do about a row without an output, or an output without a row.
    #[serde(default)]
    on_unmatched: OnUnmatched,
}

fn summary() -> String {
    "summary".to_owned()
}

fn prediction() -> String {
    "prediction".to_owned()
}

impl Stage for Pairs {
    fn name(&self) -> &'static str {
        "eval.pairs"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Joins rows and recorded outputs by their id: pairs for eval.rouge, and the tokens that they took.\n\
                \n\
                Pairs are in the order of the rows. An id that stands twice in a file is an error. Rows without an output and outputs without a row are an\n\
                error, or counted and left out: rows = pairs + without_output, outputs = pairs + without_row. No pair at all is an error either way. An id\n\
                that is a number is another one than the same digits as text. prompt_tokens and new_tokens are the sums over all outputs, those without a row too:\n\
                they were made in the same time. They are null unless every output has them.",
        )
        .input("rows", "JSONL: {\"id\", TARGET, ...}")
        .input_list("outputs", "JSONL: {\"id\", PREDICTION, \"prompt_tokens\", \"new_tokens\"}, of one or more files")
        .output("pairs", "JSONL: {\"id\", \"target\", \"prediction\"}")
        .output("counts", "JSON: {\"rows\", \"outputs\", \"pairs\", \"without_output\", \"without_row\", \"prompt_tokens\", \"new_tokens\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let mut outputs = Vec::new();
        for file in ctx.files("outputs") {
            outputs.extend(members(file, &params.prediction)?);
        }
        let mut by_id = unique(outputs)?;
        let count = by_id.len();
        let rows = ctx.input("rows")?;
        let rows = in_order(members(rows, &params.target)?)?;
        let (mut pairs, mut missing) = (Vec::new(), Vec::new());
        let mut tokens = [Some(0_u64); 2];
        for output in by_id.values() {
            for (sum, name) in tokens.iter_mut().zip(["prompt_tokens", "new_tokens"]) {
                let these = tokens_of(output.rest.get(name), name, &output.place)?;
                *sum = sum.zip(these).map(|(sum, tokens)| sum + tokens);
            }
        }
        let mut made = 0_u64;
        for row @ Member { id, text: target, .. } in &rows {
            let Some(output) = by_id.remove(&id.to_string()) else {
                missing.push(row);
                continue;
            };
            write_line(
                &mut pairs,
                &json!({ "id": id, "target": target, "prediction": output.text }),
                "pairs",
            )?;
            made += 1;
        }
        let mut extra: Vec<&Member> = by_id.values().collect();
        extra.sort_unstable_by_key(|output| output.shown());
        let kinds = other_kind(&missing, &by_id);
        let hinted = |error: StageError| kinds.iter().cloned().fold(error, StageError::hint);
        let unmatched = [("rows without an output", &missing), ("outputs without a row", &extra)];
        if params.on_unmatched == OnUnmatched::Fail
            && let Some((what, members)) = unmatched.iter().find(|(_, members)| !members.is_empty())
        {
            let message = format!("{} {what}: {}", members.len(), named(members));
            return Err(
                hinted(StageError::new(message)).hint("on_unmatched: skip counts them and leaves them out")
            );
        }
        if made == 0 {
            let outputs: Vec<&str> = ctx.files("outputs").iter().map(|file| file.name.as_str()).collect();
            let (from, to) = (&ctx.input("rows")?.name, outputs.join(", "));
            let message =
                format!("no pairs: no id of {} rows ({from}) is one of {count} outputs ({to})", rows.len());
            return Err(
                hinted(StageError::new(message)).hint("expected the same 'id' in a row and in its output")
            );
        }
        if let Some(kinds) = &kinds {
            ctx.log(format!("warning: {kinds}"));
        }
        let counts = json!({
            "rows": rows.len(), "outputs": count, "pairs": made, "without_output": missing.len(), "without_row": extra.len(),
            "prompt_tokens": tokens[0], "new_tokens": tokens[1],
        });
        ctx.log(format!("{made} pairs of {} rows and {count} outputs", rows.len()));
        ctx.write("pairs", &pairs)?;
        ctx.write_json("counts", &counts)?;
        Ok(Done::Made)
    }
}

/// What to say if a row and an output differ only in that the id of one is a number and that of the other text.
fn other_kind(missing: &[&Member], left: &HashMap<String, Member>) -> Option<String> {
    missing.iter().find_map(|row| {
        let other = match &row.id {
            Value::String(text) => text.clone(),
            number => Value::from(number.to_string()).to_string(),
        };
        let output = left.get(&other).filter(|output| output.id.is_string() != row.id.is_string())?;
        let kind = |member: &Member| if member.id.is_string() { "text" } else { "a number" };
        Some(format!(
            "id {} is {}, and id {} is {}: write ids alike on both sides",
            row.shown(),
            kind(row),
            output.shown(),
            kind(output)
        ))
    })
}

/// A count of tokens; `None` if there is none.
fn tokens_of(value: Option<&Value>, name: &str, place: &str) -> Result<Option<u64>, StageError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().filter(|tokens| *tokens <= MOST_TOKENS).map(Some).ok_or_else(|| {
            StageError::new(format!("{place}: member '{name}': expected a number of tokens, found {value}"))
        }),
    }
}

/// A line of a file.
struct Member {
    id: Value,
    text: String,
    rest: Map<String, Value>,
    place: String,
}

impl Member {
    /// Its id and place, for messages.
    fn shown(&self) -> String {
        format!("{} ({})", self.id, self.place)
    }
}

/// The lines of a file, each with an id and a text.
fn members(file: &InputFile, name: &str) -> Result<Vec<Member>, StageError> {
    let mut lines = JsonLines::open(file)?;
    let mut out = Vec::new();
    while let Some(mut rest) = lines.value::<Map<String, Value>>()? {
        let place = format!("{}:{}", file.name, lines.line());
        let missing = |member: &str, what: &str| {
            StageError::new(format!("{place}: member '{member}': expected {what}"))
        };
        let id = rest.remove("id").filter(|id| id.is_string() || id.is_number());
        let id = id.ok_or_else(|| missing("id", "a text or a number"))?;
        if id.as_f64().is_some_and(|x| id.is_f64() && x.fract() == 0.0) {
            return Err(missing("id", "a whole number of at most 64 bits: write longer ones as text"));
        }
        let Some(Value::String(text)) = rest.remove(name) else { return Err(missing(name, "a text")) };
        out.push(Member { id, text, rest, place });
    }
    Ok(out)
}

/// By id.
fn unique(members: Vec<Member>) -> Result<HashMap<String, Member>, StageError> {
    let mut out: HashMap<String, Member> = HashMap::new();
    for member in members {
        match out.entry(member.id.to_string()) {
            Entry::Vacant(entry) => drop(entry.insert(member)),
            Entry::Occupied(entry) => return Err(twice(&member.id, &entry.get().place, &member.place)),
        }
    }
    Ok(out)
}

/// As they are, no id twice.
fn in_order(members: Vec<Member>) -> Result<Vec<Member>, StageError> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for member in &members {
        if let Some(first) = seen.insert(member.id.to_string(), &member.place) {
            return Err(twice(&member.id, first, &member.place));
        }
    }
    Ok(members)
}

fn twice(id: &Value, first: &str, second: &str) -> StageError {
    StageError::new(format!("id {id} stands twice: {first} and {second}"))
}

fn named(members: &[&Member]) -> String {
    let more =
        if members.len() > NAMED { format!(", and {} more", members.len() - NAMED) } else { String::new() };
    let ids: Vec<String> = members.iter().take(NAMED).map(|member| member.shown()).collect();
    ids.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, Finished};

    fn run(with: Value, rows: &str, outputs: &[&str]) -> Finished {
        let bench = Bench::new(&Pairs, with).file("rows", "rows.jsonl", rows);
        let outputs = outputs.iter().enumerate();
        outputs
            .fold(bench, |bench, (n, text)| bench.file("outputs", &format!("o{n}.jsonl"), text))
            .run(&["pairs", "counts"])
    }

    const ROWS: &str =
        "{\"id\": \"b\", \"summary\": \"B\"}\n{\"id\": 1, \"summary\": \"A\", \"document\": \"x\"}\n";

    #[test]
    fn pairs_come_in_the_order_of_rows_with_their_tokens() {
        let outputs = [
            "{\"id\": 1, \"prediction\": \"a\", \"prompt_tokens\": 5, \"new_tokens\": 2}\n",
            "{\"id\": \"b\", \"prediction\": \"b\", \"prompt_tokens\": 6, \"new_tokens\": 3}\n",
        ];
        let done = run(json!({}), ROWS, &outputs).ok();
        assert_eq!(
            done.text("pairs"),
            "{\"id\":\"b\",\"target\":\"B\",\"prediction\":\"b\"}\n{\"id\":1,\"target\":\"A\",\"prediction\":\"a\"}\n"
        );
        assert_eq!(
            done.json("counts"),
            json!({"rows": 2, "outputs": 2, "pairs": 2, "without_output": 0, "without_row": 0, "prompt_tokens": 11, "new_tokens": 5})
        );
    }

    #[test]
    fn what_has_no_partner_is_named_or_counted() {
        let one = "{\"id\": 1, \"prediction\": \"a\"}\n{\"id\": \"1\", \"prediction\": \"of another\"}\n";
        let error = |with: Value, outputs: &[&str]| run(with, ROWS, outputs).result.unwrap_err().message;
        assert_eq!(error(json!({}), &[one]), "1 rows without an output: \"b\" (rows.jsonl:1)");
        let done = run(json!({"on_unmatched": "skip"}), ROWS, &[one]).ok();
        assert_eq!(
            done.json("counts"),
            json!({"rows": 2, "outputs": 2, "pairs": 1, "without_output": 1, "without_row": 1, "prompt_tokens": null, "new_tokens": null})
        );
        let negative = "{\"id\": 1, \"prediction\": \"a\", \"new_tokens\": -3}";
        assert_eq!(
            error(json!({"on_unmatched": "skip"}), &[negative]),
            "o0.jsonl:1: member 'new_tokens': expected a number of tokens, found -3"
        );
        assert_eq!(error(json!({}), &[one, one]), "id 1 stands twice: o0.jsonl:1 and o1.jsonl:1");
        assert_eq!(
            error(json!({"prediction": "text"}), &[one]),
            "o0.jsonl:1: member 'text': expected a text"
        );
        assert_eq!(
            error(json!({}), &["{\"prediction\": \"a\"}"]),
            "o0.jsonl:1: member 'id': expected a text or a number"
        );
    }

    #[test]
    fn tokens_are_those_of_the_whole_run() {
        let outputs = "{\"id\": 1, \"prediction\": \"a\", \"new_tokens\": 2}\n{\"id\": 9, \"prediction\": \"b\", \"new_tokens\": 5}\n";
        let done = run(json!({"on_unmatched": "skip"}), ROWS, &[outputs]).ok();
        assert_eq!(
            (&done.json("counts")["pairs"], &done.json("counts")["new_tokens"]),
            (&json!(1), &json!(7))
        );
        let long = "{\"id\": 123456789012345678901, \"prediction\": \"a\"}\n";
        assert_eq!(
            run(json!({}), ROWS, &[long]).result.unwrap_err().message,
            "o0.jsonl:1: member 'id': expected a whole number of at most 64 bits: write longer ones as text"
        );
    }

    #[test]
    fn ids_of_another_kind_are_told() {
        let rows = "{\"id\": \"7\", \"summary\": \"A\"}\n{\"id\": \"b\", \"summary\": \"B\"}\n";
        let outputs = ["{\"id\": 7, \"prediction\": \"a\"}\n", "{\"id\": \"b\", \"prediction\": \"b\"}\n"];
        let told = "id \"7\" (rows.jsonl:1) is text, and id 7 (o0.jsonl:1) is a number: write ids alike on both sides";
        let failed = |with: Value, rows: &str, outputs: &[&str]| {
            let error = run(with, rows, outputs).result.unwrap_err();
            [vec![error.message], error.hints].concat()
        };
        let skip = || json!({"on_unmatched": "skip"});
        assert_eq!(
            failed(json!({}), rows, &outputs),
            [
                "1 rows without an output: \"7\" (rows.jsonl:1)",
                told,
                "on_unmatched: skip counts them and leaves them out"
            ]
        );
        assert_eq!(run(skip(), rows, &outputs).ok().log[0], format!("warning: {told}"));
        assert_eq!(
            failed(skip(), rows, &outputs[..1]),
            [
                "no pairs: no id of 2 rows (rows.jsonl) is one of 1 outputs (o0.jsonl)",
                told,
                "expected the same 'id' in a row and in its output"
            ]
        );
        // the other way round, and nothing at all
        let error = failed(
            json!({}),
            "{\"id\": 1.5, \"summary\": \"A\"}\n",
            &["{\"id\": \"1.5\", \"prediction\": \"\"}\n"],
        );
        assert!(
            error[1].starts_with("id 1.5 (rows.jsonl:1) is a number, and id \"1.5\" (o0.jsonl:1) is text")
        );
        assert_eq!(
            failed(json!({}), "", &[""])[0],
            "no pairs: no id of 0 rows (rows.jsonl) is one of 0 outputs (o0.jsonl)"
        );
    }
}
