"""Numbers as users give them: of any type and any size. Checked here, and made Python's own."""

import math
import os
from numbers import Integral, Number, Real

import numpy as np

# The network computes in float32; what is larger is infinite there.
LARGEST = float(np.finfo(np.float32).max)
# The most memory that is believed where the system does not tell how much there is.
MUCH_MEMORY = 2**40


def as_number(value):
    """Make a number Python's own; leave anything else, bools too, as it is.

    Types of NumPy compute in their own precision: with a float16, a difference has 3 digits.

    Raises
    ------
    OverflowError
        If no float is that large.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    # The sum makes a zero of a minus zero, which some take for a negative number.
    return int(value) if isinstance(value, Integral) else float(value) + 0.0


def check_numbers(caller, parameters):
    """Refuse numbers that nothing can be computed with, and make the others Python's own.

    The table of scikit-learn says what else a number must be; it does not look into dicts.

    Parameters
    ----------
    caller : str
        What has the parameters.
    parameters : dict
        Their values, by name: numbers, dicts of numbers or sequences of them, or anything else.

    Returns
    -------
    parameters : dict
        The same, each number an int or a float. Dicts are as they were.

    Raises
    ------
    ValueError, TypeError
        If a number is beyond float32, or a timedelta, which NumPy takes for an int. In a dict,
        also if it is not finite or not real.
    """
    checked = {}
    for name, value in parameters.items():
        if name == "class_weight":
            # Only the proportions of weights mean something: float32 never holds them as they are.
            checked[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                _check_item(f"{name}[{key!r}]", item, caller)
            checked[name] = value
        else:
            for item in value if isinstance(value, (tuple, list)) else ():
                _refuse_duration(f"The {name!r} parameter", item, caller)
            checked[name] = _check_number(f"The {name!r} parameter", value, caller)
    return checked


def _check_item(name, value, caller):
    """Check what is in a dict: a number, a sequence of numbers, or anything else but arrays."""
    if isinstance(value, np.ndarray):
        raise ValueError(f"{name} of {caller} must be a number. Got {value!r}.")
    if isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            _check_item(f"{name}[{i}]", item, caller)
        return
    number = _check_number(name, value, caller)
    if isinstance(value, Number) and not (isinstance(value, Real) and math.isfinite(number)):
        raise ValueError(f"{name} of {caller} must be a finite real number. Got {value!r}.")


def _refuse_duration(name, value, caller):
    if isinstance(value, np.timedelta64):
        raise TypeError(f"{name} of {caller} must be a number. Got {value!r}.")


def _check_number(name, value, caller):
    _refuse_duration(name, value, caller)
    try:
        number = as_number(value)
    except OverflowError:
        number = int(value)
    if isinstance(number, (int, float)) and LARGEST < abs(number) < math.inf:
        raise ValueError(
            f"{name} of {caller} must be a number that float32 can hold, at most {LARGEST:.2g}. "
            f"Got one of about {_round(number)}."
        )
    return number


def write_number(value):
    """Write a value for an error message: Python does not print an int of thousands of digits."""
    is_huge = isinstance(value, int) and abs(value) > 10**99
    return f"about {_round(value)}" if is_huge else repr(value)


def _round(number):
    return f"{'-' if number < 0 else ''}10**{round(math.log10(abs(number)))}"


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
            f"{name} asks for about {_round(n_bytes)} bytes of memory. This machine has about "
            f"{_round(available)}. Make {name} smaller."
        )


def _get_memory():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Windows has no such function, and not all systems know these names.
    except (AttributeError, ValueError, OSError):
        return MUCH_MEMORY
