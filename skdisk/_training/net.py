"""`DiskNet`, the skorch net that `MLPDiskClassifier` holds.

Any tool of skorch can use and train it. It overrides only what skorch does wrongly for this
network:

- the loss: the module returns log-probabilities, which skorch would take the logarithm of again;
- several labels a row (`output="sigmoid"` of the module): skorch would predict one of them;
- the batches: slices of tensors in memory instead of a `DataLoader`, with weights of rows;
- the random stream: one generator a net, so that torch's global one is left alone;
- the stop of a callback: the net notes that it was one, and not Ctrl-C.

How the classifier trains it is in `loop.py`.
"""

import math
from itertools import islice

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.history import History
from skorch.utils import data_from_dataset
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss

from .._network.surroundings import count_rows_at_once
from .batches import TensorBatches, WeightedDataset

# The parameters of `MLP` that are settings of a network.
OF_MODULE = ("n_features", "n_classes", "hidden_layer_sizes", "activation", "dropout", "output")


class MultilabelLoss(torch.nn.BCEWithLogitsLoss):
    """torch's binary cross-entropy of scores, summed up over the labels of a row.

    The reduction is over the rows.
    """

    def forward(self, input, target):
        """Compute the loss; targets are numbers or bools of the shape of the scores."""
        losses = _sum_label_losses(self, input, target)
        return losses if self.reduction == "none" else getattr(losses, self.reduction)()


def _sum_label_losses(criterion, y_pred, y_true):
    weights = {name: getattr(criterion, name, None) for name in ("weight", "pos_weight")}
    y_true = y_true.to(y_pred.dtype)
    losses = binary_cross_entropy_with_logits(y_pred, y_true, reduction="none", **weights)
    return losses.sum(dim=-1)


# What a net has for each kind of outputs: its loss, and what makes probabilities of the outputs.
OF_OUTPUT = {
    "softmax": {"criterion": torch.nn.NLLLoss, "predict_nonlinearity": torch.exp},
    "sigmoid": {"criterion": MultilabelLoss, "predict_nonlinearity": torch.sigmoid},
}


class _LossNotFinite(ArithmeticError):
    """Ends a step of L-BFGS at a trial whose loss is not finite; torch's `step` has no other exit.

    Its line search compares and interpolates losses, and fails whatever stands in the place of
    NaN or infinity: by what the other losses are it tries weights that are NaN, halves an interval
    until its length is 0, by which it divides, or looks up the second end of one that has one.
    """

    def __init__(self, step):
        super().__init__("The loss is not finite.")
        self.step = step


class DiskNet(NeuralNetClassifier):
    """The skorch net of `MLP` on data in memory.

    Targets are the ints 0 to n_classes - 1; with `module__output="sigmoid"` and its criterion,
    rows of 0 and 1, one for each label.

    Parameters
    ----------
    module : type
        The class of the network, an `MLP`; it takes a `generator`.
    seed : int
        Seed of the generator that draws the initial weights and the order of the rows.
    shuffle : bool, default=True
        Whether each epoch goes through the rows in a new random order.
    clip_grad_norm : float or None, default=None
        The largest norm of the gradient of all parameters.
    **kwargs
        As for `skorch.NeuralNetClassifier`; the defaults are to validate on nothing, to turn
        log-probabilities into probabilities, and to print nothing.

    Attributes
    ----------
    lowest_ : dict
        The last row of the history and the lowest loss so far, by the name of the loss.
    stop_requested_ : bool
        Whether a callback has raised KeyboardInterrupt, which is skorch's way to end a training.
    """

    def __init__(
        self,
        module,
        *,
        seed,
        shuffle=True,
        clip_grad_norm=None,
        iterator_train=TensorBatches,
        iterator_valid=TensorBatches,
        train_split=None,
        predict_nonlinearity=torch.exp,
        verbose=0,
        **kwargs,
    ):
        self.seed = seed
        self.shuffle = shuffle
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
        return []

    def initialize_module(self):
        """Make the module, with weights drawn from the net's own generator."""
        self.generator_ = torch.Generator().manual_seed(self.seed)
        self.module_ = self.module(**self.get_params_for("module"), generator=self.generator_)
        self.stop_requested_ = False
        self.lowest_ = {}
        return self

    def get_dataset(self, X, y=None):
        """Make the data set; one that has weights is taken as it is."""
        return X if isinstance(X, WeightedDataset) else super().get_dataset(X, y)

    def drops_units(self):
        """Tell whether the module is an `MLP` with dropout; another one has its own way."""
        return hasattr(self.module_, "dropout_seed") and any(self.module_.dropout)

    def get_iterator(self, dataset, training=False):
        """Make the batches to train with, or to predict, of a data set, on the net's device."""
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

    def infer(self, x, **fit_params):
        """Compute the outputs of a batch."""
        # Within torch.autocast torch keeps copies of weights until its end, and would train on
        # with those of the first step.
        torch.clear_autocast_cache()
        return super().infer(x, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False, weights=None):
        """Compute the loss of log-probabilities or scores, taken as they are.

        Weights of rows are scaled to a mean of 1 over all rows, not over those of the batch.
        """
        if weights is None:
            return self.criterion_(y_pred, y_true)
        if y_true.ndim == 2:
            return (weights * _sum_label_losses(self.criterion_, y_pred, y_true)).mean()
        by_class = getattr(self.criterion_, "weight", None)
        losses = nll_loss(y_pred, y_true, weight=by_class, reduction="none")
        total = len(losses) if by_class is None else by_class[y_true].sum()
        return (weights * losses).sum() / total

    def predict(self, X):
        """Predict the class of each row, or, of several labels a row, 0 or 1 for each."""
        proba = self.predict_proba(X)
        is_multilabel = self.get_params_for("module").get("output") == "sigmoid"
        return (proba > 0.5).astype(int) if is_multilabel else proba.argmax(axis=1)

    def train_step(self, batch, **fit_params):
        """Take a step of the optimiser; L-BFGS ends its own where a loss is not finite."""
        try:
            return super().train_step(batch, **fit_params)
        except _LossNotFinite as error:
            return error.step

    def train_step_single(self, batch, **fit_params):
        """Compute loss and gradients of a batch."""
        self._set_training(True)
        X, y = unpack_data(batch)
        if self.drops_units():
            seed = getattr(batch, "seed", None)
            if seed is None:
                # In skorch's own loop, and with batches that are not ours.
                seed = int(torch.randint(2**62, (), generator=self.generator_))
            self.module_.dropout_seed = seed
        if getattr(batch, "is_precise", False):
            y_pred = _compute_in_float64(self.module_, X, fit_params)
        else:
            y_pred = self.infer(X, **fit_params)
        weights = getattr(batch, "weights", None)
        loss = self.get_loss(y_pred, y, X=X, training=True, weights=weights)
        loss.backward()
        step = {"loss": loss, "y_pred": y_pred}
        if isinstance(self.optimizer_, torch.optim.LBFGS) and not loss.isfinite():
            raise _LossNotFinite(step)
        return step

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Clip the gradient."""
        if self.clip_grad_norm is not None:
            parameters = [p for _, p in named_parameters]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_grad_norm)

    @torch.no_grad()
    def validation_step(self, batch, **fit_params):
        """Compute the loss of a validation batch, weighted if it has weights."""
        self._set_training(False)
        X, y = unpack_data(batch)
        y_pred = self.infer(X, **fit_params)
        weights = getattr(batch, "weights", None)
        return {"loss": self.get_loss(y_pred, y, X=X, weights=weights), "y_pred": y_pred}

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Record the accuracy on a validation batch."""
        if not training:
            y = unpack_data(batch)[1]
            right = y_pred.argmax(dim=1) == y if y.ndim == 1 else ((y_pred > 0) == y).all(dim=1)
            right = right.double()
            weights = getattr(batch, "weights", None)
            score = (right if weights is None else weights * right).mean()
            self.history.record_batch("valid_score", score.item())

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Train or validate for an epoch, and record the means over its batches."""
        if iterator is None:
            return
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        rows = [row for row in self.history[-1]["batches"] if f"{prefix}_loss" in row]
        sizes = [row[f"{prefix}_batch_size"] for row in rows]

        def average(name):
            return float(np.dot([row[name] for row in rows], sizes) / sum(sizes))

        loss = average(f"{prefix}_loss")
        record_losses(self.history, f"{prefix}_loss", [loss], self.lowest_)
        if not training:
            self.history[-1]["valid_score"] = average("valid_score")

    def check_data(self, X, y):
        """Accept the data: `MLPDiskClassifier` has checked them and set `classes`."""

    def notify(self, method_name, **cb_kwargs):
        """Call a hook of the net, then of those callbacks that have a use for it.

        skorch calls three hooks a batch on every callback; nearly all of them are empty.
        """
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in find_watchers(self, method_name):
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except KeyboardInterrupt:
                self.stop_requested_ = True
                raise

    def _set_training(self, training=True):
        # Going through all submodules at every batch costs a tenth of a small training step.
        if self.module_.training is not training:
            super()._set_training(training)

    def __getstate__(self):
        """Leave out the history's rows of batches: there is one for every training step."""
        return super().__getstate__() | {"history_": without_batches(self.history), "lowest_": {}}


def _compute_in_float64(module, X, fit_params):
    """Compute outputs in float64; the gradients come back through `double` in float32."""
    own = dict(module.named_parameters(remove_duplicate=False))
    try:
        parameters = {name: p.double() for name, p in module.named_parameters()}
        return functional_call(module, parameters, (X.double(),), fit_params)
    except BaseException:
        # An interrupt may have come while torch changed the parameters, or before it noted them.
        for name, parameter in own.items():
            path, _, last = name.rpartition(".")
            setattr(module.get_submodule(path), last, parameter)
        raise


def find_watchers(net, *hooks):
    """Find the callbacks of a net that do something at one of some hooks, in order."""
    return [
        callback
        for _, callback in net.callbacks_
        if any(_does_something(callback, hook) for hook in hooks)
    ]


def _does_something(callback, hook):
    # A hook may also be a function that somebody has set on the object.
    method = getattr(callback, hook)
    return getattr(method, "__func__", method) is not getattr(Callback, hook)


def check_monitors(net, has_validation):
    """Refuse callbacks that watch what is not recorded without validation data."""
    for name, callback in net.callbacks_:
        monitor = getattr(callback, "monitor", None)
        is_missing = isinstance(monitor, str) and monitor.startswith(("valid_loss", "valid_score"))
        if is_missing and not has_validation:
            instead = monitor.replace("score", "loss").replace("valid", "train")
            raise ValueError(
                f"The callback {name!r} monitors {monitor!r}, for which there are no validation "
                "data. Pass X_val and y_val to fit, use early_stopping=True, or give the callback "
                f"monitor={instead!r}."
            )


def without_batches(history):
    """Copy a history without its rows of batches: there is one for every training step."""
    return History({**row, "batches": []} for row in history)


def record_losses(history, name, losses, known):
    """Record the losses of the last epochs, and whether each is the lowest so far.

    `known` is a dict that the caller keeps from epoch to epoch: the last row that was recorded,
    and the lowest loss there. Without it each epoch would look through all since the best one.
    """
    best, backwards = f"{name}_best", reversed(history)
    rows = [*islice(backwards, len(losses))]
    last, lowest = known.get(name, (None, math.inf))
    # Whoever has changed the history has left out that row, or rows follow it.
    for row in backwards:
        if row is last:
            break
        if row.get(best):
            lowest = row[name]
            break
    else:
        lowest = math.inf
    for row, loss in zip(reversed(rows), losses, strict=True):
        row[name], row[best] = loss, loss < lowest
        # NaN is not below anything, and no lowest loss.
        lowest = min(lowest, loss)
        known[name] = row, lowest
