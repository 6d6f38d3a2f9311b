"""The compiled kernel in many threads at once and in a forked process. NumPy only."""

import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from skdisk import _kernel as kernel
from skdisk._kernel import Data, Network, Settings, State

if not kernel.get_instruction_sets():
    pytest.skip("the kernel has not been compiled here", allow_module_level=True)

N_THREADS = 8
BEST = kernel.get_instruction_sets()[-1]
NETWORKS = [
    (Network((2, 64, 64, 2)), Settings(32, momentum=0.9, nesterov=True)),
    (Network((2, 16, 16, 3), "gelu"), Settings(5, optimizer="adam", dropout=(0.2, 0.5))),
    (Network((2, 5)), Settings(8, max_norm=0.1)),
    (Network((2, 8, 3), output="sigmoid"), Settings(7, momentum=0.9)),
]


def make_state(network, how, parameters=None):
    """Make the state before the first step, its memory zeros; None are parameters of zeros."""
    zeros = np.zeros(network.count_parameters(), dtype=np.float32)
    memory = {name: zeros.copy() for name in how.name_memory()}
    return State(zeros if parameters is None else parameters, memory)


def train(network, how, seed, instruction_set):
    """Train a network, predict, and return all that comes of it."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 2)).astype(np.float32)
    labels = (X[:, 0] > 0).astype(np.int64)
    if network.output == "sigmoid":
        labels = np.repeat(labels[:, None], network.layer_sizes[-1], axis=1).astype(np.float32)
    data = Data(X, labels, None, rng.integers(-(2**63), 2**63, 200))
    orders = np.array([rng.permutation(200) for _ in range(4)])
    parts = [rng.uniform(-1, 1, m * (n + 1)) / math.sqrt(n) for n, m in pairwise(network[0])]
    state = make_state(network, how, np.concatenate(parts).astype(np.float32))
    chosen = {"instruction_set": instruction_set}
    losses = kernel.train(
        network, how, state, data, orders, np.full(4, 0.01), np.arange(4), **chosen
    ).losses
    log_proba = kernel.predict(network, state.parameters, X, **chosen)
    evaluation = np.array(kernel.evaluate(network, state.parameters, data, **chosen))
    return b"".join(a.tobytes() for a in (state.parameters, losses, log_proba, evaluation))


@pytest.mark.parametrize("instruction_set", kernel.get_instruction_sets())
def test_many_threads_at_once_give_the_bits_of_one_alone(instruction_set):
    jobs = [
        (network, how, seed, instruction_set) for seed in range(20) for network, how in NETWORKS
    ]
    alone = [train(*job) for job in jobs]
    start = threading.Barrier(N_THREADS)
    with ThreadPoolExecutor(N_THREADS, initializer=start.wait) as pool:
        assert list(pool.map(train, *zip(*jobs, strict=True))) == alone


def test_threads_may_share_the_rows_to_predict():
    network, rng = Network((3, 50, 4), "tanh"), np.random.default_rng(0)
    parameters = rng.uniform(-1, 1, network.count_parameters()).astype(np.float32)
    X, out = rng.standard_normal((999, 3)), np.empty((999, 4))
    parts = [slice(i, i + 77) for i in range(0, 999, 77)]

    def predict_part(part):
        kernel.predict(network, parameters, X[part], out=out[part], instruction_set=BEST)

    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(predict_part, parts))
    assert np.array_equal(out, kernel.predict(network, parameters, X, instruction_set=BEST))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_trains_while_its_parent_does():
    program = f"""
import os, sys, threading
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_kernel_threads import BEST, NETWORKS, train
job = (*NETWORKS[0], 0, BEST)
alone = train(*job)
beside = threading.Thread(target=lambda: [train(*job) for _ in range(50)])
beside.start()
child = os.fork()
if not child:
    os._exit(train(*job) != alone)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), train(*job) == alone)
beside.join()
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "0 True\n", result.stderr
