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
    r                           (1, b), the rows' weights over their sum (without weights, 1 / b)

The row of ones makes the bias a column like any other: a layer is one product of matrices, and so
is its gradient. Features first, because then f works on contiguous memory, and the softmax and the
products with the few rows of the last layer take a third of the time they take rows first.

The loss is the weighted mean of the negative log-likelihood, L = - sum_j r_j log P_{y_j, j}.
With D_l = dL / dZ_l, of shape (n_l, b), the chain rule gives

    D_L     = (P - T) * r                           as d(-log P_y) / dZ_i = P_i - T_i
    D_{l-1} = (V_l^T D_l) * f'(Z_{l-1})             V_l is W_l without its bias column
    dL/dW_l = D_l A_{l-1}^T                         (n_l, n_{l-1} + 1), bias included

and the step is that of torch.optim.SGD with dampening 0, for each network its own lr, momentum m
and weight decay d:

    G <- dL/dW + d W;   U <- m U + G;   W <- W - lr U       (Nesterov: W <- W - lr (G + m U))

Without momentum and decay no gradient is stored: W_l <- W_l - (lr D_l) A_{l-1}^T is one product
that adds to W_l, and lr is multiplied into r.

The speed comes from doing nothing else. All memory is allocated once per batch size. A step is a
list of bound operations on fixed memory, made once, so that between two operations Python does
next to nothing. K networks are the same list with a leading axis of length K: `bmm` for `mm`.
"""

import threading
from functools import partial

import torch

aten = torch.ops.aten

# Parameters of torch.nn's functions of these names.
LEAKY_RELU_SLOPE = 0.01
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _make_relu(Z, A, D):
    # f'(Z) is 1 where A > 0 and 0 where A = 0: the sign of A.
    derivative = torch.empty_like(D)
    return [A.relu_], [partial(torch.sign, A, out=derivative), partial(D.mul_, derivative)]


def _make_from_output(forward, backward, *constants):
    """Make the operations of an f whose derivative is known from its value."""

    def make(Z, A, D):
        return (
            [partial(forward, A, *constants, out=A)],
            [partial(backward, D, A, grad_input=D)],
        )

    return make


def _make_elu(alpha, scale):
    def make(Z, A, D):
        return (
            [partial(aten.elu.out, A, alpha, scale, out=A)],
            [partial(aten.elu_backward.grad_input, D, alpha, scale, 1, True, A, grad_input=D)],
        )

    return make


def _make_leaky_relu(Z, A, D):
    slope = LEAKY_RELU_SLOPE
    return (
        [partial(aten.leaky_relu.out, A, slope, out=A)],
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
# D <- D * f'(Z)). Where Z is not needed, it shares the memory of A.
_ACTIVATIONS = {
    "relu": (False, _make_relu),
    "identity": (False, lambda Z, A, D: ([], [])),
    "tanh": (False, _make_from_output(torch.tanh, aten.tanh_backward.grad_input)),
    "logistic": (False, _make_from_output(torch.sigmoid, aten.sigmoid_backward.grad_input)),
    "leaky_relu": (False, _make_leaky_relu),
    "elu": (False, _make_elu(1.0, 1.0)),
    "selu": (False, _make_elu(SELU_ALPHA, SELU_SCALE)),
    "gelu": (True, _make_from_input(aten.gelu.out, aten.gelu_backward.grad_input)),
    "silu": (True, _make_from_input(aten.silu.out, aten.silu_backward.grad_input)),
}

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
        self.trainer = trainer
        self.batch_size = batch_size
        self.n_batches = n_batches
        self.n_rows = n_batches * batch_size
        n_features, *_, n_classes = trainer.layer_sizes
        K = trainer.n_networks

        def make(*shape):
            return torch.ones(*shape, **trainer.options)

        # Batch by batch, network by network, as in the notation above.
        self.gathered = make(K * self.n_rows, n_features)
        self.X = make(n_batches, K, n_features + 1, batch_size)
        self.T = make(n_batches, K, n_classes, batch_size)
        self.Z = make(n_batches, K, n_classes, batch_size)
        self.r = make(n_batches, K, 1, batch_size)
        self.scaled_r = torch.empty_like(self.r)
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
        needs_Z, make_activation = _ACTIVATIONS[trainer.activation]

        def make_units(n):
            rows_first = K == 1 and trainer.use_threads and n >= WIDE * b
            return one(make(K, b, n).mT if rows_first else make(K, n, b))

        W = [one(layer) for layer in trainer.split(trainer.weights)]
        D = [make_units(n) for n in trainer.layer_sizes[1:-1]]
        D.append(one(make(K, trainer.layer_sizes[-1], b)))
        A, Z, apply_f, apply_derivative = [], [], [], []
        for D_l, n in zip(D, trainer.layer_sizes[1:-1], strict=False):
            A.append(make_units(n + 1))
            values = A[-1][..., :-1, :]
            Z.append(torch.empty_like(D_l) if needs_Z else values)
            operations = make_activation(Z[-1], values, D_l)
            apply_f.append(operations[0])
            apply_derivative.append(operations[1])

        forward = [*apply_f[0]] if A else []
        for W_l, A_l, Z_l, f in zip(W[1:-1], A, Z[1:], apply_f[1:], strict=False):
            forward += [partial(product, W_l, A_l, out=Z_l), *f]
        backward = []
        for W_l, D_l, D_below, derivative in reversed(
            list(zip(W[1:], D[1:], D, apply_derivative, strict=False))
        ):
            backward += _make_product(product, W_l[..., :-1].mT, D_l, D_below) + derivative

        if trainer.gradient is None:

            def update(layer, A_below):
                return partial(add_product, W[layer], D[layer], A_below, alpha=-1)
        else:
            G = [one(layer) for layer in trainer.split(trainer.gradient)]

            def update(layer, A_below):
                return partial(product, D[layer], A_below, out=G[layer])

        shared = [*backward, *(update(layer, A_l.mT) for layer, A_l in enumerate(A, start=1))]
        finish = self._make_sgd()
        steps = []
        for X, X_T, T, Z_L, r in zip(
            *(one(t).unbind() for t in (self.X, self.X.mT, self.T, self.Z, self.scaled_r)),
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
            steps.append([*products, *loss, *shared, update(0, X_T), *finish])
        return steps

    def _make_sgd(self):
        """Make the operations that step from the gradient, on all weights at once."""
        trainer = self.trainer
        if trainer.gradient is None:
            return []
        has_momentum, has_nesterov, has_decay = trainer.kind
        W, G, U, scratch = trainer.weights, trainer.gradient, trainer.velocity, trainer.scratch
        given = trainer.hyperparameters
        operations = []
        if has_decay:
            operations += [
                partial(torch.mul, W, given["weight_decay"], out=scratch),
                partial(G.add_, scratch),
            ]
        if has_momentum:
            operations += [partial(U.mul_, given["momentum"]), partial(U.add_, G)]
        if has_nesterov:
            operations += [
                partial(G.mul_, given["share_G"]),
                partial(torch.mul, U, given["share_U"], out=scratch),
                partial(G.add_, scratch),
            ]
        direction = U if has_momentum and not has_nesterov else G
        return [
            *operations,
            partial(torch.mul, direction, given["lr"], out=scratch),
            partial(W.sub_, scratch),
        ]

    def train(self, X, y, order, weights):
        """Gather the batches that `order` names, step through them, return their losses."""
        n_batches = order.shape[1] // self.batch_size
        idle = self._gather(X, y, order, weights, n_batches)
        if idle is None:
            self._run(n_batches)
        else:
            for step, is_idle in zip(self.steps, idle, strict=False):
                self._run_step(step, is_idle)
        log_P = torch.log_softmax(self.Z[:n_batches], dim=-2)
        losses = (log_P * self.T[:n_batches]).sum(dim=-2, keepdim=True) * self.r[:n_batches]
        return -losses.sum(dim=(-2, -1))

    def _gather(self, X, y, order, weights, n_batches):
        K = len(order)
        shape = (K, n_batches, self.batch_size)
        rows = self.gathered[: order.numel()]
        torch.index_select(X, 0, order.reshape(-1), out=rows)
        self.X[:n_batches, :, :-1].copy_(rows.view(*shape, -1).permute(1, 0, 3, 2))
        targets = y[order].view(shape).transpose(0, 1).unsqueeze(-2)
        self.T[:n_batches].zero_().scatter_(-2, targets, 1.0)
        idle = None
        r = self.r[:n_batches].fill_(1 / self.batch_size)
        if weights is not None:
            r.copy_(weights.reshape(shape).transpose(0, 1).unsqueeze(-2))
            total = r.sum(dim=-1, keepdim=True)
            # A batch without weight: 0 / 1 instead of 0 / 0.
            r.div_(torch.where(total > 0, total, 1.0))
            idle = total[:, :, 0, 0] == 0
        if self.trainer.gradient is None:
            lr = self.trainer.hyperparameters["lr"][:, :, None]
            torch.mul(r, lr, out=self.scaled_r[:n_batches])
        else:
            self.scaled_r[:n_batches].copy_(r)
        return idle if idle is not None and bool(idle.any()) else None

    def _run(self, n_batches):
        if self.Z.is_cuda:
            self._run_graph(n_batches)
        else:
            self._run_steps(n_batches)

    def _run_step(self, step, is_idle):
        """Run a step that leaves the networks without weight in this batch as they are."""
        state = [self.trainer.weights]
        if self.trainer.velocity is not None:
            state.append(self.trainer.velocity)
        before = [flat[is_idle] for flat in state]
        for operation in step:
            operation()
        for flat, rows in zip(state, before, strict=True):
            flat[is_idle] = rows

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
