"""What smaller embeddings would cost a search: Recall@1 by dimensions and by bits a number."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_tasks.report.page import Section, percent
from hf_tasks.report.tables import Cell, Column, draw_table

AFFORDABLE_LOSS = 0.01
AFFORDABLE = "one percentage point"
UNITS = ("B", "kB", "MB", "GB")
ABOUT_PRECISION = (
    "fp32 and fp16 are floating-point numbers; int8 has one step size for all; binary keeps signs alone"
)
COLUMNS = (
    Column("dimensions", "fewer ones are the principal components of the gallery"),
    Column("numbers", ABOUT_PRECISION),
    Column("Recall@1", "share of known queries whose nearest picture is of their class"),
    Column("change", "of Recall@1 against the embeddings as they are, in percentage points"),
    Column("bytes", "of an embedding"),
    Column("a million", "size of a million embeddings"),
)


def compression_section(metrics: Mapping[str, Any]) -> Section:
    """A row for each smaller kind of embeddings, the full ones first; empty where none was measured."""
    table: Sequence[Mapping[str, Any]] = metrics.get("compression", ())
    if not table:
        return Section("compression", "Smaller embeddings", "", Markup())
    full = table[0]
    rows = [_row(entry, full) for entry in table]
    lead = f"The same search of {full['queries']:,} queries with less to keep. {_advice(table)}"
    body = draw_table(COLUMNS, rows, label="Recall@1 of smaller embeddings")
    return Section("compression", "Smaller embeddings", lead, body)


def _advice(table: Sequence[Mapping[str, Any]]) -> str:
    """The smallest kind that costs little, in a sentence."""
    full = table[0]
    least = full["recall_at_1"] - AFFORDABLE_LOSS - 1e-9
    smallest = min((entry for entry in table if entry["recall_at_1"] >= least), key=_bytes)
    if smallest is full:
        return f"None of the smaller ones stays within {AFFORDABLE} of the full ones."
    share = percent(_bytes(smallest) / _bytes(full))
    return (
        f"The smallest within {AFFORDABLE} of the full ones: {smallest['dimensions']:,} "
        f"dimensions in {smallest['precision']}, {share} of the bytes."
    )


def _row(entry: Mapping[str, Any], full: Mapping[str, Any]) -> list[Cell]:
    found = entry["recall_at_1"]
    change = found - full["recall_at_1"]
    return [
        Cell(f"{entry['dimensions']:,}", entry["dimensions"]),
        Cell(entry["precision"], entry["precision"]),
        Cell(percent(found), found, bar=found),
        Cell(_points_text(change), change),
        Cell(f"{_bytes(entry):,}", _bytes(entry)),
        Cell(_size_text(_bytes(entry) * 10**6), _bytes(entry)),
    ]


def _points_text(change: float) -> str:
    return f"{100 * change:+.1f}" if abs(change) >= 5e-4 else "0"


def _bytes(entry: Mapping[str, Any]) -> int:
    return int(entry["bytes"])


def _size_text(count: float) -> str:
    place = 0
    while count >= 1000 and place < len(UNITS) - 1:
        count, place = count / 1000, place + 1
    return f"{count:.3g}\N{NO-BREAK SPACE}{UNITS[place]}"
