"""The page of a classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.report import certainty, record
from hf_tasks.report.captions import caption, confidence, wrong_examples
from hf_tasks.report.confusion import MOST_CLASSES, draw_label_outcomes, draw_matrix, draw_mix_ups
from hf_tasks.report.page import Page, Section, percent, render
from hf_tasks.report.pictures import PictureBook
from hf_tasks.report.record import RunRecord
from hf_tasks.report.suspects import suspected_label_errors
from hf_tasks.report.tables import Cell, Column, draw_table
from hf_tasks.report.verdict import classification_verdict

RATES = ("f1", "precision", "recall", "average_precision", "roc_auc")
UNKNOWN = Cell("\N{EN DASH}", -1.0, bar=0.0)


def classification_page(run: RunRecord, answers: ClassificationAnswers, count: int) -> Page:
    """The page of a classifier.

    Args:
        run: what the run left behind.
        answers: to its validation examples.
        count: pictures in each gallery.
    """
    book = PictureBook(
        answers.load_picture, answers.paths.__getitem__, lambda number: caption(answers, number)
    )
    mistakes = mistake_section(answers, book, count=count)
    suspects = suspect_section(answers, book, count=count)
    confusion = confusion_section(answers, book)
    sizes = [example.size for example in book.examples.values() if example.source]
    sections = [
        record.metric_section(run),
        confusion,
        mistakes,
        suspects,
        class_section(run.metrics),
        certainty.certainty_section(answers, run.metrics),
        certainty.curve_section(answers, run.metrics),
        *record.closing_sections(run, sizes),
    ]
    return Page(classification_verdict(run, answers), sections, book)


def mistake_section(answers: ClassificationAnswers, book: PictureBook, *, count: int) -> Section:
    """The surest of the wrong answers, and the highest losses."""
    wrong = np.flatnonzero(wrong_examples(answers))
    surest = wrong[np.argsort(-confidence(answers)[wrong], kind="stable")][:count]
    costly = np.argsort(-answers.losses_N, kind="stable")[:count]
    parts = {"Most confidently wrong": surest, "Highest losses": costly}
    body = Markup()
    for title, numbers in parts.items():
        if shown := book.add(numbers):
            body += Markup("<h3>{}</h3>").format(title) + render("gallery.html", examples=shown)
    count_all = len(answers.losses_N)
    lead = f"{len(wrong):,} of {count_all:,} pictures are not right; the worst come first."
    if not len(wrong):
        lead = f"All {count_all:,} pictures are right; those that were hardest come first."
    return Section("mistakes", "Mistakes", lead, body)


def suspect_section(answers: ClassificationAnswers, book: PictureBook, *, count: int) -> Section:
    """Examples whose label may be wrong; no section where there are none."""
    suspects = suspected_label_errors(answers)
    shown = book.add(suspects[:count])
    lead = (
        f"{len(suspects):,} of {len(answers.losses_N):,} pictures, where the model is as sure of another "
        "answer as it usually is when right. Look at these first: some are mistakes of the labels."
    )
    body = render("gallery.html", examples=shown) if shown else Markup()
    return Section("suspects", "Suspected labels", lead, body)


def confusion_section(answers: ClassificationAnswers, book: PictureBook) -> Section:
    """What is taken for what; every number opens pictures."""
    if answers.is_multilabel:
        body = draw_label_outcomes(answers, book)
        return Section("confusion", "Labels", "Every number opens its pictures.", body)
    mix_ups = draw_mix_ups(answers, book)
    body = draw_matrix(answers, book)
    if mix_ups:
        body += Markup("<h3>Most frequent mistakes</h3>") + mix_ups
    lead, classes = "Every number opens its pictures.", len(answers.class_names)
    if classes > MOST_CLASSES:
        lead += f" Of {classes:,} classes the {MOST_CLASSES} with the most mistakes are shown."
    return Section("confusion", "Confusions", lead, body)


def class_section(metrics: Mapping[str, Any]) -> Section:
    """Each class with its rates, and the 95 % interval of its F1."""
    per_class = metrics.get("per_class", {})
    if not per_class:
        return Section("classes", "Classes", "", Markup())
    intervals = metrics.get("intervals", {}).get("f1", [None] * len(per_class))
    names = [name for name in RATES if name in next(iter(per_class.values()))]
    rows = []
    for (class_name, row), interval in zip(per_class.items(), intervals, strict=True):
        cells = [Cell(class_name, class_name), Cell(f"{row['support']:,}", row["support"])]
        is_measured = row["support"] > 0
        cells += [_rate_cell(row[name] if is_measured else None) for name in names]
        rows.append([*cells, _between_cell(interval if is_measured else None)])
    columns = [Column("class"), Column("examples"), *(Column(name.replace("_", " ")) for name in names)]
    columns.append(Column("F1 between", "95 % interval; sorted by its lower end"))
    body = draw_table(columns, rows, label="Figures of each class")
    return Section("classes", "Classes", "A click on a column sorts by it.", body)


def _rate_cell(value: float | None) -> Cell:
    return UNKNOWN if value is None else Cell(percent(value), value, bar=value)


def _between_cell(interval: Sequence[float] | None) -> Cell:
    return UNKNOWN if interval is None else Cell(" to ".join(map(percent, interval)), interval[0])
