"""Data as users have it: every container and dtype of X and y, and what comes back."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.exceptions import DataConversionWarning

from skdisk._data import check_tensor

RNG = np.random.RandomState(0)
X = RNG.randint(-3, 4, size=(60, 3)).astype(np.float64)
Y = (X.sum(axis=1) > 0).astype(np.int64)


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
    "nullable Float64": lambda X: pd.DataFrame(X, columns=NAMES).astype("Float64"),
    "nullable Int64": lambda X: pd.DataFrame(X, columns=NAMES).astype("Int64"),
    "Arrow-backed": lambda X: pd.DataFrame(X, columns=NAMES).astype("float[pyarrow]"),
    "Arrow-backed ints": lambda X: pd.DataFrame(X, columns=NAMES).astype("int64[pyarrow]"),
    "polars": lambda X: pl.DataFrame(X, schema=NAMES),
    "tensor": torch.tensor,
    "tensor with gradient": lambda X: torch.tensor(X, requires_grad=True),
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


def test_bools_are_numbers(make_clf):
    expected = make_clf().fit((X > 0).astype(float), Y).predict_proba(X > 0)
    np.testing.assert_array_equal(make_clf().fit(X > 0, Y).predict_proba(X > 0), expected)


@pytest.mark.parametrize("name", ["DataFrame", "nullable Int64", "Arrow-backed", "polars"])
def test_column_names_are_kept_and_checked(make_clf, name):
    frame = CONTAINERS[name](X)
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
}


@pytest.mark.parametrize(("convert", "dtype"), LABELS.values(), ids=LABELS)
def test_predict_returns_labels_as_they_came_in(make_clf, convert, dtype):
    labels = convert(Y)
    clf = make_clf(max_epochs=100).fit(X, labels)
    assert clf.score(X, np.asarray(labels)) > 0.9
    assert set(clf.predict(X)) == set(np.asarray(labels).tolist())
    if dtype is not None:
        assert clf.classes_.dtype == clf.predict(X).dtype == dtype


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


def test_a_tensor_on_an_accelerator_is_checked_where_it_is(make_clf):
    # On the CPU tensors take another way; the checks are the same wherever a tensor lies.
    estimator = make_clf()
    X_checked, y_checked = check_tensor(estimator, torch.tensor(X), pd.Series(Y), reset=True)
    assert X_checked.dtype == torch.float32
    assert estimator.n_features_in_ == 3
    np.testing.assert_array_equal(y_checked, Y)
    X_float = torch.tensor(X, dtype=torch.float32)
    assert check_tensor(estimator, X_float, reset=False).data_ptr() == X_float.data_ptr()
    for bad, match in (
        (torch.full((2, 3), torch.nan), "Input X contains NaN"),
        (torch.full((2, 3), 1e200, dtype=torch.float64), "too large for dtype"),
        (torch.ones(3), r"Expected a 2D tensor .* \(3,\)"),
        (torch.ones(0, 3), r"at least one row .* \(0, 3\)"),
        (torch.ones(2, 3) + 1j, "Complex data not supported"),
        (torch.ones(2, 4), "X has 4 features, but MLPDiskClassifier is expecting 3 features"),
    ):
        with pytest.raises(ValueError, match=match):
            check_tensor(estimator, bad, reset=False)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check_tensor(estimator, X_float, Y[:-1], reset=True)
    with pytest.raises(ValueError, match="requires y to be passed"):
        check_tensor(estimator, X_float, None, reset=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_on_cuda_stays_there(make_clf, monkeypatch):
    X_cuda = torch.tensor(X, dtype=torch.float32, device="cuda")
    to_cpu = torch.Tensor.cpu

    def refuse_the_rows(tensor):
        assert tensor.numel() < X.size
        return to_cpu(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", refuse_the_rows)
    clf = make_clf(device="cuda").fit(X_cuda, Y)
    monkeypatch.undo()
    np.testing.assert_allclose(clf.predict_proba(X_cuda), clf.predict_proba(X), atol=1e-6)


def test_the_device_auto_is_an_accelerator_or_the_cpu(make_clf):
    clf = make_clf(device="auto").fit(X, Y)
    expected = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    assert next(clf.module_.parameters()).device.type == expected.type
