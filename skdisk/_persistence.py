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

import errno
import hashlib
import json
import os
import stat
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
from ._file_checks import (
    RESULTS,
    SETTINGS,
    check_generator,
    check_groups,
    check_history,
    check_names,
    check_optimizer_state,
    check_parameters,
    check_plain,
    check_settings,
    check_weights,
    expect,
    make_classes,
    make_feature_names,
)
from ._net import DiskNet
from ._state import copy_state, load_state

FORMAT = "skdisk.MLPDiskClassifier"
FORMAT_VERSION = 1
BLANK = "0" * 64
ALTERNATIVE = (
    "Or keep the estimator with joblib.dump, whose files are to be loaded only if trusted."
)

# The parameters that a file may lack, for objects that run code: the loaded estimator has the
# defaults there.
LOST = ("callbacks", "lr_schedule", "optimizer", "optimizer_params", "random_state")
# Those that may be arrays, and are written as lists.
ARRAY_LIKE = ("hidden_layer_sizes", "dropout")
FITTED = ("classes_", "n_features_in_", "feature_names_in_", "net_")
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
    path = Path(os.fsdecode(path)).resolve()
    description, lost = _describe(estimator)
    tensors = {}
    text = json.dumps(_encode(description, tensors), separators=(",", ":"))
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "skdisk_version": version("skdisk"),
        "estimator": text,
    }
    data = _pack(metadata, tensors)
    _check_again(estimator, text, data)
    if lost:
        warnings.warn(
            "The file cannot hold all that the estimator has. The loaded one will have its "
            f"defaults there: {', '.join(lost)}. Set them again after loading.",
            stacklevel=3,
        )
    _replace_file(path, data)


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
    metadata = _check_file(data, path)
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
            stacklevel=3,
        )
    return estimator


def _read(cls, text, data):
    """Make the estimator of a file's bytes, and return the device that it was saved with."""
    tensors = load_tensors(data)
    description = json.loads(text, object_hook=partial(_decode, tensors))
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
        texts = {json.dumps(_encode(_convert(name, v), {})) for v in (value, other)}
    except TypeError:
        return False
    return len(texts) == 1


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
    number = str(metadata.get("format_version"))[:20]
    if number.isdecimal() and int(number) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {number}, while skdisk {version('skdisk')} reads versions "
            f"up to {FORMAT_VERSION}. It was saved by skdisk {metadata.get('skdisk_version')}: "
            "upgrade skdisk to that version."
        )
    checksum = metadata.get("sha256")
    if hashlib.sha256(_replace_checksum(data, checksum, BLANK)).hexdigest() != checksum:
        raise ValueError(f"{path} was cut off or is damaged: its checksum is wrong. {again}")
    if not number.isdecimal() or int(number) < 1:
        raise ValueError(f"{path} has format version {number}, which no skdisk has written.")
    return metadata


def _replace_checksum(data, old, new):
    # Within the other metadata, quotes have backslashes before them.
    return data.replace(f'"sha256":"{old}"'.encode(), f'"sha256":"{new}"'.encode(), 1)


def _replace_file(path, data):
    """Write a file in the place of an earlier one, which stays if anything goes wrong."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    is_there = path.exists()
    if is_there and not path.is_file():
        raise ValueError(f"{path} is a device or a pipe. Give the path of a file.")
    if is_there and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    temporary = path.with_name(f".skdisk-{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_there:
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except OSError as error:
        # Nobody knows the temporary file.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _encode(value, tensors, *place):
    """Turn a value into JSON; tensors are added to `tensors`, named by their place in it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
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
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        if all(_is_key(key) for key, _ in pairs):
            return {"$dict": pairs}
    raise TypeError(f"{value!r} cannot be written to the file.")


def _is_key(value):
    return value is None or isinstance(value, bool | int | float | str)


def _decode(tensors, value):
    """Turn an object of the JSON back into what `_encode` made it of."""
    if not any(key.startswith("$") for key in value):
        return value
    expect(len(value) == 1, f"an object has the keys {', '.join(value)}, of which one has a $")
    [(kind, content)] = value.items()
    if kind == "$tuple":
        expect(isinstance(content, list), "a tuple is not written as a list")
        return tuple(content)
    if kind == "$dict":
        expect(isinstance(content, list), "a dict is not written as a list")
        expect(all(isinstance(pair, list) for pair in content), "a dict is not written as pairs")
        expect(all(len(pair) == 2 and _is_key(pair[0]) for pair in content), "a key is no key")
        return dict(content)
    expect(isinstance(content, str), f"{kind} does not name anything")
    if kind == "$tensor":
        # Each has one place: else a small file could ask for any memory.
        expect(content in tensors, f"the tensor {content!r} is not there, or in two places")
        return tensors.pop(content)
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
    given = {name: _convert(name, value) for name, value in given.items()}
    params = _keep(given)
    settings = _keep(_select_settings(net.get_params(deep=False)))
    state = copy_state(net)
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
    history = [_keep({**row, "batches": []}) for row in net.history]
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
        "results": {name: getattr(net, name) for name in RESULTS},
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
    is_number = classes.dtype.kind in "biuf" and classes.dtype.itemsize <= 8
    if not (is_number or classes.dtype.kind == "U" or (classes.dtype == object and is_text)):
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
    parts = ("parameters", "groups", "optimizer", "generator")
    check_names(state, parts, parts, "the parts of the state")
    hidden = check_weights(state["parameters"], n_features, n_classes)
    estimator.n_features_in_ = n_features
    if feature_names is not None:
        estimator.feature_names_in_ = make_feature_names(feature_names, n_features)
    settings, results = description["settings"], description["results"]
    check_settings(settings, device)
    check_history(description["history"], results)
    check_generator(state["generator"])
    net = estimator.net_ = DiskNet(
        module__n_features=n_features,
        module__n_classes=n_classes,
        module__hidden_layer_sizes=hidden,
        classes=np.arange(n_classes),
        **settings,
        device=str(device),
    ).initialize()
    check_groups(net.optimizer_, state["groups"])
    check_optimizer_state(net.optimizer_, state["groups"], state["optimizer"])
    load_state(net, state)
    net.history.extend({**row, "batches": []} for row in description["history"])
    for name in RESULTS:
        setattr(net, name, results[name])
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
