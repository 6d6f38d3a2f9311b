"""`MLP`, the network: fully connected layers that end in log-probabilities.

And the plain network that it is without skdisk. torch only. There is no loss and no data here.
"""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise, repeat
from numbers import Integral, Real

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from .noise import draw_row_keys, hash_rows, make_mask, make_threshold, make_unit_keys

# scikit-learn's names where it has them ("logistic"), else the names of torch.nn.functional.
ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
# Their options, which are torch's defaults, in words.
OPTIONS = {name: make().extra_repr() for name, make in ACTIVATIONS.items()}


def _is_sequence(value):
    # An array without dimensions has an iterator, which fails.
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def as_sizes(hidden_layer_sizes):
    sizes = (
        tuple(hidden_layer_sizes) if _is_sequence(hidden_layer_sizes) else (hidden_layer_sizes,)
    )
    if not all(isinstance(size, Integral) and size > 0 for size in sizes):
        raise ValueError(
            "hidden_layer_sizes must be an int of at least 1 or a sequence of such ints, one per "
            f"hidden layer. Got {hidden_layer_sizes!r} instead."
        )
    return tuple(map(int, sizes))


def as_probabilities(dropout, n_layers):
    if not _is_sequence(dropout):
        dropout = (dropout,) * n_layers
    if len(dropout) != n_layers or not all(isinstance(p, Real) and 0 <= p < 1 for p in dropout):
        raise ValueError(
            "dropout must be a probability of at least 0 and below 1, or a sequence of such, one "
            f"for each of the {n_layers} hidden layers. Got {dropout!r} instead."
        )
    return tuple(map(float, dropout))


def count_weights(n_features, hidden_layer_sizes, n_classes):
    """Count the weights of a network, biases included."""
    sizes = n_features, *as_sizes(hidden_layer_sizes), n_classes
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))


def _make_linear(n_in, n_out, generator):
    """Make an `nn.Linear` with its own initialisation, drawn from `generator`.

    Its constructor draws from torch's global generator, which is not ours to change, so that its
    parts are put together here: the distributions are those of `nn.Linear.reset_parameters`, in
    its order.
    """
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.in_features, linear.out_features = n_in, n_out
    linear.weight = nn.Parameter(torch.empty(n_out, n_in))
    linear.bias = nn.Parameter(torch.empty(n_out))
    nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
    return linear


class MLP(nn.Module):
    """A multilayer perceptron whose outputs are log-probabilities.

    Parameters
    ----------
    n_features : int
        Number of inputs.
    n_classes : int
        Number of outputs.
    hidden_layer_sizes : int or sequence of int, default=(64, 64)
        Number of units of each hidden layer. `()` is a single layer without hidden units.
    activation : str, default="relu"
        A key of `ACTIVATIONS`: the function after each hidden layer.
    dropout : float or sequence of float, default=0.0
        Probability that a hidden unit is dropped for a row in training, for all hidden layers or
        one for each.
    generator : torch.Generator, default=None
        Where the initial weights are drawn from. None is torch's global generator.

    Raises
    ------
    ValueError
        If `hidden_layer_sizes` holds anything but positive ints, or `dropout` does not fit it.

    Attributes
    ----------
    layers : torch.nn.Sequential
        Linear layers and activations in turn; the last one is the log-softmax.
    layer_sizes : tuple of int
        Features, units of each hidden layer, classes.
    dropout : tuple of float
        One for each hidden layer.
    dropout_seed : int or None
        What is dropped is a function of this seed and the rows' values. None draws a seed from
        torch's global generator at each call.
    """

    def __init__(
        self,
        n_features,
        n_classes,
        hidden_layer_sizes=(64, 64),
        activation="relu",
        dropout=0.0,
        generator=None,
    ):
        super().__init__()
        self.layer_sizes = (n_features, *as_sizes(hidden_layer_sizes), n_classes)
        self.activation = activation
        self.dropout = as_probabilities(dropout, len(self.layer_sizes) - 2)
        self.dropout_seed = None
        layers = []
        for n_in, n_out in pairwise(self.layer_sizes):
            layers += [_make_linear(n_in, n_out, generator), ACTIVATIONS[activation]()]
        # The output layer's activation is the log-softmax.
        layers[-1] = nn.LogSoftmax(dim=-1)
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        """Compute log-probabilities.

        Parameters
        ----------
        X : tensor of shape (n_rows, n_features), dtype=float32
            The rows.

        Returns
        -------
        log_proba : tensor of shape (n_rows, n_classes), dtype=float32
            Log-probabilities.
        """
        masks = self._draw_masks(X) if self.training and any(self.dropout) else repeat(None)
        *hidden, output, log_softmax = self.layers
        for linear, activation, mask in zip(hidden[::2], hidden[1::2], masks, strict=False):
            X = activation(linear(X))
            if mask is not None:
                X = X * mask
        return log_softmax(output(X))

    def _draw_masks(self, X):
        """Draw a dropout mask for each hidden layer, or None for those that drop nothing."""
        with torch.no_grad():
            seed = self.dropout_seed
            if seed is None:
                seed = torch.randint(2**62, ()).to(X.device)
            row_keys = draw_row_keys(hash_rows(X.float()), seed)[:, None]
            masks = []
            for p, units in zip(
                self.dropout, make_unit_keys(self.layer_sizes[1:-1], X.device), strict=True
            ):
                shape = (len(X), len(units))
                bits, shifted = row_keys.new_empty(2, *shape)
                threshold = row_keys.new_tensor(make_threshold(p))
                mask = X.new_empty(shape)
                for operation in make_mask(
                    row_keys, units, threshold, 1 / (1 - p), bits, shifted, mask
                ):
                    operation()
                masks.append(mask if p else None)
            return masks


def make_sequential(module):
    """Make a plain network of torch.nn that computes probabilities, in evaluation mode.

    Parameters
    ----------
    module : MLP
        The network.

    Returns
    -------
    network : torch.nn.Sequential
        The same layers on the CPU, with weights of its own, which ask for no gradients.
    """
    layers = copy.deepcopy(module.layers)
    layers[-1] = nn.Softmax(dim=-1)
    return layers.cpu().eval().requires_grad_(False)


def get_parameters(module):
    """Return the parameters of a module if it is the MLP that its attributes describe.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.

    Returns
    -------
    parameters : list of torch.nn.Parameter, or None
        In order, float32 and contiguous; None where something has been replaced, so that layer
        sizes and name of the activation do not say all that the module computes.
    """
    if type(module) is not MLP:
        return None
    parameters = list(module.parameters())
    shapes = [tuple(p.shape) for p in parameters]
    sizes = module.layer_sizes
    n_hidden = len(sizes) - 2
    kinds = [nn.Linear, ACTIVATIONS[module.activation]] * n_hidden + [nn.Linear, nn.LogSoftmax]
    layers = list(module.layers)
    is_plain = (
        [*map(type, layers)] == kinds
        and all(layer.extra_repr() == OPTIONS[module.activation] for layer in layers[1:-1:2])
        and shapes[::2] == [*zip(sizes[1:], sizes, strict=False)]
        and shapes[1::2] == [(n,) for n in sizes[1:]]
        and all(p.dtype == torch.float32 and p.is_contiguous() for p in parameters)
    )
    return parameters if is_plain else None


def has_hooks(module):
    """Tell whether somebody looks into the parts of a module, or has given one a function."""
    # torch has no public way to ask for hooks.
    return _has_any_global_hook() or any(
        "forward" in vars(part)
        or part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        for part in module.modules()
    )
