"""`FusedTrainer`: the weights of K networks, their hyperparameters, and an epoch over the data.

torch only; nothing here knows scikit-learn or skorch. The notation and the mathematics of a step
are in `_steps.py`.
"""

import threading
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import torch

from ._steps import Block

# A block is the batches whose data are gathered at once: about so many numbers (4 MB in float32,
# which stays in the cache) and at most so many batches.
BLOCK_NUMBERS = 2**20
BLOCK_BATCHES = 256

# A step of fewer floating-point operations runs on one thread. Measured on two cores, with hidden
# layers of 16 to 256 units and batches of 128 to 4,096 rows: on an idle machine a second thread
# made a step below this size 1.0 to 1.3 times as long, above it 0.6 to 0.8 times; with the other
# core busy, 2.5 to 8 times at any size.
ONE_THREAD_OPERATIONS = 5e7

_threads_lock = threading.Lock()
_threads = {"users": 0, "before": None}


@contextmanager
def _use_one_thread():
    """Keep torch on one thread, then set the number back to what the first user found.

    The number belongs to each Python thread, but a new thread takes it over from whichever set it
    last: several may be here at once, and what one of them finds may be the 1 of another.
    """
    with _threads_lock:
        if _threads["users"] == 0:
            _threads["before"] = torch.get_num_threads()
        _threads["users"] += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_threads["before"])
        with _threads_lock:
            _threads["users"] -= 1


class FusedTrainer:
    """Train K networks of one shape by stochastic gradient descent.

    Parameters
    ----------
    layer_sizes : sequence of int
        n_0 ... n_L: features, hidden units, classes.
    activation : str
        The function of the hidden layers, by its name in `skdisk._module.ACTIVATIONS`.
    batch_size : int
        Rows of a training step.
    n_networks : int, default=1
        K.
    dtype : torch.dtype, default=torch.float32
        Of weights and data.
    device : str or torch.device, default="cpu"
        Where weights and data lie.
    """

    def __init__(
        self,
        layer_sizes,
        activation,
        batch_size,
        *,
        n_networks=1,
        dtype=torch.float32,
        device="cpu",
    ):
        self.layer_sizes = tuple(layer_sizes)
        self.activation = activation
        self.batch_size = batch_size
        self.n_networks = n_networks
        self.options = {"dtype": dtype, "device": device}
        self.n_weights = sum(n_out * (n_in + 1) for n_in, n_out in pairwise(self.layer_sizes))
        # Forward, backward and update are each a product that touches every weight once a row.
        operations = 6 * n_networks * batch_size * self.n_weights
        self.use_threads = operations >= ONE_THREAD_OPERATIONS
        self.weights = self._make_flat()
        self.velocity = None
        self.batches = {}
        self.given = self.kind = None
        self.set_hyperparameters(lr=0.0)

    @torch.inference_mode()
    def _make_flat(self):
        return torch.zeros(self.n_networks, self.n_weights, **self.options)

    @torch.inference_mode()
    def set_hyperparameters(self, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        """Set how to step; each parameter is one value for all networks or a sequence of K.

        Parameters
        ----------
        lr, momentum, weight_decay : float or sequence of float
            As in `torch.optim.SGD`.
        nesterov : bool or sequence of bool, default=False
            As in `torch.optim.SGD`.
        """
        given = (lr, momentum, nesterov, weight_decay)
        if given == self.given:
            return
        self.given = given

        def expand(value):
            value = torch.as_tensor(value, **self.options)
            return value.expand(self.n_networks).reshape(-1, 1).clone()

        nesterov = expand(nesterov)
        momentum = expand(momentum)
        new = {
            "lr": expand(lr),
            "momentum": momentum,
            "weight_decay": expand(weight_decay),
            # The step is share_G G + share_U U: G + m U with Nesterov, else U.
            "share_G": nesterov,
            "share_U": torch.where(nesterov > 0, momentum, 1.0),
        }
        kind = (
            bool(new["momentum"].any()),
            bool(nesterov.any()),
            bool(new["weight_decay"].any()),
        )
        if kind == self.kind:
            # In place: the operations hold on to these tensors.
            for name, value in new.items():
                self.hyperparameters[name].copy_(value)
            return
        self.kind = kind
        self.hyperparameters = new
        self.batches = {}
        # Without momentum and decay the products add to the weights themselves.
        self.gradient = self._make_flat() if any(kind) else None
        self.scratch = self._make_flat() if any(kind) else None
        if kind[0] and self.velocity is None:
            self.velocity = self._make_flat()

    def split(self, flat):
        """View a flat buffer of all weights layer by layer.

        Parameters
        ----------
        flat : tensor of shape (n_networks, n_weights)
            Such as `weights` or `velocity`.

        Returns
        -------
        layers : list of tensor of shape (n_networks, n_l, n_{l-1} + 1)
            Views of it, the bias in the last column.
        """
        layers, end = [], 0
        for n_in, n_out in pairwise(self.layer_sizes):
            start, end = end, end + n_out * (n_in + 1)
            layers.append(flat[:, start:end].view(-1, n_out, n_in + 1))
        return layers

    @torch.inference_mode()
    def load(self, flat, parameters, network=0):
        """Copy the weights of a network, or its momentum buffers, into a flat buffer.

        Parameters
        ----------
        flat : tensor of shape (n_networks, n_weights)
            `weights` or `velocity`.
        parameters : sequence of tensor
            weight of shape (n_l, n_{l-1}) and bias of shape (n_l,) of each layer in turn.
        network : int, default=0
            Whose they are.
        """
        for layer, weight, bias in self._pair(flat, parameters, network):
            layer[:, :-1].copy_(weight)
            layer[:, -1].copy_(bias)

    @torch.inference_mode()
    def store(self, flat, parameters, network=0):
        """Copy the other way round; the parameters are those of `load`."""
        for layer, weight, bias in self._pair(flat, parameters, network):
            weight.copy_(layer[:, :-1])
            bias.copy_(layer[:, -1])

    def _pair(self, flat, parameters, network):
        layers = self.split(flat[network : network + 1])
        weights, biases = parameters[::2], parameters[1::2]
        return zip([layer[0] for layer in layers], weights, biases, strict=True)

    def run_epoch(self, X, y, orders, row_weights=None):
        """Train every network for one epoch.

        Parameters
        ----------
        X : tensor of shape (n_samples, n_features)
            The data of all networks.
        y : tensor of shape (n_samples,), dtype=int64
            The class of each row.
        orders : sequence of K tensors of shape (n_rows_k,), dtype=int64
            For each network, the rows that it trains on, in the order that it sees them. They may
            differ in length; a network that runs out of rows waits for the others.
        row_weights : tensor of shape (n_samples,), default=None
            How much each row counts; None stands for 1. A batch without weight changes nothing.

        Returns
        -------
        losses : tensor of shape (n_batches, K)
            Mean loss of each batch before its step; 0 where the batch had no weight.
        """
        with nullcontext() if self.use_threads else _use_one_thread(), torch.inference_mode():
            return self._run_epoch(X, y, orders, row_weights)

    def _run_epoch(self, X, y, orders, row_weights):
        n_rows = max(map(len, orders))
        r = None
        if row_weights is not None or min(map(len, orders)) < n_rows:
            r = torch.zeros(self.n_networks, n_rows, **self.options)
            for row, order in zip(r, orders, strict=True):
                row[: len(order)] = 1.0 if row_weights is None else row_weights[order]
        order = torch.nn.utils.rnn.pad_sequence(list(orders), batch_first=True)
        losses = []
        n_full = n_rows - n_rows % self.batch_size
        for size, start, stop in ((self.batch_size, 0, n_full), (n_rows - n_full, n_full, n_rows)):
            if start == stop:
                continue
            batches = self._get_batches(size, (stop - start) // size)
            for i in range(start, stop, batches.n_rows):
                rows = (slice(None), slice(i, min(i + batches.n_rows, stop)))
                losses.append(batches.train(X, y, order[rows], None if r is None else r[rows]))
        return torch.cat(losses)

    def _get_batches(self, batch_size, n_batches):
        per_batch = self.n_networks * batch_size * (self.layer_sizes[0] + 3 * self.layer_sizes[-1])
        n_batches = max(1, min(n_batches, BLOCK_BATCHES, BLOCK_NUMBERS // per_batch))
        batches = self.batches.get(batch_size)
        if batches is None or batches.n_batches < n_batches:
            batches = self.batches[batch_size] = Block(self, batch_size, n_batches)
        return batches
