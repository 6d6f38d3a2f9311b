"""What a file of `save` must hold, so that the estimator made of it predicts and goes on training.

A right checksum says that a file is whole, not that `save` wrote it. So each part is checked for
all that is done with it later: here what is in the file is compared with what torch, the network
and the estimator make themselves. All checks raise ValueError or let an error of torch through.

Nothing that is only stated asks for memory or time: layers are as large as the tensors that are
there, and the few numbers that stand for sizes are limited.
"""

import copy
import inspect
import struct
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
import torch

from ._compat import Interval, StrOptions, validate_parameter_constraints
from ._device import resolve_device
from ._module import ACTIVATIONS, _as_probabilities, _as_sizes

# How deep lists and dicts may lie within each other; the description itself needs 5 levels.
MAX_DEPTH = 20
# Bytes of an array of labels whose dtype has room for longer strings than any label.
MAX_LABEL_BYTES = 2**24
# L-BFGS makes a list of so many items.
MAX_HISTORY_SIZE = 2**20
# Larger numbers are infinite in float32, which torch refuses in the middle of a step.
LARGEST = float(np.finfo(np.float32).max)

POSITIVE = Interval(Real, 0, LARGEST, closed="right")
COUNT = Interval(Integral, 1, 2**63 - 1, closed="both")
NOT_NEGATIVE = Interval(Real, 0, LARGEST, closed="both")

# The settings of a net that it does not get from elsewhere; besides, `optimizer__*`.
SETTINGS = {
    "seed": [Interval(Integral, 0, 2**32 - 1, closed="both")],
    "lr": [POSITIVE],
    "lr_schedule": [StrOptions({"constant", "cosine", "one_cycle"})],
    "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "max_epochs": [COUNT],
    "batch_size": [COUNT],
    "shuffle": ["boolean"],
    "fused": ["boolean", StrOptions({"auto"})],
    "verbose": ["verbose"],
    "optimizer": [type],
    "module__activation": [StrOptions(set(ACTIVATIONS))],
    "module__dropout": ["array-like", Interval(Real, 0, 1, closed="left")],
}
# What a training leaves on a net besides its state and its history.
RESULTS = {
    "first_epoch_": [Interval(Integral, 0, None, closed="left")],
    "schedule_start_": [Interval(Integral, 0, None, closed="left")],
    "diverged_": [str, None],
    "fused_reason_": [str, None],
}
# What the rows of a history have in common; callbacks may record anything else.
HISTORY = {
    "epoch": [Integral],
    "train_loss": [Real],
    "valid_loss": [Real],
    "valid_score": [Real],
    "lr": [NOT_NEGATIVE],
    "dur": [NOT_NEGATIVE],
    "train_batch_count": [Interval(Integral, 0, None, closed="left")],
    "valid_batch_count": [Interval(Integral, 0, None, closed="left")],
    "train_loss_best": ["boolean"],
    "valid_loss_best": ["boolean"],
}


def expect(is_right, what):
    """Raise ValueError, with what is wrong in words, if something is not right."""
    if not is_right:
        raise ValueError(what)


def check_plain(value, depth=MAX_DEPTH):
    """Check that a description is not too deep, and that its ints have at most 64 bits."""
    expect(depth > 0, f"lists and dicts lie within each other more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict | list | tuple):
        for item in value:
            check_plain(item, depth - 1)
        if isinstance(value, dict):
            check_plain([*value.values()], depth)
    elif isinstance(value, int):
        expect(-(2**63) <= value < 2**64, "there is an int of more than 64 bits")


def check_names(values, needed, allowed, what):
    """Check that something is a dict that has the names that it must and may have."""
    expect(isinstance(values, dict), f"{what} are a {type(values).__name__}, not a dict")
    missing = [name for name in needed if name not in values]
    expect(not missing, f"{what} lack {', '.join(missing)}")
    unknown = [str(name) for name in values if name not in allowed]
    expect(not unknown, f"{what} have {', '.join(unknown)}, which nothing is known of")


def check_parameters(estimator):
    """Check the parameters of an estimator as its next fit will, and what torch would refuse then.

    Parameters
    ----------
    estimator : MLPDiskClassifier
        The estimator. A device that is not available here becomes "cpu".
    """
    estimator.device = find_device(estimator.device)
    estimator._check_params()
    sizes = _as_sizes(estimator.hidden_layer_sizes)
    _as_probabilities(estimator.dropout, len(sizes))
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, int):
            expect(value < 2**63, f"the parameter {name} is {value}, which is more than 2**63 - 1")
    cls, arguments = estimator._resolve_optimizer()
    check_optimizer(cls, arguments, resolve_device(estimator.device))


def find_device(device):
    """Return a device if it is available here, else "cpu"."""
    try:
        resolve_device(device)
    except ValueError:
        expect(isinstance(device, str), f"the device is a {type(device).__name__}, not a string")
        # torch refuses what no machine has.
        torch.device(device)
        return "cpu"
    return device


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


def check_settings(settings, device):
    """Check the settings of a net for a device; a foreign optimiser may be missing."""
    expect(isinstance(settings, dict), "the settings are not a dict")
    needed = [name for name in SETTINGS if name != "optimizer"]
    names = [name for name in settings if str(name).startswith("optimizer__")]
    check_names(settings, needed, {*SETTINGS, *names}, "the settings")
    expect("optimizer" in settings or not names, "the settings have arguments of no optimizer")
    validate_parameter_constraints(SETTINGS, settings, "network in the file")
    if "optimizer" in settings:
        arguments = {name.removeprefix("optimizer__"): settings[name] for name in names}
        check_optimizer(settings["optimizer"], arguments, device)


def make_classes(description):
    """Make the array of labels from its dtype and a list.

    Parameters
    ----------
    description : dict
        "dtype" and "labels".

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted labels, each once.
    """
    check_names(description, ["dtype", "labels"], ["dtype", "labels"], "classes_")
    labels, dtype = description["labels"], description["dtype"]
    expect(isinstance(labels, list) and labels, "classes_ are no list of labels")
    expect(
        all(isinstance(label, bool | int | float | str) for label in labels), "labels are lists"
    )
    expect(isinstance(dtype, str), "the dtype of classes_ is not a string")
    dtype = np.dtype(dtype).newbyteorder("=")
    is_text = all(isinstance(label, str) for label in labels)
    expect(
        dtype.kind in "OU" if is_text else dtype.kind in "biuf" and dtype.itemsize <= 8,
        f"labels such as {labels[0]!r} have no dtype {dtype}",
    )
    if dtype.kind == "U":
        n_bytes = len(labels) * dtype.itemsize
        expect(
            n_bytes <= max(MAX_LABEL_BYTES, 4 * sum(map(len, labels))),
            f"classes_ have room for strings of {dtype.itemsize // 4} characters, {n_bytes} bytes "
            "in all. Convert the labels to dtype object before fitting",
        )
    classes = np.array(labels, dtype=dtype)
    kept = classes.tolist()
    expect(
        kept == labels and [*map(type, kept)] == [*map(type, labels)],
        f"the labels {labels[:5]} cannot be an array of dtype {dtype}",
    )
    expect(
        np.array_equal(np.unique(classes), classes),
        f"classes_ are not sorted, or not each there once: {labels[:5]}",
    )
    return classes


def make_feature_names(names, n_features):
    """Make the array of the names of features, or None if there are none."""
    if names is None:
        return None
    is_right = isinstance(names, list) and all(isinstance(name, str) for name in names)
    expect(is_right, "the names of the features are not a list of strings")
    expect(len(names) == n_features, f"{len(names)} names are there for {n_features} features")
    return np.array(names, dtype=object)


def check_weights(weights, n_features, n_classes):
    """Check weights and biases, and find the sizes of the hidden layers.

    Parameters
    ----------
    weights : list of tensor
        weight and bias of each layer in turn.
    n_features, n_classes : int
        The sizes that the rest of the file states.

    Returns
    -------
    hidden_layer_sizes : list of int
        As many units as the tensors have.
    """
    is_right = isinstance(weights, list) and all(_is_weight(p) for p in weights)
    expect(is_right, "the parameters are not a list of finite float32 tensors")
    expect(weights and len(weights) % 2 == 0, "the parameters are not pairs of weight and bias")
    expect(all(weight.ndim == 2 for weight in weights[::2]), "a layer's weight is no matrix")
    sizes = [weights[0].shape[1], *map(len, weights[::2])]
    shapes = [shape for n_in, n_out in pairwise(sizes) for shape in ((n_out, n_in), (n_out,))]
    expect([*map(tuple_of, weights)] == shapes, "the layers do not fit each other")
    expect(
        type(n_features) is int and (sizes[0], sizes[-1]) == (n_features, n_classes),
        f"the layers have other sizes than the features and classes: {sizes[0]} inputs and "
        f"{sizes[-1]} outputs for {n_features} features and {n_classes} classes",
    )
    return sizes[1:-1]


def tuple_of(tensor):
    """Return the shape of a tensor as a tuple."""
    return tuple(tensor.shape)


def _is_weight(value):
    # A tensor without elements may state any size.
    is_filled = isinstance(value, torch.Tensor) and value.numel() > 0
    return is_filled and value.dtype == torch.float32 and bool(value.isfinite().all())


def check_generator(state):
    """Check the state of a generator, which torch reads without looking at all of it."""
    own = torch.Generator().get_state()
    is_right = isinstance(state, torch.Tensor) and state.dtype == own.dtype
    expect(is_right and state.shape == own.shape, "the generator's state is not one of torch's")
    # Of the Mersenne Twister: how many of its 624 numbers are left, whether it was seeded, and the
    # place of the next. torch compares each with 624 only, so that one could have it read on
    # behind the last number.
    left, seeded, place = struct.unpack_from("<iiQ", state[8:24].numpy().tobytes())
    is_right = seeded == 1 and ((left, place) == (1, 0) or (left >= 1 and left + place == 625))
    expect(is_right, "the generator's state points outside of its numbers")


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
        for name, value in group.items():
            # Schedules of torch add numbers, such as initial_lr.
            is_right = _is_like(value, defaults[name]) if name in defaults else _is_number(value)
            is_right = value is None if name == "params" else is_right
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


def _is_memory(value, model):
    """Tell whether something to remember has the shape and dtype of another such thing."""
    if not isinstance(model, torch.Tensor):
        return _is_number(value) and value >= 0 if _is_number(model) else value == model
    is_like = isinstance(value, torch.Tensor) and value.dtype == model.dtype
    if not is_like or value.shape != model.shape:
        return False
    # Numbers are counts and factors, with which torch divides.
    return value.ndim > 0 or 0 <= value.item() <= LARGEST


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

    def is_number(value):
        is_tensor = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return _is_number(value) or (is_tensor and value.ndim == 0)

    def is_flat(value):
        is_tensor = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return is_tensor and value.shape == (n_weights,)

    kinds = {
        "func_evals": lambda value: _is_count(value),
        "n_iter": lambda value: _is_count(value),
        "d": is_flat,
        "t": is_number,
        "old_dirs": lambda value: isinstance(value, list) and all(map(is_flat, value)),
        "old_stps": lambda value: isinstance(value, list) and all(map(is_flat, value)),
        "ro": lambda value: isinstance(value, list) and all(map(is_number, value)),
        "H_diag": is_number,
        "prev_flat_grad": is_flat,
        "prev_loss": is_number,
        "al": lambda value: (
            isinstance(value, list) and all(item is None or is_number(item) for item in value)
        ),
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
    expect(len(state.get("al", range(size))) == size, "what LBFGS remembers as al is too short")


def _is_count(value):
    return type(value) is int and value >= 0


def check_history(history, results):
    """Check the rows of the history, and the places in it that the results name."""
    expect(isinstance(history, list), "the history is not a list")
    for number, row in enumerate(history, start=1):
        names = row if isinstance(row, dict) else []
        check_names(row, ["epoch", "train_loss"], names, "an epoch of the history")
        expect(all(isinstance(name, str) for name in row), "a name in the history is no string")
        validate_parameter_constraints(HISTORY, row, "history in the file")
        expect(
            row["epoch"] == number, f"epoch {number} of the history has the number {row['epoch']}"
        )
    check_names(results, RESULTS, results, "the results")
    validate_parameter_constraints(RESULTS, results, "training in the file")
    for name, value in results.items():
        is_place = not isinstance(value, int) or value <= len(history)
        expect(is_place, f"{name} lies behind the end of the history")
    is_validated = {"valid_loss" in row for row in history[results["first_epoch_"] :]}
    expect(len(is_validated) < 2, "only some epochs of the last training have a valid_loss")
