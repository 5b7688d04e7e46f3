#!/usr/bin/env python3
"""What a script does with the results of `evalscope perf`: the tables of workflows/evalscope.json in plain Python (json, sqlite3, csv,
statistics), one process, everything read each time. The peer of bench/evalscope.py, and an independent check of its numbers.

    bench/evalscope_plain.py RESULTS OUT       writes summary_raw.csv, .json and summary_stats.csv, .json
"""
import csv
import json
import math
import os
import re
import sqlite3
import statistics
import sys

# column -> (key up to 1.6, keys since)
COLUMNS = {
    "requests": ("Total requests", "Total Requests"),
    "time_taken": ("Time taken for tests (s)", "Test Duration (s)"),
    "output_throughput": ("Output token throughput (tok/s)", "Output Throughput (tok/s)"),
    "total_throughput": ("Total token throughput (tok/s)", "Total Throughput (tok/s)"),
    "request_throughput": ("Request throughput (req/s)", "Req Throughput (req/s)"),
    "latency": ("Average latency (s)", "Avg Latency (s)"),
    "ttft": ("Average time to first token (s)", "TTFT (ms)", "Avg TTFT (ms)"),
    "token_latency": ("Average time per output token (s)", "TPOT (ms)", "Avg TPOT (ms)"),
    "inter_token_latency": ("Average inter-token latency (s)", "ITL (ms)", "Avg ITL (ms)"),
    "input_tokens": ("Average input tokens per request", "Avg Input Tokens"),
    "output_tokens": ("Average output tokens per request", "Avg Output Tokens"),
}
GPU = ["avg_gpu_memory", "max_gpu_memory", "min_gpu_memory"]
STATISTICS = [
    "output_throughput", "total_throughput", "request_throughput", "latency", "ttft", "token_latency", "inter_token_latency",
    "input_tokens", "output_tokens", "time_taken", *GPU,
]  # fmt: skip
METRICS = ["ttft_", "itl_", "tpot_", "latency_", "input_tokens", "output_tokens", "output_(tok/s)", "total_(tok/s)"]
TIME = re.compile(r"\d{8}_\d{6}$")


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def places(results):
    for path, _, files in os.walk(results):
        if "benchmark_summary.json" in files and "benchmark_args.json" in files:
            parts = os.path.relpath(path, results).split("/")
            at = next((i for i, part in enumerate(parts) if TIME.match(part)), 0)
            if 0 < at < len(parts) - 1:
                yield parts, at, path


def percentile_columns(path):
    out = {}
    if os.path.exists(path):
        for row in load(path):
            label = row.pop("Percentiles").replace("%", "p")
            for name, value in row.items():
                column = name.lower().replace(" ", "_").replace("(s)", "").replace("(ms)", "")
                out[f"{label}_{column}"] = value / 1000 if "(ms)" in name else value
    return out


def gpu_memory(path):
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        found = db.execute(
            "SELECT avg(max_gpu_memory_cost), max(max_gpu_memory_cost), min(max_gpu_memory_cost) FROM result"
        ).fetchone()
        db.close()
    except sqlite3.Error as error:
        print(f"{path}: {error}", file=sys.stderr)
        found = (0, 0, 0)
    return [value or 0 for value in found]


def read(parts, at, path):
    summary, args = load(f"{path}/benchmark_summary.json"), load(f"{path}/benchmark_args.json")
    prompt = args.get("prompt", "")
    row = {
        "timestamp": parts[at], "config": "/".join(parts[:at]), "model": args.get("model", parts[at + 1]),
        "parallel": args.get("parallel", 0), "prompt_length": "unknown" if prompt is None else "long" if len(prompt) > 50 else "short",
        "max_tokens": args.get("max_tokens", 0),
    }  # fmt: skip
    for column, keys in COLUMNS.items():
        key = next((key for key in keys if key in summary), None)
        row[column] = 0 if key is None else summary[key] / 1000 if key.endswith("(ms)") else summary[key]
    row.update(zip(GPU, gpu_memory(f"{path}/benchmark_data.db")))
    return row | percentile_columns(f"{path}/benchmark_percentile.json"), args.get("number")


def order(column):
    label, metric = column.split("_", 1)
    percent = {"min": -math.inf, "max": math.inf}.get(label) if label in ("min", "max") else float(label[:-1])
    return percent, METRICS.index(metric) if metric in METRICS else len(METRICS), metric


def spread(values):
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return [None] * 4
    return [statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, min(values), max(values)]


def write(out, name, header, rows):
    with open(f"{out}/{name}.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, header)
        writer.writeheader()
        writer.writerows(rows)
    strict = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    with open(f"{out}/{name}.json", "w", encoding="utf-8") as f:
        json.dump(strict, f, indent=2, ensure_ascii=False, allow_nan=False)


def main(results, out):
    runs = [read(*place) for place in sorted(places(results))]
    os.makedirs(out, exist_ok=True)
    known = list(dict.fromkeys(column for row, _ in runs for column in row))
    fixed = known[: known.index(GPU[-1]) + 1]
    percentiles = sorted(set(known) - set(fixed), key=order)
    write(out, "summary_raw", fixed + percentiles, [row for row, _ in runs])
    groups = {}
    for row, number in runs:
        key = tuple(row[name] for name in ("config", "model", "parallel", "prompt_length", "max_tokens")) + (number,)
        groups.setdefault(key, []).append(row)
    rows = []
    for group in groups.values():
        first = group[0]
        row = {"config": first["config"], "count": len(group)}
        row |= {name: first[name] for name in ("model", "parallel", "prompt_length", "max_tokens")}
        for field in STATISTICS + percentiles:
            values = spread([run[field] for run in group if field in run])
            row.update((f"{field}_{name}", value) for name, value in zip(("avg", "std", "min", "max"), values))
        rows.append(row)
    write(out, "summary_stats", list(rows[0]), rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
