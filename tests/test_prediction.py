"""Predictions: float64, finite for all that a network can be given, and of one mind."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import logit, logsumexp
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import TunedThresholdClassifierCV, cross_val_score

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk
from skdisk._network import prediction
from skdisk._network.mlp import ACTIVATIONS
from skdisk._network.prediction import average, compute_log_odds, log_softmax
from skdisk._network.surroundings import ROWS_AT_ONCE
from skdisk._training.batches import FEW_ROWS

LARGEST = np.finfo(np.float32).max
N_ROWS = [7, FEW_ROWS + 44]


@pytest.fixture
def fit(make_clf):
    """Fit a classifier to rows of eight features."""

    def fit(n_classes=2, factor=1, **params):
        rng = np.random.RandomState(0)
        X = rng.randn(60, 8)
        clf = make_clf(**params).fit(X, np.arange(60) % n_classes)
        with torch.no_grad():
            for parameter in clf.module_.parameters():
                parameter *= factor
        return clf

    return fit


def make_rows(n_rows, size=1.0):
    return size * np.sign(np.random.RandomState(1).randn(n_rows, 8)).astype(np.float32)


def draw_rows(n_rows):
    return np.random.RandomState(1).randn(n_rows, 8)


def predict_in_float64(clf, X):
    """Compute log-probabilities by the module's own forward pass, in float64."""
    with torch.no_grad():
        return copy.deepcopy(clf.module_).double()(torch.tensor(X).double()).numpy()


def assert_close_to_float64(clf, X):
    """Check log-probabilities: float32 has seven digits of the scores, not of their distance."""
    expected = predict_in_float64(clf, X)
    atol = 1e-5 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(clf.predict_log_proba(X), expected, rtol=0, atol=atol)


def assert_of_one_mind(clf, X):
    """Check that what is predicted is finite, and that all methods say the same."""
    with np.errstate(all="raise"):
        proba, log_proba = clf.predict_proba(X), clf.predict_log_proba(X)
        decision = clf.decision_function(X)
    assert proba.dtype == log_proba.dtype == decision.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(log_proba), proba, rtol=1e-14)
    assert np.isfinite(log_proba).all()
    assert (log_proba <= 0).all()
    assert np.isfinite(decision).all()
    positions = proba.argmax(axis=1)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[positions])
    chosen = decision > 0 if proba.shape[1] == 2 else decision.argmax(axis=1)
    np.testing.assert_array_equal(chosen, positions)


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_all_methods_say_the_same_in_float64(fit, n_rows, n_classes):
    assert_of_one_mind(fit(n_classes), draw_rows(n_rows))


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_largest_rows_have_the_probabilities_of_float64(fit, n_rows, activation, n_classes):
    clf = fit(n_classes, activation=activation, hidden_layer_sizes=(6, 5))
    for size in (LARGEST, LARGEST / 100):
        X = make_rows(n_rows, size)
        assert_close_to_float64(clf, X)
        assert_of_one_mind(clf, X)


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("factor", [1e10, 1e25])
def test_the_largest_weights_give_the_probabilities_of_float64(fit, n_rows, activation, factor):
    clf = fit(3, factor, activation=activation, hidden_layer_sizes=(6, 5))
    X = draw_rows(n_rows).astype(np.float32)
    assert_close_to_float64(clf, X)
    assert_of_one_mind(clf, X)


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_too_large_for_float64_is_finite_too(fit, n_rows, activation):
    clf = fit(3, 1e38, activation=activation, hidden_layer_sizes=(4,) * 10)
    assert_of_one_mind(clf, make_rows(n_rows, LARGEST))


@pytest.mark.filterwarnings("ignore:The training diverged:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_far_too_large_lr_gives_finite_probabilities(fit, n_rows, activation):
    clf = fit(lr=1e3, momentum=0.9, activation=activation, hidden_layer_sizes=(8, 8))
    assert_of_one_mind(clf, draw_rows(n_rows))


def test_a_sum_that_overflows_on_the_way_only_is_right(fit):
    clf = fit(activation="tanh", hidden_layer_sizes=1)
    first = clf.module_.layers[0]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([1.0, 1, 1, -1, -1, -1, -1, -1]))
    X = np.full((300, 8), LARGEST)
    np.testing.assert_allclose(clf.predict_log_proba(X), predict_in_float64(clf, X), rtol=1e-5)


@pytest.mark.parametrize("n_rows", N_ROWS)
def test_sparse_rows_may_be_the_largest_too(fit, n_rows):
    clf, X = fit(3), make_rows(n_rows, LARGEST)
    np.testing.assert_array_equal(
        clf.predict_log_proba(sparse.csr_array(X)), clf.predict_log_proba(X)
    )


@pytest.mark.parametrize("size", [1, 1e30, LARGEST])
def test_few_rows_of_any_size_do_not_depend_on_their_company(fit, size):
    clf, X = fit(3), make_rows(99, size)
    log_proba = clf.predict_log_proba(X)
    order = np.random.RandomState(0).permutation(99)
    np.testing.assert_array_equal(clf.predict_log_proba(X[order]), log_proba[order])
    for i in range(0, 99, 7):
        np.testing.assert_array_equal(clf.predict_log_proba(X[i : i + 1]), log_proba[i : i + 1])


@pytest.mark.parametrize("factor", [3, 10, 30])
def test_rows_of_a_confident_network_do_not_share_values(fit, factor):
    clf, X = fit(hidden_layer_sizes=(64, 64)), draw_rows(1000)
    with torch.no_grad():
        odds = np.median(np.abs(clf.decision_function(X)))
        for parameter in clf.module_.layers[-2].parameters():
            parameter *= factor / odds
    # Scores are float32, so that one pair in a million may be equal.
    for values in (clf.decision_function(X), *clf.predict_log_proba(X).T):
        assert len(np.unique(values)) > 990
    assert len(np.unique(clf.predict_proba(X).min(axis=1))) > 990


@pytest.mark.parametrize("scores", [[0, -1], [0, -20], [50, 0], [0, 900], [-3e38, 3e38], [7, 7]])
def test_log_probabilities_of_two_classes_keep_their_digits(scores):
    scores = np.array(scores, dtype=float)
    expected = -np.logaddexp(0, scores[::-1] - scores)
    log_proba = log_softmax(scores[:, np.newaxis])
    np.testing.assert_allclose(log_proba[:, 0], expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("scores", "others"),
    [
        ([0, -40, -41], [-40, -41]),
        ([-1e5, 0, -60, -60], [-1e5, -60, -60]),
        ([1, 1, 1], [0, 0]),
        ([5, -5, 5], [0, -10]),
    ],
    ids=str,
)
def test_log_probabilities_of_several_classes_keep_their_digits(scores, others):
    scores = np.array(scores, dtype=float)[:, np.newaxis]
    log_proba = log_softmax(scores)
    top = -np.log1p(np.exp(others).sum())
    np.testing.assert_allclose(log_proba.max(), top, rtol=1e-15, atol=0)
    np.testing.assert_allclose(log_proba - log_proba.max(), scores - scores.max(), rtol=1e-15)


def test_the_decision_for_two_classes_is_the_difference_of_the_scores(fit):
    clf, X = fit(), draw_rows(20)
    log_proba = predict_in_float64(clf, X.astype(np.float32))
    expected = log_proba[:, 1] - log_proba[:, 0]
    decision = clf.decision_function(X)
    assert decision.shape == (20,)
    np.testing.assert_allclose(decision, expected, rtol=1e-4, atol=1e-6)


def test_the_decision_for_several_classes_is_each_against_the_rest(fit):
    clf, X = fit(5), draw_rows(20)
    decision = clf.decision_function(X)
    assert decision.shape == (20, 5)
    np.testing.assert_allclose(decision, logit(clf.predict_proba(X)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0, 800, 0], [-800, 800 - np.log(2), -800]),
        ([0, 1e5, -1e5], [-1e5, 1e5, -2e5]),
        ([-1e250, 1e250, 0], [-2e250, 1e250, -1e250]),
        ([0, 0, 0, 0], -np.log([3, 3, 3, 3])),
        ([0, 0, -900], [0, 0, -900 - np.log(2)]),
        ([np.log(3), 0, 0, 0], [0, *-np.log([5, 5, 5])]),
    ],
    ids=str,
)
def test_log_odds_are_finite_where_probabilities_are_rounded(scores, expected):
    log_proba = log_softmax(np.array(scores, dtype=float)[:, np.newaxis]).T
    [log_odds] = compute_log_odds(log_proba)
    np.testing.assert_allclose(log_odds, expected, rtol=1e-14, atol=1e-15)
    assert log_odds.argmax() == log_proba.argmax()


@pytest.mark.needs_kernel
def test_many_rows_are_predicted_in_threads_as_in_one(fit, monkeypatch):
    made = []

    class Pool(prediction.ThreadPoolExecutor):
        """Say that it was made."""

        def __init__(self, n_threads):
            made.append(n_threads)
            super().__init__(n_threads)

    monkeypatch.setattr(prediction, "ThreadPoolExecutor", Pool)
    clf, X = fit(), make_rows(3 * ROWS_AT_ONCE)
    # Its numbers overflow on the way, and it is computed again.
    X[-1] = LARGEST
    before, found = torch.get_num_threads(), {}
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            found[n_threads] = clf.predict_proba(X)
    finally:
        torch.set_num_threads(before)
    assert made == [2]
    np.testing.assert_array_equal(found[1], found[2])


@pytest.mark.parametrize("n_rows", N_ROWS)
def test_an_only_class_is_certain_and_has_no_odds(make_clf, n_rows):
    clf, X = make_clf().fit(draw_rows(30), np.ones(30, dtype=int)), draw_rows(n_rows)
    np.testing.assert_array_equal(clf.predict_proba(X), np.ones((n_rows, 1)))
    np.testing.assert_array_equal(clf.decision_function(X), np.zeros((n_rows, 1)))
    np.testing.assert_array_equal(clf.predict(X), np.ones(n_rows))


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("n_classes", [1, 2, 4])
def test_an_ensemble_is_of_one_mind_too(n_rows, n_classes):
    X = draw_rows(60)
    clf = MLPDiskClassifier((6,), max_epochs=2)
    ensemble = MLPDiskEnsemble(clf, n_members=3, random_state=0).fit(X, np.arange(60) % n_classes)
    assert_of_one_mind(ensemble, draw_rows(n_rows))
    assert_of_one_mind(ensemble, make_rows(n_rows, LARGEST))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([[0, -900], [0, -900]], [0, -900]),
        ([[0, -900], [-900, 0]], np.log([0.5, 0.5])),
        ([[0, -50], [0, -60]], [-np.exp(-50) / 2, -50 - np.log(2)]),
        (np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([0.7, 0.3])),
        ([[0, -1e250], [-0.0, -1e200]], [0, -1e200]),
    ],
    ids=str,
)
def test_average_probabilities_keep_their_digits(members, expected):
    [log_proba] = average([np.array([member], dtype=float) for member in members])
    np.testing.assert_allclose(log_proba, expected, rtol=1e-4, atol=0)
    assert (log_proba <= 0).all()
    assert logsumexp(log_proba) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    "estimator",
    [
        MLPDiskClassifier((8,), lr=0.1, momentum=0.9, max_epochs=10, random_state=0),
        MLPDiskEnsemble(MLPDiskClassifier((8,), lr=0.1, max_epochs=10), 2, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_what_scikit_learn_makes_of_a_decision_works(estimator, disk):
    X, y = make_disk(200, random_state=0)
    labels = np.where(y == 1, "in", "out")
    fitted = estimator.fit(X, labels)
    display = RocCurveDisplay.from_estimator(
        fitted, X, labels, response_method="decision_function"
    )
    expected = roc_auc_score(labels == "out", fitted.predict_proba(X)[:, 1])
    assert display.roc_auc == pytest.approx(expected)
    for method in ("sigmoid", "isotonic", "temperature"):
        calibrated = CalibratedClassifierCV(estimator, method=method, cv=2).fit(X, labels)
        assert np.isfinite(calibrated.predict_proba(X)).all()
        assert set(calibrated.predict(X)) <= {"in", "out"}
    tuned = TunedThresholdClassifierCV(estimator, response_method="decision_function", cv=2)
    assert np.isfinite(tuned.fit(X, labels).best_threshold_)
    for scoring in ("roc_auc", "average_precision"):
        assert np.isfinite(cross_val_score(estimator, X, y, scoring=scoring, cv=2)).all()
    y = y + (X[:, 0] > 0.3)
    assert np.isfinite(cross_val_score(estimator, X, y, scoring="roc_auc_ovr", cv=2)).all()
