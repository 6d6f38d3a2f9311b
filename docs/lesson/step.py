"""Page 3: one step of gradient descent, with every number, in NumPy, torch and the kernel."""

import numpy as np
import torch

from skdisk._kernel.trainer import Data, Network, Settings, State, train

from .making import draw_both, write_data

X = np.array([[0.2, 0.1], [0.9, -0.6], [-0.5, 0.4]])
Y = np.array([1, 0, 1])
START = {
    "W1": np.array([[0.5, -0.3], [-0.4, 0.6]]),
    "b1": np.array([0.1, 0.2]),
    "W2": np.array([[0.6, -0.5], [0.2, 0.4]]),
    "b2": np.array([0.8, 0.0]),
}
LR = 0.5


def forward(p, X):
    """Go from rows to probabilities; keep all on the way."""
    z1 = X @ p["W1"].T + p["b1"]
    h = np.maximum(z1, 0)
    z2 = h @ p["W2"].T + p["b2"]
    powers = np.exp(z2 - z2.max(axis=1, keepdims=True))
    q = powers / powers.sum(axis=1, keepdims=True)
    return {"z1": z1, "h": h, "z2": z2, "q": q}


def compute_loss(q, y):
    """Compute the mean cross-entropy, in nats."""
    return -np.log(q[np.arange(len(y)), y]).mean()


def backward(p, X, y, kept):
    """Go from the loss back to every weight."""
    d_z2 = (kept["q"] - np.eye(2)[y]) / len(y)
    d_h = d_z2 @ p["W2"]
    d_z1 = d_h * (kept["z1"] > 0)
    return {
        "d_z2": d_z2,
        "d_W2": d_z2.T @ kept["h"],
        "d_b2": d_z2.sum(axis=0),
        "d_h": d_h,
        "d_z1": d_z1,
        "d_W1": d_z1.T @ X,
        "d_b1": d_z1.sum(axis=0),
    }


def take_step(p, X, y, lr=LR):
    """Move every weight against its gradient."""
    g = backward(p, X, y, forward(p, X))
    return {name: p[name] - lr * g[f"d_{name}"] for name in p}


def take_step_in_torch(p, X, y, lr=LR):
    """Let autograd and torch's optimiser do the same."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    with torch.no_grad():
        for weight, value in zip(net.parameters(), p.values(), strict=True):
            weight.copy_(torch.tensor(value))
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    scores = net(torch.tensor(X, dtype=torch.float32))
    torch.nn.functional.cross_entropy(scores, torch.tensor(y)).backward()
    optimizer.step()
    return {name: w.detach().numpy() for name, w in zip(p, net.parameters(), strict=True)}


def take_step_in_skdisk(p, X, y, lr=LR):
    """Let skdisk's kernel do the same: an epoch of one batch of three rows."""
    flat = np.concatenate([value.ravel() for value in p.values()]).astype(np.float32)
    state, order = State(flat), np.arange(len(y))[None]
    settings, data = Settings(batch_size=len(y)), Data(X.astype(np.float32), y)
    train(Network((2, 2, 2)), settings, state, data, order, np.array([lr]))
    ends = np.cumsum([value.size for value in p.values()])[:-1]
    parts = np.split(state.parameters, ends)
    return {name: part.reshape(p[name].shape) for name, part in zip(p, parts, strict=True)}


def count_steps_until_right(p):
    """Count steps until all three rows are right."""
    steps = 0
    while (forward(p, X)["q"].argmax(axis=1) != Y).any():
        p, steps = take_step(p, X, Y), steps + 1
    return steps


def compute():
    """Take the step, in three ways."""
    kept = forward(START, X)
    ways = [way(START, X, Y) for way in (take_step, take_step_in_torch, take_step_in_skdisk)]
    rates = np.linspace(0, 12, 241)
    moved = [take_step(START, X, Y, lr) for lr in rates]
    return {
        "forward": kept,
        "backward": backward(START, X, Y, kept),
        "ways": ways,
        "before": compute_loss(kept["q"], Y),
        "after": compute_loss(forward(ways[0], X)["q"], Y),
        "rates": rates,
        "losses": np.array([compute_loss(forward(p, X)["q"], Y) for p in moved]),
        "steps": count_steps_until_right(START),
        "apart": max(
            np.abs(ways[0][name] - other[name]).max() for other in ways[1:] for name in START
        ),
    }


def _write(number):
    return f"{number:.3f}".replace("-", "\N{MINUS SIGN}")


def tell(results):
    """Make the text of each number."""
    best = results["losses"].argmin()
    squared = sum((results["backward"][f"d_{name}"] ** 2).sum() for name in START)
    too_far = results["rates"][best:][results["losses"][best:] > results["before"]]
    return {
        "before": _write(results["before"]),
        "after": _write(results["after"]),
        "fall": _write(results["before"] - results["after"]),
        "expected_fall": _write(LR * squared),
        "apart": f"{results['apart'] * 1e8:.0f}",
        "steps": str(results["steps"]),
        "best_rate": f"{results['rates'][best]:.1f}",
        "too_far": f"{too_far[0]:.1f}",
        "lr": str(LR),
        "q0": _write(results["forward"]["q"][0, 1]),
        "q1": _write(results["forward"]["q"][1, 0]),
        "n_weights": str(sum(value.size for value in START.values())),
    }


def _write_table(path, rows):
    """Write rows of (name, formula, array) as a table with shapes."""
    lines = [".. list-table::", "   :header-rows: 1", "   :class: skd-numbers", ""]
    lines += ["   * - what", "     - shape", "     - numbers"]
    for name, formula, array in rows:
        title = f"``{name}``" + (f" = ``{formula}``" if formula else "")
        numbers = [" ".join(map(_write, row)) for row in np.atleast_2d(array)]
        lines += [f"   * - {title}", f"     - {array.shape}", f"     - | {numbers[0]}"]
        lines += [f"       | {row}" for row in numbers[1:]]
    path.write_text("\n".join(lines) + "\n")


def _write_tables(results, folder):
    kept, gradient, new = results["forward"], results["backward"], results["ways"][0]
    start = [(name, "", value) for name, value in START.items()]
    _write_table(folder / "step-start.inc", [("X", "", X), *start])
    _write_table(
        folder / "step-forward.inc",
        [
            ("z1", "X @ W1.T + b1", kept["z1"]),
            ("h", "max(z1, 0)", kept["h"]),
            ("z2", "h @ W2.T + b2", kept["z2"]),
            ("q", "softmax(z2)", kept["q"]),
        ],
    )
    _write_table(
        folder / "step-backward.inc",
        [
            ("d_z2", "(q - p) / 3", gradient["d_z2"]),
            ("d_W2", "d_z2.T @ h", gradient["d_W2"]),
            ("d_b2", "d_z2.sum(axis=0)", gradient["d_b2"]),
            ("d_h", "d_z2 @ W2", gradient["d_h"]),
            ("d_z1", "d_h * (z1 > 0)", gradient["d_z1"]),
            ("d_W1", "d_z1.T @ X", gradient["d_W1"]),
            ("d_b1", "d_z1.sum(axis=0)", gradient["d_b1"]),
        ],
    )
    rows = [(name, f"{name} - {LR} * d_{name}", new[name]) for name in START]
    _write_table(folder / "step-update.inc", rows)


def draw(results, folder):
    """Draw the loss after the step against the learning rate; write the tables."""
    import matplotlib.pyplot as plt

    def draw_rates(look):
        figure, ax = plt.subplots(figsize=(5.6, 2.9), layout="constrained")
        ax.plot(results["rates"], results["losses"], color=look["ink"])
        ax.axhline(results["before"], color=look["muted"], linestyle="--", linewidth=1)
        ax.annotate("before the step", (6, results["before"]), ha="right", va="bottom")
        ax.plot(LR, results["after"], "o", color=look["ink"])
        # Above the curve and the dashed line, which are close to each other here.
        place = {"textcoords": "offset points", "xytext": (10, 40)}
        arrow = {"arrowstyle": "-", "color": look["muted"]}
        ax.annotate("this page's step", (LR, results["after"]), arrowprops=arrow, **place)
        ax.set(xlabel="learning rate of the step", ylabel="loss after it (nats)")
        ax.set(xlim=(0, 6), ylim=(0, 2.2))
        return figure

    draw_both(folder, "step-rates", draw_rates)
    _write_tables(results, folder)
    data = {"X": X.tolist(), "y": Y.tolist(), "lr": LR}
    data |= {name: value.tolist() for name, value in START.items()}
    write_data(folder / "step.html", "skd-step-data", data)
