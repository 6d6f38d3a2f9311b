"""The page of promises names tests that are there, and shows the figures of their long runs."""

import importlib
import json
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def promises():
    """Import the script beside the pages."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("promises")
    finally:
        sys.path.remove(str(DOCS))


TESTS = """
import pytest

def test_all_is_well():
    pass

@pytest.mark.parametrize("name", "ab")
def test_nothing_crashes(campaign, name):
    pass

def test_files_are_whole(tmp_path, campaign):
    pass

def test_digits_are_kept(campaign):
    pass
"""


def make_run(seed, date="2026-11-26", kernel="avx512", **figures):
    machine = {"machine": "Linux x86_64", "python": "3.11.7", "kernel": kernel}
    return {"seed": seed, "date": date, **machine, "figures": figures}


RUNS = {
    "nothing_crashes[a]": [
        make_run(1, files=1000, refused=900, largest_ratio=2.5, longest_wait_in_seconds=0.1),
        make_run(2, "2026-11-27", files=1000, refused=800, largest_ratio=2),
    ],
    "nothing_crashes[b]": [
        make_run(1, "2026-11-28", "avx2", files=2500, refused=3, largest_ratio=1.5),
    ],
    "digits_are_kept": [make_run(7, sets=3, largest_error=1.23456e-07)],
}
EXPECTED = """\
## Files

**Nothing crashes, whatever happens.**

- `test_made_up.py::test_nothing_crashes`, long form:
  - **3,500 files, 903 refused, largest ratio 2.5, longest wait in seconds 0.1**; seed 1, \
2026-11-26 to 2026-11-28, Linux x86_64, Python 3.11.7, avx2; Linux x86_64, Python 3.11.7, avx512
  - **1,000 files, 800 refused, largest ratio 2** (1 of 2 parts); seed 2, 2026-11-27, \
Linux x86_64, Python 3.11.7, avx512
- `test_made_up.py::test_all_is_well`

## More that is drawn

**Files are whole.**

- `test_made_up.py::test_files_are_whole`, long form: not run yet

**Digits are kept.**

- `test_made_up.py::test_digits_are_kept`, long form:
  - **3 sets, largest error 1.23e-07**; seed 7, 2026-11-26, Linux x86_64, Python 3.11.7, avx512
"""


@pytest.fixture
def made_up(tmp_path, promises):
    """Make up tests and results of long runs, and read both."""
    (tmp_path / "test_made_up.py").write_text(TESTS)
    for number, (name, runs) in enumerate(RUNS.items()):
        kept = {"test": f"tests/test_made_up.py::test_{name}", "runs": runs}
        (tmp_path / f"{number}.json").write_text(json.dumps(kept))
    return promises.find_tests(tmp_path), promises.read_runs(tmp_path)


def test_figures_of_all_parts_of_a_run_are_joined(promises, made_up):
    names = [f"test_made_up.py::test_{name}" for name in ("nothing_crashes", "all_is_well")]
    listed = {"Files": {"Nothing crashes, whatever happens.": names}}
    assert promises.tell(listed, *made_up) == EXPECTED


def test_a_promise_without_a_test_is_refused(promises, made_up):
    tests, runs = made_up
    for arguments in (
        ({"Files": {"All is new.": ["test_made_up.py::test_new"]}}, tests, runs),
        ({}, tests, {"test_made_up.py::test_new": []}),
    ):
        with pytest.raises(ValueError, match=r"tests that are not there: .*test_new"):
            promises.tell(*arguments)


def test_each_test_that_the_page_names_is_there_and_each_campaign_is_on_the_page(
    promises, tmp_path
):
    tests = promises.find_tests()
    promises.write_promises(tmp_path / "promises.md")
    text = (tmp_path / "promises.md").read_text()
    drawn = [name for name, is_drawn in tests.items() if is_drawn]
    assert "test_mutated_files.py::test_a_mutated_file_is_refused_in_words_or_works" in drawn
    assert [name for name in drawn if f"`{name}`, long form:" not in text] == []
