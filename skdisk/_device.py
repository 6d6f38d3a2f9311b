"""The device to train on: found, or refused with a list of those that are there."""

import torch


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
