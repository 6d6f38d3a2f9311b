"""Parameters of the public classes and functions: small valid ones, and wild ones.

Nothing here asks for more than a moment: numbers that would be taken, and computed with for hours,
are left out.
"""

import contextlib
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble

ANYTHING = [
    *(np.nan, np.inf, -np.inf, -1, 0, 1, 2, 3, 0.5, 1.5, -0.5, -0.0, 1e-300, 1e-46, 1e39, 1e308),
    *(10**400, -(10**400), True, False, None, "", "auto", "x", "1", b"x", [], (), {}, {1: 2}),
    *(set(), object(), int, Ellipsis, range(2), [1, "a"], (1, 2), [0.5], [[1]], [None], "a\0b"),
    *(Decimal("0.5"), Decimal("NaN"), Fraction(1, 2), 0.5j, np.float16(0.5), np.float32("nan")),
    *(np.int8(1), np.uint64(2), np.longdouble("0.5"), np.bool_(True), np.str_("auto")),
    *(np.array(1), np.array(0.5), np.array([1, 2]), np.array([]), np.array(["a"]), np.array(None)),
    *(np.timedelta64(1, "D"), np.datetime64("2020"), pd.NA, pd.NaT, pd.Timestamp("2020")),
    *(torch.tensor(1.0), torch.tensor([1, 2]), pd.Series([1, 2]), pd.Series(dtype=float)),
    *(
        print,
        slice(1),
        float,
        {"a"},
        frozenset(),
        bytearray(b"a"),
        complex("nan"),
        2**63,
        -(2**63),
    ),
]
SCHEDULES = ["cosine", "constant", "one_cycle", "plateau"]
# Sizes between these ask for memory and time that a machine may have.
LARGE, ENDLESS = 100, 1e38


class Bad(Callback):
    """A callback that raises at the end of an epoch."""

    def on_epoch_end(self, net, **kwargs):
        raise ValueError("y: this callback has y for breakfast, and expected something else.")


def _make_sizes(rng):
    items = [1, 2, 5, 0, -1, 1.0, "3", True, None, np.int8(3), np.float32(2), 10**400, 10**15]
    return [rng.choice(items) for _ in range(rng.randrange(4))]


def _make_rates(rng):
    items = [0.0, 0.5, 0.99, 1.0, -0.1, np.nan, "0", None, True, 1e-300, np.float16(0.1), 1e39]
    return [rng.choice(items) for _ in range(rng.randrange(4))]


def _make_optimizer_params(rng):
    names = ["betas", "eps", "amsgrad", "dampening", "maximize", "foreach", "fused", "lr", "alpha"]
    names += [
        "capturable",
        "differentiable",
        "max_iter",
        "tolerance_grad",
        "params",
        "rho",
        "x",
        1,
    ]
    values = [*ANYTHING, (0.8, 0.9), (0.9, 1.0), [0.5, 0.5], (1, 2, 3), 1e-8, 2, 4]
    return {rng.choice(names): rng.choice(values) for _ in range(rng.randrange(3))}


def _make_class_weight(rng):
    labels = [0, 1, 2, "a", "b", "c", True, 0.0, 1.0, np.int64(1), None, np.nan, (1, 2), b"a"]
    weights = [1, 2.0, 0, 0.0, 1e-300, 1e300, np.nan, -1, "1", None, Fraction(1, 2), np.float16(2)]
    return {rng.choice(labels): rng.choice(weights) for _ in range(rng.randrange(4))}


def _make_random_state(rng):
    states = [np.random.RandomState(1), np.random.default_rng(1), 2**32 - 1, 2**32, -1, np.random]
    return rng.choice([*states, torch.Generator(), np.int64(3), 1.0])


def _make_callbacks(rng):
    items = [
        *(
            EarlyStopping(monitor="train_loss", patience=1),
            EarlyStopping,
            ("one", EarlyStopping()),
        ),
        *(Callback(), LRScheduler("StepLR", step_size=1), LRScheduler("CyclicLR"), Bad(), "x", 3),
        *(EpochScoring("accuracy", on_train=True), EpochScoring("nonsense"), EpochScoring(max)),
        *((1, Callback()), ("a", Callback(), 3), None, Callback, int, ("net", Callback())),
        *(EarlyStopping(monitor="nonsense"), LRScheduler("StepLR"), LRScheduler("nonsense")),
    ]
    return rng.choice([list, tuple])(rng.choice(items) for _ in range(rng.randrange(3)))


def _make_device(rng):
    names = [
        "cpu",
        "cpu:0",
        "cpu:1",
        "cuda",
        "cuda:99",
        "meta",
        "mps",
        "xpu",
        "gpu",
        "auto",
        "CPU",
    ]
    name = rng.choice(names)
    with contextlib.suppress(RuntimeError):
        return rng.choice([name, torch.device(name)])
    return name


OPTIMIZERS = [
    *("sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "rprop", "adagrad", "adadelta", "asgd"),
    *("adamax", "lbfgs", "adafactor", "sparseadam", "muon", "Adam", "SGD", "optimizer"),
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS, torch.optim.SparseAdam, torch.optim),
    *(torch.optim.Optimizer, torch.optim.SGD([torch.zeros(1)], lr=1), torch.nn.Linear),
]
# A value of its own for each parameter, beside ANYTHING.
OF_CLASSIFIER = {
    "hidden_layer_sizes": _make_sizes,
    "activation": lambda rng: rng.choice(["tanh", "logistic", "gelu", "RELU", "identity", "selu"]),
    "dropout": lambda rng: rng.choice([_make_rates(rng), 0.5, 0.99, 1.0, 1]),
    "lr": lambda rng: rng.choice([1e-30, 1e-5, 1.0, 100.0, 1e30, 3e38, "AUTO"]),
    "momentum": lambda rng: rng.choice([0.0, 0.5, 0.999999, 1.0, 1 - 1e-17, 1e-40]),
    "nesterov": lambda rng: rng.choice([True, False, 1, 0, np.bool_(False), "True"]),
    "weight_decay": lambda rng: rng.choice([0, 1e-40, 1.0, 100.0, 1e30, 3e38]),
    "optimizer": lambda rng: rng.choice(OPTIMIZERS),
    "optimizer_params": _make_optimizer_params,
    "lr_schedule": lambda rng: rng.choice([*SCHEDULES, LRScheduler, LRScheduler("StepLR")]),
    "clip_grad_norm": lambda rng: rng.choice([1e-30, 1e-300, 1.0, 1e30, 3e38]),
    "max_epochs": lambda rng: rng.choice([1, 2, 7, "auto", np.int16(2), "AUTO"]),
    "batch_size": lambda rng: rng.choice([1, 2, 3, 7, 10**6, 10**15, 2**31, 10**38, np.uint8(4)]),
    "shuffle": lambda rng: rng.choice([True, False, np.bool_(True), 1]),
    "class_weight": lambda rng: rng.choice([_make_class_weight(rng), "balanced", "Balanced"]),
    "early_stopping": lambda rng: rng.choice([True, True, 1, "True"]),
    "validation_fraction": lambda rng: rng.choice([1e-300, 0.5, 0.999, 1.0, 1 - 1e-17, 2]),
    "n_iter_no_change": lambda rng: rng.choice([1, 2, 10**9, 10**30, 10**38, 1.0]),
    "tol": lambda rng: rng.choice([0, 1e-300, 1.0, 1e30, 3e38]),
    "callbacks": _make_callbacks,
    "fused": lambda rng: rng.choice([True, False, "auto", 1, "True", np.bool_(False)]),
    "warm_start": lambda rng: rng.choice([True, False, np.bool_(True), 1]),
    "random_state": _make_random_state,
    "device": _make_device,
    "verbose": lambda rng: rng.choice([1, 2, True, 10**9, -1, 1.0]),
}


def _make_estimator(rng):
    small = MLPDiskClassifier((2,), max_epochs=1, random_state=0)
    items = [
        *(small, make_pipeline(StandardScaler(), small), LogisticRegression(), MLPDiskClassifier),
        *(make_pipeline(StandardScaler(), LogisticRegression()), MLPDiskEnsemble(small), [small]),
        *([small, MLPDiskClassifier(lr=-1)], [], [small, None], MLPDiskClassifier((0,)), "x"),
        *(
            make_pipeline(small, LogisticRegression()),
            make_pipeline("passthrough", small),
            (small,),
        ),
        *(make_pipeline(small), make_pipeline(None), [[small]]),
    ]
    return rng.choice(items)


OF_ENSEMBLE = {
    "estimator": _make_estimator,
    "n_members": lambda rng: rng.choice([1, 2, 3, 10**15, np.int8(2), 2.0]),
    "n_jobs": lambda rng: rng.choice([1, 2, -1, None, 0, -(10**9), np.int8(1), 1.0]),
    "random_state": _make_random_state,
}
PAIRS = [(2, 3), [2, 3], (0, 0), (0, 5), (5, 0), (-1, 2), (1.0, 2), (1, 2, 3), (3,), (True, 2)]
PAIRS += [("1", 2), (None, 1), (10**400, 1), np.array([1, 2]), (1, np.nan), (10**15, 1)]
OF_DISK = {
    "n_samples": lambda rng: rng.choice([0, 1, 7, 10**15, 10**30, np.int64(5), *PAIRS]),
    "radius": lambda rng: rng.choice([None, 1, 1e-3, 0.5, 1.0, 1 + 1e-15, 0.0, np.float16(0.5)]),
    "noise": lambda rng: rng.choice([None, 0, 0.1, 1e30, 3e38, 1e-300, np.float32(0.1)]),
    "flip_y": lambda rng: rng.choice([0, 1, 0.5, 1.0, 1e-300, 1 - 1e-17, np.float16(0.1)]),
    "shuffle": lambda rng: rng.choice([True, False, 1, "no"]),
    "random_state": _make_random_state,
    "as_frame": lambda rng: rng.choice([True, False, np.bool_(True), 1, "yes"]),
}
# Those that are numbers of something that is made, and how much of it takes too long.
SIZES = ("hidden_layer_sizes", "max_epochs", "n_members", "n_samples")


def _is_endless(name, value):
    """Tell whether a size would be taken, and be worked on for long."""
    if isinstance(value, (list, tuple, np.ndarray)) and name != "max_epochs":
        return any(_is_endless(name, item) for item in np.ravel(np.array(value, object)))
    # More than any machine has is refused; of epochs only what float32 cannot hold.
    most = ENDLESS if name == "max_epochs" else 1e14
    return isinstance(value, (int, float, np.integer)) and LARGE < value < most


def draw_parameter(rng, name, own):
    """Draw a wild value of a parameter, from its own or from anything."""
    value = own[name](rng) if rng.random() < 0.6 else rng.choice(ANYTHING)
    if name in SIZES and _is_endless(name, value):
        return -1
    # A thousand threads take long.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "n_jobs" and is_number and abs(value) > 4:
        return 2
    return value


def draw_params(rng):
    """Draw parameters of a small classifier, all of them valid."""
    params = {"hidden_layer_sizes": (3,), "max_epochs": rng.choice([1, 2]), "random_state": 0}
    choices = {
        "hidden_layer_sizes": [(), (2,), (3, 2), 4, [3], np.array([2])],
        "activation": [
            "relu",
            "tanh",
            "logistic",
            "identity",
            "leaky_relu",
            "elu",
            "selu",
            "silu",
        ],
        "dropout": [0.1, 0.5],
        "lr": [0.01, 0.1, np.float32(0.1)],
        "momentum": [0, 0.5],
        "weight_decay": [0, 0.01],
        "optimizer": ["sgd", "adam", "adamw", "rmsprop", "lbfgs", torch.optim.NAdam],
        "lr_schedule": SCHEDULES,
        "batch_size": [1, 4, 100],
        "shuffle": [False],
        "early_stopping": [True],
        "callbacks": [[], [EarlyStopping(monitor="train_loss")], [("own", Callback())]],
        "fused": [False],
        "warm_start": [True],
        "random_state": [None, 1, np.random.RandomState(1)],
    }
    for name, values in choices.items():
        if rng.random() < 0.12:
            params[name] = rng.choice(values)
    return params
