"""
Optuna, and trials that end early
=================================

A bad network need not be trained to its end. How does Optuna hear of each epoch, and end a
training?
"""

# %%
# By its own callback for skorch, from the package optuna-integration: it reports the loss of each
# epoch, and what it raises comes out of ``fit`` and tells Optuna. ``partial_fit`` is no way: it
# trains without a schedule.
import matplotlib.pyplot as plt
import optuna
import pandas as pd
from optuna_integration import SkorchPruningCallback
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier


def objective(trial):
    """Train with what a trial suggests, by the names that the parameters have."""
    model[-1].set_params(
        hidden_layer_sizes=trial.suggest_int("hidden_layer_sizes", 8, 128, log=True),
        lr=trial.suggest_float("lr", 1e-3, 0.1, log=True),
        dropout=trial.suggest_float("dropout", 0, 0.5),
        callbacks=[SkorchPruningCallback(trial, "valid_loss")],
    )
    return model.fit(X_train, y_train)[-1].best_loss_


# %%
# ``early_stopping`` holds out the same rows in each trial. Its patience is as long as the whole
# training, so that only Optuna ends one. A slow start is no bad end: Optuna waits five epochs.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
clf = MLPDiskClassifier(early_stopping=True, max_epochs=30, n_iter_no_change=30, random_state=0)
model = make_pipeline(StandardScaler(), clf)
optuna.logging.set_verbosity(optuna.logging.WARNING)
pruner = optuna.pruners.MedianPruner(n_warmup_steps=5)
study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
study.optimize(objective, n_trials=30)
losses = pd.DataFrame([trial.intermediate_values for trial in study.trials])
trials = study.trials_dataframe(["state"]).assign(epochs=losses.count(axis=1))
print(trials.groupby("state")["epochs"].agg(trials="size", epochs="sum"))
model[-1].set_params(**study.best_params, callbacks=None)
print(f"Accuracy of the best: {model.fit(X_train, y_train).score(X_test, y_test):.3f}")

# %%
# A trial ends where the best loss that it has had is above the median of the complete ones.
_, axes = plt.subplots(subplot_kw={"xlabel": "epoch", "ylabel": "validation loss in nats"})
for state, color in {"PRUNED": "silver", "COMPLETE": "tab:blue"}.items():
    lines = axes.semilogy(losses[trials["state"] == state].T, color=color)
    lines[0].set_label(state.lower())
_ = axes.legend()
