"""The training loop: a plan and a state in, a result out.

A plan is what stays as it is, a state what changes. Each epoch is trained by the compiled kernel
or, where something stands in its way, by skorch's loop with autograd. Where nobody looks between
epochs the kernel runs many of them at once. A training ends when its epochs are over, when a
callback or watcher stops it, when it diverges, or on Ctrl-C: the result says which. In each case
the state is that of the last whole epoch.
"""

import math
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import _kernel
from .._network.noise import make_epoch_seed
from .._network.prediction import flatten, make_network
from .._network.surroundings import limit_threads
from .batches import TensorBatches, WeightedDataset, as_kernel_data
from .eligibility import find_obstacle, read_settings
from .net import Settings, check_monitors, find_watchers, make_net, record_losses
from .state import note, read_arrays, set_back, write_arrays

# The kernel runs so long at a time: Ctrl-C and other threads wait for it no longer.
SECONDS_OF_A_PIECE = 0.05


class Plan(NamedTuple):
    """What stays as it is during a training.

    Attributes
    ----------
    settings : Settings
        What the network is and how it is trained.
    train, validation : WeightedDataset, WeightedDataset or None
        The data.
    n_epochs : int
        How many to train.
    learning_rates : sequence of float, or None
        One for each epoch; None leaves the learning rate to the optimiser and the callbacks.
    fused : {"auto", True, False}
        Whether to train with the kernel: where it can, always (or say why not), never.
    watchers : sequence of BestEpoch or FitTasks
        Who looks at each epoch.
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
    INTERRUPTED = "Ctrl-C was pressed"


@dataclass
class Result:
    """What came of a training, besides the state.

    Attributes
    ----------
    first_epoch : int
        How many epochs had been trained before.
    ending : Ending
        How it ended.
    reason : str or None
        Why the kernel did not train all of it, in words.
    diverged : str or None
        In words, where and with what.
    """

    first_epoch: int
    ending: Ending = Ending.COMPLETE
    reason: str | None = None
    diverged: str | None = None


def train(plan, state):
    """Train a network.

    Parameters
    ----------
    plan : Plan
        What stays as it is.
    state : State
        What changes: at the end it is that of the last whole epoch.

    Returns
    -------
    result : Result
        How it ended.

    Raises
    ------
    ValueError
        If `fused=True` is not possible. Nothing has been trained then, or whole epochs.
    """
    ctrl_c = _CtrlC()
    training = _Training(plan, state, ctrl_c)
    # Twice: an interrupt can come while the state is set back for another reason.
    try:
        try:
            ctrl_c.listen()
            training.run()
        except KeyboardInterrupt:
            training.go_back()
            training.result.ending = Ending.INTERRUPTED
            # A callback's last hook may count on an epoch where there is none.
            with suppress(Exception):
                training.tell_the_end()
            training.end_watching()
        finally:
            ctrl_c.stop_listening()
            # For those who call the module themselves.
            state.module.eval()
    finally:
        ctrl_c.stop_listening()
    return training.result


class _CtrlC:
    """Whether Ctrl-C was pressed: it raises what callbacks raise to stop a training."""

    def __init__(self):
        self.was_pressed = self.is_listening = False

    def listen(self):
        """Note from now on that Ctrl-C was pressed, before it is raised."""
        # Signals come to the main thread only; a handler of the user's own has its own meaning.
        self.is_listening = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.is_listening:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number, frame):
        self.was_pressed = True
        signal.default_int_handler(number, frame)

    def stop_listening(self):
        """Put the handler back; may be done twice."""
        if self.is_listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Training:
    """A training that is going on."""

    def __init__(self, plan, state, ctrl_c):
        self.plan, self.state, self.ctrl_c = plan, state, ctrl_c
        self.result = Result(first_epoch=len(state.history))
        if plan.settings.callbacks and state.net is None:
            make_net(plan.settings, state)
        self.noted = note(state)
        self.batches = self._make_batches()
        self.seconds_of_an_epoch = math.inf

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
        # A callback may have changed anything, the size of the batches too.
        self.batches = self._make_batches()
        self._look_for_obstacles()
        n_left = self.plan.n_epochs
        while n_left and self.result.ending is Ending.COMPLETE:
            if self._is_watched():
                self._run_watched_epoch()
                n_left -= 1
            else:
                n_left -= self._run_piece(n_left)
        self.noted = note(self.state)
        self.tell_the_end()
        self.end_watching()

    def tell_the_end(self):
        """Tell skorch's callbacks that the training has ended."""
        self._notify("on_train_end", X=self.plan.train.X, y=self.plan.train.y)

    def end_watching(self):
        """Let the watchers put the state in order; may be done twice."""
        for watcher in self.plan.watchers:
            watcher.end_training(self.state)

    def go_back(self):
        """Set the state back to the end of the last whole epoch; may be done twice."""
        set_back(self.state, self.noted)

    def _look_for_obstacles(self):
        """Find out whether the kernel can take the coming epoch.

        Once in the way, a setting counts for the rest of the training.
        """
        if self.result.reason is None:
            self.result.reason = find_obstacle(self.plan, self.state, self.batches)
        if self.result.reason is None:
            return
        if self.plan.fused is True:
            raise ValueError(
                f"fused=True is not possible: {self.result.reason}. Change that, or use "
                'fused="auto" to train without the kernel where it cannot be used.'
            )
        if self.state.net is None:
            make_net(self.plan.settings, self.state)
            self.noted = note(self.state)

    def _notify(self, hook, **kwargs):
        """Call a hook of skorch's callbacks; return whether one of them stops the training."""
        net = self.state.net
        if net is None:
            return False
        try:
            net.notify(hook, **kwargs)
        except KeyboardInterrupt:
            if not self._was_stop():
                raise
            return True
        return False

    def _was_stop(self):
        """Tell a callback's stop from Ctrl-C."""
        net = self.state.net
        was_stop = net is not None and net.stop_requested_ and not self.ctrl_c.was_pressed
        if was_stop:
            net.stop_requested_ = False
        return was_stop

    def _is_watched(self):
        """Tell whether somebody may look at the training between epochs, or change it."""
        plan, net = self.plan, self.state.net
        return (
            self.result.reason is not None
            or plan.validation is not None
            or bool(plan.watchers)
            or (net is not None and bool(find_watchers(net, "on_epoch_begin", "on_epoch_end")))
        )

    def _run_watched_epoch(self):
        """Train for one epoch, with all who watch; go back where it is not whole."""
        self.noted, start = note(self.state), time.perf_counter()
        if self._begin_epoch() or self._run_epoch():
            self.result.ending = Ending.STOPPED
            self.go_back()
        elif self.result.ending is Ending.DIVERGED:
            self.go_back()
        else:
            self.state.history[-1]["dur"] = time.perf_counter() - start
            if self._end_epoch():
                self.result.ending = Ending.STOPPED

    def _begin_epoch(self):
        """Open a row of the history and tell all who watch; return whether one of them stops."""
        state, rates = self.state, self.plan.learning_rates
        number = len(state.history) - self.result.first_epoch
        if state.net is None:
            state.history.append({"batches": [], "epoch": len(state.history) + 1})
        elif rates is not None:
            for group in state.net.optimizer_.param_groups:
                group["lr"] = rates[number]
        datasets = {"dataset_train": self.plan.train, "dataset_valid": self.plan.validation}
        stopped = self._notify("on_epoch_begin", **datasets)
        for watcher in self.plan.watchers:
            watcher.begin_epoch(state)
        if state.net is not None:
            rate = state.net.optimizer_.param_groups[0]["lr"]
        else:
            rate = self.plan.settings.optimizer_arguments["lr"] if rates is None else rates[number]
        state.history[-1]["lr"] = float(rate)
        return stopped

    def _end_epoch(self):
        """Tell all who watch; return whether one of them stops the training."""
        datasets = {"dataset_train": self.plan.train, "dataset_valid": self.plan.validation}
        stopped = self._notify("on_epoch_end", **datasets)
        return any([stopped, *(watcher.end_epoch(self.state) for watcher in self.plan.watchers)])

    def _run_epoch(self):
        """Train and validate; return whether a callback stops it before the epoch's end."""
        if self.state.net is not None:
            # A callback may have changed anything.
            self._look_for_obstacles()
        row = self.state.history[-1]
        if self.result.reason is None:
            trained = self._run_kernel([row["lr"]], first=len(self.state.history))
            row["train_batch_count"] = len(self.batches)
            record_losses([row], "train_loss", self._average(trained.losses), self.state.lowest)
            # Callbacks may look for the rows of batches.
            rows = zip(trained.losses[0].tolist(), self.batches.sizes, strict=True)
            row["batches"] = [{"train_loss": loss, "train_batch_size": n} for loss, n in rows]
            self._judge(row, not trained.diverged)
        elif self._run_skorch(self.batches, training=True):
            return True
        else:
            self._judge(row, _are_finite(self.state.module))
        if self.plan.validation is None or self.result.ending is Ending.DIVERGED:
            return False
        if self.result.reason is None and not self._is_validation_watched():
            self._validate_by_kernel(row)
        elif self._run_skorch(self._validation_batches, training=False):
            return True
        self._judge(row)
        return False

    def _is_validation_watched(self):
        net = self.state.net
        return net is not None and find_watchers(net, "on_batch_begin", "on_batch_end")

    def _judge(self, row, weights_are_finite=True):
        """End the training where a loss or a weight of an epoch is not finite."""
        if not weights_are_finite:
            what = "the weights are not finite"
        names = [name for name in ("train_loss", "valid_loss") if name in row]
        for name in names:
            if not math.isfinite(row[name]):
                weights_are_finite, what = False, f"the {name} is {row[name]}"
        if not weights_are_finite:
            self.result.ending = Ending.DIVERGED
            self.result.diverged = f"in epoch {row['epoch']}: {what}, with lr={row['lr']:g}"

    def _average(self, losses):
        """Average the losses of batches, of each epoch that the kernel has trained."""
        sizes = np.array(self.batches.sizes, dtype=np.float64)
        return (losses @ sizes / sizes.sum()).tolist()

    def _run_skorch(self, batches, training):
        """Train or validate by skorch's loop; return whether a callback stops it."""
        net = self.state.net
        if training and any(getattr(net.module_, "dropout", ())):
            batches.seed = make_epoch_seed(self.plan.settings.seed, len(net.history))
        # Each weight is used twice a row, and training does so three times.
        n_weights = sum(p.numel() for p in net.module_.parameters())
        operations = (6 if training else 2) * n_weights * max(batches.sizes)
        try:
            with limit_threads(operations):
                net.run_single_epoch(
                    batches,
                    training=training,
                    prefix="train" if training else "valid",
                    step_fn=net.train_step if training else net.validation_step,
                )
        except KeyboardInterrupt:
            if not self._was_stop():
                raise
            return True
        return False

    def _run_piece(self, n_left):
        """Train for some epochs at once, by the kernel; return how many."""
        state, rates = self.state, self.plan.learning_rates
        self.noted, start = note(state), time.perf_counter()
        n_epochs = min(n_left, max(1, int(SECONDS_OF_A_PIECE / self.seconds_of_an_epoch)))
        first, done = len(state.history) + 1, len(state.history) - self.result.first_epoch
        if rates is None:
            rates = [read_settings(self.plan, state, self.batches)[1]] * n_epochs
        else:
            rates = rates[done : done + n_epochs]
        trained = self._run_kernel(rates, first)
        self.seconds_of_an_epoch = (time.perf_counter() - start) / n_epochs
        common = {"train_batch_count": len(self.batches), "dur": self.seconds_of_an_epoch}
        rows = [
            {"batches": [], "epoch": first + i, "lr": float(rates[i]), **common}
            for i in range(len(trained.losses))
        ]
        record_losses(rows, "train_loss", self._average(trained.losses), state.lowest)
        state.history.extend(rows[: trained.n_epochs])
        if trained.diverged:
            self._judge(rows[-1], weights_are_finite=False)
        return n_epochs

    def _run_kernel(self, rates, first):
        """Train for some epochs by the kernel, `first` the number of the first one."""
        state, batches = self.state, self.batches
        settings, _ = read_settings(self.plan, state, batches)
        arrays = read_arrays(state, settings.name_memory())
        before = state.generator.get_state()
        data, seeds = self._kernel_data, None
        if settings.dropout:
            data = data._replace(row_keys=batches.row_keys.numpy())
            numbers = range(first, first + len(rates))
            seeds = [make_epoch_seed(self.plan.settings.seed, number) for number in numbers]
        trained = _kernel.train(
            make_network(state.module),
            settings,
            arrays,
            data,
            batches.draw_orders(len(rates)).numpy(),
            np.array(rates, dtype=np.float64),
            None if seeds is None else np.array(seeds, dtype=np.int64),
        )
        if trained.diverged:
            # Only the finite epochs have drawn their orders.
            state.generator.set_state(before)
            batches.draw_orders(trained.n_epochs)
        write_arrays(state, arrays)
        return trained

    @cached_property
    def _kernel_data(self):
        return as_kernel_data(self.batches)

    @cached_property
    def _validation_batches(self):
        plan = self.plan
        if self.state.net is not None:
            return self.state.net.get_iterator(plan.validation)
        return TensorBatches(plan.validation, len(plan.validation), device=plan.settings.device)

    def _validate_by_kernel(self, row):
        data = self._kernel_validation
        parameters = flatten(self.state.get_parameters())
        loss, n_right = _kernel.evaluate(make_network(self.state.module), parameters, data)
        total = len(data.labels) if data.row_weights is None else data.row_weights.sum()
        row |= {"valid_batch_count": 1, "valid_score": float(n_right / total)}
        record_losses([row], "valid_loss", [loss], self.state.lowest)

    @cached_property
    def _kernel_validation(self):
        return as_kernel_data(self._validation_batches)


def _are_finite(module):
    return all(bool(p.isfinite().all()) for p in module.parameters())
