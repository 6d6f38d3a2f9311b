"""Calls that are drawn: wild arguments in calls that are otherwise right, in any order.

What is drawn is in `fuzz_values.py` and `fuzz_parameters.py`, what is promised of each call in
`fuzz_calls.py`. The cases run in a process of their own, so that one that crashes or hangs is
found, and named.

`make fuzz SEED=1` makes more than 100,000 calls, the suite about 1,000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("fuzz_calls.py")
# A case makes 4.2 calls. Each part of the long form takes a minute or two.
N_CASES, N_CASES_LONG = 250, 2_500
N_PARTS_LONG = 10
# So many of them that a crash is told before the end.
AT_ONCE = 1_000
SHOWN = 5


def pytest_generate_tests(metafunc):
    """Make a test of each part."""
    n_parts = N_PARTS_LONG if metafunc.config.getoption("--long") else 1
    metafunc.parametrize("part", range(n_parts))


def run_cases(seed, first, stop, path):
    """Run cases in a process; return what was found, and where to go on."""
    command = [sys.executable, PROGRAM, str(seed), str(first), str(stop), path]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    text = path.read_text()
    if result.returncode == 0:
        return json.loads(text), stop
    number = int(text[:12])
    fault = f"ended the process with {result.returncode}:\n{result.stderr[-3000:]}"
    return {"counts": {}, "faults": [{"number": number, "fault": fault, "calls": []}]}, number + 1


def describe(seed, fault):
    """Describe what is wrong, and how to see it again."""
    calls = "\n    ".join(fault["calls"])
    again = f"python tests/fuzz_calls.py {seed} {fault['number']}"
    return f"\n{again}\n    {calls}\n  {fault['fault']}"


def test_a_drawn_call_keeps_its_promise_or_is_refused_in_words(tmp_path, campaign, part):
    n_cases = campaign.choose(N_CASES, N_CASES_LONG)
    number, end = part * n_cases, (part + 1) * n_cases
    figures, faults = dict.fromkeys(("calls", "succeeded", "refused"), 0), []
    while number < end:
        stop = min(end, number + AT_ONCE)
        found, number = run_cases(campaign.seed, number, stop, tmp_path / "report")
        faults += found["faults"]
        for name in figures:
            figures[name] += found["counts"].get(name, 0)
    shown = "\n".join(describe(campaign.seed, fault) for fault in faults[:SHOWN])
    assert not faults, f"{len(faults)} promises were broken, such as:\n{shown}"
    assert min(figures["succeeded"], figures["refused"]) > figures["calls"] / 4
    campaign.record(**figures)
