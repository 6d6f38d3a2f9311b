"""What fit and partial_fit promise: all or nothing, going on, randomness, copies, output."""

import copy
import gc
import io
import pickle
import re
import signal

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EpochScoring
from skorch.exceptions import DeviceWarning

from skdisk import MLPDiskClassifier, make_disk


class Fail(Callback):
    """A callback that fails when the training has gone on for some time."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) % 2 == 0:
            raise RuntimeError("the disk is full")


def test_the_defaults_are_those_of_the_docs():
    expected = {
        "hidden_layer_sizes": (64, 64),
        "activation": "relu",
        "dropout": 0.0,
        "lr": "auto",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": "auto",
        "optimizer": "sgd",
        "optimizer_params": None,
        "lr_schedule": "cosine",
        "clip_grad_norm": None,
        "max_epochs": "auto",
        "batch_size": 32,
        "shuffle": True,
        "class_weight": None,
        "early_stopping": False,
        "validation_fraction": 0.1,
        "n_iter_no_change": 10,
        "tol": 1e-4,
        "callbacks": None,
        "fused": "auto",
        "warm_start": False,
        "random_state": None,
        "device": "cpu",
        "verbose": 0,
    }
    assert MLPDiskClassifier().get_params() == expected


@pytest.mark.parametrize(
    ("n_rows", "params", "n_epochs"),
    [
        (20, {}, 300),
        (100, {}, 75),
        (320, {}, 30),
        (1000, {}, 30),
        (100, {"batch_size": 100}, 300),
        (100, {"batch_size": 7}, 30),
        # Of 40 rows, 4 are held out and 36 are two batches.
        (40, {"early_stopping": True, "n_iter_no_change": 200}, 150),
    ],
    ids=str,
)
def test_few_rows_are_trained_on_for_at_least_300_steps(n_rows, params, n_epochs):
    X, y = make_disk((n_rows // 2, n_rows - n_rows // 2), random_state=0)
    clf = MLPDiskClassifier((4,), random_state=0, **params).fit(X, y)
    assert clf.n_iter_ == n_epochs
    assert clf.history_["lr"].iloc[0] == 0.04
    assert clf.history_["lr"].iloc[-1] < 0.001


def test_rows_without_weight_are_not_counted():
    X, y = make_disk((50, 50), random_state=0)
    weights = np.repeat([0.0, 1.0, 2.0], [80, 10, 10])
    clf = MLPDiskClassifier((4,), random_state=0).fit(X, y, sample_weight=weights)
    assert clf.n_iter_ == 300


def test_and_is_learned_as_it_comes():
    X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 0, 0, 1]
    for seed in range(10):
        clf = MLPDiskClassifier(hidden_layer_sizes=(), random_state=seed).fit(X, y)
        assert clf.score(X, y) == 1


def test_partial_fit_goes_on_learning_call_after_call():
    X, y = make_disk(300, random_state=0)
    clf = MLPDiskClassifier(random_state=0)
    for _ in range(150):
        clf.partial_fit(X, y, classes=[0, 1])
    assert set(clf.history_["lr"]) == {0.04}
    assert clf.score(X, y) > 0.85
    first, last = (np.mean(clf.loss_curve_[part]) for part in (slice(30, 60), slice(120, 150)))
    assert last < first


def test_fitted_attributes(make_clf, disk):
    clf = make_clf(max_epochs=4).fit(*disk)
    assert clf.classes_.tolist() == [0, 1]
    assert clf.n_features_in_ == 2
    assert not hasattr(clf, "feature_names_in_")
    assert clf.n_iter_ == 4
    assert len(clf.loss_curve_) == 4
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    assert isinstance(clf.history_, pd.DataFrame)
    assert clf.history_["epoch"].tolist() == [1, 2, 3, 4]
    assert clf.history_["train_loss"].tolist() == clf.loss_curve_
    assert isinstance(clf.module_, torch.nn.Module)
    assert clf.module_ is clf.net_.module_


@pytest.mark.parametrize(
    "name", ["net_", "module_", "n_iter_", "loss_curve_", "history_", "classes_"]
)
def test_an_unfitted_estimator_has_no_fitted_attributes(name):
    assert not hasattr(MLPDiskClassifier(), name)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "score"])
def test_predicting_before_fit_is_an_error(disk, method):
    arguments = disk if method == "score" else disk[:1]
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(MLPDiskClassifier(), method)(*arguments)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_failing_fit_leaves_an_unfitted_estimator_unfitted(make_clf, disk, method):
    X, y = disk
    clf = make_clf(callbacks=[Fail()])
    before = vars(clf).copy()
    with pytest.raises(RuntimeError, match="the disk is full"):
        clf.fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        getattr(clf, method)(X, y[:-1], **({} if method == "fit" else {"classes": [0, 1]}))
    assert vars(clf) == before
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clf.predict(X)


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_failing_fit_leaves_an_earlier_fit_as_it_was(make_clf, get_weights, disk, warm_start):
    X, y = disk
    clf = make_clf(warm_start=warm_start).fit(pd.DataFrame(X, columns=["a", "b"]), y)
    attributes, weights, loss_curve = vars(clf).copy(), get_weights(clf), clf.loss_curve_
    clf.callbacks = attributes["callbacks"] = [Fail()]
    with pytest.raises(RuntimeError, match="the disk is full"):
        clf.fit(pd.DataFrame(X, columns=["a", "b"]), y)
    if not warm_start:
        with pytest.raises(ValueError, match="Unknown label type"):
            clf.fit(np.ones((200, 5)), np.linspace(0, 1, 200))
    assert vars(clf) == attributes
    assert clf.loss_curve_ == loss_curve
    assert all(map(np.array_equal, get_weights(clf), weights))


def test_fitting_again_forgets_column_names(make_clf, disk):
    X, y = disk
    clf = make_clf().fit(pd.DataFrame(X, columns=["a", "b"]), y)
    assert clf.feature_names_in_.tolist() == ["a", "b"]
    clf.fit(X, y)
    assert not hasattr(clf, "feature_names_in_")


@pytest.mark.parametrize("make_seed", [lambda: 7, lambda: np.random.RandomState(7)])
def test_the_same_random_state_gives_bitwise_equal_weights(make_clf, get_weights, disk, make_seed):
    fits = []
    for global_seed in (0, 1):
        np.random.seed(global_seed)  # noqa: NPY002 - must have no effect
        torch.manual_seed(global_seed)
        fits.append(get_weights(make_clf(random_state=make_seed()).fit(*disk)))
    assert all(map(np.array_equal, *fits))


def test_another_random_state_gives_other_weights(make_clf, get_weights, disk):
    rng = np.random.RandomState(0)
    states = [1, 2, None, None, rng, rng]
    fits = [get_weights(make_clf(random_state=state).fit(*disk))[0] for state in states]
    assert len({weights.tobytes() for weights in fits}) == len(states)


@pytest.mark.parametrize("random_state", [None, 0])
def test_global_generators_are_bitwise_unchanged(make_clf, disk, random_state):
    def read_generators():
        numpy_state = np.random.get_state()  # noqa: NPY002 - the generator that must not change
        return torch.get_rng_state().numpy().tobytes(), numpy_state[1].tobytes(), numpy_state[2:]

    before = read_generators()
    clf = make_clf(random_state=random_state).fit(*disk)
    clf.partial_fit(*disk)
    clf.predict(disk[0])
    assert read_generators() == before


@pytest.mark.parametrize("params", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_partial_fit_is_one_epoch_and_keeps_the_momentum(make_clf, get_weights, disk, params):
    X, y = disk
    clf = make_clf(**params)
    for n_epochs in (1, 2, 3):
        clf.partial_fit(X, y, classes=[0, 1])
        assert clf.n_iter_ == n_epochs
    whole = make_clf(max_epochs=3, **params).fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))
    assert clf.loss_curve_ == whole.loss_curve_


@pytest.mark.parametrize("params", [{}, {"momentum": 0.9}])
def test_warm_start_goes_on_for_max_epochs_and_keeps_the_momentum(
    make_clf, get_weights, disk, params
):
    clf = make_clf(max_epochs=2, warm_start=True, **params).fit(*disk).fit(*disk)
    whole = make_clf(max_epochs=4, **params).fit(*disk)
    assert clf.n_iter_ == 4
    assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))


def test_without_warm_start_fit_begins_anew(make_clf, get_weights, disk):
    clf = make_clf().fit(*disk)
    first = get_weights(clf)
    assert clf.fit(*disk).n_iter_ == 3
    assert all(map(np.array_equal, get_weights(clf), first))


def test_a_warm_start_takes_the_new_learning_rate(make_clf, get_weights, disk):
    clf = make_clf(warm_start=True).fit(*disk)
    before = get_weights(clf)
    clf.set_params(lr=1e-12).fit(*disk)
    assert clf.net_.optimizer_.param_groups[0]["lr"] == 1e-12
    for old, new in zip(before, get_weights(clf), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-8)


@pytest.mark.parametrize("change", [{"hidden_layer_sizes": (9,)}, {"activation": "tanh"}])
def test_a_warm_start_with_other_layers_is_an_error(make_clf, disk, change):
    clf = make_clf(warm_start=True).fit(*disk).set_params(**change)
    with pytest.raises(ValueError, match=r"(?s)other layers:.*Fit anew with warm_start=False"):
        clf.fit(*disk)


def test_verbose_0_prints_nothing(make_clf, disk, capfd):
    make_clf(verbose=0).fit(*disk).partial_fit(*disk)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("max_epochs", "printed"), [(3, [1, 2, 3]), (97, [1, *range(10, 97, 10), 97])]
)
def test_verbose_1_prints_about_ten_lines(make_clf, disk, capsys, max_epochs, printed):
    make_clf(verbose=1, max_epochs=max_epochs).fit(*disk)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "lr", "seconds"]
    assert [int(line.split()[0]) for line in lines[1:]] == printed


def test_verbose_1_prints_columns_of_the_history(make_clf, disk, capsys):
    X, y = disk
    scores = EpochScoring("f1", name="f1", lower_is_better=False)
    clf = make_clf(verbose=1, callbacks=[scores]).fit(X, y, X_val=X[:50], y_val=y[:50])
    printed = pd.read_csv(io.StringIO(capsys.readouterr().out), sep=r"\s+")
    assert [*printed] == [name for name in clf.history_ if name != "f1_best"]
    pd.testing.assert_frame_equal(printed, clf.history_[[*printed]], rtol=1e-3, check_dtype=False)


def test_verbose_1_says_which_epoch_is_kept(make_clf, disk, capsys):
    X, y = disk
    # Nearly half of the labels to validate on are wrong: the loss rises soon.
    data = {"X_val": X[:50], "y_val": np.where(np.arange(50) % 5 < 2, 1 - y[:50], y[:50])}
    for early_stopping in (True, False):
        clf = make_clf(verbose=1, max_epochs=40, lr=0.5, early_stopping=early_stopping)
        clf.fit(X, y, **data)
        kept = f"Kept: the weights of epoch {clf.best_epoch_}, with the lowest valid_loss, "
        assert (kept in capsys.readouterr().out) == early_stopping
    assert clf.best_epoch_ < clf.n_iter_


class Screen(io.StringIO):
    """A terminal that keeps each text that is written at once."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def write(self, text):
        self.texts.append(text)
        return len(text)


def test_the_lines_of_fits_in_threads_are_whole_and_tell_whose_they_are(
    make_clf, disk, monkeypatch
):
    monkeypatch.setattr("sys.stdout", screen := Screen())
    search = GridSearchCV(make_clf(verbose=1), {"lr": [0.1, 0.2]}, cv=2, refit=False, n_jobs=2)
    with joblib.parallel_config("threading"):
        search.fit(*disk)
    monkeypatch.undo()
    lines = [re.fullmatch(r"(fit \d+): (.*)\n", text) for text in filter(None, screen.texts)]
    assert all(lines)
    of_fits = {}
    for line in lines:
        of_fits.setdefault(line[1], []).append(line[2])
    assert len(of_fits) == 4
    titles = [title for title, *_ in of_fits.values()]
    assert sum("lr=0.1" in title for title in titles) == 2
    assert sum("lr=0.2" in title for title in titles) == 2
    for _, head, *epochs in of_fits.values():
        assert head.split()[0] == "epoch"
        assert [line.split()[0] for line in epochs] == ["1", "2", "3"]


def test_worker_processes_print_what_was_asked_and_share_the_cores(
    make_clf, disk, capfd, monkeypatch, has_kernel
):
    def fit(clf):
        clf.fit(*disk)
        return clf.fused_, torch.get_num_threads()

    def fit_in_workers(clf):
        results = joblib.Parallel(n_jobs=2)(joblib.delayed(fit)(clf) for _ in range(2))
        return *zip(*results, strict=True), capfd.readouterr()

    # Where it is set, joblib leaves the number of threads to it.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    # Workers of an earlier test write where its output went.
    get_reusable_executor().shutdown()
    fused, n_threads, printed = fit_in_workers(make_clf())
    assert printed == ("", "")
    assert fused == (has_kernel, has_kernel)
    assert max(n_threads) * 2 <= max(2, joblib.cpu_count())
    *_, printed = fit_in_workers(make_clf(verbose=1))
    lines = printed.out.splitlines()
    assert len({re.match(r"fit \d+-\d+: ", line)[0] for line in lines}) == 2
    assert len(lines) == 2 * 5


def test_verbose_2_shows_a_progress_bar_with_the_loss(make_clf, disk, capsys):
    X, y = disk
    clf = make_clf(verbose=2, max_epochs=4).fit(X, y, X_val=X[:9], y_val=y[:9])
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4" in err
    assert f"train_loss={clf.loss_curve_[-1]:.3g}, valid_loss=" in err
    assert pickle.loads(pickle.dumps(clf)).n_iter_ == 4


def test_the_bar_of_a_training_that_is_stopped_ends_full(make_clf, disk, capsys):
    clf = make_clf(verbose=2, max_epochs=400, early_stopping=True, tol=0.1, n_iter_no_change=2)
    clf.fit(*disk)
    last = capsys.readouterr().err.split("\r")[-1]
    assert clf.n_iter_ < 400
    assert last.startswith("100%")
    assert f"{clf.n_iter_}/{clf.n_iter_} " in last
    assert f"best_epoch={clf.best_epoch_}" in last


def test_the_bar_of_a_training_that_fails_is_closed(make_clf, disk, capsys):
    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise RuntimeError("as a callback may")

    with pytest.raises(RuntimeError, match="as a callback may") as kept:
        make_clf(verbose=2, max_epochs=4, callbacks=[Failing()]).fit(*disk)
    assert re.search(r" 2/4 .*\n$", capsys.readouterr().err)
    make_clf(verbose=2).fit(*disk)
    # The frames that the exception holds hold the bar: the next one must not be drawn below it.
    assert kept.tb
    assert "\x1b[A" not in capsys.readouterr().err


def test_ctrl_c_while_the_bar_ends_keeps_the_training(make_clf, disk, monkeypatch):
    def interrupt(progress):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        progress.close()

    clf = make_clf(verbose=2, max_epochs=4)
    monkeypatch.setattr("skdisk._training.callbacks.ShowProgress.close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*disk)
    assert clf.n_iter_ == 4


class FullDisk(io.StringIO):
    """A file that lets nothing be written."""

    def write(self, text):
        raise OSError("No space left on device")


class FullDiskLater(FullDisk):
    """One that is full after a while."""

    n_written = 0

    def write(self, text):
        self.n_written += 1
        return len(text) if self.n_written < 3 else super().write(text)


def make_closed():
    file = io.StringIO()
    file.close()
    return file


SCREENS = {
    "none": lambda: None,
    "closed": make_closed,
    "full": FullDisk,
    "full after a while": FullDiskLater,
    "one of few letters": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
    "no file": object,
}


@pytest.mark.parametrize("make_screen", SCREENS.values(), ids=SCREENS)
@pytest.mark.parametrize("verbose", [1, 2])
def test_output_never_costs_a_training(make_clf, disk, monkeypatch, verbose, make_screen):
    expected = make_clf().fit(*disk)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", make_screen())
    clf = make_clf(verbose=verbose).fit(*disk)
    assert clf.partial_fit(*disk).n_iter_ == 4
    monkeypatch.undo()
    assert clf.loss_curve_[:3] == expected.loss_curve_
    # A bar that could not be drawn has left nothing that fails later.
    gc.collect()


def through_joblib(clf):
    buffer = io.BytesIO()
    joblib.dump(clf, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


@pytest.mark.parametrize(
    "copy_clf",
    [
        lambda clf: pickle.loads(pickle.dumps(clf)),
        through_joblib,
        lambda clf: pickle.loads(cloudpickle.dumps(clf)),
        copy.deepcopy,
    ],
    ids=["pickle", "joblib", "cloudpickle", "deepcopy"],
)
def test_a_fitted_estimator_survives_copying(make_clf, get_weights, disk, copy_clf):
    X, y = disk
    clf = make_clf(momentum=0.9).fit(X, y)
    copied = copy_clf(clf)
    np.testing.assert_array_equal(copied.predict_proba(X), clf.predict_proba(X))
    assert copied.loss_curve_ == clf.loss_curve_
    # Training goes on in the copy as in the original, and in the copy only.
    copied.partial_fit(X, y)
    assert clf.n_iter_ == 3
    clf.partial_fit(X, y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(copied)))


def test_a_clone_is_unfitted_and_has_the_parameters(make_clf, disk):
    clf = make_clf(callbacks=[Fail()], hidden_layer_sizes=[3, 4])
    clf.set_params(max_epochs=1).fit(*disk)
    cloned = clone(clf)
    assert not hasattr(cloned, "net_")
    assert cloned.callbacks[0] is not clf.callbacks[0]
    assert {**cloned.get_params(), "callbacks": None} == {**clf.get_params(), "callbacks": None}


def test_a_pickle_of_a_net_on_cuda_is_loaded_without_cuda(make_clf, disk):
    X, y = disk
    if torch.cuda.is_available():
        pytest.skip("this process has CUDA: loading without it cannot be seen in it")
    clf = make_clf().fit(X, y)
    expected = clf.predict_proba(X)
    clf.net_.device = clf.device = "cuda"
    pickled = pickle.dumps(clf)
    with pytest.warns(DeviceWarning, match="(?i)cuda"):
        loaded = pickle.loads(pickled)
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
