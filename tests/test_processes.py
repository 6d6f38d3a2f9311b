"""Forked processes and several threads: the right values, and nothing left behind."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from sklearn.model_selection import cross_val_score
from skorch.callbacks import Callback

from skdisk._training import loop

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
    # From here on the threads of torch's own steps are there, and all is imported that they need.
    "a child of one that has trained by skorch's loop": "fit(fused=False)\nfork(check)",
    "a child of a child": "fork(lambda: fork(check))",
    "a thread of a child": "fork(run_in_thread)",
    "a child of a thread": "thread = threading.Thread(target=lambda: fork(check))\n"
    "thread.start()\nthread.join()",
    "a child of a child that has trained": "fork(lambda: (check(), fork(check)))",
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork safely")
def test_a_forked_child_predicts_and_fits_as_its_parent():
    forks = [f"{fork}\nprint({name!r}, flush=True)" for name, fork in FORKS.items()]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([PROGRAM, *forks])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        timeout=200,
    )
    # The first that is missing is the one that failed.
    assert result.stdout.splitlines() == [*FORKS], result.stderr


@pytest.mark.needs_kernel
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork safely")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("place", ["_as_kernel_data", "hash_rows"])
def test_a_forked_child_waits_for_no_lock_of_a_fit_in_another_thread(
    make_clf, disk, monkeypatch, place
):
    parent, function = os.getpid(), getattr(loop, place)
    is_there, may_go_on = threading.Event(), threading.Event()

    def wait_in_parent(argument):
        if os.getpid() == parent:
            is_there.set()
            may_go_on.wait(60)
        return function(argument)

    monkeypatch.setattr(loop, place, wait_in_parent)
    clf = make_clf(dropout=0.2)
    thread = threading.Thread(target=clf.fit, args=disk)
    thread.start()
    try:
        assert is_there.wait(60)
        child = multiprocessing.get_context("fork").Process(target=clf.fit, args=disk)
        child.start()
        child.join(20)
        child.kill()
        assert child.exitcode == 0
    finally:
        may_go_on.set()
        thread.join()


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


def test_threads_that_fit_at_once_never_silence_the_warnings_of_the_process(make_clf, disk):
    X, y = disk
    before, seen = [*warnings.filters], []

    def look_at_filters(*args, **kwargs):
        seen.append([*warnings.filters])

    class LookAtFilters(Callback):
        """Look at them when others are in the middle of a fit."""

        on_train_begin = on_epoch_end = on_train_end = look_at_filters

    def fit():
        for fused in ("auto", False):
            clf = make_clf(fused=fused).fit(X, y)
            clf.set_params(callbacks=[LookAtFilters()]).partial_fit(X, y).predict_proba(X)

    run_in_threads(fit)
    seen.append([*warnings.filters])
    # Threads in scikit-learn's checks of arrays add filters of its kinds of warnings, and may
    # leave them behind.
    warnings.filters[:] = before
    assert len(seen) == 4 * 2 * 3 + 1
    for filters in seen:
        added = len(filters) - len(before)
        assert filters[added:] == before
        assert not any(action == "ignore" for action, *_ in filters[:added])


class FailLater(Callback):
    """Fail as the training begins, when somebody lets it."""

    def __init__(self, began, may_fail):
        self.began, self.may_fail = began, may_fail

    def on_train_begin(self, net, **kwargs):
        self.began.set()
        self.may_fail.wait(60)
        raise RuntimeError("it failed")


def test_a_fit_that_fails_in_a_thread_puts_no_filters_of_warnings_back(make_clf, disk):
    began, may_fail = threading.Event(), threading.Event()
    clf = make_clf(callbacks=[FailLater(began, may_fail)])
    errors = []

    def fit():
        try:
            clf.fit(*disk)
        except RuntimeError as error:
            errors.append(str(error))

    before = warnings.filters
    thread = threading.Thread(target=fit)
    with warnings.catch_warnings():
        thread.start()
        assert began.wait(60)
    may_fail.set()
    thread.join()
    assert errors == ["it failed"]
    assert warnings.filters is before


def test_threads_that_cross_validate_never_silence_the_warnings_of_the_process(make_clf, disk):
    before = [*warnings.filters]
    for fused in ("auto", False):
        run_in_threads(lambda fused=fused: cross_val_score(make_clf(fused=fused), *disk, cv=3))
    after = [*warnings.filters]
    # scikit-learn writes the filters anew in each thread, and may leave them in other words.
    warnings.filters[:] = before
    silenced = [
        {category for action, _, category, *_ in filters if action == "ignore"}
        for filters in (before, after)
    ]
    assert silenced[1] <= silenced[0]
