"""Two examples of scikit-learn's documentation, with our search and our classifier in them.

From examples/model_selection: plot_multi_metric_evaluation.py and
plot_nested_cross_validation_iris.py. The calls to the search are theirs.
"""

import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_iris, make_hastie_10_2
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from skdisk import FusedGridSearchCV, MLPDiskClassifier

SCORING = {"AUC": "roc_auc", "Accuracy": make_scorer(accuracy_score)}


@pytest.fixture
def plt(monkeypatch):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def search_with_two_metrics(cls, X, y):
    gs = cls(
        MLPDiskClassifier((16,), momentum=0.9, max_epochs=5, random_state=42),
        param_grid={"batch_size": range(16, 65, 16)},
        scoring=SCORING,
        refit="AUC",
        n_jobs=2,
        return_train_score=True,
    )
    return gs.fit(X, y)


def draw_scores(plt, results):
    """Draw what the example draws; return the best scores that it writes beside the curves."""
    plt.figure()
    ax = plt.gca()
    X_axis = np.array(results["param_batch_size"].data, dtype=float)
    best_scores = {}
    for scorer, color in zip(sorted(SCORING), ["g", "k"], strict=True):
        for sample, style in (("train", "--"), ("test", "-")):
            mean = results[f"mean_{sample}_{scorer}"]
            std = results[f"std_{sample}_{scorer}"]
            ax.fill_between(X_axis, mean - std, mean + std, alpha=0.1, color=color)
            ax.plot(X_axis, mean, style, color=color, label=f"{scorer} ({sample})")
        best_index = np.nonzero(results[f"rank_test_{scorer}"] == 1)[0][0]
        best_scores[scorer] = results[f"mean_test_{scorer}"][best_index]
        ax.annotate(f"{best_scores[scorer]:0.2f}", (X_axis[best_index], best_scores[scorer]))
    ax.legend(loc="best")
    plt.gcf().canvas.draw()
    assert len(ax.lines) == 4
    return best_scores


def test_several_metrics(plt):
    X, y = make_hastie_10_2(n_samples=1000, random_state=42)
    fused, plain = (
        search_with_two_metrics(cls, X, y) for cls in (FusedGridSearchCV, GridSearchCV)
    )
    results = fused.cv_results_
    assert results.keys() == plain.cv_results_.keys()
    for name in results:
        if "time" in name or name == "params":
            continue
        if name.startswith("param_"):
            assert results[name].tolist() == plain.cv_results_[name].tolist()
        else:
            np.testing.assert_allclose(results[name], plain.cv_results_[name], atol=1e-9)
    assert fused.best_params_ == plain.best_params_
    assert fused.best_score_ == results["mean_test_AUC"][fused.best_index_]
    assert fused.scorer_.keys() == SCORING.keys()
    assert (fused.predict(X) == plain.predict(X)).all()
    assert draw_scores(plt, results) == draw_scores(plt, plain.cv_results_)
    assert draw_scores(plt, results)["AUC"] == fused.best_score_


def compare_nested(cls, n_trials):
    X_iris, y_iris = load_iris(return_X_y=True)
    p_grid = {"lr": [0.001, 0.01, 0.1], "weight_decay": [0.0, 0.1]}
    net = MLPDiskClassifier((8,), momentum=0.9, max_epochs=10, random_state=0)
    non_nested_scores, nested_scores = np.zeros(n_trials), np.zeros((n_trials, 4))
    for i in range(n_trials):
        inner_cv = KFold(n_splits=4, shuffle=True, random_state=i)
        outer_cv = KFold(n_splits=4, shuffle=True, random_state=i)

        clf = cls(estimator=net, param_grid=p_grid, cv=outer_cv)
        clf.fit(X_iris, y_iris)
        non_nested_scores[i] = clf.best_score_

        clf = cls(estimator=net, param_grid=p_grid, cv=inner_cv)
        nested_scores[i] = cross_val_score(clf, X=X_iris, y=y_iris, cv=outer_cv)
    return non_nested_scores, nested_scores


def test_nested_and_non_nested_cross_validation():
    fused, plain = (compare_nested(cls, 2) for cls in (FusedGridSearchCV, GridSearchCV))
    for ours, theirs in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    non_nested_scores, nested_scores = fused
    # Whoever picks the best and scores it on the same rows flatters it.
    assert (non_nested_scores - nested_scores.mean(axis=1)).mean() >= 0
