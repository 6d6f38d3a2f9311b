"""Breast-cancer data, from frame to result: cross-validate, search a grid, read the tables."""

import joblib
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier


def main():
    """Print the results as data frames."""
    data = load_breast_cancer(as_frame=True)
    X, y = data.data, data.target.map(dict(enumerate(data.target_names)))
    print(f"{len(X)} rows, {X.shape[1]} features, classes {y.value_counts().to_dict()}\n")

    pipeline = make_pipeline(
        StandardScaler(),
        MLPDiskClassifier(random_state=0),
    )
    folds = pd.DataFrame(cross_validate(pipeline, X, y, scoring=["accuracy", "roc_auc"]))
    print("Five folds:")
    print(folds.filter(like="test_").agg(["mean", "std"]).round(4), end="\n\n")

    grid = {
        "mlpdiskclassifier__hidden_layer_sizes": [(16,), (64, 64)],
        "mlpdiskclassifier__lr": [0.01, 0.03],
    }
    with joblib.parallel_config("threading"):
        search = GridSearchCV(pipeline, grid, n_jobs=2).fit(X, y)
    results = pd.DataFrame(search.cv_results_).sort_values("rank_test_score")
    results.columns = results.columns.str.replace("param_mlpdiskclassifier__", "")
    print("The grid, best first:")
    columns = ["hidden_layer_sizes", "lr", "mean_test_score", "std_test_score"]
    print(results[columns].round(4).to_string(index=False), end="\n\n")

    history = search.best_estimator_[-1].history_
    print("Every fifth epoch of the best network:")
    print(history.loc[4::5, ["epoch", "train_loss"]].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
