"""`DiskNet`, the skorch net in the engine room of `MLPDiskClassifier`.

It overrides only what skorch does wrongly or slowly for this network:

- the loss: the module returns log-probabilities, which skorch would take the logarithm of again;
- the batches: slices of tensors in memory instead of a `DataLoader`;
- the training of an epoch: by the fused trainer wherever that gives the same result;
- weights of rows, a validation set of its own, a schedule of the learning rate, clipping;
- a loss that is not finite: it ends the training at the last whole epoch;
- the random stream: one generator per net, so that torch's global one is left alone;
- Ctrl-C: it ends the training at the last whole epoch and is raised, not swallowed.
"""

import dis
import math

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer
from skorch.dataset import unpack_data
from skorch.history import History
from skorch.utils import data_from_dataset, is_dataset
from torch.func import functional_call
from torch.nn.functional import nll_loss
from torch.nn.utils import parameters_to_vector

from ._batches import ArrayRows, TensorBatches, WeightedDataset, as_rows
from ._module import MLP
from ._noise import make_epoch_seed
from ._obstacles import find_obstacle, find_passing_obstacle
from ._prediction import FEW_ROWS, count_rows_at_once, iterate_log_proba
from ._schedules import compute_learning_rates
from ._stack import run_alone
from ._state import copy_state, load_state
from ._surroundings import limit_threads

# What lives only during a training.
TRAINING = (
    *("stack_", "parameters_", "last_whole_epoch_", "sample_weight_", "validation_"),
    *("n_right_", "learning_rates_", "lowest_losses_", "precise_", "n_weights_"),
)


class DivergenceError(KeyboardInterrupt):
    """A loss or a weight was not finite; a KeyboardInterrupt, by which skorch ends a training."""


def _average(values, weights):
    """Average the values of batches."""
    pairs = zip(values, weights, strict=True)
    return float(sum(v * w for v, w in pairs) / sum(weights))


class DiskNet(NeuralNetClassifier):
    """The skorch net that trains `MLP` on data in memory.

    Targets are the ints 0 to n_classes - 1.

    Parameters
    ----------
    module : type, default=MLP
        The class of the network; it takes a `generator`.
    seed : int
        Seed of the generator that draws the initial weights and the order of the rows.
    fused : {"auto", True, False}, default="auto"
        Whether to train with the fused trainer: where it can, always (or say why not), never.
    shuffle : bool, default=True
        Whether each epoch goes through the rows in a new random order.
    lr_schedule : {"constant", "cosine", "one_cycle"}, default="constant"
        How the learning rate changes over `max_epochs` epochs.
    clip_grad_norm : float or None, default=None
        The largest norm of the gradient of all parameters.
    iterator_train, iterator_valid : type, default=TensorBatches
        The classes of the batches.
    train_split, predict_nonlinearity, verbose, **kwargs
        As for `skorch.NeuralNetClassifier`; the defaults are to validate on nothing, to turn
        log-probabilities into probabilities, and to print nothing.
    """

    def __init__(
        self,
        module=MLP,
        *,
        seed,
        fused="auto",
        shuffle=True,
        lr_schedule="constant",
        clip_grad_norm=None,
        iterator_train=TensorBatches,
        iterator_valid=TensorBatches,
        train_split=None,
        predict_nonlinearity=torch.exp,
        verbose=0,
        **kwargs,
    ):
        self.seed = seed
        self.fused = fused
        self.shuffle = shuffle
        self.lr_schedule = lr_schedule
        self.clip_grad_norm = clip_grad_norm
        super().__init__(
            module,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            train_split=train_split,
            predict_nonlinearity=predict_nonlinearity,
            verbose=verbose,
            **kwargs,
        )

    @property
    def _default_callbacks(self):
        return [("epoch_timer", EpochTimer())]

    def initialize_module(self):
        """Make the module, with weights drawn from the net's own generator."""
        for name in TRAINING:
            setattr(self, name, None)
        self.generator_ = torch.Generator().manual_seed(self.seed)
        self.module_ = self.module(**self.get_params_for("module"), generator=self.generator_)
        # Where the present training began.
        self.first_epoch_ = 0
        self.diverged_ = None
        # How to run epochs that the fused trainer can take.
        self.run_fused_epochs = run_alone
        return self

    def get_iterator(self, dataset, training=False):
        """Make the batches of a data set, on the net's device.

        Parameters
        ----------
        dataset : skorch.dataset.Dataset
            The data.
        training : bool, default=False
            Whether the batches are to train with (`batch_size` rows, shuffled) or to predict.

        Returns
        -------
        batches : TensorBatches
            An iterable of pairs of tensors.
        """
        if training:
            return self.iterator_train(
                dataset,
                self.batch_size,
                device=self.device,
                shuffle=self.shuffle,
                generator=self.generator_,
            )
        X, _ = data_from_dataset(dataset)
        return self.iterator_valid(dataset, count_rows_at_once(X.shape[1]), device=self.device)

    @property
    def _has_mlp(self):
        return type(self.module_) is MLP

    def _is_precise(self, batches):
        """Tell whether to compute gradients in float64: where few rows are a batch of their own.

        To the last bit, the result then depends neither on the order of the rows nor on whether
        rows are repeated or weighted.
        """
        # MPS knows no float64.
        has_float64 = torch.device(self.device).type != "mps"
        return self._has_mlp and has_float64 and len(batches) == 1 and len(batches.X) <= FEW_ROWS

    def get_split_datasets(self, X, y=None, **fit_params):
        """Make the data sets of the training: weighted, and with the validation set given."""
        if self.sample_weight_ is None and self.validation_ is None:
            return super().get_split_datasets(X, y, **fit_params)
        return WeightedDataset(X, y, self.sample_weight_), self.validation_

    def infer(self, x, **fit_params):
        """Run the module on a batch, which lies on the device already."""
        return self.module_(x, **fit_params)

    def forward_iter(self, X, training=False, device="cpu"):
        """Yield the log-probabilities of a chunk of rows after the other.

        Parameters
        ----------
        X : ndarray or tensor of shape (n_samples, n_features)
            The rows; those of an array may have any dtype of numbers, those of a tensor float32.
        training : bool, default=False
            Whether to run the module in training mode.
        device : str or torch.device, default="cpu"
            Where to put the results.

        Yields
        ------
        log_proba : tensor of shape (n_rows, n_classes), dtype=float64
            Log-probabilities, finite.
        """
        if not self._has_mlp:
            if isinstance(X, np.ndarray):
                X = np.require(X, np.float32, ["C", "W"])
            yield from super().forward_iter(X, training=training, device=device)
            return
        if is_dataset(X):
            X, _ = data_from_dataset(X)
        self._set_training(training)
        rows = ArrayRows(X) if isinstance(X, np.ndarray) else as_rows(X)
        for log_proba in iterate_log_proba(self.module_, rows, self.device):
            yield log_proba.to(device)

    def get_loss(self, y_pred, y_true, X=None, training=False, weights=None):
        """Compute the loss of log-probabilities, taken as they are.

        Weights are scaled to a mean of 1 over all rows, not over those of the batch.
        """
        if weights is None:
            return self.criterion_(y_pred, y_true)
        return (weights * nll_loss(y_pred, y_true, reduction="none")).mean()

    def train_step_single(self, batch, **fit_params):
        """Compute loss and gradients of a batch."""
        self._set_training(True)
        X, y = unpack_data(batch)
        if self._has_mlp:
            self.module_.dropout_seed = getattr(batch, "seed", None)
        if self.precise_:
            # The gradients come back through `double` in float32.
            parameters = {name: p.double() for name, p in self.module_.named_parameters()}
            y_pred = functional_call(self.module_, parameters, (X.double(),))
        else:
            y_pred = self.infer(X, **fit_params)
        weights = getattr(batch, "weights", None)
        loss = self.get_loss(y_pred, y, X=X, training=True, weights=weights)
        loss.backward()
        return {"loss": loss, "y_pred": y_pred}

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Clip the gradient."""
        if self.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters_, self.clip_grad_norm)

    def validation_step(self, batch, **fit_params):
        """Compute loss and score of a validation batch."""
        step = self._evaluate(batch, **fit_params)
        right = step["y_pred"].argmax(dim=1) == unpack_data(batch)[1]
        weights = getattr(batch, "weights", None)
        self.n_right_ += float(right.sum() if weights is None else weights[right].sum())
        return step

    @torch.no_grad()
    def _evaluate(self, batch, **fit_params):
        self._set_training(False)
        X, y = unpack_data(batch)
        y_pred = self.infer(X, **fit_params)
        weights = getattr(batch, "weights", None)
        return {"loss": self.get_loss(y_pred, y, X=X, weights=weights), "y_pred": y_pred}

    def check_data(self, X, y):
        """Accept the data: `MLPDiskClassifier` has checked them and set `classes`."""

    def notify(self, method_name, **cb_kwargs):
        """Call a hook of the net, then of those callbacks that have a use for it.

        skorch calls three hooks a batch on every callback; nearly all of them are empty.
        """
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in self._find_watchers(method_name):
            getattr(callback, method_name)(self, **cb_kwargs)

    def _find_watchers(self, method_name):
        empty = getattr(Callback, method_name)
        return [cb for _, cb in self.callbacks_ if getattr(type(cb), method_name) is not empty]

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Train or validate for an epoch: fused, batch by batch, or watched by a callback.

        Where no callback watches, the rows of all batches are written to the history at once:
        writing them one by one, with two hooks each, costs as much as a fused step.
        """
        if iterator is None:
            return
        if training:
            self._check_fused()
            self.precise_ = self._is_precise(iterator)
            self._set_seed(iterator, len(self.history) - 1)
        else:
            self.n_right_ = 0.0
        losses, sizes = self._run_batches(iterator, training, prefix, step_fn, **fit_params)
        self._record_losses(self.history[-1], prefix, losses, sizes)
        if training:
            self._check_weights()
        else:
            self.history.record("valid_score", self.n_right_ / sum(sizes))

    def _run_batches(self, iterator, training, prefix, step_fn, **fit_params):
        """Go through the batches of an epoch; record and return their losses and sizes."""
        names = f"{prefix}_loss", f"{prefix}_batch_size"
        if training and self.fused_reason_ is None:
            [epoch] = self.run_fused_epochs(self, iterator)
            losses, sizes = epoch.losses, iterator.sizes
        elif self._find_watchers("on_batch_begin") or self._find_watchers("on_batch_end"):
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            rows = [row for row in self.history[-1]["batches"] if names[0] in row]
            return [[row[name] for row in rows] for name in names]
        else:
            losses, sizes = [], []
            # Each weight is used twice a row, and training does so three times.
            n_rows = max(getattr(iterator, "sizes", [self.batch_size]))
            operations = n_rows * self.n_weights_ * (6 if training else 2)
            with limit_threads(operations):
                for batch in iterator:
                    losses.append(step_fn(batch, **fit_params)["loss"].item())
                    sizes.append(len(batch[0]))
        loss_name, size_name = names
        self.history[-1]["batches"].extend(
            {loss_name: loss, size_name: size} for loss, size in zip(losses, sizes, strict=True)
        )
        return losses, sizes

    def _record_losses(self, row, prefix, losses, sizes):
        """Record the mean loss of an epoch's batches, and whether it is the lowest so far."""
        name, loss = f"{prefix}_loss", _average(losses, sizes)
        row[f"{prefix}_batch_count"] = len(losses)
        if not math.isfinite(loss):
            self._stop_as_diverged(f"the {name} is {loss}")
        lowest = self.lowest_losses_.get(name, math.inf)
        row |= {name: loss, f"{name}_best": loss < lowest}
        self.lowest_losses_[name] = min(loss, lowest)

    @torch.no_grad()
    def _check_weights(self):
        # The losses of an epoch say nothing of its last step.
        if not math.isfinite(parameters_to_vector(self.parameters_).sum()):
            self._stop_as_diverged("the weights are not finite")

    def _stop_as_diverged(self, what):
        epoch = self.history[-1]
        self.diverged_ = f"in epoch {epoch['epoch']}: {what}, with lr={epoch['lr']:g}"
        raise DivergenceError

    def _check_fused(self):
        """Find out whether the fused trainer can take the coming epoch.

        Callbacks may freeze layers or change the optimiser between epochs. Once in the way, a
        setting counts for the rest of the training.
        """
        if self.fused_reason_ is None:
            self.fused_reason_ = find_passing_obstacle(self)
        if self.fused is True and self.fused_reason_ is not None:
            raise ValueError(
                f"fused=True is not possible: {self.fused_reason_}. Change that, or use "
                'fused="auto" to train without the fused trainer where it cannot be used.'
            )

    def _set_training(self, training=True):
        # Going through all submodules at every batch costs a tenth of a small training step.
        if self.module_.training is not training:
            super()._set_training(training)

    def partial_fit(
        self, X, y=None, classes=None, *, sample_weight=None, validation=None, **fit_params
    ):
        """Train as skorch does, but raise KeyboardInterrupt once the net is in order again.

        Parameters
        ----------
        X : ndarray, tensor or CSR matrix of shape (n_samples, n_features), dtype=float32
            Training data.
        y : ndarray of shape (n_samples,), dtype=int64
            Targets.
        classes : None
            Not used; skorch has it for compatibility.
        sample_weight : tensor of shape (n_samples,), dtype=float64, default=None
            How much each row counts.
        validation : WeightedDataset, default=None
            What to validate on after each epoch.
        **fit_params
            `epochs`, if other than `max_epochs`.

        Returns
        -------
        self : DiskNet
            The trained net.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the net stands as it did after the last whole epoch.
        """
        if not self.initialized_:
            self.initialize()
        # Going through the module for them takes as long as copying them.
        self.parameters_ = list(self.module_.parameters())
        self.n_weights_ = sum(p.numel() for p in self.parameters_)
        self.sample_weight_, self.validation_ = sample_weight, validation
        self.fused_reason_, self.interrupt_ = find_obstacle(self), None
        self._check_fused()
        self.diverged_ = None
        self.first_epoch_ = len(self.history)
        self.n_epochs_ = fit_params.get("epochs", self.max_epochs)
        self.learning_rates_ = compute_learning_rates(self.lr_schedule, self.lr, self.n_epochs_)
        self.lowest_losses_ = {
            name: min(row[name] for row in self.history if name in row)
            for name in ("train_loss", "valid_loss")
            if any(name in row for row in self.history)
        }
        self._remember_epoch()
        try:
            self.notify("on_train_begin", X=X, y=y)
            self.fit_loop(X, y, **fit_params)
            # From here on there is nothing to go back to.
            self.last_whole_epoch_ = None
            try:
                self.notify("on_train_end", X=X, y=y)
            except KeyboardInterrupt:
                # Again: it may have cut off the loading of the best weights.
                self.notify("on_train_end", X=X, y=y)
                raise
        except Exception as error:
            if self.interrupt_ is None:
                raise
            # A callback's last hook that counts on an epoch where there is none.
            raise self.interrupt_ from error
        except KeyboardInterrupt:
            self.go_back()
            raise
        finally:
            # A kept exception would keep the data of the frames in its traceback.
            interrupt = self.interrupt_
            self.interrupt_ = None
            self.end_training()
        if interrupt is not None:
            raise interrupt
        return self

    def go_back(self):
        """Go back to the last whole epoch, if a training has not ended; may be done twice."""
        if self.last_whole_epoch_ is not None:
            n_epochs, state = self.last_whole_epoch_
            del self.history[n_epochs:]
            load_state(self, state)

    def end_training(self):
        """Forget what lives only during a training; may be done twice."""
        # For those who call the module themselves.
        self._set_training(False)
        # All at once: an interrupt comes before or after it.
        vars(self).update(dict.fromkeys(TRAINING))

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train; on Ctrl-C, divergence or a stop in an epoch, go back to the last whole one."""
        n_epochs = self.max_epochs if epochs is None else epochs
        try:
            n_done = 0 if self._is_watched() else self._run_ahead(X, y, n_epochs)
            if n_done < n_epochs:
                super().fit_loop(X, y, n_epochs - n_done, **fit_params)
        except KeyboardInterrupt as interrupt:
            diverged = isinstance(interrupt, DivergenceError)
            is_stop = diverged or self._is_stop_request(interrupt)
            if not is_stop:
                self.interrupt_ = interrupt
            if (
                diverged
                or not is_stop
                or (self.history and "train_batch_count" not in self.history[-1])
            ):
                self.go_back()
        return self

    def _is_watched(self):
        """Tell whether somebody may look at the net between epochs, or change it."""
        watchers = (self._find_watchers(f"on_epoch_{end}") for end in ("begin", "end"))
        return (
            # Ctrl-C may end a training by itself, and must find it at the end of an epoch.
            self.run_fused_epochs is run_alone
            or self.fused_reason_ is not None
            or self.validation_ is not None
            or self.train_split is not None
            or any([*map(type, found)] != [EpochTimer] for found in watchers)
        )

    def _run_ahead(self, X, y, n_epochs):
        """Train for many epochs at once, without batches in the history; return how many."""
        dataset, _ = self.get_split_datasets(X, y)
        batches = self.get_iterator(dataset, training=True)
        self.precise_ = self._is_precise(batches)
        epochs = self.run_fused_epochs(self, batches, n_epochs)
        for losses, sizes, lr, seconds in epochs:
            # As skorch records it, in a tenth of the time.
            row = {"batches": [], "epoch": len(self.history) + 1, "lr": lr}
            self.history.append(row)
            self._record_losses(row, "train", losses, sizes)
            row["dur"] = seconds
        return len(epochs)

    def set_epoch(self, batches, number):
        """Set what differs from epoch to epoch: learning rate and dropout.

        Parameters
        ----------
        batches : TensorBatches
            The training data.
        number : int
            How many epochs have been trained before.
        """
        self._set_lr(number)
        self._set_seed(batches, number)

    def _set_seed(self, batches, number):
        if self._has_mlp and any(self.module_.dropout):
            # The generator would make it depend on the number of rows.
            batches.seed = make_epoch_seed(self.seed, number + 1)

    def _set_lr(self, number):
        if self.lr_schedule != "constant":
            lr = self.learning_rates_[number - self.first_epoch_]
            for group in self.optimizer_.param_groups:
                group["lr"] = lr

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Remember where the last whole epoch ended, then open a new row of the history."""
        self._remember_epoch()
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)
        self._set_lr(len(self.history) - 1)
        self.history.record("lr", float(self.optimizer_.param_groups[0]["lr"]))

    def _remember_epoch(self):
        self.last_whole_epoch_ = len(self.history), copy_state(self)

    def __getstate__(self):
        """Leave out what lives only during a training, and the history's batches.

        Callbacks may pickle the net during a training.
        """
        forgotten = {"history_": self._copy_history()}
        return super().__getstate__() | dict.fromkeys(TRAINING) | forgotten

    def _copy_history(self):
        return History({**row, "batches": []} for row in self.history)

    def forget_batches(self):
        """Leave the history's batches out from now on: there is one for every training step."""
        self.history_ = self._copy_history()

    def _is_stop_request(self, interrupt):
        """Tell a callback's `raise KeyboardInterrupt` from Ctrl-C.

        It is skorch's convention for ending the training early (`EarlyStopping` does so). Ctrl-C
        raises the same exception between two instructions of whatever code is running, so only
        at the former does the traceback end on a raise statement of a callback's method.
        """
        traceback = interrupt.__traceback__
        while traceback.tb_next is not None:
            traceback = traceback.tb_next
        instruction = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
        raiser = traceback.tb_frame.f_locals.get("self")
        return dis.opname[instruction] == "RAISE_VARARGS" and any(
            raiser is callback for _, callback in self.callbacks_
        )
