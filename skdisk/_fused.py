"""The way between a skorch net and the fused trainer: an epoch's weights, state and settings.

Weights and the optimiser's state go in and out every epoch, which costs a hundredth of the
smallest epochs: between epochs, all is where skorch, callbacks and torch look for it.
"""

import math

import torch

from ._engine import FusedTrainer
from ._obstacles import FUSED_OPTIMIZERS

# What torch's optimisers keep in their parameter groups, as far as they have it.
GROUP_NAMES = ("lr", "momentum", "nesterov", "weight_decay", "betas", "eps")


def make_trainer(net, precise):
    """Make the fused trainer of a training.

    Parameters
    ----------
    net : DiskNet
        An initialised net.
    precise : bool
        Whether to compute gradients in float64.

    Returns
    -------
    trainer : FusedTrainer
        A trainer of one network.
    """
    # Without gradients it only tells torch's schedulers that the optimiser is in use.
    net.optimizer_.zero_grad()
    net.optimizer_.step()
    return FusedTrainer(
        net.module_.layer_sizes,
        net.module_.activation,
        net.batch_size,
        optimizer=FUSED_OPTIMIZERS[type(net.optimizer_)],
        precise=precise,
        device=net.device,
    )


def run_fused_epoch(net, trainer, batches):
    """Train a net for an epoch.

    Parameters
    ----------
    net : DiskNet
        The net, whose weights and optimiser go one epoch on.
    trainer : FusedTrainer
        From `make_trainer`.
    batches : TensorBatches
        The data.

    Returns
    -------
    losses : list of float
        Mean loss of each batch.
    """
    [group] = net.optimizer_.param_groups
    trainer.set_hyperparameters(
        **{name: group[name] for name in GROUP_NAMES if name in group},
        max_norm=math.inf if net.clip_grad_norm is None else net.clip_grad_norm,
        dropout=net.module_.dropout,
    )
    parameters = net.parameters_
    states = [net.optimizer_.state[p] for p in parameters]
    buffers = {name: _get_buffers(name, parameters, states) for name in trainer.kind.state}
    trainer.load(trainer.weights, parameters)
    for name, tensors in buffers.items():
        trainer.load(trainer.state[name], tensors)
    trainer.n_steps.fill_(float(states[0].get("step", 0)))
    order = batches.draw_order()
    losses = trainer.run_epoch(
        batches.X if isinstance(batches.X, torch.Tensor) else batches.X.gather,
        batches.y,
        [order],
        None if batches.weights is None else [batches.weights[order]],
        row_keys=None if batches.seed is None else [batches.row_keys[order]],
        seeds=[batches.seed],
    )
    trainer.store(trainer.weights, parameters)
    for name, tensors in buffers.items():
        trainer.store(trainer.state[name], tensors)
    if trainer.optimizer != "sgd":
        for state in states:
            state["step"] = torch.tensor(float(trainer.n_steps))
    return losses[:, 0].tolist()


def _get_buffers(name, parameters, states):
    """Get what the optimiser remembers of each parameter, zeros where it has not begun."""
    for p, state in zip(parameters, states, strict=True):
        if state.get(name) is None:
            state[name] = torch.zeros_like(p, requires_grad=False)
    return [state[name] for state in states]
