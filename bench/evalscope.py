#!/usr/bin/env python3
"""workflows/evalscope.json beside a plain Python script on the same result tree, in one call: medians and ratios.

    bench/evalscope.py [--dirs 1000] [--rows 1000] [--styles old mixed] [--runs 5] [--dir DIR] [--tree DIR]

cold    nothing is cached: every run directory is read, both tools write the same four tables. The tools take turns.
added   one more run directory, then flow again: beside flow's own cold time.
no-op   nothing changed.
floor   no-op and `zstd -1 -T2` of the four tables: less than a run with one more directory that looks at every file and stores what it makes.

The trees come from bench/evalscope_data.py (seconds of CPU per 100 MB; --tree keeps them for the next call), the peer is
bench/evalscope_plain.py. The numbers of the tables are compared first: every cell, relative difference at most 1e-9. Files are in the page
cache. --flow names the binary.
"""
import argparse
import csv
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile

import evalscope_data
from compare import HERE, once

TABLES = ["summary_raw.csv", "summary_stats.csv"]
ALL_TABLES = " ".join(f"out/summary_{name}.{form}" for name in ("raw", "stats") for form in ("csv", "json"))


def table(path):
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.reader(f))


def same(a, b):
    try:
        return a == b or abs(float(a) - float(b)) <= 1e-9 * max(abs(float(a)), abs(float(b)))
    except ValueError:
        return False


def check(ours, plain):
    """The number of cells compared; an error if one differs."""
    cells = 0
    for name in TABLES:
        a, b = table(f"{ours}/{name}"), table(f"{plain}/{name}")
        if a[0] != b[0] or len(a) != len(b):
            raise ValueError(f"{name}: {len(a)} and {len(b)} lines, or other columns")
        for line, (x, y) in enumerate(zip(a, b)):
            cells += len(x)
            if len(x) != len(y) or not all(map(same, x, y)):
                raise ValueError(f"{name}, line {line + 1}: flow and the script differ")
    return cells


def checked(work):
    """In a process of its own: what starts another one counts as its memory, until that has more."""
    with multiprocessing.Pool(1) as pool:
        return pool.apply(check, (f"{work}/out", f"{work}/plain"))


class Bench:
    def __init__(self, opt, style, base):
        self.work = f"{base}/work"
        self.tree = f"{opt.tree or base}/{style}-{opt.dirs}-{opt.rows}"
        self.flow = f"{opt.flow} run flow.json -q --set results={self.tree} --set out=out"
        self.script = f"{sys.executable} {HERE}/evalscope_plain.py {self.tree} plain"
        os.makedirs(self.work)
        shutil.copy(f"{HERE}/../workflows/evalscope.json", f"{self.work}/flow.json")
        made = ["--dirs", str(opt.dirs), "--rows", str(opt.rows), "--style", style, "--gpu"]
        self.options = evalscope_data.parser().parse_args(made)
        if not os.path.exists(self.tree):
            self.options.out = f"{self.tree}.part"
            evalscope_data.write(self.options)
            os.rename(self.options.out, self.tree)
        # runs to come, one by one
        self.spare = f"{self.tree}.spare"
        self.options.out = self.spare
        self.coming = [opt.dirs + number for number in range(opt.runs)]
        evalscope_data.write(self.options, self.coming)

    def cold(self):
        away = tempfile.mkdtemp(prefix="away-", dir=os.path.dirname(self.work))
        for name in ("out", "cache", "plain"):
            if os.path.lexists(f"{self.work}/{name}"):
                os.rename(f"{self.work}/{name}", f"{away}/{name}")
        return once(self.flow, self.work), once(self.script, self.work)

    def added(self, index):
        """Puts the run into the tree; returns what has to be removed afterwards."""
        config, timestamp = evalscope_data.run_dir(index, self.options)[0].split("/")[:2]
        new = not os.path.exists(f"{self.tree}/{config}")
        os.makedirs(f"{self.tree}/{config}", exist_ok=True)
        os.rename(f"{self.spare}/{config}/{timestamp}", f"{self.tree}/{config}/{timestamp}")
        return f"{self.tree}/{config}" if new else f"{self.tree}/{config}/{timestamp}"


def measure(opt, style, base):
    bench = Bench(opt, style, base)
    once(bench.script, bench.work)  # into the page cache
    cold = [bench.cold() for _ in range(opt.runs)]
    cells = checked(bench.work)
    flow, script = [run[0] for run in cold], [run[1] for run in cold]
    noop, added, packed, tops = [], [], [], []
    try:
        for index in bench.coming:
            once(bench.flow, bench.work)
            noop.append(once(bench.flow, bench.work))
            packed.append(once(f"zstd -q -1 -T2 -c {ALL_TABLES}", bench.work))
            tops.append(bench.added(index))
            added.append(once(bench.flow, bench.work))
        once(bench.script, bench.work)
        checked(bench.work)
    finally:
        for top in tops:
            shutil.rmtree(top, ignore_errors=True)  # within one that is gone
        shutil.rmtree(bench.spare)
    middle = lambda runs, what: statistics.median(run[what] for run in runs)
    print(f"{style}: {opt.dirs} runs of {opt.rows} requests, medians of {opt.runs}; {cells} cells equal")
    print(f"{'':18}{'CPU s':>9}{'wall s':>9}{'MiB':>7}")
    for name, runs in [("script", script), ("flow cold", flow), ("flow one added", added), ("flow no-op", noop)]:
        print(f"{name:18}{middle(runs, 0):9.3f}{middle(runs, 1):9.3f}{middle(runs, 2):7.0f}")
    paired = [[b[what] / a[what] for a, b in cold] for what in (0, 1)]
    print(f"script / flow cold, medians of pairs: CPU {statistics.median(paired[0]):.2f}, wall {statistics.median(paired[1]):.2f} (aim 2.5)")
    for name, runs, aim in [("one added", added, " (aim 20)"), ("no-op", noop, "")]:
        ratios = [middle(flow, what) / middle(runs, what) for what in (0, 1)]
        print(f"flow cold / {name}: CPU {ratios[0]:.1f}, wall {ratios[1]:.1f}{aim}")
    floor = [middle(noop, what) + middle(packed, what) for what in (0, 1)]
    print(f"flow cold / floor: CPU {middle(flow, 0) / floor[0]:.1f}, wall {middle(flow, 1) / floor[1]:.1f}")
    print(f"peak memory of flow: {max(run[2] for run in flow + added + noop):.0f} MiB (aim 64)\n", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dirs", type=int, default=1000)
    options.add_argument("--rows", type=int, default=1000)
    options.add_argument("--styles", nargs="+", choices=["old", "new", "mixed"], default=["old", "mixed"])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    options.add_argument("--dir", help="where to work (default: a temporary directory)")
    options.add_argument("--tree", help="where the trees are kept")
    opt = options.parse_args()
    opt.flow = os.path.abspath(opt.flow)
    if opt.tree:
        opt.tree = os.path.abspath(opt.tree)
    for style in opt.styles:
        with tempfile.TemporaryDirectory(dir=opt.dir, prefix="flow-bench-") as base:
            measure(opt, style, base)


if __name__ == "__main__":
    main()
