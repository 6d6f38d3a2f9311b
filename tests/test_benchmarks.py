"""The benchmarks run. What they measure is not asserted: machines differ."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from skdisk import MLPDiskClassifier

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def run_quick(monkeypatch, capsys):
    """Run the quick form of a program in this process, which has imported the most of it."""
    monkeypatch.syspath_prepend(FOLDER)
    n_threads = torch.get_num_threads()

    def run(program, output, *options):
        arguments = [program, "--quick", "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        importlib.import_module(program).main()
        assert capsys.readouterr().err == ""

    yield run
    torch.set_num_threads(n_threads)


def test_the_quick_form_writes_a_table_a_file_and_a_picture(tmp_path):
    # In a process of its own: it imports JAX, if that is there, and other tests fork this one.
    result = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--quick", "--output", tmp_path],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {row["case"][:2] for row in rows} == {f"{letter}." for letter in "abcdefgh"}
    assert all(row["ratio"] == 1 for row in rows if row["contender"] == "skdisk")
    table = (tmp_path / "bench.md").read_text()
    assert all(row["contender"] in table for row in rows)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_quick_form_of_accuracy_writes_tables_a_file_and_a_picture(tmp_path, run_quick):
    run_quick("accuracy", tmp_path)
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    parts = {(row["part"], row["n_rows"], row["data"]) for row in rows}
    assert parts == {
        ("defaults", None, "iris"),
        ("defaults", None, "breast cancer"),
        ("defaults, few rows", 250, "breast cancer"),
        ("rates", None, "iris"),
        ("rates", None, "breast cancer"),
        ("rates, few rows", 250, "breast cancer"),
    }
    assert len(rows) == 3 * (7 + 8)
    for row in rows:
        folds = 2 if row["n_rows"] is None else 1
        assert [len(row[name]) for name in ("accuracy", "log_loss", "seconds")] == [folds] * 3
        assert all(0 <= accuracy <= 100 for accuracy in row["accuracy"])
        assert all(0 < loss < np.inf for loss in row["log_loss"])
    page = (tmp_path / "accuracy.md").read_text()
    assert all(f"| {row['classifier']} |" in page and row["data"] in page for row in rows)
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_of_accuracy_leaves_the_others_as_they_are(tmp_path, run_quick):
    scores = {"accuracy": [90.0], "log_loss": [0.5], "seconds": [12.5]}
    row = {"part": "rates", "n_rows": None, "classifier": "skdisk, defaults", **scores}
    kept = [{**row, "data": "iris"}, {**row, "data": "wine"}]
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps({"rows": [*kept, {**row, "part": "rates, few rows", "n_rows": 7}]}))
    run_quick("accuracy", tmp_path, "--parts", "rates, few rows")
    rows = json.loads(path.read_text())["rows"]
    assert rows[:2] == kept
    assert {(row["part"], row["n_rows"]) for row in rows[2:]} == {("rates, few rows", 250)}
    assert "12.500" in (tmp_path / "accuracy.md").read_text()


@pytest.mark.parametrize(("program", "name"), [("run", "bench"), ("accuracy", "accuracy")])
def test_page_and_picture_are_drawn_from_the_file_alone(tmp_path, run_quick, program, name):
    kept = (FOLDER / "results" / f"{name}.json").read_bytes()
    (tmp_path / f"{name}.json").write_bytes(kept)
    run_quick(program, tmp_path, "--draw")
    assert (tmp_path / f"{name}.json").read_bytes() == kept
    page = (FOLDER / "results" / f"{name}.md").read_text()
    assert (tmp_path / f"{name}.md").read_text() == page
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_quick_form_of_tuning_writes_a_page_and_a_file(tmp_path, run_quick):
    run_quick("tuning", tmp_path)
    results = json.loads((tmp_path / "tuning.json").read_text())
    assert {row["data"] for row in results["rows"]} == {"iris", "breast cancer"}
    assert all(len(row["log_loss"]) == 10 for row in results["rows"])
    page = (tmp_path / "tuning.md").read_text()
    assert {row["part"] for row in results["rows"]} == {"lr", "search"}
    assert "## `lr`" in page
    assert "| random search | 2 |" in page


def test_the_quick_form_for_a_gpu_writes_a_table_and_a_file(tmp_path, run_quick):
    run_quick("gpu", tmp_path, "--device", "cpu")
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["machine"]["gpu"] == "cpu"
    rows = {(row["case"], row["contender"]) for row in results["rows"]}
    fit, predict = "fit, lesson, s/epoch", "predict_proba of 1,000 rows, s"
    of_both = {(case, name) for case in (fit, predict) for name in ("skdisk", "skdisk, cpu")}
    assert rows == {*of_both, (fit, "pre-sliced loop, cpu")}
    table = (tmp_path / "gpu.md").read_text()
    assert all(f"| {case} | {contender} |" in table for case, contender in rows)


@pytest.fixture
def tuning_page(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("tuning_page")


def test_the_page_of_tuning_is_drawn_from_the_file_alone(tmp_path, tuning_page):
    results = json.loads((FOLDER / "results" / "tuning.json").read_text())
    defaults = MLPDiskClassifier().get_params()
    tuning_page.write_page(results["machine"], defaults, results["rows"], tmp_path / "page")
    assert (tmp_path / "page").read_text() == (FOLDER / "results" / "tuning.md").read_text()


def test_what_is_chosen_on_five_folds_is_scored_on_the_others(tuning_page):
    scores = {"defaults": [0.5] * 10, "good by chance": [0.1] * 5 + [0.9] * 5, "bad": [0.6] * 10}
    rows = [
        {"data": "iris", "classifier": name, "log_loss": losses, "accuracy": losses}
        for name, losses in scores.items()
    ]
    points, nats = tuning_page.choose_and_score(rows, [*scores])
    assert points.round(9).tolist() == nats.round(9).tolist() == [0.4]
    assert tuning_page.choose_and_score(rows, ["defaults", "bad"]).tolist() == [[0.0], [0.0]]


def test_a_case_leaves_the_others_as_they_are(tmp_path, run_quick):
    rows = json.loads((FOLDER / "results" / "bench.json").read_text())["rows"]
    # Without the searches there is no picture.
    rows = [row for row in rows if not row["case"].startswith("f.")]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"rows": rows}))
    run_quick("run", tmp_path, "--cases", "e")
    of_cases = {"e": [], "others": []}
    for row in json.loads(path.read_text())["rows"]:
        of_cases["e" if row["case"].startswith("e.") else "others"].append(row)
    assert of_cases["others"] == [row for row in rows if not row["case"].startswith("e.")]
    assert "adamw" in {row["contender"] for row in of_cases["e"]}
    assert [*tmp_path.glob("*.png")] == []


def test_no_name_of_the_picture_reaches_into_another_panel(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(FOLDER)
    page = importlib.import_module("bench_page")
    rows = json.loads((FOLDER / "results" / "bench.json").read_text())["rows"]
    axes = page.draw(rows, tmp_path / "bench.png").axes
    assert len(axes) == 3 + len(page.GROWTH)
    outer = [ax.get_tightbbox().padded(-2) for ax in axes]
    for i, box in enumerate(outer):
        assert not any(box.overlaps(other) for other in outer[i + 1 :])


def test_every_contender_has_one_colour(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    page = importlib.import_module("bench_page")
    assert len(set(page.COLORS.values())) == len(page.COLORS)
    looks = {name: page.find_look(name) for name in ("skdisk", "skdisk, one thread", "skorch")}
    assert looks["skdisk"] == looks["skdisk, one thread"] != looks["skorch"]


def test_the_quick_form_of_ensembles_writes_a_table(tmp_path, run_quick):
    run_quick("ensembles", tmp_path)
    page = (tmp_path / "ensembles.md").read_text()
    for method in ("the best", "seeds of the best", "the first ten", "from_search"):
        assert f"| breast cancer | {method} | 0." in page


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("tables")


def test_tables_have_at_most_a_thousand_rows_and_all_classes(tables):
    shapes = {
        name: (len(X), len(np.unique(y)))
        for name in tables.OWN
        for X, y in [tables.load_table(name)]
    }
    assert shapes == {
        "iris": (150, 3),
        "wine": (178, 3),
        "breast cancer": (569, 2),
        "digits": (1000, 10),
        "moons": (1000, 2),
        "4 classes": (1000, 4),
        "rare class": (1000, 2),
        "disk": (1000, 2),
    }


def test_the_preprocessor_makes_finite_numbers_of_gaps_and_categories(tables):
    color = ["red"] * 6 + ["blue"] * 6 + ["green", None]
    train = pd.DataFrame({"size": [1.0, 2.0, np.nan, 3.0] * 3 + [2.0, 2.0], "color": color})
    test = pd.DataFrame({"size": [np.nan, 2.0], "color": ["green", "never seen"]})
    preprocessor = tables.make_preprocessor()
    X = preprocessor.fit_transform(train)
    # The size; blue, red, and all that are rare.
    assert X.shape == (14, 4)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1)
    rare, unseen = preprocessor.transform(test)
    np.testing.assert_array_equal(rare, unseen)
    np.testing.assert_array_equal(rare, X[-1])


def test_two_commits_are_compared_by_the_median_ratio_of_runs_in_turn(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    compare = importlib.import_module("compare")
    runs = [
        {"before": {"fit": before}, "now": {"fit": now}}
        for before, now in [(1.0, 1.5), (2.0, 2.2), (4.0, 4.0)]
    ]
    assert compare.compute_ratios(runs) == {"fit": pytest.approx(1.1)}
    seconds = compare.run(FOLDER.parent)
    assert len(seconds) == 4
    assert all(0 < value < np.inf for value in seconds.values())
