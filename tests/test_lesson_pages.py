"""What the pages of the lesson say is what their scripts compute."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_kernel

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["neuron", "softmax", "step", "disk", "learned", "descent"]
# Numbers that a page is given, and does not compute: what the text sets, or quotes.
GIVEN = {
    "neuron": {"1.5", "0.5"},
    "softmax": {"0.669", "0.097", "0.5", "0.3", "0.2", "0.8", "5.3"},
    "step": set(),
    "disk": {"0.693"},
    "learned": set(),
    "descent": {"0.001", "0.04", "0.3", "0.9"},
}
# (page, name, what is known from elsewhere, by how much the page may differ from it)
KNOWN = [
    ("neuron", "crossing", 1.5, 0.49),
    ("neuron", "and_11", 0.75, 0.25),
    ("neuron", "xor_loss", np.log(2), 0.001),
    ("neuron", "xor_best", 3, 0),
    ("neuron", "or_best", 4, 0),
    ("softmax", "exp0", 1.3499, 0),
    ("softmax", "exp2", 200.34, 0),
    ("softmax", "exp3", 2.0138, 0),
    ("softmax", "q0", 0.007, 0),
    ("softmax", "q1", 0.000, 0),
    ("softmax", "q2", 0.983, 0),
    ("softmax", "q3", 0.010, 0),
    ("softmax", "nats_first", 1.609, 0),
    ("softmax", "nats_second", 0.223, 0),
    ("softmax", "base10_first", 0.699, 0),
    ("softmax", "base10_second", 0.097, 0),
    ("softmax", "rise", 5.3 - 0.7, 0.02),
    ("step", "steps", 2, 0),
    ("disk", "radius", 0.7979, 0),
    ("disk", "acc_10", 50, 10),
    ("disk", "mean_100", 88.8, 4),
    ("disk", "mean_290", 98.07, 0.6),
    ("disk", "fresh", 98.12, 0.8),
    ("learned", "none", 50, 13),
    ("learned", "best_line", 62.7, 1.5),
    ("learned", "three", 95, 3),
    ("learned", "eight", 97.5, 1.5),
    ("learned", "many", 98.5, 1.4),
    ("learned", "found", 10, 7),
    ("learned", "squeezed", 99, 1),
    ("descent", "largest_0", 2 / 10, 0.005),
    ("descent", "largest_9", 2 * 1.9 / 10, 0.005),
    ("descent", "cosine_acc", 99, 1),
]


@pytest.fixture(scope="module")
def pages():
    """Compute each page once: its script, its results, the text of its numbers."""
    sys.path.insert(0, str(DOCS))
    try:
        scripts = {name: importlib.import_module(f"lesson.{name}") for name in PAGES}
    finally:
        sys.path.remove(str(DOCS))
    computed = {}
    for name, script in scripts.items():
        results = script.compute()
        computed[name] = script, results, script.tell(results)
    return computed


def read(name):
    return (DOCS / "lesson" / f"{name}.rst").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_each_number_that_a_page_names_is_computed_and_each_that_is_computed_is_named(pages, name):
    assert set(re.findall(r"\|([\w.]+)\|", read(name))) == set(pages[name][2])


@pytest.mark.parametrize("name", PAGES)
def test_no_other_decimal_stands_in_a_page(name):
    text = "\n".join(line for line in read(name).splitlines() if ":alt:" not in line)
    # Settings to which links lead are no figures.
    text = re.sub(r"<[^>]*>`|\|[\w.]+\|", "", text)
    text = re.sub(r"^.. raw:: html\n(\n|   .*\n)+", "", text, flags=re.MULTILINE)
    assert set(re.findall(r"\d+\.\d+", text)) <= GIVEN[name]


@pytest.mark.parametrize(("page", "name", "expected", "tolerance"), KNOWN)
def test_a_number_is_what_is_known_of_it(pages, page, name, expected, tolerance):
    shown = float(pages[page][2][name].replace(",", ""))
    assert shown == pytest.approx(expected, abs=tolerance + 1e-9)


@pytest.mark.parametrize("way", ["by_difference", "by_autograd", "by_kernel"])
def test_the_gradient_is_q_minus_p_in_three_ways(pages, way):
    _, results, _ = pages["softmax"]
    np.testing.assert_allclose(results[way], results["closed_form"], atol=2e-6)


def test_the_step_is_the_same_in_numpy_torch_and_skdisk(pages):
    script, results, _ = pages["step"]
    by_numpy, *others = results["ways"]
    for other in others:
        for weight in script.START:
            np.testing.assert_allclose(other[weight], by_numpy[weight], atol=1e-6)
    assert results["after"] < results["before"]


def test_the_lesson_is_inside_the_band_at_its_end(pages):
    script, results, _ = pages["disk"]
    last = results["accuracies"][:, 29]
    assert last.min() - 0.5 < script.PRINTED[-1] < last.max() + 0.5
    assert np.all(np.diff(results["accuracies"][:, [0, 10, 20, 30]].mean(axis=0)) > 0)


def test_more_units_are_more_accurate_and_more_reliable(pages):
    script, results, _ = pages["learned"]
    medians = np.median(results["accuracies"], axis=1)
    assert medians[-1] > medians[script.UNITS.index(3)] > medians[0]
    spread = np.ptp(results["accuracies"], axis=1)
    assert spread[-1] < spread[script.UNITS.index(3)]
    assert np.mean(results["silent"]) > 0.5
    assert max(results["without"]) < results["on_grid"][(3,)] - 5


def test_a_rate_that_is_too_large_is_told_in_the_words_of_the_warning(pages):
    _, results, _ = pages["descent"]
    assert results["warning"].startswith("ConvergenceWarning: The training diverged in epoch 1")
    assert results["fits"]["lr", 0.04][0][-1] < results["fits"]["lr", 0.001][0][-1]


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_step_in_the_page_is_that_of_the_script(pages):
    script, _, _ = pages["step"]
    start = {name: value.tolist() for name, value in script.START.items()}
    path = DOCS / "_static" / "lesson" / "step.js"
    program = f"""
        const {{ takeStep }} = require({str(path)!r});
        const step = takeStep({start}, {script.X.tolist()}, {script.Y.tolist()}, {script.LR});
        console.log(JSON.stringify(step));
    """
    out = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    step = json.loads(out.stdout)
    expected = script.take_step(script.START, script.X, script.Y)
    for name, value in expected.items():
        np.testing.assert_allclose(step["after"][name], value, atol=1e-12)
    kept = script.forward(script.START, script.X)
    np.testing.assert_allclose(step["q"], kept["q"], atol=1e-12)
    assert step["loss"] == pytest.approx(script.compute_loss(kept["q"], script.Y))
