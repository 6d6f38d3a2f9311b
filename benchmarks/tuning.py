"""Measure what setting a parameter gives: `python benchmarks/tuning.py`.

On all tables of `tables.py`, as in `accuracy.py`: each parameter by itself, all others as they
come, and a random search over the ranges that the guide names. The rows of a table are divided
into five folds twice: what is chosen on the first five is scored on the other five.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accuracy import Part, score_all
from accuracy_page import make_grid, make_table, select, tell_difference
from measuring import RESULTS
from run import describe_machine
from scipy.stats import loguniform
from sklearn.model_selection import ParameterSampler, RepeatedStratifiedKFold
from tables import OWN, REAL
from threadpoolctl import threadpool_limits

from skdisk import MLPDiskClassifier, make_disk

N_FOLDS = 5
DEFAULTS = "defaults"
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
    "lr": loguniform(0.01, 0.1),
    "weight_decay": loguniform(1e-3, 0.1),
    "dropout": [0.0, 0.1, 0.2, 0.3, 0.5],
    "hidden_layer_sizes": [(32,), (32, 32), (64, 64), (128, 128)],
}
SEARCH = "search"
N_CANDIDATES = (5, 10, 20, 40)


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


def choose_and_score(rows, names, chosen_by="log_loss"):
    """Choose, table by table, the candidate of the lowest loss, and score it on other folds.

    Return by how much it is above the defaults: accuracies and log losses, one for each table.
    """
    differences = []
    for table in dict.fromkeys(row["data"] for row in rows):
        of_table = {row["classifier"]: row for row in rows if row["data"] == table}
        best = min(names, key=lambda name: np.mean(of_table[name][chosen_by][:N_FOLDS]))
        differences.append(
            [
                np.mean(of_table[best][metric][N_FOLDS:])
                - np.mean(of_table[DEFAULTS][metric][N_FOLDS:])
                for metric in ("accuracy", "log_loss")
            ]
        )
    return np.transpose(differences)


def compare(rows):
    """Compare each value of a parameter with the defaults: name, points, nats, seconds."""
    grids = [make_grid(rows, metric) for metric in ("accuracy", "log_loss", "seconds")]
    tables = list(grids[0][DEFAULTS])
    points, nats, seconds = (
        {name: np.array([grid[name][table] for table in tables]) for name in grid}
        for grid in grids
    )
    return [
        (
            name,
            points[name] - points[DEFAULTS],
            nats[name] - nats[DEFAULTS],
            float(np.mean(seconds[name] / seconds[DEFAULTS])),
        )
        for name in points
        if name != DEFAULTS
    ]


def tell_mean(values, digits):
    """Write a mean and its standard error."""
    return tell_difference(values, np.zeros(len(values)), digits)


def make_values_table(rows):
    """Write a table of the values of a parameter beside the defaults."""
    body = [
        [f"`{name}`", tell_mean(points, 2), tell_mean(nats, 3), f"{ratio:.1f}"]
        for name, points, nats, ratio in compare(rows)
    ]
    return make_table(["setting", "accuracy", "log loss", "time"], body)


def make_gains_table(rows):
    """Write what choosing gives, by parameter and by the number of drawn candidates."""
    body = []
    for parameter in VALUES:
        of_parameter = select(rows, parameter)
        names = list(dict.fromkeys(row["classifier"] for row in of_parameter))
        points, nats = choose_and_score(of_parameter, names)
        body.append((f"`{parameter}` alone", len(names), points, nats))
    drawn = select(rows, SEARCH)
    names = [name for name in dict.fromkeys(row["classifier"] for row in drawn)]
    for n in N_CANDIDATES:
        points, nats = choose_and_score(drawn, names[: n + 1])
        body.append(("random search", n + 1, points, nats))
    cells = [[a, str(n), tell_mean(p, 2), tell_mean(q, 3)] for a, n, p, q in body]
    return make_table(["what is chosen", "candidates", "accuracy", "log loss"], cells)


def write_page(machine, rows, path):
    """Write what was measured as Markdown."""
    n_tables = len({row["data"] for row in rows})
    lines = [
        *("# Parameters, one by one", ""),
        ", ".join(f"{key} {value}" for key, value in machine.items()),
        "",
        f"On the {n_tables} tables of [accuracy](accuracy.md), prepared as there. Each number is a",
        "mean over the tables of the difference from the defaults on the same folds; behind ±",
        "stands its standard error over the tables. Accuracy is in points (more is better), log",
        "loss in nats (less is better), time a ratio of seconds of CPU of a fit.",
        "",
        "## What choosing gives",
        "",
        "Of each table the candidate with the lowest log loss on five folds, the defaults among",
        "them, scored on five other folds of the same rows. Because the rows are the same, the",
        "gains are a little flattered.",
        *make_gains_table(rows),
    ]
    for parameter in VALUES:
        default = MLPDiskClassifier().get_params()[parameter]
        lines += [
            f"## `{parameter}`",
            "",
            f"Beside the default, {default!r}.",
            *make_values_table(select(rows, parameter)),
        ]
    path.write_text("\n".join(lines).rstrip() + "\n")


def main():
    """Score all candidates of all parameters; write the page and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one table, to see that it works")
    parts = [*VALUES, SEARCH]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts, metavar="PART")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of the results")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "tuning.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    folds = RepeatedStratifiedKFold(n_splits=N_FOLDS, n_repeats=2, random_state=0)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        MLPDiskClassifier(max_epochs=1).fit(*make_disk(100, random_state=0))
        for parameter in args.parts:
            part = Part(parameter, make_candidates(parameter), None, None, folds)
            rows = [row for row in rows if row["part"] != parameter]
            for name in ["iris"] if args.quick else [*OWN, *REAL]:
                rows += score_all(part, name)
            print(parameter, flush=True)
            path.write_text(json.dumps({"machine": describe_machine(), "rows": rows}) + "\n")
    if {row["part"] for row in rows} == set(parts):
        write_page(describe_machine(), rows, args.output / "tuning.md")


if __name__ == "__main__":
    main()
