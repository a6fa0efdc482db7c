"""Rows of texts: the columns that a recipe names, from a table or a Hub data set."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.data.cache import content_hash, explained_os_errors, memory_mapped
from hf_tasks.data.columns import require_columns
from hf_tasks.data.hub import load_hub
from hf_tasks.data.portions import rows_at_once
from hf_tasks.data.presence import require_table
from hf_tasks.data.problems import Findings, Problems
from hf_tasks.data.sources import HubSource, TableSource, TextTable, source_name
from hf_tasks.data.tables import read_table, table_features
from hf_tasks.errors import DataError

SHOWN_CHARACTERS = 60


def load_text_rows(source: TableSource | TextTable | HubSource, *, key: str = "data") -> datasets.Dataset:
    """The rows of a source with all its columns, memory-mapped.

    Args:
        source: where the rows come from.
        key: recipe section of the source, as `data.train`, for messages.

    Raises:
        DataError: something is missing, empty or broken; names the file, and line or row.
    """
    name = source_name(source)
    with explained_os_errors(key, name):
        rows = load_hub(source, key=key) if isinstance(source, HubSource) else _table_rows(source, key)
    if len(rows) == 0:
        raise DataError(f"{key}: {name} has no rows; wanted at least one")
    return rows


def load_columns(
    source: TableSource | TextTable | HubSource,
    columns: Mapping[str, str],
    *,
    key: str = "data",
    ways_out: Mapping[str, str] | None = None,
) -> datasets.Dataset:
    """The rows of a source with the columns named; row 1 is the first.

    Args:
        source: where the rows come from.
        columns: recipe key to the column it names, as `data.columns.label` to `label`.
        key: recipe section of the source, as `data.train`, for messages.
        ways_out: recipe key to what else could be meant where its column is missing.

    Raises:
        DataError: something is missing, empty or broken; names the file, and line or row.
    """
    rows = load_whole(source, columns, key=key, ways_out=ways_out)
    return rows.select_columns(list(dict.fromkeys(columns.values())))


def load_whole(
    source: TableSource | TextTable | HubSource,
    columns: Mapping[str, str],
    *,
    key: str = "data",
    ways_out: Mapping[str, str] | None = None,
) -> datasets.Dataset:
    """As load_columns, with all other columns too.

    Raises:
        DataError: as load_columns.
    """
    rows = load_text_rows(source, key=key)
    require_columns(columns, rows.column_names, where=source_name(source), ways_out=ways_out)
    return rows


def require_text_type(rows: datasets.Dataset, column: str, *, key: str, where: str) -> None:
    """Check that a column holds texts, missing ones among them.

    Raises:
        DataError: a column of another type.
    """
    kind = rows.features[column]
    if not isinstance(kind, datasets.Value) or kind.dtype not in {"string", "large_string"}:
        raise DataError(f"{key}: column '{column}' of {where} holds {kind}; wanted texts")


def require_texts(rows: datasets.Dataset, columns: Mapping[str, str], *, where: str) -> None:
    """Check that columns hold texts, and none that is missing or blank.

    Args:
        rows: what load_columns returned.
        columns: recipe key to the column it names.
        where: section and source, as `data.train (train.csv)`, for messages.

    Raises:
        DataError: a column of another type, or rows without a text; all of them together.
    """
    problems = Problems()
    for key, column in columns.items():
        with problems.noted():
            require_text_type(rows, column, key=key, where=where)
            blank = Findings(
                f"{where}: rows without a text in column '{column}'",
                "fill them in, remove the rows, or write `on_bad_example: skip`",
            )
            for row in blank_rows(rows, column):
                blank.add(f"row {row + 1}")
            if blank.count:
                raise DataError(str(blank))
    problems.raise_all()


def blank_rows(rows: datasets.Dataset, column: str) -> list[int]:
    """Indices of the rows whose text is missing or white space alone."""
    blank: list[int] = []
    start = 0
    for batch in rows.select_columns([column]).with_format("arrow").iter(rows_at_once(rows)):
        trimmed = pc.utf8_trim_whitespace(batch.column(column))
        is_blank = pc.fill_null(pc.equal(trimmed, ""), True).to_numpy()
        blank += (np.flatnonzero(is_blank) + start).tolist()
        start += len(batch)
    return blank


def arrow_column(rows: datasets.Dataset, column: str) -> pa.ChunkedArray:
    """A column of rows in their order, as Arrow."""
    return rows.select_columns([column]).with_format("arrow")[:].column(column)


def shown_text(text: str) -> str:
    """The beginning of a text, on one line, for messages."""
    line = " ".join(text.split())
    return repr(line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}...")


def _table_rows(source: TableSource | TextTable, key: str) -> datasets.Dataset:
    path = Path(source.table).expanduser()
    require_table(path, key)

    def read() -> tuple[datasets.Features, Iterator[pa.RecordBatch]]:
        schema, batches = read_table(path, encoding=source.encoding, key=key)
        features = table_features(schema, path, key)
        return features, _fitting(batches, features.arrow_schema)

    return memory_mapped(["texts", content_hash(path), path.suffix.lower(), source.encoding], read)


def _fitting(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.cast(schema)
