"""Forked processes and several threads: the right values, and nothing left behind."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from skdisk import MLPDiskClassifier, cross_validate_fused

# The steps are large enough for torch to use its threads, which a fork does not copy.
PROGRAM = """
import multiprocessing, os, sys, threading
import numpy as np, torch
from skdisk import MLPDiskClassifier, make_disk

torch.set_num_threads(2)
X, y = make_disk(4096, random_state=0)

def fit(fused="auto"):
    params = dict(hidden_layer_sizes=(256, 256), batch_size=2048, fused=fused, random_state=0)
    return MLPDiskClassifier(lr=0.01, max_epochs=1, **params).fit(X, y)

def check():
    np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-5)
    for fused in ("auto", False):
        np.testing.assert_allclose(fit(fused).predict_proba(X), expected, rtol=1e-5)
    assert torch.get_num_threads() == 2

def run_in_thread():
    thread = threading.Thread(target=check)
    thread.start()
    thread.join()

def fork(target):
    child = multiprocessing.get_context("fork").Process(target=target)
    child.start()
    child.join(60)
    child.kill()
    if child.exitcode != 0:
        sys.exit(f"the child hung or failed: {child.exitcode}")

clf = fit()
expected = clf.predict_proba(X)
"""
FORKS = {
    "a child": "fork(check)",
    "a child of a child": "fork(lambda: fork(check))",
    "a thread of a child": "fork(run_in_thread)",
    "a child of a thread": "thread = threading.Thread(target=lambda: fork(check))\n"
    "thread.start()\nthread.join()",
    "a child of a child that has trained": "fork(lambda: (check(), fork(check)))",
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork safely")
@pytest.mark.parametrize("program", FORKS.values(), ids=FORKS)
def test_a_forked_child_predicts_and_fits_as_its_parent(program):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + program + "\nprint('done')"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert result.stdout == "done\n", result.stderr


def run_in_threads(target, n_threads=4):
    errors = []

    def run():
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_threads_that_fit_at_once_leave_the_number_of_threads_as_it_was(make_clf, disk):
    X, y = disk
    numbers = []

    def fit():
        for fused in ("auto", False):
            clf = make_clf(fused=fused).fit(X, y)
            clf.partial_fit(X, y).predict(X)
        numbers.append(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in range(5):
            run_in_threads(fit)
            # A thread that begins now takes over what was set last.
            run_in_threads(lambda: numbers.append(torch.get_num_threads()), n_threads=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(numbers) == {3}


def test_a_thread_keeps_its_own_number_of_threads(make_clf, disk):
    numbers = []

    def fit():
        torch.set_num_threads(5)
        make_clf().fit(*disk)
        numbers.append(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        run_in_threads(fit)
    finally:
        torch.set_num_threads(before)
    assert numbers == [5] * 4


class LookAtFilters(TransformerMixin, BaseEstimator):
    """A step that notes whether all warnings are silenced."""

    seen = []  # noqa: RUF012 - clones share it

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        ignored = [action for action, _, kind, *_ in warnings.filters if kind is Warning]
        self.seen.append("ignore" in ignored)
        return self

    def transform(self, X):
        return X


def test_cross_validation_never_silences_the_warnings_of_the_process(clf, data):
    LookAtFilters.seen.clear()
    before = [*warnings.filters]
    run_in_threads(lambda: cross_validate_fused(make_pipeline(LookAtFilters(), clf), *data, cv=2))
    assert LookAtFilters.seen
    assert not any(LookAtFilters.seen)
    # Threads of scikit-learn's own leave filters of its kinds of warnings behind.
    left = [entry for entry in warnings.filters if entry not in before]
    assert not any(action == "ignore" for action, *_ in left)
    warnings.filters[:] = before


def test_cross_validation_tells_of_scales_as_a_fit_does(clf, data):
    X = np.c_[data[0], 1e5 * data[0][:, 0]]
    with pytest.warns(UserWarning, match="very different scales"):
        cross_validate_fused(MLPDiskClassifier((6,), lr=1e-9, max_epochs=1), X, data[1], cv=2)
