"""The fused searches beside scikit-learn's own: the same results, networks trained together."""

import copy
import pickle
import re
import signal

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback, EarlyStopping, ProgressBar

from skdisk import FusedGridSearchCV, FusedRandomizedSearchCV, MLPDiskClassifier
from skdisk import _lookup as lookup_module
from skdisk import _search as search_module

PIPELINE = "mlpdiskclassifier__"


def get_scores(search):
    results = pd.DataFrame(search.cv_results_)
    return results.drop(columns=[name for name in results if "time" in name])


def strip_addresses(params):
    return re.sub("0x[0-9a-f]+", "", str(params))


def assert_same_search(fused, plain, n_test_rows=30):
    ours, theirs = get_scores(fused), get_scores(plain)
    assert ours.columns.tolist() == theirs.columns.tolist()
    # Estimators and callbacks have no equality.
    assert [*map(strip_addresses, ours["params"])] == [*map(strip_addresses, theirs["params"])]
    for name in ours:
        if "_score" in name and "rank" not in name:
            # One row of a test set, where rounding decides.
            np.testing.assert_allclose(ours[name], theirs[name], atol=1.01 / n_test_rows)
    if np.allclose(ours.filter(like="mean_test"), theirs.filter(like="mean_test"), atol=1e-9):
        pd.testing.assert_frame_equal(ours.filter(like="rank"), theirs.filter(like="rank"))
    assert fused.n_splits_ == plain.n_splits_


def run_both(estimator, grid, data, fit_params=None, **kwargs):
    searches = []
    for cls in (FusedGridSearchCV, GridSearchCV):
        search = cls(clone(estimator), copy.deepcopy(grid), **{"cv": 3} | kwargs)
        searches.append(search.fit(*data, **fit_params or {}))
    assert_same_search(*searches)
    return searches


def get_weights(clf):
    return [p.detach().numpy() for p in clf.module_.parameters()]


def test_results_are_those_of_scikit_learn(clf, data):
    grid = {"lr": [0.01, 0.1], "weight_decay": [0.0, 0.1]}
    fused, plain = run_both(clf, grid, data, return_train_score=True)
    pd.testing.assert_frame_equal(get_scores(fused), get_scores(plain))
    assert fused.best_params_ == plain.best_params_
    assert fused.best_index_ == plain.best_index_
    assert fused.best_score_ == plain.best_score_
    assert type(fused.best_estimator_) is MLPDiskClassifier
    assert vars(fused.best_estimator_).keys() == vars(plain.best_estimator_).keys()
    assert all(map(np.array_equal, *(get_weights(s.best_estimator_) for s in (fused, plain))))
    report = fused.fusion_report_
    assert report["params"].tolist() == fused.cv_results_["params"]
    assert report["stacks"].tolist() == [[0]] * 4
    assert report["n_networks"].tolist() == [3] * 4
    assert report["reason"].isna().all()
    assert not {"_memory", "_given"} & set(vars(fused))
    assert type(fused.estimator) is MLPDiskClassifier


GRIDS = {
    "widths": [{"hidden_layer_sizes": [(3,), (6,), 9]}],
    "depths": [{"hidden_layer_sizes": [(), (6,), (6, 3)]}],
    "two grids": [{"lr": [0.1, 0.2]}, {"momentum": [0.0, 0.5], "nesterov": [False]}],
    "nesterov": [{"nesterov": [True, False], "momentum": [0.5, 0.9]}],
    "batches": [{"batch_size": [8, 100]}],
    "activations": [{"activation": ["relu", "tanh", "logistic"], "hidden_layer_sizes": [3, 6]}],
    "class weights": [{"class_weight": [None, "balanced", {0: 3.0}]}],
    "dropout": [{"dropout": [0.0, 0.2, 0.5]}],
    "schedules": [{"lr_schedule": ["constant", "cosine", "one_cycle"]}],
    "seeds": [{"random_state": [0, 1, 2]}],
    "lengths": [{"max_epochs": [1, 3, 7]}],
    "early stopping": [{"early_stopping": [True, False], "tol": [0.1], "n_iter_no_change": [1]}],
    "optimisers": [
        {"optimizer": ["adam", "adamw"], "momentum": [0.0], "clip_grad_norm": [None, 1]}
    ],
    "fused or not": [{"fused": ["auto", True, False]}],
    "the same twice": [{"lr": [0.1, 0.1]}],
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_differs_between_candidates(clf, data, grid):
    fused, _ = run_both(clf, grid, data)
    report = fused.fusion_report_
    stacked = report["reason"].isna()
    assert (report.loc[stacked, "n_networks"] == 3).all()
    assert (report.loc[~stacked, "reason"] == "fused=False").all()
    assert stacked.sum() >= len(report) - 1


def test_which_candidates_share_a_stack(clf, data):
    def find_stacks(grid):
        return FusedGridSearchCV(clf, grid, cv=3).fit(*data).fusion_report_["stacks"].tolist()

    assert find_stacks({"hidden_layer_sizes": [3, 6], "max_epochs": [1, 2]}) == [[0]] * 4
    assert find_stacks({"batch_size": [8, 100]}) == [[0], [1]]
    assert find_stacks({"hidden_layer_sizes": [3, (6, 3)]}) == [[0], [1]]
    assert find_stacks({"activation": ["relu", "logistic"]}) == [[0], [1]]
    sigmoid = {"activation": ["logistic"], "hidden_layer_sizes": [3, 6]}
    assert find_stacks(sigmoid) == [[0]] * 2


def test_networks_of_very_different_widths_do_not_share_a_stack(clf, data):
    clf.set_params(max_epochs=1)
    grid = {"hidden_layer_sizes": [(16, 16), (20, 20), (128, 128)], "lr": [0.1, 0.2]}
    search = FusedGridSearchCV(clf, grid, cv=3).fit(*data)
    assert search.fusion_report_["stacks"].tolist() == [[1]] * 4 + [[0]] * 2
    # The widest are more than half of the work: two workers share them.
    search.set_params(n_jobs=2).fit(*data)
    stacks = search.fusion_report_["stacks"]
    assert {k for candidate in stacks[4:] for k in candidate} == {0, 1}
    assert_same_search(search, GridSearchCV(clf, grid, cv=3).fit(*data))


def test_a_stack_has_at_most_so_many_networks(clf, data):
    grid = {"lr": [0.1, 0.2, 0.3]}
    search = FusedGridSearchCV(clf, grid, cv=3, max_stack=4).fit(*data)
    assert sorted({k for stacks in search.fusion_report_["stacks"] for k in stacks}) == [0, 1, 2]
    assert_same_search(search, GridSearchCV(clf, grid, cv=3).fit(*data))


@pytest.mark.parametrize("max_stack", [0, 2.5, "all", None])
def test_a_bad_max_stack_is_refused(clf, data, max_stack):
    search = FusedGridSearchCV(clf, {"lr": [0.1]}, max_stack=max_stack)
    with pytest.raises(
        ValueError, match=r"max_stack must be 'auto' or an int of at least 1\. Got"
    ):
        search.fit(*data)


def test_many_candidates_are_searched_part_by_part(clf, data, monkeypatch):
    monkeypatch.setattr(search_module, "NETWORKS_AT_ONCE", 6)
    fused, _ = run_both(clf, {"lr": [0.01, 0.02, 0.05, 0.1, 0.2]}, data)
    assert fused.fusion_report_["stacks"].tolist() == [[0], [0], [1], [1], [2]]


class Count(StandardScaler):
    """A scaler that counts its fits."""

    n_fits = 0

    def fit(self, X, y=None, sample_weight=None):
        Count.n_fits += 1
        return super().fit(X, y, sample_weight)


def test_steps_of_a_pipeline_are_fitted_once_a_fold(clf, data):
    Count.n_fits = 0
    pipeline = make_pipeline(Count(), clf)
    grid = {PIPELINE + "lr": [0.01, 0.1, 0.2], "count__with_mean": [True, False]}
    search = FusedGridSearchCV(pipeline, grid, cv=3).fit(*data)
    # Three folds, two settings of the scaler, and the last fit.
    assert Count.n_fits == 3 * 2 + 1
    assert search.best_estimator_.memory is None
    assert type(search.best_estimator_[-1]) is MLPDiskClassifier
    assert_same_search(search, GridSearchCV(pipeline, grid, cv=3).fit(*data))


def test_a_pipeline_with_string_labels_and_names(clf):
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.map({0: "a", 1: "b", 2: "c"})
    pipeline = Pipeline([("scale", StandardScaler()), ("pca", PCA()), ("net", clf)])
    grid = {"pca__n_components": [2, 3], "net__lr": [0.01, 0.1]}
    fused, plain = run_both(pipeline, grid, (X, y), n_jobs=2, return_train_score=True)
    assert fused.feature_names_in_.tolist() == X.columns.tolist()
    assert fused.classes_.tolist() == ["a", "b", "c"]
    assert (fused.predict(X) == plain.predict(X)).all()
    # Two numbers of features, two workers.
    assert fused.fusion_report_["stacks"].map(len).max() <= 2


@pytest.mark.parametrize(
    ("scoring", "refit"),
    [
        (["accuracy", "neg_log_loss"], "neg_log_loss"),
        ({"acc": "accuracy", "auc": "roc_auc"}, lambda results: 1),
        (lambda clf, X, y: {"a": clf.score(X, y), "b": 1.0}, "a"),
        ("f1", False),
        (None, True),
    ],
    ids=["names", "callable refit", "callable", "no refit", "default"],
)
def test_every_form_of_scoring_and_refit(clf, data, scoring, refit):
    fused, plain = run_both(clf, {"lr": [0.05, 0.1]}, data, scoring=scoring, refit=refit)
    assert (
        hasattr(fused, "best_estimator_")
        == hasattr(plain, "best_estimator_")
        == (refit is not False)
    )
    assert vars(fused).keys() - vars(plain).keys() == {"max_stack", "fusion_report_"}


@pytest.mark.parametrize(
    "cv",
    [KFold(4), ShuffleSplit(2, random_state=0), [(np.arange(40), np.arange(40, 90))]],
    ids=str,
)
def test_every_form_of_cv(clf, data, cv):
    run_both(clf, {"lr": [0.05, 0.1]}, data, cv=cv)


def test_random_splits_are_the_same_for_all_candidates(clf, data):
    cv = ShuffleSplit(2)
    search = FusedGridSearchCV(clf, {"lr": [0.1, 0.1]}, cv=cv).fit(*data)
    first, second = get_scores(search).filter(regex="split").to_numpy()
    np.testing.assert_array_equal(first, second)


def test_groups_and_weights(clf, data):
    groups, weights = np.arange(90) % 5, np.arange(90) % 3 + 0.5
    params = {"groups": groups, "sample_weight": weights}
    fused, _ = run_both(clf, {"lr": [0.05, 0.1]}, data, params, cv=GroupKFold(3))
    assert fused.fusion_report_["n_networks"].tolist() == [3, 3]
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        run_both(routed, {"lr": [0.05, 0.1]}, data, params, cv=GroupKFold(3))


def test_sparse_rows(clf, data):
    X, y = data
    run_both(clf, {"lr": [0.05, 0.1], "dropout": [0.0, 0.3]}, (sparse.csr_array(X), y))


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_stacks_are_spread_over_processes(clf, data, n_jobs):
    grid = {"lr": [0.05, 0.1], "batch_size": [16, 32]}
    fused, _ = run_both(clf, grid, data, n_jobs=n_jobs)
    assert len({k for stacks in fused.fusion_report_["stacks"] for k in stacks}) >= 2


def test_a_worker_gets_the_networks_of_its_stack_only(clf, data, monkeypatch):
    train_stack, sizes = lookup_module._train_stack, []

    def spy(trainings, *arrays):
        sizes.append(len(pickle.dumps(trainings)) / len(trainings))
        return train_stack(trainings, *arrays)

    monkeypatch.setattr(lookup_module, "_train_stack", spy)
    for grid in ({"lr": [0.1]}, {"lr": [0.1 + i / 100 for i in range(20)]}):
        FusedGridSearchCV(clf, grid, cv=3, max_stack=3).fit(*data)
    assert len(sizes) == 21
    assert max(sizes) < 1.3 * min(sizes)


def test_what_cannot_be_stacked_is_fitted_all_the_same(clf, data):
    pipeline = Pipeline([("net", clf)])
    grid = [
        {"net": [LogisticRegression()]},
        {"net__lr": [0.1]},
        {"net__callbacks": [[ProgressBar(detect_notebook=False)]]},
    ]
    fused, _ = run_both(pipeline, grid, data)
    reasons = fused.fusion_report_["reason"]
    assert reasons[0] == "the classifier is a LogisticRegression"
    assert pd.isna(reasons[1])
    assert "callback 'ProgressBar' looks at every batch" in reasons[2]
    run_both(LogisticRegression(), {"C": [0.1, 1.0]}, data)


def test_callbacks_work_in_a_stack(clf, data):
    callbacks = [EarlyStopping("train_loss", patience=1, threshold=1, threshold_mode="abs")]
    clf = clf.set_params(callbacks=callbacks, max_epochs=20)
    fused, plain = run_both(clf, {"lr": [0.05, 0.1]}, data)
    assert fused.fusion_report_["reason"].isna().all()
    assert fused.best_estimator_.n_iter_ == plain.best_estimator_.n_iter_ == 2


def test_a_candidate_that_fails_gets_the_error_score_and_disturbs_nobody(clf, data):
    grid = {"lr": [0.1, -1.0, 0.05], "hidden_layer_sizes": [(6,)]}
    searches = []
    for cls in (FusedGridSearchCV, GridSearchCV):
        with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 9"):
            searches.append(cls(clf, grid, cv=3, error_score=-1).fit(*data))
    assert_same_search(*searches)
    fused = searches[0]
    assert fused.cv_results_["mean_test_score"][1] == -1
    assert "its fit fails: The 'lr' parameter" in fused.fusion_report_["reason"][1]
    with pytest.raises(ValueError, match="The 'lr' parameter of MLPDiskClassifier"):
        FusedGridSearchCV(clf, grid, cv=3, error_score="raise").fit(*data)


class FailLate(Callback):
    """A callback that fails in the second epoch where the learning rate is high."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2 and net.lr > 0.15:
            raise RuntimeError("the disk is full")


def test_a_candidate_that_fails_late_disturbs_nobody(clf, data):
    clf.set_params(callbacks=[FailLate()])
    with pytest.warns(FitFailedWarning, match="the disk is full"):
        search = FusedGridSearchCV(clf, {"lr": [0.1, 0.2]}, cv=3, error_score=-1).fit(*data)
    clf.set_params(callbacks=None)
    plain = GridSearchCV(clf, {"lr": [0.1]}, cv=3).fit(*data)
    assert search.cv_results_["mean_test_score"][0] == plain.best_score_
    assert search.cv_results_["mean_test_score"][1] == -1


def test_a_candidate_that_diverges_scores_low(clf, data):
    grid = {"lr": [0.1, 1e30]}
    clf.set_params(max_epochs=30)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 1"):
        fused = FusedGridSearchCV(clf, grid, cv=3).fit(*data)
    plain = GridSearchCV(clf, {"lr": [0.1]}, cv=3).fit(*data)
    assert fused.best_params_ == {"lr": 0.1}
    assert fused.best_score_ == plain.best_score_


class PressCtrlC(Callback):
    """Send the interrupt signal, as the terminal does."""

    def on_epoch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_the_search(clf, data):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        search = FusedGridSearchCV(clf.set_params(callbacks=[PressCtrlC()]), {"lr": [0.1, 0.2]})
        with pytest.raises(KeyboardInterrupt):
            search.fit(*data)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not hasattr(search, "cv_results_")
    assert type(search.estimator) is MLPDiskClassifier


def test_verbose_shows_progress(clf, data, capsys):
    FusedGridSearchCV(clf, {"lr": [0.1, 0.2]}, cv=3, verbose=1).fit(*data)
    out, err = capsys.readouterr()
    assert "Fitting 3 folds for each of 2 candidates, totalling 6 fits" in out
    assert "6/6" in err
    FusedGridSearchCV(clf, {"lr": [0.1, 0.2]}, cv=3).fit(*data)
    assert capsys.readouterr() == ("", "")


def test_a_randomised_search(clf, data):
    distributions = {"lr": loguniform(1e-3, 1e-1), "hidden_layer_sizes": [(), 3, 6]}
    searches = [
        cls(clf, distributions, n_iter=6, cv=3, random_state=0).fit(*data)
        for cls in (FusedRandomizedSearchCV, RandomizedSearchCV)
    ]
    assert_same_search(*searches)
    assert searches[0].best_params_ == searches[1].best_params_


def test_nested_cross_validation(clf, data):
    scores = [
        cross_val_score(cls(clf, {"lr": [0.01, 0.1]}, cv=2), *data, cv=3, n_jobs=2)
        for cls in (FusedGridSearchCV, GridSearchCV)
    ]
    np.testing.assert_allclose(*scores, atol=1.01 / 30)


candidates = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.sampled_from([[0.01, 0.1], [0.05]]),
        "hidden_layer_sizes": st.sampled_from([[(5,), (3,)], [(4, 3), (2, 6)], [()]]),
        "activation": st.sampled_from([["relu", "tanh"], ["gelu"]]),
        "weight_decay": st.just([0.0, 0.01]),
        "class_weight": st.just([None, "balanced"]),
        "dropout": st.just([0.0, 0.4]),
        "batch_size": st.sampled_from([[7, 32], [200]]),
        "lr_schedule": st.just(["cosine", "constant"]),
        "early_stopping": st.just([True]),
        "random_state": st.just([0, 1]),
    },
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    candidates,
    st.sampled_from([2, KFold(3, shuffle=True, random_state=0), ShuffleSplit(2, random_state=1)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["sgd", "adam"]),
)
@pytest.mark.filterwarnings("ignore:max_epochs=3 ended")
def test_drawn_searches_give_the_results_of_scikit_learn(
    data, grid, cv, weighted, in_pipeline, optimizer
):
    clf = MLPDiskClassifier((4,), lr=0.05, optimizer=optimizer, max_epochs=3, random_state=0)
    prefix = PIPELINE if in_pipeline else ""
    estimator = make_pipeline(StandardScaler(), clf) if in_pipeline else clf
    grid = {prefix + name: values[:2] for name, values in list(grid.items())[:3]}
    weights = {prefix + "sample_weight": np.arange(90) % 4 + 0.5} if weighted else {}
    fused, plain = run_both(estimator, grid, data, weights, cv=cv, scoring="neg_log_loss")
    np.testing.assert_allclose(
        fused.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-4
    )
    assert fused.fusion_report_["reason"].isna().all()


CLF = MLPDiskClassifier((16,), momentum=0.9, max_epochs=30, random_state=0)
SEARCHES = [
    FusedGridSearchCV(CLF, {"lr": [0.01, 0.02]}, cv=2, error_score="raise"),
    FusedRandomizedSearchCV(
        CLF, {"lr": [0.01, 0.02]}, n_iter=2, cv=2, random_state=0, error_score="raise"
    ),
]


# scikit-learn looks for ints among labels that are infinite.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore:The features are large or far from 0:UserWarning")
@parametrize_with_checks(SEARCHES)
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)
