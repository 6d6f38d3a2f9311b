"""scikit-learn's own checks of an estimator: none fails, none is skipped."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdisk import MLPDiskClassifier

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


# The checks look at the result; some of their data let the loss fall to the last epoch, and some
# are far from 0.
@pytest.mark.filterwarnings("ignore:max_epochs=:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The features are large or far from 0:UserWarning")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)
