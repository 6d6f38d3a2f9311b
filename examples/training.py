"""Breast-cancer data, two ways to train: compare the scores, look at the loss curves."""

import sys
from pathlib import Path

import matplotlib
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import LossCurveDisplay, MLPDiskClassifier

# Draw into a file, without a window.
matplotlib.use("Agg")

CLASSIFIERS = {
    "SGD, as it comes": MLPDiskClassifier(random_state=0),
    "AdamW, early stopping": MLPDiskClassifier(
        (32,),
        optimizer="adamw",
        weight_decay=0.01,
        dropout=0.5,
        class_weight="balanced",
        early_stopping=True,
        validation_fraction=0.2,
        max_epochs=60,
        random_state=0,
    ),
}


def score(model, X, y):
    """Score a fitted model as a row of the table."""
    return {
        "accuracy": model.score(X, y),
        "balanced_accuracy": balanced_accuracy_score(y, model.predict(X)),
        "log_loss": log_loss(y, model.predict_proba(X)),
        "epochs": model[-1].n_iter_,
        "best_epoch": model[-1].best_epoch_,
    }


def main(path="loss_curves.png"):
    """Print the scores and the last epochs, and draw the loss curves into a file."""
    data = load_breast_cancer(as_frame=True)
    X, y = data.data, data.target.map(dict(enumerate(data.target_names)))
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

    models = {
        name: make_pipeline(StandardScaler(), clf).fit(X_train, y_train)
        for name, clf in CLASSIFIERS.items()
    }
    scores = {name: score(model, X_test, y_test) for name, model in models.items()}
    print(f"Scores on {len(X_test)} rows that no model has seen:")
    print(pd.DataFrame.from_dict(scores, orient="index").round(4).to_string(), end="\n\n")

    for name, model in models.items():
        print(f"The last epochs of {name}:")
        history = model[-1].history_.drop(columns="seconds").dropna(axis=1)
        print(history.tail(3).round(4).to_string(index=False), end="\n\n")

    display = LossCurveDisplay.from_estimator([*models.values()], name=[*models])
    display.ax_.set_title("Breast cancer: two ways to train")
    display.figure_.savefig(path, dpi=150)
    print(f"The loss curves are in {Path(path)}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
