"""Signals at random moments of all that takes time: an exception at once, and nothing left behind.

Ctrl-C (SIGINT) raises KeyboardInterrupt. SIGTERM has a handler that raises SystemExit, as servers
have it, or does what it does by default, which ends the process. An alarm of the system sends
them. Each line of code in turn is interrupted in `test_interrupts.py`.
"""

import gc
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, LRScheduler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk
from skdisk._network import prediction
from skdisk._training import loop

if not hasattr(signal, "setitimer"):
    pytest.skip("needs the timers of Unix", allow_module_level=True)

pytestmark = [
    pytest.mark.usefixtures("end_process"),
    # What is raised while Python closes a generator is told, and goes no further.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Trainings of few epochs do not converge.
    pytest.mark.filterwarnings("ignore:max_epochs="),
    # Newer versions of Python warn of every fork where there are threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

X, Y = make_disk(40, random_state=0)
# A second is what is promised. The rest is for a machine that does something else meanwhile.
MOST_SECONDS = 1 + 9
SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


def interrupt(call, number, seconds, others=()):
    """Call; send a signal to this process after some seconds.

    Return the exception or None, and how many seconds after the signal it came. It may be one of
    some others that the signal has led to.
    """
    is_armed = [True]

    def send(*args):
        if is_armed:
            is_armed.clear()
            signal.raise_signal(number)

    before, start = signal.signal(signal.SIGALRM, send), time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        call()
        is_armed.clear()
    except (SIGNALS[number], *others) as error:
        seconds_late, cause = time.perf_counter() - start - seconds, error
        while not isinstance(cause, SIGNALS[number]):
            cause = cause.__context__
            if cause is None:
                raise
        return error, seconds_late
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return None, 0.0


class Rounds:
    """The rounds of a campaign: signals at random moments of a call, and their figures."""

    def __init__(self, campaign, short, long):
        self.campaign = campaign
        self.n_rounds = campaign.choose(short, long)
        self.rng = random.Random(campaign.seed)
        self.figures = {"rounds": 0, "interrupted": 0}
        self.longest = 0.0

    def __iter__(self):
        # Where the machine is slower than it was just before, signals may all come too late.
        while self.figures["rounds"] < self.n_rounds or not self.figures["interrupted"]:
            self.figures["rounds"] += 1
            yield self.rng

    def interrupt(self, call, seconds, others=()):
        """Interrupt a call that takes so many seconds at any moment of it."""
        number = self.rng.choice([*SIGNALS])
        error, late = interrupt(call, number, self.rng.uniform(1e-5, seconds), others)
        assert late < MOST_SECONDS
        self.figures["interrupted"] += error is not None
        self.longest = max(self.longest, late)
        return error

    def record(self, **others):
        longest = round(1000 * self.longest, 1)
        self.campaign.record(**self.figures, longest_delay_ms=longest, **others)


def measure(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def read_surroundings():
    numpy_state = np.random.get_state()  # noqa: NPY002 - the generator that must not change
    return (
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()),
        (torch.get_rng_state().numpy().tobytes(), numpy_state[1].tobytes(), numpy_state[2:]),
        (np.geterr(), [signal.getsignal(number) for number in SIGNALS]),
        (X.tobytes(), Y.tobytes()),
    )


def read_filters():
    return id(warnings.filters), [*warnings.filters]


class Watch(Callback):
    """A callback that looks at every epoch, and keeps what it has seen."""

    def on_train_begin(self, net, **kwargs):
        self.seen_ = []

    def on_epoch_end(self, net, **kwargs):
        self.seen_.append(len(net.history))


def make_clf(**params):
    small = {"lr": 0.1, "nesterov": False, "max_epochs": 8, "lr_schedule": "constant"}
    return MLPDiskClassifier(**{"hidden_layer_sizes": (4,), "random_state": 0} | small | params)


def make_watched():
    return {"callbacks": [Watch(), LRScheduler("StepLR", step_size=3)]}


def make_lbfgs():
    return {"optimizer": "lbfgs", "lr": "auto", "optimizer_params": {"max_iter": 3}}


def fit(clf, n_epochs):
    return clf.set_params(max_epochs=n_epochs).fit(X, Y)


def fit_partly(clf, n_epochs):
    for _ in range(n_epochs):
        clf.partial_fit(X, Y)
    return clf


# Parameters, how many epochs there are before, and how others are trained.
WAYS = {
    "the kernel": (dict, 0, fit),
    "Adam by the kernel": (lambda: {"optimizer": "adam", "dropout": 0.2}, 0, fit),
    "the kernel epoch by epoch": (lambda: {"callbacks": [Watch()]}, 0, fit),
    "the loop of skorch": (lambda: {"fused": False}, 0, fit),
    "early stopping": (lambda: {"early_stopping": True, "n_iter_no_change": 3}, 0, fit),
    "callbacks": (make_watched, 0, fit),
    "batches that are watched": (lambda: make_watched() | {"fused": False}, 0, fit),
    "L-BFGS": (make_lbfgs, 0, fit),
    "warm start": (dict, 2, fit),
    "partial_fit": (dict, 2, fit_partly),
}


def read_training(clf):
    """Read all that a training leaves, but for how long it took."""
    weights = [p.numpy(force=True).tobytes() for p in clf.module_.parameters()]
    return weights, clf.history_.drop(columns="seconds").to_csv()


@pytest.mark.parametrize(("make_params", "n_before", "train"), WAYS.values(), ids=WAYS)
def test_an_interrupted_fit_has_whole_epochs_and_can_be_repeated(
    make_params, n_before, train, campaign, monkeypatch
):
    # So that the kernel comes back to Python as often as in a long training.
    monkeypatch.setattr(loop, "SECONDS_OF_A_PIECE", 1e-5)
    described = pickle.dumps(fit(make_clf(), 2).set_params(warm_start=True))

    def prepare():
        return pickle.loads(described) if n_before else make_clf(**make_params())

    n_epochs = 1 if train is fit_partly else 8
    expected = {2: read_training(prepare())} if n_before else {}
    for n in range(1, n_epochs + 1):
        whole = train(prepare(), n)
        expected[whole.n_iter_] = read_training(whole)
    repeated = read_training(fit(make_clf(**make_params()), n_epochs))
    seconds = np.median([measure(lambda: train(prepare(), n_epochs)) for _ in range(3)])
    rounds, n_kept = Rounds(campaign, 3, 1000), 0
    for _ in rounds:
        clf = prepare().set_params(max_epochs=n_epochs)
        attributes, surroundings = vars(clf).copy(), (read_surroundings(), read_filters())
        lent = [vars(callback).copy() for callback in clf.callbacks or ()]
        n_threads = threading.active_count()
        error = rounds.interrupt(lambda: train(clf, n_epochs), 1.1 * seconds)  # noqa: B023
        assert (read_surroundings(), read_filters()) == surroundings
        assert threading.active_count() <= n_threads
        if getattr(clf, "n_iter_", 0) == n_before:
            assert error
            assert vars(clf) == attributes
            assert [vars(callback) for callback in clf.callbacks or ()] == lent
        else:
            # Only what comes before and after the training may be told, where Python lets no
            # exception out.
            assert error or clf.n_iter_ == whole.n_iter_
            n_kept += error is not None
        if hasattr(clf, "n_iter_"):
            assert read_training(clf) == expected[clf.n_iter_]
        assert read_training(fit(clf.set_params(warm_start=False), n_epochs)) == repeated
    rounds.record(kept_epochs=n_kept)


def make_ensemble():
    return MLPDiskEnsemble(make_clf(max_epochs=4), n_members=3, n_jobs=2, random_state=0)


def make_search():
    return GridSearchCV(make_clf(max_epochs=4), {"lr": [0.03, 0.1]}, cv=2, n_jobs=2)


def read_members(ensemble):
    return [read_training(member) for member in ensemble.estimators_]


def read_search(search):
    scores = search.cv_results_["mean_test_score"].tolist()
    return scores, read_training(search.best_estimator_)


# What is fitted on which backend of joblib, and what is read of it.
JOBS = {
    "an ensemble in threads": (make_ensemble, "threading", read_members),
    "a search in threads": (make_search, "threading", read_search),
    # Not in those of the backend "multiprocessing": where Python is interrupted in what it does
    # around a fork, locks of its own stay held, and its pool waits for them for ever.
    "a search in processes": (make_search, "loky", read_search),
}


def wait_for(is_over):
    """Wait until something is over; return how many seconds that took."""
    start = time.perf_counter()
    while not is_over():
        assert time.perf_counter() - start < 60
        time.sleep(1e-3)
    return time.perf_counter() - start


def is_idle():
    """Tell whether no other thread is at work here.

    Where joblib is interrupted while it starts threads, some of them may wait for ever.
    """
    frames = sys._current_frames()
    del frames[threading.get_ident()]
    for frame in frames.values():
        while frame is not None:
            if "skdisk" in frame.f_code.co_filename:
                return False
            frame = frame.f_back
    return True


def has_ended_processes():
    """Have joblib end its processes; tell whether it could, which it cannot as they begin."""
    try:
        get_reusable_executor().shutdown(kill_workers=True)
    except RuntimeError:
        return False
    return True


@pytest.fixture
def _filters_as_they_were():
    # Threads in scikit-learn's checks may leave filters of its kinds of warnings behind.
    before = warnings.filters[:]
    yield
    warnings.filters[:] = before


MARKS_OF_PROCESSES = [
    pytest.mark.long,
    # joblib's own threads do not find again what an interrupt has let it forget.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.mark.usefixtures("_filters_as_they_were")
@pytest.mark.parametrize(
    ("make", "backend", "read"),
    [
        pytest.param(*job, id=name, marks=MARKS_OF_PROCESSES if "processes" in name else [])
        for name, job in JOBS.items()
    ],
)
def test_an_interrupted_search_or_ensemble_is_as_before_and_can_be_repeated(
    make, backend, read, campaign
):
    # Of more rounds in processes some meet faults of joblib and of Python, in what they do as
    # processes begin and end.
    rounds = Rounds(campaign, 3, 30 if backend == "loky" else 1000)
    others = {*multiprocessing.active_children()}

    def fit_on_backend(estimator):
        # Each time anew: a backend that was interrupted while it ended may be of no more use.
        with joblib.parallel_config(backend):
            return estimator.fit(X, Y)

    expected = read(fit_on_backend(make()))
    seconds = np.median([measure(lambda: fit_on_backend(make())) for _ in range(3)])
    longest = 0.0
    for rng in rounds:
        estimator = make()
        attributes, surroundings = vars(estimator).copy(), read_surroundings()
        numpy_errors = np.geterr()
        # Interrupted as they begin, threads and processes of Python and of joblib raise errors of
        # their own, of many kinds: it is they that have no variable, method or handle yet.
        call = partial(fit_on_backend, estimator)
        error = rounds.interrupt(call, 1.1 * seconds, others=(Exception,))
        if error and make is make_ensemble and vars(estimator) != attributes:
            # The signal came when all was done.
            assert read(estimator) == expected
        # Threads end the fit that they are at.
        longest = max(longest, wait_for(is_idle))
        if backend == "loky":
            wait_for(has_ended_processes)
        if make is make_search:
            # scikit-learn's table of results has masked arrays, for which NumPy changes for a
            # while what it does about overflows: an interrupt just then leaves that changed.
            np.seterr(**numpy_errors)
        assert read_surroundings() == surroundings
        if rng.random() < 0.2 or rounds.figures["rounds"] == 1:
            assert read(fit_on_backend(estimator)) == expected
    for child in {*multiprocessing.active_children()} - others:
        # The processes of joblib have no method for that.
        os.kill(child.pid, signal.SIGKILL)
    rounds.record(longest_wait_for_threads_ms=round(1000 * longest, 1))


@pytest.fixture
def saved(tmp_path):
    """Make two estimators, and a file of the first one, which is alone in its folder."""
    path = tmp_path / "model.safetensors"
    both = [fit(make_clf(random_state=seed), 2) for seed in (0, 1)]
    both[0].save(path)
    return both, [*map(read_training, both)], path


def test_an_interrupted_save_leaves_the_old_file_or_the_new_one_alone(saved, campaign):
    (old, clf), contents, path = saved
    seconds = np.median([measure(lambda: clf.save(path)) for _ in range(5)])
    rounds, n_new = Rounds(campaign, 10, 1000), 0
    for _ in rounds:
        old.save(path)
        surroundings = (read_surroundings(), read_filters())
        error = rounds.interrupt(lambda: clf.save(path), 1.1 * seconds)
        assert (read_surroundings(), read_filters()) == surroundings
        assert [*path.parent.iterdir()] == [path]
        found = contents.index(read_training(MLPDiskClassifier.load(path)))
        assert error or found == 1
        n_new += found
    rounds.record(new_files=n_new)


def test_a_killed_process_leaves_a_whole_file_and_at_most_a_temporary_one(
    saved, campaign, monkeypatch
):
    both, contents, path = saved
    # Whatever else is written would be seen there.
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(tempfile, "tempdir", str(path.parent))
    monkeypatch.setenv("TMPDIR", str(path.parent))
    seconds = measure(lambda: [fit(make_clf(), 2), both[0].save(path), both[1].save(path)])
    rng, n_left, n_rounds = random.Random(campaign.seed), 0, campaign.choose(4, 1000)
    for _ in range(n_rounds):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.write(writer, b"x")
                while True:
                    fit(make_clf(), 2)
                    for clf in both:
                        clf.save(path)
            finally:
                os._exit(1)
        assert os.read(reader, 1) == b"x"
        time.sleep(rng.uniform(0, 2 * seconds))
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGTERM
        os.close(reader)
        os.close(writer)
        assert read_training(MLPDiskClassifier.load(path)) in contents
        others = [other for other in path.parent.iterdir() if other != path]
        assert [other.name[:8] for other in others] in ([], [".skdisk-"])
        n_left += len(others)
        for other in others:
            other.unlink()
    campaign.record(rounds=n_rounds, temporary_files=n_left)


@pytest.mark.needs_kernel
def test_an_interrupt_between_parts_of_a_prediction_waits_for_no_others(monkeypatch):
    class Interrupted(ThreadPoolExecutor):
        """Is interrupted when most parts have been handed in."""

        n_submitted = 0

        def submit(self, *args, **kwargs):
            self.n_submitted += 1
            if self.n_submitted == 30:
                raise KeyboardInterrupt
            return super().submit(*args, **kwargs)

    parts = []

    def predict(*args, **kwargs):
        parts.append(args)
        time.sleep(0.02)

    monkeypatch.setattr(prediction, "ThreadPoolExecutor", Interrupted)
    monkeypatch.setattr(prediction._kernel, "predict", predict)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    clf = fit(make_clf(), 1)
    with pytest.raises(KeyboardInterrupt):
        clf.predict_proba(np.zeros((40 * 8192, 2), dtype=np.float32))
    assert len(parts) < 29


class Press(Callback):
    """A callback that sends a signal to the process at some hook of its second epoch."""

    def __init__(self, number, hook):
        self.number = number
        setattr(self, hook, self.press)

    def press(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
def test_a_handler_that_raises_keyboard_interrupt_does_not_stop_a_fit_as_callbacks_do(
    number, hook
):
    def interrupt_differently(number, frame):
        raise KeyboardInterrupt("by a handler")

    # Put back by the fixture.
    signal.signal(number, interrupt_differently)
    clf = make_clf(callbacks=[Press(number, hook)])
    with pytest.raises(KeyboardInterrupt, match="by a handler"):
        clf.fit(X, Y)
    assert clf.n_iter_ == 1
    assert signal.getsignal(number) is interrupt_differently


def test_a_handler_that_raises_nothing_does_not_end_a_fit_and_may_be_replaced(end_process):
    numbers = []
    signal.signal(signal.SIGTERM, lambda number, frame: numbers.append(number))
    clf = make_clf(callbacks=[Press(signal.SIGTERM, "on_epoch_end")]).fit(X, Y)
    assert clf.n_iter_ == 8
    assert numbers == [signal.SIGTERM]

    class Replace(Callback):
        def on_epoch_end(self, net, **kwargs):
            signal.signal(signal.SIGTERM, end_process)

    make_clf(callbacks=[Replace()]).fit(X, Y)
    assert signal.getsignal(signal.SIGTERM) is end_process


class Fit(Callback):
    """A callback that fits another estimator in each epoch."""

    def __init__(self, clf):
        self.clf = clf

    def on_epoch_end(self, net, **kwargs):
        self.clf.fit(X, Y)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_fit_in_a_callback_of_a_fit_is_interrupted_with_it(end_process, number):
    inner = make_clf(max_epochs=3, fused=False)
    outer = make_clf(max_epochs=3, callbacks=[Fit(inner)]).fit(X, Y)
    assert read_training(inner) == read_training(fit(make_clf(fused=False), 3))
    assert read_training(outer) == read_training(fit(make_clf(callbacks=[Watch()]), 3))
    # A callback of the inner one sends the signal.
    inner = make_clf(max_epochs=3, callbacks=[Press(number, "on_epoch_end")])
    outer = make_clf(max_epochs=3, callbacks=[Fit(inner)])
    with pytest.raises(SIGNALS[number]):
        outer.fit(X, Y)
    assert inner.n_iter_ == 1
    assert not hasattr(outer, "n_iter_")
    assert signal.getsignal(signal.SIGTERM) is end_process


def test_an_interrupted_fit_holds_on_to_no_data():
    # The first one of a process leaves cycles, which the garbage collector frees.
    with pytest.raises(SystemExit):
        make_clf(callbacks=[Press(signal.SIGTERM, "on_epoch_end")]).fit(X, Y)
    rows = X.copy()
    reference = weakref.ref(rows)
    gc.collect()
    gc.disable()
    try:
        clf = make_clf(callbacks=[Press(signal.SIGTERM, "on_epoch_end")])
        with pytest.raises(SystemExit):
            clf.fit(rows, Y)
        del rows
        sys.last_traceback = None
        assert reference() is None
    finally:
        gc.enable()
