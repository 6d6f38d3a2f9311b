"""Data larger than memory: train on a Parquet data set, of which one partition is in memory."""

import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from sklearn.datasets import make_hastie_10_2

from skdisk import MLPDiskClassifier

N_PARTITIONS, N_ROWS, N_PASSES = 24, 50_000, 2
FEATURES, LABEL, CLASSES = [f"x{i}" for i in range(10)], "outside", [-1, 1]


class PeakMemory:
    """How much more memory than at its start this process had in a `with` block, at most."""

    def __enter__(self):
        """Start to look at the memory a thousand times a second."""
        # What is kept from before would hide what is allocated next.
        pa.default_memory_pool().release_unused()
        self.before = self.peak = psutil.Process().memory_info().rss
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        process = psutil.Process()
        while not self.ended.wait(0.001):
            self.peak = max(self.peak, process.memory_info().rss)

    def __exit__(self, *error):
        """Stop looking."""
        self.ended.set()
        self.thread.join()
        self.megabytes = round((self.peak - self.before) / 1e6)


def make_frame(n_rows, seed):
    """Make points inside and outside a ball in ten dimensions, with the label as a column."""
    X, y = make_hastie_10_2(n_rows, random_state=seed)
    return pd.DataFrame(X, columns=FEATURES).assign(**{LABEL: y})


def write(folder):
    """Write the data set; all of it is never in memory here either."""
    for i in range(N_PARTITIONS):
        make_frame(N_ROWS, seed=i).to_parquet(Path(folder, f"part-{i:02}.parquet"))


def train(clf, parts):
    """Go once through the parts; each is freed before the next is read."""
    for part in parts:
        clf.partial_fit(part[FEATURES], part[LABEL], classes=CLASSES)
        del part


def read(data):
    """Read a Dask data frame, partition by partition."""
    return (partition.compute() for partition in data.partitions)


def make_classifier():
    """Make the classifier, the same each time."""
    return MLPDiskClassifier((64,), batch_size=1024, random_state=0)


def run(folder):
    """Train both ways, print the table and whether the networks are equal."""
    data, test = dd.read_parquet(folder), make_frame(20_000, seed=N_PARTITIONS)
    # The first training loads code that stays in memory.
    train(make_classifier(), [test])

    by_partition, in_memory = make_classifier(), make_classifier()
    rows = []
    for number in range(1, N_PASSES + 1):
        with PeakMemory() as memory:
            train(by_partition, read(data))
        accuracy = by_partition.score(test[FEATURES], test[LABEL])
        rows.append((f"partitions, pass {number}", accuracy, memory.megabytes))
    with PeakMemory() as memory:
        parts = list(read(data))
        for _ in range(N_PASSES):
            train(in_memory, parts)
    accuracy = in_memory.score(test[FEATURES], test[LABEL])
    rows.append(("all in memory", accuracy, memory.megabytes))

    sizes = [part.memory_usage().sum() / 1e6 for part in parts]
    print(
        f"{N_PARTITIONS} partitions, {N_PARTITIONS * N_ROWS:,} rows: "
        f"{sum(sizes):.0f} MB in memory, {max(sizes):.1f} MB a partition.\n"
    )
    table = pd.DataFrame(rows, columns=["training", "accuracy", "peak_MB"])
    print(table.round(4).to_string(index=False), end="\n\n")
    pairs = zip(by_partition.module_.parameters(), in_memory.module_.parameters(), strict=True)
    equal = all(np.array_equal(a.detach(), b.detach()) for a, b in pairs)
    print(f"The weights of both are equal, bit by bit: {equal}.")


def main(folder=None):
    """Write the data set into a folder, by default one that goes away at the end, and train."""
    # In threads Dask would read ahead: several partitions would be in memory.
    with dask.config.set(scheduler="synchronous"):
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write(folder)
            return run(folder)
        with TemporaryDirectory() as temporary:
            write(temporary)
            return run(temporary)


if __name__ == "__main__":
    main(*sys.argv[1:])
