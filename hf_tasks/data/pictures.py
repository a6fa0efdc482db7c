"""Columns of picture paths or encoded pictures, turned into the struct that `datasets.Image` reads."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.errors import DataError


def picture_converter(kind: pa.DataType, root: Path, *, where: str) -> Callable[[pa.Array], pa.StructArray]:
    """What turns a column of paths, of encoded pictures, or of both into one of {"bytes", "path"}.

    Args:
        kind: type of the column.
        root: absolute folder that relative paths belong to; an empty path becomes null.
        where: the file or data set, for messages.

    Raises:
        DataError: the column holds neither paths nor pictures.
    """
    if _is_text(kind):
        return lambda texts: _picture_structs(pa.nulls(len(texts)), _absolute(texts, root))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda contents: _picture_structs(contents, pa.nulls(len(contents)))
    if pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
        return lambda structs: _picture_structs(
            pc.struct_field(structs, "bytes"), _absolute(pc.struct_field(structs, "path"), root)
        )
    raise DataError(f"data.columns.image: the column in {where} holds {kind}; wanted paths or pictures")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _picture_structs(contents: pa.Array, paths: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays(
        [contents.cast(pa.binary()), paths.cast(pa.string())], names=["bytes", "path"]
    )


def _absolute(paths: pa.Array, root: Path) -> pa.Array:
    paths = paths.cast(pa.string())
    joined = pc.binary_join_element_wise(pa.scalar(str(root)), paths, "/")
    whole = pc.if_else(pc.starts_with(paths, "/"), paths, joined)
    return pc.if_else(pc.equal(paths, ""), pa.scalar(None, pa.string()), whole)


def shown_paths(pictures: pa.Array, numbers: pa.Array, name: str, root: Path | None) -> pa.Array:
    """The text that people see for each picture: its path as written, or NAME/ROW when it is embedded.

    Embedded pictures go by their row because many data sets give them all the same file name. The text never
    depends on where a data set lies, as the split is drawn by it.

    Args:
        pictures: a column as picture_converter takes it.
        numbers: of the rows, int64.
        name: of the file or data set.
        root: absolute folder; the paths of files below it are shown from there. None when files lie in a
            cache, and go by their row as well.
    """
    if _is_text(pictures.type):
        return pictures.cast(pa.string()).fill_null("")
    numbered = pc.binary_join_element_wise(name, numbers.cast(pa.string()), "/")
    if root is None or not pa.types.is_struct(pictures.type):
        return numbered
    paths = pc.struct_field(pictures, "path").cast(pa.string()).fill_null("")
    below = pc.utf8_slice_codeunits(paths, len(f"{root}/"))
    paths = pc.if_else(pc.starts_with(paths, f"{root}/"), below, paths)
    return pc.if_else(pc.is_null(pc.struct_field(pictures, "bytes")), paths, numbered)
