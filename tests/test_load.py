"""Much of everything: rows, fits, candidates, epochs. And too little memory.

`pytest tests/test_load.py --long` takes some twenty minutes and 1 GB of disk; the suite
tries the same with little of each.
"""

import gc
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid, PredefinedSplit
from skorch.history import History

from skdisk import MLPDiskClassifier, MLPDiskEnsemble
from skdisk._inputs.choices import Plateau
from skdisk._network.surroundings import explain_want_of_memory, leave_as_found
from skdisk._training.net import record_losses
from skdisk._training.state import State

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")

MB = 2**20


def read_memory():
    """Read how many bytes of memory the process has that are no file's."""
    with open("/proc/self/status", encoding="ascii") as file:
        [line] = (line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@contextmanager
def watch_memory(peak):
    """Note by how many bytes the memory grows at most, as an item of the list `peak`."""
    gc.collect()
    before, highest, is_over = read_memory(), [0], threading.Event()

    def watch():
        while not is_over.wait(0.002):
            highest.append(max(read_memory(), highest.pop()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
        peak.append(max(read_memory(), *highest) - before)


@pytest.fixture
def large_map(tmp_path, campaign):
    """Make a memory map of float32 that can only be read, with 50 features, and its labels."""
    n_rows, rng = campaign.choose(300_000, 5_000_000), np.random.default_rng(campaign.seed)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (n_rows, 50))
    for part in np.split(X, 10):
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    X.flush()
    yield np.load(tmp_path / "X.npy", mmap_mode="r"), (X[:, 0] > 0).astype(np.int64)
    (tmp_path / "X.npy").unlink()


def test_a_memory_map_is_trained_on_and_predicted_without_a_copy(
    make_clf, large_map, campaign, fused
):
    X, y = large_map
    params = {"dropout": 0.1, "optimizer": "adam", "lr": 0.001, "fused": fused}
    params |= {"batch_size": 2000, "max_epochs": 1}
    clf = make_clf(**params).fit(X[:9000], y[:9000])
    clf.predict(X[:9000])
    peaks = []
    with watch_memory(peaks):
        clf.fit(X, y)
    with watch_memory(peaks):
        predicted = clf.predict(X)
    with watch_memory(peaks):
        clf.partial_fit(X, y)
    in_memory = clone(clf).fit(np.array(X), y).predict(X[::999])
    np.testing.assert_array_equal(predicted[::999], in_memory)
    # Orders, labels and their like are some int64 a row. Each thread that predicts converts some
    # MB at a time.
    assert max(peaks) < 8 * MB * (1 + torch.get_num_threads()) + X.nbytes / 3
    names = ("fit_mb", "predict_mb", "partial_fit_mb")
    campaign.record(
        rows=len(X),
        file_mb=X.nbytes // MB,
        **dict(zip(names, (peak // MB for peak in peaks), strict=True)),
    )


SMALL = {
    "defaults": {"lr": "auto"},
    "dropout, adam": {"dropout": 0.2, "optimizer": "adam", "clip_grad_norm": 1.0},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 9},
    "skorch's loop": {"fused": False},
    "float64": {"batch_size": 200},
}


def test_many_fits_and_predictions_leave_memory_flat(make_clf, disk, tmp_path, campaign):
    X, y = disk
    rows = [X, sparse.csr_array(X)]
    clf = make_clf()

    def work(n_rounds):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "max_epochs=")
            for i in range(n_rounds):
                for params in SMALL.values():
                    new = make_clf(random_state=i, **params).fit(rows[i % 2], y)
                    new.predict_proba(rows[i % 2])
                    clf.set_params(**params).fit(X, y)
                    clf.predict(X)
        clf.save(tmp_path / "clf.safetensors")
        MLPDiskClassifier.load(tmp_path / "clf.safetensors").partial_fit(X, y)
        gc.collect()
        return read_memory(), len(gc.get_objects())

    n_rounds = campaign.choose(1, 1000)
    # The first ones fill what Python and the libraries keep for later.
    for _ in range(3):
        before, n_objects = work(n_rounds // 10 + 1)
    after, n_objects_after = work(n_rounds)
    n_fits = 2 * n_rounds * len(SMALL)
    assert n_objects_after - n_objects < 100
    # What is not given back of each fit would be more than a byte for each of its parameters.
    assert after - before < 2 * MB + 100 * n_fits
    campaign.record(fits=n_fits, grown_kb=(after - before) // 1024)


def test_a_search_of_many_candidates_in_threads_is_that_of_fits_alone(clf, data, campaign):
    X, y = data
    n_rates = campaign.choose(3, 1250)
    grid = {
        "lr": np.geomspace(1e-3, 0.3, n_rates).tolist(),
        "batch_size": [16, 45],
        "nesterov": [False, True],
        "hidden_layer_sizes": [(4,), (3, 3)],
    }
    split = PredefinedSplit(np.arange(90) % 3 - 1)
    # Scores of 60 rows are the same for many networks; mean log-likelihoods are not.
    search = GridSearchCV(clf, grid, cv=split, scoring="neg_log_loss", refit=False)
    with joblib.parallel_config("threading", n_jobs=2):
        clone(search).set_params(param_grid={"lr": [0.1] * 20}).fit(X, y)
        n_threads, before = threading.active_count(), read_memory()
        search.fit(X, y)
    grown = read_memory() - before
    candidates, results = ParameterGrid(grid), search.cv_results_
    assert results["params"] == [*candidates]
    assert len(candidates) == 8 * n_rates
    # joblib does not wait until the threads of a pool have ended.
    deadline = time.monotonic() + 30
    while threading.active_count() > n_threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= n_threads
    rng = np.random.default_rng(campaign.seed)
    for i in rng.choice(len(candidates), campaign.choose(3, 100), replace=False):
        for k, (train, test) in enumerate(split.split()):
            alone = clone(clf).set_params(**candidates[i]).fit(X[train], y[train])
            score = search.scorer_(alone, X[test], y[test])
            assert results[f"split{k}_test_score"][i] == score
    # The results are lists of dicts and arrays of numbers.
    assert grown < 20 * MB + 3000 * len(candidates)
    campaign.record(candidates=len(candidates), grown_mb=grown // MB)


class CountedHistory(History):
    """Count the rows that are looked at from the end."""

    n_seen = 0

    def __reversed__(self):
        for row in super().__reversed__():
            self.n_seen += 1
            yield row


def test_an_epoch_looks_no_further_back_than_the_last_one():
    history, known, losses = CountedHistory(), {}, [1.0, *np.linspace(2, 3, 999)]
    for loss in losses:
        history.new_epoch()
        record_losses(history, "valid_loss", [loss], known)
    assert history[:, "valid_loss_best"] == [True] + [False] * 999
    assert history.n_seen < 3 * len(losses)


def test_the_last_row_is_found_without_the_others():
    history = CountedHistory({"epoch": number, "train_loss": 0.5} for number in range(1, 10))
    state = State(None, None)
    state._history = history
    assert state.last_row["epoch"] == 9
    Plateau(lr=0.1, tol=0.0).end_epoch(state)
    assert history.n_seen == 2


def test_the_lowest_loss_is_that_of_the_rows_that_are_there():
    history, known = History(), {}

    def record(*losses):
        for _ in losses:
            history.new_epoch()
        record_losses(history, "loss", [*losses], known)
        return [row["loss_best"] for row in history[-len(losses) :]]

    assert record(3.0, 4.0, 2.0) == [True, False, True]
    assert record(2.5) == [False]
    # As where a training goes back, and on from there.
    del history[2:]
    assert record(2.7, 2.6, 2.8) == [True, True, False]
    history.clear()
    assert record(9.0) == [True]
    assert record(float("nan"), 8.0) == [False, True]
    # As where others have trained in the meantime.
    history.new_epoch()
    history[-1].update(loss=1.0, loss_best=True)
    assert record(7.0, 0.5) == [False, True]


@pytest.mark.filterwarnings("ignore:max_epochs=")
def test_many_epochs_are_few_epochs_many_times(make_clf, disk, tmp_path, campaign, fused):
    X, y = disk[0][:30], disk[1][:30]
    n_epochs = campaign.choose(200, 100_000 if fused else 20_000)
    params = {"lr": 1e-3, "batch_size": 20, "fused": fused, "random_state": campaign.seed}
    start = time.process_time()
    whole = make_clf(max_epochs=n_epochs, **params).fit(X, y)
    seconds = time.process_time() - start
    # The labels to validate on are wrong: the best epoch is among the first.
    start = time.process_time()
    watched = make_clf(max_epochs=n_epochs, **params).fit(X, y, X_val=X, y_val=1 - y)
    seconds_watched = time.process_time() - start
    parts = make_clf(max_epochs=n_epochs // 10, warm_start=True, **params)
    for _ in range(10):
        parts.fit(X, y)
    assert whole.n_iter_ == watched.n_iter_ == parts.n_iter_ == n_epochs
    assert whole.history_["epoch"].tolist() == [*range(1, n_epochs + 1)]
    assert whole.loss_curve_ == watched.loss_curve_ == parts.loss_curve_
    path = tmp_path / "clf.safetensors"
    watched.save(path)
    for again in (MLPDiskClassifier.load(path), pickle.loads(pickle.dumps(watched))):
        assert again.history_.equals(watched.history_)
        np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))
    campaign.record(
        epochs=n_epochs,
        seconds=round(seconds, 1),
        seconds_with_validation=round(seconds_watched, 1),
        file_mb=path.stat().st_size // MB,
    )


WIDE = {"hidden_layer_sizes": (1500, 1500), "optimizer": "adam", "batch_size": 1000}
# What is done with little memory, to a `Trial`.
OPERATIONS = {
    "fit": lambda t: t.clf.fit(t.X, t.y),
    "fit of float64": lambda t: t.clf.fit(t.X.astype(np.float64), t.y),
    "fit of sparse rows": lambda t: t.clf.fit(sparse.csr_array(t.X), t.y),
    "fit with weights": lambda t: t.clf.fit(t.X, t.y, t.weights),
    "fit with several labels": lambda t: t.clf.fit(t.X, np.c_[t.y, 1 - t.y]),
    "fit with dropout": lambda t: t.clf.set_params(dropout=0.2).fit(t.X, t.y),
    "fit with early stopping": lambda t: t.clf.set_params(early_stopping=True).fit(t.X, t.y),
    "fit of a wide network": lambda t: t.clf.set_params(**WIDE).fit(t.X[:3000], t.y[:3000]),
    "fit by skorch": lambda t: t.clf.set_params(fused=False).fit(t.X, t.y),
    "fit of a wide network by skorch": lambda t: t.clf.set_params(fused=False, **WIDE).fit(
        t.X[:3000], t.y[:3000]
    ),
    "fit with lbfgs": lambda t: t.clf.set_params(optimizer="lbfgs", max_epochs=1).fit(t.X, t.y),
    "partial_fit": lambda t: t.clf.partial_fit(t.X, t.y),
    "predict": lambda t: t.clf.predict(t.X),
    "predict_proba of float64": lambda t: t.clf.predict_proba(t.X.astype(np.float64)),
    "predict_log_proba of sparse rows": lambda t: t.clf.predict_log_proba(sparse.csr_array(t.X)),
    "decision_function": lambda t: t.clf.decision_function(t.X),
    "score": lambda t: t.clf.score(t.X, t.y, t.weights),
    "hidden_activations": lambda t: t.clf.hidden_activations(t.X),
    "save": lambda t: t.wide.save(t.path.with_name("other")),
    "load": lambda t: MLPDiskClassifier.load(t.path),
    "to_torch": lambda t: t.wide.to_torch(),
    "net_": lambda t: t.wide.net_,
    "ensemble": lambda t: MLPDiskEnsemble(t.clf, 2, random_state=0).fit(t.X, t.y).predict(t.X),
}

# In those that end the process a library had found no memory: safetensors, and pandas.
KNOWN = [
    ("save", 13_700_000),
    ("fit", 920_000),
    ("load", 4_000_000),
    ("net_", 2_300_000),
]


class Trial:
    """Fitted estimators and data, for operations on them with little memory."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((100_000, 20), dtype=np.float32)
        self.y = (self.X[:, 0] > 0).astype(np.int64)
        self.weights = rng.uniform(1, 2, len(self.y))
        self.few = self.X[:2000], self.y[:2000]
        self.clf = MLPDiskClassifier((16,), batch_size=20_000, max_epochs=2, random_state=0)
        self.params = self.clf.fit(*self.few).get_params()
        self.wide = clone(self.clf).set_params(**WIDE).fit(*self.few)
        self.path = Path(folder) / "clf.safetensors"
        self.wide.save(self.path)
        self.expected = self.predict()
        # To make its first optimiser, torch imports modules: without memory Python fails there.
        torch.optim.SGD([torch.zeros(1)], lr=1.0).step()

    def predict(self):
        return [clf.predict_proba(self.few[0]).tobytes() for clf in (self.clf, self.wide)]

    def read_fitted(self):
        attributes = vars(self.clf).items()
        return {name: id(value) for name, value in attributes if name.strip("_") != name}

    def run(self, operate, n_bytes):
        """Do it with so many bytes more than there are; return whether they were too few."""
        fitted, (limit, hard) = self.read_fitted(), resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", encoding="ascii") as file:
            n_used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (n_used + n_bytes, hard))
        error = None
        try:
            operate(self)
        except MemoryError as caught:
            error = caught
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        if error is not None:
            assert "nable to allocate" in str(error), repr(error)
            assert self.read_fitted() == fitted
            assert self.predict() == self.expected
        self.clf.set_params(**self.params).fit(*self.few)
        assert self.predict() == self.expected
        return error is not None


# Every trial is a child of the process that has imported all.
PROGRAM = f"""
import os, random, signal, sys, warnings
sys.path.insert(0, {os.path.dirname(__file__)!r})
warnings.simplefilter("ignore")
import torch
from test_load import KNOWN, OPERATIONS, Trial

seed, n_trials, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
trial, counts = Trial(folder), [0, 0]
for number in range(n_trials):
    rng = random.Random(f"{{seed}} {{number}}")
    name, n_bytes = rng.choice([*OPERATIONS]), int(2 ** rng.uniform(17, 27))
    if number < len(KNOWN):
        name, n_bytes = KNOWN[number]
    child = os.fork()
    if not child:
        signal.alarm(120)
        ending = 2
        try:
            ending = int(trial.run(OPERATIONS[name], n_bytes))
        except BaseException as error:
            print(f"{{name}} with {{n_bytes}} bytes: {{error!r}}", file=sys.stderr, flush=True)
        os._exit(ending)
    ending = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ending not in (0, 1):
        sys.exit(f"{{name}} with {{n_bytes}} bytes ended with {{ending}}")
    counts[ending] += 1
print(*counts)
"""


def raise_error(error):
    raise error


@pytest.mark.parametrize("decorate", [explain_want_of_memory, leave_as_found])
@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: torch.empty(2**60), "Unable to allocate 4611686018427387904 bytes, which torch"),
        (lambda: np.empty(2**58), r"Unable to allocate 2\.00 EiB for an array with shape"),
        (lambda: bytearray(2**62), "Unable to allocate what predict asked for"),
        (lambda: raise_error(MemoryError("std::bad_alloc")), "Unable to allocate what predict"),
        (
            lambda: raise_error(
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
            ),
            'Unable to allocate 2.00 GiB on the accelerator. .* smaller batch_size .*"cpu"',
        ),
        (
            lambda: raise_error(torch.OutOfMemoryError("HIP is out of it")),
            "Unable to allocate memory on the accelerator",
        ),
    ],
    ids=["torch", "numpy", "python", "c++", "accelerator", "another accelerator"],
)
def test_want_of_memory_is_one_error_whichever_library_finds_none(decorate, ask, words):
    @decorate
    def _predict():
        return ask()

    with pytest.raises(MemoryError, match=words):
        _predict()


@pytest.mark.parametrize("decorate", [explain_want_of_memory, leave_as_found])
@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), MemoryError("own words")])
def test_other_errors_stay_what_they_are(decorate, error):
    with pytest.raises(type(error)) as caught:
        decorate(lambda: raise_error(error))()
    assert caught.value is error


def test_want_of_memory_is_said_in_words_and_leaves_all_as_it_was(tmp_path, campaign):
    n_trials = campaign.choose(len(KNOWN), 1500)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(campaign.seed), str(n_trials), str(tmp_path)],
        # What is freed is not kept for later, and no thread has memory of its own.
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    n_done, n_refused = map(int, result.stdout.split())
    assert n_done + n_refused == n_trials
    assert n_refused > 0
    campaign.record(trials=n_trials, refused=n_refused)
