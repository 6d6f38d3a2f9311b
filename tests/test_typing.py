"""Editors and type checkers know the public surface: hints, stub and marker, by mypy and jedi."""

import inspect
import tomllib
from pathlib import Path
from typing import get_args

import jedi
import pytest
from mypy import api

import skdisk
from skdisk import LossCurveDisplay, MLPDiskClassifier, MLPDiskEnsemble
from skdisk._classifier import Activation
from skdisk._network.mlp import ACTIVATIONS

PACKAGE = Path(skdisk.__file__).parent
# What other packages say of themselves takes mypy ten times as long.
CONFIG = f"""
[mypy]
mypy_path = {PACKAGE.parent}
strict = True
ignore_missing_imports = True
[mypy-skdisk.*]
follow_imports = silent
[mypy-torch.*,numpy.*,matplotlib.*]
follow_imports = skip
"""
RIGHT = """
from skdisk import LossCurveDisplay, MLPDiskClassifier, MLPDiskEnsemble, __version__, make_disk

X, y = make_disk(100, random_state=0)
frame, labels = make_disk((50, 50), as_frame=True)
clf = MLPDiskClassifier((8,), lr=0.1, optimizer="lbfgs", lr_schedule="plateau", random_state=0)
clf = clf.set_params(optimizer_params__max_iter=10).fit(X, y, X_val=frame, y_val=labels)
shapes = [weights.shape for weights in clf.coefs_], clf.hidden_activations(X, layer=0).shape
clf.partial_fit(frame, labels, sample_weight=[1.0] * 100).save(b"clf.safetensors")
loaded: MLPDiskClassifier = MLPDiskClassifier.load("clf.safetensors")
score: float = MLPDiskEnsemble(loaded, 3, n_jobs=2).fit(X, y).score(X, y)
LossCurveDisplay.from_estimator([clf, loaded], log=True).plot()
print(__version__, clf.history_, loaded.predict_proba(X), clf.to_torch())
"""
WRONG = """
from skdisk import MLPDiskClassifier, MLPDiskEnsemble, make_disk

MLPDiskClassifier(lr="fast", no_such=3)
MLPDiskClassifier(lr_schedule=3, activation="rely", weight_decay=None)
X, y = make_disk(100, radius="large")
MLPDiskClassifier().fit(X, y, Xval=X).predict(X, y)
MLPDiskEnsemble(n_members="many")
"""
COMPLAINTS = {
    4: ["incompatible type \"Literal['fast']\"", 'Unexpected keyword argument "no_such"'],
    5: ["incompatible type \"Literal['rely']\"", 'incompatible type "None"'],
    6: ['No overload variant of "make_disk"'],
    7: ['Unexpected keyword argument "Xval"', 'Too many arguments for "predict"'],
    8: ['"n_members" to "MLPDiskEnsemble" has incompatible type "str"'],
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """Let mypy look at a right and a wrong program: its complaints, as (file, line, words)."""
    folder = tmp_path_factory.mktemp("mypy")
    for name, text in (("mypy.ini", CONFIG), ("right.py", RIGHT), ("wrong.py", WRONG)):
        (folder / name).write_text(text)
    options = ["--config-file", str(folder / "mypy.ini"), "--cache-dir", str(folder / "cache")]
    programs = [str(folder / name) for name in ("right.py", "wrong.py")]
    out, err, _ = api.run([*options, "--hide-error-context", *programs])
    assert not err
    lines = [line.split(":", 2) for line in out.splitlines() if ": error: " in line]
    return [(Path(path).name, int(number), words) for path, number, words in lines]


def test_a_type_checker_accepts_a_right_program(complaints):
    assert [complaint for complaint in complaints if complaint[0] == "right.py"] == []


def test_a_type_checker_says_what_is_wrong(complaints):
    found = [(number, words) for name, number, words in complaints if name == "wrong.py"]
    for number, expected in COMPLAINTS.items():
        words = "\n".join(each for line, each in found if line == number)
        assert all(part in words for part in expected), words
    assert {number for number, _ in found} == {*COMPLAINTS}


@pytest.mark.parametrize("name", ["MLPDiskClassifier", "MLPDiskEnsemble", "make_disk"])
def test_an_editor_completes_every_parameter(name):
    source = f"from skdisk import {name}\n{name}("
    completed = {each.name for each in jedi.Script(source).complete()}
    [signature, *_] = jedi.Script(source).get_signatures()
    names = [*inspect.signature(getattr(skdisk, name)).parameters]
    assert [parameter.name for parameter in signature.params] == names
    assert {f"{parameter}=" for parameter in names} <= completed


def test_an_editor_completes_methods_and_attributes_of_a_fit():
    source = "from skdisk import MLPDiskClassifier\nMLPDiskClassifier().fit(X, y)."
    completed = {each.name for each in jedi.Script(source).complete()}
    public = {name for name in dir(MLPDiskClassifier) if not name.startswith("_")}
    assert public & set(vars(MLPDiskClassifier)) <= completed


def find_methods(cls):
    """Find what skdisk's public methods and properties of a class are named, and are."""
    for name, item in inspect.getmembers_static(cls):
        function = getattr(item, "fget", None) or getattr(item, "__func__", item)
        if inspect.isfunction(function) and not name.startswith("_"):
            function = inspect.unwrap(function)
            if function.__module__.startswith("skdisk."):
                yield f"{cls.__name__}.{name}", function


CLASSES = (LossCurveDisplay, MLPDiskClassifier, MLPDiskEnsemble)
METHODS = dict(pair for cls in CLASSES for pair in find_methods(cls))


@pytest.mark.parametrize("name", METHODS)
def test_every_public_method_says_what_it_takes_and_returns(name):
    signature = inspect.signature(METHODS[name])
    _, *parameters = signature.parameters.values()
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in parameters)


def test_hints_name_the_values_that_there_are():
    assert set(get_args(Activation)) == set(ACTIVATIONS)


def test_stub_and_marker_are_of_the_package():
    stub = jedi.Script(path=PACKAGE / "__init__.pyi").get_names()
    named = {each.name for each in stub} - {"__all__"}
    assert named == set(skdisk.__all__)
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"] == {"skdisk": ["py.typed", "*.pyi"]}
    assert (PACKAGE / "py.typed").read_text() == ""
