"""What differs between versions of scikit-learn, and its private names, each with its reason.

No other file imports a private name of scikit-learn or skorch, or asks for a version, so that a
new release of either is answered here.
"""

# scikit-learn's own estimators state the values that they accept as a table. Its checker has no
# public name; using it gives our errors the wording that its users know.
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

# The line below an estimator's name in scikit-learn's diagram is an argument of this class alone.
from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock

# A search takes the rows of a split with this, out of arrays, frames and lists.
from sklearn.utils.metaestimators import _safe_split as safe_split
from sklearn.utils.validation import _check_sample_weight

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ModuleNotFoundError:
    # scikit-learn 1.8 has no callbacks: without `set_callbacks`, no estimator has one to tell.
    class CallbackSupportMixin:
        """Add nothing."""

    def with_callbacks(method):
        """Leave a method as it is."""
        return method


# What scikit-learn keeps on an estimator for its callbacks while a fit goes on. The copies that it
# gives them have it as well, and would otherwise be refused by `save`.
OF_RUNNING_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")

__all__ = [
    "OF_RUNNING_FIT",
    "CallbackSupportMixin",
    "Interval",
    "StrOptions",
    "VisualBlock",
    "check_sample_weight",
    "safe_split",
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
