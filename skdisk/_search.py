"""`FusedGridSearchCV` and `FusedRandomizedSearchCV`: the networks of a search trained as one.

scikit-learn makes the search: splits, scores, table, refit. While it does, its estimator is one
whose `fit` looks up what has been trained before (`_lookup.py`). So what is not foreseen here is
fitted as scikit-learn does it, and every result comes out of its own code.
"""

import joblib
import numpy as np
import pandas as pd
from joblib.parallel import get_active_backend
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, check_cv

from ._compat import iterate_splits
from ._lookup import (
    Memory,
    StackedClassifier,
    check_max_stack,
    get_last,
    stack,
    train_all,
    unstack,
)

# So many networks at most are kept until they have been scored.
NETWORKS_AT_ONCE = 2048


class _FusedSearch:
    """What the fused searches add to those of scikit-learn."""

    def fit(self, X, y=None, **params):
        """Search, training networks together where that is possible.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,), default=None
            Labels.
        **params
            As for scikit-learn's search: `groups`, and what goes to the `fit` of the estimator.

        Returns
        -------
        self : object
            The fitted search.
        """
        check_max_stack(self.max_stack)
        estimator, self._memory = self.estimator, Memory()
        self._given, self._backend = (X, y, params), get_active_backend()
        self._n_candidates, self._rows = 0, []
        try:
            self.estimator = stack(estimator, self._memory)
            # Networks are only looked up there; they are trained on the backend that is active.
            with joblib.parallel_config(backend="sequential"):
                super().fit(X, y, **params)
            self.fusion_report_ = pd.DataFrame(self._rows)
        finally:
            self.estimator = estimator
            for name in ("_memory", "_given", "_backend", "_n_candidates", "_rows"):
                delattr(self, name)
            if hasattr(self, "best_estimator_"):
                unstack(self.best_estimator_)
        return self

    def _run_search(self, evaluate_candidates, callback_ctx=None):
        """Train the networks of some candidates before scikit-learn evaluates them."""

        def evaluate(candidates, cv=None, more_results=None, callback_ctx=None):
            X, y, params = self._given
            candidates, results = list(candidates), None
            n_at_once = max(1, NETWORKS_AT_ONCE // self.n_splits_)
            if len(candidates) > n_at_once:
                # A context counts the candidates of one call.
                callback_ctx = None
            for start in range(0, len(candidates), n_at_once):
                some = candidates[start : start + n_at_once]
                splits, data = iterate_splits(self, X, y, params)
                self._train(some, data)
                results = evaluate_candidates(
                    some, cv or check_cv(splits), more_results, callback_ctx
                )
                self._report(some)
            return results

        super()._run_search(evaluate, callback_ctx=callback_ctx)

    def _train(self, candidates, training_data):
        memory = self._memory
        memory.forget()
        for X, y, fit_params in training_data:
            for i, parameters in enumerate(candidates):
                memory.candidate = self._n_candidates + i
                self._prepare(clone(self.estimator), parameters, X, y, fit_params)
        backend, n_jobs = self._backend
        with joblib.parallel_config(backend=backend):
            train_all(
                memory,
                n_jobs=n_jobs if self.n_jobs is None else self.n_jobs,
                max_stack=self.max_stack,
                verbose=self.verbose,
            )

    def _prepare(self, estimator, parameters, X, y, fit_params):
        memory = self._memory
        try:
            estimator.set_params(**clone(parameters, safe=False))
            if not isinstance(get_last(estimator), StackedClassifier):
                name = type(get_last(estimator)).__name__
                memory.reasons[memory.candidate] = f"the classifier is a {name}"
                return
            estimator.fit(X, y, **fit_params)
        except Exception as error:
            # It comes again, where scikit-learn deals with it.
            memory.reasons[memory.candidate] = f"its fit fails: {error}"

    def _report(self, candidates):
        memory = self._memory
        for i, parameters in enumerate(candidates, start=self._n_candidates):
            keys = memory.keys.get(i, [])
            in_stack = not memory.reasons.get(i) and keys
            self._rows.append(
                {
                    "params": parameters,
                    "stacks": sorted({memory.stacks[key] for key in keys}) if in_stack else [],
                    "n_networks": len(keys) if in_stack else 0,
                    "reason": memory.reasons.get(i),
                }
            )
        self._n_candidates += len(candidates)


class FusedGridSearchCV(_FusedSearch, GridSearchCV):
    """scikit-learn's `GridSearchCV`, which trains networks together.

    Parameters
    ----------
    estimator : MLPDiskClassifier or Pipeline that ends in one
        Others are searched as scikit-learn does it.
    param_grid : dict or list of dict
        Lists of values, by the name of the parameter.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As for scikit-learn's. `n_jobs` is the number of stacks that are trained at a time;
        `verbose` of at least 1 shows how many networks are trained.
    max_stack : int or "auto", default="auto"
        How many networks are trained as one, at most.

    Attributes
    ----------
    fusion_report_ : DataFrame of shape (n_candidates, 4)
        One row a candidate: `params`, `stacks` (the numbers of the stacks that its networks were
        in), `n_networks`, and `reason`, in words why it was not in a stack (else missing).
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, ...
        As those of scikit-learn's. A candidate's `mean_fit_time` does not count the training in
        stacks, in which the networks of many candidates share the time.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Its attributes, methods and guide.

    Examples
    --------
    >>> from skdisk import FusedGridSearchCV, MLPDiskClassifier, make_disk
    >>> X, y = make_disk(500, random_state=0)
    >>> clf = MLPDiskClassifier(random_state=0)
    >>> search = FusedGridSearchCV(clf, {"lr": [0.0001, 0.05], "batch_size": [32, 64]})
    >>> search.fit(X, y).best_params_["lr"]
    0.05
    >>> search.fusion_report_["n_networks"].tolist()
    [5, 5, 5, 5]
    """

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        return_train_score=False,
        max_stack="auto",
    ):
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.max_stack = max_stack


class FusedRandomizedSearchCV(_FusedSearch, RandomizedSearchCV):
    """scikit-learn's `RandomizedSearchCV`, which trains networks together.

    Parameters
    ----------
    estimator : MLPDiskClassifier or Pipeline that ends in one
        Others are searched as scikit-learn does it.
    param_distributions : dict or list of dict
        Lists or distributions, by the name of the parameter.
    n_iter, scoring, n_jobs, refit, cv, verbose, pre_dispatch, random_state, error_score
        As for scikit-learn's. `n_jobs` is the number of stacks that are trained at a time;
        `verbose` of at least 1 shows how many networks are trained.
    return_train_score : bool, default=False
        As for scikit-learn's.
    max_stack : int or "auto", default="auto"
        How many networks are trained as one, at most.

    Attributes
    ----------
    fusion_report_ : DataFrame of shape (n_candidates, 4)
        As that of `FusedGridSearchCV`.
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, ...
        As those of scikit-learn's, but for `mean_fit_time`, see `FusedGridSearchCV`.

    See Also
    --------
    sklearn.model_selection.RandomizedSearchCV : Its attributes, methods and guide.

    Examples
    --------
    >>> from skdisk import FusedRandomizedSearchCV, MLPDiskClassifier, make_disk
    >>> X, y = make_disk(500, random_state=0)
    >>> clf = MLPDiskClassifier(random_state=0)
    >>> search = FusedRandomizedSearchCV(
    ...     clf, {"lr": [0.0001, 0.05], "momentum": [0.5, 0.9]}, n_iter=3, random_state=0
    ... )
    >>> search.fit(X, y).best_params_["lr"]
    0.05
    """

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_iter=10,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        random_state=None,
        error_score=np.nan,
        return_train_score=False,
        max_stack="auto",
    ):
        super().__init__(
            estimator,
            param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.max_stack = max_stack
