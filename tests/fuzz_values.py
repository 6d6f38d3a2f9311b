"""Rows, labels, weights and parameters as nobody expects them, drawn from valid ones.

A table has makers by name: a maker takes a generator of random numbers and what is valid, and
makes something of it. First values are changed, then what holds them; most drawn things are small
deviations from what is right, so that the calls that take them go deep.
"""

import array
import contextlib
import datetime
import tempfile
from collections import deque
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import torch
from scipy import sparse


class Holder:
    """Something that can be made an array, or raises what it is given to raise."""

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.asarray(self.values, dtype=dtype)

    def __len__(self):
        return len(self.values)


class Own(np.ndarray):
    """A class of arrays of somebody's own."""


def put(rng, values, value):
    """Put something into one place of a copy, of objects where it must be."""
    values = np.array(values, dtype=float if isinstance(value, float) else object)
    values[tuple(rng.randrange(n) for n in values.shape)] = value
    return values


NUMBERS = [np.nan, np.inf, -np.inf, 1e39, 3.4e38, -3.4e38, 1e300, 1e-45, 1e-310, -0.0]
OBJECTS = [
    *(None, pd.NA, pd.NaT, "red", "1", "", "a\0", b"1", True, 10**400, -(2**63), 2**64, 1j, [1]),
    *(
        (1, 2),
        {},
        {1},
        Decimal("0.5"),
        Fraction(1, 2),
        np.datetime64("2020"),
        np.timedelta64(1, "D"),
    ),
    *(datetime.date(2020, 1, 1), datetime.timedelta(1), object(), np.float32(0.5), np.array([1])),
    *(torch.tensor(1.0), np.ma.masked, int, Ellipsis),
]
DTYPES = [
    *("f2", "f4", "f8", "g", ">f4", ">f8", "i1", "i2", "i4", "i8", ">i8", "u1", "u2", "u4", "u8"),
    *("?", "O", "U8", "S8", "c8", "c16", "M8[ns]", "m8[s]", "M8[D]", "V8"),
]
PANDAS_DTYPES = [
    *("Int8", "Int64", "UInt16", "Float32", "Float64", "boolean", "string", "str", "category"),
    *("object", "Sparse[float64, 0.0]", "Sparse[int64, 0]", "Sparse[float64]", "float32", "int8"),
    *("double[pyarrow]", "float[pyarrow]", "int32[pyarrow]", "bool[pyarrow]", "string[pyarrow]"),
    *("datetime64[ns]", "timedelta64[s]", "complex128", "halffloat[pyarrow]"),
]
POLARS_DTYPES = [
    *(pl.Float64, pl.Float32, pl.Int8, pl.Int64, pl.UInt64, pl.Boolean, pl.String, pl.Categorical),
    *(pl.Int128, pl.Decimal, pl.Datetime, pl.Duration, pl.Object, pl.Null),
]
TORCH_DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8),
    *(torch.bool, torch.complex64, torch.int8, torch.uint16, torch.float8_e4m3fn),
]
FORMATS = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]
NOTHINGS = [
    *(None, 0, 3.0, "", "red", b"red", {}, set(), object(), np.nan, pd.NA, int, Ellipsis, True),
    *([], [[]], (), np.array(1.0), np.empty((0, 0)), pd.DataFrame(), pd.Series(dtype=float)),
]


def _make_unaligned(rng, X):
    X = np.asarray(X, float)
    return np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(float).reshape(X.shape)


def _make_memmap(rng, X):
    with tempfile.TemporaryFile() as file:
        rows = np.memmap(file, np.asarray(X).dtype, "w+", shape=X.shape)
    rows[:] = X
    return rows


def _make_records(rng, X):
    return np.array([tuple(row) for row in X], [(f"f{i}", "f8") for i in range(X.shape[1])])


def _name(rng, n):
    """Draw names of columns: of one kind or several, some of them twice."""
    kinds = [
        [f"c{i}" for i in range(n)],
        [rng.choice("ab") for _ in range(n)],
        list(range(n)),
        [rng.choice([0, "a", None, 1.5, ("a", 1), "", np.nan, pd.NaT]) for _ in range(n)],
        pd.MultiIndex.from_tuples([("a", rng.randrange(3)) for _ in range(n)]),
        pd.date_range("2020", periods=n),
        ["columns", "shape", "dtype", "T", "values"][:n],
    ]
    return rng.choice(kinds)


def _make_frame(rng, X):
    index = rng.choice([None, [0] * len(X), pd.date_range("2020", periods=len(X))])
    return pd.DataFrame(X, columns=_name(rng, X.shape[1]), index=index)


def _convert_some(rng, X):
    """Make a frame of which some columns, or all, have another dtype."""
    frame, dtype = pd.DataFrame(X), rng.choice(PANDAS_DTYPES)
    frame.columns = [f"c{i}" for i in frame]
    if rng.random() < 0.5:
        return _cast(frame, dtype)
    name = rng.choice([*frame])
    return frame.assign(**{name: _cast(frame[name], dtype)})


def _cast(values, dtype):
    is_whole = any(word in dtype.lower() for word in ("int", "bool", "date", "time"))
    values = (3 * values).round() if is_whole and "bool" not in dtype else values
    values = values > 0 if "bool" in dtype else values
    return values.astype(dtype)


def _make_polars(rng, X):
    frame = pl.DataFrame(np.asarray(X, rng.choice(["f8", "f4", "i8", "O"])))
    if rng.random() < 0.6:
        name = rng.choice(frame.columns)
        frame = frame.with_columns(pl.col(name).cast(rng.choice(POLARS_DTYPES), strict=False))
    return frame.lazy() if rng.random() < 0.1 else frame


def _make_arrow(rng, X):
    names = [rng.choice("abcdefg") for _ in X.T]
    make = rng.choice([pa.table, pa.record_batch])
    return make([pa.array(column.tolist()) for column in X.T], names=names)


def _make_sparse(rng, X):
    make = rng.choice([sparse.coo_array, sparse.coo_matrix])
    values = np.where(np.asarray(X) > rng.choice([-1, 0, 1]), X, 0)
    matrix = make(values.astype(rng.choice(["f8", "f8", "f4", "i4", "i8", "?", "u1", "c16"])))
    return matrix.asformat(rng.choice(FORMATS))


# What a compressed sparse matrix is made of.
PARTS = ["indices", "indptr", "data"]


def _damage_sparse(rng, X):
    """Make a matrix whose parts do not fit, are repeated, or in any order."""
    make = rng.choice([sparse.csr_array, sparse.csc_matrix, sparse.bsr_array, sparse.coo_array])
    matrix = make(np.asarray(X, float))
    name = rng.choice(["coords", "data"] if matrix.format == "coo" else PARTS)
    axis = rng.randrange(2)
    part = matrix.coords[axis] if name == "coords" else getattr(matrix, name)
    part = part.copy()
    kind = rng.randrange(5)
    if kind == 0:
        part[rng.randrange(len(part))] = rng.choice([-1, 0, 1, 2, 99, -(2**31)])
    elif kind == 1:
        part = part[: rng.randrange(len(part))]
    elif kind == 2:
        part = part.astype(rng.choice(["i8", "f8", "u4", "O", "f2", "M8[s]", "S3"]))
    elif kind == 3:
        part = part[::-1].copy()
    else:
        part = np.append(part, part[-1:], axis=0)
    if name == "coords":
        part = tuple(part if i == axis else other for i, other in enumerate(matrix.coords))
    setattr(matrix, name, part)
    return matrix


def _make_tensor(rng, X):
    tensor = torch.tensor(np.asarray(X, float)).to(rng.choice(TORCH_DTYPES))
    kind = rng.randrange(8)
    if kind == 0 and tensor.is_floating_point():
        return tensor.requires_grad_()
    if kind == 1 and tensor.ndim == 2:
        return tensor.to_sparse()
    if kind == 2:
        return tensor.to("meta")
    if kind == 3:
        return tensor.cfloat().conj().imag
    if kind == 4 and tensor.ndim == 2:
        return tensor.T.contiguous().T
    if kind == 5 and tensor.ndim == 2:
        return torch.nested.nested_tensor([*tensor.float()])
    if kind == 6:
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)
    return tensor


def _repeat(X, n):
    return np.resize(X, (n, *np.shape(X)[1:]))


# The values of rows, an array of shape (n, d).
CHANGED_ROWS = {
    "a number": lambda rng, X: put(rng, X, rng.choice(NUMBERS)),
    "an object": lambda rng, X: put(rng, X, rng.choice(OBJECTS)),
    "scaled": lambda rng, X: X * rng.choice([1e-40, 1e-30, 1e10, 1e30, 3e38, -1e38]),
    "constant": lambda rng, X: np.full_like(X, rng.choice([0.0, 1.0, 1e38, 1e-45])),
    "whole": lambda rng, X: np.round(3 * X),
    "fewer rows": lambda rng, X: X[: rng.randrange(len(X))],
    "more rows": lambda rng, X: _repeat(X, len(X) + rng.choice([1, 9])),
    "fewer columns": lambda rng, X: X[:, : rng.randrange(X.shape[1])],
    "more columns": lambda rng, X: np.tile(X, 1 + rng.randrange(1, 3)),
    "1-d": lambda rng, X: X[:, 0],
    "3-d": lambda rng, X: X[:, :, np.newaxis],
}
# What holds rows; the values may be those of a valid array or changed ones.
HELD_ROWS = {
    "dtype": lambda rng, X: np.round(4 * X).astype(rng.choice(DTYPES)),
    "floats": lambda rng, X: X.astype(rng.choice(["f2", "f4", "f8", "g", ">f8", "O"])),
    "F order": lambda rng, X: np.asfortranarray(X),
    "strides": lambda rng, X: np.repeat(X, 2, axis=0)[::2],
    "negative strides": lambda rng, X: X[::-1, ::-1],
    "no strides": lambda rng, X: np.broadcast_to(X[:1], X.shape),
    "unaligned": _make_unaligned,
    "memory map": _make_memmap,
    "matrix": lambda rng, X: np.matrix(X),
    "subclass": lambda rng, X: X.view(Own),
    "masked": lambda rng, X: np.ma.array(X, mask=rng.choice([False, True, np.isnan(X), X > 0])),
    "records": _make_records,
    "frame": _make_frame,
    "frame of dtypes": _convert_some,
    "frame of objects": lambda rng, X: _make_frame(rng, X.astype(object)),
    "transposed frame": lambda rng, X: pd.DataFrame(X.T).T,
    "series": lambda rng, X: pd.Series(X[:, 0]),
    "polars": _make_polars,
    "arrow": _make_arrow,
    "sparse": _make_sparse,
    "damaged sparse": _damage_sparse,
    "tensor": _make_tensor,
    "lists": lambda rng, X: X.tolist(),
    "tuples": lambda rng, X: tuple(map(tuple, X.tolist())),
    "list of arrays": lambda rng, X: [*X],
    "list of tensors": lambda rng, X: [*torch.tensor(X.astype(float))],
    "deque": lambda rng, X: deque(X.tolist()),
    "generator": lambda rng, X: (row for row in X.tolist()),
    "ragged": lambda rng, X: [*X.tolist()[:-1], X.tolist()[-1][:-1]],
    "dict": lambda rng, X: {f"c{i}": column.tolist() for i, column in enumerate(X.T)},
    "holder": lambda rng, X: Holder(X),
    "broken holder": lambda rng, X: Holder(X, rng.choice([RuntimeError("no"), KeyError("no")])),
    "nothing": lambda rng, X: rng.choice(NOTHINGS),
}
# The values of labels, an array of shape (n,) or (n, n_labels).
CHANGED_LABELS = {
    "a number": lambda rng, y: put(rng, y, rng.choice(NUMBERS)),
    "an object": lambda rng, y: put(rng, y, rng.choice(OBJECTS)),
    "of another type": lambda rng, y: put(rng, y, rng.choice([0, "a", 0.0, True, 7, "b"])),
    "all alike": lambda rng, y: np.resize(y[:1], y.shape),
    "fewer": lambda rng, y: y[: rng.randrange(len(y))],
    "more": lambda rng, y: _repeat(y, len(y) + 1),
    "continuous": lambda rng, y: np.linspace(0, 1, y.size).reshape(y.shape),
    "all different": lambda rng, y: np.arange(y.size).reshape(y.shape),
    "columns": lambda rng, y: np.stack([y, y], axis=-1),
    "a column": lambda rng, y: y.reshape(-1, 1),
    "one of them": lambda rng, y: y[0],
}
HELD_LABELS = {
    "dtype": lambda rng, y: y.astype(rng.choice(DTYPES)),
    "objects": lambda rng, y: y.astype(object),
    "strides": lambda rng, y: np.repeat(y, 2, axis=0)[::2],
    "masked": lambda rng, y: np.ma.array(y, mask=rng.choice([False, True, y == y[0]])),
    "list": lambda rng, y: y.tolist(),
    "tuple": lambda rng, y: tuple(y.tolist()),
    "deque": lambda rng, y: deque(y.tolist()),
    "generator": lambda rng, y: iter(y.tolist()),
    "set": lambda rng, y: set(y.tolist()),
    "dict": lambda rng, y: dict(enumerate(y.tolist())),
    "bytes of C": lambda rng, y: array.array(rng.choice("bidf"), y.tolist()),
    "view of memory": lambda rng, y: memoryview(y),
    "series": lambda rng, y: pd.Series(y, index=rng.choice([None, [0] * len(y)])),
    "series of a dtype": lambda rng, y: pd.Series(y).astype(rng.choice(PANDAS_DTYPES)),
    "index": lambda rng, y: pd.Index(y),
    "categories": lambda rng, y: pd.Categorical(y, ordered=rng.random() < 0.5),
    "frame": lambda rng, y: pd.DataFrame(y),
    "array of pandas": lambda rng, y: pd.array(y),
    "polars": lambda rng, y: pl.Series(y.tolist()),
    "polars of a dtype": lambda rng, y: pl.Series(y.tolist()).cast(rng.choice(POLARS_DTYPES)),
    "arrow": lambda rng, y: rng.choice([pa.array, lambda v: pa.chunked_array([v])])(y.tolist()),
    "tensor": _make_tensor,
    "sparse": lambda rng, y: _make_sparse(rng, np.atleast_2d(y.astype(float))),
    "damaged sparse": lambda rng, y: _damage_sparse(rng, y > 0),
    "texts": lambda rng, y: np.array([*map(str, y)]),
    "lists of labels": lambda rng, y: [[label] * rng.randrange(3) for label in y],
    "sets of labels": lambda rng, y: [{str(label)} for label in y],
    "holder": lambda rng, y: Holder(y),
    "broken holder": lambda rng, y: Holder(y, OSError("no")),
    "nothing": lambda rng, y: rng.choice(NOTHINGS),
}
CHANGED_WEIGHTS = CHANGED_LABELS | {
    "negative": lambda rng, w: put(rng, w, -1.0),
    "zeros": lambda rng, w: 0 * w,
    "far apart": lambda rng, w: np.geomspace(rng.choice([1e-300, 1e-30]), 1e300, len(w)),
    "a number for all": lambda rng, w: rng.choice([1, 0, -1, np.nan, 0.5, True, "1"]),
    "whole": lambda rng, w: np.round(3 * w),
}


def draw_form(rng, valid, changed, held):
    """Draw something in the place of what is valid; return it, and in words what it is."""
    words, thing = [], valid
    # What cannot be made of these values stays as it was.
    with contextlib.suppress(Exception):
        if rng.random() < 0.5:
            name = rng.choice([*changed])
            thing = changed[name](rng, valid)
            words.append(name)
    with contextlib.suppress(Exception):
        if not words or rng.random() < 0.5:
            name = rng.choice([*held])
            thing = held[name](rng, thing)
            words.append(name)
    return thing, " in ".join(words) or "valid"
