"""Two examples of scikit-learn's documentation, with our classifier in them, in threads.

From examples/model_selection: plot_multi_metric_evaluation.py and
plot_nested_cross_validation_iris.py.
"""

import joblib
import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_iris, make_hastie_10_2
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from skdisk import MLPDiskClassifier

SCORING = {"AUC": "roc_auc", "Accuracy": make_scorer(accuracy_score)}


@pytest.fixture
def plt(monkeypatch):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def search_with_two_metrics(n_jobs, X, y):
    gs = GridSearchCV(
        MLPDiskClassifier((16,), momentum=0.9, max_epochs=5, random_state=42),
        param_grid={"batch_size": range(16, 65, 16)},
        scoring=SCORING,
        refit="AUC",
        n_jobs=n_jobs,
        return_train_score=True,
    )
    with joblib.parallel_config("threading"):
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
    threads, alone = (search_with_two_metrics(n_jobs, X, y) for n_jobs in (2, 1))
    results = threads.cv_results_
    assert results.keys() == alone.cv_results_.keys()
    for name in results:
        if "time" not in name and name != "params":
            assert results[name].tolist() == alone.cv_results_[name].tolist()
    assert threads.best_params_ == alone.best_params_
    assert threads.best_score_ == results["mean_test_AUC"][threads.best_index_]
    assert threads.scorer_.keys() == SCORING.keys()
    assert (threads.predict(X) == alone.predict(X)).all()
    assert draw_scores(plt, results) == draw_scores(plt, alone.cv_results_)
    assert draw_scores(plt, results)["AUC"] == threads.best_score_


def compare_nested(n_jobs, n_trials):
    X_iris, y_iris = load_iris(return_X_y=True)
    p_grid = {"lr": [0.001, 0.01, 0.1], "weight_decay": [0.0, 0.1]}
    net = MLPDiskClassifier((8,), momentum=0.9, max_epochs=10, random_state=0)
    non_nested_scores, nested_scores = np.zeros(n_trials), np.zeros((n_trials, 4))
    for i in range(n_trials):
        inner_cv = KFold(n_splits=4, shuffle=True, random_state=i)
        outer_cv = KFold(n_splits=4, shuffle=True, random_state=i)

        clf = GridSearchCV(estimator=net, param_grid=p_grid, cv=outer_cv)
        clf.fit(X_iris, y_iris)
        non_nested_scores[i] = clf.best_score_

        clf = GridSearchCV(estimator=net, param_grid=p_grid, cv=inner_cv)
        with joblib.parallel_config("threading"):
            nested_scores[i] = cross_val_score(clf, X=X_iris, y=y_iris, cv=outer_cv, n_jobs=n_jobs)
    return non_nested_scores, nested_scores


def test_nested_and_non_nested_cross_validation():
    threads, alone = (compare_nested(n_jobs, 2) for n_jobs in (2, 1))
    for ours, theirs in zip(threads, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    non_nested_scores, nested_scores = threads
    # Whoever picks the best and scores it on the same rows flatters it.
    assert (non_nested_scores - nested_scores.mean(axis=1)).mean() >= 0
