"""The benchmarks run. What they measure is not asserted: machines differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "run.py"


def test_the_quick_form_writes_a_table_a_file_and_a_picture(tmp_path):
    result = subprocess.run(
        [sys.executable, PROGRAM, "--quick", "--output", tmp_path],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {row["case"][:2] for row in rows} == {"a.", "b.", "c.", "d."}
    assert all(row["ratio"] == 1 for row in rows if row["contender"] == "skdisk")
    table = (tmp_path / "bench.md").read_text()
    assert all(row["contender"] in table for row in rows)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
