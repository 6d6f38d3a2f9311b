"""The border of the compiled code and its inside, by calls drawn at random.

At the border most calls have something wrong. A call that makes sense is drawn first, then up to
three of its arguments are spoiled: sizes, types, layouts, labels, orders, indices, numbers, names,
objects that are nothing of the kind. Whatever comes of it, the call raises ValueError or TypeError
in words that name an argument, and has changed nothing; or what it returns keeps its promises.
Bytes around the arrays stay as they were; half of the arrays have none, and are watched by the
sanitizer of `make sanitize` and `make fuzz-kernel`.

Inside, libFuzzer looks for calls that take ways through the arithmetic which none took before:
`kernel_fuzzer.c` is its target.
"""

import array
import ctypes
import fractions
import math
import os
import random
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from skdisk import _kernel as kernel

if not kernel.get_instruction_sets():
    pytest.skip("the kernel has not been compiled here", allow_module_level=True)

N_CALLS, N_CALLS_LONG = 500, 250_000
# Bytes on both sides of an array, and what they hold.
GUARD, FILL = 64, 0xA5

ACTIVATIONS = [
    *("relu", "tanh", "logistic", "identity", "leaky_relu", "elu", "selu", "gelu", "silu")
]
NAMES = {
    "instruction_set": kernel.get_instruction_sets(),
    "activation": ACTIVATIONS,
    "output": ["softmax", "sigmoid"],
    "optimizer": ["sgd", "adam", "adamw"],
    "form": ["log_proba", "proba", "scores"],
}
NUMBERS = [
    *("n_steps", "batch_size", "momentum", "nesterov", "weight_decay", "beta1", "beta2", "eps"),
    *("max_norm", "layer"),
]
WRITTEN = {"parameters", "memory0", "memory1", "out"}
# How the words of an error name an argument.
NAMED = re.compile(
    r"\b(instruction_set|layer_sizes|activation|output|parameters|memory\d?|n_steps|batch_size"
    r"|optimizer|momentum|nesterov|weight_decay|beta[12]|eps|max_norm|dropout|X|labels|row_weights"
    r"|row_keys|orders|learning_rates|seeds|form|out|layer|values|indices|indptr|nothing|keyword)\b"
)
SPECIAL = np.array([0, -0.0, np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 1e-39, 1e20, -90])


def draw_floats(rng, numbers, shape, dtype=np.float32):
    """Draw numbers of moderate size, of which at times one is anything."""
    x = numbers.standard_normal(shape).astype(dtype)
    if x.size and rng.random() < 0.3:
        x.flat[rng.randrange(x.size)] = rng.choice(SPECIAL)
    return x


def draw_network(rng):
    sizes = [
        rng.choice((1, 2, 3, 5, 8, 17, 33, 70)) for _ in range(rng.choice((2, 2, 3, 3, 4, 6)))
    ]
    return {
        "instruction_set": rng.choice(NAMES["instruction_set"]),
        "layer_sizes": np.array(sizes),
        "activation": rng.choice(ACTIVATIONS),
        "output": rng.choice(NAMES["output"]),
    }


def draw_rows(rng, numbers, n_rows, n_features):
    """Draw dense or sparse rows, in all their types."""
    if rng.random() < 0.6:
        dtype = rng.choice((np.float32, np.float64))
        X = draw_floats(rng, numbers, (n_rows, n_features), dtype)
        return {"values": X, "indices": None, "indptr": None}
    counts = numbers.integers(0, 4, n_rows + 1)
    if rng.random() < 0.7:
        counts[0] = 0
    n = counts.sum()
    types = rng.choices((np.int32, np.int64), k=2)
    return {
        "values": draw_floats(rng, numbers, n),
        "indices": numbers.integers(0, n_features, n).astype(types[0]),
        "indptr": counts.cumsum().astype(types[1]),
    }


def draw_data(rng, numbers, network, n_rows):
    n_outputs = network["layer_sizes"][-1]
    labels = numbers.integers(0, n_outputs, n_rows)
    if network["output"] == "sigmoid":
        labels = numbers.integers(0, 2, (n_rows, n_outputs)).astype(np.float32)
    weights = None
    if rng.random() < 0.4:
        weights = rng.choice((1, 1e-45, 3e37)) * numbers.random(n_rows).astype(np.float32) ** 2
        weights[rng.randrange(n_rows)] = 1
    rows = draw_rows(rng, numbers, n_rows, network["layer_sizes"][0])
    return rows | {"labels": labels, "row_weights": weights}


def draw_training(rng, numbers, network, n_parameters, n_rows):
    n_epochs, length = rng.randrange(4), rng.choice((n_rows, rng.randint(1, 40)))
    keys = numbers.integers(-(2**63), 2**63, n_rows)
    seeds = numbers.integers(-(2**63), 2**63, n_epochs)
    dropout = None
    if rng.random() < 0.3:
        keys = seeds = None
    elif rng.random() < 0.7:
        dropout = numbers.choice([0, 0.1, 0.5, 0.999], len(network["layer_sizes"]) - 2)
    optimizer, momentum = rng.choice(NAMES["optimizer"]), rng.choice((0.0, 0.9, 1e-45, 3e38))
    n_memories = 2 if optimizer != "sgd" else momentum != 0
    memory = [draw_floats(rng, numbers, n_parameters) for _ in range(n_memories)] + [None] * 2
    return {
        "memory0": memory[0],
        "memory1": memory[1],
        "n_steps": rng.choice((0, 7, 2**62 - 1, np.int64(3), True)),
        "batch_size": rng.choice((1, 2, 7, 8, 32, 100, 2**63 - 1)),
        "optimizer": optimizer,
        "momentum": momentum,
        "nesterov": rng.choice((True, False, 1, np.True_)),
        "weight_decay": rng.choice((0.0, 1e-2, 1e-320, 3e38)),
        "beta1": rng.choice((0, 0.9, math.nextafter(1, 0), np.array(0.5))),
        "beta2": rng.choice((0.0, 0.999, math.nextafter(1, 0), np.float32(0.5))),
        "eps": rng.choice((0.0, 1e-8, 1e-320, 3e38, 1)),
        "max_norm": rng.choice((math.inf, 1.0, 1e-320, 1e300)),
        "dropout": dropout,
        "row_keys": keys,
        "orders": numbers.integers(0, n_rows, (n_epochs, length)),
        "learning_rates": numbers.choice([0, 0.1, 0.1, 1e-320, 3e38], n_epochs),
        "seeds": seeds,
    }


def draw_arguments(rng, function):
    """Draw a call that makes sense."""
    numbers = np.random.default_rng(rng.getrandbits(64))
    network = draw_network(rng)
    sizes = network["layer_sizes"].tolist()
    n_parameters = sum(n_out * (n_in + 1) for n_in, n_out in pairwise(sizes))
    arguments = network | {"parameters": draw_floats(rng, numbers, n_parameters)}
    n_rows = rng.choice((1, 2, 3, 8, 9, 16, 33, 70))
    if function == "train":
        arguments |= draw_data(rng, numbers, network, n_rows)
        return arguments | draw_training(rng, numbers, network, n_parameters, n_rows)
    if function == "evaluate":
        return arguments | draw_data(rng, numbers, network, n_rows)
    n_rows = rng.choice((0, n_rows, n_rows))
    arguments |= draw_rows(rng, numbers, n_rows, sizes[0])
    if function == "predict":
        form = rng.choice(NAMES["form"])
        return arguments | {"form": form, "out": np.full((n_rows, sizes[-1]), 7.0)}
    layer = rng.randint(1, len(sizes) - 1)
    return arguments | {"layer": layer, "out": np.full((n_rows, sizes[layer]), 7, np.float32)}


class Awkward:
    """Something whose conversion to a number fails in a way of its own."""

    def __index__(self):
        return "no integer"

    def __float__(self):
        raise KeyError("no float")

    def __bool__(self):
        raise RuntimeError("no truth")


class Text(str):
    """A string that does not print itself."""

    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


OBJECTS = [
    *(None, True, 0, -1, 1, 2.5, math.nan, math.inf, -math.inf, 1e-320, 1e308, -0.5, 1.0),
    *(2**31, 2**62, 2**63 - 1, 2**63, 2**70, -(2**63), 10**400, 1j, fractions.Fraction(1, 3)),
    *("", "1", "relu", "relu\0", "\udc80", "\u0661", "x" * 5000, Text("adam"), Text("?")),
    *(b"", b"12345678", bytearray(8), [], [1.0, 2.0], (), {}, set(), object(), object, len),
    *(Awkward(), Awkward, array.array("f", [1, 2]), (ctypes.c_float * 3)(), ctypes.c_int64(4)),
    *(np.float32(0.5), np.float64(np.nan), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True)),
    *(
        np.array(1.0),
        np.array(2),
        np.array([1]),
        np.array("a"),
        np.array(None),
        np.datetime64(1, "s"),
    ),
    *(memoryview(b"abcdefgh"), memoryview(bytearray(8)).cast("f"), np.ma.masked, np.dtype("f4")),
]
DTYPES = [*"?bBhHiIqQefdgFDOUSV", ">f4", ">i8", ">f8", "M8[s]", "f4,i4"]
SHAPES = [(0,), (1,), (2,), (0, 3), (3, 0), (1, 1), (1, 1, 1), (0, 2**59), (2**50, 0), (1,) * 32]
INTEGERS = [-1, 0, 1, 2, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**31), -(2**63)]


def change_value(rng, x):
    x = x.copy()
    if x.size and x.dtype.kind in "if":
        values = SPECIAL if x.dtype.kind == "f" else INTEGERS
        near = (x.max(initial=0) + 1, x.flat[-1], -x.flat[0])
        with np.errstate(all="ignore"):
            value = np.array(rng.choice((*values, *near))).astype(x.dtype)
        x.flat[rng.randrange(x.size)] = value
    return x


def change_type(rng, x):
    with np.errstate(all="ignore"):
        try:
            return x.astype(rng.choice(DTYPES))
        except (TypeError, ValueError):
            return x.astype(object)


def change_length(rng, x):
    axis = rng.randrange(x.ndim) if x.ndim else None
    kind = rng.randrange(4)
    if axis is None or kind == 0:
        return np.resize(x, rng.choice(SHAPES[:7]))
    if kind == 1:
        return np.concatenate([x, x.take(range(min(1, x.shape[axis])), axis)], axis)
    at = (slice(None),) * axis
    return x[(*at, slice(1, None) if kind == 2 else slice(0))].copy()


def change_dimensions(rng, x):
    return rng.choice((x.ravel(), x[None], x[..., None], x.T, x.reshape(-1, 1), x.reshape(1, -1)))


def change_layout(rng, x):
    kind = rng.randrange(6)
    if kind == 0:
        return np.asfortranarray(x)
    if kind == 1:
        return x[::-1]
    if kind == 2:
        return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
    if kind == 3:
        x = x.copy()
        x.flags.writeable = False
        return x
    if kind == 4:
        bytes_, start = bytearray(x.nbytes + 8), rng.randrange(1, 4)
        unaligned = np.frombuffer(bytes_, x.dtype, x.size, start).reshape(x.shape)
        unaligned[...] = x
        return unaligned
    return np.broadcast_to(x[:1], x.shape) if x.ndim else x


CHANGES = {
    change_value: 4,
    change_type: 1,
    change_length: 2,
    change_dimensions: 1,
    change_layout: 2,
}


def spoil(rng, arguments, name):
    """Make something else of an argument; it may still make sense."""
    value, kind = arguments[name], rng.random()
    if kind < 0.1:
        return rng.choice(OBJECTS)
    if name in NAMES:
        return rng.choice([*NAMES[name], *OBJECTS, "base", "neon", "softmax\0", name])
    if name in NUMBERS:
        return rng.choice([*OBJECTS, *INTEGERS])
    if kind < 0.15:
        return np.zeros(rng.choice(SHAPES), getattr(value, "dtype", np.float32))
    if kind < 0.25:
        return arguments[rng.choice([*arguments])]
    if not isinstance(value, np.ndarray):
        return rng.choice(OBJECTS)
    if kind < 0.3:
        return rng.choice((memoryview, np.ndarray.tolist, np.ndarray.tobytes))(value)
    [change] = rng.choices([*CHANGES], [*CHANGES.values()])
    return change(rng, value)


def set_apart(rng, x):
    """Copy an array into memory of its own, with or without a guard on both sides."""
    guard = rng.choice((0, GUARD))
    room = np.full(x.nbytes + 2 * guard, FILL, dtype=np.uint8)
    inside = room[guard : guard + x.nbytes].view(x.dtype).reshape(x.shape)
    inside[...] = x
    return inside, room


def copy_bytes(arguments):
    return {
        name: value.tobytes()
        for name, value in arguments.items()
        if type(value) is np.ndarray and not value.dtype.hasobject
    }


def assert_guards_hold(arguments, rooms):
    for name, room in rooms.items():
        guard = min(GUARD, (room.size - arguments[name].nbytes) // 2)
        around = np.r_[room[:guard], room[room.size - guard :]]
        assert (around == FILL).all(), name


def assert_rows_are_finite_or_nan(x):
    finite = np.isfinite(x).all(axis=1)
    assert np.isnan(x[~finite]).all()
    return finite


def check_training(before, given, result):
    losses, n_done, diverged, n_steps = result
    n_epochs, n_rows = given["orders"].shape
    n_batches = -(-n_rows // int(given["batch_size"]))
    losses = np.frombuffer(losses, np.float32).reshape(n_epochs, n_batches)
    assert diverged is (n_done < n_epochs)
    assert n_steps == int(given["n_steps"]) + n_done * n_batches
    assert np.isfinite(losses[:n_done]).all()
    if n_done:
        assert np.isfinite(np.asarray(given["parameters"])).all()
    else:
        assert copy_bytes(given) == before


def check_evaluation(before, given, result):
    loss, n_right = result
    weights = given["row_weights"]
    weight = len(given["labels"]) if weights is None else np.asarray(weights, float).sum()
    assert 0 <= n_right <= weight * (1 + 1e-9)
    assert loss >= 0 or math.isnan(loss)


def check_prediction(before, given, result):
    assert result is None
    form, out = given["form"], np.asarray(given["out"])
    rows = out[assert_rows_are_finite_or_nan(out)]
    if form == "log_proba":
        assert (rows <= 0).all()
    if form == "proba":
        assert ((rows >= 0) & (rows <= 1)).all()
    if form == "proba" and given["output"] == "softmax":
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)


def check_outputs(before, given, result):
    assert result is None
    assert_rows_are_finite_or_nan(np.asarray(given["out"]))


CHECKS = {
    "train": check_training,
    "evaluate": check_evaluation,
    "predict": check_prediction,
    "compute_outputs": check_outputs,
}


def draw_call(rng, function):
    """Draw arguments, the memory around them, and the names of those that were spoiled."""
    given, rooms = draw_arguments(rng, function), {}
    for name, value in given.items():
        if isinstance(value, np.ndarray) and value.ndim:
            given[name], rooms[name] = set_apart(rng, value)
    spoiled = rng.sample([*given], rng.choice((0, 1, 1, 1, 1, 2, 2, 3)))
    for name in spoiled:
        rooms.pop(name, None)
        given[name] = spoil(rng, given, name)
    if rng.random() < 0.01:
        given["nothing"] = None
        spoiled.append("nothing")
    if rng.random() < 0.01:
        name = rng.choice([*given])
        del given[name]
        rooms.pop(name, None)
        spoiled.append(name)
    return given, rooms, spoiled


def try_call(rng, function):
    """Call, check what came of it, and name it."""
    given, rooms, spoiled = draw_call(rng, function)
    before = copy_bytes(given)
    try:
        result = getattr(kernel.trainer._compiled, function)(**given)
    except (ValueError, TypeError, MemoryError) as error:
        outcome, words = type(error).__name__, str(error)
        assert spoiled, words
        assert outcome == "MemoryError" or NAMED.search(words), words
        assert copy_bytes(given) == before, words
    else:
        outcome = "done"
        CHECKS[function](before, given, result)
        after = copy_bytes(given)
        assert all(after[name] == before[name] for name in {*before} - WRITTEN)
    assert_guards_hold(given, rooms)
    return outcome


@pytest.mark.parametrize("function", CHECKS)
def test_a_drawn_call_is_refused_in_words_or_keeps_its_promises(function, campaign):
    counts = dict.fromkeys(["done", "ValueError", "TypeError", "MemoryError"], 0)
    for number in range(campaign.choose(N_CALLS, N_CALLS_LONG)):
        seed = f"{function} {campaign.seed} {number}"
        try:
            counts[try_call(random.Random(seed), function)] += 1
        except Exception as error:
            raise AssertionError(f"call {seed}") from error
    assert min(counts[name] for name in ("done", "ValueError", "TypeError")) > 0
    campaign.record(calls=sum(counts.values()), refused=sum(counts.values()) - counts["done"])


ROOT = Path(__file__).parents[1]
FLAGS = [
    *("-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-sanitize-recover=all"),
    "-fsanitize=fuzzer,address,undefined,float-cast-overflow",
]


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("clang"), reason="libFuzzer comes with Clang")
def test_libfuzzer_finds_no_call_of_the_arithmetic_that_breaks_a_promise(campaign):
    folder = ROOT / "build" / "fuzz-kernel"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(40):
        # Short inputs alone would make small networks alone.
        rng = random.Random(f"{campaign.seed} {number}")
        (corpus / f"drawn_{number}").write_bytes(rng.randbytes(200))
    program, sources = folder / "fuzzer", ["skdisk/_kernel/kernel.c", "tests/kernel_fuzzer.c"]
    command = ["clang", *FLAGS, "-Iskdisk/_kernel", *sources, "-lm", "-o", program]
    subprocess.run(command, cwd=ROOT, check=True)
    options = {
        "seed": campaign.seed + 1,
        "max_total_time": int(os.environ.get("FUZZ_SECONDS", 60)),
        "max_len": 256,
        "len_control": 0,
        "timeout": 120,
        "print_final_stats": 1,
    }
    options = [f"-{name}={value}" for name, value in options.items()]
    result = subprocess.run(
        [program, *options, corpus], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    assert result.returncode == 0, result.stderr[-5000:]
    figures = re.findall(r"DONE +cov: (\d+)|number_of_executed_units: (\d+)", result.stderr)
    (edges, _), (_, executions) = figures
    campaign.record(executions=int(executions), edges=int(edges))
