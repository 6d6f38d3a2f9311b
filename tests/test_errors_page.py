"""The page of errors quotes what is printed: each message of the page is provoked here."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping, EpochScoring

from skdisk import MLPDiskClassifier, make_disk

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "errors.md"
QUOTED = dict(re.findall(r"^### (.+)\n\n```text\n(.+)\n```$", PAGE.read_text(), re.MULTILINE))
X, Y = make_disk(200, random_state=0)
FRAME = pd.DataFrame(X, columns=["x", "y"])
COLORS = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "color": ["red", "green"] * 2})
NAMES = ["inside" if label else 0 for label in Y]
LISTS = [["a", "b"] if label else ["a"] for label in Y]


def fit(X=X, y=Y, params=None, **metadata):
    defaults = {"hidden_layer_sizes": (8,), "max_epochs": 1, "random_state": 0}
    return MLPDiskClassifier(**defaults | (params or {})).fit(X, y, **metadata)


def go_on(**params):
    return fit(params={"warm_start": True}).set_params(**params)


def load_text():
    Path("notes.txt").write_text("Some notes, which are no network.")
    MLPDiskClassifier.load("notes.txt")


def load_damaged():
    path = Path("disk.safetensors")
    fit().save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    MLPDiskClassifier.load(path)


def save_with_a_note():
    clf = fit()
    clf.note = "mine"
    clf.save("disk.safetensors")


class Stop(Callback):
    def on_train_begin(self, net, **kwargs):
        raise KeyboardInterrupt


SCORING = EpochScoring("roc_auc", lower_is_better=False)
SLOW = {"lr": 0.01, "max_epochs": 30, "early_stopping": True}
# What provokes the message below each heading.
CASES = {
    "Very different scales": lambda: fit(*load_breast_cancer(return_X_y=True)),
    "Large, or far from 0": lambda: fit(100 * X),
    "Small": lambda: fit(X / 100),
    "Validation data on another scale": lambda: fit(X_val=100 * X[:50], y_val=Y[:50]),
    "Columns that are not numbers": lambda: fit(COLORS, [0, 1, 0, 1]),
    "NaN in X": lambda: fit(np.where(X > 0.9, np.nan, X)),
    "Columns of the same name": lambda: fit(pd.DataFrame(X, columns=["x", "x"])),
    "One dimension": lambda: fit(X[:, 0]),
    "Another number of features": lambda: fit().predict(X[:, :1]),
    "Other names, or another order": lambda: fit(FRAME).predict(FRAME[["y", "x"]]),
    "A frame in fit, an array in predict": lambda: fit(FRAME).predict(X),
    "Lengths that differ": lambda: fit(y=Y[:-1]),
    "Continuous targets": lambda: fit(y=X[:, 0]),
    "NaN in y": lambda: fit(y=np.where(Y, 1.0, np.nan)),
    "Labels of several types": lambda: fit(y=NAMES),
    "Lists of labels": lambda: fit(y=LISTS),
    "Columns that are not 0 and 1": lambda: fit(y=np.c_[Y, 2 * Y]),
    "A column instead of a list": lambda: fit(y=Y[:, np.newaxis]),
    "Labels that are not among the classes": lambda: fit().partial_fit(X, 2 * Y),
    "Keys of class_weight": lambda: fit(params={"class_weight": {"inside": 2}}),
    "Labels of another type in score": lambda: fit().score(X, Y.astype(str)),
    "A name of another library": lambda: MLPDiskClassifier(alpha=1e-4),
    "A parameter of a step": lambda: make_pipeline(
        StandardScaler(), MLPDiskClassifier()
    ).set_params(lr=0.1),
    "A value out of range": lambda: fit(params={"lr": 0}),
    "Sizes of hidden layers": lambda: fit(params={"hidden_layer_sizes": (64, 0)}),
    "An unknown optimiser": lambda: fit(params={"optimizer": "adma"}),
    "Arguments of the optimiser": lambda: fit(params={"optimizer_params": {"betas": (0.9, 0.99)}}),
    "No such device": lambda: fit(params={"device": "cuda"}),
    "Clipping with L-BFGS": lambda: fit(params={"optimizer": "lbfgs", "clip_grad_norm": 1.0}),
    "The kernel is impossible": lambda: fit(params={"fused": True, "optimizer": "rmsprop"}),
    "Not a skorch callback": lambda: fit(params={"callbacks": [print]}),
    "A callback without validation data": lambda: fit(params={"callbacks": [EarlyStopping()]}),
    "The instruction set": lambda: os.environ.update(SKDISK_INSTRUCTION_SET="sse") or fit(),
    "Diverged": lambda: fit(params={"lr": 1e30}),
    "Early stopping has not stopped": lambda: fit(params=SLOW),
    "L-BFGS has not converged": lambda: fit(params={"optimizer": "lbfgs"}),
    "Nothing to hold out": lambda: fit(X[:2], ["a", "b"], {"early_stopping": True}),
    "Validation data without labels": lambda: fit(X_val=X),
    "The first call of partial_fit": lambda: MLPDiskClassifier().partial_fit(X, Y),
    "Going on with some of the classes": lambda: go_on().fit(X[Y == 0], Y[Y == 0]),
    "Going on with other layers": lambda: go_on(hidden_layer_sizes=(16,)).fit(X, Y),
    "Stopped before an epoch had ended": lambda: fit(params={"callbacks": [Stop()]}),
    "Not fitted": lambda: MLPDiskClassifier().predict(X),
    "Not a file of save": load_text,
    "A damaged file": load_damaged,
    "What a file cannot hold": lambda: fit(params={"callbacks": [SCORING]}).save("a"),
    "Attributes of your own": save_with_a_note,
}


def provoke(function):
    """Call a function; return what Python prints of the error or the warning that comes of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            function()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    [warning] = caught
    return f"{warning.category.__name__}: {warning.message}"


def test_every_message_of_the_page_is_provoked():
    assert [*QUOTED] == [*CASES]
    assert len(QUOTED) == PAGE.read_text().count("```text")


MARKS = {"The kernel is impossible": pytest.mark.needs_kernel}
HEADINGS = [pytest.param(heading, marks=MARKS.get(heading, ())) for heading in QUOTED]


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_page_quotes_what_is_printed(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # For the one case that sets it.
    monkeypatch.setenv("SKDISK_INSTRUCTION_SET", os.environ.get("SKDISK_INSTRUCTION_SET", ""))
    # On a machine with an accelerator the list of devices is longer.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **kwargs: None)
    # Across lines, as scikit-learn breaks some of its own.
    printed = " ".join(provoke(CASES[heading]).split())
    quoted = QUOTED[heading]
    if quoted.endswith("..."):
        assert printed.startswith(quoted.removesuffix("...").strip())
        assert len(printed) > len(quoted)
    else:
        assert printed == quoted
