"""Numbers as users give them: of any type and any size. Checked here, and made Python's own."""

import math
import os
from numbers import Integral, Number, Real

import numpy as np

# The network computes in float32; what is larger is infinite there.
LARGEST = float(np.finfo(np.float32).max)
# The most memory that is believed where the system does not tell how much there is.
MUCH_MEMORY = 2**40


def check_numbers(caller, parameters):
    """Refuse numbers that nothing can be computed with.

    The table of scikit-learn says what else a number must be; it does not look into dicts.

    Parameters
    ----------
    caller : str
        What has the parameters.
    parameters : dict
        Their values, by name: numbers, dicts and sequences of numbers, or anything else.

    Raises
    ------
    ValueError
        If a number is beyond float32. In a dict, also if it is not finite or not real.
    """
    for name, value in parameters.items():
        if isinstance(value, dict):
            for key, item in value.items():
                _check_inside(f"{name}[{key!r}]", item, caller)
        elif _is_too_large(value):
            raise ValueError(
                f"The {name!r} parameter of {caller} must be a number that float32 can hold, at "
                f"most {LARGEST:.2g}. Got {_describe(value)} instead."
            )


def _check_inside(name, value, caller):
    if isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            _check_inside(f"{name}[{i}]", item, caller)
    elif isinstance(value, Number) and (
        not isinstance(value, Real) or _is_too_large(value) or not math.isfinite(value)
    ):
        raise ValueError(
            f"{name} of {caller} must be a finite number that float32 can hold, at most "
            f"{LARGEST:.2g}. Got {_describe(value)} instead."
        )


def _is_too_large(value):
    """Tell whether a number is finite, but not in float32."""
    is_infinite = isinstance(value, (float, np.floating)) and not np.isfinite(value)
    return isinstance(value, Real) and not is_infinite and abs(value) > LARGEST


def _describe(value):
    # Python does not print an int of thousands of digits.
    if _is_too_large(value):
        return f"a number of about {'-' * (value < 0)}10**{int(math.log10(abs(int(value))))}"
    return repr(value)


def as_number(value):
    """Make a number Python's own; leave anything else as it is.

    Types of NumPy compute in their own precision: with a float16, a difference has 3 digits.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_memory(name, n_bytes):
    """Refuse what this machine has not the memory for.

    Parameters
    ----------
    name : str
        The parameter that asks for it.
    n_bytes : int
        How much it needs at least.

    Raises
    ------
    ValueError
        If that is more than there is in all.
    """
    available = _get_memory()
    if n_bytes > available:
        raise ValueError(
            f"{name} asks for more memory than there is: {_describe(n_bytes // 10**9)} GB. This "
            f"machine has {available // 10**9} GB. Make {name} smaller."
        )


def _get_memory():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Windows has no such function, and not all systems know these names.
    except (AttributeError, ValueError, OSError):
        return MUCH_MEMORY
