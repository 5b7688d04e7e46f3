//! `inferencemax.clean_report`: all verdicts in one report, and the gate that stops a run on invalid files. Unaware of the rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, check_params};

use super::clean::{Code, Verdict};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct CleanReport;

/// How strict the gate is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What an invalid file means.
    #[serde(default)]
    pub on_invalid: OnInvalid,
}

/// What an invalid file means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// The report is written, then the step fails.
    #[default]
    Fail,
    /// The report names it, the rest goes on.
    Quarantine,
}

#[derive(Serialize)]
struct Report {
    files: Vec<Line>,
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    file: String,
    ok: bool,
    code: Option<Code>,
    bytes: usize,
    points: usize,
    valid_points: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Stage for CleanReport {
    fn name(&self) -> &'static str {
        "inferencemax.clean_report"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Gathers the verdicts of inferencemax.clean in name order, writes the report, then fails if a file is invalid and `on_invalid` is `fail`.",
        )
        .input_list("verdicts", "verdicts of inferencemax.clean")
        .output(
            "report",
            "{\"files\": [{\"file\", \"ok\", \"code\", \"bytes\", \"points\", \"valid_points\"}], \"skipped\": [file]}",
        )
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let mut verdicts = ctx
            .files("verdicts")
            .iter()
            .map(|file| {
                serde_json::from_slice::<Verdict>(&file.read()?).map_err(|e| {
                    StageError::new(format!("{}: expected a verdict of inferencemax.clean: {e}", file.name))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        verdicts.sort_by(|a, b| a.file.cmp(&b.file));
        let mut report = Report { files: Vec::new(), skipped: Vec::new() };
        for verdict in verdicts {
            if verdict.skipped {
                report.skipped.push(verdict.file);
            } else {
                let Verdict { file, ok, code, bytes, points, valid_points, message, .. } = verdict;
                report.files.push(Line { file, ok, code, bytes, points, valid_points, message });
            }
        }
        ctx.write_json("report", &report)?;
        let invalid: Vec<String> = report
            .files
            .iter()
            .filter(|line| !line.ok)
            .map(|line| {
                let code = line.code.map_or("invalid", Code::name);
                format!("  {}: {code}: {}", line.file, line.message.as_deref().unwrap_or("no message"))
            })
            .collect();
        if invalid.is_empty() {
            return Ok(Done::Made);
        }
        let summary =
            format!("{} of {} files are invalid\n{}", invalid.len(), report.files.len(), invalid.join("\n"));
        if params.on_invalid == OnInvalid::Quarantine {
            ctx.log(summary);
            return Ok(Done::Made);
        }
        Err(StageError::new(summary)
            .hint("repair or remove them, or set on_invalid=quarantine to go on with the valid files"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, Finished};
    use crate::stage::inferencemax::clean::judge;
    use serde_json::json;

    fn run(on_invalid: &str, files: &[(&str, &str)]) -> Finished {
        let mut bench = Bench::new(&CleanReport, json!({"on_invalid": on_invalid}));
        for (file, text) in files {
            let verdict = serde_json::to_string(&judge(file, text.as_bytes()).0).unwrap();
            bench = bench.file("verdicts", &format!("verdicts/{file}"), verdict);
        }
        bench.run(&["report"])
    }

    #[test]
    fn gathers_in_name_order_and_fails_after_writing() {
        let files = [("b.json", "{"), ("summary.json", ""), ("a.json", "[]")];
        let done = run("fail", &files);
        let report = done.json("report");
        let error = done.result.unwrap_err();
        assert_eq!(
            report,
            json!({
                "files": [
                    {"file": "a.json", "ok": false, "code": "root_not_object", "bytes": 2, "points": 0, "valid_points": 0, "message": "the root is not an object"},
                    {"file": "b.json", "ok": false, "code": "json_parse", "bytes": 1, "points": 0, "valid_points": 0, "message": "not JSON: EOF while parsing an object at line 1 column 1"},
                ],
                "skipped": ["summary.json"]
            })
        );
        assert!(
            error.message.starts_with("2 of 2 files are invalid\n  a.json: root_not_object: "),
            "{error}"
        );
        assert!(error.hints[0].contains("on_invalid=quarantine"));
        let done = run("quarantine", &files).ok();
        assert_eq!(done.json("report"), report);
        assert!(done.log[0].contains("b.json: json_parse"));
    }

    #[test]
    fn no_files_make_an_empty_report() {
        assert_eq!(run("fail", &[]).ok().json("report"), json!({"files": [], "skipped": []}));
    }
}
