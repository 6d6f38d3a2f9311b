"""Drawn calls of all that is public, and what is promised of each, whatever is passed.

A case is an estimator and some calls on it, drawn with a seed and a number. Each call succeeds,
and its result is as described; or it is refused with a ValueError, TypeError or NotFittedError in
words that name an argument, and leaves the estimator as it was. Neither changes an argument or
anything global, or writes to the terminal.

`python tests/fuzz_calls.py SEED NUMBER` runs one case and says what it calls.
`python tests/fuzz_calls.py SEED FIRST STOP FILE` runs many and writes to the file where it is, and
last what it has found.
"""

import contextlib
import copy
import faulthandler
import json
import linecache
import os
import pickle
import random
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pandas as pd
import polars as pl
import torch
import tqdm
from fuzz_parameters import (
    ANYTHING,
    OF_CLASSIFIER,
    OF_DISK,
    OF_ENSEMBLE,
    draw_parameter,
    draw_params,
)
from fuzz_values import (
    CHANGED_LABELS,
    CHANGED_ROWS,
    CHANGED_WEIGHTS,
    HELD_LABELS,
    HELD_ROWS,
    draw_form,
)
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.pipeline import Pipeline
from skorch.callbacks import LRScheduler

from skdisk import LossCurveDisplay, MLPDiskClassifier, MLPDiskEnsemble, make_disk

# Its thread, which looks after all bars of a process, stays.
tqdm.tqdm.monitor_interval = 0

HANG_SECONDS = 20
REFUSALS = (ValueError, TypeError, NotFittedError, MemoryError)
WARNINGS = (UserWarning, ConvergenceWarning, DataConversionWarning)
# What refuses in words of its own; from elsewhere an error comes from the depths.
SPEAKERS = re.compile(r"/(skdisk|sklearn|joblib)/")
# Sentences of scikit-learn that name no argument; its users and its checks look for them.
STOCK = re.compile(
    "Expected 2D array|Found array with|inconsistent numbers of samples|Complex data not|"
    "Unknown label type|[Ff]eature names|is not fitted yet|Sample weights must|np.matrix is not",
)
# What errors call a parameter that do not call it by its name.
ALIASES = {"hidden_layer_sizes": "layer_sizes", "callbacks": "[Cc]allback"}


class Broken(AssertionError):
    """What is promised of a call does not hold."""


def expect(is_so, what):
    """Raise if a promise is broken."""
    if not is_so:
        raise Broken(what)


def read_globals():
    """Read all that no call may change."""
    generator = np.random.get_state()  # noqa: NPY002 - the generator that must not change
    return {
        "threads of torch": torch.get_num_threads(),
        "modes of torch": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
        "generator of torch": torch.get_rng_state().numpy().tobytes(),
        "generators of GPUs": [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()],
        "generator of NumPy": (generator[1].tobytes(), generator[2:]),
        "generator of Python": random.getstate(),
        "warning filters": (id(warnings.filters), [*warnings.filters]),
        "errors of NumPy": np.geterr(),
        "working directory": os.getcwd(),
        "threads": threading.active_count(),
    }


def take_print(value):
    """Describe a value so that a change of it is seen."""
    if isinstance(value, sparse.spmatrix | sparse.sparray):
        # SciPy notes on a matrix what it has found out about it.
        own = {k: v for k, v in vars(value).items() if not k.startswith("_has_")}
        return [(name, take_print(own[name])) for name in sorted(own)]
    if isinstance(value, np.ndarray) and value.dtype != object:
        mask = np.ma.getmaskarray(value).tobytes() if isinstance(value, np.ma.MaskedArray) else b""
        about = (value.dtype, value.shape, value.strides, value.flags.writeable)
        return about, np.asarray(value).tobytes(), mask
    if isinstance(value, pd.DataFrame):
        # A pickle has what pandas has found out about it, too.
        columns = [value.iloc[:, i] for i in range(value.shape[1])]
        columns = [(column.dtype, column.tolist()) for column in columns]
        return repr((value.shape, [*value.columns], [*value.index], columns))
    if isinstance(value, pd.Series | pd.Index):
        return repr((value.dtype, value.tolist()))
    # Polars ends a process that prints a date of a year it does not know.
    if isinstance(value, np.ndarray | list | tuple | dict | pl.DataFrame | pl.Series):
        with contextlib.suppress(Exception):
            return pickle.dumps(value)
    return repr(value)


def take_print_of_fit(estimator):
    """Describe what a fit has left on an estimator."""
    own = {name: id(value) for name, value in vars(estimator).items()}
    members = getattr(estimator, "estimators_", [])
    states = [vars(item).get("_state") for item in (estimator, *members)]
    return own, [take_print_of_state(state) for state in states if state is not None]


def take_print_of_state(state):
    """Describe the state of a training."""
    parts = [take_print(state.generator.get_state().numpy()), repr(state.history[-1:])]
    if state.net is None:
        memory = state.arrays.memory or {}
        arrays = [state.arrays.parameters, *(memory[name] for name in sorted(memory))]
    else:
        arrays = [p.numpy(force=True) for p in state.net.module_.parameters()]
        arrays += [
            value.numpy(force=True)
            for values in state.net.optimizer_.state.values()
            for value in values.values()
            if torch.is_tensor(value)
        ]
    return parts, len(state.history), [take_print(array) for array in arrays]


def raises_by_itself(params):
    """Tell whether there are callbacks, a schedule, or other steps, which may raise anything."""
    callbacks = params.get("callbacks")
    has_callbacks = isinstance(callbacks, list | tuple) and len(callbacks)
    has_steps = isinstance(params.get("estimator"), Pipeline)
    return has_callbacks or has_steps or isinstance(params.get("lr_schedule"), LRScheduler)


def check_refusal(error, names):
    """Check that an error was raised on purpose, and names what it is about."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno)
    on_purpose = line.lstrip().startswith("raise") and SPEAKERS.search(frame.filename)
    expect(on_purpose, f"comes from the depths, {Path(frame.filename).name}, {line.strip()!r}")
    patterns = [ALIASES.get(name, rf"\b{re.escape(name)}\b") for name in names]
    message = str(error)
    expect(any(re.search(p, message) for p in patterns) or STOCK.search(message), "names nothing")
    expect(len(message) > 15, "says too little")


class Case:
    """An estimator, data that suit it, and calls on it that are drawn."""

    def __init__(self, seed, number):
        self.seed, self.number = seed, number
        self.rng = rng = random.Random(f"{seed} {number}")
        numbers = np.random.RandomState(rng.randrange(2**32))
        n, d, n_classes = rng.randint(6, 14), rng.randint(1, 4), rng.randint(2, 3)
        self.X = numbers.uniform(-1, 1, (n, d)).round(3)
        kinds = [np.arange(3), np.array(["a", "b", "c"]), np.array([0.0, 1.0, 7.0])]
        kinds += [np.array(["a", "b", "c"], object), np.array([5, -2, 2**40])]
        kinds += [np.array(["2020", "2021", "2022"], "M8[D]")]
        labels = np.arange(2) > 0 if rng.random() < 0.1 else rng.choice(kinds)[:n_classes]
        self.y = numbers.permutation(np.resize(labels, n))
        self.is_multilabel = rng.random() < 0.12
        if self.is_multilabel:
            self.y = numbers.randint(0, 2, (n, n_classes))
        self.weights = numbers.uniform(0.5, 2, n).round(2)
        self.counts, self.log, self.faults = Counter(), [], []
        # Whether all that the estimator has learned from was valid.
        self.is_clean = True

    def run(self):
        """Make the calls; what breaks a promise is noted in `faults`."""
        draw = self.rng.random()
        if draw < 0.08:
            self.run_disk()
        elif draw < 0.12:
            self.run_display()
        elif draw < 0.2:
            self.run_ensemble()
        else:
            self.run_classifier()
        return self

    def draw_wild(self, names):
        """Draw which things are to be wild: none of the names, one, or two."""
        [n] = self.rng.choices([0, 1, 2], [2, 6, 2])
        return dict.fromkeys(self.rng.sample(names, min(n, len(names))))

    def draw_data(self, names, wild):
        """Draw what a method takes, wild where it is to be, and note what it is in words."""
        valid = {
            "X": (self.X, CHANGED_ROWS, HELD_ROWS),
            "X_val": (self.X[::-1], CHANGED_ROWS, HELD_ROWS),
            "y": (self.y, CHANGED_LABELS, HELD_LABELS),
            "y_val": (self.y[::-1], CHANGED_LABELS, HELD_LABELS),
            "sample_weight": (self.weights, CHANGED_WEIGHTS, HELD_LABELS),
        }
        classes = np.arange(self.y.shape[1]) if self.is_multilabel else np.unique(self.y)
        valid["classes"] = (classes, CHANGED_LABELS, HELD_LABELS)
        data = {}
        for name in names:
            data[name], words = valid[name][0], None
            if name in wild:
                data[name], words = draw_form(self.rng, *valid[name])
                wild[name] = words
        return data

    def call(self, method, function, kwargs, *, about, wild, estimator=None, check):
        """Call a function, and see what becomes of all that is promised."""
        self.counts["calls"] += 1
        words = {k: v if v is not None else about.get(k) for k, v in wild.items()}
        self.log.append(f"{method} with {words}"[:500])
        is_quiet = repr(about.get("verbose", 0)) in ("0", "False")
        # Axes are there to be drawn on.
        kept = {name: value for name, value in kwargs.items() if name != "ax"}
        before = {name: take_print(value) for name, value in kept.items()}
        fit_before = None if estimator is None else take_print_of_fit(estimator)
        size = os.lseek(1, 0, os.SEEK_END)
        error, result = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = read_globals()
            try:
                result = function(**kwargs)
            except Exception as raised:
                error = raised
            now = read_globals()
            # Threads of joblib's need a moment to end.
            for _ in range(100):
                if now["threads"] == found["threads"]:
                    break
                time.sleep(0.01)
                now["threads"] = threading.active_count()
        try:
            changed = [name for name in now if now[name] != found[name]]
            expect(not changed, f"changed {changed}")
            after = {name: take_print(value) for name, value in kept.items()}
            changed = [name for name in after if after[name] != before[name]]
            expect(not changed, f"changed the arguments {changed}")
            expect(os.lseek(1, 0, os.SEEK_END) == size or not is_quiet, "wrote to the terminal")
            odd = [w for w in caught if w.category not in WARNINGS]
            expect(not odd, f"warned by {odd and (odd[0].category.__name__, str(odd[0].message))}")
            if error is None:
                self.counts["succeeded"] += 1
                check(result, kwargs)
            else:
                self.counts["refused"] += 1
                allowed = (*REFUSALS, OSError) if "path" in kwargs else REFUSALS
                expect(wild or not self.is_clean, "refuses what is valid")
                # A callback may raise whatever it likes.
                is_own = not isinstance(error, OSError) and not raises_by_itself(about)
                if is_own:
                    expect(isinstance(error, allowed), "is an error of another kind")
                    check_refusal(error, {*kwargs, *about, *wild})
                same = estimator is None or take_print_of_fit(estimator) == fit_before
                expect(same, "changed the estimator, though it failed")
        except Exception as fault:
            self.note_fault(fault, error, caught)
        return error is None, result

    def note_fault(self, fault, error, caught):
        """Note what is wrong, with where it comes from."""
        text = f"{type(fault).__name__}: {fault}" if not isinstance(fault, Broken) else str(fault)
        if not isinstance(fault, Broken):
            text += "".join(traceback.format_tb(fault.__traceback__)[-2:])
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            own = [f for f in frames if "/skdisk/" in f.filename][-1:] + frames[-1:]
            places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(own))
            text += f" [{type(error).__name__}: {error} at {places}]"
        self.faults.append({"number": self.number, "fault": text[:1500], "calls": [*self.log]})

    # The classifier.

    def run_classifier(self):
        """Call methods of a classifier in any order."""
        rng = self.rng
        params = draw_params(rng)
        if self.is_multilabel:
            params.pop("class_weight", None)
        clf = MLPDiskClassifier(**params)
        for _ in range(rng.randint(2, 7)):
            is_fitted = hasattr(clf, "_state")
            if rng.random() < (0.4 if is_fitted else 0.8):
                self.call_fit(clf, "fit" if rng.random() < 0.6 else "partial_fit")
            elif rng.random() < 0.85:
                self.call_predict(clf)
            else:
                clf = self.call_other(clf)

    def call_fit(self, clf, method):
        """Fit, with something wild among data and parameters."""
        rng, names = self.rng, ["X", "y"]
        # Most of them need all of X, y and the classes.
        names += ["sample_weight"] * (rng.random() < 0.3)
        if method == "partial_fit":
            names += ["classes"] * (rng.random() < 0.8)
        elif rng.random() < 0.3:
            names += ["X_val", "y_val"]
        names_of_params = rng.sample([*OF_CLASSIFIER], 6)
        wild = self.draw_wild([*names, *names_of_params])
        data = self.draw_data(names, wild)
        if len(names) > 2 and rng.random() < 0.05:
            del data[rng.choice(names[2:])]
            wild["left out"] = ""
        if method == "partial_fit" and "classes" not in data:
            wild["classes"] = "left out"
        given = {n: draw_parameter(rng, n, OF_CLASSIFIER) for n in wild if n in OF_CLASSIFIER}
        earlier = {name: getattr(clf, name) for name in given}
        about = clf.set_params(**given).get_params(deep=False)
        copies = {name: take_print(value) for name, value in about.items()}
        # An earlier fit with other data or parameters may not go on.
        if rng.random() < 0.5 and hasattr(clf, "_state") and given:
            wild["earlier fit"] = ""
        ok, _ = self.call(
            method,
            getattr(clf, method),
            data,
            about=about,
            wild=wild,
            estimator=clf,
            check=lambda result, kwargs: self.check_fit(clf, result),
        )
        loose = ("random_state", "callbacks") if ok else ()
        changed = [n for n in about if n not in loose and take_print(about[n]) != copies[n]]
        if changed:
            self.note_fault(Broken(f"changed the parameters {changed}"), None, [])
        clf.set_params(**earlier)
        if ok:
            self.is_clean = not wild and (method == "fit" or self.is_clean)
        else:
            # Without it the next ones may need classes.
            self.is_clean = self.is_clean and hasattr(clf, "_state")

    def check_fit(self, clf, result):
        """Check a fitted classifier."""
        expect(result is clf, "returns another object")
        expect((clf.classes_ == np.unique(clf.classes_)).all(), "classes_ are not sorted")
        expect(len(clf.loss_curve_) == clf.n_iter_ == len(clf.history_), "epochs do not agree")
        for array in (*clf.coefs_, *clf.intercepts_):
            expect(array.dtype == np.float32 and np.isfinite(array).all(), "weights not finite")
        expect(clf.coefs_[0].shape[0] == clf.n_features_in_, "features do not agree")
        expect(clf.coefs_[-1].shape[1] == len(clf.classes_), "classes do not agree")

    def call_predict(self, clf):
        """Predict or score, of something that may be wild."""
        rng = self.rng
        names = ["predict", "predict_proba", "predict_log_proba", "decision_function", "score"]
        names += ["hidden_activations"] if isinstance(clf, MLPDiskClassifier) else []
        method, args = rng.choice(names), ["X"]
        if method == "score":
            args += ["y"] + ["sample_weight"] * (rng.random() < 0.4)
        options = ["layer"] if method == "hidden_activations" and rng.random() < 0.7 else []
        wild = self.draw_wild(args + options)
        data = self.draw_data(args, wild)
        if "layer" in wild:
            data["layer"] = rng.choice(ANYTHING)
        is_fitted = hasattr(clf, "classes_")
        about = {"estimator": clf.estimators_[0]} if hasattr(clf, "estimators_") else {"fit": ""}
        if not is_fitted or method == "hidden_activations":
            # There may be no fit, or no hidden layer.
            wild.setdefault("fit", "")
        self.call(
            method,
            getattr(clf, method),
            data,
            about=about | {"hidden_activations": ""},
            wild=wild,
            estimator=clf,
            check=lambda result, kwargs: self.check_prediction(clf, method, result, kwargs),
        )

    def check_prediction(self, clf, method, result, kwargs):
        """Check what a method predicts."""
        n_classes, is_multilabel = len(clf.classes_), clf._output == "sigmoid"
        if method == "score":
            expect(type(result) is float and 0 <= result <= 1, f"scores {result!r}")
            return
        if sparse.issparse(kwargs["X"]) or hasattr(kwargs["X"], "shape"):
            n = kwargs["X"].shape[0]
            expect(len(result) == n, "has another number of rows")
        expect(type(result) is np.ndarray, f"is a {type(result)}")
        if method == "predict":
            dtype = np.dtype(int) if is_multilabel else clf.classes_.dtype
            expect(result.dtype == dtype, f"has the dtype {result.dtype}")
            known = np.isin(result, [0, 1]) if is_multilabel else np.isin(result, clf.classes_)
            expect(known.all(), "has labels that are not among the classes")
            return
        dtype = np.float32 if method == "hidden_activations" else np.float64
        expect(result.dtype == dtype, f"has the dtype {result.dtype}")
        expect(np.isfinite(result).all(), "is not finite")
        if method.startswith("predict"):
            proba = np.exp(result) if "log" in method else result
            expect(proba.shape[1:] == (n_classes,), f"has the shape {proba.shape}")
            expect((proba >= 0).all() and (proba <= 1 + 1e-12).all(), "is not in [0, 1]")
            if not is_multilabel:
                expect(np.allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-9), "sums not to 1")

    def call_other(self, clf):
        """Copy, save, load, describe; return the estimator to go on with."""
        rng = self.rng
        method = rng.choice(["copy", "pickle", "clone", "save", "load", "to_torch", "repr"])
        wild = {} if hasattr(clf, "_state") else {"fit": ""}
        about = {"fit": "", "labels": "", **clf.get_params(deep=False)}
        options = {"about": about, "estimator": clf}
        options |= {"wild": wild, "check": lambda result, kwargs: None}
        if method in ("save", "load"):
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "model")
                paths = [path, path.encode(), Path(path), folder, path + "/a/b", "a\0b", ""]
                paths += [os.fsencode(folder) + b"/\xff", path + "\udc80", path + "x" * 5000]
                paths += [None, 1.5, [], object(), {path}]
                path = rng.choice(paths) if rng.random() < 0.4 else path
                if method == "load":
                    with contextlib.suppress(Exception), warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        clf.save(Path(folder) / "model")
                wild |= {"path": repr(path)[:60]}
                ok, loaded = self.call(method, getattr(clf, method), {"path": path}, **options)
                return loaded if ok and method == "load" else clf
        functions = {
            "copy": lambda: copy.deepcopy(clf),
            "pickle": lambda: pickle.loads(pickle.dumps(clf)),
            "clone": lambda: clone(clf),
            "to_torch": lambda: clf.to_torch(),
            "repr": lambda: repr(clf) + clf._repr_html_(),
        }
        ok, result = self.call(method, functions[method], {}, **options)
        return result if ok and method in ("copy", "pickle", "clone") else clf

    # The ensemble.

    def run_ensemble(self):
        """Fit an ensemble of two, and predict."""
        rng = self.rng
        params = draw_params(rng) | {"random_state": None}
        params.pop("callbacks", None)
        ensemble = MLPDiskEnsemble(MLPDiskClassifier(**params), 2, random_state=0)
        for _ in range(rng.randint(2, 4)):
            if hasattr(ensemble, "classes_") and rng.random() < 0.7:
                self.call_predict(ensemble)
                continue
            names = ["X", "y"] + ["sample_weight"] * (rng.random() < 0.3)
            wild = self.draw_wild([*names, *OF_ENSEMBLE])
            data = self.draw_data(names, wild)
            given = {n: draw_parameter(rng, n, OF_ENSEMBLE) for n in wild if n in OF_ENSEMBLE}
            earlier = {name: getattr(ensemble, name) for name in given}
            about = ensemble.set_params(**given).get_params(deep=False)
            ok, _ = self.call(
                "fit of an ensemble",
                ensemble.fit,
                data,
                about=about | dict.fromkeys(OF_CLASSIFIER),
                wild=wild,
                estimator=ensemble,
                check=lambda result, kwargs: expect(result is ensemble, "returns another object"),
            )
            ensemble.set_params(**earlier)
            self.is_clean = self.is_clean and not (ok and wild)

    # Functions.

    def run_disk(self):
        """Make data."""
        for _ in range(4):
            names = self.draw_wild([*OF_DISK])
            kwargs = {name: draw_parameter(self.rng, name, OF_DISK) for name in names}
            kwargs |= {"random_state": 0} if self.rng.random() < 0.5 else {}
            self.call(
                "make_disk", make_disk, kwargs, about=kwargs, wild=kwargs, check=self.check_disk
            )

    @staticmethod
    def check_disk(result, kwargs):
        """Check what make_disk returns."""
        X, y = map(np.asarray, result)
        n_samples = kwargs.get("n_samples", 100)
        n = sum(n_samples) if isinstance(n_samples, (tuple, list)) else n_samples
        expect(X.shape == (n, 2) and y.shape == (n,), f"has the shapes {X.shape} and {y.shape}")
        expect(X.dtype == np.float64 and y.dtype == np.int64, "has other dtypes")
        expect(np.isfinite(X).all() and np.isin(y, [0, 1]).all(), "has values of another kind")

    def run_display(self):
        """Draw the curves of a fit."""
        rng, ax = self.rng, Figure().add_subplot()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clf = MLPDiskClassifier((2,), max_epochs=2, random_state=0)
            clf.fit(self.X, self.y)
        for _ in range(3):
            kwargs = {"estimator": clf, "ax": ax}
            wild = self.draw_wild(["estimator", "name", "curve_kwargs", "log", "ax"])
            styles = [{"color": "red"}, [{"lw": 1}], {"nonsense": 1}, {"color": "nonsense"}]
            styles += [{1: 2}, {"label": 3}, [{}, {}], {"lw": "x"}, {"alpha": 3}]
            own = {
                "estimator": [[clf], [clf, clf], (clf, 3), MLPDiskClassifier(), print],
                "name": ["a", ["a"], ["a", "b"], [1], [None], ("_a",), "$", "_"],
                "curve_kwargs": styles,
                "log": [True, False],
                "ax": [Figure(), "ax", [ax]],
            }
            for name in wild:
                values = own[name] if rng.random() < 0.6 else ANYTHING
                kwargs[name] = wild[name] = rng.choice(values)
            if kwargs["ax"] is None:
                # A figure of pyplot's own would be kept.
                kwargs["ax"] = ax
            names = {"train_loss": "", "estimator": ""}
            self.call(
                "from_estimator",
                LossCurveDisplay.from_estimator,
                kwargs,
                about=names,
                wild=wild,
                check=lambda result, kwargs: expect(len(result.lines_), "has no lines"),
            )


@contextlib.contextmanager
def redirect_output():
    """Let all that is written to the terminal go to a file; give what still goes there."""
    kept = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
        try:
            yield kept[1]
        finally:
            for number, earlier in enumerate(kept, 1):
                os.dup2(earlier, number)


def run_cases(seed, first, stop, path):
    """Run cases, keep in a file which one it is at, and write there what was found."""
    counts, faults = Counter(), []
    with open(path, "w", encoding="utf-8") as report, redirect_output() as terminal:
        for number in range(first, stop):
            os.pwrite(report.fileno(), f"{number:>12}".encode(), 0)
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=terminal)
            case = Case(seed, number).run()
            counts += case.counts
            faults += case.faults
        faulthandler.cancel_dump_traceback_later()
        os.truncate(report.fileno(), 0)
        report.write(json.dumps({"counts": counts, "faults": faults}))


def main(seed, number, *others):
    """Run one case, or many."""
    if others:
        run_cases(seed, int(number), int(others[0]), others[1])
        return
    with redirect_output():
        case = Case(seed, int(number)).run()
    sys.stdout.write("\n".join([*case.log, *(fault["fault"] for fault in case.faults), ""]))


if __name__ == "__main__":
    faulthandler.enable()
    main(*sys.argv[1:])
