"""`MLPDiskEnsemble`: networks that differ in their seed, trained in threads, which vote."""

from numbers import Integral

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._classifier import MLPDiskClassifier
from ._compat import Interval, validate_parameter_constraints
from ._inputs.labels import labels_as_array
from ._inputs.lent import Lent
from ._inputs.numbers import check_memory, check_numbers
from ._network.prediction import average, compute_log_odds

# At least: a fitted classifier, of whatever size its network is.
BYTES_PER_MEMBER = 10_000


class MLPDiskEnsemble(ClassifierMixin, BaseEstimator):
    """Classifiers that differ in their random state only; their mean probabilities decide.

    Parameters
    ----------
    estimator : MLPDiskClassifier, default=None
        What each member is, but for its `random_state`. None stands for the best setting for
        tables that was measured (benchmarks/results/accuracy.md): the best of 50 epochs,
        `MLPDiskClassifier(max_epochs=50, early_stopping=True, n_iter_no_change=50)`.
    n_members : int, default=5
        How many there are.
    n_jobs : int, default=None
        How many members to train at a time, in threads (or on joblib's active backend).
    random_state : int, RandomState instance or None, default=None
        Where the members' random states come from. None draws from the operating system.

    Attributes
    ----------
    estimators_ : list of MLPDiskClassifier
        The fitted members.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    n_features_in_, feature_names_in_
        As those of a member.

    References
    ----------
    Lakshminarayanan et al., Deep ensembles, NeurIPS 2017, https://arxiv.org/abs/1612.01474

    Examples
    --------
    >>> from skdisk import MLPDiskEnsemble, make_disk
    >>> X, y = make_disk(500, random_state=0)
    >>> MLPDiskEnsemble(random_state=0).fit(X, y).predict([[0, 0], [0.9, 0.9]])
    array([1, 0])
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "estimator": [MLPDiskClassifier, None],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, n_members=5, *, n_jobs=None, random_state=None):
        self.estimator = estimator
        self.n_members = n_members
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        """Train the members; the parameters are those of `MLPDiskClassifier.fit`."""
        caller = type(self).__name__
        params = check_numbers(caller, self.get_params(deep=False))
        validate_parameter_constraints(self._parameter_constraints, params, caller_name=caller)
        check_memory("n_members", BYTES_PER_MEMBER * int(self.n_members))
        lent = Lent(self.random_state)
        try:
            return self._fit(X, y, sample_weight)
        except BaseException:
            lent.put_back()
            raise

    def _fit(self, X, y, sample_weight):
        # check_random_state(None) would be NumPy's global generator, not ours to change.
        rng = np.random.RandomState() if self.random_state is None else self.random_state
        n_members = int(self.n_members)
        seeds = check_random_state(rng).randint(np.iinfo(np.int32).max, size=n_members)
        estimator = self.estimator
        if estimator is None:
            estimator = MLPDiskClassifier(max_epochs=50, early_stopping=True, n_iter_no_change=50)
        members = [clone(estimator).set_params(random_state=int(seed)) for seed in seeds]
        # The kernel trains without the interpreter's lock: many networks are many threads.
        fits = (joblib.delayed(member.fit)(X, y, sample_weight) for member in members)
        members = joblib.Parallel(self.n_jobs, prefer="threads")(fits)
        vars(self).pop("feature_names_in_", None)
        names = {"classes_", "n_features_in_", "feature_names_in_"} & vars(members[0]).keys()
        vars(self).update({name: getattr(members[0], name) for name in names})
        self.estimators_ = members
        return self

    def predict(self, X):
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            The most probable label of each row, of the dtype of `classes_`.
        """
        positions = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[positions]

    def predict_proba(self, X):
        """Average the members' probabilities of each class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), dtype=float64
            Probabilities, the columns in the order of `classes_`; each row sums to 1.
        """
        log_proba = self.predict_log_proba(X)
        with np.errstate(under="ignore"):
            return np.exp(log_proba, out=log_proba)

    def predict_log_proba(self, X):
        """Compute the logarithms of the average probabilities.

        They are finite where `predict_proba` rounds to 0, and have their digits where that rounds
        to 1.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes), dtype=float64
            Log-probabilities, the columns in the order of `classes_`.
        """
        check_is_fitted(self)
        return average([member.predict_log_proba(X) for member in self.estimators_])

    def decision_function(self, X):
        """Compute the log-odds of the average probabilities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        log_odds : ndarray of shape (n_samples,) or (n_samples, n_classes), dtype=float64
            As `MLPDiskClassifier.decision_function`.
        """
        return compute_log_odds(self.predict_log_proba(X))

    def score(self, X, y, sample_weight=None):
        """Compute the accuracy on data; the parameters are those of `MLPDiskClassifier.score`."""
        return super().score(X, labels_as_array(y), sample_weight)

    def __sklearn_tags__(self):
        """Say that sparse rows are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
