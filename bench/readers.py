#!/usr/bin/env python3
"""What flow writes for other tools, read by the tools themselves.

    bench/readers.py [vllm] [aiperf] [evalscope] [aisbench] [--env DIR] [--flow PATH]

One load on sim.llm with failures in it is written by vllm.export, aiperf.export, evalscope.export and aisbench.export; then each tool's own code,
from PyPI in an environment of its own below --env, reads the files, and what it makes of them is compared with metrics.compute of the same rows.

vllm       0.33.0: the lists of the requests go through calculate_metrics of vllm/benchmarks/serve.py, whose numbers have to be those of the file.
aiperf     0.13.0: MetricRecordInfo reads every line, JsonExportData the summary, the DataLoader of `aiperf plot` the directory; no field may be unknown.
evalscope  1.14.1: RunLoader, which makes the tool's reports, reads the directory; its percentiles of the database have to be those of the file.
aisbench   3.1.20260630: the summarizer's own reading of details and db_data, then DefaultPerfMetricCalculator; its csv and json have to be those of the pod.

A tool that PyPI does not give here is skipped with a word. Exit status: 1 if a number differs.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))

WORKFLOW = {
    "name": "readers",
    "services": {"s": {"uses": "sim.llm", "with": {"ttft_ms": 6, "itl_ms": {"dist": "uniform", "low": 1, "high": 3}, "seed": 5,
                                                   "faults": {"status_500": 0.05, "stream_error": 0.05, "status_429": 0.05}}}},
    "steps": {
        "prompts": {"uses": "load.prompts", "with": {"kind": "synthetic", "count": 120, "input": 8, "output": {"dist": "uniform", "min": 1, "max": 24}},
                    "outputs": {"prompts": "prompts.jsonl"}},
        "load": {"uses": "llm.load", "inputs": {"prompts": "${steps.prompts.prompts}"},
                 "with": {"endpoints": "${services.s.url}", "model": "sim", "arrival": {"kind": "closed", "concurrency": 6}, "save_text": True,
                          "slo": {"ttft": 0.5, "e2el": 0.05}, "on_client_bound": "mark"},
                 "outputs": {"requests": "requests.sqlite", "summary": "summary.json"}},
        "vllm": {"uses": "vllm.export", "with": {"percentiles": [25, 90, 99, 99.9]},
                 "inputs": {"requests": "${steps.load.requests}", "summary": "${steps.load.summary}"}, "outputs": {"result": "vllm.json"}},
        "aiperf": {"uses": "aiperf.export", "inputs": {"requests": "${steps.load.requests}", "summary": "${steps.load.summary}"},
                   "outputs": {"run": "aiperf/"}},
        "evalscope": {"uses": "evalscope.export", "inputs": {"requests": "${steps.load.requests}", "summary": "${steps.load.summary}"},
                      "outputs": {"run": "evalscope/parallel_6_number_120/"}},
        "aisbench": {"uses": "aisbench.export", "with": {"dataset": "d"},
                     "inputs": {"requests": "${steps.load.requests}", "summary": "${steps.load.summary}", "prompts": "${steps.prompts.prompts}"},
                     "outputs": {"pod": "performances/m/"}},
        **{f"by-{rules}": {"uses": "metrics.compute", "with": {"rules": rules, "percentiles": [1, 5, 10, 25, 50, 75, 90, 95, 99]},
                   "inputs": {"requests": "${steps.load.requests}"}, "outputs": {"summary": f"{rules}.json"}}
           for rules in ("flow", "evalscope-new")},
    },
}

# Run inside each environment: the directory in argv[1], one JSON value on the last line of standard output.
READERS = {
    "vllm": ("0.33.0", ["numpy"], r'''
import __future__, ast, dataclasses, json, sys, types, warnings
import numpy as np
base, source = sys.argv[1], sys.argv[2]
space = {"np": np, "warnings": warnings, "dataclass": dataclasses.dataclass, "field": dataclasses.field, "TERM_PLOTLIB_AVAILABLE": False, "print": lambda *_: None,
         "__name__": "read"}
sys.modules["read"] = types.SimpleNamespace(__dict__=space)
def take(path, names):
    # the definitions alone: what the file imports needs the whole of vLLM
    tree = ast.parse(open(f"{source}/{path}").read())
    named = lambda n: getattr(n, "name", None) in names or (isinstance(n, ast.Assign) and getattr(n.targets[0], "id", None) in names)
    tree.body = [n for n in tree.body if named(n)]
    assert len(tree.body) == len(names), (path, names)
    exec(compile(tree, path, "exec", flags=__future__.annotations.compiler_flag), space)
take("serve.py", ["MILLISECONDS_TO_SECONDS_CONVERSION", "BenchmarkMetrics", "calculate_metrics"])
take("lib/endpoint_request_func.py", ["RequestFuncOutput"])
found = json.load(open(f"{base}/vllm.json"))
outputs = []
for n in range(found["num_prompts"]):
    output = space["RequestFuncOutput"]()
    output.success = found["errors"][n] == ""
    output.generated_text, output.error = found["generated_texts"][n], found["errors"][n]
    output.latency, output.ttft, output.itl = found["latencies"][n], found["ttfts"][n], found["itls"][n]
    output.output_tokens, output.prompt_len, output.start_time = found["output_lens"][n], found["input_lens"][n], found["start_times"][n]
    outputs.append(output)
percents = [25, 90, 99, 99.9]
metrics, lens = space["calculate_metrics"]([None] * len(outputs), outputs, found["duration"], None, percents, {"ttft": 500, "e2el": 50})
out = {name: [found[name], getattr(metrics, of)] for name, of in [
    ("completed", "completed"), ("failed", "failed"), ("total_input_tokens", "total_input"), ("total_output_tokens", "total_output"),
    ("request_throughput",) * 2, ("request_goodput",) * 2, ("output_throughput",) * 2, ("total_token_throughput",) * 2,
    ("max_output_tokens_per_s",) * 2, ("max_concurrent_requests",) * 2]}
for metric in ("ttft", "tpot", "itl", "e2el"):
    for stat in ("mean", "median", "std"):
        out[f"{stat}_{metric}_ms"] = [found[f"{stat}_{metric}_ms"], float(getattr(metrics, f"{stat}_{metric}_ms"))]
    for p, value in getattr(metrics, f"percentiles_{metric}_ms"):
        out[f"p{p}_{metric}_ms"] = [found[f"p{p}_{metric}_ms"], float(value)]
print(json.dumps(out))
'''),
    "aiperf": ("0.13.0", ["aiperf==0.13.0"], r'''
import json, sys
from pathlib import Path
import numpy as np
from aiperf.common.models.export_models import JsonExportData, JsonMetricResult
from aiperf.common.models.record_models import MetricRecordInfo
from aiperf.metrics.metric_registry import MetricRegistry
from aiperf.plot.core.data_loader import DataLoader
run = Path(sys.argv[1]) / "aiperf"
records = [MetricRecordInfo.model_validate_json(line) for line in (run / "profile_export.jsonl").open()]
known = set(MetricRegistry.all_tags())
raw = [json.loads(line) for line in (run / "profile_export.jsonl").open()]
unknown = sorted({tag for line in raw for tag in line["metrics"] if tag not in known}
                 | {name for line in raw for name in line["metadata"] if name not in type(records[0].metadata).model_fields}
                 | {name for line in raw for name in line if name not in MetricRecordInfo.model_fields})
summary = json.loads((run / "profile_export_aiperf.json").read_text())
JsonExportData.model_validate(summary)
for name, value in summary.items():
    if isinstance(value, dict) and "unit" in value:
        JsonMetricResult.model_validate(value)
        unknown += [f"{name}.{stat}" for stat in value if stat not in JsonMetricResult.model_fields]
    # what flow adds where the client spoiled a load; the model takes further members
    if name not in JsonExportData.model_fields and name not in known and name != "client_bound":
        unknown.append(name)
units = [f"{tag}: {value['unit']}" for line in raw for tag, value in line["metrics"].items()
         if str((MetricRegistry.get_class(tag).display_unit or MetricRegistry.get_class(tag).unit)) != value["unit"]]
loaded = DataLoader().load_run(run)
good = [record for record in records if record.error is None]
def values(tag):
    out = []
    for record in good:
        if tag in record.metrics:
            value = record.metrics[tag].value
            out += value if isinstance(value, list) else [value]
    return out
out = {"unknown fields": [unknown, []], "units that differ": [sorted(set(units)), []], "records that `aiperf plot` loads": [len(records), len(loaded.requests)],
       "request_count": [summary["request_count"]["avg"], len(good)], "error_request_count": [summary["error_request_count"]["avg"], len(records) - len(good)]}
for tag in ("time_to_first_token", "inter_token_latency", "inter_chunk_latency", "request_latency", "output_sequence_length", "time_to_second_token"):
    found = values(tag)
    for stat, value in [("avg", np.mean(found)), ("std", np.std(found)), ("p50", np.percentile(found, 50)), ("p99", np.percentile(found, 99)), ("sum", np.sum(found)), ("count", len(found))]:
        out[f"{tag} {stat}"] = [summary[tag][stat], float(value)]
print(json.dumps(out))
'''),
    "evalscope": ("1.14.1", ["evalscope[perf]==1.14.1"], r'''
import json, sys
import sqlite3
from evalscope.perf.utils.report.perf_data import RunLoader
from evalscope.perf.utils.db_util import get_percentile_results
base = sys.argv[1]
run, = RunLoader.load_all(f"{base}/evalscope")
direct = json.load(open(f"{base}/evalscope-new.json"))
summary = run.summary.to_dict()
counts, rates, metrics = direct["counts"], direct["throughput"], direct["metrics"]
good = [request for request in run.requests if request.success]
out = {"requests": [len(run.requests), counts["total"]], "successes": [len(good), counts["success"]],
       "Success Requests": [summary["Success Requests"], counts["success"]], "Failed Requests": [summary["Failed Requests"], counts["failed"]],
       "Test Duration (s)": [summary["Test Duration (s)"], rates["duration"]], "Req Throughput (req/s)": [summary["Req Throughput (req/s)"], rates["requests_per_second"]],
       "Output Throughput (tok/s)": [summary["Output Throughput (tok/s)"], rates["output_tokens_per_second"]],
       "Avg Latency (s)": [summary["Avg Latency (s)"], metrics["e2el"]["mean"]], "Avg TTFT (ms)": [summary["Avg TTFT (ms)"], metrics["ttft"]["mean"] * 1e3],
       "Avg TPOT (ms)": [summary["Avg TPOT (ms)"], metrics["tpot"]["mean"] * 1e3], "Avg ITL (ms)": [summary["Avg ITL (ms)"], metrics["itl"]["mean"] * 1e3],
       "TTFT of the database (ms)": [sum(r.first_chunk_latency for r in good) / len(good), metrics["ttft"]["mean"] * 1e3]}
rows = {row["Percentiles"]: row for row in run.percentiles.to_list()}
for percent in (1, 50, 99):
    for column, metric, scale in [("Latency (s)", "e2el", 1), ("TTFT (ms)", "ttft", 1e3), ("TPOT (ms)", "tpot", 1e3), ("ITL (ms)", "itl", 1e3)]:
        out[f"{percent}% {column}"] = [rows[f"{percent}%"][column], metrics[metric][f"p{percent}"] * scale]
# the tool's own percentiles of our database; it rounds
again = {row["Percentiles"]: row for row in get_percentile_results(f"{base}/evalscope/parallel_6_number_120/benchmark_data.db", "openai").to_list()}
for percent in ("min", "50%", "99%", "max"):
    for column in ("Latency (s)", "TTFT (ms)", "ITL (ms)", "Input tokens", "Output tokens"):
        out[f"{percent} {column} by the tool, rounded"] = [round(rows[percent][column], 2), round(again[percent][column], 2)]
print(json.dumps(out))
'''),
    "aisbench": ("3.1.20260630", ["--no-deps ais_bench_benchmark==3.1.20260630", "numpy<2 orjson tabulate tqdm mmengine-lite prettytable plotly"], r'''
import ast, csv, importlib.util, json, os, sys, types
from collections import defaultdict
import numpy as np
from ais_bench.benchmark.calculators.default_perf_metric_calculator import DefaultPerfMetricCalculator
base = sys.argv[1]
pod = f"{base}/performances/m"
root = os.path.dirname(importlib.util.find_spec("ais_bench.benchmark").submodule_search_locations[0] + "/")
def module(path):
    spec = importlib.util.spec_from_file_location("read", f"{root}/{path}")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
db = module("openicl/icl_inferencer/output_handler/db_utils.py")
# the summarizer's method alone: its file imports torch and more
tree = ast.parse(open(f"{root}/summarizers/default_perf.py").read())
tree.body = [n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body if getattr(n, "name", "") == "_calc_perf_data"]
space = {"np": np, "init_db": db.init_db, "load_all_numpy_from_db": db.load_all_numpy_from_db, "AISTokenizer": lambda *_: None, "is_mm_prompt": lambda _: False}
exec(compile(tree, "default_perf.py", "exec"), space)
lines = [json.loads(line) for line in open(f"{pod}/d_details.jsonl")]
found = []
space["_calc_perf_data"](None, found, {}, f"{pod}/db_data/{lines[0]['db_name']}", lines)
details = defaultdict(list)
for line in found:
    for key, value in line.items():
        details[key].append(value)
calculator = DefaultPerfMetricCalculator()
calculator._init_datas(details, 6)
calculator.calculate()
calculator.save_performance(f"{base}/theirs.csv")
def table(path):
    return {f"{row['Performance Parameters']} {name}": value for row in csv.DictReader(open(path, newline="")) for name, value in row.items() if name != "Performance Parameters"}
ours, theirs = table(f"{pod}/d.csv"), table(f"{base}/theirs.csv")
out = {name: [ours.get(name), value] for name, value in theirs.items()}
whole = json.loads(json.dumps(calculator.get_common_res()))
mine = json.load(open(f"{pod}/d.json"))
out |= {name: [mine.get(name, {}).get("total"), value["total"]] for name, value in whole.items()}
print(json.dumps(out))
'''),
}


def environment(base, name, packages):
    """A virtual environment with packages from PyPI; the reason if it cannot be had."""
    path = f"{base}/{name}"
    python = f"{path}/bin/python"
    if not os.path.exists(f"{path}/done"):
        subprocess.run([sys.executable, "-m", "venv", path], check=True)
        for line in packages:
            words = line.split() if line.startswith("--") or " " in line else [line]
            run = subprocess.run([f"{path}/bin/pip", "install", "-q", *words], capture_output=True, text=True)
            if run.returncode != 0:
                return None, run.stderr.strip().splitlines()[-1]
        if name == "vllm":
            wheels = f"{path}/wheel"
            # only its benchmarks: the rest needs CUDA
            run = subprocess.run([f"{path}/bin/pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", wheels, f"vllm=={READERS['vllm'][0]}"],
                                 capture_output=True, text=True)
            if run.returncode != 0:
                return None, run.stderr.strip().splitlines()[-1]
            import zipfile
            wheel, = os.listdir(wheels)
            with zipfile.ZipFile(f"{wheels}/{wheel}") as z:
                z.extractall(path, [entry for entry in z.namelist() if entry.startswith("vllm/benchmarks/")])
            shutil.rmtree(wheels)
        open(f"{path}/done", "w").close()
    return python, None


def same(ours, theirs):
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return abs(ours - theirs) <= 1e-6 * max(abs(ours), abs(theirs), 1e-9)
    return ours == theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="tool", help=" ".join(READERS))
    parser.add_argument("--env", default=os.path.join(tempfile.gettempdir(), "flow-bench-peers"))
    parser.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    opt = parser.parse_args()
    for name in opt.tools:
        if name not in READERS:
            parser.error(f"no tool {name!r} (known: {' '.join(READERS)})")
    os.makedirs(opt.env, exist_ok=True)
    base = tempfile.mkdtemp(prefix="flow-readers-")
    bad = 0
    try:
        with open(f"{base}/flow.json", "w") as f:
            json.dump(WORKFLOW, f)
        run = subprocess.run([os.path.abspath(opt.flow), "run", "-q", f"{base}/flow.json", "-C", base], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"flow run: status {run.returncode}\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
        for name in opt.tools or READERS:
            version, packages, script = READERS[name]
            python, why = environment(os.path.abspath(opt.env), name, packages)
            if python is None:
                print(f"{name} {version}: skipped, PyPI does not give it here: {why}")
                continue
            source = os.path.join(os.path.abspath(opt.env), name, "vllm/benchmarks")
            run = subprocess.run([python, "-c", script, base, source], capture_output=True, text=True, cwd=base)
            if run.returncode != 0:
                print(f"{name} {version}: cannot read it\n{run.stderr[-3000:]}")
                bad += 1
                continue
            found = json.loads(run.stdout.strip().splitlines()[-1])
            wrong = {what: pair for what, pair in found.items() if not same(*pair)}
            print(f"{name} {version}: {len(found) - len(wrong)} of {len(found)} numbers agree")
            for what, (ours, theirs) in wrong.items():
                print(f"    {what}: flow {ours}, {name} {theirs}")
            bad += len(wrong)
    finally:
        shutil.rmtree(base)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
