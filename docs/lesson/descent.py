"""Page 6: the way down. What learning rate, momentum, batch size and schedule do."""

import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from skdisk import MLPDiskClassifier, make_disk

from .making import draw_both

ACCURACY = Path(__file__).parent.parent.parent / "benchmarks" / "results" / "accuracy.md"
BASE = {"lr": 0.04, "momentum": 0.9, "batch_size": 32, "lr_schedule": "cosine"}
SEARCH = {
    "lr": [0.001, 0.01, 0.04, 0.3],
    "momentum": [0.0, 0.5, 0.9, 0.99],
    "batch_size": [8, 32, 128, 512],
    "lr_schedule": ["constant", "cosine", "one_cycle"],
}
# How steep the bowl of the element is along each axis.
CURVATURES = np.array([1.0, 10.0])


def learn(parameters):
    """Train on 3000 points, and score on fresh ones."""
    X, y = make_disk(3000, random_state=0)
    clf = MLPDiskClassifier(
        max_epochs=30,
        random_state=0,
        **parameters,
    )
    clf.fit(X, y)
    fresh = make_disk(10_000, random_state=1)
    return clf.loss_curve_, 100 * clf.score(*fresh)


def diverge():
    """Train with a learning rate that is too large, and keep what skdisk says."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learn({**BASE, "lr": 10.0})
    return f"{caught[0].category.__name__}: {caught[0].message}"


def roll(lr, momentum, n_steps=400):
    """Roll down a bowl as torch's SGD does, and return how far from its bottom that ends."""
    x, velocity = np.ones(2), np.zeros(2)
    for _ in range(n_steps):
        velocity = momentum * velocity + CURVATURES * x
        x = x - lr * velocity
    return np.abs(x).max()


def find_largest_rate(momentum):
    """Find the largest learning rate that still comes to the bottom, by halving an interval."""
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if roll(middle, momentum) < 1 else (low, middle)
    return low


def read_accuracy(name):
    """Read the mean accuracy of a classifier in the first of the measured tables."""
    lines = ACCURACY.read_text().splitlines()
    row = next(line for line in lines if line.startswith(f"| {name} |"))
    return row.split("|")[2].strip()


def compute():
    """Train all settings, in threads."""
    jobs = [(name, value) for name, values in SEARCH.items() for value in values]
    start = time.perf_counter()
    run = delayed(lambda name, value: learn({**BASE, name: value}))
    fits = Parallel(n_jobs=2, prefer="threads")(run(*job) for job in jobs)
    return {
        "seconds": time.perf_counter() - start,
        "fits": dict(zip(jobs, fits, strict=True)),
        "warning": diverge(),
        "largest": {momentum: find_largest_rate(momentum) for momentum in (0.0, 0.9)},
    }


def tell(results):
    """Make the text of each number."""

    def write_loss(name, value):
        return f"{results['fits'][name, value][0][-1]:.3f}"

    def write_accuracy(name, value):
        return f"{results['fits'][name, value][1]:.1f}"

    return {
        "lr_0.001_loss": write_loss("lr", 0.001),
        "lr_0.04_loss": write_loss("lr", 0.04),
        "momentum_0.0_loss": write_loss("momentum", 0.0),
        "momentum_0.9_loss": write_loss("momentum", 0.9),
        "batch_512_loss": write_loss("batch_size", 512),
        "constant_loss": write_loss("lr_schedule", "constant"),
        "constant_acc": write_accuracy("lr_schedule", "constant"),
        "cosine_loss": write_loss("lr_schedule", "cosine"),
        "cosine_acc": write_accuracy("lr_schedule", "cosine"),
        "seconds": f"{results['seconds']:.1f}",
        "n_fits": str(len(results["fits"])),
        "largest_0": f"{results['largest'][0.0]:.2f}",
        "largest_9": f"{results['largest'][0.9]:.2f}",
        "tables_now": read_accuracy("skdisk, defaults"),
        "tables_before": read_accuracy("skdisk, defaults before"),
        "steps_8": str(3000 // 8),
        "steps_512": str(-(-3000 // 512)),
    }


def draw(results, folder):
    """Draw the loss curves; write the warning."""
    import matplotlib.pyplot as plt

    def draw_curves(look):
        figure, axes = plt.subplots(2, 2, figsize=(5.8, 5.6), layout="constrained", sharey=True)
        for ax, (name, values) in zip(axes.flat, SEARCH.items(), strict=True):
            # Neither blue nor orange: those are the classes.
            shades = plt.colormaps["Greys" if look["ink"] < "#8" else "Greys_r"]
            for i, value in enumerate(values):
                is_default = value == BASE[name]
                style = {"linestyle": ("-", "--", "-.", ":")[i], "linewidth": 1.5 + is_default}
                color = look["ink"] if is_default else shades(0.6)
                ax.plot(range(1, 31), results["fits"][name, value][0], color=color, **style)
                ax.plot([], [], color=color, label=f"{value}", **style)
            ax.legend(fontsize=8, title=name, title_fontsize=9, handlelength=2.6)
            ax.set(yscale="log", ylim=(0.02, 3), yticks=[0.03, 0.1, 0.3, 1])
            ax.set_yticklabels(["0.03", "0.1", "0.3", "1"])
            ax.minorticks_off()
        for ax in axes[1]:
            ax.set_xlabel("epoch")
        for ax in axes[:, 0]:
            ax.set_ylabel("mean loss (nats)")
        return figure

    draw_both(folder, "descent-curves", draw_curves)
    text = textwrap.indent(textwrap.fill(results["warning"], 66), "   ")
    (folder / "descent-warning.inc").write_text(f".. code-block:: text\n\n{text}\n")
