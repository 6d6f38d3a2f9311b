"""Labels: from what users have to the ints that the network is trained on."""

import numpy as np
import pandas as pd
import torch
from sklearn.utils.multiclass import check_classification_targets


def labels_as_array(y):
    """Turn nullable ints and booleans into ints and bools, and refuse what no label can be.

    `np.asarray` would make floats of the former, which `predict` would then return.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, 1)
        Labels as users have them.

    Returns
    -------
    y : array-like of the same shape
        Labels for scikit-learn's own checks.

    Raises
    ------
    ValueError
        If a label is missing, or there are several to a row.
    """
    if y is None:
        return y
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    if np.any(pd.isna(y)):
        # scikit-learn's words, which its users and its checks look for.
        raise ValueError(
            "Input y contains NaN: every row needs a label. Drop the rows without one."
        )
    shape = getattr(y, "shape", ())
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {shape} instead. For several labels "
            "per row use sklearn.multioutput.MultiOutputClassifier."
        )
    if isinstance(y, pd.DataFrame):
        # Still a column, for which scikit-learn has its warning.
        return np.asarray(labels_as_array(y.iloc[:, 0]))[:, np.newaxis]
    dtype = getattr(y, "dtype", None)
    if isinstance(dtype, np.dtype) and not dtype.isnative:
        # pandas, which encodes the labels, takes no others.
        return np.asarray(y).astype(dtype.newbyteorder("="))
    is_extension = isinstance(dtype, pd.api.extensions.ExtensionDtype)
    if is_extension and dtype.kind in "biu" and hasattr(dtype, "numpy_dtype"):
        return y.to_numpy(dtype=dtype.numpy_dtype)
    return y


def find_classes(y):
    """Return the sorted labels that occur.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Each label once.

    Raises
    ------
    ValueError
        If the labels are continuous numbers, or of types that cannot be sorted.
    """
    try:
        check_classification_targets(y)
        return np.unique(y)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in y})
        raise ValueError(
            f"y has labels of different types, which cannot be sorted: {', '.join(kinds)}. "
            "Convert them to one type."
        ) from error


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
    positions = pd.Index(classes).get_indexer(pd.Index(y))
    if (positions < 0).any():
        unknown = pd.unique(y[positions < 0])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(
            f"{name} has labels that are not among the classes {classes.tolist()}: "
            f"{unknown[:5].tolist()}{more}. Pass all classes on the first call of partial_fit, or "
            "fit anew with warm_start=False."
        )
    return positions
