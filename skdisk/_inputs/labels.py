"""Labels: from what users have to the ints that the network is trained on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets

from .arrays import as_array

# Bools, ints, floats, strings, durations and dates: what NumPy can sort and compare.
KINDS = "biufUmM"


def labels_as_array(y, name="y"):
    """Make an array in which each label is what it was, and refuse what no label can be.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, 1)
        Labels as users have them.
    name : str, default="y"
        How the labels are called in the error message.

    Returns
    -------
    y : ndarray of the same shape
        Labels of one of the `KINDS`, or strings as objects. None, sparse matrices and what is no
        sequence are not refused here but by scikit-learn, which is asked next.

    Raises
    ------
    ValueError
        If a label is missing, of no type that labels have, or one of several to a row.
    """
    if y is None or sparse.issparse(y):
        return y
    if isinstance(y, pd.DataFrame):
        _check_shape(y.shape, name)
        # Still a column, for which scikit-learn has its warning.
        return labels_as_array(y.iloc[:, 0], name)[:, np.newaxis]
    if isinstance(getattr(y, "dtype", None), pd.CategoricalDtype):
        codes = pd.Categorical(y).codes
        _check_missing(codes < 0, name)
        return labels_as_array(y.dtype.categories, name)[codes]
    labels = as_array(y, name)
    if labels.ndim == 0:
        return labels
    _check_shape(labels.shape, name)
    if labels.ndim == 2:
        return labels_as_array(labels[:, 0], name)[:, np.newaxis]
    if labels.dtype.kind != "V":
        _check_missing(pd.isna(labels), name)
    cells = None
    if labels.dtype.kind in "OT":
        if all(isinstance(label, str) for label in labels.flat):
            return labels.astype(object, copy=False)
        cells = labels.tolist()
    elif isinstance(y, Sequence):
        # Of numbers and strings NumPy makes strings.
        cells = list(y)
    return _settle_dtype(labels, cells, name)


def _settle_dtype(labels, cells, name):
    """Convert to one of the `KINDS`, and refuse what would not stay what it is."""
    settled = labels if cells is None else as_array(cells, name)
    dtype = settled.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        # Longer floats are not the same on every machine.
        dtype = np.dtype(np.float64)
    with np.errstate(over="ignore"):
        settled = settled.astype(dtype, copy=False)
    if cells is None:
        is_same = dtype.kind in KINDS and (settled == labels).all()
    else:
        is_same = dtype.kind in KINDS and settled.ndim == 1 and settled.tolist() == cells
    if not is_same and cells and all(isinstance(cell, str) for cell in cells):
        # NumPy's own strings lose null characters at the end.
        return np.array(cells, dtype=object)
    if not is_same:
        kinds = sorted({type(label).__name__ for label in cells or labels.flat})
        raise ValueError(
            f"{name} has labels of the type {' and '.join(kinds)}. Labels are strings, ints of at "
            "most 64 bits, floats or bools, all of one kind: convert them first, for example with "
            f"[str(label) for label in {name}], or label.decode() for bytes."
        )
    return settled


def _check_shape(shape, name):
    if len(shape) == 2 and shape[1] != 1:
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {tuple(shape)} instead. For "
            "several labels per row use sklearn.multioutput.MultiOutputClassifier."
        )


def _check_missing(is_missing, name):
    if np.any(is_missing):
        # scikit-learn's words, which its users and its checks look for.
        raise ValueError(
            f"Input {name} contains NaN: every row needs a label. Drop the rows without one."
        )


def _simplify(labels):
    """Convert to the machine's byte order, and floats to those that every machine has."""
    dtype = labels.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.float64
    return labels.astype(dtype, copy=False)


def find_classes(y):
    """Return the sorted labels that occur.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels, from `labels_as_array`.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Each label once.

    Raises
    ------
    ValueError
        If the labels are continuous numbers.
    """
    check_classification_targets(y)
    return np.unique(y)


def check_classes(classes):
    """Sort the labels that a user says there are.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)
        All labels that will ever occur.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Each label once.

    Raises
    ------
    ValueError
        If they are not labels, or there are none.
    """
    labels = labels_as_array(classes, "classes")
    if not (isinstance(labels, np.ndarray) and labels.ndim and labels.size):
        raise ValueError(
            f"classes must be a list of all labels that will ever occur. Got {classes!r}."
        )
    return np.unique(labels)


def locate_labels(classes):
    """Map each label to its position; what is equal in Python is the same label: True is 1."""
    return {label: position for position, label in enumerate(classes)}


def encode_labels(y, classes, name="y"):
    """Replace each label by its position in `classes`.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels.
    classes : ndarray of shape (n_classes,)
        The labels that there are.
    name : str, default="y"
        How the labels are called in the error message.

    Returns
    -------
    positions : ndarray of shape (n_samples,), dtype=int64
        0 to n_classes - 1.

    Raises
    ------
    ValueError
        If a label is not among the classes.
    """
    codes, labels = pd.factorize(y)
    known = locate_labels(classes)
    positions = np.array([known.get(label, -1) for label in labels])
    unknown = labels[positions < 0]
    if len(unknown):
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(
            f"{name} has labels that are not among the classes {classes.tolist()}: "
            f"{unknown[:5].tolist()}{more}. Pass all classes on the first call of partial_fit, or "
            "fit anew with warm_start=False."
        )
    return positions[codes]
