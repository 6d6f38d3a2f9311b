"""Dropout, optimisers, schedules, clipping; divergence and data of very different scales."""

import copy
import inspect
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
)
from torch import nn
from torch.nn.functional import nll_loss
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from skdisk import MLPDiskClassifier, make_disk
from skdisk._inputs.choices import OPTIMIZERS, takes_surely
from skdisk._network.mlp import MLP
from skdisk._network.noise import draw_bits, draw_mask, draw_unit_bits, hash_rows


def draw_masks(p, n_steps, n_rows=40, n_units=50):
    """Draw the masks of some steps: an array of shape (n_steps, n_rows, n_units)."""
    keys = hash_rows(torch.randn(n_rows, 3, generator=torch.Generator().manual_seed(0)))
    [units] = draw_unit_bits([n_units])
    masks = [draw_mask(draw_bits(keys, step), units, p) for step in range(n_steps)]
    return (torch.stack(masks) > 0).numpy().astype(np.float32)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_masks_look_random_along_every_axis(p):
    masks = (draw_masks(p, 500) - (1 - p)) / np.sqrt(p * (1 - p))
    n = masks.size
    # In units of the standard error of independent draws.
    assert abs(masks.mean()) * np.sqrt(n) < 4
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        means = masks.mean(axis=others) * np.sqrt(n / masks.shape[axis])
        assert 0.7 < means.std() < 1.3
        flat = np.moveaxis(masks, axis, 0).reshape(masks.shape[axis], -1)
        correlations = flat @ flat.T / np.sqrt(flat.shape[1])
        correlations = correlations[np.triu_indices(len(flat), 1)]
        assert 0.9 < correlations.std() < 1.1
        assert abs(correlations).max() < 6


def test_hashes_of_rows_depend_on_values_and_columns_only():
    X = np.array([[1, 2, 0], [2, 1, 0], [1, 2, 0], [0, 0, 0], [-0.0, 0, 0]], np.float32)
    keys = hash_rows(X).tolist()
    assert keys[0] == keys[2]
    assert keys[3] == keys[4]
    assert len(set(keys)) == 3
    for container in (sparse.csr_array, sparse.csr_matrix):
        assert hash_rows(container(X)).tolist() == keys
    assert hash_rows(torch.tensor(X)).tolist() == keys
    many = np.random.RandomState(0).randint(0, 50, size=(9000, 3)).astype(np.float32)
    assert len(set(hash_rows(many).tolist())) == len(np.unique(many, axis=0))


def test_dropout_keeps_the_mean_and_ends_with_the_training():
    X = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    module = MLP(2, 2, (500,), "identity", dropout=0.4)
    module.eval()
    expected = module.layers[2](module.layers[1](module.layers[0](X)))
    assert torch.equal(module(X), torch.log_softmax(expected, dim=1))
    module.train()
    masks = [module._draw_masks(X)[0] for _ in range(20)]
    assert masks[0].unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    mean = torch.stack([module.layers[2](module.layers[0](X) * m) for m in masks]).mean(dim=0)
    assert (mean - expected).mean().abs() < 0.01


def test_dropout_by_layer(make_clf, disk, has_kernel):
    clf = make_clf(hidden_layer_sizes=(8, 4), dropout=[0.0, 0.5]).fit(*disk)
    assert clf.fused_ == has_kernel
    assert clf.module_.dropout == (0.0, 0.5)
    assert not clf.module_.training


def test_dropout_regularises(make_clf):
    rng = np.random.RandomState(0)
    X, y = rng.randn(100, 5), rng.randint(2, size=100)
    params = {"hidden_layer_sizes": 100, "optimizer": "adam", "lr": 0.01, "max_epochs": 100}
    plain, dropped = (make_clf(dropout=p, **params).fit(X, y).score(X, y) for p in (0.0, 0.8))
    assert plain > dropped + 0.1


@pytest.mark.parametrize(
    ("lr_schedule", "make_scheduler"),
    [
        ("cosine", lambda opt, n: CosineAnnealingLR(opt, T_max=n)),
        (
            "one_cycle",
            lambda opt, n: OneCycleLR(opt, max_lr=0.1, total_steps=n, cycle_momentum=False),
        ),
    ],
    ids=["cosine", "one_cycle"],
)
@pytest.mark.parametrize("n_epochs", [1, 2, 7])
def test_schedules_are_those_of_torch(
    make_clf, disk, fused, lr_schedule, make_scheduler, n_epochs
):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make_scheduler(optimizer, n_epochs)
    expected = []
    for _ in range(n_epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    clf = make_clf(lr=0.1, lr_schedule=lr_schedule, max_epochs=n_epochs, fused=fused).fit(*disk)
    assert clf.history_["lr"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("validated", [False, True])
def test_a_plateau_is_that_of_torch(make_clf, fused, validated):
    X, y = make_disk(300, flip_y=0.3, random_state=0)
    validation = {"X_val": X[200:], "y_val": y[200:]} if validated else {}
    params = {"lr": 0.5, "lr_schedule": "plateau", "tol": 1e-3, "max_epochs": 60}
    clf = make_clf(**params, warm_start=True, fused=fused).fit(X[:200], y[:200], **validation)
    losses = clf.validation_loss_curve_ if validated else clf.loss_curve_
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    options = {"factor": 0.5, "patience": 3, "threshold": 1e-3, "threshold_mode": "abs"}
    scheduler = ReduceLROnPlateau(optimizer, **options, eps=0)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)
    rates = clf.history_["lr"].tolist()
    assert rates == pytest.approx(expected)
    assert len(set(rates)) > 3
    assert clf.fused_ == fused
    # As other schedules do, it begins anew; and it is no part of partial_fit.
    assert clf.fit(X, y).history_["lr"][60] == 0.5
    assert clf.partial_fit(X, y).history_["lr"].iloc[-1] == 0.5


def test_a_plateau_leaves_a_pickle_of_plain_things(make_clf, disk):
    clf = make_clf(lr_schedule="plateau").fit(*disk)
    assert "_training" in clf.__getstate__()
    cloned = clone(clf).fit(*disk)
    assert cloned.history_["lr"].tolist() == clf.history_["lr"].tolist()


@pytest.mark.parametrize("lr_schedule", ["cosine", "one_cycle"])
def test_a_schedule_is_of_fit_and_begun_anew_by_a_warm_start(make_clf, disk, lr_schedule):
    params = {"lr_schedule": lr_schedule, "max_epochs": 4}
    lrs = make_clf(**params).fit(*disk).history_["lr"].tolist()
    assert len(set(lrs)) > 1
    clf = make_clf(**params, warm_start=True).fit(*disk).fit(*disk).partial_fit(*disk)
    assert clf.history_["lr"].tolist() == pytest.approx([*lrs, *lrs, 0.1])
    clf = make_clf(**params)
    for _ in range(3):
        clf.partial_fit(*disk, classes=[0, 1])
    assert clf.history_["lr"].tolist() == [0.1] * 3


def test_a_scheduler_of_skorch_goes_on_in_a_warm_start_but_not_in_partial_fit(make_clf, disk):
    clf = make_clf(lr_schedule=LRScheduler("StepLR", step_size=1, gamma=0.1), warm_start=True)
    clf.fit(*disk).fit(*disk).partial_fit(*disk)
    *lrs, last = clf.history_["lr"]
    assert lrs == sorted(set(lrs), reverse=True)
    assert last == 0.1


@pytest.mark.parametrize("convert", [lambda s: s, lambda s: ("schedule", s)])
@pytest.mark.parametrize("schedule", ["cosine", LRScheduler("StepLR", step_size=1, gamma=0.5)])
def test_a_scheduler_among_the_callbacks_takes_the_place_of_the_schedule(disk, schedule, convert):
    scheduler = convert(LRScheduler("StepLR", step_size=1, gamma=0.1))
    params = {"lr": 0.1, "lr_schedule": schedule, "max_epochs": 3}
    clf = MLPDiskClassifier((4,), **params, callbacks=[scheduler]).fit(*disk)
    assert clf.history_["lr"].tolist() == pytest.approx([0.1, 0.01, 0.001])


def test_momentum_that_a_scheduler_has_changed_ends_with_it(make_clf, disk):
    schedule = LRScheduler(OneCycleLR, max_lr=0.1, total_steps=9, max_momentum=0.7)
    clf = make_clf(momentum=0.9, lr_schedule=schedule, warm_start=True).fit(*disk)
    [group] = clf.net_.optimizer_.param_groups
    assert group["momentum"] < 0.9
    for train in (clf.partial_fit, clf.set_params(lr_schedule="constant").fit):
        [group] = train(*disk).net_.optimizer_.param_groups
        assert group["momentum"] == 0.9


def test_partial_fit_does_not_compute_a_schedule(make_clf, disk, monkeypatch):
    def refuse(self, n_steps, *args):
        raise AssertionError(f"{n_steps} learning rates of which one is used")

    monkeypatch.setattr(LRScheduler, "simulate", refuse)
    clf = make_clf(lr_schedule="cosine", max_epochs=30000)
    assert clf.partial_fit(*disk, classes=[0, 1]).n_iter_ == 1


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [
        ("sgd", 0.04),
        ("adam", 0.001),
        ("adamw", 0.001),
        (torch.optim.SGD, 0.04),
        (torch.optim.AdamW, 0.001),
        (torch.optim.RMSprop, 0.01),
        (torch.optim.NAdam, 0.002),
        (torch.optim.LBFGS, 1),
        ("rmsprop", 0.01),
        ("nadam", 0.002),
    ],
    ids=str,
)
def test_the_automatic_learning_rate_is_the_optimisers(make_clf, disk, optimizer, lr):
    clf = make_clf(optimizer=optimizer, lr="auto", max_epochs=1).fit(*disk)
    assert clf.history_["lr"].tolist() == [lr]


@pytest.mark.parametrize(
    ("optimizer", "n_rows", "weight_decay"),
    [
        ("sgd", 100, 0.01),
        ("sgd", 1000, 0.006),
        (torch.optim.SGD, 2000, 0.003),
        ("lbfgs", 1000, 0.006),
        ("adam", 100, 0),
        ("adamw", 100, 0),
        (torch.optim.RMSprop, 100, 0),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:max_epochs=1 ended before L-BFGS")
def test_the_automatic_weight_decay_is_of_fit_with_sgd_and_lbfgs(
    make_clf, optimizer, n_rows, weight_decay
):
    X, y = make_disk(n_rows, random_state=0)
    clf = make_clf(optimizer=optimizer, weight_decay="auto", lr=0.001, max_epochs=1)
    for early_stopping, n_rows_trained in ((False, n_rows), (True, 0.9 * n_rows)):
        clf.set_params(early_stopping=early_stopping, n_iter_no_change=1).fit(X, y)
        [group] = clf.net_.optimizer_.param_groups
        expected = min(0.01, weight_decay * n_rows / n_rows_trained)
        assert group["weight_decay"] == pytest.approx(expected, rel=0.01)
    [group] = clf.partial_fit(X, y).net_.optimizer_.param_groups
    assert group["weight_decay"] == 0


@pytest.mark.parametrize("name", ["adam", "adamw", "RMSprop", "Adagrad", "LBFGS"])
def test_momentum_is_of_sgd_alone(make_clf, get_weights, disk, name):
    optimizer = getattr(torch.optim, name, name)
    clfs = [
        make_clf(optimizer=optimizer, lr=0.01, momentum=momentum, nesterov=nesterov).fit(*disk)
        for momentum, nesterov in [(0.0, False), (0.9, False), (0.9, True)]
    ]
    for clf in clfs[1:]:
        assert all(map(np.array_equal, get_weights(clf), get_weights(clfs[0])))


def test_nesterov_is_ignored_without_momentum(make_clf, get_weights, disk):
    clfs = [make_clf(momentum=0.0, nesterov=nesterov).fit(*disk) for nesterov in (False, True)]
    assert all(map(np.array_equal, *map(get_weights, clfs)))


def test_optimisers_with_a_momentum_of_their_own_take_it_as_an_argument(make_clf, disk):
    params = {"momentum": 0.5, "alpha": 0.9}
    clf = make_clf(optimizer=torch.optim.RMSprop, optimizer_params=params, lr=0.001).fit(*disk)
    [group] = clf.net_.optimizer_.param_groups
    assert (group["momentum"], group["alpha"]) == (0.5, 0.9)


@pytest.mark.parametrize("params", [{}, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}])
def test_a_search_over_optimisers_needs_no_other_parameters(disk, params):
    search = GridSearchCV(
        MLPDiskClassifier((4,), max_epochs=2, random_state=0, **params),
        {"optimizer": ["sgd", "adam", "adamw", torch.optim.RMSprop]},
        cv=2,
        error_score="raise",
    )
    assert np.isfinite(search.fit(*disk).cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("fused", ["auto", False])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_scheduler_may_come_when_there_are_epochs_already(make_clf, disk, optimizer, fused):
    clf = make_clf(fused=fused, optimizer=optimizer, warm_start=True, max_epochs=2).fit(*disk)
    scheduler = LRScheduler("StepLR", step_size=1, gamma=0.1)
    clf.set_params(callbacks=[scheduler], max_epochs=3).fit(*disk)
    # It counts the epochs before, in which the rate was not its own.
    assert clf.history_["lr"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])


def test_a_scheduler_of_skorch_may_be_the_schedule(make_clf, get_weights, disk, has_kernel):
    scheduler = LRScheduler("StepLR", step_size=2, gamma=0.1)
    clf = make_clf(lr_schedule=scheduler, max_epochs=5).fit(*disk)
    assert clf.fused_ == has_kernel
    assert clf.history_["lr"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    expected = make_clf(callbacks=[scheduler], max_epochs=5).fit(*disk)
    assert all(map(np.array_equal, get_weights(clf), get_weights(expected)))


# The parameters of the classifier that are arguments of an optimiser.
OWN = ("lr", "weight_decay", "momentum", "nesterov")


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_what_an_optimiser_takes_surely_torch_takes(name):
    cls = OPTIMIZERS[name]
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.ones(2)
    names = inspect.signature(cls).parameters.keys() & OWN
    numbers, n_sure = [-1, 0, 1e-30, 0.5, 1, 1e30, 1e39, np.nan, None, "1"], 0
    for lr, decay, momentum in product(numbers, numbers, numbers):
        own = dict(zip(OWN, (lr, decay, momentum, True), strict=True))
        arguments = {name: own[name] for name in names}
        if takes_surely(cls, arguments):
            n_sure += 1
            cls([parameter], **arguments).step(lambda: torch.tensor(1.0))
    assert n_sure > 0
    assert not takes_surely(cls, {"lr": 0.1, "eps": 0.1})


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"lbfgs"}))
def test_names_of_optimisers_are_those_of_torch_in_lower_case(make_clf, get_weights, disk, name):
    cls = OPTIMIZERS[name]
    assert getattr(torch.optim, cls.__name__) is cls
    assert cls.__name__.lower() == name
    by_name, by_class = (make_clf(optimizer=each, lr="auto").fit(*disk) for each in (name, cls))
    assert type(by_name.net_.optimizer_) is cls
    assert all(map(np.array_equal, get_weights(by_name), get_weights(by_class)))
    assert not np.allclose(*(get_weights(c)[0] for c in (by_name, make_clf(lr=1e-30).fit(*disk))))


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "NAdam", "Rprop", "SGD", "AdamW"])
def test_any_optimiser_of_torch(make_clf, get_weights, disk, name):
    cls = getattr(torch.optim, name)
    params = {"optimizer": cls, "lr": 0.001, "batch_size": 200, "shuffle": False}
    clf = make_clf(**params, max_epochs=3).fit(*disk)
    assert type(clf.net_.optimizer_) is cls
    assert not clf.fused_
    X, y = (torch.tensor(a) for a in disk)
    module = make_clf(lr=1e-30, max_epochs=1).fit(*disk).module_.double()
    # AdamW's own default is not 0, and Rprop has no decay.
    decay = {} if name == "Rprop" else {"weight_decay": 0.0}
    optimizer = cls(module.parameters(), lr=0.001, **decay)
    for _ in range(3):
        optimizer.zero_grad()
        nll_loss(module(X), y).backward()
        optimizer.step()
    for ours, theirs in zip(get_weights(clf), module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)


def test_lbfgs_with_a_line_search(make_clf, disk):
    # Without the search its steps are too long for any promise about the loss.
    params = {"optimizer_params": {"line_search_fn": "strong_wolfe"}, "lr": "auto"}
    clf = make_clf(optimizer=torch.optim.LBFGS, batch_size=200, **params).fit(*disk)
    assert not clf.fused_
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


@pytest.mark.parametrize("alpha", [1e-4, 1.0])
def test_lbfgs_finds_a_minimum_as_low_as_that_of_scikit_learn(alpha):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    theirs = MLPClassifier((16,), solver="lbfgs", alpha=alpha, random_state=0).fit(X, y)
    clf = MLPDiskClassifier((16,), optimizer="lbfgs", weight_decay=alpha / 150, random_state=0)
    clf.fit(X, y)
    penalty = alpha / 300 * sum((weights**2).sum() for weights in clf.coefs_)
    # Ours is of the biases as well, which moves the minimum.
    assert clf.loss_ + penalty <= 1.15 * theirs.loss_ + 1e-4
    assert clf.loss_ == pytest.approx(log_loss(y, clf.predict_proba(X)), rel=0.01, abs=1e-6)
    assert clf.n_iter_ < 100


def test_lbfgs_without_a_penalty_separates_what_can_be_separated():
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    theirs = MLPClassifier((16,), solver="lbfgs", random_state=0).fit(X, y)
    clf = MLPDiskClassifier((16,), optimizer="lbfgs", weight_decay=0, random_state=0).fit(X, y)
    losses = [log_loss(y, each.predict_proba(X)) for each in (clf, theirs)]
    assert losses[0] <= losses[1] + 1e-5


def test_lbfgs_takes_all_rows_at_once_and_no_schedule(make_clf, get_weights, disk):
    X, y = disk
    params = {"optimizer": "lbfgs", "lr": "auto", "max_epochs": 100, "weight_decay": 0.01}
    # A minimum without corners, sought to the end.
    params |= {"activation": "tanh", "optimizer_params": {"tolerance_change": 1e-9}}
    clfs = [
        make_clf(**params, batch_size=batch_size, lr_schedule=lr_schedule).fit(X, y)
        for batch_size in (8, 500)
        for lr_schedule in ("constant", "cosine", "plateau")
    ]
    assert clfs[0].net_.history[0, "train_batch_count"] == 1
    assert set(clfs[0].history_["lr"]) == {1}
    for clf in clfs[1:]:
        assert all(map(np.array_equal, get_weights(clf), get_weights(clfs[0])))
    # It stopped where nothing was left to do: the gradient of loss and penalty is 0.
    module = clfs[0].module_.double()
    nll_loss(module(torch.tensor(X)), torch.tensor(y)).backward()
    for p in module.parameters():
        assert (p.grad + 0.01 * p).abs().max() < 1e-4
    before = clfs[1].loss_
    assert clfs[1].partial_fit(X, y).loss_ == pytest.approx(before, abs=1e-6)
    assert clfs[1].net_.history[-1, "train_batch_count"] == 1


def test_lbfgs_says_that_it_has_not_converged(make_clf, disk):
    params = {"optimizer": "lbfgs", "lr": "auto", "weight_decay": 0.01}
    match = "max_epochs=1 ended before L-BFGS had found a minimum"
    with pytest.warns(ConvergenceWarning, match=match):
        clf = make_clf(**params, max_epochs=1).fit(*disk)
    clf.set_params(max_epochs=200, warm_start=True).fit(*disk)
    whole = make_clf(**params, max_epochs=200).fit(*disk)
    assert clf.loss_ == pytest.approx(whole.loss_, abs=1e-3)


def test_lbfgs_goes_on_without_the_memory_of_other_rows(make_clf, get_weights):
    clf = make_clf(optimizer="lbfgs", lr="auto", weight_decay=0.001, warm_start=True)
    clf.set_params(max_epochs=200).fit(*make_disk(60, random_state=1))
    other = copy.deepcopy(clf)
    other.net_.optimizer_.state.clear()
    X, y = make_disk(60, random_state=2)
    for fitted in (clf, other):
        fitted.fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(other)))


def test_lbfgs_leaves_what_is_frozen_as_it_is(make_clf, get_weights, disk):
    class Freeze(Callback):
        def on_train_begin(self, net, **kwargs):
            net.module_.layers[0].requires_grad_(False)

    params = {"optimizer": "lbfgs", "lr": "auto", "weight_decay": 0.1, "max_epochs": 50}
    clf = make_clf(**params, callbacks=[Freeze()]).fit(*disk)
    before = get_weights(make_clf(lr=1e-30, max_epochs=1).fit(*disk))
    equal = [*map(np.array_equal, get_weights(clf), before)]
    assert equal == [True, True, False, False]


def test_lbfgs_keeps_the_best_epoch_with_early_stopping(make_clf):
    X, y = make_disk(300, flip_y=0.2, random_state=0)
    clf = make_clf(hidden_layer_sizes=64, optimizer="lbfgs", lr="auto", max_epochs=50)
    clf.set_params(early_stopping=True, n_iter_no_change=3).fit(X, y)
    assert clf.best_epoch_ == clf.n_iter_ - 3
    assert clf.best_loss_ == min(clf.validation_loss_curve_)


def test_entries_of_optimizer_params_are_parameters(make_clf, disk):
    given = {"eps": 1e-3}
    clf = make_clf(optimizer="adam", optimizer_params=given)
    assert clf.get_params()["optimizer_params__eps"] == 1e-3
    assert "optimizer_params__eps" not in clf.get_params(deep=False)
    assert clf.set_params(optimizer_params__betas=(0.5, 0.9), lr=0.02) is clf
    assert (clf.lr, clf.optimizer_params) == (0.02, {"eps": 1e-3, "betas": (0.5, 0.9)})
    assert given == {"eps": 1e-3}
    cloned = clone(clf)
    assert cloned.get_params() == clf.get_params()
    clf.set_params(optimizer_params={"eps": 0.1}, optimizer_params__amsgrad=True)
    assert clf.optimizer_params == {"eps": 0.1, "amsgrad": True}
    [group] = cloned.fit(*disk).net_.optimizer_.param_groups
    assert (group["betas"], group["eps"]) == ((0.5, 0.9), 1e-3)


def test_entries_are_set_in_a_dict_only(make_clf):
    clf = make_clf(optimizer_params=[("betas", (0.5, 0.9))])
    match = r"optimizer_params must be a dict or None for optimizer_params__eps .* Got \[\('betas'"
    with pytest.raises(TypeError, match=match):
        clf.set_params(lr=0.5, optimizer_params__eps=1.0)
    assert clf.lr == make_clf().lr


def test_a_search_reaches_entries_of_optimizer_params(make_clf, disk):
    pipeline = make_pipeline(StandardScaler(), make_clf(optimizer="adam", lr=0.02))
    name = "mlpdiskclassifier__optimizer_params__betas"
    search = GridSearchCV(pipeline, {name: [(0.5, 0.9), (0.9, 0.99)]}, cv=2).fit(*disk)
    best = search.best_params_[name]
    assert search.best_estimator_[-1].optimizer_params == {"betas": best}
    [group] = search.best_estimator_[-1].net_.optimizer_.param_groups
    assert group["betas"] == best


@pytest.mark.parametrize("name", ["optimizer_params__beta", "optimizer_params__lr"])
def test_an_entry_that_the_optimiser_does_not_have_is_refused_by_fit(make_clf, disk, name):
    with pytest.raises(ValueError, match=r"has no argument 'beta'|lr is a parameter of"):
        make_clf().set_params(**{name: 1}).fit(*disk)


def test_other_arguments_reach_the_optimiser(make_clf, disk):
    clf = make_clf(optimizer="adam", optimizer_params={"betas": (0.5, 0.9), "eps": 1e-3})
    [group] = clf.fit(*disk).net_.optimizer_.param_groups
    assert (group["betas"], group["eps"]) == ((0.5, 0.9), 1e-3)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("option", ["amsgrad", "decoupled_weight_decay"])
def test_an_option_that_the_kernel_does_not_know_is_named(make_clf, disk, option):
    clf = make_clf(optimizer="adam", optimizer_params={option: True}).fit(*disk)
    assert clf.fused_reason_ == (
        f"the optimizer has the option {option}, which the kernel does not know"
    )


class WithoutLR(torch.optim.SGD):
    """An optimiser that has to be told its learning rate."""

    def __init__(self, params, lr):
        super().__init__(params, lr)


BAD_OPTIONS = [
    (
        {"optimizer": "sdg"},
        "optimizer must be one of 'adadelta', .*'nadam', .*'sgd' or a class of .* Got 'sdg'",
    ),
    ({"optimizer": "sparseadam"}, "optimizer must be one of"),
    ({"optimizer": "lbfgs", "clip_grad_norm": 1.0}, "clip_grad_norm is not possible with"),
    pytest.param(
        {"optimizer": "lbfgs", "fused": True},
        "fused=True is not possible: the optimizer is Full",
        marks=pytest.mark.needs_kernel,
    ),
    ({"optimizer": "rmsprop", "optimizer_params": {"beta": 1}}, "RMSprop has no argument 'beta'"),
    ({"optimizer": dict}, "optimizer must be .* Got <class 'dict'>"),
    ({"optimizer": torch.optim.Optimizer}, "class of torch.optim that has an argument lr. Got"),
    ({"optimizer": torch.optim.SparseAdam}, "not suit SparseAdam, or that does not suit the net"),
    ({"optimizer": WithoutLR, "lr": "auto"}, "WithoutLR has no lr of its own: give lr a number"),
    ({"optimizer": "adam", "optimizer_params": {"differentiable": ...}}, "do not suit Adam"),
    ({"optimizer": 3}, "The 'optimizer' parameter .* Got 3"),
    ({"lr": "fast"}, "The 'lr' parameter .* Got 'fast'"),
    ({"max_epochs": "many"}, "The 'max_epochs' parameter .* Got 'many'"),
    ({"weight_decay": "much"}, "The 'weight_decay' parameter .* Got 'much'"),
    (
        {"optimizer": torch.optim.LBFGS, "weight_decay": 0.1},
        "no argument .weight_decay., which is 0.1",
    ),
    *(
        (
            {"optimizer": optimizer, "optimizer_params": {"history_size": size}},
            f"do not suit .*history_size must be an int from 1 to 1048576. Got {size}",
        )
        for optimizer in ("lbfgs", torch.optim.LBFGS)
        for size in (0, -1, 5.0, 10**9)
    ),
    # What torch looks at in a real step, or in the second one, only.
    *(
        (
            {"optimizer": optimizer, "optimizer_params": {name: "x"}},
            f"optimizer_params do not suit {cls}, or .*{match}",
        )
        for optimizer, cls, name, match in (
            ("lbfgs", "FullBatchLBFGS", "max_eval", "'<' not supported"),
            ("lbfgs", "FullBatchLBFGS", "tolerance_change", "must be a number, not 'x'"),
            ("lbfgs", "FullBatchLBFGS", "line_search_fn", "only 'strong_wolfe' is supported"),
            (torch.optim.LBFGS, "LBFGS", "line_search_fn", "only 'strong_wolfe' is supported"),
            ("asgd", "ASGD", "t0", "t0 must be a number, not 'x'"),
        )
    ),
    (
        {"nesterov": False, "momentum": 0.9, "optimizer_params": {"dampening": "x"}},
        "do not suit SGD, .*dampening must be a number, not 'x'",
    ),
    ({"optimizer": "lbfgs", "optimizer_params": {"max_eval": 0}}, "do not suit FullBatchLBFGS"),
    ({"optimizer_params": {"betas": (0, 0)}}, "SGD has no argument 'betas', .* It has: lr, mom"),
    ({"optimizer_params": {"lr": 0.1}}, "lr is a parameter of the classifier itself"),
    ({"optimizer_params": {"momentum": 0.1}}, "momentum is a parameter of the classifier itself"),
    ({"optimizer_params": [1]}, "The 'optimizer_params' parameter .* Got"),
    ({"lr_schedule": "linear"}, "The 'lr_schedule' parameter .* Got 'linear'"),
    ({"clip_grad_norm": 0}, "The 'clip_grad_norm' parameter .* Got 0"),
    ({"dropout": 1.0}, "The 'dropout' parameter .* Got 1.0"),
    ({"dropout": -0.1}, "The 'dropout' parameter .* Got -0.1"),
    ({"dropout": [0.1, 0.2]}, r"one for each of the 1 hidden layers. Got \[0.1, 0.2\]"),
    ({"dropout": [1.5]}, r"dropout must be a probability .* Got \[1.5\]"),
    ({"dropout": ["a"]}, r"dropout must be a probability .* Got \['a'\]"),
]


@pytest.mark.parametrize(("params", "match"), BAD_OPTIONS, ids=str)
def test_bad_options_are_refused(make_clf, disk, params, match):
    clf = make_clf(**params)
    before = vars(clf).copy()
    with pytest.raises((ValueError, TypeError), match=match):
        clf.fit(*disk)
    assert vars(clf) == before


def test_clipping_is_that_of_torch(make_clf, get_weights, disk, fused):
    X, y = (torch.tensor(a) for a in disk)
    start = make_clf(lr=1e-30, max_epochs=1).fit(*disk)
    module = start.module_.double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):
        for rows, labels in zip(X.split(32), y.split(32), strict=True):
            optimizer.zero_grad()
            nll_loss(module(rows), labels).backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), 0.02)
            assert norm > 0.02
            optimizer.step()
    clf = make_clf(lr=0.5, clip_grad_norm=0.02, shuffle=False, fused=fused).fit(*disk)
    for ours, theirs in zip(get_weights(clf), module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)
    skorch = make_clf(lr=0.5, callbacks=[GradientNormClipping(0.02)], shuffle=False).fit(*disk)
    for ours, theirs in zip(get_weights(clf), get_weights(skorch), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_partial_fit_and_warm_start_keep_the_state_of_adam(make_clf, get_weights, disk, optimizer):
    params = {"optimizer": optimizer, "dropout": 0.2, "lr": 0.01}
    whole = make_clf(max_epochs=4, **params).fit(*disk)
    clf = make_clf(**params)
    for fused in (True, False, True, True):
        clf.set_params(fused=fused).partial_fit(*disk, classes=[0, 1])
    for ours, theirs in zip(get_weights(clf), get_weights(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    warm = make_clf(max_epochs=2, warm_start=True, **params).fit(*disk).fit(*disk)
    assert all(map(np.array_equal, get_weights(warm), get_weights(whole)))


def test_a_warm_start_may_change_the_optimiser(make_clf, get_weights, disk):
    clf = make_clf(momentum=0.9, warm_start=True).fit(*disk)
    before = get_weights(clf)
    clf.set_params(optimizer="adam", momentum=0.0, lr=1e-9).fit(*disk)
    assert clf.n_iter_ == 6
    assert all(
        np.allclose(old, new, atol=1e-6) for old, new in zip(before, get_weights(clf), strict=True)
    )
    clf.set_params(optimizer="sgd", momentum=0.9).fit(*disk)
    assert clf.n_iter_ == 9


SWITCHES = {
    "amsgrad": ("adam", "amsgrad"),
    "amsgrad of adamw": ("adamw", "amsgrad"),
    "centered": (torch.optim.RMSprop, "centered"),
    "momentum of RMSprop": (torch.optim.RMSprop, "momentum"),
}


@pytest.mark.parametrize(("optimizer", "option"), SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("fused", ["auto", False])
def test_memory_begins_anew_where_an_option_asks_for_other_memory(
    make_clf, get_weights, disk, optimizer, option, fused
):
    params = {"optimizer": optimizer, "lr": 0.01, "fused": fused}
    value = 0.5 if option == "momentum" else True
    for before, after in ((0, value), (value, 0)):
        if option != "momentum":
            before, after = bool(before), bool(after)
        clf = make_clf(optimizer_params={option: before}, **params).fit(*disk)
        clf.set_params(optimizer_params={option: after}).partial_fit(*disk)
        # One that has nothing to remember yet: another optimiser has been there before.
        other = make_clf(optimizer_params={option: before}, **params).fit(*disk)
        other.net_.optimizer_.state.clear()
        other.set_params(optimizer_params={option: after}).partial_fit(*disk)
        for ours, theirs in zip(get_weights(clf), get_weights(other), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("optimizer", ["lbfgs", torch.optim.LBFGS])
@pytest.mark.parametrize("size", [2, 20])
def test_lbfgs_goes_on_with_a_shorter_or_longer_history(make_clf, disk, optimizer, size):
    params = {"optimizer": optimizer, "lr": 0.1, "optimizer_params": {"history_size": 5}}
    clf = make_clf(**params).fit(*disk).set_params(optimizer_params={"history_size": size})
    for _ in range(3):
        clf.partial_fit(*disk)
    [group] = clf.net_.optimizer_.param_groups
    memory = clf.net_.optimizer_.state[group["params"][0]]
    assert len(memory["old_dirs"]) <= len(memory["al"]) == group["history_size"] == size


@pytest.mark.parametrize("momentum", [0.5, 0.99])
@pytest.mark.parametrize("fused", ["auto", False])
def test_memory_is_kept_where_its_options_only_change(
    make_clf, get_weights, disk, fused, momentum
):
    params = {"momentum": 0.9, "fused": fused}
    clf, other = (make_clf(**params).fit(*disk) for _ in range(2))
    other.net_.optimizer_.state.clear()
    for each in (clf, other):
        each.set_params(momentum=momentum, weight_decay=0.01).partial_fit(*disk)
    assert not np.allclose(get_weights(clf)[0], get_weights(other)[0], atol=1e-4)


@pytest.mark.filterwarnings("ignore:The features are large")
@pytest.mark.parametrize(
    ("optimizer", "weight_decay"), [(torch.optim.LBFGS, 0.0), ("lbfgs", 0.0), ("lbfgs", 0.1)]
)
def test_lbfgs_ends_where_it_finds_no_finite_loss(make_clf, disk, optimizer, weight_decay):
    # Its steps go on until they find a minimum, or have been tried so often: here, for ever.
    clf = make_clf(
        optimizer=optimizer,
        optimizer_params={"max_iter": 2**62},
        weight_decay=weight_decay,
        max_epochs=2,
    )
    X, y = disk
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 1"):
        clf.fit(3e38 * X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The features are large")
@pytest.mark.parametrize("trials", [{}, {"max_iter": 2000, "max_eval": 5000}])
@pytest.mark.parametrize("optimizer", ["lbfgs", torch.optim.LBFGS])
@pytest.mark.parametrize(
    ("scale", "lr", "factor"),
    [
        # The loss of the first trial is NaN.
        (1e30, 1e30, 1),
        (1e30, 3e38, 1),
        # The products of gradients are infinite, and the direction of the second iteration is NaN.
        (1, 1e13, 1e29),
        (1, 3e38, 1e29),
        # Squares of slopes are infinite, and the second trial is NaN.
        (1, 1e-8, 1e10),
        (1e8, 1e-8, 1e22),
        (1e12, 1e-12, 1e22),
        (1e20, 1e-8, 1e10),
    ],
)
def test_a_line_search_ends_where_numbers_overflow(make_clf, scale, lr, factor, optimizer, trials):
    X, y = make_disk(20, random_state=0)
    clf = make_clf(hidden_layer_sizes=(3,), optimizer=optimizer, lr=lr)
    clf.set_params(optimizer_params={"line_search_fn": "strong_wolfe"} | trials)
    clf.partial_fit(X, y, classes=[0, 1])
    with torch.no_grad():
        for p in clf.module_.parameters():
            p.mul_(factor)
    clf.partial_fit(scale * X, y)
    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize("n_finite", [0, 2])
def test_divergence_ends_the_fit_at_the_last_finite_epoch(
    make_clf, get_weights, disk, fused, n_finite
):
    class Explode(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) > n_finite:
                net.optimizer_.param_groups[0]["lr"] = 1e38

    clf = make_clf(fused=fused, max_epochs=10, momentum=0.9, callbacks=[Explode()])
    match = rf"diverged in epoch {n_finite + 1}: the .* with lr=.*clip_grad_norm.*StandardScaler"
    with pytest.warns(ConvergenceWarning, match=match):
        clf.fit(*disk)
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.history_) == n_finite
    assert np.isfinite(clf.predict_proba(disk[0])).all()
    if n_finite:
        whole = make_clf(fused=fused, max_epochs=n_finite, momentum=0.9).fit(*disk)
        assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))
    else:
        assert clf.best_loss_ is clf.best_epoch_ is None


def test_weights_that_overflow_in_the_last_step_of_an_epoch_are_divergence(make_clf, fused):
    X, y = make_disk(300, random_state=0)
    clf = make_clf(lr=3e38, weight_decay=3e38, batch_size=300, fused=fused, max_epochs=1)
    with pytest.warns(ConvergenceWarning, match="in epoch 1: the weights are not finite"):
        clf.fit(X, y)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_divergence_with_early_stopping_keeps_the_best_epoch(make_clf, get_weights, disk):
    class Explode(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) > 3:
                net.optimizer_.param_groups[0]["lr"] = 1e38

    clf = make_clf(early_stopping=True, max_epochs=10, callbacks=[Explode()])
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 4"):
        clf.fit(*disk)
    assert clf.best_epoch_ == 1 + np.argmin(clf.validation_loss_curve_)


def test_a_candidate_that_diverges_scores_low_in_a_search(make_clf, disk):
    search = GridSearchCV(
        make_clf(max_epochs=30, momentum=0.9), {"lr": [0.1, 1e30]}, cv=2, error_score="raise"
    )
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 1: .* lr=1e.30"):
        search.fit(*disk)
    assert search.best_params_ == {"lr": 0.1}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array, sparse.csc_matrix])
def test_features_of_very_different_scales_get_a_warning(make_clf, disk, convert):
    X = np.c_[disk[0], 1e4 * disk[0][:, 0]]
    match = r"standard deviations range from 0\.\d+ to 5.*StandardScaler\(\), MLPDiskClassifier"
    with pytest.warns(UserWarning, match=match) as caught:
        make_clf(lr=1e-12, max_epochs=20).fit(convert(X), disk[1])
    assert len([w for w in caught if "different scales" in str(w.message)]) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=match):
        clf = make_clf(lr=1e-12).partial_fit(convert(X), disk[1], classes=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.partial_fit(convert(X), disk[1])
        make_pipeline(StandardScaler(), make_clf()).fit(X, disk[1])
        make_clf(lr=1e-12).fit(np.c_[disk[0], np.full(200, 9.0)], disk[1])


def test_the_validation_metric_may_be_another_one(make_clf):
    X, y = make_disk(300, flip_y=0.2, random_state=0)
    callbacks = [
        EpochScoring("roc_auc", lower_is_better=False, name="valid_auc"),
        EarlyStopping("valid_auc", lower_is_better=False, patience=5, load_best=True),
    ]
    clf = make_clf(hidden_layer_sizes=64, optimizer="adam", lr=0.02, max_epochs=200)
    clf.set_params(callbacks=callbacks).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    assert clf.n_iter_ < 200
    assert clf.history_["valid_auc"].between(0.5, 1).all()


class Autocast(Callback):
    """Train in reduced precision."""

    def on_train_begin(self, net, **kwargs):
        self.context_ = torch.autocast("cpu", torch.bfloat16)
        self.context_.__enter__()

    def on_train_end(self, net, **kwargs):
        self.context_.__exit__(None, None, None)

    def on_epoch_end(self, net, **kwargs):
        self.dtype_ = net.module_.layers[0](torch.zeros(1, 2)).dtype


def test_reduced_precision_by_a_callback(make_clf, get_weights, disk):
    callback = Autocast()
    clf = make_clf(callbacks=[callback], max_epochs=20).fit(*disk)
    assert callback.dtype_ == torch.bfloat16
    assert not clf.fused_
    assert {w.dtype for w in get_weights(clf)} == {np.dtype("float32")}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("early_stopping", [False, True])
def test_in_reduced_precision_each_step_has_the_weights_of_the_one_before(
    make_clf, disk, early_stopping
):
    params = {"max_epochs": 20, "momentum": 0.9, "lr": 0.1, "early_stopping": early_stopping}
    params |= {"n_iter_no_change": 20}
    in_full = make_clf(**params).fit(*disk)
    assert in_full.loss_ < 0.8 * in_full.loss_curve_[0]
    with torch.autocast("cpu", torch.bfloat16):
        around = make_clf(**params).fit(*disk)
    by_callback = make_clf(**params, callbacks=[Autocast()]).fit(*disk)
    for clf in (around, by_callback):
        assert not clf.fused_
        np.testing.assert_allclose(clf.loss_curve_, in_full.loss_curve_, atol=0.05)
        if early_stopping:
            expected = in_full.validation_loss_curve_
            np.testing.assert_allclose(clf.validation_loss_curve_, expected, atol=0.05)


def test_every_parameter_of_the_signature_is_described_and_checked(make_clf):
    clf = make_clf()
    names = list(inspect.signature(type(clf)).parameters)
    assert set(names) == set(type(clf)._parameter_constraints)
    for name in names:
        assert f"\n{name} : " in inspect.getdoc(type(clf))
