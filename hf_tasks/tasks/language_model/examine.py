"""What is wrong with the documents of a recipe, all of it together and before training."""

from collections.abc import Collection

import datasets

from hf_tasks.contract.examination import Examination, Finding, FoundRow, SourceRows
from hf_tasks.data.cleaning import sample_by_class
from hf_tasks.data.documents import read_text_file
from hf_tasks.data.duplicate_findings import find_duplicates, shared_places
from hf_tasks.data.sources import HubSource, TextFile, TextTable, source_name
from hf_tasks.data.text_findings import find_blank, find_misread, find_undecodable, normal_text, text_row
from hf_tasks.data.texts import load_whole, require_text_type
from hf_tasks.errors import DataError
from hf_tasks.tasks.language_model.settings import Settings

SAMPLE_ROWS = 20_000
COMPARED_ROWS = 500_000
"""Documents of a source that are compared with all others, whatever else is looked at."""


def examine(settings: Settings, everything: bool, seed: int) -> Examination:
    """Look at the documents of a sample, or at all; all are compared. Blocks hold long ones whole."""
    column = settings.data.columns.text
    findings, sources = list[Finding](), dict[str, SourceRows]()
    rows, texts, undecodable = list[FoundRow](), list[str | None](), list[FoundRow]()
    compared, contents = list[tuple[str, int]](), list[str | None]()
    for section, source in _sections(settings).items():
        try:
            loaded, reasons = _load(source, column, key=f"data.{section}")
        except DataError as error:
            findings.append(Finding.of_error(error, kind=f"data.{section} cannot be used"))
            continue
        limit = len(loaded) if everything else SAMPLE_ROWS
        undecodable += [
            FoundRow(section, place + 1, reason, is_left_out=True) for place, reason in reasons.items()
        ]
        places = _sample(len(loaded), reasons, limit=limit, seed=seed)
        sources[section] = SourceRows(loaded, places)
        found = loaded.select(places)[column][:]
        texts += found
        rows += [text_row(section, place + 1, [text]) for place, text in zip(places, found, strict=True)]
        wide = _sample(len(loaded), reasons, limit=max(limit, COMPARED_ROWS), seed=seed)
        compared += [(section, place) for place in wide]
        contents += [_content(text) for text in loaded.select(wide)[column]]
    single = [(text,) for text in texts]
    findings += [*find_undecodable(undecodable), *find_blank(rows, single), *find_misread(rows, single)]
    shared = shared_places(contents)
    again = [
        text_row(section, place + 1, [sources[section].rows[place][column]])
        for section, place in map(compared.__getitem__, shared)
    ]
    findings += find_duplicates(again, [contents[index] for index in shared], what="documents")
    return Examination(findings, sources)


def _sample(count: int, left_out: Collection[int], *, limit: int, seed: int) -> list[int]:
    sample = sample_by_class([None] * count, limit=limit, seed=seed)
    return [place for place in sample if place not in left_out]


def _content(text: str | None) -> str | None:
    """What makes two documents the same; None for a blank one."""
    return normal_text(text) if text and text.strip() else None


def _sections(settings: Settings) -> dict[str, TextFile | TextTable | HubSource]:
    named = {"train": settings.data.train, "validation": settings.data.validation}
    return {section: source for section, source in named.items() if not isinstance(source, float)}


def _load(
    source: TextFile | TextTable | HubSource, column: str, *, key: str
) -> tuple[datasets.Dataset, dict[int, str]]:
    """All documents in a column, and by place, from 0, why one cannot be decoded."""
    if not isinstance(source, TextFile):
        rows = load_whole(source, {"data.columns.text": column}, key=key)
        where = f"{key} ({source_name(source)})"
        require_text_type(rows, column, key="data.columns.text", where=where)
        return rows, {}
    documents, reasons = read_text_file(source, key=key)
    return documents.rename_column("text", column) if column != "text" else documents, reasons
