"""Schedules of the learning rate by epoch: those of torch, in closed form."""

import numpy as np


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
    # Torch's defaults: the peak after 30 % of the epochs, 25 times the start, which is 10,000 times
    # the end.
    start, peak, last = lr / 25, 0.3 * n_epochs - 1, n_epochs - 1
    rising = _fall(start, lr, epochs / peak)
    falling = _fall(lr, start / 1e4, (epochs - peak) / (last - peak))
    return np.where(epochs <= peak, rising, falling).tolist()


def _fall(start, end, share):
    """Go from start to end along half a cosine."""
    return end + (start - end) * (1 + np.cos(np.pi * share)) / 2
