"""`MLPDiskEnsemble`: members are plain fits, and their mean probabilities decide."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk

CLF = MLPDiskClassifier((16,), momentum=0.9, max_epochs=30)


@pytest.fixture(scope="module")
def data():
    return make_disk(120, flip_y=0.1, random_state=0)


# Some data of the checks are far from 0.
@pytest.mark.filterwarnings("ignore:The features are large or far from 0:UserWarning")
@parametrize_with_checks([MLPDiskEnsemble(CLF, n_members=2, random_state=0)])
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_members_are_the_plain_fits_and_vote_softly(data, has_kernel, n_jobs):
    ensemble = MLPDiskEnsemble(CLF, n_members=3, n_jobs=n_jobs, random_state=0).fit(*data)
    seeds = [member.random_state for member in ensemble.estimators_]
    assert len(set(seeds)) == 3
    plain = [clone(CLF).set_params(random_state=seed).fit(*data) for seed in seeds]
    expected = np.mean([clf.predict_proba(data[0]) for clf in plain], axis=0)
    proba = ensemble.predict_proba(data[0])
    np.testing.assert_allclose(proba, expected, rtol=1e-12)
    assert proba.dtype == np.float64
    np.testing.assert_array_equal(ensemble.predict(data[0]), proba.argmax(axis=1))
    assert {type(member) for member in ensemble.estimators_} == {MLPDiskClassifier}
    assert [member.fused_ for member in ensemble.estimators_] == [has_kernel] * 3


def test_members_are_the_estimators_of_a_list_in_turn(data):
    settings = [clone(CLF).set_params(max_epochs=3), make_pipeline(StandardScaler(), CLF)]
    ensemble = MLPDiskEnsemble(settings, n_members=3, random_state=0).fit(*data)
    members = ensemble.estimators_
    assert [type(member) for member in members] == [MLPDiskClassifier, Pipeline, MLPDiskClassifier]
    assert (
        len({members[0].random_state, members[1][-1].random_state, members[2].random_state}) == 3
    )
    assert settings[0].random_state is None
    expected = np.mean([member.predict_proba(data[0]) for member in members], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(data[0]), expected, rtol=1e-12)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_members_are_trained_as_scikit_learn_is_configured(data, n_jobs):
    X, y = data
    frame = pd.DataFrame(X, columns=["a", "b"])
    columns = ColumnTransformer([("own", "passthrough", ["a"])], verbose_feature_names_out=False)
    pipeline = make_pipeline(StandardScaler(), columns, CLF)
    with sklearn.config_context(transform_output="pandas"):
        ensemble = MLPDiskEnsemble(pipeline, 2, n_jobs=n_jobs, random_state=0).fit(frame, y)
    assert [m[-1].feature_names_in_.tolist() for m in ensemble.estimators_] == [["a"]] * 2
    search = GridSearchCV(pipeline, {"mlpdiskclassifier__lr": [0.01, 0.1]}, cv=2)
    with sklearn.config_context(transform_output="pandas"):
        ensemble = MLPDiskEnsemble.from_search(search.fit(frame, y), frame, y, 2, n_jobs=n_jobs)
    assert [m[-1].feature_names_in_.tolist() for m in ensemble.estimators_] == [["a"]] * 2


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_with_metadata_routing_the_steps_say_who_gets_the_weights(data, n_jobs):
    X, y = data
    weights = np.arange(len(y)) % 3
    pipeline = make_pipeline(StandardScaler(), CLF)
    expected = MLPDiskEnsemble(pipeline, 2, random_state=0).fit(X, y, weights).predict_proba(X)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            clone(CLF).set_fit_request(sample_weight=True),
        )
        ensemble = MLPDiskEnsemble(pipeline, 2, n_jobs=n_jobs, random_state=0)
        proba = ensemble.fit(X, y, weights).predict_proba(X)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            ensemble.set_params(estimator=make_pipeline(StandardScaler(), CLF)).fit(X, y, weights)
    np.testing.assert_array_equal(proba, expected)


@pytest.mark.parametrize(
    "estimator", [[], [CLF, "mlp"], make_pipeline(LogisticRegression()), Pipeline([])]
)
def test_members_that_are_no_classifiers_of_ours_are_refused(data, estimator):
    with pytest.raises(TypeError, match="estimator must hold MLPDiskClassifiers, or pipelines"):
        MLPDiskEnsemble(estimator).fit(*data)


def test_weights_labels_and_names(data):
    X = pd.DataFrame(data[0], columns=["a", "b"])
    y = np.where(data[1] == 1, "in", "out")
    weights = np.arange(120) % 3
    ensemble = MLPDiskEnsemble(CLF, n_members=2, random_state=0).fit(X, y, weights)
    assert ensemble.feature_names_in_.tolist() == ["a", "b"]
    assert ensemble.classes_.tolist() == ["in", "out"]
    assert set(ensemble.predict(X)) == {"in", "out"}
    assert not hasattr(clone(ensemble).fit(*data), "feature_names_in_")
    member = clone(ensemble.estimators_[0]).fit(X, y, weights)
    np.testing.assert_array_equal(
        ensemble.estimators_[0].predict_proba(X), member.predict_proba(X)
    )


def test_the_default_member_is_the_best_of_fifty_epochs(data):
    assert clone(MLPDiskEnsemble()).estimator is None
    [member] = MLPDiskEnsemble(n_members=1, random_state=0).fit(*data).estimators_
    expected = MLPDiskClassifier(max_epochs=50, early_stopping=True, n_iter_no_change=50)
    expected.set_params(random_state=member.random_state)
    assert member.get_params() == expected.get_params()
    assert member.n_iter_ == 50


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_members": 0}, "The 'n_members' parameter of MLPDiskEnsemble must be an int"),
        ({"estimator": "mlp"}, "The 'estimator' parameter of MLPDiskEnsemble must be an inst"),
        ({"estimator": MLPDiskClassifier(lr=-1)}, "The 'lr' parameter of MLPDiskClassifier"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused_and_leave_no_trace(data, params, match):
    ensemble = MLPDiskEnsemble(**params)
    with pytest.raises(ValueError, match=match):
        ensemble.fit(*data)
    assert not hasattr(ensemble, "estimators_")
