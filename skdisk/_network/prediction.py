"""Prediction: the rows that there are, in as few operations as they need.

torch and NumPy. What is computed is what `MLP` computes in evaluation mode: the scores of the
classes as float32 can hold them, and from these, in float64, the log-probabilities. Where float32
might overflow on the way, the scores are computed in float64.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from .. import _kernel
from .mlp import MLP, get_parameters, has_hooks
from .surroundings import leave_as_found

# Rows per forward pass: the activations of a chunk stay in the cache. 1,000,000 rows of two
# features through 64-64 units took 0.84 s in one piece, 0.16 s in pieces of 8,192.
ROWS_AT_ONCE = 8192
# Sparse rows are made dense chunk by chunk, so many numbers at once (16 MB in float32).
NUMBERS_AT_ONCE = 2**22
# Up to so many rows in all are predicted in float64, which costs little then.
FEW_ROWS = 256
# What a layer gives beyond this is taken as this, in float64, so that the next one is finite.
LARGEST = 1e250
LARGEST_FLOAT32 = torch.finfo(torch.float32).max


def count_rows_at_once(n_features):
    """Count the rows of a chunk: few enough that they may be made dense."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // n_features))


def compute_proba(module, X, form):
    """Compute probabilities: by the kernel, by torch, or by what somebody made of the module.

    Parameters
    ----------
    module : torch.nn.Module
        An `MLP`, or what has taken its place: float32 rows in, log-probabilities out.
    X : tensor or LazyRows of shape (n_samples, n_features)
        The rows; slices of it are float32 tensors.
    form : {"log_proba", "proba"}
        Logarithms of the probabilities, or the probabilities.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes), dtype=float64
        One row a row; those of an MLP are finite.
    """
    parameters = get_parameters(module)
    if parameters is None or has_hooks(module):
        return _compute_by_module(module, X, form)
    if parameters[0].device.type == "cpu" and _kernel.explain_absence() is None:
        return _compute_by_kernel(make_network(module), flatten(parameters), X, form)
    return _compute_by_torch(module, X, parameters[0].device, form)


def compute_proba_of_arrays(network, parameters, X, form):
    """Do the same for flat parameters, as the kernel trains them."""
    if _kernel.explain_absence() is None:
        return _compute_by_kernel(network, parameters, X, form)
    return compute_proba(make_module(network, parameters), X, form)


def _give_form(log_proba, form):
    if form == "log_proba":
        return log_proba
    with np.errstate(under="ignore"):
        return np.exp(log_proba)


def _split(X):
    """Split rows into chunks: slices of their positions."""
    n_rows = count_rows_at_once(X.shape[1])
    return [slice(start, start + n_rows) for start in range(0, len(X), n_rows)]


@leave_as_found
@torch.inference_mode()
def _compute_by_module(module, X, form):
    module.eval()
    device = next(module.parameters()).device
    chunks = [module(X[rows].to(device)).cpu().double().numpy() for rows in _split(X)]
    return _give_form(np.concatenate(chunks), form)


def _compute_by_kernel(network, flat, X, form):
    """Compute by the kernel, chunks in threads; see `compute_proba`.

    What comes out for a row does not depend on the other rows. Rows in which float32 overflows on
    the way come out as NaN, and are computed again in float64.
    """
    proba = np.empty((len(X), network.layer_sizes[-1]))

    def predict(rows):
        chunk, out = X[rows], proba[rows]
        _kernel.predict(network, flat, chunk.numpy(), form=form, out=out)
        overflown = np.isnan(out[:, 0])
        if overflown.any():
            out[overflown] = _compute_again(make_module(network, flat), chunk[overflown], form)

    chunks = _split(X)
    if len(chunks) == 1 or torch.get_num_threads() == 1:
        for rows in chunks:
            predict(rows)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            # The loop raises what a thread has raised.
            for _ in pool.map(predict, chunks):
                pass
    return proba


@leave_as_found
@torch.inference_mode()
def _compute_again(module, X, form):
    return _give_form(log_softmax(compute_scores(module, X)).T, form)


@leave_as_found
@torch.inference_mode()
def _compute_by_torch(module, X, device, form):
    chunks = _split(X)
    if len(X) <= FEW_ROWS and len(chunks) == 1:
        return _give_form(log_softmax(compute_scores(module, X[:])).T, form)
    layers = Float32Layers(module, min(len(X), chunks[0].stop))
    log_proba = []
    for rows in chunks:
        chunk = X[rows]
        if layers.can_hold(chunk):
            scores = layers.compute_scores(chunk.to(device)).cpu().numpy()
        else:
            scores = compute_scores(module, chunk)
        log_proba.append(log_softmax(scores).T)
    return _give_form(np.concatenate(log_proba), form)


def compute_scores(module, X):
    """Compute the scores of the classes in float64 on the CPU, without gradients.

    A product of matrices gives a row another last bit when it stands in another place or among
    other rows. Computed in float64 and rounded at the end, few rows give each of them the same
    scores in any company, as users and scikit-learn's checks expect.

    Parameters
    ----------
    module : MLP
        The network.
    X : tensor of shape (n_rows, n_features), dtype=float32
        The rows.

    Returns
    -------
    scores : ndarray of shape (n_classes, n_rows), dtype=float64
        What the output layer gives, finite, with as many digits as float32 has.
    """
    X = X.cpu().double()
    *layers, _ = module.layers
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight, bias = (p.to("cpu", torch.float64) for p in (layer.weight, layer.bias))
            X = linear(X, weight, bias).clamp_(-LARGEST, LARGEST)
        else:
            X = layer(X)
    digits, exponents = np.frexp(X.T.numpy())
    return np.ldexp(digits.astype(np.float32).astype(np.float64), exponents)


def _compute_norm(parameter):
    # In float32 the squares of large weights would be infinite; MPS knows no float64.
    return float(torch.linalg.vector_norm(parameter.cpu(), dtype=torch.float64))


class Float32Layers:
    """The network in float32, for many rows, chunk by chunk.

    Parameters
    ----------
    module : MLP
        The network.
    n_rows : int
        The largest number of rows of a chunk.
    """

    def __init__(self, module, n_rows):
        *hidden, self.output, _ = module.layers
        self.hidden = hidden[::2]
        self.activations = hidden[1::2]
        # Memory that is asked for anew for every chunk comes from the operating system page by
        # page, which takes as long as the arithmetic.
        weight = self.output.weight
        self.buffers = [weight.new_empty(n_rows, layer.out_features) for layer in self.hidden]
        self.sizes = [
            (_compute_norm(layer.weight), _compute_norm(layer.bias), layer.out_features)
            for layer in (*self.hidden, self.output)
        ]

    def can_hold(self, X):
        """Tell whether nothing that is computed of some rows can be too large for float32.

        By the inequality of Cauchy and Schwarz no sum, not even a part of it, is larger than the
        norm of the weights times that of the inputs, plus the norm of the biases. An activation
        does not make a number larger than twice its size plus 1.

        Parameters
        ----------
        X : tensor of shape (n_rows, n_features), dtype=float32
            The rows.

        Returns
        -------
        can_hold : bool
            Whether the scores are right in float32.
        """
        smallest, largest = (float(bound) for bound in X.aminmax())
        norm = max(-smallest, largest) * math.sqrt(X.shape[1])
        for weight_norm, bias_norm, n_units in self.sizes:
            norm = weight_norm * norm + bias_norm
            if norm > LARGEST_FLOAT32:
                return False
            norm = 2 * norm + math.sqrt(n_units)
        return True

    def compute_scores(self, X):
        """Compute the scores of the classes, without gradients.

        Parameters
        ----------
        X : tensor of shape (n_rows, n_features), dtype=float32
            The rows, on the device of the network.

        Returns
        -------
        scores : tensor of shape (n_classes, n_rows), dtype=float32
            What the output layer gives.
        """
        for layer, activation, buffer in zip(
            self.hidden, self.activations, self.buffers, strict=True
        ):
            z = torch.addmm(layer.bias, X, layer.weight.T, out=buffer[: len(X)])
            X = activation(z)
        # Classes first: the log-softmax of a few long rows is many times as fast as that of many
        # short ones.
        return torch.addmm(self.output.bias[:, None], self.output.weight, X.T)


# An exponential that rounds to 0 is what it should be.
@np.errstate(under="ignore")
def log_softmax(scores):
    """Compute log-probabilities that keep their digits near 0, where probabilities are near 1.

    The logarithm of the largest probability is `-log1p(s)`, where s is the sum over the other
    classes of the exponentials of their scores' distances from the largest. Computed as
    `-log(1 + s)` it would be 0 for each s below 1e-16.

    Parameters
    ----------
    scores : ndarray of shape (n_classes, n_rows), dtype=float32 or float64
        Finite scores.

    Returns
    -------
    log_proba : ndarray of shape (n_classes, n_rows), dtype=float64
        Finite log-probabilities.
    """
    distances = scores.astype(np.float64)
    # In place, because new memory takes as long as the arithmetic.
    distances -= distances.max(axis=0)
    are_largest = distances == 0
    exponentials = np.exp(distances)
    exponentials -= are_largest
    others = exponentials.sum(axis=0)
    # Where several classes have the largest score, all but one of them are others.
    others += are_largest.sum(axis=0) - 1
    distances -= np.log1p(others, out=others)
    return distances


@np.errstate(under="ignore")
def average(log_probas):
    """Average probabilities that are given as logarithms.

    Parameters
    ----------
    log_probas : list of ndarray of shape (n_samples, n_classes), dtype=float64
        Log-probabilities.

    Returns
    -------
    log_proba : ndarray of shape (n_samples, n_classes), dtype=float64
        The logarithms of the mean probabilities.
    """
    # The mean probabilities are in proportion to the sums, and sum to 1.
    return log_softmax(np.logaddexp.reduce(log_probas, axis=0).T).T


@np.errstate(under="ignore")
def compute_log_odds(log_proba):
    """Compute by how much each class is more probable than all others together.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes), dtype=float64
        Log-probabilities.

    Returns
    -------
    log_odds : ndarray of shape (n_samples,) or (n_samples, n_classes), dtype=float64
        The logarithms of the odds: for two classes those of the second one, otherwise those of
        each. Those of an only class, which are infinite, are given as 0.
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


def flatten(tensors):
    """Copy tensors into one array.

    Parameters
    ----------
    tensors : iterable of tensor, dtype=float32
        On the CPU.

    Returns
    -------
    flat : ndarray of shape (n_numbers,), dtype=float32
        One after the other.
    """
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


def make_network(module):
    """Describe a plain module for the kernel."""
    return _kernel.Network(module.layer_sizes, module.activation)


def make_module(network, flat):
    """Make the module of a network that the kernel knows."""
    n_features, *hidden, n_classes = network.layer_sizes
    module = MLP(n_features, n_classes, hidden, network.activation, generator=torch.Generator())
    unflatten(flat, module.parameters())
    return module.eval()


@torch.no_grad()
def unflatten(flat, tensors):
    """Copy a flat array into tensors."""
    start = 0
    for t in tensors:
        t.copy_(torch.from_numpy(flat[start : start + t.numel()]).view(t.shape))
        start += t.numel()
