"""The callbacks of scikit-learn, for which an epoch is a task."""

import pickle
import signal

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import LossCurveDisplay, MLPDiskClassifier, make_disk

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.8 has no callbacks")
ProgressBar, ScoringMonitor = callback.ProgressBar, callback.ScoringMonitor


class Record:
    """A callback that writes down what it is told, and stops the fit when it is asked to."""

    def __init__(self, stop_at=None, fail_at=None):
        self.calls = []
        self.stop_at = stop_at
        self.fail_at = fail_at

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.calls.append(("end", context.task_name, context.task_id))
        if context.task_name == "epoch" and context.task_id == self.fail_at:
            raise RuntimeError("the callback failed")
        return context.task_name == "epoch" and context.task_id == self.stop_at

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.task_name))


def make_calls(n_epochs):
    """Make what is written down of a whole fit."""
    epochs = [(when, "epoch", i) for i in range(n_epochs) for when in ("begin", "end")]
    first, last = ("begin", "fit", 0), ("end", "fit", 0)
    return [("setup", "fit"), first, *epochs, last, ("teardown", "fit")]


def test_epochs_are_tasks(make_clf, get_weights, disk, fused):
    record = Record()
    clf = make_clf(fused=fused).set_callbacks(record)
    assert clf.fit(*disk) is clf
    assert record.calls == make_calls(3)
    assert clf.fused_ is fused
    plain = make_clf(fused=fused).fit(*disk)
    assert [w.tobytes() for w in get_weights(clf)] == [w.tobytes() for w in get_weights(plain)]


def test_a_callback_may_stop_the_fit(make_clf, disk):
    record = Record(stop_at=1)
    clf = make_clf(max_epochs=10).set_callbacks(record).fit(*disk)
    assert clf.n_iter_ == 2
    assert record.calls == make_calls(2)


def test_a_failing_callback_is_torn_down_and_leaves_the_estimator_as_it_was(make_clf, disk):
    record = Record(fail_at=1)
    clf = make_clf().set_callbacks(record)
    before = vars(clf).copy()
    with pytest.raises(RuntimeError, match="the callback failed"):
        clf.fit(*disk)
    assert vars(clf) == before
    assert record.calls[-1] == ("teardown", "fit")


class Interrupt(Record):
    """A callback that is interrupted as the second epoch ends."""

    def on_fit_task_end(self, estimator, context):
        super().on_fit_task_end(estimator, context)
        if (context.task_name, context.task_id) == ("epoch", 1):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("end_process")
def test_an_interrupted_fit_has_whole_epochs_and_does_not_count_as_ended(make_clf, disk, fused):
    clf = make_clf(fused=fused).set_callbacks(record := Interrupt())
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*disk)
    assert ("end", "fit", 0) not in record.calls
    assert record.calls[-1] == ("teardown", "fit")
    assert clf.n_iter_ in (1, 2)
    whole = make_clf(max_epochs=clf.n_iter_, fused=fused).fit(*disk)
    np.testing.assert_array_equal(clf.predict_proba(disk[0]), whole.predict_proba(disk[0]))


class Keep(Record):
    """A callback that keeps what each epoch has made of the estimator."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None, **others):
        if context.task_name == "epoch":
            self.calls.append(pickle.dumps(fitted_estimator))


def test_a_callback_may_keep_the_estimator_of_each_epoch(make_clf, disk, fused):
    X, _ = disk
    make_clf(fused=fused).set_callbacks(keep := Keep()).fit(*disk)
    kept = [pickle.loads(call) for call in keep.calls if isinstance(call, bytes)]
    assert len(kept) == 3
    for n_epochs, clf in enumerate(kept, start=1):
        whole = make_clf(max_epochs=n_epochs, fused=fused).fit(*disk)
        np.testing.assert_array_equal(clf.predict_proba(X), whole.predict_proba(X))


class KeepAsItIs(Record):
    """A callback that keeps the estimator of each epoch, and what it predicts then."""

    def __init__(self, X):
        super().__init__()
        self.X, self.kept = X, []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.kept.append((fitted_estimator, fitted_estimator.predict_proba(self.X)))


def test_an_estimator_that_is_kept_stays_that_of_its_epoch(make_clf, disk, tmp_path, fused):
    X, y = disk
    keep = KeepAsItIs(X)
    make_clf(fused=fused).set_callbacks(keep).fit(X, y, X_val=X[:50], y_val=y[:50])
    assert len(keep.kept) == 3
    for n_epochs, (clf, proba) in enumerate([*keep.kept], start=1):
        assert clf.n_iter_ == len(LossCurveDisplay.from_estimator(clf).train_loss[0]) == n_epochs
        np.testing.assert_array_equal(clf.predict_proba(X), proba)
        assert clf.best_loss_ == min(clf.validation_loss_curve_)
        with pytest.warns(UserWarning, match="nothing from set_callbacks"):
            clf.save(tmp_path / "epoch.safetensors")
        loaded = MLPDiskClassifier.load(tmp_path / "epoch.safetensors")
        np.testing.assert_array_equal(loaded.predict_proba(X), proba)
        # The others stay as they are where one goes on.
        clf.partial_fit(X, y)


class HookModules(Record):
    """A callback that has all modules of torch looked at, from the third epoch on."""

    handle = None

    def on_fit_task_end(self, estimator, context):
        super().on_fit_task_end(estimator, context)
        if self.calls[-1] == ("end", "epoch", 1):
            self.handle = torch.nn.modules.module.register_module_forward_hook(self.look)

    def look(self, module, inputs, output):
        """Change nothing."""


def test_the_best_epoch_is_kept_where_the_kernel_was_left_after_it(make_clf, disk):
    X, y = disk
    # Of the wrong labels the loss rises in the long run; its lowest epoch here is the second.
    params = {"early_stopping": True, "n_iter_no_change": 5, "max_epochs": 5}
    hook = HookModules()
    try:
        clf = make_clf(**params).set_callbacks(hook).fit(X, y, X_val=X, y_val=1 - y)
    finally:
        hook.handle.remove()
    assert clf.best_epoch_ == 2
    assert clf.n_iter_ == 5
    assert not clf.fused_
    second = make_clf(max_epochs=2).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), second.predict_proba(X))


def test_the_scores_are_those_of_the_epochs(make_clf):
    X, y = make_disk(200, random_state=0, as_frame=True)
    monitor = ScoringMonitor(scoring="neg_log_loss")
    clf = make_clf(max_epochs=4).set_callbacks(monitor).fit(X, y)
    scores = monitor.get_logs().data_as_pandas.query("task_name == 'epoch'")["neg_log_loss"]
    assert len(scores) == 4
    for n_epochs, score in enumerate(scores, start=1):
        stopped = make_clf(max_epochs=n_epochs).set_callbacks(
            last := ScoringMonitor(scoring="neg_log_loss")
        )
        stopped.fit(X, y)
        assert score == pytest.approx(last.get_logs().data[0]["neg_log_loss"])
    assert scores.nunique() == 4
    assert pickle.loads(pickle.dumps(clf)).n_iter_ == 4


def test_weights_reach_the_scorer(make_clf, disk):
    X, y = disk
    monitor = ScoringMonitor(scoring="accuracy")
    clf = make_clf(max_epochs=20).set_callbacks(monitor).fit(X, y, sample_weight=y + 0.5)
    [row] = [row for row in monitor.get_logs().data if row["task_name"] == "fit"]
    assert row["accuracy"] == pytest.approx(clf.score(X, y, y + 0.5))


def test_the_progress_bar_runs(make_clf, disk, capsys):
    clf = make_clf(early_stopping=True, n_iter_no_change=2, tol=1).set_callbacks(ProgressBar())
    clf.fit(*disk)
    assert "MLPDiskClassifier - fit" in capsys.readouterr().out


def test_callbacks_come_through_pipelines_and_searches(make_clf, disk, capsys):
    monitor = ScoringMonitor(scoring="accuracy")
    clf = make_clf().set_callbacks(monitor)
    make_pipeline(StandardScaler(), clone(clf)).set_callbacks(ProgressBar()).fit(*disk)
    assert "MLPDiskClassifier - fit" in capsys.readouterr().out
    search = GridSearchCV(clf, {"lr": [0.1, 0.2]}, cv=2, n_jobs=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*disk)
    assert "MLPDiskClassifier - fit" in capsys.readouterr().out
    logs = monitor.get_logs().data_as_pandas
    assert (logs["task_name"] == "epoch").sum() == 5 * 3


def test_skorch_callbacks_are_told_from_those_of_scikit_learn(make_clf, disk):
    with pytest.raises(
        TypeError, match=r"skorch callbacks .* Callbacks of scikit-learn are set by"
    ):
        make_clf(callbacks=[Record()]).fit(*disk)
