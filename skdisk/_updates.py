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
    def gradient_goes_to(self):
        """Where products add the gradient: plain SGD and momentum have no need to store it."""
        if self.optimizer != "sgd" or self.nesterov or self.max_norm:
            return "gradient"
        return "momentum_buffer" if self.momentum else "weights"

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


def make_preparation(trainer):
    """Make the operations that come before the products add the gradient somewhere.

    Parameters
    ----------
    trainer : FusedTrainer
        Its `weights`, `state` and `columns` are worked on.

    Returns
    -------
    operations : list of callable
        To be called in turn, when the derivatives have been computed.
    """
    kind, given, operations = trainer.kind, trainer.columns, []
    if trainer.gradient_goes_to == "weights" and kind.weight_decay:
        # W - lr (G + d W) is (1 - lr d) W - lr G.
        return [partial(W.mul_, given["keep"]) for W in trainer.split_by_network(trainer.weights)]
    if trainer.gradient_goes_to == "momentum_buffer":
        velocities = trainer.split_by_network(trainer.state["momentum_buffer"])
        for U, W in zip(velocities, trainer.split_by_network(trainer.weights), strict=True):
            operations.append(partial(U.mul_, given["momentum"]))
            if kind.weight_decay:
                operations.append(partial(U.addcmul_, W, given["weight_decay"]))
    return operations


def make_update(trainer, step_size, step_eps):
    """Make the operations that come when the products have added the gradient.

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
    if trainer.gradient_goes_to == "weights":
        return []
    kind, given = trainer.kind, trainer.columns
    flat = {"weights": trainer.weights, **trainer.state}
    if trainer.gradient_goes_to == "gradient":
        flat |= {"gradient": trainer.gradient, "scratch": trainer.scratch}
    split = map(trainer.split_by_network, flat.values())
    parts = [dict(zip(flat, values, strict=True)) for values in zip(*split, strict=True)]
    if trainer.gradient_goes_to == "momentum_buffer":
        return [_subtract(part["weights"], part["momentum_buffer"], given["lr"]) for part in parts]
    operations = _make_clipping(parts, given["max_norm"]) if kind.max_norm else []
    for part in parts:
        if kind.weight_decay and kind.optimizer != "adamw":
            operations.append(
                partial(part["gradient"].addcmul_, part["weights"], given["weight_decay"])
            )
        if kind.optimizer == "sgd":
            operations += _make_sgd(kind, part, given)
        else:
            operations += _make_adam(kind, part, given, step_size, step_eps)
    return operations


def _subtract(W, values, factors):
    return partial(W.addcmul_, values, factors, value=-1)


def _make_clipping(parts, max_norm):
    norms = max_norm.new_empty(len(parts), *max_norm.shape)
    norm = torch.empty_like(max_norm)
    return [
        *(
            partial(torch.linalg.vector_norm, part["gradient"], 2, 1, True, out=part_norm)
            for part, part_norm in zip(parts, norms, strict=True)
        ),
        partial(torch.linalg.vector_norm, norms, 2, 0, out=norm),
        partial(norm.add_, 1e-6),
        partial(torch.div, max_norm, norm, out=norm),
        partial(norm.clamp_, max=1.0),
        *(partial(part["gradient"].mul_, norm) for part in parts),
    ]


def _make_sgd(kind, part, given):
    W, G, scratch = part["weights"], part["gradient"], part["scratch"]
    direction, operations = G, []
    if kind.momentum:
        direction = U = part["momentum_buffer"]
        operations += [partial(U.mul_, given["momentum"]), partial(U.add_, G)]
    if kind.nesterov:
        # With K networks, some of them Nesterov's: share_G G + share_U U is G + m U or U.
        direction = scratch
        operations += [
            partial(torch.mul, G, given["share_G"], out=scratch),
            partial(scratch.addcmul_, U, given["share_U"]),
        ]
    return [*operations, _subtract(W, direction, given["lr"])]


def _make_adam(kind, part, given, step_size, step_eps):
    W, G, scratch = part["weights"], part["gradient"], part["scratch"]
    M, V = part["exp_avg"], part["exp_avg_sq"]
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
        _subtract(W, scratch, step_size),
    ]
