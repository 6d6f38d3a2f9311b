"""Parameters as users give them: numbers of any type and size, and objects that a call changes.

And the types of what most calls take. No torch: `make_disk` needs none.
"""

import functools
import math
import os
from collections.abc import Callable
from decimal import Decimal
from numbers import Integral, Number, Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import check_random_state

from .._compat import validate_parameter_constraints

# What rows and their labels may be; data frames are array-like.
Rows = Labels = ArrayLike | sparse.spmatrix | sparse.sparray
RandomState = int | np.random.RandomState | None
_Function = TypeVar("_Function", bound=Callable[..., Any])
# The network computes in float32; what is larger is infinite there.
LARGEST = float(np.finfo(np.float32).max)
# The most memory that is believed where the system does not tell how much there is.
MUCH_MEMORY = 2**40


def as_number(value):
    """Make a number Python's own; leave anything else, bools too, as it is.

    Types of NumPy compute in their own precision: with a float16, a difference has 3 digits.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    # The sum makes a zero of a minus zero, which some take for a negative number.
    return int(value) if isinstance(value, Integral) else float(value) + 0.0


def check_params(caller, params, constraints):
    """Check parameters by a table in scikit-learn's form, and make numbers Python's own.

    Numbers with which nothing can be computed are refused before. Dicts stay as they are.
    """
    checked = {}
    for name, value in params.items():
        what = f"The {name!r} parameter of {caller}"
        for item in value if isinstance(value, (tuple, list)) else ():
            _refuse_duration(what, item)
        checked[name] = _check_number(what, value)
    validate_parameter_constraints(constraints, checked, caller_name=caller)
    return checked


def make_rng(random_state):
    """Make a RandomState, of None a new one: NumPy's global one is not ours to change."""
    return check_random_state(np.random.RandomState() if random_state is None else random_state)


def check_argument(name, value):
    """Do the same for what is in a dict: a number, a sequence of numbers, or anything else."""
    if getattr(value, "ndim", 0) or isinstance(value, np.ndarray):
        raise ValueError(f"{name} must be a number. Got {value!r}.")
    if isinstance(value, (tuple, list)):
        return type(value)(check_argument(f"{name}[{i}]", item) for i, item in enumerate(value))
    number = _check_number(name, value)
    if isinstance(value, Number) and not (isinstance(value, Real) and math.isfinite(number)):
        raise ValueError(f"{name} must be a finite real number. Got {value!r}.")
    return number


def _refuse_duration(name, value):
    # NumPy takes it for an int.
    if isinstance(value, np.timedelta64):
        raise TypeError(f"{name} must be a number. Got {value!r}.")


def _check_number(name, value):
    _refuse_duration(name, value)
    try:
        number = as_number(value)
    except OverflowError:
        number = int(value)
    if isinstance(number, (int, float)) and LARGEST < abs(number) < math.inf:
        raise ValueError(
            f"{name} must be a number that float32 can hold, at most {LARGEST:.2g}. Got one of "
            f"about {_round(number)}."
        )
    return number


def write_value(value):
    """Write a value for an error message: Python does not print an int of thousands of digits."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(write_value, value))})"
    is_huge = isinstance(value, int) and abs(value) > 10**20
    return _round(value) if is_huge else repr(value)


def _round(number):
    return f"{Decimal(number):.1e}"


def check_memory(name, value, n_bytes):
    """Refuse a parameter whose value asks for more memory than this machine has in all."""
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Windows has no such function, and not all systems know these names.
    except (AttributeError, ValueError, OSError):
        available = MUCH_MEMORY
    if n_bytes > available:
        raise ValueError(
            f"{name}={write_value(value)} asks for at least {_round(n_bytes)} bytes of memory. "
            f"This machine has {_round(available)}. Make {name} smaller."
        )


def expect_memory(n_bytes):
    """Raise MemoryError where there are not so many bytes; they are given back, and not touched.

    Libraries are asked after it that end the process where they find no memory.
    """
    np.empty(n_bytes, np.uint8)


def check_layer(layer, sizes):
    """Check which hidden layer is asked for, of such sizes; return its position from the front."""
    if not sizes:
        raise ValueError(
            "hidden_activations needs a hidden layer, and this network has none: "
            "hidden_layer_sizes=()."
        )
    _refuse_duration("layer", layer)
    if isinstance(layer, bool) or not isinstance(layer, Integral):
        raise TypeError(f"layer must be an int. Got {layer!r}.")
    if not -len(sizes) <= layer < len(sizes):
        raise ValueError(
            f"layer must be a position in the hidden layers, which have {sizes} units: "
            f"{-len(sizes)} to {len(sizes) - 1}. Got {layer}."
        )
    return int(layer) % len(sizes)


class Lent:
    """What users lend to a call, which changes it in place: a RandomState and callbacks.

    A note is made of what they were. As a context it puts them back where the call fails.
    """

    def __init__(self, random_state, callbacks=()):
        items = [item[1] if isinstance(item, tuple) else item for item in callbacks]
        # A class is made into a new object by each fit.
        self._attributes = [
            (item, vars(item).copy())
            for item in items
            if hasattr(item, "__dict__") and not isinstance(item, type)
        ]
        self._random_state = random_state
        self._state = None
        if isinstance(random_state, np.random.RandomState):
            self._state = random_state.get_state()

    def put_back(self):
        """Make the objects what they were."""
        for item, attributes in self._attributes:
            vars(item).clear()
            vars(item).update(attributes)
        if self._state is not None:
            self._random_state.set_state(self._state)

    def __enter__(self):
        """Begin the call."""
        return self

    def __exit__(self, kind, error, traceback):
        """Put all back if the call fails, whatever ends it."""
        if kind is not None:
            self.put_back()


def leave_numpy_as_found(function: _Function) -> _Function:
    """Decorate a function: what NumPy does about overflows is as before where an error ends it.

    NumPy itself, scikit-learn and skdisk change that for a while. An interrupt that comes just as
    `numpy.errstate` has made the change keeps it from being taken back.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        numpy_errors = np.geterr()
        try:
            return function(*args, **kwargs)
        except BaseException:
            np.seterr(**numpy_errors)
            raise

    return call


def expect(is_right, what):
    """Raise ValueError, with what is wrong in words, if something is not right."""
    if not is_right:
        raise ValueError(what)
