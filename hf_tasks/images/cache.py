"""Decoded pictures packed once, under what they are and how they were decoded; checked whenever read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset

from hf_tasks.contract.task import Packed, ProgressBar
from hf_tasks.errors import DataError
from hf_tasks.images.packs import (
    AGAIN,
    KEY_BYTES,
    is_whole,
    locate,
    open_pack,
    pack_paths,
    read_picture,
    write_pack,
)

IMAGE_COLUMN = "image"
# Part of every key: raise it when what is packed changes.
CACHE_VERSION = 1
FEWEST_PER_PACK, MOST_PER_PACK = 64, 2048
PACKS_WANTED = 16
# Decoders whose next version may decode to other pixels.
DECODERS = ("opencv-python-headless", "pillow", "torchvision", "timm")


class Decoder(Protocol):
    """The part of a transform that comes before all that is random."""

    @property
    def decoding(self) -> str:
        """What decides how a picture is decoded, besides the picture."""

    def decode(self, image: Mapping[str, Any]) -> np.ndarray:
        """A row's picture to uint8 pixels (height, width, 3)."""


class PackedPictures:
    """The decoded picture of each row."""

    def __init__(self, folder: Path, keys_N: np.ndarray) -> None:
        """Find the rows in the packs.

        Args:
            folder: of the packs.
            keys_N: of picture_keys.

        Raises:
            DataError: a picture is in no pack, or a pack is damaged.
        """
        self.folder, self.keys_N = folder, keys_N
        self._paths = pack_paths(folder)
        self._readers: list[Any] = [None] * len(self._paths)
        self._packs_N, self._places_N = locate(keys_N, self._paths)
        if (self._packs_N < 0).any():
            missing = int((self._packs_N < 0).sum())
            raise DataError(f"{folder}: {missing} of {len(keys_N)} pictures are not in the cache; {AGAIN}")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.keys_N)

    def __getitem__(self, row: int) -> np.ndarray:
        """Pixels of a row, uint8 (height, width, 3), not to be written to.

        Raises:
            DataError: the pack is damaged here.
        """
        pack = int(self._packs_N[row])
        if self._readers[pack] is None:
            self._readers[pack] = open_pack(self._paths[pack])
        return read_picture(self._readers[pack], int(self._places_N[row]), self._paths[pack])

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker that is not forked opens the packs itself."""
        return PackedPictures, (self.folder, self.keys_N)


def pack_pictures(
    rows: datasets.Dataset, decoder: Decoder, *, progress: ProgressBar, verify: bool = False
) -> Packed:
    """Decode what is not in the cache yet, with a process for each core; a kill loses one pack at most.

    Args:
        rows: with the column `image` as `datasets.Image(decode=False)` gives it.
        decoder: what decodes.
        progress: shows how far it is.
        verify: read every pack first, and remove the damaged ones.

    Raises:
        DataError: a picture cannot be decoded, or the disk is full.
    """
    folder, keys_N = cache_folder(decoder), picture_keys(rows)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for path in pack_paths(folder):
            if verify and not is_whole(path):
                path.unlink()
        _, first_rows = np.unique(keys_N, return_index=True)
        packs, _ = locate(keys_N[first_rows], pack_paths(folder))
        missing = np.sort(first_rows[packs < 0])
        if len(missing):
            _write_packs(rows, keys_N, missing, decoder=decoder, folder=folder, progress=progress)
    size = sum(path.stat().st_size for path in pack_paths(folder))
    return Packed(len(first_rows), len(missing), size, folder)


def cache_folder(decoder: Decoder) -> Path:
    """Where pictures that are decoded like this are packed, below HF_DATASETS_CACHE."""
    facts = [CACHE_VERSION, decoder.decoding, *map(_version, DECODERS)]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:KEY_BYTES]
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_tasks" / "pictures" / name


def picture_keys(rows: datasets.Dataset) -> np.ndarray:
    """A key for each row's picture: of its path, size and time of change, or of its bytes; S32 (N,)."""
    batches = rows.select_columns([IMAGE_COLUMN]).with_format("arrow").iter(batch_size=1024)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        keys = [key for batch in batches for key in pool.map(_picture_key, batch[IMAGE_COLUMN].to_pylist())]
    return np.array(keys, dtype=f"S{KEY_BYTES}")


def _picture_key(image: Mapping[str, Any]) -> str:
    content = image["bytes"]
    if content is None:
        try:
            status = os.stat(image["path"])
        except OSError as error:
            raise DataError(f"{image['path']}: not a usable picture: {error.strerror}") from error
        content = f"{image['path']}\0{status.st_size}\0{status.st_mtime_ns}".encode()
    return hashlib.sha256(content).hexdigest()[:KEY_BYTES]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:  # OpenCV goes by several names
        return None


class _Decoded(Dataset):
    """Decoded pictures of chosen rows; an error is an answer, so that its own words reach the user."""

    def __init__(self, rows: datasets.Dataset, chosen: np.ndarray, decoder: Decoder) -> None:
        self.rows, self.chosen, self.decoder = rows.select_columns([IMAGE_COLUMN]), chosen, decoder

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, place: int) -> torch.Tensor | str:
        try:
            pixels_HWC = self.decoder.decode(self.rows[int(self.chosen[place])][IMAGE_COLUMN])
        except DataError as error:
            return str(error)
        return torch.from_numpy(np.array(pixels_HWC))


def _write_packs(
    rows: datasets.Dataset,
    keys_N: np.ndarray,
    missing: np.ndarray,
    *,
    decoder: Decoder,
    folder: Path,
    progress: ProgressBar,
) -> None:
    loader = DataLoader(
        _Decoded(rows, missing, decoder),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=min(os.cpu_count() or 1, len(missing)),
        prefetch_factor=4,
        generator=torch.Generator(),  # the global one decides about training
    )
    per_pack = min(max(len(missing) // PACKS_WANTED, FEWEST_PER_PACK), MOST_PER_PACK)
    try:
        with progress("Decoding pictures into the cache", len(missing)) as advance:
            pictures = _pixels(loader, advance)
            for start in range(0, len(missing), per_pack):
                write_pack(folder, keys_N[missing[start : start + per_pack]], pictures)
    except OSError as error:
        free = shutil.disk_usage(folder).free / 1e6
        raise DataError(
            f"{folder}: the cache of pictures cannot be written: {error} ({free:,.0f} MB free); make room, "
            "or set HF_DATASETS_CACHE to another folder, and start again: it goes on where it stopped"
        ) from error


def _pixels(loader: DataLoader, advance: Callable[[int], None]) -> Iterator[np.ndarray]:
    for picture in loader:
        if isinstance(picture, str):
            raise DataError(picture)
        advance(1)
        yield picture.numpy()


def _as_it_is(picture: Any) -> Any:
    return picture
