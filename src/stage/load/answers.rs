//! `load.answers`: what a load was answered, and how long it took as a whole, for those who score it. Unaware of scores.

use std::io::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::metrics::recorded::{Clocks, Load};
use crate::stage::metrics::row::Row;
use crate::stage::metrics::rules::{Rules, Timing};
use crate::stage::metrics::spread::sum;
use crate::stage::table::jsonl::write_line;

/// The stage.
pub(super) struct Answers;

/// What to do about a request that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnFailed {
    /// An error names the first.
    #[default]
    Fail,
    /// It is counted and left out.
    Skip,
}

/// What `with` holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// What to do about a request that failed.
    on_failed: OnFailed,
}

impl Stage for Answers {
    fn name(&self) -> &'static str {
        "load.answers"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "The answers of loads by llm.load with save_text, and their duration and TTFT.\n\
                \n\
                Answers stand in the order of the prompts, those of one load after those of the other. duration: from the first send to the last token of all loads, \
                which have to be of one machine and one boot; ttft: the mean over the requests of the input `first`, or over all, rule set flow. A request that failed, \
                also one that was answered without text, is an error or counted, in `first` as well.",
        )
        .input_list("requests", "outputs `requests` of llm.load")
        .optional_input("first", "the output `requests` of a load that measured the first token alone")
        .output("outputs", "JSON Lines: {\"id\", \"prediction\", \"prompt_tokens\", \"new_tokens\"}")
        .output("measured", "JSON: {\"duration\", \"ttft\", \"requests\", \"failed\", \"first\": {\"requests\", \"failed\"}}, as eval.mfu takes it")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let failed = |e: std::io::Error| StageError::io("write output", Path::new("outputs"), e);
        let mut out = std::io::BufWriter::new(std::fs::File::create(ctx.output("outputs")?).map_err(failed)?);
        let mut all = Loads::of(ctx.files("requests"), params.on_failed)?;
        for Answered { file, row, text, .. } in &all.answered {
            let Some(text) = text else {
                return Err(StageError::new(format!("{file}: request {} has no text", row.id))
                    .hint("llm.load keeps answers with save_text: true"));
            };
            let line = json!({ "id": row.id, "prediction": text, "prompt_tokens": row.input_tokens, "new_tokens": row.output_tokens });
            write_line(&mut out, &line, "outputs")?;
        }
        out.flush().map_err(failed)?;
        let alone = match ctx.files("first") {
            [] => None,
            files => Some(Loads::of(files, params.on_failed)?),
        };
        let first: Vec<f64> =
            alone.as_ref().unwrap_or(&all).answered.iter().map(|answered| answered.timing.ttft).collect();
        let begin = all.answered.iter().map(|answered| answered.timing.start).min_by(f64::total_cmp);
        let end = all.answered.iter().map(|answered| answered.timing.end).max_by(f64::total_cmp);
        let (Some(begin), Some(end), false) = (begin, end, first.is_empty()) else {
            return Err(StageError::new("no request succeeded: there is no duration and no TTFT"));
        };
        let (answers, lost) = (all.answered.len(), all.failed);
        let mut measured = json!({
            "duration": end - begin,
            "ttft": sum(first.iter().copied()) / first.len() as f64,
            "requests": answers + lost,
            "failed": lost,
        });
        if let Some(alone) = alone {
            measured["first"] =
                json!({ "requests": alone.answered.len() + alone.failed, "failed": alone.failed });
            all.spoiled.extend(alone.spoiled);
        }
        if !all.spoiled.is_empty() {
            measured["client_bound"] = json!(all.spoiled.join("; "));
            ctx.log(format!("client_bound: {}", all.spoiled.join("; ")));
        }
        ctx.write_json("measured", &measured)?;
        ctx.log(format!("{answers} answers, {lost} requests failed"));
        Ok(Done::Made)
    }
}

/// Loads of one machine, taken together.
struct Loads {
    answered: Vec<Answered>,
    failed: usize,
    /// Why the client spoiled some of them.
    spoiled: Vec<String>,
}

/// A request that succeeded.
struct Answered {
    file: String,
    row: Row,
    text: Option<String>,
    timing: Timing,
}

impl Loads {
    fn of(files: &[InputFile], on_failed: OnFailed) -> Result<Self, StageError> {
        let (mut loads, mut clocks) =
            (Self { answered: Vec::new(), failed: 0, spoiled: Vec::new() }, Clocks::default());
        for file in files {
            let load = Load::read(file)?;
            clocks.add(&file.name, load.clock)?;
            loads.spoiled.extend(load.spoiled);
            for (row, text) in load.rows.into_iter().zip(load.known.into_iter().map(|known| known.text)) {
                match Rules::Flow.timing(&row) {
                    Ok(timing) => {
                        loads.answered.push(Answered { file: file.name.clone(), row, text, timing });
                    }
                    Err(_) if on_failed == OnFailed::Skip => loads.failed += 1,
                    Err(why) => {
                        return Err(StageError::new(format!(
                            "{}: request {} failed: {why}",
                            file.name, row.id
                        ))
                        .hint("on_failed: skip counts such requests and leaves them out"));
                    }
                }
            }
        }
        Ok(loads)
    }
}
