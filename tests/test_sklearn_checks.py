"""scikit-learn's own checks of an estimator, for settings of every kind.

`make checks` runs them on all configurations that are drawn here, the suite on three of them. What
cannot hold for a configuration is said in docs/checks.md.
"""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import LRScheduler

from skdisk import MLPDiskClassifier
from skdisk._module import ACTIVATIONS

ESTIMATORS = [
    MLPDiskClassifier(),
    MLPDiskClassifier(fused=False),
    MLPDiskClassifier(hidden_layer_sizes=(), momentum=0.9),
    MLPDiskClassifier(
        dropout=0.2, optimizer="adamw", class_weight="balanced", early_stopping=True
    ),
    MLPDiskClassifier(
        dropout=0.2,
        optimizer="adamw",
        class_weight="balanced",
        early_stopping=True,
        fused=False,
        max_epochs=60,
    ),
]


class Schedule(LRScheduler):
    """A schedule of skorch's, with a name that is the same in each of pytest-xdist's processes."""

    def __repr__(self):
        return f"LRScheduler({self.policy!r})"


# An optimiser with a learning rate that suits it.
OPTIMIZERS = [
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False},
    {"optimizer": "sgd", "lr": 0.03, "momentum": 0.9, "nesterov": False},
    {"optimizer": "sgd", "lr": 0.03, "momentum": 0.9, "nesterov": True},
    {"optimizer": "adam", "lr": 0.01, "optimizer_params": {"betas": (0.9, 0.99)}},
    {"optimizer": "adamw", "lr": 0.01},
    {"optimizer": torch.optim.NAdam, "lr": 0.01},
]
VALUES = {
    "optimizer": OPTIMIZERS,
    "hidden_layer_sizes": [(), 5, (16,), (64, 64), (8, 8, 8)],
    "activation": sorted(ACTIVATIONS),
    "dropout": [0.0, 0.2, 0.5],
    "lr_schedule": ["constant", "cosine", "one_cycle", Schedule("StepLR", step_size=20)],
    "clip_grad_norm": [None, 1.0],
    "batch_size": [4, 32, 200],
    "weight_decay": [0.0, 1e-3],
    "class_weight": [None, "balanced"],
    "early_stopping": [False, True],
    "shuffle": [True, False],
    "fused": ["auto", False],
    "max_epochs": [40, 60],
}


def draw_configurations(n_configurations, seed):
    """Draw settings so that each value of each parameter occurs equally often, or nearly."""
    rng = np.random.RandomState(seed)
    columns = {}
    for name, values in VALUES.items():
        positions = rng.permutation(np.resize(np.arange(len(values)), n_configurations))
        columns[name] = [values[position] for position in positions]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [MLPDiskClassifier(random_state=0, **{**row, **row["optimizer"]}) for row in rows]


CONFIGURATIONS = draw_configurations(12, seed=0)


# The checks look at the result; some of their data let the loss fall to the last epoch.
@pytest.mark.filterwarnings("ignore:max_epochs=:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS + CONFIGURATIONS[:3])
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:max_epochs=:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(CONFIGURATIONS[3:])
def test_scikit_learn_check_passes_in_the_long_form(estimator, check):
    check(estimator)
