"""Random numbers that are a function of a row, not of its place: for dropout and for the split.

torch and NumPy only. A generator that is asked row by row gives a row other numbers when it stands
in another place, in another batch, or when another program asks. Here each row has a key, computed
from its values, and whatever is drawn for the row is a function of that key and a seed. So

- the compiled kernel and the module itself drop the same units;
- rows that are equal are treated alike: a row of weight 2 is a row that occurs twice, exactly.

Keys are int64, whose products wrap around. `mix` is the finaliser of SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014) with shifts that carry the sign, which leaves it a bijection.
"""

from functools import partial

import numpy as np
import torch

ROWS_AT_ONCE = 4096


def mix(keys):
    """Scatter keys: each bit of the result depends on every bit of the key.

    Parameters
    ----------
    keys : tensor, dtype=int64
        Any numbers.

    Returns
    -------
    mixed : tensor of the same shape, dtype=int64
        A bijection of them.
    """
    keys = (keys ^ (keys >> 30)) * -0x40A7B892E31B1A47
    keys = (keys ^ (keys >> 27)) * -0x6B2FB644ECCEEE15
    return keys ^ (keys >> 31)


def hash_rows(X):
    """Compute a key of each row from its values; zeros add nothing to it.

    Parameters
    ----------
    X : ndarray, tensor or CSR matrix of shape (n_samples, n_features), dtype=float32
        The rows.

    Returns
    -------
    keys : tensor of shape (n_samples,), dtype=int64
        Equal for equal rows; on the device of the rows.
    """
    columns = mix(torch.arange(1, X.shape[1] + 1)) | 1
    if hasattr(X, "indptr"):
        # -0.0 has other bits than 0.0.
        bits = torch.as_tensor(X.data + 0.0).view(torch.int32).long()
        ends = np.r_[0, np.cumsum(bits.numpy() * columns.numpy()[X.indices])]
        return mix(torch.as_tensor(ends[X.indptr[1:]] - ends[X.indptr[:-1]]))
    X = torch.as_tensor(X)
    columns = columns.to(X.device)
    keys = [
        ((rows + 0.0).view(torch.int32).long() * columns).sum(dim=1)
        for rows in X.split(ROWS_AT_ONCE)
    ]
    return mix(torch.cat(keys))


def make_epoch_seed(seed, epoch):
    """Make the seed of an epoch from that of the training; both are ints below 2**31."""
    return int(mix(torch.tensor((seed << 32) + epoch)))


def make_batch_seeds(seed, n_batches):
    """Make the seeds of an epoch's batches.

    Parameters
    ----------
    seed : int
        The epoch's.
    n_batches : int
        How many.

    Returns
    -------
    seeds : tensor of shape (n_batches,), dtype=int64
        One for each batch.
    """
    return mix(seed + torch.arange(n_batches))


def draw_row_keys(keys, seeds):
    """Draw 32 bits for each row.

    Parameters
    ----------
    keys : tensor, dtype=int64
        The rows', from `hash_rows`.
    seeds : int or tensor, dtype=int64
        What the bits depend on besides; broadcast.

    Returns
    -------
    bits : tensor, dtype=int32
        Evenly distributed.
    """
    return (mix(keys + seeds) >> 32).int()


def make_unit_keys(sizes, device="cpu"):
    """Make 32 bits for each unit of the hidden layers.

    Parameters
    ----------
    sizes : sequence of int
        How many each has.
    device : str or torch.device, default="cpu"
        Where to put them.

    Returns
    -------
    keys : list of tensor of shape (n_units,), dtype=int32
        One a layer.
    """
    return [
        draw_row_keys(torch.arange(size), (layer + 1) << 40).to(device)
        for layer, size in enumerate(sizes)
    ]


def make_threshold(p):
    """Make the number that evenly distributed int32 are below with probability p."""
    return min(round(p * 2**32), 2**32 - 1) - 2**31


def make_mask(row_keys, unit_keys, threshold, scale, bits, shifted, mask):
    """Make the operations that draw a dropout mask.

    Bits of rows and units are combined by two rounds of multiply and shift, whose upper bits, all
    that a comparison looks at, are evenly distributed.

    Parameters
    ----------
    row_keys, unit_keys : tensor, dtype=int32
        Broadcast to the shape of the mask.
    threshold : tensor, dtype=int32
        From `make_threshold`.
    scale : tensor or float
        1 / (1 - p): what is left grows by it, so that the expected value stays.
    bits, shifted : tensor, dtype=int32
        Memory of the shape of the mask.
    mask : tensor
        Where the mask goes: 0 or `scale`.

    Returns
    -------
    operations : list of callable
        To be called in turn.
    """
    return [
        partial(torch.bitwise_xor, row_keys, unit_keys, out=bits),
        partial(bits.mul_, 0x7FEB352D),
        partial(torch.bitwise_right_shift, bits, 15, out=shifted),
        partial(bits.bitwise_xor_, shifted),
        partial(bits.mul_, -0x7B935975),
        partial(torch.ge, bits, threshold, out=mask),
        partial(mask.mul_, scale),
    ]
