"""What a file of `save` must hold, so that the estimator made of it predicts and goes on training.

A right checksum says that a file is whole, not that `save` wrote it. So each part is checked for
all that is done with it later: numbers and texts by tables in scikit-learn's form, arrays by the
shapes that the others have, and an optimiser by a step from where it stands.

Nothing that is only stated asks for memory or time: layers are as large as the arrays that are
there, and the few numbers that stand for sizes are limited. All checks raise ValueError, or let an
error of torch through.
"""

import re
import struct
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import assert_all_finite

from .._compat import Interval, StrOptions, validate_parameter_constraints
from .._network.mlp import ACTIVATIONS, OUTPUTS, as_probabilities, as_sizes, list_shapes
from .._training.optimizers import find_optimizer, read_signature
from .._training.state import load_optimizer
from .choices import (
    WAYS,
    check_history_size,
    make_parameters,
    make_short_step,
    resolve_device,
    takes_surely,
)
from .parameters import LARGEST, expect

# How deep lists and dicts may lie within each other; the description itself needs 5 levels.
MAX_DEPTH = 20
# The dtypes that labels may have: objects, which are strings then, strings, bools and numbers.
LABEL_DTYPE = re.compile(r"[<>|](O|U\d{1,9}|b1|[iu][1248]|f[248])")
# Bytes of an array of labels whose dtype has room for longer strings than any label.
MAX_LABEL_BYTES = 2**24
# What the kernel's optimisers remember of every parameter, by torch's names.
MOMENTS = ("exp_avg", "exp_avg_sq")
MEMORY = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: MOMENTS,
    torch.optim.AdamW: MOMENTS,
}
# What torch's L-BFGS remembers after a step.
LBFGS_MEMORY = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")

# float64 has all counts up to here, and whatever is added by training on, the kernel's ints have.
MOST = 2**53
COUNT = Interval(Integral, 0, MOST, closed="both")
SIZE = Interval(Integral, 1, 2**62, closed="left")
SETTINGS = {
    "activation": [StrOptions(set(ACTIVATIONS))],
    "output": [StrOptions(set(OUTPUTS))],
    "dropout": [tuple],
    "optimizer": [str],
    "optimizer_arguments": [dict],
    "batch_size": [SIZE],
    "shuffle": ["boolean"],
    "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    # As it is drawn: seeds of epochs have it in their upper half, of 64 bits with a sign.
    "seed": [Interval(Integral, 0, 2**31, closed="left")],
    "device": [str],
    "verbose": ["verbose"],
    "max_epochs": [SIZE],
}
STATE = {
    "parameters": [list],
    "memory": [dict],
    "n_steps": [COUNT],
    "optimizer": [list, None],
    "groups": [list, None],
    "generator": [np.ndarray],
}
RESULTS = {"first_epoch_": [COUNT], "diverged_": [str, None], "fused_reason_": [str, None]}
# What the rows of a history have in common; callbacks may record anything else.
HISTORY = {
    "epoch": [Integral],
    "train_loss": [Real],
    "valid_loss": [Real],
    "valid_score": [Real],
    "lr": [Interval(Real, 0, None, closed="left")],
    "dur": [Real],
    "train_batch_count": [COUNT],
    "valid_batch_count": [COUNT],
    "train_loss_best": ["boolean"],
    "valid_loss_best": ["boolean"],
}


def check_names(values, needed, allowed, what):
    """Check that something is a dict that has the names that it must and may have."""
    expect(isinstance(values, dict), f"{what} are a {type(values).__name__}, not a dict")
    missing = [name for name in needed if name not in values]
    expect(not missing, f"{what} lack {', '.join(missing)}")
    unknown = [str(name) for name in values if name not in allowed]
    expect(not unknown, f"{what} have {', '.join(unknown)}, which nothing is known of")


def check_table(values, table, what):
    """Check that something is a dict of the names of a table, and of what that says of them."""
    check_names(values, table, table, what)
    validate_parameter_constraints(table, values, f"{what} in the file")


def check_depth(value, depth=MAX_DEPTH):
    """Check that a description is not too deep."""
    expect(depth > 0, f"lists and dicts lie within each other more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            check_depth(item, depth - 1)


def check_parameters(estimator):
    """Check the parameters of an estimator as its next fit will, and what torch would refuse then.

    A device that is not available here becomes "cpu".
    """
    estimator.device = find_device(estimator.device)
    estimator._check_params()
    as_probabilities(estimator.dropout, len(as_sizes(estimator.hidden_layer_sizes)))
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


def make_classes(description):
    """Make the array of labels, sorted and each there once, of its "dtype" and "labels"."""
    check_names(description, ["dtype", "labels"], ["dtype", "labels"], "classes_")
    labels, dtype = description["labels"], description["dtype"]
    expect(isinstance(labels, list) and labels, "classes_ are no list of labels")
    expect(
        all(isinstance(label, bool | int | float | str) for label in labels), "labels are lists"
    )
    is_known = isinstance(dtype, str) and LABEL_DTYPE.fullmatch(dtype)
    expect(is_known, f"the dtype of classes_ is {dtype!r}, which labels cannot have")
    dtype = np.dtype(dtype).newbyteorder("=")
    is_text = all(isinstance(label, str) for label in labels)
    expect((dtype.kind in "OU") == is_text, f"labels such as {labels[0]!r} have no dtype {dtype}")
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
    assert_all_finite(classes, input_name="classes_")
    expect(
        np.array_equal(np.unique(classes), classes),
        f"classes_ are not sorted, or not each there once: {labels[:5]}",
    )
    return classes


def _check_text(strings):
    """Let half a character raise UnicodeEncodeError: pandas has no names and columns of such."""
    "".join(strings).encode()


def make_feature_names(names, n_features):
    """Make the array of the names of features."""
    is_right = isinstance(names, list) and all(isinstance(name, str) for name in names)
    expect(is_right, "the names of the features are not a list of strings")
    expect(len(names) == n_features, f"{len(names)} names are there for {n_features} features")
    expect(len(set(names)) == len(names), "some names of features are there twice")
    _check_text(names)
    return np.array(names, dtype=object)


def check_remembered(state):
    """Check how many dicts hold what an optimiser remembers, and that no lists lie within others.

    They are copied before each value is looked at: the copies are not to be large where the file
    is small.
    """
    parameters = state.get("parameters")
    n_parameters = len(parameters) if isinstance(parameters, list) else 0
    if state.get("groups") is None and state.get("optimizer") is None:
        return
    for name, length in (("groups", 1), ("optimizer", n_parameters)):
        values = state.get(name)
        is_right = isinstance(values, list) and len(values) == length
        is_right = is_right and all(isinstance(item, dict | None) for item in values)
        expect(is_right, f"{name} of the state must be dicts, {length} in number")
        is_flat = all(_is_flat(value) for item in values for value in (item or {}).values())
        expect(is_flat, f"{name} of the state has lists or dicts within others")


def _is_flat(value):
    items = value if isinstance(value, list | tuple) else [value]
    return not any(isinstance(item, dict | list | tuple) for item in items)


def check_training(training, noted, n_features, classes):
    """Check the description of a training, for so many features and these classes.

    `noted` is what the optimiser remembers, in tensors.
    """
    settings, state = training["settings"], training["state"]
    cls = find_optimizer(settings.get("optimizer"))
    check_table(settings, SETTINGS, "the settings")
    check_table(state, STATE, "the state")
    parameters, memory = state["parameters"], state["memory"]
    check_weights(parameters, n_features, len(classes))
    is_right = settings["output"] == "softmax" or classes.tolist() == [*range(len(classes))]
    expect(is_right, "the classes of several labels a row are not the numbers of the labels")
    dropout = settings["dropout"]
    is_right = as_probabilities(dropout, len(parameters) // 2 - 1) == dropout
    expect(is_right, f"dropout of the settings is {dropout!r}, which is no tuple of floats")
    check_history(training["history"], training["results"])
    check_generator(state["generator"])
    arguments, device = settings["optimizer_arguments"], torch.device(settings["device"])
    shapes = [p.shape for p in parameters]
    check_optimizer(cls, arguments, device, shapes, None if state["groups"] is None else noted)
    names = MEMORY.get(cls, ()) if memory else ()
    check_names(memory, names, names, "the memories of the optimizer")
    for name, values in memory.items():
        shape = (sum(p.size for p in parameters),)
        expect(_is_float32(values, shape), f"what the optimizer remembers as {name} is not right")
    expect(state["groups"] is None or not memory, "two optimizers remember something")


def _is_float32(value, shape):
    return isinstance(value, np.ndarray) and value.dtype == np.float32 and value.shape == shape


def check_weights(weights, n_features, n_classes):
    """Check weight and bias of each layer in turn."""
    is_right = all(
        # An array without elements may state any size.
        isinstance(p, np.ndarray) and p.size and _is_float32(p, p.shape) and np.isfinite(p).all()
        for p in weights
    )
    expect(is_right, "the parameters are not a list of finite float32 tensors")
    expect(weights and len(weights) % 2 == 0, "the parameters are not pairs of weight and bias")
    expect(all(weight.ndim == 2 for weight in weights[::2]), "a layer's weight is no matrix")
    sizes = [weights[0].shape[1], *map(len, weights[::2])]
    expect([p.shape for p in weights] == list_shapes(sizes), "the layers do not fit each other")
    expect(
        type(n_features) is int and (sizes[0], sizes[-1]) == (n_features, n_classes),
        f"the layers have other sizes than the features and classes: {sizes[0]} inputs and "
        f"{sizes[-1]} outputs for {n_features} features and {n_classes} classes",
    )


def check_generator(state):
    """Check the state of a generator, which torch reads without looking at all of it."""
    own = torch.Generator().get_state().numpy()
    is_right = (state.dtype, state.shape) == (own.dtype, own.shape)
    expect(is_right, "the generator's state is not one of torch's")
    # Of the Mersenne Twister: how many of its 624 numbers are left, whether it was seeded, and the
    # place of the next. torch compares each with 624 only, so that one could have it read on
    # behind the last number.
    left, seeded, place = struct.unpack_from("<iiQ", state[8:24].tobytes())
    is_right = seeded == 1 and ((left, place) == (1, 0) or (left >= 1 and left + place == 625))
    expect(is_right, "the generator's state points outside of its numbers")


def check_history(history, results):
    """Check the rows of the history, and the places in it that the results name."""
    expect(isinstance(history, list), "the history is not a list")
    for number, row in enumerate(history, start=1):
        check_names(row, ["epoch", "train_loss"], row, "an epoch of the history")
        expect(all(isinstance(name, str) for name in row), "a name in the history is no string")
        _check_text(text for text in (*row, *row.values()) if isinstance(text, str))
        validate_parameter_constraints(HISTORY, row, "the history in the file")
        is_right = row["epoch"] == number
        expect(is_right, f"epoch {number} of the history has the number {row['epoch']}")
    check_table(results, RESULTS, "the results")
    first = results["first_epoch_"]
    expect(first <= len(history), "first_epoch_ lies behind the end of the history")
    is_validated = {"valid_loss" in row for row in history[first:]}
    expect(len(is_validated) < 2, "only some epochs of the last training have a valid_loss")


def check_optimizer(cls, arguments, device, shapes=((2, 3), (2,)), noted=None):
    """Check that torch can make an optimiser of parameters of such shapes, and a step with it.

    It is a new one, or one that is where a note says.
    """
    known = read_signature(cls)
    check_names(arguments, ["lr"], known, f"the arguments of {cls.__name__}")
    _check_numbers(arguments, f"an argument of {cls.__name__}")
    if noted is None and takes_surely(cls, arguments):
        return
    parameters = make_parameters(shapes, device)
    optimizer = cls(parameters, **arguments)
    if noted is not None:
        what = f"a setting or memory of {cls.__name__}"
        _check_numbers([noted.groups, noted.optimizer], what)
        for values in noted.optimizer:
            _check_steps((values or {}).get("step", 0), what)
        load_optimizer(optimizer, parameters, noted)
    [group] = optimizer.param_groups
    if issubclass(cls, torch.optim.LBFGS):
        n_weights = sum(p.numel() for p in parameters)
        _check_lbfgs(optimizer.state.get(parameters[0], {}), group["history_size"], n_weights)
    # torch's own checks are in the constructor, and in compiled steps, which take fewer types.
    # Schedulers of torch begin at initial_lr.
    for lr in (group["lr"], group.get("initial_lr", group["lr"])):
        options = {name: group[name] for name in known if name != "params"} | {"lr": lr}
        make_short_step(cls(make_parameters([1]), **options))
    # The step that compares all shapes.
    group.update({name: False for name in WAYS if name in group})
    make_short_step(optimizer)


def _check_lbfgs(memory, size, n_weights):
    """Check what L-BFGS remembers: which part of it a step uses depends on the gradients."""
    check_history_size(size)
    places = memory.get("al", [])
    is_right = isinstance(places, list) and ("al" not in memory or len(places) >= size)
    expect(is_right, f"LBFGS has no places for a history_size of {size}")
    if not memory.get("n_iter"):
        # It begins anew.
        return
    check_names(memory, LBFGS_MEMORY, memory, "the memories of LBFGS")
    lists = [memory[name] for name in ("old_dirs", "old_stps", "ro")]
    expect(all(isinstance(items, list) for items in lists), "a memory of LBFGS is no list")
    gradients, steps, products = lists
    is_right = len(gradients) == len(steps) == len(products) <= size
    expect(is_right, f"the memories of LBFGS are not as long as a history_size of {size} allows")
    vectors = [memory["d"], memory["prev_flat_grad"], *gradients, *steps]
    is_right = all(torch.is_tensor(value) and value.shape == (n_weights,) for value in vectors)
    numbers = [memory["t"], memory["H_diag"], *products]
    is_right = is_right and all(
        isinstance(n, Real) or (torch.is_tensor(n) and n.ndim == 0) for n in numbers
    )
    expect(is_right, "the memories of LBFGS have not the shapes of all weights and of numbers")


def _check_numbers(value, what):
    """Check that tensors are of float32, and that numbers are finite there."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(item, what)
    elif isinstance(value, torch.Tensor):
        expect(value.dtype == torch.float32, f"{what} has the dtype {value.dtype}, not float32")
        if value.ndim == 0:
            _check_numbers(value.item(), what)
    elif isinstance(value, Real):
        expect(abs(value) <= LARGEST, f"{what} is {value}")


def _check_steps(steps, what):
    """Check a number of steps, which torch keeps in a tensor: the kernel counts them in ints."""
    if isinstance(steps, torch.Tensor) and steps.ndim == 0:
        steps = steps.item()
    is_right = isinstance(steps, Real) and 0 <= steps <= MOST and steps % 1 == 0
    expect(is_right, f"{what} is {steps} steps, which cannot be counted")
