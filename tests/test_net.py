"""`DiskNet`: the training itself, skorch's callbacks, Ctrl-C."""

import pickle
import signal
from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    ProgressBar,
)
from skorch.dataset import Dataset, ValidSplit
from torch import nn

from skdisk import make_disk
from skdisk._network.mlp import MLP
from skdisk._network.surroundings import ROWS_AT_ONCE
from skdisk._training.batches import TensorBatches
from skdisk._training.net import DiskNet
from skdisk._training.state import load_optimizer, note


@pytest.mark.parametrize(
    "params",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}],
    ids=str,
)
def test_weights_are_those_of_a_plain_autograd_loop(make_clf, get_weights, train_by_hand, params):
    X, y = make_disk(500, random_state=0)

    def compute_loss(scores, rows):
        return nn.functional.cross_entropy(scores, torch.tensor(y)[rows])

    module, losses = train_by_hand([2, 16, 8, 2], X, compute_loss, **params)
    clf = make_clf(hidden_layer_sizes=(16, 8), activation="tanh", lr=0.05, max_epochs=5, **params)
    clf.fit(X, y)
    for ours, theirs in zip(get_weights(clf), module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-4)
    np.testing.assert_allclose(clf.loss_curve_, losses, atol=1e-5)


@pytest.mark.parametrize("n_rows", [1, 31, 32, 33, 100])
def test_every_epoch_goes_once_through_all_rows(make_clf, n_rows):
    net = make_clf(max_epochs=1, batch_size=32).fit(*make_disk(n_rows, random_state=1)).net_
    X, y = torch.arange(n_rows)[:, None], torch.arange(n_rows)
    batches = net.get_iterator(net.get_dataset(X, y), training=True)
    epochs = [list(batches) for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == len(batches) == -(-n_rows // 32)
        assert all(len(y) == 32 for _, y in epoch[:-1])
        assert all(torch.equal(X[:, 0], y) for X, y in epoch)
        assert torch.cat([y for _, y in epoch]).sort().values.tolist() == list(range(n_rows))
    if n_rows > 2:
        first, second = (torch.cat([y for _, y in epoch]) for epoch in epochs)
        assert not torch.equal(first, second)


def test_rows_keep_their_order_without_shuffling(make_clf, disk):
    net = make_clf(shuffle=False).fit(*disk).net_
    batches = net.get_iterator(net.get_dataset(torch.arange(50), torch.arange(50)), training=True)
    assert torch.cat([y for _, y in batches]).tolist() == list(range(50))


def train_by_skorch(net, X, y):
    net.partial_fit(X.astype(np.float32), y.copy())


def train_by_hand_in_batches(net, X, y):
    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    for rows in torch.arange(len(X)).split(50):
        net.train_step((X[rows], y[rows]))


@pytest.mark.parametrize("train", [train_by_skorch, train_by_hand_in_batches])
def test_dropout_draws_from_the_generator_of_the_net(make_clf, get_weights, disk, train):
    before = torch.get_rng_state()
    first, second = (make_clf(dropout=0.5, max_epochs=1).fit(*disk) for _ in range(2))
    start = get_weights(first)
    for clf in (first, second):
        train(clf.net_, *disk)
    assert not any(map(np.array_equal, get_weights(first), start))
    assert all(map(np.array_equal, get_weights(first), get_weights(second)))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_without_targets_have_zeros_in_their_place():
    [(X, y)] = TensorBatches(Dataset(np.ones((5, 2), dtype=np.float32)), batch_size=10)
    assert X.shape == (5, 2)
    assert y.tolist() == [0] * 5


def test_prediction_in_chunks_is_that_of_the_module(make_clf, disk):
    clf = make_clf(hidden_layer_sizes=(8, 4)).fit(*disk)
    X, _ = make_disk(ROWS_AT_ONCE + 1, random_state=0)
    with torch.no_grad():
        expected = clf.module_(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(clf.predict_log_proba(X), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(clf.net_.predict_proba(X.astype("f4")), expected.exp(), rtol=1e-4)
    # A data set, as skorch's scoring callbacks pass it.
    dataset = clf.net_.get_dataset(X.astype("f4"), np.zeros(len(X), dtype=int))
    np.testing.assert_array_equal(clf.net_.predict(dataset), clf.predict(X))


@pytest.mark.parametrize(
    "params", [{"fused": False}, {"callbacks": [EpochTimer()]}], ids=["skorch", "callback"]
)
def test_history_has_a_row_for_every_batch_where_somebody_looks(make_clf, disk, params):
    history = make_clf(**params).fit(*disk).net_.history
    for epoch in history:
        assert epoch["train_batch_count"] == len(epoch["batches"]) == 7
        assert [batch["train_batch_size"] for batch in epoch["batches"]] == [32] * 6 + [8]
        mean = np.average([b["train_loss"] for b in epoch["batches"]], weights=[32] * 6 + [8])
        assert epoch["train_loss"] == pytest.approx(mean)


@pytest.mark.needs_kernel
def test_history_has_no_rows_for_batches_where_nobody_looks(make_clf, disk):
    for epoch in make_clf().fit(*disk).net_.history:
        assert (epoch["train_batch_count"], epoch["batches"]) == (7, [])


class WatchBatches(Callback):
    """A callback that wants to see every batch, so that skorch's own loop runs."""

    def on_batch_end(self, net, **kwargs):
        self.n_batches_ = getattr(self, "n_batches_", 0) + 1


def test_a_callback_that_watches_the_batches_changes_nothing(make_clf, get_weights, disk):
    watcher = WatchBatches()
    plain = make_clf(fused=False).fit(*disk)
    watched = make_clf(callbacks=[watcher]).fit(*disk)
    assert watcher.n_batches_ == 3 * 7
    assert all(map(np.array_equal, get_weights(plain), get_weights(watched)))
    for key in ("batches", "train_loss", "train_batch_count"):
        assert plain.net_.history[:, key] == watched.net_.history[:, key]


def test_learning_rate_scheduler_works(make_clf, disk):
    scheduler = LRScheduler("StepLR", step_size=2, gamma=0.1)
    clf = make_clf(callbacks=[scheduler], max_epochs=5).fit(*disk)
    assert clf.history_["event_lr"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_early_stopping_ends_the_training_without_an_interrupt(make_clf, disk):
    stopping = EarlyStopping("train_loss", patience=2, threshold=10, threshold_mode="abs")
    clf = make_clf(callbacks=[stopping], max_epochs=50).fit(*disk)
    assert clf.n_iter_ == 3


def test_checkpoint_writes_and_restores(make_clf, get_weights, disk, tmp_path):
    checkpoint = Checkpoint(monitor="train_loss_best", dirname=tmp_path, load_best=True)
    clf = make_clf(callbacks=[checkpoint]).fit(*disk)
    other = make_clf(random_state=1).fit(*disk)
    other.net_.load_params(checkpoint=checkpoint)
    assert all(map(np.array_equal, get_weights(clf), get_weights(other)))


@pytest.mark.parametrize("use_caching", [True, False])
def test_epoch_scoring_sees_labels_as_positions(make_clf, disk, use_caching):
    X, y = disk
    scoring = [
        ("accuracy", EpochScoring("accuracy", on_train=True, use_caching=use_caching, name="acc")),
        ("auc", EpochScoring("roc_auc", on_train=True, use_caching=use_caching, name="auc")),
    ]
    clf = make_clf(callbacks=scoring).fit(X, np.array(["no", "yes"])[y])
    assert clf.history_["acc"].between(0, 1).all()
    if not use_caching:
        assert clf.history_["acc"].iloc[-1] == clf.score(X, np.array(["no", "yes"])[y])


def test_progress_bar_batch_scoring_and_clipping_work(make_clf, disk, capsys):
    callbacks = [
        ProgressBar(detect_notebook=False),
        BatchScoring("accuracy", on_train=True, name="batch_accuracy"),
        GradientNormClipping(0.01),
    ]
    clf = make_clf(callbacks=callbacks).fit(*disk)
    assert clf.history_["batch_accuracy"].notna().all()
    assert "/7 [" in capsys.readouterr().err


def test_callback_classes_are_made_into_callbacks(make_clf, disk):
    clf = make_clf(callbacks=[WatchBatches]).fit(*disk)
    assert dict(clf.net_.callbacks_)["WatchBatches"].n_batches_ == 21


@pytest.fixture(autouse=True)
def listen_to_ctrl_c():
    """Let the interrupt signal raise KeyboardInterrupt, also where a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class PressCtrlC(Callback):
    """Send the interrupt signal, as the terminal does, at some point of the training."""

    def __init__(self, hook, epoch):
        self.hook = hook
        self.epoch = epoch

    def press(self, hook, net):
        if hook == self.hook and len(net.history) == self.epoch:
            signal.raise_signal(signal.SIGINT)

    def on_epoch_begin(self, net, **kwargs):
        self.press("on_epoch_begin", net)

    def on_batch_end(self, net, **kwargs):
        self.press("on_batch_end", net)

    def on_epoch_end(self, net, **kwargs):
        self.press("on_epoch_end", net)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
def test_ctrl_c_is_raised_and_keeps_the_last_whole_epoch(make_clf, get_weights, disk, hook):
    X, y = disk
    params = {"momentum": 0.9, "fused": False}
    clf = make_clf(max_epochs=10, callbacks=[PressCtrlC(hook, epoch=3)], **params)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    whole = make_clf(max_epochs=2, **params).fit(X, y)
    assert clf.n_iter_ == len(clf.history_) == len(clf.loss_curve_) == 2
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))
    # The order of the rows and the momentum are back at that epoch too.
    for interrupted in (clf, whole):
        interrupted.set_params(callbacks=None, warm_start=True, max_epochs=2).fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))


@pytest.mark.needs_kernel
def test_ctrl_c_in_a_fused_epoch_keeps_the_last_whole_epoch(
    make_clf, get_weights, disk, monkeypatch
):
    draw_orders, n_calls = TensorBatches.draw_orders, iter(range(10))

    def draw_and_press(batches, n_epochs=1):
        if next(n_calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return draw_orders(batches, n_epochs)

    monkeypatch.setattr(TensorBatches, "draw_orders", draw_and_press)
    clf = make_clf(max_epochs=10, momentum=0.9)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*disk)
    # The kernel trains the first epoch alone, then as many at once as take a moment.
    assert clf.fused_
    assert clf.n_iter_ == 1
    whole = make_clf(max_epochs=1, momentum=0.9).fit(*disk)
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))


def test_ctrl_c_in_the_first_epoch_leaves_the_estimator_as_it_was(make_clf, disk):
    clf = make_clf(callbacks=[PressCtrlC("on_batch_end", epoch=1)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*disk)
    assert not hasattr(clf, "net_")
    clf.set_params(callbacks=None).fit(*disk)
    before = vars(clf).copy()
    clf.callbacks = before["callbacks"] = [PressCtrlC("on_batch_end", epoch=1)]
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*disk)
    assert vars(clf) == before


def test_ctrl_c_in_partial_fit_leaves_the_estimator_as_it_was(make_clf, get_weights, disk):
    clf = make_clf().fit(*disk)
    before = get_weights(clf)
    clf.set_params(callbacks=[PressCtrlC("on_batch_end", epoch=4)])
    with pytest.raises(KeyboardInterrupt):
        clf.partial_fit(*disk)
    assert clf.n_iter_ == 3
    assert all(map(np.array_equal, get_weights(clf), before))


def test_a_net_can_be_cloned_and_trained_by_itself(disk):
    X, y = disk
    net = DiskNet(MLP, seed=0, module__n_features=2, module__n_classes=2, max_epochs=2, lr=0.1)
    net = clone(net).fit(X.astype("f4"), y.copy())
    assert net.predict_proba(X.astype("f4")).shape == (200, 2)


def test_a_net_can_validate_on_a_split(disk):
    X, y = disk
    net = DiskNet(
        MLP,
        seed=0,
        module__n_features=2,
        module__n_classes=2,
        max_epochs=2,
        train_split=ValidSplit(5),
    )
    net.fit(X.astype("f4"), y.copy())
    for epoch in net.history:
        assert sum(batch.get("train_batch_size", 0) for batch in epoch["batches"]) == 160
        assert sum(batch.get("valid_batch_size", 0) for batch in epoch["batches"]) == 40
        assert np.isfinite(epoch["valid_loss"])


class Stop(Callback):
    """End the training in the way that skorch has for callbacks."""

    def __init__(self, hook, epoch):
        self.hook = hook
        self.epoch = epoch

    def stop(self, hook, net):
        return hook == self.hook and len(net.history) == self.epoch

    def on_epoch_begin(self, net, **kwargs):
        if self.stop("on_epoch_begin", net):
            raise KeyboardInterrupt

    def on_batch_end(self, net, **kwargs):
        if self.stop("on_batch_end", net):
            raise KeyboardInterrupt

    def on_epoch_end(self, net, **kwargs):
        if self.stop("on_epoch_end", net):
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("hook", "n_epochs"), [("on_epoch_begin", 2), ("on_batch_end", 2), ("on_epoch_end", 3)]
)
def test_a_callback_that_stops_leaves_whole_epochs(make_clf, get_weights, disk, hook, n_epochs):
    clf = make_clf(callbacks=[Stop(hook, epoch=3)], max_epochs=10).fit(*disk)
    whole = make_clf(max_epochs=n_epochs, fused=False).fit(*disk)
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.history_) == n_epochs
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))


class StopInValidation(Callback):
    """Stop in the middle of the second epoch's validation."""

    def on_batch_end(self, net, training, **kwargs):
        if not training and len(net.history) == 2:
            raise KeyboardInterrupt


def test_a_callback_may_stop_in_a_validation(make_clf, get_weights, disk):
    X, y = disk
    params = {"X_val": X[:50], "y_val": y[:50]}
    clf = make_clf(callbacks=[StopInValidation()], max_epochs=10).fit(X, y, **params)
    whole = make_clf(max_epochs=1, fused=False).fit(X, y, **params)
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.validation_loss_curve_) == 1
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))


def test_a_callback_that_stops_at_once_is_an_error(make_clf, disk):
    clf = make_clf(callbacks=[Stop("on_epoch_begin", epoch=1)])
    with pytest.raises(RuntimeError, match="before its first epoch had ended"):
        clf.fit(*disk)
    assert not hasattr(clf, "net_")


@pytest.mark.parametrize("make_callback", [EarlyStopping, Checkpoint])
def test_ctrl_c_in_the_first_epoch_is_raised_whatever_callbacks_then_miss(
    make_clf, disk, tmp_path, monkeypatch, make_callback
):
    monkeypatch.chdir(tmp_path)
    callback = make_callback(monitor="train_loss", load_best=True)
    clf = make_clf(callbacks=[callback, PressCtrlC("on_batch_end", epoch=1)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*disk)
    assert not hasattr(clf, "net_")


def test_ctrl_c_before_the_first_epoch_is_raised(make_clf, disk, monkeypatch):
    def press(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TensorBatches, "__init__", press)
    for fused in ("auto", False):
        with pytest.raises(KeyboardInterrupt):
            make_clf(fused=fused).fit(*disk)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_callback_may_pickle_the_net_during_the_training(
    make_clf, disk, has_kernel, tmp_path, activation
):
    checkpoint = Checkpoint(monitor=None, f_pickle="net.pkl", dirname=tmp_path)
    clf = make_clf(callbacks=[checkpoint], activation=activation).fit(*disk)
    assert clf.fused_ == has_kernel
    net = pickle.loads((tmp_path / "net.pkl").read_bytes())
    X = disk[0].astype("f4")
    np.testing.assert_array_equal(net.predict_proba(X), clf.net_.predict_proba(X))
    assert (tmp_path / "net.pkl").stat().st_size < 50_000


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
def test_training_on_cuda_gives_the_weights_of_the_cpu(make_clf, disk):
    X, y = disk
    cpu, cuda = make_clf(momentum=0.9).fit(X, y), make_clf(momentum=0.9, device="cuda").fit(X, y)
    assert next(cuda.module_.parameters()).device.type == "cuda"
    np.testing.assert_allclose(cpu.predict_proba(X), cuda.predict_proba(X), atol=1e-4)
    loaded = pickle.loads(pickle.dumps(cuda))
    np.testing.assert_array_equal(loaded.predict_proba(X), cuda.predict_proba(X))


@needs_cuda
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_training_goes_on_on_another_device(make_clf, disk, optimizer):
    cpu, moving = (make_clf(optimizer=optimizer, lr="auto") for _ in range(2))
    for device in ("cpu", "cuda", "cpu"):
        cpu.partial_fit(*disk, [0, 1])
        moving.set_params(device=device).partial_fit(*disk, [0, 1])
        assert next(moving.module_.parameters()).device.type == device
    if optimizer == "lbfgs":
        # Its line search makes much of the last bits, and no loss larger.
        assert (np.diff(moving.loss_curve_) < 0).all()
    else:
        np.testing.assert_allclose(
            cpu.predict_proba(disk[0]), moving.predict_proba(disk[0]), atol=1e-4
        )


def list_devices(values):
    """List where the tensors are that an optimiser remembers of a parameter."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    return [value.device.type for value in chain(*lists) if torch.is_tensor(value)]


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [("adam", {}), ("adam", {"fused": True}), ("lbfgs", {})],
    ids=str,
)
def test_what_an_optimiser_remembers_follows_the_parameters(make_clf, disk, optimizer, settings):
    clf = make_clf(optimizer=optimizer, lr="auto", fused=False).partial_fit(*disk, [0, 1])
    parameters = [torch.empty_like(p, device="meta") for p in clf.module_.parameters()]
    own = clf.net_.optimizer_
    moved = type(own)(parameters, **settings)
    load_optimizer(moved, parameters, note(clf._state))
    for theirs, values in zip(own.state.values(), moved.state.values(), strict=True):
        # torch keeps the number of steps on the CPU, unless it is asked for otherwise.
        has_steps = "step" in theirs and not settings
        devices = list_devices(theirs)
        assert devices == ["cpu"] * len(devices)
        assert sorted(list_devices(values)) == ["cpu"] * has_steps + ["meta"] * (
            len(devices) - has_steps
        )


@pytest.mark.parametrize("hidden_layer_sizes", [(), (3,), (64, 64), (17, 5)], ids=str)
def test_few_rows_have_the_same_probabilities_in_any_company(make_clf, hidden_layer_sizes):
    X, y = make_disk(201, random_state=0)
    clf = make_clf(hidden_layer_sizes=hidden_layer_sizes).fit(X, y + np.arange(201) % 2)
    proba = clf.predict_proba(X)
    order = np.random.RandomState(0).permutation(201)
    np.testing.assert_array_equal(clf.predict_proba(X[order]), proba[order])
    for i in range(0, 201, 20):
        np.testing.assert_array_equal(clf.predict_proba(X[i : i + 3]), proba[i : i + 3])
