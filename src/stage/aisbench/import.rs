//! `aisbench.import`: what AISBench recorded of one pod, as raw requests. Unaware of other pods and of statistics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::npy;
use super::time_points::TimePoints;
use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::bench::Pod;
use crate::stage::metrics::row::{Event, Kind, Row};
use crate::stage::metrics::rules::Rules;
use crate::stage::sqlite;
use crate::stage::table::jsonl::{JsonLines, write_line};

/// The stage.
pub(super) struct Import;

/// What the original's merge makes: not a pod.
const MERGED: &str = "merge_results";
/// Ends the names of the files that list requests.
const DETAILS: &str = "_details.jsonl";
/// Tells the pod's clock; AISBench does not write it.
const CLOCK: &str = "clock.json";

/// What `with` holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Where the directory lies, for messages and the report: what an input is called is no part of it. Default: its name.
    dir: Option<String>,
}

/// A line of a details file.
#[derive(Debug, Deserialize)]
struct Detail {
    data_abbr: String,
    id: Value,
    success: bool,
    #[serde(default)]
    error_info: Option<String>,
    time_points: TimePoints,
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    uuid: String,
    #[serde(default)]
    db_name: Option<String>,
}

/// The file `clock.json`: one moment on the clock of the time points and on the wall.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Clock {
    host: String,
    monotonic: f64,
    unix: f64,
    /// Why the client that wrote it spoiled the load.
    #[serde(default)]
    client_bound: Option<String>,
}

impl Stage for Import {
    fn name(&self) -> &'static str {
        "aisbench.import"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Reads performances/<model> of AISBench 3.1: *_details.jsonl and the time points in db_data.\n\
                \n\
                Each request becomes a raw row: sent at its first time point, one event for each of the others. What an event was AISBench does\n\
                not record. Rows are sorted by data set, id and uuid: their order in the files is that of completion. A folder named merge_results, which\n\
                the original's merge makes, is refused. A file clock.json beside the details ({\"host\", \"monotonic\", \"unix\"}, seconds of the same moment)\n\
                makes pods of several hosts comparable; AISBench does not write it.",
        )
        .input("pod", "the directory of one model: *_details.jsonl, db_data/, and the tool's json with Max Concurrency")
        .output("requests", "JSON Lines, as metrics.compute takes them, with pod, data_abbr, uuid and place")
        .output("pod", "JSON: {\"name\", \"requests\", \"failed\", \"max_concurrency\", \"host\", \"clock_offset\", \"databases\", \"data_sets\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let input = ctx.input("pod")?;
        let dir = Directory::of(input, params.dir.as_deref().unwrap_or(&input.name))?;
        let mut databases = Databases { dir: &dir, points: HashMap::new() };
        let mut rows = Vec::new();
        for file in dir.files(DETAILS)? {
            let mut lines = JsonLines::open(&file)?;
            while let Some(detail) = lines.value::<Detail>()? {
                let place = format!("{}:{}", file.name, lines.line());
                rows.push(row(detail, place, &dir.name, &mut databases)?);
            }
        }
        if rows.is_empty() {
            return Err(StageError::new(format!("{}: no requests", dir.shown)));
        }
        let key = |row: &Row| (row.data_abbr.clone(), row.id.as_i64(), row.uuid.clone());
        rows.sort_by_cached_key(key);
        let clock = dir.clock()?;
        let (max_concurrency, passed_over) = dir.max_concurrency()?;
        passed_over.into_iter().for_each(|line| ctx.log(line));
        let mut data_sets = BTreeMap::new();
        for row in &rows {
            *data_sets.entry(row.data_abbr.clone().unwrap_or_default()).or_default() += 1;
        }
        let pod = Pod {
            name: dir.name.clone(),
            dir: dir.shown.clone(),
            requests: rows.len(),
            // as the tool counts: a success without a chunk is none
            failed: rows.iter().filter(|row| Rules::Aisbench.timing(row).is_err()).count(),
            max_concurrency,
            client_bound: clock.as_ref().and_then(|clock| clock.client_bound.clone()),
            host: clock.as_ref().map(|clock| clock.host.clone()),
            clock_offset: clock.map(|clock| clock.unix - clock.monotonic),
            databases: databases.points.keys().cloned().collect::<BTreeSet<_>>(),
            data_sets,
        };
        ctx.log(format!("{}: {} requests, {} failed", pod.name, pod.requests, pod.failed));
        let path = ctx.output("requests")?;
        let file = std::fs::File::create(path).map_err(|e| StageError::io("write", path, e))?;
        let mut out = std::io::BufWriter::new(file);
        rows.iter().try_for_each(|row| write_line(&mut out, row, "requests"))?;
        std::io::Write::flush(&mut out).map_err(|e| StageError::io("write", path, e))?;
        ctx.write_json("pod", &pod)?;
        Ok(Done::Made)
    }
}

fn row(detail: Detail, place: String, pod: &str, databases: &mut Databases) -> Result<Row, StageError> {
    let points = match &detail.time_points {
        TimePoints::Here(points) => points.as_slice(),
        TimePoints::Reference(id) => {
            let Some(database) = &detail.db_name else {
                return Err(StageError::new(format!(
                    "{place}: 'time_points' refers to a database, and 'db_name' is missing"
                )));
            };
            databases.points(database, *id, &place)?
        }
    };
    if let Some(at) = points.iter().position(|point| !point.is_finite()) {
        return Err(StageError::new(format!(
            "{place}: its time point {at} (from 0) is no finite number: {}",
            points[at]
        )));
    }
    if let Some(at) = points.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(StageError::new(format!(
            "{place}: its time points do not ascend: number {} (from 0) lies before number {at}",
            at + 1
        )));
    }
    let failed = (!detail.success).then(|| detail.error_info.unwrap_or_default());
    Ok(Row {
        id: detail.id,
        send: points.first().copied(),
        end: None,
        events: points.iter().skip(1).map(|at| Event(*at, None, Kind::Data)).collect(),
        input_tokens: detail.input_tokens,
        output_tokens: detail.output_tokens,
        // what was never sent cannot have succeeded
        success: detail.success && !points.is_empty(),
        error: failed.or_else(|| points.is_empty().then(|| "no time points".to_owned())),
        pod: Some(pod.to_owned()),
        data_abbr: Some(detail.data_abbr),
        uuid: Some(detail.uuid),
        place: Some(place),
    })
}

/// The directory of a pod.
struct Directory {
    path: PathBuf,
    /// As messages name it.
    shown: String,
    name: String,
}

impl Directory {
    /// `given` is where it lies, as messages name it.
    fn of(input: &InputFile, given: &str) -> Result<Self, StageError> {
        let shown = given.trim_end_matches('/').to_owned();
        let name = shown.rsplit('/').next().unwrap_or(&shown).to_owned();
        if name.is_empty() {
            return Err(StageError::new(format!(
                "input 'pod' ({}): its directory, '{given}', has no name: expected one that ends with the pod's, as performances/<model>",
                input.name
            ))
            .hint("the parameter 'dir' says where the directory lies; without it, it is called as the input is"));
        }
        if name == MERGED {
            return Err(StageError::new(format!("{shown}: this is what a merge wrote, not a pod"))
                .hint("its requests are those of the other directories; leave it out of 'performances'"));
        }
        Ok(Self { path: input.path.clone(), shown, name })
    }

    fn file(&self, name: &str) -> InputFile {
        InputFile { path: self.path.join(name), name: format!("{}/{name}", self.shown) }
    }

    /// Files whose names end so, sorted.
    fn files(&self, ending: &str) -> Result<Vec<InputFile>, StageError> {
        let failed = |e| StageError::io("list", Path::new(&self.shown), e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| name.ends_with(ending)).map(str::to_owned));
        }
        names.sort_unstable();
        if names.is_empty() && ending == DETAILS {
            return Err(StageError::new(format!("{}: holds no *{DETAILS}", self.shown))
                .hint("a pod is a directory performances/<model> of AISBench"));
        }
        Ok(names.iter().map(|name| self.file(name)).collect())
    }

    fn clock(&self) -> Result<Option<Clock>, StageError> {
        let file = self.file(CLOCK);
        if !file.path.exists() {
            return Ok(None);
        }
        file.read_json().map(Some)
    }

    /// What the tool was allowed to have in flight: the greatest that its json files name; and lines about files that cannot be read and are not
    /// its own.
    fn max_concurrency(&self) -> Result<(Option<u64>, Vec<String>), StageError> {
        let (mut greatest, mut passed_over) = (None, Vec::new());
        for file in self.files(".json")?.iter().filter(|file| !file.name.ends_with(CLOCK)) {
            let value: Value = match file.read_json() {
                Ok(value) => value,
                Err(error) if self.is_of_tool(file) => return Err(error),
                Err(error) => {
                    passed_over.push(format!("passed over, as it is not the tool's: {}", error.message));
                    continue;
                }
            };
            let stages = value["Max Concurrency"].as_object();
            let named = stages.into_iter().flat_map(|stages| stages.values()).filter_map(Value::as_u64);
            greatest = named.chain(greatest).max();
        }
        Ok((greatest, passed_over))
    }

    /// Whether a json file is one that the tool writes: called as a data set, or as the class of several, a table of the same name beside it.
    fn is_of_tool(&self, json: &InputFile) -> bool {
        let stem = json.file_name().trim_end_matches(".json");
        let beside = |ending: &str| self.path.join(format!("{stem}{ending}")).exists();
        stem.ends_with("dataset") || beside(DETAILS) || beside(".csv")
    }
}

/// The databases of a pod, each read once.
struct Databases<'d> {
    dir: &'d Directory,
    points: HashMap<String, HashMap<i64, Vec<f64>>>,
}

impl Databases<'_> {
    /// The time points with an id; `place` is that of the request.
    fn points(&mut self, database: &str, id: i64, place: &str) -> Result<&[f64], StageError> {
        if !self.points.contains_key(database) {
            let read = self.read(database, place)?;
            self.points.insert(database.to_owned(), read);
        }
        let found = self.points.get(database).and_then(|points| points.get(&id));
        found.map(Vec::as_slice).ok_or_else(|| {
            StageError::new(format!("{place}: db_data/{database} has no time points with id {id}")).hint(
                "the database may be cut short, or another one of the same name may have taken its place",
            )
        })
    }

    fn read(&self, database: &str, place: &str) -> Result<HashMap<i64, Vec<f64>>, StageError> {
        if database.contains('/') {
            return Err(StageError::new(format!(
                "{place}: db_name: expected a file name, found '{database}'"
            )));
        }
        let file = self.dir.file(&format!("db_data/{database}"));
        if !file.path.is_file() {
            return Err(StageError::new(format!("{place}: its database {} is missing", file.name))
                .hint("copy db_data together with the details"));
        }
        let failed = |e: rusqlite::Error| StageError::new(format!("{}: {e}", file.name));
        let db = sqlite::open_to_read(&file.path).map_err(failed)?;
        let mut select = db.prepare("SELECT id, arr_blob FROM numpy_store").map_err(failed)?;
        let mut rows = select.query([]).map_err(failed)?;
        let mut points = HashMap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            let blob = row.get_ref(1).map_err(failed)?;
            let blob = blob.as_blob().map_err(|e| StageError::new(format!("{}: id {id}: {e}", file.name)))?;
            let floats =
                npy::floats(blob).map_err(|why| StageError::new(format!("{}: id {id}: {why}", file.name)))?;
            points.insert(id, floats);
        }
        Ok(points)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::stage::harness::{Bench, Finished};

    /// Imports a pod `m8` of these requests' time points, after `more` was done to it.
    fn import(time_points: &[&str], more: impl Fn(&Path)) -> Finished {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("m8");
        fs::create_dir_all(pod.join("db_data")).unwrap();
        let line = |(n, points): (usize, &&str)| {
            format!(
                "{{\"data_abbr\": \"d\", \"id\": {n}, \"success\": true, \"time_points\": {points}, \"uuid\": \"u{n}\", \"db_name\": \"x.db\"}}\n"
            )
        };
        let details: String = time_points.iter().enumerate().map(line).collect();
        fs::write(pod.join("d_details.jsonl"), details).unwrap();
        more(&pod);
        Bench::new(&Import, json!({})).path("pod", &pod).run(&["requests", "pod"])
    }

    #[test]
    fn time_points_that_are_none_are_named_for_what_they_are() {
        let message = |points: &str, more: &dyn Fn(&Path)| {
            import(&["[1.0, 2.0]", points], more).result.unwrap_err().message
        };
        let none = |_: &Path| {};
        let null = message("[1.0, null]", &none);
        assert!(
            null.starts_with(
                "m8/d_details.jsonl:2: invalid type: null, expected a number in 'time_points': seconds"
            ),
            "{null}"
        );
        let stored = |pod: &Path| {
            let db = rusqlite::Connection::open(pod.join("db_data/x.db")).unwrap();
            db.execute_batch("CREATE TABLE numpy_store(id INTEGER PRIMARY KEY, arr_blob BLOB NOT NULL)")
                .unwrap();
            db.execute("INSERT INTO numpy_store VALUES (1, ?1)", [npy::bytes(&[1.0, f64::NAN])]).unwrap();
        };
        assert_eq!(
            message("{\"__db_ref__\": 1}", &stored),
            "m8/d_details.jsonl:2: its time point 1 (from 0) is no finite number: NaN"
        );
        assert_eq!(
            message("[1.0, 3.0, 2.0]", &none),
            "m8/d_details.jsonl:2: its time points do not ascend: number 2 (from 0) lies before number 1"
        );
    }

    #[test]
    fn a_success_without_a_chunk_counts_as_failed() {
        let pod = import(&["[1.0, 2.0]", "[1.0]", "[]"], |_| {}).ok().json("pod");
        assert_eq!((&pod["requests"], &pod["failed"]), (&json!(3), &json!(2)));
    }

    #[test]
    fn only_the_tools_own_json_has_to_be_whole() {
        let done = import(&["[1.0, 2.0]"], |pod| {
            fs::write(pod.join("d.json"), r#"{"Max Concurrency": {"total": 4}}"#).unwrap();
            fs::write(pod.join("notes.json"), "{").unwrap();
        })
        .ok();
        assert_eq!(done.json("pod")["max_concurrency"], 4);
        assert!(
            done.log[0].starts_with("passed over, as it is not the tool's: m8/notes.json:1: "),
            "{:?}",
            done.log
        );
        for (json, table) in [("d.json", "d.csv"), ("syntheticdataset.json", "d.csv"), ("x.json", "x.csv")] {
            let error = import(&["[1.0, 2.0]"], |pod| {
                fs::write(pod.join(json), "{").unwrap();
                fs::write(pod.join(table), "").unwrap();
            });
            assert!(error.result.unwrap_err().message.starts_with(&format!("m8/{json}:1: ")), "{json}");
        }
    }

    #[test]
    fn a_pod_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("m8");
        std::fs::create_dir(&pod).unwrap();
        for given in ["", "/", "//"] {
            let bench = Bench::new(&Import, serde_json::json!({ "dir": given })).path("pod", &pod);
            let error = bench.run(&["requests", "pod"]).result.unwrap_err();
            assert_eq!(
                error.message,
                format!(
                    "input 'pod' (m8): its directory, '{given}', has no name: expected one that ends with the pod's, as performances/<model>"
                )
            );
        }
    }
}
