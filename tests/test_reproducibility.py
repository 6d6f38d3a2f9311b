"""The rows of the table of reproducibility that promise equal bits, each on a few drawn fits.

benchmarks/reproducibility.py has the rows and measures the whole table; here is nothing of a
search on Dask, which is in `test_dask.py`.
"""

import importlib
import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
table = importlib.import_module("reproducibility")
sys.path.remove(str(BENCHMARKS))


PROMISES = [
    pytest.param(
        row, way, marks=[pytest.mark.needs_kernel] * (way == "kernel"), id=f"{row.what}, {way}"
    )
    for row in table.QUICK_ROWS
    for way in table.WAYS
    if getattr(row, way)
]


# Some drawn fits diverge, and they do so alike.
may_diverge = pytest.mark.filterwarnings("ignore:The training diverged")


@may_diverge
@pytest.mark.parametrize(("row", "way"), PROMISES)
def test_what_the_table_promises_has_equal_bits(campaign, row, way):
    if "AVX2" in row.what and "avx2" not in table.get_instruction_sets():
        pytest.skip("this machine does not have AVX2")
    jobs = table.draw_jobs(campaign.seed, campaign.choose(2, 300), way)
    n_equal, n, largest = table.compare(row, jobs, table.fit_all(jobs))
    assert n_equal == n, f"{n_equal} of {n} are equal, the others up to {largest:.1e}"
    campaign.record(fits=n)


@may_diverge
@pytest.mark.needs_kernel
def test_another_process_in_other_surroundings_trains_the_same_networks(campaign):
    surroundings = {
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "3",
        # Of one that is asked for here nothing is promised: "default" draws other initial weights.
        "ATEN_CPU_CAPABILITY": os.environ.get("ATEN_CPU_CAPABILITY", "avx2"),
        **table.WITHOUT_AVX512,
    }
    row = table.Row("all at once", table.fit_in_process(**surroundings))
    jobs = table.draw_jobs(campaign.seed, campaign.choose(3, 300), "kernel")
    n_equal, n, largest = table.compare(row, jobs, table.fit_all(jobs))
    assert n_equal == n, f"{n_equal} of {n} are equal, the others up to {largest:.1e}"
    campaign.record(fits=n)
