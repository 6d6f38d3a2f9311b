"""The training loop: a plan and a state in, a result out.

A plan is what stays as it is, a state what changes. Each epoch is trained by the compiled kernel
or, where something stands in its way, by skorch's loop with autograd. Where nobody looks between
epochs the kernel runs many of them at once. A training ends when its epochs are over, when a
callback or watcher stops it, when it diverges, or on an interrupt: the result says which. In each
case the state is that of the last whole epoch.
"""

import math
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from .. import _kernel
from .._network.mlp import flatten
from .._network.noise import hash_rows, make_batch_seeds, make_epoch_seed
from .._network.prediction import make_network
from .._network.surroundings import limit_threads
from .batches import LazyRows, TensorBatches, WeightedDataset
from .callbacks import ShowProgress
from .eligibility import find_obstacle, read_settings
from .net import check_monitors, find_watchers, record_losses
from .state import Settings, make_net, note, read_arrays, set_back, write_arrays

# The kernel runs so long at a time: Ctrl-C and other threads wait for it no longer.
SECONDS_OF_A_PIECE = 0.05


class Plan(NamedTuple):
    """What stays as it is during a training.

    `learning_rates` has one for each epoch; None leaves them to the optimiser and the callbacks.
    `fused` is "auto", True or False; `watchers` are those of `callbacks.py`.
    """

    settings: Settings
    train: WeightedDataset
    validation: WeightedDataset | None
    n_epochs: int
    learning_rates: Any
    fused: Any
    watchers: tuple


class Ending(Enum):
    """How a training has ended."""

    COMPLETE = "all epochs were trained"
    STOPPED = "somebody stopped it"
    DIVERGED = "a loss or a weight was not finite"
    INTERRUPTED = "KeyboardInterrupt, or what a handler of a signal raised, ended it"


@dataclass
class Result:
    """What came of a training, besides the state.

    `first_epoch` is how many epochs had been trained before, `reason` why the kernel did not train
    all of it, `diverged` where and with what it diverged, both in words or None.
    """

    first_epoch: int
    ending: Ending = Ending.COMPLETE
    reason: str | None = None
    diverged: str | None = None


def train(plan, state):
    """Train a network: the state becomes that of the last whole epoch, the result says the rest.

    Return the result and, where an interrupt has ended the training, the exception to raise.
    ValueError says where `fused=True` is not possible: before the training or after whole epochs.
    """
    signals = _Signals()
    training = _Training(plan, state, signals)
    interrupt = None
    # Twice: an interrupt can come while the state is set back for another reason.
    try:
        try:
            signals.listen()
            training.run()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) and error is not signals.raised:
                raise
            interrupt = error
            training.go_back()
            # A callback's last hook may count on an epoch where there is none.
            training.end_watching()
            with suppress(Exception):
                training.tell_the_end()
        finally:
            signals.stop_listening()
            training.put_in_order()
    finally:
        signals.stop_listening()
    # The latter where an exception was caught on its way, or raised where Python lets none out.
    interrupt = interrupt or signals.raised
    if interrupt is None:
        return training.result, None
    training.result.ending = Ending.INTERRUPTED
    # The traceback would hold all that the training has held.
    return training.result, interrupt.with_traceback(None)


class _Signals:
    """What a handler of Ctrl-C or SIGTERM has raised during a training, which it is to end.

    Callbacks raise KeyboardInterrupt, too, to stop a training.
    """

    def __init__(self):
        self.raised, self.handlers = None, {}

    def listen(self):
        """Note from now on what the handlers raise."""
        # Signals come to the main thread only.
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            # What is done by default, and nothing, are no functions.
            if callable(handler):
                self.handlers[number] = handler
                signal.signal(number, self._call_handler)

    def _call_handler(self, number, frame):
        try:
            self.handlers[number](number, frame)
        except BaseException as error:
            self.raised = error
            raise

    def stop_listening(self):
        """Put the handlers back where nobody has put others there; may be done twice."""
        for number, handler in self.handlers.items():
            if signal.getsignal(number) == self._call_handler:
                signal.signal(number, handler)


class _computed_once:
    """A property that is computed when it is read first.

    `functools.cached_property` does so behind a lock of the class in Python 3.11. A child that is
    forked while another thread of its parent holds the lock would wait for it for ever.
    """

    def __init__(self, compute):
        self.compute = compute

    def __get__(self, instance, owner=None):
        value = self.compute(instance)
        # It hides this descriptor from now on.
        instance.__dict__[self.compute.__name__] = value
        return value


class _Training:
    """A training that is going on."""

    def __init__(self, plan, state, signals):
        self.plan, self.state, self.signals = plan, state, signals
        self.result = Result(first_epoch=len(state.history))
        if plan.settings.callbacks and state.net is None:
            state.set_net(make_net(plan.settings, state))
        self.noted = note(state)
        self.batches = self._make_batches()
        self.seconds_of_an_epoch = math.inf
        self.lowest = {}

    def _make_batches(self):
        settings, state = self.plan.settings, self.state
        if state.net is not None:
            return state.net.get_iterator(self.plan.train, training=True)
        return TensorBatches(
            self.plan.train,
            settings.batch_size,
            device=settings.device,
            shuffle=settings.shuffle,
            generator=state.generator,
        )

    def run(self):
        """Train epoch by epoch, or many at once where nobody looks."""
        self._look_for_obstacles()
        if self.state.net is not None:
            check_monitors(self.state.net, self.plan.validation is not None)
            if self._notify("on_train_begin", X=self.plan.train.X, y=self.plan.train.y):
                self.result.ending = Ending.STOPPED
            # A callback may have changed anything, the history and the size of the batches too.
            self.result.first_epoch = len(self.state.history)
            self.batches = self._make_batches()
            self._look_for_obstacles()
        n_left = self.plan.n_epochs
        while n_left and self.result.ending is Ending.COMPLETE and not self.signals.raised:
            if self.state.net is None:
                # Watchers may have changed modes of torch. With a net, each epoch looks.
                self._look_for_obstacles()
            self.noted, start = note(self.state), time.perf_counter()
            if self._is_watched():
                self._run_watched_epoch(start)
                n_left -= 1
            else:
                n_left -= self._run_piece(n_left, start)
        self.end_watching()
        self.noted = note(self.state)
        self.tell_the_end()

    def tell_the_end(self):
        """Tell skorch's callbacks that the training has ended."""
        self._notify("on_train_end", X=self.plan.train.X, y=self.plan.train.y)

    def end_watching(self):
        """Let the watchers put the state in order; may be done twice."""
        for watcher in self.plan.watchers:
            watcher.end_training(self.state)

    def put_in_order(self):
        """Leave the module as those expect it who call it themselves, and no bar open.

        May be done twice.
        """
        if self.state.net is not None:
            self.state.net.module_.eval()
        for callback in self.plan.settings.callbacks:
            # An open bar would move those of later trainings down, and write among their lines.
            if isinstance(callback, ShowProgress):
                callback.close()

    def go_back(self):
        """Set the state back to the end of the last whole epoch; may be done twice."""
        set_back(self.state, self.noted)

    def _look_for_obstacles(self):
        """Find out whether the kernel can take the coming epoch.

        Once in the way, a setting counts for the rest of the training.
        """
        if self.result.reason is None:
            self.result.reason = find_obstacle(self.plan, self.state.net, self.batches)
        if self.result.reason is None:
            return
        if self.plan.fused is True:
            raise ValueError(
                f"fused=True is not possible: {self.result.reason}. Change that, or use "
                'fused="auto" to train without the kernel where it cannot be used.'
            )
        if self.state.net is None:
            self.state.set_net(make_net(self.plan.settings, self.state))
            self.noted = note(self.state)

    def _notify(self, hook, **kwargs):
        """Call a hook of skorch's callbacks; return whether one of them stops the training."""
        return self.state.net is not None and self._stops(self.state.net.notify, hook, **kwargs)

    def _stops(self, function, *args, **kwargs):
        """Call a function of the net; tell whether a callback stops it, and not an interrupt."""
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            net = self.state.net
            if self.signals.raised or not net.stop_requested_:
                raise
            net.stop_requested_ = False
            return True
        return False

    def _is_watched(self):
        """Tell whether somebody may look at the training between epochs, or change it."""
        plan, net = self.plan, self.state.net
        return (
            self.result.reason is not None
            or plan.validation is not None
            or bool(plan.watchers)
            or (net is not None and bool(find_watchers(net, "on_epoch_begin", "on_epoch_end")))
        )

    def _run_watched_epoch(self, start):
        """Train for one epoch, with all who watch; go back where it is not whole."""
        if self._begin_epoch() or self._run_epoch():
            self.result.ending = Ending.STOPPED
            self.go_back()
        elif self.result.ending is Ending.DIVERGED:
            self.go_back()
        else:
            self.row["dur"] = time.perf_counter() - start
            if self._end_epoch():
                self.result.ending = Ending.STOPPED

    @property
    def _datasets(self):
        return {"dataset_train": self.plan.train, "dataset_valid": self.plan.validation}

    def _begin_epoch(self):
        """Open a row of the history and tell all who watch; return whether one of them stops."""
        state, rates, stopped = self.state, self.plan.learning_rates, False
        n_before = len(state.history)
        number = n_before - self.result.first_epoch
        if state.net is None:
            state.history.append({"batches": [], "epoch": n_before + 1})
        else:
            if rates is not None:
                for group in state.net.optimizer_.param_groups:
                    group["lr"] = rates[number]
            stopped = self._notify("on_epoch_begin", **self._datasets)
        self.row = state.last_row
        for watcher in self.plan.watchers:
            watcher.begin_epoch(state)
        if state.net is not None:
            rate = state.net.optimizer_.param_groups[0]["lr"]
        else:
            rate = self.plan.settings.optimizer_arguments["lr"] if rates is None else rates[number]
        self.row["lr"] = float(rate)
        return stopped

    def _end_epoch(self):
        """Tell all who watch; return whether one of them stops the training."""
        stopped = self._notify("on_epoch_end", **self._datasets)
        return any([stopped, *(watcher.end_epoch(self.state) for watcher in self.plan.watchers)])

    def _run_epoch(self):
        """Train and validate; return whether a callback stops it before the epoch's end."""
        net, validation = self.state.net, self.plan.validation
        if net is not None:
            # A callback may have changed anything.
            self._look_for_obstacles()
        by_kernel = self.result.reason is None
        if by_kernel:
            self._train_by_kernel()
        elif self._run_skorch(self.batches, training=True):
            return True
        else:
            self._judge(self.row, all(p.isfinite().all() for p in net.module_.parameters()))
        if validation is None or self.result.ending is Ending.DIVERGED:
            return False
        by_kernel = by_kernel and isinstance(self._validation_batches, TensorBatches)
        if by_kernel and not (net and find_watchers(net, "on_batch_begin", "on_batch_end")):
            self._validate_by_kernel()
        elif self._run_skorch(self._validation_batches, training=False):
            return True
        self._judge(self.row)
        return False

    def _judge(self, row, weights_are_finite=True):
        """End the training where a loss or a weight of an epoch is not finite."""
        faults = [] if weights_are_finite else ["the weights are not finite"]
        faults += [
            f"the {name} is {row[name]}"
            for name in ("train_loss", "valid_loss")
            if not math.isfinite(row.get(name, 0))
        ]
        if faults:
            self.result.ending = Ending.DIVERGED
            self.result.diverged = f"in epoch {row['epoch']}: {faults[-1]}, with lr={row['lr']:g}"

    def _run_skorch(self, batches, training):
        """Train or validate by skorch's loop; return whether a callback stops it."""
        net, is_own = self.state.net, isinstance(batches, TensorBatches)
        if training and is_own and net.drops_units():
            seed = make_epoch_seed(self.plan.settings.seed, len(net.history))
            batches.seeds = make_batch_seeds(seed, len(batches)).tolist()
        # Each weight is used twice a row, and training does so three times.
        n_weights = sum(p.numel() for p in net.module_.parameters())
        n_rows = batches.batch_size if is_own else net.batch_size
        operations = (6 if training else 2) * n_weights * n_rows
        prefix = "train" if training else "valid"
        step = net.train_step if training else net.validation_step
        with limit_threads(operations):
            return self._stops(net.run_single_epoch, batches, training, prefix, step)

    def _run_piece(self, n_left, start):
        """Train for some epochs at once, by the kernel; return how many."""
        history, rates = self.state.history, self.plan.learning_rates
        n_epochs = min(n_left, max(1, int(SECONDS_OF_A_PIECE / self.seconds_of_an_epoch)))
        first = len(history) + 1
        if rates is not None:
            done = len(history) - self.result.first_epoch
            rates = rates[done : done + n_epochs]
        trained, rates = self._run_kernel(n_epochs, rates, first)
        self.seconds_of_an_epoch = (time.perf_counter() - start) / n_epochs
        common = {"train_batch_count": len(self.batches), "dur": self.seconds_of_an_epoch}
        losses = self._average(trained.losses)
        rates = rates[: len(losses)].tolist()
        history.extend(
            {"batches": [], "epoch": epoch, "lr": rate, **common}
            for epoch, rate in enumerate(rates, first)
        )
        record_losses(history, "train_loss", losses, self.lowest)
        if trained.diverged:
            self._judge(history.pop(), weights_are_finite=False)
        return n_epochs

    def _train_by_kernel(self):
        """Train for the epoch that has begun."""
        row, history = self.row, self.state.history
        trained, _ = self._run_kernel(1, [row["lr"]], first=len(history))
        row["train_batch_count"] = len(self.batches)
        record_losses(history, "train_loss", self._average(trained.losses[:1]), self.lowest)
        if self.state.net is not None:
            # Callbacks may look for the rows of batches.
            pairs = zip(trained.losses[0].tolist(), self.batches.sizes, strict=True)
            row["batches"] = [{"train_loss": loss, "train_batch_size": n} for loss, n in pairs]
        self._judge(row, not trained.diverged)

    def _run_kernel(self, n_epochs, rates, first):
        """Train for some epochs by the kernel, `first` the number of the first one.

        Return also their learning rates, which are the present one where `rates` is None.
        """
        state, batches = self.state, self.batches
        settings, rate = read_settings(self.plan, state.net, batches)
        rates = [rate] * n_epochs if rates is None else rates
        arrays = read_arrays(state, settings.name_memory())
        orders = batches.draw_orders(n_epochs).numpy()
        rates = np.array(rates, dtype=np.float64)
        data, seeds = self._kernel_data, None
        if settings.dropout:
            data = data._replace(row_keys=self._row_keys)
            numbers = range(first, first + n_epochs)
            seeds = [make_epoch_seed(self.plan.settings.seed, number) for number in numbers]
            seeds = np.array(seeds, dtype=np.int64)
        trained = _kernel.train(self._network, settings, arrays, data, orders, rates, seeds)
        if trained.diverged:
            # Only the finite epochs have drawn their orders.
            state.generator.set_state(self.noted.generator)
            batches.draw_orders(trained.n_epochs)
        write_arrays(state, arrays)
        return trained, rates

    def _average(self, losses):
        """Average the losses of batches, of each epoch; as a sum whose order is that of one."""
        return (losses * self._shares).sum(axis=1).tolist()

    def _validate_by_kernel(self):
        """Validate on all rows at once."""
        state, data = self.state, self._kernel_validation
        parameters = (
            state.arrays.parameters if state.net is None else flatten(state.copy_weights())
        )
        loss, n_right = _kernel.evaluate(self._network, parameters, data)
        total = len(data.labels) if data.row_weights is None else data.row_weights.sum()
        self.row |= {"valid_batch_count": 1, "valid_score": float(n_right / total)}
        record_losses(state.history, "valid_loss", [loss], self.lowest)

    @property
    def _network(self):
        """The network, for the kernel: a callback may have put another one there."""
        net = self.state.net
        return self.plan.settings.network if net is None else make_network(net.module_)

    @_computed_once
    def _shares(self):
        """Which part of the rows each batch has."""
        return np.array(self.batches.sizes) / self.batches.n_rows

    @_computed_once
    def _kernel_data(self):
        return _as_kernel_data(self.batches)

    @_computed_once
    def _row_keys(self):
        return hash_rows(self._kernel_data.X).numpy()

    @_computed_once
    def _kernel_validation(self):
        return _as_kernel_data(self._validation_batches)

    @_computed_once
    def _validation_batches(self):
        plan, net = self.plan, self.state.net
        if net is not None:
            return net.get_iterator(plan.validation)
        return TensorBatches(plan.validation, len(plan.validation), device=plan.settings.device)


def _as_kernel_data(batches):
    """Give the data of batches, on the CPU, the form that the kernel takes; copy little.

    The keys of the rows, which dropout needs, are not among them.
    """
    X = batches.X
    weights = batches.weights
    return _kernel.Data(
        X.X if isinstance(X, LazyRows) else np.ascontiguousarray(X.numpy(), np.float32),
        batches.y.numpy(),
        None if weights is None else weights.numpy().astype(np.float32),
    )
