"""Rows kept as memory-mapped Arrow files below HF_DATASETS_CACHE, under the hash of what they come from."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa

from hf_tasks.errors import DataError

# Part of the name of every cached file: raise it when what is written there changes.
CACHE_VERSION = 3


def memory_mapped(
    identity: Iterable[str | None], read: Callable[[], tuple[datasets.Features, Iterator[pa.RecordBatch]]]
) -> datasets.Dataset:
    """The rows under this identity in the cache; they are read and written there when they are not yet."""
    target = cache_path(identity, suffix=".arrow")
    if not target.exists():
        features, batches = read()
        _write_whole(target, features, batches)
    return datasets.Dataset.from_file(str(target))


def cache_path(identity: Iterable[str | None], *, suffix: str) -> Path:
    """The file that holds what has this identity, whether it is there or not; its folder is made."""
    name = hashlib.sha256(json.dumps([CACHE_VERSION, *identity]).encode()).hexdigest()
    return cache_folder() / f"{name}{suffix}"


def cache_folder() -> Path:
    """Where all cached files lie; it is made."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_tasks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def content_hash(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path to write to, renamed to `target` at the end: whoever reads sees the whole file or none."""
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        written = Path(aside) / target.name
        yield written
        os.replace(written, target)


@contextmanager
def explained_os_errors(key: str, name: str) -> Iterator[None]:
    """Turn what the operating system refuses while rows are read into a message for the user.

    Args:
        key: recipe section of the source, as `data.train`.
        name: the source as the recipe names it.

    Raises:
        DataError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{key}: {name}: {error}; check who may read it, "
            f"and the space in {datasets.config.HF_DATASETS_CACHE} (HF_DATASETS_CACHE sets another folder)"
        ) from None


def _write_whole(target: Path, features: datasets.Features, batches: Iterable[pa.RecordBatch]) -> None:
    with (
        written_whole(target) as written,
        pa.OSFile(str(written), "wb") as file,
        pa.ipc.new_stream(file, features.arrow_schema) as stream,
    ):
        for batch in batches:
            stream.write_batch(batch)
