"""From the parameters of the classifier to an optimiser of torch and its arguments."""

import inspect

import torch

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def resolve_optimizer(optimizer, own, optimizer_params):
    """Find an optimiser's class and check its arguments.

    Parameters
    ----------
    optimizer : {"sgd", "adam", "adamw"} or a subclass of torch.optim.Optimizer
        Which one.
    own : dict
        What the classifier has parameters for. What the optimiser does not know of must be 0 or
        False.
    optimizer_params : dict or None
        Its other arguments.

    Returns
    -------
    cls : type
        The class.
    arguments : dict
        All but the learning rate.

    Raises
    ------
    TypeError
        If it is not an optimiser.
    ValueError
        If it does not take an argument, or the argument is one of the classifier's own.
    """
    cls = OPTIMIZERS.get(optimizer, optimizer)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise TypeError(
            f"optimizer must be one of {', '.join(map(repr, OPTIMIZERS))} or a class of "
            f"torch.optim. Got {optimizer!r}."
        )
    known = inspect.signature(cls).parameters
    arguments = dict(optimizer_params or {})
    for name in arguments:
        if name == "lr" or name in own:
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
    return cls, arguments
