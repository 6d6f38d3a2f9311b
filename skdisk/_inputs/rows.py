"""The rows that users have, checked, as float32; warnings of how they are scaled."""

import warnings

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import validate_data

from .._network.surroundings import count_rows_at_once, leave_as_found
from .arrays import NUMBERS, as_array, check_sparse, find_fault

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


def check_rows(estimator, X, *, reset, name="X"):
    """Check rows as scikit-learn does, and make them a float32 array, CSR matrix or tensor.

    They are a tensor only where `X` is one on an accelerator, where it stays. The estimator learns
    the number and names of features (`reset`), or compares them.
    """
    if isinstance(X, torch.Tensor) and X.device.type not in ("cpu", "meta"):
        checked = check_tensor(X.detach(), name)
    else:
        X = _as_container(X, name)
        if sparse.issparse(X):
            # Before they are rounded to float32, and checked: an entry may be a sum.
            X = _as_csr(X)
        # Values beyond float32 become infinite here, and are refused as such; so does the sum of
        # large values, or it becomes NaN, which says nothing of them.
        with np.errstate(over="ignore", invalid="ignore"):
            checked = check_array(
                X,
                accept_sparse="csr",
                dtype=np.float32,
                order="C",
                estimator=estimator,
                input_name=name,
            )
    _check_features(estimator, X, reset, name)
    return checked


def check_rows_to_predict(estimator, X):
    """Check rows to predict from: a good array stays the user's own, of any dtype of numbers.

    It may be larger than memory; and of one row scikit-learn's checks would take most of the time.
    """
    if not _is_good_array(X):
        return leave_as_found(check_rows)(estimator, X, reset=False)
    if hasattr(estimator, "feature_names_in_") or X.shape[1] != estimator.n_features_in_:
        _check_features(estimator, X, reset=False, name="X")
    return X


def _is_good_array(X):
    """Tell whether an array is plainly right: chunk by chunk, so that it is not copied whole."""
    is_array = type(X) in (np.ndarray, np.memmap) and X.dtype.kind in NUMBERS
    if not is_array or X.ndim != 2 or 0 in X.shape:
        return False
    n_rows = count_rows_at_once(X.shape[1])
    chunks = (X[i : i + n_rows] for i in range(0, len(X), n_rows))
    # NaN is not below it either.
    return all(np.abs(chunk).max() <= LARGEST for chunk in chunks)


def _as_container(X, name):
    """Make what is neither sparse nor a frame an array, and refuse what holds no numbers."""
    if not isinstance(X, pd.DataFrame) and callable(getattr(X, "collect", None)):
        raise TypeError(
            f"{name} is a {type(X).__name__}, whose rows are yet to be computed. Pass "
            f"{name}.collect()."
        )
    if sparse.issparse(X):
        if X.ndim != 2:
            raise ValueError(f"Expected 2D array, got {name} of shape {X.shape}, which is sparse.")
        check_sparse(X, name)
    elif isinstance(X, pd.DataFrame):
        # Of sparse columns scikit-learn makes a sparse matrix, which can leave out zeros only.
        are_sparse = all(isinstance(dtype, pd.SparseDtype) for dtype in X.dtypes)
        if are_sparse and any(pd.isna(dt.fill_value) or dt.fill_value for dt in X.dtypes):
            X = X.sparse.to_dense()
    elif not (isinstance(X, np.matrix) or hasattr(X, "columns")):
        X = as_array(X, name)
    _check_numbers(X, name)
    return X


def _check_features(estimator, X, reset, name):
    """Learn the number and names of features, or compare them."""
    if name != "X" and X.shape[1] != estimator.n_features_in_:
        raise ValueError(f"{name} has {X.shape[1]} features, X has {estimator.n_features_in_}.")
    validate_data(estimator, X, reset=reset, skip_check_array=True)


def _as_csr(rows):
    """Make a CSR matrix without repeated entries, and leave the user's own as it is."""
    rows = rows.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def _check_numbers(X, name):
    """Refuse what holds no real numbers; columns of text, dates and the like by name."""
    if isinstance(X, pd.DataFrame) and not len(X.columns):
        raise ValueError(f"{name} has no columns: it is a DataFrame of shape {X.shape}.")
    if isinstance(X, np.ndarray) and X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported. {name} has dtype {X.dtype}.")
    if isinstance(X, np.ndarray) and X.ndim != 2 and X.dtype.kind not in NUMBERS:
        raise ValueError(
            f"Expected 2D array of numbers, got one of shape {X.shape} and dtype {X.dtype}."
        )
    if hasattr(X, "columns"):
        _check_names(X, name)
    faults = {}
    for column_name, column in _find_suspects(X):
        column = as_array(column, f"The column {column_name!r} of {name}")
        fault = find_fault(column)
        if fault is None and column.ndim > 1:
            fault = ValueError("several values in a cell")
        if fault is not None:
            faults[column_name] = fault
    if not faults:
        return
    first, fault = next(iter(faults.items()))
    kind = TypeError if isinstance(fault, TypeError) else ValueError
    raise kind(
        f"{name} has columns that are not numbers: {list(faults)}. In the column {first!r}: "
        f"{fault}. The network takes numbers: encode text and categories, for example with a "
        "OneHotEncoder in a ColumnTransformer, and turn dates and durations into a number of days."
    ) from fault


def _list_names(X):
    # Arrow has names apart from the columns; an attribute of pandas may be a column of that name.
    is_arrow = hasattr(X, "column_names") and not isinstance(X, pd.DataFrame)
    return X.column_names if is_arrow else X.columns


def _check_names(X, name):
    """Refuse columns of one name, in which scikit-learn finds no column."""
    names = pd.Index(_list_names(X))
    repeated = names[names.duplicated()].unique().tolist()
    if repeated:
        raise ValueError(
            f"{name} has several columns of the same name: {repeated}. Give each column a name of "
            "its own, or pass the numbers without names, as an array."
        )


def _find_suspects(X):
    """List names and values of the columns whose dtype is not that of real numbers."""
    if isinstance(X, pd.DataFrame):
        suspects = [i for i, dtype in enumerate(X.dtypes) if dtype.kind not in NUMBERS]
        return [(X.columns[i], X.iloc[:, i]) for i in suspects]
    for method in ("iter_columns", "itercolumns"):
        # polars, and Arrow
        if hasattr(X, method):
            return zip(_list_names(X), getattr(X, method)(), strict=True)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind not in NUMBERS:
        return enumerate(X.T)
    return []


def check_tensor(X, name="X"):
    """Check a tensor and make it float32, wherever it lies, without copying it to the CPU."""
    is_dense = X.layout == torch.strided and not X.is_quantized
    if X.ndim != 2 or 0 in X.shape or X.is_complex() or not is_dense:
        raise ValueError(
            f"{name} must be a dense 2D tensor of real numbers with at least one row and one "
            f"column. Got shape {tuple(X.shape)}, {X.dtype} and {X.layout}."
        )
    X = X.resolve_neg().float()
    if not X.isfinite().all():
        raise ValueError(
            f"Input {name} contains NaN, infinity or a value too large for dtype('float32')."
        )
    return X


def warn_of_scales(X):
    """Warn if features are so scaled that gradient descent will be slow or fail.

    `X` is an array, CSR matrix or tensor of shape (n_samples, n_features).
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
    # One long row for each feature: six times as fast as sums over columns.
    features = rows.T.astype(np.float64, order="C")
    means = features.mean(axis=1)
    features -= means[:, np.newaxis]
    return means, np.sqrt(np.einsum("ij,ij->i", features, features) / len(rows))


def _make_dense(rows):
    if sparse.issparse(rows):
        return rows.toarray()
    return rows.cpu().numpy() if isinstance(rows, torch.Tensor) else rows


def _count_outside(rows, others):
    """Compute, by feature, which share of the others is far from the rows."""
    means, scales = _compute_moments(rows)
    # What is constant but for rounding is not far away.
    return (np.abs(others - means) > 3 * scales + 1e-6 * np.abs(means)).mean(axis=0)
