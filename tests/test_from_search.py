"""`MLPDiskEnsemble.from_search`: a greedy choice out of a fitted search, refitted and voting."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes the next import work
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk

CLF = MLPDiskClassifier((8,), max_epochs=10, random_state=0)
PIPELINE = make_pipeline(StandardScaler(), CLF)
GRID = {"lr": [0.001, 0.03, 0.1], "activation": ["relu", "tanh"]}
STEP = "mlpdiskclassifier__"
STEP_GRID = {STEP + name: values for name, values in GRID.items()}
from_search = MLPDiskEnsemble.from_search


@pytest.fixture(scope="module")
def data():
    return make_disk(90, flip_y=0.1, random_state=0)


@pytest.fixture(scope="module")
def search(data):
    return GridSearchCV(CLF, GRID, cv=3).fit(*data)


def test_each_choice_is_the_best_that_there_is(search, data):
    X, y = data
    candidates = [clone(CLF).set_params(**params) for params in search.cv_results_["params"]]
    held_out = [cross_val_predict(c, X, y, cv=3, method="predict_proba") for c in candidates]
    ensemble = from_search(search, X, y, n_members=8)
    assert len(ensemble.estimators_) == len(ensemble.estimator) == 8
    total = 0
    for n_chosen, member in enumerate(ensemble.estimator, start=1):
        params = {name: member.get_params()[name] for name in GRID}
        chosen = search.cv_results_["params"].index(params)
        losses = [log_loss(y, (total + proba) / n_chosen) for proba in held_out]
        assert losses[chosen] == pytest.approx(min(losses))
        total = total + held_out[chosen]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_matrix, sparse.dok_array])
def test_rows_may_be_of_every_sparse_format(data, kind):
    X, y = data
    search = GridSearchCV(CLF, GRID, cv=3).fit(kind(X), y)
    ensemble, expected = (from_search(search, rows, y, 3, random_state=0) for rows in (kind(X), X))
    np.testing.assert_array_equal(ensemble.predict_proba(X), expected.predict_proba(X))


def test_candidates_that_scikit_learn_shortens_alike_are_two(data):
    X = np.random.default_rng(0).normal(size=(90, 80))
    names = [f"c{i}" for i in range(80)]
    columns = [names[:40], [*names[:39], "c60"]]
    scalers = [ColumnTransformer([("own", StandardScaler(), some)]) for some in columns]
    assert repr(scalers[0]) == repr(scalers[1])
    pipeline = Pipeline([("scaler", scalers[0]), ("clf", CLF)])
    rows, y = pd.DataFrame(X, columns=names), (X[:, 60] > 0).astype(int)
    # To the search both are as good; the second one is better.
    search = GridSearchCV(pipeline, {"scaler": scalers}, scoring=lambda *args: 0.0, cv=2)
    ensemble = from_search(search.fit(rows, y), rows, y, 1)
    assert ensemble.estimators_[0][0].transformers_[0][2] == columns[1]


def test_results_of_another_form_are_refused(search, data):
    other = copy.copy(search)
    other.cv_results_ = {"mean_test_score": [0.5]}
    with pytest.raises(TypeError, match=r"search must be a search such as GridSearchCV\. Got"):
        from_search(other, *data)


def test_a_search_without_a_score_is_refused(data):
    search = GridSearchCV(CLF, GRID, scoring=lambda *args: np.nan, refit=False, cv=3)
    with pytest.warns(UserWarning, match="non-finite"):
        search.fit(*data)
    with pytest.raises(ValueError, match="None of the search's candidates has a score"):
        from_search(search, *data)


def test_the_ensemble_is_a_plain_one(search, data):
    X, y = data
    ensemble = from_search(search, X, y, 4, random_state=0, n_jobs=2)
    assert type(ensemble) is MLPDiskEnsemble
    assert (ensemble.n_members, ensemble.n_jobs, ensemble.random_state) == (4, 2, 0)
    proba = ensemble.predict_proba(X)
    members = ensemble.estimators_
    assert len({member.random_state for member in members}) == 4
    for member, setting in zip(members, ensemble.estimator, strict=True):
        assert member.get_params() | {"random_state": 0} == setting.get_params()
    np.testing.assert_allclose(proba, np.mean([m.predict_proba(X) for m in members], axis=0))
    # A clone is the choice without its training.
    again = clone(ensemble)
    assert not hasattr(again, "estimators_")
    np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), proba)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ensemble)).predict_proba(X), proba)
    assert len(cross_val_score(ensemble, X, y, cv=3)) == 3
    assert "MLPDiskEnsemble" in repr(ensemble)
    assert "MLPDiskEnsemble" in ensemble._repr_html_()


def test_equal_arguments_give_equal_ensembles_in_threads(search, data):
    alone, threads = (
        from_search(search, *data, 3, n_jobs=n_jobs, random_state=0) for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(threads.predict_proba(data[0]), alone.predict_proba(data[0]))


def test_searches_over_pipelines_of_a_frame(data):
    X = pd.DataFrame(data[0], columns=["a", "b"])
    y = pd.Series(np.where(data[1] == 1, "in", "out"))
    grid = {**STEP_GRID, "standardscaler": [StandardScaler(), MinMaxScaler()]}
    search = GridSearchCV(PIPELINE, grid, cv=3).fit(X, y)
    ensemble = from_search(search, X, y, 4, random_state=0)
    assert {type(member) for member in ensemble.estimators_} == {Pipeline}
    assert ensemble.classes_.tolist() == ["in", "out"]
    assert ensemble.n_features_in_ == 2
    assert ensemble.feature_names_in_.tolist() == ["a", "b"]
    assert ensemble.score(X, y) > 0.6
    members = [np.log(member.predict_proba(X)) for member in ensemble.estimators_]
    expected = np.logaddexp.reduce(members) - np.log(4)
    np.testing.assert_allclose(ensemble.predict_log_proba(X), expected)
    weights = np.arange(90) % 3
    weighted = clone(ensemble).fit(X, y, weights)
    member = clone(weighted.estimators_[0]).fit(X, y, **{STEP + "sample_weight": weights})
    np.testing.assert_array_equal(
        weighted.estimators_[0].predict_proba(X), member.predict_proba(X)
    )


SEARCHES = {
    "grid": GridSearchCV(CLF, GRID, cv=2),
    "random": RandomizedSearchCV(CLF, GRID, n_iter=3, cv=2, random_state=0),
    "no refit": GridSearchCV(CLF, GRID, cv=2, refit=False),
    "several scores": GridSearchCV(
        CLF, GRID, cv=2, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss"
    ),
    "drawn splits": GridSearchCV(CLF, GRID, cv=ShuffleSplit(2, random_state=0)),
    "halving": HalvingGridSearchCV(CLF, GRID, cv=2, random_state=0),
    "halving, random": HalvingRandomSearchCV(
        CLF, {"lr": loguniform(0.01, 0.1)}, n_candidates=3, cv=2, random_state=0
    ),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_searches_of_every_kind(search, data):
    ensemble = from_search(clone(search).fit(*data), *data, 3, random_state=0)
    assert len(ensemble.estimators_) == 3
    assert ensemble.predict_proba(data[0]).shape == (90, 2)


def test_the_best_by_the_score_of_the_search_are_candidates(data):
    search = GridSearchCV(CLF, {"lr": [1e-9, 0.1, 0.2]}, cv=3).fit(*data)
    ranks = search.cv_results_["rank_test_score"]
    for n_candidates in (1, 2):
        ensemble = from_search(search, *data, 5, n_candidates=n_candidates, random_state=0)
        best = {search.param_grid["lr"][k] for k in np.flatnonzero(ranks <= n_candidates)}
        assert {member.lr for member in ensemble.estimator} <= best


def test_after_a_halving_search_all_have_its_largest_resource(data):
    search = HalvingGridSearchCV(
        PIPELINE,
        STEP_GRID,
        resource=STEP + "max_epochs",
        min_resources=2,
        max_resources=20,
        cv=2,
        random_state=0,
    ).fit(*data)
    assert search.n_iterations_ > 1
    ensemble = from_search(search, *data, 6, random_state=0)
    assert {member[-1].max_epochs for member in ensemble.estimator} == {search.n_resources_[-1]}
    # The winner of the last round comes first, whatever earlier rounds had for scores.
    [best] = {repr(m) for m in from_search(search, *data, 2, n_candidates=1).estimator}
    assert best == repr(search.best_estimator_)


def test_groups_are_those_of_the_search(data):
    groups = np.arange(90) % 5
    search = GridSearchCV(CLF, GRID, cv=GroupKFold(3)).fit(*data, groups=groups)
    assert len(from_search(search, *data, 3, groups=groups).estimators_) == 3
    with pytest.raises(ValueError, match="The 'groups' parameter should not be None"):
        from_search(search, *data, 3)


# The scores of a class that is missing, on which scikit-learn remarks.
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_a_class_may_be_missing_from_the_rows_to_train_on(data):
    y = data[1].copy()
    y[0] = 2
    search = GridSearchCV(CLF, GRID, cv=StratifiedKFold(2)).fit(data[0], y)
    ensemble = from_search(search, data[0], y, 3, random_state=0)
    assert ensemble.classes_.tolist() == [0, 1, 2]


ERRORS = {
    "not fitted": (GridSearchCV(CLF, GRID), {}, NotFittedError, "is not fitted yet"),
    "no search": (CLF, {}, TypeError, "must be a search such as GridSearchCV. Got MLPDiskClass"),
    "others": (
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}),
        {},
        TypeError,
        r"search must hold MLPDiskClassifiers, or pipelines that end in one. Got \[Logistic",
    ),
    "several scores": (
        GridSearchCV(CLF, GRID, cv=2, scoring=["accuracy", "roc_auc"], refit=False),
        {},
        ValueError,
        "several scores, accuracy, roc_auc, and refit=False does not say which",
    ),
    "splits used up": (
        GridSearchCV(CLF, GRID, cv=iter([(np.arange(60), np.arange(60, 90))])),
        {},
        ValueError,
        "search.cv gives no splits",
    ),
    "no members": (
        GridSearchCV(CLF, GRID, cv=2),
        {"n_members": 0},
        ValueError,
        "The 'n_members' parameter of MLPDiskEnsemble.from_search must be an int",
    ),
    "no candidates": (
        GridSearchCV(CLF, GRID, cv=2),
        {"n_candidates": 0},
        ValueError,
        "The 'n_candidates' parameter of MLPDiskEnsemble.from_search must be an int",
    ),
}


@pytest.mark.parametrize(("search", "params", "error", "match"), ERRORS.values(), ids=ERRORS)
def test_errors_say_what_to_do(data, search, params, error, match):
    if error is not NotFittedError:
        search = clone(search).fit(*data)
    with pytest.raises(error, match=match):
        from_search(search, *data, **params)


def test_a_call_that_fails_leaves_a_random_state_as_it_was(search, data):
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        from_search(search, data[0], data[1][:-1], random_state=rng)
    assert rng.randint(1000) == np.random.RandomState(0).randint(1000)
