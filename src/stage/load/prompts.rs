//! `load.prompts`: the prompts of a load, made or taken from data sets. Unaware of servers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{BufWriter, Write};
use std::path::Path;

use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::conversation::{MOST_TURNS, Turn};
use super::lengths::Length;
use super::prompt::Prompt;
use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::table::jsonl::{self, JsonLines};

/// The stage.
pub(super) struct Prompts;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Where prompts come from.
    kind: Kind,
    /// How many; default: all there are. Of a data set that has fewer they are taken again in turn, with ids of their own.
    count: Option<u64>,
    /// Words of a prompt (synthetic): a tokenizer makes somewhat more tokens of them.
    input: Option<Length>,
    /// Tokens of an answer: `max_tokens` of each prompt.
    output: Option<Length>,
    /// Conversations of so many turns (synthetic), or of at most so many (sharegpt: what the user says, in turn). Default: one prompt each.
    turns: Option<u64>,
    /// Decides all that is drawn.
    #[serde(default)]
    seed: u64,
    /// Put before each document (xsum).
    #[serde(default = "Params::instruction")]
    instruction: String,
    /// Put after each document (xsum).
    #[serde(default)]
    after: String,
}

/// Where prompts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Words drawn by the seed.
    Synthetic,
    /// The input `data`: JSON Lines with `prompt`, `question`, `messages` or `turns`, and `max_tokens` or `output_tokens` where given.
    File,
    /// The input `data`: JSON Lines with `document` (xsum.read).
    Xsum,
    /// The input `data`: ShareGPT JSON, the first turn of each conversation that has an answer, or more of them with `turns`.
    Sharegpt,
}

impl Params {
    fn instruction() -> String {
        "Summarize the following article in one sentence.\n\n".to_owned()
    }
}

/// Words of synthetic prompts.
const WORDS: [&str; 32] = [
    "river", "stone", "bright", "seven", "walk", "under", "glass", "number", "garden", "slow", "paper",
    "north", "open", "winter", "copper", "field", "quiet", "train", "letter", "green", "market", "early",
    "window", "bridge", "circle", "salt", "morning", "simple", "cloud", "yellow", "engine", "story",
];

impl Stage for Prompts {
    fn name(&self) -> &'static str {
        "load.prompts"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Prompts for llm.load: made by a seed, or taken from a data set.\n\
                \n\
                Each line: {\"id\", \"messages\" or \"prompt\", \"max_tokens\"}, or a conversation: {\"id\", \"messages\" (before it), \"turns\": [{\"content\", \"max_tokens\", \"think\"}]}. Of a data set rows without a prompt are counted and passed over; one that \
                has none at all is an error. An id that comes twice gets a number after it; a row without one has its own.",
        )
        .optional_input("data", "the data set; none with kind synthetic")
        .output("prompts", "JSON Lines")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        let fault =
            |path: &str, message: &str| Err(ParamFault { path: path.into(), message: message.into() });
        params.input.map_or(Ok(()), |length| length.check("input"))?;
        params.output.map_or(Ok(()), |length| length.check("output"))?;
        match (params.kind, params.input, params.count) {
            (_, _, Some(0)) => fault("count", "expected at least 1"),
            _ if params.turns.is_some_and(|turns| !(1..=MOST_TURNS as u64).contains(&turns)) => {
                fault("turns", "expected 1 to 10000")
            }
            (Kind::File | Kind::Xsum, ..) if params.turns.is_some() => fault(
                "turns",
                "goes with kinds synthetic and sharegpt; rows of a file have their own 'turns'",
            ),
            (Kind::Synthetic, None, _) => fault("input", "kind synthetic needs the words of a prompt"),
            (Kind::Synthetic, _, None) => fault("count", "kind synthetic needs the number of prompts"),
            (kind, Some(_), _) if kind != Kind::Synthetic => fault("input", "goes with kind synthetic only"),
            _ => Ok(()),
        }
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let mut rng = Rng::with_seed(params.seed);
        let mut prompts = match (params.kind, ctx.files("data")) {
            (Kind::Synthetic, []) => synthetic(&params, &mut rng),
            (Kind::Synthetic, _) => {
                return Err(StageError::new("input 'data' goes with a data set, not with kind synthetic"));
            }
            (_, [file]) => {
                let mut ids = Ids::default();
                let (prompts, without) = of_data(file, &params, &mut ids)?;
                if without > 0 {
                    ctx.log(format!("{}: {without} rows have no prompt and are passed over", file.name));
                }
                again(prompts, params.count, &mut ids)
            }
            (_, files) => {
                return Err(StageError::new(format!("input 'data' takes one file, {} given", files.len())));
            }
        };
        if let Some(output) = params.output {
            let mut draw = output.sampler();
            prompts.iter_mut().for_each(|prompt| prompt.max_tokens = Some(draw(&mut rng)));
        }
        let path = ctx.output("prompts")?;
        let failed = |e: std::io::Error| StageError::io("write output", Path::new("prompts"), e);
        let mut out = BufWriter::new(std::fs::File::create(path).map_err(failed)?);
        for prompt in &prompts {
            jsonl::write_line(&mut out, prompt, "prompts")?;
        }
        out.flush().map_err(failed)?;
        ctx.log(format!("{} prompts", prompts.len()));
        Ok(Done::Made)
    }
}

fn synthetic(params: &Params, rng: &mut Rng) -> Vec<Prompt> {
    let Some(input) = params.input else { return Vec::new() };
    let mut draw = input.sampler();
    let text = |length: u64, rng: &mut Rng| {
        (0..length).map(|_| WORDS[rng.usize(..WORDS.len())]).collect::<Vec<_>>().join(" ")
    };
    (0..params.count.unwrap_or(0))
        .map(|n| {
            let mut next = |rng: &mut Rng| {
                let length = draw(rng);
                json!(text(length, rng))
            };
            let id = json!(n);
            match params.turns {
                None => Prompt { id, prompt: Some(next(rng)), ..Prompt::default() },
                Some(count) => {
                    let turns =
                        (0..count).map(|_| Turn { content: next(rng), max_tokens: None, think: None });
                    Prompt { id, turns: Some(turns.collect()), ..Prompt::default() }
                }
            }
        })
        .collect()
}

/// As many as are wanted.
fn again(prompts: Vec<Prompt>, count: Option<u64>, ids: &mut Ids) -> Vec<Prompt> {
    let Some(count) = count else { return prompts };
    let length = prompts.len() as u64;
    let mut named = |n: u64, prompt: &Prompt| match n / length {
        0 => prompt.clone(),
        _ => Prompt { id: ids.unique(prompt.id.clone()), ..prompt.clone() },
    };
    (0..count).map(|n| named(n, &prompts[(n % length) as usize])).collect()
}

/// Ids that are taken, and how often each was asked for.
#[derive(Default)]
struct Ids(HashMap<String, u64>);

impl Ids {
    /// The id itself, or, if it is taken, with the first number after it that makes it unique.
    fn unique(&mut self, id: Value) -> Value {
        let text = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let mut turn = match self.0.entry(text.clone()) {
            Entry::Vacant(free) => {
                free.insert(1);
                return id;
            }
            Entry::Occupied(taken) => *taken.get(),
        };
        loop {
            turn += 1;
            let other = format!("{text}.{turn}");
            if let Entry::Vacant(free) = self.0.entry(other.clone()) {
                free.insert(1);
                self.0.insert(text, turn);
                return json!(other);
            }
        }
    }
}

/// The prompts of a data set, and how many rows have none.
fn of_data(file: &InputFile, params: &Params, ids: &mut Ids) -> Result<(Vec<Prompt>, usize), StageError> {
    let rows: Vec<Value> = match params.kind {
        Kind::Sharegpt => file.read_json()?,
        _ => JsonLines::open(file)?.rest()?,
    };
    let count = rows.len();
    let mut prompts: Vec<Prompt> = Vec::new();
    let mut nameless = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        let Some(mut prompt) = of_row(row, Prompt::default(), params) else { continue };
        match row.get("id").filter(|id| id.is_string() || id.is_number()) {
            Some(id) => prompt.id = ids.unique(id.clone()),
            None => nameless.push((prompts.len(), n)),
        }
        prompts.push(prompt);
    }
    // the number of the row, after the ids that the data set itself has
    for (at, n) in nameless {
        prompts[at].id = ids.unique(json!(n));
    }
    if prompts.is_empty() {
        let wanted = match params.kind {
            Kind::Sharegpt => {
                "expected a list of {\"id\", \"conversations\": [{\"from\": \"human\", \"value\"}, ...]}"
            }
            Kind::Xsum => "expected JSON Lines with 'document' (xsum.read makes them)",
            _ => "expected JSON Lines with 'prompt', 'question' or 'messages'",
        };
        return Err(StageError::new(format!("{}: none of {count} rows has a prompt", file.name)).hint(wanted));
    }
    let without = count - prompts.len();
    Ok((prompts, without))
}

fn of_row(row: &Value, base: Prompt, params: &Params) -> Option<Prompt> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let prompt = |text: String| Some(json!(text));
    match params.kind {
        Kind::Synthetic => None,
        Kind::Xsum => Some(Prompt {
            prompt: prompt(format!("{}{}{}", params.instruction, text("document")?, params.after)),
            ..base
        }),
        Kind::Sharegpt => {
            let turns = row.get("conversations")?.as_array()?;
            let said = |turn: &Value, who: &[&str]| {
                let from = turn.get("from")?.as_str()?;
                let value = turn.get("value")?.as_str().filter(|value| !value.is_empty())?;
                who.contains(&from).then(|| value.to_owned())
            };
            let answered = |pair: &[Value]| {
                said(pair.get(1)?, &["gpt", "assistant", "chatgpt", "bing", "bard"])?;
                said(&pair[0], &["human", "user"])
            };
            let mut all = turns.chunks(2).map_while(answered);
            match params.turns {
                None => Some(Prompt { prompt: prompt(all.next()?), ..base }),
                Some(most) => {
                    let turn =
                        |content: String| Turn { content: json!(content), max_tokens: None, think: None };
                    let turns: Vec<Turn> = all.take(most as usize).map(turn).collect();
                    (!turns.is_empty()).then_some(Prompt { turns: Some(turns), ..base })
                }
            }
        }
        Kind::File => {
            let most = ["max_tokens", "output_tokens"].iter().find_map(|name| row.get(name)?.as_u64());
            let messages = row.get("messages").and_then(Value::as_array).filter(|list| !list.is_empty());
            if let Some(turns) = row.get("turns") {
                let turns: Vec<Turn> = serde_json::from_value(turns.clone()).ok()?;
                let messages = messages.cloned();
                return (!turns.is_empty()).then_some(Prompt {
                    messages,
                    turns: Some(turns),
                    max_tokens: most,
                    ..base
                });
            }
            match messages {
                Some(messages) => Some(Prompt { messages: Some(messages.clone()), max_tokens: most, ..base }),
                None => {
                    let asked = text("prompt").or_else(|| text("question"))?;
                    Some(Prompt { prompt: prompt(asked.to_owned()), max_tokens: most, ..base })
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    fn made(with: Value, data: Option<&str>) -> Vec<Value> {
        let bench = Bench::new(&Prompts, with);
        let bench = match data {
            Some(data) => bench.file("data", "d.jsonl", data),
            None => bench,
        };
        let done = bench.run(&["prompts"]).ok();
        done.text("prompts").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn synthetic_prompts_depend_on_the_seed_alone() {
        let with = json!({"kind": "synthetic", "count": 4, "input": {"dist": "uniform", "min": 2, "max": 9}, "output": 32, "seed": 1});
        let first = made(with.clone(), None);
        assert_eq!(first, made(with.clone(), None));
        assert!(
            first.iter().all(|p| (2..=9).contains(&p["prompt"].as_str().unwrap().split(' ').count())
                && p["max_tokens"] == 32)
        );
        let mut other = with;
        other["seed"] = json!(2);
        assert_ne!(first, made(other, None));
    }

    #[test]
    fn data_sets() {
        let file = "{\"question\": \"q\"}\n{\"id\": \"b\", \"messages\": [{\"role\": \"user\", \"content\": \"m\"}], \"output_tokens\": 4}\n{\"x\": 1}\n";
        assert_eq!(
            made(json!({"kind": "file", "count": 3}), Some(file)),
            [
                json!({"id": 0, "prompt": "q"}),
                json!({"id": "b", "messages": [{"role": "user", "content": "m"}], "max_tokens": 4}),
                json!({"id": "0.2", "prompt": "q"}),
            ]
        );
        // ids that the data set has twice, lacks, or that a repetition would take
        let ids = "{\"prompt\": \"a\"}\n{\"id\": \"0\", \"prompt\": \"b\"}\n{\"id\": 0, \"prompt\": \"c\"}\n{\"id\": \"0.3\", \"prompt\": \"d\"}\n";
        let ids = made(json!({"kind": "file", "count": 6}), Some(ids));
        let ids: Vec<&Value> = ids.iter().map(|prompt| &prompt["id"]).collect();
        assert_eq!(ids, ["0.4", "0", "0.2", "0.3", "0.4.2", "0.5"]);
        let xsum = made(
            json!({"kind": "xsum", "instruction": "Sum: "}),
            Some("{\"id\": 5, \"document\": \"d\", \"summary\": \"s\"}\n"),
        );
        assert_eq!(xsum, [json!({"id": 5, "prompt": "Sum: d"})]);
        let shared = r#"[{"id": "c", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, {"id": "d", "conversations": []}]"#;
        assert_eq!(made(json!({"kind": "sharegpt"}), Some(shared)), [json!({"id": "c", "prompt": "hi"})]);
        let long = r#"[{"id": "c", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}, {"from": "human", "value": "and"}, {"from": "gpt", "value": "so"}, {"from": "human", "value": "?"}]}]"#;
        assert_eq!(
            made(json!({"kind": "sharegpt", "turns": 9}), Some(long)),
            [json!({"id": "c", "turns": [{"content": "hi"}, {"content": "and"}]})]
        );
        let talk =
            json!({"id": 1, "turns": [{"content": "a"}, {"content": "b", "think": 2.0}], "max_tokens": 4});
        assert_eq!(made(json!({"kind": "file"}), Some(&talk.to_string())), [talk]);
        let synthetic = made(json!({"kind": "synthetic", "count": 2, "input": 3, "turns": 2}), None);
        assert!(
            synthetic.iter().all(|prompt| prompt["turns"].as_array().unwrap().len() == 2),
            "{synthetic:?}"
        );
        assert_eq!(Prompts.check(&json!({"kind": "xsum", "turns": 2})).unwrap_err().path, "turns");
        let none =
            Bench::new(&Prompts, json!({"kind": "file"})).file("data", "d.jsonl", "{}\n").run(&["prompts"]);
        assert_eq!(none.result.unwrap_err().message, "d.jsonl: none of 1 rows has a prompt");
        assert_eq!(Prompts.check(&json!({"kind": "synthetic", "count": 1})).unwrap_err().path, "input");
    }
}
