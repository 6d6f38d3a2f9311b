"""`MLP`: layers, initialisation, activations, output."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skdisk._network.mlp import ACTIVATIONS, MLP, get_parameters, has_hooks

ORACLES = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "identity": lambda z: z,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


@pytest.mark.parametrize(
    ("hidden_layer_sizes", "shapes"),
    [
        ((64, 64), [(64, 5), (64, 64), (3, 64)]),
        ([7], [(7, 5), (3, 7)]),
        (7, [(7, 5), (3, 7)]),
        (np.int64(7), [(7, 5), (3, 7)]),
        (np.array([4, 2]), [(4, 5), (2, 4), (3, 2)]),
        ((), [(3, 5)]),
        ((2, 3, 4, 5), [(2, 5), (3, 2), (4, 3), (5, 4), (3, 5)]),
    ],
    ids=str,
)
def test_layers_have_the_sizes_asked_for(hidden_layer_sizes, shapes):
    module = MLP(5, 3, hidden_layer_sizes)
    assert [p.shape for p in module.parameters() if p.ndim == 2] == shapes
    assert [p.shape for p in module.parameters() if p.ndim == 1] == [s[:1] for s in shapes]


def test_every_activation_has_an_oracle():
    assert set(ORACLES) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ORACLES)
def test_output_is_the_log_softmax_of_the_layers(activation):
    module = MLP(5, 3, (4, 6), activation)
    X = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    weights = list(module.parameters())
    hidden = X
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        hidden = ORACLES[activation](functional.linear(hidden, weight, bias))
    expected = functional.log_softmax(functional.linear(hidden, *weights[-2:]), dim=1)
    output = module(X)
    assert output.shape == (10, 3)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(10))


def test_with_sigmoids_the_output_is_the_scores():
    module, other = (
        MLP(5, 3, (4, 6), output=output, generator=torch.Generator().manual_seed(0))
        for output in ("sigmoid", "softmax")
    )
    X = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(functional.log_softmax(module(X), dim=1), other(X))
    assert not torch.allclose(module(X), other(X))
    assert len(get_parameters(module)) == 6
    module.layers[-1] = nn.LogSoftmax(dim=-1)
    assert get_parameters(module) is None


def test_initial_weights_are_those_of_nn_linear():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        linears = [nn.Linear(5, 4), nn.Linear(4, 3)]
    module = MLP(5, 3, (4,), generator=torch.Generator().manual_seed(3))
    expected = [p for linear in linears for p in linear.parameters()]
    assert all(map(torch.equal, module.parameters(), expected))


def test_a_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    MLP(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sizes", [0, (64, 0), (3, -1), (2.5,), ("a",), (2, (3,)), 1.5], ids=str)
def test_sizes_other_than_positive_ints_are_refused(sizes):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be .* Got "):
        MLP(5, 3, sizes)


def share_a_layer(module):
    module.layers[2].weight = module.layers[0].weight


def take_away_biases(module):
    module.layers[0].bias = None


def replace_an_activation(module):
    module.layers[1] = nn.Tanh()


def add_a_layer(module):
    module.layers.append(nn.Softmax(dim=-1))


def replace_the_container(module):
    module.layers = nn.ModuleList(module.layers)


def turn_a_weight(module):
    module.layers[0].weight = nn.Parameter(module.layers[0].weight.detach().T.contiguous().T)


def normalise_a_weight(module):
    nn.utils.parametrizations.weight_norm(module.layers[0])


def test_a_plain_network_is_known_by_its_parameters():
    module = MLP(4, 3, (4,))
    assert all(a is b for a, b in zip(get_parameters(module), module.parameters(), strict=True))
    assert not has_hooks(module)
    assert get_parameters(nn.Sequential(*module.layers)) is None


@pytest.mark.parametrize(
    "change",
    [
        share_a_layer,
        take_away_biases,
        replace_an_activation,
        add_a_layer,
        replace_the_container,
        turn_a_weight,
        normalise_a_weight,
        MLP.double,
    ],
    ids=lambda change: change.__name__,
)
def test_a_network_that_was_changed_is_not_plain(change):
    module = MLP(4, 3, (4,))
    change(module)
    assert get_parameters(module) is None


@pytest.mark.parametrize("part", [(), ("layers",), ("layers", "2")], ids=str)
@pytest.mark.parametrize(
    "hook", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]
)
def test_hooks_of_every_part_are_seen(part, hook):
    module = MLP(4, 3, (4,))
    getattr(module.get_submodule(".".join(part)), f"register_{hook}")(lambda *args: None)
    assert has_hooks(module)
