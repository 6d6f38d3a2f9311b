"""The members of an ensemble, chosen from a search by what they are worth together.

A greedy choice with repetition (Caruana et al. 2004): the next member is the candidate with which
the mean probability of those chosen so far has the lowest log loss, on rows that the networks
which predict them have not seen.
"""

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_is_fitted

from ._compat import safe_split
from ._inputs.arrays import check_labels

# As in scikit-learn's log loss: a label that a network holds for impossible costs 36 nats.
EPSILON = np.finfo(np.float64).eps


def list_candidates(search, n_candidates):
    """List the best candidates of a fitted search, best first, as estimators to be fitted."""
    if not all(hasattr(search, name) for name in ("estimator", "cv", "refit")):
        raise TypeError(f"search must be a search such as GridSearchCV. Got {search!r}.")
    check_is_fitted(search, "cv_results_")
    results = search.cv_results_
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
    table = table.dropna().sort_values(["iter", "score"], ascending=False, kind="stable")
    candidates = {}
    for position in table.index:
        params = results["params"][position]
        if getattr(search, "resource", None) in params:
            params = params | {search.resource: search.n_resources_[-1]}
        candidates.setdefault(repr(params), params)
    return [
        clone(search.estimator).set_params(**clone(params, safe=False))
        for params in [*candidates.values()][:n_candidates]
    ]


def choose(candidates, cv, X, y, groups, n_members, n_jobs):
    """Choose among unfitted candidates; return positions, best first, with repetitions."""
    y = check_labels(y, X)
    splits = [*check_cv(cv, y, classifier=True).split(X, y, groups)]
    if not splits:
        raise ValueError(
            "search.cv gives no splits: an iterator is used up by the search's own fit. Give the "
            "search a list of them, or a splitter."
        )
    # The kernel trains without the interpreter's lock.
    proba = joblib.Parallel(n_jobs, prefer="threads")(
        joblib.delayed(_predict_labels)(candidate, X, y, *split)
        for candidate in candidates
        for split in splits
    )
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
