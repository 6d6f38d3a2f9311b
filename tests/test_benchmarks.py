"""The benchmarks run. What they measure is not asserted: machines differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "benchmarks"


def run_quick(program, output):
    result = subprocess.run(
        [sys.executable, FOLDER / program, "--quick", "--output", output],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_quick_form_writes_a_table_a_file_and_a_picture(tmp_path):
    run_quick("run.py", tmp_path)
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {row["case"][:2] for row in rows} == {f"{letter}." for letter in "abcdefgh"}
    assert all(row["ratio"] == 1 for row in rows if row["contender"] == "skdisk")
    table = (tmp_path / "bench.md").read_text()
    assert all(row["contender"] in table for row in rows)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_quick_form_of_accuracy_writes_tables_and_a_file(tmp_path):
    run_quick("accuracy.py", tmp_path)
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    assert len(rows) == 4 * 5
    assert all(0 <= row["accuracy"] <= 100 and row["seconds"] > 0 for row in rows)
    assert all(np.shape(row["scores"]) == (1, 5) for row in rows)
    table = (tmp_path / "accuracy.md").read_text()
    assert all(row["classifier"] in table and row["data"] in table for row in rows)
