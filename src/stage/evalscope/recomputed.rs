//! `evalscope.percentiles`: percentiles that were computed from the requests of each run, side by side. Unaware of how a run is read.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::columns::Cell;
use super::options::At;
use super::record::{self, Format, NAMES, Run};
use super::sheet::{Row, Sheet};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The stage.
pub(super) struct Percentiles;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What evalscope.collect was given. Null: nothing is written.
    percentiles: Option<At>,
    /// csv, json or both.
    #[serde(default)]
    format: Format,
}

impl Stage for Percentiles {
    fn name(&self) -> &'static str {
        "evalscope.percentiles"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Percentiles of the successful requests of evalscope runs, by one rule for all versions, which the column 'rule' names.\n\
                \n\
                Columns as in the raw table, in seconds, tokens and tokens per second, not rounded; itl_ is over all tokens of all requests. Where the database says what\n\
                was streamed, ttft_ and tpot_ are of streamed answers, if there are any, and tpot_ of those with more than one token.\n\
                What no request has is empty. A run whose database cannot be read has empty cells. A list of token times that cannot be read is left out of itl_, and is a problem of\n\
                the run.",
        )
        .input_list("runs", "records of evalscope.collect with the same percentiles")
        .optional_output("csv", "a row per run as CSV")
        .optional_output("json", "a row per run as JSON")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        params.percentiles.map_or(Ok(()), |at| at.check())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let Some(at) = params.percentiles else {
            ctx.log("no percentiles: nothing to say");
            return Ok(Done::Made);
        };
        let records = record::read(ctx)?;
        let runs: Vec<&Run> = records.iter().filter_map(|record| record.run.as_ref()).collect();
        if runs.iter().filter_map(|run| run.recomputed.as_ref()).any(|found| found.rule != at.rule) {
            return Err(StageError::new(format!(
                "a run has percentiles by another rule than {}",
                at.rule.name()
            ))
            .hint("give evalscope.collect and evalscope.percentiles the same 'percentiles'"));
        }
        let found = runs.iter().filter_map(|run| run.recomputed.as_ref());
        let columns = record::in_order(found.map(|found| &found.columns));
        let header: Vec<&str> = NAMES
            .into_iter()
            .chain(["versions", "rule", "requests"])
            .chain(columns.iter().copied())
            .collect();
        let without = runs.iter().filter(|run| run.recomputed.is_none()).count();
        ctx.log(format!("{} runs; of {without} the database cannot be read", runs.len()));
        let (csv, json) = (params.format != Format::Json, params.format != Format::Csv);
        let sheet = Sheet { csv: csv.then_some("csv"), json: json.then_some("json"), null: "" };
        sheet.write(ctx, &header, runs.iter().map(|run| row(run, &at, &columns)))?;
        Ok(Done::Made)
    }
}

fn row(run: &Run, at: &At, columns: &[&str]) -> Row {
    let found = run.recomputed.as_ref();
    let mut row: Row = NAMES.iter().map(|name| Some(run.row[name].clone())).collect();
    let requests: Cell = found.map(|found| found.requests).into();
    row.extend([Some(run.family.as_str().into()), Some(at.rule.name().into()), Some(requests)]);
    row.extend(
        columns.iter().map(|column| Some(found.map_or(Cell::Null, |found| found.columns[column].clone()))),
    );
    row
}
