//! `workflows/inferencemax.json` declared in Rust: the same steps, the same `plan_digest`.
//! `cargo run --example inferencemax -- run` has the whole command line.

use std::process::ExitCode;

use flow::prelude::*;

fn main() -> ExitCode {
    flow::cli::main_with(|_args| workflow())
}

fn workflow() -> Workflow {
    let mut wf = Workflow::new("inferencemax");
    // the same workflow as its JSON form, so the same state: what one form made, the other knows
    wf.at("workflows/inferencemax.json");
    wf.param("base_url", "${services.dashboard.url}");
    let models =
        wf.param("models", json!(["llama-3_3-70b-instruct-fp8", "gpt-oss-120b", "deepseek-r1-0528"]));
    let sequences = wf.param("sequences", json!(["1k_1k", "1k_8k", "8k_1k"]));
    wf.param(
        "names",
        json!({
            "llama-3_3-70b-instruct-fp8": "Llama 3.3 70B Instruct",
            "gpt-oss-120b": "gpt-oss 120B",
            "deepseek-r1-0528": "DeepSeek R1 0528"
        }),
    );
    wf.param("out", "out/inferencemax");
    wf.param("on_invalid", "fail");
    wf.profile("live", json!({ "params": { "base_url": "https://inferencemax.semianalysis.com" } }));
    wf.service(
        "dashboard",
        json!({ "uses": "sim.http", "with": { "dir": "${workflow.dir}/data/inferencemax" } }),
    );
    wf.include(
        "inferencemax-process.json",
        "process",
        json!({ "raw": "${params.out}/raw", "out": "${params.out}", "on_invalid": "${params.on_invalid}" }),
    );

    let file = "/data/inference-performance/${matrix.model}-${matrix.seq}-${matrix.kind}.json";
    let kinds = json!(["e2e", "interactivity"]);
    let fetch = wf
        .step("fetch")
        .matrix("model", &models)
        .matrix("seq", &sequences)
        .matrix("kind", kinds.clone())
        .uses(http::Fetch::new(format!("${{params.base_url}}{file}")).expect_json())
        .output("body", "${params.out}/bodies/${matrix.model}-${matrix.seq}-${matrix.kind}.json");
    wf.step("wrap")
        .matrix("model", &models)
        .matrix("seq", &sequences)
        .matrix("kind", kinds)
        .input("body", fetch.out("body"))
        .uses(Uses::new(
            "inferencemax.wrap",
            json!({
                "model": "${matrix.model}",
                "sequence": "${matrix.seq}",
                "url": file,
                "names": "${params.names}"
            }),
        ))
        .output(
            "file",
            "${params.out}/raw/${matrix.model.index}_${matrix.seq.index}_${matrix.model}_${matrix.seq}_${matrix.kind}.json",
        );
    wf
}
