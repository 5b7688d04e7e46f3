//! `vendor.report`: the result lines that the original prints, and the same as JSON. Unaware of how the numbers come about.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::api::{Done, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::table::number::python_float;

/// The stage.
pub(super) struct Report;

/// The lines: name, member of which file, and where in it.
const LINES: [(&str, &str, &[&str]); 7] = [
    ("TTFT", "mfu", &["inputs", "ttft"]),
    ("Throughput", "mfu", &["throughput"]),
    ("Tps", "mfu", &["tps"]),
    ("Time", "mfu", &["time"]),
    ("MFU", "mfu", &["mfu"]),
    ("ROUGE1", "rouge", &["mean_f", "rouge1"]),
    ("ROUGE2", "rouge", &["mean_f", "rouge2"]),
];

impl Stage for Report {
    fn name(&self) -> &'static str {
        "vendor.report"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Result lines of a vendor evaluation: TTFT (s), Throughput (new tokens/s after the first token), Tps (all tokens/s), Time (s), MFU,\n\
                ROUGE1 and ROUGE2 (F, 0 to 1), each NAME:VALUE, in this order, and CLIENT_BOUND:REASONS after them if the client spoiled the load (llm.load). The JSON has them too, with everything that they were computed from.",
        )
        .input("mfu", "the summary of eval.mfu")
        .input("rouge", "the summary of eval.rouge, variant google, with rouge1 and rouge2")
        .output("text", "the lines")
        .optional_output("json", "JSON: the values by name, and the two summaries")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let mfu: Map<String, Value> = ctx.input("mfu")?.read_json()?;
        let rouge: Map<String, Value> = ctx.input("rouge")?.read_json()?;
        let mut text = String::new();
        let mut values: IndexMap<&str, Value> = IndexMap::new();
        for (name, input, path) in LINES {
            let (file, of) = if input == "mfu" { ("mfu", &mfu) } else { ("rouge", &rouge) };
            let found = path[1..].iter().try_fold(of.get(path[0]), |value, part| Some(value?.get(*part)));
            let number = found.flatten().and_then(Value::as_f64).ok_or_else(|| {
                StageError::new(format!(
                    "{}: member '{}': expected a number",
                    ctx.files(file)[0].name,
                    path.join(".")
                ))
                .hint(format!("input '{file}' is the summary of eval.{file}"))
            })?;
            text.push_str(&format!("{name}:{}\n", python_float(number)));
            values.insert(name, number.into());
        }
        if let Some(reasons) = mfu.get("client_bound").and_then(Value::as_str) {
            text.push_str(&format!("CLIENT_BOUND:{reasons}\n"));
            values.insert("CLIENT_BOUND", reasons.into());
        }
        values.insert("mfu_summary", Value::Object(mfu));
        values.insert("rouge_summary", Value::Object(rouge));
        ctx.write("text", text.as_bytes())?;
        ctx.write_json("json", &values)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    #[test]
    fn lines_in_their_order() {
        let mfu =
            r#"{"tps": 640.5, "throughput": 21.25, "time": 193.5, "mfu": 0.036, "inputs": {"ttft": 1e-5}}"#;
        let rouge = r#"{"variant": "google", "mean_f": {"rouge1": 0.5, "rouge2": 0.0}}"#;
        let bench = |rouge: &str| {
            Bench::new(&Report, serde_json::json!({}))
                .file("mfu", "m.json", mfu)
                .file("rouge", "r.json", rouge)
        };
        let done = bench(rouge).run(&["text", "json"]).ok();
        assert_eq!(
            done.text("text"),
            "TTFT:1e-05\nThroughput:21.25\nTps:640.5\nTime:193.5\nMFU:0.036\nROUGE1:0.5\nROUGE2:0.0\n"
        );
        assert_eq!(done.json("json")["rouge_summary"]["variant"], "google");
        let Err(error) = bench("{\"mean_f\": {\"rouge1\": null}}").run(&["text"]).result else { panic!() };
        assert_eq!(error.message, "r.json: member 'mean_f.rouge1': expected a number");
    }
}
