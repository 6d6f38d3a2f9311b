"""What torch and Python have set when a public call begins, and have again when it has ended.

Gradient and inference mode, the default device, the number of threads, the warning filters and
what NumPy does about overflows are noted and restored here, the last by `leave_numpy_as_found`
where a call does not enter torch. Global generators need no note: nothing in skdisk draws from
them. torch and NumPy only.
"""

import functools
import os
import re
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])

# A step of fewer floating-point operations runs on one thread. Measured on two cores, with hidden
# layers of 16 to 256 units and batches of 128 to 4,096 rows: on an idle machine a second thread
# made a step below this size 1.0 to 1.3 times as long, above it 0.6 to 0.8 times; with the other
# core busy, 2.5 to 8 times at any size.
ONE_THREAD_OPERATIONS = 5e7

# Rows per forward pass: the activations of a chunk stay in the cache. 1,000,000 rows of two
# features through 64-64 units took 0.84 s in one piece, 0.16 s in pieces of 8,192.
ROWS_AT_ONCE = 8192
# Sparse rows are made dense chunk by chunk, so many numbers at once (16 MB in float32).
NUMBERS_AT_ONCE = 2**22

# How many threads torch had where the outermost call of a Python thread began, by the thread.
_numbers_of_threads = {}
_process = {"is_forked": False}


def _note_fork():
    _process["is_forked"] = True
    _numbers_of_threads.clear()


# Windows knows no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def count_rows_at_once(n_features):
    """Count the rows of a chunk: few enough that they may be made dense."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // n_features))


def _get_modes():
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


class _Surroundings:
    """What a call has found.

    An interrupt can land in any function of Python, also in those that restore. So all that
    `restore` does may be done twice.
    """

    def __init__(self):
        self.filters, self.numpy_errors = warnings.filters, np.geterr()
        self.modes_now = _get_modes()
        self.thread = threading.get_ident()
        self.is_outermost = self.thread not in _numbers_of_threads
        self.n_threads = self._find_number_of_threads()
        # In it gradients are computed, whatever the user's mode, which comes back where it ends.
        self.context = torch.inference_mode(False)
        self.is_inside = False

    def _find_number_of_threads(self):
        """Find how many threads torch has here when no call is about.

        The number belongs to each Python thread, but a new one takes over what any of them has set
        last: that may be the 1 of another call, whose note tells what is right. Looked at before
        and after, because other calls begin and end in the meantime.
        """
        others = [*_numbers_of_threads.values()]
        n_threads = torch.get_num_threads()
        others += _numbers_of_threads.values()
        return max(others) if self.is_outermost and n_threads == 1 and others else n_threads

    def prepare(self):
        self.context.__enter__()
        self.is_inside, self.modes_now = True, (True, False)
        if self.is_outermost:
            _numbers_of_threads[self.thread] = self.n_threads
        # The threads of the parent are not there in a forked child, and waiting for them would
        # never end.
        n_threads = 1 if _process["is_forked"] else self.n_threads
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)

    def restore(self):
        if self.is_inside:
            self.context.__exit__(None, None, None)
        if torch.get_num_threads() != self.n_threads:
            torch.set_num_threads(self.n_threads)
        if self.is_outermost:
            _numbers_of_threads.pop(self.thread, None)

    def clean_up(self, error):
        """End what an exception has kept from ending: it may be an interrupt."""
        # A context of torch that was cut off ends with the frame that holds on to it, which the
        # traceback keeps: it would set its modes at any later time.
        if not self.is_inside or _get_modes() != self.modes_now:
            traceback.clear_frames(error.__traceback__)
        if not self.is_inside:
            # It may have been entered all the same, by a call within another one as well.
            self.context = None
        np.seterr(**self.numpy_errors)
        # `warnings.catch_warnings` puts another list there, and the old one back. Interrupts land
        # in the main thread; elsewhere the list may be that of another thread in such a context.
        if threading.current_thread() is threading.main_thread():
            warnings.filters = self.filters


def _describe_want_of_memory(error, function):
    """Say what an error lacked memory for; None where it is another one, or says so itself."""
    if not isinstance(error, MemoryError | RuntimeError):
        return None
    if isinstance(error, torch.OutOfMemoryError):
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        what = asked[1] if asked else "memory"
        return (
            f"Unable to allocate {what} on the accelerator. Take a smaller batch_size or smaller "
            'hidden layers, or device="cpu".'
        )
    # torch has an exception of its own for the memory of devices only.
    asked = re.search(r"you tried to allocate (\d+) bytes", str(error))
    if asked:
        return f"Unable to allocate {asked[1]} bytes, which torch asked for."
    # Python's own has no words, that of a C++ library has none for people.
    if isinstance(error, MemoryError) and str(error) in ("", "std::bad_alloc"):
        return f"Unable to allocate what {function.__name__.strip('_')} asked for."
    return None


def explain_want_of_memory(function: _Function) -> _Function:
    """Decorate a function: whoever wants memory in it, the answer is a MemoryError in words."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            words = _describe_want_of_memory(error, function)
            if words is None:
                raise
            raise MemoryError(words) from error

    return call


def leave_as_found(function: _Function) -> _Function:
    """Decorate a function that enters torch: what it has found is there again when it ends.

    So it is where an interrupt ends it, at any moment. Want of memory is said in words.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        found = _Surroundings()
        # Twice: an interrupt may end the first one.
        try:
            try:
                found.prepare()
                # Of the parameter `device`, not of torch's default, are all tensors.
                with nullcontext() if torch.empty(0).is_cpu else torch.device("cpu"):
                    return function(*args, **kwargs)
            except BaseException as error:
                found.clean_up(error)
                words = _describe_want_of_memory(error, function)
                if words is None:
                    raise
                raise MemoryError(words) from error
            finally:
                found.restore()
        finally:
            found.restore()

    return call


class limit_threads:
    """Keep torch on one thread for steps of few floating-point operations.

    A generator would not do: one that an interrupt cuts off ends when its memory is freed, and
    would set the number at any later time.
    """

    def __init__(self, operations):
        self.is_small = operations < ONE_THREAD_OPERATIONS
        self.n_threads = torch.get_num_threads()

    def __enter__(self):
        if self.is_small:
            torch.set_num_threads(1)

    def __exit__(self, *error):
        if self.is_small:
            torch.set_num_threads(self.n_threads)
