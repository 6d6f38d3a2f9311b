"""`MLP`, the network: fully connected layers that end in log-probabilities, or in scores.

And the plain network that it is without skdisk. torch only. There is no loss and no data here.
"""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
import torch
from torch import nn

from .noise import draw_bits, draw_mask, draw_unit_bits, hash_rows

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
# The last layer of each kind of outputs: in an `MLP`, and where probabilities are to come out. Of
# sigmoids an `MLP` gives the scores, whose loss torch computes without overflow.
OUTPUTS = {
    "softmax": (nn.LogSoftmax, nn.Softmax, {"dim": -1}),
    "sigmoid": (nn.Identity, nn.Sigmoid, {}),
}


def _is_sequence(value):
    # An array without dimensions has an iterator, which fails.
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def is_number(value, kind=Real):
    """Tell whether a value is a number, and no duration, which NumPy takes for an int."""
    return isinstance(value, kind) and not isinstance(value, np.timedelta64)


def as_sizes(hidden_layer_sizes):
    """Check numbers of hidden units, and make them a tuple of ints."""
    is_sequence = _is_sequence(hidden_layer_sizes)
    sizes = tuple(hidden_layer_sizes) if is_sequence else (hidden_layer_sizes,)
    if not all(is_number(size, Integral) and size > 0 for size in sizes):
        raise ValueError(
            "hidden_layer_sizes must be an int of at least 1 or a sequence of such ints, one per "
            f"hidden layer. Got {hidden_layer_sizes!r} instead."
        )
    return tuple(map(int, sizes))


def as_probabilities(dropout, n_layers):
    """Check probabilities of dropout, and make them a tuple of floats, one a hidden layer."""
    if not _is_sequence(dropout):
        dropout = (dropout,) * n_layers
    if len(dropout) != n_layers or not all(is_number(p) and 0 <= p < 1 for p in dropout):
        raise ValueError(
            "dropout must be a probability of at least 0 and below 1, or a sequence of such, one "
            f"for each of the {n_layers} hidden layers. Got {dropout!r} instead."
        )
    return tuple(map(float, dropout))


def list_shapes(layer_sizes):
    """List the shapes of weight and bias of each layer, in turn."""
    return [shape for n_in, n_out in pairwise(layer_sizes) for shape in ((n_out, n_in), (n_out,))]


def draw_parameters(layer_sizes, generator=None):
    """Draw the initial weights and biases of each layer: the distributions of `nn.Linear`.

    Its constructor draws from torch's global generator, which is not ours to change.
    """
    bounds = [1 / math.sqrt(n_in) for n_in in layer_sizes[:-1] for _ in range(2)]
    return [
        torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        for shape, bound in zip(list_shapes(layer_sizes), bounds, strict=True)
    ]


def _make_linear(weight, bias):
    """Make an `nn.Linear` of its parameters; its constructor would draw others."""
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.out_features, linear.in_features = weight.shape
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear


class MLP(nn.Module):
    """A multilayer perceptron: float32 rows in, log-probabilities or scores out.

    `activation` is a key of `ACTIVATIONS`; `hidden_layer_sizes` and `dropout` are as users give
    them. With `output` "softmax" a row is of one class, and the log-probabilities of the classes
    come out; with "sigmoid" a row has any of the labels, which are as many as `n_classes` says,
    and the scores, which are their log-odds, come out. The initial weights are drawn from
    `generator`, a torch.Generator, or from torch's global one. `layers` are Linear layers and
    activations in turn, and a log-softmax or an identity at last.

    What is dropped is a function of `dropout_seed` and the rows' values; None draws a seed from
    torch's global generator at each call.
    """

    def __init__(
        self,
        n_features,
        n_classes,
        hidden_layer_sizes=(64, 64),
        activation="relu",
        dropout=0.0,
        output="softmax",
        generator=None,
    ):
        super().__init__()
        self.layer_sizes = (n_features, *as_sizes(hidden_layer_sizes), n_classes)
        self.activation = activation
        self.output = output
        self.dropout = as_probabilities(dropout, len(self.layer_sizes) - 2)
        self.dropout_seed = None
        layers, parameters = [], draw_parameters(self.layer_sizes, generator)
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            layers += [_make_linear(weight, bias), ACTIVATIONS[activation]()]
        last, _, options = OUTPUTS[output]
        layers[-1] = last(**options)
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        """Compute log-probabilities or scores."""
        if not (self.training and any(self.dropout)):
            return self.layers(X)
        *hidden, output, last = self.layers
        for linear, activation, mask in zip(
            hidden[::2], hidden[1::2], self._draw_masks(X), strict=True
        ):
            X = activation(linear(X)) * mask
        return last(output(X))

    @torch.no_grad()
    def _draw_masks(self, X):
        """Draw a dropout mask for each hidden layer."""
        seed = self.dropout_seed
        if seed is None:
            seed = torch.randint(2**62, ()).to(X.device)
        row_bits = draw_bits(hash_rows(X.float()), seed)
        unit_bits = draw_unit_bits(self.layer_sizes[1:-1], X.device)
        return [
            draw_mask(row_bits, bits, p, X.dtype)
            for bits, p in zip(unit_bits, self.dropout, strict=True)
        ]


def make_sequential(module):
    """Copy an `MLP` to a plain network of torch.nn on the CPU that computes probabilities.

    It is in evaluation mode, and its weights ask for no gradients.
    """
    layers = copy.deepcopy(module.layers)
    _, last, options = OUTPUTS[module.output]
    layers[-1] = last(**options)
    return layers.cpu().eval().requires_grad_(False)


def get_parameters(module):
    """Return the parameters of a module if it is the `MLP` that its attributes describe.

    They are float32 and contiguous, in order. None where something has been replaced, so that
    layer sizes and name of the activation do not say all that the module computes.
    """
    if type(module) is not MLP:
        return None
    layers, sizes = [*module.layers], module.layer_sizes
    kinds = [nn.Linear, ACTIVATIONS[module.activation]] * (len(sizes) - 1)
    kinds[-1], _, _ = OUTPUTS[module.output]
    if type(module.layers) is not nn.Sequential or [*map(type, layers)] != kinds:
        return None
    if any(layer.extra_repr() != OPTIONS[module.activation] for layer in layers[1:-1:2]):
        return None
    # `module.parameters()` would give the same, and take four times as long.
    parameters = [p for layer in layers for p in layer._parameters.values()]
    is_plain = (
        # One that was taken away is None, one that two layers share is there twice.
        [p is not None and p.shape for p in parameters] == list_shapes(sizes)
        and len({id(p) for p in parameters}) == len(parameters)
        and all(p.dtype == torch.float32 and p.is_contiguous() for p in parameters)
    )
    return parameters if is_plain else None


def has_hooks(module):
    """Tell whether somebody looks into the parts of a plain `MLP`, or has given one a function."""
    # torch has no public way to ask for hooks.
    return has_hooks_of_all_modules() or any(
        "forward" in vars(part)
        or part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        for part in (module, module.layers, *module.layers)
    )


def has_hooks_of_all_modules():
    """Tell whether somebody looks into all modules that torch ever runs."""
    own = torch.nn.modules.module
    return bool(
        own._global_forward_hooks
        or own._global_forward_pre_hooks
        or own._global_backward_hooks
        or own._global_backward_pre_hooks
    )


def flatten(tensors):
    """Copy tensors into one array, one after the other."""
    return np.concatenate([t.numpy(force=True).ravel() for t in tensors])


@torch.no_grad()
def unflatten(flat, tensors):
    """Copy a flat array into tensors, the other way round."""
    start = 0
    for t in tensors:
        t.copy_(torch.tensor(flat[start : start + t.numel()]).view(t.shape))
        start += t.numel()


def split(flat, layer_sizes):
    """Split a flat array into weights and biases of each layer, in turn, which are views of it."""
    shapes = list_shapes(layer_sizes)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(flat, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
