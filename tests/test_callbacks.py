"""What skorch's callbacks may do, and what skorch's tools may do with the net."""

import threading
import warnings

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochTimer, Freezer
from skorch.helper import SkorchDoctor
from torch import nn

SETTINGS = {"hidden_layer_sizes": (16,), "max_epochs": 3}


class OnTrainBegin(Callback):
    """A callback that does something to the net when the training begins."""

    def __init__(self, function):
        self.function = function

    def on_train_begin(self, net, **kwargs):
        self.function(net)


def weigh_classes(net):
    net.set_params(criterion__weight=torch.tensor([1.0, 9.0]))


def change_momentum(net):
    net.set_params(optimizer__momentum=0.5)


CHANGES = {
    "weights of classes": (weigh_classes, "the criterion has weights"),
    "gradient hook": (
        lambda net: net.module_.layers[0].weight.register_hook(lambda grad: 0 * grad),
        "the module has hooks",
    ),
    "forward hook": (
        lambda net: net.module_.layers[0].register_forward_hook(lambda m, X, Z: 0 * Z),
        "the module has hooks",
    ),
    "optimiser hook": (
        lambda net: net.optimizer_.register_step_post_hook(
            lambda optimizer, *_: [p.data.mul_(0.9) for p in optimizer.param_groups[0]["params"]]
        ),
        "the optimizer has hooks",
    ),
    "another layer": (
        lambda net: net.module_.layers.__setitem__(1, nn.Tanh()),
        "the module is not the plain MLP",
    ),
    "momentum": (change_momentum, None),
}


@pytest.mark.needs_kernel
@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_what_a_callback_changes_is_honoured(make_clf, get_weights, disk, change, reason):
    plain = make_clf(**SETTINGS).fit(*disk)
    clfs = [
        make_clf(fused=fused, callbacks=[OnTrainBegin(change)], **SETTINGS).fit(*disk)
        for fused in ("auto", False)
    ]
    assert (clfs[0].fused_reason_ or "").startswith(reason or "")
    assert clfs[0].fused_ == (reason is None)
    for ours, theirs in zip(*map(get_weights, clfs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    pairs = zip(get_weights(clfs[0]), get_weights(plain), strict=True)
    assert not all(np.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


class Count(Callback):
    """A callback that counts how often it is initialised, and a training begins."""

    n_initialised = n_begun = 0

    def initialize(self):
        self.n_initialised += 1
        return self

    def on_train_begin(self, net, **kwargs):
        self.n_begun += 1


def go_on_by_partial_fit(clf, X, y):
    return clf.partial_fit(X, y, classes=[0, 1]).partial_fit(X, y).partial_fit(X, y)


def go_on_by_warm_start(clf, X, y):
    return clf.set_params(warm_start=True).fit(X, y).fit(X, y).fit(X, y)


@pytest.mark.parametrize("go_on", [go_on_by_partial_fit, go_on_by_warm_start])
def test_callbacks_are_those_of_the_whole_training(make_clf, get_weights, disk, go_on):
    start = get_weights(make_clf(lr=1e-30, max_epochs=1).fit(*disk))
    count = Count()
    clf = go_on(make_clf(callbacks=[Freezer("layers.0*"), count]), *disk)
    assert all(map(np.array_equal, get_weights(clf)[:2], start[:2]))
    assert not np.array_equal(get_weights(clf)[2], start[2])
    assert (count.n_initialised, count.n_begun) == (1, 3)


def test_a_hook_that_is_set_on_the_object_is_called(make_clf, disk):
    calls, callback = [], Callback()
    callback.on_epoch_end = lambda net, **kwargs: calls.append(len(net.history))
    make_clf(callbacks=[callback], **SETTINGS).fit(*disk)
    assert calls == [1, 2, 3]


def stop():
    raise KeyboardInterrupt


class StopByFunction(Callback):
    """A callback that stops the training from within a function."""

    def on_epoch_end(self, net, **kwargs):
        stop()


class HoldEarlyStopping(Callback):
    """A callback that holds another one, which stops the training."""

    def __init__(self):
        self.held = EarlyStopping("train_loss", patience=1, threshold=9, threshold_mode="abs")

    def on_train_begin(self, net, **kwargs):
        self.held.initialize()
        self.held.on_train_begin(net, **kwargs)

    def on_epoch_end(self, net, **kwargs):
        self.held.on_epoch_end(net, **kwargs)


@pytest.mark.parametrize(("make", "n_epochs"), [(StopByFunction, 1), (HoldEarlyStopping, 2)])
def test_a_callback_may_stop_the_training_by_any_way(make_clf, disk, has_kernel, make, n_epochs):
    clf = make_clf(callbacks=[make()], max_epochs=9).fit(*disk)
    assert clf.n_iter_ == n_epochs
    assert clf.fused_ == has_kernel


@pytest.mark.parametrize(
    "name", ["epoch_timer", "print_log", "progress", "best_epoch", "fit_tasks", "lr_schedule"]
)
def test_a_callback_may_have_any_name(make_clf, disk, name, capsys):
    clf = make_clf(callbacks=[(name, EpochTimer())], early_stopping=True, n_iter_no_change=9)
    for verbose in (0, 1, 2):
        assert clf.set_params(verbose=verbose).fit(*disk).n_iter_ == 3


def test_a_forward_hook_is_called_in_prediction(make_clf, disk):
    X, y = disk
    clf = make_clf(**SETTINGS).fit(X, y)
    before, calls = clf.predict_proba(X), []
    handle = clf.module_.layers[0].register_forward_hook(lambda *_: calls.append(1))
    np.testing.assert_allclose(clf.predict_proba(X), before, atol=1e-6)
    assert calls
    handle.remove()
    clf.module_.layers[1] = nn.Tanh()
    with torch.no_grad():
        expected = clf.module_(torch.tensor(X, dtype=torch.float32)).exp()
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6)
    assert not np.allclose(expected, before, atol=1e-3)


def test_the_doctor_sees_what_went_into_an_activation(make_clf, disk):
    X, y = disk
    net = make_clf(**SETTINGS).fit(X, y).net_
    doctor = SkorchDoctor(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doctor.fit(X.astype("f4"), y)
    records = doctor.activation_recs_["module"][0]
    [linear] = [values for name, values in records.items() if name == "layers.0"]
    [relu] = [values for name, values in records.items() if name == "layers.1"]
    assert (linear < 0).any()
    np.testing.assert_array_equal(relu, np.maximum(linear, 0))


@pytest.mark.parametrize("make", [EarlyStopping, Checkpoint])
@pytest.mark.parametrize("fused", ["auto", False])
def test_a_monitor_without_validation_data_is_refused_in_words(
    make_clf, disk, tmp_path, monkeypatch, make, fused
):
    monkeypatch.chdir(tmp_path)
    X, y = disk
    clf = make_clf(callbacks=[make()], fused=fused)
    match = rf"{make.__name__}.* monitors 'valid_loss.*X_val.*monitor='train_loss"
    with pytest.raises(ValueError, match=match):
        clf.fit(X, y)
    assert not hasattr(clf, "classes_")
    assert clf.fit(X, y, X_val=X, y_val=y).n_iter_ >= 1
    assert clf.set_params(early_stopping=True, n_iter_no_change=9).fit(X, y).n_iter_ >= 1


def test_the_net_is_one_of_skorch(make_clf, get_weights, disk):
    X, y = disk[0].astype("f4"), disk[1].copy()
    clf = make_clf(**SETTINGS).fit(X, y)
    net = clf.net_
    np.testing.assert_allclose(net.predict_proba(X), clf.predict_proba(X), atol=1e-6)
    batch = torch.tensor(X), torch.tensor(y)
    step = net.validation_step(batch)
    assert step["y_pred"].shape == (200, 2)
    assert step["loss"].item() == pytest.approx(-clf.predict_log_proba(X)[range(200), y].mean())
    np.testing.assert_allclose(net.infer(X).detach().exp(), clf.predict_proba(X), atol=1e-6)
    net.partial_fit(X, y)
    assert clf.n_iter_ == 3 + net.max_epochs
    assert clf.module_ is net.module_
    with pytest.raises(TypeError, match="foo"):
        net.fit(X, y, foo=1)
    # The net draws the same first weights and orders, and trains as the classifier does.
    net.fit(X, y)
    assert clf.n_iter_ == 3
    again = make_clf(**SETTINGS).fit(X, y)
    assert clf.loss_curve_ == pytest.approx(again.loss_curve_, abs=1e-5)


def test_the_net_can_be_made_before_between_and_after(make_clf, get_weights, disk):
    params = {"optimizer": "adam", "lr": 0.01, "dropout": 0.2}
    clfs = [make_clf(**params) for _ in range(2)]
    for n_epochs in range(4):
        for clf in clfs:
            clf.partial_fit(*disk, classes=[0, 1])
        if n_epochs == 1:
            [group] = clfs[1].net_.optimizer_.param_groups
            assert group["lr"] == 0.01
    assert all(map(np.array_equal, *map(get_weights, clfs)))


def test_callbacks_work_in_threads(make_clf, disk):
    results = []

    def fit():
        results.append(make_clf(callbacks=[StopByFunction()], max_epochs=9).fit(*disk).n_iter_)

    threads = [threading.Thread(target=fit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 4
