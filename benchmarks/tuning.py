"""Measure what setting a parameter gives: `python benchmarks/tuning.py`.

On all tables of `tables.py`, as in `accuracy.py`: each parameter by itself, all others as they
come, and a random search over the ranges that the guide names. The rows of a table are divided
into five folds twice: what is chosen on the first five is scored on the other five.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from accuracy import QUICK, Part, score_all
from measuring import RESULTS
from run import describe_machine
from scipy.stats import loguniform
from sklearn.model_selection import ParameterSampler, RepeatedStratifiedKFold
from tables import OWN, REAL
from threadpoolctl import threadpool_limits
from tuning_page import DEFAULTS, N_CANDIDATES, N_FOLDS, SEARCH, write_page

from skdisk import MLPDiskClassifier, make_disk

VALUES = {
    "lr": [0.005, 0.01, 0.02, 0.08, 0.16],
    "weight_decay": [0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1],
    "hidden_layer_sizes": [(), (16,), (64,), (256,), (32, 32), (128, 128), (64, 64, 64)],
    "dropout": [0.1, 0.2, 0.3, 0.5],
    "max_epochs": [10, 20, 60, 120],
    "batch_size": [8, 16, 64, 128, 256],
    "momentum": [0.0, 0.5, 0.95, 0.99],
    "lr_schedule": ["constant", "one_cycle", "plateau"],
    "activation": ["tanh", "logistic", "leaky_relu", "elu", "selu", "gelu", "silu"],
}
# What the guide tells to search, and in which ranges.
RANGES = {
    "weight_decay": loguniform(0.003, 0.05),
    "lr": loguniform(0.005, 0.1),
    "hidden_layer_sizes": [(16,), (64,), (256,), (64, 64)],
    "dropout": [0.0, 0.1, 0.2, 0.3, 0.5],
}

QUICK_PARTS = ["lr", SEARCH]


def make_candidates(parameter):
    """Make classifiers by name: the defaults, and those that differ in a parameter, or drawn."""
    if parameter == SEARCH:
        drawn = ParameterSampler(RANGES, max(N_CANDIDATES), random_state=0)
    else:
        drawn = [{parameter: value} for value in VALUES[parameter]]
    made = {describe(settings): partial(MLPDiskClassifier, **settings) for settings in drawn}
    return {DEFAULTS: MLPDiskClassifier, **made}


def describe(settings):
    """Write settings as they stand in a call."""
    texts = (f"{v:.2g}" if isinstance(v, float) else repr(v) for v in settings.values())
    return ", ".join(f"{name}={text}" for name, text in zip(settings, texts, strict=True))


def write_results(folder):
    """Write the page from what is in the JSON file of a folder."""
    results = json.loads((folder / "tuning.json").read_text())
    defaults = MLPDiskClassifier().get_params()
    write_page(results["machine"], defaults, results["rows"], folder / "tuning.md")


def main():
    """Score all candidates of all parameters; write the page and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few tables and values, to see that it works"
    )
    parts = [*VALUES, SEARCH]
    parser.add_argument("--parts", nargs="+", choices=parts, metavar="PART")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing: the page of tuning.json"
    )
    args = parser.parse_args()
    if args.draw:
        write_results(args.output)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "tuning.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    folds = RepeatedStratifiedKFold(n_splits=N_FOLDS, n_repeats=2, random_state=0)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        MLPDiskClassifier(max_epochs=1).fit(*make_disk(100, random_state=0))
        for parameter in args.parts or (QUICK_PARTS if args.quick else parts):
            candidates = make_candidates(parameter)
            if args.quick:
                candidates = dict([*candidates.items()][:2])
            part = Part(parameter, candidates, None, None, folds)
            rows = [row for row in rows if row["part"] != parameter]
            for name in QUICK if args.quick else [*OWN, *REAL]:
                rows += score_all(part, name)
            print(parameter, flush=True)
            path.write_text(json.dumps({"machine": describe_machine(), "rows": rows}) + "\n")
    if any(row["part"] == SEARCH for row in rows):
        write_results(args.output)


if __name__ == "__main__":
    main()
