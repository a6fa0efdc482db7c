"""Data sets of the Hub, and those that lie in a local folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import huggingface_hub.constants
import pyarrow as pa
import yaml
from datasets.exceptions import DatasetsError

from hf_tasks.data.folders import PICTURE_SUFFIXES
from hf_tasks.data.problems import nearest
from hf_tasks.data.sources import FolderSource, HubSource
from hf_tasks.errors import DataError
from hf_tasks.hub.connection import why_unreachable

HUB_LOGGERS = ("datasets", "huggingface_hub")
DATA_SUFFIXES = {".arrow", ".csv", ".json", ".jsonl", ".parquet", ".tsv"}

# datasets has no classes of its own for an unknown split or configuration, a script, or a broken file.
BROKEN = (
    ValueError,
    RuntimeError,
    OSError,
    LookupError,
    TypeError,
    yaml.YAMLError,
    pa.ArrowException,
    DatasetsError,
)


def load_hub(source: HubSource, *, key: str) -> datasets.Dataset:
    """One split as `datasets` gives it: of a Hub name, a folder made by save_to_disk, or one of data files.

    Code in a data set is never run. A data set already in the cache needs no network.

    Args:
        source: name, configuration and split.
        key: recipe section of the source, as `data.train`, for messages.

    Raises:
        DataError: the data set, its configuration or the split is unknown, unreachable, or broken.
        OSError: the system refuses to read the folder, or to write the cache.
    """
    folder = Path(source.hub).expanduser()
    _require_folder_or_name(folder, source.hub, key)
    with _explained(source, key):
        if _is_saved(folder):
            return _saved_split(folder, source, key)
        if folder.is_dir():
            return datasets.load_dataset(str(folder), source.config, split=source.split)
        with _offline_if_unreachable():
            return datasets.load_dataset(source.hub, source.config, split=source.split)


def source_in(folder: Path, *, split: str | None) -> FolderSource | HubSource:
    """What a folder is: a data set where a split is named or data files are in it, else class folders.

    Args:
        folder: that is there.
        split: of the data set; None takes the only one.

    Raises:
        DataError: it has several splits and none is named, or it is broken.
    """
    if split is None and not _is_data_set(folder):
        return FolderSource(folder=str(folder))
    return HubSource(hub=str(folder), split=split or _only_split(folder))


def _is_data_set(folder: Path) -> bool:
    """Whether save_to_disk wrote it, or there are data files and no pictures below it."""
    if _is_saved(folder):
        return True
    files = (*folder.glob("*.*"), *folder.glob("data/*.*"))
    return any(path.suffix.lower() in DATA_SUFFIXES for path in files) and not any(
        path.suffix.lower() in PICTURE_SUFFIXES for path in folder.rglob("*")
    )


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _only_split(folder: Path) -> str:
    with _explained(HubSource(hub=str(folder)), "data"):
        if _is_saved(folder):
            saved = datasets.load_from_disk(str(folder))
            splits = list(saved) if isinstance(saved, datasets.DatasetDict) else ["train"]
        else:
            splits = datasets.get_dataset_split_names(str(folder))
        if len(splits) != 1:
            raise DataError(
                f"--data: {folder} has several splits ({', '.join(splits)}); name one with --split"
            )
    return splits[0]


@contextmanager
def _explained(source: HubSource, key: str) -> Iterator[None]:
    """Say what is wrong with a data set in the user's words, and nothing of what `datasets` says beside it.

    Raises:
        DataError: in place of what `datasets` raises.
    """
    try:
        with _quiet():
            yield
    except ConnectionError as error:
        raise DataError(
            f"{key}.hub: cannot reach the Hub for '{source.hub}', and it is not in the cache; "
            f"check the name and the network, or give a local folder ({error})"
        ) from None
    except FileNotFoundError as error:
        raise DataError(
            f"{key}.hub: no data set '{source.hub}', on the Hub or as a local folder with data files; "
            f"check the name, and log in (`hf auth login`) if it is private ({error})"
        ) from None
    except BROKEN as error:
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise DataError(
            f"{key}.hub: cannot load split '{source.split}' of '{source.hub}'"
            f"{f', configuration {source.config!r}' if source.config else ''}: {error}"
        ) from None


def hub_folders(source: HubSource) -> list[Path]:
    """Where the files of a data set may lie: its own folder, or those that downloads are kept in."""
    folder = Path(source.hub).expanduser()
    kept = [Path(datasets.config.HF_DATASETS_CACHE), Path(huggingface_hub.constants.HF_HUB_CACHE)]
    return [folder, *kept] if folder.is_dir() else kept


def _saved_split(folder: Path, source: HubSource, key: str) -> datasets.Dataset:
    loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.Dataset):
        _require_only_split(loaded, source, key)
        return loaded
    if source.split not in loaded:
        raise DataError(
            f"{key}.split: no split '{source.split}' in {source.hub} (it has {', '.join(loaded)})"
            f"{nearest(source.split, loaded)}"
        )
    return loaded[source.split]


def _require_only_split(rows: datasets.Dataset, source: HubSource, key: str) -> None:
    """Refuse another split of a data set that was saved without splits, or as one of them.

    `train` is what a recipe that names no split asks for, so it takes any such set.
    """
    if source.split not in ("train", str(rows.split)):
        raise DataError(
            f"{key}.split: no split '{source.split}' in {source.hub}, which holds one data set"
            f"{f', saved as {rows.split}' if rows.split else ''}; leave `split` out, or name another folder"
        )


def _require_folder_or_name(folder: Path, name: str, key: str) -> None:
    """Say at once what the Hub would not: it knows OWNER/NAME only, and no files."""
    if folder.is_file():
        raise DataError(
            f"{key}.hub: {name} is a file; for a csv, tsv, parquet or jsonl file write `table: {name}`"
        )
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataError(
            f"{key}.hub: no folder {name}; wanted a local data set folder, or OWNER/NAME on the Hub"
        )


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Look only in the cache when the Hub is silent; huggingface_hub would ask six times in 23 seconds."""
    was_offline = datasets.config.HF_HUB_OFFLINE
    if why_unreachable() is not None:
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep bars and retry notes off the screen; bars of downloads stay, as those take long."""
    levels = {name: logging.getLogger(name).level for name in HUB_LOGGERS}
    had_bars = not datasets.are_progress_bars_disabled()
    for name in HUB_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if had_bars:
            datasets.enable_progress_bars()
