"""Measure when a GPU pays: the kernel on the CPU beside PyTorch on a GPU, from small to large.

`python benchmarks/gpu.py` on a machine with an accelerator writes results/gpu.json and gpu.md. The
guide shows them. Each fit includes the way of the data to the GPU, each prediction the way back.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import contenders
import numpy as np
import torch
from bench_page import write_table
from measuring import RESULTS, make_data, make_rows, measure
from run import describe_machine

from skdisk import make_disk

# Of a fit: rows, features, hidden layers, rows of a batch, epochs on the CPU and on the GPU.
FITS = {
    "lesson": (3_000, 2, (64, 64), 32, 50, 3),
    "batch 256": (100_000, 50, (256, 256), 256, 1, 1),
    "batch 4,096": (100_000, 50, (256, 256), 4_096, 2, 5),
    "hidden 1,024": (100_000, 50, (1_024, 1_024), 1_024, 1, 5),
    "hidden 4,096": (100_000, 50, (4_096, 4_096), 4_096, 1, 5),
}
# Of a prediction: rows; 50 features, and hidden layers of 256 and 256.
PREDICTIONS = (1_000, 1_000_000)
REPEATS = 3
WORDS = [
    "Ratios are of medians, to skdisk on the CPU of the same case: above 1, the CPU is faster.",
    "The lesson is 3,000 x 2 rows, 64-64 units, batches of 32; the others are 100,000 x 50 rows.",
]


def run_fits(device):
    """Measure fits, in seconds an epoch."""
    rows = []
    for name, (n, n_features, hidden, batch_size, n_cpu, n_gpu) in FITS.items():
        data = make_disk(n, random_state=0) if n_features == 2 else make_data(n, n_features)
        settings = (*data, hidden, batch_size)
        on_gpu = partial(contenders.fit_skdisk, *settings, device=device, fused="auto")
        by_hand = partial(contenders.fit_presliced, *settings, device=device)
        # The first use of a GPU loads code.
        on_gpu(epochs=1)
        by_hand(epochs=1)
        functions = {
            "skdisk": partial(contenders.fit_skdisk, *settings, n_cpu, fused="auto"),
            f"skdisk, {device}": partial(on_gpu, epochs=n_gpu),
            f"pre-sliced loop, {device}": partial(by_hand, epochs=n_gpu),
        }
        epochs = dict.fromkeys(functions, n_gpu) | {"skdisk": n_cpu}
        rows += make_rows(f"fit, {name}, s/epoch", measure(functions, REPEATS), epochs)
    return rows


def run_predictions(device):
    """Measure predictions, in seconds."""
    X, y = make_data(max(PREDICTIONS), 50)
    settings = (X[:10_000], y[:10_000], (256, 256), 256, 1)
    predict = {
        "skdisk": contenders.fit_skdisk(*settings),
        f"skdisk, {device}": contenders.fit_skdisk(*settings, device=device, fused="auto"),
    }
    largest = np.abs(np.subtract(*(function(X[:1000]) for function in predict.values()))).max()
    print(f"largest difference of probabilities: {largest:.1e}")
    rows = []
    for n in PREDICTIONS:
        functions = {name: partial(function, X[:n]) for name, function in predict.items()}
        rows += make_rows(f"predict_proba of {n:,} rows, s", measure(functions, REPEATS))
    return rows


def main():
    """Measure; write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="torch's name of the accelerator")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder to write to")
    args = parser.parse_args()
    properties = torch.cuda.get_device_properties(args.device)
    machine = describe_machine() | {"gpu": properties.name, "cuda": torch.version.cuda}
    rows = run_fits(args.device) + run_predictions(args.device)
    results = json.dumps({"machine": machine, "rows": rows}, indent=1)
    (args.output / "gpu.json").write_text(results + "\n")
    write_table("When a GPU pays", WORDS, machine, rows, args.output / "gpu.md")


if __name__ == "__main__":
    main()
