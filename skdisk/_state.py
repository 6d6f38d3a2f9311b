"""The state of a training: all that an epoch changes in a net, but for its history.

It is copied before each epoch, so that there is a way back; `save` writes it; and with it a
training goes on where another one has ended.
"""

import copy

import torch
from skorch.callbacks import LRScheduler


def copy_state(net):
    """Copy the state of a training.

    The optimiser's part is that of its `state_dict`, without what that costs at every epoch.

    Parameters
    ----------
    net : DiskNet
        An initialised net.

    Returns
    -------
    state : dict
        "parameters" and "optimizer", with an item for each parameter; "groups", the optimiser's
        settings; and "generator".
    """
    parameters = net.parameters_ or list(net.module_.parameters())
    return {
        "parameters": [p.detach().clone() for p in parameters],
        "groups": [{**group, "params": None} for group in net.optimizer_.param_groups],
        "optimizer": [_copy_values(net.optimizer_.state.get(p)) for p in parameters],
        "generator": net.generator_.get_state(),
    }


def _copy_values(state):
    """Copy what an optimiser remembers of a parameter."""
    return state and {
        name: value.clone() if torch.is_tensor(value) else copy.deepcopy(value)
        for name, value in state.items()
    }


def load_state(net, state):
    """Set the state of a training.

    Parameters
    ----------
    net : DiskNet
        An initialised net of the same shape.
    state : dict
        From `copy_state`; its tensors may be on another device.
    """
    load_weights(net.module_, state["parameters"])
    for p, values in zip(net.module_.parameters(), state["optimizer"], strict=True):
        net.optimizer_.state.pop(p, None)
        if values is not None:
            net.optimizer_.state[p] = {
                # torch keeps the number of steps on the CPU.
                name: value.to(p.device) if torch.is_tensor(value) and name != "step" else value
                for name, value in values.items()
            }
    for group, values in zip(net.optimizer_.param_groups, state["groups"], strict=True):
        group.update(values, params=group["params"])
    net.generator_.set_state(state["generator"])


@torch.no_grad()
def load_weights(module, values):
    """Set the parameters of a module.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    values : sequence of tensor
        One for each parameter.
    """
    for p, value in zip(module.parameters(), values, strict=True):
        p.copy_(value)


def resume_training(net, earlier):
    """Go on from where another net of the same shape stands: weights, state and history.

    The learning rate, which a schedule may have changed, is the net's own again, unless an
    LRScheduler goes on with it. Settings of the optimiser that differ between the two nets are
    left as they are.

    Parameters
    ----------
    net : DiskNet
        An initialised net.
    earlier : DiskNet
        A trained net. It stays as it is.

    Raises
    ------
    ValueError
        If the networks differ in their layers.
    """
    if repr(net.module_) != repr(earlier.module_):
        raise ValueError(
            "warm_start and partial_fit go on with the network of the earlier fit, which has "
            f"other layers:\n{earlier.module_}\nthan the parameters ask for now:\n"
            f"{net.module_}\nFit anew with warm_start=False, or restore the parameters."
        )
    state = copy_state(earlier)
    if type(net.optimizer_) is not type(earlier.optimizer_):
        # What another optimiser remembers has no meaning for this one.
        own = copy_state(net)
        load_state(net, state | {"groups": own["groups"], "optimizer": own["optimizer"]})
    else:
        changed = {
            name: value
            for name, value in net.optimizer_.defaults.items()
            if value != earlier.optimizer_.defaults[name]
        }
        if not any(isinstance(callback, LRScheduler) for _, callback in net.callbacks_):
            changed["lr"] = net.lr
        load_state(net, state)
        for group in net.optimizer_.param_groups:
            group.update(changed)
            if "lr" in changed and "initial_lr" in group:
                # Where a scheduler of torch begins.
                group["initial_lr"] = net.lr
    net.history.extend(earlier.history)
