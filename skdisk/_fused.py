"""The way between skorch nets and the fused trainer: weights, state and settings of an epoch.

Weights and the optimisers' state go in and out whenever somebody may look at a net: then all is
where skorch, callbacks and torch look for it. Where nobody does, many epochs run in between.
"""

import math
import time
from typing import NamedTuple

import torch
from scipy import sparse

from ._batches import CsrRows
from ._engine import FusedTrainer
from ._obstacles import FUSED_OPTIMIZERS

# What torch's optimisers keep in their parameter groups, as far as they have it.
GROUP_NAMES = ("lr", "momentum", "nesterov", "weight_decay", "betas", "eps")


class Epoch(NamedTuple):
    """What came of an epoch of a net.

    Attributes
    ----------
    losses, sizes : list of float
        The mean loss and the number of rows of each batch.
    lr : float
        The learning rate.
    seconds : float
        How long it took, with all other nets of the stack.
    """

    losses: list
    sizes: list
    lr: float
    seconds: float


class Stack:
    """Nets that are trained as one, epoch by epoch; a single net is a stack of one.

    Parameters
    ----------
    nets : list of DiskNet
        Nets in training. They have depth, batch size, activation, device and kind of optimiser in
        common; the stack is as wide as the widest of them in each layer.
    batches : list of TensorBatches
        The data of each. Where several have the same, they are there once.
    """

    def __init__(self, nets, batches):
        self.nets = nets
        self.batches = batches
        sizes = [net.module_.layer_sizes for net in nets]
        self.trainer = FusedTrainer(
            map(max, zip(*sizes, strict=True)),
            nets[0].module_.activation,
            nets[0].batch_size,
            n_networks=len(nets),
            widths=[own[1:-1] for own in sizes],
            optimizer=FUSED_OPTIMIZERS[type(nets[0].optimizer_)],
            precise=nets[0].precise_,
            device=nets[0].device,
        )
        self.has_schedule = any(net.lr_schedule != "constant" for net in nets)
        self._join_data()
        for net in nets:
            # Without gradients it only tells torch's schedulers that the optimiser is in use.
            net.optimizer_.zero_grad()
            net.optimizer_.step()

    def _join_data(self):
        parts = list({b.source: b for b in self.batches}.values())
        X, firsts, n_rows = parts[0].X, {}, 0
        for b in parts:
            firsts[b.source] = n_rows
            n_rows += len(b.X)
        self.firsts = [firsts[b.source] for b in self.batches]
        if len(parts) == 1:
            self.y = parts[0].y
        else:
            self.y = torch.cat([b.y for b in parts])
            if isinstance(X, CsrRows):
                X = CsrRows(sparse.vstack([b.X.X for b in parts], format="csr"), X.device)
            else:
                X = torch.cat([b.X for b in parts])
        self.X = X.gather if isinstance(X, CsrRows) else X

    def load(self):
        """Take settings, weights and the optimisers' state over from the nets."""
        self._set_hyperparameters()
        self.buffers = [_load(self.trainer, net, k) for k, net in enumerate(self.nets)]

    def store(self):
        """Give them back."""
        for k, (net, tensors) in enumerate(zip(self.nets, self.buffers, strict=True)):
            _store(self.trainer, net, k, tensors)

    def copy_state(self):
        """Copy all that an epoch changes."""
        generators = [b.generator.get_state() for b in self.batches]
        return self.trainer.copy_state(), generators

    def set_state(self, state):
        """Go back to what `copy_state` has copied."""
        of_trainer, generators = state
        self.trainer.set_state(of_trainer)
        for b, generator in zip(self.batches, generators, strict=True):
            b.generator.set_state(generator)

    def run_epoch(self):
        """Train for an epoch, between `load` and `store`.

        Returns
        -------
        epochs : list of Epoch
            One for each net.
        is_finite : list of bool
            For each net, whether losses and weights are finite.
        """
        trainer, start = self.trainer, time.perf_counter()
        if self.has_schedule:
            self._set_hyperparameters()
        orders = [b.draw_order() for b in self.batches]
        losses = trainer.run_epoch(
            self.X,
            self.y,
            [order + first for order, first in zip(orders, self.firsts, strict=True)],
            [b.weights if b.weights is None else b.weights[o] for b, o in self._pair(orders)],
            row_keys=self._take_keys(orders) if any(trainer.kind.dropout) else None,
            seeds=[b.seed or 0 for b in self.batches],
        )
        is_finite = torch.isfinite(losses.sum(dim=0) + trainer.sum_weights()).tolist()
        losses = losses.T.tolist()
        seconds = time.perf_counter() - start
        return [
            Epoch(own[: len(b)], b.sizes, float(settings["lr"]), seconds)
            for own, b, settings in zip(losses, self.batches, trainer.networks, strict=True)
        ], is_finite

    def _set_hyperparameters(self):
        self.trainer.set_hyperparameters([_read_settings(net) for net in self.nets])

    def _pair(self, orders):
        return zip(self.batches, orders, strict=True)

    def _take_keys(self, orders):
        # A network without dropout drops nothing, whatever its keys.
        return [
            torch.zeros_like(order) if b.seed is None else b.row_keys[order]
            for b, order in self._pair(orders)
        ]


def _read_settings(net):
    [group] = net.optimizer_.param_groups
    return {name: group[name] for name in GROUP_NAMES if name in group} | {
        "max_norm": math.inf if net.clip_grad_norm is None else net.clip_grad_norm,
        "dropout": net.module_.dropout,
    }


def _load(trainer, net, k):
    """Load a network; return what its optimiser remembers, zeros where it has not begun."""
    trainer.load(trainer.weights, net.parameters_, k)
    states = [net.optimizer_.state[p] for p in net.parameters_]
    trainer.n_steps[k] = float(states[0].get("step", 0))
    buffers = {}
    for name in trainer.kind.state:
        for p, state in zip(net.parameters_, states, strict=True):
            if state.get(name) is None:
                state[name] = torch.zeros_like(p, requires_grad=False)
        buffers[name] = [state[name] for state in states]
        trainer.load(trainer.state[name], buffers[name], k)
    return buffers


def _store(trainer, net, k, buffers):
    trainer.store(trainer.weights, net.parameters_, k)
    for name, tensors in buffers.items():
        trainer.store(trainer.state[name], tensors, k)
    if trainer.optimizer != "sgd":
        for p in net.parameters_:
            net.optimizer_.state[p]["step"] = torch.tensor(float(trainer.n_steps[k]))
