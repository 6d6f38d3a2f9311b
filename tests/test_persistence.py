"""Keeping an estimator in a file, and shipping its network without skdisk."""

import io
import json
import os
import pickle
import stat

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import safetensors.torch
import sklearn
import torch
from sklearn.callback import ProgressBar
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EpochScoring, LRScheduler
from torch.optim.lr_scheduler import StepLR

from skdisk import MLPDiskClassifier, make_disk
from skdisk._module import ACTIVATIONS
from skdisk._persistence import _check_file, _pack
from skdisk._state import copy_state


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


def rewrite(path, change):
    """Change the content of a file as somebody would who knows the format."""
    data = path.read_bytes()
    metadata = _check_file(data, path)
    description = json.loads(metadata["estimator"])
    change(metadata, description)
    metadata["estimator"] = json.dumps(description)
    path.write_bytes(_pack(metadata, safetensors.torch.load(data)))


def assert_same_state(clf, loaded):
    states = [copy_state(fitted.net_) for fitted in (clf, loaded)]
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
    assert loaded.net_.diverged_ == clf.net_.diverged_ is not None
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
        ("tol", np.inf, np.inf),
        ("tol", np.nan, np.nan),
        ("shuffle", np.bool_(False), False),
        ("optimizer", torch.optim.RMSprop, torch.optim.RMSprop),
        ("optimizer_params", {"betas": (0.8, 0.9)}, {"betas": (0.8, 0.9)}),
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


def test_what_scikit_learn_keeps_besides_parameters_is_named_too(make_clf, disk, path):
    clf = make_clf().fit(*disk).set_callbacks(ProgressBar())
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)
    match = "nothing from set_callbacks, nothing from set_fit_request"
    with pytest.warns(UserWarning, match=match):
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
        raise OSError("no space left")

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            clf.save(path)
    assert list(path.parent.iterdir()) == [path]
    assert MLPDiskClassifier.load(str(path)).n_iter_ == 1
    clf.save(path)
    assert MLPDiskClassifier.load(path).n_iter_ == 2


def test_a_link_stays_and_others_may_read_the_file(make_clf, disk, path):
    link = path.with_name("link")
    link.symlink_to(path)
    make_clf().fit(*disk).save(link)
    assert link.is_symlink()
    ordinary = path.with_name("ordinary")
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_subclass_loads_itself_and_the_global_generators_are_left_alone(make_clf, disk, path):
    class Mine(MLPDiskClassifier):
        pass

    make_clf().fit(*disk).save(path)
    before = torch.get_rng_state()
    assert type(Mine.load(path)) is Mine
    assert torch.equal(torch.get_rng_state(), before)


def test_a_device_that_is_not_here_becomes_the_cpu(make_clf, disk, path):
    clf = make_clf().fit(*disk)
    clf.set_params(device="cuda:99").save(path)
    with pytest.warns(UserWarning, match="'cuda:99' is not available here. .* device='cpu'"):
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
    "no estimator": (_pack({"format": "skdisk.MLPDiskClassifier"}, {}), "which it is not .Key"),
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
    with pytest.raises(ValueError, match=r"version 12, while .* up to 1.* 9\.8: upgrade skdisk"):
        MLPDiskClassifier.load(path)


HOSTILE = {
    "code": (["settings", "optimizer"], {"$optimizer": "os.system"}, "'os.system' is not an opt"),
    "module": (["settings", "optimizer"], {"$optimizer": "lr_scheduler"}, "is not an optimizer"),
    "string": (["settings", "optimizer"], "os.system", "TypeError"),
    "kind": (["params", "lr"], {"$call": "os.system"}, "'os.system' is not an optimizer"),
    "parameter": (["params", "learning_rate"], 1.0, "unexpected keyword argument"),
    "sizes": (["n_features_in_"], 10**12, "the layers have other sizes"),
    "tensor": (["state", "generator"], {"$tensor": "no"}, "KeyError: 'no'"),
    "type": (["classes_", "dtype"], "run()", "data type 'run"),
}


@pytest.mark.parametrize(("place", "value", "match"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_refused_in_words(make_clf, disk, path, place, value, match):
    def change(metadata, description):
        *outer, name = place
        for key in outer:
            description = description[key]
        description[name] = value

    make_clf().fit(*disk).save(path)
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"{path} is marked .*which it is not .*{match}"):
        MLPDiskClassifier.load(path)


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


# torch.export copies its own deprecated class.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
def test_a_plain_network_is_exported_to_onnx(make_clf, disk, path):
    X, y = 5 + 3 * disk[0], np.array(["out", "in"])[disk[1]]
    pipeline = make_pipeline(StandardScaler(), make_clf()).fit(X, y)
    path = path.with_suffix(".onnx")
    torch.onnx.export(
        pipeline[-1].to_torch(),
        (torch.zeros(2, 2),),
        path,
        input_names=["X"],
        output_names=["proba"],
        dynamic_shapes=({0: "n_rows"},),
        dynamo=True,
        verbose=False,
    )
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    for n_rows in (1, 7, 200):
        scaled = pipeline[0].transform(X[:n_rows]).astype(np.float32)
        [proba] = session.run(["proba"], {"X": scaled})
        np.testing.assert_allclose(proba, pipeline.predict_proba(X[:n_rows]), atol=1e-6)
        np.testing.assert_array_equal(
            pipeline.classes_[proba.argmax(axis=1)], pipeline.predict(X[:n_rows])
        )
