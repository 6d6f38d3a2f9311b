"""Train and use a plain multilayer perceptron by the compiled kernel.

NumPy only; nothing here knows torch, scikit-learn or skorch. A network, its settings and its data
are constant; its state is what training changes. The work is done without the GIL, on the thread
that calls: many networks, or many rows to predict, are many threads. Arrays must not change while
a call runs. Whatever does not fit raises ValueError or TypeError before anything is changed.
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

# What each optimiser remembers of every parameter, by torch's names.
MEMORY = {
    "sgd": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}


class Network(NamedTuple):
    """What a network is.

    Parameters
    ----------
    layer_sizes : sequence of int
        Features, units of each hidden layer, classes.
    activation : str, default="relu"
        The function of the hidden layers: relu, tanh, logistic, identity, leaky_relu, elu, selu,
        gelu or silu, as torch.nn computes them by default.
    """

    layer_sizes: tuple
    activation: str = "relu"

    def count_parameters(self):
        """Count weights and biases."""
        return sum(n_out * (n_in + 1) for n_in, n_out in pairwise(self.layer_sizes))


class Settings(NamedTuple):
    """How a network is trained, by the names of PyTorch.

    Parameters
    ----------
    batch_size : int, default=32
        Rows of a step; the last batch of an epoch may have fewer.
    optimizer : {"sgd", "adam", "adamw"}, default="sgd"
        The optimiser.
    momentum, nesterov : float, default=0.0; bool, default=False
        Of SGD.
    weight_decay : float, default=0.0
        Of all optimisers.
    betas, eps : (float, float), default=(0.9, 0.999); float, default=1e-8
        Of Adam and AdamW.
    max_norm : float, default=inf
        The gradient is scaled down to this norm.
    dropout : sequence of float, default=()
        A probability for each hidden layer; () for none.
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
        """Name what the optimiser remembers, in the order of torch."""
        if self.optimizer == "sgd" and self.momentum == 0:
            return ()
        return MEMORY.get(self.optimizer, ())


class Data(NamedTuple):
    """Rows and what belongs to them.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), dtype=float32 or float64, or CSR matrix of float32
        Dense rows are C-contiguous. Rows of float64 are rounded to float32 as they are read.
    labels : ndarray of shape (n_rows,), dtype=int64
        Classes, 0 to n_classes - 1.
    row_weights : ndarray of shape (n_rows,), dtype=float32, default=None
        How much each row counts; None stands for 1. A batch's loss is the sum of its rows'
        weighted losses over the number of its rows.
    row_keys : ndarray of shape (n_rows,), dtype=int64, default=None
        What dropout depends on, from `hash_rows`. Needed with dropout.
    """

    X: Any
    labels: np.ndarray
    row_weights: np.ndarray | None = None
    row_keys: np.ndarray | None = None


@dataclass
class State:
    """What training changes.

    Parameters
    ----------
    parameters : ndarray of shape (n_parameters,), dtype=float32
        In the order of torch's `module.parameters()`: for each layer the weights, of shape
        (n_out, n_in), row by row, then the biases.
    memory : dict of str to ndarray of shape (n_parameters,), dtype=float32
        What the optimiser remembers of each parameter, by torch's names; see `Settings`.
    n_steps : int, default=0
        How many steps have been made.
    """

    parameters: np.ndarray
    memory: dict = field(default_factory=dict)
    n_steps: int = 0


class Training(NamedTuple):
    """What `train` returns.

    Attributes
    ----------
    losses : ndarray of shape (n_epochs, n_batches), dtype=float32
        The loss of every batch before its step; where the training diverged, there is one epoch
        more than `n_epochs`: the bad one, the last.
    n_epochs : int
        How many epochs have changed the state.
    diverged : bool
        Whether losses or parameters of an epoch were not finite. The state is that of the epoch
        before.
    """

    losses: np.ndarray
    n_epochs: int
    diverged: bool


class Evaluation(NamedTuple):
    """What `evaluate` returns.

    Attributes
    ----------
    loss : float
        Mean negative log-likelihood of the rows, by their weights.
    n_right : float
        How many rows have their largest score at their class; the sum of their weights.
    """

    loss: float
    n_right: float


def get_instruction_sets():
    """Name the instruction sets that this machine has and the kernel knows, the best one last.

    Returns
    -------
    names : list of str
        Some of "base", "avx2", "avx512" and "neon"; none where the kernel is not compiled.
    """
    return [] if _compiled is None else _compiled.get_instruction_sets()


def choose_instruction_set():
    """Name the instruction set in use.

    Returns
    -------
    name : str
        The best one, or what the environment variable SKDISK_INSTRUCTION_SET names. "none" stands
        for no kernel.

    Raises
    ------
    ValueError
        If the environment variable names one that this machine does not have.
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
    """Say why there is no kernel.

    Returns
    -------
    reason : str or None
        Words that end no sentence; None where there is a kernel.
    """
    if choose_instruction_set() != "none":
        return None
    if _compiled is None:
        return "skdisk was installed where it could not be compiled"
    return "the environment variable SKDISK_INSTRUCTION_SET is 'none'"


def make_state(network, settings, parameters=None):
    """Make the state before the first step.

    Parameters
    ----------
    network : Network
        What is to be trained.
    settings : Settings
        How.
    parameters : ndarray of shape (n_parameters,), dtype=float32, default=None
        The first parameters, which training will change; None stands for zeros.

    Returns
    -------
    state : State
        With memory of zeros.
    """
    n = network.count_parameters()
    if parameters is None:
        parameters = np.zeros(n, dtype=np.float32)
    memory = {name: np.zeros(n, dtype=np.float32) for name in settings.name_memory()}
    return State(parameters, memory)


def _describe_network(network, parameters, instruction_set):
    name = instruction_set or choose_instruction_set()
    if name == "none" or _compiled is None:
        raise RuntimeError(f"There is no kernel: {explain_absence()}.")
    return {
        "instruction_set": name,
        "layer_sizes": np.array(network.layer_sizes, dtype=np.int64),
        "activation": network.activation,
        "parameters": parameters,
    }


def _describe_rows(network, X):
    if not hasattr(X, "indptr"):
        return {"values": X, "indices": None, "indptr": None}
    if X.shape[1] != network.layer_sizes[0]:
        raise ValueError(
            f"X must have {network.layer_sizes[0]} features. Got {X.shape[1]} instead."
        )
    return {"values": X.data, "indices": X.indices, "indptr": X.indptr}


def _describe_memory(settings, memory):
    names = settings.name_memory()
    if set(memory) != set(names):
        raise ValueError(
            f"The memory of {settings.optimizer} must hold {sorted(names)}. Got {sorted(memory)} "
            "instead."
        )
    arrays = [memory[name] for name in names] + [None, None]
    return {"memory0": arrays[0], "memory1": arrays[1]}


def _describe_settings(settings):
    described = settings._asdict()
    described["beta1"], described["beta2"] = described.pop("betas")
    dropout = described.pop("dropout")
    described["dropout"] = np.array(dropout, dtype=np.float64) if len(dropout) else None
    return described


def train(
    network,
    settings,
    state,
    data,
    orders,
    learning_rates,
    seeds=None,
    *,
    instruction_set=None,
):
    """Train a network for some epochs.

    Parameters
    ----------
    network : Network
        What to train.
    settings : Settings
        How.
    state : State
        What is changed, in place, epoch by epoch.
    data : Data
        What to train on.
    orders : ndarray of shape (n_epochs, n_rows_of_an_epoch), dtype=int64
        For each epoch, positions of rows in the order in which they are seen.
    learning_rates : ndarray of shape (n_epochs,), dtype=float64
        One for each epoch.
    seeds : ndarray of shape (n_epochs,), dtype=int64, default=None
        Of each epoch's dropout.
    instruction_set : str, default=None
        One of `get_instruction_sets()`; None stands for `choose_instruction_set()`.

    Returns
    -------
    training : Training
        Losses, and how many epochs are in the state.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit. Nothing has been changed then.
    MemoryError
        If there is not enough memory. Nothing has been changed then.
    RuntimeError
        If there is no kernel; see `explain_absence`.
    """
    arguments = {
        **_describe_network(network, state.parameters, instruction_set),
        **_describe_memory(settings, state.memory),
        **_describe_settings(settings),
        **_describe_rows(network, data.X),
        "n_steps": state.n_steps,
        "labels": data.labels,
        "row_weights": data.row_weights,
        "row_keys": data.row_keys,
        "orders": orders,
        "learning_rates": learning_rates,
        "seeds": seeds,
    }
    buffer, n_epochs, diverged, state.n_steps = _compiled.train(**arguments)
    n_batches = -(-orders.shape[1] // settings.batch_size)
    losses = np.frombuffer(buffer, dtype=np.float32).reshape(-1, n_batches)
    return Training(losses[: n_epochs + diverged], n_epochs, diverged)


def evaluate(network, parameters, data, *, instruction_set=None):
    """Compute loss and number of right answers.

    Parameters
    ----------
    network : Network
        The network.
    parameters : ndarray of shape (n_parameters,), dtype=float32
        As in `State`.
    data : Data
        Rows, labels and weights.
    instruction_set : str, default=None
        As in `train`.

    Returns
    -------
    evaluation : Evaluation
        Computed from log-probabilities in float64.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `train`; also if all weights are 0.
    """
    arguments = {
        **_describe_network(network, parameters, instruction_set),
        **_describe_rows(network, data.X),
        "labels": data.labels,
        "row_weights": data.row_weights,
    }
    return Evaluation(*_compiled.evaluate(**arguments))


def predict(network, parameters, X, *, form="log_proba", out=None, instruction_set=None):
    """Compute probabilities: the softmax, in float64, of scores in float32.

    What comes out for a row does not depend on the other rows, so that threads may share them.

    Parameters
    ----------
    network : Network
        The network.
    parameters : ndarray of shape (n_parameters,), dtype=float32
        As in `State`.
    X : ndarray of shape (n_rows, n_features), dtype=float32 or float64, or CSR matrix of float32
        The rows; dense rows are C-contiguous.
    form : {"log_proba", "proba"}, default="log_proba"
        Logarithms of probabilities or the probabilities.
    out : ndarray of shape (n_rows, n_classes), dtype=float64, default=None
        Where they go; None makes a new array.
    instruction_set : str, default=None
        As in `train`.

    Returns
    -------
    out : ndarray of shape (n_rows, n_classes), dtype=float64
        Finite where the scores are.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `train`.
    """
    if out is None:
        out = np.empty((X.shape[0], network.layer_sizes[-1]))
    arguments = {
        **_describe_network(network, parameters, instruction_set),
        **_describe_rows(network, X),
        "form": form,
        "out": out,
    }
    _compiled.predict(**arguments)
    return out


def compute_outputs(network, parameters, X, layer=None, *, out=None, instruction_set=None):
    """Compute what comes out of a layer.

    Parameters
    ----------
    network : Network
        The network.
    parameters : ndarray of shape (n_parameters,), dtype=float32
        As in `State`.
    X : ndarray of shape (n_rows, n_features), dtype=float32 or float64, or CSR matrix of float32
        The rows; dense rows are C-contiguous.
    layer : int, default=None
        1 is the first hidden layer. None stands for the last layer, whose outputs are the scores,
        before the softmax.
    out : ndarray of shape (n_rows, n_units), dtype=float32, default=None
        Where they go; None makes a new array.
    instruction_set : str, default=None
        As in `train`.

    Returns
    -------
    out : ndarray of shape (n_rows, n_units), dtype=float32
        Activations of the layer's units.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `train`; also if there is no such layer.
    """
    if layer is None:
        layer = len(network.layer_sizes) - 1
    if out is None:
        n_units = network.layer_sizes[layer] if layer < len(network.layer_sizes) else 0
        out = np.empty((X.shape[0], n_units), dtype=np.float32)
    arguments = {
        **_describe_network(network, parameters, instruction_set),
        **_describe_rows(network, X),
        "layer": layer,
        "out": out,
    }
    _compiled.compute_outputs(**arguments)
    return out
