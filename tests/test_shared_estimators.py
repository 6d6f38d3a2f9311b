"""Threads that share estimators, forks in any order, asyncio: the results of one thread alone.

Whatever reads an estimator may do so in many threads at once. One that several threads fit is as
one of these fits has left it, as a whole; what is read meanwhile is that of the fit before or
after. Calls of `partial_fit` that overlap do not add up.
"""

import asyncio
import multiprocessing
import pickle
import random
import sys
import threading
import time

import numpy as np
import pytest
import torch

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk

N_THREADS = 8
X, Y = make_disk(60, random_state=0)

pytestmark = [
    pytest.mark.filterwarnings("ignore:max_epochs="),
    # Newer versions of Python warn of every fork where there are threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def make_clf(**params):
    small = {"hidden_layer_sizes": (5,), "lr": 0.1, "max_epochs": 3, "random_state": 0}
    return MLPDiskClassifier(**small | params)


def make_lbfgs():
    return make_clf(optimizer="lbfgs", lr="auto", optimizer_params={"max_iter": 2})


def make_ensemble():
    return MLPDiskEnsemble(make_clf(), n_members=2, random_state=0)


OWN = {
    "the kernel": make_clf,
    "dropout": lambda: make_clf(optimizer="adam", dropout=0.3),
    "early stopping": lambda: make_clf(early_stopping=True, n_iter_no_change=2),
    "the loop of skorch": lambda: make_clf(fused=False),
    "L-BFGS": make_lbfgs,
    "an ensemble": make_ensemble,
}
# What is asked of an estimator that is shared; each gives what can be compared.
READS = {
    "predict": lambda clf, path: clf.predict(X).tobytes(),
    "predict_proba": lambda clf, path: clf.predict_proba(X).tobytes(),
    "score": lambda clf, path: clf.score(X, Y),
    "decision_function": lambda clf, path: clf.decision_function(X).tobytes(),
    "hidden_activations": lambda clf, path: clf.hidden_activations(X).tobytes(),
    "weights": lambda clf, path: [w.tobytes() for w in clf.coefs_ + clf.intercepts_],
    "history_": lambda clf, path: clf.history_.drop(columns="seconds").to_csv(),
    "module_": lambda clf, path: read_module(clf.module_),
    "to_torch": lambda clf, path: read_module(clf.to_torch()),
    "save": lambda clf, path: clf.save(path) or read_training(MLPDiskClassifier.load(path)),
    "pickle": lambda clf, path: read_training(pickle.loads(pickle.dumps(clf))),
}


def read_module(module):
    return [p.numpy(force=True).tobytes() for p in module.parameters()]


def read_training(clf):
    """Read all that a training leaves, but for how long it took."""
    if isinstance(clf, MLPDiskEnsemble):
        return [read_training(member) for member in clf.estimators_]
    return read_module(clf.module_), clf.history_.drop(columns="seconds").to_csv()


def run_in_threads(*targets):
    """Call functions in threads, which begin together; return what they do, or raise an error."""
    # A thread that does not come to its start must not keep the others waiting for ever.
    start = threading.Barrier(len(targets), timeout=60)
    found, errors = [None] * len(targets), []

    def run(i, target):
        try:
            start.wait()
            found[i] = target()
        except BaseException as error:
            errors.append(error)

    # Those of a pool cannot fork: at its end the child would wait for the thread that it is.
    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    return found


@pytest.fixture
def _changing_often():
    """Let Python change from thread to thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_changing_often")
def test_threads_get_from_own_and_shared_estimators_what_one_gets(campaign, tmp_path):
    made = {name: make().fit(X, Y) for name, make in OWN.items()}
    fitted = {name: read_training(clf) for name, clf in made.items()}
    shared = make_clf().fit(X, Y)
    alone = {name: read(shared, tmp_path / "alone") for name, read in READS.items()}
    # A copy that nobody has asked for a net yet, again and again.
    described = pickle.dumps(shared)
    current = [pickle.loads(described)]
    n_fits, n_reads = [], []
    end = time.monotonic() + campaign.choose(1, 120)

    def work(number):
        rng = random.Random(f"{campaign.seed} {number}")
        # All write to two files.
        paths = [tmp_path / f"model_{number % 2}", tmp_path / f"own_{number}"]
        while time.monotonic() < end:
            if rng.random() < 0.2:
                name = rng.choice([*OWN])
                assert read_training(OWN[name]().fit(X, Y)) == fitted[name]
                n_fits.append(name)
            if rng.random() < 0.3:
                current[0] = pickle.loads(described)
            name = rng.choice([*READS])
            assert READS[name](current[0], rng.choice(paths)) == alone[name], name
            n_reads.append(name)

    before = torch.get_num_threads()
    run_in_threads(*[lambda number=number: work(number) for number in range(N_THREADS)])
    assert torch.get_num_threads() == before
    names = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in names if name.startswith(".skdisk-")]
    campaign.record(threads=N_THREADS, fits=len(n_fits), reads=len(n_reads))


@pytest.mark.usefixtures("_changing_often")
def test_threads_that_ask_for_the_net_at_once_get_one_and_disturb_nobody():
    clf = make_clf().fit(X, Y)
    described, expected = pickle.dumps(clf), clf.predict_proba(X)
    for _ in range(20):
        shared = pickle.loads(described)
        reads = [
            lambda shared=shared: shared.net_,
            lambda shared=shared: shared.predict_proba(X),
            lambda shared=shared: shared.n_iter_,
        ]
        found = run_in_threads(*reads * 2)
        assert found[0] is found[3] is shared.net_
        assert all(np.array_equal(proba, expected) for proba in found[1::3])
        assert found[2::3] == [3, 3]


@pytest.mark.usefixtures("_changing_often")
def test_what_threads_fit_and_read_at_once_is_one_of_the_fits(campaign):
    labels = [Y, 1 - Y]
    fitted = [read_training(make_clf().fit(X, y)) for y in labels]
    probas = [make_clf().fit(X, y).predict_proba(X).tobytes() for y in labels]
    shared, is_over = make_clf().fit(X, Y), threading.Event()
    n_fits, n_reads = campaign.choose(20, 1000), []

    def fit(y):
        for _ in range(n_fits):
            shared.fit(X, y)
        is_over.set()

    def read():
        while not is_over.is_set():
            assert shared.predict_proba(X).tobytes() in probas
            n_reads.append(1)

    run_in_threads(lambda: fit(labels[0]), lambda: fit(labels[1]), read, read)
    assert read_training(shared) in fitted
    campaign.record(fits=2 * n_fits, reads=len(n_reads))


@pytest.mark.usefixtures("_changing_often")
def test_overlapping_calls_of_partial_fit_leave_whole_epochs():
    clf, expected = make_clf().fit(X, Y), {}
    described = pickle.dumps(clf)
    for _ in range(8):
        clf.partial_fit(X, Y)
        expected[clf.n_iter_] = read_training(clf)
    shared = pickle.loads(described)
    run_in_threads(*[lambda: [shared.partial_fit(X, Y) for _ in range(4)]] * 2)
    # Those that overlap begin from the same epoch, and the last one stays.
    assert 3 + 4 <= shared.n_iter_ <= 3 + 8
    assert read_training(shared) == expected[shared.n_iter_]


def test_asyncio_fits_in_its_threads_as_one_does_alone():
    expected = {name: read_training(make().fit(X, Y)) for name, make in OWN.items()}

    async def fit(name):
        clf = await asyncio.to_thread(OWN[name]().fit, X, Y)
        return await asyncio.to_thread(read_training, clf)

    async def fit_all():
        return await asyncio.gather(*map(fit, OWN))

    assert dict(zip(OWN, asyncio.run(fit_all()), strict=True)) == expected


def check(described, expected):
    """Predict with an estimator of the parent, and fit others, as it did."""
    clf, name, fitted = pickle.loads(described) if isinstance(described, bytes) else described
    assert clf.predict_proba(X).tobytes() == expected
    assert read_training(OWN[name]().fit(X, Y)) == fitted


def check_in_child(kind, *args):
    """Do so in a child of some kind; fail where it hangs or fails."""
    child = multiprocessing.get_context(kind).Process(target=check, args=args)
    child.start()
    child.join(120)
    child.kill()
    assert child.exitcode == 0, kind


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork safely")
def test_children_of_every_kind_predict_and_fit_between_fits_of_their_parent(campaign):
    kinds = campaign.choose(["fork"], ["fork", "fork", "fork", "spawn", "forkserver"])
    rng, n_children = random.Random(campaign.seed), dict.fromkeys(kinds, 0)
    fitted = {name: read_training(make().fit(X, Y)) for name, make in OWN.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(campaign.choose(4, 25)):
            name, kind = rng.choice([*OWN]), rng.choice(kinds)
            clf = OWN[name]().fit(X, Y)
            expected = clf.predict_proba(X).tobytes()
            args = pickle.dumps((clf, name, fitted[name])), expected
            run = [lambda kind=kind, args=args: check_in_child(kind, *args)]
            if rng.random() < 0.5:
                # The parent fits meanwhile, and forks in another thread.
                run.append(lambda name=name: OWN[name]().fit(X, Y))
                run_in_threads(*run)
            else:
                run[0]()
            assert read_training(OWN[name]().fit(X, Y)) == fitted[name]
            n_children[kind] += 1
    finally:
        torch.set_num_threads(before)
    campaign.record(**n_children)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork safely")
@pytest.mark.parametrize("name", OWN)
def test_workers_that_are_forked_after_a_fit_share_it(name):
    # As servers do that load a model before they start their workers.
    clf = OWN[name]().fit(X, Y)
    expected, fitted = clf.predict_proba(X).tobytes(), read_training(clf)
    context = multiprocessing.get_context("fork")
    args = (clf, name, fitted), expected
    workers = [context.Process(target=check, args=args) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        worker.kill()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert clf.predict_proba(X).tobytes() == expected
