"""Measure when a GPU pays: the kernel on the CPU beside PyTorch on a GPU, from small to large.

`python benchmarks/gpu.py` on a machine with an accelerator writes results/gpu.json and gpu.md. The
guide shows them. Each fit includes the way of the data to the GPU, each prediction the way back.
"""

import argparse
import json
from functools import partial
from itertools import chain
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
    "hidden 256, batch 256": (100_000, 50, (256, 256), 256, 1, 1),
    "hidden 256, batch 4,096": (100_000, 50, (256, 256), 4_096, 2, 5),
    "hidden 1,024, batch 1,024": (100_000, 50, (1_024, 1_024), 1_024, 1, 5),
}
# Of a prediction: rows; 50 features, and hidden layers of 256 and 256.
PREDICTIONS = (1_000, 1_000_000)
REPEATS = 3
WORDS = [
    "Ratios are of medians, to skdisk on the CPU of the same case: above 1, the CPU is faster.",
    "The lesson is 3,000 x 2 rows, 64-64 units, batches of 32; the others are 100,000 x 50 rows.",
]


def run_fits(device, names=FITS, repeats=REPEATS):
    """Measure fits, in seconds an epoch; give the rows of each case."""
    for name in names:
        n, n_features, hidden, batch_size, n_cpu, n_gpu = FITS[name]
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
        yield make_rows(f"fit, {name}, s/epoch", measure(functions, repeats), epochs)


def run_predictions(device, numbers=PREDICTIONS, repeats=REPEATS):
    """Measure predictions, in seconds; give the rows of each case."""
    X, y = make_data(max(numbers), 50)
    settings = (X[:10_000], y[:10_000], (256, 256), 256, 1)
    predict = {
        "skdisk": contenders.fit_skdisk(*settings),
        f"skdisk, {device}": contenders.fit_skdisk(*settings, device=device, fused="auto"),
    }
    largest = np.abs(np.subtract(*(function(X[:1000]) for function in predict.values()))).max()
    print(f"largest difference of probabilities: {largest:.1e}")
    for n in numbers:
        functions = {name: partial(function, X[:n]) for name, function in predict.items()}
        yield make_rows(f"predict_proba of {n:,} rows, s", measure(functions, repeats))


def main():
    """Measure; write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="torch's name of the accelerator")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--quick", action="store_true", help="measure two cases, once")
    args = parser.parse_args()
    machine = describe_machine() | {"gpu": describe_device(args.device)}
    quick = (["lesson"], 1), ([1_000], 1)
    of_fits, of_predictions = quick if args.quick else ((), ())
    rows = []
    for case in chain(
        run_predictions(args.device, *of_predictions), run_fits(args.device, *of_fits)
    ):
        rows += case
        write(machine, rows, args.output)


def describe_device(device):
    """Name a device: that of CUDA by its maker's name, with the version of CUDA."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return device


def write(machine, rows, output):
    """Write what has been measured so far."""
    results = json.dumps({"machine": machine, "rows": rows}, indent=1)
    (output / "gpu.json").write_text(results + "\n")
    write_table("When a GPU pays", WORDS, machine, rows, output / "gpu.md")


if __name__ == "__main__":
    main()
