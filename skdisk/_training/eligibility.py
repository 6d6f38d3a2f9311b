"""What stands in the way of the compiled kernel, in words.

It trains an `MLP` with its loss and torch's SGD, Adam or AdamW on the CPU and gives the same
result as skorch's loop, unless somebody looks at or changes what happens within an epoch.
"""

import math

import torch
from skorch.callbacks import BatchScoring, EpochScoring, LRScheduler
from torch.optim import optimizer as optimizers

from .. import _kernel
from .._network.mlp import get_parameters, has_hooks, has_hooks_of_all_modules
from .batches import FEW_ROWS, TensorBatches
from .net import OF_OUTPUT, find_watchers
from .optimizers import read_signature

# The names by which the kernel knows torch's optimisers, and the settings that it takes.
OPTIMIZERS = {
    torch.optim.SGD: "sgd",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adamw",
}
SETTINGS = ("momentum", "nesterov", "weight_decay", "betas", "eps")
# What an optimiser may not be asked for.
UNKNOWN_OPTIONS = ("dampening", "maximize", "amsgrad", "differentiable")


def _find_groups(plan, net):
    """Find the class of the optimiser, and its groups of settings, which callbacks may change."""
    if net is not None:
        return type(net.optimizer_), net.optimizer_.param_groups
    optimizer = plan.settings.optimizer
    group = {name: p.default for name, p in read_signature(optimizer).items()}
    return optimizer, [group | plan.settings.optimizer_arguments]


def _find_device(plan):
    if not plan.settings.device.startswith("cpu"):
        return f"the device is {plan.settings.device}, and the kernel is for the cpu"
    return None


def _find_optimizer(plan, net):
    optimizer, groups = _find_groups(plan, net)
    if optimizer not in OPTIMIZERS:
        return f"the optimizer is {optimizer.__name__}, not torch's own SGD, Adam or AdamW"
    group, *others = groups
    if others:
        return "the optimizer has more than one group of parameters"
    options = [name for name in UNKNOWN_OPTIONS if group.get(name)]
    if optimizer is torch.optim.Adam and group.get("decoupled_weight_decay"):
        options.append("decoupled_weight_decay")
    if options:
        return f"the optimizer has the option {options[0]}, which the kernel does not know"
    if not 0 <= group["lr"] < math.inf:
        return f"the learning rate is {group['lr']}, not a finite number of at least 0"
    return None


def _find_batches(batches):
    if not isinstance(batches, TensorBatches):
        return "the net makes batches of its own, not skdisk's TensorBatches"
    if batches.is_precise:
        return (
            f"all rows fit into one batch, and one of at most {FEW_ROWS} rows is computed in "
            "float64, but by the kernel in float32; a smaller batch_size makes several"
        )
    return None


def _find_kernel():
    absence = _kernel.explain_absence()
    return absence and f"there is no compiled kernel: {absence}"


def _find_modes_of_all():
    if torch.is_autocast_enabled("cpu"):
        return "torch.autocast is on, and the kernel computes in float32"
    if has_hooks_of_all_modules():
        return "there are hooks of all modules of torch"
    if optimizers._global_optimizer_pre_hooks or optimizers._global_optimizer_post_hooks:
        return "there are hooks of all optimizers of torch"
    return None


def _find_module(module):
    parameters = get_parameters(module)
    if parameters is None:
        return (
            "the module is not the plain MLP that the parameters describe: its layers were changed"
        )
    hooked = (p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters)
    if has_hooks(module) or any(hooked):
        return "the module has hooks or a function of its own"
    if not all(p.requires_grad for p in parameters):
        return "some parameters of the module are frozen"
    return None


def _find_criterion(plan, criterion):
    own = OF_OUTPUT[plan.settings.output]["criterion"]
    if type(criterion) is not own:
        whose = "torch's" if own is torch.nn.NLLLoss else "skdisk's"
        return f"the criterion is {type(criterion).__name__}, not {whose} own {own.__name__}"
    weights = criterion.weight, getattr(criterion, "pos_weight", None)
    if any(w is not None for w in weights) or criterion.reduction != "mean":
        return "the criterion has weights or a reduction other than the mean"
    return None


def _find_hooks(optimizer):
    has_any = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return "the optimizer has hooks" if has_any else None


def _find_parameters(net):
    [group] = net.optimizer_.param_groups
    if {id(p) for p in group["params"]} != {id(p) for p in net.module_.parameters()}:
        return "the optimizer has other parameters than the module"
    return None


def _find_methods(net):
    for name in vars(net):
        if callable(getattr(type(net), name, None)):
            return f"the net has a method of its own, {name}"
    return None


def _find_callbacks(net):
    hooks = ("on_batch_begin", "on_batch_end", "on_grad_computed")
    for callback in find_watchers(net, *hooks):
        if _watches_batches(callback):
            name = next(name for name, other in net.callbacks_ if other is callback)
            return f"the callback {name!r} looks at every batch or gradient"
    return None


def _watches_batches(callback):
    """Tell whether a callback needs hooks or gradients at every training step."""
    if isinstance(callback, LRScheduler):
        return callback.step_every == "batch"
    if isinstance(callback, EpochScoring):
        return callback.on_train and callback.use_caching
    if isinstance(callback, BatchScoring):
        return callback.on_train
    return True


def find_obstacle(plan, net, batches):
    """Say in words why the kernel cannot take the coming epoch, or return None.

    The first setting in the way is named. The net is None where nobody has asked for one.
    """
    obstacle = (
        ("fused=False" if plan.fused is False else None)
        or _find_kernel()
        or _find_device(plan)
        or _find_optimizer(plan, net)
        or _find_batches(batches)
        or _find_modes_of_all()
    )
    if obstacle or net is None:
        return obstacle
    return (
        _find_module(net.module_)
        or _find_criterion(plan, net.criterion_)
        or _find_hooks(net.optimizer_)
        or _find_parameters(net)
        or _find_methods(net)
        or _find_callbacks(net)
    )


def read_settings(plan, net, batches):
    """Collect what the kernel must know of a training for which there is no obstacle.

    Return a `_kernel.Settings`, with the optimiser's settings as they are now, and the learning
    rate as it is now.
    """
    optimizer, [group] = _find_groups(plan, net)
    max_norm = (plan.settings if net is None else net).clip_grad_norm
    dropout = plan.settings.dropout if net is None else net.module_.dropout
    settings = _kernel.Settings(
        batch_size=batches.batch_size,
        optimizer=OPTIMIZERS[optimizer],
        max_norm=math.inf if max_norm is None else max_norm,
        dropout=dropout if any(dropout) else (),
        **{name: group[name] for name in SETTINGS if name in group},
    )
    return settings, float(group["lr"])
