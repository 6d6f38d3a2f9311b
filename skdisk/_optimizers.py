"""From the parameters of the classifier to an optimiser of torch and its arguments."""

import inspect

import torch

from ._numbers import as_number

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# What lr="auto" stands for with SGD. For Adam and AdamW torch's own default, 1e-3, is the best of
# those that were measured (benchmarks/results/accuracy.md).
SGD_LR = 0.03
# What other optimisers ignore, even those that have an argument of that name.
OF_SGD = ("momentum", "nesterov")


def _as_argument(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(as_number, value))
    return as_number(value)


def resolve_optimizer(optimizer, own, optimizer_params):
    """Find an optimiser's class and check its arguments.

    Parameters
    ----------
    optimizer : {"sgd", "adam", "adamw"} or a subclass of torch.optim.Optimizer
        Which one.
    own : dict
        What the classifier has parameters for: `lr`, a number or "auto", `momentum`, `nesterov`
        and `weight_decay`.
    optimizer_params : dict or None
        Its other arguments.

    Returns
    -------
    cls : type
        The class.
    arguments : dict
        What to call it with, `lr` included.

    Raises
    ------
    TypeError
        If it is not an optimiser.
    ValueError
        If it does not take an argument, or the argument is one of the classifier's own, or its
        value is not one that the optimiser takes.
    """
    cls = OPTIMIZERS.get(optimizer, optimizer)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise TypeError(
            f"optimizer must be one of {', '.join(map(repr, OPTIMIZERS))} or a class of "
            f"torch.optim. Got {optimizer!r}."
        )
    own = dict(own)
    if not issubclass(cls, torch.optim.SGD):
        own = {name: value for name, value in own.items() if name not in OF_SGD}
    elif own["momentum"] == 0:
        own["nesterov"] = False
    known = inspect.signature(cls).parameters
    if own["lr"] == "auto":
        own["lr"] = SGD_LR if cls is torch.optim.SGD else known["lr"].default
    arguments = {name: _as_argument(value) for name, value in (optimizer_params or {}).items()}
    for name in arguments:
        if name in own:
            raise ValueError(
                f"{name} is a parameter of the classifier itself: give it there, not in "
                "optimizer_params."
            )
        if name not in known:
            raise ValueError(
                f"{cls.__name__} has no argument {name!r}, which is in optimizer_params. It has: "
                f"{', '.join(name for name in known if name != 'params')}."
            )
    for name, value in own.items():
        if name in known:
            arguments[name] = value
        elif value:
            raise ValueError(
                f"{name}={value!r} has no meaning for {cls.__name__}, which has: "
                f"{', '.join(name for name in known if name != 'params')}. Leave {name} out."
            )
    if optimizer_params:
        _try_arguments(cls, arguments)
    return cls, arguments


def _try_arguments(cls, arguments):
    """Make an optimiser for nothing, so that what it refuses is refused before a training."""
    given = {"lr": 1.0, **arguments} if "lr" in inspect.signature(cls).parameters else arguments
    try:
        cls([torch.zeros(1, requires_grad=True)], **given)
    except Exception as error:
        raise ValueError(f"optimizer_params do not suit {cls.__name__}: {error}") from error
