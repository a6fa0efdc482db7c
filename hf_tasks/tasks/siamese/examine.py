"""What is wrong with the rows of a recipe, all of it together and before training."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import datasets

from hf_tasks.contract.examination import Examination, Finding, FoundRow, SourceRows
from hf_tasks.data.cleaning import sample_by_class
from hf_tasks.data.duplicate_findings import find_duplicates, shared_places
from hf_tasks.data.sources import HubSource, TextTable
from hf_tasks.data.text_findings import (
    find_blank,
    find_cut,
    find_misread,
    find_same_texts,
    normal_text,
    text_row,
)
from hf_tasks.data.texts import load_whole, shown_text
from hf_tasks.errors import DataError, ModelError
from hf_tasks.tasks.siamese.data import TEXT_COLUMNS, WITHOUT_LABEL
from hf_tasks.tasks.siamese.labels import label_of
from hf_tasks.tasks.siamese.model import build_static, count_tokens, open_encoder, token_limit
from hf_tasks.tasks.siamese.settings import Settings

SAMPLE_ROWS = 20_000
COMPARED_ROWS = 500_000
"""Rows of a source whose texts are compared with all others, whatever else is looked at."""
IMBALANCE = 10

Texts = tuple[str | None, ...]


def examine(settings: Settings, everything: bool, seed: int) -> Examination:
    """Look at texts and labels of a sample that holds each label, or of all rows; all are compared."""
    findings, sources = list[Finding](), dict[str, SourceRows]()
    rows, texts, labels = list[FoundRow](), list[Texts](), list[float | None]()
    compared = _Compared()
    for section, source in _sections(settings).items():
        try:
            loaded = load_whole(source, _columns(settings), key=f"data.{section}", ways_out=WITHOUT_LABEL)
        except DataError as error:
            findings.append(Finding.of_error(error, kind=f"data.{section} cannot be used"))
            continue
        limit = len(loaded) if everything else SAMPLE_ROWS
        cells = _label_cells(loaded, settings)
        places = sample_by_class(cells, limit=limit, seed=seed)
        sources[section] = SourceRows(loaded, places)
        found = list(_texts_and_labels(loaded.select(places), settings))
        texts += [of_row for of_row, _ in found]
        labels += [label for _, label in found]
        rows += [text_row(section, place + 1, of) for place, (of, _) in zip(places, found, strict=True)]
        wide = sample_by_class(cells, limit=max(limit, COMPARED_ROWS), seed=seed)
        compared.add(section, wide, _texts_and_labels(loaded.select(wide), settings))
    findings += [*find_blank(rows, texts), *find_misread(rows, texts)]
    has_labels = "label" in settings.data.columns.named()
    if has_labels:
        findings += [*_find_unfit(rows, labels), *find_same_texts(rows, texts), *_find_one_sided(labels)]
    findings += [*compared.find_again(has_labels=has_labels), *compared.find_shared()]
    return Examination([*findings, *_find_cut(settings, rows, texts)], sources)


@dataclass
class _Compared:
    """Rows that are compared with all others: where they stand, what they hold as normal_text."""

    places: list[tuple[str, int]] = field(default_factory=list)
    texts: list[Texts] = field(default_factory=list)
    contents: list[tuple[str, ...] | None] = field(default_factory=list)
    labels: list[float | None] = field(default_factory=list)

    def add(self, section: str, places: Sequence[int], found: Iterable[tuple[Texts, float | None]]) -> None:
        """Keep rows of a section."""
        for place, (of_row, label) in zip(places, found, strict=True):
            self.places.append((section, place))
            self.texts.append(of_row)
            self.contents.append(_content(of_row))
            self.labels.append(label)

    def find_again(self, *, has_labels: bool) -> list[Finding]:
        """Pairs that stand there more than once."""
        shared = shared_places(self.contents)
        rows = [
            text_row(section, place + 1, self.texts[index])
            for index, (section, place) in ((index, self.places[index]) for index in shared)
        ]
        labels = [self.labels[index] for index in shared] if has_labels else None
        return find_duplicates(rows, [self.contents[index] for index in shared], labels, what="pairs")

    def find_shared(self) -> list[Finding]:
        """Texts of a validation source that training rows have too, each once."""
        trained, shared = set[str](), dict[str, str]()
        for (section, _), content in zip(self.places, self.contents, strict=True):
            if section == "train":
                trained.update(content or ())
        for (section, _), of_row, content in zip(self.places, self.texts, self.contents, strict=True):
            if section != "train" and not trained.isdisjoint(content or ()):
                normal = {normal_text(text): text for text in of_row if text}
                shared |= {key: text for key, text in normal.items() if key in trained}
        examples = tuple(shown_text(text) for text in shared.values())
        advice = "the figures tell less of new texts; `validation: 0.2` keeps each text on one side"
        kind = "texts to train on and to measure on, in other pairs"
        return [Finding("warning", kind, advice, examples=examples)] if examples else []


def _sections(settings: Settings) -> dict[str, TextTable | HubSource]:
    named = {"train": settings.data.train, "validation": settings.data.validation}
    return {section: source for section, source in named.items() if not isinstance(source, float)}


def _columns(settings: Settings) -> dict[str, str]:
    return {f"data.columns.{part}": name for part, name in settings.data.columns.named().items()}


def _label_cells(rows: datasets.Dataset, settings: Settings) -> list[object]:
    """What stands in the column of labels, so that a rare label is in every sample."""
    column = settings.data.columns.named().get("label")
    return [None] * len(rows) if column is None else rows[column][:]


def _texts_and_labels(rows: datasets.Dataset, settings: Settings) -> Iterator[tuple[Texts, float | None]]:
    """The texts and the label of each row; no label where its cell holds none that fits."""
    named = settings.data.columns.named()
    texts = [rows[named[part]][:] for part in TEXT_COLUMNS if part in named]
    labels = rows[named["label"]][:] if "label" in named else [None] * len(rows)
    for *of_row, label in zip(*texts, labels, strict=True):
        yield tuple(None if text is None else str(text) for text in of_row), label_of(label)


def _content(texts: Texts) -> tuple[str, ...] | None:
    """What makes two rows the same: their texts as normal_text; which comes first plays no part in a pair."""
    normal = [normal_text(text) for text in texts if text is not None and text.strip()]
    if len(normal) < len(texts):
        return None
    return tuple(sorted(normal) if len(normal) == 2 else normal)


def _find_unfit(rows: Sequence[FoundRow], labels: Sequence[float | None]) -> list[Finding]:
    found = tuple(
        replace(row, is_left_out=True) for row, label in zip(rows, labels, strict=True) if label is None
    )
    kind = "labels that are neither 0, 1 nor a score between"
    return [Finding("error", kind, "mend them, or remove the rows", found)] if found else []


def _find_one_sided(labels: Sequence[float | None]) -> list[Finding]:
    """Labels 0 and 1 of which one is far more common."""
    counts = Counter(label for label in labels if label is not None)
    if not set(counts) <= {0.0, 1.0} or len(counts) < 2:
        return []
    largest, smallest = max(counts.values()), min(counts.values())
    if largest < IMBALANCE * smallest:
        return []
    kind = f"one label is {largest // smallest} times as common as the other"
    example = ", ".join(f"{label:g}: {count}" for label, count in sorted(counts.items()))
    return [Finding("warning", kind, "look at average precision, not accuracy", examples=(example,))]


def _find_cut(settings: Settings, rows: Sequence[FoundRow], texts: Sequence[Texts]) -> list[Finding]:
    """Rows with a text above what the encoder reads."""
    static, max_length = settings.model.static, settings.model.max_length
    try:
        encoder = open_encoder(settings.model)
    except ModelError:  # which the trial tells
        return []
    if static is not None and max_length is not None:
        # Its tokens are learnt anew at each training; those of the rows that were looked at stand for them.
        trained = {
            text
            for row, of_row in zip(rows, texts, strict=True)
            if row.section == "train"
            for text in of_row
            if text
        }
        encoder = build_static(static, sorted(trained), max_length=max_length)
    limit = None if encoder is None else token_limit(encoder)
    if encoder is None or limit is None:
        return []
    lengths = [max(count_tokens(encoder, [text or "" for text in of_row])) for of_row in texts]
    return find_cut(rows, lengths, limit)
