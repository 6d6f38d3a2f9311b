"""`FusedTrainer`: the weights of K networks, their hyperparameters, and an epoch over the data.

torch only; nothing here knows scikit-learn or skorch. The notation and the mathematics of a step
are in `_steps.py` and `_updates.py`.
"""

import math
from functools import partial
from itertools import pairwise

import torch

from ._activations import NOT_ZERO_AT_ZERO
from ._noise import draw_row_keys, make_batch_seeds
from ._steps import Block
from ._surroundings import ONE_THREAD_OPERATIONS, limit_threads
from ._updates import DEFAULTS, make_columns, make_kind

# A block is the batches whose data are gathered at once: about so many numbers (4 MB in float32,
# which stays in the cache) and at most so many batches.
BLOCK_NUMBERS = 2**20
BLOCK_BATCHES = 256


def _gather_rows(X, positions, out):
    torch.index_select(X, 0, positions, out=out)


class FusedTrainer:
    """Train K networks of one depth by SGD, Adam or AdamW.

    Parameters
    ----------
    layer_sizes : sequence of int
        n_0 ... n_L: features, hidden units, classes; of several networks, the widest layers.
    activation : str
        The function of the hidden layers, by its name in `skdisk._module.ACTIVATIONS`.
    batch_size : int
        Rows of a training step.
    n_networks : int, default=1
        K.
    widths : sequence of K sequence of int, default=None
        How many hidden units of each layer a network has, if not as many as `layer_sizes` says.
    optimizer : {"sgd", "adam", "adamw"}, default="sgd"
        The optimiser of all networks.
    precise : bool, default=False
        Whether to compute gradients in float64; weights and steps stay in `dtype`.
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
        widths=None,
        optimizer="sgd",
        precise=False,
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
        self.operations = 6 * n_networks * batch_size * self.n_weights
        self.use_threads = self.operations >= ONE_THREAD_OPERATIONS
        self.optimizer = optimizer
        self.weights = self._make_flat()
        self.masks = self._make_masks(widths)
        # Where products read the weights and leave gradients.
        self.precise_weights = self.weights.double() if precise else None
        self.precise_gradient = self.weights.double() if precise else None
        # By their names in torch's optimisers; and how many steps each network has made.
        self.state = {}
        self.n_steps = torch.zeros(n_networks, dtype=torch.float64, device=device)
        self.batches = {}
        self.places = {}
        self.networks = self.kind = None
        self.set_hyperparameters()

    @property
    def step_options(self):
        """Options of the tensors that products are computed in."""
        if self.precise_weights is None:
            return self.options
        return {**self.options, "dtype": torch.float64}

    def _make_masks(self, widths):
        """Make, where they are needed, columns of 1 and 0 that tell which units are there."""
        hidden = self.layer_sizes[1:-1]
        if widths is None or self.activation not in NOT_ZERO_AT_ZERO:
            return [None] * len(hidden)
        return [
            None if min(own) == n else torch.arange(n)[:, None] < torch.tensor(own)[:, None, None]
            for n, own in zip(hidden, zip(*widths, strict=True), strict=True)
        ]

    @torch.inference_mode()
    def _make_flat(self):
        return torch.zeros(self.n_networks * self.n_weights, **self.options)

    @torch.inference_mode()
    def set_hyperparameters(self, networks=None, **common):
        """Set how to step.

        Parameters
        ----------
        networks : list of K dict, default=None
            What is each network's own: `lr`, `momentum`, `nesterov`, `weight_decay`, `betas` and
            `eps` as in torch's optimisers, `max_norm` as in `clip_grad_norm_`, and `dropout`, a
            sequence of probabilities, one for each hidden layer.
        **common
            What is the same for all of them. What is left out has the values of
            `skdisk._updates.DEFAULTS`.
        """
        none = {"dropout": (0.0,) * (len(self.layer_sizes) - 2)}
        networks = [
            {**DEFAULTS, **none, **common, **own} for own in networks or [{}] * self.n_networks
        ]
        if networks == self.networks:
            return
        self.networks = networks
        kind = make_kind(self.optimizer, networks)
        columns = make_columns(networks, self.options)
        if kind == self.kind:
            # In place: the operations hold on to these tensors.
            for name, value in columns.items():
                self.columns[name].copy_(value)
            return
        self.kind, self.columns, self.batches = kind, columns, {}
        self.gradient_goes_to = kind.gradient_goes_to
        if self.precise_weights is not None:
            self.gradient_goes_to = "gradient"
        stores_gradient = self.gradient_goes_to == "gradient"
        self.gradient = self._make_flat() if stores_gradient else None
        self.scratch = self._make_flat() if stores_gradient else None
        for name in kind.state:
            if name not in self.state:
                self.state[name] = self._make_flat()

    def split(self, flat):
        """View a flat buffer of all weights layer by layer.

        Parameters
        ----------
        flat : tensor of shape (n_networks * n_weights,)
            Such as `weights`.

        Returns
        -------
        layers : list of tensor of shape (n_networks, n_l, n_{l-1} + 1)
            Views of it, the bias in the last column. Each is contiguous: only then does torch
            hand the products of all networks to the BLAS in one call.
        """
        layers, end = [], 0
        for n_in, n_out in pairwise(self.layer_sizes):
            shape = self.n_networks, n_out, n_in + 1
            start, end = end, end + math.prod(shape)
            layers.append(flat[start:end].view(shape))
        return layers

    def split_by_network(self, flat):
        """View a flat buffer of all weights as matrices that have a row for each network.

        Parameters
        ----------
        flat : tensor of shape (n_networks * n_weights,)
            Such as `weights`.

        Returns
        -------
        parts : list of tensor of shape (n_networks, n_weights_of_part)
            Views of it: of one network one, of several one a layer.
        """
        if self.n_networks == 1:
            return [flat[None]]
        return [layer.flatten(start_dim=1) for layer in self.split(flat)]

    @torch.inference_mode()
    def load(self, flat, parameters, network=0):
        """Copy the weights of a network, or what its optimiser remembers, into a flat buffer.

        Parameters
        ----------
        flat : tensor of shape (n_networks * n_weights,)
            `weights`, or a value of `state`.
        parameters : sequence of tensor
            weight of shape (n_l, n_{l-1}) and bias of shape (n_l,) of each layer in turn; of a
            network with fewer hidden units than the stack has, smaller ones.
        network : int, default=0
            Whose they are.
        """
        for place, p in zip(self._find_places(flat, parameters, network), parameters, strict=True):
            place.copy_(p)

    @torch.inference_mode()
    def store(self, flat, parameters, network=0):
        """Copy the other way round; the parameters are those of `load`."""
        for place, p in zip(self._find_places(flat, parameters, network), parameters, strict=True):
            p.copy_(place)

    def sum_weights(self):
        """Sum up the weights of each network: not a finite number where one of them is not."""
        return sum(part.sum(dim=1) for part in self.split_by_network(self.weights))

    def _get_changing(self):
        return self.weights, self.n_steps, *self.state.values()

    def copy_state(self):
        """Copy all that training changes."""
        return [tensor.clone() for tensor in self._get_changing()]

    @torch.inference_mode()
    def set_state(self, state):
        """Go back to what `copy_state` has copied."""
        for tensor, values in zip(self._get_changing(), state, strict=True):
            tensor.copy_(values)

    def _find_places(self, flat, parameters, network):
        """Find the places of a network's weights and biases in a flat buffer."""
        key = flat.data_ptr(), network
        if key not in self.places:
            self.places[key] = [
                place
                for layer, weight in zip(self.split(flat), parameters[::2], strict=True)
                for place in (
                    layer[network, : weight.shape[0], : weight.shape[1]],
                    layer[network, : weight.shape[0], -1],
                )
            ]
        return self.places[key]

    def run_epoch(self, X, y, orders, row_weights=None, *, row_keys=None, seeds=None):
        """Train every network for one epoch.

        Parameters
        ----------
        X : tensor of shape (n_samples, n_features), or callable
            The data of all networks; or a function of positions and a tensor, which writes the
            rows at these positions into the tensor.
        y : tensor of shape (n_samples,), dtype=int64
            The class of each row.
        orders : sequence of K tensors of shape (n_rows_k,), dtype=int64
            For each network, the rows that it trains on, in the order that it sees them. They may
            differ in length; a network that runs out of rows waits for the others.
        row_weights : sequence of K (tensor of shape (n_rows_k,) or None), default=None
            How much each row counts, in the order of `orders`; None stands for 1.
        row_keys : sequence of K tensor of shape (n_rows_k,), dtype=int64, default=None
            From `skdisk._noise.hash_rows`, in the order of `orders`; needed for dropout.
        seeds : sequence of K int, default=None
            Of the epoch's dropout, one for each network.

        Returns
        -------
        losses : tensor of shape (n_batches, K)
            Loss of each batch before its step; 0 where the network had no rows left.
        """
        gather = X if callable(X) else partial(_gather_rows, X)
        with limit_threads(self.operations), torch.inference_mode():
            bits = None
            if any(self.kind.dropout):
                bits = self._draw_bits(row_keys, seeds)
            return self._run_epoch(gather, y, orders, row_weights, bits)

    def _draw_bits(self, row_keys, seeds):
        """Draw for each row in turn the bits that its dropout depends on."""
        bits = []
        for keys, seed in zip(row_keys, seeds, strict=True):
            n_batches = -(-len(keys) // self.batch_size)
            seed = make_batch_seeds(seed, n_batches).to(keys.device)
            bits.append(draw_row_keys(keys, seed.repeat_interleave(self.batch_size)[: len(keys)]))
        return torch.nn.utils.rnn.pad_sequence(bits, batch_first=True)

    def _run_epoch(self, gather, y, orders, row_weights, bits):
        lengths = [order.shape[0] for order in orders]
        n_rows = max(lengths)
        row_weights = row_weights or [None] * self.n_networks
        r = None
        if min(lengths) < n_rows or any(w is not None for w in row_weights):
            r = torch.zeros(self.n_networks, n_rows, **self.step_options)
            for row, length, weights in zip(r, lengths, row_weights, strict=True):
                full = length - length % self.batch_size
                row[:full] = 1 / self.batch_size
                row[full:length] = 1 / max(1, length - full)
                if weights is not None:
                    row[:length] *= weights
        order = torch.nn.utils.rnn.pad_sequence(list(orders), batch_first=True)
        losses = []
        n_full = n_rows - n_rows % self.batch_size
        for size, start, stop in ((self.batch_size, 0, n_full), (n_rows - n_full, n_full, n_rows)):
            if start == stop:
                continue
            batches = self._get_batches(size, (stop - start) // size)
            for i in range(start, stop, batches.n_rows):
                rows = (slice(None), slice(i, min(i + batches.n_rows, stop)))
                r_now, bits_now = (None if t is None else t[rows] for t in (r, bits))
                losses.append(batches.train(gather, y, order[rows], r_now, bits_now))
        return torch.cat(losses).to(self.options["dtype"])

    def _get_batches(self, batch_size, n_batches):
        per_batch = self.n_networks * batch_size * (self.layer_sizes[0] + 3 * self.layer_sizes[-1])
        n_batches = max(1, min(n_batches, BLOCK_BATCHES, BLOCK_NUMBERS // per_batch))
        batches = self.batches.get(batch_size)
        if batches is None or batches.n_batches < n_batches:
            batches = self.batches[batch_size] = Block(self, batch_size, n_batches)
        return batches
