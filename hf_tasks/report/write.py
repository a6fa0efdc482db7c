"""The page of a run, chosen by the kind of answers that its task gives."""

from pathlib import Path
from typing import Any

from PIL import Image

from hf_tasks.contract import ClassificationAnswers
from hf_tasks.report import record
from hf_tasks.report.classification import write_classification_report
from hf_tasks.report.page import Verdict, figure, write_page
from hf_tasks.report.pictures import PictureBook
from hf_tasks.report.record import RunRecord


def write_report(path: Path, run: RunRecord, answers: Any, *, wrong_images: int) -> None:
    """Write the page: all that is known of the kind of answers, else what every run has.

    Args:
        path: HTML file to write.
        run: what the run left behind.
        answers: of Predictions.
        wrong_images: pictures in each gallery.
    """
    if isinstance(answers, ClassificationAnswers):
        write_classification_report(path, run, answers, wrong_images=wrong_images)
        return
    sections = [
        record.metric_section(run),
        record.curve_section(run),
        record.data_section(run),
        record.export_section(run),
        record.recipe_section(run),
        record.environment_section(run),
    ]
    singles = (f"{name} {figure(value)}" for name, value in run.metrics.items() if isinstance(value, float))
    verdict = Verdict(next(singles, "No figures"), [])
    book = PictureBook(_no_picture, [], lambda number: None)
    write_page(path, title=run.name, kind=run.task, verdict=verdict, sections=sections, book=book)


def _no_picture(number: int) -> Image.Image:
    raise IndexError(f"example {number}: this page has no pictures")
