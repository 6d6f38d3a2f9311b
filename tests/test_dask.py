"""Searches on a Dask cluster: the same results, whatever happens to the workers."""

import os
import signal

import joblib
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster, get_client
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from skdisk import FusedGridSearchCV, MLPDiskClassifier

GRID = {"lr": [0.01, 0.02, 0.05, 0.1], "batch_size": [16, 32]}


@pytest.fixture(scope="module")
def client():
    """Connect to a cluster of two worker processes on this machine."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def fit_on_cluster(search, data):
    with joblib.parallel_config(backend="dask"):
        get_client().wait_for_workers(2, timeout=30)
        return search.fit(*data)


def count_bytes():
    """Count what was sent between the processes of this machine since it started."""
    counters = psutil.net_io_counters(pernic=True)
    return sum(c.bytes_sent for name, c in counters.items() if name.startswith("lo"))


def get_scores(search):
    results = search.cv_results_
    return np.array([results[name] for name in sorted(results) if "_test_score" in name])


class NoteProcess(Callback):
    """Leave a file named by the process that trains."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, net, **kwargs):
        (self.folder / str(os.getpid())).touch()


class KillItsWorker(Callback):
    """Kill the process in its second epoch, once."""

    def __init__(self, marker):
        self.marker = marker

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            try:
                # Only one process can make the file.
                os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


def test_the_search_of_scikit_learn_gives_the_local_results(client, clf, data):
    local = GridSearchCV(clf, GRID, cv=3).fit(*data)
    remote = fit_on_cluster(GridSearchCV(clf, GRID, cv=3), data)
    np.testing.assert_array_equal(get_scores(remote), get_scores(local))
    assert remote.best_params_ == local.best_params_


def test_a_fused_search_gives_the_local_results_and_trains_on_the_workers(
    client, clf, data, tmp_path
):
    local = FusedGridSearchCV(clf, GRID, cv=3, max_stack=4, refit=False).fit(*data)
    clf.set_params(callbacks=[NoteProcess(tmp_path)])
    remote = FusedGridSearchCV(clf, GRID, cv=3, max_stack=4, refit=False)
    fit_on_cluster(remote, data)
    np.testing.assert_array_equal(get_scores(remote), get_scores(local))
    assert {k for stacks in remote.fusion_report_["stacks"] for k in stacks} == set(range(6))
    processes = {int(path.name) for path in tmp_path.iterdir()}
    assert processes
    assert processes <= set(client.run(os.getpid).values())


def test_the_data_are_sent_once_not_with_every_stack(client):
    X, y = make_classification(50_000, 20, random_state=0)
    X = X.astype(np.float32)
    clf = MLPDiskClassifier((4,), max_epochs=1, batch_size=1024, random_state=0)
    grid = {"lr": np.logspace(-3, -1, 16).tolist()}
    search = FusedGridSearchCV(clf, grid, cv=2, max_stack=2, refit=False)
    before = count_bytes()
    fit_on_cluster(search, (X, y))
    sent = count_bytes() - before
    # Through the scheduler to two workers are three ways; sixteen stacks would be 32.
    assert sent < 8 * (X.nbytes + y.nbytes)


def test_a_search_survives_the_death_of_a_worker(client, clf, data, tmp_path):
    local = FusedGridSearchCV(clf, GRID, cv=3, max_stack=4).fit(*data)
    workers = set(client.run(os.getpid).values())
    clf.set_params(callbacks=[KillItsWorker(tmp_path / "killed")])
    # Without the last fit on all data, which is made in this process.
    search = FusedGridSearchCV(clf, GRID, cv=3, max_stack=4, refit=False)
    fit_on_cluster(search, data)
    assert (tmp_path / "killed").exists()
    client.wait_for_workers(2, timeout=30)
    assert len(workers & set(client.run(os.getpid).values())) == 1
    np.testing.assert_array_equal(get_scores(search), get_scores(local))
    assert search.best_params_ == local.best_params_
    assert search.fusion_report_["reason"].isna().all()
