"""`DiskNet`, the skorch net that `MLPDiskClassifier` holds.

Any tool of skorch can use and train it. It overrides only what skorch does wrongly for this
network:

- the loss: the module returns log-probabilities, which skorch would take the logarithm of again;
- the batches: slices of tensors in memory instead of a `DataLoader`, with weights of rows;
- the random stream: one generator a net, so that torch's global one is left alone;
- the stop of a callback: the net notes that it was one, and not Ctrl-C.

How the classifier trains it is in `loop.py`.
"""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.history import History
from skorch.utils import data_from_dataset
from torch.func import functional_call
from torch.nn.functional import nll_loss

from .._network.mlp import MLP
from .._network.prediction import count_rows_at_once
from .batches import TensorBatches, WeightedDataset
from .state import State, give_memory, resume_optimizer, without_batches

# The settings of a network that are parameters of `MLP`.
OF_MODULE = ("n_features", "n_classes", "hidden_layer_sizes", "activation", "dropout")


class Settings(NamedTuple):
    """What a network and its training are, all numbers and no data.

    Attributes
    ----------
    n_features, n_classes, hidden_layer_sizes, activation, dropout
        As parameters of `MLP`.
    optimizer, optimizer_arguments : type, dict
        The class of the optimiser, and what it is called with, `lr` included.
    batch_size, shuffle, clip_grad_norm, seed, device, verbose
        As parameters of `DiskNet`.
    max_epochs : int
        Length of a training.
    callbacks : list, default=()
        Callbacks of skorch, as for `DiskNet`.
    """

    n_features: int
    n_classes: int
    hidden_layer_sizes: Any
    activation: str
    dropout: Any
    optimizer: type
    optimizer_arguments: dict
    batch_size: int
    shuffle: bool
    clip_grad_norm: float | None
    seed: int
    device: str
    verbose: int
    max_epochs: int
    callbacks: Any = ()


def make_module(settings, generator):
    """Make the network, with weights drawn from a generator."""
    options = {name: getattr(settings, name) for name in OF_MODULE}
    return MLP(**options, generator=generator).to(settings.device)


def begin(settings):
    """Make the state before a training."""
    generator = torch.Generator().manual_seed(settings.seed)
    return State(make_module(settings, generator), generator, settings.optimizer)


def resume_training(earlier, settings):
    """Make a state that goes on from where another one stands, which stays as it is.

    Parameters
    ----------
    earlier : State
        Of a training that has ended.
    settings : Settings
        Of the training to come.

    Returns
    -------
    state : State
        The same network, random stream and history, and what the optimiser remembers.

    Raises
    ------
    ValueError
        If the settings ask for other layers.
    """
    asked = make_module(settings, torch.Generator())
    before = earlier.module
    if (asked.layer_sizes, asked.activation) != (before.layer_sizes, before.activation):
        raise ValueError(
            "warm_start and partial_fit go on with the network of the earlier fit, which has "
            f"other layers:\n{before}\nthan the parameters ask for now:\n"
            f"{asked}\nFit anew with warm_start=False, or restore the parameters."
        )
    module = copy.deepcopy(before).to(settings.device)
    module.dropout = asked.dropout
    generator = torch.Generator()
    generator.set_state(earlier.generator.get_state())
    history, lowest = History(earlier.history), dict(earlier.lowest)
    state = State(module, generator, settings.optimizer, history, lowest)
    if earlier.net is not None:
        make_net(settings, state, earlier.net)
        resume_optimizer(state.net, earlier)
    elif settings.optimizer is earlier.optimizer:
        state.memory, state.n_steps = earlier.memory, earlier.n_steps
    return state


def make_net(settings, state, earlier=None):
    """Make the skorch net of a state, which it then holds.

    Parameters
    ----------
    settings : Settings
        What the network is and how it is trained.
    state : State
        Module, generator and history; what the optimiser remembers is given to the net's.
    earlier : DiskNet, default=None
        The net of the training that goes on: callbacks that it has are not initialised anew.

    Returns
    -------
    net : DiskNet
        The net, initialised.
    """
    arguments = dict(settings.optimizer_arguments)
    known = _find_initialised(settings.callbacks, earlier)
    net = DiskNet(
        **{f"module__{name}": getattr(settings, name) for name in OF_MODULE},
        classes=np.arange(settings.n_classes),
        optimizer=settings.optimizer,
        lr=arguments.pop("lr"),
        **{f"optimizer__{name}": value for name, value in arguments.items()},
        clip_grad_norm=settings.clip_grad_norm,
        max_epochs=settings.max_epochs,
        batch_size=settings.batch_size,
        shuffle=settings.shuffle,
        callbacks=[item for item in settings.callbacks if id(item) not in known],
        device=settings.device,
        verbose=settings.verbose,
        seed=settings.seed,
    ).initialize()
    net.callbacks = list(settings.callbacks)
    net.callbacks_ = [*known.values(), *net.callbacks_]
    net.adopt(state)
    give_memory(net.optimizer_, list(net.module_.parameters()), state.memory, state.n_steps)
    state.set_net(net)
    return net


def check_monitors(net, has_validation):
    """Refuse callbacks that watch what is not recorded without validation data.

    Parameters
    ----------
    net : DiskNet
        An initialised net.
    has_validation : bool
        Whether there are validation data.

    Raises
    ------
    ValueError
        If a callback monitors a validation loss or score that there will not be.
    """
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


def _find_initialised(callbacks, net):
    """Find the callbacks that a net has initialised: name and object by the id of the item."""
    known = {}
    for item in callbacks if net is not None else ():
        given = item[1] if isinstance(item, tuple) else item
        for name, callback in net.callbacks_:
            if callback is given or type(callback) is given:
                known[id(item)] = name, callback
    return known


class DiskNet(NeuralNetClassifier):
    """The skorch net of `MLP` on data in memory.

    Targets are the ints 0 to n_classes - 1.

    Parameters
    ----------
    module : type, default=MLP
        The class of the network; it takes a `generator`.
    seed : int
        Seed of the generator that draws the initial weights and the order of the rows.
    shuffle : bool, default=True
        Whether each epoch goes through the rows in a new random order.
    clip_grad_norm : float or None, default=None
        The largest norm of the gradient of all parameters.
    iterator_train, iterator_valid : type, default=TensorBatches
        The classes of the batches.
    train_split, predict_nonlinearity, verbose, **kwargs
        As for `skorch.NeuralNetClassifier`; the defaults are to validate on nothing, to turn
        log-probabilities into probabilities, and to print nothing.

    Attributes
    ----------
    stop_requested_ : bool
        Whether a callback has raised KeyboardInterrupt, which is skorch's way to end a training.
    lowest_ : dict of str to float
        The lowest losses so far, by the names of the history.
    """

    def __init__(
        self,
        module=MLP,
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
        self.stop_requested_, self.lowest_ = False, {}
        return self

    def adopt(self, state):
        """Take over module, generator and history, and make a new optimiser of the module.

        Parameters
        ----------
        state : State
            What the net is to share with others.
        """
        self.module_ = state.module
        self.generator_ = state.generator
        self.history_, self.lowest_ = state.history, state.lowest
        self.initialize_optimizer()

    def get_dataset(self, X, y=None):
        """Make the data set; one that has weights is taken as it is."""
        return X if isinstance(X, WeightedDataset) else super().get_dataset(X, y)

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

    def get_loss(self, y_pred, y_true, X=None, training=False, weights=None):
        """Compute the loss of log-probabilities, taken as they are.

        Weights of rows are scaled to a mean of 1 over all rows, not over those of the batch.
        """
        if weights is None:
            return self.criterion_(y_pred, y_true)
        by_class = getattr(self.criterion_, "weight", None)
        losses = nll_loss(y_pred, y_true, weight=by_class, reduction="none")
        total = len(losses) if by_class is None else by_class[y_true].sum()
        return (weights * losses).sum() / total

    def train_step_single(self, batch, **fit_params):
        """Compute loss and gradients of a batch."""
        self._set_training(True)
        X, y = unpack_data(batch)
        if isinstance(self.module_, MLP):
            self.module_.dropout_seed = getattr(batch, "seed", None)
        if getattr(batch, "is_precise", False):
            # The gradients come back through `double` in float32.
            parameters = {name: p.double() for name, p in self.module_.named_parameters()}
            y_pred = functional_call(self.module_, parameters, (X.double(),), fit_params)
        else:
            y_pred = self.infer(X, **fit_params)
        weights = getattr(batch, "weights", None)
        loss = self.get_loss(y_pred, y, X=X, training=True, weights=weights)
        loss.backward()
        return {"loss": loss, "y_pred": y_pred}

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
            right = (y_pred.argmax(dim=1) == unpack_data(batch)[1]).double()
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
        names = ["train_loss"] if training else ["valid_loss", "valid_score"]
        values = {name: [row[name] for row in rows] for name in names}
        record_means(self.history[-1], values, sizes, self.lowest_)

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
        return super().__getstate__() | {"history_": without_batches(self.history)}


def find_watchers(net, *hooks):
    """Find the callbacks of a net that do something at some hooks.

    Parameters
    ----------
    net : DiskNet
        An initialised net.
    *hooks : str
        Names of methods, such as "on_epoch_end".

    Returns
    -------
    watchers : list of skorch.callbacks.Callback
        In the order of the net.
    """
    return [
        callback
        for _, callback in net.callbacks_
        if any(_does_something(callback, hook) for hook in hooks)
    ]


def _does_something(callback, hook):
    # A hook may also be a function that somebody has set on the object.
    method = getattr(callback, hook)
    return getattr(method, "__func__", method) is not getattr(Callback, hook)


def record_means(row, values, sizes, lowest):
    """Record, for an epoch, the means of what its batches gave, and whether they are the lowest.

    Parameters
    ----------
    row : dict
        The epoch's row of the history.
    values : dict of str to sequence of float
        A value for each batch, by the name of the column.
    sizes : sequence of int
        Rows of each batch.
    lowest : dict of str to float
        The lowest losses so far, by the same names; brought up to date.
    """
    for name, of_batches in values.items():
        mean = float(np.dot(of_batches, sizes) / sum(sizes))
        if name.endswith("_loss"):
            record_losses([row], name, [mean], lowest)
        else:
            row[name] = mean


def record_losses(rows, name, losses, lowest):
    """Record the losses of epochs, and whether each is the lowest so far; see `record_means`."""
    before = lowest.get(name, math.inf)
    for row, loss in zip(rows, losses, strict=True):
        row[name], row[f"{name}_best"] = loss, loss < before
        before = min(loss, before)
    lowest[name] = before
