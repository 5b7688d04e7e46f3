#!/usr/bin/env python3
"""`csv.join` beside polars, DuckDB and pandas: two CSV files joined by key into a third, in one call; medians and ratios.

    bench/join.py [--rows 1000000] [--runs 3] [--dir DIR] [--quoted 0.0] [--peers polars,duckdb,pandas]

flow runs as a user runs it: `flow run` of a workflow of one step, with an empty cache, so that it also hashes both inputs, compares the
shared columns, writes the report and stores the outputs; the peers read, join (all rows of both sides, in the order of the left one where they
can) and write. All keep cells as text. The first output of flow is compared with a naive join in Python, byte for byte, with its counts;
the peers' outputs with flow's as sets of lines. "work" is the time without the start of the program and its imports (flow: the step alone).

CPU seconds and peak memory (of the resident set, shared pages included) are those of the process. The page cache is warm. The tools take
turns. Peers are installed from PyPI into bench/.peers if they are absent. --flow names another binary.
"""
import argparse
import collections
import csv
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import tables

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, ".peers")
SHARED = [c for c in tables.COLUMNS if c not in tables.KEY + tables.VALUES]
RESULT = [c for c in tables.COLUMNS if c not in tables.VALUES] + ["left_x", "left_y", "right_x", "right_y"]

WORK = {
    "polars": """
l, r = (pl.scan_csv(f, infer_schema=False) for f in ("left.csv", "right.csv"))
l = l.rename({v: "left_" + v for v in VALUES})
r = r.rename({v: "right_" + v for v in VALUES})
j = l.join(r, on=KEY, how="full", coalesce=True, suffix="_r", maintain_order="left_right")
j = j.with_columns([pl.coalesce([c, c + "_r"]).alias(c) for c in SHARED]).select(RESULT)
j.collect(engine=ENGINE).write_csv(OUT, line_terminator="\\r\\n")
""",
    "duckdb": """
def read(f):
    return f"read_csv('{f}', header=true, all_varchar=true, delim=',', quote='\\"', escape='\\"', null_padding=false)"
same = " and ".join(f'l."{c}" = r."{c}"' for c in KEY)
both = ", ".join(f'coalesce(l."{c}", r."{c}") as "{c}"' for c in RESULT[:16])
own = ", ".join(f'{s}."{v}" as {n}_{v}' for s, n in (("l", "left"), ("r", "right")) for v in VALUES)
duckdb.sql(f"copy (select {both}, {own} from {read('left.csv')} l full join {read('right.csv')} r on {same}) to '{OUT}' (header)")
""",
    "pandas": """
l, r = (pd.read_csv(f, dtype=str, keep_default_na=False, engine="c") for f in ("left.csv", "right.csv"))
l = l.rename(columns={v: "left_" + v for v in VALUES})
r = r.rename(columns={v: "right_" + v for v in VALUES})
j = l.merge(r, on=KEY, how="outer", suffixes=("", "_r"), sort=False)
for c in SHARED:
    j[c] = j[c].fillna(j[c + "_r"])
j[RESULT].to_csv(OUT, index=False, lineterminator="\\r\\n")
""",
}
IMPORT = {"polars": "import polars as pl", "duckdb": "import duckdb", "pandas": "import pandas as pd"}
LISTS = f"KEY, VALUES, SHARED, RESULT = {tables.KEY!r}, {tables.VALUES!r}, {SHARED!r}, {RESULT!r}"


def need(peers):
    python = f"{PEERS}/join/bin/python"
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", f"{PEERS}/join"], check=True)
    pip = [python, "-m", "pip", "install", "-q", *peers]
    if subprocess.run([python, "-c", ";".join(IMPORT[p] for p in peers)], capture_output=True).returncode:
        subprocess.run(pip, check=True)
    return python


def once(argv, cwd, env=None):
    """(CPU seconds, wall seconds, peak MiB) of one process and its children."""
    with open(f"{cwd}/output", "wb") as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), fd) for fd in (1, 2)]
        begun = time.monotonic()
        pid = os.posix_spawnp("env", ["env", "-C", cwd, *argv], env or os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - begun
    if status:
        sys.exit(f"{argv[0]}: status {status}\n" + open(f"{cwd}/output").read()[-2000:])
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def run_flow(flow, place):
    for name in ("cache", "flow.csv", "report.json"):
        path = f"{place}/{name}"
        shutil.rmtree(path) if os.path.isdir(path) else os.path.exists(path) and os.remove(path)
    measured = once([flow, "run", "flow.json", "-q", "--cache", "cache", "--trace", "trace.json"], place)
    with open(f"{place}/trace.json") as f:
        events = json.load(f)
    phases = collections.Counter()
    for event in events["traceEvents"] if isinstance(events, dict) else events:
        if event.get("ph") == "X":
            phases[event["name"]] += event["dur"] / 1e6
    return (*measured, phases)


def run_peer(python, peer, place, engine="in-memory"):
    out = f"{peer}.csv"
    text = "\n".join([
        "import time, sys", IMPORT[peer], LISTS, f"OUT, ENGINE = {out!r}, {engine!r}",
        "begun = time.monotonic()", WORK[peer], "print('work', time.monotonic() - begun)",
    ])  # fmt: skip
    measured = once([python, "-c", text], place)
    with open(f"{place}/output") as f:
        work = float(f.read().split("work")[1])
    return (*measured, {"work": work})


def naive(place):
    """The join as csv.join's contract words it, with nested lists and dicts; (bytes of the table, counts)."""
    sides = []
    for name in ("left.csv", "right.csv"):
        with open(f"{place}/{name}", newline="") as f:
            sides.append([dict(zip(tables.COLUMNS, map(sys.intern, row))) for row in list(csv.reader(f))[1:]])
    left, right = ({}, {})
    for groups, rows in zip((left, right), sides):
        for row in rows:
            groups.setdefault(tuple(row[c] for c in tables.KEY), []).append(row)
    path, counts = f"{place}/naive.csv", collections.Counter()
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(RESULT)

        def emit(l, r):
            counts["joined"] += 1
            shared = [(l or r)[c] for c in tables.COLUMNS if c not in tables.VALUES]
            writer.writerow(shared + [row[v] if row else "" for row in (l, r) for v in tables.VALUES])

        for key, rows in left.items():
            counts["matched_keys" if key in right else "left_only"] += 1
            for l in rows:
                for r in right.get(key, [None]):
                    counts["conflicts"] += r is not None and any(l[c] != r[c] for c in SHARED)
                    emit(l, r)
        for key, rows in right.items():
            if key not in left:
                counts["right_only"] += 1
                for r in rows:
                    emit(None, r)
        counts["duplicates"] = sum(len(left.get(k, ())) > 1 or len(right.get(k, ())) > 1 for k in left | right)
    return path, counts


def check(place):
    path, counts = naive(place)
    if subprocess.run(["cmp", path, f"{place}/flow.csv"]).returncode:
        sys.exit("flow's table is not that of the naive join")
    with open(f"{place}/report.json") as f:
        report = json.load(f)
    for name, n in counts.items():
        found = report["rows"]["joined"] if name == "joined" else report[name]
        found = found if isinstance(found, int) else len(found)
        if found != n:
            sys.exit(f"report: {name} is {found}, naive join: {n}")
    os.remove(path)
    print("equal to a naive join in Python: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())), flush=True)


def digest(path):
    """The records of a table, whatever their order and quotes."""
    total = rows = 0
    with open(path, newline="") as f:
        for row in csv.reader(f):
            total, rows = (total + hash(tuple(row))) % (1 << 64), rows + 1
    return total, rows


def look(place, tool):
    """Compares a tool's output with the naive join, or with flow's."""
    if tool == "flow":
        return check(place)
    equal = digest(f"{place}/{tool.split(',')[0]}.csv") == digest(f"{place}/flow.csv")
    print(f"{tool}: {'the same records' if equal else 'OTHER RECORDS'}", flush=True)


def apart(work, *args, **kwargs):
    """Runs `work` in a process of its own: the peak of a program that is started begins with the memory of who starts it."""
    process = multiprocessing.get_context("fork").Process(target=work, args=args, kwargs=kwargs)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quoted", type=float, default=0.0, help="the share of rows with a quoted cell of two lines")
    parser.add_argument("--peers", default="polars,duckdb,pandas")
    parser.add_argument("--dir", help="where to work (default: the system's temporary directory)")
    parser.add_argument("--keep", action="store_true", help="keep the tables of the last run")
    parser.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    args = parser.parse_args()
    peers = [peer for peer in args.peers.split(",") if peer]
    python, flow = need(peers) if peers else None, os.path.abspath(args.flow)
    place = tempfile.mkdtemp(prefix="flow-bench-", dir=args.dir)
    try:
        apart(tables.write, place, args.rows, args.seed, quoted=args.quoted)
        step = {
            "uses": "csv.join",
            "inputs": {"left": "left.csv", "right": "right.csv"},
            "with": {"on": tables.KEY, "columns": tables.VALUES, "on_duplicate": "cross"},
            "outputs": {"csv": "flow.csv", "report": "report.json"},
        }
        with open(f"{place}/flow.json", "w") as f:
            json.dump({"name": "join", "steps": {"join": step}}, f)
        tools = {"flow": lambda: run_flow(flow, place)}
        if "polars" in peers:
            tools["polars"] = lambda: run_peer(python, "polars", place)
            tools["polars, streaming"] = lambda: run_peer(python, "polars", place, "streaming")
        tools |= {peer: lambda peer=peer: run_peer(python, peer, place) for peer in peers if peer != "polars"}
        rows = collections.defaultdict(list)
        for turn in range(args.runs):
            for tool, run in tools.items():
                rows[tool].append(run())
                if turn == 0:
                    apart(look, place, tool)
        size = os.path.getsize(f"{place}/left.csv") / 1e6
        load = os.getloadavg()[0]
        print(f"\n{args.rows} rows a side of {size:.0f} MB, median of {args.runs}, {os.cpu_count()} cores, load {load:.1f}")
        print(f"{'':20}{'wall s':>9}{'work s':>9}{'CPU s':>9}{'peak MiB':>10}{'wall/flow':>11}")
        median = {tool: [statistics.median(column) for column in list(zip(*done))[:3]] for tool, done in rows.items()}
        for tool, (cpu, wall, peak) in median.items():
            name = "join" if tool == "flow" else "work"
            work = statistics.median(row[3][name] for row in rows[tool])
            print(f"{tool:20}{wall:9.3f}{work:9.3f}{cpu:9.3f}{peak:10.0f}{wall / median['flow'][1]:11.2f}")
        parts = {name: statistics.median(row[3][name] for row in rows["flow"]) for name in rows["flow"][0][3]}
        print("flow, by its trace: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in parts.items()))
        faster = min((median[tool][1] for tool in median if tool.startswith("polars")), default=None)
        if faster:
            print(f"flow / polars (the faster): wall {median['flow'][1] / faster:.2f} (aim 0.7); flow's peak {median['flow'][2]:.0f} MiB (aim 400)")
        if args.keep:
            shutil.copytree(place, f"{place}.kept")
            print(f"kept: {place}.kept")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
