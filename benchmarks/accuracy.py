"""Score skdisk beside scikit-learn's MLPClassifier: `python benchmarks/accuracy.py`.

One setting for all data sets, cross-validated behind a StandardScaler, for several random states.
The tables give accuracies and the seconds of a fit.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from run import PAUSE, RESULTS, describe_machine
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier, make_disk

DATA = {
    "digits": lambda: load_digits(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast_cancer": lambda: load_breast_cancer(return_X_y=True),
    "make_disk(2000)": lambda: make_disk(2000, random_state=0),
}
# Points of accuracy that skdisk may be below the best MLPClassifier.
MARGIN = 0.5
BATCH_SIZE, DECAY = 32, 1e-3


def make_classifiers(epochs):
    """Make the contenders: skdisk's two settings, and MLPClassifier's three."""
    sgd_epochs, patience = epochs // 2, max(1, epochs // 10)
    same = {"hidden_layer_sizes": (100,), "batch_size": BATCH_SIZE}
    early = {**same, "early_stopping": True, "n_iter_no_change": patience}
    return {
        "skdisk, sgd": MLPDiskClassifier(
            **same,
            lr=0.02,
            momentum=0.9,
            weight_decay=DECAY,
            lr_schedule="cosine",
            max_epochs=sgd_epochs,
        ),
        "skdisk, adamw, early stopping": MLPDiskClassifier(
            **early, optimizer="adamw", lr=0.002, weight_decay=0.01, max_epochs=epochs
        ),
        "MLPClassifier, defaults": MLPClassifier(max_iter=epochs),
        "MLPClassifier, sgd": MLPClassifier(
            **same,
            solver="sgd",
            learning_rate_init=0.02,
            momentum=0.9,
            nesterovs_momentum=False,
            # It is divided by the number of rows of the batch.
            alpha=DECAY * BATCH_SIZE,
            max_iter=sgd_epochs,
            n_iter_no_change=sgd_epochs + 1,
        ),
        "MLPClassifier, adam, early stopping": MLPClassifier(
            **early, solver="adam", learning_rate_init=0.002, max_iter=epochs
        ),
    }


def run_folds(X, y, classifiers, seed, pause):
    """Fit and score all classifiers on the same folds, in turn on each fold."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = {name: [] for name in classifiers}
    seconds = {name: [] for name in classifiers}
    for train, test in folds.split(X, y):
        for name, clf in classifiers.items():
            model = make_pipeline(StandardScaler(), clone(clf).set_params(random_state=seed))
            time.sleep(pause)
            start = time.perf_counter()
            with warnings.catch_warnings():
                # That all epochs were used.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(X[train], y[train])
            seconds[name].append(time.perf_counter() - start)
            scores[name].append(100 * model.score(X[test], y[test]))
    return scores, seconds


def score(name, classifiers, seeds, pause):
    """Cross-validate all classifiers on a data set; return one row each."""
    X, y = DATA[name]()
    runs = [run_folds(X, y, classifiers, seed, pause) for seed in range(seeds)]
    rows = []
    for clf in classifiers:
        scores = np.array([run_scores[clf] for run_scores, _ in runs])
        seconds = np.array([run_seconds[clf] for _, run_seconds in runs])
        rows.append(
            {
                "data": name,
                "classifier": clf,
                "accuracy": scores.mean(),
                # Between the folds, of each fold's mean over the random states.
                "std": scores.mean(axis=0).std(),
                "seconds": float(np.median(seconds)),
                "scores": scores.tolist(),
            }
        )
    best = max(r["accuracy"] for r in rows if r["classifier"].startswith("MLPClassifier"))
    for row in rows:
        row["beside_best"] = row["accuracy"] - best
    return rows


def write_table(machine, rows, classifiers, seeds, path):
    """Write scores and seconds as Markdown tables, with the settings in words."""
    data = list(dict.fromkeys(row["data"] for row in rows))
    cells = {(row["classifier"], row["data"]): row for row in rows}
    head = ["| classifier | " + " | ".join(data) + " |", "|---" * (len(data) + 1) + "|"]

    def make_table(title, form):
        body = [
            f"| {clf} | " + " | ".join(form(cells[clf, name]) for name in data) + " |"
            for clf in classifiers
        ]
        return [f"## {title}", "", *head, *body, ""]

    lines = ["# Accuracy", "", ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += [
        "Five folds (`StratifiedKFold(5, shuffle=True, random_state=0)`), each classifier in",
        f"`make_pipeline(StandardScaler(), classifier)`, means over {seeds} random state(s) of",
        "the classifier. A setting is the same for all data sets:",
        "",
        *(f"- {name}: `{' '.join(repr(clf).split())}`" for name, clf in classifiers.items()),
        "",
        "skdisk's two were picked among some forty on these same folds, which flatters them a",
        "little; the last two of `MLPClassifier` have the same numbers. It has no cosine schedule",
        "and no AdamW: there its learning rate is constant, and its Adam has an L2 penalty. Its",
        f"alpha is divided by the number of rows of a batch: {DECAY * BATCH_SIZE:g} is a weight",
        f"decay of {DECAY:g}. Its early stopping goes by the accuracy on the rows held out,",
        "skdisk's by their loss.",
        "",
    ]
    lines += make_table(
        "Accuracy in %, mean and standard deviation over the folds",
        lambda row: f"{row['accuracy']:.2f} ± {row['std']:.2f}",
    )
    lines += make_table(
        "Points above the best MLPClassifier of the data set",
        lambda row: f"{row['beside_best']:+.2f}",
    )
    lines += make_table("Seconds of a fit, median", lambda row: f"{row['seconds']:.3f}")
    path.write_text("\n".join(lines).rstrip() + "\n")


def main():
    """Score all contenders on all data sets and write the tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few epochs, to see that it works")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of the results")
    args = parser.parse_args()
    classifiers = make_classifiers(4 if args.quick else 200)
    seeds, pause = (1, 0) if args.quick else (5, PAUSE)
    rows = []
    for name in DATA:
        for row in score(name, classifiers, seeds, pause):
            rows.append(row)
            below = row["classifier"].startswith("skdisk") and row["beside_best"] < -MARGIN
            print(
                f"{name:16} {row['classifier']:36} {row['accuracy']:6.2f} %  "
                f"{row['seconds']:.3f} s" + ("  more than half a point below" if below else ""),
                flush=True,
            )
    args.output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    results = {"machine": machine, "rows": rows}
    (args.output / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n")
    write_table(machine, rows, classifiers, seeds, args.output / "accuracy.md")


if __name__ == "__main__":
    main()
