"""`MLP`, the network: fully connected layers that end in log-probabilities.

torch only. There is no loss and no data here.
"""

import math
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from numbers import Integral

import torch
from torch import nn

# scikit-learn's names where it has them ("logistic"), else the names of torch.nn.functional.
ACTIVATIONS = {
    # In place: its input, the output of a linear layer, is needed nowhere else.
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def _as_sizes(hidden_layer_sizes):
    sizes = (
        hidden_layer_sizes if isinstance(hidden_layer_sizes, Iterable) else [hidden_layer_sizes]
    )
    sizes = tuple(sizes)
    if not all(isinstance(size, Integral) and size > 0 for size in sizes):
        raise ValueError(
            "hidden_layer_sizes must be an int of at least 1 or a sequence of such ints, one per "
            f"hidden layer. Got {hidden_layer_sizes!r} instead."
        )
    return tuple(map(int, sizes))


def _make_linear(n_in, n_out, generator):
    """Make an `nn.Linear` with its own initialisation, drawn from `generator`.

    `nn.Linear.reset_parameters` draws from torch's global generator and nothing else; the two
    lines that follow are its distributions, in its order.
    """
    linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
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
    generator : torch.Generator, default=None
        Where the initial weights are drawn from. None is torch's global generator.

    Raises
    ------
    ValueError
        If `hidden_layer_sizes` holds anything but positive ints.

    Attributes
    ----------
    layers : torch.nn.Sequential
        Linear layers and activations in turn; the last one is the log-softmax.
    layer_sizes : tuple of int
        Features, units of each hidden layer, classes.
    """

    def __init__(
        self,
        n_features,
        n_classes,
        hidden_layer_sizes=(64, 64),
        activation="relu",
        generator=None,
    ):
        super().__init__()
        self.layer_sizes = (n_features, *_as_sizes(hidden_layer_sizes), n_classes)
        self.activation = activation
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
        for layer in self.layers:
            X = layer(X)
        return X


def forward_few(module, X):
    """Compute what the module computes, in float64 on the CPU, without gradients.

    A float32 product of matrices gives a row another last bit when it stands in another place or
    among other rows. Computed in float64 and rounded at the end, few rows give each of them the
    same probabilities in any company, as users and scikit-learn's checks expect.

    Parameters
    ----------
    module : MLP
        The network.
    X : tensor of shape (n_rows, n_features), dtype=float32
        The rows.

    Returns
    -------
    log_proba : tensor of shape (n_rows, n_classes), dtype=float32
        Log-probabilities.
    """
    X = X.cpu().double()
    for layer in module.layers:
        if isinstance(layer, nn.Linear):
            X = torch.addmm(layer.bias.cpu().double(), X, layer.weight.cpu().double().T)
        else:
            X = layer(X)
    return X.float()


def make_buffers(module, n_rows):
    """Make the memory that `forward_many` computes in.

    Memory that is asked for anew for every chunk of rows comes from the operating system page by
    page, which takes as long as the arithmetic.

    Parameters
    ----------
    module : MLP
        The network.
    n_rows : int
        The largest number of rows.

    Returns
    -------
    buffers : list of tensor of shape (n_rows, n_units), dtype=float32
        One for each hidden layer.
    """
    *hidden, output, _ = module.layers
    return [output.weight.new_empty(n_rows, linear.out_features) for linear in hidden[::2]]


def forward_many(module, X, buffers):
    """Compute what the module computes, faster for many rows, without gradients.

    Parameters
    ----------
    module : MLP
        The network.
    X : tensor of shape (n_rows, n_features), dtype=float32
        The rows.
    buffers : list of tensor
        Memory from `make_buffers`.

    Returns
    -------
    log_proba : tensor of shape (n_rows, n_classes), dtype=float32
        Log-probabilities, in memory of their own.
    """
    *hidden, output, _ = module.layers
    for linear, activation, buffer in zip(hidden[::2], hidden[1::2], buffers, strict=True):
        z = torch.addmm(linear.bias, X, linear.weight.T, out=buffer[: len(X)])
        X = activation(z)
    # Classes first: the log-softmax of a few long rows is five times as fast as that of many short
    # ones.
    z = torch.addmm(output.bias[:, None], output.weight, X.T)
    return torch.log_softmax(z, dim=0).T
