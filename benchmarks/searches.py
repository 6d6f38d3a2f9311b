"""Measure many networks: grid searches beside those of the peers, and 10,000 networks."""

import warnings
from functools import partial

import contenders
import joblib
import numpy as np
from measuring import make_data, make_rows, measure
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdisk import MLPDiskClassifier, make_disk

LR = [1e-3, 3e-3, 1e-2, 3e-2]
DECAY = [0.0, 1e-4, 1e-3]
WIDTHS = [(32, 32), (64, 64), (128, 128)]
LESSON = ((64, 64), 32)
# How the searches of skdisk run: joblib's backend and how many fits at a time.
WAYS = {
    "skdisk": ("threading", 2),
    "skdisk, one thread": ("threading", 1),
    "skdisk, two processes": ("loky", 2),
}
PROCESSES = WAYS["skdisk, two processes"]


def search(estimator, grid, X, y, way, epochs, name="max_epochs", patience=None):
    """Search with five folds, without the last fit.

    `name` is what the estimator calls its number of epochs, `patience` what it calls the number
    of epochs that early stopping waits for: then longer than there are any.
    """
    estimator.set_params(**{name: epochs}, **({patience: epochs + 1} if patience else {}))
    backend, n_jobs = way
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        GridSearchCV(estimator, grid, cv=5, refit=False, error_score="raise").fit(X, y)


def make_classifier(**options):
    """Make the classifier that the lesson trains."""
    hidden, batch_size = LESSON
    settings = contenders.RECIPE | {"batch_size": batch_size, "random_state": 0}
    return MLPDiskClassifier(hidden, **settings | options)


def measure_searches(functions, epochs, repeats):
    """Time searches, functions of their number of epochs, when the processes are up."""
    with warnings.catch_warnings():
        # That a training could go on; scikit-learn hands the filters on to its workers.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for function in functions.values():
            function(epochs=1)
        timed = {
            name: partial(function, epochs=epochs[name]) for name, function in functions.items()
        }
        return measure(timed, repeats)


def run_search(quick):
    """Case f: 12 candidates, 5 folds, seconds an epoch of all 60 networks.

    The lesson's data and network. skdisk trains 60 epochs, skorch 10 and MLPClassifier 20, which
    take long enough; what a search costs once is so divided by fewer epochs there.
    """
    X, y = make_disk(300 if quick else 3000, random_state=0)
    rates, decays = (values[:1] if quick else values for values in (LR, DECAY))
    hidden, batch_size = LESSON
    functions = {
        name: partial(search, make_classifier(), {"lr": rates, "weight_decay": decays}, X, y, way)
        for name, way in WAYS.items()
    }
    functions["skorch, two processes"] = partial(
        search,
        contenders.make_skorch(2, hidden, batch_size, 1),
        {"lr": rates, "optimizer__weight_decay": decays},
        X.astype(np.float32),
        y,
        PROCESSES,
    )
    functions["MLPClassifier, two processes"] = partial(
        search,
        contenders.make_sklearn(hidden, batch_size, 1),
        {"learning_rate_init": rates, "alpha": decays},
        X,
        y,
        PROCESSES,
        name="max_iter",
    )
    numbers = [2, 2, 2, 1, 1] if quick else [60, 60, 60, 10, 20]
    epochs = dict(zip(functions, numbers, strict=True))
    seconds = measure_searches(functions, epochs, 1 if quick else 3)
    return make_rows("f. search, 12 candidates x 5 folds, s/epoch", seconds, epochs)


def run_variants(quick):
    """Case g: as case f, but for what is searched; seconds an epoch of all networks.

    MLPClassifier trains 20 epochs, skdisk 60. With early stopping both train all epochs and keep
    the best.
    """
    X, y = make_disk(300 if quick else 3000, random_state=0)
    rates, decays, widths = (values[:1] if quick else values for values in (LR, DECAY, WIDTHS))
    sklearn = contenders.make_sklearn(*LESSON, 1)
    # The estimators, their grids, and what stands before the names of their parameters.
    variants = {
        "three widths": (
            (make_classifier(), {"lr": rates, "hidden_layer_sizes": widths}, ""),
            (sklearn, {"learning_rate_init": rates, "hidden_layer_sizes": widths}, ""),
        ),
        "early stopping": (
            (make_classifier(early_stopping=True), {"lr": rates, "weight_decay": decays}, ""),
            (
                contenders.make_sklearn(*LESSON, 1).set_params(early_stopping=True),
                {"learning_rate_init": rates, "alpha": decays},
                "",
            ),
        ),
        "pipeline": (
            (
                make_pipeline(StandardScaler(), make_classifier()),
                {"mlpdiskclassifier__lr": rates, "mlpdiskclassifier__weight_decay": decays},
                "mlpdiskclassifier__",
            ),
            (
                make_pipeline(StandardScaler(), sklearn),
                {"mlpclassifier__learning_rate_init": rates, "mlpclassifier__alpha": decays},
                "mlpclassifier__",
            ),
        ),
    }
    for variant, ((ours, our_grid, prefix), (peer, peer_grid, peer_prefix)) in variants.items():
        names = {"name": prefix + "max_epochs", "patience": prefix + "n_iter_no_change"}
        functions = {
            name: partial(search, ours, our_grid, X, y, way, **names) for name, way in WAYS.items()
        }
        names = {"name": peer_prefix + "max_iter", "patience": peer_prefix + "n_iter_no_change"}
        functions["MLPClassifier, two processes"] = partial(
            search, peer, peer_grid, X, y, PROCESSES, **names
        )
        numbers = [2, 2, 2, 1] if quick else [60, 60, 60, 20]
        epochs = dict(zip(functions, numbers, strict=True))
        seconds = measure_searches(functions, epochs, 1 if quick else 3)
        yield from make_rows(f"g. search, {variant}, s/epoch", seconds, epochs)


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


def make_grid(widths, n_seeds):
    """Make the grid of many networks."""
    settings = {"hidden_layer_sizes": [*range(1, widths + 1)]}
    return [
        {"activation": ACTIVATIONS, **settings, "random_state": [*range(n_seeds)]},
        {"activation": ["silu"], **settings, "random_state": [*range(2 * n_seeds)]},
    ]


def fit_networks(candidates, X, y, n_jobs, epochs):
    """Fit our classifier for some candidates, `n_jobs` at a time, in threads."""
    settings = contenders.RECIPE | {"batch_size": 32, "max_epochs": epochs}
    fits = (
        joblib.delayed(MLPDiskClassifier(**settings | parameters).fit)(X, y)
        for parameters in candidates
    )
    # Networks go when they are trained.
    for _ in joblib.Parallel(n_jobs, backend="threading", return_as="generator_unordered")(fits):
        pass


def train_by_hand(candidates, X, y, epochs):
    """Train some candidates in a hand-written loop, one after another."""
    for parameters in candidates:
        hidden = (parameters["hidden_layer_sizes"],)
        activation = MODULES[parameters["activation"]]
        contenders.fit_presliced(X, y, hidden, 32, epochs, activation=activation)


def run_many_networks(quick):
    """Case h: 10,000 networks of one hidden layer of 1 to 100 units, in one process.

    One after another, and two at a time in threads; a random sample of them, 1,000 for skdisk
    and 100 for the hand-written loop, is trained and scaled up to 10,000. Once with few and once
    with more epochs: the difference tells the seconds an epoch, that with more epochs the seconds
    of the whole. Beside it is what the authors of ParallelMLPs recorded on their machines.
    """
    widths, n_seeds, repeats = (4, 1, 1) if quick else (100, 10, 3)
    sizes = {500: (1, 11)} if quick else {100: (1, 301), 1_000: (1, 31), 10_000: (1, 4)}
    candidates = [*ParameterGrid(make_grid(widths, n_seeds))]
    n_networks = len(candidates)
    order = np.random.default_rng(0).permutation(n_networks)
    sample = [candidates[i] for i in order[: n_networks // 10]]
    small = sample[: max(1, n_networks // 100)]
    fit_networks(small[:1], *make_data(100, 10), 1, 1)
    for n_rows, (short, long) in sizes.items():
        X, y = make_data(n_rows, 10)
        trainers = {
            "skdisk": (partial(fit_networks, sample, X, y, 1), len(sample)),
            "skdisk, two threads": (partial(fit_networks, sample, X, y, 2), len(sample)),
            "pre-sliced loop": (partial(train_by_hand, small, X, y), len(small)),
        }
        timed = {
            (name, n): partial(function, epochs=n)
            for name, (function, _) in trainers.items()
            for n in (short, long)
        }
        seconds = {
            (name, n): n_networks / trainers[name][1] * np.array(values)
            for (name, n), values in measure(timed, repeats).items()
        }
        case = f"h. {n_networks:,} networks, {n_rows:,} rows"
        per_epoch = {
            name: (seconds[name, long] - seconds[name, short]) / (long - short)
            for name in trainers
        }
        if not quick:
            per_epoch |= {name: [values[n_rows]] for name, values in PUBLISHED.items()}
        yield from make_rows(f"{case}, s/epoch", per_epoch)
        whole = {name: seconds[name, long] for name in trainers}
        yield from make_rows(f"{case}, all of {long} epochs, s", whole)
