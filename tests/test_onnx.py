"""`skdisk.onnx`: skl2onnx converts our estimators; onnxruntime computes what they compute."""

import enum
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from skl2onnx import to_onnx
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)

import skdisk.onnx
from skdisk import MLPDiskClassifier, MLPDiskEnsemble
from skdisk._network.mlp import ACTIVATIONS

CLF = MLPDiskClassifier((16, 8), max_epochs=5, random_state=0)
ENSEMBLE = MLPDiskEnsemble(CLF, n_members=3, random_state=0)
X = np.random.default_rng(0).normal(1, 2, (120, 4)).astype(np.float32)
N = np.random.default_rng(1).integers(0, 3, 120)
LABELS = {
    "one class": np.full(120, "only"),
    "two classes": np.where(N > 0, "naïve", "b"),
    "many classes": np.random.default_rng(2).permutation(np.arange(120) % 20).astype(str),
    "objects": np.array(["a", "b", "c"], dtype=object)[N],
    "pandas": pd.Series(np.array(["a", "b", "c"])[N], dtype="category"),
    "large ints": N * 10**12,
    "bools": N > 0,
    "floats": N.astype(float),
    "several a row": (N[:, None] >> [0, 1]) & 1,
}


@pytest.fixture(autouse=True)
def registered():
    skdisk.onnx.register()


def start(model, rows, options=None, opset=None):
    """Convert, check, and start onnxruntime."""
    opset = opset and {"": opset, "ai.onnx.ml": 1}
    options = options or {"zipmap": False}
    converted = to_onnx(model, rows[:1], options=options, target_opset=opset)
    onnx.checker.check_model(converted, full_check=True)
    return onnxruntime.InferenceSession(converted.SerializeToString())


def check(model, rows, options=None, opset=None):
    """Check that onnxruntime gives the labels and the probabilities of a fitted model."""
    label, proba = start(model, rows, options, opset).run(None, {"X": rows})
    np.testing.assert_array_equal(label, model.predict(rows))
    np.testing.assert_allclose(proba, model.predict_proba(rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("opset", [12, None], ids=["old opset", "new opset"])
def test_every_activation(activation, opset):
    clf = clone(CLF).set_params(activation=activation).fit(X, N)
    check(clf, X, opset=opset)


@pytest.mark.parametrize("estimator", [CLF, ENSEMBLE], ids=["classifier", "ensemble"])
@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels_of_every_kind(estimator, y):
    check(clone(estimator).fit(X, y), X)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        MinMaxScaler(),
        MaxAbsScaler(),
        RobustScaler(),
        Normalizer(),
    ],
    ids=lambda scaler: type(scaler).__name__,
)
def test_pipelines_with_any_scaler(scaler, dtype):
    rows = X.astype(dtype)
    check(make_pipeline(scaler, clone(CLF)).fit(rows, LABELS["objects"]), rows)


@pytest.mark.parametrize("hidden_layer_sizes", [(), (5,), (4, 5, 6)], ids=str)
def test_networks_of_any_depth_take_any_number_of_rows(hidden_layer_sizes):
    clf = clone(CLF).set_params(hidden_layer_sizes=hidden_layer_sizes).fit(X, N)
    session = start(clf, X)
    assert [output.shape for output in session.get_outputs()] == [[None], [None, 3]]
    for n_rows in (1, 7, 120):
        proba = session.run(["probabilities"], {"X": X[:n_rows]})[0]
        np.testing.assert_allclose(proba, clf.predict_proba(X[:n_rows]), rtol=0, atol=1e-6)


def test_zipmap_maps_labels_to_probabilities():
    pipeline = make_pipeline(StandardScaler(), clone(CLF)).fit(X, LABELS["objects"])
    proba = pipeline.predict_proba(X)
    maps = start(pipeline, X, {"zipmap": True}).run(None, {"X": X})[1]
    assert list(maps[0]) == ["a", "b", "c"]
    np.testing.assert_allclose(pd.DataFrame(maps), proba, rtol=0, atol=1e-6)
    _, *columns = start(pipeline, X, {"zipmap": "columns"}).run(None, {"X": X})
    np.testing.assert_allclose(np.stack(columns, axis=1), proba, rtol=0, atol=1e-6)
    [*_, classes] = start(pipeline, X, {"zipmap": False, "output_class_labels": True}).run(
        None, {"X": X}
    )
    assert classes.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("estimator", [CLF, ENSEMBLE], ids=["classifier", "ensemble"])
@pytest.mark.parametrize("name", ["one class", "two classes", "many classes", "several a row"])
def test_raw_scores_are_those_of_decision_function(estimator, name):
    pipeline = make_pipeline(StandardScaler(), clone(estimator)).fit(X, LABELS[name])
    options = {id(pipeline[-1]): {"zipmap": False, "raw_scores": True}}
    for opset in (12, None):
        label, scores = start(pipeline, X, options, opset).run(None, {"X": X})
        expected = pipeline.decision_function(X)
        if name == "two classes":
            expected = np.stack([-expected, expected], axis=1)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(label, pipeline.predict(X))


def test_several_labels_a_row_have_a_column_each():
    clf = clone(CLF).fit(X, LABELS["several a row"])
    session = start(clf, X)
    assert [output.shape for output in session.get_outputs()] == [[None, 2], [None, 2]]
    maps = start(clf, X, {"zipmap": True}).run(None, {"X": X})[1]
    assert list(maps[0]) == [0, 1]
    np.testing.assert_allclose(pd.DataFrame(maps), clf.predict_proba(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: CalibratedClassifierCV(clf, cv=3),
        lambda clf: BaggingClassifier(clf, n_estimators=2, random_state=0),
        lambda clf: VotingClassifier(
            [("net", clf), ("linear", LogisticRegression())],
            voting="soft",
            flatten_transform=False,
        ),
        lambda clf: StackingClassifier([("net", clf), ("linear", LogisticRegression())], cv=3),
        OneVsRestClassifier,
    ],
    ids=["calibrated", "bagging", "voting", "stacking", "one-vs-rest"],
)
@pytest.mark.parametrize("name", ["two classes", "objects"])
def test_inside_what_scikit_learn_makes_of_classifiers(wrap, name):
    check(make_pipeline(StandardScaler(), wrap(CLF)).fit(X, LABELS[name]), X)


def test_an_ensemble_of_pipelines_takes_the_columns_of_a_frame():
    frame = pd.DataFrame(X, columns=[*"abcd"])
    frame["color"] = np.array(["red", "green", "blue"], dtype=object)[N[::-1]]
    columns = make_column_transformer(
        (StandardScaler(), [*"abcd"]), (OneHotEncoder(sparse_output=False), ["color"])
    )
    members = [make_pipeline(columns, CLF), make_pipeline(columns, StandardScaler(), CLF)]
    ensemble = MLPDiskEnsemble(members, 3, random_state=0).fit(frame, N)
    converted = to_onnx(ensemble, frame[:1], options={"zipmap": False})
    session = onnxruntime.InferenceSession(converted.SerializeToString())
    label, proba = session.run(None, {name: frame[[name]].to_numpy() for name in frame})
    np.testing.assert_array_equal(label, ensemble.predict(frame))
    np.testing.assert_allclose(proba, ensemble.predict_proba(frame), rtol=0, atol=1e-6)


# torch.export copies its own deprecated class.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
def test_the_page_of_the_documentation_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "guide" / "onnx.md").read_text()
    first, second, third = re.findall("(?s)```python\n(.*?)```", page)
    names = {}
    for block in (first, second):
        exec(block, names)
    expected = names["pipeline"].predict_proba(names["X"])
    np.testing.assert_array_equal(names["label"], names["pipeline"].predict(names["X"]))
    np.testing.assert_allclose(names["probabilities"], expected, rtol=0, atol=1e-6)
    del names["probabilities"]
    exec(third, names)
    np.testing.assert_allclose(names["probabilities"], expected, rtol=0, atol=1e-6)
    onnx.checker.check_model("network.onnx", full_check=True)
    scaled = names["pipeline"][:-1].transform(names["X"])
    for n_rows in (1, 7):
        [proba] = names["session"].run(None, {"X": scaled[:n_rows]})
        np.testing.assert_allclose(proba, expected[:n_rows], rtol=0, atol=1e-6)


def test_a_network_that_somebody_has_changed_is_refused():
    clf = clone(CLF).fit(X, N)
    clf.module_.layers[1] = torch.nn.Hardtanh()
    with pytest.raises(TypeError, match=r"(?s)has been replaced or changed.*Hardtanh.*Fit it"):
        to_onnx(clf, X[:1])


class Place(str, enum.Enum):  # noqa: UP042 - a StrEnum shows its strings
    """Strings whose names are not what they are."""

    INSIDE = "in"
    OUTSIDE = "out"


def test_labels_that_are_an_enum_are_their_strings():
    clf = clone(CLF).fit(X, [[Place.INSIDE, Place.OUTSIDE][n % 2] for n in N])
    labels, _ = start(clf, X, {"zipmap": False}).run(None, {"X": X.astype(np.float32)})
    assert labels.tolist() == [label.value for label in clf.predict(X)]


def test_labels_beyond_int64_are_refused():
    clf = clone(CLF).fit(X, (N % 2).astype(np.uint64) + np.uint64(2**63))
    with pytest.raises(
        TypeError, match=r"Numbers in ONNX are int64\. Got the label 92233720368547"
    ):
        to_onnx(clf, X[:1], options={"zipmap": False})


def test_dates_are_no_labels_of_onnx():
    clf = clone(CLF).fit(X, np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]")[N % 2])
    with pytest.raises(TypeError, match=r"strings or numbers. Got datetime64\[D\]: fit on y.as"):
        to_onnx(clf, X[:1], options={"zipmap": False})


def test_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    monkeypatch.delitem(sys.modules, "skdisk.onnx")
    with pytest.raises(ImportError, match=r"pip install 'skdisk\[onnx\]'"):
        importlib.import_module("skdisk.onnx")
