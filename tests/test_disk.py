"""`make_disk`: geometry, counts, randomness, parameters."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare, norm

from skdisk import make_disk

RADIUS = np.sqrt(2 / np.pi)


def distance(X):
    return np.sqrt((X**2).sum(axis=1))


def test_returns_float64_points_on_the_square_and_int64_labels():
    X, y = make_disk(1000, random_state=0)
    assert X.shape == (1000, 2)
    assert X.dtype == np.float64
    assert y.shape == (1000,)
    assert y.dtype == np.int64
    assert X.min() >= -1
    assert X.max() < 1
    assert set(y) == {0, 1}


@pytest.mark.parametrize("n_samples", [1000, (300, 700)])
@pytest.mark.parametrize("radius", [None, 0.05, 0.5, 1])
def test_label_is_1_exactly_where_the_distance_is_below_the_radius(n_samples, radius):
    X, y = make_disk(n_samples, radius=radius, random_state=0)
    np.testing.assert_array_equal(y == 1, distance(X) < (radius or RADIUS))


def test_half_of_the_square_is_inside_by_default():
    n, n_seeds = 1000, 100
    n_inside = sum(make_disk(n, random_state=seed)[1].sum() for seed in range(n_seeds))
    # Binomial: the mean of n * n_seeds fair coins, within 4 standard deviations.
    assert abs(n_inside / (n * n_seeds) - 0.5) < 4 * 0.5 / np.sqrt(n * n_seeds)


def grid_counts(X, low, high, bins):
    return np.histogram2d(*X.T, bins=bins, range=[[low, high]] * 2)[0].ravel()


def test_points_are_uniform_on_the_square():
    X, _ = make_disk(20_000, random_state=0)
    assert chisquare(grid_counts(X, -1, 1, 10)).pvalue > 0.001


@pytest.mark.parametrize("radius", [0.5, 0.9, 1])
def test_points_of_a_pair_are_uniform_inside(radius):
    X, y = make_disk((0, 20_000), radius=radius, random_state=0)
    # Equal areas: by angle, and by the square of the distance.
    angle = np.arctan2(X[:, 1], X[:, 0])
    counts, *_ = np.histogram2d(
        angle, distance(X) ** 2, bins=8, range=[[-np.pi, np.pi], [0, radius**2]]
    )
    assert counts.sum() == len(y) == 20_000
    assert chisquare(counts.ravel()).pvalue > 0.001


def test_points_of_a_pair_are_uniform_outside():
    X, _ = make_disk((20_000, 0), random_state=0)
    # Equal areas: the cells of a grid that the circle does not touch.
    corners = np.linspace(-1, 1, 21)
    far = np.maximum(np.abs(corners[:-1]), np.abs(corners[1:]))
    near = np.minimum(np.abs(corners[:-1]), np.abs(corners[1:]))
    outside = (np.hypot(*np.meshgrid(near, near)) > RADIUS).ravel()
    inside = (np.hypot(*np.meshgrid(far, far)) < RADIUS).ravel()
    counts = grid_counts(X, -1, 1, 20)
    assert counts[inside].sum() == 0
    assert outside.sum() > 100
    assert chisquare(counts[outside]).pvalue > 0.001


@pytest.mark.parametrize("pair", [(3, 5), (0, 4), (7, 0), (0, 0), [2, 1], (np.int64(2), 9)])
def test_a_pair_gives_exactly_those_counts(pair):
    _, y = make_disk(pair, random_state=0)
    assert (np.sum(y == 0), np.sum(y == 1)) == tuple(pair)


def test_a_pair_is_shuffled_unless_told_otherwise():
    _, y = make_disk((50, 50), random_state=0)
    assert np.any(np.diff(y) < 0)
    _, y = make_disk((50, 50), shuffle=False, random_state=0)
    np.testing.assert_array_equal(y, np.repeat([0, 1], 50))


@pytest.mark.parametrize("as_frame", [False, True])
def test_no_samples_at_all(as_frame):
    X, y = make_disk(0, noise=0.1, flip_y=0.5, as_frame=as_frame)
    assert X.shape == (0, 2)
    assert y.shape == (0,)


def test_noise_is_added_after_labelling_with_the_stated_deviation():
    X, y = make_disk(5000, random_state=0)
    noisy, noisy_y = make_disk(5000, noise=0.3, random_state=0)
    np.testing.assert_array_equal(noisy_y, y)
    assert np.std(noisy - X) == pytest.approx(0.3, rel=0.05)
    quantiles = np.quantile(noisy - X, [0.1, 0.9]) / 0.3
    np.testing.assert_allclose(quantiles, norm.ppf([0.1, 0.9]), atol=0.05)


def test_flip_y_flips_that_fraction_of_the_labels():
    X, y = make_disk(1000, random_state=0)
    same_X, flipped = make_disk(1000, flip_y=0.25, random_state=0)
    np.testing.assert_array_equal(same_X, X)
    assert np.sum(flipped != y) == 250
    # Of both classes, in proportion.
    assert 0.2 < np.mean(y[flipped != y]) < 0.8


@pytest.mark.parametrize("n_samples", [100, (40, 60)])
def test_the_same_seed_gives_the_same_bytes(n_samples):
    params = {"noise": 0.1, "flip_y": 0.1}
    first, second, other = (
        b"".join(a.tobytes() for a in make_disk(n_samples, random_state=seed, **params))
        for seed in (0, np.random.RandomState(0), 1)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize("random_state", [None, 0])
def test_the_global_generator_of_numpy_is_untouched(random_state):
    before = np.random.get_state()  # noqa: NPY002 - the generator that must not change
    X, _ = make_disk((50, 50), noise=0.1, flip_y=0.1, random_state=random_state)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    assert len(np.unique(X)) == 200


def test_as_frame_returns_the_same_numbers():
    X, y = make_disk(100, noise=0.1, random_state=0)
    frame, series = make_disk(100, noise=0.1, random_state=0, as_frame=True)
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"x0": X[:, 0], "x1": X[:, 1]}))
    pd.testing.assert_series_equal(series, pd.Series(y, name="inside"))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_samples": -1}, "The 'n_samples' parameter of make_disk must be .* Got -1"),
        ({"n_samples": 1.5}, "The 'n_samples' parameter of make_disk must be .* Got 1.5"),
        ({"n_samples": "many"}, "The 'n_samples' parameter of make_disk must be .* Got 'many'"),
        ({"n_samples": (1, 2, 3)}, r"two ints of at least 0, .* Got \(1, 2, 3\)"),
        ({"n_samples": (1, -2)}, r"two ints of at least 0, .* Got \(1, -2\)"),
        ({"n_samples": (1, 0.5)}, r"two ints of at least 0, .* Got \(1, 0.5\)"),
        ({"radius": 0}, r"The 'radius' parameter of make_disk must be .*\(0.0, 1.0\].* Got 0"),
        ({"radius": 1.1}, "The 'radius' parameter of make_disk must be .* Got 1.1"),
        ({"noise": -0.1}, "The 'noise' parameter of make_disk must be .* Got -0.1"),
        ({"noise": np.inf}, "The 'noise' parameter of make_disk must be .* Got inf"),
        ({"noise": "loud"}, "The 'noise' parameter of make_disk must be .* Got 'loud'"),
        ({"flip_y": 1.5}, "The 'flip_y' parameter of make_disk must be .* Got 1.5"),
        ({"shuffle": "no"}, "The 'shuffle' parameter of make_disk must be .* Got 'no'"),
        ({"random_state": "x"}, "The 'random_state' parameter of make_disk must be .* Got 'x'"),
        ({"as_frame": 2}, "The 'as_frame' parameter of make_disk must be .* Got 2"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named_in_the_words_of_scikit_learn(params, match):
    with pytest.raises(ValueError, match=match):
        make_disk(**params)


def test_only_n_samples_is_positional():
    with pytest.raises(TypeError, match="positional argument"):
        make_disk(10, 0.5)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_samples": 10**400}, "'n_samples' parameter of make_disk .* about 1.0e"),
        ({"n_samples": 10**13}, "n_samples=.* asks for at least 2.4e"),
        ({"n_samples": (1, 10**400)}, "n_samples=.* asks for at least 2.4e"),
        ({"n_samples": 3.0}, "The 'n_samples' parameter of make_disk"),
        ({"noise": 10**400}, "'noise' parameter of make_disk .* about 1.0e"),
        ({"noise": 1e39}, "'noise' parameter of make_disk .* about 1.0e"),
        ({"noise": np.nan}, "The 'noise' parameter of make_disk"),
        ({"radius": 10**5000}, "'radius' parameter of make_disk .* about 1.0e"),
        ({"radius": Fraction(3, 2)}, "The 'radius' parameter of make_disk"),
        ({"flip_y": 10**400}, "'flip_y' parameter of make_disk .* about 1.0e"),
        ({"flip_y": np.timedelta64(1, "D")}, "'flip_y' parameter of make_disk must be a number"),
    ],
    ids=lambda value: f"{next(iter(value))}" if isinstance(value, dict) else value,
)
def test_a_bad_number_is_refused_and_nothing_is_drawn(params, match):
    random_state = np.random.RandomState(0)
    before = str(random_state.get_state())
    with pytest.raises((ValueError, TypeError), match=match):
        make_disk(**{"n_samples": 10, "random_state": random_state} | params)
    assert str(random_state.get_state()) == before


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"n_samples": np.int8(100)}, {"n_samples": 100}),
        ({"n_samples": True}, {"n_samples": 1}),
        ({"n_samples": (np.int8(100), np.uint8(100))}, {"n_samples": (100, 100)}),
        ({"radius": Fraction(1, 2)}, {"radius": 0.5}),
        ({"radius": np.float16(0.5), "n_samples": (5, 5)}, {"radius": 0.5, "n_samples": (5, 5)}),
        ({"noise": np.longdouble(0.5)}, {"noise": 0.5}),
        ({"noise": -0.0}, {"noise": 0}),
        ({"flip_y": Fraction(1, 4)}, {"flip_y": 0.25}),
    ],
    ids=str,
)
def test_a_number_of_any_type_is_the_same_number(params, same):
    for part, expected in zip(
        make_disk(**params, random_state=0), make_disk(**same, random_state=0), strict=True
    ):
        np.testing.assert_array_equal(part, expected)


def test_an_interrupted_draw_gives_the_generator_back():
    class Interrupted(np.random.RandomState):
        def choice(self, *args, **kwargs):
            raise KeyboardInterrupt

    random_state = Interrupted(0)
    before = str(random_state.get_state())
    with pytest.raises(KeyboardInterrupt):
        make_disk(10, random_state=random_state)
    assert str(random_state.get_state()) == before
