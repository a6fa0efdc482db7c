"""Rows of a `datasets` data set as examples for training and validation, and the order of an epoch."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hf_tasks.images.decode import load_rgb, load_rgb_fast
from hf_tasks.images.transform import TrainTransform, ValidationTransform

IMAGE_COLUMN = "image"


class ExampleKey(NamedTuple):
    """Which example: together with the seed it decides all that is random about it."""

    epoch: int
    row: int


class TrainingPictures(Dataset):
    """Augmented pictures with their labels, fetched by ExampleKey."""

    def __init__(
        self, rows: datasets.Dataset, transform: TrainTransform | ValidationTransform, *, label_column: str
    ) -> None:
        """Keep the rows.

        Args:
            rows: with the column `image` as `datasets.Image(decode=False)` gives it, and the label column.
            transform: what build_train_transform returned.
            label_column: holds a class number, or a list of 0 and 1 with a place for each class.
        """
        self.rows = rows.select_columns([IMAGE_COLUMN, label_column])
        self.transform = transform
        self.label_column = label_column

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, key: ExampleKey) -> dict[str, Any]:
        """The example: `pixel_values`, float32 (3, height, width), and `labels`, int or float32 (classes,).

        Raises:
            DataError: the picture is not readable.
        """
        values = self.rows[key.row]
        if isinstance(self.transform, ValidationTransform):
            pixel_values = self.transform(load_rgb(values[IMAGE_COLUMN]))
        else:
            pixels_HWC = load_rgb_fast(values[IMAGE_COLUMN], shorter_side=self.transform.shorter_side)
            pixel_values = self.transform(pixels_HWC, epoch=key.epoch, index=key.row)
        return {"pixel_values": pixel_values, "labels": _label(values[self.label_column])}


class ValidationPictures(Dataset):
    """Pictures as the saved image processor prepares them, with their labels, fetched by row."""

    def __init__(self, rows: datasets.Dataset, transform: ValidationTransform, *, label_column: str) -> None:
        """Keep the rows; the arguments are those of TrainingPictures."""
        self.rows = rows.select_columns([IMAGE_COLUMN, label_column])
        self.transform = transform
        self.label_column = label_column

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The example: as of TrainingPictures.

        Raises:
            DataError: the picture is not readable.
        """
        values = self.rows[row]
        pixel_values = self.transform(load_rgb(values[IMAGE_COLUMN]))
        return {"pixel_values": pixel_values, "labels": _label(values[self.label_column])}


class EpochSampler(Sampler[ExampleKey]):
    """All rows once, shuffled; the order depends on seed and epoch alone."""

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
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of rows."""
        return self.length

    def __iter__(self) -> Iterator[ExampleKey]:
        """The keys of one epoch."""
        mixed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
        epoch = self.epoch
        order = torch.randperm(self.length, generator=generator).tolist()
        return (ExampleKey(epoch, row) for row in order)


def _label(value: int | list[float]) -> int | Tensor:
    return value if isinstance(value, int) else torch.tensor(value, dtype=torch.float32)
