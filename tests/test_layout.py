"""The structure of the package, read from its imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skdisk

PACKAGE = Path(skdisk.__file__).parent
# From the ground up: a file imports only from files above it.
LAYERS = [
    *("_compat", "_numbers", "_lent", "_disk", "_device", "_surroundings", "_noise", "_module"),
    *("_activations", "_updates"),
    *("_steps", "_engine", "_prediction", "_batches", "_obstacles", "_fused", "_stack"),
    *("_schedules", "_state", "_callbacks", "_net", "_arrays", "_labels", "_data", "_weights"),
    *("_optimizers", "_file_format", "_optimizer_checks", "_file_checks"),
    *("_persistence", "_classifier", "_lookup", "_search", "_cross_validation", "_ensemble"),
    *("_display", "__init__", "__main__"),
]
FILES = sorted(PACKAGE.glob("*.py"))


def read_imports(path):
    """Yield (level, module, names) of each import statement of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]


def test_every_file_has_its_place():
    assert {path.stem for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_imports_only_from_files_above_it(path):
    above = LAYERS[: LAYERS.index(path.stem)]
    for level, module, names in read_imports(path):
        assert module.split(".")[0] != "skdisk", "inside the package, imports are relative"
        if level:
            assert module in above, f"from .{module} import {', '.join(names)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_private_names_of_other_packages_are_in_compat_only(path):
    if path.stem == "_compat":
        return
    for level, module, names in read_imports(path):
        if not level:
            assert not any(part.startswith("_") for part in [*module.split("."), *names]), module


@pytest.mark.parametrize(
    ("stem", "forbidden"),
    [
        ("_disk", "torch"),
        ("_numbers", "torch"),
        ("_lent", "torch"),
        ("_module", "sklearn"),
        ("_module", "skorch"),
        ("_noise", "sklearn"),
        ("_noise", "skorch"),
        ("_activations", "sklearn"),
        ("_activations", "skorch"),
        ("_updates", "sklearn"),
        ("_updates", "skorch"),
        ("_prediction", "skorch"),
        ("_steps", "sklearn"),
        ("_steps", "skorch"),
        ("_engine", "sklearn"),
        ("_engine", "skorch"),
        ("_batches", "sklearn"),
    ],
)
def test_a_file_keeps_out_of_what_is_not_its_business(stem, forbidden):
    modules = [module for _, module, _ in read_imports(PACKAGE / f"{stem}.py")]
    assert forbidden not in {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("_kernel/*.py")), ids=lambda path: path.name)
def test_the_kernel_needs_numpy_only(path):
    modules = {module.split(".")[0] for level, module, _ in read_imports(path) if not level}
    assert modules <= {"numpy", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "statement", ["from skdisk import make_disk; make_disk(3)", "import skdisk._kernel"]
)
def test_make_disk_and_the_kernel_do_not_wait_for_torch(statement):
    program = f"import sys; {statement}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


def test_public_names_are_listed_and_found():
    assert dir(skdisk) == skdisk.__all__
    assert all(getattr(skdisk, name) for name in skdisk.__all__)
    with pytest.raises(AttributeError, match="no attribute 'MLPDiscClassifier'"):
        skdisk.MLPDiscClassifier  # noqa: B018 - the access is what is tested
