//! `eval.mfu`: tokens per second, and the share of the peak that they use. Unaware of what was run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The stage.
pub(super) struct Mfu;

/// What `with` holds. What is left out is taken from the input `measured`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Parameters of the model (P).
    parameters: Option<f64>,
    /// Tokens of all prompts.
    prompt_tokens: Option<f64>,
    /// Tokens that were generated.
    new_tokens: Option<f64>,
    /// Seconds from the first request to the last token.
    duration: Option<f64>,
    /// Seconds to the first token.
    ttft: Option<f64>,
    /// Peak of one device, in 10^12 floating point operations per second, dense, at the precision of the weights.
    peak_tflops: Option<f64>,
    /// Devices.
    gpus: Option<f64>,
}

/// The members of [`Params`], by name.
const NAMES: [&str; 7] =
    ["parameters", "prompt_tokens", "new_tokens", "duration", "ttft", "peak_tflops", "gpus"];

/// How the numbers come about, for whoever reads the output.
const FORMULA: &str = "tps = (prompt_tokens + new_tokens) / duration; \
    throughput = new_tokens / (duration - ttft) if duration > ttft, else new_tokens / duration; \
    mfu = tps * 2 * parameters / (peak_tflops * 10^12 * gpus)";

/// Below it a unit is probably wrong.
const SUSPICIOUS: f64 = 0.001;

impl Params {
    fn members(&self) -> [Option<f64>; 7] {
        [
            self.parameters,
            self.prompt_tokens,
            self.new_tokens,
            self.duration,
            self.ttft,
            self.peak_tflops,
            self.gpus,
        ]
    }
}

/// What is wrong with a value, if anything.
fn fault(name: &str, value: f64) -> Option<String> {
    let positive = !matches!(name, "prompt_tokens" | "new_tokens" | "ttft");
    let whole = matches!(name, "prompt_tokens" | "new_tokens" | "gpus");
    match value {
        v if !v.is_finite() => Some("expected a finite number".to_owned()),
        v if positive && v <= 0.0 => Some(format!("expected more than 0, found {v}")),
        v if v < 0.0 => Some(format!("expected 0 or more, found {v}")),
        v if whole && v.fract() != 0.0 => Some(format!("expected a whole number, found {v}")),
        _ => None,
    }
}

impl Stage for Mfu {
    fn name(&self) -> &'static str {
        "eval.mfu"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Throughput and model FLOPs utilization of a measured run.\n\
                \n\
                tps = (prompt_tokens + new_tokens) / duration: all tokens, those of the prompts too. throughput = new_tokens / (duration - ttft),\n\
                the inverse of the time per output token (new_tokens / duration if the first token took the whole time). mfu = tps x 2 x parameters /\n\
                (peak_tflops x 10^12 x gpus): 2 operations per parameter and token, without the attention term (Chowdhery et al., PaLM, 2022,\n\
                appendix B, adds it). More than 1 is impossible and refused; less than 0.001 is warned of, as a unit is probably wrong.",
        )
        .input_list("measured", "JSON objects: parameters that 'with' leaves out, by the same names; others are passed over; may be left out")
        .output("summary", "JSON: {\"tps\", \"throughput\", \"time\", \"mfu\", \"formula\", \"inputs\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        for (name, value) in NAMES.iter().zip(params.members()) {
            if let Some(message) = value.and_then(|value| fault(name, value)) {
                return Err(ParamFault { path: (*name).to_owned(), message });
            }
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let mut measured: Vec<(String, Value)> = Vec::new();
        for file in ctx.files("measured") {
            measured.push((file.name.clone(), file.read_json()?));
        }
        let mut values = [0.0; 7];
        for ((name, given), slot) in NAMES.iter().zip(params.members()).zip(&mut values) {
            *slot = match given {
                Some(value) => value,
                None => member(name, &measured)?,
            };
        }
        let [parameters, prompt_tokens, new_tokens, duration, ttft, peak_tflops, gpus] = values;
        if ttft > duration {
            return Err(StageError::new(format!("ttft is {ttft} s, more than the duration of {duration} s"))
                .hint("both are in seconds, from the first request on"));
        }
        let tps = (prompt_tokens + new_tokens) / duration;
        let throughput = if duration > ttft { new_tokens / (duration - ttft) } else { new_tokens / duration };
        let mfu = tps * 2.0 * parameters / (peak_tflops * 1e12 * gpus);
        if mfu > 1.0 {
            return Err(StageError::new(format!("mfu is {mfu}: more than the peak is impossible")).hint(format!(
                "check peak_tflops ({peak_tflops}), gpus ({gpus}) and parameters ({parameters}), and the unit of duration ({duration} s)"
            )));
        }
        if mfu < SUSPICIOUS {
            ctx.log(format!("warning: mfu is {mfu}, less than {SUSPICIOUS}: is peak_tflops ({peak_tflops}) in 10^12, and one device's?"));
        }
        let number = |value: f64| {
            if value.fract() == 0.0 && value.abs() < 2e15 { json!(value as i64) } else { json!(value) }
        };
        let inputs: serde_json::Map<String, Value> =
            NAMES.iter().zip(values).map(|(name, value)| ((*name).to_owned(), number(value))).collect();
        let mut summary = json!({"tps": tps, "throughput": throughput, "time": duration, "mfu": mfu, "formula": FORMULA, "inputs": inputs});
        // what spoiled the measurement stays beside its numbers
        let reasons = spoiled(&measured);
        if !reasons.is_empty() {
            ctx.log(format!("client_bound: {}", reasons.join("; ")));
            summary["client_bound"] = json!(reasons.join("; "));
        }
        ctx.write_json("summary", &summary)?;
        Ok(Done::Made)
    }
}

/// Why the client spoiled what was measured, each reason once. `null` and `false` say that it did not.
fn spoiled(measured: &[(String, Value)]) -> Vec<String> {
    let mut reasons = Vec::new();
    for (_, values) in measured {
        let reason = match &values["client_bound"] {
            Value::Null | Value::Bool(false) => continue,
            Value::Bool(true) => "no reason given".to_owned(),
            Value::String(reason) if reason.trim().is_empty() => "no reason given".to_owned(),
            Value::String(reason) => reason.clone(),
            other => other.to_string(),
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

/// What the files say of a parameter. All that have it have to agree.
fn member(name: &str, measured: &[(String, Value)]) -> Result<f64, StageError> {
    let mut found: Option<(&str, f64)> = None;
    for (file, values) in measured {
        let Some(value) = values.get(name).filter(|value| !value.is_null()) else { continue };
        let wrong = |what: String| StageError::new(format!("{file}: member '{name}': {what}"));
        let number = value.as_f64().ok_or_else(|| wrong(format!("expected a number, found {value}")))?;
        if let Some(message) = fault(name, number) {
            return Err(wrong(message));
        }
        match found {
            Some((first, other)) if other != number => {
                return Err(wrong(format!("{number}, and {first} says {other}"))
                    .hint("give it in 'with', or in one file only"));
            }
            Some(_) => {}
            None => found = Some((file, number)),
        }
    }
    let files: Vec<&str> = measured.iter().map(|(file, _)| file.as_str()).collect();
    let place = if files.is_empty() { String::new() } else { format!(", and not in {}", files.join(", ")) };
    found.map(|(_, number)| number).ok_or_else(|| {
        StageError::new(format!("parameter {name}: missing{place}"))
            .hint("give it in 'with', or an input 'measured' that holds it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    fn vector() -> Value {
        json!({
            "parameters": 70_553_706_496_u64, "prompt_tokens": 119_892, "new_tokens": 4096,
            "duration": 193.57586941402406, "ttft": 0.7435413458806579, "peak_tflops": 312, "gpus": 8
        })
    }

    fn close(found: &Value, expected: f64) {
        let found = found.as_f64().unwrap();
        assert!(((found - expected) / expected).abs() <= 1e-12, "{found} {expected}");
    }

    #[test]
    fn the_published_run() {
        let split = vector();
        let measured = json!({"duration": split["duration"], "ttft": split["ttft"], "other": 1}).to_string();
        let mut rest = vector();
        rest.as_object_mut().unwrap().retain(|name, _| name != "duration" && name != "ttft");
        for done in [
            Bench::new(&Mfu, vector()).run(&["summary"]).ok(),
            Bench::new(&Mfu, rest).file("measured", "m.json", measured).run(&["summary"]).ok(),
        ] {
            let summary = done.json("summary");
            close(&summary["tps"], 640.5137188603395);
            close(&summary["throughput"], 21.241251614991388);
            close(&summary["mfu"], 0.0362104302300752);
            assert_eq!(summary["inputs"], vector());
        }
    }

    #[test]
    fn what_spoiled_any_of_the_measurements_is_said_once() {
        for (marks, expected) in [
            (["null", "false"], None),
            (["null", "\"lag\""], Some("lag")),
            (["\"lag\"", "\"cpu\""], Some("lag; cpu")),
            (["\"lag\"", "\"lag\""], Some("lag")),
            (["true", "false"], Some("no reason given")),
        ] {
            let file = |mark: &str| format!("{{\"client_bound\": {mark}}}");
            let done = Bench::new(&Mfu, vector())
                .file("measured", "a.json", file(marks[0]))
                .file("measured", "b.json", file(marks[1]))
                .file("measured", "c.json", "{}")
                .run(&["summary"])
                .ok();
            assert_eq!(
                done.json("summary").get("client_bound").and_then(Value::as_str),
                expected,
                "{marks:?}"
            );
        }
    }

    #[test]
    fn more_than_the_peak_is_refused_and_little_is_warned_of() {
        let with = |name: &str, value: f64| {
            let mut with = vector();
            with[name] = json!(value);
            Bench::new(&Mfu, with).run(&["summary"])
        };
        let Err(error) = with("peak_tflops", 5.0).result else { panic!("mfu above 1 was told") };
        assert!(error.message.contains("more than the peak is impossible"));
        let log = with("peak_tflops", 31200.0).ok().log;
        assert!(log[0].starts_with("warning: mfu is 0.00036"), "{log:?}");
        assert_eq!(
            with("ttft", 200.0).result.unwrap_err().message,
            "ttft is 200 s, more than the duration of 193.57586941402406 s"
        );
        assert!(Mfu.check(&json!({"gpus": 1.5})).is_err());
        assert!(Mfu.check(&json!({"duration": 0})).is_err());
        let Err(error) = Bench::new(&Mfu, json!({})).run(&["summary"]).result else { panic!() };
        assert_eq!(error.message, "parameter parameters: missing");
        let files = |a: &str, b: &str| {
            let mut with = vector();
            with.as_object_mut().unwrap().retain(|name, _| name != "gpus");
            Bench::new(&Mfu, with)
                .file("measured", "a.json", a)
                .file("measured", "b.json", b)
                .run(&["summary"])
        };
        assert_eq!(files("{\"gpus\": 8}", "{\"gpus\": 8.0}").ok().json("summary")["inputs"], vector());
        for (a, b, expected) in [
            ("{\"gpus\": 8}", "{\"gpus\": 4}", "b.json: member 'gpus': 4, and a.json says 8"),
            ("{}", "{\"gpus\": null}", "parameter gpus: missing, and not in a.json, b.json"),
            ("{}", "{\"gpus\": \"8\"}", "b.json: member 'gpus': expected a number, found \"8\""),
            ("{\"gpus\": 0}", "{}", "a.json: member 'gpus': expected more than 0, found 0"),
        ] {
            assert_eq!(files(a, b).result.unwrap_err().message, expected);
        }
    }
}
