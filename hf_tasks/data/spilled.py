"""Numbers, one or more an example, in a file without a name: of any count, they take little memory."""

import hashlib
import tempfile

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from hf_tasks.data.cache import cache_folder


class Spilled:
    """An array that grows at its end, and lies below HF_DATASETS_CACHE until nothing refers to it."""

    def __init__(self, dtype: DTypeLike) -> None:
        """Start with none.

        Args:
            dtype: of the numbers.
        """
        self.dtype = np.dtype(dtype)
        # It is gone with the last reference to it.
        self._file = tempfile.TemporaryFile(dir=cache_folder())  # noqa: SIM115

    def add(self, numbers: NDArray) -> None:
        """Put numbers at the end."""
        self._file.write(numbers.astype(self.dtype).tobytes())

    def mapped(self) -> NDArray:
        """All numbers so far, memory-mapped; what is written to them stays in the file."""
        self._file.flush()
        if self._file.tell() == 0:
            return np.zeros(0, self.dtype)
        return np.memmap(self._file, self.dtype, mode="r+")


def sorted_numbers(numbers_N: NDArray) -> NDArray:
    """The same numbers in ascending order, memory-mapped."""
    spilled = Spilled(numbers_N.dtype)
    for part in parts_of(numbers_N):
        spilled.add(part)
    ascending_N = spilled.mapped()
    ascending_N.sort()
    return ascending_N


def parts_of(numbers_N: NDArray, *, size: int = 2**20) -> list[NDArray]:
    """Views of the numbers, `size` of them at a time."""
    return [numbers_N[start : start + size] for start in range(0, len(numbers_N), size)]


def select_rows(rows: datasets.Dataset, numbers_M: NDArray) -> datasets.Dataset:
    """The rows with these numbers, uint64 and memory-mapped: `select` would make each an object of Python.

    Args:
        rows: of a table, all of them or a selection.
        numbers_M: from 0, in the order wanted.
    """
    if rows._indices is not None:
        numbers_M = rows._indices.column(0).to_numpy()[numbers_M]
    digest = hashlib.sha256(numbers_M.data)
    digest.update("".join(file["filename"] for file in rows.cache_files).encode())
    return datasets.Dataset(
        rows.data,
        info=rows.info,
        split=rows.split,
        indices_table=pa.table({"indices": pa.array(numbers_M, pa.uint64())}),
        fingerprint=digest.hexdigest()[:16],
    )
