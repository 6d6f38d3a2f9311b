"""`cross_validate_fused`: the networks of a cross-validation trained as one.

scikit-learn's own `cross_validate` runs twice over the same splits: once to prepare the fits, once
to look them up (`_lookup.py`).
"""

from contextlib import suppress

import joblib
import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import check_cv, cross_validate

from ._lookup import Memory, check_max_stack, stack, train_all, unstack


class _SameSplits:
    """A splitter that splits once and then repeats itself."""

    def __init__(self, cv):
        self.cv = cv
        self.splits = None

    def split(self, X, y=None, groups=None, **params):
        if self.splits is None:
            if groups is not None:
                params["groups"] = groups
            self.splits = list(self.cv.split(X, y, **params))
        return iter(self.splits)

    def get_n_splits(self, *args, **kwargs):
        return self.cv.get_n_splits(*args, **kwargs)

    def get_metadata_routing(self):
        return self.cv.get_metadata_routing()


def cross_validate_fused(
    estimator,
    X,
    y=None,
    *,
    groups=None,
    scoring=None,
    cv=None,
    n_jobs=None,
    verbose=0,
    params=None,
    pre_dispatch="2*n_jobs",
    return_train_score=False,
    return_estimator=False,
    return_indices=False,
    error_score=np.nan,
    max_stack="auto",
):
    """Cross-validate as scikit-learn's `cross_validate` does, the networks trained together.

    Parameters
    ----------
    estimator : MLPDiskClassifier or Pipeline that ends in one
        Others are validated as scikit-learn does it.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Data.
    y : array-like of shape (n_samples,), default=None
        Labels.
    groups, scoring, cv, verbose, params, pre_dispatch, error_score
        As for scikit-learn's. `verbose` of at least 1 also shows how many networks are trained.
    n_jobs : int, default=None
        The number of stacks that are trained at a time.
    return_train_score, return_estimator, return_indices
        As for scikit-learn's.
    max_stack : int or "auto", default="auto"
        How many networks are trained as one, at most.

    Returns
    -------
    scores : dict of ndarray of shape (n_splits,)
        As that of scikit-learn's. `fit_time` does not count the training, in which the networks
        share the time.

    Raises
    ------
    ValueError, TypeError
        If a parameter is not as described, or where scikit-learn's raises.

    See Also
    --------
    sklearn.model_selection.cross_validate : What the parameters mean.

    Examples
    --------
    >>> from skdisk import MLPDiskClassifier, cross_validate_fused, make_disk
    >>> X, y = make_disk(500, random_state=0)
    >>> clf = MLPDiskClassifier(random_state=0)
    >>> scores = cross_validate_fused(clf, X, y, cv=3)
    >>> (scores["test_score"] > 0.9).all()
    np.True_
    """
    check_max_stack(max_stack)
    memory = Memory()
    stacked = stack(estimator, memory)
    given = {
        "groups": groups,
        "cv": _SameSplits(check_cv(cv, y, classifier=is_classifier(estimator))),
        "params": params,
        "pre_dispatch": pre_dispatch,
    }
    memory.candidate = 0
    # Where a network is trained is decided below; here they are prepared and looked up.
    # An error comes again, where scikit-learn deals with it.
    with joblib.parallel_config(backend="sequential"), suppress(Exception):
        cross_validate(stacked, X, y, scoring=_score_nothing, error_score="raise", **given)
    train_all(memory, n_jobs=n_jobs, max_stack=max_stack, verbose=verbose)
    with joblib.parallel_config(backend="sequential"):
        scores = cross_validate(
            stacked,
            X,
            y,
            scoring=scoring,
            verbose=verbose,
            return_train_score=return_train_score,
            return_estimator=return_estimator,
            return_indices=return_indices,
            error_score=error_score,
            **given,
        )
    for fitted in scores.get("estimator", []):
        unstack(fitted)
    return scores


def _score_nothing(estimator, X, y=None):
    return 0.0
