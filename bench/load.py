#!/usr/bin/env python3
"""flow load beside other clients, on sim.llm: server on core 0, client on core 1, the tools take turns.

    bench/load.py throughput [--runs 3] [--peers wrk sglang evalscope]   requests per second, no server delay
    bench/load.py accuracy [--runs 3]                                    against the server's log of its own writes
    bench/load.py rate [--seconds 20]                                    whether open loops deliver what was asked
    bench/load.py pause                                                  a pause of the server in an open loop with a limit
    bench/load.py faults                                                 every fault, counted by the client and by the server
    bench/load.py search                                                 the known capacity of a server, found

throughput  64 and 512 in flight, answers of 1 and 128 tokens, one token an event. wrk reads and discards; the others parse and record.
accuracy    TTFT 50 ms, ITL 10 ms, 128 tokens, 64 and 512 in flight. receive lag: the client's stamp of the first token less the server's,
            taken just before its write. ttft: the client's, counted from the end of its write of the request, less the true one from the
            same moment. itl: |the client's gap - the server's gap|, of every event.
rate        constant and poisson; the largest error of a gap's p99, and requests per second.
pause       30 s at constant 100 per second with at most 32 in flight, the server stands still for 2 s: p99 from the schedule and from the send.
faults      4,000 requests at 128 in flight, 5 % each of 429, 500, hang, abort, stall, error in the stream; ms from the client's giving up to the
            server's seeing it.
search      4 slots of 75 ms: llm.search over the rate, and over the concurrency that keeps TTFT below one and a half answers.

wrk comes from Debian; sglang (its Rust client) and evalscope come from PyPI into environments of their own below --env.
"""
import argparse
import json
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FLOW = os.environ.get("FLOW_BIN", os.path.join(HERE, "../target/release/flow"))
WORDS = "river stone bright seven walk under glass number"


class Server:
    """sim.llm on core 0."""

    def __init__(self, base, **params):
        command = ["taskset", "-c", "0", FLOW, "__sim", "sim.llm", json.dumps(params)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=base)
        self.url = json.loads(self.process.stdout.readline())["url"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def client(command, cwd, **more):
    """A program on core 1; its standard output."""
    run = subprocess.run(["taskset", "-c", "1", *command], cwd=cwd, capture_output=True, text=True, **more)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return run.stdout


def flow(base, url, count, concurrency, tokens, *more):
    """The summary of one load."""
    out = f"{base}/flow"
    shutil.rmtree(out, ignore_errors=True)
    command = [FLOW, "load", "-q", "--endpoint", url, "--model", "sim", "-n", str(count), "--max-tokens", str(tokens), "--input-tokens", "8"]
    if concurrency:
        command += ["--concurrency", str(concurrency)]
    text = client([*command, "--mark-client-bound", "--json", "--out", out, *more], base)
    return json.loads(text)


def wrk(base, url, concurrency, tokens, seconds=4):
    body = {"model": "sim", "messages": [{"role": "user", "content": WORDS}], "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
    with open(f"{base}/body.lua", "w") as f:
        f.write(f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{json.dumps(body)}]]\n')
    text = client(["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "-s", "body.lua", f"{url}/v1/chat/completions"], base)
    return float(re.search(r"Requests/sec:\s*([\d.]+)", text).group(1))


def environment(base, name, *packages):
    """A virtual environment with packages from PyPI."""
    path = f"{base}/{name}"
    if not os.path.exists(f"{path}/done"):
        subprocess.run([sys.executable, "-m", "venv", path], check=True)
        for line in packages:
            subprocess.run([f"{path}/bin/pip", "install", "-q", *line.split()], check=True, stderr=subprocess.DEVNULL)
        open(f"{path}/done", "w").close()
    return f"{path}/bin/python"


SGLANG = """
import glob, importlib.util, json, sys, sysconfig
path = glob.glob(sysconfig.get_paths()["purelib"] + "/sglang/**/_bench*.so", recursive=True)[0]
spec = importlib.util.spec_from_file_location("_bench", path)
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
bench.run_argv(["sglang-bench", *sys.argv[1:]])
"""


def sglang(env, base, url, concurrency, tokens, count):
    """The Rust client in sglang's wheel, its extension loaded alone."""
    python = environment(env, "sglang", "--no-deps sglang==0.5.23", "tokenizers")
    made = f"{base}/tokenizer"
    if not os.path.exists(made):
        os.makedirs(made)
        client([python, "-c", f"""
from tokenizers import Tokenizer, models, pre_tokenizers
t = Tokenizer(models.WordLevel({{w: i for i, w in enumerate(['<unk>', *'{WORDS}'.split(), *[f'w{{n}}' for n in range(1000)]])}}, unk_token='<unk>'))
t.pre_tokenizer = pre_tokenizers.Whitespace()
t.save('{made}/tokenizer.json')
"""], base)
        with open(f"{made}/tokenizer_config.json", "w") as f:
            json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}, f)
    out = f"{base}/sglang.jsonl"
    if os.path.exists(out):
        os.remove(out)
    client([python, "-c", SGLANG, "--backend", "vllm-chat", "--base-url", url, "--model", "sim", "--tokenizer", made,
            "--dataset-name", "random-ids", "--random-input-len", "8", "--random-output-len", str(tokens), "--random-range-ratio", "1",
            "--num-prompts", str(count), "--max-concurrency", str(concurrency), "--disable-retokenize", "--worker-threads", "1",
            "--output-file", out], base)
    with open(out) as f:
        found = json.loads(f.readlines()[-1])
    return found["request_throughput"]


def evalscope(env, base, url, concurrency, tokens, count):
    python = environment(env, "evalscope", "evalscope[perf]==1.14.1")
    with open(f"{base}/q.jsonl", "w") as f:
        f.writelines(json.dumps({"question": WORDS}) + "\n" for _ in range(count))
    out = f"{base}/evalscope"
    shutil.rmtree(out, ignore_errors=True)
    client([os.path.join(os.path.dirname(python), "evalscope"), "perf", "--parallel", str(concurrency), "--number", str(count), "--model", "sim",
            "--url", f"{url}/v1/chat/completions", "--api", "openai", "--dataset", "openqa", "--dataset-path", f"{base}/q.jsonl",
            "--max-tokens", str(tokens), "--min-tokens", str(tokens), "--stream", "--no-test-connection", "--outputs-dir", out], base)
    for at, _, names in os.walk(out):
        if "benchmark_summary.json" in names:
            with open(f"{at}/benchmark_summary.json") as f:
                summary = json.load(f)
            return next(value for key, value in summary.items() if key.startswith(("Req Throughput", "Request throughput")))
    sys.exit("evalscope wrote no summary")


def throughput(opt, base):
    print(f"requests per second, median of {opt.runs}; flow / peer is the median of pairs")
    print(f"{'':>12}" + "".join(f"{name:>12}{'ratio':>8}" if name != "flow" else f"{name:>12}" for name in ["flow", *opt.peers]))
    with Server(base, ttft_ms=0, itl_ms=0) as server:
        for concurrency in (64, 512):
            for tokens in (1, 128):
                rows = []
                for _ in range(opt.runs):
                    count = 100000 if tokens == 1 else 40000
                    row = {"flow": flow(base, server.url, count, concurrency, tokens)["throughput"]["requests_per_second"]}
                    for name in opt.peers:
                        row[name] = {
                            "wrk": lambda: wrk(base, server.url, concurrency, tokens),
                            "sglang": lambda: sglang(opt.env, base, server.url, concurrency, tokens, 40000 if tokens == 1 else 8000),
                            "evalscope": lambda: evalscope(opt.env, base, server.url, concurrency, tokens, 3000 if tokens == 1 else 1000),
                        }[name]()
                    rows.append(row)
                line = f"{f'c={concurrency} t={tokens}':>12}{statistics.median(row['flow'] for row in rows):12.0f}"
                for name in opt.peers:
                    line += f"{statistics.median(row[name] for row in rows):12.0f}{statistics.median(row['flow'] / row[name] for row in rows):8.2f}"
                print(line, flush=True)


def percentile(values, p):
    values = sorted(values)
    at = (len(values) - 1) * p / 100
    low = int(at)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)


def number(data, at):
    found = shift = 0
    while True:
        byte = data[at]
        at += 1
        found |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return found, at


def texts(send0, data):
    """Moments of the events with text, as src/stage/metrics/events.rs packs them."""
    at, moment, out = 0, send0, []
    while at < len(data):
        packed, at = number(data, at)
        moment += packed >> 4
        if packed & 1:
            _, at = number(data, at)
        if packed >> 1 & 7 in (2, 3):
            out.append(moment)
    return out


def errors(database, log):
    """ms: receive lags of first tokens, errors of TTFT, errors of gaps, and how far the server's reads lay behind the client's writes."""
    with open(log) as f:
        served = {line["xid"]: line for line in map(json.loads, f) if line.get("xid")}
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    lags, ttfts, itls, queues, count = [], [], [], [], 0
    for xid, send0, send1, first, events in db.execute("SELECT xid, send0_ns, send1_ns, first_token_ns, events FROM requests WHERE failure IS NULL"):
        true = served[xid]
        count += 1
        lags.append((first - true["chunk_ns"][0]) / 1e6)
        ttfts.append(abs((first - send1) - (true["chunk_ns"][0] - send1)) / 1e6)
        queues.append((true["recv_ns"] - send1) / 1e6)
        ours, theirs = texts(send0, events), true["chunk_ns"]
        if len(ours) != len(theirs):
            sys.exit(f"{xid}: {len(ours)} events with text were recorded, {len(theirs)} were written")
        itls += [abs((b - a) - (d - c)) / 1e6 for a, b, c, d in zip(ours, ours[1:], theirs, theirs[1:])]
    return lags, ttfts, itls, queues


def accuracy(opt, base):
    print(f"errors in ms against the server's log, p50 / p99, median of {opt.runs} runs (aims: receive 0.1 / 5, ttft 0.1 / 2, itl 0.2 / 5)")
    print(f"{'':>8}{'receive lag':>18}{'ttft':>18}{'itl':>18}{'server read queue':>20}{'ttft reported':>16}{'self-check':>22}")
    for concurrency in (64, 512):
        rows = []
        for run in range(opt.runs):
            log = f"{base}/sim-{concurrency}-{run}.jsonl"
            with Server(base, ttft_ms=50, itl_ms=10, log=log) as server:
                summary = flow(base, server.url, concurrency * 5, concurrency, 128)
            found = [(percentile(values, 50), percentile(values, 99)) for values in errors(f"{base}/flow/requests.sqlite", log)]
            own = summary["self_check"]["receive_lag_ms"]
            rows.append((found, summary["metrics"]["ttft"]["p50"] * 1e3, (own["p50"], own["p99"])))
        of = lambda column: tuple(statistics.median(row[0][column][p] for row in rows) for p in (0, 1))
        cells = [f"{a:.3f} / {b:.3f}" for a, b in map(of, range(4))]
        own = tuple(statistics.median(row[2][p] for row in rows) for p in (0, 1))
        reported = statistics.median(row[1] for row in rows)
        print(f"{f'c={concurrency}':>8}" + "".join(f"{cell:>18}" for cell in cells[:3]) + f"{cells[3]:>20}{reported:>16.2f}{f'{own[0]:.3f} / {own[1]:.3f}':>22}", flush=True)


def rate(opt, base):
    print(f"{'asked':>18}{'delivered':>12}{'error':>9}{'p99 of |gap - asked gap|, ms':>32}")
    with Server(base, ttft_ms=5, itl_ms=1) as server:
        for kind, asked in [("poisson", 200), ("poisson", 1000), ("poisson", 5000), ("constant", 200), ("constant", 1000)]:
            summary = flow(base, server.url, asked * opt.seconds, None, 4, "--rate", str(asked), "--arrival", kind)
            db = sqlite3.connect(f"file:{base}/flow/requests.sqlite?mode=ro", uri=True)
            rows = db.execute("SELECT sched_ns, send0_ns FROM requests ORDER BY number").fetchall()
            off = [abs((b[1] - a[1]) - (b[0] - a[0])) / 1e6 for a, b in zip(rows, rows[1:])]
            delivered = summary["self_check"]["delivered_rate"]
            print(f"{f'{kind} {asked}':>18}{delivered:12.1f}{delivered / asked - 1:9.2%}{percentile(off, 99):32.3f}", flush=True)


def workflow(base, server, steps):
    """Steps on prompts of 8 words and 12 tokens, run on core 1."""
    prompts = {"uses": "load.prompts", "with": {"kind": "synthetic", "count": 4000, "input": 8, "output": 12}, "outputs": {"prompts": "prompts.jsonl"}}
    for step in steps.values():
        step["inputs"] = {"prompts": "${steps.prompts.prompts}"}
    with open(f"{base}/flow.json", "w") as f:
        json.dump({"name": "bench", "steps": {"prompts": prompts, **steps}}, f)
    client([FLOW, "run", "-q", f"{base}/flow.json", "-C", base], base)


def load(server, **more):
    return {"uses": "llm.load", "with": {"endpoints": server.url, "model": "sim", "on_client_bound": "mark", **more},
            "outputs": {"requests": "requests.sqlite", "summary": "summary.json"}}


def pause(_, base):
    with Server(base, ttft_ms=20, itl_ms=2, pauses=[{"at": 14, "for": 2}]) as server:
        workflow(base, server, {"load": load(server, arrival={"kind": "constant", "rate": 100}, duration=30, max_concurrency=32)})
    with open(f"{base}/summary.json") as f:
        summary = json.load(f)
    print(f"{'p99 of TTFT, ms':>24}{'from the schedule':>20}{'from the send':>16}{'marked':>9}{'in flight':>11}")
    p99 = lambda origin: summary[origin]["metrics"]["ttft"]["p99"] * 1e3
    print(f"{'':>24}{p99('from_schedule'):20.1f}{p99('from_send'):16.1f}{str(summary['from_send']['hides_waiting']):>9}{summary['self_check']['inflight_max']:11d}")


def faults(_, base):
    kinds = {"status_429": "status_429", "status_500": "status_5xx", "hang": "timeout_first_byte", "abort": "closed", "stall": "timeout_stall", "stream_error": "stream_error"}
    log = f"{base}/sim.jsonl"
    with Server(base, ttft_ms=1, itl_ms=0.5, seed=3, log=log, faults={kind: 0.05 for kind in kinds}) as server:
        workflow(base, server, {"load": load(server, arrival={"kind": "closed", "concurrency": 128}, timeouts={"first_byte": 0.8, "stall": 0.8})})
    with open(log) as f:
        served = {line["xid"]: line for line in map(json.loads, f) if line.get("xid")}
    with open(f"{base}/summary.json") as f:
        summary = json.load(f)
    print(f"{len(served)} requests by the server's log, {summary['counts']['total']} by the client, {summary['counts']['success']} of them ok")
    print(f"{'fault':>14}{'server':>8}  client")
    for fault, kind in kinds.items():
        count = sum(line["fault"] == fault for line in served.values())
        ours = summary["failures"].get(kind, 0) + (summary["failures"].get("reset", 0) if kind == "closed" else 0)
        print(f"{fault:>14}{count:8d}  {ours} {kind}")
    db = sqlite3.connect(f"file:{base}/requests.sqlite?mode=ro", uri=True)
    delays = [(served[xid]["closed_ns"] - end) / 1e6 for xid, end in db.execute("SELECT xid, end_ns FROM requests WHERE failure LIKE 'timeout%'")]
    print(f"ms until the server saw that the client had left: p50 {percentile(delays, 50):.2f}, p99 {percentile(delays, 99):.2f}, longest {max(delays):.2f}")


def search(_, base):
    def step(over, least, most, **more):
        return {"uses": "llm.search", "with": {"over": over, "min": least, "max": most, "tolerance": 0.02, "load": {
            "endpoints": server.url, "model": "sim", "on_client_bound": "mark", "max_tokens": 2, **more}}, "outputs": {"result": f"{over}.json"}}
    with Server(base, ttft_ms=60, itl_ms=15, tokens=2, slots=4) as server:
        steps = {"rate": step("rate", 20, 320, duration=10, slo={"e2el": 0.2}), "concurrency": step("concurrency", 1, 64, requests=100, slo={"ttft": 0.1})}
        steps["concurrency"]["needs"] = ["rate"]
        workflow(base, server, steps)
    for over, true in (("rate", 4 / 0.075), ("concurrency", 4)):
        with open(f"{base}/{over}.json") as f:
            found = json.load(f)
        print(f"{over:>12}: found {found['highest']:.4g}, true {true:.4g}, off by {found['highest'] / true - 1:+.1%}, in {len(found['levels'])} levels")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "accuracy", "rate", "pause", "faults", "search"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--peers", nargs="*", default=["wrk"], choices=["wrk", "sglang", "evalscope"])
    parser.add_argument("--env", default=os.path.join(tempfile.gettempdir(), "flow-bench-peers"))
    opt = parser.parse_args()
    base = tempfile.mkdtemp(prefix="flow-load-")
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    try:
        {"throughput": throughput, "accuracy": accuracy, "rate": rate, "pause": pause, "faults": faults, "search": search}[opt.what](opt, base)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
