"""What skorch's callbacks may do, and what skorch's tools may do with the net."""

import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochTimer,
    Freezer,
    LoadInitState,
    TrainEndCheckpoint,
)
from skorch.helper import SkorchDoctor
from torch import nn
from torch.optim import optimizer
from torch.utils.data import DataLoader

from skdisk._training.batches import TensorBatches

SETTINGS = {"hidden_layer_sizes": (16,), "max_epochs": 3}


@pytest.mark.parametrize("lr_schedule", ["cosine", "one_cycle", "constant"])
def test_a_training_begins_after_what_a_callback_loads(
    make_clf, disk, tmp_path, lr_schedule, fused
):
    X, y = disk
    load = LoadInitState(Checkpoint(dirname=tmp_path, monitor=None))
    params = {"lr_schedule": lr_schedule, "fused": fused}
    make_clf(**params, callbacks=[Checkpoint(dirname=tmp_path, monitor=None)]).fit(*disk)
    clf = make_clf(**params, max_epochs=5, callbacks=[load]).fit(X, y, X_val=X, y_val=y)
    assert clf.n_iter_ == 3 + 5
    assert clf.best_loss_ == min(clf.validation_loss_curve_[3:])
    if lr_schedule != "constant":
        plain = make_clf(**params, max_epochs=5).fit(X, y)
        assert clf.history_["lr"][3:].tolist() == plain.history_["lr"].tolist()


def test_what_is_saved_at_the_end_is_the_network_that_is_kept(make_clf, disk, tmp_path, fused):
    X, y = disk
    save = TrainEndCheckpoint(dirname=tmp_path)
    params = {"early_stopping": True, "max_epochs": 9, "fused": fused}
    # Of the wrong labels the loss rises: the best epoch is not the last.
    clf = make_clf(**params, callbacks=[save]).fit(X, y, X_val=X, y_val=1 - y)
    assert clf.best_epoch_ < clf.n_iter_
    saved = torch.load(tmp_path / "train_end_params.pt")
    for name, values in clf.module_.state_dict().items():
        assert torch.equal(saved[name], values)


@pytest.mark.parametrize("lr", [np.nan, np.inf, -0.1])
def test_a_rate_that_is_none_ends_both_ways_of_training_alike(make_clf, disk, lr):
    class Set(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                net.optimizer_.param_groups[0]["lr"] = lr

    def fit(fused):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return make_clf(max_epochs=4, callbacks=[Set()], fused=fused).fit(*disk)

    auto, loop = fit("auto"), fit(False)
    assert auto.n_iter_ == loop.n_iter_ == (4 if lr < 0 else 2)
    assert not auto.fused_
    np.testing.assert_allclose(auto.predict_proba(disk[0]), loop.predict_proba(disk[0]), rtol=1e-4)


class ChangeOnce(Callback):
    """A callback that does something to the net, the first time that a hook is called."""

    def __init__(self, hook, change):
        self.hook, self.change = hook, change
        self.has_changed = False

    def on_train_begin(self, net, **kwargs):
        self.call("on_train_begin", net)

    def on_epoch_begin(self, net, **kwargs):
        self.call("on_epoch_begin", net)

    def on_epoch_end(self, net, **kwargs):
        self.call("on_epoch_end", net)

    def call(self, hook, net):
        if hook == self.hook and not self.has_changed:
            self.has_changed = True
            self.change(net)


def weigh_classes(net):
    net.set_params(criterion__weight=torch.tensor([1.0, 9.0]))


def change_momentum(net):
    net.set_params(optimizer__momentum=0.5)


def replace_parameter(net):
    layer = net.module_.layers[0]
    layer.weight = nn.Parameter(layer.weight.detach().clone())


def train_the_last_layer(net):
    net.optimizer_ = torch.optim.SGD([*net.module_.layers[2].parameters()], lr=0.1)


def halve_a_layer(net):
    layer = net.module_.layers[0]
    forward = layer.forward
    layer.forward = lambda X: 0.5 * forward(X)


def halve_the_loss(net):
    get_loss = net.get_loss
    net.get_loss = lambda *args, **kwargs: 0.5 * get_loss(*args, **kwargs)


def double_the_rows(net):
    infer = net.infer
    net.infer = lambda X, **kwargs: infer(2 * X, **kwargs)


def halve_the_gradient(net):
    train_step_single = net.train_step_single

    def step(*args, **kwargs):
        result = train_step_single(*args, **kwargs)
        for parameter in net.module_.parameters():
            parameter.grad *= 0.5
        return result

    net.train_step_single = step


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
    "options of an activation": (
        lambda net: setattr(net.module_.layers[1], "negative_slope", 0.5),
        "the module is not the plain MLP",
    ),
    "a parameter that the optimiser does not know": (
        replace_parameter,
        "the optimizer has other parameters",
    ),
    "an optimiser of some parameters": (train_the_last_layer, "the optimizer has other param"),
    "a layer's own forward": (halve_a_layer, "the module has hooks or a function of its own"),
    "the net's own loss": (halve_the_loss, "the net has a method of its own, get_loss"),
    "the net's own forward": (double_the_rows, "the net has a method of its own, infer"),
    "the net's own step": (halve_the_gradient, "the net has a method of its own, train_step_"),
    "momentum": (change_momentum, None),
    "learning rate": (lambda net: net.set_params(lr=0.01), None),
    "clipping": (lambda net: net.set_params(clip_grad_norm=0.01), None),
    "dropout": (lambda net: setattr(net.module_, "dropout", (0.5,)), None),
}
# skorch makes the batches when a training begins.
CHANGES_OF_BATCHES = {
    "size": lambda net: net.set_params(batch_size=7),
    "order": lambda net: net.set_params(shuffle=False),
}
LEAKY = {"activation": "leaky_relu", **SETTINGS}


@pytest.mark.needs_kernel
@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end"])
def test_what_a_callback_changes_is_honoured(make_clf, get_weights, disk, change, reason, hook):
    plain = make_clf(**LEAKY).fit(*disk)
    clfs = [
        make_clf(fused=fused, callbacks=[ChangeOnce(hook, change)], **LEAKY).fit(*disk)
        for fused in ("auto", False)
    ]
    assert (clfs[0].fused_reason_ or "").startswith(reason or "")
    assert clfs[0].fused_ == (reason is None)
    for ours, theirs in zip(*map(get_weights, clfs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    pairs = zip(get_weights(clfs[0]), get_weights(plain), strict=True)
    assert not all(np.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


@pytest.mark.parametrize("change", CHANGES_OF_BATCHES.values(), ids=CHANGES_OF_BATCHES)
@pytest.mark.parametrize("fused", ["auto", False])
def test_batches_that_a_callback_changes_are_honoured(make_clf, get_weights, disk, fused, change):
    callbacks = [ChangeOnce("on_train_begin", change)]
    clf = make_clf(fused=fused, callbacks=callbacks, **SETTINGS).fit(*disk)
    params = {"batch_size": clf.net_.batch_size, "shuffle": clf.net_.shuffle}
    expected = make_clf(fused=fused, **params, **SETTINGS).fit(*disk)
    for ours, theirs in zip(get_weights(clf), get_weights(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert clf.net_.history[0, "train_batch_count"] == -(-200 // clf.net_.batch_size)


BATCHES_OF_OTHERS = {
    "a list": lambda *args, **kwargs: list(TensorBatches(*args, **kwargs)),
    "torch's loader": lambda dataset, batch_size, **kwargs: DataLoader(dataset, batch_size),
}


@pytest.mark.parametrize("make_batches", BATCHES_OF_OTHERS.values(), ids=BATCHES_OF_OTHERS)
@pytest.mark.parametrize("name", ["iterator_train", "iterator_valid"])
@pytest.mark.parametrize("dropout", [0.0, 1e-12])
def test_batches_of_somebody_else_need_only_be_rows_and_targets(
    make_clf, get_weights, disk, make_batches, name, dropout
):
    def fit(callbacks):
        clf = make_clf(callbacks=callbacks, shuffle=False, dropout=dropout, **SETTINGS)
        return clf.fit(*disk, X_val=disk[0][:50], y_val=disk[1][:50])

    change = ChangeOnce("on_train_begin", lambda net: setattr(net, name, make_batches))
    clf, expected = fit([change]), fit(None)
    for ours, theirs in zip(get_weights(clf), get_weights(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    losses = clf.validation_loss_curve_, expected.validation_loss_curve_
    np.testing.assert_allclose(*losses, atol=1e-5)


class OwnModule(nn.Module):
    """A module as people write them, whose dropout is a layer."""

    def __init__(self):
        super().__init__()
        self.dropout, self.layer = nn.Dropout(0.5), nn.Linear(2, 2)

    def forward(self, X):
        return self.layer(self.dropout(X)).log_softmax(dim=1)


def put_a_module(net):
    net.module_ = OwnModule()
    net.initialize_optimizer()


@pytest.mark.parametrize("fused", ["auto", False])
def test_a_callback_may_put_a_module_of_its_own_there(make_clf, disk, fused):
    module = ChangeOnce("on_train_begin", put_a_module)
    clf = make_clf(fused=fused, callbacks=[module], max_epochs=2).fit(*disk)
    clf.set_params(callbacks=None).partial_fit(*disk)
    assert type(clf.module_) is OwnModule
    assert np.isfinite(clf.loss_curve_).all()
    assert clf.predict_proba(disk[0]).shape == (len(disk[0]), 2)
    with pytest.raises(ValueError, match="is a OwnModule that a callback has put there"):
        clf.to_torch()


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


HOOKS_OF_ALL = {
    "forward": (nn.modules.module.register_module_forward_hook, "modules"),
    "before forward": (nn.modules.module.register_module_forward_pre_hook, "modules"),
    "backward": (nn.modules.module.register_module_full_backward_hook, "modules"),
    "before backward": (nn.modules.module.register_module_full_backward_pre_hook, "modules"),
    "step": (optimizer.register_optimizer_step_post_hook, "optimizers"),
    "before step": (optimizer.register_optimizer_step_pre_hook, "optimizers"),
}


# The rows ask for no gradients, as anywhere.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("callbacks", [None, [EpochTimer()]], ids=["no net", "net"])
@pytest.mark.parametrize(("register", "of"), HOOKS_OF_ALL.values(), ids=HOOKS_OF_ALL)
def test_hooks_of_all_modules_and_optimizers_are_called(make_clf, disk, callbacks, register, of):
    calls, clf = [], make_clf(callbacks=callbacks, **SETTINGS)
    handle = register(lambda *_: calls.append(1))
    try:
        clf.fit(*disk)
        assert clf.fused_reason_ == f"there are hooks of all {of} of torch"
        assert calls
        with pytest.raises(ValueError, match=f"fused=True is not possible: .* all {of} of torch"):
            clf.set_params(fused=True).fit(*disk)
    finally:
        handle.remove()
    calls.clear()
    assert clf.fit(*disk).fused_
    assert not calls


@pytest.mark.parametrize("fused", ["auto", False])
def test_forward_hooks_of_all_modules_are_called_in_prediction(make_clf, disk, fused):
    X, y = disk
    clf, layers = make_clf(fused=fused, **SETTINGS).fit(X, y), []
    before = clf.predict_proba(X)
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: layers.append(type(m)))
    try:
        np.testing.assert_allclose(clf.predict_proba(X), before, atol=1e-6)
    finally:
        handle.remove()
    assert nn.Linear in layers


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
