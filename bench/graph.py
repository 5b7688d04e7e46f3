#!/usr/bin/env python3
"""A synthetic layered build graph, written for flow, ninja and make at once.

    graph.py --nodes N --out DIR [--seed S] [--layers K] [--commands cat|head|text]

N nodes in K layers; each reads files of the layer before it (the first layer reads sources) and writes the first 64 bytes of
them. `cat`: 1 to 4 files, `cat IN... | head -c 64 > OUT` for all; `text`: one file, `head -c 64 IN > OUT` for all; `head`: the same,
but flow starts it without a shell and takes its standard output. The same arguments give the same bytes. Writes DIR/src/..., DIR/flow.json, DIR/build.ninja, DIR/Makefile.
"""
import argparse
import json
import os
import random


def layered(nodes, layers, seed, most):
    rng = random.Random(seed)
    sources = [f"src/{i % 64:02d}/s{i}.txt" for i in range(max(4, nodes // 10))]
    before, out, made = sources, [], 0
    for layer in range(layers):
        count = nodes // layers + (1 if layer < nodes % layers else 0)
        paths = []
        for _ in range(count):
            inputs = sorted(set(rng.choice(before) for _ in range(rng.randint(1, most))))
            path = f"out/{made % 64:02d}/n{made}.txt"
            out.append((f"n{made}", inputs, path))
            paths.append(path)
            made += 1
        before = paths or before
    return sources, out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    parser.add_argument("--commands", choices=["cat", "head", "text"], default="cat")
    args = parser.parse_args()
    sources, nodes = layered(args.nodes, args.layers, args.seed, 4 if args.commands == "cat" else 1)
    rng = random.Random(args.seed + 1)
    for d in range(64):
        os.makedirs(f"{args.out}/src/{d:02d}", exist_ok=True)
        os.makedirs(f"{args.out}/out/{d:02d}", exist_ok=True)
    for path in sources:
        with open(f"{args.out}/{path}", "w") as f:
            f.write("".join(rng.choice("0123456789abcdef\n") for _ in range(200)))
    if args.commands == "cat":
        command = lambda inputs, path: f"cat {' '.join(inputs)} | head -c 64 > {path}"
    else:
        command = lambda inputs, path: f"head -c 64 {inputs[0]} > {path}"
    if args.commands == "head":
        run = lambda inputs, path: {"run": ["head", "-c", "64", inputs[0]], "stdout": "o"}
    else:
        run = lambda inputs, path: {"run": command(inputs, path)}
    steps = {
        node: {**run(inputs, path), "inputs": {"i": inputs}, "outputs": {"o": path}} for node, inputs, path in nodes
    }
    with open(f"{args.out}/flow.json", "w") as f:
        json.dump({"name": "bench", "steps": steps}, f)
    with open(f"{args.out}/build.ninja", "w") as f:
        f.write("rule c\n  command = $cmd\n")
        for _, inputs, path in nodes:
            f.write(f"build {path}: c {' '.join(inputs)}\n  cmd = {command(inputs, path)}\n")
    with open(f"{args.out}/Makefile", "w") as f:
        f.write("all: " + " ".join(path for _, _, path in nodes) + "\n")
        for _, inputs, path in nodes:
            f.write(f"{path}: {' '.join(inputs)}\n\t@{command(inputs, path)}\n")


if __name__ == "__main__":
    main()
