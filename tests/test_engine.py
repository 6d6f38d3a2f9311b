"""The fused trainer against torch's own autograd and optimisers, in float64."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import nll_loss

from skdisk import _engine, _steps
from skdisk._engine import FusedTrainer
from skdisk._module import ACTIVATIONS, MLP
from skdisk._noise import hash_rows, make_batch_seeds


def make_problem(seed, n_rows, n_features, n_classes):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n_rows, n_features, generator=generator)
    y = torch.randint(n_classes, (n_rows,), generator=generator)
    return X, y, generator


def make_trainer(modules, batch_size, **options):
    trainer = FusedTrainer(
        modules[0].layer_sizes,
        modules[0].activation,
        batch_size,
        n_networks=len(modules),
        **options,
    )
    for k, module in enumerate(modules):
        trainer.load(trainer.weights, list(module.parameters()), k)
    return trainer


def read(trainer, flat, modules):
    """Read one parameter list a network out of a flat buffer."""
    parameters = [[torch.empty_like(p) for p in module.parameters()] for module in modules]
    for k, tensors in enumerate(parameters):
        trainer.store(flat, tensors, k)
    return parameters


TORCH = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def train_by_autograd(
    module, X, y, orders, batch_size, weights=None, seeds=None, *, optimizer="sgd", **params
):
    """Train in float64, the way of torch's tutorials; return the losses of all batches."""
    module.double()
    max_norm = params.pop("max_norm", None)
    optimizer = TORCH[optimizer](module.parameters(), **params)
    losses = []
    for order, seed in zip(orders, seeds or [0] * len(orders), strict=True):
        batches = order.split(batch_size)
        for rows, batch_seed in zip(batches, make_batch_seeds(seed, len(batches)), strict=True):
            optimizer.zero_grad()
            module.dropout_seed = int(batch_seed)
            nll = nll_loss(forward_in_double(module, X[rows]), y[rows], reduction="none")
            w = torch.ones(len(rows)) if weights is None else weights[rows]
            loss = (w.double() * nll).mean()
            loss.backward()
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)
            optimizer.step()
            losses.append(loss.item())
    return losses


def forward_in_double(module, X):
    """Run a float64 module with the masks that its float32 rows have."""
    masks = module._draw_masks(X)
    module._draw_masks = lambda _: [mask if mask is None else mask.double() for mask in masks]
    try:
        return module(X.double())
    finally:
        del module._draw_masks


networks = st.fixed_dictionaries(
    {
        "hidden_layer_sizes": st.lists(st.integers(1, 9), max_size=3),
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "n_features": st.integers(1, 6),
        "n_classes": st.integers(1, 5),
    }
)
clipping = st.sampled_from([None, None, 0.1])
decays = st.sampled_from([0.0, 0.1])
sgd = st.one_of(
    st.fixed_dictionaries({"weight_decay": decays}),
    st.fixed_dictionaries(
        {
            "momentum": st.sampled_from([0.5, 0.9]),
            "nesterov": st.booleans(),
            "weight_decay": decays,
        }
    ),
)
adam = st.fixed_dictionaries(
    {
        "weight_decay": decays,
        "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.9)]),
        # Where a gradient is all rounding error, Adam makes a whole step of it: not with this eps.
        "eps": st.sampled_from([1e-2, 1e-3]),
    }
)


def lists(networks):
    return st.lists(networks, min_size=1, max_size=3)


optimizers = st.one_of(
    st.tuples(st.just("sgd"), lists(sgd)),
    st.tuples(st.sampled_from(["adam", "adamw"]), lists(adam)),
)
drawn = settings(max_examples=60, deadline=None, derandomize=True)


@drawn
@given(
    networks,
    optimizers,
    clipping,
    st.sampled_from([0.0, 0.3, 0.8]),
    st.integers(1, 40),
    st.integers(1, 50),
    st.booleans(),
    st.integers(0, 99),
)
def test_weights_and_losses_are_those_of_autograd(
    network, optimizers, max_norm, dropout, batch_size, n_rows, weighted, seed
):
    optimizer, networks = optimizers
    X, y, generator = make_problem(seed, n_rows, network["n_features"], network["n_classes"])
    weights = 0.1 + torch.rand(n_rows, generator=generator) if weighted else None
    modules = [MLP(**network, dropout=dropout, generator=generator) for _ in networks]
    networks = [{**own, "lr": 0.05 / (1 + k)} for k, own in enumerate(networks)]
    if max_norm is not None:
        networks[0]["max_norm"] = max_norm
    orders = [[torch.randperm(n_rows, generator=generator) for _ in range(3)] for _ in networks]
    seeds = [[100 * seed + 10 * k + epoch for epoch in range(3)] for k in range(len(networks))]
    trainer = make_trainer(modules, batch_size, optimizer=optimizer)
    trainer.set_hyperparameters(networks, dropout=modules[0].dropout)
    keys = hash_rows(X)
    losses = [
        trainer.run_epoch(
            X,
            y,
            epoch,
            None if weights is None else [weights[order] for order in epoch],
            row_keys=[keys[order] for order in epoch],
            seeds=epoch_seeds,
        )
        for epoch, epoch_seeds in zip(
            zip(*orders, strict=True), zip(*seeds, strict=True), strict=True
        )
    ]
    losses = torch.cat(losses)
    trained = read(trainer, trainer.weights, modules)
    for k, module in enumerate(modules):
        expected = train_by_autograd(
            module,
            X,
            y,
            orders[k],
            batch_size,
            weights,
            seeds[k],
            optimizer=optimizer,
            **networks[k],
        )
        np.testing.assert_allclose(losses[:, k], expected, rtol=1e-4, atol=1e-6)
        for ours, theirs in zip(trained[k], module.parameters(), strict=True):
            np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-4)


@drawn
@given(networks, st.integers(1, 50), st.integers(0, 99))
def test_gradients_are_those_of_autograd(network, n_rows, seed):
    X, y, generator = make_problem(seed, n_rows, network["n_features"], network["n_classes"])
    module = MLP(**network, generator=generator)
    trainer = make_trainer([module], n_rows)
    # After the first step with momentum, the velocity is the gradient.
    trainer.set_hyperparameters(lr=0.1, momentum=0.9)
    trainer.run_epoch(X, y, [torch.arange(n_rows)])
    [gradients] = read(trainer, trainer.state["momentum_buffer"], [module])
    module.double()
    nll_loss(module(X.double()), y).backward()
    for ours, p in zip(gradients, module.parameters(), strict=True):
        assert (ours - p.grad).norm() <= 1e-5 * p.grad.norm() + 1e-8


@pytest.mark.parametrize("n_classes", [1, 2, 3])
@pytest.mark.parametrize("n_networks", [1, 2])
def test_large_batches_of_few_classes(n_networks, n_classes):
    X, y, generator = make_problem(0, 4096, 3, n_classes)
    modules = [MLP(3, n_classes, (16, 16), "tanh", generator=generator) for _ in range(n_networks)]
    trainer = make_trainer(modules, 4096)
    assert modules[0].layer_sizes[1] * 4096 >= _steps.MANY_NUMBERS
    trainer.set_hyperparameters(lr=0.1)
    trainer.run_epoch(X, y, [torch.arange(4096)] * n_networks)
    trained = read(trainer, trainer.weights, modules)
    for module, parameters in zip(modules, trained, strict=True):
        train_by_autograd(module, X, y, [torch.arange(4096)], 4096, lr=0.1)
        for ours, theirs in zip(parameters, module.parameters(), strict=True):
            np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_wide_layers_and_small_batches(monkeypatch, activation):
    monkeypatch.setattr(_engine, "ONE_THREAD_OPERATIONS", 0)
    X, y, generator = make_problem(0, 40, 3, 2)
    module = MLP(3, 2, (64, 10, 80), activation, generator=generator)
    trainer = make_trainer([module], 8)
    assert module.layer_sizes[1] >= _steps.WIDE * 8
    trainer.set_hyperparameters(lr=0.1, momentum=0.9)
    trainer.run_epoch(X, y, [torch.arange(40)])
    [trained] = read(trainer, trainer.weights, [module])
    train_by_autograd(module, X, y, [torch.arange(40)], 8, lr=0.1, momentum=0.9)
    for ours, theirs in zip(trained, module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("n_networks", [2, 5])
def test_a_stack_gives_what_each_network_gives_alone(n_networks, momentum):
    X, y, generator = make_problem(0, 70, 3, 3)
    modules = [MLP(3, 3, (8, 5), "tanh", generator=generator) for _ in range(n_networks)]
    # Folds of different length: some networks run out of rows before the others.
    orders = [torch.randperm(70, generator=generator)[: 70 - 11 * k] for k in range(n_networks)]
    lrs = [0.1 * (1 + k) for k in range(n_networks)]
    stack = make_trainer(modules, 16)
    stack.set_hyperparameters([{"lr": lr} for lr in lrs], momentum=momentum, weight_decay=0.01)
    alone = [make_trainer([module], 16) for module in modules]
    for trainer, lr in zip(alone, lrs, strict=True):
        trainer.set_hyperparameters(lr=lr, momentum=momentum, weight_decay=0.01)
    for _ in range(3):
        losses = stack.run_epoch(X, y, orders)
        for k, (trainer, order) in enumerate(zip(alone, orders, strict=True)):
            expected = trainer.run_epoch(X, y, [order])[:, 0]
            np.testing.assert_allclose(losses[: len(expected), k], expected, rtol=1e-5)
            assert (losses[len(expected) :, k] == 0).all()
    ours = read(stack, stack.weights, modules)
    for parameters, trainer, module in zip(ours, alone, modules, strict=True):
        [theirs] = read(trainer, trainer.weights, [module])
        for a, b in zip(parameters, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_stack_of_different_widths_gives_what_each_network_gives_alone(activation, optimizer):
    X, y, generator = make_problem(0, 50, 3, 2)
    widths = [(8, 5), (3, 9), (1, 1)]
    modules = [MLP(3, 2, w, activation, dropout=0.2, generator=generator) for w in widths]
    options = {"optimizer": optimizer}
    stack = FusedTrainer((3, 8, 9, 2), activation, 16, n_networks=3, widths=widths, **options)
    alone = [make_trainer([module], 16, **options) for module in modules]
    keys = hash_rows(X)
    for k, module in enumerate(modules):
        stack.load(stack.weights, list(module.parameters()), k)
    for trainer in (stack, *alone):
        trainer.set_hyperparameters(
            lr=0.01, weight_decay=0.1, max_norm=0.5, dropout=(0.2, 0.2), eps=1e-4
        )
    for seed in range(3):
        order = torch.randperm(50, generator=generator)
        extra = {"row_keys": [keys[order]], "seeds": [seed]}
        stack.run_epoch(X, y, [order] * 3, **{name: 3 * value for name, value in extra.items()})
        for trainer in alone:
            trainer.run_epoch(X, y, [order], **extra)
    for k, (module, trainer) in enumerate(zip(modules, alone, strict=True)):
        ours, theirs = ([torch.empty_like(p) for p in module.parameters()] for _ in range(2))
        stack.store(stack.weights, ours, k)
        trainer.store(trainer.weights, theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("n_networks", [1, 2])
def test_a_batch_without_weight_changes_nothing(kind, n_networks):
    X, y, generator = make_problem(0, 12, 2, 2)
    modules = [MLP(2, 2, (4,), generator=generator) for _ in range(n_networks)]
    orders = [torch.arange(12)] * n_networks
    weights = torch.ones(12)
    weights[4:8] = 0.0
    without = torch.cat([torch.arange(4), torch.arange(8, 12)])
    results = []
    for order in (orders, [without] * n_networks):
        trainer = make_trainer(modules, 4)
        trainer.set_hyperparameters(lr=0.1, **kind)
        trainer.run_epoch(X, y, orders)
        losses = trainer.run_epoch(X, y, order, [weights[rows] for rows in order])
        results.append((trainer.weights, losses[losses[:, 0] != 0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_weights_of_one_epoch_do_not_linger_in_the_next():
    X, y, generator = make_problem(0, 40, 2, 2)
    module = MLP(2, 2, (4,), generator=generator)
    losses = []
    for weights in (torch.rand(40, generator=generator), None):
        trainer = make_trainer([module], 16)
        trainer.run_epoch(X, y, [torch.arange(40)], [weights])
        losses.append(trainer.run_epoch(X, y, [torch.arange(40)]))
    assert torch.equal(*losses)


def test_unit_weights_give_bitwise_the_unweighted_training():
    X, y, generator = make_problem(0, 50, 2, 2)
    module = MLP(2, 2, (4,), generator=generator)
    trained = []
    for weights in (None, torch.ones(50)):
        trainer = make_trainer([module], 16)
        trainer.set_hyperparameters(lr=0.1)
        trainer.run_epoch(X, y, [torch.arange(50)], [weights])
        trained.append(trainer.weights)
    assert torch.equal(*trained)


@pytest.mark.parametrize("n_rows", [1000, 1001])
def test_data_that_take_several_blocks(monkeypatch, n_rows):
    X, y, generator = make_problem(0, n_rows, 3, 2)
    module = MLP(3, 2, (4,), generator=generator)
    order = torch.randperm(n_rows, generator=generator)
    results = []
    for block_numbers in (2**20, 3000, 1):
        monkeypatch.setattr(_engine, "BLOCK_NUMBERS", block_numbers)
        trainer = make_trainer([module], 16)
        trainer.set_hyperparameters(lr=0.1)
        results.append((trainer.run_epoch(X, y, [order]), trainer.weights))
    for losses, weights in results[1:]:
        assert torch.equal(losses, results[0][0])
        assert torch.equal(weights, results[0][1])


def test_the_memory_of_a_trainer_does_not_wait_for_the_garbage_collector():
    X, y, generator = make_problem(0, 100, 3, 2)
    trainer = make_trainer([MLP(3, 2, (4,), generator=generator)], 16)
    trainer.run_epoch(X, y, [torch.arange(100)])
    block = weakref.ref(trainer.batches[16])
    gc.disable()
    try:
        del trainer
        assert block() is None
    finally:
        gc.enable()


def test_hyperparameters_may_change_between_epochs():
    X, y, generator = make_problem(0, 40, 2, 2)
    module = MLP(2, 2, (4,), generator=generator)
    order = torch.arange(40)
    trainer = make_trainer([module], 16)
    for lr, momentum in ((0.1, 0.0), (0.01, 0.0), (0.1, 0.9), (0.02, 0.9)):
        trainer.set_hyperparameters(lr=lr, momentum=momentum)
        trainer.run_epoch(X, y, [order])
    module.double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for lr, momentum in ((0.1, 0.0), (0.01, 0.0), (0.1, 0.9), (0.02, 0.9)):
        optimizer.param_groups[0].update(lr=lr, momentum=momentum)
        for rows in order.split(16):
            optimizer.zero_grad()
            nll_loss(module(X.double()[rows]), y[rows]).backward()
            optimizer.step()
    [trained] = read(trainer, trainer.weights, [module])
    for ours, theirs in zip(trained, module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)


def test_the_number_of_threads_is_one_for_small_steps_and_then_as_before(monkeypatch):
    X, y, generator = make_problem(0, 64, 2, 2)
    seen = []
    train = _steps.Block.train

    def spy(*args):
        seen.append(torch.get_num_threads())
        return train(*args)

    monkeypatch.setattr(_steps.Block, "train", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for units in (4, 4096):
            trainer = make_trainer([MLP(2, 2, (units, units), generator=generator)], 64)
            trainer.run_epoch(X, y, [torch.arange(64)])
            assert torch.get_num_threads() == 2
        assert seen == [1, 2]

        def run():
            trainer = make_trainer([MLP(2, 2, (4,), generator=generator)], 8)
            for _ in range(20):
                trainer.run_epoch(X, y, [torch.arange(64)])

        workers = [threading.Thread(target=run) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert torch.get_num_threads() == 2
        assert set(seen[2:]) == {1}
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("n_networks", [1, 3])
def test_cuda_graphs_give_the_weights_of_the_cpu(n_networks, momentum):
    X, y, generator = make_problem(0, 100, 3, 3)
    modules = [MLP(3, 3, (8, 5), generator=generator) for _ in range(n_networks)]
    results = []
    for device in ("cpu", "cuda"):
        trainer = make_trainer(modules, 16, device=device)
        orders = [torch.arange(100, device=device)] * n_networks
        for epoch in range(4):
            trainer.set_hyperparameters(lr=0.1 / (1 + epoch), momentum=momentum)
            losses = trainer.run_epoch(X.to(device), y.to(device), orders)
        results.append((losses.cpu(), trainer.weights.cpu()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
