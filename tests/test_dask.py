"""Searches on a Dask cluster: the same results, whatever happens to the workers."""

import os
import signal

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster, get_client
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch.callbacks import Callback

from skdisk import MLPDiskEnsemble

GRID = {"lr": [0.01, 0.02, 0.05, 0.1], "batch_size": [16, 32]}


@pytest.fixture(scope="module")
def client():
    """Connect to a cluster of two worker processes of two threads on this machine."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def run_on_cluster(function, data):
    """Call a function of the data on the cluster, each worker of which gets them at the start."""
    client = get_client()
    client.wait_for_workers(2, timeout=30)
    # joblib sends them under the same keys; the death of a worker must not lose them.
    sent = client.scatter([*data], broadcast=True)
    client.replicate(sent)
    with joblib.parallel_config("dask", scatter=[*data]):
        return function(*data)


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


def test_a_search_gives_the_local_results_and_trains_on_the_workers(client, clf, data, tmp_path):
    local = GridSearchCV(clf, GRID, cv=3, scoring="neg_log_loss", refit=False).fit(*data)
    clf.set_params(callbacks=[NoteProcess(tmp_path)])
    search = GridSearchCV(clf, GRID, cv=3, scoring="neg_log_loss", refit=False)
    remote = run_on_cluster(search.fit, data)
    np.testing.assert_array_equal(get_scores(remote), get_scores(local))
    assert remote.best_params_ == local.best_params_
    processes = {int(path.name) for path in tmp_path.iterdir()}
    assert processes
    assert processes <= set(client.run(os.getpid).values())


def test_cross_validation_and_ensembles_train_the_local_networks(client, clf, data, get_weights):
    def validate(X, y):
        return cross_validate(clf, X, y, cv=3, return_estimator=True)["estimator"]

    ensemble = MLPDiskEnsemble(clf, n_members=3, random_state=0)
    for train in (validate, lambda X, y: ensemble.fit(X, y).estimators_):
        local, remote = train(*data), run_on_cluster(train, data)
        for one, other in zip(local, remote, strict=True):
            for expected, found in zip(get_weights(one), get_weights(other), strict=True):
                np.testing.assert_array_equal(found, expected)


def test_a_search_survives_the_death_of_a_worker(client, clf, data, tmp_path):
    local = GridSearchCV(clf, GRID, cv=3).fit(*data)
    workers = set(client.run(os.getpid).values())
    clf.set_params(callbacks=[KillItsWorker(tmp_path / "killed")])
    # Without the last fit on all data, which is made in this process.
    search = run_on_cluster(GridSearchCV(clf, GRID, cv=3, refit=False).fit, data)
    assert (tmp_path / "killed").exists()
    client.wait_for_workers(2, timeout=30)
    assert len(workers & set(client.run(os.getpid).values())) == 1
    np.testing.assert_array_equal(get_scores(search), get_scores(local))
    assert search.best_params_ == local.best_params_
