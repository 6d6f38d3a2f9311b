"""Page 5: what networks of several sizes learn of the disk."""

import time

import numpy as np
import torch
from joblib import Parallel, delayed

from skdisk import MLPDiskClassifier, make_disk

from .making import draw_both, make_colormap, write_data

# A start from which three units find the disk; how many do is counted below.
SHOWN = {(): 0, (3,): 5, (8,): 3, (64, 64): 0}
UNITS = (1, 2, 3, 4, 6, 8, 16, 32, 64)
N_SEEDS = 20
RADIUS = np.sqrt(2 / np.pi)
AXIS = (np.arange(100) + 0.5) / 50 - 1
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)
TRUTH = np.hypot(*GRID.T) < RADIUS


def learn(sizes, seed, **parameters):
    """Train a network on 2000 points."""
    X, y = make_disk(2000, random_state=seed)
    clf = MLPDiskClassifier(
        sizes,
        max_epochs=100,
        random_state=seed,
        **parameters,
    )
    return clf.fit(X, y)


def measure(sizes, seed):
    """Train a network, and score it on points that it has not seen."""
    return 100 * learn(sizes, seed).score(*make_disk(4000, random_state=1000 + seed))


def find_best_line():
    """Find the best accuracy of all lines: those of any direction, with outside beyond them."""
    best = 0
    for angle in np.radians(np.arange(0, 46)):
        order = np.argsort(GRID @ [np.cos(angle), np.sin(angle)])
        inside = TRUTH[order]
        right = np.cumsum(inside) + (~inside).sum() - np.cumsum(~inside)
        best = max(best, right.max())
    return 100 * best / len(GRID)


def get_layers(clf):
    """Return weights and biases of each layer as arrays."""
    parameters = [p.detach().numpy() for p in clf.module_.parameters()]
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def score_without(layers, silent):
    """Score a network of one hidden layer on the grid, one of its units held at 0."""
    (weight, bias), (output_weight, output_bias) = layers
    hidden = np.maximum(GRID @ weight.T + bias, 0)
    hidden[:, silent] = 0
    scores = hidden @ output_weight.T + output_bias
    return 100 * ((scores[:, 1] > scores[:, 0]) == TRUTH).mean()


def has_silent_unit(clf):
    """Tell whether a unit of the first layer is 0 on all of the square."""
    weight, bias = get_layers(clf)[0]
    return bool((GRID @ weight.T + bias <= 0).all(axis=0).any())


def compute():
    """Train 20 networks of each size, in threads, and five others."""
    results = {"clfs": {sizes: learn(sizes, seed) for sizes, seed in SHOWN.items()}}
    start = time.perf_counter()
    jobs = [(units, seed) for units in UNITS for seed in range(N_SEEDS)]
    run = delayed(lambda units, seed: measure((units,), seed))
    accuracies = Parallel(n_jobs=2, prefer="threads")(run(*job) for job in jobs)
    results["seconds"] = time.perf_counter() - start
    results["accuracies"] = np.reshape(accuracies, (len(UNITS), N_SEEDS))
    failed = np.flatnonzero(results["accuracies"][UNITS.index(3)] <= 90)
    results["silent"] = [has_silent_unit(learn((3,), int(seed))) for seed in failed]
    results["on_grid"] = {
        sizes: 100 * (clf.predict(GRID) == TRUTH).mean() for sizes, clf in results["clfs"].items()
    }
    results["best_line"] = find_best_line()
    small = get_layers(results["clfs"][(3,)])
    results["without"] = [score_without(small, [unit]) for unit in range(3)]
    squeezed = learn((16, 2), 0, activation="tanh")
    X, y = make_disk(1500, random_state=2)
    with torch.no_grad():
        hidden = squeezed.module_.layers[:4](torch.tensor(X, dtype=torch.float32)).numpy()
    results |= {"hidden": hidden, "y": y, "squeezed": squeezed}
    results["squeezed_right"] = 100 * squeezed.score(X, y)
    return results


def tell(results):
    """Make the text of each number."""
    rows = dict(zip(UNITS, results["accuracies"], strict=True))
    none, three, eight, many = results["on_grid"].values()
    return {
        "none": f"{none:.0f}",
        "three": f"{three:.1f}",
        "eight": f"{eight:.1f}",
        "many": f"{many:.1f}",
        "best_line": f"{results['best_line']:.0f}",
        **{f"without_{unit}": f"{right:.0f}" for unit, right in enumerate(results["without"])},
        "median_3": f"{np.median(rows[3]):.1f}",
        "n_failed": str(len(results["silent"])),
        "n_silent": str(sum(results["silent"])),
        "found": str((rows[3] > 90).sum()),
        "lowest_3": f"{rows[3].min():.0f}",
        "highest_3": f"{rows[3].max():.0f}",
        "lowest_64": f"{rows[64].min():.1f}",
        "n_networks": str(results["accuracies"].size),
        "n_seeds": str(N_SEEDS),
        "seconds": f"{results['seconds']:.1f}",
        "squeezed": f"{results['squeezed_right']:.1f}",
    }


def draw(results, folder):
    """Draw four networks with their lines, accuracies by units, and the last hidden layer."""
    import matplotlib.pyplot as plt

    def draw_networks(look):
        figure, axes = plt.subplots(2, 2, figsize=(5.6, 5.9), layout="constrained")
        for ax, (sizes, clf) in zip(axes.flat, results["clfs"].items(), strict=True):
            frame = clf.predict_proba(GRID)[:, 1].reshape(100, 100)
            style = {"cmap": make_colormap(look), "vmin": 0, "vmax": 1, "origin": "lower"}
            ax.imshow(frame, extent=(-1, 1, -1, 1), **style)
            weights, biases = get_layers(clf)[0]
            for (w1, w2), b in zip(weights, biases, strict=True) if sizes else ():
                # Where the unit's sum is 0: there it begins to fire.
                line = -(b + w1 * AXIS) / w2
                ax.plot(AXIS, line, color=look["muted"], linewidth=0.4 if len(biases) > 9 else 1)
            ax.contour(AXIS, AXIS, frame, levels=[0.5], colors=look["ink"], linewidths=1.8)
            circle = {"fill": False, "color": look["ink"], "linestyle": ":"}
            ax.add_patch(plt.Circle((0, 0), RADIUS, **circle))
            ax.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
            ax.set(title=f"{sizes}: {results['on_grid'][sizes]:.1f} % right", aspect="equal")
        return figure

    def draw_units(look):
        figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
        places = np.arange(len(UNITS))
        jitter = np.linspace(-0.18, 0.18, N_SEEDS)
        for place, row in zip(places, results["accuracies"], strict=True):
            ax.plot(place + jitter, row, "o", color=look["muted"], markersize=3, alpha=0.7)
        medians = np.median(results["accuracies"], axis=1)
        ax.plot(places, medians, "_", color=look["ink"], markersize=18, markeredgewidth=2.5)
        ax.set(xlabel="units of the only hidden layer", ylabel="accuracy on fresh points (%)")
        ax.set(xticks=places, xticklabels=UNITS)
        ax.set_title(f"{len(UNITS) * N_SEEDS} networks in {results['seconds']:.1f} s", loc="right")
        ax.plot([], [], "o", color=look["muted"], markersize=3, label="one seed")
        ax.plot([], [], "_", color=look["ink"], markeredgewidth=2.5, label="median")
        ax.legend(loc="lower right")
        return figure

    def draw_hidden(look):
        figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
        for label, name in ((0, "outside"), (1, "inside")):
            points = results["hidden"][results["y"] == label]
            ax.scatter(*points.T, s=6, color=look[name], label=name, linewidth=0, rasterized=True)
        weight, bias = get_layers(results["squeezed"])[-1]
        (w1, w2), b = weight[1] - weight[0], bias[1] - bias[0]
        axis = np.linspace(-1.1, 1.1, 2)
        ax.plot(axis, -(b + w1 * axis) / w2, color=look["ink"], label="the last layer's line")
        ax.set(xlabel="first unit of the last hidden layer", ylabel="second unit")
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        figure.legend(loc="outside lower center", ncols=3, markerscale=2.5)
        return figure

    draw_both(folder, "learned-networks", draw_networks)
    draw_both(folder, "learned-units", draw_units)
    draw_both(folder, "learned-hidden", draw_hidden)
    (weight, bias), (output_weight, output_bias) = get_layers(results["clfs"][(3,)])
    data = {
        "radius": RADIUS,
        "W1": weight.tolist(),
        "b1": bias.tolist(),
        "w2": (output_weight[1] - output_weight[0]).tolist(),
        "b2": float(output_bias[1] - output_bias[0]),
    }
    write_data(folder / "learned.html", "skd-learned-data", data)
