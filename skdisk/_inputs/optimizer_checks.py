"""Checks of optimisers in a file of `save`: what each takes, and what it remembers.

torch has many optimisers, and its own checks are few. So what a file has is compared with what the
same optimiser has by default, and with what it remembers after a step of its own.
"""

import copy
import inspect
from numbers import Integral, Real

import numpy as np
import torch

from .file_format import check_names, expect

# L-BFGS makes a list of so many items.
MAX_HISTORY_SIZE = 2**20
# Larger numbers are infinite in float32, which torch refuses in the middle of a step.
LARGEST = float(np.finfo(np.float32).max)
# Steps are counted in ints of 64 bits.
LARGEST_COUNT = 2.0**62


def check_optimizer(cls, arguments, device):
    """Check that torch can make an optimiser and a step with it."""
    is_right = isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)
    expect(is_right, f"the optimizer is {cls!r}, which is none of torch.optim")
    known = inspect.signature(cls).parameters
    for name, value in arguments.items():
        expect(name in known, f"{cls.__name__} has no argument {name}")
        expect(
            _is_like(value, known[name].default),
            f"{cls.__name__} cannot have {name}={value!r}: its default is {known[name].default!r}",
        )
    parameters = [torch.zeros(shape, device=device, requires_grad=True) for shape in ((2, 3), 2)]
    make_expected_state(cls(parameters, **{"lr": 1.0, **arguments}))


def make_expected_state(optimizer):
    """Make a step with a copy of an optimiser, and return what it then remembers.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Any but L-BFGS, whose step has no limit; of that one, the options are checked.

    Returns
    -------
    state : list of dict
        What is remembered of each parameter.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        _check_lbfgs_options(optimizer.param_groups[0])
        return None
    optimizer = copy.deepcopy(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return [optimizer.state.get(p, {}) for p in parameters]


def check_groups(optimizer, groups):
    """Check the settings of an optimiser: of the kind of those that it has itself.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        As the settings of the net make it.
    groups : list of dict
        From `copy_state`.
    """
    own = optimizer.param_groups
    expect(
        isinstance(groups, list) and len(groups) == len(own), f"there must be {len(own)} groups"
    )
    cls = type(optimizer)
    arguments = inspect.signature(cls).parameters
    for group, defaults in zip(groups, own, strict=True):
        expect(isinstance(group, dict), "an optimizer's group is not a dict")
        # Schedulers of torch begin there. Other names may be an older torch's.
        models = {**defaults, "initial_lr": defaults["lr"]}
        for name, value in group.items():
            is_right = value is None if name == "params" else _is_like(value, models.get(name))
            expect(is_right, f"{cls.__name__} cannot have {name}={value!r}")
        values = {**defaults, **group}
        # torch's own checks are in the constructor only.
        cls([torch.zeros(1)], **{name: values[name] for name in arguments if name != "params"})


def check_optimizer_state(optimizer, groups, states):
    """Check what an optimiser remembers of each parameter: as after a step of its own.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        As the settings of the net make it.
    groups : list of dict
        Checked settings.
    states : list of (dict or None)
        One for each parameter.
    """
    optimizer = copy.deepcopy(optimizer)
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        own.update({name: value for name, value in group.items() if name != "params"})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    is_right = isinstance(states, list) and len(states) == len(parameters)
    expect(is_right, f"what the optimizer remembers must be a list of {len(parameters)}")
    expect(all(isinstance(state, dict | None) for state in states), "it is not a list of dicts")
    expected = make_expected_state(optimizer)
    if expected is None:
        _check_lbfgs_state(optimizer, parameters, states)
        return
    for p, state, after_step in zip(parameters, states, expected, strict=True):
        before_step = optimizer.state.get(p)
        # What is not there before the first step is made by it.
        if not state and not before_step:
            continue
        names = after_step.keys() | (state or {}).keys()
        check_names(state or {}, after_step, names, "the memories of the optimizer")
        for name, value in state.items():
            # An option that is off now may have been on.
            model = after_step.get(name, p)
            expect(
                _is_memory(value, model), f"what the optimizer remembers as {name} is not right"
            )


def _is_like(value, model):
    """Tell whether an argument of an optimiser is of the kind of another value of it."""
    if isinstance(model, bool):
        return isinstance(value, bool)
    if isinstance(model, Real):
        return _is_number(value)
    if isinstance(model, tuple):
        is_pair = isinstance(value, list | tuple) and len(value) == len(model)
        return is_pair and all(map(_is_like, value, model))
    return value is None or isinstance(value, bool | str) or _is_number(value)


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_memory(value, model):
    """Tell whether something to remember has the shape and dtype of another such thing."""
    if not isinstance(model, torch.Tensor):
        return _is_number(value) and value >= 0 if _is_number(model) else value == model
    is_like = isinstance(value, torch.Tensor) and value.dtype == model.dtype
    if not is_like or value.shape != model.shape:
        return False
    # Numbers are counts and factors, with which torch divides.
    return value.ndim > 0 or 0 <= value.item() <= LARGEST_COUNT


def _check_lbfgs_options(group):
    counts = [group[name] for name in ("max_iter", "max_eval", "history_size")]
    is_right = all(isinstance(count, Integral) and count >= 1 for count in counts)
    expect(is_right and counts[-1] <= MAX_HISTORY_SIZE, f"LBFGS cannot count to {counts}")
    line_search = group["line_search_fn"]
    expect(line_search in (None, "strong_wolfe"), f"LBFGS has no line search {line_search!r}")


def _check_lbfgs_state(optimizer, parameters, states):
    """Check the state of L-BFGS, which is one for all parameters and has lists that grow."""
    state, *others = (state or {} for state in states)
    expect(not any(others), "LBFGS remembers all with the first parameter")
    if not state:
        return
    n_weights = sum(p.numel() for p in parameters)

    def is_count(value):
        return type(value) is int and 0 <= value < 2**62

    def is_number(value):
        return _is_number(value) or is_shaped(value, ())

    def is_flat(value):
        return is_shaped(value, (n_weights,))

    def is_shaped(value, shape):
        is_tensor = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return is_tensor and value.shape == shape

    def is_list(value, is_item):
        return isinstance(value, list) and all(map(is_item, value))

    kinds = {
        "func_evals": is_count,
        "n_iter": is_count,
        "d": is_flat,
        "t": is_number,
        "old_dirs": lambda value: is_list(value, is_flat),
        "old_stps": lambda value: is_list(value, is_flat),
        "ro": lambda value: is_list(value, is_number),
        "H_diag": is_number,
        "prev_flat_grad": is_flat,
        "prev_loss": is_number,
        "al": lambda value: is_list(value, lambda item: item is None or is_number(item)),
    }
    # A training that found nothing to do has only counted; one without a second step has no al.
    needed = kinds.keys() - {"al"} if state.get("n_iter") else ["func_evals", "n_iter"]
    check_names(state, needed, kinds, "the memories of LBFGS")
    for name, value in state.items():
        expect(kinds[name](value), f"what LBFGS remembers as {name} is not right")
    n_old = len(state.get("ro", []))
    size = optimizer.param_groups[0]["history_size"]
    lengths = {len(state.get(name, [])) for name in ("old_dirs", "old_stps", "ro")}
    expect(lengths == {n_old} and n_old <= size, "what LBFGS remembers differs in length")
    expect(len(state.get("al", range(size))) >= size, "what LBFGS remembers as al is too short")
