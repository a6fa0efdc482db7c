"""Picture files lie below the folder that a recipe names, whatever paths of tables and links on disk say."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.data.problems import Findings
from hf_tasks.errors import DataError

BATCH_ROWS = 1024
ADVICE = (
    "name the folder that holds them all, or set data.allow_outside: true if you trust "
    "whoever wrote these paths and links"
)


def require_inside(rows: datasets.Dataset, folders: Sequence[Path], *, where: str) -> None:
    """Check that each picture file lies in one of some folders once `..` and links are followed.

    The folders may be links themselves. Pictures that rows hold as bytes are passed over, and so are paths
    that lead nowhere below the folders: those are missing files.

    Args:
        rows: with the columns `image` (undecoded), `path` and `row`.
        folders: the one that the recipe names, and those where the Hub's files are kept.
        where: section and source of the rows, as `data.train (train.csv)`, for messages.

    Raises:
        DataError: counts the rows that lead elsewhere, and shows the first ten.
    """
    roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    outside = Findings(f"{where}: pictures outside {folders[0]}", ADVICE)
    batches: Iterable[pa.Table] = (
        rows.select_columns(["image", "path", "row"]).with_format("arrow").iter(batch_size=BATCH_ROWS)
    )
    is_folder_inside = cache(partial(_leads_below, roots))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(partial(_found_outside, roots, is_folder_inside), batches):
            for example in found:
                outside.add(example)
    if outside.count:
        raise DataError(str(outside))


def _found_outside(
    roots: tuple[str, ...], is_folder_inside: Callable[[str], bool], batch: pa.Table
) -> list[str]:
    images = batch.column("image")
    paths = pc.if_else(pc.is_null(pc.struct_field(images, "bytes")), pc.struct_field(images, "path"), None)
    found = []
    for place, path in enumerate(paths.to_pylist()):
        if path is None:
            continue
        folder, _, name = path.rpartition("/")
        # Few folders hold many files, so that a file costs one question to the disk.
        is_plain = name not in {"", ".", ".."} and not os.path.islink(path)
        if is_folder_inside(f"{folder}/") if is_plain else _leads_below(roots, path):
            continue
        written, row = batch.column("path")[place].as_py(), batch.column("row")[place].as_py()
        found.append(f"row {row}, {written}{'' if is_plain else f', leads to {os.path.realpath(path)}'}")
    return found


def _leads_below(roots: tuple[str, ...], path: str) -> bool:
    try:
        return os.path.join(os.path.realpath(path), "").startswith(roots)
    except ValueError:  # a NUL: no file has such a name, which is told of as one that is missing
        return True
