"""The order of an epoch: shuffled, and known from seed and epoch alone, so that a resumed run repeats it."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_order(length: int, *, seed: int, epoch: int) -> list[int]:
    """A permutation of range(length) that depends on seed and epoch alone."""
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
    return torch.randperm(length, generator=generator).tolist()


class EpochOrder(Sampler[int]):
    """All rows once, in the order of the epoch."""

    def __init__(self, length: int, *, seed: int) -> None:
        """Start at epoch 0.

        Args:
            length: number of rows.
            seed: the run's seed, >= 0.
        """
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of rows."""
        return self.length

    def __iter__(self) -> Iterator[int]:
        """The rows of one epoch."""
        return iter(epoch_order(self.length, seed=self.seed, epoch=self.epoch))
