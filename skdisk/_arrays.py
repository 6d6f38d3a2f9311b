"""From what users hold their data in to NumPy arrays; whether an array holds real numbers.

What another library raises on the way becomes an error in words here, and nowhere else. Nothing
here knows rows, labels or weights.
"""

import numpy as np
import pandas as pd
import torch

# The kinds of NumPy's dtypes that are real numbers.
NUMBERS = "biuf"
# Other floats of torch are made float32, which holds all of their values.
FLOATS_OF_NUMPY = (torch.float16, torch.float32, torch.float64)


def as_array(values, name):
    """Make an array of whatever holds values, of their own dtype.

    Parameters
    ----------
    values : array-like, tensor, or series or array of pandas, polars or Arrow
        The values.
    name : str
        How they are called in the error message.

    Returns
    -------
    array : ndarray of the same shape
        The values; the user's own memory where it is an array already.

    Raises
    ------
    ValueError
        If values are masked, or cannot be turned into an array.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values. Fill them in or drop their rows.")
    try:
        if isinstance(values, torch.Tensor):
            return _convert_tensor(values)
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


def _convert_tensor(tensor):
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.is_floating_point() and tensor.dtype not in FLOATS_OF_NUMPY:
        tensor = tensor.float()
    return tensor.numpy()


def find_fault(array):
    """Find out why an array cannot be read as real numbers.

    Dates and durations can be in NumPy's eyes: as a number of nanoseconds, or of days.

    Parameters
    ----------
    array : ndarray
        The values.

    Returns
    -------
    fault : ValueError, TypeError or None
        What is in the way, if anything is.
    """
    kind = array.dtype.kind
    if kind in NUMBERS:
        return None
    if kind in "cmMV":
        return ValueError(f"dtype {array.dtype}")
    if pd.isna(array).any():
        return ValueError("NaN")
    if kind == "O":
        dates = (np.datetime64, np.timedelta64)
        found = next((cell for cell in array.flat if isinstance(cell, dates)), None)
        if found is not None:
            return ValueError(f"{found!r}")
    try:
        with np.errstate(over="ignore"):
            array.astype(np.float64)
    except OverflowError as error:
        return ValueError(str(error))
    except (TypeError, ValueError) as error:
        return error
    return None
