"""Rows of a `datasets` data set as examples for training and validation, and the order of an epoch."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hf_tasks.images.cache import IMAGE_COLUMN, PackedPictures, ProgressBar, pack_pictures, picture_keys
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import TrainTransform, ValidationTransform


class ExampleKey(NamedTuple):
    """Which example: together with the seed it decides all that is random about it."""

    epoch: int
    row: int


class TrainingPictures(Dataset):
    """Augmented pictures with their labels, fetched by ExampleKey."""

    def __init__(
        self,
        rows: datasets.Dataset,
        transform: TrainTransform | ValidationTransform,
        *,
        label_column: str,
        packed: PackedPictures | None = None,
    ) -> None:
        """Keep the rows.

        Args:
            rows: with the column `image` as `datasets.Image(decode=False)` gives it, and the label column.
            transform: what build_train_transform returned.
            label_column: holds a class number, or a list of 0 and 1 with a place for each class.
            packed: the decoded pictures of the rows; left out, they are decoded when fetched.
        """
        self.rows = _columns(rows, label_column, packed)
        self.transform = transform
        self.label_column = label_column
        self.packed = packed

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, key: ExampleKey) -> dict[str, Any]:
        """The example: `pixel_values`, float32 (3, height, width), and `labels`, int or float32 (classes,).

        Raises:
            DataError: the picture is not readable.
        """
        values = self.rows[key.row]
        if self.packed is not None:
            pixels_HWC = self.packed[key.row]
        else:
            pixels_HWC = self.transform.decode(values[IMAGE_COLUMN])
        if isinstance(self.transform, ValidationTransform):
            pixel_values = self.transform.finish(pixels_HWC)
        else:
            pixel_values = self.transform(pixels_HWC, epoch=key.epoch, index=key.row)
        return {"pixel_values": pixel_values, "labels": _label(values[self.label_column])}


class ValidationPictures(Dataset):
    """Pictures as the saved image processor prepares them, with their labels, fetched by row."""

    def __init__(
        self,
        rows: datasets.Dataset,
        transform: ValidationTransform,
        *,
        label_column: str,
        packed: PackedPictures | None = None,
    ) -> None:
        """Keep the rows; the arguments are those of TrainingPictures."""
        self.rows = _columns(rows, label_column, packed)
        self.transform = transform
        self.label_column = label_column
        self.packed = packed

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The example: as of TrainingPictures.

        Raises:
            DataError: the picture is not readable.
        """
        values = self.rows[row]
        if self.packed is None:
            pixel_values = self.transform(load_rgb(values[IMAGE_COLUMN]))
        else:
            pixel_values = self.transform.finish(self.packed[row])
        return {"pixel_values": pixel_values, "labels": _label(values[self.label_column])}


Pictures = TypeVar("Pictures", TrainingPictures, ValidationPictures)


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


def packed_pictures(pictures: Pictures, *, progress: ProgressBar) -> Pictures:
    """The same examples, their decoded pictures read from the cache, which is filled where it lacks them.

    Raises:
        DataError: a picture is not readable, or the disk is full.
    """
    rows, transform = pictures.rows, pictures.transform
    folder = pack_pictures(rows, transform, progress=progress).folder
    packed = PackedPictures(folder, picture_keys(rows))
    return type(pictures)(rows, transform, label_column=pictures.label_column, packed=packed)


def _columns(rows: datasets.Dataset, label_column: str, packed: PackedPictures | None) -> datasets.Dataset:
    """What is fetched of a row; pictures that are packed are not read again."""
    return rows.select_columns([label_column] if packed is not None else [IMAGE_COLUMN, label_column])


def _label(value: int | list[float]) -> int | Tensor:
    return value if isinstance(value, int) else torch.tensor(value, dtype=torch.float32)
