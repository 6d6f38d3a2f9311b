"""An interrupt at any moment: all is as it was before the call, or stands at a whole epoch.

Python can raise KeyboardInterrupt where a function of its own begins and where one of C has
ended: a profile function is called at just these moments, and sends the signal of Ctrl-C there.
SIGTERM is handled as servers do it, by a function that raises SystemExit.

Signals at random moments of all that takes time are in `test_signals.py`.
"""

import copy
import pickle
import random
import signal
import sys
import warnings
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, LRScheduler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk
from skdisk._inputs import file_format

pytestmark = pytest.mark.usefixtures("end_process")

X, Y = make_disk(40, random_state=0)
# Where things are set and set back.
DELICATE = {
    *("grad_mode.py", "_contextlib.py", "contextlib.py", "warnings.py", "_ufunc_config.py"),
    "surroundings.py",
}
N_DELICATE, EVERY = 12, 1999
OPEN_FILES = Path("/proc/self/fd")
ERRORS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}
# Where torch sets its modes.
MODES = {"grad_mode.py", "optimizer.py", "_contextlib.py"}


class Interrupter:
    """Note the moments at which Python can raise KeyboardInterrupt; send a signal at one."""

    def __init__(self, moment=None, number=signal.SIGINT):
        self.moment = moment
        self.number = number
        self.moments = []

    def __call__(self, frame, event, arg):
        if event not in ("call", "c_return"):
            return
        if len(self.moments) == self.moment:
            sys.setprofile(None)
            signal.raise_signal(self.number)
        code = frame.f_code
        self.moments.append((Path(code.co_filename).name, code.co_name, frame.f_lineno, event))

    def run(self, call, errors=None):
        """Run the call; tell whether it was interrupted. A list, if given, keeps the exception."""
        sys.setprofile(self)
        try:
            call()
        except ERRORS[self.number] as error:
            if errors is not None:
                errors.append(error)
            return True
        finally:
            sys.setprofile(None)
        return False


def choose(moments, campaign):
    """Choose moments, and one of two signals for each.

    Of each line of code the last and another one, or of some delicate lines the last, and a few
    others.
    """
    rng = random.Random(campaign.seed)
    if campaign.is_long:
        places = {}
        for i, place in enumerate(moments):
            places.setdefault(place, []).append(i)
        chosen = {i for there in places.values() for i in (there[-1], rng.choice(there))}
    else:
        delicate = {place: i for i, place in enumerate(moments) if place[0] in DELICATE}
        delicate = rng.sample([*delicate.values()], min(N_DELICATE, len(delicate)))
        # Where all epochs are whole.
        ends = [i for i, place in enumerate(moments) if place[1] == "tell_the_end"]
        chosen = {*delicate, *ends[:1], *range(0, len(moments), EVERY)}
    return [(i, rng.choice((signal.SIGINT, signal.SIGTERM))) for i in sorted(chosen)]


def read_surroundings():
    numpy_state = np.random.get_state()  # noqa: NPY002 - the generator that must not change
    return (
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()),
        (id(warnings.filters), [*warnings.filters], np.geterr()),
        (torch.get_rng_state().numpy().tobytes(), numpy_state[1].tobytes(), numpy_state[2:]),
        (X.tobytes(), Y.tobytes()),
        (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
    )


def list_open_files():
    return [link.readlink() for link in OPEN_FILES.iterdir() if link.is_symlink()]


def read_lent(clf):
    """Read what the user has lent to a classifier."""
    callbacks = [*(clf.callbacks or []), clf.lr_schedule]
    attributes = [vars(callback).copy() for callback in callbacks if hasattr(callback, "__dict__")]
    # Not as text: NumPy writes "..." for an array in whose writing it was interrupted before.
    name, numbers, *others = clf.random_state.get_state()
    return (name, numbers.tobytes(), others), attributes


def read_weights(clf):
    return [p.numpy(force=True).copy() for p in clf.module_.parameters()]


def check_parameters(clf):
    kinds = {(type(p), p.dtype) for p in clf.module_.parameters()}
    assert kinds == {(torch.nn.Parameter, torch.float32)}


def make_clf(**params):
    small = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "max_epochs": 3}
    small |= {"lr_schedule": "constant", "random_state": np.random.RandomState(0)}
    return MLPDiskClassifier(**{"hidden_layer_sizes": (4,)} | small | params)


class Broken(Exception):
    """What a callback raises."""


class Keep(Callback):
    """A callback that keeps something at each hook, and fails at one."""

    def __init__(self, hook=None, epoch=0):
        self.hook = hook
        self.epoch = epoch
        self.kept = None

    def initialize(self):
        self.kept = "nothing"
        return self

    def _keep(self, hook, net):
        self.kept = hook
        if hook == self.hook and len(net.history) >= self.epoch:
            raise Broken

    def on_train_begin(self, net, **kwargs):
        self._keep("on_train_begin", net)

    def on_epoch_end(self, net, **kwargs):
        self._keep("on_epoch_end", net)

    def on_train_end(self, net, **kwargs):
        self._keep("on_train_end", net)


def make_callbacks():
    return {"callbacks": [Keep()], "lr_schedule": LRScheduler("StepLR", step_size=1)}


def make_lbfgs():
    return {"optimizer": "lbfgs", "optimizer_params": {"max_iter": 3}, "lr": "auto"}


CASES = {
    "fused": (dict, nullcontext),
    "Adam": (lambda: {"optimizer": "adam"}, nullcontext),
    "L-BFGS": (make_lbfgs, nullcontext),
    "batch by batch": (lambda: {"fused": False}, nullcontext),
    "early stopping": (lambda: {"early_stopping": True, "n_iter_no_change": 1}, nullcontext),
    "callbacks": (make_callbacks, nullcontext),
    "without gradients": (dict, torch.no_grad),
    "in inference mode": (lambda: {"fused": False}, torch.inference_mode),
}


@pytest.fixture(autouse=True)
def _two_threads():
    """Give torch another number of threads than it trains a small network with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# What is raised while Python closes a generator is told, and goes no further.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:max_epochs=")
@pytest.mark.parametrize(("make_params", "mode"), CASES.values(), ids=CASES)
def test_an_interrupted_fit_leaves_whole_epochs_or_nothing(make_params, mode, campaign):
    expected = {}
    for max_epochs in (1, 2, 3):
        whole = make_clf(**make_params() | {"max_epochs": max_epochs}).fit(X, Y)
        expected[whole.n_iter_] = read_weights(whole)
    recorder = Interrupter()
    with mode():
        recorder.run(partial(make_clf(**make_params()).fit, X, Y))
    outcomes, chosen = [], choose(recorder.moments, campaign)
    for (moment, number), n_threads in zip(chosen, cycle((2, 3)), strict=False):
        torch.set_num_threads(n_threads)
        clf = make_clf(**make_params())
        attributes, lent = vars(clf).copy(), read_lent(clf)
        with mode():
            before = read_surroundings()
            is_interrupted = Interrupter(moment, number).run(partial(clf.fit, X, Y))
            where = recorder.moments[moment]
            assert read_surroundings() == before, where
        if not hasattr(clf, "net_"):
            assert is_interrupted
            assert vars(clf) == attributes, where
            assert read_lent(clf) == lent, where
            outcomes.append(0)
            continue
        outcomes.append(clf.n_iter_)
        # What ends a training is raised; only what comes while Python closes a generator is not.
        assert is_interrupted or clf.n_iter_ == whole.n_iter_, where
        assert read_lent(clf)[0] != lent[0], where
        assert len(clf.loss_curve_) == clf.n_iter_
        assert all(map(np.array_equal, read_weights(clf), expected[clf.n_iter_])), where
        assert not clf.module_.training, where
        check_parameters(clf)
    assert len({*outcomes}) > 1
    figures = {"places": len({*recorder.moments}), "interrupts": len(outcomes)}
    campaign.record(**figures, kept_epochs=sum(n > 0 for n in outcomes))


@pytest.mark.filterwarnings("ignore:max_epochs=")
def test_weights_are_set_back_where_torch_had_others_in_their_place():
    # Where all rows are one batch, torch puts float64 copies of them into the module for a while;
    # L-BFGS computes many losses, and changes the weights between, in one epoch.
    expected = read_weights(make_clf(**make_lbfgs() | {"max_epochs": 2}).fit(X, Y))
    # Twice: the first time, torch and Python fill caches.
    for _ in range(2):
        recorder = Interrupter()
        recorder.run(partial(make_clf(**make_lbfgs()).fit, X, Y))
    places = [place[0] for place in recorder.moments]
    changing = [i for i, name in enumerate(places) if name == "_named_member_accessor.py"]
    changed = [i for i in changing if places[i + 1] == "contextlib.py"]
    for moment in (*changing[-30:-1:7], changed[-1] + 1):
        clf = make_clf(**make_lbfgs())
        assert Interrupter(moment).run(partial(clf.fit, X, Y))
        assert clf.n_iter_ == 2
        assert all(map(np.array_equal, read_weights(clf), expected)), recorder.moments[moment]
        check_parameters(clf)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:The file cannot hold.*random_state")
@pytest.mark.parametrize(
    "method", ["partial_fit", "predict", "predict_proba", "to_torch", "save", "load"]
)
def test_other_interrupted_calls_leave_all_as_it_was(method, campaign, tmp_path):
    clf, path = make_clf().fit(X, Y), tmp_path / "file"
    clf.save(path)
    arguments = {"partial_fit": (X, Y), "to_torch": (), "save": (path,), "load": (path,)}
    arguments = arguments.get(method, (X,))
    recorder = Interrupter()
    recorder.run(partial(getattr(clf, method), *arguments))
    clf = make_clf().fit(X, Y)
    clf.save(path)
    weights = read_weights(clf)
    chosen = choose(recorder.moments, campaign)
    for moment, number in chosen:
        before, lent, n_epochs = read_surroundings(), read_lent(clf), clf.n_iter_
        call = partial(getattr(clf, method), *arguments)
        is_interrupted = Interrupter(moment, number).run(call)
        where = recorder.moments[moment]
        assert read_surroundings() == before, where
        # The old file or the new one, and no temporary file beside it.
        assert [*tmp_path.iterdir()] == [path], where
        if method == "save":
            loaded = read_weights(MLPDiskClassifier.load(path))
            assert all(map(np.array_equal, loaded, weights)), where
        if clf.n_iter_ > n_epochs:
            # The epoch had ended: the interrupt came too late for the call, or was told only.
            assert method == "partial_fit"
            clf = make_clf().fit(X, Y)
            continue
        assert is_interrupted or method != "partial_fit"
        assert read_lent(clf) == lent, where
        assert all(map(np.array_equal, read_weights(clf), weights)), where
    campaign.record(places=len({*recorder.moments}), interrupts=len(chosen))


# What makes a step of nothing, or a net, with torch's modes changed for a while.
CHECKED = {"optimizer": "adam", "optimizer_params": {"eps": 1e-7}, "fused": False}
CALLS = {
    "fit": lambda clf: clf.fit(X, Y),
    "partial_fit": lambda clf: clf.partial_fit(X, Y, classes=[0, 1]),
    "net_": lambda clf: clf.net_,
    "copy": copy.deepcopy,
    "load": lambda clf: pickle.loads(clf),
}


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="looks for open files where Linux lists them")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_save_leaves_no_file_open(tmp_path):
    write = partial(file_format.replace_file, tmp_path / "model", b"text")
    left_over = tmp_path / f".skdisk-{'0' * 32}"
    left_over.touch()
    noted = Interrupter()
    noted.run(write)
    before = list_open_files()
    for moment in range(len(noted.moments)):
        left_over.touch()
        # An exception holds on to all that the call had.
        errors = []
        Interrupter(moment).run(write, errors)
        assert list_open_files() == before, noted.moments[moment]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CALLS)
def test_calls_that_change_modes_of_torch_leave_them_where_they_are_interrupted(name):
    def make():
        clf = make_clf(**CHECKED | {"fused": "auto"} if name == "net_" else CHECKED)
        if name in ("net_", "copy", "load"):
            clf.fit(X, Y)
        return pickle.dumps(clf) if name == "load" else clf

    # The first time, torch and Python fill caches.
    CALLS[name](make())
    recorder = Interrupter()
    recorder.run(partial(CALLS[name], make()))
    changing = [i for i, place in enumerate(recorder.moments) if place[0] in MODES]
    # Those before a training.
    for moment in changing[:80]:
        with torch.enable_grad():
            clf, before = make(), read_surroundings()
            Interrupter(moment).run(partial(CALLS[name], clf))
            assert read_surroundings() == before, recorder.moments[moment]


# What NumPy does about overflows is changed for a while by itself, scikit-learn and skdisk.
CALLS_OF_NUMPY = {
    "make_disk": lambda clf, search: make_disk(5, random_state=0),
    "predict": lambda clf, search: clf.predict(X),
    "predict_proba": lambda clf, search: clf.predict_proba(X.tolist()),
    "decision_function": lambda clf, search: clf.decision_function(X),
    "score": lambda clf, search: clf.score(X, Y.tolist(), sample_weight=Y + 1),
    "hidden_activations": lambda clf, search: clf.hidden_activations(X.tolist()),
    "fit of an ensemble": lambda clf, search: MLPDiskEnsemble(clf, 1, random_state=0).fit(X, Y),
    "from_search": lambda clf, search: MLPDiskEnsemble.from_search(search, X, Y, 1),
    "predictions of an ensemble": lambda clf, search: search.predict(X),
}


@pytest.mark.parametrize("name", CALLS_OF_NUMPY)
def test_what_numpy_does_about_overflows_is_as_before_where_a_call_is_interrupted(name):
    clf = make_clf(max_epochs=1, random_state=0).fit(X, Y)
    if name == "from_search":
        search = GridSearchCV(clf, {"lr": [0.1]}, cv=2).fit(X, Y)
    else:
        search = MLPDiskEnsemble(clf, n_members=1, random_state=0).fit(X, Y)
    call = partial(CALLS_OF_NUMPY[name], clf, search)
    # Unlike all that is set by those who change it.
    with np.errstate(all="print"):
        # The first time, modules are imported.
        call()
        recorder, before = Interrupter(), read_surroundings()
        recorder.run(call)
        # Each of NumPy's by the moment before it, which tells whose call it is: the last time.
        moments = [*enumerate(pairwise(recorder.moments), 1)]
        changing = {places: i for i, places in moments if places[1][0] == "_ufunc_config.py"}
        assert changing or name == "hidden_activations"
        for moment in changing.values():
            assert Interrupter(moment).run(call), recorder.moments[moment]
            assert read_surroundings() == before, recorder.moments[moment]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_ensemble_is_that_of_the_earlier_fit_or_the_new_one_as_a_whole():
    member = make_clf(max_epochs=1, random_state=0)
    earlier = MLPDiskEnsemble(member, n_members=1, random_state=0).fit(X, Y)
    recorder, names = Interrupter(), np.where(Y == 1, "in", "out")
    recorder.run(partial(copy.copy(earlier).fit, X, names))
    for moment in range(len(recorder.moments) - 60, len(recorder.moments)):
        ensemble = copy.copy(earlier)
        Interrupter(moment).run(partial(ensemble.fit, X, names))
        member = ensemble.estimators_[0]
        assert member.classes_.tolist() == ensemble.classes_.tolist(), recorder.moments[moment]


@pytest.mark.parametrize(
    "function",
    [
        *("on_train_begin", "on_epoch_begin", "run_single_epoch", "train_step", "infer"),
        *("train_step_single", "get_loss", "on_epoch_end", "on_train_end", "notify"),
    ],
)
def test_ctrl_c_is_raised_wherever_it_comes_in_skorch(function):
    # The first fit imports what it needs.
    make_clf(fused=False).fit(X, Y)
    recorder = Interrupter()
    recorder.run(partial(make_clf(fused=False).fit, X, Y))
    begin = ("net.py", function, "call")
    calls = [
        i for i, (*where, _, event) in enumerate(recorder.moments) if (*where, event) == begin
    ]
    for moment in {calls[0], calls[-1]}:
        clf = make_clf(fused=False)
        assert Interrupter(moment).run(partial(clf.fit, X, Y)), recorder.moments[moment]


class PressAndCatch(Callback):
    """A callback that presses Ctrl-C at some hook, and catches what that raises."""

    def __init__(self, hook):
        setattr(self, hook, self.press)

    def press(self, net, **kwargs):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class PressAtTheEnd:
    """An object that presses Ctrl-C when it ends, where Python lets no exception out."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


class EndAnObject(Callback):
    """A callback at whose hook such an object ends."""

    def __init__(self, hook):
        setattr(self, hook, lambda net, **kwargs: PressAtTheEnd() and None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fused", ["auto", False])
@pytest.mark.parametrize("make", [PressAndCatch, EndAnObject])
@pytest.mark.parametrize(
    ("hook", "n_epochs"),
    [("on_train_begin", 0), ("on_epoch_begin", 1), ("on_epoch_end", 1), ("on_train_end", 3)],
)
def test_ctrl_c_is_raised_though_something_else_has_caught_it(fused, make, hook, n_epochs):
    clf = make_clf(callbacks=[make(hook)], fused=fused)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert getattr(clf, "n_iter_", 0) == n_epochs


def test_what_was_interrupted_while_it_was_printed_is_saved_as_it_is(tmp_path):
    clf = make_clf(random_state=0, fused=False).fit(X, Y)

    def show():
        return repr(clf.net_.classes)

    noted = Interrupter()
    noted.run(show)
    interrupters = [Interrupter(moment) for moment in range(len(noted.moments))]
    assert sum(interrupter.run(show) for interrupter in interrupters) > 0
    # A warning would be an error.
    clf.save(tmp_path / "model.safetensors")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("fused", ["auto", False])
def test_a_fit_is_the_same_whatever_torch_is_told_about_gradients(mode, fused):
    expected = make_clf(fused=fused).fit(X, Y)
    with mode():
        clf = make_clf(fused=fused).fit(X, Y)
    assert all(map(np.array_equal, read_weights(clf), read_weights(expected)))
    clf.module_(torch.zeros(1, 2)).sum().backward()
    assert all(p.grad is not None for p in clf.module_.parameters())


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "defaults",
    [
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        # It holds no numbers: what lies on it cannot be computed with.
        lambda: torch.device("meta"),
    ],
    ids=["float64", "bfloat16", "on meta"],
)
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"dropout": 0.3, "optimizer": "adam", "optimizer_params": {"eps": 1e-6}},
        {"dropout": 0.3, "optimizer": "adam", "early_stopping": True, "fused": False},
        {"optimizer": "nadam"},
        {"optimizer": "lbfgs", "lr": "auto"},
    ],
    ids=["kernel", "adam", "loop", "nadam", "lbfgs"],
)
@pytest.mark.filterwarnings("ignore:max_epochs=:sklearn.exceptions.ConvergenceWarning")
def test_all_is_the_same_whatever_torch_makes_of_a_tensor_by_default(tmp_path, params, defaults):
    path = tmp_path / "model.safetensors"

    def run():
        clf = make_clf(random_state=0, **params).fit(X, Y)
        # A notebook shows it so.
        clf._repr_html_()
        results = [clf.predict_proba(X), clf.hidden_activations(X), *read_weights(clf)]
        results.append(pickle.loads(pickle.dumps(clf)).predict_proba(X))
        clf.save(path)
        loaded = MLPDiskClassifier.load(path).partial_fit(X, Y)
        loaded.save(path)
        return [*results, loaded.predict_proba(X), clf.partial_fit(X, Y).predict_proba(X)]

    expected = run()
    before = torch.empty(0)
    with defaults():
        found, after = run(), torch.empty(0)
        assert (after.dtype, after.device) != (before.dtype, before.device)
    assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize(
    ("hook", "epoch"), [("on_train_begin", 0), ("on_epoch_end", 2), ("on_train_end", 3)]
)
def test_a_failed_fit_gives_back_what_it_was_lent(hook, epoch):
    breaks, schedule = Keep(hook, epoch), LRScheduler("StepLR", step_size=1)
    clf = make_clf(callbacks=[breaks], lr_schedule=schedule)
    lent, attributes = read_lent(clf), vars(clf).copy()
    with pytest.raises(Broken):
        clf.fit(X, Y)
    assert read_lent(clf) == lent
    assert vars(clf) == attributes
    # After a fit that succeeds, what the callbacks have learned is on them, as in skorch.
    breaks.hook = None
    clf.fit(X, Y)
    assert breaks.kept == "on_train_end"
    # The schedule is a parameter, of which a fit uses a copy.
    assert not hasattr(schedule, "lr_scheduler_")


@pytest.mark.parametrize(
    ("params", "y", "match"),
    [
        ({"class_weight": {0: 0.0, 1: 0.0}}, Y, "is zero for all rows"),
        (
            {"optimizer": "adam", "momentum": 0.0, "optimizer_params": {"eps": "1"}},
            Y,
            "do not suit",
        ),
        ({"hidden_layer_sizes": 10**12}, Y, "hidden_layer_sizes=.* asks for"),
    ],
    ids=["weights", "optimiser", "memory"],
)
def test_a_fit_that_is_refused_draws_nothing(params, y, match):
    clf = make_clf(**params)
    lent = read_lent(clf)
    with pytest.raises(ValueError, match=match):
        clf.fit(X, y)
    assert read_lent(clf) == lent


def test_a_training_is_not_lost_where_warnings_are_errors():
    # Two epochs in a row without any progress would stop it.
    clf = make_clf(early_stopping=True, n_iter_no_change=2, tol=0.0, lr=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Warning, match="still falling"):
            clf.fit(X, Y)
    assert clf.n_iter_ == 3
