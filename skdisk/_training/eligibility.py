"""What stands in the way of the compiled kernel, in words.

It trains an `MLP` with `NLLLoss` and torch's SGD, Adam or AdamW on the CPU and gives the same
result as skorch's loop, unless somebody looks at or changes what happens within an epoch.
"""

import inspect
import math
from functools import lru_cache
from typing import NamedTuple

import torch
from skorch.callbacks import BatchScoring, EpochScoring, LRScheduler
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import _kernel
from .._network.mlp import get_parameters, has_hooks
from .batches import TensorBatches
from .net import find_watchers

# The names by which the kernel knows torch's optimisers, and the settings that it takes.
OPTIMIZERS = {
    torch.optim.SGD: "sgd",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adamw",
}
SETTINGS = ("momentum", "nesterov", "weight_decay", "betas", "eps")
# What an optimiser may not be asked for.
UNKNOWN_OPTIONS = ("dampening", "maximize", "amsgrad", "differentiable")


class Case(NamedTuple):
    """What is looked at: a plan, a state, its training batches, and the optimiser's groups."""

    plan: object
    state: object
    batches: TensorBatches

    @property
    def net(self):
        return self.state.net

    @property
    def module(self):
        return self.state.module

    @property
    def optimizer(self):
        """The class of the optimiser."""
        return self.plan.settings.optimizer if self.net is None else type(self.net.optimizer_)

    @property
    def groups(self):
        """The settings of the optimiser, which callbacks may have changed if there is a net."""
        if self.net is not None:
            return self.net.optimizer_.param_groups
        return [read_options(self.plan)]


def read_options(plan):
    """Collect what an optimiser is called with, its own defaults included.

    Parameters
    ----------
    plan : Plan
        With class and arguments of the optimiser.

    Returns
    -------
    options : dict
        By name.
    """
    return _read_defaults(plan.settings.optimizer) | plan.settings.optimizer_arguments


@lru_cache
def _read_defaults(optimizer):
    return {name: p.default for name, p in inspect.signature(optimizer).parameters.items()}


def _watches_batches(callback):
    """Tell whether a callback needs hooks or gradients at every training step."""
    if isinstance(callback, LRScheduler):
        return callback.step_every == "batch"
    if isinstance(callback, EpochScoring):
        return callback.on_train and callback.use_caching
    if isinstance(callback, BatchScoring):
        return callback.on_train
    return True


def _find_device(case):
    if torch.device(case.plan.settings.device).type != "cpu":
        return f"the device is {case.plan.settings.device}, and the kernel is for the cpu"
    return None


def _find_module(case):
    parameters = get_parameters(case.module)
    if parameters is None:
        return "the module is not the plain MLP that the parameters describe"
    hooked = (p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters)
    if has_hooks(case.module) or any(hooked):
        return "the module has hooks or a function of its own"
    if not all(p.requires_grad for p in parameters):
        return "some parameters of the module are frozen"
    return None


def _find_criterion(case):
    if case.net is None:
        return None
    criterion = case.net.criterion_
    if type(criterion) is not torch.nn.NLLLoss:
        return f"the criterion is {type(criterion).__name__}, not NLLLoss"
    if criterion.weight is not None or criterion.reduction != "mean":
        return "the criterion has weights or a reduction other than the mean"
    return None


def _find_optimizer(case):
    if case.optimizer not in OPTIMIZERS:
        return f"the optimizer is {case.optimizer.__name__}, not SGD, Adam or AdamW"
    group, *others = case.groups
    if others:
        return "the optimizer has parameter groups"
    options = [name for name in UNKNOWN_OPTIONS if group.get(name)]
    if case.optimizer is torch.optim.Adam and group.get("decoupled_weight_decay"):
        options.append("decoupled_weight_decay")
    if options:
        return f"the optimizer has the option {options[0]}"
    if case.net is not None:
        if {id(p) for p in group["params"]} != {id(p) for p in case.module.parameters()}:
            return "the optimizer has other parameters than the module"
        made = case.net.optimizer_
        hooks = (made._optimizer_step_pre_hooks, made._optimizer_step_post_hooks)
        if any(hooks) or _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
            return "the optimizer has hooks"
    return None


def _find_methods(case):
    for name in () if case.net is None else vars(case.net):
        if callable(getattr(type(case.net), name, None)):
            return f"the net has a method of its own, {name}"
    return None


def _find_callbacks(case):
    hooks = ("on_batch_begin", "on_batch_end", "on_grad_computed")
    for callback in find_watchers(case.net, *hooks) if case.net is not None else []:
        if _watches_batches(callback):
            name = next(name for name, other in case.net.callbacks_ if other is callback)
            return f"the callback {name!r} looks at every batch or gradient"
    return None


def _find_batches(case):
    if not isinstance(case.batches, TensorBatches):
        return "the batches are not skdisk's TensorBatches"
    if case.batches.is_precise:
        return "all rows are one small batch, whose gradients are computed in float64"
    return None


def _find_kernel(case):
    absence = _kernel.explain_absence()
    return absence and f"there is no compiled kernel: {absence}"


# The first that finds something names it.
CONDITIONS = (
    lambda case: "fused=False" if case.plan.fused is False else None,
    _find_kernel,
    _find_device,
    _find_module,
    _find_methods,
    _find_criterion,
    _find_optimizer,
    _find_callbacks,
    _find_batches,
)


def find_obstacle(plan, state, batches):
    """Say in words why the kernel cannot take the coming epoch, or return None.

    Parameters
    ----------
    plan : Plan
        What stays as it is.
    state : State
        What changes.
    batches : TensorBatches
        The training data.

    Returns
    -------
    obstacle : str or None
        The setting in the way.
    """
    case = Case(plan, state, batches)
    return next(filter(None, (condition(case) for condition in CONDITIONS)), None)


def read_settings(plan, state, batches):
    """Collect what the kernel must know of a training that it can take.

    Parameters
    ----------
    plan, state, batches
        As for `find_obstacle`, which has found nothing.

    Returns
    -------
    settings : skdisk._kernel.Settings
        The settings of the optimiser as they are now.
    lr : float
        The learning rate as it is now.
    """
    case = Case(plan, state, batches)
    [group] = case.groups
    max_norm = (plan.settings if case.net is None else case.net).clip_grad_norm
    settings = _kernel.Settings(
        batch_size=batches.batch_size,
        optimizer=OPTIMIZERS[case.optimizer],
        max_norm=math.inf if max_norm is None else max_norm,
        dropout=state.module.dropout if any(state.module.dropout) else (),
        **{name: group[name] for name in SETTINGS if name in group},
    )
    return settings, float(group["lr"])
