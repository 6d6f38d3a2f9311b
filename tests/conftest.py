"""What must be set before SciPy is imported, and the data that most tests share."""

import os

# Read when SciPy is imported; scikit-learn skips its check of array API input without it.
os.environ["SCIPY_ARRAY_API"] = "1"
# Pictures are drawn without a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

import json
import platform
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skdisk import MLPDiskClassifier, _kernel, make_disk


def pytest_addoption(parser):
    """Add the options of the long forms."""
    parser.addoption("--long", action="store_true", help="run the long forms of tests as well")
    parser.addoption("--seed", type=int, default=0, help="what the long forms draw with")


def pytest_collection_modifyitems(items):
    """Skip what needs the kernel where there is none."""
    absence = _kernel.explain_absence()
    if absence is not None:
        skip = pytest.mark.skip(reason=f"there is no compiled kernel: {absence}")
        for item in items:
            if item.get_closest_marker("needs_kernel"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def has_kernel():
    """Tell whether there is a compiled kernel, which trains what it can."""
    return _kernel.explain_absence() is None


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.needs_kernel), False])
def fused(request):
    """Train with the kernel, then by skorch's loop."""
    return request.param


@pytest.fixture(scope="session")
def is_long(request):
    """Tell whether a test is to try everything, not a sample."""
    return request.config.getoption("--long")


class Campaign:
    """How much a test is to draw, with which seed; keeps the figures of a long run.

    The documentation shows the figures of the last two long runs of each test, with their seeds.
    """

    FOLDER = Path(__file__).parents[1] / "docs" / "results" / "campaigns"
    N_RUNS = 2

    def __init__(self, node, is_long, seed):
        self.node = node
        self.is_long = is_long
        self.seed = seed

    def choose(self, short, long):
        """Choose the size of the suite's form or of the long one."""
        return long if self.is_long else short

    def record(self, **figures):
        """Keep the figures of a long run, all of which held; in a short run do nothing."""
        if not self.is_long:
            return
        # One file for each set of arguments: workers of pytest do not meet in one.
        path = self.FOLDER / (re.sub(r"\W+", "-", self.node.name).strip("-") + ".json")
        runs = json.loads(path.read_text())["runs"] if path.exists() else []
        runs = [run for run in runs if run["seed"] != self.seed]
        run = {
            "seed": self.seed,
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "kernel": _kernel.choose_instruction_set(),
            "figures": figures,
        }
        path.parent.mkdir(exist_ok=True)
        kept = {"test": self.node.nodeid, "runs": [*runs, run][-self.N_RUNS :]}
        path.write_text(json.dumps(kept, indent=1) + "\n")


@pytest.fixture
def campaign(request, is_long):
    """Tell a test that draws its cases how many, with which seed; keep its figures."""
    return Campaign(request.node, is_long, request.config.getoption("--seed"))


@pytest.fixture
def end_process():
    """Handle signals as a server does: Ctrl-C raises KeyboardInterrupt, SIGTERM SystemExit.

    Ctrl-C also where a shell has it ignored. The value is the handler of SIGTERM.
    """

    def end(number, frame):
        raise SystemExit(128 + number)

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield end
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def disk():
    """Make a small data set: X of shape (200, 2), y of 0 and 1."""
    X, y = make_disk(200, random_state=0)
    X.flags.writeable = y.flags.writeable = False
    return X, y


@pytest.fixture(scope="session")
def data():
    """Make the data of searches: X of shape (90, 2), a tenth of the labels wrong."""
    return make_disk(90, flip_y=0.1, random_state=0)


@pytest.fixture
def clf():
    """Make the classifier of searches."""
    return MLPDiskClassifier((6,), lr=0.1, nesterov=False, max_epochs=4, random_state=0)


@pytest.fixture
def make_clf():
    """Make classifiers that train in milliseconds, by plain SGD where a test says no more."""
    small = {
        "hidden_layer_sizes": (8,),
        "lr": 0.1,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "lr_schedule": "constant",
        "max_epochs": 3,
        "random_state": 0,
    }

    def make(**params):
        return MLPDiskClassifier(**small | params)

    return make


@pytest.fixture
def get_weights():
    """Copy the weights of a fitted classifier, layer by layer."""

    def get(clf):
        return [p.detach().cpu().numpy().copy() for p in clf.module_.parameters()]

    return get


def _make_module_by_hand(sizes, activation, generator):
    """Make a module whose initial weights are those of a fit."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation()]
        for parameter in layers[-2].parameters():
            nn.init.uniform_(parameter, -(n_in**-0.5), n_in**-0.5, generator=generator)
    return nn.Sequential(*layers[:-1])


@pytest.fixture
def train_by_hand():
    """Train a network by a plain loop with autograd, as a `random_state` begins and orders.

    `compute_loss(scores, rows)` is the loss of a batch, `look(module)` is called when gradients
    are there, and when they have been used; return the module and the mean losses.
    """

    def train(
        sizes,
        X,
        compute_loss,
        *,
        activation=nn.Tanh,
        optimizer=torch.optim.SGD,
        batch_size=32,
        n_epochs=5,
        clip_grad_norm=None,
        random_state=0,
        dtype=torch.float32,
        look=lambda module: None,
        **options,
    ):
        seed = np.random.RandomState(random_state).randint(np.iinfo(np.int32).max)
        generator = torch.Generator().manual_seed(int(seed))
        # Initial weights and batches come from one generator, in this order.
        module = _make_module_by_hand(sizes, activation, generator).to(dtype)
        optimizer = optimizer(module.parameters(), **{"lr": 0.05} | options)
        X = torch.tensor(X, dtype=torch.float32).to(dtype)
        losses = []
        for _ in range(n_epochs):
            order = torch.randperm(len(X), generator=generator)
            losses.append(0.0)
            for rows in order.split(batch_size):
                optimizer.zero_grad()
                loss = compute_loss(module(X[rows]), rows)
                loss.backward()
                look(module)
                if clip_grad_norm is not None:
                    nn.utils.clip_grad_norm_(module.parameters(), clip_grad_norm)
                optimizer.step()
                look(module)
                losses[-1] += loss.item() * len(rows) / len(X)
        return module, losses

    return train


@pytest.fixture
def broken_accelerator(monkeypatch):
    """Name an accelerator that torch says is there, and cannot use.

    So it is with CUDA in a process that is forked from one that has started it.
    """
    if torch.backends.mps.is_available():
        pytest.skip("needs a machine on which torch cannot use MPS")
    device = torch.device("mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **kwargs: device)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    return device.type
