"""The way from gradients to new weights: torch's SGD, Adam and AdamW, for K networks at once.

torch only. With G = dL/dW, of shape (K, P) for K networks of P weights, each with a learning rate,
decay d and so on of its own, and all products taken number by number:

    clipping   G <- G min(1, c / (|G| + 1e-6))     |G|: Euclidean norm of a network's gradient
    SGD        G <- G + d W;  U <- m U + G;  W <- W - lr U     (Nesterov: W <- W - lr (G + m U))
    Adam       G <- G + d W, then the rest of AdamW
    AdamW      W <- (1 - lr d) W
               M <- b1 M + (1 - b1) G;  V <- b2 V + (1 - b2) G^2
               W <- W - lr / (1 - b1^t) M / (sqrt(V / (1 - b2^t)) + eps)

as torch.nn.utils.clip_grad_norm_ and torch.optim compute them; t counts a network's steps. The
last line is computed as W - s_t M / (sqrt(V) + e_t), where s_t = lr sqrt(1 - b2^t) / (1 - b1^t)
and e_t = eps sqrt(1 - b2^t) come from a table with a row for every step.
"""

from functools import partial
from typing import NamedTuple

import torch

from ._noise import make_threshold

# What each optimiser remembers of every weight, by torch's names.
STATE = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}
STATE["adamw"] = STATE["adam"]

# The hyperparameters of a network, by the names of torch's functions; `dropout` has a probability
# for each hidden layer.
DEFAULTS = {
    "lr": 0.0,
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "max_norm": float("inf"),
    "dropout": (),
}


class Kind(NamedTuple):
    """Which operations a training needs: those that some network of the stack needs."""

    optimizer: str
    momentum: bool
    nesterov: bool
    weight_decay: bool
    max_norm: bool
    dropout: tuple

    @property
    def needs_gradient(self):
        """Whether gradients are stored; plain SGD adds them to the weights as they come."""
        return self.optimizer != "sgd" or self.momentum or self.weight_decay or self.max_norm

    @property
    def state(self):
        """The names of what is remembered of every weight."""
        return STATE[self.optimizer] if self.optimizer != "sgd" or self.momentum else ()


def make_kind(optimizer, networks):
    """Find out which operations some networks need.

    Parameters
    ----------
    optimizer : {"sgd", "adam", "adamw"}
        The optimiser of all of them.
    networks : list of dict
        The hyperparameters of each.

    Returns
    -------
    kind : Kind
        The operations.
    """
    has = {
        name: any(n[name] for n in networks) for name in ("momentum", "nesterov", "weight_decay")
    }
    clips = any(n["max_norm"] != float("inf") for n in networks)
    drops = tuple(map(any, zip(*(n["dropout"] for n in networks), strict=True)))
    return Kind(optimizer, **has, max_norm=clips, dropout=drops)


def make_columns(networks, options):
    """Make the columns that the operations multiply with, a row for each network.

    Parameters
    ----------
    networks : list of dict
        The hyperparameters of each.
    options : dict
        dtype and device of the tensors.

    Returns
    -------
    columns : dict of tensor of shape (n_networks, 1)
        By name; those of dropout, by name and layer, have one more axis.
    """

    def make(values):
        return torch.tensor(list(values), **options).reshape(-1, 1)

    dropout = {}
    for layer, probabilities in enumerate(zip(*(n["dropout"] for n in networks), strict=True)):
        thresholds = torch.tensor([make_threshold(p) for p in probabilities], dtype=torch.int32)
        dropout["threshold", layer] = thresholds.to(options["device"]).reshape(-1, 1, 1)
        dropout["scale", layer] = make(1 / (1 - p) for p in probabilities)[..., None]

    names = ("lr", "momentum", "weight_decay", "max_norm")
    return {name: make(n[name] for n in networks) for name in names} | {
        "share_G": make(n["nesterov"] for n in networks),
        "share_U": make(n["momentum"] if n["nesterov"] else 1.0 for n in networks),
        "keep": make(1 - n["lr"] * n["weight_decay"] for n in networks),
        "rest1": make(1 - n["betas"][0] for n in networks),
        "rest2": make(1 - n["betas"][1] for n in networks),
        **dropout,
    }


def compute_step_sizes(networks, n_steps):
    """Compute s_t and e_t of Adam.

    Parameters
    ----------
    networks : list of dict
        The hyperparameters of each.
    n_steps : tensor of shape (..., n_networks)
        t, the number of each network's steps, this one included.

    Returns
    -------
    step_size, step_eps : tensor of shape (..., n_networks), dtype=float64
        In that order.
    """

    def make(values):
        return torch.tensor(list(values), dtype=torch.float64, device=n_steps.device)

    beta1, beta2 = (make(n["betas"][i] for n in networks) for i in (0, 1))
    correction = torch.sqrt(1 - beta2**n_steps)
    step_size = make(n["lr"] for n in networks) * correction / (1 - beta1**n_steps)
    return step_size, make(n["eps"] for n in networks) * correction


def make_update(trainer, step_size, step_eps):
    """Make the operations that step from the gradient, on all weights at once.

    Parameters
    ----------
    trainer : FusedTrainer
        Its `weights`, `gradient`, `scratch`, `state` and `columns` are worked on.
    step_size, step_eps : tensor of shape (n_networks, 1)
        s_t and e_t of this step, for Adam and AdamW.

    Returns
    -------
    operations : list of callable
        To be called in turn.
    """
    kind, G = trainer.kind, trainer.gradient
    if G is None:
        return []
    operations = []
    if kind.max_norm:
        operations += _make_clipping(G, trainer.columns["max_norm"])
    if kind.weight_decay and kind.optimizer != "adamw":
        decay = trainer.columns["weight_decay"]
        operations += [
            partial(torch.mul, trainer.weights, decay, out=trainer.scratch),
            partial(G.add_, trainer.scratch),
        ]
    if kind.optimizer == "sgd":
        return operations + _make_sgd(trainer)
    return operations + _make_adam(trainer, step_size, step_eps)


def _make_clipping(G, max_norm):
    norm = torch.empty_like(max_norm)
    return [
        partial(torch.linalg.vector_norm, G, 2, 1, True, out=norm),
        partial(norm.add_, 1e-6),
        partial(torch.div, max_norm, norm, out=norm),
        partial(norm.clamp_, max=1.0),
        partial(G.mul_, norm),
    ]


def _make_sgd(trainer):
    kind, given = trainer.kind, trainer.columns
    W, G, scratch = trainer.weights, trainer.gradient, trainer.scratch
    direction, operations = G, []
    if kind.momentum:
        direction = U = trainer.state["momentum_buffer"]
        operations += [partial(U.mul_, given["momentum"]), partial(U.add_, G)]
    if kind.nesterov:
        # With K networks, some of them Nesterov's: share_G G + share_U U is G + m U or U.
        direction = G
        operations += [
            partial(G.mul_, given["share_G"]),
            partial(torch.mul, U, given["share_U"], out=scratch),
            partial(G.add_, scratch),
        ]
    return [
        *operations,
        partial(torch.mul, direction, given["lr"], out=scratch),
        partial(W.sub_, scratch),
    ]


def _make_adam(trainer, step_size, step_eps):
    kind, given = trainer.kind, trainer.columns
    W, G, scratch = trainer.weights, trainer.gradient, trainer.scratch
    M, V = trainer.state["exp_avg"], trainer.state["exp_avg_sq"]
    operations = []
    if kind.optimizer == "adamw" and kind.weight_decay:
        operations.append(partial(W.mul_, given["keep"]))
    return [
        *operations,
        partial(M.lerp_, G, given["rest1"]),
        partial(G.mul_, G),
        partial(V.lerp_, G, given["rest2"]),
        partial(torch.sqrt, V, out=scratch),
        partial(scratch.add_, step_eps),
        partial(torch.div, M, scratch, out=scratch),
        partial(scratch.mul_, step_size),
        partial(W.sub_, scratch),
    ]
