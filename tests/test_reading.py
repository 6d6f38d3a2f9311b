"""What can be read of a fitted network: weights, layers, loss, what comes out of hidden layers."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdisk import MLPDiskClassifier
from skdisk._network.mlp import ACTIVATIONS
from skdisk._network.surroundings import ROWS_AT_ONCE

NAMES = ("coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_", "loss_")


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def compute_by_hand(clf, X, n_layers):
    """Compute, as a reader of the attributes would, what comes out of each layer."""
    function = ACTIVATIONS[clf.activation]()
    for weights, biases in zip(clf.coefs_[:n_layers], clf.intercepts_, strict=False):
        X = function(torch.tensor(X @ weights.astype(float) + biases)).numpy()
    return X


def test_scikit_learns_network_with_these_weights_predicts_the_same(iris):
    X, y = iris
    ours = MLPDiskClassifier((7, 5), activation="tanh", random_state=0).fit(X, y)
    theirs = MLPClassifier((7, 5), activation="tanh", solver="sgd").partial_fit(
        X, y, classes=[0, 1, 2]
    )
    assert [ours.n_layers_, ours.n_outputs_] == [theirs.n_layers_, theirs.n_outputs_] == [4, 3]
    assert ours.out_activation_ == theirs.out_activation_
    for name in ("coefs_", "intercepts_"):
        shapes = [[array.shape for array in getattr(clf, name)] for clf in (ours, theirs)]
        assert shapes[0] == shapes[1]
        setattr(theirs, name, getattr(ours, name))
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), atol=1e-6)


def test_two_classes_have_two_outputs(make_clf, disk):
    clf = make_clf().fit(*disk)
    assert (clf.n_layers_, clf.n_outputs_, clf.out_activation_) == (3, 2, "softmax")
    scores = np.maximum(disk[0] @ clf.coefs_[0] + clf.intercepts_[0], 0) @ clf.coefs_[1]
    scores += clf.intercepts_[1]
    proba = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(disk[0]), proba, atol=1e-6)


def test_several_labels_have_an_output_each(make_clf, disk):
    X, y = disk
    clf = make_clf().fit(X, np.c_[y, X[:, 0] > 0, X[:, 1] > 0].astype(int))
    assert (clf.n_layers_, clf.n_outputs_, clf.out_activation_) == (3, 3, "logistic")
    scores = clf.hidden_activations(X) @ clf.coefs_[1] + clf.intercepts_[1]
    np.testing.assert_allclose(clf.predict_proba(X), 1 / (1 + np.exp(-scores)), atol=1e-6)


def test_what_is_read_is_a_copy_and_the_same_with_a_net(make_clf, get_weights, disk):
    clf = make_clf(hidden_layer_sizes=(5, 4)).fit(*disk)
    before = clf.predict_proba(disk[0])
    read = {name: getattr(clf, name) for name in NAMES}
    weights = get_weights(clf)
    assert len(read["coefs_"]) == len(read["intercepts_"]) == 3
    for ours, theirs in zip(read["coefs_"], weights[::2], strict=True):
        np.testing.assert_array_equal(ours, theirs.T)
    for ours, theirs in zip(read["intercepts_"], weights[1::2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("coefs_", "intercepts_"):
        for again, array in zip(getattr(clf, name), read[name], strict=True):
            np.testing.assert_array_equal(again, array)
            array[:] = again[:] = np.nan
    np.testing.assert_array_equal(clf.predict_proba(disk[0]), before)


def test_the_loss_is_the_last_of_the_curve(make_clf, disk):
    clf = make_clf().fit(*disk)
    assert clf.loss_ == clf.loss_curve_[-1]
    assert clf.partial_fit(*disk).loss_ == clf.loss_curve_[3]


@pytest.mark.parametrize("name", NAMES)
def test_before_a_fit_there_is_nothing_to_read(make_clf, disk, name):
    clf = make_clf()
    assert not hasattr(clf, name)
    assert hasattr(clf.fit(*disk), name)
    assert not hasattr(clone(clf), name)


@pytest.mark.parametrize("instruction_set", ["", "none"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "logistic"])
def test_hidden_activations_are_those_of_the_weights(
    make_clf, disk, monkeypatch, activation, instruction_set
):
    X, y = disk
    clf = make_clf(hidden_layer_sizes=(6, 5, 4), activation=activation).fit(X, y)
    monkeypatch.setenv("SKDISK_INSTRUCTION_SET", instruction_set)
    for layer, n_units in enumerate((6, 5, 4)):
        expected = compute_by_hand(clf, X, layer + 1)
        for position in (layer, layer - 3, np.int64(layer)):
            activations = clf.hidden_activations(X, position)
            assert (activations.dtype, activations.shape) == (np.float32, (200, n_units))
            np.testing.assert_allclose(activations, expected, atol=1e-6)
    np.testing.assert_array_equal(clf.hidden_activations(X), clf.hidden_activations(X, 2))


def test_hidden_activations_take_what_fit_takes(make_clf, disk):
    X, y = disk
    clf = make_clf().fit(pd.DataFrame(X, columns=["a", "b"]), y)
    expected = clf.hidden_activations(pd.DataFrame(X, columns=["a", "b"]))
    with pytest.raises(ValueError, match="feature names should match"):
        clf.hidden_activations(pd.DataFrame(X, columns=["b", "a"]))
    clf = make_clf().fit(X, y)
    for convert in (list, torch.tensor, sparse.csr_array, sparse.csc_matrix):
        np.testing.assert_allclose(clf.hidden_activations(convert(X)), expected, atol=1e-6)
    many = np.resize(X, (ROWS_AT_ONCE + 3, 2))
    np.testing.assert_array_equal(clf.hidden_activations(many)[:200], clf.hidden_activations(X))
    with pytest.raises(ValueError, match="3 features, but MLPDiskClassifier is expecting 2"):
        clf.hidden_activations(np.c_[X, X[:, 0]])


@pytest.mark.parametrize(
    ("hidden_layer_sizes", "layer", "match"),
    [
        ((5, 4), 2, r"hidden layers, which have \(5, 4\) units: -2 to 1. Got 2"),
        ((5, 4), -3, "-2 to 1. Got -3"),
        ((5, 4), 1.0, "layer must be an int. Got 1.0"),
        ((5, 4), True, "layer must be an int. Got True"),
        ((5, 4), "last", "layer must be an int. Got 'last'"),
        ((5, 4), np.timedelta64(1, "D"), "layer must be a number. Got np.timedelta64"),
        ((), -1, r"this network has none: hidden_layer_sizes=\(\)"),
    ],
    ids=str,
)
def test_a_layer_that_is_not_there_is_refused(make_clf, disk, hidden_layer_sizes, layer, match):
    clf = make_clf(hidden_layer_sizes=hidden_layer_sizes).fit(*disk)
    with pytest.raises((ValueError, TypeError), match=match):
        clf.hidden_activations(disk[0], layer)


def test_hidden_activations_need_a_fit(make_clf, disk):
    with pytest.raises(NotFittedError):
        make_clf().hidden_activations(disk[0])


def test_hidden_activations_are_a_step_before_other_models(make_clf, disk):
    clf = make_clf(hidden_layer_sizes=16, max_epochs=100).fit(*disk)
    reader = FunctionTransformer(clf.hidden_activations)
    expected = clf.hidden_activations(disk[0])
    np.testing.assert_array_equal(make_pipeline(reader).fit_transform(*disk), expected)


def test_activations_beyond_float32_are_finite(make_clf, disk, monkeypatch):
    clf = make_clf(hidden_layer_sizes=(4, 3), activation="identity").fit(*disk)
    with torch.no_grad():
        for p in clf.module_.parameters():
            p.fill_(3e38)
        clf.module_.layers[2].weight[:, 0] = -3e38
    for instruction_set in ("", "none"):
        monkeypatch.setenv("SKDISK_INSTRUCTION_SET", instruction_set)
        for layer in (0, 1):
            assert np.isfinite(clf.hidden_activations(disk[0] + 9, layer)).all()


class Doubled(torch.nn.Module):
    """A network in the place of ours."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, X):
        return 2 * self.inner(X)


def replace_module(clf):
    clf.net_.module_ = Doubled(clf.module_)


def replace_layer(clf):
    clf.module_.layers[1] = torch.nn.Softplus()


def add_hook(clf):
    clf.module_.layers[0].register_forward_hook(lambda module, inputs, output: 2 * output)


@pytest.mark.parametrize("change", [replace_module, replace_layer, add_hook])
def test_a_changed_network_is_not_read_as_if_it_were_ours(make_clf, disk, change):
    clf = make_clf().fit(*disk)
    change(clf)
    with pytest.raises(ValueError, match=r"replaced, changed or given hooks:(.|\n)*forward hook"):
        clf.hidden_activations(disk[0])
    if change is add_hook:
        assert [array.shape for array in clf.coefs_] == [(2, 8), (8, 2)]
    else:
        for name in ("coefs_", "intercepts_"):
            assert not hasattr(clf, name)
            with pytest.raises(AttributeError, match="is not as fit makes it"):
                getattr(clf, name)


def test_another_plain_network_in_its_place_is_read(make_clf, disk):
    clf, other = (make_clf(hidden_layer_sizes=sizes).fit(*disk) for sizes in ((5,), (4, 3)))
    clf.net_.module_ = other.module_
    assert [array.shape for array in clf.coefs_] == [(2, 4), (4, 3), (3, 2)]
    expected = other.hidden_activations(disk[0])
    np.testing.assert_array_equal(clf.hidden_activations(disk[0]), expected)


def test_weights_that_somebody_has_set_are_read(make_clf, disk):
    clf = make_clf().fit(*disk)
    other = copy.deepcopy(clf)
    with torch.no_grad():
        clf.module_.layers[0].weight.mul_(2)
        clf.module_.layers[0].bias.mul_(2)
    np.testing.assert_array_equal(clf.coefs_[0], 2 * other.coefs_[0])
    np.testing.assert_allclose(
        clf.hidden_activations(disk[0]), 2 * other.hidden_activations(disk[0]), rtol=1e-6
    )
