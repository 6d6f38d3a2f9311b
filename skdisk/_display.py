"""`LossCurveDisplay` reads the losses of fits and draws them; it trains nothing.

matplotlib, an optional package, is imported when it draws.
"""

import math
import textwrap
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ._classifier import MLPDiskClassifier
from ._fitted import find_last

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

LONGEST_NAME = 50
# What the legend says of the lines.
STYLES = {"training": "-", "validation": "--", "best epoch": "o"}


def _find_classifier(estimator):
    """Find the fitted classifier in a search or at the end of a pipeline."""
    found = estimator
    while not isinstance(found, MLPDiskClassifier):
        if isinstance(found, Pipeline):
            found = find_last(found)
        elif hasattr(found, "best_estimator_"):
            found = found.best_estimator_
        elif isinstance(found, (GridSearchCV, RandomizedSearchCV)):
            search = type(found).__name__
            raise NotFittedError(
                f"This {search} has no best_estimator_. Call 'fit' first, with refit=True."
            )
        else:
            raise TypeError(
                "estimator must be a fitted MLPDiskClassifier, a pipeline that ends in one, a "
                f"search of one, or a list of those. Got {estimator!r}."
            )
    check_is_fitted(found)
    return found


def _is_list(values):
    """Tell whether there are items, one for each fit as it may be."""
    is_array = isinstance(values, (np.ndarray, pd.Series)) and values.ndim > 0
    return is_array or (isinstance(values, Sequence) and not isinstance(values, (str, bytes)))


def _write_value(value):
    """Write the value of a parameter for a person."""
    if isinstance(value, type):
        return value.__name__
    return type(value).__name__ if type(value).__repr__ is object.__repr__ else str(value)


def _name_differences(classifiers):
    """Name classifiers by what differs in their parameters; number them if that is not enough."""
    params = [clf.get_params(deep=False) for clf in classifiers]
    written = [{name: f"{name}={_write_value(own[name])}" for name in own} for own in params]
    # Callbacks are lists of objects that are written with their addresses.
    different = [
        name for name in params[0] if name != "callbacks" and len({w[name] for w in written}) > 1
    ]
    texts = [", ".join(own[name] for name in different) for own in written]
    names = [textwrap.shorten(text, LONGEST_NAME, placeholder=" ...") for text in texts]
    if len(set(names)) == len(names):
        return names
    return [", ".join(filter(None, (f"fit {i}", name))) for i, name in enumerate(names, 1)]


class LossCurveDisplay:
    """The mean loss of each epoch, of one or several fits.

    Create it with `from_estimator`. A training loss is a solid line, a validation loss a dashed
    one of the same colour, with a dot at the epoch in which it was lowest. All parameters are
    stored as attributes.

    Parameters
    ----------
    train_loss : list of array-like of shape (n_epochs,)
        For each fit, the mean training loss of each epoch, in nats.
    valid_loss : list of (array-like of shape (n_epochs,) or None), default=None
        For each fit, the mean validation loss after each epoch, in nats; None for a fit without.
    best_epoch : list of (int or None), default=None
        For each fit, the epoch to mark on its validation loss, counted from 1.
    name : list of (str or None), default=None
        What the legend calls each fit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the curves.
    figure_ : matplotlib Figure
        The figure that the axes are in.
    lines_ : list of matplotlib Line2D
        Fit by fit the line of the training loss, then that of the validation loss if there is one.
    markers_ : list of matplotlib Line2D
        The dots at the best epochs.

    See Also
    --------
    MLPDiskClassifier : Its attribute `history_` has the numbers.
    sklearn.model_selection.LearningCurveDisplay : Scores by the number of training rows.

    Examples
    --------
    >>> from skdisk import LossCurveDisplay, MLPDiskClassifier, make_disk
    >>> X, y = make_disk(500, random_state=0)
    >>> fits = [
    ...     MLPDiskClassifier(lr=lr, random_state=0).fit(X, y)
    ...     for lr in (0.001, 0.01)
    ... ]
    >>> display = LossCurveDisplay.from_estimator(fits)
    >>> display.name
    ['lr=0.001', 'lr=0.01']
    >>> display.ax_.get_ylabel()
    'mean loss (nats)'
    """

    ax_: "Axes"
    figure_: "Figure"
    lines_: list["Line2D"]
    markers_: list["Line2D"]

    def __init__(
        self,
        *,
        train_loss: Sequence[ArrayLike],
        valid_loss: Sequence[ArrayLike | None] | None = None,
        best_epoch: Sequence[int | None] | None = None,
        name: Sequence[str | None] | None = None,
    ) -> None:
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.best_epoch = best_epoch
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: "Axes | None" = None,
        name: str | Sequence[str] | None = None,
        curve_kwargs: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        log: bool = False,
    ) -> Self:
        """Draw the loss curves of fitted classifiers.

        Parameters
        ----------
        estimator : MLPDiskClassifier, Pipeline, search, or list of those
            Fitted: a classifier, a pipeline that ends in one, or a search, of which the
            `best_estimator_` is drawn. The curves of a list are drawn in one picture.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        name : str or list of str, default=None
            What the legend calls each fit. None names several by the parameters in which they
            differ, and does not name a single one.
        curve_kwargs : dict or list of dict, default=None
            What goes to matplotlib's `plot`: the same for all fits, or a dict for each.
        log : bool, default=False
            Whether the axis of the loss is logarithmic.

        Returns
        -------
        display : LossCurveDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError, TypeError
            If an estimator has not been fitted, or an argument is not as described.
        ValueError
            If the list is empty, or of another length than `name` or `curve_kwargs`, or
            `curve_kwargs` has what matplotlib does not know.
        ImportError
            If matplotlib is not installed.
        """
        estimators = estimator if isinstance(estimator, (list, tuple)) else [estimator]
        if not estimators:
            raise ValueError("estimator must be at least one fitted estimator. Got an empty list.")
        classifiers = [_find_classifier(each) for each in estimators]
        if isinstance(name, str):
            name = [name]
        elif name is None and len(classifiers) > 1:
            name = _name_differences(classifiers)
        display = cls(
            train_loss=[clf.loss_curve_ for clf in classifiers],
            valid_loss=[clf.validation_loss_curve_ for clf in classifiers],
            best_epoch=[clf.best_epoch_ for clf in classifiers],
            name=name,
        )
        return display.plot(ax, curve_kwargs=curve_kwargs, log=log)

    def plot(
        self,
        ax: "Axes | None" = None,
        *,
        curve_kwargs: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        log: bool = False,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        curve_kwargs : dict or list of dict, default=None
            What goes to matplotlib's `plot`: the same for all fits, or a dict for each.
        log : bool, default=False
            Whether the axis of the loss is logarithmic.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.

        Raises
        ------
        ValueError
            If lists that belong together have different lengths, or `curve_kwargs` has what
            matplotlib does not know.
        TypeError
            If an argument is not as described.
        ImportError
            If matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                "LossCurveDisplay needs matplotlib to draw: pip install 'skdisk[plot]'"
            ) from error
        if not isinstance(ax, (plt.Axes, type(None))):
            raise TypeError(f"ax must be matplotlib Axes or None. Got {ax!r}.")
        if not isinstance(log, (bool, np.bool_)):
            raise TypeError(f"log must be a bool. Got {log!r}.")
        curves = list(self._iterate_curves(curve_kwargs, plt))
        place = {}
        if ax is None:
            figure, ax = plt.subplots(layout="constrained")
            if len(curves) > 1:
                figure.set_size_inches(9, max(4.8, len(curves) / 4))
                place = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_, self.markers_ = [], []
        for curve in curves:
            self._plot_curve(*curve)
        ax.set(xlabel="epoch", ylabel="mean loss (nats)")
        ticks = {"steps": [1, 2, 5, 10], "integer": True, "min_n_ticks": 1}
        ax.xaxis.set_major_locator(plt.MaxNLocator("auto", **ticks))
        if log:
            ax.set_yscale("log")
            # Losses are rarely far from 1: 0.1, 0.2, 0.5, not powers of 10.
            ax.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(plt.NullLocator())
        self._add_legend(**place)
        return self

    def _iterate_curves(self, curve_kwargs, plt):
        """Iterate over what belongs to each fit: losses, best epoch, name, style."""
        if not all(np.ndim(loss) == 1 for loss in self.train_loss):
            raise ValueError(
                "train_loss must be a list of curves, one for each fit, such as "
                f"[clf.loss_curve_]. Got {self.train_loss!r}."
            )
        n_fits = len(self.train_loss)
        if curve_kwargs is None and n_fits > len(plt.rcParams["axes.prop_cycle"]):
            # matplotlib would give the same colour to several.
            colors = plt.colormaps["viridis"](np.linspace(0, 0.9, n_fits))
            curve_kwargs = [{"color": color} for color in colors]
        elif curve_kwargs is None or isinstance(curve_kwargs, dict):
            curve_kwargs = [curve_kwargs or {}] * n_fits
        parts = {"valid_loss": self.valid_loss, "best_epoch": self.best_epoch, "name": self.name}
        parts["curve_kwargs"] = curve_kwargs
        for name, values in parts.items():
            if values is None:
                parts[name] = [None] * n_fits
            elif not _is_list(values) or len(values) != n_fits:
                raise ValueError(
                    f"{name} must be a list with one item for each fit, of which there are "
                    f"{n_fits}. Got {values!r}."
                )
        for name, kinds in (("name", (str, type(None))), ("curve_kwargs", dict)):
            if not all(isinstance(item, kinds) for item in parts[name]):
                what = {"name": "str or None", "curve_kwargs": "dict"}[name]
                raise TypeError(f"{name} must have a {what} for each fit. Got {parts[name]!r}.")
        lists = self.train_loss, parts["valid_loss"], parts["best_epoch"]
        for train_loss, valid_loss, best_epoch in zip(*lists, strict=True):
            n_epochs = len(train_loss)
            if valid_loss is not None and np.shape(valid_loss) != (n_epochs,):
                raise ValueError(
                    "valid_loss must have a curve as long as that of train_loss, or None, for "
                    f"each fit. Got one of shape {np.shape(valid_loss)} beside {n_epochs} epochs."
                )
            is_epoch = isinstance(best_epoch, Integral) and 1 <= best_epoch <= n_epochs
            if best_epoch is not None and not is_epoch:
                raise ValueError(
                    f"best_epoch must have an epoch from 1 to {n_epochs}, or None, for such a "
                    f"fit. Got {best_epoch!r}."
                )
        return zip(self.train_loss, *parts.values(), strict=True)

    def _plot_curve(self, train_loss, valid_loss, best_epoch, name, style):
        """Draw one fit; matplotlib keeps labels that begin with "_" out of the legend."""
        ax, epochs = self.ax_, range(1, len(train_loss) + 1)
        try:
            (train,) = ax.plot(epochs, train_loss, **{"label": name or "_training", **style})
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"curve_kwargs must be what matplotlib's plot takes. Got {style!r}: {error}"
            ) from error
        self.lines_.append(train)
        if valid_loss is not None:
            (valid,) = ax.plot(epochs, valid_loss, color=train.get_color())
            valid.update_from(train)
            valid.set(linestyle="--", label="_validation")
            self.lines_.append(valid)
            lowest = math.nan if best_epoch is None else np.asarray(valid_loss)[best_epoch - 1]
            if np.isfinite(lowest):
                look = {"color": train.get_color(), "markersize": 9, "markeredgecolor": "white"}
                self.markers_ += ax.plot(best_epoch, lowest, "o", label="_best", zorder=3, **look)
        if len(train_loss) == 1:
            # A line needs two points to be seen.
            train.set_marker(".")

    def _add_legend(self, **place):
        """Add a legend; after the names it says what solid, dashed and a dot mean."""
        ax, n_fits = self.ax_, len(self.train_loss)
        is_alone = n_fits == 1 and self.name is None
        color = self.lines_[0].get_color() if is_alone else "dimgray"
        used = (True, len(self.lines_) > n_fits, bool(self.markers_))
        _, known = ax.get_legend_handles_labels()
        for (label, style), is_used in zip(STYLES.items(), used, strict=True):
            if is_used and label not in known:
                ax.plot([], [], style, color=color, label=label)
        handles, _ = ax.get_legend_handles_labels()
        handles.sort(key=lambda handle: handle.get_label() in STYLES)
        ax.legend(handles=handles, **place)
