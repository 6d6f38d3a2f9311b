"""Batches of data that is in memory, as slices of tensors.

torch's `DataLoader` fetches a batch row by row and collates it, which for small rows costs more
than the training step. Here an epoch costs one permutation, and a batch one gather.
"""

import math
from itertools import repeat

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset
from skorch.utils import data_from_dataset

# So many rows in one batch, or fewer, are few: float64 costs little for them.
FEW_ROWS = 256


class WeightedDataset(Dataset):
    """skorch's data set, with a weight for each row: a float64 tensor, or None for 1."""

    def __init__(self, X, y=None, weights=None):
        super().__init__(X, y)
        self.weights = weights


class LazyRows:
    """Rows of a CSR matrix or array, perhaps larger than memory, made tensors as asked for."""

    def __init__(self, X, device="cpu"):
        self.X = X
        self.device = device
        self.shape = X.shape

    def __len__(self):
        """Count the rows."""
        return self.shape[0]

    def __getitem__(self, positions):
        """Make the rows at some positions a dense float32 tensor."""
        if isinstance(positions, torch.Tensor):
            positions = positions.cpu().numpy()
        rows = self.X[positions]
        dense = _make_tensor(rows.shape)
        if sparse.issparse(rows):
            rows.astype(np.float32, copy=False).toarray(out=dense.numpy())
        else:
            dense.numpy()[...] = rows
        return dense.to(self.device)


def _make_tensor(shape):
    """Make a float32 tensor whose memory begins at a multiple of 64 bytes, as torch's own does.

    torch asks the C library for such memory, which in threads keeps it: several times as much.
    """
    n = math.prod(shape)
    memory = np.empty(n + 15, np.float32)
    first = -memory.ctypes.data % 64 // memory.itemsize
    return torch.from_numpy(memory[first : first + n].reshape(shape))


def as_rows(X, device="cpu"):
    """Wrap rows so that slices and positions give float32 tensors; copy none that is one."""
    is_array = isinstance(X, np.ndarray)
    if sparse.issparse(X) or (is_array and not (X.dtype == np.float32 and X.flags.carray)):
        return LazyRows(X, device)
    return torch.as_tensor(X, device=device)


class Batch(tuple):
    """A pair of rows and targets, as skorch unpacks it, and what it does not know of.

    `weights` of rows, the `seed` of dropout, and `is_precise`: whether gradients are to be
    computed in float64. The first two may be None.
    """

    def __new__(cls, X, y, weights=None, seed=None, is_precise=False):
        """Make the pair."""
        batch = super().__new__(cls, (X, y))
        batch.weights, batch.seed, batch.is_precise = weights, seed, is_precise
        return batch


class TensorBatches:
    """Iterate over a data set in batches of tensors; every iteration is an epoch.

    The data, on which weights may be, are moved to `device` once; sparse rows are made dense batch
    by batch. Where batches are shuffled, a CPU generator draws the order for every device.
    """

    def __init__(self, dataset, batch_size, *, device="cpu", shuffle=False, generator=None):
        X, y = data_from_dataset(dataset)
        self.X = as_rows(X, device)
        # skorch's data set has a 0 in the place of a missing target, and so do the batches.
        y = torch.zeros(len(self.X)) if y is None else y
        self.y = torch.as_tensor(y, device=device)
        weights = getattr(dataset, "weights", None)
        # MPS knows no float64.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.weights = None if weights is None else weights.to(device, dtype)
        self.shuffle = shuffle
        self.generator = generator
        self.n_rows = self.X.shape[0]
        # Torch takes no larger number than an int64.
        self.batch_size = min(batch_size, max(1, self.n_rows))
        n_full, rest = divmod(self.n_rows, self.batch_size)
        # The number of rows of each batch.
        self.sizes = [self.batch_size] * n_full + [rest] * bool(rest)
        # What the dropout of each batch of the current epoch depends on, if there is any.
        self.seeds = None
        # Where few rows are a batch of their own, gradients in float64 make the result depend, to
        # the last bit, neither on the order of the rows nor on whether they are repeated or
        # weighted.
        self.is_precise = (
            len(self.sizes) == 1 and self.n_rows <= FEW_ROWS and torch.device(device).type != "mps"
        )

    def __len__(self):
        """Count the batches of an epoch."""
        return len(self.sizes)

    def draw_orders(self, n_epochs=1):
        """Draw an order of rows for each epoch: (n_epochs, n_samples), int64, on their device."""
        if not self.shuffle:
            return torch.arange(self.n_rows, device=self.y.device).repeat(n_epochs, 1)
        orders = torch.empty(n_epochs, self.n_rows, dtype=torch.int64)
        for order in orders:
            torch.randperm(self.n_rows, generator=self.generator, out=order)
        return orders.to(self.y.device)

    def __iter__(self):
        """Go through one epoch, batch by batch."""
        n = self.batch_size
        [order] = self.draw_orders()
        # Each batch has memory of its own, in order too: where in memory rows begin is a matter of
        # chance and of their container, and changes the last bits of products of matrices.
        X = map(self.X.__getitem__, order.split(n))
        weights = repeat(None) if self.weights is None else self.weights[order].split(n)
        seeds = repeat(None) if self.seeds is None else self.seeds
        return map(Batch, X, self.y[order].split(n), weights, seeds, repeat(self.is_precise))
