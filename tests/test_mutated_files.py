"""Files that are not as `save` wrote them: `load` refuses them, or makes a model that works.

Files are changed at random: their bytes; bytes with a checksum that is right again; what the
JSON says; tensors and what is said of them. Whatever comes of it, `load` raises ValueError in
words that name the file, or the estimator predicts, can be saved and is the same again, and goes
on training. No file of some kilobytes asks for much memory.

`pytest tests/test_mutated_files.py --long` tries a million files, which takes more than an
hour of one core; the suite tries a few hundred.
"""

import copy
import hashlib
import json
import random
import resource
import struct
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from skdisk import MLPDiskClassifier, make_disk

N_FILES, N_FILES_LONG = 60, 100_000
# Of the address space, beyond what the process has: torch and pandas take a little of it.
MEMORY = 2**29

X, Y = make_disk(40, random_state=0)
FRAME = pd.DataFrame(X, columns=["width", "height"])
BLANK = b"0" * 64
# What parameters may ask for that no fit after this one can do.
REFUSED_LATER = (
    *("go on with the network of the earlier fit", "class_weight", "of memory"),
    *("fused=True is not possible", "that of the earlier fit had"),
)


# What stands in the text for lists within lists, which cannot be copied.
DEEP = "[" * 5000 + "]" * 5000

VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 40, 1.0, 1.5, -0.5, 1e-46, 1e39, 1e308),
    *(float("nan"), float("inf"), 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, 10**400),
    *("", "x", "auto", "adam", "sgd", "relu", "cpu", "cuda", "balanced", "cosine", "DEEP"),
    *("<i8", "<f8", "|O", "|b1", "<U3", "<U300000000", "\0", "\udc80", "a" * 5000),
    *("strong_wolfe", "__class__"),
    *([], {}, [1], [[]], [0, 1], [1, 0], [0.5, 0.5], ["a", "b"], [None, None], [0] * 1000),
    *([10**9], [1] * 300, {"a": 1}, {"0": 1.0}, {"$x": 1}, [[[[[[[]]]]]]]),
    *({"$tuple": []}, {"$tuple": [0.9, 1]}, {"$tuple": 3}, {"$tuple": [], "a": 1}),
    *({"$dict": [[1, 2]]}, {"$dict": [[[], 1]]}, {"$dict": [[0, 1], [1, 2]]}),
    *({"$tensor": name} for name in ("no", "state.parameters.0", 0)),
    *({"$optimizer": name} for name in ("SGD", "Adam", "LBFGS", "SparseAdam", "Muon")),
    *({"$optimizer": name} for name in ("Optimizer", "lr_scheduler", "os.system")),
]
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "x"]
SHAPES = [[], [0], [10**12, 0], [2**40] * 4, [-1, 0], [[]], None]
NUMBERS = [float(x) for x in ("nan", "inf", "-inf", "0", "-1", "3e38", "-3e38", "1e-45")]
TEXTS = [b"{", b"}", b"[" * 2000, b'"', b"\\", b"9" * 5000, b"1e999", b"null"]


def unpack(data):
    """Take a file apart: what the JSON says, what tensors there are, and their bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    metadata = header.pop("__metadata__")
    return metadata, json.loads(metadata.pop("estimator")), header, data[end:]


def pack(metadata, description, tensors, content):
    """Put a file together again, with the checksum that it then has."""
    text = json.dumps(description).replace('"DEEP"', DEEP)
    metadata = {"estimator": text, **metadata}
    header = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return seal(len(header).to_bytes(8, "little") + header + content)


def seal(data):
    """Set the checksum: the file's with 64 zeros in its place."""
    mark = b'"sha256":"'
    start = data.find(mark) + len(mark)
    if start < len(mark):
        return data
    blank = data[:start] + BLANK + data[start + 64 :]
    return data[:start] + hashlib.sha256(blank).hexdigest().encode() + data[start + 64 :]


def change_bytes(rng, data, start=0, stop=None):
    data, stop = bytearray(data), len(data) if stop is None else stop
    for _ in range(rng.choice([1, 1, 2, 5])):
        i, n = rng.randrange(start, stop), rng.choice([1, 1, 2, 8, 100])
        kind = rng.randrange(7)
        if kind == 0:
            data[i] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[i : i + n] = rng.randbytes(n)
        elif kind == 2:
            del data[i : i + n]
        elif kind == 3:
            data[i:i] = rng.randbytes(n)
        elif kind == 4:
            data[i:i] = data[i : i + n]
        elif kind == 5:
            other = rng.randrange(start, stop)
            data[i : i + n] = data[other : other + n]
        elif stop == len(data):
            del data[i:]
        stop = max(start + 1, min(stop, len(data)))
        if len(data) <= start:
            break
    return bytes(data)


def change_bytes_only(rng, data):
    if rng.random() < 0.2:
        # How long the header is said to be.
        length = rng.choice([0, 1, 2**31, 2**32, 2**63, 2**64 - 1, len(data), len(data) - 8])
        return length.to_bytes(8, "little") + data[8:]
    return change_bytes(rng, data)


def change_bytes_and_seal(rng, data):
    end = 8 + int.from_bytes(data[:8], "little")
    if rng.random() < 0.7:
        header = change_bytes(rng, data[8:end])
        if rng.random() < 0.3:
            text = rng.choice(TEXTS)
            i = rng.randrange(len(header) + 1)
            header = header[:i] + text + header[i:]
        header += b" " * (-len(header) % 8)
        data = len(header).to_bytes(8, "little") + header + data[end:]
    else:
        data = change_bytes(rng, data, end)
    return seal(data)


def find_places(value):
    """List all pairs (container, key) of a description."""
    places = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        places.append((value, key))
        if isinstance(item, dict | list):
            places += find_places(item)
    return places


def change_value(rng, description):
    # Most places are in the history and in names of tensors, which are much alike.
    places = [place for place in find_places(description) if place[1] != "$tensor"]
    history = description.get("history")
    of_rows = {id(row) for row in history} if isinstance(history, list) else set()
    others = [place for place in places if id(place[0]) not in of_rows]
    parent, key = rng.choice(places if rng.random() < 0.15 else others or places)
    kind = rng.random()
    if kind < 0.2:
        del parent[key]
    elif kind < 0.4:
        other, other_key = rng.choice(places)
        parent[key] = copy.deepcopy(other[other_key])
    elif kind < 0.5 and isinstance(parent, dict):
        parent[rng.choice([*map(str, VALUES[-30:]), key + "_", "x"])] = parent.pop(key)
    elif kind < 0.6 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(rng.choice([*VALUES, parent[key]])))
    elif kind < 0.7 and isinstance(value := parent[key], int | float) and not abs(value) > 1e300:
        parent[key] = rng.choice([-value, value + 1, value - 1, 1e10 * value, float(value)])
    else:
        parent[key] = copy.deepcopy(rng.choice(VALUES))


def change_description(rng, data):
    metadata, description, tensors, content = unpack(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if description:
            change_value(rng, description)
    return pack(metadata, description, tensors, content)


def change_metadata(rng, data):
    metadata, description, tensors, content = unpack(data)
    name = rng.choice([*metadata, "estimator", "more"])
    value = rng.choice([*map(str, range(-1, 4)), "", "x", "1e3", "\u0661", "9" * 5000, "{}", "[]"])
    metadata[name] = rng.choice([value, value, 3, None, {}, json.dumps(rng.choice(VALUES))])
    if rng.random() < 0.2:
        del metadata[name]
    return pack(metadata, description, tensors, content)


def change_tensor(rng, tensors, content):
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    shape, (start, stop) = tensor["shape"], tensor["data_offsets"]
    kind = rng.randrange(9)
    if kind == 0:
        tensor["dtype"] = rng.choice(DTYPES)
    elif kind == 1:
        shapes = [[*shape, 1], [1, *shape], shape[::-1], shape[1:], *SHAPES]
        tensor["shape"] = rng.choice(shapes)
    elif kind == 2:
        offsets = [[start, start], [stop, start], [0, stop], [start, stop + 8], [0, 2**63], []]
        tensor["data_offsets"] = rng.choice(offsets)
    elif kind == 3:
        tensors[rng.choice(["more", "", "state.parameters.9", "__metadata__"])] = tensors.pop(name)
    elif kind == 4:
        del tensors[name]
    elif kind == 5:
        tensors[rng.choice(sorted(tensors))] = copy.deepcopy(tensor)
    elif kind == 6:
        # Others in its place, behind all that is there.
        n, number = rng.choice([4, 8, 16]), rng.choice([0.0, 1.0, -1.0, 1e38])
        offsets = [len(content), len(content) + 4 * n]
        tensor |= {"shape": [n], "dtype": "F32", "data_offsets": offsets}
        content += struct.pack(f"<{n}f", *[number] * n)
    elif stop > start:
        # Numbers that are not as they were: one in the middle, or from there to the end.
        number = rng.choice([struct.pack("<f", rng.choice(NUMBERS)), rng.randbytes(4)])
        first = start + 4 * rng.randrange((stop - start + 3) // 4)
        last = min(stop, rng.choice([first + 4, stop]))
        content = content[:first] + (number * (last - first))[: last - first] + content[last:]
    return content


def change_tensors(rng, data):
    metadata, description, tensors, content = unpack(data)
    content = change_tensor(rng, tensors, content)
    return pack(metadata, description, tensors, content)


CHANGES = {
    change_bytes_only: 2,
    change_bytes_and_seal: 2,
    change_description: 5,
    change_metadata: 1,
    change_tensors: 3,
}

SAVED = {
    "sgd": {"momentum": 0.9, "clip_grad_norm": 1.0},
    "defaults": {"lr": "auto", "weight_decay": "auto", "lr_schedule": "cosine"},
    "adam": {"optimizer": "adam", "dropout": (0.1,), "class_weight": {"in": 2.0, "out": 1}},
    "adamw": {"optimizer": "adamw", "optimizer_params": {"betas": (0.8, 0.9), "amsgrad": True}},
    "RMSprop": {"optimizer": torch.optim.RMSprop, "early_stopping": True, "n_iter_no_change": 2},
    "LBFGS": {"optimizer": torch.optim.LBFGS, "optimizer_params": {"max_iter": 2}},
    "lbfgs": {"optimizer": "lbfgs", "weight_decay": 0.1, "lr": "auto", "lr_schedule": "plateau"},
    "bools": {"hidden_layer_sizes": (), "labels": [False, True], "rows": X},
    "floats": {"hidden_layer_sizes": [3, 2], "labels": [0.0, 2.0, 9.0], "activation": "gelu"},
    "several labels": {"labels": [[0, 1], [1, 1], [0, 0]], "momentum": 0.9},
}


@pytest.fixture
def limited_memory():
    """Let the process have little more memory than it has; more is a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)

    def limit():
        with open("/proc/self/statm", encoding="ascii") as file:
            n_bytes = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes + MEMORY, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_AS, before)


def save_one(make_clf, path, labels=("in", "out"), rows=FRAME, **params):
    y = np.array(labels)[np.arange(40) % len(labels) if len(labels) > 2 else Y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_clf(**params).fit(rows, y).save(path)
    return path.read_bytes()


def assert_works(clf, path):
    """Check that an estimator predicts, is the same when it has been saved, and goes on."""
    rows = FRAME if hasattr(clf, "feature_names_in_") else X
    rows = np.resize(rows.to_numpy() if rows is FRAME else rows, (40, clf.n_features_in_))
    if hasattr(clf, "feature_names_in_"):
        rows = pd.DataFrame(rows, columns=clf.feature_names_in_)
    proba = clf.predict_proba(rows)
    assert np.isfinite(proba).all()
    assert len(clf.history_) == clf.n_iter_ == len(clf.loss_curve_)
    clf.save(path)
    again = type(clf).load(path)
    assert repr(again.get_params()) == repr(clf.get_params())
    np.testing.assert_array_equal(again.classes_, clf.classes_, strict=True)
    np.testing.assert_array_equal(again.predict_proba(rows), proba)
    pd.testing.assert_frame_equal(again.history_, clf.history_)
    try:
        is_multilabel = clf.predict(rows).ndim == 2
        clf.partial_fit(
            rows, np.eye(40, len(clf.classes_)) if is_multilabel else np.resize(clf.classes_, 40)
        )
    except ValueError as error:
        # As it is refused after set_params.
        if not any(words in str(error) for words in REFUSED_LATER):
            raise
    assert np.isfinite(clf.predict_proba(rows)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
# A file may have lost what a warning tells of, such as a device; large numbers diverge.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "options"), SAVED.items(), ids=SAVED)
def test_a_mutated_file_is_refused_in_words_or_works(
    make_clf, tmp_path, limited_memory, campaign, name, options
):
    path, other = tmp_path / "mutated.safetensors", tmp_path / "again.safetensors"
    data = save_one(make_clf, path, **options)
    assert_works(MLPDiskClassifier.load(path), other)
    n_refused = n_loaded = 0
    limited_memory()
    for number in range(campaign.choose(N_FILES, N_FILES_LONG)):
        rng = random.Random(f"{name} {campaign.seed} {number}")
        [change] = rng.choices([*CHANGES], [*CHANGES.values()])
        changed = change(rng, data)
        path.write_bytes(changed)
        where = f"{name} {campaign.seed} {number}, {change.__name__}"
        try:
            clf = MLPDiskClassifier.load(path)
        except ValueError as error:
            n_refused += 1
            if str(path) not in str(error):
                pytest.fail(f"{where}: {error}")
            continue
        except Exception as error:
            raise AssertionError(f"load of {where}") from error
        n_loaded += 1
        # Bytes that the checksum does not protect are not there.
        assert change is not change_bytes_only or changed == data, where
        try:
            assert_works(clf, other)
        except Exception as error:
            raise AssertionError(f"use of {where}") from error
    assert n_refused > n_loaded > 0
    campaign.record(files=n_refused + n_loaded, refused=n_refused)
