"""Operations in any order, failing and interrupted ones among them, beside a replay.

A sequence of operations is drawn and done to one estimator. What succeeded is then done again, to
an estimator that has never been copied, saved, asked for anything, refused or interrupted: the two
are the same, and go on the same.
"""

import copy
import pickle
import random
import signal
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from skorch.callbacks import Callback
from test_interrupts import Interrupter

from skdisk import MLPDiskClassifier, make_disk

N_SEQUENCES, N_SEQUENCES_LONG = 20, 3_000
X, Y = make_disk(24, random_state=0)
LABELS = np.array(["in", "out"])[Y]
# Rows, all of them or some, and labels that are always the same two.
DATA = [(X, LABELS), (X[:10], LABELS[:10]), (X[::-1], LABELS[::-1])]
VALUES = {
    "hidden_layer_sizes": [(3,), (3,), (3, 2)],
    "activation": ["relu", "relu", "tanh"],
    "dropout": [0.0, 0.3],
    "lr": ["auto", 0.1, 1e30],
    "momentum": [0.0, 0.9],
    "optimizer": ["sgd", "sgd", "adam", "adamw", "rmsprop", "lbfgs"],
    "lr_schedule": ["constant", "cosine", "plateau"],
    "max_epochs": [1, 2, 4],
    "batch_size": [5, 32],
    "shuffle": [True, False],
    "class_weight": [None, {"in": 2.0}, "balanced"],
    "early_stopping": [False, False, True],
    "fused": ["auto", False],
    "warm_start": [True, False],
    "random_state": [0, 1],
}
# What is refused after a change of the layers.
OTHER_NETWORK = "go on with the network of the earlier fit"
# Calls that are refused, or fail on the way.
BAD = X.copy()
BAD[3, 1] = np.nan


class Broken(Exception):
    """What a callback raises."""


class Break(Callback):
    """A callback that fails at the end of the second epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) > 1:
            raise Broken


# No way to train ends before the second epoch: none diverges at once, or has converged.
TWO_EPOCHS = {"optimizer": "sgd", "lr": 0.1, "max_epochs": 4, "warm_start": False}
FAILURES = [
    (("fit", BAD, LABELS), {}),
    (("partial_fit", X, LABELS[:5]), {}),
    (("partial_fit", X, ["other", "labels"] * 12), {}),
    (("fit", X, LABELS), {"lr": -1}),
    (("fit", X, LABELS), {"class_weight": {"in": 0, "out": 0}}),
    (("fit", X, LABELS), {"callbacks": [Break()], **TWO_EPOCHS}),
    (("predict", BAD), {}),
]


def call_with(clf, params, method, *args):
    """Call a method with some parameters, which are then what they were."""
    earlier = {name: getattr(clf, name) for name in params}
    clf.set_params(**params)
    try:
        getattr(clf, method)(*args)
    finally:
        clf.set_params(**earlier)


def train(clf, method, data, params=()):
    """Fit, or fit partially with all classes."""
    classes = [["in", "out"]] if method == "partial_fit" else []
    call_with(clf, dict(params), method, *DATA[data], *classes)


class Sequence:
    """An estimator, what is done to it, and those of it that a replay does again."""

    def __init__(self, seed, number, path):
        self.rng = random.Random(f"{seed} {number}")
        self.path = path
        self.seed = self.rng.choice([0, None])
        self.clf = self.make()
        self.log, self.done = [], []
        self.n_interrupted = 0

    def make(self):
        """Make the estimator that all begins with."""
        state = np.random.RandomState(1) if self.seed is None else self.seed
        return MLPDiskClassifier((3,), lr_schedule="constant", max_epochs=2, random_state=state)

    def run(self):
        """Do operations that are drawn."""
        operations = [
            *([self.train] * 4 + [self.set_params] * 3 + [self.fail] * 2 + [self.interrupt] * 3),
            *(self.clone, self.copy, self.pickle, self.save_and_load, self.look),
        ]
        for _ in range(self.rng.randint(4, 14)):
            operation = self.rng.choice(operations)
            self.log.append(operation.__name__)
            operation()

    def replay(self):
        """Do again what succeeded."""
        clf = self.make()
        for operation in self.done:
            # A clone is another object.
            clf = operation(clf) or clf
        return clf

    def keep(self, operation, *args):
        """Note an operation that succeeded."""
        self.log[-1] += f" {args}"
        self.done.append(lambda clf: operation(clf, *args))

    def train(self):
        method = self.rng.choice(["fit", "partial_fit"])
        args = (method, self.rng.randrange(len(DATA)))
        try:
            train(self.clf, *args)
        except ValueError as error:
            if OTHER_NETWORK not in str(error):
                raise
            return
        self.keep(train, *args)

    def set_params(self):
        names = self.rng.sample([*VALUES], 2)
        # A generator of the user's own stays.
        names = [name for name in names if name != "random_state" or self.seed is not None]
        params = {name: self.rng.choice(VALUES[name]) for name in names}
        self.clf.set_params(**params)
        self.keep(lambda clf, params: clf.set_params(**params), params)

    def fail(self):
        call, params = self.rng.choice(FAILURES)
        self.log[-1] += f" {call[0]} {params}"
        with pytest.raises((ValueError, Broken)):
            call_with(self.clf, copy.copy(params), *call)

    def interrupt(self):
        """Press Ctrl-C at a moment that is drawn; of a fit whole epochs are kept."""
        method, data = self.rng.choice(["fit", "partial_fit"]), self.rng.randrange(len(DATA))
        params = {"lr_schedule": "constant", "early_stopping": False, "max_epochs": 4}
        before, n_before = vars(self.clf).get("_state"), getattr(self.clf, "n_iter_", 0)
        moment = self.rng.randrange(self.rng.choice([500, 3000]))
        call = partial(train, self.clf, method, data, params)
        earlier = self.clf.get_params(deep=False)
        try:
            self.n_interrupted += Interrupter(moment).run(call)
        except ValueError as error:
            if OTHER_NETWORK not in str(error):
                raise
            return
        finally:
            # The interrupt may have come before or after the method.
            self.clf.set_params(**earlier)
        if vars(self.clf).get("_state") is before:
            return
        resumed = method == "partial_fit" or self.clf.warm_start
        # A training that diverged at once has no epochs, and will diverge again.
        n_epochs = self.clf.n_iter_ - n_before * resumed or params["max_epochs"]
        self.keep(train, method, data, tuple((params | {"max_epochs": n_epochs}).items()))

    def clone(self):
        self.clf = clone(self.clf)
        self.keep(clone)

    def copy(self):
        self.clf = self.rng.choice([copy.copy, copy.deepcopy])(self.clf)

    def pickle(self):
        self.clf = pickle.loads(pickle.dumps(self.clf))

    def save_and_load(self):
        # A file holds no RandomState.
        if hasattr(self.clf, "_state") and self.seed is not None:
            self.clf.save(self.path)
            self.clf = MLPDiskClassifier.load(self.path)

    def look(self):
        if hasattr(self.clf, "_state"):
            self.clf.predict(X)
            assert len(self.clf.history_) == self.clf.n_iter_
            assert self.clf.net_ is self.clf.net_


def describe(clf):
    """Describe all of an estimator that a training changes, and its parameters."""
    params = clf.get_params(deep=False)
    generator = params.pop("random_state")
    if isinstance(generator, np.random.RandomState):
        generator = repr(generator.get_state(legacy=False))
    found = {"params": params, "generator": generator}
    if hasattr(clf, "_state"):
        found |= {"history": clf.history_.drop(columns="seconds").to_dict("list")}
        found |= {"weights": [p.tobytes() for p in (*clf.coefs_, *clf.intercepts_)]}
        found |= {"classes": clf.classes_.tolist(), "of batches": clf._state.generator.get_state()}
        found["of batches"] = found["of batches"].tolist()
    return {name: repr(value) for name, value in found.items()}


def go_on(clf):
    """Train for another epoch; tell whether that was possible."""
    try:
        train(clf, "partial_fit", 0)
    except ValueError as error:
        if OTHER_NETWORK not in str(error):
            raise
        return False
    return True


def assert_same(clf, other):
    one, two = describe(clf), describe(other)
    for name in one | two:
        assert one.get(name) == two.get(name), name


# What is raised while Python closes a generator is told, and goes no further; fits of a few
# epochs do not converge, and those with a large rate diverge.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_is_what_its_successful_operations_make_of_a_fresh_one(tmp_path, campaign):
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    n_operations = n_interrupted = 0
    try:
        for number in range(campaign.choose(N_SEQUENCES, N_SEQUENCES_LONG)):
            sequence = Sequence(campaign.seed, number, tmp_path / "clf.safetensors")
            try:
                sequence.run()
                replayed = sequence.replay()
                assert_same(sequence.clf, replayed)
                # Weights may be equal and what the optimiser remembers not.
                assert go_on(sequence.clf) == go_on(replayed)
                assert_same(sequence.clf, replayed)
            except (Exception, pytest.fail.Exception) as error:
                story = "\n  ".join(sequence.log)
                raise AssertionError(
                    f"sequence {number} of seed {campaign.seed}:\n  {story}"
                ) from error
            n_operations += len(sequence.log)
            n_interrupted += sequence.n_interrupted
    finally:
        signal.signal(signal.SIGINT, earlier)
    campaign.record(sequences=number + 1, operations=n_operations, interrupted=n_interrupted)
