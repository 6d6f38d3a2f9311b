"""`python -m skdisk`: train the lesson's network, print its progress, draw the result."""

import argparse
import io
import time
from pathlib import Path

from sklearn.inspection import DecisionBoundaryDisplay
from skorch.callbacks import Callback

from . import __version__
from ._classifier import MLPDiskClassifier
from ._disk import draw_circle, make_disk

N_FRESH = 10_000
EVALUATE_EVERY = 10
BLUE, ORANGE = "#1f6fb4", "#d9700a"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """Say what is wrong in one line, without the usage text."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see --help)\n")


def _parse_sizes(text):
    return tuple(int(size) for size in text.split(",") if size.strip())


# argparse names the type in its error message.
_parse_sizes.__name__ = "comma-separated list of ints"


def _make_parser():
    parser = _Parser(
        prog="python -m skdisk",
        description="Train a small network to tell whether a point lies inside a disk: plain "
        "stochastic gradient descent, accuracy printed every "
        f"{EVALUATE_EVERY} epochs, the result drawn.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--n-samples", type=int, default=3000, metavar="N", help="points to train on")
    add("--epochs", type=int, default=300, metavar="N", help="passes over the points")
    add("--batch-size", type=int, default=32, metavar="N", help="points per training step")
    add("--lr", type=float, default=1e-3, metavar="X", help="learning rate")
    hidden = "units of each hidden layer, '' for none"
    add("--hidden", type=_parse_sizes, default="64,64", metavar="N,N", help=hidden)
    add("--seed", type=int, default=0, metavar="N", help="seed of the points and the network")
    add("--device", default="cpu", metavar="NAME", help="where to train: cpu, cuda, mps")
    output = "the picture: .png, .pdf, .svg or what else matplotlib writes"
    add("--output", type=Path, default=Path("disk.png"), metavar="PATH", help=output)
    add("--no-plot", action="store_true", help="draw no picture")
    add("--version", action="version", version=f"skdisk {__version__}")
    return parser


class _PrintAccuracy(Callback):
    """Print the accuracy on the training set before training and every ten epochs.

    The line of an epoch is printed before that epoch is trained. `curve_` has rows of epoch,
    accuracy on the training set and accuracy on fresh points, in percent.
    """

    def __init__(self, X_fresh, y_fresh):
        self.X_fresh, self.y_fresh = X_fresh, y_fresh

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.curve_ = []
        print("  epoch   accuracy on the training set")
        self._evaluate(net, "initial", X, y)

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        epoch = len(net.history) - 1
        if epoch % EVALUATE_EVERY == 0:
            self._evaluate(net, epoch, dataset_train.X, dataset_train.y)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        self._evaluate(net, "trained", X, y)

    def _evaluate(self, net, label, X, y):
        accuracy = 100 * net.score(X, y)
        print(f"{label:>7}   {accuracy:6.3f} %", flush=True)
        if label != "initial":
            epoch = len(net.history) if label == "trained" else label
            fresh_accuracy = 100 * net.score(self.X_fresh, self.y_fresh)
            self.curve_.append((epoch, accuracy, fresh_accuracy))


def _check_output(path):
    """Refuse, before the training, what could not be drawn or written after it."""
    if not path.parent.is_dir():
        raise ValueError(f"--output: there is no folder {str(path.parent)!r}")
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
        import matplotlib.pyplot as plt  # an optional package

        plt.switch_backend("Agg")
        figure, _ = plt.subplots()
        figure.savefig(io.BytesIO(), format=path.suffix[1:])
        plt.close(figure)
    except ImportError:
        raise ValueError(
            "the picture needs matplotlib: pip install 'skdisk[plot]', or use --no-plot"
        ) from None
    # Of the many formats each has failures of its own.
    except Exception as error:
        raise ValueError(f"--output {str(path)!r} cannot be written: {error}") from None


def _plot(clf, X, y, accuracy_curve, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplot_mosaic(
        "DA;DL", figsize=(9, 4.5), width_ratios=(1.3, 1), layout="constrained"
    )
    _plot_boundary(axes["D"], clf, X, y)
    _plot_curves(axes["A"], axes["L"], clf, len(X), accuracy_curve)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_boundary(ax, clf, X, y):
    """Draw the points on the probability that the network gives, and its boundary."""
    from matplotlib.colors import LinearSegmentedColormap

    # Few colours, each in large areas: a small file, in which the probability can be read.
    shading = DecisionBoundaryDisplay.from_estimator(
        clf,
        X,
        response_method="predict_proba",
        class_of_interest=1,
        plot_method="contourf",
        levels=[0, 0.1, 0.3, 0.5, 0.7, 0.9, 1],
        cmap=LinearSegmentedColormap.from_list("probability", ["#f6c99f", "white", "#a9cbe8"]),
        grid_resolution=300,
        eps=0.02,
        ax=ax,
    )
    for label, color, name in [(1, BLUE, "inside"), (0, ORANGE, "outside")]:
        points = X[y == label]
        ax.scatter(points[:, 0], points[:, 1], s=3, color=color, linewidth=0, label=name)
    ax.contour(shading.xx0, shading.xx1, shading.response, levels=[0.5], colors="black")
    ax.plot([], [], color="black", label="learned boundary")
    ax.plot(*draw_circle().T, color="black", linestyle=":", label="true circle")
    ax.set(aspect="equal", xlabel="x0", ylabel="x1", xlim=(-1.02, 1.02), ylim=(-1.02, 1.02))
    ax.set_title(f"{len(X):,} points and what the network learned")
    ax.figure.colorbar(shading.surface_, ax=ax, label="probability of inside", aspect=30)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, markerscale=4, frameon=False
    )


def _plot_curves(above, below, clf, n_samples, accuracy_curve):
    """Draw accuracies above the loss, by epoch."""
    epochs, *accuracies = zip(*accuracy_curve, strict=True)
    looks = {"color": "darkgray", "linewidth": 3}, {"color": "black", "linestyle": "--"}
    names = f"{n_samples:,} training points", f"{N_FRESH:,} fresh points"
    for accuracy, name, look in zip(accuracies, names, looks, strict=True):
        above.plot(epochs, accuracy, label=name, **look)
    above.set(title="Progress by epoch", ylabel="accuracy (%)", ylim=(40, 101))
    above.tick_params(labelbottom=False)
    above.legend(loc="lower right", frameon=False)
    below.plot(range(1, clf.n_iter_ + 1), clf.loss_curve_, color="black")
    below.set(xlabel="epoch", ylabel="mean loss (nats)", ylim=(0, None))
    for ax in (above, below):
        ax.set_xlim(0, clf.n_iter_)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)


def main(argv=None):
    """Run the lesson with a list of arguments, or with those of the command line."""
    parser = _make_parser()
    args = parser.parse_args(argv)
    try:
        if not args.no_plot:
            _check_output(args.output)
        X, y = make_disk(args.n_samples, random_state=args.seed)
        if not args.no_plot and len(set(y)) == 1:
            raise ValueError(
                f"--n-samples {args.n_samples}: all points are of one class, and "
                "there is no boundary to draw. Take more points, or use --no-plot"
            )
        fresh = make_disk(N_FRESH, random_state=(args.seed + 1) % 2**32)
        progress = _PrintAccuracy(*fresh)
        clf = MLPDiskClassifier(
            args.hidden,
            lr=args.lr,
            momentum=0.0,
            weight_decay=0.0,
            lr_schedule="constant",
            max_epochs=args.epochs,
            batch_size=args.batch_size,
            callbacks=[progress],
            random_state=args.seed,
            device=args.device,
        )
        start = time.perf_counter()
        clf.fit(X, y)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    seconds = time.perf_counter() - start
    if not args.no_plot:
        _plot(clf, X, y, progress.curve_, args.output)
        print(f"picture: {args.output}")
    accuracy = 100 * clf.score(*fresh)
    print(f"{accuracy:.2f} % on {N_FRESH:,} fresh points, after {seconds:.1f} s of training")


if __name__ == "__main__":
    main()
