"""The file of `save` and `load`: a fitted estimator in one safetensors file, without code.

The tensors are the state of the training: parameters, what the optimiser remembers of each, the
random generator. All else is metadata of safetensors, which are strings:

- `format`: "skdisk.MLPDiskClassifier";
- `format_version`: a whole number, which grows with each change that an older skdisk cannot read;
- `skdisk_version`: that of the skdisk that wrote the file;
- `estimator`: JSON, with hyperparameters, fitted attributes, the settings of the net, its history,
  and the names of the tensors in their places;
- `sha256`: that of the whole file with 64 zeros here. safetensors itself notices no damage.

What JSON has no form for is an object with one key: `{"$tuple": [...]}`, `{"$tensor": name}`,
`{"$optimizer": name}` (a class of torch.optim), and, where a key is not a string,
`{"$dict": [[key, value], ...]}`.

Nothing in a file is run: the one name that is looked up is an optimiser's, in torch.optim.
"""

import hashlib
import json
import os
import uuid
import warnings
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from sklearn.utils.validation import check_is_fitted

from ._device import resolve_device
from ._net import DiskNet
from ._state import copy_state, load_state

FORMAT = "skdisk.MLPDiskClassifier"
FORMAT_VERSION = 1
BLANK = "0" * 64

# How the names of those settings of a net begin that it does not get from elsewhere.
SETTINGS = (
    *("seed", "lr", "clip_grad_norm", "max_epochs", "batch_size", "shuffle", "fused", "verbose"),
    *("optimizer", "module__activation", "module__dropout"),
)
# What a training leaves on a net besides its state and its history.
RESULTS = ("first_epoch_", "schedule_start_", "diverged_", "fused_reason_")
# What scikit-learn keeps on an estimator besides parameters, and the methods that set it.
SET_BY = {"_skl_callbacks": "set_callbacks", "_metadata_request": "set_fit_request and its like"}


def save(estimator, path):
    """Write a fitted estimator to a file; its method `save` says what may be raised.

    Parameters
    ----------
    estimator : MLPDiskClassifier
        The estimator.
    path : str or os.PathLike
        The file. An earlier one is replaced once the new one is complete.
    """
    check_is_fitted(estimator)
    description, lost = _describe(estimator)
    tensors = {}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "skdisk_version": version("skdisk"),
        "estimator": json.dumps(_encode(description, tensors), separators=(",", ":")),
    }
    if lost:
        warnings.warn(
            "The file cannot hold all that the estimator has. The loaded one will have its "
            f"defaults there: {', '.join(lost)}. Set them again after loading.",
            stacklevel=4,
        )
    _replace_file(Path(path).resolve(), _pack(metadata, tensors))


def load(cls, path):
    """Make an estimator from a file; its method `load` says what may be raised.

    Parameters
    ----------
    cls : type
        The class of the estimator.
    path : str or os.PathLike
        A file that `save` wrote.

    Returns
    -------
    estimator : MLPDiskClassifier
        The fitted estimator.
    """
    path = Path(path)
    data = path.read_bytes()
    metadata = _check_file(data, path)
    try:
        decode = partial(_decode, load_tensors(data))
        description = json.loads(metadata["estimator"], object_hook=decode)
        device = description["params"]["device"]
        estimator = _rebuild(cls, description)
    except (Warning, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is marked as a file of MLPDiskClassifier.save, which it is not "
            f"({type(error).__name__}: {error}). Do not use it."
        ) from error
    if estimator.device != device:
        warnings.warn(
            f"device={device!r} is not available here. The estimator of {path} has device='cpu'.",
            stacklevel=4,
        )
    return estimator


def _pack(metadata, tensors):
    """Make the bytes of a file, with its checksum."""
    data = save_tensors(tensors, {**metadata, "sha256": BLANK})
    return _replace_checksum(data, BLANK, hashlib.sha256(data).hexdigest())


def _check_file(data, path):
    """Check that the bytes of a file are those that `_pack` made, and read their metadata."""
    again = "Copy it again from where it was saved, or save the estimator again."
    if data[8:9] != b"{":
        what = "not a safetensors file" if len(data) > 8 else f"cut off: it has {len(data)} bytes"
        raise ValueError(f"{path} is {what}. Give a file that MLPDiskClassifier.save wrote.")
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8:end]).get("__metadata__")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} was cut off or is damaged in its header. {again}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file of another program. Give a file that "
            "MLPDiskClassifier.save wrote, or read this one with safetensors.torch.load_file."
        )
    number = str(metadata.get("format_version"))
    if number.isdecimal() and int(number) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {number}, while skdisk {version('skdisk')} reads versions "
            f"up to {FORMAT_VERSION}. It was saved by skdisk {metadata.get('skdisk_version')}: "
            "upgrade skdisk to that version."
        )
    checksum = metadata.get("sha256")
    if hashlib.sha256(_replace_checksum(data, checksum, BLANK)).hexdigest() != checksum:
        raise ValueError(f"{path} was cut off or is damaged: its checksum is wrong. {again}")
    return metadata


def _replace_checksum(data, old, new):
    # Within the other metadata, quotes have backslashes before them.
    return data.replace(f'"sha256":"{old}"'.encode(), f'"sha256":"{new}"'.encode(), 1)


def _replace_file(path, data):
    temporary = path.with_name(f".skdisk-{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(value, tensors, *place):
    """Turn a value into JSON; tensors are added to `tensors`, named by their place in it."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, torch.Tensor):
        name = ".".join(map(str, place))
        tensors[name] = value.detach().cpu().contiguous()
        return {"$tensor": name}
    if isinstance(value, type) and getattr(torch.optim, value.__name__, None) is value:
        return {"$optimizer": value.__name__}
    if isinstance(value, list | tuple):
        items = [_encode(item, tensors, *place, i) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        pairs = [[_encode(k, tensors), _encode(v, tensors, *place, k)] for k, v in value.items()]
        is_plain = all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs)
        return dict(pairs) if is_plain else {"$dict": pairs}
    raise TypeError(f"{value!r} cannot be written to the file.")


def _decode(tensors, value):
    """Turn an object of the JSON back into what `_encode` made it of."""
    if not any(key.startswith("$") for key in value):
        return value
    [(kind, content)] = value.items()
    if kind == "$tuple":
        return tuple(content)
    if kind == "$dict":
        return dict(content)
    if kind == "$tensor":
        return tensors[content]
    optimizer = getattr(torch.optim, content, None) if kind == "$optimizer" else None
    if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        return optimizer
    raise ValueError(f"{content!r} is not an optimizer of torch.optim")


def _keep(values):
    """Keep those values of a dict that can be written to a file."""
    kept = {}
    for name, value in values.items():
        with suppress(TypeError):
            _encode(value, {})
            kept[name] = value
    return kept


def _describe(estimator):
    """Describe an estimator, and list the defaults that stand for what cannot be described."""
    net, given = estimator.net_, estimator.get_params(deep=False)
    params, settings = _keep(given), _keep(_select_settings(net.get_params(deep=False)))
    state = copy_state(net)
    if not ("optimizer" in params and "optimizer" in settings):
        # Nothing of an optimiser that is not in torch.optim has a meaning for the default one.
        for values in (params, settings):
            for name in [name for name in values if name.startswith("optimizer")]:
                del values[name]
        state |= {"groups": [{}], "optimizer": [None] * len(state["optimizer"])}
    state["groups"] = [_keep(group) for group in state["groups"]]
    description = {
        "params": params,
        "classes_": _describe_classes(estimator.classes_),
        "n_features_in_": estimator.n_features_in_,
        "feature_names_in_": getattr(estimator, "feature_names_in_", None),
        "settings": settings,
        "results": {name: getattr(net, name) for name in RESULTS},
        "history": [_keep({**row, "batches": []}) for row in net.history],
        "state": state,
    }
    parameters = signature(type(estimator)).parameters
    lost = [f"{name}={parameters[name].default!r}" for name in given if name not in params]
    lost += [f"nothing from {SET_BY[name]}" for name in SET_BY if vars(estimator).get(name)]
    return description, lost


def _select_settings(params):
    return {name: value for name, value in params.items() if name.startswith(SETTINGS)}


def _describe_classes(classes):
    is_text = all(isinstance(label, str) for label in classes)
    if not (classes.dtype.kind in "biufU" or (classes.dtype == object and is_text)):
        raise TypeError(
            "The file can hold labels that are strings, numbers or bools. Got an array of dtype "
            f"{classes.dtype}: {classes.tolist()}."
        )
    return {"dtype": classes.dtype.str, "labels": classes}


def _rebuild(cls, description):
    """Make the estimator of a description."""
    estimator = cls(**description["params"])
    try:
        device = resolve_device(estimator.device)
    except ValueError:
        device = estimator.device = "cpu"
    names, classes = description["feature_names_in_"], description["classes_"]
    if names is not None:
        estimator.feature_names_in_ = np.array(names, dtype=object)
    estimator.n_features_in_ = description["n_features_in_"]
    estimator.classes_ = np.array(classes["labels"], dtype=classes["dtype"])
    n_classes, state = len(estimator.classes_), description["state"]
    # The tensors are there, whereas a size that is only stated could ask for any memory.
    weights = state["parameters"][::2]
    n_features, *hidden, n_outputs = weights[0].shape[1], *map(len, weights)
    if (n_features, n_outputs) != (estimator.n_features_in_, n_classes):
        raise ValueError("the layers have other sizes than the features and classes")
    net = estimator.net_ = DiskNet(
        module__n_features=n_features,
        module__n_classes=n_classes,
        module__hidden_layer_sizes=hidden,
        classes=np.arange(n_classes),
        **_select_settings(description["settings"]),
        device=str(device),
    ).initialize()
    load_state(net, state)
    net.history.extend(description["history"])
    for name in RESULTS:
        setattr(net, name, description["results"][name])
    return estimator
