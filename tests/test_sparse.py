"""Sparse rows: the same fit as dense ones, without ever being dense as a whole."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from skdisk import MLPDiskClassifier

RNG = np.random.RandomState(0)
X = sparse.random_array((120, 30), density=0.2, random_state=RNG, format="csr").toarray()
Y = (X[:, :15].sum(axis=1) > X[:, 15:].sum(axis=1)).astype(int)


def halve_entries(X):
    """Make sparse rows of which each entry is there twice, as two halves that are to be added."""
    rows = sparse.csr_array(X)
    parts = np.repeat(rows.data / 2, 2), np.repeat(rows.indices, 2), 2 * rows.indptr
    return sparse.csr_array(parts, shape=X.shape)


CONTAINERS = {
    "csr_array": sparse.csr_array,
    "csr_matrix": sparse.csr_matrix,
    "csc_array": sparse.csc_array,
    "csc_matrix": sparse.csc_matrix,
    "coo_array": sparse.coo_array,
    "float32": lambda X: sparse.csr_array(X.astype(np.float32)),
    "64-bit indices": lambda X: sparse.csr_array(
        (
            sparse.csr_array(X).data,
            *map(np.int64, (sparse.csr_array(X).indices, sparse.csr_array(X).indptr)),
        ),
        shape=X.shape,
    ),
    "entries in halves": lambda X: halve_entries(X.astype(np.float32)),
}
OPTIONS = {
    "defaults": {},
    "fused=False": {"fused": False},
    "in order": {"shuffle": False},
    "dropout": {"dropout": 0.3},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 1},
    "everything": {
        "optimizer": "adamw",
        "dropout": 0.3,
        "class_weight": "balanced",
        "early_stopping": True,
        "n_iter_no_change": 1,
        "fused": False,
    },
}


@pytest.mark.parametrize("convert", CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_the_fit_of_the_dense_rows(make_clf, get_weights, convert):
    dense = make_clf().fit(X, Y)
    rows = convert(X)
    before = rows.copy()
    clf = make_clf().fit(rows, Y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(dense)))
    np.testing.assert_array_equal(clf.predict_proba(rows), dense.predict_proba(X))
    np.testing.assert_array_equal(clf.predict_proba(rows.tocsr()[:3]), dense.predict_proba(X[:3]))
    assert (rows != before).nnz == 0
    assert type(rows) is type(before)


@pytest.mark.filterwarnings("ignore:max_epochs=3 ended")
@pytest.mark.parametrize("params", OPTIONS.values(), ids=OPTIONS)
def test_every_option_gives_the_fit_of_the_dense_rows(make_clf, get_weights, params):
    weights = np.arange(120) % 3
    clfs = [make_clf(**params).fit(rows, Y, weights) for rows in (X, sparse.csr_array(X))]
    assert all(map(np.array_equal, *map(get_weights, clfs)))
    assert clfs[0].loss_curve_ == clfs[1].loss_curve_
    assert clfs[0].validation_loss_curve_ == clfs[1].validation_loss_curve_


def test_partial_fit_and_validation_data(make_clf, get_weights):
    rows = sparse.csc_array(X)
    clfs = [make_clf().fit(X_, Y, X_val=X_, y_val=Y).partial_fit(X_, Y) for X_ in (X, rows)]
    assert all(map(np.array_equal, *map(get_weights, clfs)))
    assert clfs[0].validation_loss_curve_[:3] == clfs[1].validation_loss_curve_[:3]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_entries_that_occur_twice_are_added_before_they_are_rounded(make_clf, get_weights, kind):
    rows = sparse.csr_array(X)
    parts = np.random.default_rng(0).normal(size=2 * rows.nnz), np.repeat(rows.indices, 2)
    rows = sparse.csr_array((*parts, 2 * rows.indptr), shape=X.shape)
    rows = rows if kind is sparse.csr_matrix else kind(rows)
    clf = make_clf().fit(rows, Y)
    assert all(
        map(np.array_equal, get_weights(clf), get_weights(make_clf().fit(rows.toarray(), Y)))
    )
    large = sparse.csr_matrix((np.float32([3e38, 3e38]), [0, 0], [0, 2]), shape=(1, 30))
    with pytest.raises(ValueError, match="Input X contains infinity"):
        clf.predict(kind(large))


def test_entries_that_occur_twice_are_added_and_left_as_they_are(make_clf, get_weights):
    once = sparse.csr_array(X)
    data, indices = np.repeat(once.data / 2, 2), np.repeat(once.indices, 2)
    twice = sparse.csr_array((data, indices, 2 * once.indptr), shape=X.shape)
    clf = make_clf(dropout=0.3).fit(twice, Y)
    assert twice.nnz == 2 * once.nnz
    assert all(map(np.array_equal, get_weights(clf), get_weights(make_clf(dropout=0.3).fit(X, Y))))


def test_the_tags_say_so():
    assert get_tags(MLPDiskClassifier()).input_tags.sparse


def test_words_to_classes(make_clf):
    texts = [
        "the cat sat",
        "a dog barked",
        "cats sat here",
        "the dog ran",
        "cat cat",
        "dog dog",
    ] * 5
    labels = ["cat", "dog"] * 15
    pipeline = make_pipeline(TfidfVectorizer(analyzer="char_wb"), make_clf(max_epochs=50))
    assert pipeline.fit(texts, labels).score(texts, labels) == 1


PROGRAM = """
import warnings
from pathlib import Path
import numpy as np
from scipy import sparse
from skdisk import MLPDiskClassifier

def read_peak():
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

rng = np.random.RandomState(0)
n_rows, n_columns = 5_000, 20_000
# A generator of the newer kind, whose choices need no list of all cells.
cells = {"density": 1e-3, "random_state": np.random.default_rng(0), "format": "csr"}
X = sparse.random_array((n_rows, n_columns), dtype="f4", **cells)
y = rng.randint(2, size=n_rows)
params = dict(max_epochs=1, early_stopping=True, dropout=0.1, fused=FUSED)
MLPDiskClassifier((8,), max_epochs=1).fit(np.eye(2), [0, 1])
warnings.simplefilter("ignore")
for rows in (X, X.tocsc()):
    before = read_peak()
    MLPDiskClassifier((8,), batch_size=64, **params).fit(rows, y).predict_proba(rows)
    print(read_peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's peak memory")
def test_sparse_rows_are_never_dense_as_a_whole(fused):
    program = PROGRAM.replace("FUSED", str(fused))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stderr == ""
    # By rows, then by columns. Dense, the rows would take 400 MB.
    by_rows, by_columns = map(float, result.stdout.split())
    assert by_rows < 160
    assert by_columns < 160
