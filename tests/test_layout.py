"""The structure of the package, read from its imports: five wings, each on those below it."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import skdisk

PACKAGE = Path(skdisk.__file__).parent
# From the ground up: a file imports from its own wing and from those below it. "" is what users
# call.
WINGS = ["_kernel", "_network", "_training", "_inputs", ""]
# What each wing knows of other packages, besides NumPy, SciPy and the standard library.
KNOWN = {
    "_kernel": set(),
    "_network": {"torch"},
    "_training": {"torch", "skorch", "tqdm"},
    "_inputs": {"torch", "sklearn", "pandas", "safetensors"},
}
# Below all wings: private names of others.
COMPAT = "_compat"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_FILES, MOST_FLOORS = 35, 7


def name_module(path):
    """Name a file as imports name it: "_training.loop", or "_disk"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def find_wing(module):
    return module.split(".")[0] if module.split(".")[0] in WINGS else ""


def read_imports(path):
    """Yield (level, module, names) of each import statement of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]


def find_own_imports(path):
    """Find the modules of the package that a file imports, by their full names."""
    folder = path.parent.relative_to(PACKAGE).parts
    modules = {name_module(other) for other in FILES}
    found = set()
    for level, module, names in read_imports(path):
        if level:
            base = [*folder[: len(folder) - level + 1], *filter(None, module.split("."))]
            for name in names:
                whole = ".".join([*base, name])
                found.add(whole if whole in modules else ".".join(base))
    # The folder itself: what is imported from it is compiled.
    return found - {"", ".".join(folder)}


@pytest.mark.parametrize("path", FILES, ids=name_module)
def test_a_file_imports_from_its_own_wing_and_those_below(path):
    wing = find_wing(name_module(path))
    below = WINGS[: WINGS.index(wing) + 1]
    for module in find_own_imports(path):
        assert module == COMPAT or find_wing(module) in below, module


def test_imports_make_no_circles_and_few_floors():
    imports = {name_module(path): find_own_imports(path) for path in FILES}

    def count_floors(module, above=()):
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        below = imports.get(module, ())
        return 1 + max((count_floors(other, (*above, module)) for other in below), default=0)

    floors = {module: count_floors(module) for module in imports}
    assert max(floors.values()) <= MOST_FLOORS, floors
    assert len(FILES) <= MOST_FILES


@pytest.mark.parametrize("path", FILES, ids=name_module)
def test_a_wing_knows_only_what_is_its_business(path):
    wing = find_wing(name_module(path))
    packages = {module.split(".")[0] for level, module, _ in read_imports(path) if not level}
    assert "skdisk" not in packages, "inside the package, imports are relative"
    others = packages - set(sys.stdlib_module_names) - {"numpy", "scipy"}
    if wing:
        assert others <= KNOWN[wing]


def test_what_is_imported_is_declared():
    path = Path(__file__).parent.parent / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    needed = {bound.split(">=")[0] for bound in project["dependencies"]}
    extras = project["optional-dependencies"].values()
    optional = {bound.split(">=")[0] for bounds in extras for bound in bounds}
    imported = {
        module.split(".")[0]
        for path in FILES
        for level, module, _ in read_imports(path)
        if not level
    }
    distributions = packages_distributions()
    found = {distributions[name][0] for name in imported - set(sys.stdlib_module_names)}
    assert needed <= found <= needed | optional


@pytest.mark.parametrize("path", FILES, ids=name_module)
def test_private_names_of_other_packages_are_in_compat_only(path):
    if path.stem == COMPAT:
        return
    for level, module, names in read_imports(path):
        if not level:
            assert not any(part.startswith("_") for part in [*module.split("."), *names]), module


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("from skdisk import make_disk; make_disk(3)", "torch"),
        ("from skdisk import _kernel", "torch"),
    ],
)
def test_who_needs_no_torch_does_not_wait_for_it(program, unwanted):
    program = f"import sys; {program}; print({unwanted!r} in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


@pytest.mark.needs_kernel
def test_first_calls_do_not_wait_for_what_they_do_not_use(tmp_path):
    program = """
import pickle, sys
from skdisk import MLPDiskClassifier, make_disk
X, y = make_disk(100)
clf = MLPDiskClassifier(max_epochs=2).fit(X, y)
clf.partial_fit(X, y).score(X, y)
clf.to_torch()
clf.save(sys.argv[1])
MLPDiskClassifier.load(sys.argv[1]).partial_fit(X, y)
pickle.loads(pickle.dumps(clf)).predict(X)
print(clf.fused_, [name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    command = [sys.executable, "-c", program, tmp_path / "model.safetensors"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "True []\n", result.stderr


def test_public_names_are_listed_and_found():
    assert dir(skdisk) == skdisk.__all__
    assert all(getattr(skdisk, name) for name in skdisk.__all__)
    with pytest.raises(AttributeError, match="no attribute 'MLPDiscClassifier'"):
        skdisk.MLPDiscClassifier  # noqa: B018 - the access is what is tested
