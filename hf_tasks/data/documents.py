"""Documents of a text file, a table or a Hub data set, memory-mapped: the file may be larger than memory."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.data.cache import content_hash, explained_os_errors, memory_mapped
from hf_tasks.data.encoding import open_text, wrong_encoding
from hf_tasks.data.portions import in_portions
from hf_tasks.data.problems import nearest
from hf_tasks.data.skipping import without_rows
from hf_tasks.data.sources import HubSource, TableSource, TextFile, TextTable, source_name
from hf_tasks.data.texts import arrow_column, blank_rows, load_columns, require_text_type, require_texts
from hf_tasks.errors import DataError

# What Python reads wrong bytes as, so that the text around them is kept.
ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
FEATURES = datasets.Features({"text": datasets.Value("large_string"), "fault": datasets.Value("string")})

Line = tuple[int, str]
"""Its number, from 1, and its text."""


def load_documents(
    source: TextFile | TextTable | TableSource | HubSource,
    *,
    column: str,
    key: str = "data",
    skipped: list[dict[str, Any]] | None = None,
) -> datasets.Dataset:
    """Documents in the column `text`, none of them blank, in the order of the source.

    Documents that cannot be used, blank cells and lines with wrong bytes, are put into `skipped`, where it is
    given, instead of being refused. Blank lines of a text file only part its documents.

    Args:
        source: where they come from.
        column: column of a table or Hub data set.
        key: recipe section of the source, as `data.train`, for messages.
        skipped: entries for data.json.

    Raises:
        DataError: something is missing, empty or broken; names the file and the line.
    """
    if isinstance(source, TextFile):
        documents, reasons = read_text_file(source, key=key)
        if reasons and skipped is None:
            raise wrong_encoding(Path(source.text).expanduser(), source.encoding, key)
    else:
        documents, reasons = _of_rows(source, column, key, is_strict=skipped is None)
    kept, entries = without_rows(documents, reasons, section=key.removeprefix("data."))
    if skipped is not None:
        skipped += entries
    return kept


def read_text_file(source: TextFile, *, key: str = "data") -> tuple[datasets.Dataset, dict[int, str]]:
    """All documents of a text file in the column `text`, and by place, from 0, why one cannot be decoded.

    The text of such a document is empty.

    Raises:
        DataError: the file is missing, has no text, or is not written in the encoding at all.
    """
    path = Path(source.text).expanduser()
    if not path.is_file():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{key}.text: no file {path}{nearest(path.name, siblings)}")

    def read() -> tuple[datasets.Features, Iterator[pa.RecordBatch]]:
        return FEATURES, _batches(path, source, key)

    with explained_os_errors(key, source.text):
        rows = memory_mapped(["documents", content_hash(path), source.encoding, source.documents], read)
    if len(rows) == 0:
        raise DataError(f"{key}: {source.text} has no text; wanted at least one document")
    faults = arrow_column(rows, "fault")
    places = np.flatnonzero(pc.is_valid(faults).to_numpy())
    reasons = dict(zip(places.tolist(), faults.take(pa.array(places)).to_pylist(), strict=True))
    return rows.select_columns(["text"]), reasons


def _batches(path: Path, source: TextFile, key: str) -> Iterator[pa.RecordBatch]:
    with open_text(path, source.encoding, key, errors="surrogateescape") as file:
        lines = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, start=1))
        documents = _lines(lines) if source.documents == "lines" else _paragraphs(lines)
        for batch in in_portions(documents, lambda document: len(document[1])):
            yield _record_batch(batch, source.encoding)


def _record_batch(documents: Sequence[Line], encoding: str) -> pa.RecordBatch:
    texts = [text for _, text in documents]
    faults: list[str | None] = [None] * len(texts)
    try:
        column = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        faults = [_fault(document, encoding) for document in documents]
        usable = ["" if fault else text for text, fault in zip(texts, faults, strict=True)]
        column = pa.array(usable, pa.large_string())
    return pa.record_batch([column, pa.array(faults, pa.string())], schema=FEATURES.arrow_schema)


def _fault(document: Line, encoding: str) -> str | None:
    first_line, text = document
    wrong = ESCAPED_BYTES.search(text)
    if wrong is None:
        return None
    line = first_line + text.count("\n", 0, wrong.start())
    return f"line {line}: byte 0x{ord(wrong[0]) - 0xDC00:02x} is not {encoding}"


def _lines(lines: Iterator[Line]) -> Iterator[Line]:
    return ((number, line) for number, line in lines if line.strip())


def _paragraphs(lines: Iterator[Line]) -> Iterator[Line]:
    """Runs of lines that are not blank, each with the number of its first line."""
    for is_blank, run in groupby(lines, key=lambda numbered: not numbered[1].strip()):
        if not is_blank:
            paragraph = list(run)
            yield paragraph[0][0], "\n".join(line for _, line in paragraph)


def _of_rows(
    source: TextTable | TableSource | HubSource, column: str, key: str, *, is_strict: bool
) -> tuple[datasets.Dataset, dict[int, str]]:
    """All rows of a table with their texts in the column `text`, and by place which of them are blank."""
    rows = load_columns(source, {"data.columns.text": column}, key=key)
    where = f"{key} ({source_name(source)})"
    require_text_type(rows, column, key="data.columns.text", where=where)
    if is_strict:
        require_texts(rows, {"data.columns.text": column}, where=where)
    reasons = {place: f"no text in column '{column}'" for place in blank_rows(rows, column)}
    return (rows if column == "text" else rows.rename_column(column, "text")), reasons
