"""The trainers that are measured: skdisk, its peers, and loops as people write them by hand.

Each takes the same float64 arrays and the same settings and trains an MLP with ReLU, by plain SGD
unless it is told otherwise; some return a function that predicts probabilities.
"""

import functools
import warnings
from itertools import pairwise

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skdisk import MLPDiskClassifier, _kernel

LR = 1e-3
# The lesson's recipe, by which all that is measured is trained unless a case says otherwise.
RECIPE = {"lr": LR, "momentum": 0.0, "weight_decay": 0.0, "lr_schedule": "constant"}
# Where there is a kernel, nothing may stand in its way.
HAS_KERNEL = _kernel.explain_absence() is None


def make_module(n_features, hidden, n_classes=2, last=nn.LogSoftmax, activation=nn.ReLU):
    """Make the network with torch's own building blocks."""
    layers, n_in = [], n_features
    for n_out in hidden:
        layers += [nn.Linear(n_in, n_out), activation()]
        n_in = n_out
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes), last(dim=1))


def fit_skdisk(X, y, hidden, batch_size, epochs, sample_weight=None, **options):
    """Fit skdisk's classifier."""
    settings = {"batch_size": batch_size, "max_epochs": epochs, "random_state": 0}
    clf = MLPDiskClassifier(hidden, **{"fused": HAS_KERNEL} | RECIPE | settings | options)
    with warnings.catch_warnings():
        # With early stopping, that it has not stopped.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, y, sample_weight)
    return clf.predict_proba


def fit_skdisk_unfused(*args):
    """Fit skdisk's classifier in skorch's loop."""
    return fit_skdisk(*args, fused=False)


def train_by_hand(module, batches, epochs, optimizer=torch.optim.SGD):
    """Train as the tutorials do: autograd, NLLLoss, a torch optimiser, the loss kept."""
    optimizer, criterion = optimizer(module.parameters(), lr=LR), nn.NLLLoss()
    losses = []
    for _ in range(epochs):
        for X, y in batches():
            optimizer.zero_grad()
            loss = criterion(module(X), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def fit_dataloader(X, y, hidden, batch_size, epochs):
    """Train a hand-written loop over a DataLoader."""
    data = TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(y))
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)
    train_by_hand(make_module(X.shape[1], hidden), lambda: loader, epochs)


def fit_presliced(
    X,
    y,
    hidden,
    batch_size,
    epochs,
    optimizer=torch.optim.SGD,
    activation=nn.ReLU,
    device="cpu",
):
    """Train a hand-written loop over slices of shuffled tensors."""
    X, y = torch.tensor(X, dtype=torch.float32, device=device), torch.tensor(y, device=device)

    def slice_batches():
        order = torch.randperm(len(X), device=device)
        return zip(X[order].split(batch_size), y[order].split(batch_size), strict=True)

    module = make_module(X.shape[1], hidden, activation=activation).to(device)
    train_by_hand(module, slice_batches, epochs, optimizer)


def make_skorch(n_features, hidden, batch_size, epochs):
    """Make skorch's classifier, set up as its users must for such data."""
    return NeuralNetClassifier(
        make_module(n_features, hidden, last=nn.Softmax),
        lr=LR,
        batch_size=batch_size,
        max_epochs=epochs,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def fit_skorch(X, y, hidden, batch_size, epochs):
    """Fit skorch's classifier."""
    net = make_skorch(X.shape[1], hidden, batch_size, epochs)
    net.fit(X.astype(np.float32), y)
    return lambda X: net.predict_proba(X.astype(np.float32))


def make_sklearn(hidden, batch_size, epochs):
    """Make scikit-learn's MLPClassifier with the same recipe."""
    return MLPClassifier(
        hidden,
        solver="sgd",
        alpha=0,
        momentum=0,
        learning_rate_init=LR,
        batch_size=batch_size,
        max_iter=epochs,
        n_iter_no_change=epochs + 1,
        random_state=0,
    )


def fit_sklearn(X, y, hidden, batch_size, epochs):
    """Fit scikit-learn's MLPClassifier."""
    clf = make_sklearn(hidden, min(batch_size, len(X)), epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, y)
    return clf.predict_proba


def make_jax_fit(X, y, hidden, batch_size, epochs):
    """Make a JAX program that is the whole fit in one compiled loop; its first call compiles."""
    import jax
    from jax import numpy as jnp

    X, y = jnp.asarray(X, jnp.float32), jnp.asarray(y)
    n_batches = len(X) // batch_size
    sizes = [X.shape[1], *hidden, 2]

    def init(key):
        for n_in, n_out in pairwise(sizes):
            key, key_w, key_b = jax.random.split(key, 3)
            bound = n_in**-0.5
            yield (
                jax.random.uniform(key_w, (n_in, n_out), minval=-bound, maxval=bound),
                jax.random.uniform(key_b, (n_out,), minval=-bound, maxval=bound),
            )

    def compute_loss(parameters, X, y):
        for weight, bias in parameters[:-1]:
            X = jax.nn.relu(X @ weight + bias)
        log_proba = jax.nn.log_softmax(X @ parameters[-1][0] + parameters[-1][1])
        return -jnp.mean(jnp.take_along_axis(log_proba, y[:, None], axis=1))

    def step(parameters, rows):
        loss, gradients = jax.value_and_grad(compute_loss)(parameters, X[rows], y[rows])
        return jax.tree.map(lambda p, g: p - LR * g, parameters, gradients), loss

    def train_epoch(parameters, key):
        order = jax.random.permutation(key, len(X))
        # Batches of equal size only; the rest, shorter than a batch, is one step more.
        full = order[: n_batches * batch_size].reshape(n_batches, batch_size)
        parameters, losses = jax.lax.scan(step, parameters, full)
        if len(X) % batch_size:
            parameters, _ = step(parameters, order[n_batches * batch_size :])
        return parameters, losses

    @jax.jit
    def fit(key):
        return jax.lax.scan(train_epoch, list(init(key)), jax.random.split(key, epochs))

    return lambda: jax.block_until_ready(fit(jax.random.key(0)))


@functools.cache
def has_jax():
    """Tell whether JAX is installed."""
    try:
        import jax  # noqa: F401 - an optional peer
    except ImportError:
        return False
    return True
