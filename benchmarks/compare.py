"""Compare the speed with another commit's: `python benchmarks/compare.py HEAD~1`.

Both are built and run in turn, each time in a process of its own, so that a slow moment of the
machine meets both. A case fails where the median of the ratios of neighbouring runs is above the
limit. Seconds are of CPU, which other programs on the machine change least.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import setup; setup()"


def build(revision, folder):
    """Put the files of a commit into a folder and compile the kernel there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", folder], input=archive, check=True)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, "--quiet", "build_ext", "--inplace"],
        cwd=folder,
        check=True,
    )


def time_cases():
    """Time the cases with the package that Python finds; return the seconds of each."""
    import skdisk

    X, y = skdisk.make_disk(3000, random_state=0)
    clf = skdisk.MLPDiskClassifier(max_epochs=100, random_state=0)
    short = skdisk.MLPDiskClassifier(max_epochs=1, random_state=0)
    many = np.tile(X, (30, 1))
    cases = {
        "fit of 100 epochs": (lambda: clf.fit(X, y), 5),
        "fit of one epoch of 100 rows": (lambda: short.fit(X[:100], y[:100]), 50),
        "predict_proba of 90,000 rows": (lambda: clf.predict_proba(many), 10),
        "predict of one row": (lambda: clf.predict(X[:1]), 300),
    }
    seconds = {}
    for name, (function, n_calls) in cases.items():
        function()
        times = []
        for _ in range(n_calls):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        seconds[name] = float(np.median(times))
    return {"package": str(Path(skdisk.__file__).parents[1]), "seconds": seconds}


def run(folder):
    """Time the cases in a process that has the package of a folder."""
    result = subprocess.run(
        [sys.executable, __file__, "--measure"],
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
    )
    measured = json.loads(result.stdout)
    if Path(measured["package"]) != folder:
        raise RuntimeError(f"Measured {measured['package']}, not {folder}.")
    return measured["seconds"]


def compute_ratios(runs):
    """Compute the median ratio of neighbouring runs, now over before, of each case."""
    return {
        case: float(np.median([pair["now"][case] / pair["before"][case] for pair in runs]))
        for case in runs[0]["now"]
    }


def main():
    """Build both, measure in turn, print the ratios; fail where one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", nargs="?", default="HEAD~1", help="the commit to compare with")
    parser.add_argument("now", nargs="?", default="HEAD", help="the commit that is compared")
    parser.add_argument("--repeats", type=int, default=9, help="of both, in turn")
    parser.add_argument("--limit", type=float, default=1.2, help="the ratio above which it fails")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(time_cases()))
        return
    folders = {name: ROOT / "build" / "compare" / name for name in ("before", "now")}
    for name, folder in folders.items():
        build(getattr(args, name), folder)
    runs = [{name: run(folder) for name, folder in folders.items()} for _ in range(args.repeats)]
    ratios = compute_ratios(runs)
    for case, ratio in ratios.items():
        before, now = (np.median([pair[name][case] for pair in runs]) for name in folders)
        print(f"{case:30} {1e6 * before:9.1f} us  {1e6 * now:9.1f} us  x {ratio:.2f}")
    slower = [case for case, ratio in ratios.items() if ratio > args.limit]
    if slower:
        sys.exit(f"More than {args.limit:g} times as slow as {args.before}: {', '.join(slower)}")


if __name__ == "__main__":
    main()
