"""Random numbers that are a function of a row, not of its place: for dropout and for the split.

torch and NumPy only. A generator that is asked row by row gives a row other numbers when it stands
in another place, in another batch, or when another program asks. Here each row has a key, computed
from its values, and whatever is drawn for the row is a function of that key and a seed. So

- the compiled kernel and the module itself drop the same units;
- rows that are equal are treated alike: a row of weight 2 is a row that occurs twice, exactly.

Keys are int64, whose products wrap around; bits are int32, evenly distributed.
"""

import numpy as np
import torch

ROWS_AT_ONCE = 4096


def mix(keys):
    """Scatter int64 keys, one to one: each bit of the result depends on every bit of the key.

    It is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) with shifts that carry
    the sign, which leaves it a bijection.
    """
    keys = (keys ^ (keys >> 30)) * -0x40A7B892E31B1A47
    keys = (keys ^ (keys >> 27)) * -0x6B2FB644ECCEEE15
    return keys ^ (keys >> 31)


def hash_rows(X):
    """Compute a key of each row of float32, an array, tensor or CSR matrix; zeros add nothing."""
    columns = mix(torch.arange(1, X.shape[1] + 1)) | 1
    if hasattr(X, "indptr"):
        # -0.0 has other bits than 0.0.
        bits = torch.as_tensor(X.data + 0.0).view(torch.int32).long()
        ends = np.r_[0, np.cumsum(bits.numpy() * columns.numpy()[X.indices])]
        return mix(torch.as_tensor(ends[X.indptr[1:]] - ends[X.indptr[:-1]]))
    keys = torch.empty(len(X), dtype=torch.int64, device=getattr(X, "device", "cpu"))
    columns = columns.to(keys.device)
    for start in range(0, len(X), ROWS_AT_ONCE):
        # The sum is a new array or tensor: of one that is read-only torch would warn.
        rows = torch.as_tensor(X[start : start + ROWS_AT_ONCE] + 0.0)
        keys[start : start + len(rows)] = (rows.view(torch.int32).long() * columns).sum(dim=1)
    return mix(keys)


def make_epoch_seed(seed, epoch):
    """Make the seed of an epoch from that of the training; both are ints below 2**31."""
    return int(mix(torch.tensor((seed << 32) + epoch)))


def make_batch_seeds(seed, n_batches):
    """Make the seeds of an epoch's batches from that of the epoch."""
    return mix(seed + torch.arange(n_batches))


def draw_bits(keys, seeds):
    """Draw 32 bits for each key, of rows or units; seeds are broadcast."""
    return (mix(keys + seeds) >> 32).int()


def draw_unit_bits(sizes, device="cpu"):
    """Draw 32 bits for each unit of the hidden layers, which have these sizes."""
    return [
        draw_bits(torch.arange(size), layer << 40).to(device)
        for layer, size in enumerate(sizes, start=1)
    ]


def draw_mask(row_bits, unit_bits, p, dtype=torch.float32):
    """Draw a dropout mask of shape (n_rows, n_units) from bits of both: 0, or 1 / (1 - p).

    Two rounds of multiply and shift combine the bits; the upper ones of the result, all that a
    comparison looks at, are evenly distributed.
    """
    bits = (row_bits[:, None] ^ unit_bits) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * -0x7B935975
    # Evenly distributed int32 are below it with probability p.
    threshold = min(round(p * 2**32), 2**32 - 1) - 2**31
    # What is left grows, so that the expected value stays.
    return (bits >= threshold).to(dtype) * (1 / (1 - p))
