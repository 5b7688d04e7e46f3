#!/usr/bin/env python3
"""Runs of flow after a change, on a tree that flow itself built: medians of CPU and wall seconds.

    bench/change.py leaf  [--nodes 10000] [--runs 7]   one source is edited: exactly the nodes that this concerns run
    bench/change.py touch [--nodes 10000] [--runs 5]   every file is touched: nothing runs

Each run is measured between two runs with nothing to do. `leaf` works out in Python which nodes an edit concerns, compares them with
those that ran, and then runs the same commands without flow ("their own"). `touch` runs bench/hash.rs on the same files: open, read and
BLAKE3 in one thread. --tree DIR keeps the tree there for the next call; --flow names the binary.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from compare import HERE, once


class Tree:
    """The graph of bench/graph.py (--commands cat) and what each file should hold."""

    def __init__(self, path):
        self.path = path
        with open(f"{path}/flow.json") as f:
            steps = json.load(f)["steps"]
        self.steps = [(node, step["inputs"]["i"], step["outputs"]["o"], step["run"]) for node, step in steps.items()]
        made = {output for _, _, output, _ in self.steps}
        self.sources = sorted({i for _, inputs, _, _ in self.steps for i in inputs if i not in made})
        self.holds = {}
        for source in self.sources:
            with open(f"{path}/{source}", "rb") as f:
                self.holds[source] = f.read()
        for _, inputs, output, _ in self.steps:
            self.holds[output] = self.made_of(inputs)

    def made_of(self, inputs):
        return b"".join(self.holds[i] for i in inputs)[:64]

    def edit(self, source):
        """Changes the first bytes of a source; returns the nodes that this concerns with their commands, in order."""
        text = f"{random.random():.9f}".encode()
        self.holds[source] = text + self.holds[source][len(text) :]
        with open(f"{self.path}/{source}", "wb") as f:
            f.write(self.holds[source])
        changed, concerned = {source}, []
        for node, inputs, output, command in self.steps:
            if changed.intersection(inputs):
                concerned.append((node, command))
                now = self.made_of(inputs)
                if now != self.holds[output]:
                    self.holds[output] = now
                    changed.add(output)
        return concerned

    def check(self):
        for path, expected in self.holds.items():
            with open(f"{self.path}/{path}", "rb") as f:
                assert f.read() == expected, f"{path} does not hold what it should"

    def files(self):
        return sorted(self.holds)


def settled(flow, tree):
    """Runs until nothing is left to look at closely."""
    for _ in range(3):
        time.sleep(0.1)
        once(f"{flow} run flow.json -q", tree)


def ran(flow, tree):
    """The nodes of the last run that ran."""
    log = subprocess.run([flow, "log", "last", "--json"], cwd=tree, check=True, capture_output=True, text=True).stdout
    return {node["id"] for node in json.loads(log)["nodes"] if node["outcome"] == "ran"}


def leaf(flow, tree, runs):
    rows, counts = [], []
    for _ in range(runs):
        noop = once(f"{flow} run flow.json -q", tree.path)
        concerned = tree.edit(random.choice(tree.sources))
        run = once(f"{flow} run flow.json -q", tree.path)
        names = {node for node, _ in concerned}
        assert ran(flow, tree.path) == names, "other nodes ran than the edit concerns"
        own = [once(f"sh -c {shell_quoted(command)}", tree.path) for _, command in concerned]
        own = [sum(column) for column in zip(*own)] if own else [0, 0, 0]
        counts.append(len(concerned))
        rows.append((noop[0], noop[1], run[0], run[1], own[0], own[1]))
        settled(flow, tree.path)
    tree.check()
    noop_cpu, noop_wall, cpu, wall, own_cpu, own_wall = (statistics.median(column) for column in zip(*rows))
    print(f"one source edited, {len(tree.steps)} nodes, median of {runs}, {os.cpu_count()} cores; exactly {counts} nodes ran")
    print(f"{'':28}{'CPU s':>9}{'wall s':>9}")
    print(f"{'nothing to do':28}{noop_cpu:9.3f}{noop_wall:9.3f}")
    print(f"{'the commands without flow':28}{own_cpu:9.3f}{own_wall:9.3f}")
    print(f"{'after the edit':28}{cpu:9.3f}{wall:9.3f}")
    beyond = [(r[2] - r[4]) / r[0] for r in rows], [(r[3] - r[5]) / r[1] for r in rows]
    print(f"(after the edit - the commands) / nothing to do: CPU {statistics.median(beyond[0]):.2f}, wall {statistics.median(beyond[1]):.2f}")


def shell_quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def touch(flow, tree, runs):
    hasher = os.path.join(os.path.dirname(flow), "examples/hash")
    files = tree.files()
    with open(f"{tree.path}/files", "w") as f:
        f.writelines(f"{path}\n" for path in files)
    rows = []
    for _ in range(runs):
        settled(flow, tree.path)
        noop = once(f"{flow} run flow.json -q", tree.path)
        for path in files:
            os.utime(f"{tree.path}/{path}")
        time.sleep(0.1)
        run = once(f"{flow} run flow.json -q", tree.path)
        assert not ran(flow, tree.path), "a touch ran something"
        after = once(f"{flow} run flow.json -q", tree.path)
        # the first to read a touched file has its access time written (relatime)
        for path in files:
            os.utime(f"{tree.path}/{path}")
        time.sleep(0.1)
        floor = once(f"{hasher} < files", tree.path)
        rows.append((*noop[:2], *run[:2], *after[:2], *floor[:2]))
    os.remove(f"{tree.path}/files")
    noop_cpu, noop_wall, cpu, wall, after_cpu, after_wall, floor_cpu, floor_wall = (statistics.median(c) for c in zip(*rows))
    print(f"all {len(files)} files touched, {len(tree.steps)} nodes, median of {runs}, {os.cpu_count()} cores; 0 nodes ran")
    print(f"{'':28}{'CPU s':>9}{'wall s':>9}")
    print(f"{'nothing to do':28}{noop_cpu:9.3f}{noop_wall:9.3f}")
    print(f"{'open, read, BLAKE3':28}{floor_cpu:9.3f}{floor_wall:9.3f}")
    print(f"{'after the touch':28}{cpu:9.3f}{wall:9.3f}")
    print(f"{'the run after that':28}{after_cpu:9.3f}{after_wall:9.3f}")
    beyond = statistics.median((r[2] - r[0]) / r[6] for r in rows)
    print(f"(after the touch - nothing to do) / open, read, BLAKE3: CPU {beyond:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["leaf", "touch"])
    parser.add_argument("--nodes", type=int, default=10000)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--tree", help="where the tree is made, or lies from an earlier call")
    parser.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    args = parser.parse_args()
    runs = args.runs or {"leaf": 7, "touch": 5}[args.what]
    flow = os.path.abspath(args.flow)
    path = os.path.abspath(args.tree or tempfile.mkdtemp(prefix="flow-bench-"))
    try:
        if not os.path.exists(f"{path}/flow.json"):
            graph = [sys.executable, f"{HERE}/graph.py", "--nodes", str(args.nodes), "--out", path, "--commands", "cat"]
            subprocess.run(graph, check=True)
        once(f"{flow} run flow.json -q", path)
        settled(flow, path)
        {"leaf": leaf, "touch": touch}[args.what](flow, Tree(path), runs)
    finally:
        if not args.tree:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
