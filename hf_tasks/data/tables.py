"""Tables as Arrow record batches; nothing is guessed, so '007', 'NA' and '1.0' stay as they are spelled."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_tasks.data.delimited import BATCH_ROWS, read_delimited, require_unique
from hf_tasks.data.encoding import open_text
from hf_tasks.data.portions import in_portions, portion_rows
from hf_tasks.data.problems import Findings
from hf_tasks.errors import DataError

# Rows with embedded pictures are large.
PICTURE_BATCH_ROWS = 100
# Of lists and mappings in a line of JSON, the line itself among them.
MOST_LEVELS = 20
# Of a parquet file: more than the first, and more times its own size than the second, is taken for a bomb.
ALLOWED_BYTES = 2**30
ALLOWED_GROWTH = 1000

Table = tuple[pa.Schema, Iterator[pa.RecordBatch]]


def read_table(path: Path, *, encoding: str, key: str) -> Table:
    """Schema and batches of a csv, tsv, parquet or jsonl file; the batches are read as they are asked for.

    Every column of a csv or tsv file is text. Numbers and true / false of a jsonl file are text too, spelled
    as in the file; its lists stay lists. Blank lines are no rows.

    Args:
        path: the file.
        encoding: text encoding; a byte order mark at the start of UTF-8 is skipped. Parquet ignores it.
        key: recipe section of the source, as `data.train`, for messages.

    Raises:
        DataError: the ending is another, or (also while batches are read) the contents are broken.
    """
    readers: dict[str, Callable[[Path, str, str], Table]] = {
        ".csv": read_delimited,
        ".tsv": read_delimited,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{key}.table: cannot read {path}, its ending is '{path.suffix}'; wanted {', '.join(readers)}"
        )
    return readers[path.suffix.lower()](path, encoding, key)


def table_features(schema: pa.Schema, path: Path, key: str) -> datasets.Features:
    """A table's columns as `datasets` describes them.

    Raises:
        DataError: a column is of a type that `datasets` does not know.
    """
    try:
        return datasets.Features.from_arrow_schema(schema)
    except ValueError as error:
        raise DataError(f"{key}.table: {path}: {error}; remove the column of that type") from None


def _read_jsonl(path: Path, encoding: str, key: str) -> Table:
    """The file is gone through twice: the type of a column is known only when all its rows are."""
    schema: pa.Schema | None = None
    for table in _json_tables(path, encoding, key):
        known = [] if schema is None else [schema]
        try:
            schema = pa.unify_schemas([*known, table.schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise _mixed_types(path, key, str(error)) from None
    if schema is None:
        raise DataError(f"{key}.table: {path} is empty; wanted a line for each row")
    return schema, _of_schema(_json_tables(path, encoding, key), schema)


def _of_schema(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches with all columns, whichever of them each table has."""
    for table in tables:
        whole = pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
        yield from whole.combine_chunks().to_batches()


def _json_tables(path: Path, encoding: str, key: str) -> Iterator[pa.Table]:
    """Some rows at a time, each with the columns and types that they need.

    Raises:
        DataError: when the file has been read, lines that are no objects; at once, columns of mixed types.
    """
    broken = Findings(f"{key}.table: lines of {path} that are not a JSON object", "mend or remove them")
    with open_text(path, encoding, key) as file:
        records = _json_records(file, broken)
        for chunk in in_portions(records, lambda record: record[0], most=BATCH_ROWS):
            yield _text_table([record for _, record in chunk], path, key)
    if broken.count:
        raise DataError(str(broken))


def _json_records(file: TextIO, broken: Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object of each line, after the line's length."""
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
        except (json.JSONDecodeError, RecursionError) as error:
            broken.add(f"line {line}: {error}")
            continue
        if isinstance(record, dict) and _is_flat(record, levels=MOST_LEVELS):
            yield len(text), record
        elif isinstance(record, dict):
            broken.add(f"line {line}: nested deeper than {MOST_LEVELS} levels")
        else:
            broken.add(f"line {line}: {text.strip()[:40]}")


def _is_flat(value: Any, *, levels: int) -> bool:
    """Whether a JSON value is nested no deeper than some levels."""
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(part, levels=levels - 1) for part in parts)


def _text_table(records: list[dict[str, Any]], path: Path, key: str) -> pa.Table:
    columns = {}
    for name in {name: None for record in records for name in record}:
        try:
            columns[name] = pa.array([_spelled(record.get(name)) for record in records])
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
            raise _mixed_types(path, key, f"column '{name}': {error}") from None
    return pa.table(columns)


def _spelled(value: Any) -> str | list[Any] | None:
    """A JSON value as text, or as a list of texts; numbers are texts already."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_spelled(part) for part in value]
    return json.dumps(value)


def _mixed_types(path: Path, key: str, reason: str) -> DataError:
    return DataError(f"{key}.table: {path}: {reason}; wanted all texts or all lists of texts in a column")


def _read_parquet(path: Path, encoding: str, key: str) -> Table:
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        # Texts stay in their dictionaries until it is known how much they make.
        file = pq.ParquetFile(path, read_dictionary=_leaves(file, is_text=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{key}.table: {path} is not a whole parquet file: {error}") from None
    require_unique(schema.names, path, key)
    for index, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(index, field.with_type(field.type.value_type))
    return schema, _parquet_batches(file, schema, path, key)


def _parquet_batches(
    file: pq.ParquetFile, schema: pa.Schema, path: Path, key: str
) -> Iterator[pa.RecordBatch]:
    allowed = max(ALLOWED_BYTES, ALLOWED_GROWTH * path.stat().st_size)
    grown, before = 0, _packed_bytes(file.metadata)
    try:
        batches = file.iter_batches(_batch_rows(file)) if before <= allowed else iter(())
        for batch in batches:
            batch.validate(full=True)
            grown += sum(map(_decoded_bytes, batch.columns))
            if grown > allowed:
                break
            yield batch.cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{key}.table: {path} is broken: {error}; write it anew") from None
    if max(before, grown) > allowed:
        raise DataError(
            f"{key}.table: {path} of {path.stat().st_size:,} bytes grows to more than {allowed:,}, as "
            "decompression bombs do; write it anew, without columns that hardly differ from row to row"
        )


def _batch_rows(file: pq.ParquetFile) -> int:
    """How many rows to read together: few where a picture could be as large as all that its column holds."""
    pictures, metadata = _leaves(file, is_text=False), file.metadata
    if not pictures:
        return portion_rows(metadata.num_rows, _packed_bytes(metadata), most=BATCH_ROWS)
    largest = max(
        (
            metadata.row_group(group).column(leaf).total_uncompressed_size
            for group in range(metadata.num_row_groups)
            for leaf in range(metadata.num_columns)
            if metadata.schema.column(leaf).path in pictures
        ),
        default=1,
    )
    return min(PICTURE_BATCH_ROWS, max(1, ALLOWED_BYTES // max(1, largest)))


def _packed_bytes(metadata: pq.FileMetaData) -> int:
    """What all columns take before their dictionaries are written out."""
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _leaves(file: pq.ParquetFile, *, is_text: bool) -> list[str]:
    """Paths of the columns of texts, or of those of other bytes."""
    columns = (file.metadata.schema.column(leaf) for leaf in range(file.metadata.num_columns))
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and (column.logical_type.type == "STRING") == is_text
    ]


def _decoded_bytes(array: pa.Array) -> int:
    """What an array takes once its dictionaries are written out."""
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary)
        return pc.sum(pc.cast(lengths, pa.int64()).take(array.indices)).as_py() or 0
    if pa.types.is_struct(array.type):
        return sum(map(_decoded_bytes, array.flatten()))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _decoded_bytes(array.flatten())
    return array.nbytes
