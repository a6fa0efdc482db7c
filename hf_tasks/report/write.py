"""The page of a run, chosen by the kind of answers that its task gives."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hf_tasks.contract.answers import ClassificationAnswers, LanguageAnswers, PairAnswers, RetrievalAnswers
from hf_tasks.report import record
from hf_tasks.report.classification import classification_page
from hf_tasks.report.language import language_page
from hf_tasks.report.page import Page, Verdict, figure, write_page
from hf_tasks.report.pairs import pair_page
from hf_tasks.report.pictures import no_pictures
from hf_tasks.report.record import RunRecord
from hf_tasks.report.retrieval import retrieval_page

PAGES: Mapping[type, Callable[..., Page]] = {
    ClassificationAnswers: classification_page,
    RetrievalAnswers: retrieval_page,
    PairAnswers: pair_page,
    LanguageAnswers: language_page,
}
"""(run, answers, examples in each gallery) -> the page, by the kind of answers."""


def write_report(path: Path, run: RunRecord, answers: Any, *, wrong_images: int) -> None:
    """Write the page: all that is known of the kind of answers, else what every run has.

    Args:
        path: HTML file to write.
        run: what the run left behind.
        answers: of Predictions.
        wrong_images: examples in each gallery or list.
    """
    build = PAGES.get(type(answers), plain_page)
    page = build(run, answers, wrong_images)
    write_page(
        path, title=run.name, kind=run.task, verdict=page.verdict, sections=page.sections, book=page.book
    )


def plain_page(run: RunRecord, answers: Any, count: int) -> Page:
    """What every run has."""
    singles = (f"{name} {figure(value)}" for name, value in run.metrics.items() if isinstance(value, float))
    sections = [record.metric_section(run), *record.closing_sections(run)]
    return Page(Verdict(next(singles, "No figures"), []), sections, no_pictures())
