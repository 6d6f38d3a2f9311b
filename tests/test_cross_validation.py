"""`cross_validate_fused` beside scikit-learn's `cross_validate`."""

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, ShuffleSplit, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier, cross_validate_fused
from skdisk import _lookup as lookup_module


@pytest.fixture
def stack_sizes(monkeypatch):
    """Collect the sizes of the stacks that are trained in this process."""
    train_stack, sizes = lookup_module._train_stack, []

    def spy(trainings, *arrays):
        sizes.append(len(trainings))
        return train_stack(trainings, *arrays)

    monkeypatch.setattr(lookup_module, "_train_stack", spy)
    return sizes


def assert_same_scores(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        if "score" in name and "time" not in name:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1.01 / 30)


CASES = {
    "default": {},
    "three folds": {"cv": 3, "return_train_score": True},
    "several scores": {"cv": 3, "scoring": ["accuracy", "neg_log_loss", "roc_auc"]},
    "a callable": {"cv": 3, "scoring": lambda clf, X, y: {"a": clf.score(X, y), "b": 1.0}},
    "a random splitter": {"cv": ShuffleSplit(3, random_state=0), "return_indices": True},
    "groups": {"cv": GroupKFold(3), "groups": np.arange(90) % 5},
    "weights": {"cv": 3, "params": {"sample_weight": np.arange(90) % 3 + 0.5}},
}


@pytest.mark.parametrize("kwargs", CASES.values(), ids=CASES)
def test_scores_are_those_of_scikit_learn(clf, data, stack_sizes, kwargs):
    ours, theirs = (f(clf, *data, **kwargs) for f in (cross_validate_fused, cross_validate))
    assert_same_scores(ours, theirs)
    assert stack_sizes == [len(ours["fit_time"])]


def test_metadata_are_routed(clf, data):
    params = {"sample_weight": np.arange(90) % 3 + 0.5, "groups": np.arange(90) % 5}
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        ours, theirs = (
            f(clf, *data, cv=GroupKFold(3), params=params)
            for f in (cross_validate_fused, cross_validate)
        )
    assert_same_scores(ours, theirs)


def test_fitted_estimators_are_the_plain_ones(clf, data):
    pipeline = make_pipeline(StandardScaler(), clf)
    kwargs = {"cv": 3, "return_estimator": True}
    ours, theirs = (f(pipeline, *data, **kwargs) for f in (cross_validate_fused, cross_validate))
    assert_same_scores(ours, theirs)
    for fitted, plain in zip(ours["estimator"], theirs["estimator"], strict=True):
        assert type(fitted[-1]) is MLPDiskClassifier
        assert fitted.memory is None
        assert vars(fitted[-1]).keys() == vars(plain[-1]).keys()
        np.testing.assert_allclose(
            fitted.predict_proba(data[0]), plain.predict_proba(data[0]), atol=1e-5
        )


def test_an_unseeded_splitter_splits_once(clf, data):
    result = cross_validate_fused(
        clf, *data, cv=ShuffleSplit(2), return_estimator=True, return_indices=True
    )
    for fitted, train in zip(result["estimator"], result["indices"]["train"], strict=True):
        plain = sklearn.base.clone(clf).fit(data[0][train], data[1][train])
        np.testing.assert_allclose(
            fitted.predict_proba(data[0]), plain.predict_proba(data[0]), atol=1e-5
        )


def test_folds_are_spread_over_processes(clf, data):
    ours = cross_validate_fused(clf, *data, cv=4, n_jobs=2)
    assert_same_scores(ours, cross_validate(clf, *data, cv=4))


def test_other_estimators_are_validated_as_scikit_learn_does(data, stack_sizes):
    ours, theirs = (f(LogisticRegression(), *data) for f in (cross_validate_fused, cross_validate))
    assert_same_scores(ours, theirs)
    assert stack_sizes == []


def test_errors_are_those_of_scikit_learn(clf, data):
    with pytest.raises(ValueError, match="max_stack must be 'auto' or an int of at least 1"):
        cross_validate_fused(clf, *data, max_stack=0)
    with pytest.raises(ValueError, match="The 'scoring' parameter of cross_validate"):
        cross_validate_fused(clf, *data, scoring="no such score")
    clf.set_params(lr=-1.0)
    with pytest.raises(ValueError, match="The 'lr' parameter of cross_validate must"):
        cross_validate_fused(clf, *data, error_score="raise")


def test_a_fold_that_fails_gets_the_error_score(data):
    X, y = np.array(data[0]), data[1]
    X[0, 0] = np.nan
    clf = MLPDiskClassifier((6,), max_epochs=2, random_state=0)
    splits = [(np.arange(50), np.arange(50, 90)), (np.arange(50, 90), np.arange(1, 50))]
    with pytest.warns(FitFailedWarning, match="1 fits failed out of a total of 2"):
        result = cross_validate_fused(clf, X, y, cv=splits, error_score=-1)
    assert result["test_score"][0] == -1
    assert result["test_score"][1] > 0


def test_verbose_shows_progress(clf, data, capsys):
    cross_validate_fused(clf, *data, cv=3, verbose=1)
    assert "1 of 1 stacks: 100%" in capsys.readouterr().err
    cross_validate_fused(clf, *data, cv=3)
    assert capsys.readouterr() == ("", "")
