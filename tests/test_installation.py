"""The compiled kernel is there where it can be, and a command tells which one is in use.

Versions: the lowest that are allowed are those that the tests are run with.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

from skdisk import _kernel

COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
HEADER = Path(sysconfig.get_path("include"), "Python.h")
CHECKOUT = Path(__file__).parent.parent
SETS = _kernel.get_instruction_sets()


@pytest.mark.skipif(
    sys.platform == "win32", reason="Python's compiler there is not for the kernel"
)
@pytest.mark.skipif(
    shutil.which(COMPILER) is None or not HEADER.exists(),
    reason=f"needs the C compiler {COMPILER} and {HEADER.name}",
)
def test_where_there_is_a_compiler_the_kernel_has_been_compiled():
    assert SETS, f"{COMPILER} compiled no kernel: `pip install -v -e .` tells why"


def run_command(name, prelude=""):
    """Run `python -m skdisk._kernel` with SKDISK_INSTRUCTION_SET set to a name."""
    program = "import runpy; runpy.run_module('skdisk._kernel', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", prelude + program],
        env=os.environ | {"SKDISK_INSTRUCTION_SET": name},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["", *SETS])
def test_a_command_says_which_instruction_set_is_in_use(name):
    if not SETS:
        pytest.skip("the kernel has not been compiled here")
    expected = f"The kernel uses {name or SETS[-1]}.\nThis machine has {', '.join(SETS)}.\n"
    result = run_command(name)
    assert result.stdout == expected, result.stderr


NOT_COMPILED = "import sys; sys.modules['skdisk._kernel._compiled'] = None; "
ABSENCES = {
    "not compiled": (
        ("", NOT_COMPILED),
        "skdisk was installed where it could not be compiled",
    ),
    "asked for none": (
        ("none",),
        "the environment variable SKDISK_INSTRUCTION_SET is 'none'",
    ),
}


@pytest.mark.parametrize(("arguments", "reason"), ABSENCES.values(), ids=ABSENCES)
def test_the_command_says_why_there_is_no_kernel(arguments, reason):
    if not SETS:
        reason = ABSENCES["not compiled"][1]
    result = run_command(*arguments)
    assert result.stdout == f"There is no kernel: {reason}. skorch's loop trains instead.\n"


def test_the_command_refuses_an_instruction_set_that_the_machine_does_not_have():
    result = run_command("mmx")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("The environment variable SKDISK_INSTRUCTION_SET must be one")


def test_the_lowest_versions_are_those_that_the_tests_are_run_with():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    bounds = [bound.split(">=") for group in groups for bound in group if ">=" in bound]
    lines = (CHECKOUT / "constraints-oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name, version in bounds:
        assert Version(pins[name]) == Version(version), name


WITHOUT_GIL = """
import runpy, sys, sysconfig
get_config_var = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: name == "Py_GIL_DISABLED" or get_config_var(name)
sys.argv = ["setup.py", "--quiet", "dist_info", "--output-dir", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""


def test_python_without_the_gil_which_has_no_limited_api_can_install_it(tmp_path):
    pytest.importorskip("setuptools", reason="needs setuptools, which builds it")
    command = [sys.executable, "-c", WITHOUT_GIL, tmp_path]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    [made] = tmp_path.iterdir()
    assert made.name.startswith("skdisk-")
