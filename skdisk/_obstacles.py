"""What stands in the way of the fused trainer, in words.

It trains an `MLP` with `NLLLoss` and torch's SGD, Adam or AdamW and gives the same result as
skorch's loop, unless somebody looks at or changes what happens within an epoch.
"""

import torch
from skorch.callbacks import BatchScoring, Callback, EpochScoring, LRScheduler

from ._batches import TensorBatches
from ._module import MLP

# The names by which the fused trainer knows torch's optimisers.
FUSED_OPTIMIZERS = {
    torch.optim.SGD: "sgd",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adamw",
}
# What an optimiser's parameter group may not ask for.
UNKNOWN_OPTIONS = ("dampening", "maximize", "amsgrad", "differentiable")


def _watches_training(callback):
    """Tell whether a callback needs hooks or gradients at every training step."""
    if isinstance(callback, LRScheduler):
        return callback.step_every == "batch"
    if isinstance(callback, EpochScoring):
        return callback.on_train and callback.use_caching
    if isinstance(callback, BatchScoring):
        return callback.on_train
    return any(
        getattr(type(callback), hook) is not getattr(Callback, hook)
        for hook in ("on_batch_begin", "on_batch_end", "on_grad_computed")
    )


def find_obstacle(net):
    """Say in words why the fused trainer cannot take a training, or return None.

    Parameters
    ----------
    net : DiskNet
        An initialised net.

    Returns
    -------
    obstacle : str or None
        The setting in the way.
    """
    if net.fused is False:
        return "fused=False"
    if torch.device(net.device).type not in ("cpu", "cuda"):
        return f"the device is {net.device}: the fused trainer was written for cpu and cuda"
    if type(net.module_) is not MLP:
        return f"the module is a {type(net.module_).__name__}, not skdisk's MLP"
    # torch has no public way to ask for hooks.
    if any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        for module in net.module_.modules()
    ):
        return "the module has hooks"
    criterion = net.criterion_
    if type(criterion) is not torch.nn.NLLLoss:
        return f"the criterion is {type(criterion).__name__}, not NLLLoss"
    if criterion.weight is not None or criterion.reduction != "mean":
        return "the criterion has weights or a reduction other than the mean"
    if type(net.optimizer_) not in FUSED_OPTIMIZERS:
        return f"the optimizer is {type(net.optimizer_).__name__}, not SGD, Adam or AdamW"
    if net.iterator_train is not TensorBatches:
        return "iterator_train is not skdisk's TensorBatches"
    for name, callback in net.callbacks_:
        if _watches_training(callback):
            return f"the callback {name!r} looks at every batch or gradient"
    return None


def find_passing_obstacle(net):
    """Do the same for what callbacks change between epochs.

    Parameters
    ----------
    net : DiskNet
        An initialised net.

    Returns
    -------
    obstacle : str or None
        The setting in the way.
    """
    if not all(p.requires_grad for p in net.parameters_):
        return "some parameters of the module are frozen"
    group, *others = net.optimizer_.param_groups
    if others:
        return "the optimizer has parameter groups"
    options = [name for name in UNKNOWN_OPTIONS if group.get(name)]
    if type(net.optimizer_) is torch.optim.Adam and group.get("decoupled_weight_decay"):
        options.append("decoupled_weight_decay")
    if options:
        return f"the optimizer has the option {options[0]}"
    return None
