"""Rows of a `datasets` data set as examples for training and validation."""

from typing import Any, TypeVar

import datasets
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hf_tasks.contract.task import ProgressBar
from hf_tasks.images.cache import IMAGE_COLUMN, PackedPictures, pack_pictures, picture_keys
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import TrainTransform, ValidationTransform


class TrainingPictures(Dataset):
    """Augmented pictures with their labels, fetched by (epoch, row): with the seed it decides all chance."""

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

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The example: `pixels`, bytes (3, height, width) for `finish`; `labels`, int or float32 (classes,).

        Without augmentation it is `pixel_values`, the network's input already, in place of `pixels`.

        Raises:
            DataError: the picture is not readable.
        """
        epoch, row = key
        values = self.rows[row]
        if self.packed is not None:
            pixels_HWC = self.packed[row]
        else:
            pixels_HWC = self.transform.decode(values[IMAGE_COLUMN])
        labels = _label(values[self.label_column])
        if isinstance(self.transform, ValidationTransform):
            return {"pixel_values": self.transform.finish(pixels_HWC), "labels": labels}
        return {"pixels": self.transform(pixels_HWC, epoch=epoch, index=row), "labels": labels}

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with `pixel_values`, float32, in place of `pixels`; a batch without those as it is."""
        if "pixels" not in batch:
            return batch
        assert isinstance(self.transform, TrainTransform)
        return {"pixel_values": self.transform.normalise(batch["pixels"]), "labels": batch["labels"]}


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
        """The example: `pixel_values`, the network's input, float32; `labels` as of TrainingPictures.

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
