"""`python -m skdisk`: train the lesson's network, print its progress, draw the result."""

import argparse
import time
from pathlib import Path

from sklearn.inspection import DecisionBoundaryDisplay
from skorch.callbacks import Callback

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
    add(
        "--hidden",
        type=_parse_sizes,
        default="64,64",
        metavar="N,N",
        help="units of each hidden layer, '' for none",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the points and the network")
    add("--device", default="cpu", metavar="NAME", help="where to train: cpu, cuda, mps")
    add("--output", type=Path, default=Path("disk.png"), metavar="PATH", help="the picture")
    add("--no-plot", action="store_true", help="draw no picture")
    return parser


class PrintAccuracy(Callback):
    """Print the accuracy on the training set before training and every ten epochs.

    The line of an epoch is printed before that epoch is trained.
    """

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Print the head of the table and the accuracy of the untrained network."""
        self.curve_ = []
        print("  epoch   accuracy on the training set")
        self._evaluate(net, "initial", X, y)

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Print a line if it is its turn."""
        epoch = len(net.history) - 1
        if epoch % EVALUATE_EVERY == 0:
            accuracy = self._evaluate(net, epoch, dataset_train.X, dataset_train.y)
            self.curve_.append((epoch, accuracy))

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Print the accuracy of the trained network."""
        n_epochs = len(net.history)
        self.curve_.append((n_epochs, self._evaluate(net, "trained", X, y)))

    def _evaluate(self, net, label, X, y):
        accuracy = 100 * net.score(X, y)
        print(f"{label:>7}   {accuracy:6.3f} %", flush=True)
        return accuracy


def _check_output(path):
    if not path.parent.is_dir():
        raise ValueError(f"--output: there is no folder {str(path.parent)!r}")
    try:
        import matplotlib.pyplot  # noqa: F401 - an optional package, asked for before training
    except ImportError:
        raise ValueError(
            "the picture needs matplotlib: pip install 'skdisk[plot]', or use --no-plot"
        ) from None


def _plot(clf, X, y, accuracy_curve, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.4), layout="constrained")
    _plot_boundary(left, clf, X, y)
    _plot_curves(right, clf.loss_curve_, accuracy_curve)
    figure.savefig(path, dpi=150)


def _plot_boundary(ax, clf, X, y):
    from matplotlib.colors import LinearSegmentedColormap

    shading = DecisionBoundaryDisplay.from_estimator(
        clf,
        X,
        response_method="predict_proba",
        class_of_interest=1,
        plot_method="pcolormesh",
        cmap=LinearSegmentedColormap.from_list("probability", ["#f6c99f", "white", "#a9cbe8"]),
        grid_resolution=300,
        eps=0.02,
        ax=ax,
    )
    for label, color, name in [(1, BLUE, "inside"), (0, ORANGE, "outside")]:
        points = X[y == label]
        ax.scatter(points[:, 0], points[:, 1], s=6, color=color, linewidth=0, label=name)
    ax.contour(shading.xx0, shading.xx1, shading.response, levels=[0.5], colors="black")
    ax.plot([], [], color="black", label="learned boundary")
    ax.plot(*draw_circle().T, color="black", linestyle=":", label="true circle")
    ax.set(aspect="equal", xlabel="x0", ylabel="x1", xlim=(-1.02, 1.02), ylim=(-1.02, 1.02))
    ax.set_title(f"{len(X):,} points and what the network learned")
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, markerscale=3, frameon=False
    )


def _plot_curves(ax, loss_curve, accuracy_curve):
    epochs, accuracies = zip(*accuracy_curve, strict=True)
    ax.plot(epochs, accuracies, color=BLUE, marker="o", markersize=3)
    ax.set(xlabel="epoch", ylim=(40, 101), title="Accuracy and loss by epoch")
    ax.set_ylabel("accuracy on the training set (%)", color=BLUE)
    ax.grid(alpha=0.3)
    loss = ax.twinx()
    loss.plot(range(1, len(loss_curve) + 1), loss_curve, color=ORANGE)
    loss.set_ylim(bottom=0)
    loss.set_ylabel("mean training loss (nats)", color=ORANGE)


def main(argv=None):
    """Run the lesson.

    Parameters
    ----------
    argv : list of str, default=None
        The arguments; None stands for those of the command line.
    """
    parser = _make_parser()
    args = parser.parse_args(argv)
    progress = PrintAccuracy()
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
    try:
        if not args.no_plot:
            _check_output(args.output)
        X, y = make_disk(args.n_samples, random_state=args.seed)
        start = time.perf_counter()
        clf.fit(X, y)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    seconds = time.perf_counter() - start
    X_fresh, y_fresh = make_disk(N_FRESH, random_state=(args.seed + 1) % 2**32)
    accuracy = 100 * clf.score(X_fresh, y_fresh)
    if not args.no_plot:
        _plot(clf, X, y, progress.curve_, args.output)
        print(f"picture: {args.output}")
    print(f"{accuracy:.2f} % on {N_FRESH:,} fresh points, after {seconds:.1f} s of training")


if __name__ == "__main__":
    main()
