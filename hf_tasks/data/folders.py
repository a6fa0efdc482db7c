"""Class folders: the pictures below each sub-folder, in an order that does not depend on the file system."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hf_tasks.data.presence import require_class_folders
from hf_tasks.errors import DataError

_JPEG_SUFFIXES = {".jfif", ".jpe", ".jpeg", ".jpg"}
_OTHER_SUFFIXES = {".avif", ".bmp", ".gif", ".jp2", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
PICTURE_SUFFIXES = frozenset(_JPEG_SUFFIXES | _OTHER_SUFFIXES)


@dataclass(frozen=True)
class ClassFolders:
    """Pictures of class folders, sorted by path.

    `paths` are relative to the folder, with forward slashes; `classes` are the first parts of them.
    `ignored` counts what was passed over: hidden entries, other endings, files outside a class folder, and
    class folders without a picture.
    """

    paths: list[str]
    classes: list[str]
    ignored: dict[str, int]


def list_class_folders(folder: Path, *, key: str) -> ClassFolders:
    """The pictures in each sub-folder and all folders below it; links are followed.

    Args:
        folder: has a sub-folder per class.
        key: recipe section of the source, as `data.train`, for messages.

    Raises:
        DataError: there is no such folder, it has no picture in a sub-folder, or a name is not UTF-8.
    """
    require_class_folders(folder, key)
    ignored: Counter[str] = Counter()
    paths: list[str] = []
    for entry in _visible(folder, ignored):
        if not entry.is_dir():
            ignored["outside class folders"] += 1
            continue
        found = len(paths)
        paths.extend(_pictures_below(entry, f"{entry.name}/", frozenset({os.path.realpath(folder)}), ignored))
        ignored["class folders without pictures"] += found == len(paths)
    if not paths:
        raise DataError(
            f"{key}.folder: no pictures in sub-folders of {folder}; wanted {folder}/CLASS/NAME.jpg "
            f"or another of {' '.join(sorted(PICTURE_SUFFIXES))}"
        )
    _require_utf8(paths, key)
    paths.sort()
    return ClassFolders(paths, [path.split("/", 1)[0] for path in paths], dict(+ignored))


def _visible(folder: str | os.PathLike[str], ignored: Counter[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            else:
                yield entry


def _pictures_below(
    folder: os.DirEntry[str], prefix: str, ancestors: frozenset[str], ignored: Counter[str]
) -> Iterator[str]:
    real = os.path.realpath(folder.path)
    if real in ancestors:  # a link to a folder above itself would be followed for ever
        return
    for entry in _visible(folder, ignored):
        if entry.is_dir():
            yield from _pictures_below(entry, f"{prefix}{entry.name}/", ancestors | {real}, ignored)
        elif os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES:
            yield prefix + entry.name
        else:
            ignored["other endings"] += 1


def _require_utf8(paths: list[str], key: str) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"{key}.folder: the file name {path!r} is not UTF-8; rename it") from None
