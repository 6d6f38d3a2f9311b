"""Who watches a training: early stopping, scikit-learn's callbacks, and what verbose shows.

The watchers of the loop have `begin_epoch`, `end_epoch`, which tells whether the training should
stop, and `end_training`. What prints is a callback of skorch.
"""

import itertools
import math
import multiprocessing
import os
import threading
from contextlib import suppress

import numpy as np
from skorch.callbacks import Callback
from tqdm.auto import tqdm

# Of the table: how many lines, and how wide a number can be.
N_LINES, WIDTH = 10, 9
# Numbers the fits of this process that print in threads.
FIT_NUMBERS = itertools.count(1)

# The columns that every history has: the names that skorch gives them, and those that users see.
HISTORY = {
    "epoch": "epoch",
    "train_loss": "train_loss",
    "valid_loss": "valid_loss",
    "valid_score": "valid_score",
    "lr": "lr",
    "dur": "seconds",
}
# What skorch records besides, which says nothing to a reader of the table.
NOT_IN_HISTORY = (
    *("batches", "train_batch_count", "valid_batch_count", "train_loss_best", "valid_loss_best"),
)


class BestEpoch:
    """Stop when the validation loss falls no more, and keep the weights of its lowest epoch.

    Training stops after `patience` epochs in a row in which the loss has not fallen by `tol` below
    the lowest one.
    """

    def __init__(self, patience, tol):
        self.patience, self.tol, self.misses = patience, tol, 0
        # Number of the epoch, loss, weights; and what was the best before that.
        self.best = self.best_before = (0, math.inf, None)

    def begin_epoch(self, state):
        """Do nothing."""

    def end_epoch(self, state):
        """Compare the epoch with the best one; stop when the patience has ended."""
        epoch, loss = len(state.history), state.last_row["valid_loss"]
        _, lowest, _ = self.best
        self.misses = 0 if loss < lowest - self.tol else self.misses + 1
        if loss < lowest:
            self.best_before, self.best = self.best, (epoch, loss, state.copy_weights())
        return self.misses >= self.patience

    def end_training(self, state):
        """Go back to the weights of the best epoch; may be done twice."""
        # Where an interrupt has ended the training, the last epoch may be gone again.
        is_there = self.best[0] <= len(state.history)
        _, _, weights = self.best if is_there else self.best_before
        if weights is not None:
            state.set_weights(weights)


class FitTasks:
    """Tell the callbacks of scikit-learn of each epoch, which is a task of theirs.

    The `context` is that of the whole fit, `given` what the user passed to it, by the names of
    `call_on_fit_task_begin`; `make_attributes` makes the fitted attributes of a state.
    """

    def __init__(self, estimator, context, given, make_attributes):
        self.estimator = estimator
        self.context = context
        self.given = given
        self.make_attributes = make_attributes

    def begin_epoch(self, state):
        """Begin the task."""
        self.task = self.context.subcontext(task_name="epoch")
        self.task.call_on_fit_task_begin(estimator=self.estimator, **self.given)

    def end_epoch(self, state):
        """End the task; stop if a callback wishes so."""
        return self.task.call_on_fit_task_end(
            estimator=self.estimator,
            **self.given,
            reconstruction_attributes=lambda: self.make_attributes(state),
        )

    def end_training(self, state):
        """Do nothing: the classifier ends the task of the whole fit."""


def show(write, *args, **kwargs):
    """Call what writes to the screen, which may be missing, closed or full.

    Whatever becomes of the words, they must not cost a training.
    """
    with suppress(Exception):
        write(*args, **kwargs)


def make_bar(**options):
    """Make a progress bar of tqdm, one that shows nothing where nothing can be shown."""
    try:
        return tqdm(**options)
    except Exception:
        return tqdm(**options | {"disable": True})


def _name_fit():
    """Name a fit that may print while others do: in a thread, or a process of several."""
    if multiprocessing.parent_process() is not None:
        return f"fit {os.getpid()}-{next(FIT_NUMBERS)}"
    is_alone = threading.current_thread() is threading.main_thread()
    return "" if is_alone else f"fit {next(FIT_NUMBERS)}"


def _find_best(net, first):
    """Find the lowest validation loss of a training, and its epoch."""
    return min(((row["valid_loss"], row["epoch"]) for row in net.history[first:]), default=None)


def _write(value):
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


class PrintTenLines(Callback):
    """Print the columns of `history_`, of about ten epochs of a training.

    Where several fits may print at a time, each line begins with the name of its fit, and the
    first one is the title, which says what is fitted.
    """

    def __init__(self, n_epochs, title, keeps_best):
        self.n_epochs, self.title, self.keeps_best = n_epochs, title, keeps_best

    def on_train_begin(self, net, **kwargs):
        """Choose the epochs to print."""
        self.first_, self.every_ = len(net.history), math.ceil(self.n_epochs / N_LINES)
        self.columns_, self.printed_, self.fit_ = None, None, _name_fit()

    def on_epoch_end(self, net, **kwargs):
        """Print the first epoch, then every so many."""
        n_epochs = len(net.history)
        if n_epochs == self.first_ + 1 or (n_epochs - self.first_) % self.every_ == 0:
            self._print_epoch(net.history[-1])

    def on_train_end(self, net, **kwargs):
        """Print the last epoch if that has not been done, and which one is kept."""
        if len(net.history) > self.first_ and net.history[-1]["epoch"] != self.printed_:
            self._print_epoch(net.history[-1])
        if self.keeps_best and (best := _find_best(net, self.first_)):
            loss, epoch = best
            self._print(
                f"Kept: the weights of epoch {epoch}, with the lowest valid_loss, {loss:.4g}."
            )

    def _print_epoch(self, row):
        if self.columns_ is None:
            known = (*HISTORY, *NOT_IN_HISTORY)
            others = [name for name in row if name not in known and not name.endswith("_best")]
            self.columns_ = [name for name in HISTORY if name in row] + others
            if self.fit_:
                self._print(self.title)
            self._print_cells(HISTORY.get(name, name) for name in self.columns_)
        self._print_cells(_write(row.get(name, "")) for name in self.columns_)
        self.printed_ = row["epoch"]

    def _print_cells(self, cells):
        widths = [max(WIDTH, len(name)) for name in self.columns_]
        self._print("  ".join(map(str.rjust, cells, widths)))

    def _print(self, text):
        # The line and its end at once: prints of other threads cannot come between.
        line = f"{self.fit_}: {text}\n" if self.fit_ else f"{text}\n"
        show(print, line, end="", flush=True)


class ShowProgress(Callback):
    """Show a progress bar of the epochs with their losses, on a terminal or in a notebook."""

    bar_ = None

    def __init__(self, n_epochs, keeps_best):
        self.n_epochs, self.keeps_best = n_epochs, keeps_best

    def on_train_begin(self, net, **kwargs):
        """Draw the bar."""
        self.first_ = len(net.history)
        self.bar_ = make_bar(total=self.n_epochs, unit="epoch", leave=True)

    def on_epoch_end(self, net, **kwargs):
        """Move the bar on."""
        names = ("train_loss", "valid_loss")
        self.losses_ = {name: net.history[-1][name] for name in names if name in net.history[-1]}
        self.bar_.set_postfix(self.losses_, refresh=False)
        show(self.bar_.update)

    def on_train_end(self, net, **kwargs):
        """Leave a full bar: where the training was stopped, no other epochs will come."""
        if self.keeps_best and (best := _find_best(net, self.first_)):
            self.bar_.set_postfix(self.losses_ | {"best_epoch": best[1]}, refresh=False)
        if self.bar_.n < self.bar_.total:
            show(self._shorten_bar)
        self.close()

    def close(self):
        """End the bar, also of a training that has failed; may be done twice."""
        if self.bar_ is not None:
            show(self.bar_.close)

    def _shorten_bar(self):
        # In a notebook the bar takes another total from `reset` only, which begins anew.
        n_epochs, start = self.bar_.n, self.bar_.start_t
        self.bar_.reset(total=n_epochs)
        self.bar_.start_t = start
        self.bar_.update(n_epochs)

    def __getstate__(self):
        """Leave the bar, which cannot be pickled, behind."""
        return {name: value for name, value in vars(self).items() if name != "bar_"}
