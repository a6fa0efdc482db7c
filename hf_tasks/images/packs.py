"""Packs: Arrow files with a record batch for each decoded picture, and the keys of all in the schema.

They are read by position rather than mapped as a whole: pages of a map count as memory of every process that
has touched them.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from hf_tasks.errors import DataError
from hf_tasks.files import written_aside

KEY_BYTES = 32
KEYS_ENTRY = b"keys"
PICTURE_FIELDS = [
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("checksum", pa.uint32()),
    pa.field("pixels", pa.binary()),
]
AGAIN = "run `hf-tasks prepare RECIPE` again, which mends it"


def pack_paths(folder: Path) -> list[Path]:
    """The packs of a folder, in an order that does not change."""
    return sorted(folder.glob("*.arrow"))


def open_pack(path: Path) -> pa.ipc.RecordBatchFileReader:
    """What read_picture reads from.

    Raises:
        DataError: it is no whole Arrow file, or has not a key for each picture.
    """
    try:
        reader = pa.ipc.open_file(pa.OSFile(str(path)))
        size = len((reader.schema.metadata or {}).get(KEYS_ENTRY, b""))
        if size != KEY_BYTES * reader.num_record_batches:
            raise ValueError(f"{size} bytes of keys for {reader.num_record_batches} pictures")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: a damaged pack of pictures ({error}); {AGAIN}") from error
    return reader


def read_picture(reader: pa.ipc.RecordBatchFileReader, place: int, path: Path) -> np.ndarray:
    """Pixels at a place of a pack, uint8 (height, width, 3), not to be written to.

    Raises:
        DataError: they are not what was written.
    """
    try:
        height, width, checksum, pixels = (column[0].as_py() for column in reader.get_batch(place).columns)
        if _checksum(pixels, height, width) == checksum:
            return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        reason = "its checksum is another"
    except (OSError, pa.ArrowException, ValueError, TypeError, IndexError) as error:
        reason = str(error)
    raise DataError(f"{path}: picture {place} of the pack is damaged: {reason}; {AGAIN}")


def is_whole(path: Path) -> bool:
    """Whether every picture of a pack is what was written; all of it is read."""
    try:
        reader = open_pack(path)
        for place in range(reader.num_record_batches):
            read_picture(reader, place, path)
    except DataError:
        return False
    return True


def locate(keys_N: np.ndarray, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The pack of each key, as its place in `paths`, and the picture's place there; -1 where it is in none.

    Raises:
        DataError: a pack is no whole Arrow file.
    """
    found = [_keys(path) for path in paths]
    known = np.concatenate([*found, np.empty(0, keys_N.dtype)])
    if not len(known):
        return np.full(len(keys_N), -1, np.int32), np.zeros(len(keys_N), np.int32)
    packs = np.repeat(np.arange(len(found), dtype=np.int32), [len(keys) for keys in found])
    places = np.concatenate([np.arange(len(keys), dtype=np.int32) for keys in found])
    order = np.argsort(known, kind="stable")
    nearest = order[np.minimum(np.searchsorted(known, keys_N, sorter=order), len(known) - 1)]
    return np.where(known[nearest] == keys_N, packs[nearest], -1), places[nearest]


def write_pack(folder: Path, keys: np.ndarray, pictures: Iterable[np.ndarray]) -> None:
    """Write the next pictures, one for each key; `pictures` is left where the pack ends."""
    content = b"".join(keys.tolist())
    schema = pa.schema(PICTURE_FIELDS, metadata={KEYS_ENTRY: content})
    target = folder / f"{hashlib.sha256(content).hexdigest()[:KEY_BYTES]}.arrow"
    with (
        written_aside(target) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, schema) as pack,
    ):
        for pixels_HWC in islice(pictures, len(keys)):
            pack.write_batch(_picture_batch(pixels_HWC, schema))


def _keys(path: Path) -> np.ndarray:
    entries = open_pack(path).schema.metadata or {}
    return np.frombuffer(entries.get(KEYS_ENTRY, b""), dtype=f"S{KEY_BYTES}")


def _picture_batch(pixels_HWC: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    content = pixels_HWC.tobytes()
    height, width = pixels_HWC.shape[:2]
    columns = [[height], [width], [_checksum(content, height, width)], [content]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _checksum(pixels: bytes, height: int, width: int) -> int:
    return zlib.crc32(pixels, zlib.crc32(f"{height} x {width}".encode()))
