"""scikit-learn's own checks of an estimator: none fails, none is skipped."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from skdisk import MLPDiskClassifier

ESTIMATORS = [
    MLPDiskClassifier(),
    MLPDiskClassifier(fused=False),
    MLPDiskClassifier(hidden_layer_sizes=(), momentum=0.9),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)
