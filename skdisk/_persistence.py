"""`save` and `load`, and what of an estimator is pickled: one description, kept in two ways.

The description of a training (`_training/description.py`) is pickled with the estimator's other
attributes. In a file, all is checked (`_inputs/file_checks.py`): it may come from anybody. What
`save` is about to write is first made an estimator again: it is the same one, or nothing is
written. What the bytes of a file are says `_inputs/file_format.py`.

Nothing in a file is run: the one name that is looked up is an optimiser's, in torch.optim or our
own.
"""

import json
import os
import warnings
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from sklearn.utils.validation import check_is_fitted

from ._compat import OF_RUNNING_FIT
from ._inputs.choices import resolve_device
from ._inputs.file_checks import (
    LABEL_DTYPE,
    check_depth,
    check_generator,
    check_names,
    check_parameters,
    check_remembered,
    check_training,
    find_device,
    make_classes,
    make_feature_names,
)
from ._inputs.file_format import (
    FORMAT,
    FORMAT_VERSION,
    check_file,
    decode,
    decode_int,
    encode,
    keep,
    pack,
    replace_file,
)
from ._inputs.parameters import expect, expect_memory
from ._network.mlp import as_probabilities
from ._network.surroundings import explain_want_of_memory
from ._training.description import (
    describe,
    find_changes,
    has_callbacks,
    is_plain,
    note_optimizer,
    restore,
)
from ._training.loop import Ending, Result
from ._training.optimizers import find_optimizer, is_known

ALTERNATIVE = (
    "Or keep the estimator with joblib.dump, whose files are to be loaded only if trusted."
)
LONGEST_QUOTE = 1000
# The parameters that a file may lack, for objects that run code: the loaded estimator has the
# defaults there.
LOST = ("callbacks", "lr_schedule", "optimizer", "optimizer_params", "random_state")
# Those that may be arrays, and are written as lists.
ARRAY_LIKE = ("hidden_layer_sizes", "dropout")
TRAINING = ("_settings", "_state", "_result")
FITTED = ("classes_", "n_features_in_", "feature_names_in_", *TRAINING)
# What scikit-learn keeps on an estimator besides parameters, and the methods that set it.
SET_BY = {"_skl_callbacks": "set_callbacks", "_metadata_request": "set_fit_request and its like"}
PARTS_OF_TRAINING = ("settings", "results", "history", "state")
PARTS = ("params", "classes_", "n_features_in_", "feature_names_in_", *PARTS_OF_TRAINING)


def to_plain(attributes):
    """Describe the training among the attributes of an estimator, if plain things can say it."""
    attributes = dict(attributes)
    if is_known(attributes.get("optimizer")):
        attributes["optimizer"] = {"torch.optim": attributes["optimizer"].__name__}
    if "_state" in attributes:
        settings, state, result = map(attributes.get, TRAINING)
        is_own = is_known(settings.optimizer) and not has_callbacks(settings)
        if is_own and not find_changes(settings, state):
            training = describe(settings, state) | {"results": _describe_result(result)}
            if is_plain(training):
                attributes = {k: v for k, v in attributes.items() if k not in TRAINING}
                attributes["_training"] = training
    return attributes


def from_plain(attributes):
    """Make the attributes of an estimator again, the other way round."""
    attributes = dict(attributes)
    if isinstance(attributes.get("optimizer"), dict):
        attributes["optimizer"] = find_optimizer(attributes["optimizer"].get("torch.optim"))
    if "_training" in attributes:
        training = attributes.pop("_training")
        # What skops reads is checked by nobody else, and torch does not look at all of it.
        check_generator(training["state"]["generator"])
        device = training["settings"]["device"]
        if device != (found := find_device(device)):
            warnings.warn(
                f"The training was on device={device!r}, which is not available here. The network "
                "is on the cpu; set the device of the estimator before you train it further.",
                stacklevel=3,
            )
            training = training | {"settings": training["settings"] | {"device": found}}
        attributes |= _restore(training)
    return attributes


def _describe_result(result):
    if result is None:
        return None
    return {
        "first_epoch_": result.first_epoch,
        "diverged_": result.diverged,
        "fused_reason_": result.reason,
    }


def _restore(training):
    settings, state = restore(training)
    results = training["results"]
    result = results and Result(
        results["first_epoch_"],
        Ending.DIVERGED if results["diverged_"] else Ending.COMPLETE,
        results["fused_reason_"],
        results["diverged_"],
    )
    return {"_settings": settings, "_state": state, "_result": result}


def _check_path(path):
    """Check the name of a file, and make it text."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be a str, bytes or os.PathLike. Got {path!r}.")
    text = os.fsdecode(path)
    if "\0" in text:
        raise ValueError(f"path must have no null character, which no file has. Got {path!r}.")
    return text


def save(estimator, path):
    """Write a fitted estimator to a file; its method `save` says what may be raised."""
    check_is_fitted(estimator)
    path = Path(os.path.realpath(_check_path(path)))
    description, lost = _describe(estimator)
    arrays = {}
    text = json.dumps(encode(description, arrays), separators=(",", ":"))
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "skdisk_version": version("skdisk"),
        "estimator": text,
    }
    data = pack(metadata, arrays)
    _check_again(estimator, metadata, data)
    if lost:
        warnings.warn(
            "The file cannot hold all that the estimator has. The loaded one will have its "
            f"defaults there: {', '.join(lost)}. Set them again after loading.",
            stacklevel=4,
        )
    replace_file(path, data)


def load(cls, path):
    """Make an estimator from a file; its method `load` says what may be raised."""
    path = Path(_check_path(path))
    data = path.read_bytes()
    metadata = check_file(data, path)
    try:
        estimator, device = _read(cls, metadata, data)
    except (Warning, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is marked as a file of {cls.__name__}.save, which it is not "
            f"({_quote(error)}). Do not use it."
        ) from error
    if estimator.device != device:
        warnings.warn(
            f"device={device!r} is not available here. The estimator of {path} has device='cpu'.",
            stacklevel=4,
        )
    return estimator


def _quote(error):
    """Say what an error says, which may itself quote as much as a whole file."""
    text = str(error)
    if len(text) > LONGEST_QUOTE:
        text = f"{text[: LONGEST_QUOTE // 2]} ... {text[-LONGEST_QUOTE // 2 :]}"
    return f"{type(error).__name__}: {text}"


@explain_want_of_memory
def _read(cls, metadata, data):
    """Make the estimator of a file's bytes, and return the device that it was saved with."""
    expect_memory(3 * len(data) + 2**20)
    arrays = load_arrays(data)
    hooks = {"object_hook": partial(decode, arrays), "parse_int": decode_int}
    description = json.loads(metadata["estimator"], **hooks)
    expect(not arrays, f"nothing is known of the tensors {', '.join(arrays)}")
    check_depth(description)
    check_names(description, PARTS, description, "the parts of the file")
    expect(isinstance(description["settings"], dict), "the settings are not a dict")
    expect(isinstance(description["state"], dict), "the state is not a dict")
    if int(metadata["format_version"]) < 3:
        _upgrade(description)
    if int(metadata["format_version"]) < 4:
        expect("output" not in description["settings"], "the settings have an output")
        description["settings"]["output"] = "softmax"
    estimator = _rebuild(cls, description)
    return estimator, description["params"].get("device", estimator.device)


def _upgrade(description):
    """Give the description of a file of version 1 or 2 the form of version 3."""
    old, state = description["settings"], description["state"]
    names = ("batch_size", "shuffle", "clip_grad_norm", "seed", "verbose", "max_epochs")
    check_names(old, (*names, "lr", "module__activation", "module__dropout"), old, "the settings")
    new = {name: old[name] for name in names}
    n_layers = len(state.get("parameters") or []) // 2
    dropout = as_probabilities(old["module__dropout"], n_layers - 1)
    new |= {"activation": old["module__activation"], "dropout": dropout}
    new |= {"optimizer": getattr(old.get("optimizer", torch.optim.SGD), "__name__", None)}
    arguments = {
        name.removeprefix("optimizer__"): value
        for name, value in old.items()
        if name.startswith("optimizer__")
    }
    new |= {"optimizer_arguments": arguments | {"lr": old["lr"]}}
    # Version 1 has more results.
    names = ("first_epoch_", "diverged_", "fused_reason_")
    check_names(description["results"], names, description["results"], "the results")
    description["results"] = {name: description["results"][name] for name in names}
    description |= {"settings": new, "state": state | {"memory": {}, "n_steps": 0}}


def _rebuild(cls, description):
    """Make the estimator of a description, and check all that is in it."""
    estimator = _make_estimator(cls, description["params"])
    device = str(resolve_device(estimator.device))
    estimator.classes_ = make_classes(description["classes_"])
    n_features, names = description["n_features_in_"], description["feature_names_in_"]
    training = {name: description[name] for name in PARTS_OF_TRAINING}
    training["settings"] = training["settings"] | {"device": device}
    check_remembered(training["state"])
    noted = note_optimizer({"optimizer": None, "groups": None} | training["state"])
    check_training(training, noted, n_features, estimator.classes_)
    estimator.n_features_in_ = n_features
    if names is not None:
        estimator.feature_names_in_ = make_feature_names(names, n_features)
    vars(estimator).update(_restore(training))
    return estimator


def _make_estimator(cls, params):
    """Make an estimator that is not fitted."""
    known = list(signature(cls).parameters)
    expect(isinstance(params, dict), "there are no parameters")
    unknown = [str(name) for name in params if name not in known]
    expect(
        not unknown,
        f"{cls.__name__} has no parameter {', '.join(unknown)}. If a subclass of it has been "
        "saved, load the file with that subclass",
    )
    estimator = cls(**params)
    check_parameters(estimator)
    return estimator


def _check_again(estimator, metadata, data):
    """Check that a file gives the estimator again that it is made of."""
    cls = type(estimator)
    try:
        again, _ = _read(cls, metadata, data)
    except (Warning, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"A file would not give this {cls.__name__} again ({_quote(error)}). "
            f"Mend that, by set_params or a new fit, before saving. {ALTERNATIVE}"
        ) from error
    names = [
        name
        for name, value in vars(estimator).items()
        if name not in (*FITTED, *SET_BY, *LOST, *OF_RUNNING_FIT, "device")
        and not (name in vars(again) and _is_same(name, value, vars(again)[name]))
    ]
    if names:
        raise TypeError(
            f"The file can hold the parameters of a {cls.__name__} and what MLPDiskClassifier.fit "
            f"adds to them. Of this one it cannot hold {', '.join(names)}. Delete such attributes "
            f"(del estimator.{names[0]}) and set them again after loading. {ALTERNATIVE}"
        )


def _is_same(name, value, other):
    """Tell whether an attribute has come back as it was."""
    try:
        # As text, because NaN is not equal to itself.
        texts = {json.dumps(encode(_convert(name, v), {})) for v in (value, other)}
    except TypeError:
        return False
    return len(texts) == 1


def _describe(estimator):
    """Describe an estimator, and list the defaults that stand for what cannot be described."""
    name_of_class = type(estimator).__name__
    given = {k: _convert(k, v) for k, v in estimator.get_params(deep=False).items()}
    params = keep(given)
    training, lost_of_training = _describe_training(estimator)
    if "optimizer" in given and "optimizer" not in params:
        # Its arguments have no meaning for the default one.
        params.pop("optimizer_params", None)
    lost = [name for name in given if name not in params]
    for name in lost:
        if name not in LOST:
            raise TypeError(
                f"The parameter {name} of this {name_of_class} is {given[name]!r}. The "
                "file can hold strings, numbers, bools, None, and lists, tuples and dicts of "
                f"such. Set {name} to one of those before saving. {ALTERNATIVE}"
            )
    parameters = signature(type(estimator)).parameters
    lost = [f"{name}={parameters[name].default!r}" for name in lost]
    lost += [f"nothing from {SET_BY[name]}" for name in SET_BY if vars(estimator).get(name)]
    names = getattr(estimator, "feature_names_in_", None)
    description = {
        "params": params,
        "classes_": _describe_classes(estimator.classes_),
        "n_features_in_": estimator.n_features_in_,
        "feature_names_in_": names if names is None else names.tolist(),
    }
    return description | training, lost + lost_of_training


def _describe_training(estimator):
    """Describe the training of an estimator without callbacks and a foreign optimiser."""
    settings, state, result = (getattr(estimator, name) for name in TRAINING)
    changes = find_changes(settings, state)
    if {"class", "module_"} & {*changes}:
        raise TypeError(
            "The file can hold a network as fit makes it. The one of this estimator is a changed "
            f"{type(estimator.net_).__name__} with {estimator.module_}\nFit the estimator anew. "
            f"{ALTERNATIVE}"
        )
    training = describe(settings, state) | {"results": _describe_result(result)}
    # The loaded estimator has the device of its parameter.
    del training["settings"]["device"]
    if not is_known(settings.optimizer):
        training["settings"] |= {
            "optimizer": "SGD",
            "optimizer_arguments": {"lr": settings.optimizer_arguments["lr"]},
        }
        training["state"] |= {"memory": {}, "n_steps": 0, "optimizer": None, "groups": None}
    history = [keep(row) for row in training["history"]]
    incomplete = {
        name: None
        for row, kept in zip(training["history"], history, strict=True)
        for name in row
        if name not in kept
    }
    training["history"] = history
    return training, [
        *(f"{name} of net_ as fit makes it" for name in changes),
        *(f"no {name} in history_" for name in incomplete),
    ]


def _convert(name, value):
    """Convert a parameter to a form that the file has, and that means the same."""
    if name == "device":
        return str(value)
    return value.tolist() if name in ARRAY_LIKE and isinstance(value, np.ndarray) else value


def _describe_classes(classes):
    is_text = all(isinstance(label, str) for label in classes)
    is_known = LABEL_DTYPE.fullmatch(classes.dtype.str)
    if not is_known or (classes.dtype == object and not is_text):
        raise TypeError(
            "The file can hold labels that are strings, numbers or bools. Got an array of dtype "
            f"{classes.dtype}: {classes.tolist()}."
        )
    return {"dtype": classes.dtype.str, "labels": classes.tolist()}
