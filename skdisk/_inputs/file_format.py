"""The bytes of a file of `save`: how plain things are written, and read again.

The file is one safetensors file, without code. The tensors are the arrays of the description. All
else is metadata of safetensors, which are strings:

- `format`: "skdisk.MLPDiskClassifier";
- `format_version`: a whole number, which grows with each change that an older skdisk cannot read;
- `skdisk_version`: that of the skdisk that wrote the file;
- `estimator`: JSON, with hyperparameters, fitted attributes, the description of the training, and
  the names of the tensors in their places;
- `sha256`: that of the whole file with 64 zeros here. safetensors itself notices no damage.

What JSON has no form for is an object with one key: `{"$tuple": [...]}`, `{"$tensor": name}`,
`{"$optimizer": name}` (a class of torch.optim), and, where a key is not a string,
`{"$dict": [[key, value], ...]}`.
"""

import errno
import hashlib
import json
import os
import stat
import uuid
from contextlib import suppress
from importlib.metadata import version

import numpy as np
from safetensors.numpy import save as save_arrays

from .._training.optimizers import find_optimizer, is_known
from .parameters import expect, expect_memory

FORMAT = "skdisk.MLPDiskClassifier"
# Version 1 also has the result schedule_start_; up to version 2, the settings are a net's, and the
# memory of the optimiser is always the net's; up to version 3, the output is always softmax.
FORMAT_VERSION = 4
BLANK = "0" * 64


def encode(value, arrays, *place):
    """Turn a value into JSON; arrays are added to `arrays`, named by their place in it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and place[:1] == ("state",):
        name = ".".join(map(str, place))
        arrays[name] = np.asarray(value, order="C")
        return {"$tensor": name}
    if is_known(value):
        return {"$optimizer": value.__name__}
    if isinstance(value, list | tuple):
        items = [encode(item, arrays, *place, i) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        pairs = [[encode(k, arrays), encode(v, arrays, *place, k)] for k, v in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        if all(_is_key(key) for key, _ in pairs):
            return {"$dict": pairs}
    raise TypeError(f"{value!r} cannot be written to the file.")


def _is_key(value):
    return value is None or isinstance(value, bool | int | float | str)


def decode(arrays, value):
    """Turn an object of the JSON back into what `encode` made it of."""
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
    if kind == "$tensor":
        expect(isinstance(content, str), f"{kind} does not name anything")
        # Each has one place: else a small file could ask for any memory.
        expect(content in arrays, f"the tensor {content!r} is not there, or in two places")
        return arrays.pop(content)
    expect(kind == "$optimizer", f"nothing is known of {kind}")
    return find_optimizer(content)


def keep(values):
    """Keep those values of a dict that can be written to a file."""
    kept = {}
    for name, value in values.items():
        with suppress(TypeError):
            encode(value, {})
            kept[name] = value
    return kept


def pack(metadata, arrays):
    """Make the bytes of a file, with its checksum."""
    n_bytes = sum(array.nbytes for array in arrays.values())
    # Each array by itself, all of them in one, and the same for Python; text with its escapes.
    expect_memory(3 * n_bytes + sum(8 * len(text) for text in metadata.values()) + 2**20)
    data = save_arrays(arrays, {**metadata, "sha256": BLANK})
    return _replace_checksum(data, BLANK, hashlib.sha256(data).hexdigest())


def check_file(data, path):
    """Check that the bytes of a file are those that `pack` made, and read their metadata."""
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


def replace_file(path, data):
    """Write a file in the place of an earlier one, which stays if anything goes wrong."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.is_symlink():
        # All links have been followed, but for one that leads back to itself.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
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
