"""Score what can be made of a search: `python benchmarks/ensembles.py`.

A random search on half of the rows of a table; then, on the other half, its best network, an
ensemble of that setting, one of the best candidates, and one of the candidates that are best
together (`MLPDiskEnsemble.from_search`). Many splits; the page gives means and standard errors.
"""

import argparse
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from accuracy_page import make_table
from measuring import RESULTS
from run import describe_machine
from scipy.stats import loguniform
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import (
    RandomizedSearchCV,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk

TABLES = {
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "synthetic": lambda: make_classification(
        2000, 20, n_informative=8, n_classes=3, flip_y=0.05, random_state=0
    ),
    "disk": lambda: make_disk(1000, flip_y=0.1, random_state=0),
}
SPACE = {
    "hidden_layer_sizes": [(32,), (128,), (32, 32), (64, 64), (128, 128), (64, 64, 64)],
    "activation": ["relu", "tanh", "silu", "gelu"],
    "lr": loguniform(3e-3, 0.2),
    "weight_decay": loguniform(1e-5, 3e-2),
    "dropout": [0.0, 0.1, 0.2, 0.4],
    "batch_size": [16, 32, 64],
}
BEST, SEEDS, FIRST, CHOICE = "the best", "seeds of the best", "the first ten", "from_search"
TEXT = """
A random search, five folds, scored by log loss, over pipelines of a StandardScaler and the
network, on half of a table's rows; log loss (nats) and accuracy on the other half. "{BEST}":
the mean over {n_members} networks of the best candidate, each with a seed of its own. "{SEEDS}":
these as an ensemble. "{FIRST}": an ensemble of the {n_members} best candidates. "{CHOICE}":
`MLPDiskEnsemble.from_search(search, X, y, n_members={n_members})`. Behind ± stands the standard
error over the {n_splits} splits; the last columns say by how much an ensemble is beside
"{SEEDS}" on the same split, and on how many splits its log loss is lower. {n_iter} candidates.
Seconds are of CPU, on top of the search.
"""


def search_candidates(X, y, n_iter, split, n_jobs):
    """Fit the search."""
    space = {f"mlpdiskclassifier__{name}": values for name, values in SPACE.items()}
    return RandomizedSearchCV(
        make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0)),
        space,
        n_iter=n_iter,
        scoring="neg_log_loss",
        cv=StratifiedKFold(5, shuffle=True, random_state=split),
        random_state=split,
        n_jobs=n_jobs,
    ).fit(X, y)


def score_split(train, test, split, n_members, n_iter, n_jobs):
    """Make all of one search; return (log loss, accuracy, seconds) of each."""
    search = search_candidates(*train, n_iter, split, n_jobs)
    ranks = search.cv_results_["rank_test_score"].argsort(kind="stable")
    first = [search.cv_results_["params"][k] for k in ranks[:n_members]]
    first = [make_pipeline(StandardScaler(), MLPDiskClassifier()).set_params(**p) for p in first]
    shared = {"n_members": n_members, "n_jobs": n_jobs, "random_state": split}
    makers = {
        SEEDS: lambda: MLPDiskEnsemble(search.best_estimator_, **shared).fit(*train),
        FIRST: lambda: MLPDiskEnsemble(first, **shared).fit(*train),
        CHOICE: lambda: MLPDiskEnsemble.from_search(search, *train, **shared),
    }
    X, y = test
    scores = {}
    for name, make in makers.items():
        start = time.process_time()
        ensemble = make()
        seconds = time.process_time() - start
        loss = log_loss(y, ensemble.predict_proba(X))
        scores[name] = loss, accuracy_score(y, ensemble.predict(X)), seconds
        if name == SEEDS:
            members = ensemble.estimators_
            losses = [log_loss(y, member.predict_proba(X)) for member in members]
            accuracies = [accuracy_score(y, member.predict(X)) for member in members]
            scores[BEST] = np.mean(losses), np.mean(accuracies), seconds / n_members
    return scores


def summarise(name, scores):
    """Summarise a table's splits: one row for each thing that was made of the search."""
    seeds = np.array([split[SEEDS] for split in scores])
    for method in (BEST, SEEDS, FIRST, CHOICE):
        values = np.array([split[method] for split in scores])
        loss, accuracy, seconds = values.mean(axis=0)
        gain = values[:, 0] - seeds[:, 0]
        error = gain.std(ddof=1) / len(gain) ** 0.5
        row = [name, method, f"{loss:.4f}", f"{100 * accuracy:.2f}", f"{seconds:.2f}"]
        wins = f"{(gain < 0).sum()} of {len(gain)}"
        yield row + (["", ""] if method == SEEDS else [f"{gain.mean():+.4f} ± {error:.4f}", wins])


def main():
    """Score all tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little, to see that it works")
    parser.add_argument("--splits", type=int, default=20, help="of each table")
    parser.add_argument("--jobs", type=int, default=2, help="how many threads")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of the page")
    args = parser.parse_args()
    n_members, n_iter, n_splits, tables = 10, 30, args.splits, list(TABLES)
    if args.quick:
        n_members, n_iter, n_splits, tables = 2, 3, 2, ["breast cancer"]
    # That features are far from 0, and the like: candidates of a search may be bad ones.
    warnings.simplefilter("ignore")
    body = []
    for name in tables:
        X, y = TABLES[name]()
        splits = StratifiedShuffleSplit(n_splits, test_size=0.5, random_state=0).split(X, y)
        scores = []
        with joblib.parallel_config("threading"):
            for split, (train, test) in enumerate(splits):
                halves = (X[train], y[train]), (X[test], y[test])
                scores.append(score_split(*halves, split, n_members, n_iter, args.jobs))
                print(f"{time.process_time():5.0f} s  {name}, split {split}", flush=True)
        body += summarise(name, scores)
    names = {"BEST": BEST, "SEEDS": SEEDS, "FIRST": FIRST, "CHOICE": CHOICE}
    numbers = {"n_members": n_members, "n_iter": n_iter, "n_splits": n_splits}
    machine = ", ".join(f"{key} {value}" for key, value in describe_machine().items())
    head = ["table", "method", "log loss", "accuracy", "seconds", "beside seeds", "lower"]
    text = TEXT.format(**names, **numbers).rstrip()
    lines = ["# Ensembles", "", machine, text, *make_table(head, body)]
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "ensembles.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
