"""What is wrong with the rows of a recipe, all of it together and before training."""

from collections.abc import Sequence

import datasets

from hf_tasks.contract import Examination, Finding, FoundRow, SourceRows
from hf_tasks.data.cleaning import picture_rows, sample_by_class
from hf_tasks.data.duplicate_findings import find_duplicates
from hf_tasks.data.inspect import slow_progress
from hf_tasks.data.label_findings import LabelledRows, Labels, find_label_faults
from hf_tasks.data.labels import label_texts
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, Source, source_name
from hf_tasks.errors import DataError
from hf_tasks.images.findings import find_near_duplicates, find_picture_faults
from hf_tasks.images.look import PictureFacts, look_at_all
from hf_tasks.tasks.metric_learning.data import picture_names
from hf_tasks.tasks.metric_learning.settings import Settings

SAMPLE_ROWS = 2000
"""Pictures of a section that are looked at, or one of each class where there are more classes."""


def examine(settings: Settings, everything: bool, seed: int) -> Examination:
    """Look at all labels, and at the pictures of a sample that holds each class, or of all rows."""
    columns, findings = settings.data.columns, list[Finding]()
    sources, parts = dict[str, SourceRows](), list[LabelledRows]()
    rows, facts, labels = list[FoundRow](), list[PictureFacts](), list[Labels | None]()
    names = list[str]()
    for section, source in _sections(settings).items():
        try:
            loaded = load_rows(source, key=f"data.{section}", image_column=columns.image)
            column = "label" if isinstance(source, FolderSource) else columns.label
            texts = label_texts(loaded, column, where=f"data.{section} ({source_name(source)})")
        except DataError as error:
            findings.append(Finding.of_error(error, kind=f"data.{section} cannot be used"))
            continue
        labels_N = [None if text is None else (text,) for text in texts.to_pylist()]
        rows_N = [FoundRow(section, place + 1, path) for place, path in enumerate(loaded["path"][:])]
        limit = len(loaded) if everything else max(SAMPLE_ROWS, len(set(labels_N)))
        places = sample_by_class(labels_N, limit=limit, seed=seed)
        parts.append(LabelledRows(rows_N, labels_N))
        sources[section] = picture_rows(
            loaded, source, looked_at=places, image_column=columns.image, label_column=columns.label
        )
        rows += [rows_N[place] for place in places]
        labels += [labels_N[place] for place in places]
        facts += _look(loaded, places)
        names += picture_names(loaded.select(places))
    if parts and parts[0].rows[0].section == "train":
        findings += find_label_faults(parts[0], parts[1:], are_classes_shared=False)
    findings += find_picture_faults(rows, facts, image_size=settings.model.image_size)
    findings += find_duplicates(rows, _contents(names, facts), labels, what="pictures")
    findings += find_near_duplicates(rows, facts, labels)
    return Examination(findings, sources)


def _sections(settings: Settings) -> dict[str, Source]:
    data = settings.data
    named = {
        "train": data.train, "gallery": data.gallery, "query": data.query, "validation": data.validation,
    }  # fmt: skip
    return {section: source for section, source in named.items() if source is not None}


def _contents(names: Sequence[str], facts: Sequence[PictureFacts]) -> list[str | None]:
    """What is compared: of a file that is named twice, as one that is a query and in the gallery, once."""
    seen: set[str] = set()
    contents = []
    for name, fact in zip(names, facts, strict=True):
        is_again = name.startswith("/") and name in seen
        contents.append(None if is_again else fact.content or None)
        seen.add(name)
    return contents


def _look(rows: datasets.Dataset, places: Sequence[int]) -> list[PictureFacts]:
    images = rows.select_columns(["image"])
    with slow_progress("Looking at pictures", len(places)) as advance:
        return list(look_at_all(lambda place: images[place]["image"], places, advance))
