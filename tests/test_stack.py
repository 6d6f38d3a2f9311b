"""Trainings that share a stack, beside the same trainings alone."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from skdisk import make_disk
from skdisk._net import DiskNet
from skdisk._stack import run_alone, run_with_others, train_together

# Each step multiplies the weights by about -99: they overflow after some epochs.
EXPLODES = {"lr": 100.0, "weight_decay": 1.0, "max_epochs": 6}


class Watch(Callback):
    """A callback that sees epochs end."""

    def on_train_begin(self, net, **kwargs):
        self.n_epochs_ = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs_ += 1


@pytest.fixture
def count_epochs(monkeypatch):
    """Count the epochs in which skorch's loop wakes a net up."""
    run_single_epoch, woken = DiskNet.run_single_epoch, []

    def spy(self, iterator, training, **kwargs):
        woken.append(self)
        return run_single_epoch(self, iterator, training, **kwargs)

    monkeypatch.setattr(DiskNet, "run_single_epoch", spy)
    return lambda net: woken.count(net)


def train(clfs, X, y, **kwargs):
    trainings = [clf._prepare(X, y, None, **kwargs) for clf in clfs]
    nets = [training.trained.net_ for training in trainings]
    for net in nets:
        net.run_fused_epochs = run_with_others
    assert train_together([training.run for training in trainings]) == [None] * len(clfs)
    for net in nets:
        net.run_fused_epochs = run_alone
    return [training.trained for training in trainings]


def drop(history):
    return [{k: v for k, v in row.items() if k not in ("batches", "dur")} for row in history]


def assert_same_training(ours, theirs, get_weights):
    for p, expected in zip(get_weights(ours), get_weights(theirs), strict=True):
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4 * scale)
    assert len(ours.net_.history) == len(theirs.net_.history)
    for row, expected in zip(drop(ours.net_.history), drop(theirs.net_.history), strict=True):
        assert list(row) == list(expected)
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert ours.net_.diverged_ == theirs.net_.diverged_
    assert torch.equal(ours.net_.generator_.get_state(), theirs.net_.generator_.get_state())


def fit_alone(clfs, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return [clone(clf).fit(X, y) for clf in clfs]


CASES = {
    "lengths": [{"max_epochs": n} for n in (1, 2, 5)],
    "schedules": [{"lr_schedule": s, "max_epochs": 5} for s in ("constant", "cosine")],
    "dropout": [{"dropout": p, "max_epochs": 4} for p in (0.0, 0.5)],
    "adam": [{"optimizer": "adam", "lr": lr, "max_epochs": n} for lr, n in ((0.01, 3), (0.1, 5))],
    "class weights": [{"class_weight": w} for w in (None, {0: 3.0, 1: 1.0})],
    "some watched": [{}, {"callbacks": [Watch()], "max_epochs": 2}, {"max_epochs": 5}],
    "widths": [{"activation": "logistic", "hidden_layer_sizes": (n,)} for n in (3, 8)],
    "one batch": [{"batch_size": 200, "max_epochs": 3}] * 2,
    "one diverges": [{"momentum": 0.9, "max_epochs": 8}, EXPLODES, {"max_epochs": 3}],
    "one diverges, one watched": [{"callbacks": [Watch()], "max_epochs": 8}, EXPLODES],
}


@pytest.mark.parametrize("params", CASES.values(), ids=CASES)
def test_each_training_goes_as_it_would_alone(make_clf, get_weights, disk, params):
    clfs = [make_clf(**own) for own in params]
    alone = fit_alone(clfs, *disk)
    for ours, theirs in zip(train(clfs, *disk), alone, strict=True):
        assert_same_training(ours, theirs, get_weights)


def test_a_training_that_nobody_watches_is_not_woken_up(make_clf, disk, count_epochs):
    clfs = [make_clf(max_epochs=n) for n in (3, 5)]
    clfs.append(make_clf(max_epochs=4, callbacks=[Watch()]))
    first, second, watched = train(clfs, *disk)
    assert count_epochs(first.net_) == count_epochs(second.net_) == 0
    # A training epoch, and one of validation on nothing.
    assert count_epochs(watched.net_) == 4 * 2
    assert watched.callbacks[0].n_epochs_ == 4
    assert [len(clf.net_.history) for clf in (first, second, watched)] == [3, 5, 4]


def test_a_divergence_wakes_nobody_else_up(make_clf, disk, count_epochs):
    exploding, other = train([make_clf(**EXPLODES), make_clf(max_epochs=8)], *disk)
    n_whole = exploding.n_iter_
    assert 0 < n_whole < EXPLODES["max_epochs"]
    assert exploding.net_.diverged_.startswith(f"in epoch {n_whole + 1}: ")
    assert count_epochs(exploding.net_) == 1
    assert count_epochs(other.net_) == 0


def test_training_goes_on_after_a_stack_as_after_a_fit_alone(make_clf, get_weights, disk):
    clfs = [make_clf(momentum=0.9, warm_start=True, random_state=k) for k in range(2)]
    alone = fit_alone(clfs, *disk)
    for ours, theirs in zip(train(clfs, *disk), alone, strict=True):
        for clf in (ours, theirs):
            clf.fit(*disk)
        assert ours.n_iter_ == 6
        assert_same_training(ours, theirs, get_weights)


def test_seconds_of_an_epoch_are_those_of_the_stack(make_clf):
    X, y = make_disk(300, random_state=0)
    first, second = train([make_clf(lr=lr) for lr in (0.1, 0.2)], X, y)
    seconds = [[row["dur"] for row in clf.net_.history] for clf in (first, second)]
    assert seconds[0] == seconds[1]
    assert np.min(seconds) > 0
