"""Page 1: a neuron. AND is learned, XOR cannot be."""

import numpy as np

from skdisk import MLPDiskClassifier

from .making import draw_both, make_colormap, write_data

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
TABLES = {"AND": [0, 0, 0, 1], "OR": [0, 1, 1, 1], "XOR": [0, 1, 1, 0]}
BY_HAND = (1.0, 1.0, -1.5)


def threshold(z):
    """Compute the first neuron's activation: a step."""
    return np.where(z > 0, 1.0, 0.0)


def sigmoid(z):
    """Compute its smooth stand-in."""
    return 1 / (1 + np.exp(-z))


def learn(y):
    """Train a single neuron on the four points."""
    clf = MLPDiskClassifier(hidden_layer_sizes=(), random_state=0)
    return clf.fit(X, y)


def find_neuron(clf):
    """Find w1, w2 and b of the neuron that a network without hidden layers is."""
    weight, bias = (p.detach().numpy() for p in clf.module_.parameters())
    return *(weight[1] - weight[0]), bias[1] - bias[0]


def count_right(y, values):
    """Count the rows that the best threshold neuron gets right, of all with these parameters."""
    w1, w2, b = np.meshgrid(values, values, values)
    fires = w1[..., None] * X[:, 0] + w2[..., None] * X[:, 1] + b[..., None] > 0
    return int((fires == np.array(y)).sum(axis=-1).max())


def compute():
    """Learn each table, and try a grid of neurons by hand."""
    results = {"steps": np.arange(-4, 4.25, 0.25)}
    for name, y in TABLES.items():
        clf = learn(y)
        results[name] = {
            "neuron": find_neuron(clf),
            "proba": clf.predict_proba(X)[:, 1],
            "right": round(4 * clf.score(X, y)),
            "loss": clf.loss_curve_[-1],
            "best_right": count_right(y, results["steps"]),
        }
    return results


def tell(results):
    """Make the text of each number."""
    w1, w2, b = results["AND"]["neuron"]
    corner = results["AND"]["proba"]
    return {
        "w1": f"{w1:.2f}",
        "w2": f"{w2:.2f}",
        "b": f"{b:.2f}".replace("-", "\N{MINUS SIGN}"),
        "crossing": f"{-b / w1:.2f}",
        "and_11": f"{corner[3]:.2f}",
        "and_01": f"{corner[1]:.2f}",
        "and_00": f"{corner[0]:.2f}",
        "xor_loss": f"{results['XOR']['loss']:.3f}",
        "tried": f"{len(results['steps']) ** 3:,}",
        "xor_best": str(results["XOR"]["best_right"]),
        "or_best": str(results["OR"]["best_right"]),
    }


def draw(results, folder):
    """Draw both activations, and the plane with AND."""
    import matplotlib.pyplot as plt

    def draw_activations(look):
        figure, ax = plt.subplots(figsize=(5.6, 2.5), layout="constrained")
        z = np.linspace(-6, 6, 601)
        for half in (z[z <= 0], z[z > 0]):
            ax.plot(half, threshold(half), color=look["muted"], linestyle="--")
        ax.plot([], [], color=look["muted"], linestyle="--", label="threshold")
        ax.plot(z, sigmoid(z), color=look["ink"], label="sigmoid")
        ax.set(xlabel="z = w1 x1 + w2 x2 + b", ylabel="A(z)", yticks=[0, 0.5, 1])
        ax.legend(loc="upper left")
        return figure

    def draw_plane(look):
        figure, ax = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
        low, high = -0.5, 1.7
        axis = np.linspace(low, high, 120)
        w1, w2, b = results["AND"]["neuron"]
        proba = sigmoid(w1 * axis + w2 * axis[:, None] + b)
        shades = {"cmap": make_colormap(look), "vmin": 0, "vmax": 1, "origin": "lower"}
        image = ax.imshow(proba, extent=(low, high, low, high), **shades)
        for (w1, w2, b), style, label in (
            (results["AND"]["neuron"], "-", "learned"),
            (BY_HAND, ":", "by hand"),
        ):
            line = -(b + w1 * axis) / w2
            ax.plot(axis, line, style, color=look["ink"], label=label)
        for value, color in ((0, look["outside"]), (1, look["inside"])):
            points = X[np.array(TABLES["AND"]) == value]
            ax.scatter(*points.T, s=70, color=color, edgecolor=look["ink"], zorder=3)
            ax.scatter([], [], s=40, color=color, edgecolor=look["ink"], label=f"AND is {value}")
        ax.set(xlabel="x1", ylabel="x2", xlim=(low, high), ylim=(low, high))
        ax.set(xticks=[0, 1], yticks=[0, 1])
        figure.colorbar(image, ax=ax, label="sigmoid of the learned neuron", shrink=0.8)
        figure.legend(loc="outside lower center", ncols=4, columnspacing=1, handlelength=1.3)
        return figure

    draw_both(folder, "neuron-activations", draw_activations)
    draw_both(folder, "neuron-plane", draw_plane)
    w1, w2, b = results["AND"]["neuron"]
    learned = {"w1": float(w1), "w2": float(w2), "b": float(b)}
    write_data(folder / "neuron.html", "skd-neuron-data", learned)
