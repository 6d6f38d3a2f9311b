"""Make an ensemble of a search's networks for the handwritten digits, and see what it is worth."""

import joblib
import pandas as pd
from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import RandomizedSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble

STEP = "mlpdiskclassifier__"
SPACE = {
    "hidden_layer_sizes": [(32,), (128,), (64, 64)],
    "activation": ["relu", "tanh", "silu"],
    "dropout": [0.0, 0.2, 0.4],
    "lr": loguniform(0.005, 0.1),
}


def main():
    """Search, choose members, and print log losses on rows that no network has seen."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.5, stratify=y, random_state=0
    )
    search = RandomizedSearchCV(
        make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0)),
        {STEP + name: values for name, values in SPACE.items()},
        n_iter=20,
        cv=3,
        scoring="neg_log_loss",
        random_state=0,
        n_jobs=-1,
    )
    with joblib.parallel_config("threading"):
        search.fit(X_train, y_train)
    shared = {"n_members": 10, "n_jobs": -1, "random_state": 0}
    models = {
        "the best network": search,
        "ten of the best": MLPDiskEnsemble(search.best_estimator_, **shared),
        "ten chosen": MLPDiskEnsemble.from_search(search, X_train, y_train, **shared),
    }
    models["ten of the best"].fit(X_train, y_train)
    for name, model in models.items():
        loss = log_loss(y_test, model.predict_proba(X_test))
        accuracy = accuracy_score(y_test, model.predict(X_test))
        print(f"{name:17}log loss {loss:.4f}, accuracy {accuracy:.4f}")

    chosen = pd.DataFrame([member[-1].get_params() for member in models["ten chosen"].estimator])
    print("\nThe ten chosen:")
    print(chosen[[*SPACE]].round(4).value_counts().reset_index().to_string(index=False))


if __name__ == "__main__":
    main()
