"""Weights of rows: checked, multiplied with those of the classes, divided between two sets.

In all of it `sample_weight` has one float64 for each row, `class_weights` one for each class; None
is as if all were 1. `y` has positions of classes.
"""

import sys

import numpy as np
import torch

from .._compat import check_sample_weight as check_values
from .._network.mlp import is_number
from .._network.noise import hash_rows, mix
from .arrays import as_array, find_fault, locate_labels
from .parameters import write_value


def check_sample_weight(sample_weight, X):
    """Check the weights of the rows `X`; equal ones are none."""
    if sample_weight is None:
        return None
    sample_weight = as_array(sample_weight, "sample_weight")
    fault = find_fault(sample_weight)
    if fault is not None:
        raise ValueError(f"sample_weight must be numbers of at least 0. Got: {fault}.") from fault
    # Only the number of rows is looked at.
    rows = np.empty((X.shape[0], 0))
    if sample_weight.ndim == 0:
        # A number alone scikit-learn takes unseen.
        sample_weight = np.full(X.shape[0], sample_weight)
    # Values beyond float64 become infinite here, and are refused as such.
    with np.errstate(over="ignore"):
        sample_weight = check_values(
            sample_weight, rows, dtype=np.float64, ensure_non_negative=True
        )
    return _drop_equal(sample_weight)


def _drop_equal(weights):
    return None if (weights == weights[0]).all() else weights


def check_class_weight(class_weight):
    """Check the values of a dict of class weights."""
    if not isinstance(class_weight, dict):
        return
    for label, weight in class_weight.items():
        # Beside a float of NumPy, the largest float of Python is rounded to infinity.
        value = float(weight) if isinstance(weight, np.floating) else weight
        if not (is_number(weight) and 0 <= value <= sys.float_info.max):
            raise ValueError(
                "The weights in class_weight must be finite numbers of at least 0. Got "
                f"{write_value(weight)} for the class {label!r}."
            )


def compute_class_weights(class_weight, classes, y, sample_weight):
    """Compute the weight of each class from the parameter of the estimator.

    "balanced" gives all classes that occur the same weight in sum: n_samples / (n_classes *
    count), where rows count by their weight.
    """
    if class_weight is None:
        return None
    if y.ndim == 2:
        raise ValueError(
            f"class_weight={class_weight!r} is for rows of one label each; those of y have "
            "several. Use class_weight=None, with sample_weight for what each row counts, or "
            "sklearn.multioutput.MultiOutputClassifier, which trains a network for each label."
        )
    if class_weight == "balanced":
        return _balance(classes, y, sample_weight)
    weights = np.ones(len(classes))
    known = locate_labels(classes)
    unknown = [label for label in class_weight if label not in known]
    # A part of the rows, as in cross-validation, may lack a class whose weight is given.
    if unknown and len(class_weight) - len(unknown) < len(classes):
        raise ValueError(
            f"class_weight has the keys {unknown}, which are not among the labels "
            f"{classes.tolist()}. Use the labels themselves as keys, of the type that y has."
        )
    for label, weight in class_weight.items():
        if label in known:
            weights[known[label]] = weight
    return weights


def _balance(classes, y, sample_weight):
    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    present = np.bincount(y, weights=weights > 0, minlength=len(classes)) > 0
    counts = np.bincount(y, weights=_bring_near_one(weights), minlength=len(classes))
    class_weights = np.zeros(len(classes))
    with np.errstate(divide="ignore", over="ignore"):
        class_weights[present] = counts.sum() / (present.sum() * counts[present])
    if not np.isfinite(class_weights).all():
        raise ValueError(
            f"class_weight='balanced' would multiply the class {classes[class_weights.argmax()]} "
            "by more than 1e308, so small are its sample_weight beside those of the others. Give "
            "weights that are closer together."
        )
    return class_weights


def _bring_near_one(weights):
    """Multiply by the power of two, which changes no digit, that makes the largest 0.5 to 1."""
    return np.ldexp(weights, -np.frexp(weights.max())[1])


def multiply_weights(sample_weight, class_weights, y):
    """Multiply the weights of rows with those of their classes.

    Of two factors the products have a unit of their own, so that they are finite: 0 is a product
    that is 0, or 1e308 times smaller than the largest.
    """
    if class_weights is None:
        return sample_weight
    if sample_weight is None:
        return class_weights[y]
    fractions, exponents = np.frexp((sample_weight, class_weights[y]))
    fractions, exponents = fractions.prod(axis=0), exponents.sum(axis=0)
    # All exponents of float64, two of them in sum, are above -4096.
    largest = exponents.max(where=fractions > 0, initial=-4096)
    return np.ldexp(fractions, exponents - largest)


def leave_out_weightless(X, y, sample_weight, class_weights):
    """Leave out the rows whose weight is zero, or whose class's is; return the first three."""
    weights = multiply_weights(sample_weight, class_weights, y)
    if weights is None or weights.all():
        return X, y, sample_weight
    rows = np.flatnonzero(weights)
    if len(rows) == 0:
        raise ValueError(
            "class_weight, times sample_weight if there is one, is zero for all rows. Give at "
            "least one row to train on, and one to validate on, a weight above zero."
        )
    return X[rows], y[rows], None if sample_weight is None else sample_weight[rows]


def scale_to_mean_one(weights):
    """Divide weights above 0 by their mean: a float64 tensor, or None where they are all equal."""
    weights = None if weights is None else _drop_equal(weights)
    if weights is None:
        return None
    # Their sum may be too large for a float.
    weights = _bring_near_one(weights)
    return torch.tensor(weights / weights.mean())


def hold_out(X, y, sample_weight, fraction, seed):
    """Divide rows into those to train on and those to validate on, class by class.

    Rows of several labels are taken as one class. Of each class a fraction is held out, at least
    one row, at most all but one. Which rows these are is a function of their values and the seed,
    not of their order. Weights that are whole numbers are repetitions: of a row of weight 3, one
    repetition may be held out and two be trained on, just as of three equal rows. Rows of other
    weights are kept whole.

    Returns positions of rows, ascending, and their weights, of the two sets.
    """
    y = y if y.ndim == 1 else np.zeros(len(y))
    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    # Counts are exact up to this sum.
    are_counts = (weights == np.floor(weights)).all() and weights.max() <= 2**53 / len(y)
    units = weights if are_counts else (weights > 0).astype(float)
    draw = mix(hash_rows(X) + seed).cpu().numpy()
    held = np.zeros(len(y))
    for c in np.unique(y[units > 0]):
        rows = np.flatnonzero(y == c)
        rows = rows[np.argsort(draw[rows], kind="stable")]
        counts = np.cumsum(units[rows])
        n_rows = counts[-1]
        # The only row of a class is trained on.
        if n_rows < 2:
            continue
        n_held = np.clip(round(fraction * n_rows), 1, n_rows - 1)
        # Every n_rows / n_held-th one, in an order that is random.
        marks = np.floor(counts * n_held / n_rows + 0.5)
        held[rows] = np.diff(marks, prepend=0.0)
    if not held.any():
        raise ValueError(
            "early_stopping=True holds rows of each class out of the training, but of every class "
            "there is only 1 sample. Pass validation data as X_val and y_val, or use "
            "early_stopping=False."
        )
    held = np.divide(held * weights, units, out=held, where=units > 0)
    kept = weights - held
    return tuple((np.flatnonzero(part), part[part > 0]) for part in (kept, held))
