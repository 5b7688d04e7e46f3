#!/usr/bin/env python3
"""Result trees like those of `evalscope perf`, of any size: made numbers, shaped like a server that batches. Standard library only.

    bench/evalscope_data.py --out DIR --dirs 1000 --rows 1000 --seed 1 --style old|new|mixed [--gpu]

`old` lies as evalscope 1.2 does (seconds, percentile = value at floor(n p / 100)), `new` as 1.14 (one directory more, milliseconds, nearest
rank), `mixed` alternates between configurations. The same arguments give the same numbers; rows of a database are about 1 KB, a real row is
about 270 bytes per output token (--payload).
"""
import argparse
import base64
import datetime
import itertools
import json
import math
import multiprocessing
import os
import pickle
import random
import sqlite3

PARALLEL = [1, 2, 4, 8, 16, 32, 64, 128, 256]
MODELS = ["demo-8b", "org/demo-70b", "demo-moe"]
PROMPTS = {
    "short": "Say hello.",
    "long": "Tell which steps of a pipeline have to run again after one of its inputs has changed, and why the others have not.",
}
OUTPUT_LIMIT = 200
BETWEEN_RUNS = datetime.timedelta(seconds=97)
FIRST_RUN = datetime.datetime(2026, 1, 5, 8, 0, 0)
COLUMNS = [
    ("request", "TEXT"), ("start_time", "REAL"), ("inter_token_latencies", "TEXT"), ("success", "INTEGER"), ("response_messages", "TEXT"),
    ("completed_time", "REAL"), ("latency", "REAL"), ("first_chunk_latency", "REAL"), ("prompt_tokens", "INTEGER"),
    ("completion_tokens", "INTEGER"), ("max_gpu_memory_cost", "REAL"), ("time_per_output_token", "REAL"),
]  # fmt: skip
NEW_COLUMNS = [("request_id", "TEXT"), ("is_stream", "INTEGER")]


def requests_of(rng, parallel, prompt, opt):
    """A closed loop of `parallel` clients; times in seconds. A failed request has no tokens."""
    load = math.sqrt(parallel)
    free = [1000.0 + client / 1000 for client in range(parallel)]
    out = []
    for _ in range(opt.rows):
        client = min(range(parallel), key=free.__getitem__)
        start = free[client]
        if rng.random() < opt.fail_rate:
            out.append({"start": start, "end": start + 0.02, "gaps": []})
        else:
            tokens = min(OUTPUT_LIMIT, max(2, round(rng.gammavariate(4, opt.tokens / 4))))
            first = (0.02 + len(prompt) * 4e-5) * load * rng.uniform(0.7, 1.6)
            gaps = [0.004 * load * rng.uniform(0.5, 2.0) for _ in range(tokens - 1)]
            latency = first + sum(gaps)
            gpu = 40 + parallel / 16 + rng.random() if opt.gpu else 0.0
            out.append({
                "start": start, "end": start + latency, "gaps": gaps, "ttft": first, "latency": latency, "in": 4 + len(prompt) // 4,
                "out": tokens, "tpot": sum(gaps) / (tokens - 1), "gpu": gpu,
            })  # fmt: skip
        free[client] = out[-1]["end"]
    return out


def summary(requests, parallel, new):
    good = [r for r in requests if "ttft" in r]
    taken = max(r["end"] for r in requests) - min(r["start"] for r in requests)
    mean = lambda values: sum(values) / len(values) if values else -1
    of = lambda key: mean([r[key] for r in good])
    rate = lambda amount: round(amount / taken, 4) if good else -1
    made, read = sum(r["out"] for r in good), sum(r["in"] for r in good)
    counts = [len(requests), len(good), len(requests) - len(good)]
    itl = mean([gap for r in good for gap in r["gaps"]])
    if new:
        names = ["Total Requests", "Success Requests", "Failed Requests"]
        times = [("Avg TTFT (ms)", of("ttft") * 1000), ("Avg TPOT (ms)", of("tpot") * 1000), ("Avg ITL (ms)", itl * 1000)]
        values = [("Test Duration (s)", taken), ("Concurrency", parallel), ("Request Rate (req/s)", -1.0), *zip(names, counts),
                  ("Req Throughput (req/s)", rate(len(good))), ("Avg Latency (s)", of("latency")), ("Avg Input Tokens", of("in")),
                  ("Output Throughput (tok/s)", rate(made)), ("Total Throughput (tok/s)", rate(made + read)), *times,
                  ("Avg Output Tokens", of("out"))]  # fmt: skip
    else:
        names = ["Total requests", "Succeed requests", "Failed requests"]
        values = [("Time taken for tests (s)", taken), ("Number of concurrency", parallel), *zip(names, counts),
                  ("Output token throughput (tok/s)", rate(made)), ("Total token throughput (tok/s)", rate(made + read)),
                  ("Request throughput (req/s)", rate(len(good))), ("Average latency (s)", of("latency")),
                  ("Average time to first token (s)", of("ttft")), ("Average time per output token (s)", of("tpot")),
                  ("Average inter-token latency (s)", itl), ("Average input tokens per request", of("in")),
                  ("Average output tokens per request", of("out"))]  # fmt: skip
    return {name: round(value, 4) for name, value in values}


def percentiles(requests, new):
    good = [r for r in requests if "ttft" in r]
    scale, unit = (1000, "ms") if new else (1, "s")
    metrics = {
        f"TTFT ({unit})": [r["ttft"] * scale for r in good],
        f"ITL ({unit})": [gap * scale for r in good for gap in r["gaps"]],
        f"TPOT ({unit})": [r["tpot"] * scale for r in good],
        "Latency (s)": [r["latency"] for r in good],
        "Input tokens": [r["in"] for r in good],
        "Output tokens": [r["out"] for r in good],
        "Output (tok/s)": [r["out"] / r["latency"] for r in good],
        "Total (tok/s)": [(r["in"] + r["out"]) / r["latency"] for r in good],
    }
    if new:
        metrics["Decode (tok/s)"] = [1 / r["tpot"] for r in good]
    for values in metrics.values():
        values.sort()

    def at(values, percent):
        place = max(0, math.ceil(len(values) * percent / 100) - 1) if new else int(len(values) * percent / 100)
        return round(values[place], 4) if place < len(values) else math.nan

    percents = [1, 5, 10, 25, 50, 75, 90, 95, 99] if new else [10, 25, 50, 66, 75, 80, 90, 95, 98, 99]
    labels = [(f"{percent}%", percent) for percent in percents]
    if new:
        labels = [("min", 0), *labels, ("max", 100)]
    return [{"Percentiles": label} | {name: at(values, percent) for name, values in metrics.items()} for label, percent in labels]


def database(path, requests, prompt, model, rng, new, payload):
    columns = COLUMNS + NEW_COLUMNS * new
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": OUTPUT_LIMIT, "stream": True,
                       "stream_options": {"include_usage": True}})  # fmt: skip
    rows = []
    for r in requests:
        text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=61)) * (payload // 61 + 1)
        reply = base64.b64encode(pickle.dumps([{"choices": [{"delta": {"content": text[:payload]}}]}], protocol=4)).decode()
        row = [body, r["start"], json.dumps(r["gaps"]), int("ttft" in r), reply, r["end"]]
        row += [r.get(key) for key in ("latency", "ttft", "in", "out", "gpu", "tpot")]
        rows.append(row + ["%032x" % rng.getrandbits(128), 1] * new)
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"CREATE TABLE result ({', '.join(map(' '.join, columns))})")
    db.executemany(f"INSERT INTO result VALUES ({', '.join('?' * len(columns))})", rows)
    db.commit()
    db.close()


def run_dir(index, opt):
    """(path below the results directory, configuration) of a run."""
    number, repeat = divmod(index, opt.repeats)
    combinations = list(itertools.product(MODELS, PROMPTS, PARALLEL))
    generation, number = divmod(number, len(combinations))
    model, kind, parallel = combinations[number]
    new = opt.style == "new" or (opt.style == "mixed" and (generation + number) % 2 == 1)
    config = f"p{parallel}_n{opt.rows}_d{kind}_{model.split('/')[-1]}_{generation}"
    time = (FIRST_RUN + BETWEEN_RUNS * index).strftime("%Y%m%d_%H%M%S")
    path = os.path.join(config, time, model.split("/")[-1], *[f"parallel_{parallel}_number_{opt.rows}"] * new)
    return path, (model, kind, parallel, new)


def write_run(job):
    index, opt = job
    place, (model, kind, parallel, new) = run_dir(index, opt)
    path = os.path.join(opt.out, place)
    os.makedirs(path, exist_ok=True)
    rng = random.Random(f"{opt.seed} {index}")
    requests = requests_of(rng, parallel, PROMPTS[kind], opt)
    args = {
        "model": model, "api": "openai", "url": "http://127.0.0.1:8000/v1/chat/completions", "number": opt.rows, "parallel": parallel,
        "rate": -1, "prompt": PROMPTS[kind], "max_tokens": OUTPUT_LIMIT, "stream": True,
    }  # fmt: skip
    files = {"summary": summary(requests, parallel, new), "args": args, "percentile": percentiles(requests, new)}
    for name, value in files.items():
        with open(f"{path}/benchmark_{name}.json", "w") as f:
            json.dump(value, f, indent=4)
    db = f"{path}/benchmark_data.db"
    if os.path.exists(db):
        os.remove(db)
    database(db, requests, PROMPTS[kind], model, rng, new, opt.payload)


def parser():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dirs", type=int, default=100, help="run directories")
    options.add_argument("--rows", type=int, default=1000, help="requests in each")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--style", choices=["old", "new", "mixed"], default="old")
    options.add_argument("--gpu", action="store_true", help="GPU memory that is not 0")
    options.add_argument("--repeats", type=int, default=5, help="runs of each configuration")
    options.add_argument("--tokens", type=int, default=12, help="mean output tokens of a request")
    options.add_argument("--payload", type=int, default=200, help="characters of reply text in a row")
    options.add_argument("--fail-rate", type=float, default=0.01)
    return options


def write(opt, indices=None):
    """Writes the runs `indices` (default: all --dirs) below opt.out."""
    with multiprocessing.Pool() as pool:
        pool.map(write_run, [(index, opt) for index in (range(opt.dirs) if indices is None else indices)], chunksize=4)


if __name__ == "__main__":
    options = parser()
    options.add_argument("--out", required=True)
    write(options.parse_args())
