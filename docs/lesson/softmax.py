"""Page 2: softmax and cross-entropy, their worked examples, and the gradient in three ways."""

import numpy as np
import torch

from skdisk._kernel.trainer import Data, Network, Settings, State, train

from .making import draw_both

SCORES = np.array([0.3, -16.2, 5.3, 0.7])
CLASSES = ["first", "second", "third", "fourth"]
TRUTH = 3
ANIMALS = {"first output": [0.5, 0.3, 0.2], "second output": [0.1, 0.1, 0.8]}


def softmax(z):
    """Turn scores into probabilities."""
    powers = np.exp(z - z.max())
    return powers / powers.sum()


def cross_entropy(z, truth):
    """Compute the loss of the true class, in nats."""
    return -np.log(softmax(z)[truth])


def gradient_by_difference(z, truth, h=1e-5):
    """Move each score a little up and a little down."""
    slopes = np.empty(len(z))
    for i, step in enumerate(np.eye(len(z)) * h):
        above = cross_entropy(z + step, truth)
        below = cross_entropy(z - step, truth)
        slopes[i] = (above - below) / (2 * h)
    return slopes


def gradient_by_autograd(z, truth):
    """Let PyTorch go backwards through its own loss."""
    scores = torch.tensor(z[None], requires_grad=True)
    torch.nn.functional.cross_entropy(scores, torch.tensor([truth])).backward()
    return scores.grad[0].numpy()


def gradient_by_kernel(z, truth):
    """See by how much one step of skdisk's kernel moves the biases.

    A network without hidden layers has its biases for scores where its input is 0. With a
    learning rate of 1 a step subtracts the gradient.
    """
    weights = np.zeros(len(z))
    state = State(np.concatenate([weights, z]).astype(np.float32))
    data = Data(np.zeros((1, 1), np.float32), np.array([truth]))
    settings = Settings(batch_size=1)
    network, one_row = Network((1, len(z))), np.zeros((1, 1), np.int64)
    train(network, settings, state, data, one_row, np.ones(1))
    return z - state.parameters[len(z) :]


def compute():
    """Work the examples."""
    q = softmax(SCORES)
    return {
        "powers": np.exp(SCORES),
        "q": q,
        "losses": {name: -np.log(p[2]) for name, p in ANIMALS.items()},
        "losses_base_10": {name: -np.log10(p[2]) for name, p in ANIMALS.items()},
        "closed_form": q - np.eye(4)[TRUTH],
        "by_difference": gradient_by_difference(SCORES, TRUTH),
        "by_autograd": gradient_by_autograd(SCORES, TRUTH),
        "by_kernel": gradient_by_kernel(SCORES, TRUTH),
    }


def _write(number, digits):
    return f"{number:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def tell(results):
    """Make the text of each number."""
    told = {}
    for i in range(4):
        power = results["powers"][i]
        told[f"z{i}"] = _write(SCORES[i], 1)
        told[f"exp{i}"] = _write(power, 4 if power < 100 else 2)
        told[f"q{i}"] = f"{results['q'][i]:.3f}"
        for way in ("closed_form", "by_difference", "by_autograd", "by_kernel"):
            told[f"{way}{i}"] = _write(results[way][i], 6)
    told["exp1"] = "0.00000009"
    told["q1_small"] = f"{results['q'][1] * 1e10:.1f}"
    told["sum"] = f"{results['powers'].sum():.2f}"
    for short, name in (("first", "first output"), ("second", "second output")):
        told[f"nats_{short}"] = f"{results['losses'][name]:.3f}"
        told[f"base10_{short}"] = f"{results['losses_base_10'][name]:.3f}"
    ways = np.array([results[way] for way in ("by_difference", "by_autograd", "by_kernel")])
    told["apart"] = f"{np.abs(ways - results['closed_form']).max() * 1e7:.0f}"
    told["log_10"] = f"{np.log(10):.3f}"
    told["loss_fourth"] = f"{-np.log(results['q'][TRUTH]):.3f}"
    others = np.delete(results["powers"], TRUTH).sum()
    told["rise"] = f"{np.log(others) - SCORES[TRUTH]:.2f}"
    told["two_classes"] = f"{1 / (1 + np.exp(-2)):.3f}"
    told["guess_2"] = f"{np.log(2):.3f}"
    told["guess_10"] = f"{np.log(10):.3f}"
    return told


def draw(results, folder):
    """Draw scores beside probabilities, and the loss against the probability."""
    import matplotlib.pyplot as plt

    def draw_bars(look):
        figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.4), layout="constrained", sharey=True)
        rows = np.arange(4)
        for ax, values, title in (
            (axes[0], SCORES, "scores z"),
            (axes[1], results["q"], "probabilities q"),
        ):
            bars = ax.barh(rows, values, color=look["muted"], height=0.6)
            ax.bar_label(
                bars, [f"{v:.1f}" if ax is axes[0] else f"{v:.3f}" for v in values], padding=3
            )
            ax.set(title=title)
            ax.invert_yaxis()
            ax.axvline(0, color=look["ink"], linewidth=0.8)
        axes[0].set(yticks=rows, yticklabels=CLASSES, xlim=(-26, 11))
        axes[0].invert_yaxis()
        axes[1].set(xlim=(0, 1.25), xticks=[0, 0.5, 1])
        return figure

    def draw_loss(look):
        figure, ax = plt.subplots(figsize=(5.6, 3), layout="constrained")
        q = np.linspace(0.005, 1, 400)
        ax.plot(q, -np.log(q), color=look["ink"], label="in nats, as PyTorch computes")
        ax.plot(q, -np.log10(q), "--", color=look["muted"], label="in base 10")
        for name, p in ANIMALS.items():
            for losses, color in (("losses", look["ink"]), ("losses_base_10", look["muted"])):
                loss = results[losses][name]
                ax.plot(p[2], loss, "o", color=color)
                is_low = losses == "losses_base_10" and loss < 0.2
                place = {"textcoords": "offset points", "xytext": (-14, -14) if is_low else (6, 5)}
                ax.annotate(f"{loss:.3f}", (p[2], loss), color=color, **place)
        ax.set(
            xlabel="probability q of the true class", ylabel="loss", xlim=(0, 1), ylim=(-0.45, 4.6)
        )
        ax.legend(loc="upper right")
        return figure

    draw_both(folder, "softmax-bars", draw_bars)
    draw_both(folder, "softmax-loss", draw_loss)
