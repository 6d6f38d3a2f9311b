"""Numbers at the edges, beside a replay in float64: the same start, orders and steps.

Wherever float32 holds every number of the replay, the losses are those of the replay, as far as
float32 holds the scores of which they are differences. Where it does not, the training ends as one
that has diverged, with whole epochs and finite weights.
"""

import math
import random
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from skdisk import MLPDiskClassifier
from skdisk._network.mlp import ACTIVATIONS

# Numbers of a replay that float32 holds, with its sums and squares of few of them.
SAFE = 1e-3 * float(np.finfo(np.float32).max)
N_EPOCHS = 3


def draw_normal(rng, n_rows, n_features):
    return rng.standard_normal((n_rows, n_features)).astype(np.float32)


def make_constant_features(rng):
    X = draw_normal(rng, 60, 6)
    X[:, : rng.integers(1, 7)] = rng.uniform(-3, 3)
    return X, 3, None


def make_duplicates(rng):
    return draw_normal(rng, 4, 3)[rng.integers(0, 4, 70)], 3, None


def make_one_row(rng):
    return draw_normal(rng, 1, 4), 1, None


def make_one_feature(rng):
    return draw_normal(rng, 50, 1), 2, None


def make_wide_rows(rng):
    return draw_normal(rng, 10, 10_000), 2, None


def make_many_classes(rng):
    return draw_normal(rng, 1500, 5), 1000, None


def make_weights(rng):
    return draw_normal(rng, 80, 3), 3, 10.0 ** rng.uniform(-30, 30, 80)


def make_large_features(rng):
    return 1e30 * draw_normal(rng, 60, 3), 3, None


def make_small_features(rng):
    return 1e-30 * draw_normal(rng, 60, 3), 3, None


KINDS = {
    "constant features": make_constant_features,
    "duplicates": make_duplicates,
    "one row": make_one_row,
    "one feature": make_one_feature,
    "10 rows of 10,000 features": make_wide_rows,
    "1,000 classes": make_many_classes,
    "weights of 1e-30 to 1e30": make_weights,
    "features of 1e30": make_large_features,
    "features of 1e-30": make_small_features,
}
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}]),
    "adam": (torch.optim.Adam, [{}]),
    "adamw": (torch.optim.AdamW, [{}]),
}


def draw_settings(rng, n_rows):
    """Draw what both take: the arguments of the classifier, by their names there."""
    optimizer = rng.choice(["sgd", "sgd", "adam", "adamw"])
    return {
        "hidden_layer_sizes": rng.choice([(), (8,), (16, 9)]),
        "activation": rng.choice([*ACTIVATIONS]),
        "optimizer": optimizer,
        "lr": rng.choice([1e-3, 1e-2]) * (1 if optimizer == "sgd" else 0.1),
        "batch_size": max(rng.choice([1, 7, 32, 2000]), n_rows // 100),
        "clip_grad_norm": rng.choice([None, None, 0.5]),
        "weight_decay": rng.choice([0.0, 1e-2]),
        "momentum": 0.0,
        "nesterov": False,
        **rng.choice(OPTIMIZERS[optimizer][1]),
    }


def replay(train_by_hand, X, y, n_classes, weights, settings, seed):
    """Train in float64; return the loss of each epoch, and the largest number and score so far."""
    settings = dict(settings)
    cls, _ = OPTIMIZERS[settings.pop("optimizer")]
    if cls is not torch.optim.SGD:
        del settings["momentum"], settings["nesterov"]
    weights = np.ones(len(y)) if weights is None else weights / weights.max()
    weights, y = torch.tensor(weights / weights.mean()), torch.tensor(y)
    largest, scores_seen = [0.0], [0.0]
    n_steps = math.ceil(len(y) / settings["batch_size"])

    def see(*tensors, where=largest):
        where[-1] = max(where[-1], *(float(t.abs().max()) for t in tensors))

    def compute_loss(scores, rows):
        # What comes before the scores is no larger, or its gradients are.
        see(scores.detach())
        see(scores.detach(), where=scores_seen)
        nll = cross_entropy(scores, y[rows], reduction="none")
        return (weights[rows] * nll).sum() / len(rows)

    def look(module):
        gradients = [p.grad for p in module.parameters()]
        see(*(p.detach() for p in module.parameters()), *gradients)
        if cls is not torch.optim.SGD or settings["clip_grad_norm"]:
            see(*(g**2 for g in gradients))
        for numbers in (largest, scores_seen):
            numbers.append(numbers[-1])

    sizes = (X.shape[1], *settings.pop("hidden_layer_sizes"), n_classes)
    activation = ACTIVATIONS[settings.pop("activation")]
    _, losses = train_by_hand(
        sizes,
        X,
        compute_loss,
        activation=activation,
        optimizer=cls,
        n_epochs=N_EPOCHS,
        random_state=seed,
        dtype=torch.float64,
        look=look,
        **settings,
    )
    # Two looks a step; the last one tells of weights that the next epoch uses.
    ends = [2 * n_steps * (epoch + 1) - 1 for epoch in range(N_EPOCHS)]
    return losses, [largest[end] for end in ends], [scores_seen[end] for end in ends]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_float64_where_float32_holds_the_numbers(
    train_by_hand, campaign, kind, fused
):
    n_losses, n_diverged, worst = 0, 0, 0.0
    for number in range(campaign.choose(1, 100)):
        draw = random.Random(f"{kind} {campaign.seed} {number}")
        rng, seed = np.random.default_rng(draw.getrandbits(32)), draw.getrandbits(31)
        X, n_classes, weights = KINDS[kind](rng)
        y, settings = rng.permutation(np.arange(len(X)) % n_classes), draw_settings(draw, len(X))
        expected, largest, scores = replay(train_by_hand, X, y, n_classes, weights, settings, seed)
        clf = MLPDiskClassifier(lr_schedule="constant", max_epochs=N_EPOCHS, **settings)
        # Few rows in one batch are computed in float64, which is not the kernel's.
        clf.set_params(fused="auto" if fused else False, random_state=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            clf.fit(X, y, weights)
        words = "".join(str(w.message) for w in caught)
        where = f"{kind}, seed {campaign.seed}, {number}: {settings}"
        n_safe = sum(number < SAFE for number in largest)
        assert n_safe <= clf.n_iter_ <= N_EPOCHS, where
        has_diverged = f"The training diverged in epoch {clf.n_iter_ + 1}: the " in words
        assert has_diverged == (clf.n_iter_ < N_EPOCHS), where
        # A square that is infinite ends no training by adam, which goes on without that weight.
        assert has_diverged or n_safe == N_EPOCHS or "The features are large" in words, where
        for ours, theirs, score in zip(
            clf.loss_curve_, expected[:n_safe], scores[:n_safe], strict=False
        ):
            # float32 rounds scores, and the logarithms of probabilities near 1.
            error = (abs(ours - theirs) - score * 2**-23) / max(theirs, 0.01)
            assert error < 1e-4, where
            worst = max(worst, error)
        n_losses, n_diverged = n_losses + n_safe, n_diverged + has_diverged
        assert all(np.isfinite(w).all() for w in (*clf.coefs_, *clf.intercepts_)), where
        proba = clf.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12, err_msg=where)
    campaign.record(losses=n_losses, largest_relative_error=worst, diverged=n_diverged)
