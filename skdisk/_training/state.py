"""What a network and its training are (`Settings`), and what a training changes (`State`).

As long as the compiled kernel trains and nobody asks for the skorch net, weights and what the
optimiser remembers are flat arrays. Once there is a net they are in its module and optimiser,
where torch, skorch and callbacks look for them.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch.callbacks import LRScheduler
from skorch.history import History

from .. import _kernel
from .._network.mlp import MLP, draw_parameters, flatten, unflatten
from .net import OF_MODULE, OF_OUTPUT, DiskNet, without_batches
from .optimizers import FullBatchLBFGS

# Options by whose being on or off torch's optimisers remember more of a parameter, or less.
OPTIONS_OF_MEMORY = ("momentum", "amsgrad", "centered")
# An option that is the length of what L-BFGS remembers.
SIZE_OF_MEMORY = "history_size"


class Settings(NamedTuple):
    """What a network and its training are, all numbers and no data.

    The names are those of `MLP` and `DiskNet`; `hidden_layer_sizes` and `dropout` have an item for
    each hidden layer, `optimizer` is a class, `optimizer_arguments` what it is called with, `lr`
    included. Of labels, of which a row may have several, `n_classes` is the number.
    """

    n_features: int
    n_classes: int
    hidden_layer_sizes: tuple
    activation: str
    output: str
    dropout: tuple
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

    @property
    def network(self):
        """The network as the kernel knows it."""
        layer_sizes = (self.n_features, *self.hidden_layer_sizes, self.n_classes)
        return _kernel.Network(layer_sizes, self.activation, self.output)

    @property
    def out_activation(self):
        """The function after the last layer, by scikit-learn's name."""
        return "logistic" if self.output == "sigmoid" else "softmax"


class State:
    """What a training changes: weights, the optimiser's memory, random generator, history.

    Where there is no `net`, weights and memory are the `arrays`, a `_kernel.State` without memory
    before the first step. Arrays are replaced and never changed, so that whoever has them need
    not copy them. Where there is a net, all parts are the net's, and anybody may replace them.
    """

    net = None

    def __init__(self, arrays, generator, history=()):
        self.arrays, self._generator, self._history = arrays, generator, History(history)

    @property
    def generator(self):
        """Where initial weights and the order of the rows are drawn from."""
        return self._generator if self.net is None else self.net.generator_

    @property
    def history(self):
        """A row for each epoch."""
        return self._history if self.net is None else self.net.history

    @property
    def last_row(self):
        """The row of the last epoch; skorch's own way to it copies the list of all rows."""
        return next(reversed(self.history))

    def set_net(self, net):
        """Let a net have all from now on."""
        self.net = net
        self.arrays = self._generator = self._history = None

    def set_first_net(self, net):
        """Let the first of the nets have all that threads make at once; return that one.

        This is for after a training. The arrays stay, for those who are reading them.
        """
        return vars(self).setdefault("net", net)

    def drop_net(self, arrays):
        """Have flat arrays again, and no net any more."""
        self._generator, self._history, self.arrays = self.generator, self.history, arrays
        vars(self).pop("net", None)

    def copy_weights(self):
        """Copy the weights, for `set_weights`."""
        if self.net is None:
            return self.arrays.parameters
        return [p.detach().clone() for p in self.net.module_.parameters()]

    def set_weights(self, weights):
        """Set the weights."""
        if self.net is None:
            self.arrays = _kernel.State(weights, self.arrays.memory, self.arrays.n_steps)
        elif isinstance(weights, np.ndarray):
            unflatten(weights, self.net.module_.parameters())
        else:
            with torch.no_grad():
                for p, values in zip(self.net.module_.parameters(), weights, strict=True):
                    p.copy_(values)

    def __getstate__(self):
        """Leave out what a net has, and the history's rows of batches."""
        if self.net is not None:
            return {"net": self.net, "arrays": None, "_generator": None, "_history": None}
        return vars(self) | {"_history": without_batches(self._history)}


def begin(settings):
    """Make the state before a training."""
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = flatten(draw_parameters(settings.network.layer_sizes, generator))
    return State(_kernel.State(parameters), generator)


def go_on(earlier, before, settings):
    """Make a state that goes on from an earlier one, which stays as it is.

    `before` and `settings` are the settings of the earlier training and of that to come. What the
    optimiser remembers begins anew where these ask for other memory.
    """
    if settings.network != before.network:
        raise ValueError(
            "warm_start and partial_fit go on with the network of the earlier fit, which has "
            f"other layers: {before.network}, where the parameters ask for {settings.network}. "
            "Fit anew with warm_start=False, or restore the parameters."
        )
    generator = torch.Generator()
    generator.set_state(earlier.generator.get_state())
    # What L-BFGS remembers is the loss of the earlier rows: with others, or other weights than
    # those of the last epoch, it takes the place where it begins for a minimum.
    keeps_memory = (
        _describe_memory(before) == _describe_memory(settings)
        and settings.optimizer is not FullBatchLBFGS
    )
    if earlier.net is None:
        arrays = earlier.arrays if keeps_memory else _kernel.State(earlier.arrays.parameters)
        return State(arrays, generator, earlier.history)
    state = State(None, generator, earlier.history)
    state.set_net(make_net(settings, state, earlier.net))
    if keeps_memory and type(state.net.optimizer_) is type(earlier.net.optimizer_):
        _resume_optimizer(state.net, earlier)
    return state


def _describe_memory(settings):
    arguments = settings.optimizer_arguments
    is_on = [bool(arguments.get(name)) for name in OPTIONS_OF_MEMORY]
    return settings.optimizer, is_on, arguments.get(SIZE_OF_MEMORY)


def make_net(settings, state, earlier=None):
    """Make a skorch net of what a state is.

    `earlier` is the net of the training that goes on: the module is a copy of its module, hooks
    and frozen parameters included, and callbacks that it has are not initialised anew.
    """
    arguments = dict(settings.optimizer_arguments)
    known = _find_initialised(settings.callbacks, earlier)
    names = ("clip_grad_norm", "max_epochs", "batch_size", "shuffle", "device", "verbose", "seed")
    net = DiskNet(
        MLP,
        **{f"module__{name}": getattr(settings, name) for name in OF_MODULE},
        **{name: getattr(settings, name) for name in names},
        **OF_OUTPUT[settings.output],
        classes=np.arange(settings.n_classes),
        optimizer=settings.optimizer,
        lr=arguments.pop("lr"),
        **{f"optimizer__{name}": value for name, value in arguments.items()},
        callbacks=[item for item in settings.callbacks if id(item) not in known],
    ).initialize()
    net.callbacks = list(settings.callbacks)
    net.callbacks_ = [*known.values(), *net.callbacks_]
    net.generator_, net.history_ = state.generator, state.history
    if earlier is None:
        _fill_net(net, state.arrays)
    else:
        net.module_ = copy.deepcopy(earlier.module_).to(settings.device)
        if isinstance(net.module_, MLP):
            net.module_.dropout = settings.dropout
        net.initialize_optimizer()
    for group in net.optimizer_.param_groups if _has_scheduler(net) else ():
        # Where a scheduler of torch begins that has not seen the earlier epochs.
        group["initial_lr"] = net.lr
    # For those who call the module themselves.
    net.module_.eval()
    return net


def _has_scheduler(net):
    return any(isinstance(callback, LRScheduler) for _, callback in net.callbacks_)


def _find_initialised(callbacks, net):
    """Find the callbacks that a net has initialised: name and object by the id of the item."""
    known = {}
    for item in callbacks if net is not None else ():
        given = item[1] if isinstance(item, tuple) else item
        for name, callback in net.callbacks_:
            if callback is given or type(callback) is given:
                known[id(item)] = name, callback
    return known


def _resume_optimizer(net, earlier):
    """Take over what the optimiser of an earlier state's net remembers.

    The learning rate, and the momentum, which a schedule may have changed, are the net's own
    again, unless an LRScheduler goes on with them. Other settings that the optimiser has now, the
    net keeps if they were asked for, and takes over if somebody has changed them since.
    """
    own, before = net.optimizer_, earlier.net.optimizer_
    changed = {
        name: value for name, value in own.defaults.items() if value != before.defaults[name]
    }
    # Also where the scheduler itself is not kept, in a file.
    was_scheduled = any("initial_lr" in group for group in before.param_groups)
    if not (_has_scheduler(net) and was_scheduled):
        changed["lr"] = net.lr
        of_schedules = ("momentum", "betas") if was_scheduled else ()
        changed |= {name: own.defaults[name] for name in of_schedules if name in own.defaults}
    load_optimizer(own, list(net.module_.parameters()), note(earlier))
    for group in own.param_groups:
        group.update(changed)
        if "lr" in changed and "initial_lr" in group:
            # Where a scheduler of torch begins.
            group["initial_lr"] = net.lr


class Note(NamedTuple):
    """What a state was at the end of an epoch: enough to set it back.

    Without a net, `arrays`; else copies of the parameters, of what the optimiser remembers of
    each, and of the settings of its groups. In both cases the state of the generator and how many
    epochs the history had.
    """

    arrays: _kernel.State | None
    parameters: list | None
    optimizer: list | None
    groups: list | None
    generator: torch.Tensor
    n_epochs: int


def note(state):
    """Note what a state is now."""
    arrays, parameters, optimizer, groups = state.arrays, None, None, None
    if state.net is not None:
        arrays, parameters, made = None, state.copy_weights(), state.net.optimizer_
        # That of its `state_dict`, without what that costs at every epoch.
        optimizer = [_copy(made.state.get(p)) for p in state.net.module_.parameters()]
        groups = [{**group, "params": None} for group in made.param_groups]
    generator = state.generator.get_state()
    return Note(arrays, parameters, optimizer, groups, generator, len(state.history))


def set_back(state, noted):
    """Set a state back to what was noted of it; may be done twice."""
    if noted.arrays is not None:
        state.drop_net(noted.arrays)
    else:
        state.set_weights(noted.parameters)
        load_optimizer(state.net.optimizer_, list(state.net.module_.parameters()), noted)
    state.generator.set_state(noted.generator)
    del state.history[noted.n_epochs :]


def load_optimizer(optimizer, parameters, noted):
    """Set what an optimiser remembers; the notes may be of another device."""
    for p, values in zip(parameters, noted.optimizer, strict=True):
        optimizer.state.pop(p, None)
        if values is not None:
            own = optimizer.state[p] = _copy(values, p.device)
            if "step" in own and not optimizer.defaults.get("fused"):
                # torch keeps the number of steps on the CPU.
                own["step"] = _copy(values["step"], "cpu")
    for group, values in zip(optimizer.param_groups, noted.groups, strict=True):
        group.update(values, params=group["params"])


def _copy(value, device=None):
    """Copy what an optimiser remembers, to another device if one is given."""
    if isinstance(value, dict):
        return {name: _copy(item, device) for name, item in value.items()}
    if isinstance(value, list):
        # L-BFGS remembers several steps.
        return [_copy(item, device) for item in value]
    return value.to(device, copy=True) if torch.is_tensor(value) else copy.deepcopy(value)


def read_arrays(state, names):
    """Copy what the kernel works on; `names` is what the optimiser remembers, by torch's names."""
    if state.net is None:
        arrays = state.arrays
        flat, n_steps = arrays.parameters.copy(), arrays.n_steps
        memory = {name: arrays.memory[name].copy() for name in names if name in arrays.memory}
    else:
        parameters = list(state.net.module_.parameters())
        values = [state.net.optimizer_.state.get(p) or {} for p in parameters]
        flat, n_steps = flatten(parameters), int(values[0].get("step", 0))
        memory = {
            name: flatten([own[name] for own in values])
            for name in names
            if all(own.get(name) is not None for own in values)
        }
    # Before the first step.
    memory |= {name: np.zeros_like(flat) for name in names if name not in memory}
    return _kernel.State(flat, memory, n_steps)


def write_arrays(state, arrays):
    """Set what the kernel has changed."""
    if state.net is None:
        state.arrays = arrays
    else:
        _fill_net(state.net, arrays)


def _fill_net(net, arrays):
    """Give the module of a net the weights, and its optimiser the memory, that arrays hold."""
    parameters, optimizer = list(net.module_.parameters()), net.optimizer_
    unflatten(arrays.parameters, parameters)
    for p in parameters:
        values = optimizer.state[p] if arrays.memory else {}
        for name in arrays.memory:
            if values.get(name) is None:
                values[name] = torch.empty_like(p, requires_grad=False)
        # SGD counts no steps.
        if "exp_avg" in arrays.memory:
            values["step"] = torch.tensor(arrays.n_steps, dtype=torch.float32)
    for name, flat in arrays.memory.items():
        unflatten(flat, [optimizer.state[p][name] for p in parameters])
    # Schedulers of torch ask whether there was a step, which the optimiser itself notes otherwise.
    optimizer._opt_called = True
