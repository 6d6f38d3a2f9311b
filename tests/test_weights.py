"""Weights of rows and of classes: what they mean, where they may come from, what is refused."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from torch.nn.functional import nll_loss


@pytest.fixture
def weights(disk):
    return np.random.RandomState(0).randint(0, 4, size=len(disk[1])).astype(float)


def assert_equal_weights(get_weights, first, second):
    assert all(map(np.array_equal, get_weights(first), get_weights(second)))


@pytest.mark.parametrize("value", [1, 0.3])
def test_equal_weights_give_bitwise_the_unweighted_fit(make_clf, get_weights, disk, fused, value):
    plain = make_clf(fused=fused).fit(*disk)
    weighted = make_clf(fused=fused).fit(*disk, sample_weight=np.full(len(disk[1]), value))
    assert_equal_weights(get_weights, plain, weighted)
    assert weighted.loss_curve_ == plain.loss_curve_


def test_the_unit_of_the_weights_does_not_matter(make_clf, get_weights, disk, weights, fused):
    clfs = [make_clf(fused=fused).fit(*disk, c * weights) for c in (1, 1000)]
    for ours, theirs in zip(*map(get_weights, clfs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "params", [{}, {"dropout": 0.5}, {"optimizer": "adam", "lr": 0.01}], ids=str
)
def test_a_weight_is_a_number_of_repetitions(make_clf, get_weights, disk, params):
    X, y = disk[0][:30], disk[1][:30]
    repeats = np.random.RandomState(0).randint(0, 4, size=30)
    params = {"batch_size": 256, "max_epochs": 20, **params}
    weighted = make_clf(**params).fit(X, y, repeats)
    repeated = make_clf(**params).fit(X.repeat(repeats, axis=0), y.repeat(repeats))
    assert_equal_weights(get_weights, weighted, repeated)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.filterwarnings("ignore:max_epochs=:sklearn.exceptions.ConvergenceWarning")
def test_rows_without_weight_are_left_out(
    make_clf, get_weights, disk, fused, convert, early_stopping
):
    X, y = disk
    left_out = np.random.RandomState(0).uniform(size=len(X)) < 0.4
    params = {"fused": fused, "early_stopping": early_stopping, "n_iter_no_change": 2}
    clf = make_clf(**params).fit(convert(X), y, 1.0 - left_out)
    without = make_clf(**params).fit(convert(X[~left_out]), y[~left_out])
    assert_equal_weights(get_weights, clf, without)
    assert clf.loss_curve_ == without.loss_curve_
    assert clf.validation_loss_curve_ == without.validation_loss_curve_


def test_a_class_without_weight_is_left_out_but_known(make_clf, get_weights, disk):
    X, y = disk[0], np.arange(200) % 3
    by_class = make_clf(class_weight={2: 0.0}).fit(X, y)
    by_row = make_clf().fit(X, y, y != 2)
    assert_equal_weights(get_weights, by_class, by_row)
    assert by_class.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_weights_count_in_batches_of_any_size(make_clf, get_weights, disk, fused, batch_size):
    X, y = disk
    weights = np.random.RandomState(0).exponential(size=len(X))
    params = {"batch_size": batch_size, "shuffle": False, "lr": 0.01, "max_epochs": 1}
    clf = make_clf(fused=fused, **params).fit(X, y, weights)
    module = make_clf(lr=1e-30, max_epochs=1).fit(X, y).module_.double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    frequencies = torch.tensor(weights / weights.mean())
    batches = (t.split(batch_size) for t in (torch.tensor(X), torch.tensor(y), frequencies))
    loss = 0.0
    for rows, labels, w in zip(*batches, strict=True):
        optimizer.zero_grad()
        total = (w * nll_loss(module(rows), labels, reduction="none")).sum()
        (total / len(rows)).backward()
        optimizer.step()
        loss += total.item() / len(X)
    for ours, theirs in zip(get_weights(clf), module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)
    assert clf.loss_curve_ == pytest.approx([loss], rel=1e-4)


def test_class_weights_are_weights_of_rows(make_clf, get_weights, disk):
    X, y = disk
    labels = np.array(["out", "in"])[y]
    by_class = make_clf(class_weight={"in": 3.0}).fit(X, labels)
    by_row = make_clf().fit(X, labels, np.where(labels == "in", 3.0, 1.0))
    assert_equal_weights(get_weights, by_class, by_row)


LABELS = {
    "letters": ["a", "b"],
    "digits": ["1", "2"],
    "numbers as strings": ["1.5", "-3"],
    "objects": np.array(["1", "x"], object),
    "ints": [1, 2],
    "whole floats": [1.0, 2.0],
    "float16": np.array([1, 2], np.float16),
    "uint64": np.array([1, 2**63 + 5], np.uint64),
    "bools": [False, True],
    "ints as objects": np.array([1, 2], object),
    "durations": np.array([1, 2], "m8[s]"),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_class_weights_are_looked_up_whatever_type_labels_have(
    make_clf, get_weights, disk, labels
):
    X, y = disk[0], np.asarray(labels)[disk[1]]
    classes = list(np.unique(labels).tolist())
    rare = classes.index(np.asarray(labels).tolist()[1])
    weights = {classes[rare]: 5.0, classes[1 - rare]: 0.5}
    expected = make_clf().fit(X, y, np.where(disk[1], 5.0, 0.5))
    assert_equal_weights(get_weights, make_clf(class_weight=weights).fit(X, y), expected)
    part = make_clf(class_weight={classes[rare]: 10.0}).fit(X, y)
    assert_equal_weights(get_weights, part, expected)
    balanced = make_clf(class_weight="balanced").fit(X, y)
    expected = make_clf(class_weight="balanced").fit(X, disk[1] == (rare > 0))
    assert_equal_weights(get_weights, balanced, expected)


def test_equal_keys_are_the_same_label(make_clf, get_weights, disk):
    expected = make_clf(class_weight={1: 3.0}).fit(*disk)
    for key in (True, 1.0, np.int8(1), np.float32(1)):
        assert_equal_weights(get_weights, make_clf(class_weight={key: 3.0}).fit(*disk), expected)


def test_a_class_that_a_part_of_the_rows_lacks_may_have_a_weight(make_clf, get_weights, disk):
    clf = make_clf(class_weight={0: 1.0, 1: 3.0, 2: 9.0}).fit(*disk)
    assert_equal_weights(get_weights, clf, make_clf(class_weight={0: 1.0, 1: 3.0}).fit(*disk))


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-60, 1e39, 1e300, 1.5e308])
@pytest.mark.parametrize("class_scale", [1e-300, 1.0, 1e300])
def test_the_scale_of_weights_may_be_any(make_clf, get_weights, disk, fused, scale, class_scale):
    weights = np.random.RandomState(0).uniform(0.1, 1.1, size=200)
    expected = make_clf(fused=fused, class_weight={1: 3.0}).fit(*disk, weights)
    class_weight = {0: class_scale, 1: 3 * class_scale}
    clf = make_clf(fused=fused, class_weight=class_weight).fit(*disk, scale * weights)
    for ours, theirs in zip(get_weights(clf), get_weights(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_weights_of_opposite_scales_multiply_to_what_they_are(make_clf, get_weights, disk):
    X, y = disk
    clf = make_clf(class_weight={0: 1e300, 1: 1e-300}).fit(X, y, np.where(y, 1e300, 1e-300))
    for ours, theirs in zip(get_weights(clf), get_weights(make_clf().fit(X, y)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with pytest.raises(ValueError, match="would multiply the class 0 by more than 1e308"):
        make_clf(class_weight="balanced").fit(X, y, np.where(y, 1e300, 1e-300))


def test_balanced_is_that_of_scikit_learn(make_clf, get_weights, disk):
    X, y = disk[0][:150], np.r_[np.zeros(120, int), np.full(10, 3), np.full(20, 7)]
    by_class = make_clf(class_weight="balanced").fit(X, y)
    by_row = make_clf().fit(X, y, compute_sample_weight("balanced", y))
    assert_equal_weights(get_weights, by_class, by_row)


def test_the_two_kinds_of_weights_multiply(make_clf, get_weights, disk, weights):
    X, y = disk
    both = make_clf(class_weight={0: 2.0, 1: 5.0}).fit(X, y, weights)
    product = make_clf().fit(X, y, weights * np.where(y, 5.0, 2.0))
    assert_equal_weights(get_weights, both, product)


def test_balanced_counts_rows_by_their_weights(make_clf, get_weights, disk):
    X, y = disk
    weights = np.where(y, 9.0, 1.0)
    clf = make_clf(class_weight="balanced").fit(X, y, weights)
    expected = make_clf().fit(X, y, np.where(y, 1 / y.sum(), 1 / (1 - y).sum()))
    for ours, theirs in zip(get_weights(clf), get_weights(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_class_weights_help_a_rare_class(make_clf):
    rng = np.random.RandomState(0)
    y = (rng.uniform(size=2000) < 0.05).astype(int)
    X = rng.randn(2000, 2) + y[:, None]
    params = {"max_epochs": 20, "batch_size": 100}
    recall = [
        make_clf(class_weight=w, **params).fit(X, y).predict(X)[y == 1].mean()
        for w in (None, "balanced")
    ]
    assert recall[1] > recall[0] + 0.3


@pytest.mark.parametrize(
    "convert",
    [
        list,
        pd.Series,
        torch.tensor,
        lambda w: w.astype(np.int32),
        lambda w: w.astype(object),
        lambda w: w.astype(np.float16),
        lambda w: pd.Series(w, dtype="Int64"),
        lambda w: torch.tensor(w).bfloat16(),
        lambda w: torch._neg_view(torch.tensor(-w)),
    ],
    ids=["list", "Series", "tensor", "ints", "objects", "float16", "Int64", "bfloat16", "negated"],
)
def test_containers_of_weights(make_clf, get_weights, disk, weights, convert):
    clf = make_clf().fit(*disk, convert(weights))
    assert_equal_weights(get_weights, clf, make_clf().fit(*disk, weights))


def test_partial_fit_takes_weights(make_clf, get_weights, disk, weights):
    clf = make_clf(class_weight={1: 2.0})
    for _ in range(3):
        clf.partial_fit(*disk, classes=[0, 1], sample_weight=weights)
    whole = make_clf(class_weight={1: 2.0}).fit(*disk, weights)
    assert_equal_weights(get_weights, clf, whole)


def test_balanced_with_classes_that_have_not_occurred(make_clf, disk):
    clf = make_clf(class_weight="balanced").partial_fit(*disk, classes=[0, 1, 2])
    assert np.isfinite(clf.loss_curve_).all()


def test_score_takes_weights(make_clf, disk, weights):
    X, y = disk
    clf = make_clf().fit(X, y)
    right = clf.predict(X) == y
    assert clf.score(X, y, weights) == pytest.approx(np.average(right, weights=weights))


@pytest.mark.parametrize("unit", [1e-310, 1e308], ids=str)
def test_score_does_not_know_the_unit_of_weights(make_clf, disk, unit):
    X, y = disk
    clf, weights = make_clf().fit(X, y), np.resize([1.0, 0.0, 0.5], len(y))
    expected = np.average(clf.predict(X) == y, weights=weights)
    assert clf.score(X, y, weights * unit) == pytest.approx(expected)
    assert clf.score(X, y, unit) == clf.score(X, y)


BAD_WEIGHTS = {
    "negative": ([-1.0] + [1.0] * 199, "Negative values in data passed to `sample_weight`"),
    "all zero": ([0.0] * 200, "Sample weights must contain at least one non-zero number"),
    "NaN": ([np.nan] + [1.0] * 199, "sample_weight contains NaN"),
    "NaN alone": (np.nan, "sample_weight contains NaN"),
    "infinity alone": (np.inf, "sample_weight contains infinity"),
    "negative alone": (-1.0, "Negative values in data passed to `sample_weight`"),
    "too few": ([1.0] * 199, r"sample_weight.shape == \(199,\), expected \(200,\)"),
    "two columns": (np.ones((200, 2)), "Sample weights must be 1D array or scalar"),
    "text": (["heavy"] * 200, "sample_weight must be numbers .* could not convert .*'heavy'"),
    "dates": (np.arange(200).astype("M8[s]"), "sample_weight must be numbers .* datetime64"),
    "complex": (np.ones(200) + 1j, "sample_weight must be numbers .* complex128"),
    "huge ints": ([10**400] * 200, "sample_weight must be numbers .* int too large"),
    "None among them": ([None, 1.0] * 100, "sample_weight must be numbers .* NaN"),
    "masked": (np.ma.array(np.ones(200), mask=[True] + [False] * 199), "has masked values"),
    "meta tensor": (torch.ones(200, device="meta"), "sample_weight cannot be turned .* no data"),
    "beyond float64": (np.full(200, np.longdouble("1e4000")), "sample_weight contains infinity"),
}


@pytest.mark.parametrize(("bad", "match"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused(make_clf, disk, bad, match):
    for method, kwargs in (("fit", {}), ("partial_fit", {"classes": [0, 1]})):
        clf = make_clf()
        before = vars(clf).copy()
        with pytest.raises(ValueError, match=match):
            getattr(clf, method)(*disk, sample_weight=bad, **kwargs)
        assert vars(clf) == before
    with pytest.raises(ValueError, match=match):
        make_clf().fit(*disk).score(*disk, sample_weight=bad)


@pytest.mark.parametrize(
    ("class_weight", "match"),
    [
        ({0: -1.0}, "class_weight must be finite numbers of at least 0. Got -1.0 for the class 0"),
        (
            {1: np.inf},
            "class_weight must be finite numbers of at least 0. Got inf for the class 1",
        ),
        ({0: "much"}, "Got 'much' for the class 0"),
        ({0: 0.0, 1: 0.0}, "class_weight, .* is zero for all rows. Give at least"),
        ({0: 10**400}, "class_weight must be finite numbers of at least 0. Got 1.0e.400"),
        ({0: 1j}, "Got 1j for the class 0"),
        ({0: np.complex64(1)}, "class_weight must be finite numbers"),
        ({7: 2.0}, r"class_weight has the keys \[7\], which are not among the labels \[0, 1\]"),
        ({"0": 2.0}, r"class_weight has the keys \['0'\], .*Use the labels themselves as keys"),
        ({0: 2.0, "1": 3.0}, r"class_weight has the keys \['1'\]"),
        ("equal", "The 'class_weight' parameter .* Got 'equal'"),
        ([1, 2], "The 'class_weight' parameter .* Got \\[1, 2\\]"),
    ],
    ids=str,
)
def test_bad_class_weights_are_refused(make_clf, disk, class_weight, match):
    with pytest.raises(ValueError, match=match):
        make_clf(class_weight=class_weight).fit(*disk)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_through_pipelines_and_searches(make_clf, get_weights, disk, weights):
    X, y = disk
    clf = make_clf().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), clf)
    pipeline.fit(X, y, sample_weight=weights)
    expected = make_clf().fit(StandardScaler().fit_transform(X), y, weights)
    assert_equal_weights(get_weights, pipeline[-1], expected)
    search = GridSearchCV(clf, {"class_weight": [None, "balanced"]}, cv=2)
    search.fit(X, y, sample_weight=weights)
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    scores = cross_validate(clf, X, y, cv=2, params={"sample_weight": weights})
    assert scores["test_score"].mean() in search.cv_results_["mean_test_score"]


def test_adaboost_takes_it(make_clf):
    X, y = load_iris(return_X_y=True, as_frame=True)
    clf = make_clf(max_epochs=10, momentum=0.9)
    boosted = make_pipeline(StandardScaler(), AdaBoostClassifier(clf, n_estimators=4))
    assert boosted.fit(X, y).score(X, y) > 0.9
    # The second network has seen other weights than the first.
    first, second, *_ = boosted[-1].estimators_
    assert first.loss_curve_ != second.loss_curve_


def test_weights_that_leave_no_row_are_refused(make_clf, disk):
    X, y = disk
    clf = make_clf(class_weight={0: 0.0, 1: 1.0})
    with pytest.raises(ValueError, match="times sample_weight if there is one, is zero for all"):
        clf.fit(X, y, sample_weight=1 - y)
    with pytest.raises(ValueError, match="and one to validate on, a weight above zero"):
        clf.fit(X, y, X_val=X[y == 0], y_val=y[y == 0])
