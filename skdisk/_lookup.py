"""Fits that are prepared, trained together, and then looked up.

scikit-learn's searches and validations clone an estimator and fit it, split by split. Here all of
these fits are prepared first, as each would be alone; then the networks are trained, many in a
stack (`_stack.py`); and when scikit-learn fits, the trained network is looked up.
"""

import copy
import math
from itertools import pairwise
from numbers import Integral

import joblib
from joblib.parallel import get_active_backend
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from ._callbacks import make_bar, show
from ._classifier import MLPDiskClassifier
from ._obstacles import find_obstacle
from ._stack import find_stack, run_alone, run_with_others, train_together
from ._surroundings import leave_as_found

# Networks of a stack at most. Measured with the lesson's network on one core: 53 microseconds a
# step and network for 1, 21 for 4, 18 for 8, 15 for 32, 19 for 64, 20 for 128.
MAX_STACK = 32
# What a step costs however few weights a network has, in weights: with 4,482 of them 15
# microseconds, with some hundreds 6.
STEP_COST = 2000
# By what factor a network may be more expensive where it is made as wide as others: about what a
# stack of 32 saves beside one of 8.
MAX_PADDING = 1.2


def _hash(values):
    """Hash values, or return None where they are of a kind that cannot be hashed.

    Of joblib's two kinds of hash, the one that takes half the time for large arrays.
    """
    try:
        return joblib.hash(values, hash_name="sha1")
    except Exception:
        # Whatever pickle makes of objects that it cannot write.
        return None


class Memory:
    """The networks of a search: prepared, then trained, then looked up.

    Attributes
    ----------
    candidate : int or None
        Whose fits are being prepared; None while they are looked up.
    trainings, outcomes : dict
        By a hash of parameters and data: what is to be trained, and the trained estimator or the
        error that it ended with.
    stacks : dict
        By the same: the number of the stack.
    keys, reasons : dict
        By candidate: the hashes of its fits, and in words why they are not in a stack.
    shared : dict
        By hash: data, and what steps of pipelines have made, which many fits have in common.
    n_stacks : int
        How many stacks have been trained.
    """

    def __init__(self):
        self.candidate = None
        self.trainings, self.outcomes, self.stacks = {}, {}, {}
        self.keys, self.reasons = {}, {}
        self.n_stacks = 0
        self.shared = {}

    def __deepcopy__(self, memo):
        """Be one and the same for all clones of an estimator."""
        return self

    def fit(self, estimator, key, *args, **kwargs):
        """Prepare the fit of an estimator, or give it the outcome."""
        if self.candidate is None:
            outcome = self.outcomes[key]
            if isinstance(outcome, Exception):
                raise outcome
            own = vars(estimator).copy()
            try:
                estimator._adopt(copy.copy(outcome))
            finally:
                # What scikit-learn has set on it for the time of the fit.
                vars(estimator).update(own)
            return estimator
        if key not in self.trainings:
            try:
                estimator._check_params()
                training = estimator._prepare(*args, **kwargs)
            except Exception as error:
                # It comes again, where scikit-learn deals with it.
                self.reasons[self.candidate] = f"its fit fails: {error}"
                return estimator
            # A worker process gets its own networks, not those of the whole search.
            del training.trained._memory
            for data in (training.train, training.validation):
                if data is not None:
                    # What many fits have in common is there once.
                    data.X, data.y = (
                        self.shared.setdefault(_hash(values), values)
                        for values in (data.X, data.y)
                    )
            self.trainings[key] = training
        self.keys.setdefault(self.candidate, []).append(key)
        self.reasons[self.candidate] = find_obstacle(self.trainings[key].trained.net_)
        return estimator

    def cache(self, function, ignore=()):
        """Keep what a step of a pipeline makes, as `joblib.Memory` does, but in this process."""

        def call(*args, **kwargs):
            known = {name: value for name, value in kwargs.items() if name not in ignore}
            key = _hash((args, known))
            if key is None:
                return function(*args, **kwargs)
            if key not in self.shared:
                self.shared[key] = function(*args, **kwargs)
            return self.shared[key]

        return call

    def forget(self):
        """Forget the networks and data of some candidates, but not what is reported of them."""
        for values in (self.trainings, self.outcomes, self.shared):
            values.clear()


class StackedClassifier(MLPDiskClassifier):
    """A classifier whose `fit` is that of a memory."""

    def __sklearn_clone__(self):
        cloned = super().__sklearn_clone__()
        cloned._memory = self._memory
        return cloned

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Prepare the fit, take over its outcome, or fit."""
        memory, validation = self._memory, {"X_val": X_val, "y_val": y_val}
        key = _hash((self.get_params(deep=False), X, y, sample_weight, validation))
        can_wait = (
            key is not None
            and (memory.candidate is not None or key in memory.outcomes)
            # Callbacks of scikit-learn watch the very fit; one part without the other is an error.
            and not getattr(self, "_skl_callbacks", None)
            and (X_val is None) == (y_val is None)
        )
        if not can_wait:
            return super().fit(X, y, sample_weight, **validation)
        validation = None if X_val is None else (X_val, y_val)
        return memory.fit(self, key, X, y, sample_weight, validation=validation)


# In error messages and representations it has the name that its users know.
StackedClassifier.__name__ = MLPDiskClassifier.__name__


def get_last(estimator):
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def stack(estimator, memory):
    """Copy an estimator; the copy's classifier and pipeline use the memory."""
    stacked = clone(estimator)
    classifier = get_last(stacked)
    if type(classifier) is MLPDiskClassifier:
        classifier.__class__ = StackedClassifier
        classifier._memory = memory
        if isinstance(stacked, Pipeline) and stacked.memory is None:
            stacked.memory = memory
    return stacked


def unstack(estimator):
    """Make of an estimator what it would be without a memory."""
    classifier = get_last(estimator)
    if type(classifier) is StackedClassifier:
        classifier.__class__ = MLPDiskClassifier
        del classifier._memory
    if isinstance(estimator, Pipeline) and isinstance(estimator.memory, Memory):
        estimator.memory = None


def _find_datasets(trainings):
    pairs = [(training.train, training.validation) for training in trainings]
    return [data for pair in pairs for data in pair if data is not None]


def _return(values):
    return values


def _send_data(trainings):
    """Send the data of trainings to a Dask cluster, if joblib's active backend is one.

    Unlike scattered data, what is the result of a task is there again after a worker has died.

    Returns
    -------
    sent : dict
        What stands for an array in the tasks of the cluster, by the array's `id`.
    """
    client = getattr(get_active_backend()[0], "client", None)
    if client is None:
        return {}
    arrays = {
        id(values): values for data in _find_datasets(trainings) for values in (data.X, data.y)
    }
    return {key: client.submit(_return, values, pure=False) for key, values in arrays.items()}


def _split_off_data(trainings, sent):
    """Put numbers in the place of the data of trainings; return both.

    What the arguments of a task contain, joblib sends with each of them; the arguments themselves
    can be something that has been sent before.
    """
    places = {}
    for data in _find_datasets(trainings):
        data.X, data.y = (
            places.setdefault(id(values), (len(places), values))[0] for values in (data.X, data.y)
        )
    # What was given is for callbacks of scikit-learn, with which no training comes here.
    trainings = [training._replace(given=None) for training in trainings]
    return trainings, *(sent.get(key, values) for key, (_, values) in places.items())


@leave_as_found
def _train_stack(trainings, *arrays):
    """Train networks together; return the estimators, or the errors that they ended with."""
    for data in _find_datasets(trainings):
        data.X, data.y = arrays[data.X], arrays[data.y]
    nets = [training.trained.net_ for training in trainings]
    for net in nets:
        net.run_fused_epochs = run_with_others
    errors = train_together([training.run for training in trainings])
    for net in nets:
        net.run_fused_epochs = run_alone
        net.forget_batches()
    return [error or training.trained for error, training in zip(errors, trainings, strict=True)]


def _compute_cost(layer_sizes):
    """Estimate what a step of a network costs in a stack, in weights."""
    n_weights = sum(n_out * (n_in + 1) for n_in, n_out in pairwise(layer_sizes))
    return n_weights + STEP_COST


def _divide(trainings, max_stack, n_workers):
    """Divide trainings into stacks: a list of lists of keys."""
    groups = {}
    for key, training in trainings.items():
        net = training.trained.net_
        kind = find_stack(net) if find_obstacle(net) is None else len(groups)
        groups.setdefault(kind, []).append((key, net.module_.layer_sizes))
    return [
        stack for group in groups.values() for stack in _divide_group(group, max_stack, n_workers)
    ]


def _divide_group(group, max_stack, n_workers):
    """Divide networks that can share a stack, those of about the same width together.

    A stack is as wide as its widest network in each layer, which costs the others: so it ends
    where that would cost too much, and where it has a worker's share of all that is to be done.
    """
    group = sorted(group, key=lambda member: member[1], reverse=True)
    share = sum(_compute_cost(sizes) for _, sizes in group) / n_workers
    limit = math.ceil(len(group) / math.ceil(len(group) / max_stack))
    stacks, widest, total = [[]], group[0][1], 0
    for key, sizes in group:
        cost, joint = _compute_cost(sizes), [*map(max, widest, sizes)]
        grown = (len(stacks[-1]) + 1) * _compute_cost(joint)
        if len(stacks[-1]) == limit or total >= share or grown - total > MAX_PADDING * cost:
            stacks.append([])
            joint, grown = sizes, cost
        stacks[-1].append(key)
        widest, total = joint, grown
    return stacks


def check_max_stack(max_stack):
    """Check the parameter `max_stack`."""
    if max_stack != "auto" and not (isinstance(max_stack, Integral) and max_stack >= 1):
        raise ValueError(f"max_stack must be 'auto' or an int of at least 1. Got {max_stack!r}.")


def train_all(memory, *, n_jobs, max_stack, verbose):
    """Train all networks that a memory has prepared, on joblib's active backend.

    Parameters
    ----------
    memory : Memory
        Its `trainings` become its `outcomes`.
    n_jobs : int or None
        How many stacks to train at a time.
    max_stack : int or "auto"
        How many networks a stack has at most.
    verbose : int
        Whether to show progress.
    """
    memory.candidate = None
    max_stack = MAX_STACK if max_stack == "auto" else max_stack
    stacks = _divide(memory.trainings, max_stack, joblib.effective_n_jobs(n_jobs))
    sent = _send_data(memory.trainings.values())
    trained = joblib.Parallel(n_jobs, return_as="generator")(
        joblib.delayed(_train_stack)(
            *_split_off_data([memory.trainings[key] for key in keys], sent)
        )
        for keys in stacks
    )
    bar = make_bar(
        total=len(memory.trainings),
        unit="network",
        desc=f"{len(stacks)} stacks",
        disable=not verbose,
    )
    for number, (keys, outcomes) in enumerate(zip(stacks, trained, strict=True), start=1):
        memory.outcomes.update(zip(keys, outcomes, strict=True))
        memory.stacks.update(dict.fromkeys(keys, memory.n_stacks + number - 1))
        bar.set_description(f"{number} of {len(stacks)} stacks", refresh=False)
        show(bar.update, len(keys))
    show(bar.close)
    memory.n_stacks += len(stacks)
