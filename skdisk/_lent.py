"""What users lend to a call: a RandomState and callbacks, which it changes in place."""

import numpy as np


class Lent:
    """A note of what was lent, for a call that fails.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        The parameter of that name.
    callbacks : iterable, default=()
        Objects, classes, or pairs of a name and one of these.
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
