"""`FusedGridSearchCV` and `FusedRandomizedSearchCV`: the networks of a search trained as one.

scikit-learn makes the search: splits, scores, table, refit. While it does, its estimator is one
whose `fit` looks the trained network up. Before that, every fit of the search has been prepared as
it would be alone, and the networks were trained, many in a stack (`_stack.py`). So what is not
foreseen here is fitted as scikit-learn does it, and every result comes out of its own code.
"""

import copy
import math

import joblib
import numpy as np
import pandas as pd
from joblib.parallel import get_active_backend
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from tqdm.auto import tqdm

from ._classifier import MLPDiskClassifier
from ._compat import iterate_splits
from ._obstacles import find_obstacle
from ._stack import find_stack, run_alone, run_with_others, train_together

# Networks of a stack at most. Measured with the lesson's network on one core: 53 microseconds a
# step and network for 1, 21 for 4, 18 for 8, 15 for 32, 19 for 64, 20 for 128.
MAX_STACK = 32
# So many networks at most are kept until they have been scored.
NETWORKS_AT_ONCE = 2048


def _hash(values):
    """Hash values, or return None where they are of a kind that cannot be hashed."""
    try:
        return joblib.hash(values)
    except Exception:
        # Whatever pickle makes of objects that it cannot write.
        return None


class _Memory:
    """The networks of a search: prepared, then trained, then looked up.

    Attributes
    ----------
    candidate : int or None
        Whose fits are being prepared; None while they are looked up.
    trainings, outcomes : dict
        By a hash of parameters and data: what is to be trained, and the trained estimator or the
        error that it ended with.
    stacks : dict
        By the same: the number of the stack.
    keys, reasons : dict
        By candidate: the hashes of its fits, and in words why they are not in a stack.
    shared : dict
        By hash: data, and what steps of pipelines have made, which many fits have in common.
    n_stacks : int
        How many stacks have been trained.
    """

    def __init__(self):
        self.candidate = None
        self.trainings, self.outcomes, self.stacks = {}, {}, {}
        self.keys, self.reasons = {}, {}
        self.n_stacks = 0
        self.shared = {}

    def __deepcopy__(self, memo):
        """Be one and the same for all clones of an estimator."""
        return self

    def fit(self, estimator, key, *args, **kwargs):
        """Prepare the fit of an estimator, or give it the outcome."""
        if self.candidate is None:
            outcome = self.outcomes[key]
            if isinstance(outcome, Exception):
                raise outcome
            own = vars(estimator).copy()
            estimator._adopt(copy.copy(outcome))
            # What scikit-learn has set on it for the time of the fit.
            vars(estimator).update(own)
            return estimator
        self.keys.setdefault(self.candidate, []).append(key)
        if key not in self.trainings:
            training = estimator._prepare(*args, **kwargs)
            # A worker process gets its own networks, not those of the whole search.
            del training.trained._memory
            for data in (training.train, training.validation):
                if data is not None:
                    # What many fits have in common is there once.
                    data.X, data.y = (
                        self.shared.setdefault(joblib.hash(values), values)
                        for values in (data.X, data.y)
                    )
            self.trainings[key] = training
        self.reasons[self.candidate] = find_obstacle(self.trainings[key].trained.net_)
        return estimator

    def cache(self, function, ignore=()):
        """Keep what a step of a pipeline makes, as `joblib.Memory` does, but in this process."""

        def call(*args, **kwargs):
            known = {name: value for name, value in kwargs.items() if name not in ignore}
            key = _hash((args, known))
            if key is None:
                return function(*args, **kwargs)
            if key not in self.shared:
                self.shared[key] = function(*args, **kwargs)
            return self.shared[key]

        return call

    def forget(self):
        """Forget the networks and data of some candidates, but not what is reported of them."""
        for values in (self.trainings, self.outcomes, self.shared):
            values.clear()


class _StackedClassifier(MLPDiskClassifier):
    """A classifier whose `fit` is that of a memory."""

    def __sklearn_clone__(self):
        cloned = super().__sklearn_clone__()
        cloned._memory = self._memory
        return cloned

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Prepare the fit, take over its outcome, or fit."""
        memory, validation = self._memory, {"X_val": X_val, "y_val": y_val}
        key = _hash((self.get_params(deep=False), X, y, sample_weight, validation))
        can_wait = (
            key is not None
            and (memory.candidate is not None or key in memory.outcomes)
            # Callbacks of scikit-learn watch the very fit; one part without the other is an error.
            and not getattr(self, "_skl_callbacks", None)
            and (X_val is None) == (y_val is None)
        )
        if not can_wait:
            return super().fit(X, y, sample_weight, **validation)
        validation = None if X_val is None else (X_val, y_val)
        return memory.fit(self, key, X, y, sample_weight, validation=validation)


# In error messages and representations it has the name that its users know.
_StackedClassifier.__name__ = MLPDiskClassifier.__name__


def _get_last(estimator):
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def _stack(estimator, memory):
    """Copy an estimator; the copy's classifier and pipeline use the memory."""
    stacked = clone(estimator)
    classifier = _get_last(stacked)
    if type(classifier) is MLPDiskClassifier:
        classifier.__class__ = _StackedClassifier
        classifier._memory = memory
        if isinstance(stacked, Pipeline) and stacked.memory is None:
            stacked.memory = memory
    return stacked


def _unstack(estimator):
    """Make of an estimator what it would be without a memory."""
    classifier = _get_last(estimator)
    if type(classifier) is _StackedClassifier:
        classifier.__class__ = MLPDiskClassifier
        del classifier._memory
    if isinstance(estimator, Pipeline) and isinstance(estimator.memory, _Memory):
        estimator.memory = None


def _train_stack(trainings):
    """Train networks together; return the estimators, or the errors that they ended with."""
    nets = [training.trained.net_ for training in trainings]
    for net in nets:
        net.run_fused_epoch = run_with_others
    errors = train_together([training.run for training in trainings])
    for net in nets:
        net.run_fused_epoch = run_alone
    return [error or training.trained for error, training in zip(errors, trainings, strict=True)]


def _divide(trainings, max_stack, n_workers):
    """Divide trainings into stacks: a list of lists of keys."""
    groups = {}
    for key, training in trainings.items():
        net = training.trained.net_
        kind = find_stack(net) if find_obstacle(net) is None else len(groups)
        groups.setdefault(kind, []).append(key)
    stacks = []
    for keys in groups.values():
        # A stack is as wide as its widest network: let those of about the same width be together.
        keys.sort(key=lambda key: trainings[key].trained.net_.module_.layer_sizes)
        n_stacks = max(math.ceil(len(keys) / max_stack), min(n_workers, len(keys)))
        stacks += [part.tolist() for part in np.array_split(np.array(keys), n_stacks)]
    return stacks


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
        if self.max_stack != "auto" and not (
            isinstance(self.max_stack, int) and self.max_stack >= 1
        ):
            raise ValueError(
                f"max_stack must be 'auto' or an int of at least 1. Got {self.max_stack!r}."
            )
        estimator, self._memory = self.estimator, _Memory()
        self._given, self._backend = (X, y, params), get_active_backend()
        self._n_candidates, self._rows = 0, []
        try:
            self.estimator = _stack(estimator, self._memory)
            # Networks are only looked up there; they are trained on the backend that is active.
            with joblib.parallel_config(backend="sequential"):
                super().fit(X, y, **params)
            self.fusion_report_ = pd.DataFrame(self._rows)
        finally:
            self.estimator = estimator
            for name in ("_memory", "_given", "_backend", "_n_candidates", "_rows"):
                delattr(self, name)
            if hasattr(self, "best_estimator_"):
                _unstack(self.best_estimator_)
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
                    some, cv or _Splits(splits), more_results, callback_ctx
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
        memory.candidate = None
        backend, n_jobs = self._backend
        with joblib.parallel_config(backend=backend):
            n_jobs = n_jobs if self.n_jobs is None else self.n_jobs
            max_stack = MAX_STACK if self.max_stack == "auto" else self.max_stack
            stacks = _divide(memory.trainings, max_stack, joblib.effective_n_jobs(n_jobs))
            parallel = joblib.Parallel(n_jobs, return_as="generator")
            trained = parallel(
                joblib.delayed(_train_stack)([memory.trainings[key] for key in keys])
                for keys in stacks
            )
            n_networks = len(memory.trainings)
            with tqdm(total=n_networks, unit="network", disable=not self.verbose) as bar:
                for number, (keys, outcomes) in enumerate(
                    zip(stacks, trained, strict=True), start=memory.n_stacks
                ):
                    memory.outcomes.update(zip(keys, outcomes, strict=True))
                    memory.stacks.update(dict.fromkeys(keys, number))
                    bar.update(len(keys))
            memory.n_stacks += len(stacks)

    def _prepare(self, estimator, parameters, X, y, fit_params):
        memory = self._memory
        try:
            estimator.set_params(**clone(parameters, safe=False))
            if not isinstance(_get_last(estimator), _StackedClassifier):
                name = type(_get_last(estimator)).__name__
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


class _Splits:
    """Splits that were made before."""

    def __init__(self, splits):
        self.splits = splits

    def split(self, *args, **kwargs):
        return iter(self.splits)


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
    >>> clf = MLPDiskClassifier(momentum=0.9, max_epochs=30, random_state=0)
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
    >>> clf = MLPDiskClassifier(max_epochs=30, random_state=0)
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
