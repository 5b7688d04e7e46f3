//! `bench.merge`: the requests of many pods as one run, and how well they fit together. Unaware of tools' files.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Pod;
use super::overlap::{Span, overlap_ratio, shifts, together, union};
use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::metrics::row::{self, Kind, Row};
use crate::stage::metrics::rules::{Rules, Timing};
use crate::stage::metrics::summary::span;
use crate::stage::table::jsonl::write_line;

/// The stage.
pub(super) struct Merge;

/// So many pairs of duplicates are named.
const NAMED: usize = 3;

/// What to do about a request that is there twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnDuplicate {
    /// An error names both places.
    #[default]
    Fail,
    /// The first one counts.
    Drop,
}

/// How the clocks of pods are brought together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Align {
    /// They are one clock, or each is known; otherwise an error.
    #[default]
    None,
    /// Every pod begins at the same moment: right if they were started together.
    Start,
}

/// What `with` holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// What to do about a request with the data set and uuid of another one, in whatever pod.
    on_duplicate: OnDuplicate,
    /// How the clocks of pods are brought together.
    align: Align,
    /// What a request's begin and end mean.
    rules: MergeRules,
}

/// The default is another one than that of the metrics.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct MergeRules(Rules);

impl Default for MergeRules {
    fn default() -> Self {
        Self(Rules::Aisbench)
    }
}

/// A request that is there twice.
#[derive(Clone, Debug, Serialize)]
struct Duplicate {
    pod: String,
    data_abbr: String,
    uuid: String,
    first: String,
    second: String,
}

impl Stage for Merge {
    fn name(&self) -> &'static str {
        "bench.merge"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Pools the raw requests of pods, so that statistics are those of all requests: no percentile is averaged.\n\
                \n\
                A request with the data_abbr and uuid of another one is refused, both places named, or dropped if asked: in whatever pod it stands. Times are\n\
                comparable only on one clock: pods of different hosts need a clock_offset each; a pod that begins more than 120 s (or the longest run,\n\
                if that is longer) after the others ended is refused, as its clock probably counts from another moment. align: start lets all pods\n\
                begin together. The report sets the sum of the pods' throughputs (requests per second, each over its own window) beside that of the union\n\
                window, from the first send to the last end, of the successes or of all as the rule set has the duration of a run; they agree only if the\n\
                pods overlap. overlap_ratio: the share of the union window in which all pods were at work. Pods of one host whose clock_offset differ by 5 s\n\
                at most have one clock. A pod of which dropping leaves nothing counts neither there nor in max_concurrency.",
        )
        .input_list("requests", "raw rows of each pod, as metrics.compute takes them")
        .input_list("pods", "what is known of each pod, in the same order")
        .output("requests", "JSON Lines: all rows, on one clock")
        .output("report", "JSON: {\"rules\", \"pods\": [{\"name\", \"requests\", \"failed\", \"window\", \"throughput\"}], \"sum_of_pods\", \"union\", \"overlap_ratio\", \"duplicates\", \"name_collisions\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let rules = params.rules.0;
        let (files, described) = (ctx.files("requests"), ctx.files("pods"));
        if files.len() != described.len() {
            return Err(StageError::new(format!(
                "inputs: {} files of requests and {} of pods: expected one of each per pod",
                files.len(),
                described.len()
            )));
        }
        if files.is_empty() {
            return Err(StageError::new("no pods: there is nothing to merge")
                .hint("do the patterns of 'performances' match directories that hold *_details.jsonl?")
                .hint("a pattern of directories ends with '/', as performances/vllm-*/; without it, it matches files only"));
        }
        let pods = described.iter().map(read_pod).collect::<Result<Vec<Pod>, _>>()?;
        let mut rows = files.iter().map(row::read).collect::<Result<Vec<Vec<Row>>, _>>()?;
        let untold = |row: &&Row| row.events.iter().any(|event| event.2 == Kind::Data);
        if rules.needs_kinds() && rows.iter().flatten().any(|row| untold(&row)) {
            return Err(StageError::new(format!(
                "rules {}: what the events were is not recorded",
                rules.name()
            ))
            .hint("AISBench's own files tell times only: rules aisbench"));
        }
        let duplicates = without_duplicates(&pods, &mut rows);
        if params.on_duplicate == OnDuplicate::Fail && !duplicates.is_empty() {
            return Err(refused(&duplicates));
        }
        let (with, without): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| pod.clock_offset.is_some());
        if let (Some(with), Some(without)) = (with.first(), without.first()) {
            ctx.log(format!("{} has a clock.json, and {} has none: it is not used", with.name, without.name));
        }
        let shifts = match params.align {
            Align::None => {
                let (shifts, lines) = shifts(&pods).map_err(incomparable)?;
                lines.into_iter().for_each(|line| ctx.log(line));
                shifts
            }
            Align::Start => to_one_start(&rows),
        };
        for (rows, shift) in rows.iter_mut().zip(shifts) {
            rows.iter_mut().for_each(|row| moved(row, shift));
        }
        let spans: Vec<Option<Span>> = rows.iter().map(|rows| of_rows(rules, rows)).collect();
        if params.align == Align::None {
            together(&pods, &spans).map_err(incomparable)?;
        }
        let report = report(rules, &pods, &rows, &spans, &duplicates);
        let line = format!(
            "{} pods, {} requests: {} requests/s as the sum of the pods, {} over the union window, overlap {}",
            pods.len(),
            rows.iter().map(Vec::len).sum::<usize>(),
            report["sum_of_pods"],
            report["union"],
            report["overlap_ratio"]
        );
        ctx.log(line);
        let path = ctx.output("requests")?;
        let failed = |e: std::io::Error| StageError::io("write", path, e);
        let mut out = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
        // the order in which a tool wrote them is of no matter to what comes after
        rows.iter_mut().flatten().for_each(|row| row.place = None);
        rows.iter().flatten().try_for_each(|row| write_line(&mut out, row, "requests"))?;
        out.flush().map_err(failed)?;
        ctx.write_json("report", &report)?;
        Ok(Done::Made)
    }
}

fn read_pod(file: &InputFile) -> Result<Pod, StageError> {
    file.read_json().map_err(|e| e.hint("expected an output 'pod' of aisbench.import"))
}

/// Takes out rows that are there already, and tells of them. A row that does not name its pod is of the pod beside its file.
fn without_duplicates(pods: &[Pod], rows: &mut [Vec<Row>]) -> Vec<Duplicate> {
    let mut seen: HashMap<(String, String), String> = HashMap::new();
    let mut duplicates = Vec::new();
    for (of, rows) in pods.iter().zip(rows) {
        rows.retain(|row| {
            // what has no uuid cannot be told apart
            let (Some(data_abbr), Some(uuid)) = (&row.data_abbr, &row.uuid) else { return true };
            let pod = row.pod.as_ref().unwrap_or(&of.name);
            let place = row.place.clone().unwrap_or_else(|| format!("{}, id {}", of.dir, row.id));
            // a uuid is unique by itself: a copy of a pod has another name
            match seen.entry((data_abbr.clone(), uuid.clone())) {
                Entry::Vacant(entry) => {
                    entry.insert(place);
                    true
                }
                Entry::Occupied(entry) => {
                    duplicates.push(Duplicate {
                        pod: pod.clone(),
                        data_abbr: data_abbr.clone(),
                        uuid: uuid.clone(),
                        first: entry.get().clone(),
                        second: place,
                    });
                    false
                }
            }
        });
    }
    duplicates
}

fn refused(duplicates: &[Duplicate]) -> StageError {
    let mut message = format!("{} requests are there twice", duplicates.len());
    for Duplicate { pod, data_abbr, uuid, first, second } in duplicates.iter().take(NAMED) {
        message += &format!("\n{first} and {second}: pod {pod}, data set {data_abbr}, uuid {uuid}");
    }
    if duplicates.len() > NAMED {
        message += &format!("\nand {} more", duplicates.len() - NAMED);
    }
    StageError::new(message)
        .hint("was a directory named twice, or copied? on_duplicate: drop keeps the first of each")
}

fn incomparable(why: String) -> StageError {
    StageError::new(format!("{why}; times of different clocks cannot be pooled"))
        .hint("if they were started together, align: start lets all begin at the same moment")
        .hint("or give each pod a clock.json: {\"host\", \"monotonic\", \"unix\"}, seconds of one moment on both clocks")
}

/// What brings the first send of every pod to that of the first one.
fn to_one_start(rows: &[Vec<Row>]) -> Vec<f64> {
    let first = |rows: &Vec<Row>| rows.iter().filter_map(|row| row.send).min_by(f64::total_cmp);
    let starts: Vec<Option<f64>> = rows.iter().map(first).collect();
    let zero = starts.iter().flatten().next().copied().unwrap_or(0.0);
    starts.into_iter().map(|start| start.map_or(0.0, |start| zero - start)).collect()
}

fn moved(row: &mut Row, shift: f64) {
    if shift != 0.0 {
        let times = row.send.iter_mut().chain(&mut row.end);
        times.chain(row.events.iter_mut().map(|event| &mut event.0)).for_each(|time| *time += shift);
    }
}

/// When a pod was at work, as the rule set has the duration of a run.
fn of_rows(rules: Rules, rows: &[Row]) -> Option<Span> {
    let timings: Vec<Timing> = rows.iter().filter_map(|row| rules.timing(row).ok()).collect();
    span(rules, &rows.iter().collect::<Vec<_>>(), &timings)
}

fn report(
    rules: Rules,
    pods: &[Pod],
    rows: &[Vec<Row>],
    spans: &[Option<Span>],
    duplicates: &[Duplicate],
) -> Value {
    let succeeded = |rows: &[Row]| rows.iter().filter(|row| rules.timing(row).is_ok()).count();
    let per_second = |count: usize, span: Option<Span>| {
        span.filter(|(begin, end)| end > begin).map(|(begin, end)| count as f64 / (end - begin))
    };
    let named = |pod: &Pod| pods.iter().filter(|other| other.name == pod.name).count();
    let mut described = Vec::new();
    let mut sum = 0.0;
    for ((pod, rows), span) in pods.iter().zip(rows).zip(spans) {
        let success = succeeded(rows);
        let throughput = per_second(success, *span);
        sum += throughput.unwrap_or(0.0);
        let mut about = json!({
            "name": if named(pod) > 1 { &pod.dir } else { &pod.name },
            "requests": rows.len(),
            "failed": rows.len() - success,
            "window": span.map(|(begin, end)| [begin, end]),
            "throughput": throughput,
            "max_concurrency": pod.max_concurrency,
        });
        if let Some(reasons) = &pod.client_bound {
            about["client_bound"] = json!(reasons);
        }
        described.push(about);
    }
    let known: Vec<Span> = spans.iter().copied().flatten().collect();
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pod in pods {
        pod.databases.iter().for_each(|name| names.entry(name).or_default().push(&pod.dir));
    }
    names.retain(|_, pods| pods.len() > 1);
    let collisions: Vec<Value> =
        names.into_iter().map(|(name, pods)| json!({ "name": name, "pods": pods })).collect();
    // a pod of which nothing is left, a copy, was not at work beside the others
    let left = || pods.iter().zip(rows).zip(spans).filter(|((_, rows), _)| !rows.is_empty());
    let limits = left().try_fold(0u64, |sum, ((pod, _), _)| sum.checked_add(pod.max_concurrency?));
    let at_work: Vec<Option<Span>> = left().map(|(_, span)| *span).collect();
    json!({
        "rules": rules.name(),
        "units": "seconds; throughput: successful requests per second",
        "pods": described,
        "sum_of_pods": sum,
        "union": per_second(rows.iter().map(|rows| succeeded(rows)).sum(), union(&known)),
        "overlap_ratio": overlap_ratio(&at_work),
        "max_concurrency": limits,
        "duplicates": duplicates,
        "name_collisions": collisions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    /// A request of one data set: sent at 0, text at half the time and at the end, failed if `error` is given.
    fn line(uuid: &str, end: f64, error: Option<&str>) -> String {
        let events = json!([[end / 2.0, 1, "content"], [end, 1, "content"]]);
        let mut row = json!({
            "id": uuid, "send": 0.0, "events": events, "input_tokens": 1, "output_tokens": 2, "success": true,
            "data_abbr": "d", "uuid": uuid
        });
        if let Some(error) = error {
            row["events"] = json!([]);
            row["end"] = json!(end);
            row["success"] = json!(false);
            row["error"] = json!(error);
        }
        format!("{row}\n")
    }

    fn bench(with: Value, pods: &[(&str, &str)]) -> Bench<'static> {
        pods.iter().fold(Bench::new(&Merge, with), |bench, (name, rows)| {
            let pod = json!({
                "name": name, "dir": format!("p/{name}"), "requests": 1, "failed": 0, "max_concurrency": 8, "host": null, "clock_offset": null,
                "databases": [], "data_sets": {}
            });
            bench.file("requests", &format!("{name}.jsonl"), rows).file("pods", &format!("{name}.json"), pod.to_string())
        })
    }

    fn report(with: Value, pods: &[(&str, &str)]) -> Value {
        bench(with, pods).run(&["requests", "report"]).ok().json("report")
    }

    #[test]
    fn a_copy_of_a_pod_adds_nothing() {
        let rows = line("u", 1.0, None);
        let found = report(json!({ "on_duplicate": "drop" }), &[("a", &rows), ("b", &rows)]);
        assert_eq!((&found["max_concurrency"], &found["overlap_ratio"]), (&json!(8), &json!(1.0)));
        assert_eq!(found["pods"][1]["requests"], 0);
    }

    #[test]
    fn a_request_there_twice_is_found_though_its_rows_name_no_pod() {
        let rows = line("u", 1.0, None);
        let error =
            bench(json!({}), &[("a", &rows), ("b", &rows)]).run(&["requests", "report"]).result.unwrap_err();
        assert_eq!(
            error.message,
            "1 requests are there twice\np/a, id \"u\" and p/b, id \"u\": pod b, data set d, uuid u"
        );
    }

    #[test]
    fn the_time_of_a_run_is_that_of_its_rule_set() {
        let rows = line("u", 1.0, None) + &line("v", 1.0, None) + &line("w", 10.0, Some("timeout"));
        for (rules, expected) in
            [("flow", 0.2), ("vllm", 0.2), ("evalscope-old", 0.2), ("evalscope-new", 2.0), ("aisbench", 2.0)]
        {
            let found = report(json!({ "rules": rules }), &[("a", &rows)]);
            for name in ["sum_of_pods", "union"] {
                assert_eq!(found[name], json!(expected), "{rules}: {name}");
            }
        }
    }

    #[test]
    fn a_pod_that_only_failed_was_never_at_work_with_the_others() {
        let (good, bad) = (line("u", 1.0, None), line("v", 1.0, Some("503")));
        let found = report(json!({}), &[("a", &good), ("b", &bad)]);
        assert_eq!((&found["overlap_ratio"], &found["max_concurrency"]), (&json!(0.0), &json!(16)));
    }

    #[test]
    fn nothing_to_merge_says_how_directories_are_matched() {
        let error = bench(json!({}), &[]).run(&["requests", "report"]).result.unwrap_err();
        assert!(error.hints[1].starts_with("a pattern of directories ends with '/'"), "{:?}", error.hints);
    }
}
