"""What changes a network when nothing that should matter is changed: a table, measured.

`python benchmarks/reproducibility.py` draws settings and data, trains each, and trains each again
in another way: in another process, in threads, on rows in another container. It compares weights,
losses and probabilities bit by bit, and writes docs/results/reproducibility.md. `ROWS` is the
table; tests/test_reproducibility.py holds what it promises.
"""

import argparse
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import polars as pl
import torch
from scipy import sparse
from sklearn.model_selection import GridSearchCV

from skdisk import MLPDiskClassifier, MLPDiskEnsemble
from skdisk._kernel import choose_instruction_set, explain_absence, get_instruction_sets

PAGE = Path(__file__).parents[1] / "docs" / "results" / "reproducibility.md"
WAYS = {"kernel": "auto", "loop": False}
# Large steps are those for which torch uses several threads.
LARGE = {"hidden_layer_sizes": (256, 256), "batch_size": 1024, "max_epochs": 1}


class Job(NamedTuple):
    """A fit: parameters and data; `weights` of rows may be None."""

    params: dict
    X: Any
    y: np.ndarray
    weights: np.ndarray | None


def draw_job(rng, fused, is_large=False):
    """Draw a fit: about half of the numbers are 0, so that rows may be sparse."""
    n_rows, n_classes = (3000 if is_large else int(rng.integers(20, 200))), rng.integers(2, 5)
    X = rng.standard_normal((n_rows, rng.integers(1, 30))).astype(np.float32)
    X[rng.uniform(size=X.shape) < 0.5] = 0
    optimizer = str(rng.choice(["sgd", "sgd", "adam", "adamw"]))
    early_stopping = bool(rng.integers(2))
    params = {
        "hidden_layer_sizes": [(), (9,), (64, 64), (16, 5, 8)][rng.integers(4)],
        "activation": str(rng.choice(["relu", "tanh", "logistic", "selu", "gelu", "silu"])),
        "dropout": [0.0, 0.3][rng.integers(2)],
        "optimizer": optimizer,
        "lr": 0.01 if optimizer == "sgd" else 0.001,
        "lr_schedule": str(rng.choice(["constant", "cosine", "one_cycle"])),
        "clip_grad_norm": [None, 0.5][rng.integers(2)],
        "weight_decay": [0.0, 0.01][rng.integers(2)],
        "batch_size": [1, 7, 32, 256][rng.integers(4)],
        "class_weight": [None, "balanced"][rng.integers(2)],
        "shuffle": bool(rng.integers(4)),
        "early_stopping": early_stopping,
        "n_iter_no_change": 9,
        "max_epochs": 3,
        "random_state": int(rng.integers(2**31)),
        "fused": fused,
    }
    weights = rng.uniform(0.1, 1, n_rows) if rng.integers(2) else None
    y = rng.permutation(np.arange(n_rows) % n_classes)
    return Job(params | (LARGE if is_large else {}), X, y, weights)


def draw_jobs(seed, n_jobs, way):
    """Draw fits by a way to train, each tenth of large steps."""
    rng = np.random.default_rng(seed)
    return [draw_job(rng, WAYS[way], is_large=n % 10 == 0) for n in range(1, n_jobs + 1)]


def read(clf, X):
    """Read what a fit has made: weights, losses of the epochs, probabilities."""
    return [*clf.coefs_, *clf.intercepts_, np.array(clf.loss_curve_), clf.predict_proba(X)]


def fit(job):
    """Fit, and read what it has made."""
    clf = MLPDiskClassifier(**job.params).fit(job.X, job.y, job.weights)
    return read(clf, job.X)


def fit_all(jobs):
    """Fit one after the other."""
    return [fit(job) for job in jobs]


def fit_in_threads(jobs):
    """Fit eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        return [*pool.map(fit, jobs)]


def fit_by_joblib(backend):
    """Make a function that fits two at a time."""

    def fit_jobs(jobs):
        return joblib.Parallel(2, backend=backend)(joblib.delayed(fit)(job) for job in jobs)

    return fit_jobs


def fit_in_process(**environment):
    """Make a function that fits in a process of its own, in another environment."""

    def fit_jobs(jobs):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "jobs"
            path.write_bytes(pickle.dumps(jobs))
            command = [sys.executable, "-W", "ignore", __file__, "--fit", path]
            subprocess.run(command, env=os.environ | environment, check=True)
            return pickle.loads(path.read_bytes())

    return fit_jobs


def fit_by_search(jobs):
    """Let a search find the only candidate, on two threads."""
    found = []
    for job in jobs:
        params = {name: [value] for name, value in job.params.items()}
        search = GridSearchCV(MLPDiskClassifier(), params, cv=2, n_jobs=2)
        with joblib.parallel_config("threading"):
            search.fit(job.X, job.y, sample_weight=job.weights)
        found.append(read(search.best_estimator_, job.X))
    return found


def compare_ensembles(jobs):
    """Return the members of ensembles on two threads, and the same networks alone."""
    found, expected = [], []
    for job in jobs:
        clf = MLPDiskClassifier(**job.params)
        ensemble = MLPDiskEnsemble(clf, 2, n_jobs=2, random_state=0)
        for member in ensemble.fit(job.X, job.y, job.weights).estimators_:
            seed = {"random_state": member.random_state}
            found.append(read(member, job.X))
            expected.append(fit(job._replace(params=job.params | seed)))
    return found, expected


def fit_with_threads_of_torch(n_threads):
    """Make a function that fits with so many threads of torch."""

    def fit_jobs(jobs):
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            return fit_all(jobs)
        finally:
            torch.set_num_threads(before)

    return fit_jobs


def compare_kept(keep):
    """Make a function that keeps fitted estimators in between, and goes on beside them."""

    def compare(jobs):
        found, expected = [], []
        for job in jobs:
            clf = MLPDiskClassifier(**job.params).fit(job.X, job.y, job.weights)
            for each, results in ((keep(clf), found), (clf, expected)):
                each.partial_fit(job.X, job.y, sample_weight=job.weights)
                each.set_params(warm_start=True).fit(job.X, job.y, job.weights)
                results.append(read(each, job.X))
        return found, expected

    return compare


def save_and_load(clf):
    """Write a file and read it."""
    with tempfile.TemporaryDirectory() as folder:
        clf.save(Path(folder) / "clf.safetensors")
        return MLPDiskClassifier.load(Path(folder) / "clf.safetensors")


def shift(X, n_floats):
    """Copy an array to memory that begins so many numbers after a multiple of 64 bytes."""
    room = np.empty(X.size + 32, dtype=X.dtype)
    start = (-room.ctypes.data % 64) // 4 + n_floats
    shifted = room[start : start + X.size].reshape(X.shape)
    shifted[:] = X
    return shifted


def as_read_only(X):
    """Copy an array, and let nobody write to it, as to a memory map."""
    X = X.copy()
    X.flags.writeable = False
    return X


def name_columns(X):
    """Name the columns of an array."""
    return [f"x{number}" for number in range(X.shape[1])]


CONTAINERS = {
    "Fortran order": np.asfortranarray,
    "every second row": lambda X: X.repeat(2, axis=0)[::2],
    "float64": lambda X: X.astype(np.float64),
    "big-endian": lambda X: X.astype(">f4"),
    "read-only": as_read_only,
    "list": np.ndarray.tolist,
    "DataFrame": lambda X: pd.DataFrame(X, columns=name_columns(X)),
    "polars": lambda X: pl.DataFrame(X, schema=name_columns(X)),
    "CSR": sparse.csr_array,
    "CSC": sparse.csc_matrix,
    "COO": sparse.coo_array,
    "tensor": torch.tensor,
}


# Where rows begin, in numbers of float32 after a multiple of 64 bytes.
OFFSETS = (1, 2, 7, 12)
WITHOUT_AVX512 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}


def fit_on(*converts):
    """Make a function that fits on rows that are converted, each time by the next of these."""

    def fit_jobs(jobs):
        turns = zip(jobs, cycle(converts))
        return fit_all(job._replace(X=convert(job.X)) for job, convert in turns)

    return fit_jobs


def fit_with_instruction_set(name):
    """Make a function that fits with another set of instructions of the kernel."""

    def fit_jobs(jobs):
        before = os.environ.get("SKDISK_INSTRUCTION_SET")
        os.environ["SKDISK_INSTRUCTION_SET"] = name
        try:
            return fit_all(jobs)
        finally:
            del os.environ["SKDISK_INSTRUCTION_SET"]
            if before is not None:
                os.environ["SKDISK_INSTRUCTION_SET"] = before

    return fit_jobs


def fit_by_the_loop(jobs):
    """Fit by skorch's loop."""
    return fit_all([job._replace(params=job.params | {"fused": False}) for job in jobs])


class Row(NamedTuple):
    """A row of the table: what changes, and what is promised for each way to train.

    `change` takes fits and returns what each has made, or that and what was to be expected. True
    promises equal bits, False numbers that are equal up to rounding, None says that the row is not
    of that way. `tests` hold what is promised beside tests/test_reproducibility.py.
    """

    what: str
    change: Callable
    kernel: bool | None = True
    loop: bool | None = True
    why: str = ""
    tests: tuple = ()


SUMS = "sums have another order"
# Those that start no process.
QUICK_ROWS = [
    Row("the fit is run again", fit_all, tests=("test_fit",)),
    Row("8 fits at a time, in threads", fit_in_threads, tests=("test_kernel_threads",)),
    Row("`n_jobs=2`, threads", fit_by_joblib("threading"), tests=("test_searches",)),
    Row("a search beside `fit` alone", fit_by_search, tests=("test_searches",)),
    Row("an ensemble beside its members alone", compare_ensembles, tests=("test_searches",)),
    Row(
        "2 threads of torch beside 1",
        fit_with_threads_of_torch(2),
        loop=False,
        why=f"steps of 5e7 operations and more use several threads: {SUMS}",
    ),
    Row(
        "pickled, and trained further",
        compare_kept(lambda clf: pickle.loads(pickle.dumps(clf))),
        tests=("test_multilabel",),
    ),
    Row(
        "saved, loaded, and trained further",
        compare_kept(save_and_load),
        tests=("test_persistence",),
    ),
    Row(
        "containers: arrays of other dtypes and orders, list, frame, sparse matrix, tensor",
        fit_on(*CONTAINERS.values()),
        tests=("test_data", "test_sparse"),
    ),
    Row("where in memory the rows begin", fit_on(*(partial(shift, n_floats=n) for n in OFFSETS))),
    Row(
        "AVX2 beside AVX-512, in the kernel",
        fit_with_instruction_set("avx2"),
        loop=None,
        tests=("test_kernel",),
    ),
    Row(
        "no fused multiply-add in the kernel",
        fit_with_instruction_set("base"),
        kernel=False,
        loop=None,
        why="products are rounded before they are added",
    ),
    Row(
        "the kernel beside skorch's loop",
        fit_by_the_loop,
        kernel=False,
        loop=None,
        why=SUMS,
        tests=("test_fused", "test_kernel"),
    ),
]
ROWS = [
    *QUICK_ROWS,
    Row("`n_jobs=2`, processes", fit_by_joblib("loky"), tests=("test_searches",)),
    Row("another process, other hashes of strings", fit_in_process(PYTHONHASHSEED="7")),
    Row("NumPy without AVX-512", fit_in_process(**WITHOUT_AVX512)),
    Row(
        "torch with AVX2 (`ATEN_CPU_CAPABILITY=avx2`)",
        fit_in_process(ATEN_CPU_CAPABILITY="avx2"),
        loop=False,
        why="torch's own functions have other instructions",
    ),
    Row(
        "torch without both (`ATEN_CPU_CAPABILITY=default`)",
        fit_in_process(ATEN_CPU_CAPABILITY="default"),
        kernel=False,
        loop=False,
        why="torch draws initial weights with or without fused multiply-add",
    ),
]


def compare(row, jobs, base):
    """Train in another way; count the equal ones and all, and find the largest difference."""
    found = row.change(jobs)
    found, expected = found if isinstance(found, tuple) else (found, base)
    n_equal, largest = 0, 0.0
    for one, other in zip(found, expected, strict=True):
        n_equal += all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        differences = (np.abs(a - b).max() for a, b in zip(one, other, strict=True))
        largest = max(largest, *map(float, differences))
    return n_equal, len(found), largest


def measure(n_jobs, seed):
    """Yield each row with what was found for each way to train."""
    jobs = {way: draw_jobs(seed, n_jobs, way) for way in WAYS}
    base = {way: fit_all(jobs[way]) for way in WAYS}
    for row in ROWS:
        ways = [way for way in WAYS if getattr(row, way) is not None]
        yield row, {way: compare(row, jobs[way], base[way]) for way in ways}


def write_cell(row, found, way):
    """Write what was found, and refuse a promise that does not hold."""
    if way not in found:
        return "-"
    n_equal, n, largest = found[way]
    is_promised = getattr(row, way)
    if is_promised and n_equal < n:
        raise RuntimeError(f"{row.what}, {way}: {n_equal} of {n} are equal, up to {largest:.1e}.")
    if n_equal < n:
        return f"up to {largest:.0e}"
    return "equal bits" if is_promised else "equal bits here"


def write_page(n_jobs, seed, measured):
    """Write the table, with what was measured and where."""
    lines = [
        "# Equal seeds, measured",
        "",
        "<!-- table -->",
        f"{n_jobs} fits of each way to train, their settings and data drawn with the seed {seed}:",
        "weights, losses and probabilities beside those of the same fit. *Equal bits* is",
        "promised; a number is the largest difference, between numbers of up to some tens.",
        "",
        "| what changes | kernel | skorch's loop | why, where it is not promised |",
        "|---|---|---|---|",
    ]
    for row, found in measured:
        cells = [row.what, *(write_cell(row, found, way) for way in WAYS), row.why]
        lines.append(f"| {' | '.join(cells)} |")
    versions = {module.__name__: module.__version__ for module in (np, torch)}
    versions = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines += [
        "",
        f"{platform.system()} on {platform.machine()}, kernel with {choose_instruction_set()}, "
        f"Python {platform.python_version()}, {versions}. `python benchmarks/reproducibility.py` "
        "measures it anew.",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Measure, and write the page; or fit what another process asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fits", type=int, default=200, help="how many fits of each way")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn with")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page")
    options = parser.parse_args()
    if options.fit:
        options.fit.write_bytes(pickle.dumps(fit_all(pickle.loads(options.fit.read_bytes()))))
        return
    if explain_absence() is not None or "avx2" not in get_instruction_sets():
        raise SystemExit("The table needs a machine with AVX2, and the compiled kernel.")
    page = write_page(options.fits, options.seed, measure(options.fits, options.seed))
    options.output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
