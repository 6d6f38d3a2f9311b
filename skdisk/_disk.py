"""Points on a square, labelled by whether they lie inside a disk: by `_is_inside` alone."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Literal, overload

import numpy as np
import pandas as pd

from ._compat import Interval
from ._inputs.parameters import (
    Lent,
    RandomState,
    check_memory,
    check_params,
    leave_numpy_as_found,
    make_rng,
)

# With this radius the disk covers half of the square [-1, 1)^2, whose area is 4.
_HALF_AREA_RADIUS = np.sqrt(2 / np.pi)
# At least: two coordinates and a label.
BYTES_PER_POINT = 24


def _is_inside(X, radius):
    return np.hypot(X[:, 0], X[:, 1]) < radius


def draw_circle(n_points=200):
    """Return points on the circle between the classes, (n_points, 2), the last one the first."""
    angle = np.linspace(0, 2 * np.pi, n_points)
    return _HALF_AREA_RADIUS * np.column_stack([np.cos(angle), np.sin(angle)])


def _draw_region(rng, n_samples, radius, inside):
    """Draw points uniformly on one side of the circle, by rejection.

    Unlike polar coordinates, it leaves those next to the circle to the labelling rule.
    """
    half_width = radius if inside else 1.0
    accepted = np.empty((0, 2))
    while len(accepted) < n_samples:
        # 21 % of the draws are accepted at worst, outside a disk of radius 1; 79 % inside any.
        X = rng.uniform(-half_width, half_width, size=(2 * (n_samples - len(accepted)), 2))
        accepted = np.concatenate([accepted, X[_is_inside(X, radius) == inside]])
    return accepted[:n_samples]


# In the order of the parameters.
PARAMETER_CONSTRAINTS = {
    "n_samples": [Interval(Integral, 0, None, closed="left"), tuple, list],
    "radius": [Interval(Real, 0, 1, closed="right"), None],
    "noise": [Interval(Real, 0, np.inf, closed="left"), None],
    "flip_y": [Interval(Real, 0, 1, closed="both")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "as_frame": ["boolean"],
}


def _check_counts(n_samples):
    """Make a tuple of ints: the number of points, or those outside and inside."""
    if isinstance(n_samples, int):
        return (int(n_samples),)
    if len(n_samples) != 2 or not all(isinstance(n, Integral) and n >= 0 for n in n_samples):
        raise ValueError(
            "The 'n_samples' parameter of make_disk must be, when it is a pair, two ints of at "
            f"least 0, (n_outside, n_inside). Got {n_samples!r} instead."
        )
    return tuple(map(int, n_samples))


@overload
def make_disk(
    n_samples: int | Sequence[int] = 100,
    *,
    radius: float | None = None,
    noise: float | None = None,
    flip_y: float = 0.0,
    shuffle: bool = True,
    random_state: RandomState = None,
    as_frame: Literal[False] = False,
) -> tuple[np.ndarray, np.ndarray]: ...


@overload
def make_disk(
    n_samples: int | Sequence[int] = 100,
    *,
    radius: float | None = None,
    noise: float | None = None,
    flip_y: float = 0.0,
    shuffle: bool = True,
    random_state: RandomState = None,
    as_frame: Literal[True],
) -> tuple[pd.DataFrame, pd.Series]: ...


def make_disk(
    n_samples=100,
    *,
    radius=None,
    noise=None,
    flip_y=0.0,
    shuffle=True,
    random_state=None,
    as_frame=False,
):
    """Make points on a square, labelled by whether they lie inside a disk around the origin.

    No straight line separates the two classes, and a small network learns them in seconds.

    Parameters
    ----------
    n_samples : int or tuple of shape (2,), dtype=int, default=100
        If int, the number of points, drawn uniformly on the square [-1, 1) x [-1, 1). If a pair
        `(n_outside, n_inside)`, exactly so many points of each class, each uniform on its region.
    radius : float in (0, 1], default=None
        Radius of the disk, in the units of `X`. None stands for sqrt(2 / pi) = 0.798, with which
        the disk covers half of the square, so that both classes are equally likely.
    noise : float, default=None
        Standard deviation of Gaussian noise added to `X` after it was labelled, in the units of
        `X`.
    flip_y : float in [0, 1], default=0.0
        Fraction of the labels that are then flipped: `round(flip_y * n)` of them, drawn at random.
        Up to 0.5 and without `noise`, `1 - flip_y` is the best possible accuracy.
    shuffle : bool, default=True
        Whether to shuffle the points of a pair; if False, those outside come first. The points of
        an int `n_samples` are in random order already, and stay in the order of their drawing.
    random_state : int, RandomState instance or None, default=None
        The source of randomness. The same int gives the same bytes. None draws a new seed from
        the operating system. NumPy's global generator is neither used nor changed.
    as_frame : bool, default=False
        Whether to return pandas objects.

    Returns
    -------
    X : ndarray of shape (n_samples, 2), dtype=float64
        The points. With `as_frame=True`, a DataFrame with the columns `x0` and `x1`.
    y : ndarray of shape (n_samples,), dtype=int64
        The labels: 1 where the distance from the origin is below `radius`, else 0. With
        `as_frame=True`, a Series named `inside`.

    Raises
    ------
    ValueError
        If a parameter has a value or a type other than those above.

    See Also
    --------
    MLPDiskClassifier : A network that learns the disk.
    sklearn.datasets.make_circles : Points on two concentric circles.

    Examples
    --------
    >>> from skdisk import make_disk
    >>> X, y = make_disk(5, random_state=0)
    >>> X.round(3)
    array([[ 0.098,  0.43 ],
           [ 0.206,  0.09 ],
           [-0.153,  0.292],
           [-0.125,  0.784],
           [ 0.927, -0.233]])
    >>> y
    array([1, 1, 1, 1, 0])
    >>> _, y = make_disk((2, 3), shuffle=False, random_state=0)
    >>> y
    array([0, 0, 1, 1, 1])
    """
    given = (n_samples, radius, noise, flip_y, shuffle, random_state, as_frame)
    params = dict(zip(PARAMETER_CONSTRAINTS, given, strict=True))
    params = check_params("make_disk", params, PARAMETER_CONSTRAINTS)
    del params["as_frame"]
    with Lent(random_state):
        X, y = _draw(**params)
    if as_frame:
        return pd.DataFrame(X, columns=["x0", "x1"]), pd.Series(y, name="inside")
    return X, y


@leave_numpy_as_found
def _draw(n_samples, radius, noise, flip_y, shuffle, random_state):
    counts = _check_counts(n_samples)
    check_memory("n_samples", n_samples, BYTES_PER_POINT * sum(counts))
    radius = _HALF_AREA_RADIUS if radius is None else radius
    rng = make_rng(random_state)
    if len(counts) == 1:
        X = rng.uniform(-1.0, 1.0, size=(*counts, 2))
    else:
        regions = zip(counts, (False, True), strict=True)
        X = np.concatenate([_draw_region(rng, n, radius, inside) for n, inside in regions])
        X = rng.permutation(X) if shuffle else X
    y = _is_inside(X, radius).astype(np.int64)
    if noise is not None:
        X = X + rng.normal(scale=noise, size=X.shape)
    flipped = rng.choice(len(y), size=round(flip_y * len(y)), replace=False)
    y[flipped] = 1 - y[flipped]
    return X, y
