"""Which validation rows show the same picture, so that no query finds itself in the gallery.

Axes: N rows, G rows of the gallery, P pictures.
"""

import os
from collections.abc import Sequence
from functools import cache

import datasets
import numpy as np
import pyarrow.compute as pc

from hf_tasks.data.problems import Findings
from hf_tasks.errors import DataError
from hf_tasks.metrics.retrieval import NOBODY


def number_pictures(rows: datasets.Dataset) -> np.ndarray:
    """A number for each picture, int64 (N,); the same for the same file, by whatever path or link.

    Pictures that rows hold as bytes are the same only as the same row.
    """
    numbers: dict[str, int] = {}
    names: list[str] = []
    real_folder = cache(os.path.realpath)
    for chunk in rows.select_columns(["image"]).with_format("arrow")[:].column("image").chunks:
        paths = pc.struct_field(chunk, "path").to_pylist()
        is_embedded = pc.is_valid(pc.struct_field(chunk, "bytes")).to_pylist()
        for path, embedded in zip(paths, is_embedded, strict=True):
            if embedded:
                names.append(str(len(names)))
                continue
            folder, name = os.path.split(path)
            # Few folders hold many files, so that a file costs one question to the disk.
            is_plain = name not in {"", ".", ".."} and not os.path.islink(path)
            names.append(os.path.join(real_folder(folder), name) if is_plain else os.path.realpath(path))
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def first_in_gallery(validation: datasets.Dataset) -> np.ndarray:
    """Which rows are in the gallery when each picture is there once for a class and group; bool (N,)."""
    gallery_rows_G = np.flatnonzero(validation["is_gallery"][:])
    _, first = np.unique(_keys(validation)[gallery_rows_G], axis=0, return_index=True)
    is_first_N = np.zeros(len(validation), bool)
    is_first_N[gallery_rows_G[first]] = True
    return is_first_N


def require_one_class_each(validation: datasets.Dataset, class_names: Sequence[str]) -> None:
    """Check that a query and the same picture in the gallery agree on class and group.

    Raises:
        DataError: counts the rows that do not, and shows the first ten.
    """
    pictures_N = np.asarray(validation["picture"][:])
    keys = np.unique(_keys(validation), axis=0)
    is_divided_P = np.bincount(keys[:, 0]) > 1
    for side in ("is_query", "is_gallery"):
        is_divided_P &= np.bincount(pictures_N, weights=validation[side][:]) > 0
    found = Findings(
        "data: rows of a picture that is a query and in the gallery, in different classes or groups",
        "give all rows of a picture the same class and group",
    )
    for row in np.flatnonzero(is_divided_P[pictures_N]).tolist():
        found.add(f"{validation[row]['path']}, {class_names[validation[row]['label']]}")
    if found.count:
        raise DataError(str(found))


def own_gallery_rows(validation: datasets.Dataset) -> np.ndarray:
    """For each row, the gallery row of the same picture, or NOBODY; int64 (N,)."""
    pictures_N = np.asarray(validation["picture"][:])
    gallery_rows_G = np.flatnonzero(validation["is_gallery"][:])
    row_of_P = np.full(pictures_N.max() + 1, NOBODY)
    row_of_P[pictures_N[gallery_rows_G]] = gallery_rows_G
    return row_of_P[pictures_N]


def _keys(validation: datasets.Dataset) -> np.ndarray:
    """Picture, class and group of each row; int64 (N, 3)."""
    return np.stack([np.asarray(validation[name][:]) for name in ("picture", "label", "group")], axis=1)
