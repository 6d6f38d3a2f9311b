"""From parameters of the classifier to choices: optimiser, learning rates, device."""

import inspect

import numpy as np
import torch

from .numbers import as_number

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# What lr="auto" stands for with SGD. For Adam and AdamW torch's own default, 1e-3, is the best of
# those that were measured (benchmarks/results/accuracy.md).
SGD_LR = 0.04
# What weight_decay="auto" stands for with SGD: the first over the number of rows, at most the
# second. On the tables of that page it makes probabilities better, and costs no accuracy.
DECAY_OF_ROWS, MOST_DECAY = 6, 0.01
# What other optimisers ignore, even those that have an argument of that name.
OF_SGD = ("momentum", "nesterov")


def _as_argument(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(as_number, value))
    return as_number(value)


def resolve_optimizer(optimizer, own, optimizer_params, n_rows=None):
    """Find an optimiser's class and check its arguments.

    Parameters
    ----------
    optimizer : {"sgd", "adam", "adamw"} or a subclass of torch.optim.Optimizer
        Which one.
    own : dict
        What the classifier has parameters for: `momentum`, `nesterov`, and, numbers or "auto",
        `lr` and `weight_decay`.
    optimizer_params : dict or None
        Its other arguments.

    n_rows : int, default=None
        How many rows there are to train on; None stands for an unknown number.

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
    if own["weight_decay"] == "auto":
        is_needed = issubclass(cls, torch.optim.SGD) and n_rows is not None
        own["weight_decay"] = min(MOST_DECAY, DECAY_OF_ROWS / n_rows) if is_needed else 0.0
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


def compute_learning_rates(schedule, lr, n_epochs):
    """Compute the learning rate of each epoch.

    Parameters
    ----------
    schedule : {"constant", "cosine", "one_cycle"}
        "cosine" is `torch.optim.lr_scheduler.CosineAnnealingLR` down to 0, "one_cycle" is
        `OneCycleLR` with `lr` at its peak.
    lr : float
        The learning rate.
    n_epochs : int
        The length of the schedule.

    Returns
    -------
    lrs : list of float, or None
        One for each epoch; None where it is constant.
    """
    if schedule == "constant":
        return None
    epochs = np.arange(n_epochs)
    if schedule == "cosine":
        return _fall(lr, 0.0, epochs / n_epochs).tolist()
    # Torch's defaults: the peak comes after 30 % of the epochs; it is 25 times the start, which is
    # 10,000 times the end.
    start, peak, last = lr / 25, 0.3 * n_epochs - 1, n_epochs - 1
    rising = _fall(start, lr, epochs / peak)
    falling = _fall(lr, start / 1e4, (epochs - peak) / (last - peak))
    return np.where(epochs <= peak, rising, falling).tolist()


def _fall(start, end, share):
    """Go from start to end along half a cosine."""
    return end + (start - end) * (1 + np.cos(np.pi * share)) / 2


def resolve_device(device):
    """Resolve a device and check that it is there.

    Parameters
    ----------
    device : str or torch.device
        A device by its torch name, such as "cpu", "cuda", "cuda:0" or "mps"; or "auto" for an
        accelerator if there is one, else the CPU.

    Returns
    -------
    device : torch.device
        The device.

    Raises
    ------
    ValueError
        If torch does not know such a device or this machine does not have it.
    """
    available = ["cpu"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        names = [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
        available += [accelerator.type, *names]
    if device == "auto":
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or str(resolved) not in available:
        raise ValueError(
            f"The device {str(device)!r} is not available. On this machine there are: "
            f"{', '.join(available)}."
        )
    return resolved
