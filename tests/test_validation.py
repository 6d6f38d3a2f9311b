"""Validation data, early stopping, and what is told of them."""

import gc
import warnings
from types import FunctionType, ModuleType

import numpy as np
import pytest
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skdisk import MLPDiskClassifier, make_disk
from skdisk._inputs.weights import hold_out


@pytest.fixture(scope="module")
def noisy():
    """Make a data set that a network overfits: training and validation part."""
    X, y = make_disk(300, flip_y=0.3, random_state=0)
    return X[:200], y[:200], X[200:], y[200:]


@pytest.fixture
def overfit():
    """Make classifiers that overfit within some ten epochs."""

    def make(**params):
        fast = {"hidden_layer_sizes": (64,), "optimizer": "adam", "lr": 0.02, "max_epochs": 100}
        steady = {"lr_schedule": "constant", "random_state": 0}
        return MLPDiskClassifier(**fast | steady | params)

    return make


def test_validation_data_are_looked_at_after_each_epoch(overfit, get_weights, noisy, fused):
    X, y, X_val, y_val = noisy
    clf = overfit(max_epochs=8, fused=fused).fit(X, y, X_val=X_val, y_val=y_val)
    plain = overfit(max_epochs=8, fused=fused).fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(plain)))
    for n_epochs in (1, 8):
        stopped = overfit(max_epochs=n_epochs, fused=fused).fit(X, y)
        log_proba = stopped.predict_log_proba(X_val)[np.arange(len(X_val)), y_val]
        assert clf.validation_loss_curve_[n_epochs - 1] == pytest.approx(
            -log_proba.mean(), rel=1e-4
        )
        score = clf.validation_score_curve_[n_epochs - 1]
        assert score == pytest.approx(stopped.score(X_val, y_val))
    assert clf.best_loss_ == min(clf.validation_loss_curve_)
    assert clf.best_epoch_ == 1 + np.argmin(clf.validation_loss_curve_)


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"]])
def test_early_stopping_keeps_the_best_epoch(overfit, get_weights, noisy, fused, labels):
    X, y, X_val, y_val = noisy
    y, y_val = np.array(labels)[y], np.array(labels)[y_val]
    clf = overfit(early_stopping=True, n_iter_no_change=5, fused=fused)
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    curve = clf.validation_loss_curve_
    assert clf.n_iter_ == len(curve) < 100
    assert clf.best_epoch_ == 1 + np.argmin(curve) < clf.n_iter_
    assert clf.best_loss_ == min(curve)
    # The weights are those of a training that ends there.
    best = overfit(max_epochs=clf.best_epoch_, fused=fused).fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(best)))
    assert clf.score(X_val, y_val) == pytest.approx(
        clf.validation_score_curve_[clf.best_epoch_ - 1]
    )


def test_the_patience_and_what_counts_as_progress(overfit, noisy):
    X, y, *validation = noisy
    for patience, tol in ((1, 0.0), (3, 0.0), (3, 0.05)):
        clf = overfit(early_stopping=True, n_iter_no_change=patience, tol=tol)
        clf.fit(X, y, X_val=validation[0], y_val=validation[1])
        misses, lowest = [], np.inf
        for loss in clf.validation_loss_curve_:
            misses.append(not loss < lowest - tol)
            lowest = min(loss, lowest)
        assert misses[-patience:] == [True] * patience
        for i in range(len(misses) - patience):
            assert not all(misses[i : i + patience])


def test_a_loss_that_stands_still_is_no_progress(overfit, noisy):
    X, y, *_ = noisy
    clf = overfit(early_stopping=True, n_iter_no_change=3, tol=0.0, lr=1e-30).fit(X, y)
    assert len(set(clf.validation_loss_curve_)) == 1
    assert (clf.n_iter_, clf.best_epoch_) == (4, 1)


def test_rows_are_held_out_class_by_class(overfit, disk):
    X, y = make_disk((400, 40), random_state=0)
    seen = {}

    class Watch(Callback):
        def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            seen.update(train=dataset_train, valid=dataset_valid)

    clf = overfit(early_stopping=True, validation_fraction=0.2, callbacks=[Watch()])
    clf.fit(X, y)
    train, valid = seen["train"], seen["valid"]
    assert np.bincount(valid.y).tolist() == [80, 8]
    assert np.bincount(train.y).tolist() == [320, 32]
    rows = {tuple(row) for row in np.r_[train.X, valid.X]}
    assert rows == {tuple(row) for row in X.astype(np.float32)}


def test_which_rows_are_held_out_does_not_depend_on_their_order(disk):
    X, y = disk[0].astype(np.float32), disk[1]
    order = np.random.RandomState(0).permutation(len(X))
    held = [hold_out(X, y, None, 0.1, 7)[1][0]]
    held.append(order[hold_out(X[order], y[order], None, 0.1, 7)[1][0]])
    assert sorted(held[0]) == sorted(held[1])
    assert sorted(hold_out(X, y, None, 0.1, 8)[1][0]) != sorted(held[0])


def test_repeated_rows_are_held_out_in_proportion():
    X = np.repeat(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), 100, axis=0)
    y = np.repeat([0, 1, 1, 0], 100)
    (train, _), (valid, weights) = hold_out(X, y, None, 0.1, 0)
    assert len(train) + len(valid) == 400
    assert weights.tolist() == [1.0] * 40
    for row in range(4):
        assert (valid // 100 == row).sum() == 10


@pytest.mark.parametrize("repeats", [1, 4])
def test_whole_weights_are_divided_like_repetitions(repeats):
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, 2).astype(np.float32), np.arange(60) % 2
    counts = rng.randint(0, 5, size=60) * repeats
    weighted = hold_out(X, y, counts.astype(float), 0.2, 0)
    rows = np.arange(60).repeat(counts)
    repeated = hold_out(X[rows], y[rows], None, 0.2, 0)
    for (ours, weights), (theirs, ones) in zip(weighted, repeated, strict=True):
        expected = np.bincount(rows[theirs], weights=ones, minlength=60)
        np.testing.assert_array_equal(np.bincount(ours, weights=weights, minlength=60), expected)


def test_rows_of_fractional_weight_are_held_out_whole():
    rng = np.random.RandomState(0)
    X, y, weights = rng.randn(60, 2).astype(np.float32), np.arange(60) % 2, rng.uniform(size=60)
    (train, _), (valid, held) = hold_out(X, y, weights, 0.2, 0)
    assert not set(train) & set(valid)
    assert len(valid) == 12
    np.testing.assert_array_equal(held, weights[valid])


def test_the_validation_loss_is_weighted_as_the_training_loss_is(overfit, noisy, fused):
    X, y, X_val, y_val = noisy
    clf = overfit(max_epochs=3, class_weight={0: 1.0, 1: 4.0}, fused=fused)
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    log_proba = clf.predict_log_proba(X_val)[np.arange(len(X_val)), y_val]
    weights = np.where(y_val, 4.0, 1.0)
    expected = -np.average(log_proba, weights=weights)
    assert clf.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-4)
    score = clf.score(X_val, y_val, weights)
    assert clf.validation_score_curve_[-1] == pytest.approx(score, rel=1e-6)


def test_without_validation_there_are_no_curves(make_clf, disk):
    clf = make_clf().fit(*disk)
    assert clf.validation_loss_curve_ is None
    assert clf.validation_score_curve_ is None
    assert clf.best_loss_ == min(clf.loss_curve_)
    assert clf.best_epoch_ == 1 + np.argmin(clf.loss_curve_)
    assert clf.history_["valid_loss"].isna().all()


def test_the_history_has_its_columns_and_one_row_an_epoch(make_clf, disk):
    X, y = disk
    columns = ["epoch", "train_loss", "valid_loss", "valid_score", "lr", "seconds"]
    clf = make_clf(max_epochs=4, lr_schedule="cosine").fit(X, y, X_val=X, y_val=y)
    assert clf.history_.columns.tolist() == columns
    assert clf.history_["train_loss"].tolist() == clf.loss_curve_
    assert clf.history_["valid_loss"].tolist() == clf.validation_loss_curve_
    assert clf.history_["valid_score"].tolist() == clf.validation_score_curve_
    assert clf.history_["lr"].is_monotonic_decreasing
    assert (clf.history_["seconds"] > 0).all()
    assert clf.history_.notna().all(axis=None)
    assert make_clf().fit(X, y).history_.columns.tolist() == columns


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine", "one_cycle"])
def test_early_stopping_may_end_a_training_without_end(overfit, noisy, lr_schedule, fused):
    # A list of the learning rates of all epochs would be larger than any memory.
    clf = overfit(early_stopping=True, max_epochs=10**15, lr_schedule=lr_schedule, fused=fused)
    if lr_schedule == "one_cycle":
        # It begins with a 25th of lr.
        clf.set_params(lr=0.5)
    clf.set_params(n_iter_no_change=2).fit(*noisy[:2])
    assert clf.n_iter_ < 1000


def test_a_training_that_ran_out_of_epochs_says_so(overfit, noisy):
    X, y, *_ = noisy
    with pytest.warns(ConvergenceWarning, match=r"max_epochs=3 ended .* of epoch 3\. Try more"):
        overfit(early_stopping=True, max_epochs=3, n_iter_no_change=2, lr=0.001).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overfit(early_stopping=False, max_epochs=3, lr=0.001).fit(X, y)
        # The best of all epochs, with no stop in mind.
        overfit(early_stopping=True, max_epochs=3, n_iter_no_change=3, lr=0.001).fit(X, y)
        overfit(early_stopping=True, n_iter_no_change=5).fit(X, y)
        overfit(early_stopping=True).partial_fit(X, y, classes=[0, 1])


def test_partial_fit_does_not_hold_out(overfit, get_weights, noisy):
    X, y, *_ = noisy
    clf = overfit(early_stopping=True).partial_fit(X, y, classes=[0, 1])
    assert clf.validation_loss_curve_ is None
    plain = overfit(max_epochs=1).fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(plain)))


def test_a_warm_start_holds_the_same_rows_out_and_begins_to_count_anew(overfit, noisy):
    X, y, *_ = noisy
    clf = overfit(early_stopping=True, n_iter_no_change=3, warm_start=True).fit(X, y)
    n_iter, curve = clf.n_iter_, clf.validation_loss_curve_
    clf.fit(X, y)
    assert clf.validation_loss_curve_[:n_iter] == curve
    assert clf.n_iter_ > n_iter
    assert clf.best_epoch_ > n_iter
    assert clf.best_loss_ == min(clf.validation_loss_curve_[n_iter:])


BAD = {
    "X_val alone": ({"X_val": [[0.0, 0.0]]}, "X_val was passed without y_val. Pass both"),
    "y_val alone": ({"y_val": [0]}, "y_val was passed without X_val. Pass both"),
    "other columns": ({"X_val": [[0.0]], "y_val": [0]}, "X_val has 1 features, X has 2"),
    "unknown label": (
        {"X_val": [[0.0, 0.0]], "y_val": [5]},
        r"y_val has labels that are not among the classes .* \[5\]. Leave the rows of labels that",
    ),
    "NaN": ({"X_val": [[0.0, np.nan]], "y_val": [0]}, "Input X_val contains NaN"),
    "text": ({"X_val": [["a", 1]], "y_val": [0]}, r"X_val has columns that are not numbers: \[0"),
    "missing label": ({"X_val": [[0.0, 0.0]], "y_val": [None]}, "Input y_val contains NaN"),
    "two labels": ({"X_val": [[0.0, 0.0]], "y_val": [[0, 1]]}, "y_val has a matrix of 0 and 1"),
    "lengths": ({"X_val": [[0.0, 0.0]], "y_val": [0, 1]}, "inconsistent numbers of samples"),
    "no rows": ({"X_val": np.empty((0, 2)), "y_val": []}, "0 sample"),
}


@pytest.mark.parametrize(("validation", "match"), BAD.values(), ids=BAD)
def test_bad_validation_data_are_refused(make_clf, disk, validation, match):
    clf = make_clf()
    before = vars(clf).copy()
    with pytest.raises(ValueError, match=match):
        clf.fit(*disk, **validation)
    assert vars(clf) == before


@pytest.mark.parametrize("labels", [[0, 1, 2], ["out", "in", "rim"]])
def test_a_lone_row_of_a_class_stays_in_training(overfit, noisy, labels):
    X, y = noisy[0], noisy[1].copy()
    y[7] = 2
    clf = overfit(early_stopping=True, n_iter_no_change=3).fit(X, np.array(labels)[y])
    assert clf.classes_.tolist() == sorted(labels)
    assert clf.predict_proba(X).shape == (200, 3)
    (train, _), (valid, _) = hold_out(X.astype(np.float32), y, None, 0.1, 0)
    assert 7 in train
    assert len(valid) == round(0.1 * (y == 0).sum()) + round(0.1 * (y == 1).sum())


@pytest.mark.parametrize("weight", [0.25, 1.0, 2.0])
def test_a_lone_row_is_held_out_as_often_as_its_repetitions(weight):
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, 2).astype(np.float32), np.arange(60) % 2
    y[7] = 2
    weights = np.ones(60)
    weights[7] = weight
    (train, kept), (valid, held) = hold_out(X, y, weights, 0.2, 0)
    # Of two repetitions one is held out; one, and a row that is no repetition, is kept whole.
    assert kept[train == 7].tolist() == [weight - (weight == 2)]
    assert held[valid == 7].tolist() == [1.0] * (weight == 2)


@pytest.mark.parametrize("scale", [1e-300, 2.0**60, 1e300])
def test_weights_of_any_scale_are_held_out_whole(scale):
    rng = np.random.RandomState(0)
    X, y, weights = rng.randn(60, 2).astype(np.float32), np.arange(60) % 2, rng.uniform(size=60)
    (train, kept), (valid, held) = hold_out(X, y, scale * weights, 0.2, 0)
    (expected_train, _), (expected_valid, _) = hold_out(X, y, weights, 0.2, 0)
    np.testing.assert_array_equal(train, expected_train)
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_array_equal(np.r_[kept, held], scale * weights[np.r_[train, valid]])


def test_where_every_class_has_a_single_row_there_is_nothing_to_hold_out(make_clf):
    match = "of every class there is only 1 sample. Pass validation data as X_val and y_val"
    clf = make_clf(early_stopping=True)
    before = vars(clf).copy()
    with pytest.raises(ValueError, match=match):
        clf.fit([[0.0], [1.0], [2.0]], ["a", "b", "c"])
    with pytest.raises(ValueError, match=match):
        clf.fit([[0.0], [1.0], [2.0]], ["a", "b", "b"], sample_weight=[1, 1, 0])
    assert vars(clf) == before


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"validation_fraction": 0}, "The 'validation_fraction' parameter .* Got 0"),
        ({"validation_fraction": 1.0}, "The 'validation_fraction' parameter .* Got 1.0"),
        ({"n_iter_no_change": 0}, "The 'n_iter_no_change' parameter .* Got 0"),
        ({"tol": -1e-4}, "The 'tol' parameter .* Got -0.0001"),
        ({"early_stopping": "yes"}, "The 'early_stopping' parameter .* Got 'yes'"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(make_clf, disk, params, match):
    with pytest.raises(ValueError, match=match):
        make_clf(**params).fit(*disk)


def test_validation_data_go_through_the_steps_of_a_pipeline(get_weights, overfit, noisy):
    X, y, X_val, y_val = noisy
    X, X_val = 5 + 3 * X, 5 + 3 * X_val
    with sklearn.config_context(enable_metadata_routing=True):
        clf = overfit(max_epochs=3).set_fit_request(X_val=True, y_val=True)
        steps = [("scale", StandardScaler()), ("clf", clf)]
        pipeline = Pipeline(steps, transform_input=["X_val"]).fit(X, y, X_val=X_val, y_val=y_val)
    scaler = StandardScaler().fit(X)
    expected = overfit(max_epochs=3).fit(
        scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val
    )
    assert pipeline[-1].validation_loss_curve_ == expected.validation_loss_curve_


def test_early_stopping_works_in_a_search(overfit, noisy):
    X, y, *_ = noisy
    pipeline = make_pipeline(StandardScaler(), overfit(early_stopping=True))
    search = GridSearchCV(
        pipeline,
        {"mlpdiskclassifier__n_iter_no_change": [2, 5]},
        scoring="neg_log_loss",
        cv=2,
        n_jobs=2,
    ).fit(X, y)
    assert search.best_estimator_[-1].best_epoch_ <= search.best_estimator_[-1].n_iter_


def test_a_fitted_estimator_does_not_hold_its_data(overfit, noisy):
    X, y, X_val, y_val = noisy
    clf = overfit(early_stopping=True).fit(X, y, np.arange(200) % 3, X_val=X_val, y_val=y_val)
    gc.collect()
    data = clf._state, clf._settings, clf._result, clf.net_
    sizes = {len(X), len(X_val)}
    held = [o for o in find_all(data) if isinstance(o, (np.ndarray, torch.Tensor)) and o.ndim]
    assert held
    assert not sizes & {len(o) for o in held}


def find_all(roots):
    """Find all that some objects hold, and what that holds, modules and classes left out."""
    found, waiting = {}, [*roots]
    while waiting:
        one = waiting.pop()
        if id(one) not in found and not isinstance(one, (type, ModuleType, FunctionType)):
            found[id(one)] = one
            waiting.extend(gc.get_referents(one))
    return found.values()
