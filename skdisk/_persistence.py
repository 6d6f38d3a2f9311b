"""`save` and `load`: an estimator is described, and made again from its description.

The form of a file is in `_file_format.py`, the checks of what is in it in `_file_checks.py` and
`_optimizer_checks.py`. What `save` is about to write is first made an estimator again: it is the
same one, or nothing is written.
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
from safetensors.torch import load as load_tensors
from sklearn.utils.validation import check_is_fitted

from ._inputs.choices import resolve_device
from ._inputs.file_checks import (
    LABEL_DTYPE,
    SETTINGS,
    check_generator,
    check_history,
    check_parameters,
    check_plain,
    check_settings,
    check_weights,
    make_classes,
    make_feature_names,
)
from ._inputs.file_format import (
    FORMAT,
    FORMAT_VERSION,
    check_file,
    check_names,
    decode,
    encode,
    expect,
    keep,
    pack,
    replace_file,
)
from ._inputs.optimizer_checks import check_groups, check_optimizer_state
from ._network.mlp import as_probabilities
from ._training.loop import Ending, Result
from ._training.state import Note, Settings, begin, make_net, note, set_back

ALTERNATIVE = (
    "Or keep the estimator with joblib.dump, whose files are to be loaded only if trusted."
)

# The parameters that a file may lack, for objects that run code: the loaded estimator has the
# defaults there.
LOST = ("callbacks", "lr_schedule", "optimizer", "optimizer_params", "random_state")
# Those that may be arrays, and are written as lists.
ARRAY_LIKE = ("hidden_layer_sizes", "dropout")
FITTED = ("classes_", "n_features_in_", "feature_names_in_", "_settings", "_state", "_result")
# The parts of the state, by their names in a file and in a note.
STATE = ("parameters", "groups", "optimizer", "generator")
# What scikit-learn keeps on an estimator besides parameters, and the methods that set it.
SET_BY = {"_skl_callbacks": "set_callbacks", "_metadata_request": "set_fit_request and its like"}


def save(estimator, path):
    """Write a fitted estimator to a file; its method `save` says what may be raised.

    Parameters
    ----------
    estimator : MLPDiskClassifier
        The estimator.
    path : str, bytes or os.PathLike
        The file. An earlier one is replaced once the new one is complete.
    """
    check_is_fitted(estimator)
    path = Path(os.path.realpath(os.fsdecode(path)))
    description, lost = _describe(estimator)
    tensors = {}
    text = json.dumps(encode(description, tensors), separators=(",", ":"))
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "skdisk_version": version("skdisk"),
        "estimator": text,
    }
    data = pack(metadata, tensors)
    _check_again(estimator, text, data)
    if lost:
        warnings.warn(
            "The file cannot hold all that the estimator has. The loaded one will have its "
            f"defaults there: {', '.join(lost)}. Set them again after loading.",
            stacklevel=4,
        )
    replace_file(path, data)


def load(cls, path):
    """Make an estimator from a file; its method `load` says what may be raised.

    Parameters
    ----------
    cls : type
        The class of the estimator.
    path : str, bytes or os.PathLike
        A file that `save` wrote.

    Returns
    -------
    estimator : MLPDiskClassifier
        The fitted estimator.
    """
    path = Path(os.fsdecode(path))
    data = path.read_bytes()
    metadata = check_file(data, path)
    try:
        estimator, device = _read(cls, metadata["estimator"], data)
    except (Warning, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is marked as a file of {cls.__name__}.save, which it is not "
            f"({type(error).__name__}: {error}). Do not use it."
        ) from error
    if estimator.device != device:
        warnings.warn(
            f"device={device!r} is not available here. The estimator of {path} has device='cpu'.",
            stacklevel=4,
        )
    return estimator


def _read(cls, text, data):
    """Make the estimator of a file's bytes, and return the device that it was saved with."""
    tensors = load_tensors(data)
    description = json.loads(text, object_hook=partial(decode, tensors))
    expect(not tensors, f"nothing is known of the tensors {', '.join(tensors)}")
    check_plain(description)
    estimator = _rebuild(cls, description)
    return estimator, description["params"].get("device", estimator.device)


def _check_again(estimator, text, data):
    """Check that a file gives the estimator again that it is made of."""
    cls = type(estimator)
    try:
        again, _ = _read(cls, text, data)
    except (Warning, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"A file would not give this {cls.__name__} again ({type(error).__name__}: {error}). "
            f"Mend that, by set_params or a new fit, before saving. {ALTERNATIVE}"
        ) from error
    names = [
        name
        for name, value in vars(estimator).items()
        if name not in (*FITTED, *SET_BY, *LOST, "device")
        and not (name in vars(again) and _is_same(name, value, vars(again)[name]))
    ]
    if names:
        raise TypeError(
            f"The file can hold the parameters of a {cls.__name__} and what MLPDiskClassifier.fit "
            f"adds to them. Of this one it cannot hold {', '.join(names)}. Delete such attributes "
            f"(del estimator.{names[0]}) and set them again after loading. {ALTERNATIVE}"
        )
    net, saved = estimator.net_, again.net_
    if type(net) is not type(saved) or repr(net.module_) != repr(saved.module_):
        raise TypeError(
            "The file can hold a network as fit makes it:\n"
            f"{type(saved).__name__} with {saved.module_}\nThe one of this estimator is:\n"
            f"{type(net).__name__} with {net.module_}\nFit the estimator anew. {ALTERNATIVE}"
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
    net, given = estimator.net_, estimator.get_params(deep=False)
    given = {name: _convert(name, value) for name, value in given.items()}
    params = keep(given)
    settings = keep(_select_settings(net.get_params(deep=False)))
    noted, result = note(estimator._state), estimator._result
    state = {name: getattr(noted, name) for name in STATE}
    lost = [name for name in given if name not in params]
    if "optimizer" in lost or "optimizer" not in settings:
        # Nothing of an optimiser that is not in torch.optim has a meaning for the default one.
        for values in (params, settings):
            for name in [name for name in values if name.startswith("optimizer")]:
                del values[name]
        state |= {"groups": [{}], "optimizer": [None] * len(state["optimizer"])}
    for name in lost:
        if name not in LOST:
            raise TypeError(
                f"The parameter {name} of this {type(estimator).__name__} is {given[name]!r}. The "
                "file can hold strings, numbers, bools, None, and lists, tuples and dicts of "
                f"such. Set {name} to one of those before saving. {ALTERNATIVE}"
            )
    parameters = signature(type(estimator)).parameters
    lost = [f"{name}={parameters[name].default!r}" for name in given if name not in params]
    lost += [f"nothing from {SET_BY[name]}" for name in SET_BY if vars(estimator).get(name)]
    history = [keep({**row, "batches": []}) for row in net.history]
    incomplete = {
        name: None
        for row, kept in zip(net.history, history, strict=True)
        for name in row
        if name not in kept
    }
    lost += [f"no {name} in history_" for name in incomplete]
    names = getattr(estimator, "feature_names_in_", None)
    description = {
        "params": params,
        "classes_": _describe_classes(estimator.classes_),
        "n_features_in_": estimator.n_features_in_,
        "feature_names_in_": names if names is None else names.tolist(),
        "settings": settings,
        "results": {
            "first_epoch_": result.first_epoch,
            "diverged_": result.diverged,
            "fused_reason_": result.reason,
        },
        "history": history,
        "state": state,
    }
    return description, lost


def _convert(name, value):
    """Convert a parameter to a form that the file has, and that means the same."""
    if name == "device":
        return str(value)
    return value.tolist() if name in ARRAY_LIKE and isinstance(value, np.ndarray) else value


def _select_settings(params):
    return {name: value for name, value in params.items() if name.startswith(tuple(SETTINGS))}


def _describe_classes(classes):
    is_text = all(isinstance(label, str) for label in classes)
    is_known = LABEL_DTYPE.fullmatch(classes.dtype.str)
    if not is_known or (classes.dtype == object and not is_text):
        raise TypeError(
            "The file can hold labels that are strings, numbers or bools. Got an array of dtype "
            f"{classes.dtype}: {classes.tolist()}."
        )
    return {"dtype": classes.dtype.str, "labels": classes.tolist()}


def _rebuild(cls, description):
    """Make the estimator of a description, and check all that is in it."""
    names = ("params", "classes_", "n_features_in_", "feature_names_in_", "settings", "results")
    names += ("history", "state")
    check_names(description, names, description, "the parts of the file")
    estimator = _make_estimator(cls, description["params"])
    device = resolve_device(estimator.device)
    estimator.classes_ = make_classes(description["classes_"])
    n_classes, n_features = len(estimator.classes_), description["n_features_in_"]
    feature_names, state = description["feature_names_in_"], description["state"]
    check_names(state, STATE, STATE, "the parts of the state")
    hidden = check_weights(state["parameters"], n_features, n_classes)
    estimator.n_features_in_ = n_features
    if feature_names is not None:
        estimator.feature_names_in_ = make_feature_names(feature_names, n_features)
    settings, results = description["settings"], description["results"]
    check_settings(settings, device)
    check_history(description["history"], results)
    check_generator(state["generator"])
    history = description["history"]
    estimator._settings = _make_settings(settings, n_features, n_classes, hidden, device)
    estimator._state = begin(estimator._settings)
    net = make_net(estimator._settings, estimator._state)
    check_groups(net.optimizer_, state["groups"])
    check_optimizer_state(net.optimizer_, state["groups"], state["optimizer"])
    net.history.extend({**row, "batches": []} for row in history)
    set_back(estimator._state, Note(arrays=None, **state, n_epochs=len(history)))
    diverged = results["diverged_"]
    estimator._result = Result(
        results["first_epoch_"],
        Ending.DIVERGED if diverged else Ending.COMPLETE,
        results["fused_reason_"],
        diverged,
    )
    return estimator


def _make_settings(settings, n_features, n_classes, hidden, device):
    """Make the settings of the training, which are parameters of its net in a file."""
    arguments = {
        name.removeprefix("optimizer__"): value
        for name, value in settings.items()
        if name.startswith("optimizer__")
    }
    names = ("batch_size", "shuffle", "clip_grad_norm", "seed", "verbose", "max_epochs")
    return Settings(
        n_features=n_features,
        n_classes=n_classes,
        hidden_layer_sizes=hidden,
        activation=settings["module__activation"],
        dropout=as_probabilities(settings["module__dropout"], len(hidden)),
        optimizer=settings.get("optimizer", torch.optim.SGD),
        optimizer_arguments={**arguments, "lr": settings["lr"]},
        device=str(device),
        **{name: settings[name] for name in names},
    )


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
