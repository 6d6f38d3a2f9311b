"""The optimisers that files and pickles name: those of torch.optim, and our own L-BFGS.

That is for small data, all rows at once: a line search compares losses, and those of different
batches cannot be compared. A watcher ends its training.
"""

import inspect
from functools import lru_cache

import numpy as np
import torch

# The first step that a line search tries. It tries up to 25 others, each up to 10 times as long as
# the one before, which float32 must hold.
LONGEST = 1e13


class FullBatchLBFGS(torch.optim.LBFGS):
    """torch's L-BFGS with an L2 penalty and, by default, a line search.

    A step makes up to `max_iter` iterations. The penalty is part of what is minimised, in value
    and gradient, and not of the loss that the closure computes. Training ends where an iteration
    lowers the loss by less than 1e-6: with torch's 1e-9 it takes five times as long, creeping
    along the edges of rectified units, and predicts no better.
    """

    def __init__(
        self,
        params,
        lr=1,
        weight_decay=0.0,
        max_iter=20,
        max_eval=None,
        tolerance_grad=1e-7,
        tolerance_change=1e-6,
        history_size=100,
        line_search_fn="strong_wolfe",
    ):
        if not weight_decay >= 0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        others = max_iter, max_eval, tolerance_grad, tolerance_change, history_size
        super().__init__(params, lr, *others, line_search_fn)
        self.defaults["weight_decay"] = weight_decay
        self.param_groups[0]["weight_decay"] = weight_decay

    @torch.no_grad()
    def step(self, closure):
        """Make iterations; return the loss before them, with the penalty."""
        [group] = self.param_groups
        decay = group["weight_decay"]
        # A callback may have set it, too.
        group["lr"] = min(group["lr"], LONGEST)

        def compute_penalised():
            loss = closure()
            if not decay:
                return loss
            with torch.no_grad():
                # Frozen ones have no gradient.
                parameters = [p for p in group["params"] if p.grad is not None]
                for p in parameters:
                    p.grad.add_(p, alpha=decay)
                return loss + decay / 2 * sum(p.double().square().sum() for p in parameters)

        return super().step(compute_penalised)


class Convergence:
    """Stop where an epoch of `FullBatchLBFGS` begins at a minimum, or gets no nearer to it."""

    def __init__(self):
        self.is_reached = False

    def begin_epoch(self, state):
        """Note how far the optimiser has come."""
        self.before = self._count(state)

    def end_epoch(self, state):
        """Stop if the tolerances ended the step before its second iteration."""
        n_iterations, n_evaluations = self._count(state) - self.before
        [group] = state.net.optimizer_.param_groups
        self.is_reached = bool(
            n_iterations < min(2, group["max_iter"]) and n_evaluations < group["max_eval"]
        )
        return self.is_reached

    def end_training(self, state):
        """Do nothing."""

    def _count(self, state):
        """Count iterations and evaluations so far."""
        optimizer = state.net.optimizer_
        values = optimizer.state.get(optimizer.param_groups[0]["params"][0], {})
        return np.array([values.get("n_iter", 0), values.get("func_evals", 0)])


@lru_cache
def read_signature(optimizer):
    """Read the arguments that an optimiser's class takes, by their names."""
    return inspect.signature(optimizer).parameters


def _look_up(name):
    own = FullBatchLBFGS
    return own if name == own.__name__ else getattr(torch.optim, name, None)


def is_known(optimizer):
    """Tell whether a class is an optimiser that `find_optimizer` finds by its name."""
    return _look_up(getattr(optimizer, "__name__", "")) is optimizer


def find_optimizer(name):
    """Find the optimiser of that name in torch.optim, or our own."""
    optimizer = _look_up(name) if isinstance(name, str) else None
    if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        return optimizer
    raise ValueError(f"{name!r} is not an optimizer of torch.optim")
