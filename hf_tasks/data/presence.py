"""Whether files and folders are there at all, known before anything heavy is imported."""

import os
from collections.abc import Mapping
from pathlib import Path

from hf_tasks.data.problems import Problems, nearest
from hf_tasks.data.sources import FolderSource, TableSource, TextFile, TextTable
from hf_tasks.errors import DataError


def require_present(sources: Mapping[str, object]) -> None:
    """Check that the table, folder or text file of each source is there; other values are passed over.

    Args:
        sources: recipe section, as `data.train`, to what it holds.

    Raises:
        DataError: names all that are not.
    """
    problems = Problems()
    for key, source in sources.items():
        with problems.noted():
            if isinstance(source, TableSource | TextTable):
                require_table(Path(source.table).expanduser(), key)
            elif isinstance(source, FolderSource):
                require_class_folders(Path(source.folder).expanduser(), key)
            elif isinstance(source, TextFile) and not Path(source.text).expanduser().exists():
                raise DataError(f"{key}.text: no file {source.text}")
    problems.raise_all()


def require_class_folders(folder: Path, key: str) -> None:
    """Check that a folder is there.

    Raises:
        DataError: it is not.
    """
    if not folder.is_dir():
        raise DataError(f"{key}.folder: no folder {folder}; wanted one with a sub-folder for each class")


def require_table(path: Path, key: str) -> None:
    """Check that a table's file is there.

    Raises:
        DataError: it is not, or it is a folder.
    """
    if path.is_dir():
        raise DataError(f"{key}.table: {path} is a folder; for class folders write `folder: {path}`")
    if not path.is_file():
        siblings = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
        raise DataError(f"{key}.table: no file {path}{nearest(path.name, siblings)}")
