"""What differs between versions of scikit-learn, and its private names, each with its reason.

No other file imports a private name of scikit-learn or skorch, or asks for a version, so that a
new release of either is answered here.
"""

# scikit-learn's own estimators state the values that they accept as a table. Its checker has no
# public name; using it gives our errors the wording that its users know.
from sklearn.utils import indexable
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

# The line below an estimator's name in scikit-learn's diagram is an argument of this class alone.
from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock

# A search takes the rows of a split, and what belongs to them, with these.
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params, _check_sample_weight

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ModuleNotFoundError:
    # scikit-learn 1.8 has no callbacks: without `set_callbacks`, no estimator has one to tell.
    class CallbackSupportMixin:
        """Add nothing."""

    def with_callbacks(method):
        """Leave a method as it is."""
        return method


__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "StrOptions",
    "VisualBlock",
    "check_sample_weight",
    "iterate_splits",
    "validate_parameter_constraints",
    "with_callbacks",
]


def check_sample_weight(sample_weight, X, **kwargs):
    """Check weights of rows, which have many forms and errors that users know.

    The checker has no public name, and in scikit-learn 1.8 it takes weights that are all zero.
    """
    checked = _check_sample_weight(sample_weight, X, **kwargs)
    if not checked.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return checked


def iterate_splits(search, X, y, params):
    """Find the splits of a search that is being fitted, and the training data of each.

    Which of the metadata go to the estimator, and which to the splitter, only a private method of
    the search tells; the splitter is an attribute that `fit` has set.

    Parameters
    ----------
    search : sklearn.model_selection.BaseSearchCV
        The search.
    X, y, params
        What its `fit` was given.

    Returns
    -------
    splits : list of tuple
        Training and test positions.
    training_data : iterator of tuple
        X, y and keyword arguments of the estimator's `fit`, split by split.
    """
    X, y = indexable(X, y)
    routed = search._get_routed_params_for_fit(_check_method_params(X, params=params))
    splits = list(search._checked_cv_orig.split(X, y, **routed.splitter.split))
    fit_params = routed.estimator.fit
    training_data = (
        (
            *_safe_split(search.estimator, X, y, train),
            _check_method_params(X, params=fit_params, indices=train),
        )
        for train, _ in splits
    )
    return splits, training_data
