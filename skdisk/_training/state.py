"""`State`: what a training changes; copied, noted, and set back.

The network's weights, what the optimiser remembers, the random generator and the history. The
optimiser's memory has two forms. As long as the compiled kernel trains and nobody asks for the
skorch net, it is flat arrays; once there is a net, it is in the net's optimiser, where torch,
skorch and callbacks look for it.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from skorch.callbacks import LRScheduler
from skorch.history import History

from .. import _kernel
from .._network.prediction import flatten


def without_batches(history):
    """Copy a history without its rows of batches: there is one for every training step."""
    return History({**row, "batches": []} for row in history)


class State:
    """What a training changes.

    Parameters
    ----------
    module : MLP
        The network.
    generator : torch.Generator
        Where initial weights and the order of the rows are drawn from.
    optimizer : type
        The class of the optimiser, whose memory this is.
    history : skorch.history.History
        A row for each epoch.
    lowest : dict of str to float
        The lowest losses of an epoch so far, by the names of the history.

    Attributes
    ----------
    memory : dict of str to ndarray of shape (n_parameters,), dtype=float32
        What the optimiser remembers, by torch's names, in the order of the module's parameters.
        Empty before the first step, and where there is a net.
    n_steps : int
        How many steps the optimiser has made; as `memory`.
    net : DiskNet or None
        The skorch net. Where there is one, the parts of the state are the net's, which anybody may
        have replaced.
    """

    def __init__(self, module, generator, optimizer, history=None, lowest=None):
        self._module, self._generator, self.optimizer = module, generator, optimizer
        self._history = History() if history is None else history
        self._lowest = {} if lowest is None else lowest
        self.memory, self.n_steps, self.net = {}, 0, None
        # Going through the module for them takes longer than copying them.
        self._parameters = list(module.parameters())

    @property
    def module(self):
        """The network."""
        return self._module if self.net is None else self.net.module_

    @property
    def generator(self):
        """Where the order of the rows is drawn from."""
        return self._generator if self.net is None else self.net.generator_

    @property
    def history(self):
        """A row for each epoch."""
        return self._history if self.net is None else self.net.history

    @property
    def lowest(self):
        """The lowest losses so far."""
        return self._lowest if self.net is None else self.net.lowest_

    def get_parameters(self):
        """List the parameters of the module, in order."""
        return self._parameters if self.net is None else list(self.module.parameters())

    def set_net(self, net):
        """Give all to a net."""
        self.net, self.memory, self.n_steps = net, {}, 0
        self._module = self._generator = self._history = self._lowest = None
        self._parameters = None

    def __getstate__(self):
        """Leave out the history's rows of batches."""
        history = None if self._history is None else without_batches(self._history)
        return vars(self) | {"_history": history}


class Note(NamedTuple):
    """What a state was at the end of an epoch: enough to set it back.

    Attributes
    ----------
    parameters : list of tensor
        Copies of the module's.
    memory, n_steps
        As of `State`.
    optimizer : list of dict, or None
        Copies of what the net's optimiser remembers of each parameter.
    groups : list of dict, or None
        Copies of the optimiser's settings.
    generator : tensor
        The state of the generator.
    n_epochs : int
        Rows of the history.
    lowest
        As of `State`.
    """

    parameters: list
    memory: dict
    n_steps: int
    optimizer: list | None
    groups: list | None
    generator: torch.Tensor
    n_epochs: int
    lowest: dict


def note(state):
    """Note what a state is now.

    Parameters
    ----------
    state : State
        The state.

    Returns
    -------
    note : Note
        Copies of all that an epoch changes.
    """
    parameters = state.get_parameters()
    optimizer = groups = None
    if state.net is not None:
        made = state.net.optimizer_
        # That of its `state_dict`, without what that costs at every epoch.
        optimizer = [_copy_values(made.state.get(p)) for p in parameters]
        groups = [{**group, "params": None} for group in made.param_groups]
    return Note(
        [p.detach().clone() for p in parameters],
        {name: values.copy() for name, values in state.memory.items()},
        state.n_steps,
        optimizer,
        groups,
        state.generator.get_state(),
        len(state.history),
        dict(state.lowest),
    )


def _copy_values(values):
    """Copy what an optimiser remembers of a parameter."""
    return values and {
        name: value.clone() if torch.is_tensor(value) else copy.deepcopy(value)
        for name, value in values.items()
    }


def set_back(state, noted):
    """Set a state back to what was noted; may be done twice.

    Parameters
    ----------
    state : State
        The state, or another one of the same shape.
    noted : Note
        From `note`; its tensors may be on another device.
    """
    load_weights(state.module, noted.parameters)
    state.memory = {name: values.copy() for name, values in noted.memory.items()}
    state.n_steps = noted.n_steps
    if noted.optimizer is not None:
        load_optimizer(state.net.optimizer_, list(state.module.parameters()), noted)
    state.generator.set_state(noted.generator)
    del state.history[noted.n_epochs :]
    state.lowest.clear()
    state.lowest.update(noted.lowest)


def load_optimizer(optimizer, parameters, noted):
    """Set what an optimiser remembers, and its settings.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser.
    parameters : list of tensor
        Its parameters, in the order of the module.
    noted : Note
        From `note`.
    """
    for p, values in zip(parameters, noted.optimizer, strict=True):
        optimizer.state.pop(p, None)
        if values is not None:
            optimizer.state[p] = {
                # torch keeps the number of steps on the CPU.
                name: value.to(p.device) if torch.is_tensor(value) and name != "step" else value
                for name, value in _copy_values(values).items()
            }
    for group, values in zip(optimizer.param_groups, noted.groups, strict=True):
        group.update(values, params=group["params"])


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


def unflatten(flat, tensors):
    """Copy an array into tensors, the other way round.

    Parameters
    ----------
    flat : ndarray of shape (n_numbers,), dtype=float32
        From `flatten`.
    tensors : sequence of tensor, dtype=float32
        On the CPU; what they are is changed.
    """
    start = 0
    for t in tensors:
        t.detach().numpy().reshape(-1)[:] = flat[start : start + t.numel()]
        start += t.numel()


def read_arrays(state, names):
    """Copy what the kernel works on.

    Parameters
    ----------
    state : State
        Its network lies on the CPU.
    names : sequence of str
        What the optimiser remembers, by torch's names.

    Returns
    -------
    arrays : skdisk._kernel.State
        Copies.
    """
    parameters = state.get_parameters()
    memory, n_steps = state.memory, state.n_steps
    if state.net is not None:
        memory, n_steps = take_memory(state.net.optimizer_, parameters, names)
    flat = flatten(parameters)
    memory = {
        name: memory[name].copy() if name in memory else np.zeros_like(flat) for name in names
    }
    return _kernel.State(flat, memory, n_steps)


def write_arrays(state, arrays):
    """Set what the kernel has changed.

    Parameters
    ----------
    state : State
        Its network lies on the CPU.
    arrays : skdisk._kernel.State
        From `read_arrays`.
    """
    parameters = state.get_parameters()
    unflatten(arrays.parameters, parameters)
    if state.net is None:
        state.memory, state.n_steps = arrays.memory, arrays.n_steps
    else:
        give_memory(state.net.optimizer_, parameters, arrays.memory, arrays.n_steps)


def take_memory(optimizer, parameters, names):
    """Copy what an optimiser of torch remembers into flat arrays.

    Parameters
    ----------
    optimizer : torch.optim.SGD, Adam or AdamW
        The optimiser.
    parameters : list of tensor
        Its parameters, in the order of the module.
    names : sequence of str
        What it remembers.

    Returns
    -------
    memory : dict of str to ndarray of shape (n_parameters,), dtype=float32
        By name; empty before the first step.
    n_steps : int
        How many steps it has made, as far as it counts them.
    """
    values = [optimizer.state.get(p) or {} for p in parameters]
    memory = {
        name: flatten([own[name] for own in values])
        for name in names
        if all(own.get(name) is not None for own in values)
    }
    return memory, int(values[0].get("step", 0))


def give_memory(optimizer, parameters, memory, n_steps):
    """Set what an optimiser of torch remembers, the other way round.

    Parameters
    ----------
    optimizer : torch.optim.SGD, Adam or AdamW
        The optimiser.
    parameters : list of tensor
        Its parameters, in the order of the module.
    memory : dict of str to ndarray of shape (n_parameters,), dtype=float32
        By name.
    n_steps : int
        How many steps have been made.
    """
    for p in parameters:
        values = optimizer.state[p]
        for name in memory:
            if values.get(name) is None:
                values[name] = torch.empty_like(p, requires_grad=False)
        # SGD counts no steps.
        if "exp_avg" in memory:
            values["step"] = torch.tensor(float(n_steps))
    # Schedulers of torch ask whether there was a step, which the optimiser itself notes otherwise.
    optimizer._opt_called = True
    for name, flat in memory.items():
        unflatten(flat, [optimizer.state[p][name] for p in parameters])


def resume_optimizer(net, earlier):
    """Take over what the optimiser of another net of the same shape remembers.

    The learning rate, which a schedule may have changed, is the net's own again, unless an
    LRScheduler goes on with it. Other settings that the optimiser has now, the net keeps if they
    were asked for, and takes over if somebody has changed them since.

    Parameters
    ----------
    net : DiskNet
        A net of the same network.
    earlier : State
        Of the training that goes on. It stays as it is.
    """
    own, before = net.optimizer_, earlier.net.optimizer_
    if type(own) is not type(before):
        # What another optimiser remembers has no meaning for this one.
        return
    changed = {
        name: value for name, value in own.defaults.items() if value != before.defaults[name]
    }
    if not any(isinstance(callback, LRScheduler) for _, callback in net.callbacks_):
        changed["lr"] = net.lr
    load_optimizer(own, list(net.module_.parameters()), note(earlier))
    for group in own.param_groups:
        group.update(changed)
        if "lr" in changed and "initial_lr" in group:
            # Where a scheduler of torch begins.
            group["initial_lr"] = net.lr
