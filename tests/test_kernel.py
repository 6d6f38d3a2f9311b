"""The compiled kernel, beside autograd in float64, on every instruction set of this machine.

Threads and processes are in `test_kernel_threads.py`, which does without torch.
"""

import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_kernel_threads import make_state
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as compute_label_loss

from skdisk import _kernel as kernel
from skdisk._kernel import Data, Network, Settings
from skdisk._network.noise import draw_bits, draw_mask, draw_unit_bits, make_batch_seeds
from skdisk._network.prediction import log_softmax

if not kernel.get_instruction_sets():
    pytest.skip("the kernel has not been compiled here", allow_module_level=True)

SETS = kernel.get_instruction_sets()
# Those with fused multiply-add, whose results are equal bit by bit.
FUSED_SETS = [name for name in SETS if name != "base"]
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
both_outputs = pytest.mark.parametrize("output", ["softmax", "sigmoid"])


@pytest.fixture(autouse=True)
def use_the_best(monkeypatch):
    """Let tests name the instruction set, whatever the environment asks for."""
    monkeypatch.delenv("SKDISK_INSTRUCTION_SET", raising=False)


def make_parameters(network, seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        rng.uniform(-1, 1, n_out * (n_in + 1)) / math.sqrt(n_in)
        for n_in, n_out in pairwise(network.layer_sizes)
    ]
    return np.concatenate(parts).astype(np.float32)


def make_data(network, n_rows, seed=0, *, weights=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, network.layer_sizes[0])).astype(np.float32)
    y = (np.abs(X).max(axis=1) * 100).astype(np.int64) % network.layer_sizes[-1]
    if network.output == "sigmoid":
        y = (np.abs(X[:, [0]]) * 2.0 ** np.arange(network.layer_sizes[-1]) % 1 < 0.5).astype("f4")
    row_weights = rng.uniform(0.5, 1.5, n_rows).astype(np.float32) if weights else None
    return Data(X, y, row_weights, rng.integers(-(2**63), 2**63, n_rows))


def make_orders(n_rows, n_epochs, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(n_rows) for _ in range(n_epochs)])


def make_module(network, parameters, dtype):
    """Make a torch module of Linear layers and activations that ends in scores."""
    layers = []
    for n_in, n_out in pairwise(network.layer_sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[network.activation]()]
    module = nn.Sequential(*layers[:-1])
    nn.utils.vector_to_parameters(torch.from_numpy(parameters), module.parameters())
    return module.to(dtype)


def draw_masks(network, how, keys, seed, dtype):
    """Draw the masks of a batch of rows by the functions of the module."""
    row_bits = draw_bits(torch.from_numpy(keys), seed)
    for p, unit_bits in zip(how.dropout, draw_unit_bits(network.layer_sizes[1:-1]), strict=True):
        yield draw_mask(row_bits, unit_bits, p, dtype)


def make_optimizer(how, parameters):
    common = {"lr": 1.0, "weight_decay": how.weight_decay}
    if how.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=how.momentum, nesterov=how.nesterov, **common)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[how.optimizer]
    return make(parameters, betas=how.betas, eps=how.eps, **common)


def train_by_autograd(
    network, how, parameters, data, orders, learning_rates, seeds=None, dtype=torch.float64
):
    """Train as the kernel does; return parameters and losses."""
    module = make_module(network, parameters, dtype)
    optimizer = make_optimizer(how, list(module.parameters()))
    X, y = torch.from_numpy(data.X).to(dtype), torch.from_numpy(data.labels)
    weights = np.ones(len(y)) if data.row_weights is None else data.row_weights
    weights = torch.tensor(weights, dtype=dtype)
    losses = []
    for epoch, order in enumerate(orders):
        optimizer.param_groups[0]["lr"] = float(learning_rates[epoch])
        batches = torch.from_numpy(order).split(how.batch_size)
        batch_seeds = make_batch_seeds(int(seeds[epoch]), len(batches)) if how.dropout else batches
        for rows, seed in zip(batches, batch_seeds, strict=True):
            A, masks = X[rows], []
            if how.dropout:
                masks = list(draw_masks(network, how, data.row_keys[rows.numpy()], seed, dtype))
            for i, layer in enumerate(module):
                A = layer(A)
                if masks and i % 2:
                    A = A * masks[i // 2]
            if network.output == "softmax":
                nll = nn.functional.cross_entropy(A, y[rows], reduction="none")
            else:
                nll = compute_label_loss(A, y[rows].to(dtype), reduction="none").sum(dim=1)
            loss = (nll * weights[rows]).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            if how.max_norm < math.inf:
                nn.utils.clip_grad_norm_(module.parameters(), how.max_norm)
            optimizer.step()
            losses.append(loss.item())
    flat = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    return flat, np.reshape(losses, (len(orders), -1))


def train(network, how, data, orders, learning_rates, instruction_set, seeds=None):
    """Train by the kernel from `make_parameters` on; return state and training."""
    state = make_state(network, how, make_parameters(network))
    training = kernel.train(
        network, how, state, data, orders, learning_rates, seeds, instruction_set=instruction_set
    )
    return state, training


def get_arrays(state):
    return [state.parameters, *state.memory.values()]


def assert_equal_bits(a, b):
    """Compare states or arrays; NaN equals NaN of the same bits, 0.0 not -0.0."""
    a, b = (get_arrays(x) if isinstance(x, kernel.State) else [x] for x in (a, b))
    for x, y in zip(a, b, strict=True):
        assert x.tobytes() == y.tobytes()


def test_the_kernel_is_compiled():
    assert "base" in SETS
    assert kernel.explain_absence() is None


OPTIONS = {
    "plain": Settings(),
    "momentum": Settings(momentum=0.9, weight_decay=1e-2),
    "nesterov": Settings(momentum=0.9, nesterov=True, weight_decay=1e-2),
    "clipping": Settings(momentum=0.5, max_norm=0.05),
    "clipping of nothing": Settings(max_norm=50.0),
    "dropout": Settings(dropout=(0.25, 0.5)),
    "dropout of one layer": Settings(dropout=(0.0, 0.1), momentum=0.9),
    "adam": Settings(optimizer="adam", weight_decay=1e-2),
    "adam, all its options": Settings(optimizer="adam", betas=(0.8, 0.9), eps=1e-3, max_norm=0.1),
    "adamw": Settings(optimizer="adamw", weight_decay=0.1),
}


@pytest.mark.parametrize("how", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    ("activation", "output"), [*((name, "softmax") for name in ACTIVATIONS), ("tanh", "sigmoid")]
)
def test_parameters_and_losses_are_those_of_autograd(activation, output, how):
    network = Network((7, 20, 33, 4), activation, output)
    data, orders = make_data(network, 90, weights=True), make_orders(90, 5)
    learning_rates = np.linspace(1, 0.2, 5) * (0.05 if how.optimizer == "sgd" else 1e-3)
    seeds = np.array([5, -1, 2**62, 0, 77])
    parameters, losses = train_by_autograd(
        network, how, make_parameters(network), data, orders, learning_rates, seeds
    )
    for instruction_set in SETS:
        state, training = train(network, how, data, orders, learning_rates, instruction_set, seeds)
        assert (training.n_epochs, training.diverged, state.n_steps) == (5, False, 15)
        assert np.abs(state.parameters - parameters).max() < 2e-5
        assert np.abs(training.losses - losses).max() < 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_instruction_sets_that_fuse_give_equal_bits(seed):
    if len(FUSED_SETS) < 2:
        pytest.skip("this machine has one instruction set with fused multiply-add")
    rng = np.random.default_rng(seed)
    hidden = rng.integers(1, 90, rng.integers(0, 4))
    network = Network(
        (int(rng.integers(1, 60)), *map(int, hidden), int(rng.integers(2, 30))),
        str(rng.choice(list(ACTIVATIONS))),
        str(rng.choice(["softmax", "sigmoid"])),
    )
    how = Settings(
        batch_size=int(rng.integers(1, 70)),
        optimizer=str(rng.choice(["sgd", "sgd", "adam", "adamw"])),
        momentum=float(rng.choice([0, 0.9])),
        nesterov=bool(rng.integers(2)),
        weight_decay=float(rng.choice([0, 1e-3])),
        max_norm=float(rng.choice([math.inf, 0.5])),
        dropout=tuple(rng.choice([0, 0.3], len(hidden))),
    )
    if how.optimizer != "sgd":
        how = how._replace(momentum=0.0)
    n_rows = int(rng.integers(1, 300))
    data, orders = make_data(network, n_rows, seed, weights=bool(seed % 2)), make_orders(n_rows, 5)
    learning_rates, seeds = np.full(5, 0.01), rng.integers(-(2**63), 2**63, 5)
    (state, training), *others = (
        train(network, how, data, orders, learning_rates, name, seeds) for name in FUSED_SETS
    )
    for other_state, other in others:
        assert_equal_bits(state, other_state)
        assert_equal_bits(training.losses, other.losses)
    outputs = [kernel.predict(network, state.parameters, data.X, instruction_set=s) for s in SETS]
    assert_equal_bits(outputs[-1], outputs[-len(FUSED_SETS)])


@settings(max_examples=60, deadline=None)
@given(
    n_features=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 70), max_size=4),
    n_classes=st.integers(1, 12),
    n_rows=st.integers(1, 90),
    batch_size=st.integers(1, 100),
    output=st.sampled_from(["softmax", "sigmoid"]),
)
@example(n_features=1, hidden=[1], n_classes=2, n_rows=1, batch_size=1, output="softmax")
@example(n_features=1, hidden=[1], n_classes=1, n_rows=1, batch_size=1, output="sigmoid")
@example(n_features=5, hidden=[], n_classes=1000, n_rows=40, batch_size=16, output="softmax")
@example(n_features=5, hidden=[], n_classes=100, n_rows=40, batch_size=16, output="sigmoid")
# Matrices that are multiplied block by block: their rows, and the rows of the batch.
@example(n_features=2100, hidden=[70], n_classes=3, n_rows=50, batch_size=50, output="softmax")
# Rows of weights that would share few sets of the cache are padded by more.
@example(n_features=128, hidden=[120], n_classes=3, n_rows=40, batch_size=20, output="softmax")
@example(n_features=3, hidden=[900, 80], n_classes=3, n_rows=40, batch_size=20, output="softmax")
@example(n_features=3, hidden=[80, 9], n_classes=3, n_rows=1300, batch_size=1200, output="softmax")
@example(n_features=3, hidden=[80, 9], n_classes=3, n_rows=1300, batch_size=1200, output="sigmoid")
def test_networks_and_batches_may_have_any_size(
    n_features, hidden, n_classes, n_rows, batch_size, output
):
    network, how = Network((n_features, *hidden, n_classes), "tanh", output), Settings(batch_size)
    data, orders = make_data(network, n_rows), make_orders(n_rows, 2)
    learning_rates = np.array([0.05, 0.02])
    parameters, losses = train_by_autograd(
        network, how, make_parameters(network), data, orders, learning_rates
    )
    results = [train(network, how, data, orders, learning_rates, name) for name in SETS]
    for state, training in results:
        assert np.abs(state.parameters - parameters).max() < 2e-5
        assert np.abs(training.losses - losses).max() < 2e-5
    for state, _ in results[-len(FUSED_SETS) :]:
        assert_equal_bits(state, results[-1][0])


@pytest.mark.parametrize("instruction_set", SETS)
def test_epochs_in_one_call_are_epochs_in_many(instruction_set):
    network, how = Network((3, 10, 2)), Settings(8, optimizer="adam", dropout=(0.2,))
    data, orders = make_data(network, 30), make_orders(30, 4)
    learning_rates, seeds = np.array([0.1, 0.05, 0.02, 0.01]), np.array([3, 1, 4, 1])
    together, training = train(network, how, data, orders, learning_rates, instruction_set, seeds)
    state = make_state(network, how, make_parameters(network))
    losses = [
        kernel.train(network, how, state, data, *epoch, instruction_set=instruction_set).losses
        for epoch in zip(orders[:, None], learning_rates[:, None], seeds[:, None], strict=True)
    ]
    assert_equal_bits(state, together)
    assert_equal_bits(np.concatenate(losses), training.losses)
    assert state.n_steps == together.n_steps == 16


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999, math.nextafter(1, 0)])
def test_dropout_masks_are_those_of_the_module(p, instruction_set):
    """A step on one row changes the weights that lead on from a unit where it was not dropped."""
    network, how = Network((1, 200, 2), "identity"), Settings(1, dropout=(p,))
    X, y = np.ones((1, 1), dtype=np.float32), np.zeros(1, dtype=np.int64)
    for key, seed in [(0, 0), (1, -1), (-(2**63), 2**63 - 1), (123456789, -(2**40))]:
        data = Data(X, y, row_keys=np.array([key]))
        state, _ = train(
            network,
            how,
            data,
            np.zeros((1, 1), int),
            np.ones(1),
            instruction_set,
            np.array([seed]),
        )
        changed = state.parameters[400:800] != make_parameters(network)[400:800]
        batch_seed = make_batch_seeds(seed, 1)
        (mask,) = draw_masks(network, how, data.row_keys, batch_seed, torch.float32)
        assert np.array_equal(changed.reshape(2, 200), np.repeat(mask.numpy() > 0, 2, axis=0))


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_sparse_rows_are_dense_rows(index_type, instruction_set):
    network, how = Network((50, 12, 3)), Settings(8, momentum=0.9)
    data, orders = make_data(network, 40), make_orders(40, 3)
    data.X[np.random.default_rng(0).uniform(size=data.X.shape) < 0.9] = 0
    csr = scipy.sparse.csr_matrix(data.X)
    csr.indices, csr.indptr = csr.indices.astype(index_type), csr.indptr.astype(index_type)
    learning_rates = np.full(3, 0.1)
    dense, _ = train(network, how, data, orders, learning_rates, instruction_set)
    sparse, _ = train(network, how, data._replace(X=csr), orders, learning_rates, instruction_set)
    assert_equal_bits(dense, sparse)
    assert_equal_bits(
        *(
            kernel.predict(network, dense.parameters, X, instruction_set=instruction_set)
            for X in (data.X, csr)
        )
    )


def test_values_of_a_sparse_row_that_share_a_place_are_added():
    network = Network((3, 2))
    X = scipy.sparse.csr_matrix(
        (np.array([1, 2, 4], dtype=np.float32), np.array([1, 1, 0]), np.array([0, 3])), (1, 3)
    )
    scores = [
        kernel.compute_outputs(network, make_parameters(network), rows)
        for rows in (X, np.array([[4, 3, 0]], dtype=np.float32))
    ]
    assert_equal_bits(*scores)


@both_outputs
@pytest.mark.parametrize("instruction_set", SETS)
def test_rows_without_weight_do_no_harm(instruction_set, output):
    network, how = Network((2, 5, 2), output=output), Settings(4)
    data = make_data(network, 8)._replace(row_weights=np.zeros(8, dtype=np.float32))
    state, training = train(network, how, data, make_orders(8, 2), np.ones(2), instruction_set)
    assert_equal_bits(state.parameters, make_parameters(network))
    assert not training.losses.any()


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_divergence_goes_back_to_the_epoch_before(optimizer, instruction_set):
    network, how = Network((2, 8, 2)), Settings(4, optimizer, momentum=0.9 * (optimizer == "sgd"))
    data, orders = make_data(network, 20), make_orders(20, 5)
    learning_rates = np.array([0.01, 0.01, 3e38, 0.01, 0.01])
    state, training = train(network, how, data, orders, learning_rates, instruction_set)
    before, good = train(network, how, data, orders[:2], learning_rates[:2], instruction_set)
    assert (training.n_epochs, training.diverged, training.losses.shape) == (2, True, (3, 5))
    assert_equal_bits(state, before)
    assert state.n_steps == before.n_steps == 10
    assert_equal_bits(training.losses[:2], good.losses)
    assert not np.isfinite(training.losses[2]).all()


@pytest.mark.parametrize("instruction_set", SETS)
def test_divergence_is_seen_in_weights_whose_losses_are_finite(instruction_set):
    """The loss of an epoch of one batch is that of the weights before."""
    network, how = Network((2, 2)), Settings(4)
    data = make_data(network, 4)
    data.X[:] *= 1e20
    state, training = train(
        network, how, data, make_orders(4, 1), np.array([3e38]), instruction_set
    )
    assert training.diverged
    assert np.isfinite(training.losses).all()
    assert_equal_bits(state.parameters, make_parameters(network))


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize(
    ("scores", "bad_loss"), [([3e38, -3e38], np.inf), ([np.nan, 0], np.nan), ([0, np.nan], np.nan)]
)
@pytest.mark.parametrize(
    ("output", "labels"),
    [("softmax", np.array([1, 1, 1])), ("sigmoid", np.array([[0, 1]] * 3, dtype=np.float32))],
)
def test_divergence_is_seen_in_losses_whose_weights_are_as_before(
    scores, bad_loss, output, labels, instruction_set
):
    """The biases of a network without inputs are its scores; a learning rate of 0 keeps them."""
    network, how = Network((1, 2), output=output), Settings(2)
    data = Data(np.zeros((3, 1), dtype=np.float32), labels)
    state = make_state(network, how)
    state.parameters[2:] = scores
    before = state.parameters.copy()
    training = kernel.train(
        network, how, state, data, make_orders(3, 2), np.zeros(2), instruction_set=instruction_set
    )
    assert (training.n_epochs, training.diverged) == (0, True)
    np.testing.assert_array_equal(training.losses, [[bad_loss, bad_loss]])
    assert_equal_bits(state.parameters, before)


@both_outputs
@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_activation_swallows_nan(activation, instruction_set, output):
    network = Network((2, 5, 5, 3), activation, output)
    data = make_data(network, 7)
    data.X[3, 1] = np.nan
    scores = kernel.compute_outputs(
        network, make_parameters(network), data.X, instruction_set=instruction_set
    )
    assert np.array_equal(np.isnan(scores).all(axis=1), np.arange(7) == 3)
    _, training = train(
        network, Settings(), data, make_orders(7, 2), np.full(2, 0.01), instruction_set
    )
    assert (training.n_epochs, training.diverged) == (0, True)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_predictions_are_those_of_the_module(activation, instruction_set):
    network = Network((5, 30, 17, 4), activation)
    X, parameters = 3 * make_data(network, 77).X, make_parameters(network)
    module = make_module(network, parameters, torch.float64)
    with torch.no_grad():
        hidden = module[:2](torch.from_numpy(X).double()).numpy()
        scores = module(torch.from_numpy(X).double())
    expected = {
        ("softmax", "log_proba"): scores.log_softmax(1),
        ("softmax", "proba"): scores.softmax(1),
        ("softmax", "scores"): scores,
        ("sigmoid", "log_proba"): nn.functional.logsigmoid(scores),
        ("sigmoid", "proba"): scores.sigmoid(),
        ("sigmoid", "scores"): scores,
    }
    for (output, form), values in expected.items():
        out = kernel.predict(
            network._replace(output=output),
            parameters,
            X,
            form=form,
            instruction_set=instruction_set,
        )
        np.testing.assert_allclose(out, values, rtol=2e-5, atol=2e-6)
    for layer, values in [(1, hidden), (None, scores.numpy())]:
        out = kernel.compute_outputs(
            network, parameters, X, layer, instruction_set=instruction_set
        )
        np.testing.assert_allclose(out, values, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_right_to_few_units_in_the_last_place(activation, instruction_set):
    """A float32 has 1.2e-7 of its value between itself and the next."""
    network, rng = Network((1, 1, 2), activation), np.random.default_rng(0)
    parameters = np.array([1, 0, 0, 0, 0, 0], dtype=np.float32)
    X = np.r_[
        rng.uniform(-12, 12, 9000), np.geomspace(1e-10, 1, 500), -np.geomspace(1e-10, 1, 500)
    ]
    X = X.astype(np.float32)[:, None]
    values = kernel.compute_outputs(network, parameters, X, 1, instruction_set=instruction_set)
    if activation == "gelu":
        # torch subtracts: x times 1 + erf loses all digits in the tail.
        expected = X * scipy.special.ndtr(X.astype(np.float64))
    else:
        expected = ACTIVATIONS[activation]()(torch.from_numpy(X).double()).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-5 if activation == "gelu" else 4e-7)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("activation", sorted({*ACTIVATIONS} - {"identity", "leaky_relu"}))
def test_large_features_do_not_move_a_saturated_unit(activation, instruction_set):
    """A slope of 6e-39 would give a gradient of 6e-9, which Adam divides by its size."""
    network, how = Network((1, 1, 2), activation), Settings(batch_size=1, optimizer="adam")
    state = make_state(network, how, np.float32([1, 0, 0.5, -0.5, 0, 0]))
    data = Data(np.float32([[-1e30], [-1e6], [-200]]), np.array([0, 1, 0]), None, None)
    rates = np.full(9, 0.01)
    kernel.train(
        network, how, state, data, make_orders(3, 9), rates, instruction_set=instruction_set
    )
    weight, bias, *_, last = state.parameters
    assert (weight, bias) == (1, 0)
    assert last != 0


@both_outputs
@pytest.mark.parametrize("instruction_set", SETS)
def test_probabilities_of_float32_scores_are_exact_in_float64(instruction_set, output):
    network = Network((4, 4), output=output)
    parameters = np.r_[np.eye(4, dtype=np.float32).ravel(), np.zeros(4, dtype=np.float32)]
    rng = np.random.default_rng(0)
    scores = np.exp(rng.uniform(-20, 8, (500, 4))) * rng.choice([-1, 1], (500, 4))
    scores = scores.astype(np.float32)
    if output == "softmax":
        # Which keeps the digits of logarithms near 0, as the one of torch does not.
        log_proba = log_softmax(scores.T).T
    else:
        log_proba = scipy.special.log_expit(scores.astype(np.float64))
    forms = {"log_proba": log_proba, "proba": np.exp(log_proba), "scores": scores}
    for form, expected in forms.items():
        out = kernel.predict(
            network, parameters, scores, form=form, instruction_set=instruction_set
        )
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_rows_that_overflow_on_the_way_are_nan_and_no_others(instruction_set, activation):
    network = Network((4, 1, 2), activation)
    # The first sum is -inf on its way, though it is positive in the end.
    parameters = np.array([1, 1, 1, 1, 0, 1, 2, 0, 0], dtype=np.float32)
    X = np.array([[-3e38, -3e38, 3.3e38, 3.3e38], [1, 2, 3, 4]], dtype=np.float32)
    log_proba = kernel.predict(network, parameters, X, instruction_set=instruction_set)
    assert np.isnan(log_proba[0]).all()
    alone = kernel.predict(network, parameters, X[1:], instruction_set=instruction_set)
    np.testing.assert_array_equal(log_proba[1:], alone)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("instruction_set", SETS)
def test_predictions_are_finite_where_scores_are(instruction_set):
    network = Network((3, 3))
    parameters = np.r_[np.eye(3, dtype=np.float32).ravel(), np.zeros(3, dtype=np.float32)]
    X = np.array([[3e38, -3e38, 0], [-3e38, -3e38, -3e38], [1e-45, 0, 0]], dtype=np.float32)
    get = {"instruction_set": instruction_set}
    log_proba = kernel.predict(network, parameters, X, **get)
    expected = [[0, -2 * float(X[0, 0]), -float(X[0, 0])], [-math.log(3)] * 3, [-math.log(3)] * 3]
    np.testing.assert_allclose(log_proba, expected, rtol=1e-15)
    proba = kernel.predict(network, parameters, X, form="proba", **get)
    np.testing.assert_allclose(proba, [[1, 0, 0], [1 / 3] * 3, [1 / 3] * 3], rtol=1e-15)
    loss, _ = kernel.evaluate(network, parameters, Data(X, np.array([1, 0, 0])), **get)
    assert loss == pytest.approx(2e38)

    network = network._replace(output="sigmoid")
    log_proba = kernel.predict(network, parameters, X, **get)
    np.testing.assert_allclose(log_proba, np.minimum(X, 0) - math.log(2) * (abs(X) < 1))
    proba = kernel.predict(network, parameters, X, form="proba", **get)
    np.testing.assert_array_equal(proba, (1 + np.sign(X) * (abs(X) > 1)) / 2)
    # The label that a row has against 3e38, and those that it has not.
    targets = np.array([[0, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=np.float32)
    loss, _ = kernel.evaluate(network, parameters, Data(X, targets), **get)
    assert loss == pytest.approx(1e38)


@both_outputs
@pytest.mark.parametrize("instruction_set", SETS)
def test_a_prediction_does_not_depend_on_company_and_place(instruction_set, output):
    network = Network((3, 40, 20, 5), "gelu", output)
    X, parameters = make_data(network, 75).X, make_parameters(network)

    def predict(rows):
        return kernel.predict(network, parameters, rows, instruction_set=instruction_set)

    together = predict(X)
    for size in (1, 3, 8, 9, 40):
        parts = [predict(X[i : i + size]) for i in range(0, len(X), size)]
        assert_equal_bits(np.concatenate(parts), together)
    assert_equal_bits(predict(np.ascontiguousarray(X[::-1])), np.ascontiguousarray(together[::-1]))
    assert_equal_bits(predict(X.astype(np.float64)), together)
    out = np.empty_like(together)
    assert kernel.predict(network, parameters, X, out=out, instruction_set=instruction_set) is out
    assert_equal_bits(out, together)
    assert predict(X[:0]).shape == (0, 5)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("n_rows", [1, 5, 70])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_an_evaluation_is_the_mean_loss_and_the_weight_of_right_answers(
    output, n_rows, instruction_set
):
    network = Network((4, 9, 3), output=output)
    data, parameters = make_data(network, n_rows, weights=True), make_parameters(network)
    if output == "softmax":
        log_proba = kernel.predict(network, parameters, data.X)
        nll = -log_proba[np.arange(n_rows), data.labels]
        right = log_proba.argmax(axis=1) == data.labels
    else:
        scores = kernel.predict(network, parameters, data.X, form="scores")
        nll = -scipy.special.log_expit(np.where(data.labels, scores, -scores)).sum(axis=1)
        right = ((scores > 0) == data.labels).all(axis=1)
    for weights in (None, data.row_weights):
        loss, n_right = kernel.evaluate(
            network,
            parameters,
            data._replace(row_weights=weights),
            instruction_set=instruction_set,
        )
        assert loss == pytest.approx(np.average(nll, weights=weights), rel=1e-5)
        assert n_right == pytest.approx((right * (1 if weights is None else weights)).sum())


@pytest.mark.parametrize("instruction_set", SETS)
def test_a_score_of_zero_says_that_a_label_is_not_there(instruction_set):
    network, X = Network((1, 2), output="sigmoid"), np.zeros((4, 1), dtype=np.float32)
    parameters = np.array([0, 0, 0, -0.0], dtype=np.float32)
    targets = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    loss, n_right = kernel.evaluate(
        network, parameters, Data(X, targets), instruction_set=instruction_set
    )
    assert n_right == 1
    assert loss == pytest.approx(2 * math.log(2))


def test_the_first_of_equal_scores_is_the_answer():
    network, X = Network((1, 3)), np.ones((3, 1), dtype=np.float32)
    parameters = np.zeros(6, dtype=np.float32)
    _, n_right = kernel.evaluate(network, parameters, Data(X, np.array([0, 1, 2])))
    assert n_right == 1


def make_arguments():
    """Make arguments that `_compiled.train` accepts."""
    network, how = Network((3, 4, 2)), Settings(4, momentum=0.9, dropout=(0.5,))
    data, state = make_data(network, 10, weights=True), make_state(network, how)
    return {
        "instruction_set": SETS[-1],
        "layer_sizes": np.array(network.layer_sizes),
        "activation": "relu",
        "output": "softmax",
        "parameters": state.parameters,
        "memory0": state.memory["momentum_buffer"],
        "memory1": None,
        "n_steps": 0,
        "batch_size": 4,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "max_norm": math.inf,
        "dropout": np.array([0.5]),
        "values": data.X,
        "indices": None,
        "indptr": None,
        "labels": data.labels,
        "row_weights": data.row_weights,
        "row_keys": data.row_keys,
        "orders": make_orders(10, 2),
        "learning_rates": np.full(2, 0.1),
        "seeds": np.arange(2),
    }


def copy_arrays(arguments):
    return {
        name: value.tobytes()
        for name, value in arguments.items()
        if isinstance(value, np.ndarray) and value.dtype != object
    }


def change(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def make_read_only(array):
    array.flags.writeable = False
    return array


def make_unaligned(array):
    buffer = bytearray(array.nbytes + 1)
    unaligned = np.frombuffer(buffer, array.dtype, offset=1).reshape(array.shape)
    unaligned[:] = array
    return unaligned


class Awkward:
    def __bool__(self):
        raise RuntimeError("neither true nor false")


class Greedy:
    def __float__(self):
        raise MemoryError("no memory for a number")


# (argument, function of the right value and all arguments, error, words)
NONSENSE = [
    ("instruction_set", lambda v, a: "sse9", ValueError, "instruction_set must be one of base, "),
    ("instruction_set", lambda v, a: None, TypeError, "instruction_set must be a string. Got"),
    ("instruction_set", lambda v, a: b"base", TypeError, "Got <class 'bytes'> instead"),
    ("activation", lambda v, a: "swish", ValueError, "activation must be one of relu, tanh"),
    ("activation", lambda v, a: "relu\0", ValueError, "activation must be one of .* Got 'relu\0"),
    ("output", lambda v, a: "\udc80", ValueError, "output must be one of .* Got '\udc80'"),
    ("output", lambda v, a: "logistic", ValueError, "output must be one of softmax, sigmoid. Got"),
    ("output", lambda v, a: "sigmoid", TypeError, "labels must be an array of float32"),
    ("optimizer", lambda v, a: "lbfgs", ValueError, "optimizer must be one of sgd, adam, adamw"),
    ("layer_sizes", lambda v, a: v[:1], ValueError, "layer_sizes must have 2 to"),
    (
        "layer_sizes",
        lambda v, a: v.astype(float),
        TypeError,
        "layer_sizes must be an array of int64",
    ),
    (
        "layer_sizes",
        lambda v, a: change(v, 1, 0),
        ValueError,
        "layer_sizes must be at least 1. Got 0",
    ),
    (
        "layer_sizes",
        lambda v, a: change(v, 1, -(2**63)),
        ValueError,
        "at least 1. Got -9223372036",
    ),
    ("layer_sizes", lambda v, a: change(v, 1, 2**62), ValueError, "layer_sizes are too large"),
    ("layer_sizes", lambda v, a: np.full(3, 2**31), ValueError, "layer_sizes are too large"),
    ("layer_sizes", lambda v, a: np.ones(10**6 + 2, int), ValueError, "2 to 1000001 items"),
    ("layer_sizes", lambda v, a: change(v, 0, 2**63 - 1), ValueError, "layer_sizes are too large"),
    ("layer_sizes", lambda v, a: change(v, 2, 2**31), ValueError, "must have 10737418256 items"),
    (
        "layer_sizes",
        lambda v, a: change(v, 0, 4),
        ValueError,
        "parameters must have 30 items. Got 26",
    ),
    ("parameters", lambda v, a: v[:-1], ValueError, "parameters must have 26 items. Got 25"),
    (
        "parameters",
        lambda v, a: v.astype(float),
        TypeError,
        "parameters must be an array of float32",
    ),
    ("parameters", lambda v, a: v.tolist(), TypeError, "parameters must be .* Got <class 'list'>"),
    ("parameters", lambda v, a: None, TypeError, "parameters must be an array of float32"),
    ("parameters", lambda v, a: v.byteswap().view(">f4"), TypeError, "format '>f'"),
    (
        "parameters",
        lambda v, a: np.repeat(v, 2)[::2],
        ValueError,
        "parameters must be C-contiguous",
    ),
    ("parameters", lambda v, a: make_read_only(v), ValueError, "parameters must be writable"),
    ("parameters", lambda v, a: make_unaligned(v), (ValueError, TypeError), "parameters must be"),
    ("parameters", lambda v, a: a["memory0"], ValueError, "must not share memory"),
    ("memory0", lambda v, a: None, ValueError, r"memory\[0\] must be given with this optimizer"),
    ("memory1", lambda v, a: a["memory0"], ValueError, r"memory\[1\] must be None with this opt"),
    ("memory0", lambda v, a: v[1:], ValueError, r"memory\[0\] must have 26 items. Got 25"),
    ("n_steps", lambda v, a: -1, ValueError, "n_steps must be at least 0"),
    ("n_steps", lambda v, a: 2**63 - 1, ValueError, "n_steps must be at least 0 and a count"),
    ("n_steps", lambda v, a: 1.5, TypeError, "n_steps must be an integer. Got <class 'float'>"),
    ("batch_size", lambda v, a: 0, ValueError, "batch_size must be at least 1. Got 0"),
    ("batch_size", lambda v, a: 2**70, ValueError, "batch_size is too large a number"),
    ("batch_size", lambda v, a: np.array([2]), TypeError, "batch_size must be an integer. Got"),
    (
        "momentum",
        lambda v, a: -0.1,
        ValueError,
        "momentum must be a float32 of at least 0. Got -0.1",
    ),
    ("momentum", lambda v, a: 10**400, ValueError, "momentum is too large a number"),
    ("momentum", lambda v, a: "0.9", TypeError, "momentum must be a number. Got <class 'str'>"),
    ("nesterov", lambda v, a: np.array([]), TypeError, "nesterov must be true or false. Got"),
    ("nesterov", lambda v, a: Awkward(), TypeError, "nesterov must be true or false. Got"),
    ("momentum", lambda v, a: Greedy(), MemoryError, "no memory for a number"),
    ("beta1", lambda v, a: np.array([True]), TypeError, "beta1 must be a number. Got .*ndarray"),
    ("weight_decay", lambda v, a: math.nan, ValueError, "weight_decay must be .* Got nan"),
    ("beta1", lambda v, a: 1.0, ValueError, "beta1 must be at least 0 and below 1. Got 1"),
    ("beta2", lambda v, a: -1.0, ValueError, "beta2 must be at least 0 and below 1. Got -1"),
    ("eps", lambda v, a: math.inf, ValueError, "eps must be .* Got inf"),
    ("max_norm", lambda v, a: 0.0, ValueError, "max_norm must be above 0. Got 0"),
    (
        "dropout",
        lambda v, a: np.array([1.0]),
        ValueError,
        "dropout must be at least 0 and below 1",
    ),
    ("dropout", lambda v, a: np.array([0.5, 0.5]), ValueError, "dropout must have 1 items. Got 2"),
    ("values", lambda v, a: v[:, :2].copy(), ValueError, "X must have 3 features. Got 2"),
    ("values", lambda v, a: v[0], ValueError, "X must have 2 dimensions. Got 1"),
    ("values", lambda v, a: v[:0], ValueError, "X must have at least 1 row"),
    ("values", lambda v, a: np.asfortranarray(v), ValueError, "X must be C-contiguous"),
    (
        "values",
        lambda v, a: v.astype(object),
        TypeError,
        "X must be an array of float32 or float64",
    ),
    (
        "indptr",
        lambda v, a: np.arange(11),
        ValueError,
        "X.indices and X.indptr must be given together",
    ),
    (
        "labels",
        lambda v, a: change(v, 3, 2),
        ValueError,
        "labels must be at least 0 and below 2. Got 2",
    ),
    ("labels", lambda v, a: change(v, 9, -1), ValueError, "labels must be .* Got -1"),
    ("labels", lambda v, a: v[1:], ValueError, "labels must have 10 items. Got 9"),
    ("labels", lambda v, a: v.astype(np.uint64), TypeError, "labels must be an array of int64"),
    (
        "row_weights",
        lambda v, a: change(v, 0, np.nan),
        ValueError,
        "row_weights must be finite .* nan",
    ),
    ("row_weights", lambda v, a: change(v, 0, -1), ValueError, "row_weights must be .* Got -1"),
    ("row_weights", lambda v, a: change(v, 0, np.inf), ValueError, "row_weights .* Got inf"),
    ("row_weights", lambda v, a: v[1:], ValueError, "row_weights must have 10 items"),
    ("row_keys", lambda v, a: None, ValueError, "dropout must have row_keys and seeds"),
    ("row_keys", lambda v, a: v[1:], ValueError, "row_keys must have 10 items"),
    ("seeds", lambda v, a: None, ValueError, "dropout must have row_keys and seeds"),
    ("seeds", lambda v, a: v[:1], ValueError, "seeds must have 2 items. Got 1"),
    (
        "orders",
        lambda v, a: change(v, (1, 9), 10),
        ValueError,
        "orders must be .* below 10. Got 10",
    ),
    ("orders", lambda v, a: change(v, (0, 0), -1), ValueError, "orders must be .* Got -1"),
    ("orders", lambda v, a: v[0], ValueError, "orders must have 2 dimensions. Got 1"),
    ("orders", lambda v, a: v[:, :0], ValueError, "orders must have at least 1 column"),
    ("orders", lambda v, a: v.astype(np.int32), TypeError, "orders must be an array of int64"),
    ("learning_rates", lambda v, a: -v, ValueError, "learning_rates must be .* Got -0.1"),
    ("learning_rates", lambda v, a: change(v, 1, np.nan), ValueError, "learning_rates .* Got nan"),
    ("learning_rates", lambda v, a: v[:1], ValueError, "learning_rates must have 2 items. Got 1"),
]


@pytest.mark.parametrize(("name", "spoil", "error", "words"), NONSENSE)
def test_nonsense_is_refused_before_anything_is_changed(name, spoil, error, words):
    arguments = make_arguments()
    arguments[name] = spoil(arguments[name], arguments)
    before = copy_arrays(arguments)
    with pytest.raises(error, match=words):
        kernel.trainer._compiled.train(**arguments)
    assert copy_arrays(arguments) == before


def test_items_may_say_that_their_bytes_have_the_order_of_the_machine():
    arguments = make_arguments()
    plain = kernel.trainer._compiled.train(**arguments)
    weights = memoryview(make_arguments()["row_weights"].tobytes())
    arguments = make_arguments() | {"row_weights": weights.cast("@f")}
    assert kernel.trainer._compiled.train(**arguments) == plain


# For no epoch at all; (features, rows of an epoch): of the parts of the memory one cannot be
# counted, in numbers or in bytes; one is too large; all together are.
@pytest.mark.parametrize(
    ("n_features", "n_rows"), [(33, 2**59), (1, 2**58), (1, 2**55), (32, 2**54 - 32)]
)
def test_memory_that_cannot_be_counted_is_want_of_memory(n_features, n_rows):
    network, how = Network((n_features, 2)), Settings(2**60)
    state = make_state(network, how, make_parameters(network))
    orders = np.zeros((0, n_rows), dtype=np.int64)
    with pytest.raises(MemoryError):
        kernel.train(network, how, state, make_data(network, 3), orders, np.zeros(0))


def test_what_is_computed_must_not_lie_where_it_is_computed_from():
    network, memory = Network((2, 2)), np.zeros(40)
    X, out = memory[:8].reshape(4, 2), memory[7:15].reshape(4, 2)
    parameters = memory.view(np.float32)[14:20]
    for rows, weights, name in [(X, np.zeros(6, "f4"), "X"), (X.copy(), parameters, "parameters")]:
        with pytest.raises(ValueError, match=f"{name} must not share memory|out and {name} must"):
            kernel.predict(network, weights, rows, out=out)
        narrow = memory.view(np.float32)[14:22].reshape(4, 2)
        with pytest.raises(ValueError, match=f"{name} must not share memory|out and {name} must"):
            kernel.compute_outputs(network, weights, rows, out=narrow)
    assert not memory.any()


def test_a_number_that_changes_arrays_while_it_is_read_does_no_harm():
    network, X = Network((3, 2)), np.zeros((1, 3), dtype=np.float32)

    class Layer:
        def __index__(self):
            sizes[0] = 4
            return 1

    sizes, out = np.array(network.layer_sizes), np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"parameters must have 10 items\. Got 8"):
        kernel.trainer._compiled.compute_outputs(
            instruction_set=SETS[-1],
            layer_sizes=sizes,
            activation="relu",
            output="softmax",
            parameters=make_parameters(network),
            values=X,
            indices=None,
            indptr=None,
            layer=Layer(),
            out=out,
        )


def make_csr_arguments():
    arguments = make_arguments()
    csr = scipy.sparse.csr_matrix(arguments["values"])
    return arguments | {"values": csr.data, "indices": csr.indices, "indptr": csr.indptr}


def make_sigmoid_arguments():
    labels = np.arange(20, dtype=np.float32).reshape(10, 2) % 3 // 2
    return make_arguments() | {"output": "sigmoid", "labels": labels}


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda v: change(v, (3, 1), 2), ValueError, "labels must be 0 or 1. Got 2"),
        (lambda v: change(v, (0, 0), 0.5), ValueError, "labels must be 0 or 1. Got 0.5"),
        (lambda v: change(v, (9, 1), np.nan), ValueError, "labels must be 0 or 1. Got nan"),
        (
            lambda v: v[:, :1].copy(),
            ValueError,
            r"labels must have the shape \(10, 2\). Got \(10, ",
        ),
        (lambda v: v[1:], ValueError, r"labels must have the shape \(10, 2\). Got \(9, 2\)"),
        (lambda v: v[:, 0].copy(), ValueError, "labels must have 2 dimensions. Got 1"),
        (lambda v: v.astype(int), TypeError, "labels must be an array of float32"),
        (np.asfortranarray, ValueError, "labels must be C-contiguous"),
    ],
)
def test_nonsense_among_several_labels_is_refused(spoil, error, words):
    arguments = make_sigmoid_arguments()
    arguments["labels"] = spoil(arguments["labels"])
    before = copy_arrays(arguments)
    with pytest.raises(error, match=words):
        kernel.trainer._compiled.train(**arguments)
    assert copy_arrays(arguments) == before


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("indices", lambda v: change(v, 2, 3), "X.indices must be at least 0 and below 3. Got 3"),
        ("indices", lambda v: change(v, 0, -1), "X.indices must be .* Got -1"),
        ("indices", lambda v: v[1:], "X.indices must be as long as X.data"),
        ("indptr", lambda v: change(v, 4, 31), "X.indptr must ascend .* Got 31 after 9"),
        ("indptr", lambda v: change(v, 0, -1), "X.indptr must ascend .* Got -1 after 0"),
        ("indptr", lambda v: v[::-1].copy(), "X.indptr must ascend"),
        ("indptr", lambda v: v[:0], "X.indptr must not be empty"),
        ("indptr", lambda v: v[:-1], "labels must have 9 items"),
    ],
)
def test_sparse_nonsense_is_refused(name, spoil, words):
    arguments = make_csr_arguments()
    arguments[name] = spoil(arguments[name])
    with pytest.raises(ValueError, match=words):
        kernel.trainer._compiled.train(**arguments)


JUNK = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(),
    st.floats(),
    st.binary(max_size=9),
    st.builds(
        lambda shape, dtype, value: np.full(shape, value).astype(dtype),
        st.sampled_from(
            [(), (0,), (1,), (3,), (10,), (26,), (2, 10), (10, 2), (10, 3), (0, 3), (1, 1, 1)]
        ),
        st.sampled_from("?bBhiqQefdFOUV"),
        st.sampled_from([-1, 0, 1, 2, 9, 10**4]),
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    junk=st.dictionaries(st.sampled_from(sorted(make_arguments())), JUNK, min_size=1, max_size=3)
)
@pytest.mark.parametrize(
    "make",
    [make_arguments, make_csr_arguments, make_sigmoid_arguments],
    ids=["dense", "sparse", "sigmoid"],
)
def test_drawn_nonsense_is_refused_or_makes_sense(make, junk):
    arguments = make() | junk
    before = copy_arrays(arguments)
    try:
        kernel.trainer._compiled.train(**arguments)
    except (ValueError, TypeError):
        assert copy_arrays(arguments) == before
    else:
        written = {"parameters", "memory0", "memory1"}
        after = copy_arrays(arguments)
        assert all(after[name] == before[name] for name in before if name not in written)


@pytest.mark.parametrize(
    ("function", "changed", "error", "words"),
    [
        (kernel.predict, {"form": "odds"}, ValueError, "form must be one of log_proba, proba"),
        (
            kernel.predict,
            {"out": np.empty((5, 3))},
            ValueError,
            r"out must have the shape \(5, 2\)",
        ),
        (
            kernel.predict,
            {"out": np.empty((5, 2), "f4")},
            TypeError,
            "out must be an array of float64",
        ),
        (kernel.predict, {"X": np.zeros((5, 4))}, ValueError, "X must have 3 features. Got 4"),
        (
            kernel.predict,
            {"X": scipy.sparse.csr_matrix((5, 4), dtype="f4")},
            ValueError,
            "3 features",
        ),
        (
            kernel.predict,
            {"parameters": np.zeros(3, "f4")},
            ValueError,
            "parameters must have 8 items",
        ),
        (kernel.compute_outputs, {"layer": 0}, ValueError, "layer must be 1 to 1. Got 0"),
        (kernel.compute_outputs, {"layer": 2}, ValueError, "layer must be 1 to 1. Got 2"),
        (kernel.compute_outputs, {"layer": -9}, ValueError, "layer must be 1 to 1. Got -9"),
        (
            kernel.compute_outputs,
            {"out": np.empty((5, 2))},
            TypeError,
            "out must be an array of float32",
        ),
    ],
)
def test_nonsense_is_refused_in_prediction(function, changed, error, words):
    arguments = {"X": np.zeros((5, 3), dtype=np.float32), "parameters": np.zeros(8, np.float32)}
    with pytest.raises(error, match=words):
        function(network=Network((3, 2)), **arguments | changed)


def test_weights_that_sum_to_0_cannot_be_evaluated():
    data = Data(np.ones((2, 3), "f4"), np.zeros(2, int), np.zeros(2, "f4"))
    with pytest.raises(ValueError, match="row_weights must not all be 0"):
        kernel.evaluate(Network((3, 2)), np.zeros(8, "f4"), data)


@pytest.mark.parametrize(
    ("how", "memory", "words"),
    [
        (Settings(momentum=0.9), {}, r"sgd must hold \['momentum_buffer'\]. Got \[\]"),
        (Settings(), {"exp_avg": None}, r"sgd must hold \[\]. Got \['exp_avg'\]"),
    ],
)
def test_a_state_of_another_optimizer_is_refused(how, memory, words):
    network = Network((3, 2))
    state = kernel.State(make_parameters(network), memory)
    with pytest.raises(ValueError, match=words):
        kernel.train(network, how, state, make_data(network, 3), make_orders(3, 1), np.ones(1))


def run_program(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@contextmanager
def clock(handler):
    """Send a signal every 10 ms."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs the timers of Unix")
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_signals_are_answered_in_the_middle_of_an_epoch(name):
    # An epoch takes many seconds: signals that come meanwhile would be answered after it, once.
    n_rows, n_answered = 1_000_000, 0
    network = Network((2, 512, 512, 2))
    state = make_state(network, Settings())
    data = Data(np.zeros((n_rows, 2), dtype=np.float32), np.zeros(n_rows, dtype=np.int64))
    orders = np.arange(n_rows)[None]

    def answer(*args):
        nonlocal n_answered
        n_answered += 1
        if n_answered == 3:
            raise KeyboardInterrupt

    calls = {
        "train": lambda: kernel.train(network, Settings(), state, data, orders, np.array([0.1])),
        "evaluate": lambda: kernel.evaluate(network, state.parameters, data),
    }
    with clock(answer), pytest.raises(KeyboardInterrupt):
        calls[name]()
    assert state.n_steps == 0
    assert not state.parameters.any()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_want_of_memory_is_an_error_that_changes_nothing():
    program = """
import resource
import numpy as np
from skdisk import _kernel as kernel
network, how = kernel.Network((1, 10**6, 2)), kernel.Settings(10**5)
state = kernel.State(np.zeros(network.count_parameters(), np.float32))
X, out = np.ones((1, 1), np.float32), np.zeros((1, 2))
data, orders = kernel.Data(X, np.zeros(1, int)), np.zeros((1, 10**5), int)
hidden = np.zeros((1, 10**6), np.float32)
deep = kernel.Network((1,) * (10**6 + 1))
deep_state = kernel.State(np.zeros(deep.count_parameters(), np.float32))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
for call in (
    lambda: kernel.train(network, how, state, data, orders, np.ones(1)),
    lambda: kernel.train(deep, how, deep_state, data, orders, np.ones(1)),
    lambda: kernel.evaluate(network, state.parameters, data),
    lambda: kernel.predict(network, state.parameters, X, out=out),
    lambda: kernel.compute_outputs(network, state.parameters, X, 1, out=hidden),
):
    try:
        call()
    except MemoryError:
        print(state.parameters.any(), state.n_steps, out.any(), hidden.any())
"""
    result = run_program(program)
    assert result.stdout == "False 0 False False\n" * 5, result.stderr


def test_an_environment_variable_chooses_the_instruction_set(monkeypatch):
    assert kernel.choose_instruction_set() == SETS[-1]
    assert kernel.explain_absence() is None
    for name in SETS:
        monkeypatch.setenv("SKDISK_INSTRUCTION_SET", name)
        assert kernel.choose_instruction_set() == name
    monkeypatch.setenv("SKDISK_INSTRUCTION_SET", "none")
    assert kernel.explain_absence() == "the environment variable SKDISK_INSTRUCTION_SET is 'none'"
    with pytest.raises(RuntimeError, match="There is no kernel: the environment variable SKDISK"):
        kernel.predict(Network((1, 2)), np.zeros(4, dtype=np.float32), np.zeros((1, 1)))
    monkeypatch.setenv("SKDISK_INSTRUCTION_SET", "mmx")
    with pytest.raises(ValueError, match=r"must be one of \['none', 'base'.* Got 'mmx'"):
        kernel.choose_instruction_set()


def test_where_the_kernel_was_not_compiled_every_function_says_so(monkeypatch):
    monkeypatch.setattr(kernel.trainer, "_compiled", None)
    network, X = Network((1, 2)), np.zeros((1, 1), dtype=np.float32)
    parameters, data = np.zeros(4, dtype=np.float32), Data(X, np.zeros(1, dtype=np.int64))
    state, rates = kernel.State(parameters), np.ones(1)
    assert kernel.get_instruction_sets() == []
    for call in (
        lambda: kernel.train(network, Settings(), state, data, make_orders(1, 1), rates),
        lambda: kernel.evaluate(network, parameters, data),
        lambda: kernel.predict(network, parameters, X),
        lambda: kernel.compute_outputs(network, parameters, X),
    ):
        with pytest.raises(RuntimeError, match=r"no kernel: skdisk was .* could not be compiled"):
            call()
