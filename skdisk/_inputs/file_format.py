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
import re
import stat
import uuid
from contextlib import suppress
from functools import partial
from importlib.metadata import version

import numpy as np
from safetensors.numpy import save as save_arrays

from .._training.optimizers import find_optimizer, is_known
from .parameters import expect, expect_memory

try:
    import fcntl
except ImportError:
    # On Windows, where no file is replaced while it is open, and none has an owner like these.
    fcntl = None

FORMAT = "skdisk.MLPDiskClassifier"
# Version 1 also has the result schedule_start_; up to version 2, the settings are a net's, and the
# memory of the optimiser is always the net's; up to version 3, the output is always softmax.
FORMAT_VERSION = 4
BLANK = "0" * 64
TEMPORARY = re.compile(r"\.skdisk-[0-9a-f]{32}")
# What JSON has by itself, but for lists and objects; bools are ints.
Scalar = int | float | str | None


def encode(value, arrays, *place):
    """Turn a value into JSON; arrays are added to `arrays`, named by their place in it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Scalar):
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
        if all(isinstance(key, Scalar) for key, _ in pairs):
            return {"$dict": pairs}
    raise TypeError(f"{value!r} cannot be written to the file.")


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
        are_pairs = all(len(pair) == 2 and isinstance(pair[0], Scalar) for pair in content)
        expect(are_pairs, "a key is no key")
        return dict(content)
    if kind == "$tensor":
        expect(isinstance(content, str), f"{kind} does not name anything")
        # Each has one place: else a small file could ask for any memory.
        expect(content in arrays, f"the tensor {content!r} is not there, or in two places")
        return arrays.pop(content)
    expect(kind == "$optimizer", f"nothing is known of {kind}")
    return find_optimizer(content)


def decode_int(digits):
    """Read an int of the JSON; many of more than 64 bits could be made to have one hash."""
    number = int(digits)
    expect(-(2**63) <= number < 2**64, "there is an int of more than 64 bits")
    return number


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
        # As text: of bytes, json reads other encodings too, which safetensors does not.
        metadata = json.loads(data[8:end].decode()).get("__metadata__")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} was cut off or is damaged in its header. {again}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file of another program. Give a file that "
            "MLPDiskClassifier.save wrote, or read this one with safetensors.torch.load_file."
        )
    number = str(metadata.get("format_version"))[:20]
    if number.isdecimal() and int(number) > FORMAT_VERSION:
        writer = str(metadata.get("skdisk_version"))[:20]
        raise ValueError(
            f"{path} has format version {number}, while skdisk {version('skdisk')} reads versions "
            f"up to {FORMAT_VERSION}. It was saved by skdisk {writer}: "
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
    earlier, mode = None, 0o666
    # Links have been followed, but for one that leads back to itself, which cannot be opened.
    if os.path.lexists(path):
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is a device or a pipe. Give the path of a file.")
        # Only opening it tells whether, and why, it may not be written.
        path.open("r+b").close()
        # Before it has the group of the earlier one, nobody but its owner may read the new file.
        earlier, mode = path.stat(), 0o600
    _remove_left_over(path.parent)
    temporary, file = _name_beside(path), None
    # Removed twice: an interrupt may end the first one.
    try:
        try:
            file = _create(temporary, mode)
            while not _lock(file):
                file.close()
                temporary = _name_beside(path)
                file = _create(temporary, mode)
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()
                if earlier is not None:
                    _give(temporary, earlier)
                os.replace(temporary, path)
        except OSError as error:
            # Nobody knows the temporary file.
            error.filename, error.filename2 = str(path), None
            raise
        finally:
            _remove(temporary)
    finally:
        # An interrupt may have come before the block that closes the file.
        if file is not None:
            file.close()
        _remove(temporary)


def _name_beside(path):
    return path.with_name(f".skdisk-{uuid.uuid4().hex}")


def _create(path, mode):
    return open(path, "xb", opener=partial(os.open, mode=mode))


def _lock(file):
    """Lock a new file, and tell whether it is there: before, it looks as if it were left over."""
    if fcntl is not None:
        # Not all network drives have locks.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
    return os.path.exists(file.name)


def _remove(path):
    # It may not be there; and no error is to take the place of one before.
    with suppress(OSError):
        path.unlink()


def _give(path, earlier):
    """Give a file the mode of an earlier one, and as far as that is allowed owner and group."""
    if fcntl is not None:
        for owner, group in ((earlier.st_uid, -1), (-1, earlier.st_gid)):
            with suppress(OSError):
                os.chown(path, owner, group)
    path.chmod(stat.S_IMODE(earlier.st_mode))


def _remove_left_over(folder):
    """Remove temporary files that nobody has locked: a process was killed that wrote them."""
    if fcntl is None:
        return
    # Whatever cannot be listed, locked or removed stays.
    with suppress(OSError):
        for name in filter(TEMPORARY.fullmatch, os.listdir(folder)):
            path = folder / name
            # A pipe would wait for who writes into it.
            if path.is_file():
                with suppress(OSError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
