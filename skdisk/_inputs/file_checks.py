"""What a file of `save` must hold, so that the estimator made of it predicts and goes on training.

A right checksum says that a file is whole, not that `save` wrote it. So each part is checked for
all that is done with it later: here what is in the file is compared with what torch, the network
and the estimator make themselves. All checks raise ValueError or let an error of torch through.

Nothing that is only stated asks for memory or time: layers are as large as the tensors that are
there, and the few numbers that stand for sizes are limited.
"""

import re
import struct
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
import torch

from .._compat import Interval, StrOptions, validate_parameter_constraints
from .._network.mlp import ACTIVATIONS, as_probabilities, as_sizes
from .choices import resolve_device
from .file_format import check_names, expect
from .optimizer_checks import LARGEST, check_optimizer

# How deep lists and dicts may lie within each other; the description itself needs 5 levels.
MAX_DEPTH = 20
# The dtypes that labels may have: objects, which are strings then, strings, bools and numbers.
LABEL_DTYPE = re.compile(r"[<>|](O|U\d{1,9}|b1|[iu][1248]|f[248])")
# Bytes of an array of labels whose dtype has room for longer strings than any label.
MAX_LABEL_BYTES = 2**24

COUNT = Interval(Integral, 0, None, closed="left")

# The settings of a net that it does not get from elsewhere; besides, `optimizer__*`.
SETTINGS = {
    "seed": [Interval(Integral, 0, 2**32 - 1, closed="both")],
    "lr": [Interval(Real, 0, LARGEST, closed="right")],
    "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "max_epochs": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "verbose": ["verbose"],
    "optimizer": [type],
    "module__activation": [StrOptions(set(ACTIVATIONS))],
    "module__dropout": ["array-like", Interval(Real, 0, 1, closed="left")],
}
# What files of earlier versions have besides, and nothing uses.
EARLIER_SETTINGS = ("fused", "lr_schedule")
# What a training leaves on a net besides its state and its history; earlier versions have more.
RESULTS = {
    "first_epoch_": [COUNT],
    "diverged_": [str, None],
    "fused_reason_": [str, None],
}
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

    Parameters
    ----------
    estimator : MLPDiskClassifier
        The estimator. A device that is not available here becomes "cpu".
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


def check_settings(settings, device):
    """Check the settings of a net for a device; a foreign optimiser may be missing."""
    expect(isinstance(settings, dict), "the settings are not a dict")
    needed = [name for name in SETTINGS if name != "optimizer"]
    names = [name for name in settings if str(name).startswith("optimizer__")]
    check_names(settings, needed, {*SETTINGS, *EARLIER_SETTINGS, *names}, "the settings")
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


def _check_text(strings):
    """Let half a character raise UnicodeEncodeError: pandas has no names and columns of such."""
    "".join(strings).encode()


def make_feature_names(names, n_features):
    """Make the array of the names of features, or None if there are none."""
    if names is None:
        return None
    is_right = isinstance(names, list) and all(isinstance(name, str) for name in names)
    expect(is_right, "the names of the features are not a list of strings")
    expect(len(names) == n_features, f"{len(names)} names are there for {n_features} features")
    expect(len(set(names)) == len(names), "some names of features are there twice")
    _check_text(names)
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
    expect([tuple(p.shape) for p in weights] == shapes, "the layers do not fit each other")
    expect(
        type(n_features) is int and (sizes[0], sizes[-1]) == (n_features, n_classes),
        f"the layers have other sizes than the features and classes: {sizes[0]} inputs and "
        f"{sizes[-1]} outputs for {n_features} features and {n_classes} classes",
    )
    return sizes[1:-1]


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


def check_history(history, results):
    """Check the rows of the history, and the places in it that the results name."""
    expect(isinstance(history, list), "the history is not a list")
    for number, row in enumerate(history, start=1):
        names = row if isinstance(row, dict) else []
        check_names(row, ["epoch", "train_loss"], names, "an epoch of the history")
        expect(all(isinstance(name, str) for name in row), "a name in the history is no string")
        _check_text(text for text in (*row, *row.values()) if isinstance(text, str))
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
