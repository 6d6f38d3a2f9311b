"""Page 4: the lesson's run, and eleven others beside it."""

import base64
import time

import numpy as np
from joblib import Parallel, delayed
from skorch.callbacks import Callback

from skdisk import MLPDiskClassifier, make_disk

from .making import LOOKS, draw_both, make_colormap, write_data

SHOWN = (0, 10, 50, 100, 300)
N_SEEDS = 12
RADIUS = np.sqrt(2 / np.pi)
# The lesson's printed accuracies, in percent: before training, and before every tenth epoch.
PRINTED = [
    *(49.033, 75.767, 67.400, 68.900, 72.367, 76.267, 78.933, 81.567, 83.767, 85.600),
    *(87.267, 88.033, 89.267, 90.000, 91.067, 91.967, 93.200, 94.000, 94.667, 95.167),
    *(95.567, 95.900, 96.267, 96.633, 96.967, 97.033, 97.433, 97.467, 97.533, 97.800),
]
# The middles of 60 by 60 fields of the square.
AXIS = (np.arange(60) + 0.5) / 30 - 1
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2).astype(np.float32)


class Watch(Callback):
    """Keep what the network says, before every tenth epoch and at the end."""

    def __init__(self, grid=None):
        self.grid = grid

    def on_train_begin(self, net, **kwargs):
        """Begin anew."""
        self.accuracies_, self.frames_ = [], []

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Look every tenth epoch."""
        if (len(net.history) - 1) % 10 == 0:
            self._look(net, dataset_train.X, dataset_train.y)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Look a last time."""
        self._look(net, X, y)

    def _look(self, net, X, y):
        self.accuracies_.append(100 * net.score(X, y))
        if self.grid is not None:
            self.frames_.append(net.predict_proba(self.grid)[:, 1].reshape(60, 60))


def run_lesson(seed, grid=None):
    """Train with the recipe of the lesson."""
    X, y = make_disk(3000, random_state=seed)
    watch = Watch(grid)
    clf = MLPDiskClassifier(
        hidden_layer_sizes=(64, 64),
        lr=1e-3,
        momentum=0.0,
        weight_decay=0.0,
        lr_schedule="constant",
        batch_size=32,
        max_epochs=300,
        callbacks=[watch],
        random_state=seed,
    )
    start = time.perf_counter()
    clf.fit(X, y)
    return clf, watch, time.perf_counter() - start


def is_closed(frame):
    """Tell whether there is a boundary, and all of the rim of the square is outside it."""
    inside = frame > 0.5
    rim = np.concatenate([inside[[0, -1]].ravel(), inside[:, [0, -1]].ravel()])
    return bool(inside.any() and not rim.any())


def compute():
    """Run the lesson with twelve seeds, and look closely at the first."""
    clf, watch, seconds = run_lesson(0, GRID)
    run = delayed(lambda seed: run_lesson(seed)[1].accuracies_)
    others = Parallel(n_jobs=2, prefer="threads")(run(seed) for seed in range(1, N_SEEDS))
    inside = np.hypot(*GRID.T).reshape(60, 60) < RADIUS
    return {
        "frames": np.array(watch.frames_),
        "accuracies": np.array([watch.accuracies_, *others]),
        "losses": np.array(clf.loss_curve_),
        "areas": [100 * (frame > 0.5).mean() for frame in watch.frames_],
        "inside": inside,
        "fresh": 100 * clf.score(*make_disk(10_000, random_state=1)),
        "closed": [i * 10 for i, frame in enumerate(watch.frames_) if is_closed(frame)],
        "seconds": seconds,
    }


def tell(results):
    """Make the text of each number."""
    ours, everyone = results["accuracies"][0], results["accuracies"]
    last = everyone[:, 29]
    return {
        **{f"acc_{epoch}": f"{ours[epoch // 10]:.1f}" for epoch in (10, 300)},
        **{f"printed_{epoch}": f"{PRINTED[epoch // 10]:.1f}" for epoch in (0, 10, 20, 100, 290)},
        "mean_100": f"{everyone[:, 10].mean():.1f}",
        "mean_290": f"{last.mean():.1f}",
        "lowest_290": f"{last.min():.1f}",
        "highest_290": f"{last.max():.1f}",
        "fresh": f"{results['fresh']:.1f}",
        "seconds": f"{results['seconds']:.1f}",
        "first_loss": f"{results['losses'][0]:.3f}",
        "last_loss": f"{results['losses'][-1]:.3f}",
        "n_seeds": str(N_SEEDS),
        "closed": str(results["closed"][0]),
        "steps": f"{300 * -(-3000 // 32):,}",
        "steps_epoch": str(-(-3000 // 32)),
        "radius": f"{RADIUS:.4f}",
        "area_20": f"{results['areas'][2]:.0f}",
        "centre_0": f"{results['frames'][0][30, 30]:.3f}",
        "centre_10": f"{results['frames'][1][30, 30]:.3f}",
        "corner_0": f"{results['frames'][0][0, 0]:.3f}",
        "corner_10": f"{results['frames'][1][0, 0]:.3f}",
        "area_100": f"{results['areas'][10]:.0f}",
        "area_300": f"{results['areas'][30]:.0f}",
    }


def _draw_plane(ax, frame, look):
    """Draw a frame, its boundary, and the true circle; return the picture of the frame."""
    style = {"cmap": make_colormap(look), "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
    image = ax.imshow(frame, extent=(-1, 1, -1, 1), origin="lower", **style)
    ax.contour(AXIS, AXIS, frame, levels=[0.5], colors=look["ink"], linewidths=1.6)
    ax.add_patch(_make_circle(look))
    ax.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    ax.spines[:].set_visible(True)
    return image


def _make_circle(look):
    from matplotlib.patches import Circle

    return Circle((0, 0), RADIUS, fill=False, color=look["ink"], linestyle=":", linewidth=1.4)


def _animate(results, look_name, folder):
    """Write an animation of all frames, played once, and the last one as a still."""
    import matplotlib.pyplot as plt
    from PIL import Image

    look = LOOKS[look_name]
    ground = "#ffffff" if look_name == "light" else "#14181e"
    with plt.rc_context({"text.color": look["ink"], "axes.edgecolor": look["muted"]}):
        figure = plt.figure(figsize=(3.6, 3.95), dpi=110, facecolor=ground)
        ax = figure.add_axes((0.02, 0.02, 0.96, 0.875))
        pictures = []
        for i, frame in enumerate(results["frames"]):
            ax.clear()
            _draw_plane(ax, frame, look)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"epoch {10 * i}:  {results['accuracies'][0, i]:.1f} % right")
            figure.canvas.draw()
            pictures.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]))
        plt.close(figure)
    durations = [600] + [150] * 29 + [4000]
    path = folder / f"disk-{look_name}.webp"
    # Whole frames: differences between frames leave smears.
    options = {"save_all": True, "duration": durations, "loop": 1, "quality": 80, "kmax": 1}
    pictures[0].save(path, append_images=pictures[1:], **options)
    pictures[-1].save(folder / f"disk-still-{look_name}.webp", quality=80)


def draw(results, folder):
    """Draw the boundary at five epochs and the accuracies; write the animation."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    def draw_boundaries(look):
        figure, axes = plt.subplots(3, 2, figsize=(5.6, 8), layout="constrained")
        for ax, epoch in zip(axes.flat, SHOWN, strict=False):
            image = _draw_plane(ax, results["frames"][epoch // 10], look)
            right = results["accuracies"][0, epoch // 10]
            ax.set_title("untrained" if epoch == 0 else f"after {epoch} epochs")
            ax.set_xlabel(f"{right:.1f} % right")
        axes[2, 1].axis("off")
        handles = [
            Line2D([], [], color=look["ink"], label="learned boundary"),
            Line2D([], [], color=look["ink"], linestyle=":", label="true circle"),
        ]
        axes[2, 1].legend(handles=handles, loc="upper left")
        place = axes[2, 1].inset_axes((0.05, 0.4, 0.85, 0.08))
        figure.colorbar(image, cax=place, orientation="horizontal", label="probability of inside")
        return figure

    def draw_accuracies(look):
        figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
        epochs, everyone = np.arange(0, 301, 10), results["accuracies"]
        band = (everyone.min(axis=0), everyone.max(axis=0))
        ax.fill_between(epochs, *band, color=look["muted"], alpha=0.3, linewidth=0)
        ax.fill_between([], [], [], color=look["muted"], alpha=0.3, label=f"{N_SEEDS} seeds")
        ax.plot(epochs, everyone.mean(axis=0), color=look["muted"], label="their mean")
        ax.plot(epochs[:-1], PRINTED, "o", color=look["ink"], markersize=4, label="the lesson")
        ax.set(xlabel="epoch", ylabel="accuracy on the training set (%)", xlim=(-5, 305))
        ax.legend(loc="lower right")
        return figure

    draw_both(folder, "disk-boundaries", draw_boundaries)
    draw_both(folder, "disk-accuracies", draw_accuracies)
    animations = folder / "animation"
    animations.mkdir(exist_ok=True)
    for look_name in LOOKS:
        _animate(results, look_name, animations)
    packed = np.round(255 * results["frames"]).astype(np.uint8).tobytes()
    data = {
        "size": 60,
        "radius": float(RADIUS),
        "accuracies": results["accuracies"][0].round(3).tolist(),
        "frames": base64.b64encode(packed).decode(),
    }
    write_data(folder / "disk.html", "skd-disk-data", data)
