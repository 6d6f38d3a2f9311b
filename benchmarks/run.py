"""Measure skdisk beside its peers: `make bench`, or `python benchmarks/run.py --quick`.

All contenders of a case run in turn, repeat after repeat, so that a slow moment of the machine
meets all of them. The table gives medians, spreads and ratios to skdisk.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from unittest import mock

import contenders
import numpy as np
import searches
import torch
from bench_page import draw, write_table
from measuring import (
    PAUSE,
    READ_PEAK,
    RESULTS,
    make_data,
    make_row,
    make_rows,
    measure,
    read_peak_memory,
)

from skdisk import _kernel, make_disk

TRAINERS = {
    "skdisk": contenders.fit_skdisk,
    "pre-sliced loop": contenders.fit_presliced,
    "skorch": contenders.fit_skorch,
    "MLPClassifier": contenders.fit_sklearn,
}
# A step of skorch takes so long that a share of the epochs is enough to tell.
SHARES = {"skorch": 10}


def run_lesson(quick):
    """Case a: the lesson's fit. Seconds a step; the fast ones train all 300 epochs."""
    X, y = make_disk(3000, random_state=0)
    long, short, repeats = (20, 2, 1) if quick else (300, 20, 5)
    settings = (X, y, (64, 64), 32)
    epochs = {
        "skdisk": (contenders.fit_skdisk, long),
        "skdisk, fused=False": (contenders.fit_skdisk_unfused, short),
        "pre-sliced loop": (contenders.fit_presliced, short),
        "DataLoader loop": (contenders.fit_dataloader, short),
        "skorch": (contenders.fit_skorch, short),
        "MLPClassifier": (contenders.fit_sklearn, short),
    }
    functions = {name: partial(fit, *settings, n) for name, (fit, n) in epochs.items()}
    steps = {name: n * 94 for name, (_, n) in epochs.items()}
    if contenders.has_jax():
        compiled = contenders.make_jax_fit(*settings, long)
        compiled()
        functions["JAX, compiled before"] = compiled
        functions["JAX, with compiling"] = lambda: contenders.make_jax_fit(*settings, long)()
        steps |= dict.fromkeys(["JAX, compiled before", "JAX, with compiling"], long * 94)
    for fit, _ in epochs.values():
        fit(*settings, 1)
    return make_rows("a. lesson, s/step", measure(functions, repeats), steps)


def run_overhead(quick):
    """Case a, overhead: how much of a fit of the lesson is the kernel's, in seconds an epoch."""
    X, y = make_disk(3000, random_state=0)
    # Early stopping holds out a tenth.
    X_more, y_more = make_disk(3334, random_state=0)
    epochs, inside = 20 if quick else 300, []

    def time_kernel(function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            inside[-1] += time.perf_counter() - start
            return result

        return call

    def fit(data, **options):
        inside.append(0.0)
        contenders.fit_skdisk(*data, (64, 64), 32, epochs, **options)

    stopping = {"early_stopping": True, "n_iter_no_change": epochs + 1}
    functions = {
        "skdisk": partial(fit, (X, y)),
        "early stopping": partial(fit, (X_more, y_more), **stopping),
    }
    names = ("train", "evaluate")
    timed = {name: time_kernel(getattr(_kernel, name)) for name in names}
    with mock.patch.multiple(_kernel, **timed):
        seconds = measure(functions, 1 if quick else 7)
    seconds["skdisk, in the kernel"] = inside[::2]
    seconds["early stopping, in the kernel"] = inside[1::2]
    units = dict.fromkeys(seconds, epochs)
    return make_rows("a. lesson, in and around the kernel, s/epoch", seconds, units)


def run_short_fit(quick):
    """Case a, a short fit: one epoch of 100 rows, in seconds."""
    X, y = make_disk(100, random_state=0)
    functions = {name: partial(fit, X, y, (64, 64), 32, 1) for name, fit in TRAINERS.items()}
    seconds = measure(functions, 1 if quick else 300, pause=0.0)
    return make_rows("a. fit of one epoch of 100 rows, s", seconds)


GROWTH = {
    "rows": [1_000, 10_000, 100_000, 1_000_000],
    "features": [2, 20, 100, 500],
    "hidden": [16, 64, 256, 1024],
    "batch": [8, 32, 512, 4096],
}
BASE = {"rows": 10_000, "features": 20, "hidden": 64, "batch": 128}
# Points that lie on no axis: rows, features, hidden layers, batch.
POINTS = [(4_000, 8, (16, 16, 16), 8), (100_000, 50, (256, 256), 256)]


def list_points():
    """List what case b measures: a name, and rows, features, hidden layers and batch."""
    for axis, values in GROWTH.items():
        for value in values:
            point = {**BASE, axis: value}
            hidden = (point["hidden"],) * 2
            settings = (point["rows"], point["features"], hidden, point["batch"])
            yield f"{axis} {value:,}", settings
    for rows, features, hidden, batch in POINTS:
        layers = "-".join(map(str, hidden))
        name = f"size {rows:,} x {features}, {layers}, batch {batch}"
        yield name, (rows, features, hidden, batch)


def run_growth(quick):
    """Case b: seconds a row of training data and epoch, along one axis at a time."""
    points = [*list_points()]
    for name, (n_rows, n_features, hidden, batch) in points[:2] if quick else points:
        X, y = make_data(n_rows, n_features)
        # Up to 2,000 steps, so that what a fit costs once does not tell.
        steps = -(-n_rows // batch)
        operations = 6 * batch * sum(a * b for a, b in pairwise((n_features, *hidden, 2)))
        epochs = 1 if quick else max(1, int(min(2000, 3e10 / operations) / steps))
        counts = {name: max(1, epochs // SHARES.get(name, 1)) for name in TRAINERS}
        functions = {
            name: partial(fit, X, y, hidden, batch, counts[name]) for name, fit in TRAINERS.items()
        }
        seconds = measure(functions, 1 if quick else 5)
        units = {name: n_rows * count for name, count in counts.items()}
        yield from make_rows(f"b. {name}, s/row", seconds, units)


def run_prediction(quick):
    """Case c: seconds of predict_proba."""
    X, y = make_data(1000 if quick else 1_000_000, 2)
    # skorch predicts in batches of this size, which is its default.
    train = (X[:1000], y[:1000], (64, 64), 128, 1)
    predict = {
        "skdisk": contenders.fit_skdisk(*train),
        "MLPClassifier": contenders.fit_sklearn(*train),
        "skorch": contenders.fit_skorch(*train),
    }
    rows = []
    for n_rows, repeats in ((1, 500), (1000, 50), (1_000_000, 5)):
        if n_rows > len(X):
            continue
        functions = {name: partial(p, X[:n_rows]) for name, p in predict.items()}
        pause = 0.0 if n_rows == 1 else PAUSE
        seconds = measure(functions, 1 if quick else repeats, pause)
        rows += make_rows(f"c. predict_proba of {n_rows:,} rows, s", seconds)
    return rows


def run_process(name, rows, epochs):
    """Train in a new process; return the seconds it took and its peak memory in MB."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--train", name, str(rows), str(epochs)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, *json.loads(result.stdout)


def train_in_process(name, rows, epochs):
    """Do what `run_process` asks for, importing only what the contender needs."""
    X, y = make_data(rows, 20)
    fit = getattr(contenders, name)
    imported = read_peak_memory()
    fit(X, y, (64, 64), 128, epochs)
    print(json.dumps([imported, read_peak_memory()]))


COLD = {
    "skdisk": "from skdisk import MLPDiskClassifier as C; c = C(lr=1e-3, momentum=0, "
    "weight_decay=0, lr_schedule='constant', max_epochs=10)",
    "MLPClassifier": "from sklearn.neural_network import MLPClassifier as C; c = C((64, 64), "
    "solver='sgd', momentum=0, learning_rate_init=1e-3, max_iter=10, batch_size=32)",
    "skorch": "import torch; from torch import nn; from skorch import NeuralNetClassifier as C; "
    "X = X.astype('f4'); c = C(nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), "
    "nn.ReLU(), nn.Linear(64, 2), nn.Softmax(dim=1)), lr=1e-3, max_epochs=10, batch_size=32, "
    "verbose=0, train_split=None)",
}


def run_cold_start(quick):
    """Case d: a new process that imports and fits for 10 epochs: seconds and peak memory."""
    programs = dict([*COLD.items()][: 1 if quick else None])
    seconds, memory = {name: [] for name in programs}, {}
    for _ in range(1 if quick else 5):
        for name, code in programs.items():
            program = (
                "import warnings; warnings.simplefilter('ignore'); import numpy as np; "
                "X = np.random.default_rng(0).uniform(-1, 1, (3000, 2)); "
                "y = (np.hypot(*X.T) < 0.8).astype(int); " + code + "; c.fit(X, y); "
                f"print({READ_PEAK})"
            )
            start = time.perf_counter()
            result = subprocess.run(
                [sys.executable, "-c", program], check=True, capture_output=True, text=True
            )
            seconds[name].append(time.perf_counter() - start)
            memory[name] = float(result.stdout)
    rows = make_rows("d. cold start and 10 epochs, s", seconds)
    return rows + [
        make_row("d. peak memory, MB", name, [value], [memory["skdisk"]])
        for name, value in memory.items()
    ]


def run_memory(quick):
    """Case b, memory: what a fit of 1,000,000 x 20 rows adds to data and imports, in MB."""
    n_rows, values = 10_000 if quick else 1_000_000, {}
    for label, fit in [*TRAINERS.items()][: 1 if quick else None]:
        _, imported, peak = run_process(fit.__name__, n_rows, 1)
        values[label] = peak - imported
    case = f"b. memory that a fit of {n_rows:,} x 20 adds, MB"
    base = [max(values["skdisk"], 1.0)]
    return [make_row(case, name, [value], base) for name, value in values.items()]


def run_options(quick):
    """Case e: what the options of a training cost on the lesson's recipe, seconds an epoch."""
    X, y = make_disk((1500, 1500), random_state=0)
    # Early stopping holds out a tenth: with so many rows it trains on 3,000 as the others do, and
    # validates on 334 besides.
    X_more, y_more = make_disk((1667, 1667), random_state=0)
    epochs, short, repeats = (2, 1, 1) if quick else (40, 10, 15)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    settings = ((64, 64), 32)
    options = {
        "skdisk": {},
        "sample_weight": {"sample_weight": weights},
        "class_weight": {"class_weight": {0: 1.0, 1: 2.0}},
        "early_stopping": {"early_stopping": True, "n_iter_no_change": epochs + 1},
        "dropout=0.2": {"dropout": 0.2},
        "momentum=0.9": {"momentum": 0.9},
        "adam": {"optimizer": "adam"},
        "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    }
    functions = {}
    for name, chosen in options.items():
        data = (X_more, y_more) if name == "early_stopping" else (X, y)
        functions[name] = partial(contenders.fit_skdisk, *data, *settings, epochs, **chosen)
        functions[name]()
    seconds = measure(functions, repeats)
    yield from make_rows("e. options, s/epoch", seconds, dict.fromkeys(seconds, epochs))
    # The weight decay of torch's AdamW is 0.01, too.
    for name, optimizer in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        by_hand = partial(contenders.fit_presliced, X, y, *settings, short, optimizer)
        by_hand()
        seconds = measure({"skdisk": functions[name], "pre-sliced loop": by_hand}, repeats)
        units = {"skdisk": epochs, "pre-sliced loop": short}
        yield from make_rows(f"e. {name}, s/epoch", seconds, units)


def describe_machine():
    """Name the versions and the machine."""
    versions = {}
    for package in ("skdisk", "torch", "scikit-learn", "skorch", "numpy", "jax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(": ")[1] for line in lines if "model name" in line), model)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{model}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernel": _kernel.choose_instruction_set(),
        **versions,
    }


WORDS = [
    "Ratios are of medians, to skdisk of the same case: above 1, skdisk is faster (or",
    "smaller). The lesson is 3,000 x 2 rows, 64-64 units, batches of 32. The picture is drawn",
    "from bench.json by `python benchmarks/run.py --draw`.",
    "",
    "![Times of a training step, a search, predictions, and of growing problems](bench.png)",
]
CASES = {
    "a": (run_lesson, run_overhead, run_short_fit),
    "b": (run_growth, run_memory),
    "c": (run_prediction,),
    "d": (run_cold_start,),
    "e": (run_options,),
    "f": (searches.run_search,),
    "g": (searches.run_variants,),
    "h": (searches.run_many_networks,),
}


def read_rows(folder):
    """Read the rows of an earlier run; none if there was none."""
    path = folder / "bench.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def measure_cases(letters, quick):
    """Run cases, print what comes of them, and yield their rows."""
    for run in (run for letter, runs in CASES.items() if letter in letters for run in runs):
        print(f"{run.__doc__.splitlines()[0]}", flush=True)
        for row in run(quick):
            figures = f"{row['median']:.3g}  x {row['ratio']:.2f}"
            print(f"    {row['case']:55} {row['contender']:31} {figures}", flush=True)
            yield row


def main():
    """Run all cases, or some, and write table, JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--cases", default=",".join(CASES), help="their letters, e.g. f,g,h")
    parser.add_argument(
        "--output",
        type=Path,
        help="the folder of the results; with some cases only, none is the default",
    )
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing: table and picture of bench.json"
    )
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        name, rows, epochs = args.train
        train_in_process(name, int(rows), int(epochs))
        return
    letters = args.cases.split(",")
    if not set(letters) <= set(CASES):
        parser.error(f"--cases takes letters of {', '.join(CASES)}. Got {args.cases!r}.")
    output = args.output or (RESULTS if args.draw or set(letters) == set(CASES) else None)
    if not args.draw:
        rows = list(measure_cases(letters, args.quick))
        if output is None:
            return
        output.mkdir(parents=True, exist_ok=True)
        # Those of other cases stay.
        rows += [row for row in read_rows(output) if row["case"][0] not in letters]
        rows.sort(key=lambda row: row["case"][0])
        results = {"machine": describe_machine(), "rows": rows}
        (output / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads((output / "bench.json").read_text())
    write_table("Benchmarks", WORDS, results["machine"], results["rows"], output / "bench.md")
    if set("abf") <= {row["case"][0] for row in results["rows"]}:
        draw(results["rows"], output / "bench.png")


if __name__ == "__main__":
    main()
