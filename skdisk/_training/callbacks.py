"""Who watches a training: early stopping, scikit-learn's callbacks, and what verbose shows.

The watchers of the loop have `begin_epoch`, `end_epoch`, which tells whether the training should
stop, and `end_training`. What prints is a callback of skorch.
"""

import math
from contextlib import suppress

from skorch.callbacks import Callback, PrintLog
from tqdm.auto import tqdm

N_LINES = 10


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
        epoch, loss = len(state.history), state.history[-1]["valid_loss"]
        _, lowest, _ = self.best
        self.misses = self.misses + 1 if loss > lowest - self.tol else 0
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


def _print(text):
    show(print, text, flush=True)


class PrintTenLines(PrintLog):
    """Print skorch's table, but about ten lines of a training only."""

    def __init__(self, n_epochs):
        super().__init__(sink=_print, floatfmt=".4g")
        self.n_epochs = n_epochs

    def on_train_begin(self, net, **kwargs):
        """Choose the epochs to print."""
        self.first_, self.every_ = len(net.history), math.ceil(self.n_epochs / N_LINES)
        self.printed_ = None

    def on_epoch_end(self, net, **kwargs):
        """Print the first epoch, then every so many."""
        n_epochs = len(net.history)
        if n_epochs == self.first_ + 1 or (n_epochs - self.first_) % self.every_ == 0:
            super().on_epoch_end(net, **kwargs)
            self.printed_ = n_epochs

    def on_train_end(self, net, **kwargs):
        """Print the last epoch if that has not been done."""
        if net.history and len(net.history) != self.printed_:
            super().on_epoch_end(net, **kwargs)


class ShowProgress(Callback):
    """Show a progress bar of the epochs with their losses, on a terminal or in a notebook."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_train_begin(self, net, **kwargs):
        """Draw the bar."""
        self.bar_ = make_bar(total=self.n_epochs, unit="epoch", leave=True)

    def on_epoch_end(self, net, **kwargs):
        """Move the bar on."""
        names = ("train_loss", "valid_loss")
        losses = {name: net.history[-1][name] for name in names if name in net.history[-1]}
        self.bar_.set_postfix(losses, refresh=False)
        show(self.bar_.update)

    def on_train_end(self, net, **kwargs):
        """Leave the bar as it stands."""
        show(self.bar_.close)

    def __getstate__(self):
        """Leave the bar, which cannot be pickled, behind."""
        return {name: value for name, value in vars(self).items() if name != "bar_"}
