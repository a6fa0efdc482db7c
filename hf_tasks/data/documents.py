"""Documents of a text file, a table or a Hub data set, memory-mapped: the file may be larger than memory."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa

from hf_tasks.data.cache import content_hash, explained_os_errors, memory_mapped
from hf_tasks.data.encoding import open_text
from hf_tasks.data.problems import nearest
from hf_tasks.data.sources import HubSource, TableSource, TextFile, TextTable, source_name
from hf_tasks.data.texts import arrow_column, blank_rows, load_columns
from hf_tasks.errors import DataError

BATCH_DOCUMENTS = 1000
FEATURES = datasets.Features({"text": datasets.Value("large_string")})


def load_documents(
    source: TextFile | TextTable | TableSource | HubSource, *, column: str, key: str = "data"
) -> datasets.Dataset:
    """Documents in the column `text`, none of them blank, in the order of the source.

    Args:
        source: where they come from.
        column: column of a table or Hub data set.
        key: recipe section of the source, as `data.train`, for messages.

    Raises:
        DataError: something is missing, empty or broken; names the file and the line.
    """
    name = source_name(source)
    with explained_os_errors(key, name):
        documents = _of_file(source, key) if isinstance(source, TextFile) else _of_rows(source, column, key)
    if len(documents) == 0:
        raise DataError(f"{key}: {name} has no text; wanted at least one document")
    return documents


def _of_file(source: TextFile, key: str) -> datasets.Dataset:
    path = Path(source.text).expanduser()
    if not path.is_file():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{key}.text: no file {path}{nearest(path.name, siblings)}")

    def read() -> tuple[datasets.Features, Iterator[pa.RecordBatch]]:
        return FEATURES, _batches(path, source, key)

    return memory_mapped(["documents", content_hash(path), source.encoding, source.documents], read)


def _batches(path: Path, source: TextFile, key: str) -> Iterator[pa.RecordBatch]:
    with open_text(path, source.encoding, key) as file:
        lines = (line.rstrip("\r\n") for line in file)
        documents = _lines(lines) if source.documents == "lines" else _paragraphs(lines)
        while batch := list(islice(documents, BATCH_DOCUMENTS)):
            yield pa.record_batch([pa.array(batch, pa.large_string())], schema=FEATURES.arrow_schema)


def _lines(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Runs of lines that are not blank."""
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph)


def _of_rows(source: TextTable | TableSource | HubSource, column: str, key: str) -> datasets.Dataset:
    rows = load_columns(source, {"data.columns.text": column}, key=key)
    kind = rows.features[column]
    if not isinstance(kind, datasets.Value) or kind.dtype not in {"string", "large_string"}:
        raise DataError(
            f"data.columns.text: column '{column}' of {source_name(source)} holds {kind}; wanted texts"
        )
    blank = set(blank_rows(rows, column))
    texts = arrow_column(rows, column).cast(pa.large_string())
    documents = datasets.Dataset(pa.table({"text": texts}))
    if blank:
        documents = documents.select([row for row in range(len(documents)) if row not in blank])
    return documents
