"""The network among scikit-learn's tools, used as a reader of its user guide would."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes the next import work
from sklearn.inspection import DecisionBoundaryDisplay, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.helper import SkorchDoctor

from skdisk import MLPDiskClassifier, MLPDiskEnsemble


@pytest.fixture(scope="module")
def iris():
    """150 flowers as a frame, with names for labels."""
    data = load_iris(as_frame=True)
    return data.data, data.target.map(dict(enumerate(data.target_names)))


@pytest.fixture
def clf():
    return MLPDiskClassifier((16,), lr=0.05, momentum=0.9, max_epochs=20, random_state=0)


@pytest.fixture
def pipeline(clf):
    return make_pipeline(StandardScaler(), clf)


def test_pipeline_with_a_scaler(pipeline, iris):
    X, y = iris
    assert pipeline.fit(X, y).score(X, y) > 0.95
    assert set(pipeline.predict(X)) == {"setosa", "versicolor", "virginica"}


def test_set_output_pandas_upstream(pipeline, iris):
    X, y = iris
    pipeline.set_output(transform="pandas").fit(X, y)
    assert pipeline[-1].feature_names_in_.tolist() == X.columns.tolist()


def test_column_transformer_on_a_mixed_frame(clf, iris):
    X, y = iris
    mixed = X.assign(color=np.array(["red", "green", "blue"])[y.factorize()[0]])
    encode = make_column_transformer(
        (OneHotEncoder(), ["color"]), (StandardScaler(), X.columns), sparse_threshold=0
    )
    assert make_pipeline(encode, clf).fit(mixed, y).score(mixed, y) == 1


def test_cross_validation_with_several_scorers(pipeline, iris):
    scores = cross_validate(
        pipeline,
        *iris,
        scoring=["accuracy", "roc_auc_ovr", "neg_log_loss"],
        return_train_score=True,
    )
    assert scores["test_accuracy"].mean() > 0.9
    assert scores["test_roc_auc_ovr"].mean() > 0.98
    assert scores["test_neg_log_loss"].mean() > -0.3
    np.testing.assert_array_equal(cross_val_score(pipeline, *iris), scores["test_accuracy"])


def get_scores(search):
    return {
        key: value
        for key, value in search.cv_results_.items()
        if "score" in key and "time" not in key
    }


GRID = {
    "mlpdiskclassifier__hidden_layer_sizes": [(), (8,), 4],
    "mlpdiskclassifier__lr": [0.01, 0.1],
}


def test_grid_search_gives_the_same_scores_in_processes(pipeline, iris):
    alone, processes = (
        GridSearchCV(pipeline, GRID, cv=3, n_jobs=n_jobs, return_train_score=True).fit(*iris)
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(*(pd.DataFrame(get_scores(s)) for s in (alone, processes)))
    assert alone.best_params_ == processes.best_params_
    assert alone.best_score_ > 0.9


def test_randomized_search_gives_the_same_scores_in_processes(clf, iris):
    distributions = {"momentum": [0, 0.5, 0.9], "batch_size": [8, 32, 1000], "lr": [0.01, 0.1]}
    alone, processes = (
        RandomizedSearchCV(clf, distributions, n_iter=4, cv=3, n_jobs=n_jobs, random_state=0).fit(
            *iris
        )
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(*(pd.DataFrame(get_scores(s)) for s in (alone, processes)))


def test_halving_search_over_epochs(clf, iris):
    search = HalvingGridSearchCV(
        clf,
        {"lr": [1e-4, 0.01, 0.1]},
        resource="max_epochs",
        max_resources=27,
        cv=3,
        random_state=0,
    ).fit(*iris)
    assert search.best_estimator_.n_iter_ == 27
    assert search.best_params_["lr"] > 1e-4


@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: CalibratedClassifierCV(clf, cv=3),
        lambda clf: VotingClassifier(
            [("net", clf), ("linear", LogisticRegression())], voting="soft"
        ),
        lambda clf: StackingClassifier([("net", clf), ("linear", LogisticRegression())], cv=3),
        lambda clf: BaggingClassifier(clf, n_estimators=3, random_state=0),
        OneVsRestClassifier,
    ],
    ids=["calibrated", "voting", "stacking", "bagging", "one-vs-rest"],
)
def test_ensembles_take_it(clf, iris, wrap):
    X, y = iris
    model = make_pipeline(StandardScaler(), wrap(clf)).fit(X, y)
    assert model.score(X, y) > 0.9
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


def test_permutation_importance(pipeline, iris):
    X, y = iris
    result = permutation_importance(pipeline.fit(X, y), X, y, n_repeats=5, random_state=0)
    importances = pd.Series(result.importances_mean, X.columns)
    assert importances.idxmax().startswith("petal")


def test_decision_boundary_display(make_clf, disk):
    pytest.importorskip("matplotlib").use("Agg")
    X, y = disk
    clf = make_clf(max_epochs=200, momentum=0.9).fit(X, y)
    display = DecisionBoundaryDisplay.from_estimator(clf, X, response_method="predict_proba")
    response = np.asarray(display.response)
    middle = len(response) // 2
    assert response[middle, middle] > 0.5 > response[0, 0]


def test_the_diagram_shows_layers_epochs_and_losses_of_a_fit(make_clf, disk):
    X, y = disk
    pipeline = make_pipeline(StandardScaler(), make_clf())
    assert "layers" not in pipeline._repr_html_()
    fitted = make_clf().fit(X, y)
    loss = f"{fitted.loss_curve_[-1]:.4g}"
    assert f"layers 2-8-2, 3 epochs, train_loss {loss}</div>" in fitted._repr_html_()
    pipeline.fit(X, y, mlpdiskclassifier__X_val=X, mlpdiskclassifier__y_val=y)
    assert re.search(
        r"2-8-2, 3 epochs, train_loss .*, valid_loss .*</div>", pipeline._repr_html_()
    )


def test_the_diagram_links_to_no_page_of_skdisk(make_clf, disk):
    for estimator in (
        make_clf(),
        make_clf().fit(*disk),
        MLPDiskEnsemble(make_clf(), 2).fit(*disk),
    ):
        assert not re.findall('href="[^"]+"', estimator._repr_html_())


def test_the_doctor_of_skorch_looks_at_the_net(make_clf, disk):
    X, y = disk
    doctor = SkorchDoctor(make_clf().fit(X, y).net_).fit(X.astype("f4"), y.copy())
    assert "layers.0" in doctor.get_layer_names()["module"]
    assert len(doctor.gradient_recs_["module"]) > 0
