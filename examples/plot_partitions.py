"""
Data larger than memory
=======================

The rows are in a file that does not fit into memory. Map it, or train part by part?
"""

# %%
# A file that stands for a large one: points inside and outside a ball.
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from sklearn.utils import gen_batches

from skdisk import MLPDiskClassifier

X = np.random.default_rng(0).standard_normal((420_000, 30), dtype=np.float32)
y = (X[:, :10] ** 2).sum(axis=1) < 9.34
X_test, y_test, y = X[400_000:], y[400_000:], y[:400_000]
folder = TemporaryDirectory()
path = Path(folder.name, "X.npy")
np.save(path, X[:400_000])


# %%
# ``fit`` reads rows of float32 from a map as it needs them; the file stays as it is.
# ``partial_fit`` takes parts of any origin, without a schedule: lower ``lr`` in the end.
def take_parts(clf):
    """Go through the parts twice."""
    X = np.load(path, mmap_mode="r")
    for lr in (0.04, 0.004):
        clf.set_params(lr=lr)
        for part in gen_batches(len(X), 20_000):
            clf.partial_fit(X[part], y[part], classes=[False, True])


ways = {
    "load all": lambda clf: clf.fit(np.load(path), y),
    "map the file": lambda clf: clf.fit(np.load(path, mmap_mode="r"), y),
    "part by part": take_parts,
}
rows = {}
for name, train in ways.items():
    clf = MLPDiskClassifier(max_epochs=2, batch_size=256, random_state=0)
    tracemalloc.start()
    train(clf)
    rows[name] = [tracemalloc.get_traced_memory()[1] / 1e6, clf.score(X_test, y_test)]
    tracemalloc.stop()
table = pd.DataFrame.from_dict(rows, orient="index", columns=["peak, MB", "accuracy"])
print(table.to_string(float_format="%.3g"))
folder.cleanup()

# %%
# Of a map the operating system keeps what there is room for. Where that is little, each row, drawn
# from all over the file, is an access to the disk, while a part is read in one go.
axes = table["peak, MB"].plot.bar(rot=0, ylabel="NumPy's arrays at the peak, MB")
