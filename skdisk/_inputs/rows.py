"""The rows that users have, checked, as float32."""

import warnings

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import validate_data

from .._network.prediction import FEW_ROWS, count_rows_at_once
from .arrays import NUMBERS, as_array, find_fault
from .labels import labels_as_array

# Features get a warning whose standard deviations differ by more than this factor, the largest of
# which is larger than this in root mean square, or whose rows are shorter than this: measured with
# SGD, lr=0.03 and momentum=0.9 on seven data sets. All lost most of their accuracy where one
# standardised feature was moved to 30, or all of them were made 30 times larger or 100 times
# smaller; raw iris and the digits' pixels of 0 to 16, whose root mean square is 13, train well, as
# do rows of a tenth of the standard size (of a length of at least 0.14), and tf-idf has length 1.
SCALES_APART = 1000
LARGE = 20
SMALL = 0.1
# So many rows are looked at.
ROWS_TO_LOOK_AT = 10_000
# Rows to validate on are compared with those to train on by so many of each, at least so many.
ROWS_TO_COMPARE = 1000
FEWEST_TO_COMPARE = 20
# The largest number of float32.
LARGEST = np.finfo(np.float32).max


def check_rows(estimator, X, *y, reset):
    """Check rows, and labels if there are any, as scikit-learn does.

    Parameters
    ----------
    estimator : MLPDiskClassifier
        It learns the number and names of features, or compares them.
    X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
        The rows.
    *y : array-like of shape (n_samples,)
        None or one.
    reset : bool
        Whether the estimator learns.

    Returns
    -------
    X : ndarray, CSR matrix or tensor of shape (n_samples, n_features), dtype=float32
        The rows; a tensor only where the input is one on an accelerator, where it stays. An array
        to predict from is the user's own, of any dtype of numbers: it may be larger than memory.
    y : ndarray of shape (n_samples,)
        The labels, if there were any.

    Raises
    ------
    ValueError, TypeError
        If they are not what the network can take.
    """
    if isinstance(X, torch.Tensor) and X.device.type not in ("cpu", "meta"):
        return check_tensor(estimator, X.detach(), *y, reset=reset)
    if sparse.issparse(X):
        _check_indices(X)
    elif not (isinstance(X, np.matrix) or hasattr(X, "columns")):
        X = as_array(X, "X")
    _check_numbers(X)
    if not (y or reset) and _is_finite_array(X):
        validate_data(estimator, X, reset=False, skip_check_array=True)
        return X
    # Values beyond float32 become infinite here, and are refused as such; so does the sum of large
    # values, or it becomes NaN, which says nothing of them.
    with np.errstate(over="ignore", invalid="ignore"):
        checked = validate_data(
            estimator,
            X,
            *map(labels_as_array, y),
            accept_sparse=["csr", "csc"],
            dtype=np.float32,
            order="C",
            force_writeable=not sparse.issparse(X),
            reset=reset,
        )
    if not sparse.issparse(X):
        return checked
    return (_as_csr(checked[0], X), checked[1]) if y else _as_csr(checked, X)


def _check_indices(X):
    """Refuse a compressed matrix whose indices point outside it, where SciPy reads and writes."""
    if X.format not in ("csr", "csc"):
        return
    n = X.shape[1] if X.format == "csr" else X.shape[0]
    starts = X.indptr
    indices = X.indices[: starts[-1]]
    if (
        starts[0] != 0
        or starts[-1] > min(len(indices), len(X.data))
        or (np.diff(starts) < 0).any()
        or (len(indices) and not 0 <= indices.min() <= indices.max() < n)
    ):
        raise ValueError(
            f"X is a damaged {X.format.upper()} matrix: its indices or index pointers are outside "
            f"of its shape {X.shape}. X.check_format() tells more; make the matrix anew."
        )


def _as_csr(checked, X):
    """Make a CSR matrix without repeated entries, and leave the user's own as it is."""
    rows = checked.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is X or rows is checked else rows
        rows.sum_duplicates()
    return rows


def _check_numbers(X):
    """Refuse what holds no real numbers; columns of text, dates and the like by name."""
    if isinstance(X, pd.DataFrame) and not len(X.columns):
        raise ValueError(f"X has no columns: it is a DataFrame of shape {X.shape}.")
    if isinstance(X, np.ndarray) and X.dtype.kind == "c":
        # Before the labels, which may be complex as well.
        raise ValueError(f"Complex data not supported. X has dtype {X.dtype}.")
    if isinstance(X, np.ndarray) and X.ndim != 2 and X.dtype.kind not in NUMBERS:
        raise ValueError(
            f"Expected 2D array of numbers, got one of shape {X.shape} and dtype {X.dtype}."
        )
    faults = {}
    for name, column in _find_suspects(X):
        column = as_array(column, f"The column {name!r} of X")
        fault = find_fault(column)
        if fault is None and column.ndim > 1:
            fault = ValueError("several values in a cell")
        if fault is not None:
            faults[name] = fault
    if not faults:
        return
    name, fault = next(iter(faults.items()))
    kind = TypeError if isinstance(fault, TypeError) else ValueError
    raise kind(
        f"X has columns that are not numbers: {list(faults)}. In the column {name!r}: {fault}. "
        "The network takes numbers: encode text and categories, for example with a OneHotEncoder "
        "in a ColumnTransformer, and turn dates and durations into a number of days."
    ) from fault


def _find_suspects(X):
    """List names and values of the columns whose dtype is not that of real numbers."""
    if isinstance(X, pd.DataFrame):
        return [
            (name, X.iloc[:, i])
            for i, (name, dtype) in enumerate(X.dtypes.items())
            if dtype.kind not in NUMBERS
        ]
    if hasattr(X, "iter_columns"):
        # polars
        return zip(X.columns, X.iter_columns(), strict=True)
    if hasattr(X, "itercolumns"):
        # Arrow
        return zip(X.column_names, X.itercolumns(), strict=True)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind not in NUMBERS:
        return enumerate(X.T)
    return []


def _is_finite_array(X):
    """Tell whether an array is plainly right: chunk by chunk, so that it is not copied whole."""
    if type(X) not in (np.ndarray, np.memmap) or X.dtype.kind not in NUMBERS or X.ndim != 2:
        return False
    if 0 in X.shape:
        return False
    n_rows = count_rows_at_once(X.shape[1])
    with np.errstate(over="ignore"):
        chunks = (X[i : i + n_rows].astype(np.float32) for i in range(0, len(X), n_rows))
        return all(np.isfinite(chunk).all() for chunk in chunks)


def check_tensor(estimator, X, *y, reset):
    """Do the same for a tensor, wherever it lies, without copying it to the CPU."""
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            "Expected a 2D tensor with at least one row and one column, got one of shape "
            f"{tuple(X.shape)}."
        )
    if X.is_complex():
        raise ValueError("Complex data not supported.")
    if X.layout != torch.strided or X.is_quantized:
        raise TypeError(f"Expected a dense tensor of numbers. Got {X.layout} and {X.dtype}.")
    X = X.resolve_neg().float()
    if not X.isfinite().all():
        raise ValueError(
            "Input X contains NaN, infinity or a value too large for dtype('float32')."
        )
    labels = [labels_as_array(labels) for labels in y]
    validate_data(estimator, X, *labels, skip_check_array=True, reset=reset)
    if not labels:
        return X
    check_consistent_length(X, *labels)
    return X, column_or_1d(*labels, warn=True)


def check_few_rows(estimator, X):
    """Return a few rows as float32 if they are plainly right, else None.

    For one row scikit-learn's checks take longer than all the rest of a prediction. What does not
    pass here goes to them, and gets their error or their conversion.

    Parameters
    ----------
    estimator : MLPDiskClassifier
        A fitted one.
    X : array-like
        The rows.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype=float32, or None
        The rows.
    """
    if (
        type(X) is not np.ndarray
        or X.dtype not in (np.float32, np.float64)
        or X.ndim != 2
        or not 0 < len(X) <= FEW_ROWS
        or X.shape[1] != estimator.n_features_in_
        or hasattr(estimator, "feature_names_in_")
    ):
        return None
    # NaN is not below it either.
    if not np.abs(X).max() <= LARGEST:
        return None
    return X.astype(np.float32, order="C")


def warn_of_scales(X):
    """Warn if the features are so scaled that gradient descent will be slow or fail.

    Parameters
    ----------
    X : ndarray, CSR matrix or tensor of shape (n_samples, n_features)
        The rows.
    """
    means, scales = _compute_moments(X[:: -(-X.shape[0] // ROWS_TO_LOOK_AT)])
    sizes = np.hypot(means, scales)
    length = np.sqrt((sizes**2).sum())
    scales = scales[scales > 0]
    if len(scales) and scales.max() > SCALES_APART * scales.min():
        fault = (
            "have very different scales: their standard deviations range from "
            f"{scales.min():.3g} to {scales.max():.3g}"
        )
    elif not sizes.max() <= LARGE:
        # Also where float32 has overflown to NaN.
        fault = (
            f"are large or far from 0: the root mean square of the column {sizes.argmax()} is "
            f"{sizes.max():.3g}, more than {LARGE}"
        )
    elif 0 < length < SMALL:
        fault = (
            "are small: the root mean square of the rows' lengths is "
            f"{length:.3g}, less than {SMALL}"
        )
    else:
        return
    warnings.warn(
        f"The features {fault}. Gradient descent needs features of similar scale, around 0 and "
        "not far from 1 in size: put a StandardScaler before the classifier, as in "
        "make_pipeline(StandardScaler(), MLPDiskClassifier()).",
        stacklevel=6,
    )


def warn_of_other_scale(X, X_val):
    """Warn if the rows to validate on are on another scale than those to train on.

    At most a ninth of any numbers is more than three standard deviations from their mean
    (Chebyshev). Where it is more than half of the other set's numbers, and there are not a few,
    the two have not come from one set by chance.

    Parameters
    ----------
    X, X_val : ndarray, CSR matrix or tensor of shape (n_rows, n_features), dtype=float32
        Rows.
    """
    n_rows = min(ROWS_TO_COMPARE, count_rows_at_once(X.shape[1]))
    rows, rows_val = (_make_dense(part[:: -(-part.shape[0] // n_rows)]) for part in (X, X_val))
    if min(len(rows), len(rows_val)) < FEWEST_TO_COMPARE:
        return
    apart = np.fmax(_count_outside(rows, rows_val), _count_outside(rows_val, rows))
    if apart.max() > 0.5:
        warnings.warn(
            f"X_val is on another scale than X: in the column {apart.argmax()}, "
            f"{apart.max():.0%} of the numbers of one are more than 3 standard deviations from "
            "the mean of the other. The steps of a pipeline transform X_val only if it is made as "
            'Pipeline(steps, transform_input=["X_val"]), with metadata routing.',
            stacklevel=6,
        )


def _compute_moments(rows):
    """Compute mean and standard deviation of each feature."""
    if sparse.issparse(rows):
        means, variances = mean_variance_axis(rows.astype(np.float64), axis=0)
        return means, np.sqrt(variances)
    if isinstance(rows, torch.Tensor):
        moments = rows.mean(dim=0), rows.std(dim=0, correction=0)
        return tuple(values.cpu().double().numpy() for values in moments)
    return rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)


def _make_dense(rows):
    if sparse.issparse(rows):
        return rows.toarray()
    return rows.cpu().numpy() if isinstance(rows, torch.Tensor) else rows


def _count_outside(rows, others):
    """Compute, by feature, which share of the others is far from the rows."""
    means, scales = _compute_moments(rows)
    # What is constant but for rounding is not far away.
    return (np.abs(others - means) > 3 * scales + 1e-6 * np.abs(means)).mean(axis=0)
