"""Schedules of the learning rate by epoch, as torch computes them."""

from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR


def compute_learning_rates(schedule, lr, n_epochs):
    """Compute the learning rate of each epoch by torch's own schedulers.

    Parameters
    ----------
    schedule : {"constant", "cosine", "one_cycle"}
        Constant, `CosineAnnealingLR` down to 0, or `OneCycleLR` with `lr` at its peak.
    lr : float
        The learning rate.
    n_epochs : int
        The length of the schedule.

    Returns
    -------
    lrs : list of float
        One for each epoch.
    """
    if schedule == "constant":
        return [lr]
    if schedule == "cosine":
        scheduler = LRScheduler(CosineAnnealingLR, T_max=n_epochs)
    else:
        scheduler = LRScheduler(OneCycleLR, max_lr=lr, total_steps=n_epochs, cycle_momentum=False)
    return scheduler.simulate(n_epochs, lr).tolist()
