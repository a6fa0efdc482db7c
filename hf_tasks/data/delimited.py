"""Csv and tsv files as Arrow record batches, with every cell kept as it is spelled."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_tasks.data.encoding import open_text
from hf_tasks.data.portions import in_portions
from hf_tasks.data.problems import Findings
from hf_tasks.errors import DataError

DELIMITERS = (",", ";", "\t")
SAMPLED_ROWS = 1000
BATCH_ROWS = 10_000
# Characters; the csv module's own limit is too short for long texts. Beyond it a quote was left open.
LONGEST_FIELD = 2**24


def read_delimited(path: Path, encoding: str, key: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of a csv or tsv file, every column as text.

    The delimiter is the one of comma, semicolon and tab that splits the header, and the first rows into as
    many fields; quoted fields may hold delimiters and line ends. Blank lines are no rows, and a column
    without a name is called by its position.

    Raises:
        DataError: the file is empty or not in this encoding, a column name stands twice, or (while batches
            are read) rows have too many or too few fields or quotes that do not close.
    """
    csv.field_size_limit(LONGEST_FIELD)
    order = DELIMITERS[::-1] if path.suffix.lower() == ".tsv" else DELIMITERS
    samples = {delimiter: _first_records(path, encoding, delimiter, key) for delimiter in order}
    if not any(samples.values()):
        raise DataError(f"{key}.table: {path} is empty; wanted a header line and rows")
    delimiter = max(order, key=lambda mark: _fitness(samples[mark]))
    header = samples[delimiter][0]
    if not header:
        raise DataError(f"{key}.table: {path}: quotes in the header do not close; mend its first line")
    names = [name or f"column {position}" for position, name in enumerate(header, start=1)]
    require_unique(names, path, key)
    schema = pa.schema([(name, pa.string()) for name in names])
    return schema, _delimited_batches(path, encoding, delimiter, key=key, schema=schema)


def _first_records(path: Path, encoding: str, delimiter: str, key: str) -> list[list[str]]:
    """Header and first rows; an empty record stands where quotes do not fit this delimiter."""
    records: list[list[str]] = []
    with open_text(path, encoding, key) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            records.extend(cells for cells in islice(reader, SAMPLED_ROWS) if cells)
        except csv.Error:
            records.append([])
        # Escapes of some encodings stand for halves of characters, which no name can hold.
        "".join(records[0] if records else []).encode()
    return records


def _fitness(records: Sequence[Sequence[str]]) -> tuple[bool, bool, int]:
    """How well a delimiter fits: it splits the header, all rows alike, into many fields."""
    widths = [len(cells) for cells in records]
    return widths[0] > 1, len(set(widths)) == 1, widths[0]


def _delimited_batches(
    path: Path, encoding: str, delimiter: str, *, key: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    broken = Findings(
        f"{key}.table: rows of {path} with another number of fields than its header, "
        f"which has {len(schema)} ({', '.join(schema.names)})",
        f"mend them, and put quotes around fields that hold '{delimiter}'",
    )
    with open_text(path, encoding, key) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            records = _whole_records(reader, len(schema), broken)
            for chunk in in_portions(records, _characters, most=BATCH_ROWS):
                yield pa.record_batch(
                    [pa.array(column, pa.string()) for column in zip(*chunk, strict=True)], schema=schema
                )
        except csv.Error as error:
            raise DataError(
                f"{key}.table: {path}, line {reader.line_num}: {error}; close every quote, "
                "and double those inside a quoted field"
            ) from None
    if broken.count:
        raise DataError(str(broken))


def _characters(cells: Sequence[str]) -> int:
    return sum(map(len, cells))


def _whole_records(reader: Any, width: int, broken: Findings) -> Iterator[list[str]]:
    """The records below the header that have `width` fields; the others are noted as broken."""
    records = (cells for cells in reader if cells)
    next(records)
    for row, cells in enumerate(records, start=1):
        if len(cells) == width:
            yield cells
        else:
            broken.add(f"row {row} (line {reader.line_num}): {len(cells)} fields")


def require_unique(names: Sequence[str], path: Path, key: str) -> None:
    """Check that no column name stands twice.

    Raises:
        DataError: names those that do.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{key}.table: column names that stand twice in {path}: {', '.join(twice)}; rename or remove them"
        )
