"""Measure searches: beside scikit-learn's over skdisk and its peers, and of 10,000 networks."""

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from unittest import mock

import contenders
import numpy as np
from measuring import make_data, make_row, make_rows, measure, read_peak_memory
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdisk import FusedGridSearchCV, MLPDiskClassifier, make_disk

LR = [1e-3, 3e-3, 1e-2, 3e-2]
DECAY = [0.0, 1e-4, 1e-3]
LESSON = ((64, 64), 32)
PLAIN = "GridSearchCV over skdisk"


@contextlib.contextmanager
def ignore_convergence():
    """Hide, here and in worker processes that start here, that a training could go on."""
    # What a worker warns of, this process cannot filter; the environment takes messages only.
    messages = ["ignore:max_epochs=", "ignore:Stochastic Optimizer"]
    filters = [os.environ.get("PYTHONWARNINGS"), *messages]
    with (
        mock.patch.dict(os.environ, PYTHONWARNINGS=",".join(filter(None, filters))),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def search(estimator, grid, X, y, epochs, cls=GridSearchCV, name="max_epochs"):
    """Search with five folds and two processes, without the last fit."""
    estimator.set_params(**{name: epochs})
    cls(estimator, grid, n_jobs=2, cv=5, refit=False, error_score="raise").fit(X, y)


def make_classifier(**options):
    """Make the classifier that the lesson trains."""
    hidden, batch_size = LESSON
    return MLPDiskClassifier(hidden, batch_size=batch_size, random_state=0, **options)


def measure_searches(functions, epochs, repeats):
    """Time searches, functions of their number of epochs, when the processes are up."""
    with ignore_convergence():
        for function in functions.values():
            function(1)
        timed = {name: partial(function, epochs[name]) for name, function in functions.items()}
        return measure(timed, repeats)


def run_search(quick):
    """Case f: 12 candidates, 5 folds, seconds an epoch of all 60 networks; two processes.

    The lesson's data and network. skdisk trains 60 epochs, skorch 10 and MLPClassifier 20, which
    take long enough; what a search costs once is so divided by fewer epochs there.
    """
    X, y = make_disk(300 if quick else 3000, random_state=0)
    rates = LR[:1] if quick else LR
    grid = {"lr": rates, "weight_decay": DECAY}
    hidden, batch_size = LESSON
    skorch = contenders.make_skorch(2, hidden, batch_size, 1)
    sklearn = contenders.make_sklearn(hidden, batch_size, 1)

    def search_skorch(n):
        search(skorch, {"lr": rates, "optimizer__weight_decay": DECAY}, X.astype(np.float32), y, n)

    def search_sklearn(n):
        search(sklearn, {"learning_rate_init": rates, "alpha": DECAY}, X, y, n, name="max_iter")

    functions = {
        "skdisk": lambda n: search(make_classifier(), grid, X, y, n, FusedGridSearchCV),
        PLAIN: lambda n: search(make_classifier(), grid, X, y, n),
        "skorch": search_skorch,
        "MLPClassifier": search_sklearn,
    }
    epochs = dict(zip(functions, [2, 2, 1, 1] if quick else [60, 60, 10, 20], strict=True))
    seconds = measure_searches(functions, epochs, 1 if quick else 3)
    return make_rows("f. search, 12 candidates x 5 folds, s/epoch", seconds, epochs)


def run_variants(quick):
    """Case g: as case f, but for what is searched: seconds of the whole search, 60 epochs."""
    X, y = make_disk(300 if quick else 3000, random_state=0)
    rates = LR[:1] if quick else LR
    step = "mlpdiskclassifier__"
    clf, widths = make_classifier(), [(32, 32), (64, 64), (128, 128)]
    decays = {"lr": rates, "weight_decay": DECAY}
    scaled = {step + name: values for name, values in decays.items()}
    variants = {
        "three widths": (clf, {"lr": rates, "hidden_layer_sizes": widths}, ""),
        "early stopping": (make_classifier(early_stopping=True), decays, ""),
        "pipeline": (make_pipeline(StandardScaler(), clf), scaled, step),
    }
    for variant, (estimator, grid, prefix) in variants.items():
        functions = {
            name: lambda n, s=(estimator, grid), cls=cls, p=prefix: search(
                *s, X, y, n, cls, p + "max_epochs"
            )
            for name, cls in (("skdisk", FusedGridSearchCV), (PLAIN, GridSearchCV))
        }
        epochs = dict.fromkeys(functions, 2 if quick else 60)
        seconds = measure_searches(functions, epochs, 1 if quick else 3)
        yield from make_rows(f"g. search, {variant}, s", seconds)


# ParallelMLPs (Farias et al., arXiv 2206.08369) trains 10,000 networks of 1 to 100 units: ten
# activations, ten repetitions. Theirs are these eight, Hardshrink and Mish; SiLU, which is close
# to Mish, stands in for those two.
ACTIVATIONS = ["identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "gelu", "selu"]
MODULES = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}
# What its authors recorded with 10 features, by rows: seconds an epoch, all networks at once and
# one after another. From github.com/fariasfc/parallel_layers, commit b98941c, in experiments:
# times_cpu/times_cpu.csv and times_cuda/times_cuda.csv. They did not set the batch size there;
# 32 is what a later folder, times_cpu_bs32, records. Their processor and GPU are not recorded, and
# their labels are all of one class: other machines, and a little less work, than ours.
PUBLISHED = {
    "ParallelMLPs, authors' CPU": {100: 0.539, 1_000: 5.34, 10_000: 53.4},
    "one after another, authors' CPU": {100: 13.4, 1_000: 112, 10_000: 1098},
    "ParallelMLPs, authors' GPU": {100: 0.0252, 1_000: 0.276, 10_000: 2.75},
    "one after another, authors' GPU": {100: 23.0, 1_000: 189, 10_000: 1859},
}
N_TEST_ROWS = 100


def make_grid(widths, n_seeds):
    """Make the grid of many networks."""
    settings = {"hidden_layer_sizes": [*range(1, widths + 1)]}
    return [
        {"activation": ACTIVATIONS, **settings, "random_state": [*range(n_seeds)]},
        {"activation": ["silu"], **settings, "random_state": [*range(2 * n_seeds)]},
    ]


def search_in_process(n_rows, epochs, widths, n_seeds):
    """Do what `run_process` asks for: print the seconds of the search, and peak memory in MB."""
    X, y = make_data(n_rows + N_TEST_ROWS, 10)
    clf = MLPDiskClassifier(lr=contenders.LR, batch_size=32, max_epochs=epochs)
    split = (np.arange(n_rows), np.arange(n_rows, len(X)))
    grid = make_grid(widths, n_seeds)
    start = time.perf_counter()
    FusedGridSearchCV(clf, grid, cv=[split], refit=False, n_jobs=1).fit(X, y)
    print(json.dumps([time.perf_counter() - start, read_peak_memory()]))


def run_process(*numbers):
    """Search in a new process; return the seconds of the search and the peak memory in MB."""
    command = [sys.executable, __file__, *map(str, numbers)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def fit_one_by_one(candidates, X, y, epochs):
    """Fit our classifier for some candidates, one after another."""
    for parameters in candidates:
        clf = MLPDiskClassifier(lr=contenders.LR, batch_size=32, max_epochs=epochs)
        clf.set_params(**parameters).fit(X, y)


def train_by_hand(candidates, X, y, epochs):
    """Train some candidates in a hand-written loop, one after another."""
    for parameters in candidates:
        hidden = (parameters["hidden_layer_sizes"],)
        activation = MODULES[parameters["activation"]]
        contenders.fit_presliced(X, y, hidden, 32, epochs, activation=activation)


def run_many_networks(quick):
    """Case h: 10,000 networks of one hidden layer of 1 to 100 units, in one process.

    A search with one split, the way that the library goes, once with few and once with more
    epochs: the difference tells the seconds an epoch, that with more epochs the seconds of the
    whole search. What is trained one after another, our fits and a hand-written loop, is a random
    sample of 100 of the networks, measured in the same way and scaled up to 10,000; unlike the
    search, it scores nothing. Beside it is what the authors of ParallelMLPs recorded on their
    machines.
    """
    widths, n_seeds, n_sample, repeats = (4, 1, 2, 1) if quick else (100, 10, 100, 3)
    sizes = {500: (1, 11)} if quick else {100: (1, 101), 1_000: (1, 31), 10_000: (1, 4)}
    candidates = [*ParameterGrid(make_grid(widths, n_seeds))]
    chosen = np.random.default_rng(0).choice(len(candidates), n_sample, replace=False)
    sample, scale = [candidates[i] for i in chosen], len(candidates) / n_sample
    fit_one_by_one(sample[:1], *make_data(100, 10), 1)
    for n_rows, (short, long) in sizes.items():
        X, y = make_data(n_rows, 10)
        seconds, peaks = {}, []
        for _ in range(repeats):
            outcomes = [run_process(n_rows, n, widths, n_seeds) for n in (short, long)]
            seconds.setdefault("skdisk", []).append([s for s, _ in outcomes])
            peaks.append(outcomes[-1][1])
            for name, fit in (
                ("skdisk, one after another", fit_one_by_one),
                ("pre-sliced loop", train_by_hand),
            ):
                timed = {n: partial(fit, sample, X, y, n) for n in (short, long)}
                pair = [scale * values[0] for values in measure(timed, 1).values()]
                seconds.setdefault(name, []).append(pair)
        name = f"h. {len(candidates):,} networks, {n_rows:,} rows"
        per_epoch = {
            key: [(b - a) / (long - short) for a, b in pairs] for key, pairs in seconds.items()
        }
        if not quick:
            per_epoch |= {key: [values[n_rows]] for key, values in PUBLISHED.items()}
        yield from make_rows(f"{name}, s/epoch", per_epoch)
        whole = {key: [b for _, b in pairs] for key, pairs in seconds.items()}
        yield from make_rows(f"{name}, all of {long} epochs, s", whole)
        yield make_row(f"{name}, peak memory, MB", "skdisk", peaks, peaks)


if __name__ == "__main__":
    search_in_process(*map(int, sys.argv[1:]))
