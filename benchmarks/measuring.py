"""What all cases share: the clock, the memory of a process, and rows for the table."""

import time
from pathlib import Path

import numpy as np

# The threads of a contender go on waiting for work a while after it, on cores that the next one
# needs: without a pause, whoever follows MLPClassifier looks up to 1.5 times as slow as it is.
PAUSE = 0.2
# The high-water mark of this very process: what getrusage tells includes the process it came from.
READ_PEAK = "float(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024"
RESULTS = Path(__file__).parent / "results"


def measure(functions, repeats, pause=PAUSE):
    """Time functions in turn; return the seconds of each, repeat by repeat.

    A single repeat is there to see that all works, and does not pause.
    """
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            time.sleep(pause if repeats > 1 else 0.0)
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def make_row(case, name, seconds, base, unit=1.0):
    """Summarise the seconds of one contender beside those of skdisk."""
    seconds, base = np.array(seconds), np.array(base)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]) / unit
    return {
        "case": case,
        "contender": name,
        "median": median,
        "quartiles": [low, high],
        "ratio": float(np.median(seconds) / np.median(base)),
        "seconds": seconds.tolist(),
    }


def make_rows(case, seconds, units=None):
    """Summarise a case; `units` divides the seconds of each contender, e.g. by its steps."""
    units = units or dict.fromkeys(seconds, 1.0)
    scaled = {name: np.array(values) / units[name] for name, values in seconds.items()}
    return [make_row(case, name, values, scaled["skdisk"]) for name, values in scaled.items()]


def read_peak_memory():
    """Read the peak memory of this process in MB."""
    return eval(READ_PEAK)


def make_data(rows, features):
    """Make standard normal rows, labelled by the sign of the first feature."""
    X = np.random.default_rng(0).standard_normal((rows, features))
    return X, (X[:, 0] > 0).astype(np.int64)
