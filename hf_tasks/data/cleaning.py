"""A source written as a table without some of its rows: a cleaned copy, or a few rows for a trial."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hf_tasks.contract.examination import SourceRows
from hf_tasks.data.columns import DEFAULT_PICTURE_COLUMN, ROW_COLUMNS
from hf_tasks.data.sources import FolderSource, HubSource, TableSource
from hf_tasks.files import written_aside

TEXTS = {"string", "large_string"}


def picture_rows(
    rows: datasets.Dataset,
    source: TableSource | FolderSource | HubSource,
    *,
    looked_at: Sequence[int],
    image_column: str | None,
    label_column: str,
) -> SourceRows:
    """Rows of pictures as a table holds them.

    Paths of files stay as they are written, and the folder that they belong to is named beside the table.

    Args:
        rows: what load_rows returned.
        source: where they come from.
        looked_at: places of the rows that were looked at.
        image_column: picture column of the recipe, if it names one.
        label_column: label column of the recipe; that of class folders takes its name.
    """
    column = image_column or DEFAULT_PICTURE_COLUMN
    if isinstance(source, HubSource) or _is_embedded(rows):
        table = rows.remove_columns(
            [name for name in ROW_COLUMNS if name in rows.column_names and name != "image"]
        )
        return SourceRows(
            table.rename_column("image", column) if column != "image" else table, looked_at, label_column
        )
    table = rows.remove_columns(["image", "row"]).rename_column("path", column)
    if isinstance(source, FolderSource):
        table = table.rename_column("label", label_column) if label_column != "label" else table
        return SourceRows(table, looked_at, label_column, {"images": source.folder})
    images = source.images or str(Path(source.table).expanduser().parent)
    return SourceRows(table, looked_at, label_column, {"images": images})


def write_rows(
    source: SourceRows, stem: Path, *, kept: Sequence[int] | np.ndarray, labels: Mapping[int, str]
) -> dict[str, Any]:
    """Write rows as STEM.csv, or as STEM.parquet where they hold more than texts.

    Args:
        source: all rows.
        stem: path of the table without its ending.
        kept: places, from 0, of the rows to write.
        labels: by place: what stands in place of a label.

    Returns:
        What a recipe says to read it.
    """
    rows = source.rows.select(kept)
    if labels and source.label_column is not None:
        column = source.label_column
        is_list = isinstance(rows.features[column], datasets.List | datasets.LargeList)
        anew = {place: label.split("|") if is_list else label for place, label in labels.items()}
        values = [anew.get(int(place), value) for place, value in zip(kept, rows[column], strict=True)]
        kind = pa.list_(pa.string()) if is_list else pa.string()
        rows = rows.remove_columns([column]).add_column(column, pa.array(values, kind))
    if all(getattr(feature, "dtype", None) in TEXTS for feature in rows.features.values()):
        path = stem.with_name(f"{stem.name}.csv")
        with written_aside(path) as aside:
            pyarrow.csv.write_csv(rows.with_format("arrow")[:], aside)
    else:
        path = stem.with_name(f"{stem.name}.parquet")
        with written_aside(path) as aside:
            rows.to_parquet(str(aside))
    return {"table": str(path), **source.keys}


def places_without(count: int, left_out: Collection[int]) -> list[int]:
    """All places from 0 on but some."""
    return [place for place in range(count) if place not in left_out]


def sample_by_class(classes: Sequence[Any], *, limit: int, seed: int) -> list[int]:
    """Places of at most `limit` rows in rising order, drawn with a seed: each class in turn gives one."""
    order = np.random.default_rng(seed).permutation(len(classes))
    if len(classes) <= limit:
        return list(range(len(classes)))
    turns: dict[Any, int] = {}
    ranked = []
    for place in order.tolist():
        turn = turns[classes[place]] = turns.get(classes[place], -1) + 1
        ranked.append((turn, place))
    chosen = sorted(range(len(ranked)), key=lambda index: (ranked[index][0], index))[:limit]
    return sorted(ranked[index][1] for index in chosen)


def _is_embedded(rows: datasets.Dataset) -> bool:
    chunks = rows.select_columns(["image"]).with_format("arrow")[:].column("image").chunks
    return any(pc.struct_field(chunk, "bytes").null_count < len(chunk) for chunk in chunks)
