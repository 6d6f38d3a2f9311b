"""Bad input: the message names the value and what was expected, and nothing is changed."""

import datetime
import warnings
from collections import deque
from decimal import Decimal
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from skorch.callbacks import Callback

from skdisk import MLPDiskClassifier, MLPDiskEnsemble
from skdisk._inputs.choices import resolve_device

RNG = np.random.RandomState(0)
X = RNG.randn(20, 3)
Y = np.arange(20) % 2
STRINGS = pd.DataFrame({"size": X[:, 0], "color": ["red", "green"] * 10, "c": X[:, 2]})


# In nanoseconds, NumPy would make numbers of them in an array of objects.
DATES = pd.date_range("2020", periods=20, unit="us")


def put(value):
    bad = X.copy()
    bad[3, 1] = value
    return bad


def damage(index):
    matrix = sparse.csr_array(X)
    matrix.indices[5] = index
    return matrix


def empty(place):
    """Make a matrix that is empty by its last number, and not by another one."""
    matrix = sparse.csr_array(X.shape)
    matrix.indptr[place] = 100
    return matrix


def end(number):
    """Make a matrix that says at its end that it has so many entries."""
    matrix = sparse.csc_array(X)
    matrix.indptr[-1] = number
    return matrix


def shorten(name, matrix=None):
    matrix = sparse.csc_array(X) if matrix is None else matrix
    setattr(matrix, name, getattr(matrix, name)[:-1])
    return matrix


def hold(dtype, part="data"):
    """Make a matrix that has been given what SciPy would not have taken."""
    matrix = sparse.csr_array((X > 0).astype(int))
    setattr(matrix, part, getattr(matrix, part).astype(dtype))
    return matrix


def drop_value(matrix):
    matrix.data[2].pop()
    return matrix


def reach_out(matrix, name, index):
    """Let an index of a matrix of any format point outside it."""
    if name == "coords":
        matrix.coords[1][3] = index
    elif name == "rows":
        matrix.rows[2][0] = index
    else:
        matrix.indices[1] = index
    return matrix


BAD_X = {
    "NaN": (put(np.nan), ValueError, "Input X contains NaN"),
    "infinity": (put(np.inf), ValueError, "Input X contains infinity"),
    "too large for float32": (put(1e200), ValueError, "value too large for dtype.'float32'"),
    "NA": (pd.DataFrame(put(np.nan)).astype("Float64"), ValueError, "Input X contains NaN"),
    "no rows": (X[:0], ValueError, r"Found array with 0 sample\(s\)"),
    "no columns": (X[:, :0], ValueError, r"0 feature\(s\)"),
    "1-d": (X[:, 0], ValueError, "Expected 2D array, got 1D array"),
    "3-d": (X[:, :, None], ValueError, "Found array with dim 3"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar"),
    "NaN in a CSR matrix": (sparse.csr_array(put(np.nan)), ValueError, "Input X contains NaN"),
    "CSR too large for float32": (sparse.csr_array(put(1e200)), ValueError, "too large for dtype"),
    "1-d and sparse": (
        sparse.coo_array(X[:, 0]),
        ValueError,
        r"Expected 2D array, got X of shape \(20,\), which is sparse",
    ),
    "strings": (STRINGS.to_numpy(), ValueError, "'red'.*takes numbers.*ColumnTransformer"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "None": (None, ValueError, "Expected 2D array of numbers, .* and dtype object"),
    "lazy frame": (
        pl.LazyFrame(X),
        TypeError,
        r"X is a LazyFrame, whose rows are yet to be computed. Pass X.collect\(\)",
    ),
    "dict": ({"a": [1] * 20}, ValueError, "Expected 2D array of numbers, .* and dtype object"),
    "structured": (np.zeros(20, "i4,f4"), ValueError, "Expected 2D array of numbers"),
    "masked": (np.ma.array(X, mask=X > 1), ValueError, "X has masked values. Fill them in"),
    "ragged": ([[1.0], [1.0, 2.0]] * 10, ValueError, "X cannot be turned into a NumPy array"),
    "list of tensors that ask for gradients": (
        [torch.ones(3, requires_grad=True)] * 20,
        ValueError,
        "X cannot be turned into a NumPy array. .* requires grad",
    ),
    "meta tensor": (torch.ones(20, 3, device="meta"), ValueError, "X cannot be .* no data"),
    "sparse tensor": (torch.ones(20, 3).to_sparse(), ValueError, "X cannot be .*to_dense"),
    "complex tensor": (torch.ones(20, 3).cfloat().conj(), ValueError, "Complex data not supp"),
    "CSR with an index outside": (damage(99), ValueError, "X is a damaged CSR .* must be < 3"),
    "empty CSR with a row": (empty(5), ValueError, "X is a damaged CSR .*: the numbers in indptr"),
    "CSR with a negative index": (damage(-1), ValueError, "X is a damaged CSR .* must be >= 0"),
    "CSC with a lowest number": (end(-(2**31)), ValueError, "X is a damaged CSC .*: the numbers"),
    "CSC of too few pointers": (shorten("indptr"), ValueError, r"X is a damaged CSC .* size \(?3"),
    "CSC of too few numbers": (shorten("data"), ValueError, "X is a damaged CSC .* same size"),
    "COO with an index outside": (
        reach_out(sparse.coo_array(X), "coords", 10**6),
        ValueError,
        r"X is a damaged COO .* axis 1 are from 0 to 1000000, its shape is \(20, 3\). Make it",
    ),
    "COO with too few values": (shorten("data", sparse.coo_array(X)), ValueError, "X is a .* COO"),
    "BSR with an index outside": (
        reach_out(sparse.bsr_array(X, blocksize=(2, 1)), "indices", 10**6),
        ValueError,
        "X is a damaged BSR .* must be < 3",
    ),
    "LIL with a negative index": (
        reach_out(sparse.lil_array(X), "rows", -1),
        ValueError,
        "X is a damaged LIL .* axis 1 are from -1 to 2",
    ),
    "LIL with too few values": (
        drop_value(sparse.lil_array(X)),
        ValueError,
        "X is a damaged LIL matrix: a row has not as many indices as values",
    ),
    "CSR with float indices": (
        hold("f8", "indices"),
        ValueError,
        "X is a damaged CSR matrix: indices is of dtype float64, not int32",
    ),
    "CSR with pointers of objects": (hold("O", "indptr"), ValueError, "damaged CSR .* object"),
    "CSR of objects": (hold(object), ValueError, "X is a sparse matrix of dtype object"),
    "CSR of dates": (hold("M8[s]"), ValueError, r"X is a sparse matrix of dtype datetime64\[s\]"),
    "CSR of float16": (hold("f2"), ValueError, "X is a sparse .* float16, which SciPy does not"),
}
# Columns that hold no numbers, as pandas, polars and Arrow have them.
WORDS = ["red", "green"] * 10
BAD_COLUMNS = {
    "dates": DATES,
    "dates with a time zone": DATES.tz_localize("UTC"),
    "durations": DATES - DATES[0],
    "periods": DATES.to_period("D"),
    "intervals": pd.interval_range(0, 20),
    "categories of strings": pd.Categorical(WORDS),
    "categories of dates": pd.Categorical(DATES),
    "objects: dates": DATES.date,
    "objects: timestamps": DATES.astype(object),
    "objects: NumPy's dates": pd.Series([np.datetime64("2020")] * 20, dtype=object),
    "objects: huge ints": pd.Series([10**400] * 20, dtype=object),
    "objects: lists": [[1, 2]] * 20,
    "objects: dicts": [{}] * 20,
    "objects: complex": pd.Series([1j] * 20, dtype=object),
    "objects: NA": pd.Series([1, pd.NA] * 10, dtype=object),
    "strings": pd.Series(WORDS, dtype="str"),
    "nullable strings": pd.Series(WORDS, dtype="string"),
    "bytes": [b"red"] * 20,
    "complex": X[:, 0] + 1j,
    "sparse dates": pd.arrays.SparseArray(DATES.to_numpy()),
    "Arrow dates": pd.Series(DATES.date, dtype="date32[day][pyarrow]"),
    "Arrow timestamps": pd.Series(DATES, dtype="timestamp[us][pyarrow]"),
    "Arrow durations": pd.Series(DATES - DATES[0], dtype="duration[us][pyarrow]"),
    "Arrow times": pd.Series([datetime.time(1)] * 20, dtype="time64[us][pyarrow]"),
    "Arrow strings": pd.Series(WORDS, dtype=pd.ArrowDtype(pa.string())),
    "Arrow dictionary": pd.Series(
        pd.arrays.ArrowExtensionArray(pa.array(WORDS).dictionary_encode())
    ),
    "Arrow binary": pd.Series([b"red"] * 20, dtype=pd.ArrowDtype(pa.binary())),
    "Arrow lists": pd.Series([[1]] * 20, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
}
BAD_FRAMES = {
    "polars dates": pl.DataFrame({"v": X[:, 0], "bad": DATES.date.tolist()}),
    "polars datetimes alone": pl.DataFrame({"bad": DATES.to_pydatetime().tolist()}),
    "polars durations": pl.DataFrame({"bad": [datetime.timedelta(1)] * 20}),
    "polars strings": pl.DataFrame({"v": X[:, 0], "bad": WORDS}),
    "polars structs": pl.DataFrame({"v": X[:, 0], "bad": [{"a": 1}] * 20}),
    "polars ints of 128 bits": pl.DataFrame({"bad": pl.Series([1] * 20, dtype=pl.Int128)}),
    "Arrow table": pa.table({"v": X[:, 0], "bad": DATES.date.tolist()}),
}
# Columns of which two have the same name; and the names that are told.
REPEATED_NAMES = {
    "pandas": (pd.DataFrame(X, columns=["a", "b", "a"]), r"\['a'\]"),
    "pandas, all alike": (pd.DataFrame(X, columns=["a", "a", "a"]), r"\['a'\]"),
    "pandas, numbers": (pd.DataFrame(X, columns=[7, 0, 7]), r"\[7\]"),
    "pandas, names of two parts": (
        pd.DataFrame(X, columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("a", 1)])),
        r"\[\('a', 1\)\]",
    ),
    "pandas, one of dates": (
        pd.concat([pd.DataFrame({"a": X[:, 0]}), pd.DataFrame({"a": DATES})], axis=1),
        r"\['a'\]",
    ),
    "Arrow": (pa.table(list(X.T), names=["b", "a", "a"]), r"\['a'\]"),
}
BAD_Y = {
    "continuous": (X[:, 0], ValueError, "Unknown label type|not among the classes"),
    "shorter": (Y[:-1], ValueError, r"inconsistent numbers of samples: \[20, 19\]"),
    "empty": (Y[:0], ValueError, "inconsistent numbers of samples"),
    "None": (None, ValueError, "requires y to be passed"),
    "NaN": (np.where(Y, 1.0, np.nan), ValueError, "Input y contains NaN.*Drop the rows"),
    "infinity": (np.where(Y, 1.0, np.inf), ValueError, "Input y contains infinity"),
    "missing string": (pd.Series(["a", None] * 10), ValueError, "Input y contains NaN"),
    "NA": (pd.Series([1, pd.NA] * 10, dtype="Int64"), ValueError, "Input y contains NaN"),
    "several classes a row": (
        np.arange(60).reshape(20, 3) % 3,
        ValueError,
        "y has 3 columns with values such as 2. .* 0 and 1, .*MultiOutputClassifier",
    ),
    "1 and 2 for labels": (Y[:, None] + [1, 1], ValueError, "2 columns with values such as 2"),
    "-1 and 1 for labels": (
        2 * Y[:, None] - [1, 1],
        ValueError,
        "2 columns with values such as -1",
    ),
    "several numbers a row": (X, ValueError, "y has .* columns .*MultiOutputClassifier"),
    "a frame of several classes": (
        pd.DataFrame({"a": Y, "b": ["x", "y"] * 10}),
        ValueError,
        "y has 2 columns with values such as .*MultiOutputClassifier",
    ),
    "digits as text": (
        np.full((20, 2), "1"),
        ValueError,
        "2 columns with values such as 1.* 0 and",
    ),
    "several dates a row": (np.full((20, 2), "2020", "M8[D]"), ValueError, "such as 2020-01-01"),
    "NaN among labels": (np.where(Y[:, None], [1.0, np.nan], 0), ValueError, "y contains NaN"),
    "NA among labels": (
        pd.DataFrame({"a": pd.Series([1, pd.NA] * 10, dtype="Int8"), "b": Y}),
        ValueError,
        "Input y contains NaN",
    ),
    "infinity among labels": (np.full((20, 2), np.inf), ValueError, "with values such as inf"),
    "nearly 1": (np.full((20, 2), 1 - 1e-12), ValueError, "2 columns with values such as 0.99999"),
    "complex labels": (np.ones((20, 2), complex), ValueError, "2 columns with values such as"),
    "structured labels": (np.zeros((20, 2), "i4,f4"), ValueError, "2 columns with values such as"),
    **{
        f"no rows of {dtype}": (np.empty((0, 2), dtype), ValueError, "inconsistent numbers of sam")
        for dtype in ("complex64", "complex128", "M8[s]", "m8[s]", "S1", "U1", "O", "i4,f4")
    },
    "sparse counts": (sparse.csr_array(Y[:, None] * [2, 0]), ValueError, "with values such as 2"),
    "damaged CSC": (end(-(2**31)), ValueError, "y is a damaged CSC .*: the numbers"),
    "CSR with a label outside": (damage(99), ValueError, "y is a damaged CSR .* must be < 3"),
    "LIL with a label outside": (
        reach_out(sparse.lil_array(X > 0), "rows", 99),
        ValueError,
        "y is a damaged LIL .* to 99, its shape",
    ),
    "CSR with uint64 indices": (hold("u8", "indices"), ValueError, "y is a damaged .* uint64"),
    "CSR of objects": (hold(object), ValueError, "y is a sparse matrix of dtype object"),
    "sparse NaN": (sparse.csr_array(Y[:, None] * [np.nan, 1]), ValueError, "y contains NaN"),
    "three dimensions": (np.ones((20, 2, 2), int), ValueError, r"1d array, got .* \(20, 2, 2\)"),
    "mixed types": (
        np.array(["a", 1] * 10, object),
        ValueError,
        "y has labels of the type int and str. Labels are strings, ints",
    ),
    "list of mixed types": (["a", 1] * 10, ValueError, "y has labels of the type int and str"),
    "deque of mixed types": (deque(["a", 1] * 10), ValueError, "y has labels of the type int and"),
    "bytes": (np.array([b"a", b"b"] * 10), ValueError, "type bytes_?. .*decode.. for bytes"),
    "list of bytes": ([b"a", b"b"] * 10, ValueError, "type bytes. .*label.decode.. for bytes"),
    "complex": (Y + 1j, ValueError, "y has labels of the type complex"),
    "structured": (np.zeros(20, "i4,f4"), ValueError, "y has labels of the type void"),
    "huge ints": ([10**400, 1] * 10, ValueError, "labels of the type int. .*at most 64 bits"),
    "ints that a float would round": (
        np.array([2**63 + 5, -2] * 10, object),
        ValueError,
        "labels of the type int. .*at most 64 bits",
    ),
    "decimals": (np.array([Decimal(1), Decimal(2)] * 10), ValueError, "of the type Decimal"),
    "dates as objects": (DATES.date, ValueError, "y has labels of the type date"),
    "dates with a time zone": (DATES.tz_localize("UTC"), ValueError, "of the type Timestamp"),
    "periods": (pd.Series(DATES.to_period("D")), ValueError, "of the type Period"),
    "intervals": (pd.cut(X[:, 0], 2), ValueError, "of the type Interval"),
    "tuples": (pd.Series([(1, 2), (3, 4)] * 10), ValueError, "of the type tuple"),
    "lists": (pd.Series([[1], [2]] * 10), ValueError, "of the type list"),
    "Arrow decimals": (
        pd.Series([Decimal(1)] * 20, dtype=pd.ArrowDtype(pa.decimal128(5))),
        ValueError,
        "of the type Decimal",
    ),
    "Arrow binary": (pd.Series([b"a"] * 20, dtype="binary[pyarrow]"), ValueError, "type bytes"),
    "polars ints of 128 bits": (pl.Series([1] * 20, dtype=pl.Int128), ValueError, "y cannot be"),
    "polars null": (pl.Series(["a", None] * 10), ValueError, "Input y contains NaN"),
    "missing category": (pd.Categorical(["a", None] * 10), ValueError, "Input y contains NaN"),
    "not a time": (np.array(["NaT", "2020"] * 10, "M8[D]"), ValueError, "Input y contains NaN"),
    "masked": (np.ma.array(Y, mask=Y), ValueError, "y has masked values"),
    "frame without columns": (pd.DataFrame(index=range(20)), ValueError, r"shape \(20, 0\)"),
    "empty frame": (pd.DataFrame(), ValueError, r"y should be a 1d array, got .* \(0, 0\)"),
    "scalar": (3, ValueError, "y should be a 1d array"),
    "set": ({0, 1}, ValueError, "y should be a 1d array"),
    "durations of no unit": (Y.astype("m8"), ValueError, "y has labels of the type timedelta64"),
    "a view of a number": (memoryview(np.array(1)), ValueError, "y should be a 1d array"),
    "floats that no int can be": (
        np.where(Y, 0.5, 1e300),
        ValueError,
        "Unknown label type|not among the classes",
    ),
    "lazy frame": (pl.LazyFrame({"a": Y}), ValueError, "y should be a 1d array"),
    "sparse": (sparse.csr_array(Y[:, None]), TypeError, "Sparse data was passed for y"),
    "meta tensor": (torch.ones(20, device="meta"), ValueError, "y cannot be .* no data"),
    "sparse tensor": (torch.ones(20).to_sparse(), ValueError, "y cannot be .*to_dense"),
    "lists of labels": ([[1], [1, 2]] * 10, ValueError, "y lists the .*MultiLabelBinarizer makes"),
    "tuples of text": (
        [("a", "b"), ()] * 10,
        ValueError,
        "y lists the labels of each row. Several",
    ),
    "sets of labels": ([{"a"}, {"b"}] * 10, ValueError, "y lists the labels of each row"),
    "ragged": ([[1], 2] * 10, ValueError, "y cannot be turned into a NumPy array"),
}
BAD_CLASSES = {
    "number": (3, r"classes should be a 1d array, got an array of shape \(\)"),
    "set": ({0, 1}, "classes should be a 1d array"),
    "empty": ([], "classes must be a list of all labels"),
    "None among them": ([0, None], "Input classes contains NaN"),
    "infinity among them": ([0.0, np.inf], "Input classes contains infinity"),
    "bytes": ([b"a", b"b"], "classes has labels of the type bytes"),
    "mixed types": ([0, "1"], "classes has labels of the type int and str"),
    "of another type": (["0", "1"], "not among the classes|not those of the earlier fit"),
}
BAD_PARAMS = [
    ({"lr": 0}, r"The 'lr' parameter of MLPDiskClassifier must be .*\(0.0, inf\).* Got 0"),
    ({"lr": "fast"}, "The 'lr' parameter .* Got 'fast'"),
    ({"lr": np.inf}, "The 'lr' parameter .* Got inf"),
    ({"lr": np.nan}, "The 'lr' parameter .* Got nan"),
    ({"momentum": 1.5}, r"The 'momentum' parameter .*\[0.0, 1.0\). Got 1.5"),
    ({"momentum": -0.1}, "The 'momentum' parameter .* Got -0.1"),
    ({"nesterov": "yes", "momentum": 0.9}, "The 'nesterov' parameter .* Got 'yes'"),
    ({"weight_decay": -1}, "The 'weight_decay' parameter .* Got -1"),
    ({"batch_size": 0}, r"The 'batch_size' parameter .*\[1, inf\). Got 0"),
    ({"batch_size": 2.5}, "The 'batch_size' parameter .* Got 2.5"),
    ({"max_epochs": -1}, r"The 'max_epochs' parameter .*\[1, inf\).* Got -1"),
    ({"max_epochs": 1.5}, "The 'max_epochs' parameter .* Got 1.5"),
    ({"hidden_layer_sizes": (64, 0)}, r"hidden_layer_sizes must be .* Got \(64, 0\)"),
    ({"hidden_layer_sizes": (2.5,)}, r"hidden_layer_sizes must be .* Got \(2.5,\)"),
    ({"hidden_layer_sizes": 0}, "The 'hidden_layer_sizes' parameter .* Got 0"),
    ({"hidden_layer_sizes": "64,64"}, "'hidden_layer_sizes' parameter .* Got '64,64'"),
    ({"activation": "swish"}, "a str among .*'relu'.*Got 'swish'"),
    ({"shuffle": "no"}, "The 'shuffle' parameter .* Got 'no'"),
    ({"warm_start": 3}, "The 'warm_start' parameter .* Got 3"),
    ({"random_state": -1}, "The 'random_state' parameter .* Got -1"),
    ({"random_state": "x"}, "The 'random_state' parameter .* Got 'x'"),
    ({"verbose": -1}, "The 'verbose' parameter .* Got -1"),
    ({"callbacks": 7}, "The 'callbacks' parameter .* Got 7"),
    ({"callbacks": [print]}, "must be skorch callbacks .* Got <built-in function print>"),
    ({"callbacks": [(3, Callback)]}, r"of callbacks must be a str. Got \(3, "),
    ({"lr": 3e38, "optimizer": "adam"}, r"lr=3e\+38 or optimizer_params do not suit Adam"),
    ({"callbacks": [("name", 3)]}, r"must be skorch callbacks .* Got \('name', 3\)"),
    ({"device": "gpu"}, "'gpu' is not available. On this machine there are: cpu"),
    ({"device": "cuda:99"}, "'cuda:99' is not available. On this machine there are: cpu"),
    ({"device": torch.device("meta")}, "'meta' is not available. On this machine there are"),
    ({"device": 0}, "The 'device' parameter .* Got 0"),
]


HUGE = {"10**400": 10**400, "10**5000": 10**5000, "1e39": 1e39, "fraction": Fraction(10**400)}
# Numbers that are no such number, whatever the parameter.
NOT_REAL = {
    "decimal": Decimal("0.5"),
    "complex": 0.5j,
    "NumPy complex": np.complex64(0.5),
    "timedelta": np.timedelta64(1, "D"),
    "array": np.array(0.5),
    "tensor": torch.tensor(0.5),
    "text": "0.5",
    "NaN": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
}
REALS = ["lr", "momentum", "weight_decay", "clip_grad_norm", "tol", "validation_fraction"]
INTS = ["max_epochs", "batch_size", "n_iter_no_change", "hidden_layer_sizes"]
NUMBERS = [*REALS, *INTS, "dropout"]
# One half, and one, in all types; what they are computed with is Python's own.
HALVES = [np.float16(0.5), np.float32(0.5), np.longdouble(0.5), Fraction(1, 2)]
ONES = [np.int8(1), np.uint8(1), np.int64(1), True]


def make_clf(**params):
    return MLPDiskClassifier(**{"max_epochs": 1, "random_state": 0} | params)


@pytest.fixture
def check_refusal():
    """Check an error of fit and partial_fit, before and after an earlier fit."""

    def check(X_bad, y_bad, error, match, params=None):
        for method, kwargs in (("fit", {}), ("partial_fit", {"classes": [0, 1]})):
            unfitted = make_clf(**params or {})
            fitted = make_clf().fit(X, Y).set_params(**params or {})
            for clf in (unfitted, fitted):
                before = vars(clf).copy()
                with pytest.raises(error, match=match):
                    getattr(clf, method)(X_bad, y_bad, **kwargs)
                assert vars(clf) == before

    return check


@pytest.mark.parametrize(("X_bad", "error", "match"), BAD_X.values(), ids=BAD_X)
def test_bad_X_is_refused(check_refusal, X_bad, error, match):
    check_refusal(X_bad, Y, error, match)
    clf = make_clf().fit(X, Y)
    if isinstance(X_bad, pd.DataFrame):
        clf = make_clf().fit(pd.DataFrame(X, columns=X_bad.columns), Y)
    with pytest.raises(error, match=match):
        clf.predict(X_bad)


@pytest.mark.parametrize(("y_bad", "error", "match"), BAD_Y.values(), ids=BAD_Y)
def test_bad_y_is_refused(check_refusal, y_bad, error, match):
    check_refusal(X, y_bad, error, match)


@pytest.mark.parametrize(("params", "match"), BAD_PARAMS, ids=str)
def test_a_bad_parameter_is_refused(check_refusal, params, match):
    check_refusal(X, Y, (ValueError, TypeError), match, params)


def test_a_device_that_torch_cannot_use_is_refused(check_refusal, broken_accelerator):
    for device in (broken_accelerator, f"{broken_accelerator}:0", torch.device("mps")):
        match = f"The device '{device}' cannot be used in this process: .* forked .* \"spawn\""
        check_refusal(X, Y, ValueError, match, {"device": device})


def test_want_of_memory_is_no_fault_of_the_cpu(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: you tried to allocate 4 bytes.")

    monkeypatch.setattr(torch, "zeros", fail)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("column", BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_a_column_that_is_not_numbers_is_named(check_refusal, column):
    match = r"not numbers: \['bad'\]. In the column 'bad': .*OneHotEncoder.* number of days"
    for frame in (pd.DataFrame({"v": X[:, 0], "bad": column}), pd.DataFrame({"bad": column})):
        check_refusal(frame, Y, (ValueError, TypeError), match)
        clf = make_clf().fit(np.ones_like(frame, dtype=float), Y)
        with pytest.raises((ValueError, TypeError), match=match):
            clf.predict(frame)


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_column_of_any_kind_of_frame_is_named(check_refusal, frame):
    check_refusal(frame, Y, (ValueError, TypeError), r"not numbers: \['bad'\]|column 'bad' of X")


@pytest.mark.parametrize(("frame", "names"), REPEATED_NAMES.values(), ids=REPEATED_NAMES)
def test_columns_of_one_name_are_refused_by_that_name(check_refusal, frame, names):
    match = f"X has several columns of the same name: {names}. Give each column a name"
    check_refusal(frame, Y, ValueError, match)
    with pytest.raises(ValueError, match=match):
        make_clf().fit(X, Y).predict(frame)
    with pytest.raises(ValueError, match=match.replace("X", "X_val", 1)):
        make_clf().fit(X, Y, X_val=frame, y_val=Y)


@pytest.mark.parametrize(
    "array",
    [
        DATES.to_numpy()[:, np.newaxis],
        (DATES - DATES[0]).to_numpy()[:, np.newaxis],
        DATES.date[:, np.newaxis],
        np.full((20, 1), 10**400),
        np.full((20, 1), -(10**400)),
        np.array([["red"]] * 20),
    ],
    ids=["dates", "durations", "objects", "huge ints", "huge negative ints", "strings"],
)
def test_a_column_of_an_array_is_named_by_its_number(check_refusal, array):
    bad = np.concatenate([np.zeros_like(array, dtype=object), array], axis=1)
    match = r"not numbers: \[{}\]. In the column {}: "
    check_refusal(array, Y, (ValueError, TypeError), match.format(0, 0))
    check_refusal(bad, Y, (ValueError, TypeError), match.format(1, 1))


@pytest.mark.parametrize(("classes", "match"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_bad_classes_are_refused(classes, match):
    for clf in (make_clf(), make_clf().fit(X, Y)):
        before = vars(clf).copy()
        with pytest.raises(ValueError, match=match):
            clf.partial_fit(X, Y, classes=classes)
        assert vars(clf) == before


def test_a_frame_without_columns_is_refused(check_refusal):
    match = r"X has no columns: it is a DataFrame of shape \(20, 0\)"
    check_refusal(pd.DataFrame(index=range(20)), Y, ValueError, match)


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_float32_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"'?{name}'? .*(about 1.0e|of memory|Got )"):
        make_clf(**{name: value}).fit(X, Y)


@pytest.mark.parametrize("value", NOT_REAL.values(), ids=NOT_REAL)
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        make_clf(**{name: value}).fit(X, Y)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"class_weight": {0: 10**400}}, r"in class_weight .* Got 1.0e.400 for the class"),
        ({"class_weight": {0: np.complex64(1)}}, r"in class_weight .* Got np.complex64"),
        ({"class_weight": {0: np.inf}}, r"in class_weight .* Got inf"),
        ({"class_weight": {0: np.float16(np.inf)}}, r"in class_weight .* Got np.float16.inf"),
        ({"class_weight": {0: np.float32(np.inf)}}, r"in class_weight .* Got np.float32.inf"),
        ({"class_weight": {0: Decimal(1)}}, r"in class_weight .* Got Decimal"),
        ({"class_weight": {0: np.timedelta64(1, "D")}}, r"in class_weight .* Got np.timedelta64"),
        ({"class_weight": {0: "1"}}, "weights in class_weight must be .* Got '1'"),
        ({"optimizer_params": {"eps": 10**400}}, r"optimizer_params\['eps'\] .*1.0e.400"),
        ({"optimizer_params": {"eps": np.nan}}, r"optimizer_params\['eps'\] .*finite real"),
        ({"optimizer_params": {"betas": (0.9, 1j)}}, r"optimizer_params\['betas'\]\[1\]"),
        ({"optimizer_params": {"eps": np.array(1.0)}}, r"optimizer_params\['eps'\] .*number"),
        (
            {"hidden_layer_sizes": (3, np.timedelta64(2, "D"))},
            "'hidden_layer_sizes' parameter .*must",
        ),
        ({"dropout": (0.1, np.timedelta64(0, "D"))}, "'dropout' parameter .*must be a number"),
        (
            {"hidden_layer_sizes": np.array([3], "m8[D]")},
            r"hidden_layer_sizes must be an int .* Got array\(\[3\], dtype='timedelta64",
        ),
        (
            {"hidden_layer_sizes": 3, "dropout": np.array([0], "m8[D]")},
            r"dropout must be .* Got array\(\[0\], dtype='timedelta64",
        ),
        (
            {"optimizer_params": {"foreach": pd.Series([1, 2])}},
            r"optimizer_params\['foreach'\] must be a number",
        ),
        (
            {"optimizer": "sgd", "optimizer_params": {"dampening": torch.tensor([0.1, 0.2])}},
            r"optimizer_params\['dampening'\] must be a number",
        ),
        ({"optimizer_params": {"foreach": pd.NA}}, "do not suit Adam, .* of NA is ambiguous"),
        (
            {"optimizer_params": {"foreach": {"a"}}},
            "foreach must be True, False or None, not {'a'}",
        ),
        (
            {"optimizer_params": {"fused": set()}},
            r"fused must be True, False or None, not set\(\)",
        ),
        ({"optimizer_params": {"fused": True, "amsgrad": 1}}, "do not suit Adam, .* invalid comb"),
        ({"optimizer_params": {"betas": (0.9, 1.5)}}, "optimizer_params do not suit Adam"),
        ({"optimizer_params": {"eps": "1"}}, "optimizer_params do not suit Adam"),
        ({"hidden_layer_sizes": 10**12}, "hidden_layer_sizes=10000.* asks for .* 7.2e.13 bytes"),
        (
            {"hidden_layer_sizes": (10**7, 10**7)},
            r"hidden_layer_sizes=\(10000000, 10000000\) asks for",
        ),
        ({"hidden_layer_sizes": (3, 10**400)}, r"hidden_layer_sizes=\(3, 1.0e.400\) asks for"),
    ],
    ids=str,
)
def test_numbers_inside_of_parameters_are_checked_too(check_refusal, params, match):
    params = {"optimizer": "adam", "momentum": 0.0} | params
    check_refusal(X, Y, (ValueError, TypeError), match, params)


@pytest.mark.parametrize(
    ("names", "value", "same"),
    [(REALS[:-1], half, 0.5) for half in HALVES]
    + [(["dropout"], half, 0.5) for half in HALVES]
    + [(INTS, one, 1) for one in ONES],
    ids=repr,
)
def test_a_number_of_any_type_is_the_same_number(names, value, same):
    params = {"optimizer": "sgd", "lr": 0.1, "max_epochs": 2, "batch_size": 8}
    for name, early_stopping in product(names, (True, False)):
        params["early_stopping"] = early_stopping
        fits = []
        for number in (value, same):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "max_epochs=")
                clf = make_clf(**params | {name: number}).fit(X, Y)
            fits.append(([p.tolist() for p in clf.module_.parameters()], clf.loss_curve_))
        assert fits[0] == fits[1], name


@pytest.mark.parametrize("value", [20, 10**30])
def test_a_batch_may_be_larger_than_any_number_of_rows(value):
    expected = make_clf(batch_size=32, fused=False).fit(X, Y)
    clf = make_clf(batch_size=value, fused=False).fit(X, Y)
    assert clf.loss_curve_ == expected.loss_curve_


def test_a_view_of_memory_has_labels_too():
    for labels in (np.array(["a", "b"] * 10, object), Y, np.eye(2, dtype=int)[Y]):
        clf, expected = make_clf().fit(X, memoryview(labels)), make_clf().fit(X, labels)
        assert clf.predict(X).tolist() == expected.predict(X).tolist()


def test_a_penalty_of_true_is_one():
    fits = [make_clf(weight_decay=value, fused=False).fit(X, Y) for value in (True, 1)]
    assert fits[0].coefs_[0].tolist() == fits[1].coefs_[0].tolist()


def test_the_patience_counts_with_all_digits_of_the_loss():
    # In the precision of a float16 all losses would be equal.
    params = {"tol": np.float16(0), "n_iter_no_change": 5, "lr": 1e-4, "momentum": 0.0}
    clf = make_clf(early_stopping=True, max_epochs=20, **params)
    with pytest.warns(UserWarning, match="still falling"):
        clf.fit(X, Y)
    assert clf.n_iter_ == 20


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_parameters_are_checked_before_all_else(method):
    for params in ({"activation": object()}, {"lr": 10**400}, {"callbacks": 7}):
        clf = make_clf(**params)
        bad = {"fit": {"X_val": X}, "partial_fit": {}}[method]
        [name] = params
        with pytest.raises((ValueError, TypeError), match=name):
            getattr(clf, method)(STRINGS, None, **bad)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_members": 10**400}, "'n_members' parameter of MLPDiskEnsemble"),
        ({"n_members": 10**12}, "n_members=1000000000000 asks for"),
        ({"n_members": 2.0}, "'n_members' parameter of MLPDiskEnsemble"),
        ({"random_state": 10**400}, "'random_state' parameter of MLPDiskEnsemble"),
        ({"n_jobs": 10**400}, "'n_jobs' parameter of MLPDiskEnsemble"),
        ({"estimator": MLPDiskClassifier(lr=10**400)}, "'lr' parameter of MLPDiskClassifier"),
    ],
    ids=str,
)
def test_numbers_of_an_ensemble_are_checked(params, match):
    random_state = np.random.RandomState(0)
    ensemble = MLPDiskEnsemble(**{"random_state": random_state} | params)
    before = str(random_state.get_state())
    with pytest.raises((ValueError, TypeError), match=match):
        ensemble.fit(X, Y)
    assert str(random_state.get_state()) == before
    assert not hasattr(ensemble, "estimators_")


def test_the_names_of_text_columns_are_told():
    with pytest.raises(
        ValueError, match=r"not numbers: \['color'\]. In the column 'color': .*'red'.*ColumnTr"
    ):
        make_clf().fit(STRINGS, Y)


def test_the_number_of_features_must_stay_the_same():
    clf = make_clf().fit(X, Y)
    for call in (clf.predict, clf.predict_proba, lambda X: clf.partial_fit(X, Y)):
        with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 3 features"):
            call(X[:, :2])


def test_partial_fit_needs_classes_on_the_first_call():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        make_clf().partial_fit(X, Y)


@pytest.mark.parametrize("refit", ["partial_fit", "fit"])
def test_labels_that_were_not_among_the_classes_are_named(refit):
    clf = make_clf(warm_start=True).partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"not among the classes \[0, 1\]: \[2, 3\]"):
        getattr(clf, refit)(X, Y + 2)
    assert clf.n_iter_ == 1


def test_other_classes_on_a_later_call_are_an_error():
    clf = make_clf().partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes=\[0, 1, 2\] are not those of the earlier fit"):
        clf.partial_fit(X, Y, classes=[0, 1, 2])


@pytest.mark.parametrize("y", [np.zeros(20, int), np.arange(20) % 2 * 2])
def test_a_warm_start_with_fewer_classes_is_refused(y):
    labels = np.arange(20) % 3
    clf = make_clf(warm_start=True).fit(X, labels)
    before = vars(clf).copy()
    with pytest.raises(
        ValueError, match=r"classes .* \[0, 1, 2\], of which y has no \[1.*partial"
    ):
        clf.fit(X, y)
    assert vars(clf) == before
    clf.partial_fit(X, y)
    assert clf.set_params(warm_start=False).fit(X, y).classes_.tolist() == np.unique(y).tolist()


def test_parameters_are_keyword_only_but_for_the_first():
    with pytest.raises(TypeError, match="positional argument"):
        MLPDiskClassifier((4,), "relu")
