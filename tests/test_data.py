"""Data as users have it: every container and dtype of X and y, and what comes back."""

import enum
import tracemalloc
import warnings
from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
import torch
from packaging.version import Version
from scipy import sparse
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import DataConversionWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from skdisk import MLPDiskEnsemble, make_disk
from skdisk._inputs.rows import check_tensor, warn_of_other_scale, warn_of_scales

RNG = np.random.RandomState(0)
X = RNG.randint(-3, 4, size=(60, 3)).astype(np.float64)
Y = (X.sum(axis=1) > 0).astype(np.int64)
ROWS = RNG.randn(200, 2)
ROWS_LABELS = (ROWS[:, 0] > 0).astype(int)


def as_read_only(X):
    X = X.astype(np.float32)
    X.flags.writeable = False
    return X


def as_memmap(X, tmp_path):
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    return np.load(tmp_path / "X.npy", mmap_mode="r")


NAMES = ["a", "b", "c"]
CONTAINERS = {
    "float64": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "int64": lambda X: X.astype(np.int64),
    "int8": lambda X: X.astype(np.int8),
    "object": lambda X: X.astype(object),
    "list": lambda X: X.tolist(),
    "tuple": lambda X: tuple(map(tuple, X)),
    "Fortran order": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "read-only": as_read_only,
    "DataFrame": lambda X: pd.DataFrame(X, columns=NAMES),
    "DataFrame of several dtypes": lambda X: pd.DataFrame(X, columns=NAMES).astype(
        {"a": "int32", "b": "float32"}
    ),
    "DataFrame with names of methods": lambda X: pd.DataFrame(
        X, columns=["column_names", "iter_columns", "itercolumns"]
    ),
    "nullable Float64": lambda X: pd.DataFrame(X, columns=NAMES).astype("Float64"),
    "nullable Int64": lambda X: pd.DataFrame(X, columns=NAMES).astype("Int64"),
    "Arrow-backed": lambda X: pd.DataFrame(X, columns=NAMES).astype("float[pyarrow]"),
    "Arrow-backed ints": lambda X: pd.DataFrame(X, columns=NAMES).astype("int64[pyarrow]"),
    "polars": lambda X: pl.DataFrame(X, schema=NAMES),
    "nullable Int8 and Float32": lambda X: pd.DataFrame(X, columns=NAMES).astype(
        {"a": "Int8", "b": "Float32"}
    ),
    "categories of ints": lambda X: pd.DataFrame(X.astype(int), columns=NAMES).astype("category"),
    "objects of decimals": lambda X: pd.DataFrame(
        [[Decimal(int(x)) for x in row] for row in X], columns=NAMES
    ),
    "sparse columns": lambda X: pd.DataFrame.sparse.from_spmatrix(
        sparse.csr_array(X), columns=NAMES
    ),
    "sparse columns that leave NaN out": lambda X: pd.DataFrame(X, columns=NAMES).astype(
        "Sparse[float]"
    ),
    "Arrow decimals": lambda X: pd.DataFrame(X, columns=NAMES).astype(
        pd.ArrowDtype(pa.decimal128(5, 2))
    ),
    "Arrow table": lambda X: pa.table(dict(zip(NAMES, X.T, strict=True))),
    "polars of several dtypes": lambda X: pl.DataFrame(X, schema=NAMES).cast({"a": pl.Int8}),
    "longdouble": lambda X: X.astype(np.longdouble),
    "big-endian": lambda X: X.astype(">f4"),
    "masked without a mask": np.ma.array,
    "tensor": torch.tensor,
    "tensor with gradient": lambda X: torch.tensor(X, requires_grad=True),
    "tensor of ints": lambda X: torch.tensor(X).to(torch.int8),
    "tensor of bfloat16": lambda X: torch.tensor(X).bfloat16(),
    "tensor of float8": lambda X: torch.tensor(X).to(torch.float8_e5m2),
    "tensor with a negative bit": lambda X: torch._neg_view(torch.tensor(-X)),
}


@pytest.mark.parametrize("convert", CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_of_X_gives_the_same_fit(make_clf, convert):
    expected = make_clf().fit(X, Y).predict_proba(X)
    clf = make_clf().fit(convert(X), Y)
    np.testing.assert_array_equal(clf.predict_proba(convert(X)), expected)


def test_a_memory_map_gives_the_same_fit(make_clf, tmp_path):
    expected = make_clf().fit(X, Y).predict_proba(X)
    X_map = as_memmap(X, tmp_path)
    np.testing.assert_array_equal(make_clf().fit(X_map, Y).predict_proba(X_map), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", ">f4"])
@pytest.mark.parametrize("fortran_order", [False, True])
def test_a_large_memory_map_is_predicted_without_a_copy(make_clf, tmp_path, dtype, fortran_order):
    wide = np.tile(X, 15)
    clf = make_clf().fit(wide, Y)
    X_map = np.lib.format.open_memmap(
        tmp_path / "X.npy", "w+", dtype, (60_000, 45), fortran_order=fortran_order
    )
    X_map[:] = np.resize(wide, X_map.shape)
    X_map.flush()
    X_map = np.load(tmp_path / "X.npy", mmap_mode="r")
    tracemalloc.start()
    predicted = clf.predict(X_map)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(predicted, np.resize(clf.predict(wide), 60_000))
    size_in_float32 = 60_000 * 45 * 4
    assert peak < size_in_float32 / 2


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_a_large_array_is_checked_before_anything_is_predicted(make_clf, value):
    large = np.resize(X, (20_000, 3))
    large[-1, -1] = value
    clf = make_clf().fit(X, Y)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity or a value too large)"):
        clf.predict(large)
    with pytest.raises(ValueError, match="X has 2 features, but MLPDiskClassifier is expecting 3"):
        clf.predict(large[:, :2])


def test_bools_are_numbers(make_clf):
    expected = make_clf().fit((X > 0).astype(float), Y).predict_proba(X > 0)
    np.testing.assert_array_equal(make_clf().fit(X > 0, Y).predict_proba(X > 0), expected)


@pytest.mark.parametrize("name", ["DataFrame", "nullable Int64", "Arrow-backed", "polars"])
def test_column_names_are_kept_and_checked(make_clf, name):
    frame = CONTAINERS[name](X)
    if name == "polars" and Version(sklearn.__version__) < Version("1.9"):
        pytest.skip("scikit-learn 1.8 asks for names in a way that polars 2 does not know")
    clf = make_clf().fit(frame, Y)
    assert clf.feature_names_in_.tolist() == NAMES
    with pytest.raises(ValueError, match="must be in the same order"):
        clf.predict(frame[["b", "a", "c"]])
    with pytest.raises(ValueError, match="Feature names unseen at fit time"):
        clf.predict(frame.rename({"a": "z"}, **({} if name == "polars" else {"axis": 1})))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        clf.predict(X)


def test_the_input_is_not_changed(make_clf):
    for convert in (CONTAINERS["float32"], CONTAINERS["DataFrame"]):
        data = convert(X)
        before = np.array(data, copy=True)
        make_clf().fit(data, Y).predict(data)
        np.testing.assert_array_equal(data, before)


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


def as_list(labels):
    """List labels as Python has them, of whatever holds them."""
    if isinstance(labels, (torch.Tensor, pa.Array)):
        return labels.tolist()
    if isinstance(labels, pd.Categorical):
        return labels.astype(object).tolist()
    return [label.item() if hasattr(label, "item") else label for label in labels]


# Labels as they come in, for the values 0 and 1 of Y; and the dtype that predict returns.
LABELS = {
    "int64": (lambda y: y, np.dtype("int64")),
    "int8": (lambda y: y.astype(np.int8), np.dtype("int8")),
    "uint16": (lambda y: y.astype(np.uint16), np.dtype("uint16")),
    "bool": (lambda y: y.astype(bool), np.dtype("bool")),
    "float64": (lambda y: y.astype(float), np.dtype("float64")),
    "big-endian": (lambda y: y.astype(">i4"), np.dtype("int32")),
    "0 and 2": (lambda y: 2 * y, np.dtype("int64")),
    "-1 and 1": (lambda y: 2 * y - 1, np.dtype("int64")),
    "str": (lambda y: np.array(["no", "yes"])[y], np.dtype("<U3")),
    "object": (lambda y: np.array(["no", "yes"], dtype=object)[y], np.dtype("O")),
    "list": (lambda y: y.tolist(), np.dtype("int64")),
    "list of str": (lambda y: np.array(["no", "yes"])[y].tolist(), np.dtype("<U3")),
    "Series": (pd.Series, np.dtype("int64")),
    "Series of str": (lambda y: pd.Series(y).map({0: "no", 1: "yes"}), np.dtype("O")),
    "Categorical": (lambda y: pd.Series(y).map({0: "b", 1: "a"}).astype("category"), None),
    "Categorical of ints": (lambda y: pd.Categorical(y), np.dtype("int64")),
    "nullable Int64": (lambda y: pd.Series(y, dtype="Int64"), np.dtype("int64")),
    "nullable Int8": (lambda y: pd.Series(y, dtype="Int8"), np.dtype("int8")),
    "nullable boolean": (lambda y: pd.Series(y, dtype="boolean"), np.dtype("bool")),
    "Arrow int64": (lambda y: pd.Series(y, dtype="int64[pyarrow]"), np.dtype("int64")),
    "Arrow bool": (lambda y: pd.Series(y == 1, dtype="bool[pyarrow]"), np.dtype("bool")),
    "Arrow string": (
        lambda y: pd.Series(np.array(["no", "yes"])[y], dtype="string[pyarrow]"),
        np.dtype("O"),
    ),
    "polars Series": (pl.Series, np.dtype("int64")),
    "tensor": (torch.tensor, np.dtype("int64")),
    "float16": (lambda y: y.astype(np.float16), np.dtype("float16")),
    "big-endian float16": (lambda y: y.astype(">f2"), np.dtype("float16")),
    "longdouble": (lambda y: y.astype(np.longdouble), np.dtype("float64")),
    "uint64 beyond int64": (lambda y: y.astype(np.uint64) + 2**63, np.dtype("uint64")),
    "ints in an object array": (lambda y: y.astype(object), np.dtype("int64")),
    "bools in an object array": (lambda y: y.astype(bool).astype(object), np.dtype("bool")),
    "NumPy's bools in an object array": (
        lambda y: np.array([np.bool_(label) for label in y] + [None])[:-1],
        np.dtype("bool"),
    ),
    "whole floats in an object array": (lambda y: (y / 1).astype(object), np.dtype("float64")),
    "ints and bools in an object array": (
        lambda y: np.array([True, 2], object)[y],
        np.dtype("int64"),
    ),
    "an object column of a frame": (
        lambda y: pd.DataFrame({"a": "text", "y": y}).to_numpy()[:, -1],
        np.dtype("int64"),
    ),
    "IntEnum": (lambda y: np.array(list(Size), object)[y], np.dtype("int64")),
    "strings of variable width": (
        lambda y: np.array(["no", "yes"], dtype=np.dtypes.StringDType())[y],
        np.dtype("O"),
    ),
    "dates": (lambda y: y.astype("M8[D]"), np.dtype("M8[D]")),
    "durations": (lambda y: y.astype("m8[s]"), np.dtype("m8[s]")),
    "list of bools": (lambda y: (y == 1).tolist(), np.dtype("bool")),
    "deque of strings": (lambda y: deque(y.astype(str).tolist()), np.dtype("<U1")),
    "strings that end with a null character": (
        lambda y: [["a", "a\0"][label] for label in y],
        np.dtype("O"),
    ),
    "strings that differ behind a null character": (
        lambda y: np.array(["a\0b", "a\0c"])[y],
        np.dtype("<U3"),
    ),
    "list of ints and floats": (lambda y: [[0, 1.0][label] for label in y], np.dtype("float64")),
    "list of tensors": (lambda y: list(torch.tensor(y)), np.dtype("int64")),
    "nullable UInt8": (lambda y: pd.Series(y, dtype="UInt8"), np.dtype("uint8")),
    "nullable Float32": (lambda y: pd.Series(y, dtype="Float32"), np.dtype("float32")),
    "nullable string": (lambda y: pd.Series(y.astype(str), dtype="string"), np.dtype("O")),
    "Categorical of bools": (lambda y: pd.Categorical(y == 1), np.dtype("bool")),
    "Categorical of int8": (lambda y: pd.Categorical(y.astype(np.int8)), np.dtype("int8")),
    "Categorical of nullable bools": (
        lambda y: pd.Series(y, dtype="boolean").astype("category"),
        np.dtype("bool"),
    ),
    "Categorical with a category that no row has": (
        lambda y: pd.Categorical(y, categories=[1, 5, 0]),
        np.dtype("int64"),
    ),
    "sparse bools": (lambda y: pd.Series(pd.arrays.SparseArray(y == 1)), np.dtype("bool")),
    "datetimes": (lambda y: pd.Series(y.astype("M8[us]")), np.dtype("M8[us]")),
    "Arrow float16": (lambda y: pd.Series(y, dtype="float16[pyarrow]"), np.dtype("float16")),
    "Arrow float": (lambda y: pd.Series(y, dtype="float[pyarrow]"), np.dtype("float32")),
    "Arrow large string": (
        lambda y: pd.Series(y.astype(str), dtype=pd.ArrowDtype(pa.large_string())),
        np.dtype("O"),
    ),
    "Arrow dictionary": (
        lambda y: pd.Series(
            pd.arrays.ArrowExtensionArray(pa.array(y.astype(str)).dictionary_encode())
        ),
        np.dtype("O"),
    ),
    "Arrow array": (pa.array, np.dtype("int64")),
    "polars bools": (lambda y: pl.Series(y == 1), np.dtype("bool")),
    "polars categories": (
        lambda y: pl.Series(y.astype(str)).cast(pl.Categorical),
        np.dtype("O"),
    ),
    "tensor of bools": (lambda y: torch.tensor(y == 1), np.dtype("bool")),
    "tensor of uint8": (lambda y: torch.tensor(y).to(torch.uint8), np.dtype("uint8")),
    "tensor of float16": (lambda y: torch.tensor(y).half(), np.dtype("float16")),
    "tensor of bfloat16": (lambda y: torch.tensor(y).bfloat16(), np.dtype("float32")),
    "tensor with a negative bit": (
        lambda y: torch._neg_view(torch.tensor(-y)),
        np.dtype("int64"),
    ),
}


@pytest.mark.parametrize(("convert", "dtype"), LABELS.values(), ids=LABELS)
def test_predict_returns_labels_as_they_came_in(make_clf, convert, dtype):
    labels = convert(Y)
    clf = make_clf(max_epochs=100).fit(X, labels, X_val=X, y_val=labels)
    assert clf.classes_.tolist() == sorted(set(as_list(labels)))
    assert clf.predict(X).tolist() == clf.classes_[clf.predict_proba(X).argmax(axis=1)].tolist()
    right = [p == label for p, label in zip(clf.predict(X), as_list(labels), strict=True)]
    assert clf.score(X, labels) == np.mean(right) > 0.9
    assert clf.partial_fit(X, labels, classes=clf.classes_).n_iter_ == 101
    if dtype is not None:
        assert clf.classes_.dtype == clf.predict(X).dtype == dtype
    ensemble = MLPDiskEnsemble(make_clf(), 2, random_state=0).fit(X, labels)
    assert ensemble.classes_.dtype == ensemble.predict(X).dtype == clf.classes_.dtype
    right = [p == label for p, label in zip(ensemble.predict(X), as_list(labels), strict=True)]
    assert ensemble.score(X, labels) == np.mean(right)


# Labels of every kind; `score` compares those of one kind only.
KINDS = {
    "numbers": Y,
    "strings": np.array(["no", "yes"])[Y],
    "dates": Y.astype("M8[D]"),
    "durations": Y.astype("m8[h]"),
}


@pytest.mark.parametrize("fitted", KINDS)
@pytest.mark.parametrize("scored", KINDS)
@pytest.mark.parametrize("is_ensemble", [False, True])
def test_labels_of_another_kind_have_no_score(make_clf, fitted, scored, is_ensemble):
    clf = MLPDiskEnsemble(make_clf(), n_members=2) if is_ensemble else make_clf()
    clf.fit(X, KINDS[fitted])
    if fitted == scored:
        assert clf.score(X, KINDS[scored]) == np.mean(clf.predict(X) == KINDS[scored])
        return
    match = f"y has labels that are {scored}, of dtype .* the classes of the fit are {fitted}"
    with pytest.raises(ValueError, match=match):
        clf.score(X, KINDS[scored])


@pytest.mark.parametrize("name", ["Categorical", "nullable boolean", "Arrow string", "tensor"])
def test_an_ensemble_scores_labels_as_they_came_in(make_clf, name):
    labels = LABELS[name][0](Y)
    ensemble = MLPDiskEnsemble(make_clf(max_epochs=100), n_members=2, random_state=0)
    ensemble.fit(X, labels)
    right = [p == label for p, label in zip(ensemble.predict(X), as_list(labels), strict=True)]
    assert ensemble.score(X, labels) == np.mean(right) > 0.9


def test_labels_that_were_not_seen_are_predicted_wrongly(make_clf):
    clf = make_clf().fit(X, Y)
    assert clf.score(X, Y + 2) == 0
    with pytest.raises(ValueError, match="Input y contains NaN"):
        clf.score(X, np.where(Y, 1.0, np.nan))


NUMBERS = {
    "bool": lambda y: y.astype(bool),
    "object bool": lambda y: y.astype(bool).astype(object),
    "nullable boolean": lambda y: pd.Series(y, dtype="boolean"),
    "int64": lambda y: y,
    "uint8": lambda y: y.astype(np.uint8),
    "float16": lambda y: y.astype(np.float16),
    "float64": lambda y: y.astype(np.float64),
}


@pytest.mark.parametrize("first", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("other", NUMBERS.values(), ids=NUMBERS)
def test_numbers_and_bools_that_are_equal_are_the_same_label(make_clf, get_weights, first, other):
    labels, others = first(Y), other(Y)
    clf = make_clf().fit(X, labels, X_val=X, y_val=others)
    expected = make_clf().fit(X, labels, X_val=X, y_val=labels)
    assert clf.validation_loss_curve_ == expected.validation_loss_curve_
    assert clf.score(X, others) == clf.score(X, labels)
    clf.partial_fit(X, others, classes=other(np.arange(2)))
    expected.partial_fit(X, labels)
    assert all(map(np.array_equal, get_weights(clf), get_weights(expected)))
    assert clf.classes_.dtype == expected.classes_.dtype


@pytest.mark.parametrize(
    "classes",
    [["cat", "dog", "snake"], [10, 20, 30], [-5, 0, 5], ["b", "a", "c"]],
    ids=str,
)
def test_columns_of_probabilities_follow_classes(make_clf, classes):
    positions = np.digitize(X[:, 0], [-1, 2])
    clf = make_clf(max_epochs=100).fit(X, np.array(classes)[positions])
    assert clf.classes_.tolist() == sorted(classes)
    proba = clf.predict_proba(X)
    assert proba.shape == (60, 3)
    np.testing.assert_array_equal(clf.classes_[proba.argmax(axis=1)], clf.predict(X))
    assert clf.score(X, np.array(classes)[positions]) > 0.9


@pytest.mark.parametrize("label", ["only", 3, True])
def test_a_single_class_is_predicted(make_clf, label):
    clf = make_clf().fit(X, np.full(60, label))
    assert clf.classes_.tolist() == [label]
    assert (clf.predict(X) == label).all()
    assert (clf.predict_proba(X) == 1).all()


def test_a_column_of_labels_is_taken_with_the_warning_of_scikit_learn(make_clf):
    for column in (
        Y[:, np.newaxis],
        pd.DataFrame({"y": Y}),
        pd.DataFrame({"y": Y}, dtype="Int64"),
    ):
        with pytest.warns(DataConversionWarning, match="column-vector"):
            assert make_clf().fit(X, column).classes_.dtype == np.int64


@pytest.mark.parametrize(
    "classes", [[0, 1, 2], np.array(["no", "yes", "maybe"]), pd.Series([2, 0, 1], dtype="Int64")]
)
def test_partial_fit_knows_classes_that_have_not_occurred(make_clf, classes):
    names = np.sort(np.asarray(classes, dtype=np.asarray(classes).dtype))
    clf = make_clf().partial_fit(X, names[Y], classes=classes)
    assert clf.classes_.tolist() == names.tolist()
    assert clf.predict_proba(X).shape == (60, 3)
    clf.partial_fit(X, names[np.full(60, 2)])
    clf.partial_fit(X, names[Y], classes=classes)
    assert clf.n_iter_ == 3


def test_labels_of_another_kind_than_the_classes_are_unknown(make_clf):
    clf = make_clf().partial_fit(X, np.arange(60), classes=np.arange(100))
    with pytest.raises(ValueError, match=r"not among the classes .*: \['0', '1', '2', '3', '4'\]"):
        clf.partial_fit(X, np.arange(60).astype(str))
    with pytest.raises(ValueError, match="and 55 more"):
        clf.partial_fit(X, np.arange(60).astype(str))


def test_a_sparse_column_of_labels(make_clf):
    labels = pd.Series(pd.arrays.SparseArray(Y))
    assert make_clf().fit(X, labels).classes_.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_data_set_smaller_than_a_batch(make_clf, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = make_clf(batch_size=1000).fit(X[:1].astype(dtype), ["a"])
    assert clf.predict(X[:2]).tolist() == ["a", "a"]


def test_a_tensor_on_an_accelerator_is_checked_where_it_is():
    # On the CPU tensors take another way; the checks are the same wherever a tensor lies.
    assert check_tensor(torch.tensor(X)).dtype == torch.float32
    X_float = torch.tensor(X, dtype=torch.float32)
    assert check_tensor(X_float).data_ptr() == X_float.data_ptr()
    for bad, match in (
        (torch.full((2, 3), torch.nan), "Input X contains NaN"),
        (torch.full((2, 3), 1e200, dtype=torch.float64), "too large for dtype"),
        (torch.ones(3), r"X must be a dense 2D tensor .* \(3,\)"),
        (torch.ones(0, 3), r"at least one row .* \(0, 3\)"),
        (torch.ones(2, 3) + 1j, "tensor of real numbers .* torch.complex64"),
        (torch.ones(2, 3).to_sparse(), "a dense 2D tensor .* torch.sparse_coo"),
    ):
        with pytest.raises(ValueError, match=match):
            check_tensor(bad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_on_cuda_stays_there(make_clf, monkeypatch):
    X_cuda = torch.tensor(X, dtype=torch.float32, device="cuda")
    to_cpu = torch.Tensor.cpu

    def refuse_the_rows(tensor):
        assert tensor.numel() < X.size
        return to_cpu(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", refuse_the_rows)
    clf = make_clf(device="cuda").fit(X_cuda, Y)
    with pytest.raises(ValueError, match="X has 2 features, but MLPDisk"):
        clf.predict(X_cuda[:, :2])
    monkeypatch.undo()
    np.testing.assert_allclose(clf.predict_proba(X_cuda), clf.predict_proba(X), atol=1e-6)


def test_the_device_auto_is_an_accelerator_or_the_cpu(make_clf):
    clf = make_clf(device="auto").fit(X, Y)
    expected = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    assert next(clf.module_.parameters()).device.type == expected.type


def test_the_device_auto_is_the_cpu_where_an_accelerator_cannot_be_used(
    make_clf, broken_accelerator
):
    clf = make_clf(device="auto").fit(X, Y)
    assert next(clf.module_.parameters()).device.type == "cpu"


# Features as users have them, times what, plus what; and what the warning says.
SCALES = {
    "all 1e4 times too large": (1e4, 0, "large or far from 0: .* of the column [01] is .*e"),
    "all 30 times too large": (30, 0, "large or far from 0: .* more than 20"),
    "all 1e-3": (1e-3, 0, "are small: .* lengths is 0.00.*, less than 0.1"),
    "all 0.05": (0.05, 0, "are small"),
    "one far from 0": (1, [0, 1000], "large or far from 0: .* of the column 1 is 1e.03"),
    "years": ([1, 5], [0, 2000], "large or far from 0: .* of the column 1 is 2e.03"),
    "scales apart": ([1, 1e4], 0, "very different scales: .* range from .* to "),
    "the smallest numbers": (1e-40, 0, "are small"),
}


@pytest.mark.parametrize(("factor", "offset", "match"), SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array, torch.tensor])
def test_features_on_a_bad_scale_get_one_warning(make_clf, factor, offset, match, convert):
    rows = convert(ROWS * factor + offset)
    for method, kwargs in (("fit", {}), ("partial_fit", {"classes": [0, 1]})):
        with pytest.warns(UserWarning, match=f"The features .*{match}.*StandardScaler") as caught:
            getattr(make_clf(lr=1e-12), method)(rows, ROWS_LABELS, **kwargs)
        assert len(caught) == 1
        assert caught[0].filename == __file__


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array, torch.tensor])
@pytest.mark.parametrize(
    ("factor", "match"), [(1e38, "large or far from 0"), (1e-40, "are small")], ids=str
)
def test_the_scales_of_all_floats_are_seen(convert, factor, match):
    rows = convert((ROWS.clip(-3, 3) * factor).astype(np.float32))
    with pytest.warns(UserWarning, match=match) as caught:
        warn_of_scales(rows)
    assert len(caught) == 1


GOOD = {
    "standardised": StandardScaler().fit_transform(load_wine().data),
    "between 0 and 1": MinMaxScaler().fit_transform(load_wine().data),
    "robustly scaled": RobustScaler().fit_transform(load_iris().data),
    "iris": load_iris().data,
    "pixels of 0 to 16": load_digits().data,
    "the disk": make_disk(200, random_state=0)[0],
    "a table of truth": np.array([[0, 0], [0, 1], [1, 0], [1, 1]]),
    "rare bits": RNG.uniform(size=(200, 30)) < 0.02,
    "one-hot": np.eye(100)[RNG.randint(0, 100, 300)],
    "words": TfidfTransformer().fit_transform(RNG.poisson(0.01, size=(200, 3000))),
    "counts of words": sparse.csr_array(RNG.poisson(0.01, size=(200, 3000))),
    "zeros": np.zeros((20, 2)),
}


@pytest.mark.parametrize("rows", GOOD.values(), ids=GOOD)
def test_features_on_a_good_scale_get_no_warning(make_clf, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_clf(max_epochs=1, lr=1e-12).fit(rows, np.arange(rows.shape[0]) % 2)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array, torch.tensor])
@pytest.mark.parametrize(
    ("X_train", "X_val"),
    [
        (lambda X: X, lambda X: 5 + 3 * X),
        (lambda X: X, lambda X: np.add(X, [0, 8])),
        (lambda X: 10 * X, lambda X: X / 10),
        (lambda X: X, lambda X: 15 * X),
    ],
    ids=["raw", "one column raw", "only the validation scaled", "larger"],
)
def test_validation_data_on_another_scale_get_a_warning(make_clf, convert, X_train, X_val):
    rows, labels = ROWS[:150], ROWS_LABELS[:150]
    match = r'X_val is on another scale than X: .*Pipeline\(.*transform_input=\["X_val"\]\)'
    with pytest.warns(UserWarning, match=match) as caught:
        make_clf(lr=1e-12).fit(
            convert(X_train(rows)),
            labels,
            X_val=convert(X_val(ROWS[150:])),
            y_val=ROWS_LABELS[150:],
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_pipeline_that_does_not_transform_the_validation_data_is_told(make_clf):
    clf = make_clf(early_stopping=True, n_iter_no_change=1)
    with pytest.warns(UserWarning, match="X_val is on another scale than X"):
        make_pipeline(StandardScaler(), clf).fit(
            100 + 50 * ROWS,
            ROWS_LABELS,
            mlpdiskclassifier__X_val=100 + 50 * ROWS,
            mlpdiskclassifier__y_val=ROWS_LABELS,
        )


DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.randn(*shape),
    "lognormal": lambda rng, shape: np.exp(2 * rng.randn(*shape)),
    "Cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "rare bits": lambda rng, shape: rng.uniform(size=shape) < 0.05,
    "counts": lambda rng, shape: rng.poisson(0.1, shape),
    "two heaps": lambda rng, shape: rng.choice([-10, 10], shape) + rng.randn(*shape),
    "constant": lambda rng, shape: np.full(shape, 1.1),
}


@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize("n_rows", [20, 30, 200])
def test_a_random_part_of_the_data_is_on_no_other_scale(draw, n_rows):
    for seed in range(20):
        rows = draw(np.random.RandomState(seed), (n_rows + 20, 40)).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_of_other_scale(rows[:n_rows], rows[n_rows:])
            warn_of_other_scale(rows[:n_rows], rows[n_rows : n_rows + 1])
