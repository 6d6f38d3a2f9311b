"""scikit-learn's own checks of an estimator, for settings of every kind.

`make checks` runs them on all configurations that are drawn here, the suite on one of them. What
cannot hold for a configuration is said in docs/guide/checks.md.
"""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import LRScheduler

from skdisk import MLPDiskClassifier
from skdisk._network.mlp import ACTIVATIONS


class Schedule(LRScheduler):
    """A schedule of skorch's, with a name that is the same in each of pytest-xdist's processes."""

    def __repr__(self):
        return f"LRScheduler({self.policy!r})"


STEP_LR = Schedule("StepLR", step_size=20, gamma=0.8)
OPTIONS = {
    "dropout": 0.2,
    "optimizer": "adamw",
    "class_weight": "balanced",
    "early_stopping": True,
}
# As it comes, the classifier trains up to 300 epochs of few rows; 30 are enough for the checks.
ESTIMATORS = [
    MLPDiskClassifier(),
    MLPDiskClassifier(fused=False, max_epochs=30),
    MLPDiskClassifier(hidden_layer_sizes=(), momentum=0.9, max_epochs=30),
    MLPDiskClassifier(**OPTIONS, max_epochs=30),
    MLPDiskClassifier(**OPTIONS, lr_schedule=STEP_LR, fused=False, max_epochs=30),
]


# An optimiser with a learning rate that suits it.
OPTIMIZERS = [
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False},
    {"optimizer": "sgd", "lr": 0.03, "momentum": 0.9, "nesterov": False},
    {"optimizer": "sgd", "lr": 0.03, "momentum": 0.9, "nesterov": True},
    {"optimizer": "adam", "lr": 0.01, "optimizer_params": {"betas": (0.9, 0.99)}},
    {"optimizer": "adamw", "lr": 0.01},
    {"optimizer": torch.optim.NAdam, "lr": 0.01},
]
# A batch size with a number of epochs that is enough for the checks, which have few rows.
BATCH_SIZES = [
    {"batch_size": 4, "max_epochs": 40},
    {"batch_size": 32, "max_epochs": "auto"},
    {"batch_size": 200, "max_epochs": 100},
]
VALUES = {
    "optimizer": OPTIMIZERS,
    "batch_size": BATCH_SIZES,
    "hidden_layer_sizes": [(), 5, (16,), (64, 64), (8, 8, 8)],
    "activation": sorted(ACTIVATIONS),
    "dropout": [0.0, 0.2, 0.5],
    "lr_schedule": ["constant", "cosine", "one_cycle", STEP_LR],
    "clip_grad_norm": [None, 1.0],
    "weight_decay": [0.0, 1e-3],
    "class_weight": [None, "balanced"],
    "early_stopping": [False, True],
    "shuffle": [True, False],
    "fused": ["auto", False],
}


def draw_configurations(n_configurations, seed):
    """Draw settings so that each value of each parameter occurs equally often, or nearly."""
    rng = np.random.RandomState(seed)
    columns = {}
    for name, values in VALUES.items():
        positions = rng.permutation(np.resize(np.arange(len(values)), n_configurations))
        columns[name] = [values[position] for position in positions]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [
        MLPDiskClassifier(**row | row["optimizer"] | row["batch_size"], random_state=0)
        for row in rows
    ]


CONFIGURATIONS = draw_configurations(12, seed=0)
# Adam in batches of 4, which is unlike those above.
IN_SUITE = CONFIGURATIONS.pop(8)
# On all rows at once, so that no batch size is drawn.
CONFIGURATIONS.append(MLPDiskClassifier(optimizer="lbfgs", random_state=0))


def find_expected_failures(clf):
    """Name the checks that cannot hold, with the reason."""
    if clf.batch_size >= 32:
        return {}
    reason = "a row of weight 3 is in one batch, three rows may be in three"
    kinds = ("dense", "sparse")
    return {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in kinds}


def run_without_class_weight(check, clf):
    """Run a check, those of several labels a row, where it is refused, without `class_weight`."""
    if "multilabel" in check.func.__name__:
        clf = clone(clf).set_params(class_weight=None)
    check(clf)


def run(check, clf):
    """Run a check, that of class weights without early stopping.

    It demands that a class of weight 1000 beside 0.0001 be predicted nearly everywhere. Of its 50
    rows of noise early stopping holds two of this class out, and ends the training when their loss
    does not fall, with some random states long before the network has learned that much.
    """
    if clf.early_stopping and check.func.__name__ == "check_class_weight_classifiers":
        clf = clone(clf).set_params(early_stopping=False)
    run_without_class_weight(check, clf)


# The checks look at the result; some of their data let the loss fall to the last epoch, and some
# are far from 0.
pytestmark = [
    pytest.mark.filterwarnings("ignore:max_epochs=:sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:The features are large or far from 0:UserWarning"),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check_passes(estimator, check):
    run_without_class_weight(check, estimator)


@parametrize_with_checks([IN_SUITE], expected_failed_checks=find_expected_failures)
def test_scikit_learn_check_passes_for_a_drawn_configuration(estimator, check):
    run(check, estimator)


@pytest.mark.long
@parametrize_with_checks(CONFIGURATIONS, expected_failed_checks=find_expected_failures)
def test_scikit_learn_check_passes_for_every_drawn_configuration(estimator, check):
    run(check, estimator)
