"""A training in plain things: arrays, numbers, text, None, and lists, tuples and dicts of them.

Pickles, copies and files of a classifier are made of this description, so that they need none of
the classes that a training consists of. Plain things cannot say what somebody else has put in: a
callback, a layer, a hook, an optimiser that is not torch's.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from .. import _kernel
from .._network.mlp import split
from .callbacks import PrintTenLines, ShowProgress
from .net import without_batches
from .optimizers import find_optimizer
from .state import Settings, State, begin, load_optimizer, make_net

# The settings that the rest of a description says, and those that are none of plain things.
IMPLIED = ("n_features", "n_classes", "hidden_layer_sizes", "callbacks")
# What of a net is described, is derived from its other attributes, or is looked at elsewhere.
NET_STATE = {
    *("history_", "generator_", "lowest_", "stop_requested_", "callbacks", "callbacks_"),
    *("_kwargs", "_params_to_validate", "virtual_params_"),
}
MODULE_STATE = {"training", "dropout_seed", "_parameters", "_modules"}


def is_plain(value):
    """Tell whether something consists of plain things only."""
    if isinstance(value, np.ndarray):
        return value.dtype != object
    if type(value) is dict:
        return all(is_plain(item) for pair in value.items() for item in pair)
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, np.generic)


def find_changes(settings, state):
    """Name the parts of a net that are not as the settings make them.

    Its callbacks are not looked at, and neither is what a training changes.
    """
    if state.net is None:
        return []
    # Made on the CPU: the device, which need not be here, says nothing about the parts.
    net = make_net(settings._replace(callbacks=(), device="cpu"), begin(settings))
    net.device = settings.device
    own = vars(state.net) | {"class": type(state.net)}
    made = vars(net) | {"class": type(net)}
    names = (own.keys() | made.keys()) - NET_STATE
    return sorted(name for name in names if _look(own.get(name)) != _look(made.get(name)))


def _look(value):
    """Show, as text, what a part of a net is, but for what a training changes."""
    if isinstance(value, nn.Module):
        return [_look_at_module(part) for part in value.modules()]
    if isinstance(value, torch.optim.Optimizer):
        hooks = {name: hook for name, hook in vars(value).items() if "_hooks" in name}
        return repr((type(value), hooks, len(value.param_groups)))
    if isinstance(value, np.ndarray):
        # NumPy prints a large array in part; one whose printing was interrupted it takes, from
        # then on, for a part of itself, and prints as "...".
        return repr((value.dtype, value.tolist()))
    return repr(value)


def _look_at_module(module):
    own = {name: value for name, value in vars(module).items() if name not in MODULE_STATE}
    parameters = [
        (name, p.shape, p.dtype, p.requires_grad, p._backward_hooks, p._post_accumulate_grad_hooks)
        for name, p in module.named_parameters(recurse=False)
    ]
    return repr((type(module), [*module._modules], parameters, own))


def describe(settings, state):
    """Describe a training whose net, if there is one, is as its settings make it.

    The arrays share their memory with the training. What callbacks have recorded may not be plain.
    """
    described = {name: value for name, value in settings._asdict().items() if name not in IMPLIED}
    optimizer = groups = None
    if state.net is None:
        arrays = state.arrays
        parameters = split(arrays.parameters, settings.network.layer_sizes)
    else:
        arrays, made = _kernel.State(None), state.net.optimizer_
        parameters = list(state.net.module_.parameters())
        optimizer = [_map(made.state.get(p), torch.Tensor, _as_float32) for p in parameters]
        groups = [{**group, "params": None} for group in made.param_groups]
    return {
        "settings": described | {"optimizer": settings.optimizer.__name__},
        "history": [dict(row) for row in without_batches(state.history)],
        "state": {
            "parameters": _to_arrays(parameters),
            "memory": arrays.memory,
            "n_steps": arrays.n_steps,
            "optimizer": _to_arrays(optimizer),
            "groups": _to_arrays(groups),
            "generator": state.generator.get_state().numpy(),
        },
    }


def restore(description):
    """Make settings and state of what `describe` gave."""
    values, described = description["settings"], description["state"]
    parameters = described["parameters"]
    settings = Settings(
        n_features=parameters[0].shape[1],
        n_classes=len(parameters[-1]),
        hidden_layer_sizes=tuple(map(len, parameters[:-2:2])),
        **values | {"optimizer": find_optimizer(values["optimizer"])},
    )
    generator = torch.Generator()
    generator.set_state(_to_tensors(described["generator"]))
    flat = np.concatenate([np.ravel(p) for p in parameters])
    arrays = _kernel.State(flat, described["memory"], described["n_steps"])
    state = State(arrays, generator, description["history"])
    if described["groups"] is not None:
        net = make_net(settings, state)
        state.set_net(net)
        parameters = list(net.module_.parameters())
        load_optimizer(net.optimizer_, parameters, note_optimizer(described))
    return settings, state


def note_optimizer(described):
    """Make tensors of what an optimiser remembers, for `load_optimizer`."""
    return SimpleNamespace(**{n: _to_tensors(described[n]) for n in ("optimizer", "groups")})


def has_callbacks(settings):
    """Tell whether a training has other callbacks than those that print."""
    return not all(isinstance(c, PrintTenLines | ShowProgress) for c in settings.callbacks)


def _map(value, kind, convert):
    """Convert what is of a kind, however deep it lies in dicts, lists and tuples."""
    if isinstance(value, kind):
        return convert(value)
    if type(value) is dict:
        return {name: _map(item, kind, convert) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map(item, kind, convert) for item in value)
    return value


def _as_float32(tensor):
    # torch counts the steps of an optimiser in its default dtype, which may be float64.
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _to_arrays(value):
    return _map(value, torch.Tensor, lambda t: t.detach().cpu().numpy())


def _to_tensors(value):
    # What is mapped from a file, or lent, is copied.
    return _map(
        value, np.ndarray, lambda a: torch.from_numpy(np.require(a, requirements=["C", "W", "O"]))
    )
