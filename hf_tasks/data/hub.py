"""Data sets of the Hub, and those that lie in a local folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError

from hf_tasks.data.problems import nearest
from hf_tasks.data.sources import HubSource
from hf_tasks.errors import DataError

HUB_LOGGERS = ("datasets", "huggingface_hub")


def load_hub(source: HubSource, *, key: str) -> datasets.Dataset:
    """One split as `datasets` gives it: of a Hub name, a folder made by save_to_disk, or one of data files.

    Code in a data set is never run. A data set already in the cache needs no network.

    Args:
        source: name, configuration and split.
        key: recipe section of the source, as `data.train`, for messages.

    Raises:
        DataError: the data set, its configuration or the split is unknown, unreachable, or broken.
    """
    folder = Path(source.hub).expanduser()
    saved = [name for name in ("dataset_dict.json", "state.json") if (folder / name).is_file()]
    try:
        with _quiet():
            if saved:
                return _saved_split(folder, source, key)
            return datasets.load_dataset(
                str(folder) if folder.is_dir() else source.hub, source.config, split=source.split
            )
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
    # datasets has no classes of its own for an unknown split or configuration, a script, or a broken file.
    except (ValueError, RuntimeError, OSError, pa.ArrowException, DatasetsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{key}.hub: cannot load split '{source.split}' of '{source.hub}'"
            f"{f', configuration {source.config!r}' if source.config else ''}: {error}"
        ) from None


def _saved_split(folder: Path, source: HubSource, key: str) -> datasets.Dataset:
    loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if source.split not in loaded:
        raise DataError(
            f"{key}.split: no split '{source.split}' in {source.hub} (it has {', '.join(loaded)})"
            f"{nearest(source.split, loaded)}"
        )
    return loaded[source.split]


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
