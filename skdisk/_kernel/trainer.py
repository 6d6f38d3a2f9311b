"""Train and use a plain multilayer perceptron by the compiled kernel.

NumPy only; nothing here knows torch, scikit-learn or skorch. A network, its settings and its data
are constant; its state is what training changes. The work is done without the GIL, on the thread
that calls: many networks, or many rows to predict, are many threads. Arrays must not change while
a call runs.

Arrays are C-contiguous. Whatever does not fit raises ValueError or TypeError before anything is
changed, want of memory MemoryError; where there is no kernel, RuntimeError says why. The argument
`instruction_set` is one of `get_instruction_sets()`; None stands for `choose_instruction_set()`.
"""

import math
import os
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

try:
    from . import _compiled
except ImportError:
    _compiled = None


class Network(NamedTuple):
    """What a network is: units of the layers from features to outputs, and the hidden ones' f.

    The activation is relu, tanh, logistic, identity, leaky_relu, elu, selu, gelu or silu, as
    torch.nn computes them by default. The output is softmax, for classes of which each row has
    one, or sigmoid, for labels of which each row has any number.
    """

    layer_sizes: tuple
    activation: str = "relu"
    output: str = "softmax"

    def count_parameters(self):
        """Count weights and biases."""
        return sum(n_out * (n_in + 1) for n_in, n_out in pairwise(self.layer_sizes))


class Settings(NamedTuple):
    """How a network is trained, by the names of PyTorch.

    The last batch of an epoch may have fewer rows. The optimiser is sgd, adam or adamw; a
    gradient is scaled down to `max_norm`. `dropout` is a probability for each hidden layer, or ().
    """

    batch_size: int = 32
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    max_norm: float = math.inf
    dropout: tuple = ()

    def name_memory(self):
        """Name what the optimiser remembers of every parameter, in the order of torch."""
        if self.optimizer == "sgd":
            return ("momentum_buffer",) if self.momentum else ()
        return ("exp_avg", "exp_avg_sq")


class Data(NamedTuple):
    """Rows and what belongs to them.

    A batch's loss is the sum of its rows' weighted losses over the number of its rows. The loss
    of a row is its negative log-likelihood: with sigmoids a sum over the labels.
    """

    # (n_rows, n_features): float32, float64, which is rounded as it is read, or CSR of float32.
    X: Any
    # (n_rows,), int64: classes, 0 to n_classes - 1. With sigmoids (n_rows, n_labels), float32, 0
    # or 1: whether a row has a label.
    labels: np.ndarray
    # (n_rows,), float32: how much each row counts; None stands for 1.
    row_weights: np.ndarray | None = None
    # (n_rows,), int64: what dropout depends on, from `hash_rows`.
    row_keys: np.ndarray | None = None


@dataclass
class State:
    """What training changes; all arrays are float32, of shape (n_parameters,).

    Parameters are in the order of torch's `module.parameters()`: for each layer the weights, of
    shape (n_out, n_in), row by row, then the biases. The memory of the optimiser has the same
    order, and the names of torch.
    """

    parameters: np.ndarray
    memory: dict = field(default_factory=dict)
    n_steps: int = 0


class Training(NamedTuple):
    """What `train` returns.

    The losses are those of every batch before its step, float32 of shape (n_epochs, n_batches).
    Where losses or parameters of an epoch are not finite, training has diverged: the state is
    that of the epoch before, and the losses have one row more than `n_epochs`, the bad one.
    """

    losses: np.ndarray
    n_epochs: int
    diverged: bool


def get_instruction_sets():
    """Name the instruction sets that this machine has and the kernel knows, the best one last."""
    return [] if _compiled is None else _compiled.get_instruction_sets()


def choose_instruction_set():
    """Name the instruction set in use; "none" stands for no kernel.

    It is the best one, or what the environment variable SKDISK_INSTRUCTION_SET names: ValueError
    if this machine does not have that.
    """
    available = ["none", *get_instruction_sets()]
    name = os.environ.get("SKDISK_INSTRUCTION_SET") or available[-1]
    if name not in available:
        raise ValueError(
            f"The environment variable SKDISK_INSTRUCTION_SET must be one of {available}, which "
            f"this machine has. Got {name!r} instead."
        )
    return name


def explain_absence():
    """Say why there is no kernel, in words that end no sentence; None where there is one."""
    if choose_instruction_set() != "none":
        return None
    if _compiled is None:
        return "skdisk was installed where it could not be compiled"
    return "the environment variable SKDISK_INSTRUCTION_SET is 'none'"


def _call(function, network, parameters, X, instruction_set, **others):
    """Call compiled code with what every function of it is given, and some more."""
    name = instruction_set or choose_instruction_set()
    if name == "none" or _compiled is None:
        raise RuntimeError(f"There is no kernel: {explain_absence()}.")
    is_sparse, n_features = hasattr(X, "indptr"), network.layer_sizes[0]
    if is_sparse and X.shape[1] != n_features:
        raise ValueError(f"X must have {n_features} features. Got {X.shape[1]} instead.")
    return getattr(_compiled, function)(
        instruction_set=name,
        layer_sizes=np.array(network.layer_sizes, dtype=np.int64),
        activation=network.activation,
        output=network.output,
        parameters=parameters,
        values=X.data if is_sparse else X,
        indices=X.indices if is_sparse else None,
        indptr=X.indptr if is_sparse else None,
        **others,
    )


def _describe_settings(settings, memory):
    names = settings.name_memory()
    if set(memory) != set(names):
        raise ValueError(
            f"The memory of {settings.optimizer} must hold {sorted(names)}. Got {sorted(memory)} "
            "instead."
        )
    described = settings._asdict()
    described["beta1"], described["beta2"] = described.pop("betas")
    dropout = settings.dropout
    described["dropout"] = np.array(dropout, dtype=np.float64) if len(dropout) else None
    arrays = [memory[name] for name in names] + [None, None]
    return described | {"memory0": arrays[0], "memory1": arrays[1]}


def train(
    network, settings, state, data, orders, learning_rates, seeds=None, *, instruction_set=None
):
    """Train a network for some epochs, which change the state in place, one after another.

    For each epoch there are, in `orders`, int64 of shape (n_epochs, n_rows_of_an_epoch), positions
    of rows as they are seen, a float64 in `learning_rates`, and an int64 in `seeds` for dropout.
    """
    buffer, n_epochs, diverged, state.n_steps = _call(
        "train",
        network,
        state.parameters,
        data.X,
        instruction_set,
        **_describe_settings(settings, state.memory),
        n_steps=state.n_steps,
        labels=data.labels,
        row_weights=data.row_weights,
        row_keys=data.row_keys,
        orders=orders,
        learning_rates=learning_rates,
        seeds=seeds,
    )
    n_batches = -(-orders.shape[1] // settings.batch_size)
    losses = np.frombuffer(buffer, dtype=np.float32).reshape(-1, n_batches)
    return Training(losses[: n_epochs + diverged], n_epochs, diverged)


def evaluate(network, parameters, data, *, instruction_set=None):
    """Compute, by the weights of the rows, the mean loss, in float64, and how many are right.

    With sigmoids a row is right where all its labels are.
    """
    given = {"labels": data.labels, "row_weights": data.row_weights}
    return _call("evaluate", network, parameters, data.X, instruction_set, **given)


def predict(network, parameters, X, *, form="log_proba", out=None, instruction_set=None):
    """Compute probabilities, their logarithms or the scores: in float64, of scores in float32.

    `X` is as in `Data`, `form` "log_proba", "proba" or "scores", `out` float64 of shape (n_rows,
    n_outputs); None makes a new array. What comes out for a row is finite where its scores are,
    and does not depend on the other rows, so that threads may share them.
    """
    if out is None:
        out = np.empty((X.shape[0], network.layer_sizes[-1]))
    _call("predict", network, parameters, X, instruction_set, form=form, out=out)
    return out


def compute_outputs(network, parameters, X, layer=None, *, out=None, instruction_set=None):
    """Compute what comes out of a layer: float32 of shape (n_rows, n_units).

    1 is the first hidden layer. None stands for the last layer, whose outputs are the scores,
    before softmax or sigmoid.
    """
    if layer is None:
        layer = len(network.layer_sizes) - 1
    if out is None:
        # The compiled code refuses a layer that is not there.
        n_units = network.layer_sizes[layer] if 0 < layer < len(network.layer_sizes) else 0
        out = np.empty((X.shape[0], n_units), dtype=np.float32)
    _call("compute_outputs", network, parameters, X, instruction_set, layer=layer, out=out)
    return out
