"""The functions of the hidden layers, as operations on fixed memory.

torch only. The notation is that of `_steps.py`.
"""

from functools import partial

import torch

aten = torch.ops.aten

# Parameters of torch.nn's functions of these names.
LEAKY_RELU_SLOPE = 0.01
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _make_relu(Z, A, D):
    forward = [partial(torch.clamp_min, Z, 0.0, out=A)] if Z is not A else [A.relu_]
    if D.dim() == 3:
        return forward, [partial(aten.threshold_backward.grad_input, D, A, 0.0, grad_input=D)]
    # One network's step is faster so: f'(Z) is 1 where A > 0 and 0 where A = 0, the sign of A.
    derivative = torch.empty_like(D)
    return forward, [partial(torch.sign, A, out=derivative), partial(D.mul_, derivative)]


def _make_identity(Z, A, D):
    return [partial(A.copy_, Z)] if Z is not A else [], []


def _make_from_output(forward, backward, *constants):
    """Make the operations of an f whose derivative is known from its value."""

    def make(Z, A, D):
        return (
            [partial(forward, Z, *constants, out=A)],
            [partial(backward, D, A, grad_input=D)],
        )

    return make


def _make_elu(alpha, scale):
    def make(Z, A, D):
        return (
            [partial(aten.elu.out, Z, alpha, scale, out=A)],
            [partial(aten.elu_backward.grad_input, D, alpha, scale, 1, True, A, grad_input=D)],
        )

    return make


def _make_leaky_relu(Z, A, D):
    slope = LEAKY_RELU_SLOPE
    return (
        [partial(aten.leaky_relu.out, Z, slope, out=A)],
        [partial(aten.leaky_relu_backward.grad_input, D, A, slope, True, grad_input=D)],
    )


def _make_from_input(forward, backward):
    """Make the operations of an f whose derivative needs Z."""

    def make(Z, A, D):
        # By way of D, not in use yet: torch's gelu ignores the strides of its `out` (2.13, CPU).
        return (
            [partial(forward, Z, out=D), partial(A.copy_, D)],
            [partial(backward, D, Z, grad_input=D)],
        )

    return make


# For each f: (does its derivative need Z?, a function that makes the operations A <- f(Z) and
# D <- D * f'(Z)). Where Z is not needed, it may be A itself.
OPERATIONS = {
    "relu": (False, _make_relu),
    "identity": (False, _make_identity),
    "tanh": (False, _make_from_output(torch.tanh, aten.tanh_backward.grad_input)),
    "logistic": (False, _make_from_output(torch.sigmoid, aten.sigmoid_backward.grad_input)),
    "leaky_relu": (False, _make_leaky_relu),
    "elu": (False, _make_elu(1.0, 1.0)),
    "selu": (False, _make_elu(SELU_ALPHA, SELU_SCALE)),
    "gelu": (True, _make_from_input(aten.gelu.out, aten.gelu_backward.grad_input)),
    "silu": (True, _make_from_input(aten.silu.out, aten.silu_backward.grad_input)),
}

# Those that are not 0 at 0, and so must be made 0 of units that are not there, in a network
# narrower than its stack: only then do the weights that lead on from them stay 0.
NOT_ZERO_AT_ZERO = {"logistic"}
