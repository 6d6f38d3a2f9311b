"""The steps of the fused trainer: K multilayer perceptrons of one shape, a batch, no autograd.

torch only; nothing here knows scikit-learn or skorch.

Notation, for one network and one batch of b rows; layer l = 1 ... L has n_l units, n_0 features go
in and n_L = C classes come out. Everything lies features first, one column a row of data:

    A_0   (n_0 + 1, b)          the data, transposed, and a last row of ones
    W_l   (n_l, n_{l-1} + 1)    the weights of layer l; its last column is the bias
    Z_l = W_l A_{l-1}           (n_l, b)
    A_l = [f(Z_l); 1]           (n_l + 1, b), for l < L
    P   = softmax of Z_L        (C, b), each column sums to 1
    T                           (C, b), one-hot: T_ij = 1 where row j is of class i
    r                           (1, b), the rows' weights over b (without weights, 1 / b)

The row of ones makes the bias a column like any other: a layer is one product of matrices, and so
is its gradient. Features first, because then f works on contiguous memory, and the softmax and the
products with the few rows of the last layer take a third of the time they take rows first.

The loss is the negative log-likelihood, L = - sum_j r_j log P_{y_j, j}.
With dropout, the values of layer l are multiplied by a mask M_l of 0 and 1 / (1 - p), A_l becomes
[f(Z_l) * M_l; 1], and D_l below has the factor M_l as well.

With D_l = dL / dZ_l, of shape (n_l, b), the chain rule gives

    D_L     = (P - T) * r                           as d(-log P_y) / dZ_i = P_i - T_i
    D_{l-1} = (V_l^T D_l) * f'(Z_{l-1})             V_l is W_l without its bias column
    dL/dW_l = D_l A_{l-1}^T                         (n_l, n_{l-1} + 1), bias included

and the way from dL/dW to new weights is the business of `_updates.py`. Plain SGD does not store
the gradient: W_l <- W_l - (lr D_l) A_{l-1}^T is one product that adds to W_l, and lr is multiplied
into r. With momentum the products add to the velocity.

In float64, where that is asked for, are all of these but the weights themselves and the step.

The speed comes from doing nothing else. All memory is allocated once per batch size. A step is a
list of bound operations on fixed memory, made once, so that between two operations Python does
next to nothing. K networks are the same list with a leading axis of length K: `bmm` for `mm`.
"""

import threading
from functools import partial
from weakref import proxy

import torch

from ._activations import OPERATIONS
from ._noise import make_mask, make_unit_keys
from ._updates import compute_step_sizes, make_preparation, make_update

# The BLAS takes the product with D_L, of as few rows as there are classes, for one of large
# matrices. Measured on one core, from about this many numbers in the result, and for at most so
# many classes, adding outer products takes a half to a fifth of its time.
FEW_CLASSES = 3
MANY_NUMBERS = 40_000


def _make_product(product, V, D, out):
    """Make the operations out <- V D, where D may have few rows."""
    n_classes = D.shape[-2]
    if D.is_cuda or n_classes > FEW_CLASSES or out.shape[-2:].numel() < MANY_NUMBERS:
        return [partial(product, V, D, out=out)]
    first, *others = zip(V.split(1, dim=-1), D.split(1, dim=-2), strict=True)
    return [partial(torch.mul, *first, out=out), *(partial(out.addcmul_, *o) for o in others)]


# A process captures one CUDA graph at a time.
_capture_lock = threading.Lock()


# Several threads share a product of few rows and many units better where the rows come first: with
# four cores, this many times as many units as rows, a step took 0.7 to 0.9 times as long.
WIDE = 8


class Block:
    """Room for the data of some batches of equal size, and the steps that train on them."""

    def __init__(self, trainer, batch_size, n_batches):
        # The trainer has its blocks: a cycle would keep their memory for the garbage collector.
        self.trainer = proxy(trainer)
        self.batch_size = batch_size
        self.n_batches = n_batches
        self.n_rows = n_batches * batch_size
        n_features, *_, n_classes = trainer.layer_sizes
        K = trainer.n_networks

        def make(*shape, **options):
            return torch.ones(*shape, **trainer.step_options | options)

        # Batch by batch, network by network, as in the notation above.
        self.gathered = make(K * self.n_rows, n_features, dtype=trainer.options["dtype"])
        self.X = make(n_batches, K, n_features + 1, batch_size)
        self.T = make(n_batches, K, n_classes, batch_size)
        self.Z = make(n_batches, K, n_classes, batch_size)
        self.r = make(n_batches, K, 1, batch_size)
        self.scaled_r = torch.empty_like(self.r)
        self.step_size = make(n_batches, K, 1)
        self.step_eps = make(n_batches, K, 1)
        if any(trainer.kind.dropout):
            self.row_keys = make(n_batches, K, 1, batch_size, dtype=torch.int32)
            self.row_keys_now = torch.empty_like(self.row_keys[0])
            self.unit_keys = make_unit_keys(trainer.layer_sizes[1:-1], trainer.options["device"])
        self.steps = self._make_steps(make)
        self.graphs = {}

    def _make_steps(self, make):
        """Make, for each batch, the list of operations that trains all networks on it.

        Only the first and the last of them touch memory of the batch's own; the lists share the
        others.
        """
        trainer, K, b = self.trainer, self.trainer.n_networks, self.batch_size
        # One network does without the leading axis: the operations on matrices are faster.
        one = (lambda tensor: tensor) if K > 1 else (lambda tensor: tensor.squeeze(-3))
        product = torch.bmm if K > 1 else torch.mm
        add_product = torch.Tensor.baddbmm_ if K > 1 else torch.Tensor.addmm_
        needs_Z, make_activation = OPERATIONS[trainer.activation]

        def make_units(n, **options):
            rows_first = K == 1 and trainer.use_threads and n >= WIDE * b
            return one(make(K, b, n, **options).mT if rows_first else make(K, n, b, **options))

        weights, gradient, start, finish = trainer.weights, trainer.gradient, [], []
        if trainer.precise_weights is not None:
            weights, gradient = trainer.precise_weights, trainer.precise_gradient
            start = [partial(weights.copy_, trainer.weights)]
            finish = [partial(trainer.gradient.copy_, gradient)]
        W = [one(layer) for layer in trainer.split(weights)]
        D = [make_units(n) for n in trainer.layer_sizes[1:-1]]
        D.append(one(make(K, trainer.layer_sizes[-1], b)))
        A, Z, apply_f, apply_derivative = [], [], [], []
        for layer, (D_l, n) in enumerate(zip(D, trainer.layer_sizes[1:-1], strict=False)):
            A.append(make_units(n + 1))
            drops = trainer.kind.dropout[layer]
            # Derivatives are computed from the values before dropout.
            values = torch.empty_like(D_l) if drops else A[-1][..., :-1, :]
            # The products of several networks are one call of the BLAS only if their result is
            # contiguous, which A without its ones is not.
            Z.append(torch.empty_like(D_l) if needs_Z or K > 1 else values)
            forward, backward = make_activation(Z[-1], values, D_l)
            if trainer.masks[layer] is not None:
                forward = [*forward, partial(values.mul_, trainer.masks[layer].to(values))]
            if drops:
                mask = make_units(n)
                forward = [
                    *forward,
                    *self._make_mask(layer, mask, make_units, one),
                    partial(torch.mul, values, mask, out=A[-1][..., :-1, :]),
                ]
                backward = [partial(D_l.mul_, mask), *backward]
            apply_f.append(forward)
            apply_derivative.append(backward)

        forward = [*apply_f[0]] if A else []
        for W_l, A_l, Z_l, f in zip(W[1:-1], A, Z[1:], apply_f[1:], strict=False):
            forward += [partial(product, W_l, A_l, out=Z_l), *f]
        backward = []
        for W_l, D_l, D_below, derivative in reversed(
            list(zip(W[1:], D[1:], D, apply_derivative, strict=False))
        ):
            backward += _make_product(product, W_l[..., :-1].mT, D_l, D_below) + derivative

        if trainer.gradient_goes_to == "gradient":
            G = [one(layer) for layer in trainer.split(gradient)]

            def update(layer, A_below):
                return partial(product, D[layer], A_below, out=G[layer])
        else:
            is_velocity = trainer.gradient_goes_to == "momentum_buffer"
            flat = trainer.state["momentum_buffer"] if is_velocity else weights
            target = [one(layer) for layer in trainer.split(flat)]

            def update(layer, A_below):
                sign = 1 if is_velocity else -1
                return partial(add_product, target[layer], D[layer], A_below, alpha=sign)

        backward += make_preparation(trainer)
        shared = [*backward, *(update(layer, A_l.mT) for layer, A_l in enumerate(A, start=1))]
        take_keys = [[]] * self.n_batches
        if any(trainer.kind.dropout):
            take_keys = [[partial(self.row_keys_now.copy_, keys)] for keys in self.row_keys]
        steps = []
        for take, X, X_T, T, Z_L, r, *step_size in zip(
            take_keys,
            *(one(t).unbind() for t in (self.X, self.X.mT, self.T, self.Z, self.scaled_r)),
            self.step_size.unbind(),
            self.step_eps.unbind(),
            strict=True,
        ):
            products = [partial(product, W[0], X, out=Z[0] if A else Z_L), *forward]
            if A:
                products.append(partial(product, W[-1], A[-1], out=Z_L))
            loss = [
                partial(torch.softmax, Z_L, -2, out=D[-1]),
                partial(D[-1].sub_, T),
                partial(D[-1].mul_, r),
            ]
            step = [*start, *take, *products, *loss, *shared, update(0, X_T), *finish]
            steps.append(step + make_update(trainer, *step_size))
        return steps

    def _make_mask(self, layer, mask, make_units, one):
        """Make the operations that draw a mask for the batch whose keys are in `row_keys_now`."""
        columns, n = self.trainer.columns, self.trainer.layer_sizes[layer + 1]
        return make_mask(
            one(self.row_keys_now),
            self.unit_keys[layer][:, None],
            one(columns["threshold", layer]),
            one(columns["scale", layer]),
            make_units(n, dtype=torch.int32),
            make_units(n, dtype=torch.int32),
            mask,
        )

    def train(self, gather, y, order, weights, row_keys):
        """Gather the batches that `order` names, step through them, return their losses."""
        n_batches = order.shape[1] // self.batch_size
        idle = self._gather(gather, y, order, weights, n_batches)
        if row_keys is not None:
            self.row_keys[:n_batches].copy_(self._sort_by_batch(row_keys, n_batches))
        if self.trainer.kind.optimizer != "sgd":
            self._count_steps(n_batches, idle)
        if idle is None:
            self._run(n_batches)
        else:
            for step, is_idle in zip(self.steps, idle, strict=False):
                self._run_step(step, is_idle)
        log_P = torch.log_softmax(self.Z[:n_batches], dim=-2)
        losses = (log_P * self.T[:n_batches]).sum(dim=-2, keepdim=True) * self.r[:n_batches]
        return -losses.sum(dim=(-2, -1))

    def _sort_by_batch(self, values, n_batches):
        """View values of shape (K, n_rows) as (n_batches, K, 1, batch_size)."""
        shape = (len(values), n_batches, 1, self.batch_size)
        return values.reshape(shape).transpose(0, 1)

    def _gather(self, gather, y, order, weights, n_batches):
        rows = self.gathered[: order.numel()]
        gather(order.reshape(-1), rows)
        rows = rows.view(len(order), n_batches, self.batch_size, -1)
        self.X[:n_batches, :, :-1].copy_(rows.permute(1, 0, 3, 2))
        targets = self._sort_by_batch(y[order], n_batches)
        self.T[:n_batches].zero_().scatter_(-2, targets, 1.0)
        idle = None
        r = self.r[:n_batches].fill_(1 / self.batch_size)
        if weights is not None:
            r.copy_(self._sort_by_batch(weights, n_batches))
            # A network that waits for others has no rows here.
            idle = r.sum(dim=-1)[:, :, 0] == 0
        if self.trainer.gradient_goes_to == "weights":
            lr = self.trainer.columns["lr"][:, :, None]
            torch.mul(r, lr, out=self.scaled_r[:n_batches])
        else:
            self.scaled_r[:n_batches].copy_(r)
        return idle if idle is not None and bool(idle.any()) else None

    def _count_steps(self, n_batches, idle):
        trainer = self.trainer
        steps = torch.ones(n_batches, trainer.n_networks, device=self.Z.device)
        if idle is not None:
            steps[idle] = 0
        n_steps = trainer.n_steps + steps.cumsum(0)
        trainer.n_steps.copy_(n_steps[-1])
        # An idle network's step is undone; it must be finite all the same.
        sizes = compute_step_sizes(trainer.networks, n_steps.clamp_(min=1))
        for memory, values in zip((self.step_size, self.step_eps), sizes, strict=True):
            memory[:n_batches, :, 0].copy_(values)

    def _run(self, n_batches):
        if self.Z.is_cuda:
            self._run_graph(n_batches)
        else:
            self._run_steps(n_batches)

    def _run_step(self, step, is_idle):
        """Run a step that leaves the networks without rows in this batch as they are."""
        state = [
            part
            for flat in (self.trainer.weights, *self.trainer.state.values())
            for part in self.trainer.split_by_network(flat)
        ]
        before = [part[is_idle] for part in state]
        for operation in step:
            operation()
        for part, rows in zip(state, before, strict=True):
            part[is_idle] = rows

    def _run_graph(self, n_batches):
        """Run the steps as one CUDA graph, so that the GPU does not wait for Python.

        The first time they run one by one, which also sets up what a graph must find set up.
        """
        with torch.cuda.device(self.Z.device):
            self._run_on_current_device(n_batches)

    def _run_on_current_device(self, n_batches):
        if n_batches not in self.graphs:
            self.graphs[n_batches] = None
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run_steps(n_batches)
            torch.cuda.current_stream().wait_stream(stream)
            return
        if self.graphs[n_batches] is None:
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
            # Other threads may go on with other work.
            with (
                _capture_lock,
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                self._run_steps(n_batches)
            self.graphs[n_batches] = graph
        self.graphs[n_batches].replay()

    def _run_steps(self, n_batches):
        for step in self.steps[:n_batches]:
            for operation in step:
                operation()
