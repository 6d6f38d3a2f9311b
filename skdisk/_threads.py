"""One thread where a second one would only get in the way. torch only."""

import threading
from contextlib import contextmanager, nullcontext

import torch

# A step of fewer floating-point operations runs on one thread. Measured on two cores, with hidden
# layers of 16 to 256 units and batches of 128 to 4,096 rows: on an idle machine a second thread
# made a step below this size 1.0 to 1.3 times as long, above it 0.6 to 0.8 times; with the other
# core busy, 2.5 to 8 times at any size.
ONE_THREAD_OPERATIONS = 5e7

_threads_lock = threading.Lock()
_threads = {"users": 0, "before": None}


@contextmanager
def use_one_thread():
    """Keep torch on one thread, then set the number back to what the first user found.

    The number belongs to each Python thread, but a new thread takes it over from whichever set it
    last: several may be here at once, and what one of them finds may be the 1 of another.
    """
    with _threads_lock:
        if _threads["users"] == 0:
            _threads["before"] = torch.get_num_threads()
        _threads["users"] += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_threads["before"])
        with _threads_lock:
            _threads["users"] -= 1


def limit_threads(operations):
    """Keep torch on one thread for what is small.

    Parameters
    ----------
    operations : float
        Floating-point operations of a step or a forward pass.

    Returns
    -------
    context : context manager
        In which torch has one thread, or as many as before.
    """
    return use_one_thread() if operations < ONE_THREAD_OPERATIONS else nullcontext()
