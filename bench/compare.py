#!/usr/bin/env python3
"""flow beside ninja and make on the same tree, in one call: medians of CPU and wall seconds and peak memory, ratios to ninja.

    bench/compare.py noop [--nodes 10000] [--runs 7]    nothing to do, on a tree that the tool itself built
    bench/compare.py cold [--nodes 1000] [--runs 5] [--commands head]
                                                        everything to do: outputs and state are moved away before each run
    bench/compare.py inprocess [--nodes 10000] [--runs 3] stages of flow's own process beside shell nodes that do the same

CPU seconds hold all programs that were started. The tools take turns. --dir says where the trees are made: on ext4 the kernel needs up to
ten times the CPU to create a file while many were removed in the last half minute, so wait between calls, or use a tmpfs. `noop` first checks that touching every source runs nothing
and that an edit of one is seen. Needs ninja and make in PATH (Debian: ninja-build, make); --flow names the binary.
"""
import argparse
import glob
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STATE = {"flow": ["out", "cache"], "ninja": ["out", ".ninja_log", ".ninja_deps"], "make": ["out"]}


# a process inherits the peak memory of the one that started it: this one is small
RUNNER = """
import os, sys, time
begun = time.monotonic()
pid = os.posix_spawnp("sh", ["sh", "-c", sys.argv[1], "sh", sys.argv[2]], os.environ)
_, status, usage = os.wait4(pid, 0)
print(status, usage.ru_utime + usage.ru_stime, time.monotonic() - begun, usage.ru_maxrss / 1024)
"""


def once(command, cwd):
    """(CPU seconds, wall seconds, peak MiB) of one run with its children; the peak is at least that of a small Python, about 9 MiB."""
    text = f'cd "$1" && exec {command} >/dev/null 2>&1'
    run = [sys.executable, "-S", "-E", "-c", RUNNER, text, cwd]
    status, *figures = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    if status != "0":
        sys.exit(f"{command}: status {status}")
    return tuple(map(float, figures))


def clear(tool, tree, directories=64):
    """Moves outputs and state away: ext4 takes its time to find inodes where many were just given free."""
    away = tempfile.mkdtemp(prefix="away-", dir=os.path.dirname(tree))
    for name in STATE[tool]:
        if os.path.lexists(f"{tree}/{name}"):
            os.rename(f"{tree}/{name}", f"{away}/{name}")
    for directory in range(directories):
        os.makedirs(f"{tree}/out/{directory:02d}", exist_ok=True)


def check_flow(flow, tree):
    """Touching all sources runs nothing; an edit of one runs something, once."""

    def ran():
        run = subprocess.run([flow, "run", "flow.json", "--json"], cwd=tree, check=True, capture_output=True, text=True)
        return json.loads(run.stdout)["counts"]["ran"]

    time.sleep(0.1)
    for path in glob.glob(f"{tree}/src/*/*"):
        os.utime(path)
    assert ran() == 0, "touching the sources ran something"
    with open(f"{tree}/flow.json") as f:
        steps = json.load(f)["steps"].values()
    source = random.choice(sorted({i for step in steps for i in step["inputs"]["i"] if i.startswith("src/")}))
    with open(f"{tree}/{source}", "r+") as f:
        f.write("EDITED")
    edited = ran()
    assert edited > 0, f"the edit of {source} was not seen"
    assert ran() == 0
    ran()
    print(f"edit of {source}: {edited} commands ran")


def size(path):
    return sum(os.lstat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(path) for name in names)


def inprocess(flow, nodes, runs, base):
    """Per node: stages in flow's process (bench/inprocess.rs), and shell nodes that read and write the same."""
    program = os.path.join(os.path.dirname(flow), "examples/inprocess")
    try:
        rows = {}
        for kind, side in (("stage", math.isqrt(nodes - 1) + 1), ("shell", 32)):
            tree = f"{base}/{kind}"
            os.makedirs(f"{tree}/src")
            for name in (f"{letter}{n}" for letter in "ab" for n in range(side)):
                with open(f"{tree}/src/{name}.txt", "w") as f:
                    f.write(f"{name} ".ljust(64) + "x" * 536)
            step = {
                "matrix": {"a": list(range(side)), "b": list(range(side))},
                "run": "cat src/a${matrix.a}.txt src/b${matrix.b}.txt | head -c 128 > out/${matrix.a}/${matrix.b}.txt",
                "inputs": {"a": "src/a${matrix.a}.txt", "b": "src/b${matrix.b}.txt"},
                "outputs": {"joined": "out/${matrix.a}/${matrix.b}.txt"},
            }
            with open(f"{tree}/flow.json", "w") as f:
                json.dump({"name": "shell", "steps": {"join": step}}, f)
            command = f"{program} run -q" if kind == "stage" else f"{flow} run flow.json -q"
            done = []
            for _ in range(runs):
                clear("flow", tree, 0)
                done.append((*once(f"env SIDE={side} {command}", tree), size(f"{tree}/cache")))
            rows[kind] = side * side, [statistics.median(column) for column in zip(*done)]
        print(f"inprocess, median of {runs}, warm page cache, {os.cpu_count()} cores, -j{os.cpu_count()}")
        print(f"{'':8}{'nodes':>8}{'CPU s':>9}{'wall s':>9}{'MiB':>8}{'us CPU/node':>13}{'us wall/node':>13}{'B mem/node':>12}{'B store/node':>13}")
        for kind, (count, (cpu, wall, mib, stored)) in rows.items():
            per = [f"{value / count:.0f}" for value in (cpu * 1e6, wall * 1e6, mib * 2**20, stored)]
            print(f"{kind:8}{count:8}{cpu:9.3f}{wall:9.3f}{mib:8.0f}{per[0]:>13}{per[1]:>13}{per[2]:>12}{per[3]:>13}")
        each = {kind: cpu / count for kind, (count, (cpu, *_)) in rows.items()}
        print(f"shell / stage, CPU of a node: {each['shell'] / each['stage']:.1f}")
    finally:
        shutil.rmtree(base)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["noop", "cold", "inprocess"])
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--commands", choices=["cat", "head", "text"], help="what the nodes run (bench/graph.py)")
    parser.add_argument("--dir", help="where to make the trees (default: the system's temporary directory)")
    parser.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    args = parser.parse_args()
    nodes = args.nodes or {"noop": 10000, "cold": 1000, "inprocess": 10000}[args.what]
    runs = args.runs or {"noop": 7, "cold": 5, "inprocess": 3}[args.what]
    flow = os.path.abspath(args.flow)
    if args.what == "inprocess":
        return inprocess(flow, nodes, runs, tempfile.mkdtemp(prefix="flow-bench-", dir=args.dir))
    kind = args.commands or {"noop": "cat", "cold": "head"}[args.what]
    commands = {"flow": f"{flow} run flow.json -q", "ninja": "ninja --quiet", "make": "make -s -j2 all"}
    base = tempfile.mkdtemp(prefix="flow-bench-", dir=args.dir)
    try:
        trees = {tool: f"{base}/{tool}" for tool in commands}
        for tree in trees.values():
            subprocess.run([sys.executable, f"{HERE}/graph.py", "--nodes", str(nodes), "--out", tree, "--commands", kind], check=True)
        if args.what == "noop":
            for tool, command in commands.items():
                once(command, trees[tool])
            check_flow(flow, trees["flow"])
        rows = {tool: [] for tool in commands}
        for _ in range(runs):
            for tool, command in commands.items():
                if args.what == "cold":
                    clear(tool, trees[tool])
                rows[tool].append(once(command, trees[tool]))
        median = {tool: [statistics.median(column) for column in zip(*done)] for tool, done in rows.items()}
        print(f"{args.what}, {nodes} nodes ({kind}), median of {runs}, warm page cache, {os.cpu_count()} cores, -j2")
        print(f"{'':8}{'CPU s':>9}{'wall s':>9}{'MiB':>8}{'CPU/ninja':>11}{'wall/ninja':>11}")
        for tool, (cpu, wall, mib) in median.items():
            ratio = cpu / median["ninja"][0], wall / median["ninja"][1]
            print(f"{tool:8}{cpu:9.3f}{wall:9.3f}{mib:8.0f}{ratio[0]:11.2f}{ratio[1]:11.2f}")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
