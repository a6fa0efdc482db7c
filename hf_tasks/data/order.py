"""The order of an epoch: shuffled, and known from seed and epoch alone, so that a resumed run repeats it."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# As objects of Python, the numbers of all rows would take five times what they take in a tensor.
ROWS_AT_ONCE = 2**16


def epoch_order(length: int, *, seed: int, epoch: int) -> Iterator[int]:
    """A permutation of range(length) that depends on seed and epoch alone."""
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
    for rows in torch.randperm(length, generator=generator).split(ROWS_AT_ONCE):
        yield from rows.tolist()


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
        return epoch_order(self.length, seed=self.seed, epoch=self.epoch)


class ExampleKey(NamedTuple):
    """Which example: together with the seed it decides all that is random about it."""

    epoch: int
    row: int


class EpochKeys(EpochOrder):
    """The same, for data sets in which chance follows the epoch: their rows are fetched by ExampleKey."""

    def __iter__(self) -> Iterator[ExampleKey]:  # type: ignore[override]
        """The keys of one epoch."""
        epoch = self.epoch
        return (ExampleKey(epoch, row) for row in super().__iter__())


class FollowEpoch(TrainerCallback):
    """Tells the order of the rows which epoch begins.

    Of an epoch that is resumed in the middle, transformers 5 tells it only to what is left of the batches;
    from there accelerate does not find the order when several processes share it, and they would train on
    rows of epoch 0 again.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        train_dataloader: DataLoader,
        **kwargs: Any,
    ) -> None:
        """Tell all batches of the epoch, which know the same order as those that are left."""
        steps = max(1, ceil(len(train_dataloader) / args.gradient_accumulation_steps))
        train_dataloader.set_epoch(state.global_step // steps)  # type: ignore[attr-defined]


@contextmanager
def every_row(args: TrainingArguments) -> Iterator[None]:
    """Batches that are made inside hold all rows: `dataloader_drop_last` is about training alone.

    The Trainer leaves the last rows out of evaluations too.
    """
    drops_last, args.dataloader_drop_last = args.dataloader_drop_last, False
    try:
        yield
    finally:
        args.dataloader_drop_last = drops_last
