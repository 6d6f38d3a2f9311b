"""What a file of `save` must hold, so that the estimator made of it predicts and goes on training.

A right checksum says that a file is whole, not that `save` wrote it. So each part is checked for
all that is done with it later: by tables that say of each name what it may be. Where torch knows
that better, a table is made from what torch itself has at that place.

Nothing that is only stated asks for memory or time: layers are as large as the arrays that are
there, and the few numbers that stand for sizes are limited. All checks raise ValueError, or let an
error of torch through.
"""

import inspect
import math
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch

from .._network.mlp import ACTIVATIONS, as_probabilities, as_sizes
from .._training.description import find_optimizer
from .choices import resolve_device

# How deep lists and dicts may lie within each other; the description itself needs 5 levels.
MAX_DEPTH = 20
# The dtypes that labels may have: objects, which are strings then, strings, bools and numbers.
LABEL_DTYPE = re.compile(r"[<>|](O|U\d{1,9}|b1|[iu][1248]|f[248])")
# Bytes of an array of labels whose dtype has room for longer strings than any label.
MAX_LABEL_BYTES = 2**24
# L-BFGS makes a list of so many items.
MAX_HISTORY_SIZE = 2**20
# Larger numbers are infinite in float32, which torch refuses in the middle of a step.
LARGEST = float(np.finfo(np.float32).max)
# What the kernel's optimisers remember of every parameter, by torch's names.
MOMENTS = ("exp_avg", "exp_avg_sq")
MEMORY = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: MOMENTS,
    torch.optim.AdamW: MOMENTS,
}


class Kind(NamedTuple):
    """What a value may be: in words, and what tells whether it is."""

    words: str
    fits: Callable


def number(low, high, kind=Real):
    """Make the kind of numbers in a range, which are no bools and not NaN."""

    def fits(value):
        return isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high

    return Kind(f"{'an int' if kind is Integral else 'a number'} from {low:g} to {high:g}", fits)


def array(shape, dtype=np.float32, is_finite=False):
    """Make the kind of arrays of a dtype and shape."""
    words = f"an array of {'finite ' if is_finite else ''}{np.dtype(dtype)} of shape {shape}"

    def fits(value):
        is_like = isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == shape
        return is_like and not (is_finite and not np.isfinite(value).all())

    return Kind(words, fits)


def list_of(kind):
    """Make the kind of lists of any length."""
    return Kind(
        f"a list, each item {kind.words}",
        lambda value: isinstance(value, list) and all(map(kind.fits, value)),
    )


def either(*kinds):
    """Make the kind of what is of one of several."""
    words = " or ".join(kind.words for kind in kinds)
    return Kind(words, lambda value: any(kind.fits(value) for kind in kinds))


def one_of(*values):
    """Make the kind of some values."""
    words = f"one of {', '.join(map(repr, values))}"
    return Kind(words, lambda value: any(type(value) is type(v) and value == v for v in values))


ANY_REAL = Kind("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool))
NUMBER, NOT_NEGATIVE = number(-LARGEST, LARGEST), number(0, LARGEST)
COUNT, SIZE = number(0, 2**62, Integral), number(1, 2**62, Integral)
BOOL, NONE = one_of(False, True), one_of(None)
TEXT = Kind("a string", lambda value: isinstance(value, str))
DICT = Kind("a dict", lambda value: isinstance(value, dict))
# With which an optimiser divides, in an array without dimensions.
FACTOR = Kind(
    "a number of float32, at least 0, in an array without dimensions",
    lambda value: array(()).fits(value) and NOT_NEGATIVE.fits(value.item()),
)

SETTINGS = {
    "activation": one_of(*ACTIVATIONS),
    "dropout": Kind("checked with the layers", lambda value: True),
    "optimizer": TEXT,
    "optimizer_arguments": DICT,
    "batch_size": SIZE,
    "shuffle": BOOL,
    "clip_grad_norm": either(number(5e-324, math.inf), NONE),
    "seed": number(0, 2**32 - 1, Integral),
    "device": TEXT,
    "verbose": COUNT,
    "max_epochs": SIZE,
}
RESULTS = {
    "first_epoch_": COUNT,
    "diverged_": either(TEXT, NONE),
    "fused_reason_": either(TEXT, NONE),
}
# What the rows of a history have in common; callbacks may record anything else.
HISTORY = {
    "epoch": COUNT,
    "train_loss": ANY_REAL,
    "valid_loss": ANY_REAL,
    "valid_score": ANY_REAL,
    "lr": number(0, math.inf),
    "dur": ANY_REAL,
    "train_batch_count": COUNT,
    "valid_batch_count": COUNT,
    "train_loss_best": BOOL,
    "valid_loss_best": BOOL,
}
# Of L-BFGS, besides numbers.
LBFGS = {
    "max_iter": SIZE,
    "max_eval": SIZE,
    "history_size": number(1, MAX_HISTORY_SIZE, Integral),
    "line_search_fn": one_of(None, "strong_wolfe"),
}


def expect(is_right, what):
    """Raise ValueError, with what is wrong in words, if something is not right."""
    if not is_right:
        raise ValueError(what)


def check_names(values, needed, allowed, what):
    """Check that something is a dict that has the names that it must and may have."""
    expect(isinstance(values, dict), f"{what} are a {type(values).__name__}, not a dict")
    missing = [name for name in needed if name not in values]
    expect(not missing, f"{what} lack {', '.join(missing)}")
    unknown = [str(name) for name in values if name not in allowed]
    expect(not unknown, f"{what} have {', '.join(unknown)}, which nothing is known of")


def check_kinds(values, table, what):
    """Check that what is in a dict is what a table says of its name, where it says something."""
    for name, value in values.items():
        if name in table:
            expect(
                table[name].fits(value),
                f"{name} of {what} must be {table[name].words}, and is {_show(value)}",
            )


def check_table(values, table, what):
    """Check that something is a dict of the names of a table, and of what that says of them."""
    check_names(values, table, table, what)
    check_kinds(values, table, what)


def _show(value):
    text = repr(value)
    return text if len(text) < 100 else f"{text[:100]}..."


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


def check_parameters(estimator):
    """Check the parameters of an estimator as its next fit will, and what torch would refuse then.

    A device that is not available here becomes "cpu".
    """
    estimator.device = find_device(estimator.device)
    estimator._check_params()
    sizes = as_sizes(estimator.hidden_layer_sizes)
    as_probabilities(estimator.dropout, len(sizes))
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, int):
            expect(value < 2**63, f"the parameter {name} is {value}, which is more than 2**63 - 1")
    cls, arguments = estimator._resolve_optimizer()
    lr = {} if isinstance(estimator.lr, str) else {"lr": estimator.lr}
    check_optimizer(cls, {**arguments, **lr}, resolve_device(estimator.device))


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
    expect(
        np.array_equal(np.unique(classes), classes),
        f"classes_ are not sorted, or not each there once: {labels[:5]}",
    )
    return classes


def make_feature_names(names, n_features):
    """Make the array of the names of features."""
    expect(list_of(TEXT).fits(names), "the names of the features are not a list of strings")
    expect(len(names) == n_features, f"{len(names)} names are there for {n_features} features")
    expect(len(set(names)) == len(names), "some names of features are there twice")
    return np.array(names, dtype=object)


def check_training(training, n_features, n_classes):
    """Check what `describe` gave of a training, for so many features and classes."""
    settings, state = training["settings"], training["state"]
    check_table(settings, SETTINGS, "the settings")
    names = ("parameters", "memory", "n_steps", "optimizer", "groups", "generator")
    check_names(state, names, names, "the parts of the state")
    n_layers = check_weights(state["parameters"], n_features, n_classes)
    as_probabilities(settings["dropout"], n_layers - 1)
    check_history(training["history"], training["results"])
    check_generator(state["generator"])
    cls = find_optimizer(settings["optimizer"])
    arguments = settings["optimizer_arguments"]
    check_names(arguments, ["lr"], arguments, "the arguments of the optimizer")
    check_kinds(arguments, {"lr": NOT_NEGATIVE}, "the settings")
    check_optimizer(cls, arguments, torch.device(settings["device"]))
    if state["groups"] is None:
        expect(state["optimizer"] is None, "an optimizer without settings remembers something")
        check_memory_of_kernel(cls, state)
    else:
        expect(not state["memory"] and state["n_steps"] == 0, "there are two optimizers' memories")
        tensors = [torch.zeros(p.shape, requires_grad=True) for p in state["parameters"]]
        optimizer = cls(tensors, **arguments)
        check_groups(optimizer, state["groups"])
        check_optimizer_state(optimizer, state["optimizer"])


def check_weights(weights, n_features, n_classes):
    """Check weight and bias of each layer in turn, and count the layers."""
    # An array without elements may state any size.
    is_right = isinstance(weights, list) and all(
        isinstance(p, np.ndarray) and p.size and array(p.shape, is_finite=True).fits(p)
        for p in weights
    )
    expect(is_right, "the parameters are not a list of finite float32 tensors")
    expect(weights and len(weights) % 2 == 0, "the parameters are not pairs of weight and bias")
    expect(all(weight.ndim == 2 for weight in weights[::2]), "a layer's weight is no matrix")
    sizes = [weights[0].shape[1], *map(len, weights[::2])]
    shapes = [shape for n_in, n_out in pairwise(sizes) for shape in ((n_out, n_in), (n_out,))]
    expect([p.shape for p in weights] == shapes, "the layers do not fit each other")
    expect(
        type(n_features) is int and (sizes[0], sizes[-1]) == (n_features, n_classes),
        f"the layers have other sizes than the features and classes: {sizes[0]} inputs and "
        f"{sizes[-1]} outputs for {n_features} features and {n_classes} classes",
    )
    return len(sizes) - 1


def check_generator(state):
    """Check the state of a generator, which torch reads without looking at all of it."""
    own = torch.Generator().get_state().numpy()
    expect(array(own.shape, own.dtype).fits(state), "the generator's state is not one of torch's")
    # Of the Mersenne Twister: how many of its 624 numbers are left, whether it was seeded, and the
    # place of the next. torch compares each with 624 only, so that one could have it read on
    # behind the last number.
    left, seeded, place = struct.unpack_from("<iiQ", state[8:24].tobytes())
    is_right = seeded == 1 and ((left, place) == (1, 0) or (left >= 1 and left + place == 625))
    expect(is_right, "the generator's state points outside of its numbers")


def check_history(history, results):
    """Check the rows of the history, and the places in it that the results name."""
    expect(isinstance(history, list), "the history is not a list")
    for number_, row in enumerate(history, start=1):
        names = row if isinstance(row, dict) else []
        check_names(row, ["epoch", "train_loss"], names, "an epoch of the history")
        expect(all(isinstance(name, str) for name in row), "a name in the history is no string")
        check_kinds(row, HISTORY, "the history")
        expect(
            row["epoch"] == number_,
            f"epoch {number_} of the history has the number {row['epoch']}",
        )
    check_table(results, RESULTS, "the results")
    first = results["first_epoch_"]
    expect(first <= len(history), "first_epoch_ lies behind the end of the history")
    is_validated = {"valid_loss" in row for row in history[first:]}
    expect(len(is_validated) < 2, "only some epochs of the last training have a valid_loss")


def check_optimizer(cls, arguments, device):
    """Check that torch can make an optimiser and a step with it."""
    is_right = isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)
    expect(is_right, f"the optimizer is {cls!r}, which is none of torch.optim")
    known = inspect.signature(cls).parameters
    check_names(arguments, [], known, f"the arguments of {cls.__name__}")
    table = {name: _find_kind(p.default) for name, p in known.items()}
    check_kinds(arguments, table, f"{cls.__name__}")
    parameters = [torch.zeros(shape, device=device, requires_grad=True) for shape in ((2, 3), 2)]
    _make_step(cls(parameters, **{"lr": 1.0, **arguments}))


def check_memory_of_kernel(cls, state):
    """Check what the kernel's optimiser remembers, in flat arrays."""
    n_parameters = sum(p.size for p in state["parameters"])
    names = MEMORY.get(cls, ())
    memory, table = state["memory"], {name: array((n_parameters,)) for name in names}
    check_names(memory, table if memory else [], table, "the memories of the optimizer")
    check_kinds(memory, table, "what the optimizer remembers")
    check_kinds(state, {"n_steps": COUNT}, "the state")


def check_groups(optimizer, groups):
    """Check the settings of an optimiser, and give them to it: of the kind of those it has."""
    cls, own = type(optimizer), optimizer.param_groups
    is_right = isinstance(groups, list) and len(groups) == len(own)
    expect(is_right, f"there must be {len(own)} groups")
    arguments = [name for name in inspect.signature(cls).parameters if name != "params"]
    for group, defaults in zip(groups, own, strict=True):
        expect(isinstance(group, dict), "an optimizer's group is not a dict")
        # Schedulers of torch begin at initial_lr. Other names may be an older torch's.
        models = {**dict.fromkeys(group), **defaults, "initial_lr": defaults["lr"]}
        table = {name: _find_kind(value) for name, value in models.items()}
        check_kinds(group, {**table, "params": NONE}, f"{cls.__name__}'s group")
        defaults.update({name: value for name, value in group.items() if name != "params"})
        # torch's own checks are in the constructor only.
        cls([torch.zeros(1)], **{name: defaults[name] for name in arguments})


def check_optimizer_state(optimizer, states):
    """Check what an optimiser remembers of each parameter: as after a step of its own."""
    parameters = optimizer.param_groups[0]["params"]
    is_right = isinstance(states, list) and len(states) == len(parameters)
    expect(is_right, f"what the optimizer remembers must be a list of {len(parameters)}")
    expect(list_of(either(DICT, NONE)).fits(states), "the memories are not a list of dicts")
    if isinstance(optimizer, torch.optim.LBFGS):
        _check_lbfgs(optimizer, states)
        return
    before = [bool(optimizer.state.get(p)) for p in parameters]
    _make_step(optimizer)
    for p, state, is_needed in zip(parameters, states, before, strict=True):
        # What is not there before the first step is made by it.
        if not state and not is_needed:
            continue
        expected = {name: _find_kind(v, is_memory=True) for name, v in optimizer.state[p].items()}
        # An option that is off now may have been on.
        table = {**dict.fromkeys(state or {}, array(tuple(p.shape))), **expected}
        check_names(state or {}, expected, table, "the memories of the optimizer")
        check_kinds(state, table, "what the optimizer remembers")


def _make_step(optimizer):
    """Make a step; of L-BFGS, whose step has no limit, check the options."""
    if isinstance(optimizer, torch.optim.LBFGS):
        check_kinds(optimizer.param_groups[0], LBFGS, "LBFGS")
        return
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step()


def _find_kind(model, is_memory=False):
    """Find the kind of what an optimiser has at a place, from a value that is right there."""
    if isinstance(model, torch.Tensor):
        return array(tuple(model.shape)) if model.ndim else FACTOR
    if isinstance(model, bool):
        return BOOL
    if isinstance(model, Real):
        return NOT_NEGATIVE if is_memory else NUMBER
    if isinstance(model, tuple):
        kinds = [*map(_find_kind, model)]
        return Kind(
            f"a tuple of {len(kinds)} numbers",
            lambda value: (
                isinstance(value, list | tuple)
                and len(value) == len(kinds)
                and all(kind.fits(item) for kind, item in zip(kinds, value, strict=True))
            ),
        )
    return one_of(model) if is_memory else either(NONE, BOOL, TEXT, NUMBER)


def _check_lbfgs(optimizer, states):
    """Check the state of L-BFGS, which is one for all parameters and has lists that grow."""
    state, *others = (state or {} for state in states)
    expect(not any(others), "LBFGS remembers all with the first parameter")
    if not state:
        return
    flat = array((sum(p.numel() for p in optimizer.param_groups[0]["params"]),))
    factor = either(NUMBER, array(()))
    table = {
        "func_evals": COUNT,
        "n_iter": COUNT,
        "d": flat,
        "old_dirs": list_of(flat),
        "old_stps": list_of(flat),
        "prev_flat_grad": flat,
        "t": factor,
        "H_diag": factor,
        "prev_loss": factor,
        "ro": list_of(factor),
        "al": list_of(either(factor, NONE)),
    }
    # A training that found nothing to do has only counted; one without a second step has no al.
    needed = table.keys() - {"al"} if state.get("n_iter") else ["func_evals", "n_iter"]
    check_names(state, needed, table, "the memories of LBFGS")
    check_kinds(state, table, "what LBFGS remembers")
    n_old = len(state.get("ro", []))
    size = optimizer.param_groups[0]["history_size"]
    lengths = {len(state.get(name, [])) for name in ("old_dirs", "old_stps", "ro")}
    expect(lengths == {n_old} and n_old <= size, "what LBFGS remembers differs in length")
    expect(len(state.get("al", range(size))) >= size, "what LBFGS remembers as al is too short")
