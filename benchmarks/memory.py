"""Measure the memory of many: threads and processes of a search, workers of a server.

`python benchmarks/memory.py` writes results/memory.json, which the guide shows. Linux only: memory
is the sum of all processes' proportional shares (PSS), in which what several share counts once.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
from measuring import RESULTS, make_data
from run import describe_machine

N_WORKERS = 4
# A search; how many jobs, and in threads or processes.
SEARCHES = {
    "one thread": (1, "threading"),
    "two threads": (2, "threading"),
    "two processes": (2, "loky"),
}
SEARCH = """
import joblib, numpy as np
from sklearn.model_selection import GridSearchCV
from skdisk import MLPDiskClassifier
X, y = np.load({data!r}), np.load({labels!r})
grid = {{"lr": [0.01, 0.03, 0.1], "batch_size": [256, 512, 1024]}}
clf = MLPDiskClassifier((32,), max_epochs=10, random_state=0)
# The first fit of a process loads code.
clf.fit(X[:2000], y[:2000])
print("ready", flush=True)
input()
with joblib.parallel_config({backend!r}):
    GridSearchCV(clf, grid, cv=3, n_jobs={n_jobs}).fit(X, y)
"""
SAVE = """
import joblib
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skdisk import MLPDiskClassifier, make_disk
pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0))
joblib.dump(pipeline.fit(*make_disk(3000, random_state=0)), {path!r})
"""
# Workers of a server: each has predicted some rows, and waits.
LOAD = """
import joblib, os, signal
clf = joblib.load({path!r})
clf.predict_proba([[0.0, 0.1]])
"""
SERVE = """
for _ in range(100):
    clf.predict_proba([[0.0, 0.1]])
print("ready", flush=True)
input()
"""
FORK = """
pids = []
for _ in range({n_workers}):
    read, write = os.pipe()
    pids.append(os.fork())
    if not pids[-1]:
        for _ in range(100):
            clf.predict_proba([[0.0, 0.1]])
        os.write(write, b"1")
        signal.pause()
    os.read(read, 1)
print("ready", flush=True)
input()
for pid in pids:
    os.kill(pid, 9)
"""


def start(program):
    """Start a program, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", "the program has failed"
    return process


def stop(process):
    """Let a program go on, to its end."""
    process.communicate("\n")


def read_memory(*processes):
    """Read the megabytes of processes, and of those that they have started."""
    total = 0
    for process in processes:
        parent = psutil.Process(process.pid)
        for each in [parent, *parent.children(recursive=True)]:
            try:
                total += each.memory_full_info().pss
            except psutil.Error:
                continue
    return total / 1e6


def measure_search(program):
    """Measure by how many megabytes the memory grows in a search, at most."""
    process = start(program)
    before = peak = read_memory(process)
    thread = threading.Thread(target=stop, args=(process,))
    thread.start()
    while thread.is_alive():
        try:
            peak = max(peak, read_memory(process))
        except psutil.Error:
            break
        thread.join(0.02)
    thread.join()
    return peak - before


def measure_workers(folder):
    """Measure the megabytes of workers: forked from one that has loaded a pipeline, or not."""
    path = str(Path(folder, "pipeline.joblib"))
    subprocess.run([sys.executable, "-c", SAVE.format(path=path)], check=True)
    load = LOAD.format(path=path)
    memory = {}
    for name, program, n in (
        ("forked after loading", load + FORK.format(n_workers=N_WORKERS), 1),
        ("each loads", load + SERVE, N_WORKERS),
    ):
        processes = [start(program) for _ in range(n)]
        memory[name] = read_memory(*processes)
        for process in processes:
            stop(process)
    return memory


def main():
    """Measure both; write JSON."""
    X, y = make_data(100_000, 50)
    with tempfile.TemporaryDirectory() as folder:
        data, labels = str(Path(folder, "X.npy")), str(Path(folder, "y.npy"))
        np.save(data, X)
        np.save(labels, y)
        searches = {
            name: measure_search(
                SEARCH.format(data=data, labels=labels, n_jobs=n_jobs, backend=backend)
            )
            for name, (n_jobs, backend) in SEARCHES.items()
        }
        workers = measure_workers(folder)
    results = {
        "machine": describe_machine(),
        "data": X.nbytes / 1e6,
        "search": searches,
        "n_workers": N_WORKERS,
        "workers": workers,
    }
    (RESULTS / "memory.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
