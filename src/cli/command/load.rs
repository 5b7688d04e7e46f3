//! `flow load`: a workflow of two steps is written, run, and its summary shown. Unaware of how a load is done.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::cli::app::App;
use crate::cli::args::{ArrivalKind, Cli, Command, LoadArgs};
use crate::cli::signals;
use crate::error::{Error, Result};

pub(in crate::cli) fn run(app: &App, args: &LoadArgs) -> Result<ExitCode> {
    // before anything is written: load.json and the tables would hold it
    if args.endpoint.iter().any(|url| has_credentials(url)) {
        return Err(Error::usage("--endpoint: a user or a password in the URL is not sent, and would be kept in files")
            .hint("--api-key-env NAME sends the key of a variable; for other headers write a workflow with llm.load"));
    }
    let dir = app.root.join(&args.out);
    std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let dir = dir.canonicalize().map_err(|e| Error::io("find", &dir, e))?;
    let prompts = match &args.prompts {
        None => None,
        Some(file) => {
            let path = app.root.join(file);
            let path = path.canonicalize().map_err(|e| Error::io("read", &path, e))?;
            Some(path.to_str().ok_or_else(|| Error::usage("the path of --prompts is not UTF-8"))?.to_owned())
        }
    };
    // each call measures; `flow run` on the same file does not
    let line = ["flow", "run", "load.json", "--remeasure", "load"];
    let mut cli = Cli::parse_from_args(line.map(Into::into), false)
        .map_err(|e| Error::bug(format!("the command line of the run: {e}")))?;
    cli.global = app.cli.global.clone();
    let Command::Run(run) = cli.command.clone() else {
        return Err(Error::bug("a run was asked for, and is none"));
    };
    std::env::set_current_dir(&dir).map_err(|e| Error::io("enter", &dir, e))?;
    let inner = App::at(cli, Arc::clone(&app.printer), dir.clone());
    // two of them in one directory take turns: load.json is that of the one that runs
    let interrupts = signals::listen()?;
    let lock = super::run::lock(&inner, false, &interrupts)?;
    let file = dir.join("load.json");
    let text = serde_json::to_string_pretty(&workflow(args, prompts.as_deref()))
        .map_err(|e| Error::bug(format!("the workflow cannot be written: {e}")))?;
    std::fs::write(&file, text + "\n").map_err(|e| Error::io("write", &file, e))?;
    let code = super::run::run_holding(&inner, &run, interrupts, lock)?;
    if code == ExitCode::SUCCESS {
        show(app, &dir, args.json)?;
    }
    Ok(code)
}

/// Whether something stands before the host of a URL.
fn has_credentials(url: &str) -> bool {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    after.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@'))
}

/// Text that a workflow takes as it is.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// The workflow that does what the arguments say.
fn workflow(args: &LoadArgs, prompts: Option<&str>) -> Value {
    let arrival = match (args.rate, args.concurrency) {
        (Some(rate), _) => {
            let kind = match args.arrival {
                ArrivalKind::Constant => "constant",
                ArrivalKind::Poisson => "poisson",
            };
            json!({ "kind": kind, "rate": rate })
        }
        (None, concurrency) => json!({ "kind": "closed", "concurrency": concurrency }),
    };
    let mut with = Map::new();
    with.insert("endpoints".into(), json!(args.endpoint.iter().map(|url| literal(url)).collect::<Vec<_>>()));
    with.insert("model".into(), json!(literal(&args.model)));
    with.insert("requests".into(), json!(args.requests));
    with.insert("arrival".into(), arrival);
    let mut set = |name: &str, value: Option<Value>| with.extend(value.map(|value| (name.to_owned(), value)));
    set("max_concurrency", args.rate.and(args.concurrency).map(Value::from));
    set("warmup", (args.warmup > 0).then(|| json!(args.warmup)));
    set("api", args.completions.then(|| json!("completions")));
    set("stream", args.no_stream.then(|| json!(false)));
    set("max_tokens", prompts.map(|_| json!(args.max_tokens)));
    set("seed", Some(json!(args.seed)));
    let limits = [("ttft", args.slo_ttft), ("tpot", args.slo_tpot)];
    let slo: Map<String, Value> =
        limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), json!(limit?)))).collect();
    set("slo", (!slo.is_empty()).then(|| Value::Object(slo)));
    set("api_key", args.api_key_env.as_ref().map(|name| json!({ "secret": name })));
    set("on_client_bound", args.mark_client_bound.then(|| json!("mark")));
    let made = match prompts {
        // a parameter within a path is no pattern: this one may hold wildcards
        Some(_) => {
            json!({ "uses": "load.prompts", "inputs": { "data": "/${params.prompts}" }, "with": { "kind": "file" } })
        }
        None => json!({
            "uses": "load.prompts",
            "with": { "kind": "synthetic", "count": args.requests, "input": args.input_tokens, "output": args.max_tokens, "seed": args.seed },
        }),
    };
    let mut steps = json!({ "prompts": made, "load": {
        "uses": "llm.load",
        "inputs": { "prompts": "${steps.prompts.prompts}" },
        "with": with,
        "outputs": { "requests": "requests.sqlite", "summary": "summary.json" },
    } });
    steps["prompts"]["outputs"] = json!({ "prompts": "prompts.jsonl" });
    let mut workflow = json!({ "name": "load", "steps": steps });
    if let Some(path) = prompts {
        workflow["params"] = json!({ "prompts": literal(path.trim_start_matches('/')) });
    }
    workflow
}

/// The summary, for people or programs.
fn show(app: &App, dir: &Path, as_json: bool) -> Result<()> {
    let path = dir.join("summary.json");
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let summary: Value =
        serde_json::from_slice(&bytes).map_err(|e| Error::environment(format!("{}: {e}", path.display())))?;
    if as_json {
        return app.json(&summary).map(drop);
    }
    app.printer.data(&table(&summary));
    Ok(())
}

fn table(summary: &Value) -> String {
    let number =
        |value: &Value, scale: f64| value.as_f64().map_or("-".to_owned(), |x| format!("{:.2}", x * scale));
    let counts = &summary["counts"];
    let mut out = format!("requests  {} ok, {} failed", counts["success"], counts["failed"]);
    for (kind, count) in summary["failures"].as_object().into_iter().flatten() {
        out += &format!(", {kind} {count}");
    }
    let rates = &summary["throughput"];
    out += &format!(
        "\nrate      {} req/s, {} output tok/s, {} s\n",
        number(&rates["requests_per_second"], 1.0),
        number(&rates["output_tokens_per_second"], 1.0),
        number(&rates["duration"], 1.0)
    );
    if let Some(goodput) = summary["goodput"].as_object() {
        out += &format!("goodput   {} req/s\n", number(&goodput["requests_per_second"], 1.0));
    }
    let origin = if summary["loop"] == "open" { "from the schedule" } else { "from the send" };
    let rules = summary["rules"].as_str().unwrap_or_default();
    let what = format!("ms by rules {rules}, {origin}");
    out += &format!("\n{what:<38}{:>10}{:>10}{:>10}{:>10}\n", "mean", "p50", "p90", "p99");
    for metric in ["ttft", "tpot", "itl", "e2el"] {
        let spread = &summary["metrics"][metric];
        let cell = |of: &str| number(&spread[of], 1e3);
        out += &format!(
            "{metric:<38}{:>10}{:>10}{:>10}{:>10}\n",
            cell("mean"),
            cell("p50"),
            cell("p90"),
            cell("p99")
        );
    }
    if summary["from_send"]["hides_waiting"] == true {
        for metric in ["ttft", "e2el"] {
            let spread = &summary["from_send"]["metrics"][metric];
            let cell = |of: &str| number(&spread[of], 1e3);
            out += &format!(
                "{:<38}{:>10}{:>10}{:>10}{:>10}\n",
                format!("{metric} from the send: hides waiting"),
                cell("mean"),
                cell("p50"),
                cell("p90"),
                cell("p99")
            );
        }
    }
    out += "\n";
    for name in ["stable", "trim"] {
        let part = &summary["steady"][name];
        let what = format!("{name:<10}");
        match part["reason"].as_str() {
            Some(reason) => out += &format!("{what}{reason}\n"),
            None => {
                out += &format!(
                    "{what}{} requests from {} to {} s: {} req/s, {} output tok/s, ttft p50 {} ms, tpot p50 {} ms\n",
                    part["n"],
                    number(&part["window"]["from"], 1.0),
                    number(&part["window"]["to"], 1.0),
                    number(&part["throughput"]["requests_per_second"], 1.0),
                    number(&part["throughput"]["output_tokens_per_second"], 1.0),
                    number(&part["metrics"]["ttft"]["p50"], 1e3),
                    number(&part["metrics"]["tpot"]["p50"], 1e3),
                )
            }
        }
    }
    let check = &summary["self_check"];
    let p99 = |name: &str| number(&check[name]["p99"], 1.0);
    out += &format!(
        "\nclient    {}; p99 of sends {} ms late, of reads {} ms late; busy {} %\n",
        if check["client_bound"] == true { "client_bound: the client spoiled this" } else { "good" },
        p99("send_lag_ms"),
        p99("receive_lag_ms"),
        number(&check["cpu_share"], 100.0)
    );
    for reason in check["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out += &format!("          {reason}\n");
    }
    if summary["buffering"] == true {
        out += "server    sends whole answers: TTFT is the time of the last token\n";
    }
    out
}
