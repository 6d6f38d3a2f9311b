"""Prediction: rows in, float64 probabilities or their logarithms out.

torch and NumPy. What is computed is what `MLP` computes in evaluation mode: the scores of the
classes or labels as float32 can hold them, and from these, in float64, the log-probabilities. The
compiled kernel does it where it can; torch, in float64, where it cannot or where float32
overflows.

A form is "log_proba", "proba", or, where the output is "sigmoid", "scores", which are log-odds.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import linear

from .. import _kernel
from .mlp import (
    ACTIVATIONS,
    MLP,
    flatten,
    get_parameters,
    has_hooks,
    has_hooks_of_all_modules,
    unflatten,
)
from .surroundings import count_rows_at_once, leave_as_found

# What a layer gives beyond this is taken as this, in float64, so that the next one is finite.
LARGEST = 1e250
CPU = torch.device("cpu")


def compute_proba(module, output, X, form):
    """Compute probabilities of shape (n_samples, n_outputs) in float64; an MLP's are finite.

    `module` is an `MLP` with this output, or what has taken its place: float32 rows in, the same
    out. Slices of `X`, a tensor or `LazyRows`, are float32 tensors.
    """
    parameters = get_parameters(module)
    if parameters is None or has_hooks(module):
        chunks = [_compute_by_module(module, output, X[rows], form) for rows in _split(X)]
        return np.concatenate(chunks)
    network, flat, device = make_network(module), flatten(parameters), parameters[0].device
    return compute_proba_of_arrays(network, flat, X, form, device)


def compute_proba_of_arrays(network, flat, X, form, device=CPU):
    """Do the same with flat parameters of a network, as the kernel trains them."""
    if has_hooks_of_all_modules():
        return compute_proba(make_module(network, flat), network.output, X, form)
    if device == CPU and _kernel.explain_absence() is None:
        return _compute_by_kernel(network, flat, X, form)
    # Numbers of float64 take twice the memory, and a product of matrices copies what it needs.
    chunks = _split(X, copies=4)
    computed = [_compute_in_float64(network, flat, X[rows], form, device) for rows in chunks]
    return np.concatenate(computed)


def _split(X, copies=1):
    """Split rows into chunks: slices of their positions, smaller where more copies are made."""
    n_rows = count_rows_at_once(copies * X.shape[1])
    return [slice(start, start + n_rows) for start in range(0, len(X), n_rows)]


def _compute_by_kernel(network, flat, X, form):
    """Compute by the kernel, chunks in threads.

    What comes out for a row does not depend on the other rows. Rows in which float32 overflows on
    the way come out as NaN, and are computed again in float64.
    """
    chunks = _split(X)
    proba = np.empty((len(X), network.layer_sizes[-1]))

    def predict(rows):
        chunk, out = X[rows].cpu(), proba[rows]
        _kernel.predict(network, flat, chunk.numpy(), form=form, out=out)
        overflown = np.isnan(out[:, 0])
        if overflown.any():
            out[overflown] = _compute_in_float64(network, flat, chunk[overflown], form)

    if len(chunks) == 1 or torch.get_num_threads() == 1:
        for rows in chunks:
            predict(rows)
    else:
        pool = ThreadPoolExecutor(torch.get_num_threads())
        # Twice: an interrupt may end the first one. It does not wait for all chunks.
        try:
            try:
                # The list raises what a thread has raised.
                list(pool.map(predict, chunks))
            finally:
                pool.shutdown(cancel_futures=True)
        finally:
            pool.shutdown(cancel_futures=True)
    return proba


def give_form(log_proba, form):
    """Give log-probabilities the form "log_proba" or "proba"."""
    if form == "log_proba":
        return log_proba
    with np.errstate(under="ignore"):
        return np.exp(log_proba)


def transform(scores, output, form):
    """Give finite scores in float64, of shape (n_outputs, n_rows), the form that is asked for."""
    if form == "scores":
        return scores
    return give_form(log_softmax(scores) if output == "softmax" else log_sigmoid(scores), form)


@leave_as_found
@torch.inference_mode()
def _compute_by_module(module, output, X, form):
    """Let a module that somebody has changed compute, in its own way."""
    module.eval()
    device = next(module.parameters()).device
    computed = module(X.to(device)).cpu().double().numpy()
    return give_form(computed, form) if output == "softmax" else transform(computed, output, form)


@leave_as_found
@torch.inference_mode()
def _compute_in_float64(network, flat, X, form, device=CPU):
    """Compute by torch, on a device if that knows float64.

    A product of matrices gives a row another last bit when it stands in another place or among
    other rows. Computed in float64 and rounded to as many digits as float32 has, each row has the
    same scores in any company, as users and scikit-learn's checks expect.
    """
    X = _compute_layers(network, network.layer_sizes, flat, X, device)
    digits, exponents = np.frexp(X.T.cpu().numpy())
    scores = np.ldexp(digits.astype(np.float32).astype(np.float64), exponents)
    return transform(scores, network.output, form).T


def _compute_layers(network, layer_sizes, flat, X, device):
    """Compute in float64, through the first layers, what the last of these gives to its f."""
    device = CPU if device.type == "mps" else device
    X, flat = X.to(device, torch.float64), torch.tensor(flat, dtype=torch.float64).to(device)
    activation = ACTIVATIONS[network.activation]()
    for layer, (n_in, n_out) in enumerate(pairwise(layer_sizes)):
        weights, biases, flat = flat.tensor_split((n_in * n_out, n_in * n_out + n_out))
        X = linear(activation(X) if layer else X, weights.view(n_out, n_in), biases)
        X.clamp_(-LARGEST, LARGEST)
    return X


def compute_hidden(network, flat, X, layer, device=CPU):
    """Compute what comes out of a hidden layer, 1 the first: finite float32, (n_samples, n_units).

    Rows that overflow on the way through the kernel are computed again in float64.
    """
    out = np.empty((len(X), network.layer_sizes[layer]), dtype=np.float32)
    by_kernel = device == CPU and _kernel.explain_absence() is None
    for rows in _split(X):
        chunk, part = X[rows], out[rows]
        if by_kernel:
            chunk = chunk.cpu()
            _kernel.compute_outputs(network, flat, chunk.numpy(), layer, out=part)
            overflown = ~np.isfinite(part).all(axis=1)
            if overflown.any():
                part[overflown] = _compute_hidden_in_float64(
                    network, flat, chunk[overflown], layer, device
                )
        else:
            part[:] = _compute_hidden_in_float64(network, flat, chunk, layer, device)
    return out


@leave_as_found
@torch.inference_mode()
def _compute_hidden_in_float64(network, flat, X, layer, device):
    X = _compute_layers(network, network.layer_sizes[: layer + 1], flat, X, device)
    largest = torch.finfo(torch.float32).max
    return ACTIVATIONS[network.activation]()(X).clamp_(-largest, largest).cpu().numpy()


# An exponential that rounds to 0 is what it should be.
@np.errstate(under="ignore")
def log_softmax(scores):
    """Compute log-probabilities of finite scores, both of shape (n_classes, n_rows), in float64.

    They keep their digits near 0, where probabilities are near 1. The logarithm of the largest
    probability is `-log1p(s)`, where s is the sum over the other classes of the exponentials of
    their scores' distances from the largest. Computed as `-log(1 + s)` it would be 0 for each s
    below 1e-16.
    """
    distances = np.subtract(scores, scores.max(axis=0), dtype=np.float64)
    are_largest = distances == 0
    exponentials = np.exp(distances)
    exponentials -= are_largest
    others = exponentials.sum(axis=0)
    # Where several classes have the largest score, all but one of them are others.
    others += are_largest.sum(axis=0) - 1
    distances -= np.log1p(others, out=others)
    return distances


@np.errstate(under="ignore")
def log_sigmoid(scores):
    """Compute the logarithms of the sigmoid, which keep their digits near 0, in float64."""
    return np.minimum(scores, 0) - np.log1p(np.exp(-np.abs(scores)))


@np.errstate(under="ignore")
def average(log_probas):
    """Average probabilities that are given as logarithms: a list of (n_samples, n_classes)."""
    # The mean probabilities are in proportion to the sums, and sum to 1.
    return log_softmax(np.logaddexp.reduce(log_probas, axis=0).T).T


@np.errstate(under="ignore")
def average_scores(scores):
    """Compute the log-odds of mean probabilities from log-odds: a list of equal shapes."""
    for_and_against = (
        np.logaddexp.reduce([log_sigmoid(sign * each) for each in scores], axis=0)
        for sign in (1, -1)
    )
    return np.subtract(*for_and_against)


@np.errstate(under="ignore")
def compute_log_odds(log_proba):
    """Compute by how much each class is more probable than all others together.

    Of two classes the log-odds of the second one, of shape (n_samples,); otherwise those of each.
    Those of an only class, which are infinite, are given as 0.
    """
    n_classes = log_proba.shape[1]
    if n_classes == 1:
        return np.zeros_like(log_proba)
    if n_classes == 2:
        return log_proba[:, 1] - log_proba[:, 0]
    proba = np.exp(log_proba)
    # log(1 - p) has all its digits unless p is near 1; then it is computed of the others.
    log_rest = np.log1p(-np.minimum(proba, 0.5))
    rows, classes = np.nonzero(proba > 0.5)
    others = log_proba[rows]
    others[np.arange(len(rows)), classes] = -np.inf
    log_rest[rows, classes] = np.logaddexp.reduce(others, axis=1)
    return log_proba - log_rest


def make_network(module):
    """Describe a plain module for the kernel."""
    return _kernel.Network(module.layer_sizes, module.activation, module.output)


def make_module(network, flat):
    """Make the module, in evaluation mode, of a network that the kernel knows."""
    n_features, *hidden, n_classes = network.layer_sizes
    options = {"output": network.output, "generator": torch.Generator()}
    module = MLP(n_features, n_classes, hidden, network.activation, **options)
    unflatten(flat, module.parameters())
    return module.eval()
