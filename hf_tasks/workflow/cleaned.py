"""A cleaned copy of the data of a recipe, and a recipe that trains on it."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from hf_tasks.data.cleaning import places_without, write_rows
from hf_tasks.errors import UserError
from hf_tasks.files import write_text, written_aside
from hf_tasks.recipe.document import dump_document
from hf_tasks.workflow.checking import CheckReport, left_out, new_labels, with_sources


def require_new_folder(folder: Path) -> None:
    """Check that nothing would be written over.

    Raises:
        UserError: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--fix: {folder} is not empty; nothing was touched: name a new folder")


def write_cleaned(report: CheckReport, folder: Path) -> dict[str, tuple[int, int]]:
    """Write a table for each source, `left_out.csv`, `mended.csv` and `recipe.yaml`, which trains on them.

    Rows with a reason to be left out are; labels that are one and the same name are spelt alike.

    Args:
        report: of a check that looked at every row.
        folder: new or empty.

    Returns:
        By section: rows that were kept, and rows there are.

    Raises:
        UserError: the folder holds something, the recipe could not be read, or no row of a source is usable.
    """
    require_new_folder(folder)
    if report.recipe is None or "train" not in report.examination.sources:
        raise UserError("--fix: nothing is written, as the rows to train on cannot be read; mend that first")
    sources, counts, dropped, mended = {}, {}, list[Sequence[object]](), list[Sequence[object]]()
    for section, source in report.examination.sources.items():
        reasons, labels = (
            left_out(report.examination.findings, section),
            new_labels(report.examination, section),
        )
        kept = places_without(len(source.rows), reasons)
        if not kept:
            raise UserError(f"--fix: no row of data.{section} would be left; mend what is listed of them")
        sources[section] = write_rows(source, folder / section, kept=kept, labels=labels)
        counts[section] = (len(kept), len(source.rows))
        dropped += [(section, place + 1, *reasons[place]) for place in sorted(reasons)]
        mended += [(section, place + 1, labels[place]) for place in sorted(labels) if place not in reasons]
    _write_csv(folder / "left_out.csv", ("section", "row", "reason", "found"), dropped)
    _write_csv(folder / "mended.csv", ("section", "row", "label"), mended)
    values = with_sources(yaml.safe_load(report.recipe.text), sources)
    write_text(folder / "recipe.yaml", dump_document(values))
    return counts


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
