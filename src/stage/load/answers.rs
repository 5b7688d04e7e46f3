//! `load.answers`: what a load was answered, and how long it took as a whole, for those who score it. Unaware of scores.

use std::io::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::metrics::recorded::Load;
use crate::stage::metrics::rules::Rules;
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
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "The answers of loads by llm.load with save_text, and their duration and TTFT.\n\
                \n\
                Answers stand in the order of the prompts, those of one load after those of the other. duration: from the first send to the last token of all loads, \
                which have to be of one machine; ttft: the mean over the requests of the input `first`, or over all, rule set flow.",
        )
        .input_list("requests", "outputs `requests` of llm.load")
        .optional_input("first", "the output `requests` of a load that measured the first token alone")
        .output("outputs", "JSON Lines: {\"id\", \"prediction\", \"prompt_tokens\", \"new_tokens\"}")
        .output("measured", "JSON: {\"duration\", \"ttft\", \"requests\", \"failed\"}, as eval.mfu takes it")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let failed = |e: std::io::Error| StageError::io("write output", Path::new("outputs"), e);
        let mut out = std::io::BufWriter::new(std::fs::File::create(ctx.output("outputs")?).map_err(failed)?);
        let (mut all, mut lost, mut spans) = (Vec::new(), 0, Vec::new());
        let mut spoiled = Vec::new();
        for file in ctx.files("requests") {
            let load = Load::read(file)?;
            spoiled.extend(load.spoiled);
            let rows = load.rows;
            for (row, text) in rows.iter().zip(load.known.into_iter().map(|known| known.text)) {
                if !row.success {
                    lost += 1;
                    if params.on_failed == OnFailed::Fail {
                        let why = row.error.as_deref().unwrap_or("failed");
                        return Err(StageError::new(format!(
                            "{}: request {} failed: {why}",
                            file.name, row.id
                        ))
                        .hint("on_failed: skip counts such requests and leaves them out"));
                    }
                    continue;
                }
                let Some(text) = text else {
                    return Err(StageError::new(format!("{}: request {} has no text", file.name, row.id))
                        .hint("llm.load keeps answers with save_text: true"));
                };
                let line = json!({ "id": row.id, "prediction": text, "prompt_tokens": row.input_tokens, "new_tokens": row.output_tokens });
                write_line(&mut out, &line, "outputs")?;
            }
            all.extend(rows);
        }
        out.flush().map_err(failed)?;
        let timings: Vec<_> = all.iter().filter_map(|row| Rules::Flow.timing(row).ok()).collect();
        spans.extend(timings.iter().map(|timing| (timing.start, timing.end)));
        let first = match ctx.files("first") {
            [] => timings.iter().map(|timing| timing.ttft).collect::<Vec<f64>>(),
            files => {
                let mut found = Vec::new();
                for file in files {
                    let load = Load::read(file)?;
                    spoiled.extend(load.spoiled);
                    found.extend(load.rows.iter().filter_map(|row| Some(Rules::Flow.timing(row).ok()?.ttft)));
                }
                found
            }
        };
        let begin = spans.iter().map(|span| span.0).min_by(f64::total_cmp);
        let end = spans.iter().map(|span| span.1).max_by(f64::total_cmp);
        let (Some(begin), Some(end), false) = (begin, end, first.is_empty()) else {
            return Err(StageError::new("no request succeeded: there is no duration and no TTFT"));
        };
        let mut measured = json!({
            "duration": end - begin,
            "ttft": sum(first.iter().copied()) / first.len() as f64,
            "requests": all.len(),
            "failed": lost,
        });
        if !spoiled.is_empty() {
            measured["client_bound"] = json!(spoiled.join("; "));
            ctx.log(format!("client_bound: {}", spoiled.join("; ")));
        }
        ctx.write_json("measured", &measured)?;
        ctx.log(format!("{} answers, {lost} requests failed", all.len() - lost));
        Ok(Done::Made)
    }
}
