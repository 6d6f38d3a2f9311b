"""From what users hold their data in to NumPy arrays: of real numbers, and of labels.

What another library raises on the way becomes an error in words here, and nowhere else. Labels
stay what they were until `encode_labels` gives the network their positions among the classes. An
indicator matrix says which of several labels each row has: float32, 0 or 1, a column a label.
"""

from collections.abc import Sequence, Set, Sized
from itertools import chain

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from .parameters import expect_memory

# The kinds of NumPy's dtypes that are real numbers.
NUMBERS = "biuf"
# What a sparse matrix may hold for SciPy; of complex numbers scikit-learn says what is wrong.
COMPUTED = NUMBERS + "c"
COMPRESSED = {"csr": sparse.csr_array, "csc": sparse.csc_array, "bsr": sparse.bsr_array}
# Other floats of torch are made float32, which holds all of their values.
FLOATS_OF_NUMPY = (torch.float16, torch.float32, torch.float64)
# The kinds of labels: what NumPy can sort and compare. Strings may be objects as well.
KINDS = {**dict.fromkeys(NUMBERS, "numbers"), "U": "strings", "M": "dates", "m": "durations"}
# A duration of no unit, which cannot be compared with others.
GENERIC = np.dtype("m8")
# What to do about labels that are not among the classes.
REMEDIES = {
    "y": "Pass all classes on the first call of partial_fit, or fit anew with warm_start=False.",
    "y_val": "Leave the rows of labels that y does not have out of X_val and y_val.",
}


def as_array(values, name):
    """Make an array of whatever holds values, of their own dtype; an array stays what it is."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values. Fill them in or drop their rows.")
    try:
        if isinstance(values, torch.Tensor):
            is_known = not values.is_floating_point() or values.dtype in FLOATS_OF_NUMPY
            return (values if is_known else values.float()).numpy(force=True)
        dtype = getattr(values, "dtype", None)
        # np.asarray would make floats of nullable ints, and objects of bools.
        if (
            isinstance(dtype, pd.api.extensions.ExtensionDtype)
            and getattr(dtype, "numpy_dtype", np.dtype(object)).kind in "biufmM"
            and not values.isna().any()
        ):
            return values.to_numpy(dtype=dtype.numpy_dtype)
        return np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name} cannot be turned into a NumPy array. Convert it first. The reason: {error}"
        ) from error


def check_sparse(X, name):
    """Refuse a sparse matrix that somebody has damaged since it was made.

    Where its indices point outside it, SciPy reads and writes there.
    """
    if X.dtype.kind not in COMPUTED or X.dtype == np.float16:
        raise ValueError(
            f"{name} is a sparse matrix of dtype {X.dtype}, which SciPy does not compute with. "
            "Make its values numbers, such as float32."
        )
    try:
        _check_indices(X)
    except ValueError as error:
        raise ValueError(
            f"{name} is a damaged {X.format.upper()} matrix: {error}. Make it anew."
        ) from error


def _check_indices(X):
    if X.format in COMPRESSED:
        # Of the user's own: SciPy's check makes ints of them first.
        _check_ints(X.indices, "indices")
        _check_ints(X.indptr, "indptr")
        # The check cuts off what is too long, which must not be the user's own.
        make = COMPRESSED[X.format]
        make((X.data, X.indices, X.indptr), shape=X.shape).check_format(full_check=True)
        # Where the last of them is not above 0, SciPy looks at no other. A difference of two may
        # be more than their dtype holds.
        if (X.indptr[1:] < X.indptr[:-1]).any():
            raise ValueError("the numbers in indptr descend")
    elif X.format == "coo":
        if {len(indices) for indices in X.coords} != {len(X.data)}:
            raise ValueError("it has not as many indices as values")
        for axis, indices in enumerate(X.coords):
            _check_range(indices, X.shape, axis)
    elif X.format == "lil":
        if [*map(len, X.rows)] != [*map(len, X.data)]:
            raise ValueError("a row has not as many indices as values")
        _check_range(np.array([*chain.from_iterable(X.rows)]), X.shape, axis=1)


def _check_range(indices, shape, axis):
    if not len(indices):
        return
    _check_ints(indices, "indices")
    low, high = indices.min(), indices.max()
    if low < 0 or high >= shape[axis]:
        raise ValueError(f"indices of axis {axis} are from {low} to {high}, its shape is {shape}")


def _check_ints(numbers, name):
    if numbers.dtype.kind not in "iu" or not np.can_cast(numbers.dtype, np.int64):
        raise ValueError(f"{name} is of dtype {numbers.dtype}, not int32 or int64")


def find_fault(array):
    """Return the ValueError or TypeError that tells why an array is not real numbers, or None.

    NumPy would take dates and durations for numbers of nanoseconds, or of days.
    """
    kind = array.dtype.kind
    if kind in NUMBERS:
        return None
    if kind in "cmMV":
        return ValueError(f"dtype {array.dtype}")
    if pd.isna(array).any():
        return ValueError("NaN")
    dates = [cell for cell in array.flat if isinstance(cell, (np.datetime64, np.timedelta64))]
    if dates:
        return ValueError(f"{dates[0]!r}")
    try:
        with np.errstate(over="ignore"):
            array.astype(np.float64)
    except OverflowError as error:
        return ValueError(str(error))
    except (TypeError, ValueError) as error:
        return error
    return None


def check_labels(y, X, name="y"):
    """Check the labels of the rows `X`: an array of shape (n_samples,), or an indicator matrix."""
    labels = _as_labels(y, name)
    check_consistent_length(X, labels)
    assert_all_finite(labels, input_name=name)
    is_column = labels.shape[1:] == (1,)
    return column_or_1d(labels, input_name=name, warn=True) if is_column else labels


def _has_columns(values):
    return values.ndim == 2 and values.shape[1] > 1


def _as_labels(y, name):
    """Make an array in which each label is what it was, and refuse what no label can be.

    A column stays one, for which scikit-learn has a warning; several become an indicator matrix.
    The dtype of labels is of one of the `KINDS`, or objects that are strings.
    """
    if y is None:
        raise ValueError(
            f"The estimator requires {name} to be passed, but the target {name} is None."
        )
    if isinstance(y, memoryview):
        # A sequence of which not every kind gives its items.
        y = as_array(y, name)
    if sparse.issparse(y) and _has_columns(y):
        check_sparse(y, name)
        return _as_indicator(y.toarray(), name)
    if sparse.issparse(y):
        raise TypeError(f"Sparse data was passed for {name}. Use {name}.toarray().ravel().")
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        return _as_labels(y.iloc[:, 0], name)[:, np.newaxis]
    if isinstance(getattr(y, "dtype", None), pd.CategoricalDtype):
        codes = pd.Categorical(y).codes
        _check_missing(codes < 0, name)
        return _as_labels(y.dtype.categories, name)[codes]
    if _lists_labels(y):
        raise ValueError(
            f"{name} lists the labels of each row. Several labels a row are given as a matrix of "
            "0 and 1, with a column for each label: sklearn.preprocessing.MultiLabelBinarizer "
            "makes it of such lists."
        )
    labels = as_array(y, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        return _as_labels(labels[:, 0], name)[:, np.newaxis]
    if _has_columns(labels):
        return _as_indicator(labels, name)
    if labels.ndim != 1:
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {labels.shape} instead: give one "
            "label a row, or, for several, a matrix of 0 and 1 with a column for each label."
        )
    if labels.dtype.kind != "V":
        _check_missing(pd.isna(labels), name)
    cells = None
    if labels.dtype.kind in "OT":
        if all(isinstance(label, str) for label in labels):
            return labels.astype(object, copy=False)
        cells = labels.tolist()
    elif isinstance(y, Sequence):
        # Of numbers and strings NumPy makes strings.
        cells = list(y)
    return _settle_dtype(labels, cells, name)


def _lists_labels(y):
    """Tell whether a sequence has sets of labels, or sequences of different lengths."""
    if not (isinstance(y, Sequence) and y and isinstance(y[0], Set | list | tuple)):
        return False
    return (
        any(isinstance(row, Set) for row in y)
        or len({len(row) for row in y if isinstance(row, Sized)}) > 1
    )


def _as_indicator(values, name):
    """Make an indicator matrix of numbers or bools that are 0 and 1."""
    unknown = values
    if values.dtype.kind != "V":
        _check_missing(pd.isna(values), name)
    if find_fault(values) is None:
        unknown = values[(values != 0) & (values != 1)]
    if unknown.size:
        raise ValueError(
            f"{name} has {values.shape[1]} columns with values such as {unknown.flat[0]}. "
            "Several labels a row are given as a matrix of 0 and 1, with a column for each label. "
            "For columns of other kinds use sklearn.multioutput.MultiOutputClassifier."
        )
    # What no value is wrong in may have any dtype.
    return values.astype(np.float32, order="C") if values.size else np.zeros(values.shape, "f4")


def _check_missing(is_missing, name):
    if np.any(is_missing):
        # scikit-learn's words, which its users and its checks look for.
        raise ValueError(
            f"Input {name} contains NaN: every row needs a label. Drop the rows without one."
        )


def _settle_dtype(labels, cells, name):
    """Convert to one of the `KINDS`, and refuse what would not stay what it is."""
    settled = labels if cells is None else as_array(cells, name)
    dtype = settled.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        # Longer floats are not the same on every machine.
        dtype = np.dtype(np.float64)
    with np.errstate(over="ignore"):
        settled = settled.astype(dtype, copy=False)
    is_known = dtype.kind in KINDS and dtype != GENERIC
    if cells is None:
        is_same = is_known and (settled == labels).all()
    else:
        is_same = is_known and settled.ndim == 1 and settled.tolist() == cells
    if not is_same and cells and all(isinstance(cell, str) for cell in cells):
        # NumPy's own strings lose null characters at the end.
        return np.array(cells, dtype=object)
    if not is_same:
        kinds = sorted({type(label).__name__ for label in cells or labels})
        raise ValueError(
            f"{name} has labels of the type {' and '.join(kinds)}. Labels are strings, ints of at "
            "most 64 bits, floats or bools, all of one kind: convert them first, for example with "
            f"[str(label) for label in {name}], or label.decode() for bytes."
        )
    return settled


def find_classes(y):
    """Return the sorted labels that occur, each once; refuse continuous numbers.

    Those of an indicator matrix are the numbers of its columns, as scikit-learn has it.
    """
    if y.ndim == 2:
        return np.arange(y.shape[1])
    classes = np.unique(y)
    # Of no other labels has scikit-learn anything to say, and it takes its time.
    if classes.dtype.kind == "f" or 2 * len(classes) > len(y):
        # It looks whether floats are ints by making ints of them, which not all can be.
        with np.errstate(invalid="ignore"):
            check_classification_targets(y)
    return classes


def check_classes(classes):
    """Check and sort the labels that a user says there are."""
    labels = _as_labels(classes, "classes")
    if not labels.size or _has_columns(labels):
        raise ValueError(
            f"classes must be a list of all labels that will ever occur. Got {classes!r}."
        )
    assert_all_finite(labels, input_name="classes")
    return np.unique(labels)


def locate_labels(classes):
    """Map each label to its position; what is equal in Python is the same label: True is 1."""
    return {label: position for position, label in enumerate(classes)}


def check_kind(y, is_indicator, name, reference):
    """Check that labels are an indicator matrix, or are not, as those of the reference."""
    kinds = ("one label for each row", "a matrix of 0 and 1 for several labels a row")
    if (y.ndim == 2) != is_indicator:
        raise ValueError(
            f"{name} has {kinds[y.ndim == 2]}; {reference} {kinds[is_indicator]}. Give the same."
        )


def encode_labels(y, classes, name="y"):
    """Replace each label by its position in `classes`, an int64; refuse those not among them.

    An indicator matrix, whose columns are the classes, stays what it is.
    """
    if y.ndim == 2:
        if not np.array_equal(classes, np.arange(y.shape[1])):
            raise ValueError(
                f"{name} has {y.shape[1]} columns, one for each label, and the classes are "
                f"{classes.tolist()}. The classes of several labels a row are the numbers of "
                f"their columns, here np.arange({y.shape[1]})."
            )
        return y
    codes, labels = _number_labels(y)
    known = locate_labels(classes)
    positions = np.array([known.get(label, -1) for label in labels])
    unknown = labels[positions < 0]
    if len(unknown):
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(
            f"{name} has labels that are not among the classes {classes.tolist()}: "
            f"{unknown[:5].tolist()}{more}. {REMEDIES[name]}"
        )
    return positions[codes]


def _number_labels(y):
    """Give each label a number; return the number of each row, and the different labels."""
    if y.dtype.kind not in "OU":
        # Its table of labels has places for so many rows at the start.
        expect_memory(64 * min(len(y), 2**21) + 2**20)
        return pd.factorize(y)
    # pandas 2.2 takes strings for equal that differ behind a null character only.
    numbers = {}
    codes = [numbers.setdefault(label, len(numbers)) for label in y.tolist()]
    return codes, np.array([*numbers], dtype=object)


def compute_accuracy(y, predicted, weights):
    """Compute the share, by weights of rows or None, of right labels; refuse another kind.

    Of several labels a row all must be right.
    """
    y = _as_labels(y, "y")
    if not _has_columns(y):
        y = y.ravel()
    check_consistent_length(y, predicted)
    check_kind(y, predicted.ndim == 2, "y", "that of the fit had")
    if y.ndim == 2:
        encode_labels(y, np.arange(predicted.shape[1]))
    kinds = [KINDS.get(labels.dtype.kind, "strings") for labels in (y, predicted)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"y has labels that are {kinds[0]}, of dtype {y.dtype}; the classes of the fit are "
            f"{kinds[1]}, of dtype {predicted.dtype}. Convert y to the type that it had in fit."
        )
    are_right = y == predicted
    if y.ndim == 2:
        are_right = are_right.all(axis=1)
    return float(np.average(are_right, weights=weights))
