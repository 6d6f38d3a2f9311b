"""Searches, cross-validation, ensembles: their networks are those of `fit` alone, bit by bit.

In one thread, in several, and in other processes.
"""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ParameterGrid,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble

WAYS = {
    "one thread": ("threading", 1),
    "two threads": ("threading", 2),
    "more threads than cores": ("threading", 8),
    "two processes": ("loky", 2),
}
# Every way to train, and all that draws random numbers.
GRID = [
    {"lr": [0.03, 0.1], "batch_size": [16, 7]},
    {"optimizer": ["adam"], "weight_decay": [0.01], "clip_grad_norm": [1.0]},
    {"dropout": [0.3], "momentum": [0.0]},
    {"early_stopping": [True], "n_iter_no_change": [2]},
    {"fused": [False]},
]
CV = KFold(3, shuffle=True, random_state=0)


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    """Set how many networks are trained at a time, and where."""
    backend, n_jobs = request.param
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        yield request.param


def read_weights(clf, X=None, y=None):
    """Read all weights; as a scorer, which tells them wherever the network was trained."""
    weights = np.concatenate([p.numpy(force=True).ravel() for p in clf.module_.parameters()])
    return {f"{number:03}": float(weight) for number, weight in enumerate(weights)}


def read_searched_weights(search, n_folds):
    """Read what `read_weights` told of each candidate in each fold."""
    results = search.cv_results_
    names = sorted(name.removeprefix("rank_test_") for name in results if "rank_test_" in name)
    return np.array(
        [[results[f"split{k}_test_{name}"] for name in names] for k in range(n_folds)]
    ).transpose(2, 0, 1)


def fit_alone(clf, params, data):
    """Fit one candidate after the other in this thread, on the training rows of each fold."""
    X, y = data
    return np.array(
        [
            [
                [*read_weights(clone(clf).set_params(**chosen).fit(X[train], y[train])).values()]
                for train, _ in CV.split(X)
            ]
            for chosen in params
        ]
    )


@pytest.mark.filterwarnings("ignore:max_epochs=4 ended while the validation loss")
def test_a_grid_search_trains_the_networks_of_fit(way, clf, data):
    search = GridSearchCV(clf, GRID, cv=CV, scoring=read_weights, refit=False).fit(*data)
    expected = fit_alone(clf, ParameterGrid(GRID), data)
    found = read_searched_weights(search, 3)
    assert found.shape == (len(ParameterGrid(GRID)), 3, 32)
    assert np.abs(found - expected).max() == 0


def test_a_randomized_search_trains_the_networks_of_fit(way, clf, data):
    search = RandomizedSearchCV(
        clf,
        {"lr": [0.01, 0.02, 0.05, 0.1], "nesterov": [True, False]},
        n_iter=3,
        cv=CV,
        scoring=read_weights,
        refit=False,
        random_state=0,
    ).fit(*data)
    expected = fit_alone(clf, search.cv_results_["params"], data)
    assert np.abs(read_searched_weights(search, 3) - expected).max() == 0


def test_the_best_of_a_search_is_the_fit_on_all_rows(way, clf, data):
    search = GridSearchCV(clf, GRID[0], cv=3).fit(*data)
    alone = clone(clf).set_params(**search.best_params_).fit(*data)
    assert read_weights(search.best_estimator_) == read_weights(alone)
    np.testing.assert_array_equal(search.predict_proba(data[0]), alone.predict_proba(data[0]))


def test_cross_validation_returns_the_networks_of_fit(way, clf, data):
    X, y = data
    results = cross_validate(clf, X, y, cv=CV, return_estimator=True)
    for fitted, score, (train, test) in zip(
        results["estimator"], results["test_score"], CV.split(X), strict=True
    ):
        alone = clone(clf).fit(X[train], y[train])
        assert read_weights(fitted) == read_weights(alone)
        assert fitted.history_.drop(columns="seconds").equals(
            alone.history_.drop(columns="seconds")
        )
        assert score == alone.score(X[test], y[test])


def test_a_pipeline_on_a_frame_gives_the_scores_of_one_thread(way, clf, data):
    X, y = pd.DataFrame(data[0], columns=["a", "b"]), np.where(data[1] == 1, "in", "out")
    grid = {"mlpdiskclassifier__hidden_layer_sizes": [(), 5, (6, 3)]}
    search = GridSearchCV(make_pipeline(StandardScaler(), clf), grid, cv=3, scoring="neg_log_loss")
    with joblib.parallel_config(n_jobs=1):
        expected = clone(search).fit(X, y).cv_results_
    results = search.fit(X, y).cv_results_
    for k in range(3):
        name = f"split{k}_test_score"
        np.testing.assert_array_equal(results[name], expected[name])


@pytest.mark.parametrize("fused", ["auto", False])
def test_an_ensemble_has_members_of_fit(way, clf, data, fused):
    clf.set_params(fused=fused)
    ensemble = MLPDiskEnsemble(clf, n_members=3, random_state=0).fit(*data)
    for member in ensemble.estimators_:
        alone = clone(clf).set_params(random_state=member.random_state).fit(*data)
        assert read_weights(member) == read_weights(alone)


def test_bagging_gives_the_networks_of_one_thread(way, clf, data):
    bagging = BaggingClassifier(clf, n_estimators=3, random_state=0)
    with joblib.parallel_config(n_jobs=1):
        expected = clone(bagging).fit(*data)
    found = bagging.fit(*data)
    for one, other in zip(found.estimators_, expected.estimators_, strict=True):
        assert read_weights(one) == read_weights(other)


def test_threads_tell_of_scales_as_a_fit_does(data):
    X = np.c_[data[0], 1e5 * data[0][:, 0]]
    clf = MLPDiskClassifier((6,), lr=1e-9, max_epochs=1)
    with (
        joblib.parallel_config("threading"),
        pytest.warns(UserWarning, match="very different scales"),
    ):
        cross_validate(clf, X, data[1], cv=2, n_jobs=2)
