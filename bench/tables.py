#!/usr/bin/env python3
"""Writes two tables to be joined, the same for the same seed: left.csv and right.csv, 18 columns, about 109 bytes a row.

    bench/tables.py --out DIR [--rows 1000000] [--seed 1] [--alone 0.01] [--twice 0.001] [--differ 0.001] [--quoted 0]

The columns are those of the tables of workflows/inferencemax.json: six are the key, x and y are values, the other ten are shared. Right is
shuffled. --alone: the share of rows on each side whose key the other side lacks; --twice: of rows whose key stands twice on a side;
--differ: of rows that say something else in a shared column; --quoted: of rows whose model has a comma, quotes and a line end.
"""
import argparse
import os
import random

KEY = ["model_name", "sequence_length", "conc", "hwKey", "precision", "tp"]
VALUES = ["x", "y"]
COLUMNS = [
    "model_name", "sequence_length", "conc", "costh_roof", "costh_y", "costn_roof", "costn_y", "costr_roof", "costr_y",
    "hwKey", "precision", "tp", "tpPerGpu_roof", "tpPerGpu_y", "tpPerMw_roof", "tpPerMw_y", "x", "y",
]  # fmt: skip
MODELS = ["Llama 70B", "gpt-oss", "DeepSeek", "Qwen3"]
ODD_MODEL = '"Llama 3.3, ""70B""\nInstruct"'
LENGTHS = ["1k-1k", "1k-8k", "8k-1k"]
HARDWARE = ["mi300x", "mi325x", "mi355x", "h100", "h200", "b200", "gb200"]


def write(out, rows, seed, alone=0.01, twice=0.001, differ=0.001, quoted=0.0):
    """Writes DIR/left.csv and DIR/right.csv; both have `rows` rows, those with repeated keys included."""
    rng = random.Random(seed)
    number, choice = rng.random, rng.choice

    def shared(conc):
        model = ODD_MODEL if quoted and number() < quoted else choice(MODELS)
        cost, per_gpu = number() * 3, number() * 4000
        cells = [model, choice(LENGTHS), str(conc)]
        for factor in (1, 1.25, 1.5):
            cells += ["True" if number() < 0.1 else "False", f"{cost * factor:.2f}"]
        cells += [choice(HARDWARE), choice(("fp4", "fp8")), choice("1248")]
        return cells + ["False", f"{per_gpu:.3f}", "True" if number() < 0.1 else "False", f"{per_gpu * 37:.1f}"]

    def values():
        return f",{number() * 90:.3f},{number() * 4000:.3f}\n"

    head, sides = ",".join(COLUMNS) + "\n", ([], [])
    conc = 0
    while any(len(side) < rows for side in sides):
        conc += 1
        cells = shared(conc)
        text = ",".join(cells)
        takes = [True, True]
        if number() < 2 * alone:
            takes[number() < 0.5] = False
        for index, side in enumerate(sides):
            for _ in range((1 + (number() < twice)) * takes[index]):
                own = text
                if index and number() < differ:
                    own = ",".join(cells[:4] + ["9.99"] + cells[5:])
                if len(side) < rows:
                    side.append(own + values())
    rng.shuffle(sides[1])
    os.makedirs(out, exist_ok=True)
    for name, side in zip(("left.csv", "right.csv"), sides):
        with open(f"{out}/{name}", "w", newline="") as f:
            f.write(head)
            f.writelines(side)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    for share, default in (("alone", 0.01), ("twice", 0.001), ("differ", 0.001), ("quoted", 0.0)):
        parser.add_argument(f"--{share}", type=float, default=default)
    write(**vars(parser.parse_args()))
