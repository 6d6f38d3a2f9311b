"""skorch callbacks of the training: best epoch, output, scikit-learn's own callbacks.

The classifier adds those that its parameters ask for.
"""

import math
from contextlib import suppress

from skorch.callbacks import Callback, PrintLog
from tqdm.auto import tqdm

from ._state import load_weights

N_LINES = 10


def show(write, *args, **kwargs):
    """Call what writes to the screen, which may be missing, closed or full.

    Whatever becomes of the words, they must not cost a training.

    Parameters
    ----------
    write : callable
        Such as `print`, called with all that follows.
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


class BestEpoch(Callback):
    """Stop when the validation loss falls no more, and keep the weights of its lowest epoch.

    Parameters
    ----------
    patience : int
        Stop after so many epochs in a row without progress.
    tol : float
        How far the loss must fall below the lowest one for that to be progress.

    Attributes
    ----------
    stopped_ : bool
        Whether it stopped the last training.
    """

    def __init__(self, patience, tol):
        self.patience = patience
        self.tol = tol

    def on_train_begin(self, net, **kwargs):
        """Begin to count."""
        self.lowest_, self.misses_, self.stopped_, self.parameters_ = math.inf, 0, False, None

    def on_epoch_end(self, net, **kwargs):
        """Compare the epoch with the best one, and stop when the patience has ended."""
        loss = net.history[-1]["valid_loss"]
        self.misses_ = self.misses_ + 1 if loss > self.lowest_ - self.tol else 0
        if loss < self.lowest_:
            self.lowest_ = loss
            self.parameters_ = [p.detach().clone() for p in net.module_.parameters()]
        if self.misses_ >= self.patience:
            self.stopped_ = True
            # skorch's way for callbacks to end the training.
            raise KeyboardInterrupt

    def on_train_end(self, net, **kwargs):
        """Go back to the weights of the best epoch."""
        if self.parameters_ is not None:
            load_weights(net.module_, self.parameters_)
            self.parameters_ = None


class PrintTenLines(PrintLog):
    """Print skorch's table, but about ten lines of a training only."""

    def __init__(self):
        super().__init__(sink=_print, floatfmt=".4g")

    def on_train_begin(self, net, **kwargs):
        """Choose the epochs to print."""
        self.first_, self.every_ = len(net.history), math.ceil(net.n_epochs_ / N_LINES)
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

    def on_train_begin(self, net, **kwargs):
        """Draw the bar."""
        self.bar_ = make_bar(total=net.n_epochs_, unit="epoch", leave=True)

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


class FitTasks(Callback):
    """Tell the callbacks of scikit-learn of each epoch, which is a task of theirs.

    Parameters
    ----------
    estimator : MLPDiskClassifier
        Whose fit it is.
    context : sklearn.callback.CallbackContext
        Of the whole fit.
    given : dict
        `X`, `y` and `metadata`, as the user passed them.
    make_attributes : callable
        Makes the fitted attributes of the estimator as it stands, from the net.
    """

    def __init__(self, estimator, context, given, make_attributes):
        self.estimator = estimator
        self.context = context
        self.given = given
        self.make_attributes = make_attributes

    def on_epoch_begin(self, net, **kwargs):
        """Begin the task."""
        self.task_ = self.context.subcontext(task_name="epoch")
        self.task_.call_on_fit_task_begin(estimator=self.estimator, **self.given)

    def on_epoch_end(self, net, **kwargs):
        """End the task, and the training if a callback wishes so."""
        stop = self.task_.call_on_fit_task_end(
            estimator=self.estimator,
            **self.given,
            reconstruction_attributes=lambda: self.make_attributes(net),
        )
        if stop:
            # skorch's way for callbacks to end the training.
            raise KeyboardInterrupt
