"""Weights of rows: checked, multiplied with those of the classes, divided between two sets.

NumPy and scikit-learn; no training.
"""

from numbers import Real

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight

from ._compat import check_sample_weight as check_values
from ._noise import hash_rows, mix


def check_sample_weight(sample_weight, X):
    """Check the weights of rows.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        The weights.
    X : array of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    sample_weight : ndarray of shape (n_samples,), dtype=float64, or None
        The same; None where all weights are equal, which is as if there were none.

    Raises
    ------
    ValueError
        If they are not as many as the rows, not finite, negative, or all zero.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = sample_weight.detach().cpu().numpy()
    # Only the number of rows is looked at.
    rows = np.empty((X.shape[0], 0))
    sample_weight = check_values(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    return _drop_equal(sample_weight)


def _drop_equal(weights):
    return None if (weights == weights[0]).all() else weights


def check_class_weight(class_weight):
    """Check the values of a dict of class weights.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        The parameter of the estimator.

    Raises
    ------
    ValueError
        If a weight is negative or not a finite number.
    """
    if not isinstance(class_weight, dict):
        return
    for label, weight in class_weight.items():
        if not (isinstance(weight, Real) and 0 <= weight < np.inf):
            raise ValueError(
                "The weights in class_weight must be finite numbers of at least 0. Got "
                f"{weight!r} for the class {label!r}."
            )


def compute_class_weights(class_weight, classes, y, sample_weight):
    """Compute the weight of each class.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        By label; those that are not there have 1. "balanced" gives all classes that occur the same
        weight in sum: n_samples / (n_classes * count), where rows count by their weight.
    classes : ndarray of shape (n_classes,)
        The labels.
    y : ndarray of shape (n_samples,), dtype=int64
        Positions in `classes`.
    sample_weight : ndarray of shape (n_samples,) or None
        Weights of rows.

    Returns
    -------
    weights : ndarray of shape (n_classes,), dtype=float64, or None
        None where all are 1.

    Raises
    ------
    ValueError
        If labels are not among the classes.
    """
    if class_weight is None:
        return None
    if class_weight == "balanced":
        counted = slice(None) if sample_weight is None else sample_weight > 0
        present = np.unique(y[counted])
        weights = np.zeros(len(classes))
        weights[present] = compute_class_weight(
            "balanced",
            classes=present,
            y=y[counted],
            sample_weight=None if sample_weight is None else sample_weight[counted],
        )
        return weights
    return compute_class_weight(class_weight, classes=classes, y=classes)


def multiply_weights(sample_weight, class_weights, y):
    """Multiply the weights of rows with those of their classes.

    Parameters
    ----------
    sample_weight : ndarray of shape (n_samples,) or None
        Weights of rows.
    class_weights : ndarray of shape (n_classes,) or None
        Weights of classes.
    y : ndarray of shape (n_samples,), dtype=int64
        The rows' classes.

    Returns
    -------
    weights : tensor of shape (n_samples,), dtype=float64, or None
        The products; None where they are all equal.

    Raises
    ------
    ValueError
        If they are all zero.
    """
    if class_weights is not None:
        sample_weight = class_weights[y] * (1 if sample_weight is None else sample_weight)
    if sample_weight is not None and not sample_weight.any():
        raise ValueError(
            "class_weight, times sample_weight if there is one, is zero for all rows. Give at "
            "least one row to train on, and one to validate on, a weight above zero."
        )
    weights = None if sample_weight is None else _drop_equal(sample_weight)
    return None if weights is None else torch.tensor(weights)


def hold_out(X, y, sample_weight, fraction, seed, classes):
    """Divide rows into those to train on and those to validate on, class by class.

    Which rows are held out is a function of their values and the seed, not of their order. Weights
    that are whole numbers are repetitions: of a row of weight 3, one repetition may be held out
    and two be trained on, just as of three equal rows. Rows of other weights are kept whole.

    Parameters
    ----------
    X : ndarray, tensor or CSR matrix of shape (n_samples, n_features), dtype=float32
        The rows.
    y : ndarray of shape (n_samples,), dtype=int64
        Positions in `classes`.
    sample_weight : ndarray of shape (n_samples,) or None
        Weights of rows.
    fraction : float
        How much of each class to hold out; at least one row, at most all but one.
    seed : int
        Of the draw.
    classes : ndarray of shape (n_classes,)
        The labels, for the error message.

    Returns
    -------
    train, valid : tuple of (ndarray of int64, ndarray of float64)
        Positions of rows, ascending, and their weights.

    Raises
    ------
    ValueError
        If a class has too few rows to be in both.
    """
    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    are_repetitions = (weights == np.floor(weights)).all()
    units = weights if are_repetitions else (weights > 0).astype(float)
    draw = mix(hash_rows(X) + seed).cpu().numpy()
    held = np.zeros(len(y))
    too_few = {}
    for c in np.unique(y[units > 0]):
        rows = np.flatnonzero(y == c)
        rows = rows[np.argsort(draw[rows], kind="stable")]
        counts = np.cumsum(units[rows])
        n_rows = counts[-1]
        if n_rows < 2:
            too_few[classes[c : c + 1].tolist()[0]] = int(n_rows)
            continue
        n_held = np.clip(round(fraction * n_rows), 1, n_rows - 1)
        # Every n_rows / n_held-th one, in an order that is random.
        marks = np.floor(counts * n_held / n_rows + 0.5)
        held[rows] = np.diff(marks, prepend=0.0)
    if too_few:
        label, n = next(iter(too_few.items()))
        raise ValueError(
            "early_stopping=True holds rows of every class out of the training, so that each "
            f"class needs at least 2. The class {label!r} has {n} sample"
            + (f", and so have {len(too_few) - 1} others" if len(too_few) > 1 else "")
            + ". Pass validation data as X_val and y_val, or use early_stopping=False."
        )
    held = np.divide(held * weights, units, out=held, where=units > 0)
    kept = weights - held
    return tuple((np.flatnonzero(part), part[part > 0]) for part in (kept, held))
