"""The choice between the fused trainer and skorch's loop, which the result does not show."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import (
    BatchScoring,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LRScheduler,
    ProgressBar,
)
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from skdisk import make_disk
from skdisk._kernel import trainer
from skdisk._network.mlp import MLP
from skdisk._training.net import DiskNet

SETTINGS = {
    "defaults": {},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "three hidden layers": {"hidden_layer_sizes": (9, 5, 3), "activation": "gelu"},
    "batches of 1": {"batch_size": 1, "lr": 0.001},
    "a large batch": {"batch_size": 150},
    "batches that divide": {"batch_size": 40},
    "in order": {"shuffle": False},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "weight decay": {"weight_decay": 0.1},
    "all of them": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adam with decay": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "betas and eps": {
        "optimizer": "adamw",
        "lr": 0.01,
        "optimizer_params": {"betas": (0.5, 0.9), "eps": 1e-4},
    },
    "clipping": {"clip_grad_norm": 0.05},
    "clipping adam": {"clip_grad_norm": 0.05, "optimizer": "adam", "lr": 0.01},
    "dropout": {"dropout": 0.3},
    "dropout by layer": {
        "hidden_layer_sizes": (9, 5, 3),
        "dropout": (0.5, 0.0, 0.2),
        "activation": "tanh",
        "optimizer": "adam",
        "lr": 0.01,
    },
    "cosine": {"lr_schedule": "cosine", "momentum": 0.9},
    "one cycle": {"lr_schedule": "one_cycle", "optimizer": "adam"},
    "class weights": {"class_weight": {0: 3.0}},
    "balanced": {"class_weight": "balanced", "momentum": 0.9},
    "a class without weight": {"class_weight": {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}, "batch_size": 3},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.01},
    "everything": {
        "dropout": 0.2,
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 0.1,
        "lr_schedule": "one_cycle",
        "clip_grad_norm": 0.5,
        "class_weight": "balanced",
        "early_stopping": True,
        "n_iter_no_change": 2,
    },
}


def assert_same_training(fused, plain, get_weights):
    assert fused.fused_
    assert fused.fused_reason_ is None
    assert not plain.fused_
    for ours, theirs in zip(get_weights(fused), get_weights(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    ours, theirs = fused.net_.history, plain.net_.history
    assert len(ours) == len(theirs)
    for epoch, expected in zip(ours, theirs, strict=True):
        assert set(epoch) == set(expected)
        assert epoch["train_batch_count"] == expected["train_batch_count"]
        # An epoch that nobody watches leaves no rows of batches.
        for row, expected_row in zip(epoch["batches"], expected["batches"], strict=False):
            assert list(row) == list(expected_row)
            assert {k: type(v) for k, v in row.items()} == {
                k: type(v) for k, v in expected_row.items()
            }
            assert row == pytest.approx(expected_row, abs=1e-4)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("params", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("n_classes", [1, 2, 4])
@pytest.mark.filterwarnings("ignore:max_epochs=5 ended")
def test_both_ways_give_the_same(make_clf, get_weights, disk, params, n_classes):
    X, _ = disk
    y = (np.arange(len(X)) * 7 % 5) % n_classes
    if isinstance(params.get("class_weight"), dict):
        weights = params["class_weight"]
        params = params | {"class_weight": {c: weights.get(c, 1.0) for c in range(n_classes)}}
    clfs = [
        make_clf(**{"max_epochs": 5, "fused": fused} | params).fit(X, y) for fused in (True, False)
    ]
    assert_same_training(*clfs, get_weights)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [7, 32, 149])
def test_both_ways_give_the_same_with_weights_of_rows(
    make_clf, get_weights, disk, optimizer, batch_size
):
    X, y = disk
    weights = np.random.RandomState(0).exponential(size=len(X))
    weights[10:60] = 0
    params = {"max_epochs": 5, "batch_size": batch_size, "shuffle": False, "optimizer": optimizer}
    clfs = [
        make_clf(lr=0.01, fused=fused, **params).fit(X, y, weights, X_val=X[::5], y_val=y[::5])
        for fused in (True, False)
    ]
    assert_same_training(*clfs, get_weights)


@pytest.mark.needs_kernel
@pytest.mark.parametrize(
    "make_callbacks",
    [
        lambda path: [LRScheduler("StepLR", step_size=2, gamma=0.1)],
        lambda path: [LRScheduler(OneCycleLR, max_lr=0.1, total_steps=20)],
        lambda path: [LRScheduler("ReduceLROnPlateau", monitor="train_loss", patience=1)],
        lambda path: [EarlyStopping("train_loss", patience=2, threshold=0.02, load_best=True)],
        lambda path: [Checkpoint(monitor="train_loss_best", dirname=path, load_best=True)],
        lambda path: [EpochScoring("accuracy", on_train=True, use_caching=False, name="acc")],
    ],
    ids=["StepLR", "OneCycleLR", "plateau", "early stopping", "checkpoint", "epoch scoring"],
)
def test_callbacks_at_epoch_ends_see_the_same(
    make_clf, get_weights, disk, tmp_path, make_callbacks
):
    params = {"max_epochs": 8, "momentum": 0.5}
    clfs = [
        make_clf(fused=fused, callbacks=make_callbacks(tmp_path / str(fused)), **params).fit(*disk)
        for fused in (True, False)
    ]
    assert_same_training(*clfs, get_weights)
    frames = [clf.history_.drop(columns="seconds") for clf in clfs]
    pd.testing.assert_frame_equal(*frames, atol=1e-4)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("params", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_the_two_ways_can_be_mixed_in_one_training(make_clf, get_weights, disk, params):
    mixed = make_clf(warm_start=True, max_epochs=2, **params)
    for fused in (True, False, True):
        mixed.set_params(fused=fused).fit(*disk)
    plain = make_clf(fused=False, max_epochs=6, **params).fit(*disk)
    assert_same_training(mixed, plain, get_weights)


def test_the_module_owns_its_memory_after_training(make_clf, disk):
    for p in make_clf(momentum=0.9).fit(*disk).module_.parameters():
        assert p.is_contiguous()
        assert p.untyped_storage().nbytes() == p.nbytes
        assert p.requires_grad
        assert not p.is_inference()


OBSTACLES = {
    "a progress bar": (lambda: ProgressBar(), "callback 'ProgressBar' looks at every batch"),
    "clipping": (lambda: GradientNormClipping(1), "callback 'GradientNormClipping' looks at"),
    "batch scoring": (lambda: BatchScoring("accuracy", on_train=True), "looks at every batch"),
    "cached scoring": (lambda: EpochScoring("accuracy", on_train=True), "looks at every batch"),
    "a schedule by batch": (
        lambda: LRScheduler("StepLR", step_size=9, step_every="batch"),
        "callback 'LRScheduler' looks at every batch or gradient",
    ),
    "frozen layers": (lambda: Freezer("layers.0.*"), "some parameters of the module are frozen"),
}


@pytest.mark.needs_kernel
@pytest.mark.parametrize(("make_callback", "match"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_stands_in_the_way_is_named(make_clf, disk, make_callback, match):
    clf = make_clf(callbacks=[make_callback()]).fit(*disk)
    assert not clf.fused_
    assert match in clf.fused_reason_
    clf = make_clf(callbacks=[make_callback()], fused=True)
    with pytest.raises(ValueError, match=f"fused=True is not possible: .*{match}"):
        clf.fit(*disk)
    assert not hasattr(clf, "net_")


def test_layers_that_a_callback_freezes_stay_as_they_are(make_clf, get_weights, disk):
    start = get_weights(make_clf(lr=1e-30, max_epochs=1).fit(*disk))
    clf = make_clf(callbacks=[Freezer("layers.0.*")]).fit(*disk)
    assert all(map(np.array_equal, get_weights(clf)[:2], start[:2]))
    assert not np.array_equal(get_weights(clf)[2], start[2])


def test_numpy_scalars_are_taken_like_python_ones(make_clf, get_weights, disk, fused):
    numpy_fused = make_clf(fused=np.bool_(fused), batch_size=np.int64(16)).fit(*disk)
    assert numpy_fused.fused_ is fused
    python_fused = make_clf(fused=fused, batch_size=16).fit(*disk)
    assert all(map(np.array_equal, get_weights(numpy_fused), get_weights(python_fused)))


def test_a_warm_start_with_a_schedule_takes_the_new_learning_rate(make_clf, disk):
    schedule = LRScheduler("LambdaLR", lr_lambda=lambda epoch: 1)
    clf = make_clf(callbacks=[schedule], warm_start=True).fit(*disk)
    clf.set_params(lr=0.01).fit(*disk)
    assert clf.history_["event_lr"].tolist() == [0.1] * 3 + [0.01] * 3


@pytest.mark.needs_kernel
def test_few_rows_in_one_batch_are_a_reason_that_says_what_to_change(make_clf, disk):
    clf = make_clf(batch_size=200).fit(*disk)
    assert re.search("at most 256 rows .* smaller batch_size", clf.fused_reason_)
    assert clf.set_params(batch_size=199).fit(*disk).fused_


@pytest.mark.needs_kernel
def test_a_class_of_the_name_of_torchs_is_told_from_it(make_clf, disk):
    own = type("SGD", (torch.optim.SGD,), {})
    reason = make_clf(optimizer=own).fit(*disk).fused_reason_
    assert reason == "the optimizer is SGD, not torch's own SGD, Adam or AdamW"


def test_fused_false_is_its_own_reason(make_clf, disk):
    assert make_clf(fused=False).fit(*disk).fused_reason_ == "fused=False"


def ask_for_none(monkeypatch):
    monkeypatch.setenv("SKDISK_INSTRUCTION_SET", "none")


def take_away_what_was_compiled(monkeypatch):
    monkeypatch.setattr(trainer, "_compiled", None)
    monkeypatch.delenv("SKDISK_INSTRUCTION_SET", raising=False)


@pytest.mark.parametrize(
    ("take_away", "words"),
    [
        pytest.param(
            ask_for_none,
            "the environment variable SKDISK_INSTRUCTION_SET is 'none'",
            marks=pytest.mark.needs_kernel,
        ),
        (take_away_what_was_compiled, "skdisk was installed where it could not be compiled"),
    ],
    ids=["asked for none", "not compiled"],
)
def test_without_the_kernel_skorch_trains_and_the_reason_is_told(
    make_clf, get_weights, disk, monkeypatch, take_away, words
):
    plain = make_clf(fused=False, early_stopping=True, n_iter_no_change=9).fit(*disk)
    take_away(monkeypatch)
    clf = make_clf(early_stopping=True, n_iter_no_change=9).fit(*disk)
    assert not clf.fused_
    assert clf.fused_reason_ == f"there is no compiled kernel: {words}"
    assert all(map(np.array_equal, get_weights(clf), get_weights(plain)))
    np.testing.assert_allclose(clf.predict_proba(disk[0]), plain.predict_proba(disk[0]), atol=1e-5)
    impossible = make_clf(fused=True)
    with pytest.raises(ValueError, match=f"fused=True is not possible: .* kernel: {words}. Cha"):
        impossible.fit(*disk)
    assert not hasattr(impossible, "net_")


class OtherModule(nn.Module):
    """Not an MLP."""

    def __init__(self, generator):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, X):
        return torch.log_softmax(self.linear(X), dim=-1)


@pytest.mark.parametrize(
    "params",
    [
        {"module": OtherModule},
        {"optimizer": torch.optim.RMSprop},
        {"optimizer__dampening": 0.1, "optimizer__momentum": 0.9},
        {"criterion": nn.CrossEntropyLoss},
        {"criterion__reduction": "sum"},
    ],
    ids=str,
)
def test_a_net_of_another_kind_trains_by_itself(params):
    X, y = make_disk(50, random_state=0)
    shape = {} if "module" in params else {"module__n_features": 2, "module__n_classes": 2}
    net = DiskNet(**{"module": MLP, "seed": 0, "max_epochs": 2, "lr": 0.1, **shape, **params})
    net.fit(X.astype("f4"), y)
    assert len(net.history) == 2
    assert net.predict_proba(X.astype("f4")).shape == (50, 2)
