"""Prediction: the rows that there are, in as few operations as they need.

torch only. What is computed is what `MLP` computes in evaluation mode.
"""

import torch
from torch import nn

from .. import _kernel

# Rows per forward pass: the activations of a chunk stay in the cache. 1,000,000 rows of two
# features through 64-64 units took 0.84 s in one piece, 0.16 s in pieces of 8,192.
ROWS_AT_ONCE = 8192
# Sparse rows are made dense chunk by chunk, so many numbers at once (16 MB in float32).
NUMBERS_AT_ONCE = 2**22
# Up to so many rows in all are predicted in float64, which costs little then.
FEW_ROWS = 256


def count_rows_at_once(n_features):
    """Count the rows of a chunk: few enough that they may be made dense."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // n_features))


def iterate_log_proba(module, X, device):
    """Yield the log-probabilities of a chunk of rows after the other.

    Parameters
    ----------
    module : MLP
        The network.
    X : tensor or CsrRows of shape (n_samples, n_features), dtype=float32
        The rows.
    device : str or torch.device
        Where the network lies.

    Yields
    ------
    log_proba : tensor of shape (n_rows, n_classes), dtype=float32
        Log-probabilities.
    """
    n_rows = count_rows_at_once(X.shape[1])
    # The mode is not set around the loop: it would be on wherever this generator is consumed.
    if len(X) <= min(FEW_ROWS, n_rows):
        with torch.inference_mode():
            log_proba = forward_few(module, X[:])
        yield log_proba
        return
    with torch.inference_mode():
        buffers = make_buffers(module, min(len(X), n_rows))
    for start in range(0, len(X), n_rows):
        with torch.inference_mode():
            rows = X[start : start + n_rows].to(device)
            log_proba = forward_many(module, rows, buffers)
        yield log_proba


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


def make_network(module):
    """Describe a plain module for the kernel."""
    return _kernel.Network(module.layer_sizes, module.activation)
