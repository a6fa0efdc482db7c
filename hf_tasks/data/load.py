"""Rows of pictures as a memory-mapped `datasets.Dataset`, whatever source they come from."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.data.cache import content_hash, explained_os_errors, memory_mapped
from hf_tasks.data.columns import ROW_COLUMNS, picture_column
from hf_tasks.data.folders import list_class_folders
from hf_tasks.data.hub import hub_folders, load_hub
from hf_tasks.data.inside import require_inside
from hf_tasks.data.pictures import picture_converter, shown_paths
from hf_tasks.data.presence import require_table
from hf_tasks.data.sources import FolderSource, HubSource, TableSource, source_name
from hf_tasks.data.tables import BATCH_ROWS, read_table, table_features
from hf_tasks.errors import DataError

PICTURE = datasets.Image(decode=False)
ROW_FEATURES = datasets.Features(
    {"image": PICTURE, "path": datasets.Value("string"), "row": datasets.Value("int64")}
)


def load_rows(
    source: TableSource | FolderSource | HubSource,
    *,
    key: str = "data",
    image_column: str | None = None,
    allow_outside: bool = False,
) -> datasets.Dataset:
    """Rows with the columns `image`, `path` and `row`, and all others that the source has.

    `image` is an undecoded `datasets.Image`: {"bytes", "path"}; without bytes, the path is absolute, or None
    where the table's cell is empty. `path` is the text for people: as the table wrote it, relative to the
    class folders or a local data set folder, or NAME/ROW for embedded and downloaded pictures. `row` counts
    the source's rows from 1.
    Relative paths of a table belong to its `images` folder, or to the table's own; never to the working
    folder.
    The class of a class folder stands in `label`. Other columns called image, path or row are left out.

    Tables and folder listings are kept as Arrow files below HF_DATASETS_CACHE under the hash of their
    contents, so a changed file is never mistaken for the old one, and two programs may load at once.

    Args:
        source: where the rows come from.
        key: recipe section of the source, as `data.train`, for messages.
        image_column: picture column of a table or Hub data set; None takes `image_path` or the only one
            that holds pictures.
        allow_outside: take pictures that lie outside the folder that the source names.

    Raises:
        DataError: something is missing, empty, broken or outside; names the file, and line or row.
    """
    with explained_os_errors(key, source_name(source)):
        if isinstance(source, TableSource):
            rows = _table_rows(source, key, image_column)
        elif isinstance(source, FolderSource):
            rows = _folder_rows(source, key)
        else:
            rows = _hub_rows(source, key, image_column)
    if len(rows) == 0:
        raise DataError(f"{key}: {source_name(source)} has no rows; wanted at least one")
    if not allow_outside:
        require_inside(rows, _picture_folders(source), where=f"{key} ({source_name(source)})")
    return rows


def _picture_folders(source: TableSource | FolderSource | HubSource) -> list[Path]:
    """Where the picture files of a source may lie."""
    if isinstance(source, TableSource):
        return [_table_root(source)]
    return [Path(source.folder).expanduser()] if isinstance(source, FolderSource) else hub_folders(source)


def _table_root(source: TableSource) -> Path:
    path = Path(source.table).expanduser()
    return (Path(source.images).expanduser() if source.images is not None else path.parent).absolute()


def _table_rows(source: TableSource, key: str, image_column: str | None) -> datasets.Dataset:
    path = Path(source.table).expanduser()
    require_table(path, key)
    root = _table_root(source)
    if not root.is_dir():
        raise DataError(
            f"{key}.images: no folder {source.images}; wanted the one that picture paths are relative to"
        )
    identity = [content_hash(path), path.name, source.encoding, image_column, str(root)]

    def read() -> tuple[datasets.Features, Iterator[pa.RecordBatch]]:
        schema, batches = read_table(path, encoding=source.encoding, key=key)
        features = table_features(schema, path, key)
        column = picture_column(features, image_column, where=source.table)
        kept = {name: feature for name, feature in features.items() if name not in {column, *ROW_COLUMNS}}
        to_struct = picture_converter(features.arrow_schema.field(column).type, root, where=source.table)
        wanted = datasets.Features({**ROW_FEATURES, **kept})
        return wanted, _row_batches(batches, wanted, column, to_struct, name=path.name, root=root)

    return memory_mapped(identity, read)


def _row_batches(
    batches: Iterable[pa.RecordBatch],
    features: datasets.Features,
    column: str,
    to_struct: Callable[[pa.Array], pa.StructArray],
    *,
    name: str,
    root: Path,
) -> Iterator[pa.RecordBatch]:
    """Batches with `image`, `path` and `row` in front, and without the column that they come from."""
    first = 1
    for batch in batches:
        numbers = pa.array(np.arange(first, first + len(batch)))
        first += len(batch)
        pictures = batch.column(column)
        images = to_struct(pictures)
        paths = shown_paths(pictures, numbers, name, root)
        others = [batch.column(other) for other in features if other not in ROW_COLUMNS]
        yield pa.record_batch([images, paths, numbers, *others], schema=features.arrow_schema)


def _folder_rows(source: FolderSource, key: str) -> datasets.Dataset:
    folder = Path(source.folder).expanduser().absolute()
    listing = list_class_folders(folder, key=key)
    features = datasets.Features({**ROW_FEATURES, "label": datasets.Value("string")})

    def read() -> tuple[datasets.Features, Iterator[pa.RecordBatch]]:
        table = pa.table({"path": listing.paths, "label": listing.classes})
        batches = table.to_batches(max_chunksize=BATCH_ROWS)
        to_struct = picture_converter(pa.string(), folder, where=source.folder)
        return features, _row_batches(batches, features, "path", to_struct, name=folder.name, root=folder)

    return memory_mapped([str(folder), *listing.paths], read)


def _hub_rows(source: HubSource, key: str, image_column: str | None) -> datasets.Dataset:
    rows = load_hub(source, key=key)
    where = source_name(source)
    column = picture_column(rows.features, image_column, where=where)
    rows = rows.remove_columns([name for name in ROW_COLUMNS if name in rows.features and name != column])
    kind, folder = rows.data.schema.field(column).type, Path(source.hub).expanduser().absolute()
    to_struct = picture_converter(kind, folder, where=where)
    chunks = rows.data.column(column).chunks
    numbers = pa.array(np.arange(1, len(rows) + 1))
    name, starts = f"{folder.name}/{source.split}", np.cumsum([0, *map(len, chunks)])
    root = folder if folder.is_dir() else None
    paths = [
        shown_paths(chunk, numbers.slice(start, len(chunk)), name, root)
        for start, chunk in zip(starts[:-1], chunks, strict=True)
    ]
    if _holds_contents(chunks):
        # The bytes stay memory-mapped: a column that is added is held in memory.
        rows = rows.rename_column(column, "image") if column != "image" else rows
        rows = rows.cast_column("image", PICTURE)
    else:
        structs = pa.chunked_array([to_struct(chunk) for chunk in chunks], PICTURE.pa_type)
        rows = rows.remove_columns(column).add_column("image", structs, feature=PICTURE)
    rows = rows.add_column("path", pa.chunked_array(paths, pa.string()))
    return rows.add_column("row", numbers)


def _holds_contents(pictures: list[pa.Array]) -> bool:
    return any(
        pa.types.is_struct(chunk.type) and pc.struct_field(chunk, "bytes").null_count < len(chunk)
        for chunk in pictures
    )
