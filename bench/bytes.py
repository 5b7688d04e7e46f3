#!/usr/bin/env python3
"""Storing and restoring many bytes: flow beside dvc, zstd and cp, in one call; medians and ratios.

    bench/bytes.py store   [--size 64MiB] [--runs 3]    one big file: random bytes beside `dvc add`; JSON lines beside
                                                        `cp` then `zstd -1 -T2`, and `zstd -1 -T1`
    bench/bytes.py restore [--size 64MiB] [--runs 3]    the same files out of the cache beside `zstd -d`; then a byte of the
                                                        blob is flipped, which must be noticed
    bench/bytes.py small   [--files 1000] [--runs 3]    a directory output of many small files beside `dvc add`

`--size 2GiB`, `--files 10000` for the figures of README.md. Needs a release build (--flow names another binary) and, below
--dir (default: the system's temporary directory), space for six times the size. Peers that are missing are installed: zstd with
apt-get, dvc from PyPI into bench/.peers.

CPU seconds hold all programs that were started (for flow also the step's command); anon is the peak of RssAnon of the process that was
started, sampled. The page cache is warm: every input is read once before each run. The tools take turns.
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
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, ".peers")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size_of(text):
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(float(text[: -len(unit)]) * factor)
    return int(text)


def need_zstd():
    if not shutil.which("zstd"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "zstd"], check=True)


def need_dvc():
    """The path of dvc."""
    dvc = f"{PEERS}/dvc/bin/dvc"
    if not os.path.exists(dvc):
        subprocess.run([sys.executable, "-m", "venv", f"{PEERS}/dvc"], check=True)
        subprocess.run([f"{PEERS}/dvc/bin/pip", "install", "-q", "dvc"], check=True)
    return dvc


def anon_of(pid):
    """RssAnon of a process in MiB."""
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def once(argv, cwd, fail=False):
    """(CPU seconds, wall seconds, peak anonymous MiB) of one run with its children."""
    peak, done = [0.0], threading.Event()
    with open(f"{cwd}/output", "wb") as output:
        begun = time.monotonic()
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        pid = os.posix_spawnp("env", ["env", "-C", cwd, *argv], os.environ, file_actions=actions)

        def watch():
            while not done.wait(0.01):
                peak[0] = max(peak[0], anon_of(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - begun
        done.set()
        watcher.join()
    if (status != 0) != fail:
        sys.exit(f"{' '.join(argv)}: status {status}\n" + open(f"{cwd}/output").read())
    return usage.ru_utime + usage.ru_stime, wall, peak[0]


def write_random(path, size):
    with open(path, "wb") as f:
        for at in range(0, size, 1 << 20):
            f.write(os.urandom(min(1 << 20, size - at)))


def write_json_lines(path, size):
    """Records as a benchmark client writes them; 32 MiB that differ, then again: farther than zstd -1 looks back."""
    rng, block = random.Random(1), bytearray()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(4000)]
    while len(block) < min(size, 32 << 20):
        record = {
            "id": len(block),
            "time": 1.7e9 + rng.random() * 1e6,
            "model": rng.choice(["llama-70b", "qwen-32b", "mixtral"]),
            "latency_ms": round(rng.gauss(120, 30), 3),
            "tokens": rng.randint(1, 4096),
            "ok": rng.random() < 0.98,
            "prompt": " ".join(rng.choices(words, k=rng.randint(5, 40))),
            "trace": f"{rng.getrandbits(128):032x}",
        }
        block += json.dumps(record).encode() + b"\n"
    with open(path, "wb") as f:
        for at in range(0, size, len(block)):
            f.write(block[: size - at])


def write_small(path, files):
    """Files of 100 to 8000 bytes, half of which lie in the first kilobyte and a half, in 100 directories."""
    rng = random.Random(2)
    for index in range(files):
        directory = f"{path}/{index % 100:02d}"
        os.makedirs(directory, exist_ok=True)
        size = int(100 * 80 ** (rng.random() ** 1.3))
        with open(f"{directory}/{index}.json", "wb") as f:
            f.write(json.dumps({"id": index, "text": rng.randbytes(size // 2).hex()}).encode())


def warm(path):
    for above, _, names in os.walk(path) if os.path.isdir(path) else [(os.path.dirname(path), [], [os.path.basename(path)])]:
        for name in names:
            with open(f"{above}/{name}", "rb", buffering=0) as f:
                while f.read(4 << 20):
                    pass


def same(a, b):
    return subprocess.run(["diff", "-rq", a, b]).returncode == 0


class Flow:
    """A workspace of one node, whose command puts `source` at its output: moved (it costs nothing), or copied."""

    def __init__(self, flow, place, source, command):
        self.flow, self.place, self.source, self.command = flow, place, source, command
        self.output = f"{place}/out" + ("/" if os.path.isdir(source) else "")

    def run(self, fail=False):
        return once([self.flow, "run", "flow.json", "-q", "--cache", f"{self.place}/cache"], self.place, fail)

    def store(self):
        shutil.rmtree(self.place, ignore_errors=True)
        os.makedirs(self.place)
        output = os.path.basename(self.output.rstrip("/")) + ("/" if self.output.endswith("/") else "")
        # an output that is a directory is made before the command begins
        text = {"mv": "rm -rf {o}; mv {s} {o}", "cp": "cp -a {s} {o}"}[self.command].format(s=self.source, o="out")
        with open(f"{self.place}/flow.json", "w") as f:
            json.dump({"name": "bytes", "steps": {"big": {"run": text, "outputs": {"o": output}}}}, f)
        return self.run()

    def put_back(self):
        if self.command == "mv":
            os.rename(self.output.rstrip("/"), self.source)

    def remove_output(self):
        path = self.output.rstrip("/")
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

    def biggest_blob(self):
        blobs = [os.path.join(a, n) for a, _, names in os.walk(f"{self.place}/cache/objects") for n in names]
        return max(blobs, key=os.path.getsize)


class Dvc:
    def __init__(self, dvc, place, source):
        self.dvc, self.place, self.source = dvc, place, source

    def add(self):
        shutil.rmtree(self.place, ignore_errors=True)
        os.makedirs(self.place)
        quiet = {"cwd": self.place, "check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([self.dvc, "init", "--no-scm", "-q"], **quiet)
        subprocess.run([self.dvc, "config", "core.analytics", "false"], **quiet)
        os.rename(self.source, f"{self.place}/data")
        row = once([self.dvc, "add", "-q", "data"], self.place)
        os.rename(f"{self.place}/data", self.source)
        # dvc may have made it read-only
        subprocess.run(["chmod", "-R", "u+w", self.source], check=True)
        return row


def table(title, rows, ratios):
    """Prints medians of `rows` and the ratio of each that `ratios` names: (what, numerator, denominator, column, at most)."""
    print(f"\n{title}")
    print(f"{'':34}{'CPU s':>9}{'wall s':>9}{'anon MiB':>10}")
    median = {name: [statistics.median(column) for column in zip(*done)] for name, done in rows.items()}
    for name, (cpu, wall, _) in median.items():
        print(f"{name:34}{cpu:9.3f}{wall:9.3f}{max(row[2] for row in rows[name]):10.1f}")
    for what, over, under, column, limit in ratios:
        pairs = [sum(rows[o][i][column] for o in over) / sum(rows[u][i][column] for u in under) for i in range(len(rows[over[0]]))]
        print(f"  {what:46}{statistics.median(pairs):6.2f}   (at most {limit})")


def store(args, base):
    dvc = need_dvc()
    data = f"{base}/random"
    write_random(data, args.size)
    rows = {"flow": [], "dvc add": []}
    flow, peer = Flow(args.flow, f"{base}/flow", data, "mv"), Dvc(dvc, f"{base}/dvc", data)
    for _ in range(args.runs):
        warm(data)
        rows["flow"].append(flow.store())
        flow.put_back()
        shutil.rmtree(flow.place)
        warm(data)
        rows["dvc add"].append(peer.add())
        shutil.rmtree(peer.place)
    os.remove(data)
    title = f"store, {args.shown} of random bytes, median of {args.runs}"
    table(title, rows, [("CPU / dvc add", ["flow"], ["dvc add"], 0, 0.35)])

    data = f"{base}/lines"
    write_json_lines(data, args.size)
    names = ["flow, command mv", "flow, command cp", "cp", "zstd -1 -T2", "zstd -1 -T1"]
    rows = {name: [] for name in names}
    moved, copied = Flow(args.flow, f"{base}/flow", data, "mv"), Flow(args.flow, f"{base}/flow", data, "cp")
    for _ in range(args.runs):
        warm(data)
        rows["flow, command mv"].append(moved.store())
        moved.put_back()
        shutil.rmtree(moved.place)
        rows["flow, command cp"].append(copied.store())
        shutil.rmtree(copied.place)
        rows["cp"].append(once(["cp", "lines", "copy"], base))
        rows["zstd -1 -T2"].append(once(["zstd", "-1", "-T2", "-q", "-f", "copy", "-o", "packed"], base))
        os.remove(f"{base}/copy")
        os.remove(f"{base}/packed")
        rows["zstd -1 -T1"].append(once(["zstd", "-1", "-T1", "-q", "-f", "lines", "-o", "packed"], base))
        os.remove(f"{base}/packed")
    title = f"store, {args.shown} of JSON lines, median of {args.runs}"
    ratios = [
        ("wall, with the cp / cp, then zstd -1 -T2", ["flow, command cp"], ["cp", "zstd -1 -T2"], 1, 1.6),
        ("wall, without / cp, then zstd -1 -T2", ["flow, command mv"], ["cp", "zstd -1 -T2"], 1, 1.6),
        ("CPU / zstd -1 -T1", ["flow, command mv"], ["zstd -1 -T1"], 0, 1.3),
    ]
    table(title, rows, ratios)


def restore(args, base):
    for kind, write in [("JSON lines", write_json_lines), ("random bytes", write_random)]:
        data = f"{base}/data"
        write(data, args.size)
        flow = Flow(args.flow, f"{base}/flow", data, "cp")
        flow.store()
        subprocess.run(["zstd", "-1", "-q", "-f", data, "-o", f"{base}/packed"], check=True)
        rows = {"flow": [], "zstd -d": []}
        for _ in range(args.runs):
            flow.remove_output()
            warm(flow.biggest_blob())
            rows["flow"].append(flow.run())
            warm(f"{base}/packed")
            rows["zstd -d"].append(once(["zstd", "-d", "-q", "-f", "packed", "-o", "plain"], base))
            if len(rows["flow"]) == args.runs:
                assert same(flow.output, data), "other bytes came back"
            os.remove(f"{base}/plain")
        title = f"restore, {args.shown} of {kind}, median of {args.runs}, digest verified"
        ratios = [("wall / zstd -d", ["flow"], ["zstd -d"], 1, 1.2), ("CPU / zstd -d", ["flow"], ["zstd -d"], 0, 1.5)]
        table(title, rows, ratios)
        check_flip(flow, data)
        for name in ["packed", "data"]:
            os.remove(f"{base}/{name}")
        shutil.rmtree(flow.place)


def check_flip(flow, data):
    """A flipped byte in the blob is noticed: the bytes are not used, and the node runs again."""
    flow.remove_output()
    blob = flow.biggest_blob()
    with open(blob, "r+b") as f:
        at = random.randrange(os.path.getsize(blob))
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << random.randrange(8)]))
    os.rename(data, data + ".away")
    flow.run(fail=True)
    assert not os.path.exists(flow.output), "a damaged blob was used"
    os.rename(data + ".away", data)
    flow.run()
    assert same(flow.output, data)
    print(f"  byte {at} of the blob flipped: not restored, the node ran again")


def small(args, base):
    dvc = need_dvc()
    data = f"{base}/small"
    write_small(data, args.files)
    rows = {"flow": [], "flow, restore": [], "dvc add": []}
    flow, peer = Flow(args.flow, f"{base}/flow", data, "mv"), Dvc(dvc, f"{base}/dvc", data)
    shutil.copytree(data, f"{base}/copy")
    for _ in range(args.runs):
        warm(data)
        rows["flow"].append(flow.store())
        flow.put_back()
        rows["flow, restore"].append(flow.run())
        assert same(flow.output, data)
        shutil.rmtree(flow.place)
        warm(data)
        rows["dvc add"].append(peer.add())
        shutil.rmtree(peer.place)
    assert same(data, f"{base}/copy")
    title = f"small, a directory of {args.files} files, median of {args.runs}"
    table(title, rows, [("CPU / dvc add", ["flow"], ["dvc add"], 0, 0.15), ("CPU of restore / dvc add", ["flow, restore"], ["dvc add"], 0, 0.15)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["store", "restore", "small"])
    parser.add_argument("--size", default="64MiB")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", help="where to work")
    parser.add_argument("--flow", default=os.path.join(HERE, "../target/release/flow"))
    args = parser.parse_args()
    args.shown, args.size, args.flow = args.size, size_of(args.size), os.path.abspath(args.flow)
    need_zstd()
    base = tempfile.mkdtemp(prefix="flow-bytes-", dir=args.dir)
    print(f"{os.cpu_count()} cores, warm page cache, {base}")
    try:
        {"store": store, "restore": restore, "small": small}[args.what](args, base)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
