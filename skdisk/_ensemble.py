"""`MLPDiskEnsemble`: networks that differ in seed or settings, trained in threads, which vote.

They are alike, or chosen from a search by what they are worth together.
"""

from itertools import cycle
from numbers import Integral, Number
from typing import Any, Self

import joblib
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable
from sklearn.utils.validation import check_is_fitted

from ._classifier import MLPDiskClassifier
from ._compat import Interval, safe_split
from ._fitted import ProbabilisticClassifier, find_last
from ._inputs.arrays import check_labels
from ._inputs.parameters import (
    Labels,
    Lent,
    RandomState,
    Rows,
    check_memory,
    check_params,
    leave_numpy_as_found,
    make_rng,
)
from ._network.prediction import average, average_scores, give_form, transform

# At least: a fitted classifier, of whatever size its network is.
BYTES_PER_MEMBER = 10_000
# As in scikit-learn's log loss: a label that a network holds for impossible costs 36 nats.
EPSILON = np.finfo(np.float64).eps


def _check_estimators(name, estimators):
    """Check that there are some, each a classifier of ours or a pipeline that ends in one."""
    if not estimators or not all(
        isinstance(find_last(item), MLPDiskClassifier) for item in estimators
    ):
        raise TypeError(
            f"{name} must hold MLPDiskClassifiers, or pipelines that end in one. Got {estimators}."
        )


def _seed_clone(estimator, seed):
    """Clone, with one random state for all that have one."""
    names = [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]
    return clone(estimator).set_params(**dict.fromkeys(names, int(seed)))


def _call(config, function, args):
    with config_context(**config):
        return function(*args)


def _run_parallel(function, arguments, n_jobs):
    """Call a function with each of some tuples of arguments, `n_jobs` at a time."""
    # scikit-learn's configuration belongs to a thread.
    config = get_config()
    calls = (joblib.delayed(_call)(config, function, args) for args in arguments)
    # The kernel trains without the interpreter's lock: many networks are many threads.
    return joblib.Parallel(n_jobs, prefer="threads")(calls)


def _fit_member(member, X, y, sample_weight):
    # With metadata routing the steps of a pipeline say who gets the weights.
    is_to_last = isinstance(member, Pipeline) and not get_config()["enable_metadata_routing"]
    prefix = f"{member.steps[-1][0]}__" if is_to_last else ""
    weights = {} if sample_weight is None else {f"{prefix}sample_weight": sample_weight}
    return member.fit(X, y, **weights)


def _identify(value):
    """Give equal plain values one name; of others each its own: scikit-learn shortens theirs."""
    is_plain = isinstance(value, Number | str | tuple | None)
    return repr(value) if is_plain else id(value)


def _list_candidates(search, n_candidates):
    """List the best candidates of a fitted search, best first, as estimators to be fitted."""
    is_search = all(hasattr(search, name) for name in ("estimator", "cv", "refit"))
    if is_search:
        check_is_fitted(search, "cv_results_")
    results = getattr(search, "cv_results_", {})
    if not is_search or "params" not in results:
        raise TypeError(f"search must be a search such as GridSearchCV. Got {search!r}.")
    scores = results.get("mean_test_score", results.get(f"mean_test_{search.refit}"))
    if scores is None:
        names = [name.removeprefix("mean_test_") for name in results if "mean_test_" in name]
        raise ValueError(
            f"The search has several scores, {', '.join(names)}, and refit={search.refit!r} does "
            "not say which of them makes a candidate good. Set refit to one of their names."
        )
    # A halving search has gone further with the better candidates, to its largest resource: an
    # earlier score of fewer rows or epochs is not to be compared with a later one.
    table = pd.DataFrame({"iter": results.get("iter", 0), "score": scores})
    if table["score"].isna().all():
        raise ValueError("None of the search's candidates has a score: all are NaN.")
    table = table.dropna().sort_values(["iter", "score"], ascending=False, kind="stable")
    candidates = {}
    for position in table.index:
        params = results["params"][position]
        if getattr(search, "resource", None) in params:
            params = params | {search.resource: search.n_resources_[-1]}
        key = tuple((name, _identify(value)) for name, value in params.items())
        candidates.setdefault(key, params)
    return [
        clone(search.estimator).set_params(**clone(params, safe=False))
        for params in [*candidates.values()][:n_candidates]
    ]


@leave_numpy_as_found
def _choose(candidates, cv, X, y, groups, n_members, n_jobs):
    """Choose among unfitted candidates; return positions, best first, with repetitions.

    The greedy choice of Caruana et al.: the next member is the candidate with which the mean
    probability of those chosen so far has the lowest log loss, on rows that the networks which
    predict them have not seen.
    """
    # As searches do: rows of all their formats can be chosen from then.
    X, y = indexable(X, check_labels(y, X))
    splits = [*check_cv(cv, y, classifier=True).split(X, y, groups)]
    if not splits:
        raise ValueError(
            "search.cv gives no splits: an iterator is used up by the search's own fit. Give the "
            "search a list of them, or a splitter."
        )
    fits = ((candidate, X, y, *split) for candidate in candidates for split in splits)
    proba = _run_parallel(_predict_labels, fits, n_jobs)
    n_rows = sum(len(test) for _, test in splits)
    proba = np.concatenate(proba).reshape(len(candidates), n_rows, -1).clip(EPSILON)
    total = np.zeros(proba.shape[1:])
    chosen = []
    for _ in range(n_members):
        chosen.append(int(np.log(total + proba).sum(axis=(1, 2)).argmax()))
        total += proba[chosen[-1]]
    return chosen


def _predict_labels(candidate, X, y, train, test):
    """Fit on some rows; return the probability of its label of each of the others.

    Of several labels a row, those of its having each, or not having it.
    """
    fitted = clone(candidate).fit(*safe_split(candidate, X, y, train))
    X, y = safe_split(candidate, X, y, test)
    if y.ndim == 2:
        proba = fitted.predict_proba(X)
        return np.where(y == 1, proba, 1 - proba)
    # A class of which no row is among those to train on has no column.
    return (fitted.predict_proba(X) * (y[:, np.newaxis] == fitted.classes_)).sum(axis=1)


class MLPDiskEnsemble(ProbabilisticClassifier):
    """Classifiers that differ in their random state, or more; their mean probabilities decide.

    Parameters
    ----------
    estimator : MLPDiskClassifier, Pipeline that ends in one, or list of such, default=None
        What each member is, but for its `random_state`; of a list the members are the first, the
        second and so on, in turn. None stands for the best setting for tables that was measured
        (benchmarks/results/accuracy.md): the best of 50 epochs,
        `MLPDiskClassifier(max_epochs=50, early_stopping=True, n_iter_no_change=50)`.
    n_members : int, default=5
        How many there are.
    n_jobs : int, default=None
        How many members to train at a time, in threads (or on joblib's active backend).
    random_state : int, RandomState instance or None, default=None
        Where the members' random states come from. None draws from the operating system.

    Attributes
    ----------
    estimators_ : list of MLPDiskClassifier or Pipeline
        The fitted members.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; of several labels a row, the numbers of the columns of `y`.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,), dtype=object
        Names of the features, if `X` had column names that are all strings.

    References
    ----------
    Lakshminarayanan et al., Deep ensembles, NeurIPS 2017, https://arxiv.org/abs/1612.01474

    Caruana et al., Ensemble selection from libraries of models, ICML 2004, which `from_search`
    follows: https://doi.org/10.1145/1015330.1015432

    Examples
    --------
    >>> from skdisk import MLPDiskEnsemble, make_disk
    >>> X, y = make_disk(500, random_state=0)
    >>> MLPDiskEnsemble(random_state=0).fit(X, y).predict([[0, 0], [0.9, 0.9]])
    array([1, 0])
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "estimator": [MLPDiskClassifier, Pipeline, list, None],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    estimators_: list[Any]

    def __init__(
        self,
        estimator: MLPDiskClassifier | Pipeline | list[Any] | None = None,
        n_members: int = 5,
        *,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.n_members = n_members
        self.n_jobs = n_jobs
        self.random_state = random_state

    @classmethod
    def from_search(
        cls,
        search: Any,
        X: Rows,
        y: Labels,
        n_members: int = 10,
        *,
        n_candidates: int = 20,
        groups: ArrayLike | None = None,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> Self:
        """Make an ensemble of the candidates of a search that are best together, and fit it.

        The best candidates are trained again on each split of `search.cv`. Then members are
        chosen one by one, the same candidate several times if need be: the next is the one with
        which the mean probabilities have the lowest log loss on the rows held out. Last, each
        member is trained on all rows, with a random state of its own. On new rows of four tables
        the log loss is 1 % to 9 % below that of as many members of the best candidate
        (benchmarks/results/ensembles.md).

        The choice is kept as the parameter `estimator`, a list of `n_members` estimators: a clone
        of the ensemble trains the same settings anew, on whatever data, and does not choose again.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV or the like
            Fitted, over an MLPDiskClassifier or a pipeline that ends in one. With several scores,
            `refit` names the one to go by. Its networks are trained with the `random_state` that
            they have there.
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training data, as a rule those of the search.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels.
        n_members : int, default=10
            How many members to choose.
        n_candidates : int, default=20
            How many candidates, the best by the score of the search, to choose from.
        groups : array-like of shape (n_samples,), default=None
            What `search.cv` splits by, if it does.
        n_jobs : int, default=None
            How many networks to train at a time, and a parameter of the ensemble.
        random_state : int, RandomState instance or None, default=None
            Where the members' random states come from, a parameter of the ensemble.

        Returns
        -------
        ensemble : MLPDiskEnsemble
            The fitted ensemble.

        Raises
        ------
        NotFittedError
            If the search has not been fitted.
        ValueError, TypeError
            If the search is one over other estimators, has several scores and `refit` names none
            of them, or a parameter or the data are not as described.

        Examples
        --------
        >>> from sklearn.model_selection import GridSearchCV
        >>> from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk
        >>> X, y = make_disk(200, random_state=0)
        >>> clf = MLPDiskClassifier(random_state=0)
        >>> search = GridSearchCV(clf, {"lr": [0.03, 0.1], "activation": ["relu", "tanh"]})
        >>> ensemble = MLPDiskEnsemble.from_search(search.fit(X, y), X, y, random_state=0)
        >>> len(ensemble.estimators_)
        10
        """
        names = ("n_members", "n_candidates", "n_jobs", "random_state")
        params = dict(zip(names, (n_members, n_candidates, n_jobs, random_state), strict=True))
        constraints = cls._parameter_constraints
        constraints = {**constraints, "n_candidates": constraints["n_members"]}
        check_params(f"{cls.__name__}.from_search", params, constraints)
        candidates = _list_candidates(search, int(n_candidates))
        _check_estimators("search", candidates)
        chosen = _choose(candidates, search.cv, X, y, groups, int(n_members), n_jobs)
        estimators = [clone(candidates[position]) for position in chosen]
        return cls(estimators, n_members, n_jobs=n_jobs, random_state=random_state).fit(X, y)

    def fit(self, X: Rows, y: Labels, sample_weight: ArrayLike | None = None) -> Self:
        """Train the members.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training data: numbers, finite in float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels, as `MLPDiskClassifier` takes them.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts, at least 0. None stands for 1.

        Returns
        -------
        self : MLPDiskEnsemble
            The fitted ensemble. It changes only when all members are trained.

        Raises
        ------
        ValueError, TypeError
            If a parameter, a member's parameter or the data are not as described.
        """
        params = self.get_params(deep=False)
        check_params(type(self).__name__, params, self._parameter_constraints)
        check_memory("n_members", self.n_members, BYTES_PER_MEMBER * int(self.n_members))
        with Lent(self.random_state):
            return self._fit(X, y, sample_weight)

    @leave_numpy_as_found
    def _fit(self, X, y, sample_weight):
        rng = make_rng(self.random_state)
        seeds = rng.randint(np.iinfo(np.int32).max, size=int(self.n_members))
        best = MLPDiskClassifier(max_epochs=50, early_stopping=True, n_iter_no_change=50)
        estimator = best if self.estimator is None else self.estimator
        estimators = estimator if isinstance(estimator, list) else [estimator]
        _check_estimators("estimator", estimators)
        members = map(_seed_clone, cycle(estimators), seeds)
        fits = ((member, X, y, sample_weight) for member in members)
        members = _run_parallel(_fit_member, fits, self.n_jobs)
        names = ("classes_", "n_features_in_", "feature_names_in_")
        fitted = {name: getattr(members[0], name) for name in names if hasattr(members[0], name)}
        # All at once: an interrupt comes before or after.
        vars(self).update(fitted, estimators_=members)
        if "feature_names_in_" not in fitted:
            vars(self).pop("feature_names_in_", None)
        return self

    @property
    def _output(self):
        return find_last(self.estimators_[0])._output

    @leave_numpy_as_found
    def _predict(self, X, form):
        """Average the members' probabilities."""
        if self._output == "sigmoid":
            scores = average_scores([member.decision_function(X) for member in self.estimators_])
            return transform(scores, self._output, form)
        log_proba = average([member.predict_log_proba(X) for member in self.estimators_])
        return give_form(log_proba, form)
