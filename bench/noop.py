#!/usr/bin/env python3
"""Nothing to do: flow beside ninja and make on the same tree, in one call.

    bench/noop.py [--nodes 10000] [--runs 7] [--flow target/release/flow]

Each tool builds the tree once (untimed). Then the three are run in turn, and medians of CPU and wall seconds, peak memory, and the
ratios to ninja are printed. First it is checked that an edit of one source is seen and that touching all sources runs nothing.
Needs ninja and make in PATH (Debian: ninja-build, make).
"""
import argparse
import glob
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def once(command, cwd):
    """(CPU seconds, wall seconds, peak MiB) of one run with its children."""
    begun = time.monotonic()
    pid = os.posix_spawnp(
        "sh", ["sh", "-c", f'cd "$1" && exec {command} >/dev/null 2>&1', "sh", cwd], os.environ
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command}: status {status}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begun, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    args = parser.parse_args()
    flow = os.path.abspath(args.flow)
    base = tempfile.mkdtemp(prefix="flow-bench-")
    try:
        trees = {}
        for tool in ("flow", "ninja", "make"):
            trees[tool] = f"{base}/{tool}"
            subprocess.run(
                [sys.executable, f"{HERE}/graph.py", "--nodes", str(args.nodes), "--out", trees[tool]], check=True
            )
        commands = {
            "flow": f"{flow} run flow.json -q",
            "ninja": "ninja --quiet",
            "make": "make -s -j2 all",
        }
        for tool, command in commands.items():
            cpu, wall, _ = once(command, trees[tool])
            print(f"built with {tool}: {cpu:.2f} s CPU, {wall:.2f} s wall")
        once(commands["flow"], trees["flow"])
        ran = lambda: int(
            subprocess.run(
                [flow, "run", "flow.json", "--json"], cwd=trees["flow"], check=True, capture_output=True, text=True
            ).stdout.split('"ran": ')[1].split(",")[0]
        )
        time.sleep(0.1)
        for path in glob.glob(f"{trees['flow']}/src/*/*"):
            os.utime(path)
        assert ran() == 0, "touching sources ran something"
        source = random.choice(sorted(glob.glob(f"{trees['flow']}/src/*/*")))
        with open(source, "r+") as f:
            f.write("EDITED")
        edited = ran()
        assert ran() == 0
        once(commands["flow"], trees["flow"])
        print(f"edit of {os.path.relpath(source, trees['flow'])}: {edited} commands ran")
        rows = {tool: [] for tool in commands}
        for _ in range(args.runs):
            for tool, command in commands.items():
                rows[tool].append(once(command, trees[tool]))
        median = {tool: [statistics.median(column) for column in zip(*runs)] for tool, runs in rows.items()}
        print(f"\nnothing to do, {args.nodes} nodes, median of {args.runs}, warm page cache, {os.cpu_count()} cores")
        print(f"{'':8}{'CPU s':>9}{'wall s':>9}{'MiB':>8}{'CPU/ninja':>11}{'wall/ninja':>11}")
        for tool, (cpu, wall, mib) in median.items():
            ratio = cpu / median["ninja"][0], wall / median["ninja"][1]
            print(f"{tool:8}{cpu:9.3f}{wall:9.3f}{mib:8.0f}{ratio[0]:11.2f}{ratio[1]:11.2f}")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
