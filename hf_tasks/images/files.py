"""All pictures of a data set as files: which are not there, and which are the same; none is decoded."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.images.look import PictureFacts

CHUNK = 256
PROBE_BYTES = 4096

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class PictureFile:
    """Where a picture is: bytes of a data set, or a file."""

    content: pa.BinaryScalar
    """Null where the picture is a file."""
    path: str | None

    def size(self) -> int | None:
        """Bytes; None where there is no file."""
        if self.content.is_valid:
            return self.content.as_buffer().size
        try:
            status = os.stat(self.path or "")
        except (OSError, ValueError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def middle(self) -> bytes | None:
        """Some bytes from the middle, which differ sooner than those of a head; None where unreadable."""
        return self._digest(at_most=PROBE_BYTES)

    def whole(self) -> bytes | None:
        """A hash of all bytes; None where they cannot be read."""
        return self._digest(at_most=None)

    def _digest(self, *, at_most: int | None) -> bytes | None:
        begin = 0 if at_most is None else (self.size() or 0) // 2
        if self.content.is_valid:
            content = self.content.as_buffer().slice(begin)[:at_most]
            return hashlib.blake2b(content, digest_size=16).digest()
        try:
            with open(self.path or "", "rb") as file:
                file.seek(begin)
                return hashlib.blake2b(file.read(at_most), digest_size=16).digest()
        except OSError:
            return None


def picture_files(parts: Sequence[datasets.Dataset]) -> list[PictureFile]:
    """The files of many pictures, in order.

    Args:
        parts: rows with the column `image`, not decoded.
    """
    return [file for rows in parts for file in _files(rows)]


def file_faults(files: Sequence[PictureFile]) -> dict[int, PictureFacts]:
    """By place, what is wrong with files that are missing or empty."""
    faults = {}
    for place, size in enumerate(_asked(PictureFile.size, files)):
        if size is None:
            path = files[place].path
            reason = "the cell is empty" if path is None else f"no file {path}"
            faults[place] = PictureFacts("missing", reason)
        elif size == 0:
            faults[place] = PictureFacts("empty", "no content")
    return faults


def shared_contents(files: Sequence[PictureFile]) -> list[Hashable | None]:
    """What the bytes of each picture go by where another one has the same; None for all others.

    Nearly all files are told apart by their sizes, most others by some bytes, so few are read whole.
    """
    keys: dict[int, Hashable] = dict.fromkeys(range(len(files)))
    for ask in (PictureFile.size, PictureFile.middle, PictureFile.whole):
        answers = _asked(ask, [files[place] for place in keys])
        keys = {
            place: (key, answer)
            for (place, key), answer in zip(keys.items(), answers, strict=True)
            if answer  # a file that is there, and not empty
        }
        counts = Counter(keys.values())
        keys = {place: key for place, key in keys.items() if counts[key] > 1}
    return [keys.get(place) for place in range(len(files))]


def usable_contents(files: Sequence[PictureFile], facts: Mapping[int, PictureFacts]) -> list[Hashable | None]:
    """As shared_contents; None too for pictures that are known to have a fault.

    Args:
        files: of many pictures.
        facts: of those of them that were looked at, by place.
    """
    return [
        None if place in facts and facts[place].fault is not None else content
        for place, content in enumerate(shared_contents(files))
    ]


def _files(rows: datasets.Dataset) -> Iterator[PictureFile]:
    for chunk in rows.select_columns(["image"]).with_format("arrow")[:].column("image").chunks:
        paths = pc.struct_field(chunk, "path").to_pylist()
        yield from map(PictureFile, pc.struct_field(chunk, "bytes"), paths)


def _asked(ask: Callable[[PictureFile], Answer], files: Sequence[PictureFile]) -> list[Answer]:
    """Answers in order, on all cores: a disk across a network takes many questions at once."""
    chunks = (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(chain.from_iterable(pool.map(lambda chunk: list(map(ask, chunk)), chunks)))
