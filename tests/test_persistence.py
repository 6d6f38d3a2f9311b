"""Keeping an estimator in a file, and shipping its network without skdisk."""

import copy
import errno
import io
import json
import os
import pickle
import resource
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import sklearn
import skops.io as sio
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EpochScoring, LRScheduler
from torch.optim.lr_scheduler import StepLR

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk
from skdisk._inputs.file_format import FORMAT_VERSION, check_file
from skdisk._inputs.file_format import pack as pack_arrays
from skdisk._network.mlp import ACTIVATIONS
from skdisk._training.net import DiskNet
from skdisk._training.state import note


class MyAdam(torch.optim.Adam):
    """An optimiser that is not in torch.optim, though its name might be."""


MyAdam.__name__ = "Adam"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clf.safetensors"


@pytest.fixture(scope="module")
def lesson():
    """Train the classifier of the lesson."""
    return MLPDiskClassifier(random_state=0).fit(*make_disk(3000, random_state=0))


def pack(metadata, tensors):
    return pack_arrays(metadata, {name: tensor.numpy() for name, tensor in tensors.items()})


def rewrite(path, change):
    """Change the content of a file as somebody would who knows the format."""
    data = path.read_bytes()
    metadata = check_file(data, path)
    description = json.loads(metadata["estimator"])
    change(metadata, description)
    metadata["estimator"] = json.dumps(description)
    path.write_bytes(pack(metadata, safetensors.torch.load(data)))


def assert_same_state(clf, loaded):
    # What the optimiser remembers is with the net, where there is one.
    assert len(clf.net_.history) == len(loaded.net_.history)
    states = [note(fitted._state)._asdict() for fitted in (clf, loaded)]
    words = [
        [group.pop("line_search_fn", None) for group in state["groups"] or []] for state in states
    ]
    assert words[0] == words[1]
    torch.testing.assert_close(*states, rtol=0, atol=0, equal_nan=True)


def assert_same(clf, loaded):
    assert loaded.get_params() == clf.get_params()
    assert loaded.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(loaded.classes_, clf.classes_)
    pd.testing.assert_frame_equal(loaded.history_, clf.history_)
    names = ("n_features_in_", "n_iter_", "loss_curve_", "validation_loss_curve_")
    names += ("best_loss_", "best_epoch_", "fused_", "fused_reason_")
    assert [getattr(loaded, name) for name in names] == [getattr(clf, name) for name in names]
    assert_same_state(clf, loaded)


ROUND_TRIPS = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "optimizer_params": {"betas": (0.8, 0.99)}},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "fused": False},
    "RMSprop": {"optimizer": torch.optim.RMSprop, "optimizer_params": {"centered": True}},
    "rmsprop": {"optimizer": "rmsprop", "lr_schedule": "plateau"},
    "lbfgs": {"optimizer": "lbfgs", "lr": "auto", "weight_decay": 0.1, "max_epochs": 50},
    "a state with lists": {"optimizer": torch.optim.LBFGS, "optimizer_params": {"max_iter": 2}},
    "dropout": {"hidden_layer_sizes": (8, 4), "dropout": (0.5, 0.0), "activation": "gelu"},
    "one layer": {"hidden_layer_sizes": ()},
    "cosine": {"lr_schedule": "cosine", "clip_grad_norm": 0.5},
    "one_cycle": {"lr_schedule": "one_cycle", "class_weight": {0: 1, 1: 2.5}},
    "no seed": {"random_state": None},
}


@pytest.mark.parametrize("params", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_a_loaded_estimator_is_the_saved_one_and_goes_on_as_it_would(make_clf, disk, path, params):
    X, y = disk
    clf = make_clf(warm_start=True, **params).fit(X, y)
    clf.save(path)
    loaded = MLPDiskClassifier.load(path)
    assert_same(clf, loaded)
    many = np.random.RandomState(0).uniform(size=(20_000, 2))
    for rows in (X, X[:1], many):
        np.testing.assert_array_equal(loaded.predict_proba(rows), clf.predict_proba(rows))
    for go_on in (MLPDiskClassifier.partial_fit, MLPDiskClassifier.fit):
        go_on(clf, X, y)
        go_on(loaded, X, y)
        pd.testing.assert_frame_equal(
            loaded.history_.drop(columns="seconds"), clf.history_.drop(columns="seconds")
        )
        assert_same_state(clf, loaded)


def test_early_stopping_and_what_was_recorded_are_kept(make_clf, disk, path):
    X, y = disk
    callbacks = [EpochScoring("f1", name="f1", lower_is_better=False)]
    clf = make_clf(early_stopping=True, n_iter_no_change=2, max_epochs=50, lr=1.0)
    clf.set_params(callbacks=callbacks).fit(X[:100], y[:100], X_val=X[100:], y_val=y[100:])
    clf.set_params(callbacks=None).save(path)
    loaded = MLPDiskClassifier.load(path)
    assert_same(clf, loaded)
    assert {"valid_score", "f1"} <= set(loaded.history_)
    assert loaded.validation_score_curve_ == clf.validation_score_curve_


def test_a_training_that_diverged_is_kept(make_clf, disk, path):
    clf = make_clf(lr=1e30)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning, match="diverged in epoch 1"):
        clf.fit(*disk)
    clf.save(path)
    loaded = MLPDiskClassifier.load(path)
    assert loaded._result == clf._result
    assert loaded._result.diverged is not None
    np.testing.assert_array_equal(loaded.predict_proba(disk[0]), clf.predict_proba(disk[0]))


def test_parameters_set_after_the_training_count_for_the_next_one(make_clf, disk, path):
    clf = make_clf(optimizer="adam").fit(*disk).set_params(lr=0.01, max_epochs=2, warm_start=True)
    clf.save(path)
    loaded = MLPDiskClassifier.load(path)
    assert_same(clf, loaded)
    assert_same_state(clf.fit(*disk), loaded.fit(*disk))
    assert loaded.net_.optimizer_.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(
    "labels",
    [
        np.array([False, True]),
        np.array([-3, 4], np.int8),
        np.array([2, 2**64 - 1], np.uint64),
        np.array([0.0, 1.0], np.float32),
        np.array(["aus", "drinnen \N{SNOWMAN}"], "U20"),
        np.array(["in", "out"], object),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_keep_their_type(make_clf, disk, path, labels):
    X, y = disk
    clf = make_clf().fit(X, labels[y])
    clf.save(path)
    loaded = MLPDiskClassifier.load(path)
    assert loaded.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(loaded.predict(X), clf.predict(X), strict=True)
    assert loaded.partial_fit(X, labels[y]).n_iter_ == 4


def test_names_of_features_are_kept(make_clf, disk, path):
    X, y = disk
    X = pd.DataFrame(X, columns=["width", "height"])
    clf = make_clf().fit(X, y)
    clf.save(path)
    loaded = MLPDiskClassifier.load(path)
    np.testing.assert_array_equal(loaded.feature_names_in_, clf.feature_names_in_, strict=True)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(X[["height", "width"]])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("hidden_layer_sizes", [8], [8]),
        ("hidden_layer_sizes", np.array([8]), [8]),
        ("hidden_layer_sizes", (np.int64(8),), (8,)),
        ("lr", np.float32(0.5), 0.5),
        ("shuffle", np.bool_(False), False),
        ("optimizer", torch.optim.RMSprop, torch.optim.RMSprop),
        ("optimizer_params", {"foreach": False}, {"foreach": False}),
        ("class_weight", {0: 1, True: 0.5, "2": np.float64(2)}, {0: 1, True: 0.5, "2": 2.0}),
        ("class_weight", {"a": 1.0, "$tuple": 2}, {"a": 1.0, "$tuple": 2}),
        ("class_weight", {1.5: 1, np.str_("b"): 2}, {1.5: 1, "b": 2}),
        ("callbacks", [], []),
        ("device", torch.device("cpu"), "cpu"),
        ("random_state", np.int32(7), 7),
    ],
    ids=str,
)
def test_parameters_keep_their_types(make_clf, disk, path, name, value, expected):
    make_clf().fit(*disk).set_params(**{name: value}).save(path)
    loaded = getattr(MLPDiskClassifier.load(path), name)
    # repr tells tuples from lists and NumPy's numbers from Python's, inside of dicts too.
    assert repr(loaded) == repr(expected)


LOST = {
    "callbacks": ({"callbacks": [Callback()]}, ["callbacks=None"]),
    "callback class": ({"callbacks": [("log", Callback)]}, ["callbacks=None"]),
    "scheduler": ({"lr_schedule": LRScheduler(StepLR, step_size=1)}, ["lr_schedule='cosine'"]),
    "generator": ({"random_state": np.random.RandomState(0)}, ["random_state=None"]),
    "optimizer": (
        {"optimizer": MyAdam, "optimizer_params": {"eps": 1e-7}},
        ["optimizer='sgd'", "optimizer_params=None"],
    ),
    "two": (
        {"callbacks": [Callback()], "random_state": np.random.RandomState(0)},
        ["callbacks=None", "random_state=None"],
    ),
}


@pytest.mark.parametrize(("params", "named"), LOST.values(), ids=LOST)
def test_what_the_file_cannot_hold_is_named_once(make_clf, disk, path, params, named):
    clf = make_clf(**params).fit(*disk)
    with pytest.warns(UserWarning, match="cannot hold all .* Set them again") as caught:
        clf.save(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for text in named:
        assert text in str(caught[0].message)
    loaded = MLPDiskClassifier.load(path)
    np.testing.assert_array_equal(loaded.predict_proba(disk[0]), clf.predict_proba(disk[0]))
    defaults = MLPDiskClassifier().get_params()
    for name, value in loaded.get_params().items():
        assert value == (defaults if name in params else clf.get_params())[name]
    assert loaded.partial_fit(*disk).n_iter_ == 4


def test_what_set_fit_request_set_is_named_too(make_clf, disk, path):
    clf = make_clf().fit(*disk)
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)
    with pytest.warns(UserWarning, match="nothing from set_fit_request"):
        clf.save(path)


def test_what_set_callbacks_set_is_named_too(make_clf, disk, path):
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.8 has no callbacks")
    clf = make_clf().fit(*disk).set_callbacks(callback.ProgressBar())
    with pytest.warns(UserWarning, match="nothing from set_callbacks"):
        clf.save(path)


@pytest.mark.parametrize(
    "classes",
    [
        np.array([b"in", b"out"]),
        np.array(["2020", "2021"], "M8[Y]"),
        np.array([0, 1], object),
        np.array(["in", 1], object),
    ],
    ids=str,
)
def test_other_labels_are_refused_before_anything_is_written(make_clf, disk, path, classes):
    clf = make_clf().fit(*disk)
    clf.classes_ = classes
    with pytest.raises(TypeError, match="labels that are strings, numbers or bools"):
        clf.save(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("call", [lambda clf: clf.save("x"), lambda clf: clf.to_torch()])
def test_an_unfitted_estimator_has_nothing_to_keep(call):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        call(MLPDiskClassifier())


def test_a_file_takes_the_place_of_an_earlier_one(make_clf, disk, path, monkeypatch):
    make_clf(max_epochs=1).fit(*disk).save(str(path))
    clf = make_clf(max_epochs=2).fit(*disk)

    def fail(*args):
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=f"no space left: '{path}'"):
            clf.save(path)
    assert list(path.parent.iterdir()) == [path]
    assert MLPDiskClassifier.load(str(path)).n_iter_ == 1
    clf.save(path)
    assert MLPDiskClassifier.load(path).n_iter_ == 2


def test_a_subclass_loads_itself_and_the_global_generators_are_left_alone(make_clf, disk, path):
    class Mine(MLPDiskClassifier):
        pass

    make_clf().fit(*disk).save(path)
    before = torch.get_rng_state()
    assert type(Mine.load(path)) is Mine
    assert torch.equal(torch.get_rng_state(), before)


class WithThreshold(MLPDiskClassifier):
    """A subclass as people write them: its list of parameters is the base's and one more."""

    def __init__(self, threshold=0.5, *, lr=1e-3, max_epochs=300, random_state=None):
        super().__init__(lr=lr, max_epochs=max_epochs, random_state=random_state)
        self.threshold = threshold


class WithAttribute(MLPDiskClassifier):
    """A subclass whose fit sets an attribute."""

    def fit(self, X, y):
        super().fit(X, y)
        self.mean_ = X.mean()
        return self


class WithConversion(MLPDiskClassifier):
    """A subclass that is not what scikit-learn asks of one."""

    def __init__(self, lr=1e-3, *, max_epochs=300, random_state=None):
        super().__init__(lr=lr, max_epochs=max_epochs, random_state=random_state)
        self.lr = 2 * lr


@pytest.mark.parametrize(
    "threshold", [0.25, None, "high", (1, [2, {3: 4.0}]), float("nan")], ids=repr
)
def test_a_subclass_with_a_parameter_is_kept(disk, path, threshold):
    clf = WithThreshold(threshold, max_epochs=2, random_state=0).fit(*disk)
    clf.save(path)
    loaded = WithThreshold.load(path)
    assert repr(loaded.get_params()) == repr(clf.get_params())
    assert_same_state(clf, loaded)
    match = "MLPDiskClassifier has no parameter threshold.* load the file with that subclass"
    with pytest.raises(ValueError, match=match):
        MLPDiskClassifier.load(path)


def replace_layer(clf):
    clf.module_.layers[1] = torch.nn.Tanh()


class OtherNet(DiskNet):
    """A net of somebody's own."""


def replace_net(clf):
    clf.net_.__class__ = OtherNet


CANNOT_BE_KEPT = {
    "parameter": (
        WithThreshold(np.array([0.5]), max_epochs=1),
        None,
        r"The parameter threshold of this WithThreshold is array\(\[0.5\]\)\. The file can hold",
    ),
    "attribute of a subclass": (
        WithAttribute(max_epochs=1),
        None,
        "WithAttribute and what .* cannot hold mean_. Delete",
    ),
    "attribute of a user": (
        MLPDiskClassifier(max_epochs=1),
        lambda clf: setattr(clf, "note", "the one of May"),
        r"cannot hold note\. Delete .*del estimator\.note.* joblib\.dump",
    ),
    "conversion": (
        WithConversion(0.1, max_epochs=1),
        None,
        r"of a WithConversion and .* cannot hold lr\. Delete",
    ),
    "invalid parameter": (
        MLPDiskClassifier(max_epochs=1),
        lambda clf: clf.set_params(tol=-1.0),
        "The 'tol' parameter of MLPDiskClassifier must be .* Mend that, by set_params",
    ),
    "class weights": (
        MLPDiskClassifier(max_epochs=1),
        lambda clf: clf.set_params(class_weight={(0, 1): 2.0}),
        "The parameter class_weight of this MLPDiskClassifier is",
    ),
    "layer": (MLPDiskClassifier(max_epochs=1), replace_layer, "(?s)as fit makes it.*Tanh.*Fit"),
    "net": (MLPDiskClassifier(max_epochs=1), replace_net, "(?s)The one of this .*OtherNet with"),
    "weights": (
        MLPDiskClassifier(max_epochs=1),
        lambda clf: torch.nn.init.constant_(clf.module_.layers[0].bias, torch.nan),
        "not a list of finite float32 tensors.* Mend that",
    ),
    "labels": (
        MLPDiskClassifier(max_epochs=1),
        lambda clf: setattr(clf, "classes_", clf.classes_[::-1]),
        "classes_ are not sorted",
    ),
    "long labels": (
        MLPDiskClassifier(max_epochs=1),
        lambda clf: setattr(clf, "classes_", np.array(["in", "out"], "U5000000")),
        "Convert the labels to dtype object",
    ),
}


@pytest.mark.parametrize(("clf", "change", "match"), CANNOT_BE_KEPT.values(), ids=CANNOT_BE_KEPT)
def test_what_would_come_back_changed_is_refused_before_it_is_saved(
    disk, path, clf, change, match
):
    clf = copy.deepcopy(clf).fit(*disk)
    if change is not None:
        change(clf)
    with pytest.raises((TypeError, ValueError), match=match):
        clf.save(path)
    assert list(path.parent.iterdir()) == []


def test_one_changed_number_of_a_long_array_is_named(make_clf, path):
    y = np.tile(np.arange(1200), 2)
    clf = make_clf(max_epochs=1, fused=False).fit(y[:, np.newaxis] / 1200, y)
    clf.net_.classes[600] = 0
    with pytest.warns(UserWarning, match="cannot hold all .*: classes of net_ as fit makes it"):
        clf.save(path)


def test_what_callbacks_recorded_is_kept_or_named(make_clf, disk, path):
    class Recorder(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("norm", np.float64(0.5))
            net.history.record("module", net.module_)

    clf = make_clf(callbacks=[Recorder()]).fit(*disk).set_params(callbacks=None)
    with pytest.warns(UserWarning, match="cannot hold all .*: no module in history_. Set"):
        clf.save(path)
    history = MLPDiskClassifier.load(path).history_
    assert history["norm"].tolist() == [0.5] * 3
    assert "module" not in history


DATA = Path(__file__).parent / "data"
# What the estimators of the files predicted and had for losses when they were saved.
GOLDEN = json.loads((DATA / "predictions.json").read_text())
FILES = sorted(path.stem for path in DATA.glob("*.safetensors"))


def test_there_is_a_file_of_every_version():
    versions = {int(name.split("_")[1]) for name in FILES}
    assert versions == {*range(1, FORMAT_VERSION + 1)}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_version_are_read(disk, name):
    expected = GOLDEN[name.split("_")[-1]]
    clf = MLPDiskClassifier.load(DATA / f"{name}.safetensors")
    assert clf.classes_.tolist() == expected["classes"]
    np.testing.assert_allclose(clf.loss_curve_, expected["losses"], atol=1e-6)
    rows = pd.DataFrame(GOLDEN["rows"], columns=["width", "height"])
    # Another CPU adds up in another order, in float32.
    np.testing.assert_allclose(clf.predict_proba(rows), expected["probabilities"], atol=1e-6)
    X = pd.DataFrame(disk[0], columns=["width", "height"])
    assert (clf.hidden_layer_sizes, clf.lr, clf.max_epochs) == ((4, 3), 0.1, 4)
    labels = clf.predict(X)
    assert (labels.shape, clf.score(X, labels)) == ((200, 3) if "labels" in name else (200,), 1)
    assert clf.partial_fit(X, labels).n_iter_ == 5


TRUSTED = ["skdisk._classifier.MLPDiskClassifier"]
STATES = {
    **ROUND_TRIPS,
    "skorch's loop": {"fused": False, "momentum": 0.9},
    "a table is printed": {"verbose": 1},
    "labels with weights": {"class_weight": {0: 1, 1: 2.5}, "random_state": np.int32(3)},
}


@pytest.mark.parametrize("params", STATES.values(), ids=STATES)
def test_skops_trusts_one_type_and_the_training_goes_on(make_clf, disk, params):
    X, y = disk
    pipeline = make_pipeline(StandardScaler(), make_clf(warm_start=True, **params)).fit(X, y)
    data = sio.dumps(pipeline)
    assert sio.get_untrusted_types(data=data) == TRUSTED
    loaded = sio.loads(data, trusted=TRUSTED)
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))
    assert_same(pipeline[-1], loaded[-1])
    assert repr(loaded[-1].get_params()) == repr(pipeline[-1].get_params())
    for clf in (pipeline[-1], loaded[-1]):
        clf.partial_fit(X, y).fit(X, y)
    assert_same_state(pipeline[-1], loaded[-1])


def test_skops_keeps_names_labels_ensembles_and_searches(make_clf, disk):
    X = pd.DataFrame(disk[0], columns=["width", "height"])
    y = np.array(["in", "out"], dtype=object)[disk[1]]
    search = GridSearchCV(make_clf(), {"lr": [0.1, 0.2]}, cv=2).fit(X, y)
    ensemble = MLPDiskEnsemble(make_clf(), n_members=2, random_state=0).fit(X, y)
    for model, others in ((search, []), (ensemble, ["skdisk._ensemble.MLPDiskEnsemble"])):
        data = sio.dumps(model)
        untrusted = sio.get_untrusted_types(data=data)
        own = [name for name in untrusted if not name.startswith("sklearn.")]
        assert own == TRUSTED + others
        loaded = sio.loads(data, trusted=untrusted)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X), strict=True)
        np.testing.assert_array_equal(loaded.feature_names_in_, ["width", "height"])


def test_a_net_that_was_asked_for_is_described_as_well(make_clf, disk):
    clf = make_clf(optimizer="adam").fit(*disk)
    assert clf.net_.module_ is clf.module_
    data = sio.dumps(clf)
    assert sio.get_untrusted_types(data=data) == TRUSTED
    assert_same_state(clf.partial_fit(*disk), sio.loads(data, trusted=TRUSTED).partial_fit(*disk))


class Counter(Callback):
    """A user's callback with a state."""

    def on_train_begin(self, net, **kwargs):
        self.n_ = getattr(self, "n_", 0) + 1


def freeze(clf):
    clf.module_.layers[0].weight.requires_grad_(False)


def change_criterion(clf):
    clf.net_.set_params(criterion__weight=torch.tensor([1.0, 9.0]))


def hook(module, args, output):
    """Do nothing; a hook of a user's."""


# What plain things cannot say: how somebody puts it in, and where it can be seen.
THINGS = {
    "callback": ({"callbacks": [Counter()]}, None, lambda clf: clf.net_.callbacks_[0][1].n_),
    "scheduler": (
        {"lr_schedule": LRScheduler(StepLR, step_size=1)},
        None,
        lambda clf: clf.net_.callbacks_[0][1].policy,
    ),
    "optimizer": ({"optimizer": MyAdam}, None, lambda clf: type(clf.net_.optimizer_)),
    "layer": ({}, replace_layer, lambda clf: type(clf.module_.layers[1])),
    "net": ({}, replace_net, lambda clf: type(clf.net_)),
    "frozen": ({}, freeze, lambda clf: clf.module_.layers[0].weight.requires_grad),
    "criterion": ({}, change_criterion, lambda clf: clf.net_.criterion_.weight.tolist()),
    "hook": (
        {},
        lambda clf: clf.module_.layers[0].register_forward_hook(hook),
        lambda clf: [*clf.module_.layers[0]._forward_hooks.values()],
    ),
    "attribute": ({}, lambda clf: setattr(clf.net_, "note", "mine"), lambda clf: clf.net_.note),
}


@pytest.mark.parametrize(("params", "change", "read"), THINGS.values(), ids=THINGS)
def test_what_users_put_in_is_pickled_as_it_is(make_clf, disk, params, change, read):
    clf = make_clf(**params).fit(*disk)
    if change is not None:
        change(clf)
    expected = read(clf)
    for again in (copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        assert read(again) == expected
        np.testing.assert_array_equal(again.predict_proba(disk[0]), clf.predict_proba(disk[0]))
        assert again.partial_fit(*disk).n_iter_ == 4


def test_skops_names_what_users_put_in(make_clf, disk):
    clf = make_clf(callbacks=[Counter()]).fit(*disk)
    untrusted = sio.get_untrusted_types(data=sio.dumps(clf))
    assert {*TRUSTED, f"{__name__}.Counter"} < {*untrusted}


def test_a_training_that_plain_things_cannot_say_is_pickled_as_it_is(make_clf, disk, path):
    # A number that float32 has.
    eps, params = 2.0**-20, {"optimizer": "adam", "lr": 0.01}
    clf = make_clf(**params, optimizer_params={"eps": torch.tensor(eps)}).fit(*disk)
    plain = make_clf(**params, optimizer_params={"eps": eps}).fit(*disk)
    for other in (clf, copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(other.predict_proba(disk[0]), plain.predict_proba(disk[0]))
        assert other.partial_fit(*disk).n_iter_ == 4
    with pytest.raises(TypeError, match=r"tensor\(.*\) cannot be written to the file"):
        clf.save(path)


@pytest.fixture(params=["that is not here", "that cannot be used"])
def lost_device(request):
    """Name a device that cannot be used; torch may say that it is there."""
    if request.param == "that is not here":
        return "cuda:99"
    return request.getfixturevalue("broken_accelerator")


@pytest.mark.parametrize("fused", ["auto", False])
def test_a_pickle_from_a_lost_device_goes_to_the_cpu(make_clf, disk, lost_device, fused):
    clf = make_clf(fused=fused).fit(*disk)
    clf._settings = clf._settings._replace(device=lost_device)
    if not clf.fused_:
        clf.net_.device = lost_device
    data = pickle.dumps(clf)
    with pytest.warns(UserWarning, match=f"'{lost_device}', which is not available here"):
        again = pickle.loads(data)
    np.testing.assert_array_equal(again.predict_proba(disk[0]), clf.predict_proba(disk[0]))
    assert again.partial_fit(*disk).n_iter_ == 4


def test_a_described_generator_is_not_read_behind_its_last_number(make_clf, disk):
    clf = make_clf().fit(*disk)
    state = clf.__getstate__()
    state["_training"]["state"]["generator"][8:24].view(np.int32)[:] = [624, 1, 624, 0]
    with pytest.raises(ValueError, match="points outside of its numbers"):
        clf.__setstate__(state)


def test_copies_share_nothing_and_shallow_ones_all(make_clf, get_weights, disk):
    clf = make_clf().fit(*disk)
    before = get_weights(clf)
    deep, shallow = copy.deepcopy(clf), copy.copy(clf)
    for p in deep.module_.parameters():
        torch.nn.init.zeros_(p)
    assert all(map(np.array_equal, get_weights(clf), before))
    assert shallow.module_ is clf.module_


def test_steps_before_the_classifier_have_a_file_of_their_own(make_clf, disk, path):
    X, y = 5 + 3 * disk[0], disk[1]
    pipeline = make_pipeline(StandardScaler(), make_clf()).fit(X, y)
    pipeline[-1].save(path)
    joblib.dump(pipeline[:-1], path.with_suffix(".joblib"))
    steps = joblib.load(path.with_suffix(".joblib")).steps
    loaded = Pipeline([*steps, ("mlpdiskclassifier", MLPDiskClassifier.load(path))])
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))
    assert loaded.named_steps.keys() == pipeline.named_steps.keys()


class BytesPath:
    """A path as `os.scandir(b".")` has them."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return os.fsencode(self.path)


@pytest.mark.parametrize(
    "make",
    [str, os.fsencode, BytesPath, lambda path: path],
    ids=["str", "bytes", "object", "Path"],
)
def test_a_path_has_many_types(make_clf, disk, path, make):
    make_clf().fit(*disk).save(make(path))
    assert MLPDiskClassifier.load(make(path)).n_iter_ == 3


@pytest.mark.parametrize("method", ["save", "load"])
@pytest.mark.parametrize(
    ("path", "error", "match"),
    [
        (3, TypeError, r"path must be a str, bytes or os\.PathLike. Got 3"),
        (None, TypeError, r"path must be a str, bytes or os\.PathLike. Got None"),
        ("a\0b", ValueError, r"path must have no null character.* Got 'a\\x00b'"),
        (b"\0", ValueError, "path must have no null character"),
    ],
    ids=repr,
)
def test_what_is_no_path_is_refused(make_clf, disk, method, path, error, match):
    with pytest.raises(error, match=match):
        getattr(make_clf().fit(*disk), method)(path)


def make_folder(path):
    path.mkdir()
    return path


def make_pipe(path):
    os.mkfifo(path)
    return path


def make_loop(path):
    path.symlink_to(path)
    return path


PLACES = {
    "folder": (make_folder, IsADirectoryError, "Is a directory: '{path}'"),
    "working folder": (lambda path: "", IsADirectoryError, "Is a directory"),
    "no folder": (lambda path: path / "a", FileNotFoundError, "No such file.*: '{path}/a'"),
    "no file to be in": (lambda path: Path(__file__) / "a", NotADirectoryError, "Not a directory"),
    "pipe": (make_pipe, ValueError, "{path} is a device or a pipe. Give the path of a file"),
    "loop": (make_loop, OSError, "Too many levels of symbolic links: '{path}'"),
    "device": (lambda path: "/dev/null", ValueError, "/dev/null is a device or a pipe"),
    "long name": (lambda path: path.with_name("a" * 300), OSError, "File name too long"),
}


@pytest.mark.parametrize(("make", "error", "match"), PLACES.values(), ids=PLACES)
def test_a_place_for_no_file_is_left_as_it_is(make_clf, disk, path, make, error, match):
    clf, place = make_clf().fit(*disk), make(path)
    with pytest.raises(error, match=match.format(path=path)):
        clf.save(place)
    assert set(path.parent.iterdir()) <= {path}


@pytest.mark.parametrize("fused", ["auto", False])
def test_a_file_from_a_lost_device_goes_to_the_cpu(make_clf, disk, path, lost_device, fused):
    clf = make_clf(fused=fused).fit(*disk)
    clf.set_params(device=lost_device).save(path)
    with pytest.warns(
        UserWarning, match=f"'{lost_device}' is not available here. .* device='cpu'"
    ):
        loaded = MLPDiskClassifier.load(path)
    assert loaded.device == "cpu"
    np.testing.assert_array_equal(loaded.predict_proba(disk[0]), clf.predict_proba(disk[0]))


def test_damage_is_noticed_anywhere(make_clf, disk, path):
    make_clf().fit(*disk).save(path)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    places = {*range(0, len(data), 53), *range(10), *range(end - 10, end + 10), len(data) - 1}
    for place in places:
        # Among others, this makes a tab of a space, which the padding of the header consists of.
        for mask in (0x01, 0x29, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= mask
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=str(path)):
                MLPDiskClassifier.load(path)
    for place in (0, end // 2, end - 1, end, (end + len(data)) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged.* Copy it again"):
            MLPDiskClassifier.load(path)


def test_a_file_that_was_cut_off_is_noticed(make_clf, disk, path):
    make_clf().fit(*disk).save(path)
    data = path.read_bytes()
    for length in (0, 1, 8, 9, 10, 100, len(data) // 2, len(data) - 4, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f"{path} (is|was) cut off"):
            MLPDiskClassifier.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="its checksum is wrong"):
        MLPDiskClassifier.load(path)


WEIGHTS = {"weight": torch.zeros(2)}
OTHERS = {
    "text": (b"x0,x1,inside\n0.1,0.2,1\n", "is not a safetensors file. Give a file that"),
    "pickle": (pickle.dumps(list(range(20))), "is not a safetensors file"),
    "foreign": (safetensors.torch.save(WEIGHTS), "of another program. .*torch.load_file"),
    "foreign with metadata": (safetensors.torch.save(WEIGHTS, {"format": "pt"}), "another prog"),
    "deep header": (b"\xff" * 6 + b"\0\0" + b'{"a":' * 100_000, "is damaged in its header"),
    "other encoding": (
        b"\x1a" + bytes(7) + '{"a":{"b":1}}'.encode("utf-16-le"),
        "is damaged in its header",
    ),
    "no version": (pack({"format": "skdisk.MLPDiskClassifier"}, {}), "version None, which no sk"),
    "no estimator": (
        pack({"format": "skdisk.MLPDiskClassifier", "format_version": "1"}, {}),
        "which it is not .Key",
    ),
}


@pytest.mark.parametrize(("data", "match"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_refused_in_words(path, data, match):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path}.* {match}"):
        MLPDiskClassifier.load(path)


def test_a_missing_file_is_python_s_own_error(path):
    with pytest.raises(FileNotFoundError, match="No such file"):
        MLPDiskClassifier.load(path)


def test_a_newer_format_asks_for_a_newer_skdisk(make_clf, disk, path):
    make_clf().fit(*disk).save(path)
    rewrite(path, lambda metadata, _: metadata.update(format_version="12", skdisk_version="9.8"))
    with pytest.raises(ValueError, match=r"version 12, while .* up to 4.* 9\.8: upgrade skdisk"):
        MLPDiskClassifier.load(path)


def nest(depth):
    value = 1
    for _ in range(depth):
        value = {"$tuple": [value]}
    return value


# What would run code, or take memory or time that the file itself does not have.
HOSTILE = {
    "code": (["settings", "optimizer"], "os.system", "'os.system' is not an optimizer"),
    "module": (["settings", "optimizer"], "lr_scheduler", "is not an optimizer"),
    "base": (["settings", "optimizer"], "Optimizer", "arguments of Optimizer have"),
    "class": (
        ["settings", "optimizer"],
        {"$optimizer": "Adam"},
        "is not an optimizer of torch.optim",
    ),
    "parameter of code": (
        ["params", "optimizer"],
        {"$optimizer": "os.system"},
        "'os.system' is not an opt",
    ),
    "kind": (["params", "lr"], {"$call": "os.system"}, "nothing is known of .call"),
    "parameter": (["params", "learning_rate"], 1.0, "has no parameter learning_rate"),
    "attribute": (["params", "__class__"], 1.0, "has no parameter __class__"),
    "features": (["n_features_in_"], 10**12, "the layers have other sizes"),
    "long labels": (
        ["classes_"],
        {"dtype": "<U300000000", "labels": ["a", "b"]},
        "characters, 2400000000 bytes in all",
    ),
    "many names": (
        ["feature_names_in_"],
        ["a"] * 100_000,
        "100000 names are there for 2 features",
    ),
    "large int": (["params", "max_epochs"], 10**400, "an int of more than 64 bits"),
    # All multiples of 2**61 - 1 have one hash: a dict of many would take hours. None is made.
    "slow ints": (
        ["params", "class_weight"],
        {"$dict": [[2**70, 1], "no pair"]},
        "an int of more than 64 bits",
    ),
    "long words": (["params", "class_weight"], ["a"] * 100_000, "class_weight.* [.][.][.] "),
    "deep": (["params", "class_weight"], nest(100), "more than 20 levels deep"),
    "very deep": (["params", "class_weight"], nest(100_000), "RecursionError"),
    "slow keys": (["params", "class_weight"], {"$dict": [[nest(1), 1]]}, "a key is no key"),
    "output": (
        ["settings", "output"],
        "softmin",
        "'output' parameter of the settings in the file",
    ),
    "not there": (["state", "generator"], {"$tensor": "no"}, "the tensor 'no' is not there"),
    "twice": (
        ["state", "parameters"],
        [{"$tensor": f"state.parameters.{i}"} for i in (0, 1, 0, 1, 2, 3)],
        "the tensor 'state.parameters.0' is not there, or in two places",
    ),
}


def set_at(description, place, value):
    *outer, name = place
    for key in outer:
        description = description[key]
    description[name] = value


@pytest.mark.parametrize(("place", "value", "match"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_refused_in_words(make_clf, disk, path, place, value, match):
    make_clf().fit(*disk).save(path)
    text = json.dumps(value) if match != "RecursionError" else '{"$tuple":[' * 10**5 + "]}" * 10**5
    rewrite(path, lambda metadata, description: set_at(description, place, "PLACE"))
    data = path.read_bytes()
    metadata = check_file(data, path)
    metadata["estimator"] = metadata["estimator"].replace('"PLACE"', text)
    path.write_bytes(pack(metadata, safetensors.torch.load(data)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"{path} is marked .*which it is not .*{match}"):
        MLPDiskClassifier.load(path)
    # In kilobytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_several_labels_a_row_have_numbers_and_a_file_of_version_4(make_clf, disk, path):
    X, y = disk
    make_clf().fit(X, np.array(["in", "out"])[y]).save(path)
    rewrite(path, lambda _, description: set_at(description, ["settings", "output"], "sigmoid"))
    with pytest.raises(ValueError, match="the classes of several labels a row are not the num"):
        MLPDiskClassifier.load(path)
    make_clf().fit(X, np.c_[y, y]).save(path)
    rewrite(path, lambda metadata, _: metadata.update(format_version="3"))
    with pytest.raises(ValueError, match="the settings have an output"):
        MLPDiskClassifier.load(path)


# Tensors that differ from those that belong there.
WRONG_TENSORS = {
    "no elements": ("state.parameters.0", torch.zeros(10**12, 0), "not a list of finite float32"),
    "dtype of weights": ("state.parameters.0", torch.zeros(8, 2).double(), "not a list of finite"),
    "NaN": ("state.parameters.1", torch.full((8,), torch.nan), "not a list of finite float32"),
    "no matrix": ("state.parameters.0", torch.zeros(16), "a layer's weight is no matrix"),
    "layers": ("state.parameters.2", torch.zeros(2, 7), "the layers do not fit each other"),
    "bias": ("state.parameters.1", torch.zeros(7), "the layers do not fit each other"),
    "inputs": ("state.parameters.0", torch.zeros(8, 3), "3 inputs and 2 outputs for 2 features"),
    "memory": ("state.optimizer.0.exp_avg", torch.zeros(16), "shape|size of tensor"),
    "large memory": ("state.optimizer.0.exp_avg", torch.zeros(8, 8, 2), "shape|size of tensor"),
    "no memory": ("state.optimizer.0.exp_avg_sq", torch.zeros(0, 2), "shape|size of tensor"),
    "dtype of memory": (
        "state.optimizer.1.exp_avg",
        torch.zeros(8).half(),
        "the dtype torch.float16",
    ),
    "steps": ("state.optimizer.0.step", torch.tensor(-1.0), "Adam is -1.0 steps, which cannot be"),
    "half a step": ("state.optimizer.0.step", torch.tensor(2.5), "is 2.5 steps, which cannot be"),
    "NaN steps": ("state.optimizer.0.step", torch.tensor(torch.nan), "memory of Adam is nan"),
    "many steps": ("state.optimizer.0.step", torch.tensor(3e38), "e[+]38 steps, which cannot be"),
    "a list of steps": ("state.optimizer.0.step", torch.ones(2), "steps, which cannot be counted"),
    "generator": ("state.generator", torch.zeros(5056), "the generator's state is not one of"),
    "short generator": (
        "state.generator",
        torch.zeros(16, dtype=torch.uint8),
        "not one of torch's",
    ),
    "empty generator": (
        "state.generator",
        torch.zeros(5056, dtype=torch.uint8),
        "points outside of its numbers",
    ),
    "unknown": ("more", torch.zeros(3), "nothing is known of the tensors more"),
}


@pytest.mark.parametrize(("name", "tensor", "match"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_wrong_tensors_are_refused_in_words(make_clf, disk, path, name, tensor, match):
    make_clf(optimizer="adam", fused=False).fit(*disk).save(path)
    data = path.read_bytes()
    tensors = safetensors.torch.load(data)
    path.write_bytes(pack(check_file(data, path), {**tensors, name: tensor}))
    with pytest.raises(ValueError, match=f"{path} is marked .*{match}"):
        MLPDiskClassifier.load(path)


def test_a_generator_is_not_read_behind_its_last_number(make_clf, disk, path):
    make_clf().fit(*disk).save(path)
    data = path.read_bytes()
    tensors = safetensors.torch.load(data)
    # How many of the 624 numbers are left, whether they are there, and the place of the next.
    tensors["state.generator"][8:24].view(torch.int32)[:] = torch.tensor([624, 1, 624, 0])
    # torch takes it.
    torch.Generator().set_state(tensors["state.generator"])
    path.write_bytes(pack(check_file(data, path), tensors))
    with pytest.raises(ValueError, match="points outside of its numbers"):
        MLPDiskClassifier.load(path)


EPOCH = {"epoch": 1, "train_loss": 0.5}
WRONG_VALUES = {
    "parameter": (["params", "lr"], -1.0, "The 'lr' parameter of MLPDiskClassifier must be"),
    "large parameter": (["params", "lr"], 1e39, "Adam cannot have lr=1e|'lr' parameter"),
    "units": (["params", "hidden_layer_sizes"], [8, "a"], "hidden_layer_sizes must be"),
    "dropout": (["params", "dropout"], [0.1, 0.2], "dropout must be"),
    "class weights": (["params", "class_weight"], {"a": "b"}, "weights in class_weight must be"),
    "callbacks": (["params", "callbacks"], [1], "callbacks must be skorch callbacks"),
    "device": (["params", "device"], "toaster", "toaster"),
    "betas": (["params", "optimizer_params"], {"betas": 0.9}, "do not suit Adam"),
    "three betas": (
        ["params", "optimizer_params"],
        {"betas": [0.9] * 3},
        "too many values to unpack",
    ),
    "eps": (["params", "optimizer_params"], {"eps": "x"}, "do not suit Adam"),
    "other optimizer": (["params", "optimizer"], {"$optimizer": "Muon"}, "Muon"),
    "no params": (["params"], None, "there are no parameters"),
    "dtype": (["classes_", "dtype"], "run()", "'run..', which labels cannot have"),
    "small dtype": (["classes_", "dtype"], "|b1", "cannot be an array of dtype bool"),
    "text": (["classes_", "dtype"], "<U3", "labels such as 0 have no dtype"),
    "dates": (["classes_", "dtype"], "<M8[D]", "which labels cannot have"),
    "records": (["classes_", "dtype"], "i4,i4", "which labels cannot have"),
    "objects": (["classes_", "dtype"], "|O", "labels such as 0 have no dtype object"),
    "order": (["classes_", "labels"], [1, 0], "classes_ are not sorted"),
    "twice": (["classes_", "labels"], [1, 1], "not each there once"),
    "three": (["classes_", "labels"], [0, 1, 2], "for 2 features and 3 classes"),
    "mixed": (["classes_", "labels"], [0, "a"], "cannot be|invalid literal"),
    "none": (["classes_", "labels"], [], "are no list of labels"),
    "lists": (["classes_", "labels"], [[0], [1]], "labels are lists"),
    "float labels": (["classes_", "labels"], [0.5, 1.5], "cannot be an array of dtype int64"),
    "infinite labels": (
        ["classes_"],
        {"dtype": "<f8", "labels": [0.0, float("inf")]},
        "classes_ contains infinity",
    ),
    "features": (["n_features_in_"], 2.0, "the layers have other sizes"),
    "names": (["feature_names_in_"], [1, 2], "not a list of strings"),
    "equal names": (["feature_names_in_"], ["a", "a"], "names of features are there twice"),
    "half a character in the names": (["feature_names_in_"], ["a", "\udc80"], "surrogates"),
    "one name": (["feature_names_in_"], ["a"], "1 names are there for 2 features"),
    "settings": (["settings"], {"optimizer": "Adam"}, "the settings lack activation, .*seed"),
    "seed": (["settings", "seed"], -1, "The 'seed' parameter of the settings in the file must"),
    "large seed": (["settings", "seed"], 2**31, "The 'seed' parameter of the settings in the"),
    "lr": (["settings", "optimizer_arguments", "lr"], "auto", "not supported between"),
    "activation": (["settings", "activation"], "os", "The 'activation' parameter of the settings"),
    "argument": (
        ["settings", "optimizer_arguments", "betas"],
        [2.0, 0.9],
        "Invalid beta parameter",
    ),
    "unknown": (
        ["settings", "optimizer_arguments", "x"],
        1,
        "arguments of Adam have x, which nothing",
    ),
    "results": (["results", "diverged_"], 1, "The 'diverged_' parameter of the results in"),
    "first epoch": (["results", "first_epoch_"], 4, "first_epoch_ lies behind the end"),
    "numbers": (["history"], [1, 2, 3], "an epoch of the history are a int, not a dict"),
    "loss": (["history", 0, "train_loss"], "low", "The 'train_loss' parameter of the history"),
    "epoch": (["history", 2, "epoch"], 7, "epoch 3 of the history has the number 7"),
    "half a character": (["history", 0, "note"], "\udc80", "surrogates not allowed"),
    "half a character in a name": (["history", 0, "\udc80"], 1, "surrogates not allowed"),
    "no loss": (["history", 2], {"epoch": 3}, "lack train_loss"),
    "validation": (["history", 0, "valid_loss"], 0.5, "only some epochs of the last training"),
    "groups": (["state", "groups"], [], "groups of the state must be dicts, 1 in number"),
    "lr of group": (
        ["state", "groups", 0, "lr"],
        "fast",
        "not supported between",
    ),
    "negative lr": (["state", "groups", 0, "lr"], -0.1, "Invalid learning rate"),
    "infinite lr": (
        ["state", "groups", 0, "lr"],
        float("inf"),
        "memory of Adam is inf",
    ),
    "lr beyond float32": (["state", "groups", 0, "lr"], 1e39, "memory of Adam is 1e.39"),
    "a single beta": (["state", "groups", 0, "betas"], 0.9, "not subscriptable|cannot unpack"),
    "options": (["state", "groups", 0, "capturable"], True, "AssertionError"),
    "negative decay": (["state", "groups", 0, "weight_decay"], -0.1, "Invalid weight_decay"),
    "schedule": (["state", "groups", 0, "initial_lr"], "y", "not supported between"),
    "memory": (["state", "optimizer", 0], 1, "nothing is known of|must be a list of dicts"),
}


@pytest.mark.parametrize(("place", "value", "match"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_wrong_content_is_refused_in_words(make_clf, disk, path, place, value, match):
    make_clf(optimizer="adam", fused=False).fit(*disk).save(path)
    rewrite(path, lambda metadata, description: set_at(description, place, value))
    with pytest.raises(ValueError, match=f"(?s){path} is marked .*which it is not .*({match})"):
        MLPDiskClassifier.load(path)


def test_what_only_compiled_steps_refuse_is_refused_in_words(make_clf, disk, path):
    params = {"optimizer": "adam", "optimizer_params": {"fused": True}}
    make_clf(**params, fused=False).fit(*disk).save(path)
    assert MLPDiskClassifier.load(path).net_.optimizer_.defaults["fused"] is True
    rewrite(
        path,
        lambda metadata, description: set_at(description, ["state", "groups", 0, "maximize"], 2.0),
    )
    with pytest.raises(ValueError, match=f"{path} is marked .* invalid combination of arguments"):
        MLPDiskClassifier.load(path)


def shorten_buffer(memory, settings):
    memory["al"] = memory["al"][:1]


def lengthen_history(memory, settings):
    settings["history_size"] = 10**4


def lose_a_product(memory, settings):
    memory["ro"] = memory["ro"][1:]


def shrink_history(memory, settings):
    settings["history_size"] = 2


def put_text(memory, settings):
    memory["al"] = "text"


def hide_memory(memory, settings):
    # A gradient of 1 is so small then that a step ends before it looks at anything.
    settings["tolerance_grad"] = 1.0
    memory["H_diag"] = "text"


def widen_a_step(memory, settings):
    memory["old_stps"][0] = [0.5] * 3


def widen_a_number(memory, settings):
    memory["H_diag"] = [0.5, 0.5]


def lose_a_number(memory, settings):
    del memory["H_diag"]


def reward_large_weights(memory, settings):
    settings["weight_decay"] = -0.1


LBFGS_CHANGES = {
    shorten_buffer: "LBFGS has no places for a history_size of 4",
    lengthen_history: "LBFGS has no places for a history_size of 10000",
    put_text: "LBFGS has no places for",
    lose_a_product: "are not as long as a history_size of 4 allows",
    shrink_history: "are not as long as a history_size of 2 allows",
    widen_a_step: "the shapes of all weights and of numbers",
    widen_a_number: "the shapes of all weights and of numbers",
    lose_a_number: "the memories of LBFGS lack H_diag",
    hide_memory: "the shapes of all weights and of numbers",
    reward_large_weights: "Invalid weight_decay value: -0.1",
}


@pytest.mark.filterwarnings("ignore:max_epochs=3 ended before L-BFGS")
@pytest.mark.parametrize(
    ("change", "match"), LBFGS_CHANGES.items(), ids=[change.__name__ for change in LBFGS_CHANGES]
)
def test_what_only_later_steps_of_lbfgs_use_is_checked(make_clf, disk, path, change, match):
    params = {"lr": "auto", "optimizer_params": {"history_size": 4}}
    make_clf(optimizer="lbfgs", **params).fit(*disk).save(path)

    def change_file(metadata, description):
        [settings] = description["state"]["groups"]
        change(description["state"]["optimizer"][0], settings)

    rewrite(path, change_file)
    with pytest.raises(ValueError, match=f"{path} is marked .*({match}|nothing is known of the)"):
        MLPDiskClassifier.load(path)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq"])
def test_what_the_optimizer_needs_must_be_there(make_clf, disk, path, name):
    clf = make_clf(optimizer="adam", optimizer_params={"amsgrad": True}, fused=False).fit(*disk)
    del clf.net_.optimizer_.state[clf.net_.optimizer_.param_groups[0]["params"][2]][name]
    with pytest.raises(ValueError, match=f"would not give this .* again .*{name}"):
        clf.save(path)


def test_nothing_is_unpickled(make_clf, disk, path, monkeypatch):
    make_clf().fit(*disk).save(path)

    def fail(*args, **kwargs):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr(torch, "load", fail)
    assert MLPDiskClassifier.load(path).n_iter_ == 3


def test_the_classifier_of_the_lesson_is_small(lesson, path):
    assert len(pickle.dumps(lesson)) < 120_000
    lesson.save(path)
    assert path.stat().st_size < 120_000


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_plain_network_gives_the_probabilities(make_clf, get_weights, disk, activation):
    X = torch.tensor(disk[0], dtype=torch.float32)
    clf = make_clf(hidden_layer_sizes=(8, 4), activation=activation, dropout=0.2).fit(*disk)
    before = torch.get_rng_state()
    network = clf.to_torch()
    assert torch.equal(torch.get_rng_state(), before)
    proba = network(X)
    np.testing.assert_allclose(proba, clf.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(X, disk[0].astype(np.float32))
    assert not any(module.training for module in network.modules())
    assert not proba.requires_grad
    # The weights are its own.
    weights = get_weights(clf)
    for p in network.parameters():
        p.zero_()
    assert all(map(np.array_equal, get_weights(clf), weights))


def test_a_plain_network_knows_nothing_of_skdisk(lesson):
    network = lesson.to_torch()
    assert repr(network) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=64, bias=True)\n"
        "  (1): ReLU()\n"
        "  (2): Linear(in_features=64, out_features=64, bias=True)\n"
        "  (3): ReLU()\n"
        "  (4): Linear(in_features=64, out_features=2, bias=True)\n"
        "  (5): Softmax(dim=-1)\n"
        ")"
    )
    assert all(type(m).__module__.startswith("torch.nn.") for m in network.modules())
    buffer = io.BytesIO()
    torch.save(network, buffer)
    assert b"skdisk" not in buffer.getvalue()


def test_a_scheduler_that_is_set_again_goes_on_where_it_was(make_clf, disk, path):
    def schedule():
        return LRScheduler(StepLR, step_size=1, gamma=0.5)

    clf = make_clf(lr_schedule=schedule(), warm_start=True).fit(*disk)
    with pytest.warns(UserWarning, match="lr_schedule"):
        clf.save(path)
    loaded = MLPDiskClassifier.load(path).set_params(lr_schedule=schedule())
    histories = [c.fit(*disk).history_.drop(columns="seconds") for c in (clf, loaded)]
    pd.testing.assert_frame_equal(*histories)
