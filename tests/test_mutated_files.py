"""Files that are not as `save` wrote them: `load` refuses them, or makes a model that works.

Files are changed at random: their bytes; bytes with a checksum that is right again; what the
JSON says; tensors and what is said of them. Whatever comes of it, `load` raises ValueError in
words that name the file, or the estimator predicts, can be saved and is the same again, and goes
on training. No file asks for much more memory than it has bytes, and none makes `load` run code.

`pytest tests/test_mutated_files.py --long` tries a million files, which takes more than half an
hour of one core; the suite tries a few hundred.
"""

import contextlib
import copy
import hashlib
import json
import random
import resource
import struct
import sys
import tracemalloc
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load as load_arrays

from skdisk import MLPDiskClassifier, _persistence, make_disk
from skdisk._inputs import file_checks, file_format

N_FILES, N_FILES_LONG = 15, 25_000
N_PORTIONS = 4
# Each estimator that is loaded must predict; of so many, one is saved again and trained further.
N_PREDICTING, N_PREDICTING_LONG = 1, 10
# Those of which the way through the checks is followed, line by line, and their bytes.
N_FOLLOWED, N_FOLLOWED_LONG = 200, 50_000
LARGEST_FOLLOWED = 100_000
FOLLOWED = {module.__file__ for module in (_persistence, file_checks, file_format)}
# What is measured with texts that are small in a file and large in memory.
N_MEASURED, N_MEASURED_LONG = 6, 300
MOST_BYTES_FOR_BYTE = 40
MOST_BYTES_FOR_NOTHING = 2**20
SMALL_TEXTS = [
    *("[]", "{}", "[[]]", '{"":0}', '[{"":0}]', "[[1,0]]", "0", "300", "1.5", "null", '"x"'),
    *('{"$tuple":[]}', '{"$dict":[]}', '{"$dict":[[0,0]]}', '{"epoch":1,"train_loss":1}'),
    *('"\\u0100"', '"\U0001f600"'),
]
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


# Lists within lists, which cannot be copied: they are put into the text.
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


def pack(metadata, description, tensors, content, texts=None):
    """Put a file together again, with the checksum that it then has, and texts in their places."""
    text = json.dumps(description)
    for name, value in {"DEEP": DEEP, **(texts or {})}.items():
        text = text.replace(f'"{name}"', value)
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
    if start >= stop:
        return bytes(data) + rng.randbytes(8)
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
    kind = rng.randrange(8)
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


def change_arrays(rng, data):
    metadata, description, _, _ = unpack(data)
    arrays = load_arrays(data)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    flat = array.ravel()
    is_float = array.dtype.kind == "f"
    changed = [
        *(flat, flat[:-1], array[None], array.T, np.concatenate([flat, flat]), -array),
        *(array.astype(dtype) for dtype in ("f8", "f2", "u1", "i8") if np.isfinite(array).all()),
        *(np.zeros(shape, array.dtype) for shape in ((10**6, 0), (1000, 10), array.shape)),
        np.full_like(array, np.nan if is_float else 255),
    ]
    arrays[name] = np.asarray(rng.choice(changed), order="C")
    return file_format.pack({**metadata, "estimator": json.dumps(description)}, arrays)


CHANGES = {
    change_bytes_only: 2,
    change_bytes_and_seal: 2,
    change_description: 5,
    change_metadata: 1,
    change_tensors: 2,
    change_arrays: 2,
}


def mutate(rng, data):
    """Change a file; return by which function, and what it is then."""
    [change] = rng.choices([*CHANGES], [*CHANGES.values()])
    return change, change(rng, data)


SAVED = {
    "sgd": {"momentum": 0.9, "clip_grad_norm": 1.0},
    "defaults": {"lr": "auto", "weight_decay": "auto", "lr_schedule": "cosine"},
    "adam": {"optimizer": "adam", "dropout": (0.1,), "class_weight": {"in": 2.0, "out": 1}},
    "adamw": {"optimizer": "adamw", "optimizer_params": {"betas": (0.8, 0.9), "amsgrad": True}},
    "RMSprop": {"optimizer": torch.optim.RMSprop, "early_stopping": True, "n_iter_no_change": 2},
    "LBFGS": {"optimizer": torch.optim.LBFGS, "optimizer_params": {"max_iter": 2}},
    "lbfgs": {
        "optimizer": "lbfgs",
        "optimizer_params": {"history_size": 3},
        "weight_decay": 0.1,
        "lr": "auto",
        "lr_schedule": "plateau",
    },
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


# What Python's audit hooks tell of where nothing is run; the version of skdisk stands in a file.
HARMLESS = {"builtins.id", "object.__getattr__", "os.listdir"}
# typing looks who asks whether an object follows a protocol: from Python 3.12 on by the second.
HARMLESS |= {"sys._getframe", "sys._getframemodulename"}


class Watch:
    """Notes what Python's audit hooks tell of while it is on: code that is run, imports, files.

    No hook can be taken away again: there is one for all tests.
    """

    def __init__(self):
        self.events = None
        sys.addaudithook(self._note)

    def _note(self, event, arguments):
        if self.events is None or event in HARMLESS:
            return
        if event != "open" or arguments[1] != "r":
            self.events.append((event, *map(str, arguments)))

    @contextlib.contextmanager
    def on(self):
        """Note what is not harmless in a list, which is returned."""
        self.events = events = []
        try:
            yield events
        finally:
            self.events = None


@pytest.fixture(scope="session")
def watch():
    """Watch loads, for which all has been imported by then."""
    # To show the first tensor in an error, and to make the first optimiser, torch imports more of
    # itself.
    repr(torch.zeros(1))
    torch.optim.SGD([torch.zeros(1)], lr=1.0).step()
    return Watch()


def load(path, watch, where):
    """Load a file, or return None where that is refused in words that name the file."""
    with watch.on() as events:
        try:
            clf = MLPDiskClassifier.load(path)
        except ValueError as error:
            clf = None
            words = str(error)
        except Exception as error:
            raise AssertionError(f"load of {where}") from error
    assert events == [], where
    if clf is None:
        assert str(path) in words, where
        assert len(words) < 3000, where
    return clf


def make_rows(clf):
    """Make rows that an estimator knows, with the names of features that it has."""
    rows = np.resize(X, (40, clf.n_features_in_))
    if hasattr(clf, "feature_names_in_"):
        rows = pd.DataFrame(rows, columns=clf.feature_names_in_)
    return rows


def assert_predicts(clf):
    # Without names, which the caller lets pass: a frame takes longer than to predict.
    assert np.isfinite(clf.predict_proba(np.resize(X, (40, clf.n_features_in_)))).all()


def assert_works(clf, path):
    """Check that an estimator predicts, is the same when it has been saved, and goes on."""
    rows = make_rows(clf)
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


class Count:
    """Loads mutated files, uses what was loaded, and counts."""

    def __init__(self, watch, folder, n_predicting):
        self.watch, self.n_predicting = watch, n_predicting
        self.path, self.other = folder / "mutated.safetensors", folder / "again.safetensors"
        self.refused = self.loaded = self.trained = 0

    def load(self, data, where):
        """Load a file with some content, and tell whether that was possible."""
        self.path.write_bytes(data)
        clf = load(self.path, self.watch, where)
        if clf is None:
            self.refused += 1
            return False
        self.loaded += 1
        try:
            if self.loaded % self.n_predicting:
                assert_predicts(clf)
            else:
                self.trained += 1
                assert_works(clf, self.other)
        except Exception as error:
            raise AssertionError(f"use of {where}") from error
        return True

    def record(self, campaign, **more):
        counts = {"files": self.refused + self.loaded, "refused": self.refused}
        campaign.record(**counts, trained_further=self.trained, **more)


@pytest.fixture
def count(watch, tmp_path, campaign):
    return Count(watch, tmp_path, campaign.choose(N_PREDICTING, N_PREDICTING_LONG))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
# A file may have lost what a warning tells of, such as a device; large numbers diverge.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("portion", range(N_PORTIONS))
@pytest.mark.parametrize(("name", "options"), SAVED.items(), ids=SAVED)
def test_a_mutated_file_is_refused_in_words_or_works(
    make_clf, count, limited_memory, campaign, name, options, portion
):
    data = save_one(make_clf, count.path, **options)
    # What is imported only when it is needed has been imported then.
    assert_works(MLPDiskClassifier.load(count.path), count.other)
    limited_memory()
    n_files = campaign.choose(N_FILES, N_FILES_LONG)
    for number in range(portion * n_files, (portion + 1) * n_files):
        rng = random.Random(f"{name} {campaign.seed} {number}")
        change, changed = mutate(rng, data)
        where = f"{name} {campaign.seed} {number}, {change.__name__}"
        is_loaded = count.load(changed, where)
        # Bytes that the checksum does not protect are not there.
        assert not is_loaded or change is not change_bytes_only or changed == data, where
    # Of so few files as the suite tries, all may be right, or none.
    assert not campaign.is_long or count.refused > count.loaded > 0
    count.record(campaign)


@contextlib.contextmanager
def follow(ways):
    """Add to a set the pairs of lines of the files that check, run one after the other."""

    def follow_call(frame, event, arg):
        name, last = frame.f_code.co_filename, None
        if name not in FOLLOWED:
            return None

        def follow_line(frame, event, arg):
            nonlocal last
            ways.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return follow_line

        return follow_line

    before = sys.gettrace()
    sys.settrace(follow_call)
    try:
        yield
    finally:
        sys.settrace(before)


def mutate_again(rng, data):
    """Mutate a file that may be one already, and then cannot always be taken apart."""
    try:
        return mutate(rng, data)[1]
    except Exception:
        return change_bytes_and_seal(rng, data)


@pytest.mark.filterwarnings("ignore")
def test_a_file_mutated_on_and_on_along_new_ways_is_refused_in_words_or_works(
    make_clf, count, campaign
):
    known, ways = [], set()
    for options in SAVED.values():
        known.append(save_one(make_clf, count.path, **options))
        with follow(ways):
            MLPDiskClassifier.load(count.path)
    n_begun = len(ways)
    for number in range(campaign.choose(N_FOLLOWED, N_FOLLOWED_LONG)):
        rng = random.Random(f"{campaign.seed} {number}")
        changed = mutate_again(rng, rng.choice(known))
        n_before = len(ways)
        with follow(ways):
            count.load(changed, f"{campaign.seed} {number}")
        # Those that led to lines in a new order are mutated further.
        if len(ways) > n_before and len(changed) < LARGEST_FOLLOWED:
            known.append(changed)
    assert len(ways) > n_begun
    count.record(campaign, ways=len(ways))


def choose_place(rng, description):
    return rng.choice(find_places(description))


def measure(path, data, choose, item, n_bytes):
    """Load a file that has at one place as many items as make so many bytes.

    The value is how many bytes that took at most, for each byte of the file.
    """
    metadata, description, tensors, content = unpack(data)
    parent, key = choose(description)
    parent[key] = "MANY"
    many = f"[{','.join([item] * (n_bytes // (len(item) + 1)))}]"
    path.write_bytes(pack(metadata, description, tensors, content, {"MANY": many}))
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            MLPDiskClassifier.load(path)
        n_most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    n_bytes = path.stat().st_size
    where = f"{item} in {key}: {n_most} bytes for {n_bytes}"
    assert n_most < MOST_BYTES_FOR_BYTE * n_bytes + MOST_BYTES_FOR_NOTHING, where
    return n_most / n_bytes


@pytest.fixture
def large(make_clf, tmp_path):
    """Save a classifier whose optimiser is torch's; the value is the path, and what is there."""
    path = tmp_path / "large.safetensors"
    data = save_one(make_clf, path, optimizer="adam", fused=False)
    MLPDiskClassifier.load(path)
    return path, data


@pytest.mark.filterwarnings("ignore")
def test_a_file_asks_for_memory_in_proportion_to_its_size(large, campaign):
    n_files, ratios = campaign.choose(N_MEASURED, N_MEASURED_LONG), []
    for number in range(n_files):
        rng = random.Random(f"{campaign.seed} {number}")
        n_bytes = rng.randrange(10_000, campaign.choose(50_000, 500_000))
        choose = partial(choose_place, rng)
        ratios.append(measure(*large, choose, rng.choice(SMALL_TEXTS), n_bytes))
    campaign.record(files=n_files, largest_ratio_of_memory_to_size=max(ratios))


@pytest.mark.parametrize("key", ["params", "foreach", "more"])
@pytest.mark.parametrize("part", ["groups", "optimizer"])
def test_what_an_optimiser_remembers_is_not_copied_where_lists_lie_in_it(large, part, key):
    measure(*large, lambda description: (description["state"][part][0], key), "[[]]", 100_000)
    path, _ = large
    with pytest.raises(ValueError, match=f"{part} of the state has lists or dicts within others"):
        MLPDiskClassifier.load(path)
