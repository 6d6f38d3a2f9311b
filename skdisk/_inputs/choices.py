"""From parameters of the classifier to choices: optimiser, learning rates, device."""

import inspect
import math
from numbers import Real

import numpy as np
import torch

from .._training.optimizers import FullBatchLBFGS, read_signature
from .parameters import check_argument

# The base class, and those that take sparse gradients only, or no biases.
OF_OTHERS = ("Optimizer", "SparseAdam", "Muon")
# All others of torch.optim, by their names in lower case.
OPTIMIZERS = {
    name.lower(): cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and name not in OF_OTHERS
} | {"lbfgs": FullBatchLBFGS}
# Of L-BFGS.
MAX_HISTORY_SIZE = 2**20
# What lr="auto" stands for with SGD. For Adam and AdamW torch's own default, 1e-3, is the best of
# those that were measured (benchmarks/results/accuracy.md).
SGD_LR = 0.04
# What weight_decay="auto" stands for with SGD and L-BFGS: the first over the number of rows, at
# most the second. On the tables of that page it makes probabilities better, and costs no accuracy.
DECAY_OF_ROWS, MOST_DECAY = 6, 0.01
# What lr_schedule="plateau" does. Of factors from 0.1 to 0.5 and patiences from 1 to 10 these have
# the lowest mean log loss on unseen rows of six sets of 150 to 1,800 rows, in 30 and 100 epochs.
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.5, 3
# A rate or penalty above this may be infinite where an optimiser multiplies it.
LARGE = 1e30
# What other optimisers ignore, even those that have an argument of that name.
OF_SGD = ("momentum", "nesterov")
# How torch computes a step: for all parameters at once, or compiled as a whole.
WAYS = ("foreach", "fused")


def resolve_optimizer(optimizer, own, optimizer_params, n_rows=None):
    """Find an optimiser's class and the arguments, `lr` included, to call it with.

    `own` has the classifier's parameters of it: `momentum`, `nesterov`, and, numbers or "auto",
    `lr` and `weight_decay`. `n_rows` is the number of rows to train on, if that is known.
    """
    cls = OPTIMIZERS.get(optimizer, optimizer)
    is_class = isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)
    known = read_signature(cls) if is_class else {}
    if "lr" not in known:
        raise TypeError(
            f"optimizer must be one of {', '.join(map(repr, sorted(OPTIMIZERS)))} or a class of "
            f"torch.optim that has an argument lr. Got {optimizer!r}."
        )
    own = _resolve_own(cls, own, known, n_rows)
    given = {
        name: check_argument(f"optimizer_params[{name!r}]", value)
        for name, value in (optimizer_params or {}).items()
    }
    for name in given:
        if name in own:
            raise ValueError(
                f"{name} is a parameter of the classifier itself: give it there, not in "
                "optimizer_params."
            )
    # What an optimiser does not have may be 0.
    arguments = given | {name: value for name, value in own.items() if value or name in known}
    for name, value in arguments.items():
        if name not in known:
            raise ValueError(
                f"{cls.__name__} has no argument {name!r}, which is {value!r}: leave it out. It "
                f"has: {', '.join(name for name in known if name != 'params')}."
            )
    if not takes_surely(cls, arguments):
        _try_steps(cls, arguments, known)
    return cls, arguments


def takes_surely(cls, arguments):
    """Tell whether arguments of an optimiser are such ordinary numbers that it needs no trial.

    Where it is not made, a process that loads a file does not wait a second for torch to import
    what optimisers need.
    """
    numbers = dict(arguments)
    nesterov = numbers.pop("nesterov", False)
    return (
        cls in OPTIMIZERS.values()
        and numbers.keys() <= {"lr", "weight_decay", "momentum"}
        and all(type(value) in (int, float) and 0 <= value <= LARGE for value in numbers.values())
        and numbers.get("lr", 0) > 0
        and isinstance(nesterov, bool | np.bool_)
        and (not nesterov or numbers.get("momentum", 0) > 0)
    )


def _resolve_own(cls, own, known, n_rows):
    """Replace "auto", make floats of bools, and leave out what the optimiser ignores."""
    own = {
        name: value if name == "nesterov" or isinstance(value, str) else float(value)
        for name, value in own.items()
    }
    is_sgd = issubclass(cls, torch.optim.SGD)
    if own["weight_decay"] == "auto":
        is_needed = (is_sgd or cls is FullBatchLBFGS) and n_rows is not None
        own["weight_decay"] = min(MOST_DECAY, DECAY_OF_ROWS / n_rows) if is_needed else 0.0
    if own["lr"] == "auto":
        own["lr"] = SGD_LR if cls is torch.optim.SGD else known["lr"].default
        if own["lr"] is inspect.Parameter.empty:
            raise ValueError(f"{cls.__name__} has no lr of its own: give lr a number.")
    if not is_sgd:
        return {name: value for name, value in own.items() if name not in OF_SGD}
    return own if own["momentum"] else own | {"nesterov": False}


def _try_steps(cls, arguments, known):
    """Make two steps, so that what an optimiser refuses is refused before a training."""
    parameters = make_parameters(((2, 3), (2,)))
    try:
        optimizer = cls(parameters, **arguments)
        for name, value in arguments.items():
            is_number = isinstance(value, Real | torch.Tensor)
            if isinstance(known[name].default, Real) and not is_number:
                raise TypeError(f"{name} must be a number, not {value!r}")
            if name in WAYS and value not in (None, True, False):
                raise TypeError(f"{name} must be True, False or None, not {value!r}")
        if issubclass(cls, torch.optim.LBFGS):
            [group] = optimizer.param_groups
            check_history_size(group["history_size"])
            group["history_size"] = 1
        for _ in range(2):
            make_short_step(optimizer)
    except Exception as error:
        raise ValueError(
            f"lr={arguments['lr']!r} or optimizer_params do not suit {cls.__name__}, or that does "
            f"not suit the network: {error}"
        ) from error


def make_parameters(shapes, device="cpu"):
    """Make zeros to try an optimiser on, of the network's dtype whatever torch's default is."""
    options = {"dtype": torch.float32, "device": device, "requires_grad": True}
    return [torch.zeros(shape, **options) for shape in shapes]


def make_short_step(optimizer):
    """Make a step with gradients of one, in which the optimiser looks at all of its settings."""
    [group] = optimizer.param_groups
    if isinstance(optimizer, torch.optim.LBFGS):
        # Not so short that it ends before it uses what it remembers.
        limits = {"max_iter": 2, "max_eval": 2, "tolerance_grad": 0.0}
        group.update({name: min(group[name], limit) for name, limit in limits.items()})
    for p in group["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step(lambda: torch.tensor(1.0))


def check_history_size(size):
    """Check how many steps L-BFGS is to remember: it makes a list of so many in its second one."""
    if not isinstance(size, int) or not 1 <= size <= MAX_HISTORY_SIZE:
        raise ValueError(
            f"history_size must be an int from 1 to {MAX_HISTORY_SIZE}. Got {size!r}."
        )


class LearningRates:
    """The learning rate of each epoch, computed when it is asked for: epochs may be without end.

    "cosine" is `torch.optim.lr_scheduler.CosineAnnealingLR` down to 0, "one_cycle" is `OneCycleLR`
    with `lr` at its peak.
    """

    def __init__(self, schedule, lr, n_epochs):
        self.schedule, self.lr, self.n_epochs = schedule, lr, n_epochs

    def __getitem__(self, epochs):
        """Give the rate of an epoch, or a list of those of a slice."""
        epochs = np.asarray(range(self.n_epochs)[epochs], dtype=np.float64)
        n_epochs = float(self.n_epochs)
        if self.schedule == "cosine":
            return _fall(self.lr, 0.0, epochs / n_epochs).tolist()
        # Torch's defaults: the peak comes after 30 % of the epochs; it is 25 times the start,
        # which is 10,000 times the end.
        start, peak, last = self.lr / 25, 0.3 * n_epochs - 1, n_epochs - 1
        rising = _fall(start, self.lr, epochs / peak)
        falling = _fall(self.lr, start / 1e4, (epochs - peak) / (last - peak))
        return np.where(epochs <= peak, rising, falling).tolist()


class Plateau:
    """The learning rate of each epoch, lower where the loss has stopped falling.

    A watcher of the training as well. It is `torch.optim.lr_scheduler.ReduceLROnPlateau` with
    `threshold_mode="abs"`: after more than `PLATEAU_PATIENCE` epochs in a row in which the loss
    has not fallen by `tol` below the lowest one, the rate is multiplied by `PLATEAU_FACTOR`. The
    loss is that on the validation data where there are any.
    """

    def __init__(self, lr, tol):
        self.lr, self.tol, self.lowest, self.misses = lr, tol, math.inf, 0

    def __getitem__(self, epoch):
        """Give the rate of the coming epoch."""
        return self.lr

    def begin_epoch(self, state):
        """Do nothing."""

    def end_epoch(self, state):
        """Look at the loss of the epoch; stop no training."""
        row = state.last_row
        loss = row.get("valid_loss", row["train_loss"])
        if loss < self.lowest - self.tol:
            self.lowest, self.misses = loss, 0
        else:
            self.misses += 1
        if self.misses > PLATEAU_PATIENCE:
            self.lr, self.misses = self.lr * PLATEAU_FACTOR, 0
        return False

    def end_training(self, state):
        """Do nothing."""


def _fall(start, end, share):
    """Go from start to end along half a cosine."""
    return end + (start - end) * (1 + np.cos(np.pi * share)) / 2


def resolve_device(device):
    """Find a device by its torch name, or "auto" for an accelerator if one can be used."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    available = ["cpu"]
    if accelerator is not None:
        names = [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
        available += [accelerator.type, *names]
    if device == "auto":
        is_usable = accelerator is not None and _find_fault(accelerator) is None
        return accelerator if is_usable else torch.device("cpu")
    if str(device) not in available:
        raise ValueError(
            f"The device {str(device)!r} is not available. On this machine there are: "
            f"{', '.join(available)}."
        )
    device = torch.device(device)
    # Where the CPU cannot hold a number, there is no memory.
    fault = None if device.type == "cpu" else _find_fault(device)
    if fault is not None:
        raise ValueError(
            f"The device {str(device)!r} cannot be used in this process: {fault} Take "
            'device="cpu". If the process is forked from one that has imported skdisk, start it '
            'in another way, such as multiprocessing\'s "spawn".'
        )
    return device


def _find_fault(device):
    """Quote what torch says of a device that is there and cannot be used; None if it can."""
    try:
        torch.zeros(1, device=device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".") + "."
    return None
