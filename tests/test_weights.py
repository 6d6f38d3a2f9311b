"""Weights of rows and of classes: what they mean, where they may come from, what is refused."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

TRAINERS = pytest.mark.parametrize("fused", [True, False])


@pytest.fixture
def weights(disk):
    return np.random.RandomState(0).randint(0, 4, size=len(disk[1])).astype(float)


def assert_equal_weights(get_weights, first, second):
    assert all(map(np.array_equal, get_weights(first), get_weights(second)))


@TRAINERS
@pytest.mark.parametrize("value", [1, 0.3])
def test_equal_weights_give_bitwise_the_unweighted_fit(make_clf, get_weights, disk, fused, value):
    plain = make_clf(fused=fused).fit(*disk)
    weighted = make_clf(fused=fused).fit(*disk, sample_weight=np.full(len(disk[1]), value))
    assert_equal_weights(get_weights, plain, weighted)
    assert weighted.loss_curve_ == plain.loss_curve_


@TRAINERS
def test_the_unit_of_the_weights_does_not_matter(make_clf, get_weights, disk, weights, fused):
    clfs = [make_clf(fused=fused).fit(*disk, c * weights) for c in (1, 1000)]
    for ours, theirs in zip(*map(get_weights, clfs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@TRAINERS
@pytest.mark.parametrize(
    "params", [{}, {"dropout": 0.5}, {"optimizer": "adam", "lr": 0.01}], ids=str
)
def test_a_weight_is_a_number_of_repetitions(make_clf, get_weights, disk, fused, params):
    X, y = disk[0][:30], disk[1][:30]
    repeats = np.random.RandomState(0).randint(0, 4, size=30)
    params = {"batch_size": 256, "fused": fused, "max_epochs": 20, **params}
    weighted = make_clf(**params).fit(X, y, repeats)
    repeated = make_clf(**params).fit(X.repeat(repeats, axis=0), y.repeat(repeats))
    assert_equal_weights(get_weights, weighted, repeated)


@TRAINERS
def test_a_batch_without_weight_changes_nothing(make_clf, get_weights, disk, fused):
    X, y = disk
    params = {"batch_size": 50, "shuffle": False, "fused": fused, "momentum": 0.9}
    weights = np.ones(len(X))
    weights[50:100] = 0
    clf = make_clf(**params).fit(X, y, weights)
    without = make_clf(**params).fit(np.delete(X, range(50, 100), 0), np.delete(y, range(50, 100)))
    assert_equal_weights(get_weights, clf, without)
    np.testing.assert_allclose(clf.loss_curve_, without.loss_curve_, rtol=1e-6)


def test_class_weights_are_weights_of_rows(make_clf, get_weights, disk):
    X, y = disk
    labels = np.array(["out", "in"])[y]
    by_class = make_clf(class_weight={"in": 3.0}).fit(X, labels)
    by_row = make_clf().fit(X, labels, np.where(labels == "in", 3.0, 1.0))
    assert_equal_weights(get_weights, by_class, by_row)


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
    [list, pd.Series, torch.tensor, lambda w: w.astype(np.int32)],
    ids=["list", "Series", "tensor", "ints"],
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


BAD_WEIGHTS = {
    "negative": ([-1.0] + [1.0] * 199, "Negative values in data passed to `sample_weight`"),
    "all zero": ([0.0] * 200, "Sample weights must contain at least one non-zero number"),
    "NaN": ([np.nan] + [1.0] * 199, "sample_weight contains NaN"),
    "too few": ([1.0] * 199, r"sample_weight.shape == \(199,\), expected \(200,\)"),
    "two columns": (np.ones((200, 2)), "Sample weights must be 1D array or scalar"),
    "text": (["heavy"] * 200, "could not convert string to float: 'heavy'"),
}


@pytest.mark.parametrize(("bad", "match"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused(make_clf, disk, bad, match):
    for method, kwargs in (("fit", {}), ("partial_fit", {"classes": [0, 1]})):
        clf = make_clf()
        before = vars(clf).copy()
        with pytest.raises(ValueError, match=match):
            getattr(clf, method)(*disk, sample_weight=bad, **kwargs)
        assert vars(clf) == before


@pytest.mark.parametrize(
    ("class_weight", "match"),
    [
        ({0: -1.0}, "class_weight must be finite numbers of at least 0. Got -1.0 for the class 0"),
        (
            {1: np.inf},
            r"class_weight\[1\] .* must be a finite real number. Got inf",
        ),
        ({0: "much"}, "Got 'much' for the class 0"),
        ({0: 0.0, 1: 0.0}, "class_weight, .* is zero for all rows. Give at least"),
        ({7: 2.0}, r"The classes, \[0, 1\], are not in class_weight"),
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
