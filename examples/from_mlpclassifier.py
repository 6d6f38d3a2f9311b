"""From MLPClassifier: what has the same names, and L-BFGS beside scikit-learn's own."""

import time
import warnings

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier

# With the penalty of scikit-learn's own, the loss on the rows of the training is what minimisers
# can be compared by. "auto" is for rows that they have not seen.
CLASSIFIERS = {
    "MLPClassifier": lambda n_rows: MLPClassifier((64,), solver="lbfgs", random_state=0),
    "the same penalty": lambda n_rows: MLPDiskClassifier(
        (64,), optimizer="lbfgs", weight_decay=1e-4 / n_rows, random_state=0
    ),
    'weight_decay="auto"': lambda n_rows: MLPDiskClassifier(
        (64,), optimizer="lbfgs", random_state=0
    ),
}


def score(make, X, y):
    """Fit on four fifths of the rows, five times, and score on them and on the others."""
    rows = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        model = make_pipeline(StandardScaler(), make(len(train)))
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X[train], y[train])
        seconds = time.process_time() - start
        losses = [log_loss(y[part], model.predict_proba(X[part])) for part in (train, test)]
        rows.append([*losses, seconds])
    return np.mean(rows, axis=0)


def main():
    """Print the tables."""
    table = {}
    for load in (load_iris, load_wine, load_breast_cancer):
        X, y = load(return_X_y=True)
        for name, make in CLASSIFIERS.items():
            table[load.__name__.removeprefix("load_"), name] = score(make, X, y)
    columns = ["log loss of training", "log loss of unseen rows", "CPU seconds"]
    print(pd.DataFrame(table, columns).T.round(5).to_string(), end="\n\n")

    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    clf = MLPDiskClassifier((16, 8), optimizer="lbfgs", random_state=0).fit(X, y)
    print(f"{clf.n_layers_} layers, {clf.n_outputs_} outputs, {clf.out_activation_}")
    print("coefs_:", *(weights.shape for weights in clf.coefs_))
    print(f"loss_: {clf.loss_:.4f} after {clf.n_iter_} epochs")
    print("hidden_activations:", clf.hidden_activations(X).shape, end="\n\n")

    grid = {"optimizer_params__betas": [(0.9, 0.999), (0.8, 0.9)], "lr_schedule": ["plateau"]}
    search = GridSearchCV(MLPDiskClassifier(optimizer="adam", random_state=0), grid).fit(X, y)
    print("best of a search:", search.best_params_)


if __name__ == "__main__":
    main()
