"""Search networks for the breast-cancer data in threads, and read the results with pandas."""

import joblib
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier

STEP = "mlpdiskclassifier__"
GRID = {
    "lr": [0.01, 0.03, 0.1],
    "weight_decay": [0.0, 0.01],
    "hidden_layer_sizes": [(8,), (32,)],
    "batch_size": [32, 64],
}


def tabulate(search):
    """Tabulate a search: a row a candidate, a column a parameter, and the scores."""
    results = pd.DataFrame(search.cv_results_)
    params = pd.DataFrame([*results["params"]]).rename(columns=lambda name: name.split("__")[-1])
    scores = results[["mean_test_score", "std_test_score", "rank_test_score", "mean_fit_time"]]
    return params.join(scores)


def main():
    """Search, and print the results and the score of the best."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    clf = MLPDiskClassifier(random_state=0)
    # The scaler is in the pipeline: each fold is scaled by what its own training rows say.
    pipeline = make_pipeline(StandardScaler(), clf)
    grid = {STEP + name: values for name, values in GRID.items()}
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=5, n_jobs=-1)
    # A network trains without the interpreter's lock, so threads are enough: they start at once,
    # and share the data.
    with joblib.parallel_config("threading"):
        search.fit(X_train, y_train)

    results = tabulate(search)
    print(f"The best five of {len(results)} candidates, by their area under the ROC curve:")
    print(results.nsmallest(5, "rank_test_score").round(4).to_string(index=False), end="\n\n")
    print("Means of mean_test_score:")
    pivot = results.pivot_table("mean_test_score", ["hidden_layer_sizes", "lr"], "batch_size")
    print(pivot.round(4).to_string(), end="\n\n")

    best = {name.removeprefix(STEP): value for name, value in search.best_params_.items()}
    print(f"best_params_: {best}")
    print(f"On {len(X_test)} rows that no network has seen: {search.score(X_test, y_test):.4f}")


if __name__ == "__main__":
    main()
