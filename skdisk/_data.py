"""The rows that users have, checked, as float32."""

import warnings

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import validate_data

from ._labels import labels_as_array
from ._prediction import FEW_ROWS

# Features whose standard deviations differ by more than this get a warning, which looks at so many
# rows.
SCALES_APART = 1000
ROWS_TO_LOOK_AT = 10_000


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
        The rows; a tensor only where the input is one on an accelerator, where it stays.
    y : ndarray of shape (n_samples,)
        The labels, if there were any.

    Raises
    ------
    ValueError, TypeError
        If they are not what the network can take.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach()
        if X.device.type != "cpu":
            return check_tensor(estimator, X, *y, reset=reset)
        X = X.numpy()
    try:
        # Values beyond float32 become infinite here, and are refused as such; so does the sum of
        # large values, or it becomes NaN, which says nothing of them.
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
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        raise ValueError(f"{error}. {_explain_text(X)}") from error
    if not sparse.issparse(X):
        return checked
    return (_as_csr(checked[0], X), checked[1]) if y else _as_csr(checked, X)


def _as_csr(checked, X):
    """Make a CSR matrix without repeated entries, and leave the user's own as it is."""
    rows = checked.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is X or rows is checked else rows
        rows.sum_duplicates()
    return rows


def check_tensor(estimator, X, *y, reset):
    """Do the same for a tensor, wherever it lies, without copying it to the CPU."""
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            "Expected a 2D tensor with at least one row and one column, got one of shape "
            f"{tuple(X.shape)}."
        )
    if X.is_complex():
        raise ValueError("Complex data not supported.")
    X = X.float()
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
    with np.errstate(over="ignore"):
        X = X.astype(np.float32, order="C")
    return X if np.isfinite(X).all() else None


def warn_of_scales(X):
    """Warn if the scales of the features are so far apart that gradient descent will be slow.

    Parameters
    ----------
    X : ndarray, CSR matrix or tensor of shape (n_samples, n_features)
        The rows.
    """
    rows = X[:: -(-X.shape[0] // ROWS_TO_LOOK_AT)]
    if sparse.issparse(rows):
        scales = np.sqrt(mean_variance_axis(rows, axis=0)[1])
    elif isinstance(rows, torch.Tensor):
        scales = rows.std(dim=0, correction=0).cpu().numpy()
    else:
        scales = rows.std(axis=0, dtype=np.float64)
    scales = scales[scales > 0]
    if len(scales) and scales.max() > SCALES_APART * scales.min():
        warnings.warn(
            "The features have very different scales: their standard deviations range from "
            f"{scales.min():.3g} to {scales.max():.3g}. Gradient descent needs features of "
            "similar scale: put a StandardScaler before the classifier, as in "
            "make_pipeline(StandardScaler(), MLPDiskClassifier()).",
            stacklevel=5,
        )


def _explain_text(X):
    """Say which columns hold text and what to do about it."""
    names = []
    if isinstance(X, pd.DataFrame):
        names = X.select_dtypes(exclude=["number", "bool"]).columns.tolist()
    columns = f"The columns with text or other objects: {names}. " if names else ""
    return (
        f"{columns}The network takes numbers: encode text and categories first, for example with "
        "a OneHotEncoder in a ColumnTransformer."
    )
