//! `vendor.config`: the original's `host.yaml` and task file as one JSON. Unaware of what is run with it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::yaml;
use crate::api::{
    Done, InputFile, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params,
};

/// The stage.
pub(super) struct Config;

impl Stage for Config {
    fn name(&self) -> &'static str {
        "vendor.config"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Reads the configuration files of the original vendor evaluation.\n\
                \n\
                host.yaml: vendor (VENDOR, as the original's own file has it, too), engine, chip, nproc_per_node (gpu_nums in older files), data_path,\n\
                model_path. Task file: task_nums, TFLOPS_FP16 (GPU_FP16 or GPU_FPxx in older files), GPU_NAME. Other members are listed (lists and mappings as JSON), not used.\n\
                The result has gpus and peak_tflops, as eval.mfu takes them: the task file has to say the peak even where eval.mfu is given one.",
        )
        .input("host", "host.yaml")
        .input("task", "tasks/<vendor>/<engine>/<chip>.yaml")
        .optional_output("task", "JSON: {\"task_nums\"}: as xsum.read takes it; stays as it is while the peak changes")
        .output("config", "JSON: vendor, engine, chip, gpus, peak_tflops, task_nums, gpu_name, data_path, model_path, unused")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let mut host = File::read(ctx.input("host")?)?;
        let mut task = File::read(ctx.input("task")?)?;
        let mut config = json!({
            "vendor": host.text(&["vendor", "VENDOR"])?,
            "engine": host.text(&["engine"])?,
            "chip": host.text(&["chip"])?,
            "gpus": host.number(&["nproc_per_node", "gpu_nums"], true)?,
            "peak_tflops": task.number(&["TFLOPS_FP16", "GPU_FP16", "GPU_FPxx"], false).map_err(needed)?,
            "task_nums": task.number(&["task_nums"], true).map_err(needed)?,
        });
        for name in ["data_path", "model_path"] {
            config[name] = host.single(name)?;
        }
        config["gpu_name"] = task.single("GPU_NAME")?;
        let unused: Vec<String> = [host, task].iter().flat_map(File::listed).collect();
        config["unused"] = json!(unused);
        ctx.write_json("task", &json!({ "task_nums": config["task_nums"] }))?;
        ctx.write_json("config", &config)?;
        Ok(Done::Made)
    }
}

/// Says that a parameter of a later step does not replace what the task file lacks.
fn needed(error: StageError) -> StageError {
    error.hint("the task file has to hold it even where the parameter peak_tflops or task_nums takes its place in a later step")
}

/// A YAML file that is a mapping.
struct File {
    name: String,
    members: BTreeMap<String, Value>,
}

impl File {
    fn read(file: &InputFile) -> Result<Self, StageError> {
        let fault = |what: &dyn std::fmt::Display| {
            StageError::new(format!("{}: {what}", file.name)).hint("expected YAML: lines of NAME: VALUE")
        };
        let text = file.read_text()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let members = yaml::members(text).map_err(|what| fault(&what))?;
        Ok(Self { name: file.name.clone(), members: members.into_iter().collect() })
    }

    /// Members that are left, each with its file; lists and mappings as JSON.
    fn listed(&self) -> Vec<String> {
        let line = |(key, value): (&String, &Value)| match value {
            Value::Array(_) | Value::Object(_) => format!("{}: {key}: {value}", self.name),
            _ => format!("{}: {key}", self.name),
        };
        self.members.iter().map(line).collect()
    }

    /// Takes a member that may be missing: `null` then.
    fn single(&mut self, name: &str) -> Result<Value, StageError> {
        match self.members.remove(name) {
            Some(value @ (Value::Array(_) | Value::Object(_))) => {
                Err(StageError::new(format!("{}: '{name}': expected text, found {value}", self.name)))
            }
            found => Ok(found.unwrap_or(Value::Null)),
        }
    }

    /// Takes the first of some members that is there, with its name. `expected` is what it would be.
    fn take<'n>(&mut self, names: &[&'n str], expected: &str) -> Result<(&'n str, Value), StageError> {
        let found = names.iter().find_map(|name| Some((*name, self.members.remove(*name)?)));
        found.ok_or_else(|| {
            let there: Vec<&str> = self.members.keys().map(String::as_str).collect();
            let there = if there.is_empty() { "nothing else".to_owned() } else { there.join(", ") };
            StageError::new(format!("{}: no '{}'; it has: {there}", self.name, names.join("' or '")))
                .hint(format!("add a line {}: {expected}", names[0]))
        })
    }

    fn text(&mut self, names: &[&str]) -> Result<String, StageError> {
        let (name, value) = self.take(names, "TEXT")?;
        let fault =
            |found: &str| StageError::new(format!("{}: '{name}': expected text, found {found}", self.name));
        match value {
            Value::String(text) => Ok(text),
            Value::Null => Err(fault("nothing").hint(format!("write {name}: TEXT"))),
            other => {
                let what = if other.is_number() { "the number " } else { "" };
                Err(fault(&format!("{what}{other}"))
                    .hint(format!("put it in quotes, so that it is text: {name}: \"{other}\"")))
            }
        }
    }

    fn number(&mut self, names: &[&str], whole: bool) -> Result<Value, StageError> {
        let expected = if whole { "a whole number above 0" } else { "a number above 0" };
        let (name, value) = self.take(names, expected)?;
        let fits = value.as_f64().is_some_and(|number| number > 0.0) && (!whole || value.is_u64());
        if fits {
            return Ok(value);
        }
        Err(StageError::new(format!("{}: '{name}': expected {expected}, found {value}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    const HOST: &str = "# of the machine\nVENDOR: nvidia\nengine: hf\nchip: A100_40_SXM\nnproc_per_node: 8\ndata_path: /d/x.csv\nlog_path: /log\n";
    const TASK: &str = "GPU_NAME: A100\nTFLOPS_FP16: 312\ntask_nums: 256 # 5 to 10 minutes\n";

    fn bench(host: &str, task: &str) -> Bench<'static> {
        Bench::new(&Config, json!({})).file("host", "host.yaml", host).file("task", "a100.yaml", task)
    }

    #[test]
    fn both_files_become_one() {
        assert_eq!(
            bench(HOST, TASK).run(&["config"]).ok().json("config"),
            json!({
                "vendor": "nvidia", "engine": "hf", "chip": "A100_40_SXM", "gpus": 8, "peak_tflops": 312, "task_nums": 256,
                "data_path": "/d/x.csv", "model_path": null, "gpu_name": "A100", "unused": ["host.yaml: log_path"]
            })
        );
    }

    #[test]
    fn members_that_nobody_uses_may_be_anything() {
        let host = format!("{HOST}extra: [1, 2]\nmore: {{a: b}}\n");
        assert_eq!(
            bench(&host, TASK).run(&["config"]).ok().json("config")["unused"],
            json!(["host.yaml: extra: [1,2]", "host.yaml: log_path", "host.yaml: more: {\"a\":\"b\"}"])
        );
    }

    #[test]
    fn faults_name_file_and_member() {
        let error = |host: &str, task: &str| {
            let Err(error) = bench(host, task).run(&["config"]).result else { panic!("taken") };
            error.message
        };
        assert_eq!(
            error(HOST, "task_nums: 1\n"),
            "a100.yaml: no 'TFLOPS_FP16' or 'GPU_FP16' or 'GPU_FPxx'; it has: task_nums"
        );
        assert!(
            error(&HOST.replace("8", "eight"), TASK)
                .contains("'nproc_per_node': expected a whole number above 0")
        );
        assert!(error("- a\n", TASK).starts_with("host.yaml: "));
        assert_eq!(
            error(&HOST.replace("/d/x.csv", "[x]"), TASK),
            "host.yaml: 'data_path': expected text, found [\"x\"]"
        );
        assert_eq!(
            error(&format!("{HOST}other: !!int x\n"), TASK),
            "host.yaml: 'other': no text, number, list or mapping"
        );
        assert_eq!(
            error(HOST, "GPU_FP16: fast\ntask_nums: 1\n"),
            "a100.yaml: 'GPU_FP16': expected a number above 0, found \"fast\""
        );
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark() {
        let marked = bench(&format!("\u{feff}{HOST}"), &format!("\u{feff}{TASK}")).run(&["config"]).ok();
        assert_eq!(marked.text("config"), bench(HOST, TASK).run(&["config"]).ok().text("config"));
    }

    #[test]
    fn what_is_missing_or_no_text_comes_with_what_to_write() {
        let error = |host: &str, task: &str| {
            let Err(error) = bench(host, task).run(&["config"]).result else { panic!("taken") };
            [vec![error.message], error.hints].concat()
        };
        assert_eq!(
            error(&HOST.replace("A100_40_SXM", "4090"), TASK),
            [
                "host.yaml: 'chip': expected text, found the number 4090",
                "put it in quotes, so that it is text: chip: \"4090\""
            ]
        );
        assert_eq!(
            error(&HOST.replace("A100_40_SXM", ""), TASK),
            ["host.yaml: 'chip': expected text, found nothing", "write chip: TEXT"]
        );
        let lacks = error(HOST, "task_nums: 256\n");
        assert_eq!(lacks[1], "add a line TFLOPS_FP16: a number above 0");
        assert!(lacks[2].starts_with("the task file has to hold it even where"));
        assert_eq!(error(HOST, "TFLOPS_FP16: 312\n")[0], "a100.yaml: no 'task_nums'; it has: nothing else");
    }
}
